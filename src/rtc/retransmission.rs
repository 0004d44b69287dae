//! When a STUN request, an ICE check among them, is sent again (RFC 8489 §6.2.1, §6.2.2).

use std::time::Duration;

use crate::time::{Instant, doubled};

/// Pause before the first retransmission; it doubles after each. Shorter than RFC 8489's 500 ms, because a caller
/// waits: at 10 % loss one request in five needs it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two transmissions of a request.
const MAX_PAUSE: Duration = Duration::from_millis(2000);
/// Transmissions of one request: at 0, 0.25, 0.75, 1.75, 3.75, 5.75 and 7.75 s (Rc = 7, RFC 8489 §6.2.1).
const MAX_TRANSMISSIONS: u32 = 7;
/// How long an answer may take where nothing is lost: shorter than RFC 8489's 39.5 s, because a caller waits.
const RELIABLE_TIMEOUT: Duration = Duration::from_secs(8);

/// The schedule of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retransmission {
    next_at: Instant,
    transmissions: u32,
    is_reliable: bool,
}

impl Retransmission {
    /// Of a request that is sent now; over a `is_reliable` transport it is never sent again.
    pub(super) fn new(now: Instant, is_reliable: bool) -> Self {
        let pause = if is_reliable { RELIABLE_TIMEOUT } else { FIRST_PAUSE };
        Self { next_at: now + pause, transmissions: 1, is_reliable }
    }

    /// When it is to be sent again, or given up.
    pub(super) const fn next_at(&self) -> Instant {
        self.next_at
    }

    /// It is to be sent again at once.
    pub(super) const fn hurry(&mut self, now: Instant) {
        self.next_at = now;
    }

    /// Counts one more transmission, or says that there have been enough.
    pub(super) fn retransmit(&mut self, now: Instant) -> bool {
        if self.is_reliable || self.transmissions >= MAX_TRANSMISSIONS {
            return false;
        }
        self.next_at = now + doubled(FIRST_PAUSE, self.transmissions, MAX_PAUSE);
        self.transmissions += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_transmissions_in_7_75_s_and_none_again_where_nothing_is_lost() {
        let mut schedule = Retransmission::new(Instant::ZERO, false);
        let mut at_ms = vec![];
        while {
            at_ms.push(schedule.next_at().as_us() / 1000);
            schedule.retransmit(schedule.next_at())
        } {}
        assert_eq!(at_ms, [250, 750, 1750, 3750, 5750, 7750, 9750]);
        let mut schedule = Retransmission::new(Instant::ZERO, true);
        assert_eq!(schedule.next_at(), Instant::from_us(8_000_000));
        assert!(!schedule.retransmit(schedule.next_at()));
    }
}
