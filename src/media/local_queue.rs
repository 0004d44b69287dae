//! A telephone's decoded speech on its way to the other telephones of the room.
//!
//! Owns: the few frames that lie between the telephone's clock and the tick, and how many of them there should be.
//! The packets are in order already (`reorder`), with holes concealed.
//!
//! The queue starts to play at its target; each time it runs dry the target grows by a frame, and when there was always more
//! than needed for a while, a frame is left out where it is quiet. That also takes up the drift of the two clocks.

use std::time::Duration;

use super::control::TICK;

/// 20 ms at 8 kHz.
pub(super) const FRAME_SAMPLES: usize = 160;

/// The most that may wait: 240 ms, what a very bad access line needs.
const CAPACITY_SAMPLES: usize = 12 * FRAME_SAMPLES;

const MAX_TARGET_SAMPLES: usize = 8 * FRAME_SAMPLES;

/// How long there must have been too much: jitter that comes once in five seconds is worth its delay.
const EASE_AFTER_TICKS: u32 = (Duration::from_secs(5).as_millis() / TICK.as_millis()) as u32;

/// A frame without a sample above this (−56 dBFS) can be left out unnoticed.
const QUIET_PEAK: u16 = 50;

/// The queue of one telephone.
#[derive(Debug)]
pub(super) struct LocalQueue {
    samples: [i16; CAPACITY_SAMPLES],
    start: usize,
    len: usize,
    target: usize,
    playing: bool,
    /// The least that was left after a tick since `ticks` began to count.
    lowest: usize,
    ticks: u32,
}

impl LocalQueue {
    pub(super) const fn new() -> Self {
        Self {
            samples: [0; CAPACITY_SAMPLES],
            start: 0,
            len: 0,
            target: FRAME_SAMPLES,
            playing: false,
            lowest: usize::MAX,
            ticks: 0,
        }
    }

    /// Appends what has just been decoded; what does not fit pushes out the oldest.
    pub(super) fn push(&mut self, pcm: &[i16]) {
        for &sample in pcm {
            if self.len == CAPACITY_SAMPLES {
                self.discard(FRAME_SAMPLES);
            }
            self.samples[(self.start + self.len) % CAPACITY_SAMPLES] = sample;
            self.len += 1;
        }
    }

    /// The next tick's frame; false (and silence) while there is none.
    pub(super) fn take(&mut self, frame: &mut [i16; FRAME_SAMPLES]) -> bool {
        let needed = if self.playing { FRAME_SAMPLES } else { self.target };
        if self.len < needed {
            if self.playing {
                self.playing = false;
                self.target = (self.target + FRAME_SAMPLES).min(MAX_TARGET_SAMPLES);
            }
            frame.fill(0);
            return false;
        }
        self.playing = true;
        for (ahead, sample) in frame.iter_mut().enumerate() {
            *sample = self.samples[(self.start + ahead) % CAPACITY_SAMPLES];
        }
        self.discard(FRAME_SAMPLES);
        self.ease(frame);
        true
    }

    fn ease(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        self.lowest = self.lowest.min(self.len);
        self.ticks += 1;
        if self.ticks < EASE_AFTER_TICKS {
            return;
        }
        let quiet = frame.iter().all(|sample| sample.unsigned_abs() <= QUIET_PEAK);
        if self.lowest < FRAME_SAMPLES {
            (self.ticks, self.lowest) = (0, usize::MAX);
        } else if quiet || self.ticks >= 2 * EASE_AFTER_TICKS {
            self.discard(FRAME_SAMPLES);
            self.target = (self.target - FRAME_SAMPLES).max(FRAME_SAMPLES);
            (self.ticks, self.lowest) = (0, usize::MAX);
        }
    }

    fn discard(&mut self, samples: usize) {
        let samples = samples.min(self.len);
        self.start = (self.start + samples) % CAPACITY_SAMPLES;
        self.len -= samples;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(queue: &mut LocalQueue) -> Option<i16> {
        let mut frame = [0; FRAME_SAMPLES];
        queue.take(&mut frame).then_some(frame[0])
    }

    #[test]
    fn on_a_clean_line_a_frame_leaves_with_the_next_tick() {
        let mut queue = LocalQueue::new();
        assert_eq!(take(&mut queue), None);
        for number in 1..100 {
            queue.push(&[number; FRAME_SAMPLES]);
            assert_eq!(take(&mut queue), Some(number));
        }
    }

    #[test]
    fn jitter_of_40_ms_is_learned_after_a_few_gaps_and_forgotten_when_it_ends() {
        let mut queue = LocalQueue::new();
        let mut gaps = [0; 2];
        for tick in 0..3000_i16 {
            // Every third tick brings three frames at once during the first 600 ticks.
            let frames = if tick >= 600 {
                1
            } else if tick % 3 == 2 {
                3
            } else {
                0
            };
            for _ in 0..frames {
                queue.push(&[1; FRAME_SAMPLES]);
            }
            if take(&mut queue).is_none() {
                gaps[usize::from(tick >= 20)] += 1;
            }
        }
        assert!(gaps[0] <= 10 && gaps[1] == 0, "{gaps:?}");
        assert_eq!(queue.target, FRAME_SAMPLES);
        assert!(queue.len <= FRAME_SAMPLES);
    }

    #[test]
    fn a_flood_keeps_the_newest_quarter_second() {
        let mut queue = LocalQueue::new();
        for number in 0..100 {
            queue.push(&[number; FRAME_SAMPLES]);
        }
        assert_eq!(take(&mut queue), Some(88));
    }
}
