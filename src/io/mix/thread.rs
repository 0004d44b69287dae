//! The work of a mix, turn by turn, and the loop of those that have a thread of their own.
//!
//! Packets are handled as they come: from the net thread directly where the mix works there, or else through a ring. A turn
//! is due once something was pushed (a telephone's packet, a command) or the next tick has come. It makes no system
//! call but at most one wake for each of its consumers. Ticks lie on multiples of 20 ms. A late one is counted; what it made
//! impossible is skipped, never played in a burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringbuf::traits::{Consumer, Observer};
use ringbuf::{HeapCons, HeapProd};

use super::health::MixHealth;
use crate::io::clock::Clock;
use crate::io::rings::{Target, ToMix, ToNet, Tray, push_or_drop};
use crate::io::wake::Wake;
use crate::media::control::{Command, Heard, LegKey, MixEvent, Retired, StreamKey, TICK};
use crate::media::engine::{Engine, Sink};
use crate::time::Instant;

/// Packets handled before the clock is looked at again: a full ring must not hold up a tick.
const PACKETS_A_TURN: usize = 64;

/// Commands carried out between two ticks' looks at the clock.
const COMMANDS_A_TURN: usize = 32;

/// The ends of the rings, and who is to be woken.
pub(super) struct Wiring {
    pub(super) clock: Clock,
    pub(super) health: Arc<MixHealth>,
    pub(super) commands: HeapCons<Command>,
    pub(super) outbox: Outbox,
}

/// A mix: the engine between its rings.
pub(in crate::io) struct MixWork {
    wiring: Wiring,
    engine: Box<Engine>,
    next_tick: Instant,
}

/// A mix on a thread of its own, with the packets that the net thread has for it.
pub(super) struct MixThread {
    pub(super) work: MixWork,
    pub(super) packets: HeapCons<ToMix>,
}

/// How packets come to the net thread.
pub(super) enum WayOut {
    /// To another thread.
    Ring(HeapProd<ToNet>),
    /// The mix works there.
    Tray(Tray),
}

/// The engine's sink: rings.
pub(super) struct Outbox {
    pub(super) to_net: WayOut,
    pub(super) events: HeapProd<MixEvent>,
    pub(super) retired: HeapProd<Retired>,
    pub(super) net: Arc<Wake>,
    pub(super) signalling: Arc<Wake>,
    pub(super) has_packets: bool,
    pub(super) has_events: bool,
}

impl Sink for Outbox {
    fn packet(&mut self, leg: LegKey, packet: &[u8]) -> bool {
        match &mut self.to_net {
            WayOut::Ring(ring) => {
                self.has_packets = true;
                push_or_drop(ring, ToNet::new(leg, packet))
            }
            WayOut::Tray(tray) => tray.put(leg, packet),
        }
    }

    fn heard(&mut self, leg: LegKey, heard: &Heard) {
        match &mut self.to_net {
            WayOut::Ring(ring) => {
                self.has_packets = true;
                // Should it be full, the next one tells of this one's time too.
                push_or_drop(ring, ToNet::heard(leg, *heard));
            }
            WayOut::Tray(tray) => tray.put_heard(leg, *heard),
        }
    }

    fn event(&mut self, event: MixEvent) {
        self.has_events = true;
        // Dropped if signalling has not read a thousand of them; it has more pressing worries then.
        push_or_drop(&mut self.events, event);
    }

    fn retire(&mut self, retired: Retired) {
        self.has_events = true;
        // The handle never hands out more than the ring holds.
        push_or_drop(&mut self.retired, retired);
    }
}

impl Outbox {
    /// Wakes whom there is something for, once.
    fn wake(&mut self) {
        if std::mem::take(&mut self.has_packets) {
            self.net.wake();
        }
        if std::mem::take(&mut self.has_events) {
            self.signalling.wake();
        }
    }
}

impl MixWork {
    pub(super) fn new(wiring: Wiring) -> Self {
        let next_tick = tick_after(wiring.clock.now());
        Self { wiring, engine: Box::new(Engine::new()), next_tick }
    }

    /// A packet, as it was received and decrypted.
    pub(in crate::io) fn handle_packet(&mut self, target: Target, arrival: Instant, packet: &[u8]) {
        match target {
            Target::Caller(caller) => {
                self.engine.handle_telephone_packet(arrival, caller, packet, &mut self.wiring.outbox);
            }
            Target::Stream(stream) => self.engine.handle_stream_packet(arrival, stream, packet),
        }
    }

    /// Whether a room voice has been played ahead of the next tick.
    pub(in crate::io) fn is_ahead(&self, stream: StreamKey) -> bool {
        self.engine.is_ahead(stream)
    }

    /// What is to be sent, where the mix works on the net thread.
    pub(in crate::io) const fn tray(&mut self) -> Option<&mut Tray> {
        match &mut self.wiring.outbox.to_net {
            WayOut::Tray(tray) => Some(tray),
            WayOut::Ring(_) => None,
        }
    }

    /// Does what is due, after the packets; true if that is not all.
    pub(in crate::io) fn turn(&mut self) -> bool {
        let idle = self.engine.is_empty();
        let more = self.carry_out_commands();
        if idle && !self.engine.is_empty() {
            self.next_tick = tick_after(self.wiring.clock.now());
        }
        let now = self.wiring.clock.now();
        if self.engine.next_timeout().is_some_and(|deadline| deadline.at <= now) {
            self.engine.handle_timeout(now, &mut self.wiring.outbox);
        }
        if !self.engine.is_empty() && now >= self.next_tick {
            self.tick(now);
        }
        self.wiring.outbox.wake();
        more
    }

    /// A command was pushed.
    pub(in crate::io) fn has_work(&self) -> bool {
        !self.wiring.commands.is_empty()
    }

    /// There is a room, hence ticks.
    pub(in crate::io) fn has_ticks(&self) -> bool {
        !self.engine.is_empty()
    }

    /// When a turn is due although nothing is pushed.
    pub(in crate::io) fn next_turn(&self) -> Option<Instant> {
        if self.engine.is_empty() {
            return None;
        }
        Some(self.engine.next_timeout().map_or(self.next_tick, |deadline| deadline.at.min(self.next_tick)))
    }

    fn carry_out_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_A_TURN {
            let Some(command) = self.wiring.commands.try_pop() else { return false };
            self.engine.handle_command(command, &mut self.wiring.outbox);
        }
        true
    }

    fn tick(&mut self, now: Instant) {
        let tick_us = TICK.as_micros() as u64;
        let begin_us = now.saturating_since(self.next_tick).as_micros() as u64;
        let missed = clamped(begin_us / tick_us);
        self.engine.tick(now, missed, &mut self.wiring.outbox);
        let took = self.wiring.clock.now().saturating_since(now);
        let health = &self.wiring.health;
        health.tick(clamped(begin_us), clamped(took.as_micros() as u64), missed);
        health.set_orphans(clamped(self.engine.orphans()));
        self.next_tick += Duration::from_micros(tick_us * (u64::from(missed) + 1));
    }
}

impl MixThread {
    /// Until told to stop.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            let mut more = self.handle_packets();
            more |= self.work.turn();
            if !more {
                self.sleep();
            }
        }
    }

    fn handle_packets(&mut self) -> bool {
        for _ in 0..PACKETS_A_TURN {
            let Some(slot) = self.packets.first() else { return false };
            self.work.handle_packet(slot.target, slot.arrival, slot.packet());
            self.packets.skip(1);
        }
        true
    }

    /// `Thread::unpark` before or during this ends it at once, so nothing that is pushed is slept through.
    fn sleep(&self) {
        let Some(until) = self.work.next_turn() else {
            std::thread::park();
            return;
        };
        let wait = until.saturating_since(self.work.wiring.clock.now());
        if !wait.is_zero() {
            std::thread::park_timeout(wait);
        }
    }
}

fn clamped(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The first multiple of 20 ms after `now`: the net thread reads the room voices just before it.
fn tick_after(now: Instant) -> Instant {
    let tick_us = TICK.as_micros() as u64;
    Instant::from_us((now.as_us() / tick_us + 1) * tick_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::mix::MixReport;
    use crate::io::rings::{Made, ring};
    use crate::media::control::{Caller, CallerKey, CallerSetup, Room, RoomKey, Telephone, TelephoneCodec};
    use crate::wire::rtp::RtpHeader;

    #[test]
    fn ticks_lie_on_multiples_of_20_ms() {
        assert_eq!(tick_after(Instant::from_us(0)).as_us(), 20_000);
        assert_eq!(tick_after(Instant::from_us(19_999)).as_us(), 20_000);
        assert_eq!(tick_after(Instant::from_us(20_000)).as_us(), 40_000);
    }

    #[test]
    fn a_late_tick_is_counted_and_what_it_missed_is_skipped_not_made_up_for() {
        let (_commands, thread_commands) = ring(1);
        let ((events, _events), (retired, _retired)) = (ring(1), ring(1));
        let (health, wake) = (Arc::new(MixHealth::default()), Arc::new(Wake::new().unwrap()));
        let (net, signalling) = (Arc::clone(&wake), wake);
        let to_net = WayOut::Tray(Tray::new());
        let outbox = Outbox { to_net, events, retired, net, signalling, has_packets: false, has_events: false };
        let (clock, commands) = (Clock::start(), thread_commands);
        let mut work = MixWork::new(Wiring { clock, health: Arc::clone(&health), commands, outbox });
        let telephone = Telephone::new(TelephoneCodec::Pcmu, 0);
        let (key, room) = (CallerKey(1), RoomKey(1));
        let setup =
            CallerSetup { key, leg: LegKey(1), telephone, ssrc: 1, first_sequence: 7, first_timestamp: 0, agc: true };
        let caller = Box::new(Caller::new(&setup).expect("libopus has memory"));
        for command in [
            Command::OpenRoom(Box::new(Room::new(room))),
            Command::AddCaller { room, caller },
            Command::StartTelephone(key),
        ] {
            work.engine.handle_command(command, &mut work.wiring.outbox);
        }
        let due = work.next_tick;
        work.tick(due);
        // The next one was due after 20 ms and comes after 85: three were due in between.
        work.tick(due + Duration::from_millis(85));
        assert_eq!(work.next_tick, due + Duration::from_millis(100));
        let mut report = MixReport::default();
        health.take_into(&mut report);
        assert_eq!((report.ticks(), report.late_ticks, report.latest_begin_us), (2, 3, 65_000));
        let mut sent = Vec::new();
        for slot in work.tray().unwrap().take() {
            let Made::Packet(len, bytes) = slot.made() else { panic!() };
            let (header, _) = RtpHeader::parse(&bytes[..len]).unwrap();
            sent.push((header.sequence_number, header.timestamp));
        }
        assert_eq!(sent, [(7, 0), (8, 4 * 160)]);
    }
}
