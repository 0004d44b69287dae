//! A jitter buffer against any packets in any order and at any pace.
//!
//! Model: every payload carries the number of its push, so that nothing plays twice, nothing plays that was not kept, and
//! the delay is known.

use std::collections::BTreeSet;
use std::time::Duration;

use galene_sip::media::jitter::{Arrival, JitterBuffer, MAX_CONCEALED_MS, Playout, Pushed};
use galene_sip::time::Instant;

use super::Choices;

const CLOCK_HZ: u32 = 48_000;
const TICK: Duration = Duration::from_millis(20);
const TICK_TICKS: u32 = CLOCK_HZ / 50;
/// What Opus has, and what other codecs at this clock may have.
const DURATIONS: [u32; 6] = [960, 120, 480, 1920, 2880, 5760];
/// Nobody makes more sound than is needed for a tick; a pull may give less than a tick.
const MAX_PULLS_A_TICK: usize = 16;

struct World {
    buffer: JitterBuffer,
    now: Instant,
    sequence_number: u16,
    timestamp: u32,
    pushes: u32,
    kept: BTreeSet<u32>,
    /// Ticks of sound that the last pulls gave too much.
    ahead_ticks: u32,
    made_up_ticks: u32,
}

/// Runs the operations.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut world = World {
        buffer: JitterBuffer::new(CLOCK_HZ),
        now: Instant::from_us(1_000_000),
        sequence_number: 0,
        timestamp: 0,
        pushes: 0,
        kept: BTreeSet::new(),
        ahead_ticks: 0,
        made_up_ticks: 0,
    };
    while let Some(operation) = choices.operation() {
        match operation % 8 {
            // A telephone that does as it should, as a whole talk.
            0..=2 => {
                for _ in 0..choices.below(40) {
                    world.push(0, 0, DURATIONS[0], false, false);
                    world.tick();
                }
            }
            3 => world.tick(),
            4 => (0..choices.below(100)).for_each(|_| world.tick()),
            // Several at once, as after a break.
            5 => (0..choices.below(40)).for_each(|_| world.push(0, 0, DURATIONS[0], true, false)),
            // Anything.
            _ => {
                let sequence = match choices.below(4) {
                    0 => i32::from(choices.byte().cast_signed()),
                    1 => i32::from(choices.u16().cast_signed()),
                    _ => 0,
                };
                let timestamp = match choices.below(4) {
                    0 => i32::from(choices.u16().cast_signed()),
                    1 => i32::from(choices.u16().cast_signed()) << 16,
                    _ => 0,
                };
                let (duration, has_fec, is_pause) = (choices.pick(&DURATIONS), choices.flag(), choices.byte() > 200);
                world.push(sequence, timestamp, duration, has_fec, is_pause);
            }
        }
    }
    world.fall_silent();
}

impl World {
    /// The next packet, or one so far from it.
    fn push(&mut self, sequence: i32, timestamp: i32, duration_ticks: u32, has_fec: bool, is_pause: bool) {
        self.pushes += 1;
        let number = self.pushes.to_be_bytes();
        let payload = if is_pause { &number[2..] } else { &number[..] };
        let packet = Arrival {
            at: self.now,
            sequence_number: self.sequence_number.wrapping_add(sequence as u16),
            timestamp: self.timestamp.wrapping_add_signed(timestamp),
            duration_ticks,
            has_fec,
            payload,
        };
        if self.buffer.push(&packet) == Pushed::Kept && !is_pause {
            self.kept.insert(self.pushes);
        }
        self.sequence_number = packet.sequence_number.wrapping_add(1);
        self.timestamp = packet.timestamp.wrapping_add(duration_ticks);
        assert!(self.buffer.target_us() <= 200_000, "the target is bounded");
    }

    /// Takes what a tick wants.
    fn tick(&mut self) {
        self.now += TICK;
        let mut pulls = 0;
        while self.ahead_ticks < TICK_TICKS {
            pulls += 1;
            assert!(pulls <= MAX_PULLS_A_TICK, "a tick is full some time");
            let max_made_up_ticks = CLOCK_HZ / 1000 * MAX_CONCEALED_MS + 2 * DURATIONS[5];
            match self.buffer.pull(self.now) {
                Playout::Packet { payload, duration_ticks } => {
                    if let Ok(number) = <[u8; 4]>::try_from(payload) {
                        let number = u32::from_be_bytes(number);
                        assert!(self.kept.remove(&number), "packet {number} played twice, or was not kept");
                    }
                    self.made_up_ticks = 0;
                    self.ahead_ticks += duration_ticks;
                }
                Playout::Fec { next, duration_ticks } => {
                    if let Ok(number) = <[u8; 4]>::try_from(next) {
                        assert!(self.kept.contains(&u32::from_be_bytes(number)), "its own turn is still to come");
                    }
                    self.ahead_ticks += duration_ticks;
                }
                Playout::Conceal { duration_ticks } => {
                    self.made_up_ticks += duration_ticks;
                    assert!(self.made_up_ticks <= max_made_up_ticks, "sound is made up without end");
                    self.ahead_ticks += duration_ticks;
                }
                Playout::Empty => {
                    self.made_up_ticks = 0;
                    self.ahead_ticks = TICK_TICKS;
                }
            }
        }
        self.ahead_ticks -= TICK_TICKS;
    }

    /// Whatever was before: without packets it is silent soon, and a good sender is heard again, and without much delay.
    fn fall_silent(&mut self) {
        const SECONDS_10: usize = 500;
        (0..SECONDS_10).for_each(|_| self.tick());
        assert!(matches!(self.buffer.pull(self.now), Playout::Empty), "nothing is left to be heard");
        // Far away from all that was before: a new sender.
        (self.sequence_number, self.timestamp) = (self.sequence_number.wrapping_add(10_000), 0x4000_0000);
        for _ in 0..SECONDS_10 {
            self.push(0, 0, DURATIONS[0], false, false);
            self.tick();
        }
        let delay_us = self.buffer.delay_us(self.now).expect("a good sender is heard");
        assert!(delay_us <= 450_000, "the delay has grown to {delay_us} µs");
    }
}
