//! The timers of RFC 3261 §17 (table 4) and RFC 6026 §8.
//!
//! Owns the values and the one thing they all do: fire again at growing intervals. Which timer runs in which state is
//! said by the transactions themselves.

use std::time::Duration;

use crate::time::{Deadline, Instant};

/// Estimated round trip (RFC 3261 §17.1.1.1): the first interval of every retransmission.
pub const T1: Duration = Duration::from_millis(500);
/// Longest interval between two retransmissions of a non-INVITE request or of an INVITE's response.
pub const T2: Duration = Duration::from_secs(4);
/// Longest time that a message stays in the network: the wait for stragglers (timers I and K over UDP).
pub const T4: Duration = Duration::from_secs(5);
/// 64·T1: how long a transaction waits for its peer (timers B, F, H, J, L, M).
pub const LIFETIME: Duration = Duration::from_secs(32);

/// A retransmission timer (E, G, and that of a 2xx): fires at T1, then at doubled intervals of at most T2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resend {
    at: Instant,
    interval: Duration,
    reason: &'static str,
}

impl Resend {
    /// A timer that first fires T1 after `now`; `reason` is its name in the RFC.
    pub fn start(now: Instant, reason: &'static str) -> Self {
        Self { at: now + T1, interval: T1, reason }
    }

    /// Whether it has fired; if so it is armed again, counting from `now` so that a late wake-up causes no burst.
    pub fn fired(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        self.interval = (self.interval * 2).min(T2);
        self.at = now + self.interval;
        true
    }

    /// From now on fires every T2 (timer E once a provisional response is in, RFC 3261 §17.1.2.2).
    pub fn slow_down(&mut self) {
        self.interval = T2;
    }

    /// When it fires next.
    pub fn deadline(&self) -> Deadline {
        Deadline::new(self.at, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firings(resend: &mut Resend, until_ms: u64) -> Vec<u64> {
        (0..=until_ms).filter(|ms| resend.fired(Instant::from_us(ms * 1000))).collect()
    }

    #[test]
    fn intervals_double_from_t1_to_t2() {
        let mut resend = Resend::start(Instant::ZERO, "timer G");
        assert_eq!(firings(&mut resend, 16_000), [500, 1500, 3500, 7500, 11500, 15500]);
    }

    #[test]
    fn a_late_wake_up_fires_once() {
        let mut resend = Resend::start(Instant::ZERO, "timer G");
        assert!(resend.fired(Instant::from_us(9_000_000)));
        assert!(!resend.fired(Instant::from_us(9_000_000)));
        assert_eq!(resend.deadline().at, Instant::from_us(10_000_000));
    }

    #[test]
    fn a_slowed_timer_fires_every_four_seconds_after_the_next_firing() {
        let mut resend = Resend::start(Instant::ZERO, "timer E");
        resend.slow_down();
        assert_eq!(firings(&mut resend, 9_000), [500, 4500, 8500]);
    }
}
