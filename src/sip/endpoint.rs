//! The user agent: every datagram, every wish of the gateway and every deadline comes by here.
//!
//! Owns: dispatch, admission, the responses outside dialogs (RFC 3261 §8.2). Does not own: what happens in a call
//! (`call`), in a transaction (`layer`) or with the registrar (`registration`).
//! Strangers, who neither know the token of our registration nor are on the list, get stateless answers (§8.2.7).

mod moving;
mod requests;
mod streams;
mod transfers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::call::Call;
use super::event::{
    CallKey, Direction, EndpointConfig, Event, Input, Output, Path, Rejection, Route, Status, StrangerGot, Target,
};
use super::guests::Guests;
use super::layer::{Outcome, Owner, TransactionLayer};
use super::registration::Registration;
use super::reply::Refusal;
use super::strangers::Strangers;
use super::transfer::Transfer;
use crate::random::Random;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{Message, Response, is_keep_alive};

/// Calls at most, ringing and ending ones included. Media ports and the mixer set lower limits; this one bounds memory.
pub const MAX_CALLS: usize = 512;
/// The largest message taken; a telephone's INVITE has about 2 kB.
pub const MAX_MESSAGE_BYTES: usize = 16_384;
/// How long a shut-down may take.
const SHUT_DOWN_LIMIT: Duration = Duration::from_millis(900);
/// Letters and digits in the token of our Contact: 142 bits.
const TOKEN_LETTERS: usize = 24;

/// What was dropped or refused without a trace elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that are no SIP message.
    pub malformed: u64,
    /// Requests of strangers, refused with 401 or 403.
    pub strangers: u64,
    /// Responses that no one waits for.
    pub stray_responses: u64,
    /// Requests answered without state because a table was full.
    pub overflows: u64,
}

/// The user agent.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    layer: TransactionLayer,
    calls: BTreeMap<CallKey, Call>,
    /// Calls that we place; numbered like those that come in, since one may take the place of the other.
    transfers: BTreeMap<CallKey, Transfer>,
    last_call: u64,
    registration: Option<Registration>,
    /// The user part of the Contact that we register.
    token: String,
    /// Makes the To tags of stateless answers.
    secret: String,
    strangers: Strangers,
    guests: Option<Guests>,
    counters: Counters,
    end: Option<End>,
}

/// The end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// BYEs and the unregistration are under way, until this moment at most.
    Until(Instant),
    /// No one waits any longer.
    Now,
}

impl Endpoint {
    /// A user agent that does nothing before [`Self::start`] but answer.
    pub fn new(config: EndpointConfig, mut random: Random) -> Self {
        let token = random.token(TOKEN_LETTERS);
        let registrar = config.registrar.clone();
        let registration = registrar.map(|registrar| Registration::new(&config, registrar, token.clone(), &mut random));
        let secret = random.token(TOKEN_LETTERS);
        let realm = config.account.uri.host().map_or_else(|| "galene-sip".to_owned(), ToString::to_string);
        let guests = config.guests.clone().map(|credentials| Guests::new(credentials, realm, &mut random));
        Self {
            layer: TransactionLayer::new(config.user_agent.clone(), token.clone(), random),
            config,
            calls: BTreeMap::new(),
            transfers: BTreeMap::new(),
            last_call: 0,
            registration,
            token,
            secret,
            strangers: Strangers::default(),
            guests,
            counters: Counters::default(),
            end: None,
        }
    }

    /// What was dropped so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Calls that are not over yet.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// How the registration stands; `None` without a registrar.
    pub fn registration_status(&self) -> Option<Status> {
        self.registration.as_ref().map(Registration::status)
    }

    /// Whether this call is not over yet.
    pub fn has_call(&self, call: CallKey) -> bool {
        self.calls.contains_key(&call)
    }

    /// Whether nothing is left to wait for after [`Self::shut_down`].
    pub fn is_idle(&self) -> bool {
        match self.end {
            None => false,
            Some(End::Until(_)) => self.calls.is_empty() && self.registration.as_ref().is_none_or(Registration::is_off),
            Some(End::Now) => true,
        }
    }

    /// Begins to register.
    pub fn start(&mut self, now: Instant) {
        if let Some(registration) = &mut self.registration {
            registration.start(now, &mut self.layer);
        }
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Datagram { local, remote, bytes } => {
                let is_stun = bytes.first().is_some_and(|first| *first < 4)
                    && self
                        .registration
                        .as_mut()
                        .is_some_and(|one| one.handle_stun(now, remote, bytes, &mut self.layer));
                if !is_stun && !is_keep_alive(bytes) {
                    self.handle_message(now, Path::udp(Some(local), remote), bytes);
                }
            }
            Input::Accepted { connection, transport, local, remote } => {
                let path = Path { transport, local: Some(local), remote, connection: Some(connection) };
                let out = &mut self.layer.out;
                out.connections.handle_accepted(now, connection, path, &mut out.queue);
            }
            Input::Connected { connection, local } => self.handle_connected(now, connection, local),
            Input::Bytes { connection, bytes } => self.handle_bytes(now, connection, bytes),
            Input::Closed { connection, error } => {
                self.layer.out.connections.handle_closed(connection);
                self.handle_closed(now, connection, &error);
            }
            Input::Woken => {
                if let Some(registration) = &mut self.registration {
                    registration.handle_woken(now, &mut self.layer);
                }
            }
            Input::Network { gone, has_new } => self.handle_network(now, gone, has_new),
            Input::Resolved { target, routes, lifetime } => self.handle_resolved(now, &target, routes, lifetime),
            Input::Unresolved { target, error } => {
                self.resolve_transfers(now, &target, None);
                if let Some(registration) = self.registration.as_mut().filter(|one| one.is_at(&target)) {
                    registration.handle_unresolved(now, &error, &mut self.layer);
                }
            }
        }
        self.calls.retain(|_, call| !call.is_over());
        self.forget_orphans(now);
    }

    /// Runs every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for owner in self.layer.handle_timeout(now) {
            self.handle_outcome(now, owner, &Outcome::Timeout);
        }
        let out = &mut self.layer.out;
        for connection in out.connections.handle_timeout(now, &mut out.queue) {
            self.handle_closed(now, connection, "it was silent for too long");
        }
        for call in self.calls.values_mut() {
            call.handle_timeout(now, &mut self.layer);
        }
        self.run_transfers(now);
        if let Some(registration) = &mut self.registration {
            registration.handle_timeout(now, &mut self.layer);
        }
        if matches!(self.end, Some(End::Until(until)) if now >= until) {
            self.end = Some(End::Now);
        }
        self.calls.retain(|_, call| !call.is_over());
    }

    /// The earliest deadline.
    pub fn next_timeout(&self) -> Option<Deadline> {
        let calls = self.calls.values().map(Call::next_timeout);
        let end = match self.end {
            Some(End::Until(until)) => Some(Deadline::new(until, "shut-down limit")),
            Some(End::Now) | None => None,
        };
        let registration = self.registration.as_ref().and_then(Registration::next_timeout);
        let transfers = self.transfers.values().map(Transfer::next_timeout);
        let connections = self.layer.out.connections.next_timeout();
        earliest(calls.chain(transfers).chain([self.layer.next_timeout(), connections, registration, end]))
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.layer.out.pop()
    }

    /// Sends 180.
    pub fn ring(&mut self, now: Instant, call: CallKey) {
        self.with_call(call, |call, layer| call.ring(now, layer));
    }

    /// Sends 183 with our answer, or with our offer if the INVITE had none: early media.
    pub fn progress(&mut self, now: Instant, call: CallKey, sdp: Vec<u8>) {
        self.with_call(call, |call, layer| call.progress(now, sdp, layer));
    }

    /// Answers the call: 200 with our answer, or with our offer if the INVITE had none.
    pub fn answer(&mut self, now: Instant, call: CallKey, sdp: Vec<u8>) {
        self.with_call(call, |call, layer| call.answer(now, sdp, layer));
    }

    /// Answers `call`, whose INVITE replaces `former`: the new dialog goes on under the key of the former one, which gets
    /// BYE. From now on there is no `call`.
    pub fn take_over(&mut self, now: Instant, call: CallKey, former: CallKey, sdp: Vec<u8>) {
        if self.calls.contains_key(&former)
            && let Some(mut taker) = self.calls.remove(&call)
            && let Some(mut taken) = self.calls.remove(&former)
        {
            self.layer.exchange_calls(call, former);
            taker.rename(former);
            taken.rename(call);
            taker.answer(now, sdp, &mut self.layer);
            taken.hang_up(now, "Replaced", &mut self.layer);
            self.calls.extend([(former, taker), (call, taken)]);
        }
    }

    /// Turns the call away.
    pub fn reject(&mut self, now: Instant, call: CallKey, rejection: &Rejection) {
        self.with_call(call, |call, layer| call.reject(now, rejection, layer));
    }

    /// Accepts what [`Event::Offer`] brought.
    pub fn accept_offer(&mut self, now: Instant, call: CallKey, sdp: Vec<u8>) {
        self.with_call(call, |call, layer| call.accept_offer(now, sdp, layer));
    }

    /// Refuses what [`Event::Offer`] brought; the call goes on as it was.
    pub fn refuse_offer(&mut self, now: Instant, call: CallKey, rejection: &Rejection) {
        self.with_call(call, |call, layer| call.refuse_offer(now, rejection, layer));
    }

    /// Ends the call: BYE, or 480 before the answer, with `reason` in words.
    pub fn hang_up(&mut self, now: Instant, call: CallKey, reason: &str) {
        self.cancel_transfers(now, call);
        self.with_call(call, |call, layer| call.hang_up(now, reason, layer));
    }

    /// Asks the telephone of a call that is up whether it is there; if not, [`Event::Ended`] comes.
    pub fn probe(&mut self, now: Instant, call: CallKey) {
        self.with_call(call, |call, layer| call.probe(now, layer));
    }

    /// Ends all calls and the registration; new calls get 503. [`Self::is_idle`] within a second.
    pub fn shut_down(&mut self, now: Instant) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(End::Until(now + SHUT_DOWN_LIMIT));
        for call in self.calls.keys().copied().collect::<Vec<_>>() {
            self.cancel_transfers(now, call);
        }
        for call in self.calls.values_mut() {
            call.shut_down(now, &mut self.layer);
        }
        self.calls.retain(|_, call| !call.is_over());
        if let Some(registration) = &mut self.registration {
            registration.unregister(now, &mut self.layer);
        }
    }

    fn with_call(&mut self, key: CallKey, act: impl FnOnce(&mut Call, &mut TransactionLayer)) {
        if let Some(call) = self.calls.get_mut(&key) {
            act(call, &mut self.layer);
            if call.is_over() {
                self.calls.remove(&key);
            }
        }
    }

    /// One message; `path` leads back to where it came from.
    fn handle_message(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        self.layer.out.tell(Direction::Received, path, bytes);
        match Message::parse(bytes) {
            Ok(Message::Request(mut request)) => {
                // A parsed request has a Via.
                let _ = request.headers.mark_source(path.remote);
                let path = path.back_to(&request.headers);
                if bytes.len() > MAX_MESSAGE_BYTES {
                    return self.refuse_statelessly(path, &request, &Refusal::new(513));
                }
                self.handle_request(now, path, request);
            }
            Ok(Message::Response(response)) => self.handle_response(now, &response),
            Err(error) => {
                self.counters.malformed += 1;
                tracing::debug!(remote = %path.remote, %error, "malformed SIP message");
                if let Some(response) = error.reply {
                    self.reply_to_malformed(path, *response);
                }
            }
        }
    }

    fn reply_to_malformed(&mut self, path: Path, mut response: Response) {
        // Without a proper Via the source of the datagram is all there is, and it is where the response goes anyway.
        let _ = response.headers.mark_source(path.remote);
        response.set_to_tag(&self.stateless_tag(&response.headers));
        let bytes = self.layer.encode(response);
        self.layer.out.send(path, bytes);
    }

    fn handle_response(&mut self, now: Instant, response: &Response) {
        match self.layer.handle_response(now, response) {
            Some(owner) => self.handle_outcome(now, owner, &Outcome::Response(response)),
            None => self.counters.stray_responses += 1,
        }
    }

    fn handle_outcome(&mut self, now: Instant, owner: Owner, outcome: &Outcome<'_>) {
        match owner {
            Owner::Registration => {
                if let Some(registration) = &mut self.registration {
                    registration.handle_outcome(now, outcome, &mut self.layer);
                }
            }
            Owner::Transfer(key) => self.handle_transfer_outcome(now, key, outcome),
            Owner::Unheeded => {}
            Owner::Watch => {
                if let Some(registration) = &mut self.registration {
                    registration.handle_sign_of_life(now, outcome, &mut self.layer);
                }
            }
            Owner::Refresh(key) => {
                if let Some(call) = self.calls.get_mut(&key) {
                    call.handle_refresh_outcome(now, outcome, &mut self.layer);
                }
            }
            Owner::Probe(key) => {
                if let Some(call) = self.calls.get_mut(&key) {
                    call.handle_probe_outcome(now, outcome, &mut self.layer);
                }
            }
            Owner::Call(key) => {
                if let Some(call) = self.calls.get_mut(&key) {
                    call.handle_outcome(outcome);
                }
            }
        }
    }

    fn handle_resolved(&mut self, now: Instant, target: &Target, routes: Vec<Route>, lifetime: Duration) {
        self.resolve_transfers(now, target, routes.first().copied());
        if let Some(route) = routes.first() {
            for call in self.calls.values_mut() {
                call.dialog().handle_resolved(target, *route);
            }
        }
        if let Some(registration) = self.registration.as_mut().filter(|one| one.is_at(target)) {
            registration.handle_resolved(now, routes, lifetime, &mut self.layer);
        }
    }

    /// Refused because the gateway is full or about to end.
    fn overload(&self) -> Option<Refusal> {
        if self.end.is_some() {
            return Some(Refusal::because(503, "The gateway is shutting down").with("Retry-After", 10));
        }
        let is_full = self.calls.len() >= MAX_CALLS || self.layer.servers.is_full();
        is_full.then(|| Refusal::because(503, "The gateway is full").with("Retry-After", 10))
    }

    fn report_stranger(&mut self, now: Instant, remote: SocketAddr, got: StrangerGot) {
        if self.strangers.is_news(now, remote.ip().to_canonical(), got) {
            self.layer.out.event(Event::Stranger { remote, got });
        }
    }
}
