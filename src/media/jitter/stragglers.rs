//! Packets that come behind their successors, most of them because they were asked for again: how long to wait for them.
//!
//! Owns: how many of them there are, and how late they are. Does not own: asking for them (`nack`, on another thread, which
//! asks as soon as it can and for no longer than [`LONGEST_WAIT`]), and what is done about it ([`super::JitterBuffer`]).

use std::time::Duration;

use crate::media::nack::LONGEST_WAIT;
use crate::time::Instant;

/// Waiting for them is let go 4 to 8 s after the last one: one in 130 comes every 3 s.
const EPOCH: Duration = Duration::from_secs(4);
/// The resolution of their lateness.
const BIN_US: u64 = 5_000;
const BINS: usize = (LONGEST_WAIT.as_micros() as u64 / BIN_US) as usize;
/// In 1/65536, just after one of them: what one in 130 reaches in the long run, and the second of two within 70 packets.
/// Fewer are not worth the delay; nor are the few that are later than all others, because their first answer was lost too.
const MANY: u32 = 800;
const SHARE_SHIFT: u32 = 7;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Stragglers {
    /// By lateness, their share in 1/65536.
    bins: [u32; BINS],
    epoch_began: Instant,
    /// The longest wait that was worth it in this epoch and in the one before.
    longest_us: [u64; 2],
}

impl Stragglers {
    pub(super) const fn new() -> Self {
        Self { bins: [0; BINS], epoch_began: Instant::ZERO, longest_us: [0; 2] }
    }

    /// A packet that came behind none of its successors.
    pub(super) fn observe_in_order(&mut self, arrival: Instant) {
        for share in &mut self.bins {
            *share -= *share >> SHARE_SHIFT;
        }
        if arrival.saturating_since(self.epoch_began) >= EPOCH {
            self.longest_us = [0, self.longest_us[0]];
            self.epoch_began = arrival;
        }
    }

    /// A packet that came behind one of its successors, whether it could still be played or not.
    pub(super) fn observe_straggler(&mut self, lateness_us: u64) {
        let Some(share) = self.bins.get_mut((lateness_us / BIN_US) as usize) else { return };
        *share += (1 << 16) >> SHARE_SHIFT;
        let mut later = 0;
        for (bin, share) in self.bins.iter().enumerate().rev() {
            later += share;
            if later > MANY {
                self.longest_us[0] = self.longest_us[0].max((bin as u64 + 1) * BIN_US);
                break;
            }
        }
    }

    /// The delay at which all but a few of them come in time; 0 if they are few.
    pub(super) fn wait_us(&self) -> u64 {
        self.longest_us[0].max(self.longest_us[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(packet: u64) -> Instant {
        Instant::from_us(packet * 20_000)
    }

    /// Packets of 20 ms, of which every `nth` comes so late.
    fn observed(packets: u64, nth: u64, lateness_us: u64) -> Stragglers {
        let mut stragglers = Stragglers::new();
        for packet in 1..=packets {
            if packet % nth == 0 {
                stragglers.observe_straggler(lateness_us);
            } else {
                stragglers.observe_in_order(at(packet));
            }
        }
        stragglers
    }

    #[test]
    fn the_second_in_short_order_is_waited_for() {
        assert_eq!(observed(39, 20, 44_000).wait_us(), 0);
        assert_eq!(observed(40, 20, 44_000).wait_us(), 45_000);
    }

    #[test]
    fn one_in_two_hundred_is_not_worth_the_delay_and_neither_is_one_that_is_later_than_80_ms() {
        assert_eq!(observed(5000, 200, 44_000).wait_us(), 0);
        assert_eq!(observed(5000, 10, 81_000).wait_us(), 0);
    }

    #[test]
    fn a_few_that_are_later_than_the_others_are_not_waited_for() {
        let mut stragglers = observed(1000, 20, 44_000);
        stragglers.observe_straggler(64_000);
        assert_eq!(stragglers.wait_us(), 45_000);
        stragglers.observe_straggler(64_000);
        assert_eq!(stragglers.wait_us(), 65_000);
    }

    #[test]
    fn eight_seconds_without_any_end_the_wait_and_four_do_not() {
        let mut stragglers = observed(1000, 20, 44_000);
        (1001..1190).for_each(|packet| stragglers.observe_in_order(at(packet)));
        assert_eq!(stragglers.wait_us(), 45_000);
        (1190..1420).for_each(|packet| stragglers.observe_in_order(at(packet)));
        assert_eq!(stragglers.wait_us(), 0);
    }
}
