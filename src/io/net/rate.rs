//! How many packets a leg may bring.

use std::time::Duration;

use crate::time::Instant;

/// RTP packets a second and leg: 10 ms packets come at 100, and as much again for bursts after a gap.
pub(super) const RTP_A_SECOND: u16 = 200;

/// STUN messages a second and leg that reach signalling. ICE sends one check each 50 ms a pair, and far fewer once connected.
pub(super) const STUN_A_SECOND: u16 = 100;

/// RTCP packets a second and leg: the peers send one a second, plus feedback.
pub(super) const RTCP_A_SECOND: u16 = 50;

const WINDOW: Duration = Duration::from_secs(1);

/// A count within windows of one second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    limit: u16,
    window_start: Instant,
    count: u16,
}

impl Rate {
    /// At most `limit` a second.
    pub(super) const fn new(limit: u16) -> Self {
        Self { limit, window_start: Instant::ZERO, count: 0 }
    }

    /// Counts one more; false if it is too many.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        if now.saturating_since(self.window_start) >= WINDOW {
            self.window_start = now;
            self.count = 0;
        }
        if self.count >= self.limit {
            return false;
        }
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_201st_packet_of_a_second_is_refused_and_the_next_second_begins_anew() {
        let mut rate = Rate::new(RTP_A_SECOND);
        let now = Instant::from_us(5_000_000);
        assert_eq!((0..300).filter(|_| rate.admits(now)).count(), 200);
        assert!(!rate.admits(now + Duration::from_millis(999)));
        assert!(rate.admits(now + WINDOW));
    }
}
