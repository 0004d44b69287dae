//! The loop of a mix thread.
//!
//! It sleeps until something is pushed for it (a telephone's packet, a command) or its next tick is due, whatever comes
//! first, and it makes no other system call than that wait and at most one wake a turn for each of its consumers. Ticks lie
//! on multiples of 20 ms. A late one is counted; what it made impossible is skipped, never played in a burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ringbuf::traits::Consumer;
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
pub(super) struct MixThread {
    pub(super) clock: Clock,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) health: Arc<MixHealth>,
    pub(super) commands: HeapCons<Command>,
    pub(super) packets: HeapCons<ToMix>,
    pub(super) outbox: Outbox,
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

impl MixThread {
    /// Until told to stop.
    pub(super) fn run(mut self, mut engine: Box<Engine>) {
        let mut next_tick = tick_after(self.clock.now());
        while !self.stop.load(Ordering::Acquire) {
            let idle = engine.is_empty();
            let mut more = self.carry_out_commands(&mut engine);
            if idle && !engine.is_empty() {
                next_tick = tick_after(self.clock.now());
            }
            more |= self.handle_packets(&mut engine);
            let now = self.clock.now();
            if engine.next_timeout().is_some_and(|deadline| deadline.at <= now) {
                engine.handle_timeout(now, &mut self.outbox);
            }
            if !engine.is_empty() && now >= next_tick {
                next_tick = self.tick(&mut engine, now, next_tick);
            }
            self.outbox.wake();
            if !more {
                self.sleep(&engine, next_tick);
            }
        }
    }

    fn carry_out_commands(&mut self, engine: &mut Engine) -> bool {
        for _ in 0..COMMANDS_A_TURN {
            let Some(command) = self.commands.try_pop() else { return false };
            engine.handle_command(command, &mut self.outbox);
        }
        true
    }

    fn handle_packets(&mut self, engine: &mut Engine) -> bool {
        for _ in 0..PACKETS_A_TURN {
            let Some(slot) = self.packets.first() else { return false };
            match slot.target {
                Target::Caller(caller) => {
                    engine.handle_telephone_packet(slot.arrival, caller, slot.packet(), &mut self.outbox);
                }
                Target::Stream(stream) => engine.handle_stream_packet(slot.arrival, stream, slot.packet()),
            }
            self.packets.skip(1);
        }
        true
    }

    /// Returns when the next one is due.
    fn tick(&mut self, engine: &mut Engine, now: Instant, due: Instant) -> Instant {
        let tick_us = TICK.as_micros() as u64;
        let missed = u32::try_from(now.saturating_since(due).as_micros() as u64 / tick_us).unwrap_or(u32::MAX);
        engine.tick(now, missed, &mut self.outbox);
        let took_us = self.clock.now().saturating_since(now).as_micros();
        let health = &self.health;
        health.ticks.fetch_add(1, Ordering::Relaxed);
        health.late_ticks.fetch_add(missed, Ordering::Relaxed);
        health.longest_tick_us.fetch_max(u32::try_from(took_us).unwrap_or(u32::MAX), Ordering::Relaxed);
        health.orphans.store(engine.orphans() as u32, Ordering::Relaxed);
        due + Duration::from_micros(tick_us * (u64::from(missed) + 1))
    }

    /// `Thread::unpark` before or during this ends it at once, so nothing that is pushed is slept through.
    fn sleep(&self, engine: &Engine, next_tick: Instant) {
        if engine.is_empty() {
            std::thread::park();
            return;
        }
        let until = engine.next_timeout().map_or(next_tick, |deadline| deadline.at.min(next_tick));
        let wait = until.saturating_since(self.clock.now());
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
