//! The net thread's regular wake-up: a timer of the kernel's that runs by itself.
//!
//! Giving each wait a time-out would arm and disarm a timer for every packet that comes in between, which costs a fifth of a
//! wake-up; and epoll counts in milliseconds, so a tick would come up to one late.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::time::Instant;

/// So much after the moment that is meant, lest rounding wakes the thread before it.
const MARGIN_US: u64 = 50;

/// A descriptor that becomes readable at each multiple of the period.
#[derive(Debug)]
pub(super) struct Pulse {
    timer: TimerFd,
    /// 0: it stands still.
    period_us: u64,
}

impl Pulse {
    /// Standing still.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self { timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, period_us: 0 })
    }

    /// From now on so often (0: not at all). Costs nothing if that is so already.
    pub(super) fn set_period(&mut self, now: Instant, period_us: u64) {
        if period_us == self.period_us {
            return;
        }
        let set = match period_us {
            0 => self.timer.unset(),
            period_us => {
                let first = Duration::from_micros(period_us - now.as_us() % period_us + MARGIN_US);
                let (first, period) = (TimeSpec::from(first), TimeSpec::from(Duration::from_micros(period_us)));
                self.timer.set(Expiration::IntervalDelayed(first, period), TimerSetTimeFlags::empty())
            }
        };
        // The kernel refuses only periods that are no time at all; without a pulse every wait has its time-out.
        self.period_us = if set.is_ok() { period_us } else { 0 };
    }

    /// To be called whenever the descriptor is readable: the kernel's timer goes on only then.
    pub(super) fn clear(&self) {
        // It fails only if there is nothing to clear.
        let _ = self.timer.wait();
    }

    /// The first one after `now`, if it beats.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let since = now.as_us().checked_rem(self.period_us)?;
        Some(now + Duration::from_micros(self.period_us - since))
    }
}

impl AsFd for Pulse {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn the_descriptor_is_readable_again_after_each_beat() {
        let clock = crate::io::clock::Clock::start();
        let mut pulse = Pulse::new().unwrap();
        pulse.set_period(clock.now(), 1000);
        for _ in 0..3 {
            let mut watched = [PollFd::new(pulse.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut watched, PollTimeout::from(10_000_u16)).unwrap(), 1);
            pulse.clear();
        }
    }

    #[test]
    fn it_beats_at_multiples_of_its_period_and_stands_still_without_one() {
        let mut pulse = Pulse::new().unwrap();
        assert_eq!(pulse.next(Instant::from_us(5)), None);
        pulse.set_period(Instant::from_us(5), 20_000);
        assert_eq!(pulse.next(Instant::from_us(5)), Some(Instant::from_us(20_000)));
        assert_eq!(pulse.next(Instant::from_us(20_000)), Some(Instant::from_us(40_000)));
        pulse.set_period(Instant::from_us(5), 0);
        assert_eq!(pulse.next(Instant::from_us(5)), None);
    }
}
