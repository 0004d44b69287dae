//! The account of one source's packets: there, given up, come after all (RFC 3611 §4.7.1, §4.7.2).

use super::Pushed;
use crate::media::burst_metrics::{BurstMetrics, Bursts};

/// So many packets back it is known which were given up: 1.3 s of 10 ms, later than any network brings one.
const REMEMBERED: u32 = u128::BITS;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(in crate::media) struct Tally {
    /// `None` before the first packet.
    ssrc: Option<u32>,
    bursts: BurstMetrics,
    late: u32,
    packet_ticks: u32,
    /// Of the packets before the next one, those that were given up and have not come since: the lowest bit is its neighbour.
    given_up: u128,
}

impl Tally {
    /// Whose packets these are.
    pub(in crate::media) const fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// Those that were there in their turn, and those that were not.
    pub(in crate::media) fn bursts(&self) -> Bursts {
        self.bursts.read()
    }

    /// Of the missing ones, those that came when it was too late.
    pub(in crate::media) const fn late(&self) -> u32 {
        self.late
    }

    /// How long the last packet of speech was, on the RTP clock.
    pub(in crate::media) const fn packet_ticks(&self) -> u32 {
        self.packet_ticks
    }

    /// The numbers begin anew; with another source, so does the account.
    pub(super) fn restart(&mut self, ssrc: u32) {
        if self.ssrc != Some(ssrc) {
            *self = Self { ssrc: Some(ssrc), ..Self::default() };
        }
        self.given_up = 0;
    }

    /// The next packet is there, and lasts so long.
    pub(super) const fn on_there(&mut self, duration_ticks: u32) {
        self.given_up <<= 1;
        self.bursts.on_there();
        if duration_ticks > 0 {
            self.packet_ticks = duration_ticks;
        }
    }

    /// So many are given up.
    pub(super) fn on_missing(&mut self, packets: u16) {
        let packets = u32::from(packets);
        let marks = u128::MAX.checked_shr(REMEMBERED.saturating_sub(packets)).unwrap_or(0);
        self.given_up = self.given_up.checked_shl(packets).unwrap_or(0) | marks;
        self.bursts.on_missing(packets);
    }

    /// A packet came for a place that is so far `behind` the next one, 1 or more: it was given up, or filled before.
    pub(super) fn on_behind(&mut self, behind: u16) -> Pushed {
        let mark = 1_u128.checked_shl(u32::from(behind).saturating_sub(1)).unwrap_or(0);
        if self.given_up & mark == 0 {
            return Pushed::Duplicate;
        }
        self.given_up &= !mark;
        self.late += 1;
        Pushed::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_late_once_and_all_else_from_behind_is_a_double() {
        let mut tally = Tally::default();
        tally.restart(7);
        tally.on_there(160);
        tally.on_missing(2);
        tally.on_there(160);
        // The numbers behind the next one: 1 was there, 2 and 3 were given up, 4 was there.
        assert_eq!([1, 2, 2, 3, 4, 500].map(|behind| tally.on_behind(behind)), {
            use Pushed::{Duplicate, Late};
            [Duplicate, Late, Duplicate, Late, Duplicate, Duplicate]
        });
        assert_eq!((tally.late(), tally.bursts().missing(), tally.bursts().expected()), (2, 2, 4));
    }

    #[test]
    fn another_source_has_an_account_of_its_own_and_a_new_start_of_the_same_does_not() {
        let mut tally = Tally::default();
        tally.restart(7);
        tally.on_missing(200);
        tally.restart(7);
        assert_eq!((tally.on_behind(3), tally.bursts().missing()), (Pushed::Duplicate, 200));
        tally.restart(8);
        assert_eq!((tally.ssrc(), tally.bursts().missing(), tally.packet_ticks()), (Some(8), 0, 0));
    }
}
