//! One call: the INVITE session, answering side (RFC 3261 §13.3, §14, §15).
//!
//! Owns: what may happen in which order from the INVITE to the BYE, the repetition of a 2xx until its ACK, where offer and
//! answer stand (RFC 3264, RFC 6337). Does not own: admission (`endpoint`), what the session descriptions say (`gateway`).
//! Flow: Early → Answered → Confirmed ⇄ (ReOffered → Answered) → Ending → Over. The gateway hears `Ended` once, unless
//! it ended the call itself.
//! Beside that flow run provisional responses and PRACK (`early`), UPDATE (`update`), and the session timer with our own
//! UPDATE or re-INVITE (`refresh`), questions whether the telephone is there (`probe`), a new address of ours (`moving`), and what a transfer does to both of
//! its calls (`parting`).

mod early;
mod moving;
mod parting;
mod probe;
mod refresh;
mod update;

use std::time::Duration;

use super::body::session_description;
use super::dialog::Dialog;
use super::event::{CallKey, EndReason, Event, Path, Rejection};
use super::layer::{Outcome, Owner, TransactionLayer};
use super::reliable::{Reliable, Wanted};
use super::reply::{ACCEPT, ALLOW, Refusal, SUPPORTED};
use super::session_timer::{SessionTimer, Terms};
use super::timer::{LIFETIME, Resend};
use super::transaction::ServerKey;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{Headers, Method, Request, Response};
use crate::wire::uri::{Host, quote};
use early::Early;
use moving::Moving;
use refresh::Refresh;
use update::OpenRequest;

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
    exchange: Exchange,
    /// What we described last.
    description: Vec<u8>,
    reliable: Reliable,
    /// An UPDATE or PRACK that waits for the gateway.
    open: Option<OpenRequest>,
    peer: PeerAbilities,
    timer: SessionTimer,
    refresh: Refresh,
    moving: Moving,
    /// OPTIONS of ours waits for its answer.
    is_probed: bool,
    /// REFERs so far.
    refers: u32,
}

#[derive(Debug)]
enum State {
    /// The INVITE has no final answer yet.
    Early(Early),
    /// A 2xx is out and is repeated until its ACK.
    Answered(Answered),
    /// The ACK is in.
    Confirmed,
    /// A re-INVITE waits for the gateway.
    ReOffered { invite: OpenInvite },
    /// The telephone that transfers the call has hung up, its target has not answered: only NOTIFYs live in this dialog.
    Parted,
    /// The transfer is done; the transferor is expected to hang up until then.
    Transferred { bye_at: Instant },
    /// Our BYE is under way.
    Ending,
    /// Nothing is left to do.
    Over,
}

/// Where offer and answer stand: who may offer next (RFC 3264 §4, RFC 6337 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exchange {
    /// The peer's offer, or its wish for ours, waits for us.
    Theirs,
    /// Our offer waits for its answer.
    Ours,
    /// Neither.
    Settled,
}

/// What the peer says of itself.
#[derive(Clone, Copy, Debug, Default)]
struct PeerAbilities {
    /// It takes UPDATE.
    updates: bool,
    /// It has asked for a session timer, or agreed to one.
    timers: bool,
}

impl PeerAbilities {
    /// By a message of the peer's; one that says nothing of its methods leaves what was known.
    fn learn(&mut self, headers: &Headers) {
        if headers.has("Allow") {
            self.updates = headers.values("Allow").any(|method| method == Method::Update.as_str());
        }
        self.timers = headers.has("Session-Expires");
    }
}

/// An INVITE that waits for its final response.
#[derive(Debug)]
pub(crate) struct OpenInvite {
    key: ServerKey,
    request: Request,
    /// The way that it came.
    path: Path,
    has_offer: bool,
    terms: Terms,
}

impl OpenInvite {
    /// An INVITE that came along `path`, and its offer.
    ///
    /// # Errors
    /// The refusal, if its body or its session interval cannot be used.
    pub(crate) fn new(key: ServerKey, request: Request, path: Path) -> Result<(Self, Option<Vec<u8>>), Refusal> {
        let offer = session_description(&request.headers, &request.body)?;
        let terms = Terms::of_request(&request.headers)?;
        Ok((Self { key, request, path, has_offer: offer.is_some(), terms }, offer))
    }

    fn cseq(&self) -> u32 {
        self.request.headers.cseq().map_or(0, |cseq| cseq.number)
    }
}

#[derive(Debug)]
struct Answered {
    cseq: u32,
    key: ServerKey,
    response: Vec<u8>,
    resend: Resend,
    give_up: Instant,
    /// The gateway has hung up already.
    parting: Option<Parting>,
}

/// A BYE that waits for the ACK (RFC 3261 §15).
#[derive(Debug)]
struct Parting {
    /// It goes out at this moment at the latest.
    by: Instant,
    reason: String,
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
        let mut peer = PeerAbilities::default();
        peer.learn(&invite.request.headers);
        Self {
            key,
            dialog,
            contact,
            sent_by,
            reliable: Reliable::new(Wanted::of_request(&invite.request.headers)),
            state: State::Early(Early::new(now, invite)),
            exchange: Exchange::Theirs,
            description: Vec::new(),
            open: None,
            peer,
            timer: SessionTimer::default(),
            refresh: Refresh::default(),
            moving: Moving::default(),
            is_probed: false,
            refers: 0,
        }
    }

    /// The dialog.
    pub(crate) fn dialog(&mut self) -> &mut Dialog {
        &mut self.dialog
    }

    /// Whether a request with these identifiers is for it.
    pub(crate) fn is_of(&self, call_id: &str, local_tag: &str, remote_tag: &str) -> bool {
        self.dialog.matches(call_id, local_tag, remote_tag)
    }

    /// Whether another call may take its place (RFC 3891 §3): it is answered and not over.
    ///
    /// # Errors
    /// The refusal for the INVITE that asks for it.
    pub(crate) fn may_be_replaced(&self, is_early_only: bool) -> Result<(), Refusal> {
        match &self.state {
            // An early dialog that the caller began is the caller's to end.
            State::Early(_) => Err(Refusal::new(481)),
            _ if self.is_released() => Err(Refusal::new(603)),
            _ if is_early_only => Err(Refusal::new(486)),
            _ => Ok(()),
        }
    }

    /// From now on it is known by another key.
    pub(crate) const fn rename(&mut self, key: CallKey) {
        self.key = key;
    }

    /// Our tag.
    pub(crate) fn local_tag(&self) -> &str {
        self.dialog.local_tag()
    }

    /// Whether it may be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether its latest INVITE, up to the ACK, is the one of `key`.
    pub(crate) fn has_invite(&self, key: &ServerKey) -> bool {
        match &self.state {
            State::Early(Early { invite, .. }) | State::ReOffered { invite } => invite.key == *key,
            State::Answered(answered) => answered.key == *key,
            State::Confirmed | State::Parted | State::Transferred { .. } | State::Ending | State::Over => false,
        }
    }

    /// Turns the call away.
    pub(crate) fn reject(&mut self, now: Instant, rejection: &Rejection, layer: &mut TransactionLayer) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Early(Early { invite, .. }) => self.refuse(now, &invite, &Refusal::from(rejection), layer),
            other => self.state = other,
        }
    }

    /// 200 to a re-INVITE, or to the UPDATE or PRACK that brought an offer.
    pub(crate) fn accept_offer(&mut self, now: Instant, sdp: Vec<u8>, layer: &mut TransactionLayer) {
        if let Some(open) = self.open.take() {
            return self.answer_open(now, open, sdp, layer);
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::ReOffered { invite } => {
                self.dialog.refresh_target(&invite.request, invite.path, &mut layer.out);
                self.accept(now, invite, Some(sdp), layer);
            }
            other => self.state = other,
        }
    }

    /// Refuses a re-INVITE, UPDATE or PRACK; the call goes on as it was.
    pub(crate) fn refuse_offer(&mut self, now: Instant, rejection: &Rejection, layer: &mut TransactionLayer) {
        if let Some(open) = self.open.take() {
            return self.refuse_open(now, open, &Refusal::from(rejection), layer);
        }
        match std::mem::replace(&mut self.state, State::Confirmed) {
            State::ReOffered { invite } => {
                self.exchange = Exchange::Settled;
                self.refuse(now, &invite, &Refusal::from(rejection), layer);
            }
            other => self.state = other,
        }
    }

    /// Ends the call from our side, in whatever state it is.
    pub(crate) fn hang_up(&mut self, now: Instant, reason: &str, layer: &mut TransactionLayer) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Early(Early { invite, .. }) => self.refuse(now, &invite, &Refusal::because(480, reason), layer),
            State::Answered(mut answered) => {
                let by = answered.give_up;
                answered.parting.get_or_insert_with(|| Parting { by, reason: reason.to_owned() });
                self.state = State::Answered(answered);
            }
            State::ReOffered { invite } => {
                self.refuse(now, &invite, &Refusal::new(487), layer);
                self.send_bye(now, reason, layer);
            }
            State::Confirmed | State::Transferred { .. } => self.send_bye(now, reason, layer),
            State::Parted => {}
            over @ (State::Ending | State::Over) => self.state = over,
        }
    }

    /// Ends the call because the program ends.
    pub(crate) fn shut_down(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if !self.is_released() {
            layer.out.event(Event::Ended { call: self.key, why: EndReason::ShutDown });
        }
        self.hang_up(now, "The gateway is shutting down", layer);
        if let State::Answered(Answered { parting: Some(parting), .. }) = &mut self.state {
            // Not later than without an end of the program, or the missing ACK would be told as another end of the call.
            parting.by = parting.by.min(now + UNACKNOWLEDGED_GRACE);
        }
    }

    /// The ACK for a 2xx.
    pub(crate) fn handle_ack(&mut self, now: Instant, ack: &Request, layer: &mut TransactionLayer) {
        let cseq = ack.headers.cseq().map(|cseq| cseq.number).ok();
        match std::mem::replace(&mut self.state, State::Confirmed) {
            State::Answered(answered) if Some(answered.cseq) == cseq => {
                if let Some(parting) = answered.parting {
                    return self.send_bye(now, &parting.reason, layer);
                }
                if self.exchange == Exchange::Ours {
                    let Ok(Some(sdp)) = session_description(&ack.headers, &ack.body) else {
                        return self.end(now, EndReason::NoAnswer, "The ACK has no answer to our offer", layer);
                    };
                    self.exchange = Exchange::Settled;
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
            State::Early(Early { invite, .. }) => {
                self.refuse(now, &invite, &Refusal::new(487), layer);
                layer.out.event(Event::Ended { call: self.key, why: EndReason::Cancelled });
            }
            State::ReOffered { invite } => {
                self.refuse(now, &invite, &Refusal::new(487), layer);
                self.exchange = Exchange::Settled;
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
            State::Early(Early { invite, .. }) | State::ReOffered { invite } => {
                self.refuse(now, &invite, &Refusal::new(487), layer);
            }
            State::Answered(_) | State::Confirmed | State::Parted | State::Transferred { .. } | State::Over => {}
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
            State::Early(_) | State::ReOffered { .. } => {
                return Err(Refusal::try_again("The previous INVITE is not answered yet", &mut layer.random));
            }
            // No one knows what both sides agreed on before the ACK (RFC 5407 §3.1.4).
            State::Answered(_) => return Err(Refusal::new(491)),
            State::Parted | State::Transferred { .. } | State::Ending | State::Over => {
                return Err(Refusal::new(481));
            }
            State::Confirmed => {}
        }
        match self.exchange {
            // Our own re-INVITE is under way (RFC 3261 §14.2).
            Exchange::Ours => return Err(Refusal::new(491)),
            Exchange::Theirs => return Err(Refusal::try_again("An UPDATE is not answered yet", &mut layer.random)),
            Exchange::Settled => {}
        }
        let (invite, sdp) = OpenInvite::new(key, request, path)?;
        self.peer.learn(&invite.request.headers);
        self.exchange = Exchange::Theirs;
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
            State::Early(early) if early.is_expired(now) => self.handle_cancel(now, layer),
            State::Early(_) => self.run_early(now, layer),
            State::Answered(Answered { parting: Some(parting), .. }) if now >= parting.by => {
                let reason = std::mem::take(&mut parting.reason);
                self.send_bye(now, &reason, layer);
            }
            State::Answered(answered) if now >= answered.give_up => {
                self.end(now, EndReason::NoAck, "No ACK", layer);
            }
            State::Answered(answered) => {
                // RFC 6026: the transaction, if it still exists, passes further 2xx to the network.
                if answered.resend.fired(now)
                    && let Some(invite) = layer.servers.find_invite(&answered.key)
                {
                    invite.respond(now, 200, answered.response.clone(), &mut layer.out);
                }
            }
            State::Confirmed => {
                self.run_move(now, layer);
                self.run_session_timer(now, layer);
            }
            State::Transferred { bye_at } if now >= *bye_at => self.send_bye(now, "Transferred", layer),
            State::ReOffered { .. } | State::Parted | State::Transferred { .. } | State::Ending | State::Over => {}
        }
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        match &self.state {
            State::Early(early) => earliest([early.next_timeout(), self.reliable.next_timeout()]),
            State::Answered(answered) => earliest([
                Some(answered.resend.deadline()),
                Some(Deadline::new(answered.give_up, "no ACK")),
                answered.parting.as_ref().map(|parting| Deadline::new(parting.by, "BYE without ACK")),
            ]),
            State::Confirmed => earliest([self.timer.next_timeout(), self.moving.next_timeout()]),
            State::Transferred { bye_at } => Some(Deadline::new(*bye_at, "BYE after the transfer")),
            State::ReOffered { .. } | State::Parted | State::Ending | State::Over => None,
        }
    }

    /// Whether the gateway knows already that this call is over.
    pub(crate) fn is_released(&self) -> bool {
        match &self.state {
            State::Early(_) | State::Confirmed | State::ReOffered { .. } | State::Parted => false,
            State::Answered(answered) => answered.parting.is_some(),
            State::Transferred { .. } | State::Ending | State::Over => true,
        }
    }

    /// 200, without a description if a reliable provisional response has carried it (RFC 6337 §3.1.1).
    fn accept(&mut self, now: Instant, invite: OpenInvite, sdp: Option<Vec<u8>>, layer: &mut TransactionLayer) {
        let mut response = self.success(&invite.request);
        invite.terms.grant(&mut response);
        self.timer.start(now, invite.terms, true);
        if let Some(sdp) = sdp {
            self.exchange = if invite.has_offer { Exchange::Settled } else { Exchange::Ours };
            self.description.clone_from(&sdp);
            response = response.with_body("application/sdp", sdp);
        }
        self.reliable.finish();
        let response = layer.respond_invite(now, &invite.key, response);
        self.state = State::Answered(Answered {
            cseq: invite.cseq(),
            key: invite.key,
            response,
            resend: Resend::start(now, "2xx again"),
            give_up: now + LIFETIME,
            parting: None,
        });
    }

    /// 200 to a target refresh request.
    fn success(&self, request: &Request) -> Response {
        let mut response = Response::to_request(request, 200, "")
            .with("Contact", &self.contact)
            .with("Allow", ALLOW)
            .with("Accept", ACCEPT)
            .with("Supported", SUPPORTED);
        response.set_to_tag(self.dialog.local_tag());
        response
    }

    fn refuse(&mut self, now: Instant, invite: &OpenInvite, refusal: &Refusal, layer: &mut TransactionLayer) {
        self.reliable.finish();
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

    /// Ends the call because of the peer's silence or fault; the gateway is told.
    fn end(&mut self, now: Instant, why: EndReason, reason: &str, layer: &mut TransactionLayer) {
        layer.out.event(Event::Ended { call: self.key, why });
        self.send_bye(now, reason, layer);
    }
}
