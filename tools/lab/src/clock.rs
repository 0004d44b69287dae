//! The laboratory's one clock: CLOCK_MONOTONIC in microseconds, comparable between all processes of a machine.
//!
//! Every event and every recording carries it, so that a delay is one subtraction.

use nix::time::{ClockId, clock_gettime};

/// Microseconds of CLOCK_MONOTONIC.
pub fn now_us() -> u64 {
    // The clock exists on every system that this crate builds on, so the read cannot fail.
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds * 1_000_000 + nanoseconds / 1_000
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
}
