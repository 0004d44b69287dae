//! A telephone's decoded speech on its way to the other telephones of the room.
//!
//! Owns: the sound between the telephone's packets and the tick, and how much of it there should be. The packets are in
//! order already (`reorder`), with holes concealed; what is late is made up here until it comes.
//! Does not own: the measurement of lateness (`lateness`), the cuts that change the delay (`pace`).
//!
//! Lateness is measured where the sound comes in, so it holds what the network does and what waiting for lost packets costs:
//! the queue holds as much as it needs for nearly everything to be in time, and no sound is ever lost here.

use super::lateness::Lateness;
use super::pace::{Pace, Scaled, Standing};
use super::plc::Concealer;
use crate::time::Instant;

/// The most that may wait, in frames of 20 ms: 400 ms, the longest target and a burst.
const CAPACITY_FRAMES: usize = 20;

/// 20 ms at the highest rate.
const MAX_FRAME_SAMPLES: usize = 320;

/// Pieces that come later than the target, in percent: fewer than for room voices, since concealed losses are among them.
const LATE_PERCENT: u32 = 1;
const MAX_TARGET_US: u64 = 200_000;

/// The longest stretch of sound that is made up, in frames; it has faded by then.
const MAX_MADE_UP_FRAMES: usize = 4;

/// The queue of one telephone.
#[derive(Debug)]
pub(super) struct LocalQueue {
    rate_hz: u32,
    /// 20 ms.
    frame_samples: usize,
    samples: [i16; CAPACITY_FRAMES * MAX_FRAME_SAMPLES],
    len: usize,
    /// Where the queue ends, on the telephone's clock.
    end: u32,
    last_piece_samples: usize,
    lateness: Lateness,
    pace: Pace,
    concealer: Concealer,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing plays: what comes waits until the target is reached.
    Idle,
    Playing {
        /// Since the last that was there.
        made_up_samples: usize,
    },
}

impl LocalQueue {
    /// The most that it ever holds.
    pub(super) const CAPACITY_MS: u16 = 20 * CAPACITY_FRAMES as u16;

    /// For sound of 8 or 16 kHz.
    pub(super) fn new(rate_hz: u32) -> Self {
        let frame_samples = rate_hz as usize / 50;
        Self {
            rate_hz,
            frame_samples,
            samples: [0; CAPACITY_FRAMES * MAX_FRAME_SAMPLES],
            len: 0,
            end: 0,
            last_piece_samples: frame_samples,
            lateness: Lateness::new(rate_hz),
            pace: Pace::new(rate_hz),
            concealer: Concealer::new(rate_hz),
            state: State::Idle,
        }
    }

    const fn capacity_samples(&self) -> usize {
        CAPACITY_FRAMES * self.frame_samples
    }

    /// By how much a piece should be there before its time.
    pub(super) fn target_us(&self) -> u64 {
        self.lateness.quantile_us(LATE_PERCENT).min(MAX_TARGET_US)
    }

    pub(super) const fn scaled(&self) -> Scaled {
        self.pace.scaled()
    }

    /// Appends what has just been decoded; what does not fit pushes out the oldest.
    pub(super) fn push(&mut self, now: Instant, pcm: &[i16]) {
        if pcm.is_empty() {
            return;
        }
        self.lateness.observe(now, self.end);
        self.last_piece_samples = pcm.len();
        self.append(pcm);
    }

    /// The telephone's clock leaves out `samples`.
    pub(super) fn pause(&mut self, samples: u32) {
        let silence = [0; MAX_FRAME_SAMPLES];
        // What is still to be heard keeps its distance from what follows; all of it, if the pause ends in time for that.
        let mut kept = if self.len == 0 { 0 } else { (samples as usize).min(self.capacity_samples() - self.len) };
        self.end = self.end.wrapping_add(samples - kept as u32);
        while kept > 0 {
            let piece = kept.min(self.frame_samples);
            self.append(&silence[..piece]);
            kept -= piece;
        }
    }

    fn append(&mut self, pcm: &[i16]) {
        self.end = self.end.wrapping_add(pcm.len() as u32);
        let capacity = self.capacity_samples();
        let pcm = &pcm[pcm.len().saturating_sub(capacity)..];
        self.discard((self.len + pcm.len()).saturating_sub(capacity));
        self.samples[self.len..][..pcm.len()].copy_from_slice(pcm);
        self.len += pcm.len();
    }

    /// The next tick's frame, of 20 ms; false (and silence) while there is none.
    pub(super) fn take(&mut self, now: Instant, frame: &mut [i16]) -> bool {
        let standing = self.standing(now);
        let made_up_samples = match self.state {
            State::Playing { made_up_samples } => made_up_samples,
            State::Idle if self.len >= self.frame_samples && standing.delay_us >= standing.target_us => 0,
            State::Idle => {
                frame.fill(0);
                return false;
            }
        };
        if self.len >= self.frame_samples {
            self.len = self.pace.adjust(&standing, &mut self.samples, self.len);
        }
        let here = self.len.min(frame.len());
        let (there, missing) = frame.split_at_mut(here);
        there.copy_from_slice(&self.samples[..here]);
        self.discard(here);
        if here > 0 {
            self.concealer.good(there);
        }
        if missing.is_empty() {
            self.state = State::Playing { made_up_samples: 0 };
            return true;
        }
        let made_up_samples = if here > 0 { 0 } else { made_up_samples };
        if made_up_samples >= MAX_MADE_UP_FRAMES * self.frame_samples {
            self.state = State::Idle;
            missing.fill(0);
            return false;
        }
        self.concealer.conceal(missing);
        self.state = State::Playing { made_up_samples: made_up_samples + missing.len() };
        true
    }

    /// Where the first sample stands that waits.
    fn standing(&self, now: Instant) -> Standing {
        let first = self.end.wrapping_sub(self.len as u32);
        Standing {
            delay_us: self.lateness.delay_us(now, self.lateness.place_us(first)),
            target_us: self.target_us().cast_signed(),
            packet_us: self.last_piece_samples as i64 * 1_000_000 / i64::from(self.rate_hz),
        }
    }

    fn discard(&mut self, samples: usize) {
        let samples = samples.min(self.len);
        self.samples.copy_within(samples..self.len, 0);
        self.len -= samples;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::control::TICK;
    use std::time::Duration;

    const MS: u64 = 1000;
    const FRAME_SAMPLES: usize = 160;
    const CAPACITY_SAMPLES: usize = CAPACITY_FRAMES * FRAME_SAMPLES;

    /// A line, and a tick 7 ms after each packet's time.
    struct World {
        queue: LocalQueue,
        tick: u64,
    }

    impl World {
        fn new() -> Self {
            Self { queue: LocalQueue::new(8000), tick: 0 }
        }

        /// What is heard at the next tick, before which these pieces came, so many ms after the tick before.
        fn tick(&mut self, pieces: &[(u64, i16)]) -> Option<i16> {
            let before = Instant::from_us((1000 + self.tick * 20) * MS);
            for &(after_ms, sound) in pieces {
                self.queue.push(before + Duration::from_millis(after_ms), &[sound; FRAME_SAMPLES]);
            }
            self.tick += 1;
            let mut frame = [0; FRAME_SAMPLES];
            self.queue.take(before + TICK, &mut frame).then_some(frame[159])
        }
    }

    #[test]
    fn on_a_clean_line_a_frame_leaves_with_the_next_tick() {
        let mut world = World::new();
        assert_eq!(world.tick(&[]), None);
        for number in 1..100 {
            assert_eq!(world.tick(&[(13, number)]), Some(number));
        }
        assert_eq!(world.queue.scaled(), Scaled::default());
    }

    #[test]
    fn jitter_is_learned_at_once_and_forgotten_within_10_s_of_its_end_and_no_sound_is_lost() {
        let mut world = World::new();
        let (mut sent, mut heard) = (0u16, 0);
        for tick in 0..1500_u16 {
            // Every third tick brings three frames at once during the first 12 s.
            let frames = match tick {
                600.. => 1u16,
                _ if tick % 3 == 2 => 3,
                _ => 0,
            };
            sent += frames;
            let is_heard = world.tick(&vec![(13, 100); usize::from(frames)]).is_some();
            assert!(is_heard || tick < 6, "{tick}");
            heard += u32::from(is_heard);
            if tick == 599 {
                assert!((40 * MS..=50 * MS).contains(&world.queue.target_us()), "{}", world.queue.target_us());
            }
            if tick == 1099 {
                assert!(world.queue.len <= FRAME_SAMPLES, "{}", world.queue.len);
            }
        }
        assert!(u32::from(sent).abs_diff(heard) <= 3, "{sent} {heard}");
    }

    #[test]
    fn what_is_missing_is_made_up_for_80_ms_and_what_comes_late_is_heard_after_that() {
        let mut world = World::new();
        for _ in 0..10 {
            world.tick(&[(13, 1000)]);
        }
        let heard: Vec<_> = (0..6).map(|_| world.tick(&[])).collect();
        assert!(heard[..4].iter().all(Option::is_some) && heard[4..] == [None; 2], "{heard:?}");
        world.tick(&[(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6), (13, 7)]);
        let heard: Vec<_> = (8..13).map(|number| world.tick(&[(13, number)])).collect();
        assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "{heard:?}");
    }

    #[test]
    fn a_pause_is_silence_of_its_length_or_a_new_start() {
        let mut world = World::new();
        for _ in 0..10 {
            world.tick(&[(13, 1000)]);
        }
        // 60 ms that nobody sent, told when the next packet comes.
        for _ in 0..3 {
            world.tick(&[]);
        }
        world.queue.pause(480);
        let heard: Vec<_> = (1..6).map(|number| world.tick(&[(13, number)])).collect();
        assert_eq!(heard, [1, 2, 3, 4, 5].map(Some));
        // The same while there is still something to be heard.
        world.tick(&[(1, 6), (2, 7), (3, 8)]);
        world.queue.pause(160);
        let heard: Vec<_> = (9..13).map(|number| world.tick(&[(13, number)])).collect();
        assert!(heard.contains(&Some(0)), "{heard:?}");
        world.queue.pause(u32::MAX);
        assert!(world.queue.len <= CAPACITY_SAMPLES);
    }

    #[test]
    fn a_flood_keeps_the_newest_400_ms() {
        let mut world = World::new();
        let flood: Vec<_> = (0..100).map(|number| (1, number)).collect();
        assert!(world.tick(&flood) >= Some(80));
        world.queue.push(Instant::from_us(2_000_000), &[5; CAPACITY_SAMPLES + 1]);
        assert_eq!(world.queue.len, CAPACITY_SAMPLES);
    }
}
