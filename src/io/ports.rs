//! Which UDP ports of a configured range may be bound next. A released port rests, because the other side (a Galene that
//! multiplexes on one port, a telephone that has not heard of the end) may still send to it.

use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::time::Instant;

/// How long a released port stays unused: longer than the 45 to 55 s that Galene keeps a dead client's connections.
pub(super) const REST: Duration = Duration::from_secs(60);

/// The ports of one flag (`-rtp-ports`, `-ice-ports`).
#[derive(Debug)]
pub(super) struct PortPool {
    /// Ports that may be handed out, longest unused first.
    free: VecDeque<u16>,
    resting: VecDeque<(Instant, u16)>,
    used: BTreeSet<u16>,
    step: u16,
}

impl PortPool {
    /// Hands out the ports of `range` at distances of `step`: 1, or 2 where the port above belongs to RTCP.
    pub(super) fn new(range: &RangeInclusive<u16>, step: u16) -> Self {
        let first = range.start().next_multiple_of(step);
        let last_of_pair = |port: u16| port.checked_add(step - 1).is_some_and(|last| last <= *range.end());
        let free = (first..=*range.end()).step_by(usize::from(step)).filter(|port| last_of_pair(*port)).collect();
        Self { free, resting: VecDeque::new(), used: BTreeSet::new(), step }
    }

    /// The next port to try, or `None` if all are used or resting.
    pub(super) fn take(&mut self, now: Instant) -> Option<u16> {
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            self.free.extend(self.resting.pop_front().map(|(_, port)| port));
        }
        let port = self.free.pop_front()?;
        self.used.insert(port);
        Some(port)
    }

    /// Gives `port` back; it rests for [`REST`]. A port that is not in use is ignored.
    pub(super) fn release(&mut self, now: Instant, port: u16) {
        let port = port - port % self.step;
        if self.used.remove(&port) {
            self.resting.push_back((now + REST, port));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_port_rests_for_a_minute() {
        let mut pool = PortPool::new(&(20000..=20001), 1);
        let at = Instant::from_us;
        assert_eq!((pool.take(at(0)), pool.take(at(0)), pool.take(at(0))), (Some(20000), Some(20001), None));
        pool.release(at(0), 20000);
        pool.release(at(0), 20000);
        assert_eq!(pool.take(at(59_999_999)), None);
        assert_eq!(pool.take(at(60_000_000)), Some(20000));
        assert_eq!(pool.take(at(60_000_000)), None);
    }

    #[test]
    fn pairs_begin_at_even_ports_and_end_inside_the_range() {
        let mut pool = PortPool::new(&(20001..=20004), 2);
        assert_eq!((pool.take(Instant::ZERO), pool.take(Instant::ZERO)), (Some(20002), None));
    }

    #[test]
    fn the_longest_unused_port_comes_first() {
        let mut pool = PortPool::new(&(1000..=1002), 1);
        let first = pool.take(Instant::ZERO).unwrap();
        pool.release(Instant::ZERO, first);
        let later = Instant::ZERO + REST;
        assert_eq!([pool.take(later), pool.take(later), pool.take(later)], [Some(1001), Some(1002), Some(1000)]);
    }
}
