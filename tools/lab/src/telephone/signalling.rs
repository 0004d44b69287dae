//! One outgoing call as a calling user agent sees it, without sockets and clocks.
//!
//! Owns: INVITE with or without an offer, ACK, CANCEL, BYE, re-INVITE both ways, OPTIONS, their repetitions.
//! Does not own: RTP, strict checking of the other side's grammar. RFC: 3261 §9, §12 to §15, §17.1; 3264.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::message::{Message, parameter, uri_of};
use super::sdp::{Direction, LocalDescription, RemoteDescription};
use crate::random::token;

/// First pause before a request is repeated (RFC 3261 T1).
const T1: Duration = Duration::from_millis(500);
/// Longest pause between repetitions (RFC 3261 T2); an INVITE's pauses grow beyond it.
const T2: Duration = Duration::from_secs(4);
/// When an unanswered request is given up (64·T1).
const GIVE_UP: Duration = Duration::from_secs(32);
/// How long one waits for the other side to pick up after a provisional answer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This telephone.
    Us,
    /// The other side.
    Them,
}

/// What signalling has to say to the telephone that runs it.
#[derive(Debug, Clone)]
pub(super) enum Signal {
    /// A datagram for the other side.
    Send(Vec<u8>),
    /// 100.
    Trying,
    /// 180 or 183.
    Ringing(u16),
    /// 2xx to the first INVITE, acknowledged.
    Answered(RemoteDescription),
    /// A re-INVITE of ours was taken.
    Changed(RemoteDescription),
    /// A re-INVITE of ours was refused; the call goes on.
    ChangeRefused(u16),
    /// The other side sent a re-INVITE, which was answered.
    ChangedByThem(RemoteDescription),
    /// The first INVITE was refused.
    Refused {
        /// Status code.
        status: u16,
        /// Reason phrase.
        reason: String,
        /// The text of a Warning header.
        warning: Option<String>,
        /// Retry-After in seconds.
        retry_after_s: Option<u32>,
    },
    /// The call is over.
    Ended {
        /// Who sent BYE.
        by: Side,
        /// The text of a Reason header in their BYE.
        reason: Option<String>,
    },
    /// The call is over because the other side did not do its part.
    Failed(String),
}

/// A request of ours that waits for its answer.
struct Pending {
    method: &'static str,
    cseq: u32,
    branch: String,
    bytes: Vec<u8>,
    pause: Duration,
    repeat_at: Option<Instant>,
    give_up_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Inviting,
    Established,
    Ending,
    Over,
}

/// Everything that the call must know before it starts.
#[derive(Debug, Clone)]
pub(super) struct CallSetup {
    /// Whom to call: the Request-URI.
    pub(super) target: String,
    /// From header without tag, with display name if any.
    pub(super) from: String,
    /// Our signalling address, for Via and Contact.
    pub(super) local: SocketAddr,
    /// Our media; written into offers and answers.
    pub(super) description: LocalDescription,
    /// Whether the INVITE carries an offer; if not, the answer goes into the ACK.
    pub(super) offers: bool,
}

/// The call.
pub(super) struct Call {
    setup: CallSetup,
    state: State,
    call_id: String,
    from_tag: String,
    to: String,
    remote_target: String,
    routes: Vec<String>,
    cseq: u32,
    pending: Vec<Pending>,
    /// CANCEL waits for a first provisional response (RFC 3261 §9.1).
    is_cancel_wanted: bool,
    /// The last ACK, repeated when their 2xx is repeated, with its CSeq number.
    last_ack: Option<(u32, Vec<u8>)>,
    /// CSeq of their last request and our answer, for repetitions.
    last_answer: Option<(String, Vec<u8>)>,
    signals: VecDeque<Signal>,
}

impl Call {
    /// Sends the INVITE.
    pub(super) fn start(now: Instant, setup: CallSetup) -> Self {
        let target = setup.target.clone();
        let mut call = Self {
            to: format!("<{target}>"),
            remote_target: target,
            setup,
            state: State::Inviting,
            call_id: token(),
            from_tag: token(),
            routes: Vec::new(),
            cseq: 0,
            pending: Vec::new(),
            is_cancel_wanted: false,
            last_ack: None,
            last_answer: None,
            signals: VecDeque::new(),
        };
        let body = call.setup.offers.then(|| call.setup.description.to_text());
        call.request(now, "INVITE", body);
        call
    }

    /// The next thing to do for the owner.
    pub(super) fn poll_signal(&mut self) -> Option<Signal> {
        self.signals.pop_front()
    }

    /// When `handle_timeout` wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.pending
            .iter()
            .map(|pending| pending.repeat_at.map_or(pending.give_up_at, |at| at.min(pending.give_up_at)))
            .min()
    }

    /// True when nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Ends the call: CANCEL before the answer, BYE after it.
    pub(super) fn hang_up(&mut self, now: Instant) {
        match self.state {
            State::Inviting => self.cancel(now),
            State::Established => {
                self.state = State::Ending;
                self.request(now, "BYE", None);
            }
            State::Ending | State::Over => (),
        }
    }

    /// Asks for another direction, as a hold key does.
    pub(super) fn change(&mut self, now: Instant, direction: Direction) {
        if self.state == State::Established && !self.pending.iter().any(|pending| pending.method == "INVITE") {
            self.setup.description.direction = direction;
            self.setup.description.version += 1;
            let body = self.setup.description.to_text();
            self.request(now, "INVITE", Some(body));
        }
    }

    /// Repeats what is due, gives up what is overdue.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let mut given_up = None;
        for pending in &mut self.pending {
            if now >= pending.give_up_at {
                given_up = Some((pending.method, pending.cseq));
            } else if pending.repeat_at.is_some_and(|at| now >= at) {
                pending.pause *= 2;
                if pending.method != "INVITE" {
                    pending.pause = pending.pause.min(T2);
                }
                pending.repeat_at = Some(now + pending.pause);
                self.signals.push_back(Signal::Send(pending.bytes.clone()));
            }
        }
        if let Some((method, cseq)) = given_up {
            self.pending.retain(|pending| pending.cseq != cseq || pending.method != method);
            self.state = State::Over;
            self.signals.push_back(Signal::Failed(format!("no answer to {method}")));
        }
    }

    /// Takes a datagram from the other side.
    pub(super) fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        let Some(message) = Message::parse(datagram) else { return };
        if message.header("Call-ID") != Some(self.call_id.as_str()) {
            return self.handle_stranger(&message);
        }
        match message.status().map(|(status, reason)| (status, reason.to_owned())) {
            Some((status, reason)) => self.handle_response(now, &message, status, &reason),
            None => self.handle_request(&message),
        }
    }

    fn handle_response(&mut self, now: Instant, message: &Message, status: u16, reason: &str) {
        let Some((cseq, method)) = message.cseq() else { return };
        if method == "INVITE"
            && (200..300).contains(&status)
            && let Some((_, ack)) = self.last_ack.as_ref().filter(|(acknowledged, _)| *acknowledged == cseq)
        {
            self.signals.push_back(Signal::Send(ack.clone()));
            return;
        }
        let is_ours = |pending: &Pending| {
            pending.cseq == cseq && pending.method == method && message.branch() == Some(pending.branch.as_str())
        };
        let Some(index) = self.pending.iter().position(is_ours) else { return };
        if status < 200 {
            let pending = &mut self.pending[index];
            if pending.method == "INVITE" {
                pending.repeat_at = None;
                pending.give_up_at = now + PATIENCE;
                if self.is_cancel_wanted {
                    self.cancel(now);
                }
            }
            if self.state == State::Inviting {
                self.signals.push_back(if status == 100 { Signal::Trying } else { Signal::Ringing(status) });
            }
            return;
        }
        let pending = self.pending.remove(index);
        match pending.method {
            "INVITE" if status < 300 => self.handle_accepted(now, message, cseq),
            "INVITE" => self.handle_refused(message, &pending, status, reason),
            "BYE" => self.end(Side::Us, None),
            _ => (),
        }
    }

    /// A 2xx to an INVITE of ours.
    fn handle_accepted(&mut self, now: Instant, message: &Message, cseq: u32) {
        let is_first = self.state == State::Inviting;
        if is_first {
            self.state = State::Established;
            self.to = message.header("To").unwrap_or(&self.to).to_owned();
            self.routes = message
                .headers_named("Record-Route")
                .flat_map(|value| value.split(','))
                .map(|route| route.trim().to_owned())
                .collect();
            self.routes.reverse();
        }
        if let Some(contact) = message.header("Contact") {
            self.remote_target = uri_of(contact).to_owned();
        }
        let answer = (is_first && !self.setup.offers).then(|| self.setup.description.to_text());
        let ack = self.compose("ACK", cseq, &new_branch(), answer);
        self.last_ack = Some((cseq, ack.clone()));
        self.signals.push_back(Signal::Send(ack));
        match RemoteDescription::parse(&message.body) {
            Ok(remote) if is_first => self.signals.push_back(Signal::Answered(remote)),
            Ok(remote) => self.signals.push_back(Signal::Changed(remote)),
            Err(why) => {
                self.signals.push_back(Signal::Failed(format!("answered, but {why}")));
                self.hang_up(now);
            }
        }
    }

    /// A final refusal of an INVITE of ours: acknowledged within its transaction (RFC 3261 §17.1.1.3).
    fn handle_refused(&mut self, message: &Message, pending: &Pending, status: u16, reason: &str) {
        let known_to = std::mem::replace(&mut self.to, message.header("To").unwrap_or_default().to_owned());
        let ack = self.compose("ACK", pending.cseq, &pending.branch, None);
        self.to = known_to;
        self.signals.push_back(Signal::Send(ack));
        if self.state != State::Inviting {
            return self.signals.push_back(Signal::ChangeRefused(status));
        }
        self.state = State::Over;
        let warning = message.header("Warning").map(|value| value.split('"').nth(1).unwrap_or(value).to_owned());
        let retry_after_s =
            message.header("Retry-After").and_then(|value| value.split([' ', ';', '(']).next()?.parse().ok());
        self.signals.push_back(Signal::Refused { status, reason: reason.to_owned(), warning, retry_after_s });
    }

    fn handle_request(&mut self, message: &Message) {
        let (Some(method), Some(cseq)) = (message.method(), message.header("CSeq")) else { return };
        if method == "ACK" {
            return;
        }
        if let Some((_, answer)) = self.last_answer.as_ref().filter(|(known, _)| known == cseq) {
            self.signals.push_back(Signal::Send(answer.clone()));
            return;
        }
        match method {
            "BYE" => {
                self.reply(message, "200 OK", None);
                let reason = message.header("Reason").map(|value| value.split('"').nth(1).unwrap_or(value).to_owned());
                self.end(Side::Them, reason);
            }
            "INVITE" => match RemoteDescription::parse(&message.body) {
                Ok(remote) => {
                    let mut description = self.setup.description.clone();
                    description.direction = remote.direction.answer();
                    description.version += 1;
                    self.setup.description.version += 1;
                    // A target refresh (RFC 3261 §12.2.2).
                    if let Some(contact) = message.header("Contact") {
                        self.remote_target = uri_of(contact).to_owned();
                    }
                    self.reply(message, "200 OK", Some(description.to_text()));
                    self.signals.push_back(Signal::ChangedByThem(remote));
                }
                Err(_) => self.reply(message, "488 Not Acceptable Here", None),
            },
            "OPTIONS" => self.reply(message, "200 OK", None),
            _ => self.reply(message, "501 Not Implemented", None),
        }
    }

    /// A message of no call of ours: answered only if it asks whether we are there.
    fn handle_stranger(&mut self, message: &Message) {
        match message.method() {
            Some("OPTIONS") => self.reply(message, "200 OK", None),
            Some("ACK") | None => (),
            Some(_) => self.reply(message, "481 Call Does Not Exist", None),
        }
    }

    fn cancel(&mut self, now: Instant) {
        // CANCEL carries the branch and the CSeq number of what it cancels (RFC 3261 §9.1).
        let Some(invite) = self.pending.iter().find(|pending| pending.method == "INVITE") else { return };
        self.is_cancel_wanted = invite.repeat_at.is_some();
        if self.is_cancel_wanted {
            return;
        }
        if self.pending.iter().any(|pending| pending.method == "CANCEL") {
            return;
        }
        let (cseq, branch) = (invite.cseq, invite.branch.clone());
        let bytes = self.compose("CANCEL", cseq, &branch, None);
        self.send_pending(now, "CANCEL", cseq, branch, bytes);
    }

    fn request(&mut self, now: Instant, method: &'static str, body: Option<String>) {
        self.cseq += 1;
        let branch = new_branch();
        let bytes = self.compose(method, self.cseq, &branch, body);
        self.send_pending(now, method, self.cseq, branch, bytes);
    }

    fn send_pending(&mut self, now: Instant, method: &'static str, cseq: u32, branch: String, bytes: Vec<u8>) {
        self.signals.push_back(Signal::Send(bytes.clone()));
        let (repeat_at, give_up_at) = (Some(now + T1), now + GIVE_UP);
        self.pending.push(Pending { method, cseq, branch, bytes, pause: T1, repeat_at, give_up_at });
    }

    fn compose(&self, method: &str, cseq: u32, branch: &str, body: Option<String>) -> Vec<u8> {
        let Self { setup: CallSetup { local, from, .. }, remote_target, to, from_tag, call_id, .. } = self;
        let mut text = format!(
            "{method} {remote_target} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch={branch};rport\r\nMax-Forwards: 70\r\n\
             From: {from};tag={from_tag}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n"
        );
        for route in &self.routes {
            text.push_str(&format!("Route: {route}\r\n"));
        }
        if method == "INVITE" {
            text.push_str(&format!("Contact: <sip:lab@{local}>\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n"));
        }
        finish(text, body)
    }

    fn reply(&mut self, request: &Message, status: &str, body: Option<String>) {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for (name, value) in &request.headers {
            let is_tagless_to = name.eq_ignore_ascii_case("To") && parameter(value, "tag").is_none();
            if is_tagless_to {
                text.push_str(&format!("To: {value};tag={}\r\n", self.from_tag));
            } else if ["Via", "From", "To", "Call-ID", "CSeq", "Record-Route"]
                .iter()
                .any(|kept| kept.eq_ignore_ascii_case(name))
            {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        text.push_str(&format!("Contact: <sip:lab@{}>\r\n", self.setup.local));
        let bytes = finish(text, body);
        if let Some(cseq) = request.header("CSeq") {
            self.last_answer = Some((cseq.to_owned(), bytes.clone()));
        }
        self.signals.push_back(Signal::Send(bytes));
    }

    fn end(&mut self, by: Side, reason: Option<String>) {
        if self.state != State::Over {
            self.state = State::Over;
            self.signals.push_back(Signal::Ended { by, reason });
        }
    }
}

fn new_branch() -> String {
    format!("z9hG4bK{}", token())
}

fn finish(mut text: String, body: Option<String>) -> Vec<u8> {
    let body = body.unwrap_or_default();
    if !body.is_empty() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text.into_bytes()
}

#[cfg(test)]
#[path = "signalling_tests.rs"]
mod tests;
