//! One call: the INVITE session, answering side (RFC 3261 §13.3, §14.2, §15).
//!
//! Owns: what may happen in which order from the INVITE to the BYE, the repetition of a 2xx until its ACK.
//! Does not own: admission (`endpoint`), what the session descriptions say (`gateway`).
//! Flow: Early → Answered → Confirmed ⇄ (ReOffered → Answered) → Ending → Over. The gateway hears `Ended` once, unless
//! it ended the call itself.

use std::time::Duration;

use super::body::session_description;
use super::dialog::Dialog;
use super::event::{CallKey, EndReason, Event, Path, Rejection};
use super::layer::{Outcome, Owner, TransactionLayer};
use super::reply::{ACCEPT, ALLOW, Refusal, SUPPORTED};
use super::timer::{LIFETIME, Resend};
use super::transaction::ServerKey;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{Method, Request, Response};
use crate::wire::uri::{Host, quote};

/// A ringing call says so again every minute, or proxies would give it up (RFC 3261 §13.3.1.1).
const RING_AGAIN: Duration = Duration::from_secs(60);
/// A call that was answered but not acknowledged gets no BYE before the ACK (RFC 3261 §15); when the program ends, the
/// wait is this long, so that the BYE is out well within the second of a shut-down.
const UNACKNOWLEDGED_GRACE: Duration = Duration::from_millis(400);

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    key: CallKey,
    dialog: Dialog,
    /// Our Contact value in this dialog.
    contact: String,
    sent_by: (Host, u16),
    state: State,
}

#[derive(Debug)]
enum State {
    /// The INVITE has no final answer yet.
    Early { invite: OpenInvite, expires: Option<Instant>, ring_again: Option<Instant> },
    /// A 2xx is out and is repeated until its ACK.
    Answered(Answered),
    /// The ACK is in.
    Confirmed,
    /// A re-INVITE waits for the gateway.
    ReOffered { invite: OpenInvite },
    /// Our BYE is under way.
    Ending,
    /// Nothing is left to do.
    Over,
}

/// An INVITE that waits for its final response.
#[derive(Debug)]
pub(crate) struct OpenInvite {
    key: ServerKey,
    request: Request,
    /// The way that it came.
    path: Path,
    has_offer: bool,
}

impl OpenInvite {
    /// An INVITE that came along `path`, and its offer.
    ///
    /// # Errors
    /// The refusal, if its body cannot be used.
    pub(crate) fn new(key: ServerKey, request: Request, path: Path) -> Result<(Self, Option<Vec<u8>>), Refusal> {
        let offer = session_description(&request.headers, &request.body)?;
        Ok((Self { key, request, path, has_offer: offer.is_some() }, offer))
    }
}

#[derive(Debug)]
struct Answered {
    cseq: u32,
    key: ServerKey,
    response: Vec<u8>,
    resend: Resend,
    give_up: Instant,
    /// Our 2xx carried an offer, so the ACK carries the answer.
    expects_answer: bool,
    /// The gateway has hung up already: BYE follows the ACK, at this moment at the latest.
    bye_by: Option<Instant>,
}

impl Call {
    /// A call that an INVITE begins; its transaction exists already.
    pub(crate) fn new(
        now: Instant,
        key: CallKey,
        dialog: Dialog,
        contact: String,
        sent_by: (Host, u16),
        invite: OpenInvite,
    ) -> Self {
        let expires = invite.request.headers.expires().map(|seconds| now + Duration::from_secs(seconds.into()));
        Self { key, dialog, contact, sent_by, state: State::Early { invite, expires, ring_again: None } }
    }

    /// The dialog.
    pub(crate) fn dialog(&mut self) -> &mut Dialog {
        &mut self.dialog
    }

    /// Whether a request with these identifiers is for it.
    pub(crate) fn is_of(&self, call_id: &str, local_tag: &str, remote_tag: &str) -> bool {
        self.dialog.matches(call_id, local_tag, remote_tag)
    }

    /// Our tag.
    pub(crate) fn local_tag(&self) -> &str {
        self.dialog.local_tag()
    }

    /// Whether it may be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether its unanswered INVITE is the one of `key`.
    pub(crate) fn has_open_invite(&self, key: &ServerKey) -> bool {
        match &self.state {
            State::Early { invite, .. } | State::ReOffered { invite } => invite.key == *key,
            State::Answered(_) | State::Confirmed | State::Ending | State::Over => false,
        }
    }

    /// 180.
    pub(crate) fn ring(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if let State::Early { invite, ring_again, .. } = &mut self.state {
            let mut response = Response::to_request(&invite.request, 180, "").with("Contact", &self.contact);
            response.set_to_tag(self.dialog.local_tag());
            layer.respond_invite(now, &invite.key, response);
            *ring_again = Some(now + RING_AGAIN);
        }
    }

    /// 200 with our answer, or with our offer if the INVITE had none.
    pub(crate) fn answer(&mut self, now: Instant, sdp: Vec<u8>, layer: &mut TransactionLayer) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Early { invite, .. } => self.accept(now, invite, sdp, layer),
            other => self.state = other,
        }
    }

    /// Turns the call away.
    pub(crate) fn reject(&mut self, now: Instant, rejection: &Rejection, layer: &mut TransactionLayer) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Early { invite, .. } => self.refuse(now, &invite, &Refusal::from(rejection), layer),
            other => self.state = other,
        }
    }

    /// 200 to a re-INVITE.
    pub(crate) fn accept_offer(&mut self, now: Instant, sdp: Vec<u8>, layer: &mut TransactionLayer) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::ReOffered { invite } => {
                self.dialog.refresh_target(&invite.request, invite.path, &mut layer.out);
                self.accept(now, invite, sdp, layer);
            }
            other => self.state = other,
        }
    }

    /// Refuses a re-INVITE; the call goes on as it was.
    pub(crate) fn refuse_offer(&mut self, now: Instant, rejection: &Rejection, layer: &mut TransactionLayer) {
        match std::mem::replace(&mut self.state, State::Confirmed) {
            State::ReOffered { invite } => self.refuse(now, &invite, &Refusal::from(rejection), layer),
            other => self.state = other,
        }
    }

    /// Ends the call from our side, in whatever state it is.
    pub(crate) fn hang_up(&mut self, now: Instant, reason: &str, layer: &mut TransactionLayer) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Early { invite, .. } => self.refuse(now, &invite, &Refusal::because(480, reason), layer),
            State::Answered(answered) => {
                let bye_by = Some(answered.bye_by.unwrap_or(answered.give_up));
                self.state = State::Answered(Answered { bye_by, ..answered });
            }
            State::ReOffered { invite } => {
                self.refuse(now, &invite, &Refusal::new(487), layer);
                self.send_bye(now, reason, layer);
            }
            State::Confirmed => self.send_bye(now, reason, layer),
            over @ (State::Ending | State::Over) => self.state = over,
        }
    }

    /// Ends the call because the program ends.
    pub(crate) fn shut_down(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if !self.is_released() {
            layer.out.event(Event::Ended { call: self.key, why: EndReason::ShutDown });
        }
        self.hang_up(now, "The gateway is shutting down", layer);
        if let State::Answered(answered) = &mut self.state {
            answered.bye_by = Some(now + UNACKNOWLEDGED_GRACE);
        }
    }

    /// The ACK for a 2xx.
    pub(crate) fn handle_ack(&mut self, now: Instant, ack: &Request, layer: &mut TransactionLayer) {
        let cseq = ack.headers.cseq().map(|cseq| cseq.number).ok();
        match std::mem::replace(&mut self.state, State::Confirmed) {
            State::Answered(answered) if Some(answered.cseq) == cseq => {
                if answered.bye_by.is_some() {
                    return self.send_bye(now, "", layer);
                }
                if answered.expects_answer {
                    let Ok(Some(sdp)) = session_description(&ack.headers, &ack.body) else {
                        layer.out.event(Event::Ended { call: self.key, why: EndReason::NoAnswer });
                        return self.send_bye(now, "The ACK has no answer to our offer", layer);
                    };
                    layer.out.event(Event::Answer { call: self.key, sdp });
                }
                layer.out.event(Event::Acknowledged { call: self.key });
            }
            other => self.state = other,
        }
    }

    /// The INVITE of an open transaction was cancelled (RFC 3261 §9.2).
    pub(crate) fn handle_cancel(&mut self, now: Instant, layer: &mut TransactionLayer) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Early { invite, .. } => {
                self.refuse(now, &invite, &Refusal::new(487), layer);
                layer.out.event(Event::Ended { call: self.key, why: EndReason::Cancelled });
            }
            State::ReOffered { invite } => {
                self.refuse(now, &invite, &Refusal::new(487), layer);
                self.state = State::Confirmed;
            }
            other => self.state = other,
        }
    }

    /// BYE, also before the answer; its own response is the endpoint's to send.
    pub(crate) fn handle_bye(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if !self.is_released() {
            layer.out.event(Event::Ended { call: self.key, why: EndReason::Bye });
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Early { invite, .. } | State::ReOffered { invite } => {
                self.refuse(now, &invite, &Refusal::new(487), layer);
            }
            State::Answered(_) | State::Confirmed | State::Over => {}
            // Both hung up at once; the wait for the answer to our BYE is over as well (RFC 3261 §15.1.2 allows it).
            State::Ending => layer.abandon(Owner::Call(self.key)),
        }
    }

    /// A re-INVITE, whose transaction exists already.
    ///
    /// # Errors
    /// The refusal to be sent.
    pub(crate) fn handle_reinvite(
        &mut self,
        key: ServerKey,
        request: Request,
        path: Path,
        layer: &mut TransactionLayer,
    ) -> Result<(), Refusal> {
        match &self.state {
            State::Early { .. } | State::ReOffered { .. } => {
                return Err(Refusal::try_again("The previous INVITE is not answered yet", &mut layer.random));
            }
            // No one knows what both sides agreed on before the ACK (RFC 5407 §3.1.4).
            State::Answered(_) => return Err(Refusal::new(491)),
            State::Ending | State::Over => return Err(Refusal::new(481)),
            State::Confirmed => {}
        }
        let (invite, sdp) = OpenInvite::new(key, request, path)?;
        self.state = State::ReOffered { invite };
        layer.out.event(Event::Offer { call: self.key, sdp });
        Ok(())
    }

    /// What became of our BYE.
    pub(crate) fn handle_outcome(&mut self, outcome: &Outcome<'_>) {
        let State::Ending = self.state else { return };
        match outcome {
            Outcome::Response(response) if response.is_provisional() => {}
            // A challenge too: it may come from the caller, who is to get no digest to guess our password from. A proxy that
            // asks the same of everyone passes the caller's question on just as well.
            Outcome::Response(_) | Outcome::Timeout => self.state = State::Over,
        }
    }

    /// Runs what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, layer: &mut TransactionLayer) {
        match &mut self.state {
            State::Early { expires: Some(expires), .. } if now >= *expires => self.handle_cancel(now, layer),
            State::Early { ring_again: Some(at), .. } if now >= *at => self.ring(now, layer),
            State::Answered(Answered { bye_by: Some(at), .. }) if now >= *at => self.send_bye(now, "", layer),
            State::Answered(answered) if now >= answered.give_up => {
                layer.out.event(Event::Ended { call: self.key, why: EndReason::NoAck });
                self.send_bye(now, "No ACK", layer);
            }
            State::Answered(answered) => {
                // RFC 6026: the transaction, if it still exists, passes further 2xx to the network.
                if answered.resend.fired(now)
                    && let Some(invite) = layer.servers.find_invite(&answered.key)
                {
                    invite.respond(now, 200, answered.response.clone(), &mut layer.out);
                }
            }
            State::Early { .. } | State::Confirmed | State::ReOffered { .. } | State::Ending | State::Over => {}
        }
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        match &self.state {
            State::Early { expires, ring_again, .. } => earliest([
                expires.map(|at| Deadline::new(at, "the INVITE expires")),
                ring_again.map(|at| Deadline::new(at, "ring again")),
            ]),
            State::Answered(answered) => earliest([
                Some(answered.resend.deadline()),
                Some(Deadline::new(answered.give_up, "no ACK")),
                answered.bye_by.map(|at| Deadline::new(at, "BYE without ACK")),
            ]),
            State::Confirmed | State::ReOffered { .. } | State::Ending | State::Over => None,
        }
    }

    /// Whether the gateway knows already that this call is over.
    fn is_released(&self) -> bool {
        match &self.state {
            State::Early { .. } | State::Confirmed | State::ReOffered { .. } => false,
            State::Answered(answered) => answered.bye_by.is_some(),
            State::Ending | State::Over => true,
        }
    }

    fn accept(&mut self, now: Instant, invite: OpenInvite, sdp: Vec<u8>, layer: &mut TransactionLayer) {
        let mut response = Response::to_request(&invite.request, 200, "")
            .with("Contact", &self.contact)
            .with("Allow", ALLOW)
            .with("Accept", ACCEPT)
            .with("Supported", SUPPORTED)
            .with_body("application/sdp", sdp);
        response.set_to_tag(self.dialog.local_tag());
        let response = layer.respond_invite(now, &invite.key, response);
        self.state = State::Answered(Answered {
            cseq: invite.request.headers.cseq().map_or(0, |cseq| cseq.number),
            key: invite.key,
            response,
            resend: Resend::start(now, "2xx again"),
            give_up: now + LIFETIME,
            expects_answer: !invite.has_offer,
            bye_by: None,
        });
    }

    fn refuse(&self, now: Instant, invite: &OpenInvite, refusal: &Refusal, layer: &mut TransactionLayer) {
        layer.respond_invite(now, &invite.key, refusal.to_response(&invite.request, self.dialog.local_tag()));
    }

    fn send_bye(&mut self, now: Instant, reason: &str, layer: &mut TransactionLayer) {
        let mut bye = self.dialog.request(Method::Bye);
        if !reason.is_empty() {
            bye.headers.push("Reason", format!("SIP;cause=200;text={}", quote(reason)));
        }
        layer.request(now, Owner::Call(self.key), self.dialog.path(), self.sent_by.clone(), bye);
        self.state = State::Ending;
    }
}
