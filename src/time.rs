//! Time as a value: monotonic instants, NTP timestamps and the earliest of several deadlines.
//!
//! Nothing here reads a clock. `io::clock` makes the first [`Instant`] of a turn and hands it down, so that every
//! machine of this program runs as well in a test's virtual time.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// Microseconds since the program started (virtual time in tests starts at 0 as well).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The start of the program.
    pub const ZERO: Self = Self(0);

    /// The instant `us` microseconds after the start.
    pub const fn from_us(us: u64) -> Self {
        Self(us)
    }

    /// Microseconds since the start.
    pub const fn as_us(self) -> u64 {
        self.0
    }

    /// The time that has passed since `earlier`, zero if `earlier` lies ahead.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// When a machine wants `handle_timeout` to be called, and why: "why did we wake?" stays answerable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The moment, perhaps already past.
    pub at: Instant,
    /// The timer's name in its RFC or a few plain words.
    pub reason: &'static str,
}

impl Deadline {
    /// A deadline `at` for `reason`.
    pub const fn new(at: Instant, reason: &'static str) -> Self {
        Self { at, reason }
    }
}

/// `first` doubled so many times, at most `longest`, which ten doublings reach.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    longest.min(first * 2_u32.pow(times.min(10)))
}

/// The earliest of several optional deadlines.
pub fn earliest(deadlines: impl IntoIterator<Item = Option<Deadline>>) -> Option<Deadline> {
    deadlines.into_iter().flatten().min_by_key(|deadline| deadline.at)
}

/// A 64-bit NTP timestamp: 32 bits of seconds since 1900, 32 bits of fraction (RFC 3550 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From a duration since the Unix epoch.
    pub fn from_unix(since_1970: Duration) -> Self {
        const SECONDS_1900_TO_1970: u64 = 2_208_988_800;
        let seconds = since_1970.as_secs().wrapping_add(SECONDS_1900_TO_1970);
        let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
        Self((seconds << 32) | fraction)
    }

    /// The middle 32 bits, as LSR and DLSR use them: units of 1/65536 s (RFC 3550 §6.4.1).
    pub const fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// Ties [`Instant`]s to the wall clock, for RTCP sender reports alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtpAnchor {
    /// Duration since the Unix epoch at [`Instant::ZERO`].
    pub unix_at_zero: Duration,
}

impl NtpAnchor {
    /// The wall-clock time of `now`.
    pub fn at(self, now: Instant) -> NtpTime {
        NtpTime::from_unix(self.unix_at_zero + Duration::from_micros(now.as_us()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_wins_and_keeps_its_reason() {
        let late = Deadline::new(Instant::from_us(9), "late");
        let early = Deadline::new(Instant::from_us(3), "early");
        assert_eq!(earliest([Some(late), None, Some(early)]), Some(early));
        assert_eq!(earliest([None]), None);
    }

    #[test]
    fn ntp_time_of_the_unix_epoch_is_2208988800_seconds() {
        assert_eq!(NtpTime::from_unix(Duration::from_millis(500)).0, (2_208_988_800 << 32) | (1 << 31));
        assert_eq!(NtpTime(0x1234_5678_9abc_def0).middle(), 0x5678_9abc);
    }

    #[test]
    fn instants_never_wrap() {
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::ZERO.saturating_since(Instant::from_us(5)), Duration::ZERO);
    }
}
