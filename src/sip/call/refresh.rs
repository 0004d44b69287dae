//! Our own requests that keep a call alive: UPDATE where the peer allows it, else a re-INVITE with the description it knows
//! (RFC 4028 §7.4, §10; RFC 3261 §14.1).

use std::time::Duration;

use super::{Call, Exchange, State};
use crate::random::Random;
use crate::sip::event::{EndReason, Path};
use crate::sip::layer::{Outcome, Owner, TransactionLayer};
use crate::sip::reply::{ALLOW, SUPPORTED};
use crate::sip::session_timer::{Due, Terms};
use crate::time::Instant;
use crate::wire::sip::{Headers, Method, Request, Response};

/// How long a refresh waits that finds an offer open: those are answered within a round trip.
const WAIT_FOR_ANSWER: Duration = Duration::from_secs(1);
/// After a failure that promises nothing; an interval has room for some of these.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Our request, and what is left of the one before.
#[derive(Debug, Default)]
pub(super) struct Refresh {
    in_flight: Option<InFlight>,
    /// The ACK for the 2xx to our latest re-INVITE, for the same 2xx again.
    ack: Option<Ack>,
}

#[derive(Debug)]
struct InFlight {
    method: Method,
    cseq: u32,
}

#[derive(Debug)]
struct Ack {
    cseq: u32,
    path: Path,
    bytes: Vec<u8>,
}

impl Refresh {
    pub(super) const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }
}

impl Call {
    /// Looks at the timer. Only a confirmed call has one.
    pub(super) fn run_session_timer(&mut self, now: Instant, layer: &mut TransactionLayer) {
        match self.timer.due(now) {
            Due::Nothing => {}
            Due::Refresh if self.exchange == Exchange::Settled => {
                let request = self.refresh_request(if self.peer.updates { Method::Update } else { Method::Invite });
                self.send_refresh(now, request, layer);
            }
            Due::Refresh => self.timer.refresh_at(Some(now + WAIT_FOR_ANSWER)),
            Due::Lapsed => self.end(now, EndReason::Lapsed, "The session timer ran out", layer),
        }
    }

    pub(super) fn refresh_request(&mut self, method: Method) -> Request {
        let mut request = self
            .dialog
            .request(method.clone())
            .with("Contact", &self.contact)
            .with("Allow", ALLOW)
            .with("Supported", SUPPORTED);
        Terms::ask(self.timer.interval_s(), true, &mut request);
        if method == Method::Invite {
            // As a rule the same description with the same version: nothing is to change (RFC 3264 §8).
            request = request.with_body("application/sdp", self.description.clone());
        }
        request
    }

    pub(super) fn send_refresh(&mut self, now: Instant, request: Request, layer: &mut TransactionLayer) {
        let (method, cseq) = (request.method.clone(), request.headers.cseq().map_or(0, |cseq| cseq.number));
        if method == Method::Invite {
            self.exchange = Exchange::Ours;
        }
        layer.request(now, Owner::Refresh(self.key), self.dialog.path(), self.sent_by.clone(), request);
        self.timer.refresh_at(None);
        self.refresh.in_flight = Some(InFlight { method, cseq });
    }

    /// What became of our refresh. A challenge gets no digest, since it may come from the caller.
    pub(crate) fn handle_refresh_outcome(&mut self, now: Instant, outcome: &Outcome<'_>, layer: &mut TransactionLayer) {
        let cseq = match outcome {
            Outcome::Response(response) if response.is_provisional() => return,
            Outcome::Response(response) => response.headers.cseq().ok(),
            Outcome::Timeout => None,
        };
        if let (Some(cseq), Some(ack)) = (&cseq, &self.refresh.ack)
            && cseq.method == Method::Invite
            && cseq.number == ack.cseq
        {
            return self.acknowledge_again(layer);
        }
        let is_awaited = |flight: &mut InFlight| cseq.as_ref().is_none_or(|cseq| cseq.number == flight.cseq);
        let Some(flight) = self.refresh.in_flight.take_if(is_awaited) else { return };
        if flight.method == Method::Invite {
            self.exchange = Exchange::Settled;
        }
        match outcome {
            Outcome::Response(response) if response.is_success() => self.refreshed(now, &flight, response, layer),
            // RFC 4028 §10, RFC 3261 §12.2.1.2: the peer is gone, or knows nothing of this call.
            Outcome::Response(Response { status: 408 | 481, .. }) | Outcome::Timeout => {
                if self.is_idle() {
                    self.end(now, EndReason::Lapsed, "No answer to the session refresh", layer);
                }
            }
            Outcome::Response(response) => self.refresh_failed(now, &flight, response, layer),
        }
    }

    /// Whether the call is up and nothing of the peer's waits, so that a request of ours may go out.
    const fn is_idle(&self) -> bool {
        matches!(self.state, State::Confirmed)
    }

    fn refreshed(&mut self, now: Instant, flight: &InFlight, response: &Response, layer: &mut TransactionLayer) {
        if flight.method == Method::Invite {
            self.send_ack(flight.cseq, layer);
            self.moving.on_answered(now, None);
        }
        if let State::Ending | State::Over = self.state {
            return;
        }
        self.peer.learn(&response.headers);
        self.timer.start(now, Terms::of_response(&response.headers, self.timer.interval_s()), false);
        if flight.method == Method::Invite {
            self.take_answer(response, layer);
        }
    }

    /// ACK for the 2xx to our INVITE of `cseq`.
    pub(super) fn send_ack(&mut self, cseq: u32, layer: &mut TransactionLayer) {
        let (path, ack) = (self.dialog.path(), self.dialog.ack(cseq));
        let (path, bytes) = layer.acknowledge(path, self.sent_by.clone(), ack);
        self.refresh.ack = Some(Ack { cseq, path, bytes });
    }

    /// The same 2xx has come again: the ACK was lost.
    pub(crate) fn acknowledge_again(&self, layer: &mut TransactionLayer) {
        if let Some(ack) = &self.refresh.ack {
            layer.out.send(ack.path, ack.bytes.clone());
        }
    }

    /// When to say the same again after an answer that asks for that: to another interval (422), or out of the peer's way (491).
    pub(super) fn wait_asked_for(&mut self, response: &Response, layer: &mut TransactionLayer) -> Option<Duration> {
        match response.status {
            422 => {
                let least_s = response.headers.seconds("Min-SE").unwrap_or(0);
                let is_raised = least_s > self.timer.interval_s();
                self.timer.raise(least_s);
                Some(if is_raised { Duration::ZERO } else { TRY_AGAIN })
            }
            491 => Some(glare_wait(self.dialog.is_caller(), &mut layer.random)),
            _ => None,
        }
    }

    /// The peer lives but would not refresh: when to try again.
    fn refresh_failed(&mut self, now: Instant, flight: &InFlight, response: &Response, layer: &mut TransactionLayer) {
        if flight.method == Method::Invite && self.moving.is_told() && self.move_is_refused(now, response, layer) {
            return;
        }
        if let Some(wait) = self.wait_asked_for(response, layer) {
            return self.timer.refresh_at(Some(now + wait));
        }
        match response.status {
            405 | 501 if flight.method == Method::Update => {
                self.peer.updates = false;
                self.timer.refresh_at(Some(now));
            }
            // A peer that has agreed to no timer has promised nothing: that it answers at all is what we asked for. A challenge,
            // which is never answered in a call, is an answer as well.
            _ if !self.peer.timers || matches!(response.status, 401 | 407) => {
                let unchanged = Terms::of_response(&Headers::new(), self.timer.interval_s());
                self.timer.start(now, unchanged, false);
            }
            _ => {
                let wait = response.headers.retry_after().map_or(TRY_AGAIN, |s| Duration::from_secs(s.into()));
                self.timer.refresh_at(Some(now + wait.max(TRY_AGAIN)));
            }
        }
    }
}

/// RFC 3261 §14.1, in steps of 10 ms: 2.1 to 4 s for the side that owns the Call-ID, 0 to 2 s for the other.
fn glare_wait(is_caller: bool, random: &mut Random) -> Duration {
    let steps = if is_caller { 210 + random.below(191) } else { random.below(201) };
    Duration::from_millis(u64::from(steps) * 10)
}
