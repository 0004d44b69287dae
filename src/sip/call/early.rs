//! A call before its answer: 180, early media in 183, PRACK (RFC 3261 §13.3.1.1, RFC 3262).

use std::time::Duration;

use super::update::OpenRequest;
use super::{Call, Exchange, OpenInvite, State};
use crate::sip::body::session_description;
use crate::sip::event::{EndReason, Event, Path};
use crate::sip::layer::TransactionLayer;
use crate::sip::reliable::{Due, RELIABLE, Wanted};
use crate::sip::reply::{ALLOW, Refusal, SUPPORTED};
use crate::sip::transaction::ServerKey;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{Request, Response};

/// A ringing call says so again every minute, or proxies would give it up (RFC 3261 §13.3.1.1).
const RING_AGAIN: Duration = Duration::from_secs(60);

/// An INVITE without final response.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) invite: OpenInvite,
    expires: Option<Instant>,
    ring_again: Option<Instant>,
    /// A reliable response has carried our description, so that the 200 needs none.
    is_described: bool,
    next: Next,
}

/// What follows the PRACK that is waited for.
#[derive(Debug)]
enum Next {
    Nothing,
    /// 183 with this description.
    Progress(Vec<u8>),
    /// 200 with this description.
    Answer(Vec<u8>),
}

impl Early {
    pub(super) fn new(now: Instant, invite: OpenInvite) -> Self {
        let expires = invite.request.headers.expires().map(|seconds| now + Duration::from_secs(seconds.into()));
        Self { invite, expires, ring_again: None, is_described: false, next: Next::Nothing }
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        earliest([
            self.expires.map(|at| Deadline::new(at, "the INVITE expires")),
            self.ring_again.map(|at| Deadline::new(at, "ring again")),
        ])
    }
}

impl Call {
    /// Sends 180. A caller who insists on reliable responses and left the offer to us would have to be given it with the first
    /// one (RFC 3262 §5): it hears nothing before [`Self::progress`].
    pub(crate) fn ring(&mut self, now: Instant, layer: &mut TransactionLayer) {
        let State::Early(early) = &mut self.state else { return };
        early.ring_again = Some(now + RING_AGAIN);
        let has_offer = early.invite.has_offer;
        match self.reliable.wanted() {
            Wanted::Never | Wanted::Allowed => self.send_provisional(now, 180, None, false, layer),
            Wanted::Always if has_offer && !self.reliable.is_pending() => {
                self.send_provisional(now, 180, None, true, layer);
            }
            Wanted::Always => {}
        }
    }

    /// 183 with our answer, or with our offer if the INVITE had none: early media. Reliable if the caller knows how.
    pub(crate) fn progress(&mut self, now: Instant, sdp: Vec<u8>, layer: &mut TransactionLayer) {
        let State::Early(early) = &mut self.state else { return };
        if early.is_described || matches!(early.next, Next::Answer(_)) {
            return;
        }
        if self.reliable.is_pending() {
            early.next = Next::Progress(sdp);
            return;
        }
        match self.reliable.wanted() {
            // An offer may only go out reliably (RFC 3261 §13.2.1); an answer is then a preview of the one in the 200.
            Wanted::Never if !early.invite.has_offer => {}
            Wanted::Never => self.send_provisional(now, 183, Some(sdp), false, layer),
            Wanted::Allowed | Wanted::Always => {
                early.is_described = true;
                self.exchange = if early.invite.has_offer { Exchange::Settled } else { Exchange::Ours };
                self.description.clone_from(&sdp);
                self.send_provisional(now, 183, Some(sdp), true, layer);
            }
        }
    }

    /// 200 with our answer, or with our offer if the INVITE had none. It waits for the PRACK of a description (RFC 3262
    /// §3).
    pub(crate) fn answer(&mut self, now: Instant, sdp: Vec<u8>, layer: &mut TransactionLayer) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Early(mut early) if self.reliable.holds_back_2xx() || self.open.is_some() => {
                early.next = Next::Answer(sdp);
                self.state = State::Early(early);
            }
            State::Early(early) => {
                let sdp = (!early.is_described).then_some(sdp);
                self.accept(now, early.invite, sdp, layer);
            }
            other => self.state = other,
        }
    }

    /// PRACK (RFC 3262 §3, §5).
    ///
    /// # Errors
    /// The refusal to be sent.
    pub(crate) fn handle_prack(
        &mut self,
        now: Instant,
        key: ServerKey,
        request: Request,
        path: Path,
        layer: &mut TransactionLayer,
    ) -> Result<(), Refusal> {
        let rack = request.headers.rack().map_err(|error| Refusal::because(400, &error.to_string()))?;
        if !self.reliable.matches(&rack) {
            return Err(Refusal::because(481, "No response with this RSeq waits for a PRACK"));
        }
        let sdp = session_description(&request.headers, &request.body)?;
        let is_answer = self.exchange == Exchange::Ours && self.reliable.holds_back_2xx();
        match sdp {
            None if is_answer => return Err(Refusal::because(400, "The answer to our offer is missing")),
            Some(_) if self.exchange != Exchange::Settled && !is_answer => {
                return Err(Refusal::because(400, "An offer is not answered yet"));
            }
            None => {}
            Some(sdp) if is_answer => {
                self.exchange = Exchange::Settled;
                layer.out.event(Event::Answer { call: self.key, sdp });
            }
            Some(sdp) => {
                self.reliable.acknowledge();
                self.open(OpenRequest { key, request, path }, sdp, layer);
                return Ok(());
            }
        }
        self.reliable.acknowledge();
        layer.respond(now, path, key, None, Response::to_request(&request, 200, ""));
        self.proceed(now, layer);
        Ok(())
    }

    /// Does what has waited for a PRACK, or for the answer to the offer in one.
    pub(super) fn proceed(&mut self, now: Instant, layer: &mut TransactionLayer) {
        let State::Early(early) = &mut self.state else { return };
        match std::mem::replace(&mut early.next, Next::Nothing) {
            Next::Nothing => {}
            Next::Progress(sdp) => self.progress(now, sdp, layer),
            Next::Answer(sdp) => self.answer(now, sdp, layer),
        }
    }

    /// Runs what is due in this state.
    pub(super) fn run_early(&mut self, now: Instant, layer: &mut TransactionLayer) {
        let State::Early(early) = &mut self.state else { return };
        match self.reliable.due(now) {
            Due::Nothing => {}
            Due::Resend(response) => {
                if let Some(invite) = layer.servers.find_invite(&early.invite.key) {
                    invite.respond(now, 183, response, &mut layer.out);
                }
            }
            Due::GiveUp => return self.give_up_prack(now, layer),
        }
        if early.ring_again.is_some_and(|at| now >= at) {
            self.ring(now, layer);
        }
    }

    /// RFC 3262 §3: a 5xx.
    fn give_up_prack(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if let State::Early(early) = std::mem::replace(&mut self.state, State::Over) {
            self.refuse(now, &early.invite, &Refusal::because(504, "No PRACK"), layer);
            layer.out.event(Event::Ended { call: self.key, why: EndReason::NoPrack });
        }
    }

    fn send_provisional(
        &mut self,
        now: Instant,
        status: u16,
        sdp: Option<Vec<u8>>,
        is_reliable: bool,
        layer: &mut TransactionLayer,
    ) {
        let State::Early(early) = &self.state else { return };
        let invite = &early.invite;
        let mut response = Response::to_request(&invite.request, status, "").with("Contact", &self.contact);
        response.set_to_tag(self.dialog.local_tag());
        let has_description = sdp.is_some();
        if let Some(sdp) = sdp {
            response = response.with_body("application/sdp", sdp);
        }
        if !is_reliable {
            layer.respond_invite(now, &invite.key, response);
            return;
        }
        let rseq = self.reliable.next_rseq(&mut layer.random);
        // Allow, so that the caller may send UPDATE before the answer (RFC 3311 §5.1).
        let response =
            response.with("Require", RELIABLE).with("RSeq", rseq).with("Allow", ALLOW).with("Supported", SUPPORTED);
        let bytes = layer.respond_invite(now, &invite.key, response);
        self.reliable.sent(now, rseq, invite.cseq(), bytes, has_description);
    }
}
