//! Consent freshness (RFC 7675): the selected pair is checked for as long as we send to it. A lite agent sends no
//! checks; the peer's, which keep its own consent, take their place.

use std::net::SocketAddr;
use std::time::Duration;

use crate::random::Random;
use crate::time::{Deadline, Instant};
use crate::wire::route::Route;
use crate::wire::stun::TransactionId;

/// Without an answer for so long, nothing may be sent any more (RFC 7675 §5.1).
const EXPIRY: Duration = Duration::from_secs(30);
/// Checks of all connections fall on multiples of this, so that they wake the program together.
pub const CONSENT_BEAT: Duration = Duration::from_millis(500);
/// Checks go out every 4 to 6 s, at random (RFC 7675 §5.1: 5 s times 0.8 to 1.2), the wait for the beat included.
const SHORTEST_PAUSE_MS: u32 = 4000;
const PAUSE_SPREAD_MS: u32 = 2000 - CONSENT_BEAT.as_millis() as u32;
/// After a check that was not answered the next comes sooner: with 20 % loss each way, a check every 5 s alone would
/// end one call of ten minutes in ten.
const PAUSE_UNANSWERED: Duration = Duration::from_secs(1);
/// A pair that was silent for longer is in doubt: pion, which asks every 2 s, calls a connection bad after 5 s, and at 20 %
/// loss such a silence comes once in days.
pub(super) const DOUBTFUL: Duration = Duration::from_secs(10);
/// Checks that may still be answered: those of the last 4 s or more.
const OUTSTANDING: usize = 4;

/// The timers and transactions of the selected pair.
#[derive(Debug)]
pub(super) struct Consent {
    pub(super) remote: Route,
    expires_at: Instant,
    /// Never, for a lite agent.
    next_at: Option<Instant>,
    /// When it is to be seen whether the pair is silent; `None` if that is known, or nobody asks.
    pub(super) doubt_at: Option<Instant>,
    /// Our address as the last answer showed it.
    mapped: Option<SocketAddr>,
    outstanding: [Option<TransactionId>; OUTSTANDING],
}

impl Consent {
    /// A check has just been answered from `remote`.
    pub(super) fn new(now: Instant, remote: Route, random: &mut Random) -> Self {
        let (next_at, doubt_at) = (Some(next_check(now, random)), Some(now + DOUBTFUL));
        Self { remote, expires_at: now + EXPIRY, next_at, doubt_at, mapped: None, outstanding: [None; OUTSTANDING] }
    }

    /// A lite agent has just been checked from `remote`.
    pub(super) fn lite(now: Instant, remote: Route) -> Self {
        let outstanding = [None; OUTSTANDING];
        Self { remote, expires_at: now + EXPIRY, next_at: None, doubt_at: None, mapped: None, outstanding }
    }

    pub(super) fn has_expired(&self, now: Instant) -> bool {
        now >= self.expires_at
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next_at.is_some_and(|at| now >= at)
    }

    /// A check with this id goes out.
    pub(super) fn on_sent(&mut self, now: Instant, id: TransactionId) {
        self.outstanding.rotate_right(1);
        self.outstanding[0] = Some(id);
        self.next_at = Some(now + PAUSE_UNANSWERED);
    }

    /// Whether `id` is one of ours that may still be answered.
    pub(super) fn expects(&self, id: TransactionId) -> bool {
        self.outstanding.contains(&Some(id))
    }

    /// An authentic answer came, which shows our address as the peer sees it; true if that is another than before.
    pub(super) fn on_answer(&mut self, now: Instant, mapped: Option<SocketAddr>, random: &mut Random) -> bool {
        let has_moved = mapped.is_some() && self.mapped.is_some() && mapped != self.mapped;
        *self = Self { mapped: mapped.or(self.mapped), ..Self::new(now, self.remote, random) };
        has_moved
    }

    pub(super) fn next_timeout(&self) -> Deadline {
        let own = match self.next_at {
            Some(at) if at < self.expires_at => Deadline::new(at, "ICE consent check"),
            Some(_) | None => Deadline::new(self.expires_at, "ICE consent expiry"),
        };
        match self.doubt_at {
            Some(at) if at < own.at => Deadline::new(at, "ICE pair in doubt"),
            Some(_) | None => own,
        }
    }
}

fn next_check(now: Instant, random: &mut Random) -> Instant {
    let pause_ms = SHORTEST_PAUSE_MS + random.below(PAUSE_SPREAD_MS);
    let earliest = now + Duration::from_millis(u64::from(pause_ms));
    Instant::from_us(earliest.as_us().next_multiple_of(CONSENT_BEAT.as_micros() as u64))
}
