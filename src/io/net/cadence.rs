//! When sockets are read: as soon as something comes, or all together by the beat of the ticks.
//!
//! Owns: each leg's pace by what it carries, and when the paced ones are next looked at. Does not own: reading (`thread`).
//!
//! Being woken costs more than all that is done with a packet. So what is heard no earlier for it is read with the ticks: the
//! voices of a room, which wait in jitter buffers, and telephones whose callers are silent. A speaking caller is read
//! at once, for the sake of delay, unless very many speak.

use std::time::Duration;

use super::leg::{Leg, LegKind};
use crate::media::control::TICK;
use crate::time::Instant;

/// Between two looks at the paced legs: a tick. Nothing of the peers' is heard earlier, and of a telephone only the first
/// packet of what it says after a pause comes later by so much at most.
const TICK_US: u64 = TICK.as_micros() as u64;

/// How long before the tick of a mix on another thread the look begins: what 100 packets need to be decrypted, and epoll's
/// rounding to a millisecond.
const LOOK_AHEAD_US: u64 = 2_000;

/// With more peers than this, half of their packets are read half-way between two ticks.
const MANY_PEERS: usize = 128;

/// With more talkers than this, all of them are read twice a tick: 5 ms later on average, in a crowd where nobody can follow
/// anybody, for a third of the cost of a wake each.
const MANY_TALKERS: usize = 8;

/// With so few talkers again, they are read at once.
const FEW_TALKERS: usize = 6;

/// When a leg's RTP socket is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    AtOnce,
    HalfTicks,
    Ticks,
}

/// The legs by pace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cadence {
    /// Read with the ticks.
    peers: usize,
    silent_telephones: usize,
    /// Read twice a tick.
    half_ticks: usize,
    /// Of all these, the ones whose mix is on another thread.
    ahead: usize,
    /// Telephones whose callers speak.
    talkers: usize,
    is_crowded: bool,
}

impl Cadence {
    /// A caller began (or else ceased) to speak; true if that changes the pace of all talkers.
    pub(super) const fn count_talker(&mut self, began: bool) -> bool {
        self.talkers = if began { self.talkers + 1 } else { self.talkers.saturating_sub(1) };
        let was_crowded = self.is_crowded;
        self.is_crowded = self.talkers > if was_crowded { FEW_TALKERS } else { MANY_TALKERS };
        self.is_crowded != was_crowded
    }

    /// How a leg is to be read.
    pub(super) fn pace_of(&self, leg: &Leg) -> Pace {
        match &leg.kind {
            LegKind::Peer(peer) if !peer.is_secured() => Pace::AtOnce,
            LegKind::Telephone(telephone) if telephone.shakes_hands() => Pace::AtOnce,
            LegKind::Telephone(_) if leg.talks && self.is_crowded => Pace::HalfTicks,
            LegKind::Telephone(_) if leg.talks => Pace::AtOnce,
            LegKind::Peer(_) | LegKind::Telephone(_) => Pace::Ticks,
        }
    }

    /// A leg has its pace from now on; `is_ahead` if its mix is on another thread.
    pub(super) const fn add(&mut self, leg: &Leg, is_ahead: bool) {
        if let Some(count) = self.count(leg) {
            *count += 1;
            self.ahead += is_ahead as usize;
        }
    }

    /// The reverse.
    pub(super) const fn remove(&mut self, leg: &Leg, is_ahead: bool) {
        if let Some(count) = self.count(leg) {
            *count -= 1;
            self.ahead -= is_ahead as usize;
        }
    }

    const fn count(&mut self, leg: &Leg) -> Option<&mut usize> {
        match (leg.pace, &leg.kind) {
            (Pace::AtOnce, _) => None,
            (Pace::HalfTicks, _) => Some(&mut self.half_ticks),
            (Pace::Ticks, LegKind::Peer(_)) => Some(&mut self.peers),
            (Pace::Ticks, LegKind::Telephone(_)) => Some(&mut self.silent_telephones),
        }
    }

    /// Nothing is paced.
    pub(super) const fn is_idle(&self) -> bool {
        self.peers + self.silent_telephones + self.half_ticks == 0
    }

    /// Between two looks.
    pub(super) const fn period_us(&self) -> u64 {
        if self.peers > MANY_PEERS || self.half_ticks > 0 { TICK_US / 2 } else { TICK_US }
    }

    /// The first look after `now`: at a tick (or half-way to it), or ahead of it.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let since_phase = (now.as_us() + self.ahead_us()) % self.period_us();
        now + Duration::from_micros(self.period_us() - since_phase)
    }

    /// Whether the look that was due at `look` is for legs of this pace.
    pub(super) fn is_due(&self, pace: Pace, look: Instant) -> bool {
        match pace {
            Pace::AtOnce => false,
            Pace::HalfTicks => true,
            Pace::Ticks => self.peers > MANY_PEERS || self.is_for_tick(look),
        }
    }

    /// Whether the look that was due at `look` is the one just before a tick.
    pub(super) fn is_for_tick(&self, look: Instant) -> bool {
        let since_tick_us = (look.as_us() + self.ahead_us()) % TICK_US;
        // A leg that came or went meanwhile may have moved the phase; what is read too often costs little.
        !(TICK_US / 4..=TICK_US * 3 / 4).contains(&since_tick_us)
    }

    const fn ahead_us(&self) -> u64 {
        if self.ahead > 0 { LOOK_AHEAD_US } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(cadence: Cadence) -> [u64; 5] {
        [0, 7_999, 8_000, 12_345, 18_000].map(|us| cadence.next_look(Instant::from_us(us)).as_us())
    }

    #[test]
    fn peers_are_looked_at_by_each_tick_two_ms_earlier_for_other_threads() {
        assert_eq!(looks(Cadence { peers: 1, ..Cadence::default() }), [20_000; 5]);
        let ahead = Cadence { peers: 1, ahead: 1, ..Cadence::default() };
        assert_eq!(looks(ahead), [18_000, 18_000, 18_000, 18_000, 38_000]);
    }

    #[test]
    fn many_peers_are_looked_at_twice_as_often() {
        let twice = [8_000, 8_000, 18_000, 18_000, 28_000];
        let many = Cadence { peers: 200, ahead: 1, ..Cadence::default() };
        assert_eq!(looks(many), twice);
        assert!(many.is_due(Pace::Ticks, Instant::from_us(8_000)));
        assert_eq!(looks(Cadence { peers: 1, silent_telephones: 100, ..Cadence::default() }), [20_000; 5]);
    }

    #[test]
    fn a_crowd_of_talkers_is_looked_at_twice_a_tick_and_nobody_else_is() {
        let crowd = Cadence { peers: 9, half_ticks: 9, ..Cadence::default() };
        assert_eq!(looks(crowd), [10_000, 10_000, 10_000, 20_000, 20_000]);
        let due = |us| [Pace::Ticks, Pace::HalfTicks].map(|pace| crowd.is_due(pace, Instant::from_us(us)));
        assert_eq!([due(10_000), due(20_000)], [[false, true], [true, true]]);
    }

    #[test]
    fn nine_talkers_are_a_crowd_until_six_are_left() {
        let mut cadence = Cadence::default();
        assert_eq!((0..10).filter(|_| cadence.count_talker(true)).count(), 1);
        assert!(cadence.is_crowded);
        let changes: Vec<bool> = (0..5).map(|_| cadence.count_talker(false)).collect();
        assert_eq!(changes, [false, false, false, true, false]);
    }
}
