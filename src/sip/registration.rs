//! Registration (RFC 3261 §10.2): the registrar knows where we are, for as long as we live.
//!
//! Owns: REGISTER, refresh, the pauses after failures, the address that the registrar sees us at, the keep-alive.
//! Does not own: the transactions (`layer`), name look-ups (`io`), which calls the registration lets in (`endpoint`).
//! Flow: Resolving → (Connecting →) Registering → (Removing →) Registered → (refresh) Registering …; a failure leads to the
//! registrar's next address, and from the last one through Waiting back to Resolving; `unregister` ends in Off.

mod bindings;
mod calls;
mod challenge;
mod failure;
mod flow;
mod instance;
mod network;
mod redirect;
mod request;
mod servers;
mod stun;
mod upkeep;
mod watch;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::auth::Authorizer;
use super::event::{Account, ConnectionKey, EndpointConfig, Event, Registrar, Route, Target};
use super::layer::{Outcome, Owner, TransactionLayer};
use crate::random::Random;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::Response;
use crate::wire::uri::SipUri;
use bindings::{granted_expires_s, gruu, left_behind};
use failure::{Failure, Pauses};
use flow::{Flow, Opening};
pub use instance::instance_id;
use redirect::Redirect;
use servers::Servers;
use stun::StunFlow;
use upkeep::refresh_after;
use watch::Watch;

/// The lifetime that we ask for: what a crash leaves behind rings in vain for at most this long.
const WANTED_EXPIRES_S: u32 = 600;
/// The longest lifetime that a registrar may insist on: what a crash leaves behind would ring in vain for longer.
const MAX_EXPIRES_S: u32 = 86_400;
/// NATs keep a UDP mapping for 30 s or more (RFC 4787 §4.3 asks for 2 minutes, many give 30 s).
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// The double line end of RFC 5626 §4.4.1: registrars ignore or answer it.
const KEEP_ALIVE_BYTES: &[u8] = b"\r\n\r\n";
/// A name look-up may take this long.
const RESOLVE_LIMIT: Duration = Duration::from_secs(20);
/// Proxies that calls of ours pass at the registrar's wish.
const MAX_SERVICE_ROUTE: usize = 8;

/// Challenges in one attempt: a proxy's and the registrar's, each once more for a stale nonce.
const MAX_CHALLENGES: u32 = 4;
/// A NAT that gives a new address with each answer must not make us register without end.
const MOVE_AGAIN: Duration = Duration::from_secs(30);
/// Opening a connection, TLS included; `io` gives an attempt up earlier and tells why.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an address of the registrar is waited for while there is another one: five copies of a datagram. The last one
/// has the 32 s of timer F.
const TURN_LIMIT: Duration = Duration::from_secs(8);
/// A refresh comes this early where a substitute is registered with: the first address may be back.
const RETURN_AFTER: Duration = Duration::from_secs(120);

/// The registration of our one account.
#[derive(Debug)]
pub(crate) struct Registration {
    registrar: Registrar,
    account: Account,
    sockets: Vec<SocketAddr>,
    /// The user part of our Contact; whoever knows it has it from the registrar.
    token: String,
    /// `urn:uuid:…`, by which the registrar knows us again.
    instance: Option<String>,
    /// A proxy on the way knows nothing of RFC 5626, so that no flow is registered by it (439).
    is_outbound_refused: bool,
    call_id: String,
    from_tag: String,
    cseq: u32,
    servers: Servers,
    /// The next look-up begins at the first address again, since the one in use has failed.
    has_failed: bool,
    /// The connection, where the registrar is reached by one.
    flow: Option<Flow>,
    /// The next one; until it is open calls come in by the old one.
    opening: Option<Opening>,
    /// The address that was heard to answer pings.
    ponging: Option<SocketAddr>,
    /// Where the registrar has sent us.
    redirect: Redirect,
    /// For 401 and for 407.
    authorizers: [Option<Authorizer>; 2],
    /// The realms that our own registrar and its proxy ask for.
    realms: [Option<String>; 2],
    /// The strongest hash of a digest that was taken.
    strengths: [u8; 2],
    wanted_expires_s: u32,
    /// Our address as the registrar sees it, where it is not our own.
    public: Option<SocketAddr>,
    /// When a new public address last made us register at once.
    moved: Option<Instant>,
    /// The Contact that the registrar holds.
    binding: Option<SipUri>,
    /// Bindings of earlier runs that were removed.
    removed: VecDeque<SipUri>,
    /// The registrar was not found, or our own address on the way there is gone: a new address is worth a try.
    is_cut_off: bool,
    /// Why the last attempt failed, until one succeeds.
    failure: Option<String>,
    pauses: Pauses,
    /// Runs beside the states: calls come in by the old binding while a refresh fails.
    keep_alive: Option<(Instant, Route)>,
    /// Where the registrar is reached by datagrams: whether it still lives.
    watch: Watch,
    /// Where the registrar keeps flows: it is asked by STUN then.
    stun: Option<StunFlow>,
    /// Whether a URI that leads to us from anywhere is wanted.
    wants_gruu: bool,
    /// That URI, if the registrar has made one.
    gruu: Option<SipUri>,
    /// The way that calls of ours are to take (RFC 3608).
    service_route: Vec<String>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not started.
    Idle,
    Resolving {
        give_up: Instant,
    },
    Connecting,
    Registering(Attempt),
    Registered {
        refresh: Instant,
    },
    /// Registered, and a binding of an earlier run is being removed; others are left.
    Removing {
        attempt: Attempt,
        left: Vec<SipUri>,
        refresh: Instant,
    },
    /// After a failure.
    Waiting {
        until: Instant,
    },
    Unregistering(Attempt),
    Off,
}

/// One REGISTER and what it takes to get it through.
#[derive(Debug)]
struct Attempt {
    contact: SipUri,
    challenges: u32,
    /// Per 401 and 407: credentials were made for a challenge of this very attempt, so the same challenge again means
    /// that they are wrong.
    is_fresh: [bool; 2],
    /// The lifetime was raised because of a 423.
    is_raised: bool,
    /// When the next address has its turn, if there is one.
    turn_ends: Option<Instant>,
}

impl Attempt {
    fn new(contact: SipUri) -> Self {
        Self { contact, challenges: 0, is_fresh: [false; 2], is_raised: false, turn_ends: None }
    }
}

impl Registration {
    pub(crate) fn new(config: &EndpointConfig, registrar: Registrar, token: String, random: &mut Random) -> Self {
        Self {
            registrar,
            account: config.account.clone(),
            sockets: config.local.clone(),
            token,
            instance: config.instance.clone(),
            is_outbound_refused: false,
            call_id: random.token(24),
            from_tag: random.token(12),
            cseq: 0,
            servers: Servers::default(),
            has_failed: false,
            flow: None,
            opening: None,
            ponging: None,
            redirect: Redirect::default(),
            authorizers: [None, None],
            realms: [None, None],
            strengths: [0; 2],
            wanted_expires_s: WANTED_EXPIRES_S,
            public: None,
            moved: None,
            binding: None,
            removed: VecDeque::new(),
            is_cut_off: false,
            failure: None,
            pauses: Pauses::default(),
            keep_alive: None,
            watch: Watch::new(),
            stun: None,
            wants_gruu: config.gruu,
            gruu: None,
            service_route: Vec::new(),
            state: State::Idle,
        }
    }

    /// Begins.
    pub(crate) fn start(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if let State::Idle = self.state {
            self.resolve(now, layer);
        }
    }

    /// Our address as the registrar sees it, where it is not our own.
    pub(crate) fn public(&self) -> Option<SocketAddr> {
        self.public
    }

    /// A URI that leads to us from anywhere (RFC 5627), by way of the registrar.
    pub(crate) fn gruu(&self) -> Option<&SipUri> {
        self.gruu.as_ref()
    }

    /// Whether this is what it looks up.
    pub(crate) fn is_at(&self, target: &Target) -> bool {
        *self.target() == *target
    }

    /// Whether it has ended after [`Self::unregister`].
    pub(crate) fn is_off(&self) -> bool {
        matches!(self.state, State::Off)
    }

    /// Takes our address out of the registrar, if it may be there, and ends.
    pub(crate) fn unregister(&mut self, now: Instant, layer: &mut TransactionLayer) {
        self.keep_alive = None;
        layer.abandon(Owner::Registration);
        self.stop_watch(layer);
        let in_flight = match std::mem::replace(&mut self.state, State::Off) {
            State::Registering(attempt) => Some(attempt.contact),
            State::Connecting => None,
            other @ (State::Unregistering(_) | State::Off) => {
                self.state = other;
                return;
            }
            State::Idle
            | State::Resolving { .. }
            | State::Registered { .. }
            | State::Removing { .. }
            | State::Waiting { .. } => None,
        };
        let can_send = self.servers.current().is_some_and(|route| self.way(route).is_some());
        if let Some(contact) = self.binding.clone().or(in_flight).filter(|_| can_send) {
            self.state = State::Unregistering(Attempt::new(contact.clone()));
            self.send(now, &contact, 0, layer);
        }
    }

    /// The registrar's addresses.
    pub(crate) fn handle_resolved(
        &mut self,
        now: Instant,
        routes: Vec<Route>,
        lifetime: Duration,
        layer: &mut TransactionLayer,
    ) {
        let State::Resolving { .. } = self.state else { return };
        if routes.is_empty() {
            return self.fail(now, Failure::Unresolved("it has no address".to_owned()), layer);
        }
        self.servers.replace(now, routes, lifetime, !self.has_failed);
        self.has_failed = false;
        self.register(now, layer);
    }

    /// The registrar's name could not be looked up. The addresses of before may still be right.
    pub(crate) fn handle_unresolved(&mut self, now: Instant, error: &str, layer: &mut TransactionLayer) {
        let State::Resolving { .. } = self.state else { return };
        match self.servers.current() {
            Some(_) => self.register(now, layer),
            None => self.fail(now, Failure::Unresolved(error.to_owned()), layer),
        }
    }

    /// What became of our REGISTER.
    pub(crate) fn handle_outcome(&mut self, now: Instant, outcome: &Outcome<'_>, layer: &mut TransactionLayer) {
        let response = match outcome {
            Outcome::Response(response) if response.is_provisional() => return,
            Outcome::Response(response) => Some(*response),
            Outcome::Timeout => None,
        };
        if let Some(response) = response {
            self.learn_public(response);
        }
        match std::mem::replace(&mut self.state, State::Off) {
            State::Registering(attempt) => match response {
                Some(response) => {
                    self.handle_response(now, attempt, response, layer);
                    self.forget_refused_removal();
                }
                None => self.fail(now, Failure::NoAnswer, layer),
            },
            State::Unregistering(mut attempt) => match response {
                Some(response) if response.is_success() => {
                    self.binding = None;
                    layer.out.event(Event::Unregistered);
                }
                Some(response) if matches!(response.status, 401 | 407) => {
                    if self.take_challenge(&mut attempt, response, &mut layer.random).is_ok() {
                        let contact = attempt.contact.clone();
                        self.state = State::Unregistering(attempt);
                        self.send(now, &contact, 0, layer);
                    }
                }
                Some(_) | None => {}
            },
            State::Removing { mut attempt, left, refresh } => {
                if let Some(response) = response.filter(|response| matches!(response.status, 401 | 407))
                    && self.take_challenge(&mut attempt, response, &mut layer.random).is_ok()
                {
                    self.send_contacts(now, [format!("<{}>;expires=0", attempt.contact)], 0, layer);
                    self.state = State::Removing { attempt, left, refresh };
                } else {
                    self.remove_next(now, left, refresh, layer);
                }
            }
            other => self.state = other,
        }
    }

    fn handle_response(
        &mut self,
        now: Instant,
        mut attempt: Attempt,
        response: &Response,
        layer: &mut TransactionLayer,
    ) {
        match response.status {
            200..=299 => return self.succeed(now, attempt, response, layer),
            301 | 302 => return self.follow(now, response, layer),
            439 if self.sends_flow() => self.is_outbound_refused = true,
            401 | 407 => {
                if let Err(failure) = self.take_challenge(&mut attempt, response, &mut layer.random) {
                    return self.fail(now, failure, layer);
                }
                // The challenge has shown where we are seen: the answer carries that address already.
                attempt.contact = self.contact();
            }
            423 => {
                let least = response.headers.min_expires().unwrap_or(0);
                if attempt.is_raised || least <= self.wanted_expires_s || least > MAX_EXPIRES_S {
                    return self.fail(now, Failure::from_response(response), layer);
                }
                self.wanted_expires_s = least;
                attempt.is_raised = true;
            }
            _ => return self.fail(now, Failure::from_response(response), layer),
        }
        let contact = attempt.contact.clone();
        self.state = State::Registering(attempt);
        self.send(now, &contact, self.wanted_expires_s, layer);
    }

    fn succeed(&mut self, now: Instant, attempt: Attempt, response: &Response, layer: &mut TransactionLayer) {
        let granted_s = granted_expires_s(response, &attempt.contact, &self.token).unwrap_or(self.wanted_expires_s);
        if granted_s == 0 {
            return self.fail(now, Failure::NotKept, layer);
        }
        self.pauses = Pauses::default();
        (self.failure, self.is_cut_off) = (None, false);
        self.redirect.settle();
        self.keep_strengths();
        self.gruu = gruu(response, &attempt.contact, &self.token).filter(|_| self.wants_gruu);
        self.service_route =
            response.headers.values("Service-Route").take(MAX_SERVICE_ROUTE).map(str::to_owned).collect();
        let left = left_behind(response, &attempt.contact, self.instance.as_deref());
        self.binding = Some(attempt.contact);
        let by_datagrams = self.servers.current().filter(|route| !route.transport.is_reliable());
        self.stun = by_datagrams.and_then(|_| StunFlow::of(response, self.stun.take()));
        let keeps_open = self.public.is_some() && self.stun.is_none();
        self.keep_alive = by_datagrams.filter(|_| keeps_open).map(|route| (now + KEEP_ALIVE, route));
        layer.out.event(Event::Registered { expires_s: granted_s, public: self.public });
        let has_moved = self.binding.as_ref() != Some(&self.contact());
        if has_moved && self.moved.is_none_or(|moved| now >= moved + MOVE_AGAIN) {
            self.moved = Some(now);
            return self.register(now, layer);
        }
        let refresh = refresh_after(granted_s, &mut layer.random);
        let refresh = if self.servers.is_substitute() { refresh.min(RETURN_AFTER) } else { refresh };
        if by_datagrams.is_some() {
            let interval = self.stun.as_ref().map(|stun| stun.interval(&mut layer.random));
            self.watch.start(now, interval);
        }
        self.remove_next(now, left, now + refresh, layer);
    }

    fn fail(&mut self, now: Instant, failure: Failure, layer: &mut TransactionLayer) {
        self.authorizers = [None, None];
        let address = self.servers.current().map(|route| route.remote);
        if !failure.leaves_route() && !matches!(failure, Failure::Unresolved(_)) {
            self.drop_failed(layer);
            if self.servers.advance().is_some() {
                return self.register(now, layer);
            }
            self.has_failed = true;
        }
        let text = failure.text(&self.target().host, &self.account, address);
        self.redirect = Redirect::default();
        self.is_cut_off |= matches!(failure, Failure::Unresolved(_));
        self.failure = Some(text.clone());
        let pause = self.pauses.after(&failure, &mut layer.random);
        layer.out.event(Event::RegistrationFailed { text, retry_in: pause });
        self.state = State::Waiting { until: now + pause };
    }

    /// Closes what leads, or was to lead, to the address whose turn it is.
    fn drop_failed(&mut self, layer: &mut TransactionLayer) {
        let out = &mut layer.out;
        if let Some(opening) = self.opening.take() {
            out.connections.close(opening.connection, &mut out.queue);
        }
        let current = self.servers.current();
        if let Some(flow) = self.flow.take_if(|flow| Some(flow.route) == current) {
            out.connections.close(flow.connection, &mut out.queue);
        }
    }

    /// A connection is open.
    pub(crate) fn handle_connected(
        &mut self,
        now: Instant,
        connection: ConnectionKey,
        local: SocketAddr,
        layer: &mut TransactionLayer,
    ) {
        let Some(opening) = self.opening.take_if(|opening| opening.connection == connection) else { return };
        if let Some(old) = self.flow.replace(Flow::new(now, &opening, local)) {
            layer.out.connections.close(old.connection, &mut layer.out.queue);
        }
        // What the last connection was seen at.
        self.public = None;
        if let State::Connecting = self.state {
            self.send_first(now, layer);
        }
    }

    /// A pong has come.
    pub(crate) fn handle_pong(&mut self, now: Instant, connection: ConnectionKey) {
        if let Some(flow) = self.flow.as_mut().filter(|flow| flow.connection == connection)
            && flow.handle_pong(now)
        {
            self.ponging = Some(flow.route.remote);
        }
    }

    /// A connection has ended. If it was ours, calls do not come in any more: register again at once.
    pub(crate) fn handle_closed(
        &mut self,
        now: Instant,
        connection: ConnectionKey,
        error: &str,
        layer: &mut TransactionLayer,
    ) {
        if self.opening.take_if(|opening| opening.connection == connection).is_none()
            && self.flow.take_if(|flow| flow.connection == connection).is_none()
        {
            return;
        }
        match self.state {
            // The old connection has ended while the new one is being opened.
            State::Connecting if self.opening.is_some() => {}
            State::Connecting | State::Registering(_) => {
                layer.abandon(Owner::Registration);
                self.fail(now, Failure::Unconnected(error.to_owned()), layer);
            }
            State::Registered { .. } | State::Removing { .. } => {
                layer.abandon(Owner::Registration);
                self.resolve(now, layer);
            }
            State::Unregistering(_) => self.state = State::Off,
            State::Idle | State::Resolving { .. } | State::Waiting { .. } | State::Off => {}
        }
    }

    /// Runs what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if let Some((at, route)) = self.keep_alive
            && now >= at
        {
            self.keep_alive = Some((now + KEEP_ALIVE, route));
            layer.out.send(self.datagram_path(route), KEEP_ALIVE_BYTES.to_vec());
        }
        if let Some(flow) = &mut self.flow
            && flow.handle_timeout(now, self.ponging == Some(flow.route.remote), &mut layer.out)
        {
            let connection = flow.connection;
            layer.out.connections.close(connection, &mut layer.out.queue);
            self.handle_closed(now, connection, "it does not answer", layer);
        }
        if let Some(opening) = self.opening.take_if(|opening| now >= opening.give_up) {
            layer.out.connections.close(opening.connection, &mut layer.out.queue);
            self.fail(now, Failure::Unconnected("it takes too long".to_owned()), layer);
        }
        self.run_watch(now, layer);
        match &self.state {
            State::Resolving { give_up } if now >= *give_up => {
                self.handle_unresolved(now, "the look-up takes too long", layer);
            }
            State::Registering(Attempt { turn_ends: Some(at), .. }) if now >= *at => {
                layer.abandon(Owner::Registration);
                self.fail(now, Failure::NoAnswer, layer);
            }
            State::Registered { refresh } if now >= *refresh => self.refresh(now, layer),
            State::Removing { refresh, .. } if now >= *refresh => {
                layer.abandon(Owner::Registration);
                self.refresh(now, layer);
            }
            State::Waiting { until } if now >= *until => self.resolve(now, layer),
            State::Idle
            | State::Resolving { .. }
            | State::Connecting
            | State::Registering(_)
            | State::Registered { .. }
            | State::Removing { .. }
            | State::Waiting { .. }
            | State::Unregistering(_)
            | State::Off => {}
        }
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        let of_state = match &self.state {
            State::Resolving { give_up } => Some(Deadline::new(*give_up, "registrar look-up")),
            State::Registering(attempt) => attempt.turn_ends.map(|at| Deadline::new(at, "next registrar's turn")),
            State::Registered { refresh } | State::Removing { refresh, .. } => {
                Some(Deadline::new(*refresh, "refresh registration"))
            }
            State::Waiting { until } => Some(Deadline::new(*until, "register again")),
            State::Idle | State::Connecting | State::Unregistering(_) | State::Off => None,
        };
        let keep_alive = self.keep_alive.map(|(at, _)| Deadline::new(at, "keep-alive"));
        let opening =
            self.opening.as_ref().map(|opening| Deadline::new(opening.give_up, "connection to the registrar"));
        let stun = self.stun.as_ref().and_then(StunFlow::next_timeout);
        earliest([
            of_state,
            keep_alive,
            opening,
            stun,
            self.flow.as_ref().map(Flow::next_timeout),
            self.watch.next_timeout(),
        ])
    }

    fn resolve(&mut self, now: Instant, layer: &mut TransactionLayer) {
        self.stop_watch(layer);
        self.state = State::Resolving { give_up: now + RESOLVE_LIMIT };
        layer.out.resolve(self.target().clone());
    }

    /// Registers again: with the first address if another one has stood in for it, and with what the name stands for
    /// now.
    fn refresh(&mut self, now: Instant, layer: &mut TransactionLayer) {
        self.servers.rewind();
        if self.servers.is_stale(now) { self.resolve(now, layer) } else { self.register(now, layer) }
    }

    /// Begins an attempt with the address whose turn it is.
    fn register(&mut self, now: Instant, layer: &mut TransactionLayer) {
        let Some(route) = self.servers.current() else { return };
        let is_open = self.flow.as_ref().is_some_and(|flow| flow.route == route);
        if is_open || !route.transport.is_reliable() {
            return self.send_first(now, layer);
        }
        self.state = State::Connecting;
        let (out, host) = (&mut layer.out, &self.target().host);
        let opened = out.connections.open_kept(route.transport, route.remote, host, &mut out.queue);
        match opened {
            Some(connection) => self.opening = Some(Opening { connection, route, give_up: now + CONNECT_LIMIT }),
            None => self.fail(now, Failure::Unconnected("too many connections".to_owned()), layer),
        }
    }

    fn send_first(&mut self, now: Instant, layer: &mut TransactionLayer) {
        self.stop_watch(layer);
        let contact = self.contact();
        let turn_ends = self.servers.has_next().then_some(now + TURN_LIMIT);
        self.state = State::Registering(Attempt { turn_ends, ..Attempt::new(contact.clone()) });
        self.send(now, &contact, self.wanted_expires_s, layer);
    }
}
