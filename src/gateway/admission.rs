//! Which new calls are taken, before anything is spent on them.
//!
//! Owns: the number of calls, the number of one caller's, and what the machine can still carry. Does not own: who may call
//! at all (`sip::endpoint`). Calls that are there are never touched: a gateway at its limit refuses the next one.

use super::refusal::CallFailure;

/// Of a media thread's time; above it a burst of packets makes ticks late. What is measured is a mean of seconds.
const BUSY_PERCENT: u32 = 80;
/// Once busy, calls are taken again below this: else each call that ends would let one in that makes it busy again.
const RELIEVED_PERCENT: u32 = 70;
/// Ticks of a second that may be missed: one is an accident of the system, not our work.
const MAX_MISSED_A_SECOND: u32 = 2;

/// How the media threads did of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Of its time, how much the busiest one has worked.
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
}

impl Admission {
    pub(super) const fn new(max_calls: usize, max_calls_per_caller: usize) -> Self {
        Self { max_calls, max_calls_per_caller, is_busy: false }
    }

    /// News of the media threads, some seconds' mean; true if calls are refused from now on, or taken again.
    pub(super) const fn set_load(&mut self, load: Load) -> bool {
        let former = self.is_busy;
        let limit = if former { RELIEVED_PERCENT } else { BUSY_PERCENT };
        self.is_busy = load.busiest_percent >= limit || load.missed_ticks_a_second > MAX_MISSED_A_SECOND;
        self.is_busy != former
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
        } else if self.is_busy {
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
        let steps = [(79, 0, false), (80, 0, true), (75, 0, true), (69, 0, false), (30, 3, true), (30, 2, false)];
        for (percent, missed, is_busy) in steps {
            let former = admission.is_busy();
            assert_eq!(admission.set_load(load(percent, missed)), former != is_busy);
            assert_eq!(admission.admit(1, 0).is_err(), is_busy, "{percent} % {missed}");
        }
    }
}
