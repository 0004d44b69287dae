//! The laboratory's one clock: CLOCK_MONOTONIC in microseconds, comparable between all processes of a machine.
//!
//! Every event and every recording carries it, so that a delay is one subtraction.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Microseconds of CLOCK_MONOTONIC.
pub fn now_us() -> u64 {
    // The clock exists on every system that this crate builds on, so the read cannot fail.
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds * 1_000_000 + nanoseconds / 1_000
}

/// What this clock showed at an [`Instant`], which is of the same clock but does not tell its number.
pub fn at(instant: Instant) -> u64 {
    let (now, now_us) = (Instant::now(), now_us());
    match now.checked_duration_since(instant) {
        Some(before) => now_us.saturating_sub(before.as_micros() as u64),
        None => now_us + instant.duration_since(now).as_micros() as u64,
    }
}

/// The [`Instant`] of a time of this clock.
pub fn instant(at_us: u64) -> Instant {
    let (now, now_us) = (Instant::now(), now_us());
    match now_us.checked_sub(at_us) {
        // Before the first instant there is nothing; a machine that has just started is its own limit.
        Some(before_us) => now.checked_sub(Duration::from_micros(before_us)).unwrap_or(now),
        None => now + Duration::from_micros(at_us - now_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_steps_back() {
        let first = now_us();
        assert!(first > 0);
        assert!(now_us() >= first);
    }

    #[test]
    fn an_instant_and_its_number_are_the_same_time() {
        let instant_now = Instant::now();
        for offset_ms in [0, 1500] {
            let there = instant_now + Duration::from_millis(offset_ms);
            let back = instant(at(there));
            let difference = back.max(there) - back.min(there);
            assert!(difference < Duration::from_millis(5), "{difference:?}");
        }
    }
}
