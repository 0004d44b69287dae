//! A call whose address of ours is gone goes on from another one: a re-INVITE with another Contact (RFC 3261 §14.1) and another
//! description.
//!
//! Owns: when the re-INVITE may go out, and go out again. Does not own: the request itself (`refresh`), which address it is.

use std::net::IpAddr;
use std::time::Duration;

use super::refresh::TRY_AGAIN;
use super::{Call, Exchange, State};
use crate::sip::event::Path;
use crate::sip::layer::TransactionLayer;
use crate::time::{Deadline, Instant};
use crate::wire::sip::{Method, Response};
use crate::wire::uri::Host;

/// How long it waits that finds an offer open, or our own refresh: those are answered within a round trip.
const WAIT_FOR_ANSWER: Duration = Duration::from_millis(500);

/// Where the move stands.
#[derive(Debug, Default)]
pub(super) enum Moving {
    /// The peer knows our address.
    #[default]
    Settled,
    /// The re-INVITE is to go out.
    Due(Instant),
    /// It waits for its answer.
    Told,
}

impl Moving {
    /// The re-INVITE was answered; with a `wait`, it is to be tried again after that, and then this gives true.
    pub(super) fn on_answered(&mut self, now: Instant, wait: Option<Duration>) -> bool {
        if let Self::Told = self {
            *self = wait.map_or(Self::Settled, |wait| Self::Due(now + wait));
        }
        matches!(self, Self::Due(_))
    }

    pub(super) const fn is_told(&self) -> bool {
        matches!(self, Self::Told)
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        match self {
            Self::Due(at) => Some(Deadline::new(*at, "re-INVITE from another address")),
            Self::Settled | Self::Told => None,
        }
    }
}

impl Call {
    /// The way of our next request.
    pub(crate) fn path(&self) -> Path {
        self.dialog.path()
    }

    /// Goes on from another address of ours; gives the way from there.
    pub(crate) fn move_to(&mut self, local: IpAddr) -> Path {
        self.dialog.move_to(local);
        self.path()
    }

    /// Tells the peer where we are now: by `contact`, and by a description that is an offer.
    pub(crate) fn tell_move(&mut self, now: Instant, (contact, sent_by): (String, (Host, u16)), description: Vec<u8>) {
        (self.contact, self.sent_by, self.description) = (contact, sent_by, description);
        self.moving = Moving::Due(now);
    }

    /// A re-INVITE of ours was refused. True if that was about the address, and it is to be tried again; the session timer begins
    /// with its answer.
    pub(super) fn move_is_refused(&mut self, now: Instant, response: &Response, layer: &mut TransactionLayer) -> bool {
        // A peer that does not take it goes on sending to the address that is gone, and is missed by its silence.
        let is_passing = matches!(response.status, 500 | 503);
        let wait = self.wait_asked_for(response, layer).or_else(|| is_passing.then_some(TRY_AGAIN));
        self.moving.on_answered(now, wait)
    }

    /// Sends the re-INVITE if it is due. Only a confirmed call sends one.
    pub(super) fn run_move(&mut self, now: Instant, layer: &mut TransactionLayer) {
        match self.moving {
            Moving::Due(at) if now >= at => {}
            Moving::Settled | Moving::Due(_) | Moving::Told => return,
        }
        if self.exchange != Exchange::Settled || self.refresh.is_in_flight() {
            self.moving = Moving::Due(now + WAIT_FOR_ANSWER);
            return;
        }
        debug_assert!(matches!(self.state, State::Confirmed));
        self.moving = Moving::Told;
        let request = self.refresh_request(Method::Invite);
        self.send_refresh(now, request, layer);
    }
}
