//! The work of a mix, turn by turn, and the loop of those that have a thread of their own.
//!
//! A turn is due once something was pushed (a telephone's packet, a command) or the next tick has come. It makes no system
//! call but at most one wake for each of its consumers. Ticks lie on multiples of 20 ms. A late one is counted; what it made
//! impossible is skipped, never played in a burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ringbuf::traits::{Consumer, Observer};
use ringbuf::{HeapCons, HeapProd};

use crate::io::clock::Clock;
use crate::io::rings::{Target, ToMix, ToNet, push_or_drop};
use crate::io::wake::Wake;
use crate::media::control::{Command, LegKey, MixEvent, Retired, TICK};
use crate::media::engine::{Engine, Sink};
use crate::time::Instant;

/// Packets handled before the clock is looked at again: a full ring must not hold up a tick.
const PACKETS_A_TURN: usize = 64;

/// Commands carried out between two ticks' looks at the clock.
const COMMANDS_A_TURN: usize = 32;

/// How a mix thread does, for whoever wants to know.
#[derive(Debug, Default)]
pub(super) struct MixHealth {
    pub(super) ticks: AtomicU32,
    pub(super) late_ticks: AtomicU32,
    /// The longest tick so far, in µs.
    pub(super) longest_tick_us: AtomicU32,
    pub(super) orphans: AtomicU32,
}

/// The ends of the rings, and who is to be woken.
pub(super) struct Wiring {
    pub(super) clock: Clock,
    pub(super) health: Arc<MixHealth>,
    pub(super) commands: HeapCons<Command>,
    pub(super) packets: HeapCons<ToMix>,
    pub(super) outbox: Outbox,
}

/// A mix: the engine between its rings.
pub(in crate::io) struct MixWork {
    wiring: Wiring,
    engine: Box<Engine>,
    next_tick: Instant,
}

/// The engine's sink: rings.
pub(super) struct Outbox {
    pub(super) to_net: HeapProd<ToNet>,
    pub(super) events: HeapProd<MixEvent>,
    pub(super) retired: HeapProd<Retired>,
    pub(super) net: Arc<Wake>,
    pub(super) signalling: Arc<Wake>,
    pub(super) has_packets: bool,
    pub(super) has_events: bool,
}

impl Sink for Outbox {
    fn packet(&mut self, leg: LegKey, packet: &[u8]) -> bool {
        self.has_packets = true;
        push_or_drop(&mut self.to_net, ToNet::new(leg, packet))
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

    /// The loop of a thread of its own, until told to stop.
    pub(super) fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            if !self.turn() {
                self.sleep();
            }
        }
    }

    /// Does what there is to do; true if that is not all.
    pub(in crate::io) fn turn(&mut self) -> bool {
        let idle = self.engine.is_empty();
        let mut more = self.carry_out_commands();
        if idle && !self.engine.is_empty() {
            self.next_tick = tick_after(self.wiring.clock.now());
        }
        more |= self.handle_packets();
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

    /// Something was pushed.
    pub(in crate::io) fn has_work(&self) -> bool {
        !self.wiring.commands.is_empty() || !self.wiring.packets.is_empty()
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

    fn handle_packets(&mut self) -> bool {
        let Wiring { packets, outbox, .. } = &mut self.wiring;
        for _ in 0..PACKETS_A_TURN {
            let Some(slot) = packets.first() else { return false };
            match slot.target {
                Target::Caller(caller) => {
                    self.engine.handle_telephone_packet(slot.arrival, caller, slot.packet(), outbox);
                }
                Target::Stream(stream) => self.engine.handle_stream_packet(slot.arrival, stream, slot.packet()),
            }
            packets.skip(1);
        }
        true
    }

    fn tick(&mut self, now: Instant) {
        let tick_us = TICK.as_micros() as u64;
        let missed = now.saturating_since(self.next_tick).as_micros() as u64 / tick_us;
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        self.engine.tick(now, missed, &mut self.wiring.outbox);
        let took_us = self.wiring.clock.now().saturating_since(now).as_micros();
        let health = &self.wiring.health;
        health.ticks.fetch_add(1, Ordering::Relaxed);
        health.late_ticks.fetch_add(missed, Ordering::Relaxed);
        health.longest_tick_us.fetch_max(u32::try_from(took_us).unwrap_or(u32::MAX), Ordering::Relaxed);
        health.orphans.store(self.engine.orphans() as u32, Ordering::Relaxed);
        self.next_tick += Duration::from_micros(tick_us * (u64::from(missed) + 1));
    }

    /// `Thread::unpark` before or during this ends it at once, so nothing that is pushed is slept through.
    fn sleep(&self) {
        let Some(until) = self.next_turn() else {
            std::thread::park();
            return;
        };
        let wait = until.saturating_since(self.wiring.clock.now());
        if !wait.is_zero() {
            std::thread::park_timeout(wait);
        }
    }
}

/// The first multiple of 20 ms after `now`: the net thread reads the room voices just before it.
fn tick_after(now: Instant) -> Instant {
    let tick_us = TICK.as_micros() as u64;
    Instant::from_us((now.as_us() / tick_us + 1) * tick_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_lie_on_multiples_of_20_ms() {
        assert_eq!(tick_after(Instant::from_us(0)).as_us(), 20_000);
        assert_eq!(tick_after(Instant::from_us(19_999)).as_us(), 20_000);
        assert_eq!(tick_after(Instant::from_us(20_000)).as_us(), 40_000);
    }
}
