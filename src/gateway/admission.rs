//! Which new calls are taken, before anything is spent on them.
//!
//! Owns: the number of calls, the number of one caller's, and what the machine can still carry. Does not own: who may call
//! at all (`sip::endpoint`). Calls that are there are never touched: a gateway at its limit refuses the next one.

use std::time::Duration;

use super::refusal::CallFailure;
use crate::time::Instant;

/// Of a media thread's time; above it a burst of packets makes ticks late. What is measured is a mean of seconds: under a quota
/// of 8 % of a processor, 19 calls missed a tick in ten at 70 %.
const BUSY_PERCENT: u32 = 60;
/// Once busy, calls are taken again below this: else each call that ends would let one in that makes it busy again.
const RELIEVED_PERCENT: u32 = 50;
/// Ticks of a second that may be missed: one is an accident of the system, not our work.
const MAX_MISSED_A_SECOND: u32 = 2;

/// So long after the machine was at its limit, fewer calls are taken than brought it there: what is relieved by refusing them
/// would be in trouble again with each that is taken.
const TROUBLE_LASTS: Duration = Duration::from_secs(60);
/// However few calls there were: then it was not they who made the trouble.
const LEAST_CEILING: usize = 4;

/// How the media threads did of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Of its time, how much the busiest one has worked or waited for a processor.
    pub busiest_percent: u32,
    /// Ticks that could not take place, a second.
    pub missed_ticks_a_second: u32,
}

/// The door.
#[derive(Debug)]
pub(super) struct Admission {
    max_calls: usize,
    max_calls_per_caller: usize,
    is_busy: bool,
    /// So many calls may there be, and when the machine was at its limit.
    ceiling: Option<(usize, Instant)>,
}

impl Admission {
    pub(super) const fn new(max_calls: usize, max_calls_per_caller: usize) -> Self {
        Self { max_calls, max_calls_per_caller, is_busy: false, ceiling: None }
    }

    /// News of the media threads, some seconds' mean, with so many calls; true if calls are refused from now on, or taken
    /// again.
    pub(super) fn set_load(&mut self, now: Instant, load: Load, calls: usize) -> bool {
        let former = self.is_busy;
        let limit = if former { RELIEVED_PERCENT } else { BUSY_PERCENT };
        self.is_busy = load.busiest_percent >= limit || load.missed_ticks_a_second > MAX_MISSED_A_SECOND;
        if self.is_busy {
            let carried = (calls * 9 / 10).max(LEAST_CEILING);
            let ceiling = self.ceiling.map_or(carried, |(former, _)| former.min(carried));
            self.ceiling = Some((ceiling, now));
        } else if let Some((ceiling, at)) = self.ceiling
            && now.saturating_since(at) >= TROUBLE_LASTS
        {
            // From now on one more with each good news, so that what is too much is too much by one.
            self.ceiling = (ceiling + 1 < self.max_calls).then_some((ceiling + 1, at));
        }
        self.is_busy != former
    }

    const fn is_at_ceiling(&self, calls: usize) -> bool {
        matches!(self.ceiling, Some((ceiling, _)) if calls >= ceiling)
    }

    pub(super) const fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether a call more is taken, of so many in all and so many of this caller.
    pub(super) const fn admit(&self, calls: usize, of_this_caller: usize) -> Result<(), CallFailure> {
        if calls >= self.max_calls {
            Err(CallFailure::GatewayFull)
        } else if of_this_caller >= self.max_calls_per_caller {
            Err(CallFailure::CallerFull)
        } else if self.is_busy || self.is_at_ceiling(calls) {
            Err(CallFailure::Busy)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busiest_percent: u32, missed_ticks_a_second: u32) -> Load {
        Load { busiest_percent, missed_ticks_a_second }
    }

    #[test]
    fn calls_are_counted_in_all_and_by_caller() {
        let admission = Admission::new(3, 2);
        assert_eq!(admission.admit(2, 1), Ok(()));
        assert_eq!(admission.admit(3, 0), Err(CallFailure::GatewayFull));
        assert_eq!(admission.admit(2, 2), Err(CallFailure::CallerFull));
    }

    #[test]
    fn a_busy_machine_takes_none_until_it_is_well_relieved() {
        let mut admission = Admission::new(64, 64);
        let steps = [(59, 0, false), (60, 0, true), (55, 0, true), (49, 0, false), (30, 3, true), (30, 2, false)];
        for (percent, missed, is_busy) in steps {
            let former = admission.is_busy();
            assert_eq!(admission.set_load(Instant::ZERO, load(percent, missed), 1), former != is_busy);
            assert_eq!(admission.admit(1, 0).is_err(), is_busy, "{percent} % {missed}");
        }
    }

    #[test]
    fn for_a_minute_after_its_limit_a_machine_has_fewer_calls_than_brought_it_there_and_then_one_more_each_time() {
        let mut admission = Admission::new(64, 64);
        let at_s = |seconds: u64| Instant::from_us(seconds * 1_000_000);
        admission.set_load(at_s(0), load(30, 5), 20);
        admission.set_load(at_s(2), load(30, 0), 20);
        let most = |admission: &Admission| (0..64).filter(|calls| admission.admit(*calls, 0).is_ok()).count();
        assert_eq!(most(&admission), 18);
        admission.set_load(at_s(4), load(30, 5), 10);
        admission.set_load(at_s(63), load(30, 0), 10);
        assert_eq!(most(&admission), 9);
        for more in 1..=3 {
            admission.set_load(at_s(64) + Duration::from_secs(2 * more), load(30, 0), 10);
            assert_eq!(most(&admission), 9 + more as usize);
        }
        for _ in 0..60 {
            admission.set_load(at_s(80), load(30, 0), 10);
        }
        assert_eq!((most(&admission), admission.ceiling), (64, None));
        admission.set_load(at_s(100), load(30, 50), 1);
        admission.set_load(at_s(102), load(30, 0), 1);
        assert_eq!(most(&admission), LEAST_CEILING, "a machine that was disturbed");
    }
}
