//! A call that we place because a caller's telephone asked for it: REFER (RFC 3515, RFC 4488, RFC 5589).
//!
//! Owns: what the REFER said, how far the call to its target has come. Does not own: the dialogs (`call`), the order of
//! events (`endpoint::transfers`).
//! Flow: Offering → (Resolving) → Calling → gone; a caller that leaves meanwhile leads through Cancelling.

use std::time::Duration;

use super::event::{CallKey, Path, Target};
use super::reply::{ALLOW, SUPPORTED};
use super::session_timer::{INTERVAL_S, Terms};
use super::timer::LIFETIME;
use crate::time::{Deadline, Instant};
use crate::wire::sip::{Method, NameAddr, ReferTo, Request};

/// How long the target may ring, and how long the transferor's subscription lives: people let it ring for half a minute.
pub(crate) const TRANSFER_LIMIT: Duration = Duration::from_secs(60);
/// How long a name look-up may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(20);

/// A transfer under way.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// The call that is transferred.
    pub(crate) of: CallKey,
    pub(crate) refer_to: ReferTo,
    referred_by: Option<String>,
    /// The Event value of its NOTIFYs; `None` if they are not wanted.
    pub(crate) subscription: Option<String>,
    /// The status told last.
    pub(crate) told: u16,
    pub(crate) state: State,
}

#[derive(Debug)]
pub(crate) enum State {
    /// The gateway makes our offer.
    Offering,
    /// The target's name is looked up.
    Resolving { target: Target, sdp: Vec<u8>, until: Instant },
    /// The INVITE is out.
    Calling(Box<Attempt>),
    /// Nobody waits for it any more; what it brings is ended.
    Cancelling { is_sent: bool, until: Instant },
}

/// An INVITE and what it takes to get it through.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// As sent, without Via.
    pub(crate) request: Request,
    pub(crate) path: Path,
    pub(crate) has_authorized: bool,
    until: Instant,
}

/// Who we are in an INVITE of ours.
pub(crate) struct Caller<'a> {
    /// The address of record with a tag.
    pub(crate) from: NameAddr,
    pub(crate) contact: &'a str,
    pub(crate) call_id: &'a str,
    /// Where its calls go first, at the registrar's wish.
    pub(crate) service_route: &'a [String],
}

impl Transfer {
    /// By a REFER of `call`.
    pub(crate) fn new(of: CallKey, refer: &Request, refer_to: ReferTo, subscription: Option<String>) -> Self {
        let referred_by = refer.headers.get("Referred-By").map(str::to_owned);
        Self { of, refer_to, referred_by, subscription, told: 100, state: State::Offering }
    }

    /// The target's name is being looked up.
    pub(crate) fn resolve(&mut self, now: Instant, target: Target, sdp: Vec<u8>) {
        self.state = State::Resolving { target, sdp, until: now + RESOLVE_LIMIT };
    }

    /// Takes our offer if the target's name is the one that was looked up.
    pub(crate) fn take_offer(&mut self, target: &Target) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Resolving { target: asked, sdp, .. } if asked == target => Some(std::mem::take(sdp)),
            State::Offering | State::Resolving { .. } | State::Calling(_) | State::Cancelling { .. } => None,
        }
    }

    /// The INVITE to the target without Via, to be sent along `path`.
    pub(crate) fn invite(&mut self, now: Instant, caller: &Caller<'_>, path: Path, sdp: Vec<u8>) -> Request {
        let target = &self.refer_to.target;
        let mut request = Request::new(Method::Invite, target.clone())
            .with("Max-Forwards", super::dialog::MAX_FORWARDS)
            .with("From", &caller.from)
            .with("To", NameAddr::new(target.clone()))
            .with("Call-ID", caller.call_id)
            .with("CSeq", "1 INVITE")
            .with("Contact", caller.contact)
            .with("Allow", ALLOW)
            .with("Supported", SUPPORTED);
        for route in caller.service_route {
            request.headers.push("Route", route);
        }
        if let Some(replaces) = &self.refer_to.replaces {
            request.headers.push("Require", "replaces");
            request.headers.push("Replaces", replaces.clone());
        }
        if let Some(referred_by) = &self.referred_by {
            request.headers.push("Referred-By", referred_by.clone());
        }
        Terms::ask(INTERVAL_S, false, &mut request);
        let request = request.with_body("application/sdp", sdp);
        let attempt = Attempt { request: request.clone(), path, has_authorized: false, until: now + TRANSFER_LIMIT };
        self.state = State::Calling(Box::new(attempt));
        request
    }

    /// Nobody waits for it any more. Its call may end meanwhile: it is found under the key of none.
    pub(crate) fn cancelled(self, now: Instant, is_sent: bool) -> Self {
        Self { state: State::Cancelling { is_sent, until: now + LIFETIME }, of: CallKey(0), ..self }
    }

    /// When it has to be over.
    const fn until(&self) -> Option<Instant> {
        match &self.state {
            State::Offering => None,
            State::Resolving { until, .. } | State::Cancelling { until, .. } => Some(*until),
            State::Calling(attempt) => Some(attempt.until),
        }
    }

    /// Whether it has taken too long.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now >= until)
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        self.until().map(|until| Deadline::new(until, "transfer"))
    }
}
