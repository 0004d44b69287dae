//! When a voice is played faster or slower, so that its delay is what the network needs and no more.
//!
//! Owns: the comparison of the present delay with the one aimed at, and how often a cut is made. Does not own: either of
//! them (`jitter`, `local_queue`), the cut itself (`time_scale`).
//!
//! Sound is taken every tick, but arrives by the packet. If packets and ticks are in step, one that plays from its beginning
//! must be there when the tick comes, and so must one of which 19 ms are left over: what is left over from the last tick
//! only adds delay. So a voice that is late by a packet loses that and what is left over; one that is too early is
//! stretched until a whole packet is won.

use std::time::Duration;

use super::control::TICK;
use super::time_scale::TimeScale;

/// Less than this too much or too little is left alone, lest the delay swing to and fro with the measurement's noise, ...
const TOLERATED_US: i64 = 2_000;
/// ... and so is a small share of the target, without which only a few more packets are late.
const TOO_EARLY_BY_ONE_IN: i64 = 8;
/// What is too much must have been too much for so long: every change of the delay can be heard a little, and jitter that
/// was there a second ago may come again.
const CALM_TICKS: u8 = (Duration::from_millis(1500).as_micros() / TICK.as_micros()) as u8;
/// What is only just too much can wait twice as long.
const SMALL_US: i64 = 10_000;
const CALM_TICKS_IF_SMALL: u8 = 2 * CALM_TICKS;
/// From here on nothing is spared to catch up.
const HURRY_FROM_US: i64 = 100_000;
/// Otherwise at most one cut in this time: 5 ms in 100 ms are not heard as haste.
const CUT_EVERY_TICKS: u8 = (Duration::from_millis(100).as_micros() / TICK.as_micros()) as u8;
const TICK_US: i64 = TICK.as_micros() as i64;

/// Where a voice stands at a tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// How far its next sample is behind the fastest possible play-out.
    pub(super) delay_us: i64,
    /// By how much a packet should be there before its time.
    pub(super) target_us: i64,
    /// The length of its packets.
    pub(super) packet_us: i64,
}

impl Standing {
    /// What is more than is needed, `left_over_us` being no whole step of [`common_step_us`].
    fn spare_us(&self, step_us: i64, left_over_us: i64) -> i64 {
        self.delay_us - left_over_us - (TICK_US - step_us) - self.target_us
    }

    fn is_too_early(&self, spare_us: i64) -> bool {
        spare_us < -TOLERATED_US.max(self.target_us / TOO_EARLY_BY_ONE_IN)
    }
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scaled {
    /// Samples left out.
    pub(super) shortened: u64,
    /// Samples played twice.
    pub(super) lengthened: u64,
}

/// One voice's pace.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    sample_rate_hz: i64,
    scale: TimeScale,
    ticks_since_cut: u8,
    /// How long there has been too much.
    calm_ticks: u8,
    scaled: Scaled,
}

impl Pace {
    pub(super) const fn new(sample_rate_hz: u32) -> Self {
        Self {
            sample_rate_hz: sample_rate_hz as i64,
            scale: TimeScale::new(sample_rate_hz),
            ticks_since_cut: CUT_EVERY_TICKS,
            calm_ticks: 0,
            scaled: Scaled { shortened: 0, lengthened: 0 },
        }
    }

    pub(super) const fn scaled(&self) -> Scaled {
        self.scaled
    }

    /// Whether a tick that takes all that there is, one packet, would be left as it is.
    pub(super) fn is_content(&self, standing: &Standing) -> bool {
        let spare_us = standing.spare_us(TICK_US, 0);
        standing.packet_us == TICK_US && !standing.is_too_early(spare_us) && spare_us < TICK_US + TOLERATED_US
    }

    /// Instead of [`Self::adjust`], after [`Self::is_content`].
    pub(super) const fn pass(&mut self) {
        self.ticks_since_cut = self.ticks_since_cut.saturating_add(1);
        self.calm_ticks = 0;
    }

    /// Once a tick: `len` samples of `pcm` are there, of which the tick will take the first; returns how many there are
    /// afterwards.
    pub(super) fn adjust(&mut self, standing: &Standing, pcm: &mut [i16], len: usize) -> usize {
        self.ticks_since_cut = self.ticks_since_cut.saturating_add(1);
        let step_us = common_step_us(standing.packet_us);
        let left_over = len as i64 % (self.samples(step_us)).max(1);
        let left_over_us = left_over * 1_000_000 / self.sample_rate_hz;
        let spare_us = standing.spare_us(step_us, left_over_us);
        if standing.is_too_early(spare_us) {
            let wanted = (len + (self.samples(step_us) - left_over) as usize).min(pcm.len());
            let added = match self.scale.lengthen(&mut pcm[..wanted], len) {
                // Too little for a whole period: more than wanted is taken out again in the next pause.
                0 => self.scale.lengthen(pcm, len),
                added => added,
            };
            self.scaled.lengthened += added as u64;
            return len + added;
        }
        let is_too_much = spare_us >= step_us + TOLERATED_US;
        self.calm_ticks = if is_too_much { self.calm_ticks.saturating_add(1) } else { 0 };
        let calm_ticks = if spare_us < step_us + SMALL_US { CALM_TICKS_IF_SMALL } else { CALM_TICKS };
        let most = if self.calm_ticks >= calm_ticks || spare_us >= HURRY_FROM_US {
            left_over + self.samples(step_us)
        } else {
            left_over
        };
        if most == 0 || self.ticks_since_cut < CUT_EVERY_TICKS && spare_us < HURRY_FROM_US {
            return len;
        }
        let removed = self.scale.shorten(&mut pcm[..len], most as usize);
        if removed > 0 {
            self.ticks_since_cut = 0;
            self.scaled.shortened += removed as u64;
        }
        len - removed
    }

    const fn samples(&self, us: i64) -> i64 {
        us * self.sample_rate_hz / 1_000_000
    }
}

/// The longest time of which both a tick and a packet are multiples.
const fn common_step_us(packet_us: i64) -> i64 {
    let (mut a, mut b) = (TICK_US, if packet_us > 0 { packet_us } else { TICK_US });
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(delay_us: i64) -> Standing {
        Standing { delay_us, target_us: 20_000, packet_us: 20_000 }
    }

    #[test]
    fn what_is_at_most_a_packet_too_late_is_left_alone() {
        let mut pace = Pace::new(8000);
        let mut pcm = [0; 400];
        for delay_us in [18_000, 20_000, 39_000, 41_900] {
            assert_eq!(pace.adjust(&standing(delay_us), &mut pcm, 160), 160, "{delay_us}");
        }
        assert_eq!(pace.scaled(), Scaled::default());
    }

    #[test]
    fn a_packet_too_much_is_taken_out_and_what_is_left_over_too() {
        let mut pace = Pace::new(8000);
        let mut pcm = [0; 400];
        for _ in 1..CALM_TICKS_IF_SMALL {
            assert_eq!(pace.adjust(&standing(45_000), &mut pcm, 160), 160);
        }
        // Silence is cut down to the seam.
        assert_eq!(pace.adjust(&standing(45_000), &mut pcm, 160), 40);
        // The next packet came; of the 20 ms that are too much 15 are out.
        for _ in 1..CUT_EVERY_TICKS {
            assert_eq!(pace.adjust(&standing(30_000), &mut pcm, 200), 200);
        }
        assert_eq!(pace.adjust(&standing(30_000), &mut pcm, 200), 160);
        assert_eq!(pace.scaled().shortened, 160);
    }

    #[test]
    fn a_large_excess_is_hurried_out_and_a_lack_is_stretched_away_at_once() {
        let mut pace = Pace::new(8000);
        let mut pcm = [0; 400];
        for _ in 0..3 {
            assert!(pace.adjust(&standing(150_000), &mut pcm, 160) < 160);
        }
        assert!(pace.adjust(&standing(10_000), &mut pcm, 160) > 160);
        assert!(pace.adjust(&standing(10_000), &mut pcm, 160) > 160);
        assert!(pace.scaled().lengthened > 0);
    }

    #[test]
    fn packets_of_30_ms_and_ticks_meet_every_10_ms_and_odd_ones_never() {
        assert_eq!(common_step_us(30_000), 10_000);
        assert_eq!(common_step_us(60_000), 20_000);
        assert_eq!(common_step_us(2_500), 2_500);
        assert_eq!(common_step_us(0), 20_000);
        assert_eq!(common_step_us(-5), 20_000);
        // A packet of one sample at 8 kHz.
        let mut pace = Pace::new(8000);
        let strange = Standing { delay_us: 0, target_us: 0, packet_us: 125 };
        assert!(pace.adjust(&strange, &mut [0; 400], 161) >= 161);
    }
}
