//! Which of the registrar's addresses has its turn (RFC 3263 §4.3).
//!
//! Owns: their order, fail-over to the next, return to the first. Does not own: how they are found (`io`).

use std::net::IpAddr;
use std::time::Duration;

use crate::sip::event::Route;
use crate::time::Instant;

/// Addresses of the registrar that are remembered.
const MAX_ROUTES: usize = 32;

/// The registrar's addresses, best first.
#[derive(Debug, Default)]
pub(super) struct Servers {
    routes: Vec<Route>,
    at: usize,
    /// After this moment they are to be looked up again.
    fresh_until: Option<Instant>,
}

impl Servers {
    /// New addresses: the turn is the first one's, or stays with the one in use if `stay`.
    pub(super) fn replace(&mut self, now: Instant, mut routes: Vec<Route>, lifetime: Duration, stay: bool) {
        let used = self.current().filter(|_| stay);
        routes.truncate(MAX_ROUTES);
        self.at = routes.iter().position(|route| Some(*route) == used).unwrap_or(0);
        self.routes = routes;
        self.fresh_until = Some(now + lifetime);
    }

    /// Whose turn it is.
    pub(super) fn current(&self) -> Option<Route> {
        self.routes.get(self.at).copied()
    }

    /// Whether one is left that comes after the current one.
    pub(super) fn has_next(&self) -> bool {
        self.at + 1 < self.routes.len()
    }

    /// The next one's turn; `None` if all have had theirs, and then it is the first one's again.
    pub(super) fn advance(&mut self) -> Option<Route> {
        self.at = if self.has_next() { self.at + 1 } else { 0 };
        self.current().filter(|_| self.at > 0)
    }

    /// The first one's turn again: it may be back.
    pub(super) fn rewind(&mut self) {
        self.at = 0;
    }

    /// Whether the turn is not the first one's.
    pub(super) fn is_substitute(&self) -> bool {
        self.at > 0
    }

    /// Whether the addresses have outlived what the name servers grant them.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.fresh_until.is_none_or(|until| now >= until)
    }

    /// Forgets those to which a way leads from one of these addresses of ours; true if the one in use is among them.
    pub(super) fn lose(&mut self, gone: &[IpAddr]) -> bool {
        let is_lost = |route: &Route| gone.contains(&route.local);
        let loses_current = self.current().as_ref().is_some_and(is_lost);
        self.routes.retain(|route| !is_lost(route));
        if loses_current || self.at >= self.routes.len() {
            self.at = 0;
        }
        loses_current
    }

    /// Whether `address` is one of them.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.routes.iter().any(|route| route.remote.ip().to_canonical() == address.to_canonical())
    }
}
