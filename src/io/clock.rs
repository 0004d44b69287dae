//! The only place that reads a clock or the system's entropy.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::random::Random;
use crate::time::{Instant, NtpAnchor};

/// Asleep for less than this, a machine has missed nothing that is not repeated anyway.
const MISSED_AFTER: Duration = Duration::from_secs(5);

/// The program's monotonic clock; every thread has a copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
    unix_at_zero: Duration,
}

impl Clock {
    /// Starts at zero now.
    pub fn start() -> Self {
        let unix_at_zero = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { start: std::time::Instant::now(), unix_at_zero }
    }

    /// The present moment.
    pub fn now(&self) -> Instant {
        Instant::from_us(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// `Instant::ZERO` as the standard library's type, for libraries that want it.
    pub const fn base(&self) -> std::time::Instant {
        self.start
    }

    /// `at` as the standard library's type, for timers.
    pub fn std(&self, at: Instant) -> std::time::Instant {
        self.start + Duration::from_micros(at.as_us())
    }

    /// The time of day, since 1970.
    pub fn unix_time(&self) -> Duration {
        self.unix_at_zero + self.start.elapsed()
    }

    /// For how long this machine has slept since it was switched on: our clock stands still then, another one goes on.
    pub fn slept(&self) -> Duration {
        let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
        let awake = read(ClockId::CLOCK_MONOTONIC);
        read(ClockId::CLOCK_BOOTTIME).saturating_sub(awake)
    }

    /// What ties this clock to the time of day.
    pub const fn anchor(&self) -> NtpAnchor {
        NtpAnchor { unix_at_zero: self.unix_at_zero }
    }
}

/// Whether a machine that had slept for `former` in all has slept again, long enough to be missed.
pub fn has_slept_again(former: Duration, in_all: Duration) -> bool {
    in_all.saturating_sub(former) >= MISSED_AFTER
}

/// A random stream seeded by the system.
///
/// # Errors
/// The system has no entropy to give.
pub fn system_random() -> std::io::Result<Random> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(Random::from_seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_awake_does_not_sleep_and_a_nap_is_no_sleep() {
        let clock = Clock::start();
        assert!(!has_slept_again(clock.slept(), clock.slept()));
        let before = Duration::from_secs(7200);
        assert!(!has_slept_again(before, before + Duration::from_secs(4)));
        assert!(has_slept_again(before, before + Duration::from_secs(3600)));
    }
}
