//! Registration (RFC 3261 §10.2): the registrar knows where we are, for as long as we live.
//!
//! Owns: REGISTER, refresh, the pauses after failures, the address that the registrar sees us at, the keep-alive.
//! Does not own: the transactions (`layer`), name look-ups (`io`), which calls the registration lets in (`endpoint`).
//! Flow: Resolving → Registering → Registered → (refresh) Registering …; a failure leads through Waiting back to
//! Resolving; `unregister` ends in Off.

mod failure;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::auth::{Authorizer, Challenge, Credentials};
use super::dialog::MAX_FORWARDS;
use super::event::{Account, EndpointConfig, Event, Path, Registrar, Route};
use super::layer::{Outcome, Owner, TransactionLayer};
use super::reply::{ALLOW, SUPPORTED};
use crate::random::Random;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{Contacts, Method, NameAddr, Request, Response, Rport};
use crate::wire::uri::{Host, SipUri};
use failure::{Failure, Pauses};

/// The lifetime that we ask for: what a crash leaves behind rings in vain for at most this long.
const WANTED_EXPIRES_S: u32 = 600;
/// NATs keep a UDP mapping for 30 s or more (RFC 4787 §4.3 asks for 2 minutes, many give 30 s).
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// The double line end of RFC 5626 §4.4.1: registrars ignore or answer it.
const KEEP_ALIVE_BYTES: &[u8] = b"\r\n\r\n";
/// A name look-up may take this long.
const RESOLVE_LIMIT: Duration = Duration::from_secs(20);
/// Challenges in one attempt: a proxy's and the registrar's, each once more for a stale nonce.
const MAX_CHALLENGES: u32 = 4;
/// A NAT that gives a new address with each answer must not make us register without end.
const MOVE_AGAIN: Duration = Duration::from_secs(30);
/// Addresses of the registrar that are remembered.
const MAX_ROUTES: usize = 32;

/// The registration of our one account.
#[derive(Debug)]
pub(crate) struct Registration {
    registrar: Registrar,
    account: Account,
    sockets: Vec<SocketAddr>,
    /// The user part of our Contact; whoever knows it has it from the registrar.
    token: String,
    call_id: String,
    from_tag: String,
    cseq: u32,
    routes: Vec<Route>,
    current: Option<Route>,
    /// For 401 and for 407.
    authorizers: [Option<Authorizer>; 2],
    wanted_expires_s: u32,
    /// Our address as the registrar sees it, where it is not our own.
    public: Option<SocketAddr>,
    /// When a new public address last made us register at once.
    moved: Option<Instant>,
    /// The Contact that the registrar holds.
    binding: Option<SipUri>,
    pauses: Pauses,
    /// Runs beside the states: calls come in by the old binding while a refresh fails.
    keep_alive: Option<(Instant, Route)>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not started.
    Idle,
    Resolving {
        give_up: Instant,
    },
    Registering(Attempt),
    Registered {
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
}

impl Attempt {
    fn new(contact: SipUri) -> Self {
        Self { contact, challenges: 0, is_fresh: [false; 2], is_raised: false }
    }
}

impl Registration {
    pub(crate) fn new(config: &EndpointConfig, registrar: Registrar, token: String, random: &mut Random) -> Self {
        Self {
            registrar,
            account: config.account.clone(),
            sockets: config.local.clone(),
            token,
            call_id: random.token(24),
            from_tag: random.token(12),
            cseq: 0,
            routes: Vec::new(),
            current: None,
            authorizers: [None, None],
            wanted_expires_s: WANTED_EXPIRES_S,
            public: None,
            moved: None,
            binding: None,
            pauses: Pauses::default(),
            keep_alive: None,
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

    /// Whether this is the name that it looks up.
    pub(crate) fn is_at(&self, host: &str, port: Option<u16>) -> bool {
        self.registrar.host == host && self.registrar.port == port
    }

    /// Whether `address` is one of the registrar's.
    pub(crate) fn is_registrar(&self, address: IpAddr) -> bool {
        self.routes.iter().any(|route| route.remote.ip().to_canonical() == address.to_canonical())
    }

    /// Whether this is its name.
    pub(crate) fn is_called(&self, host: &str) -> bool {
        self.registrar.host.eq_ignore_ascii_case(host)
    }

    /// The way to it.
    pub(crate) const fn route(&self) -> Option<Route> {
        self.current
    }

    /// The credentials for a challenge in a call: only for the realm in which the registrar asked us itself, and only
    /// along its own address. Otherwise anyone who is hung up on could ask for a digest to guess the password from.
    pub(crate) fn credentials_for(&self, realm: &str, next_hop: IpAddr) -> Option<&Credentials> {
        let is_known = self.authorizers.iter().flatten().any(|authorizer| authorizer.challenge().realm == realm);
        self.account.credentials.as_ref().filter(|_| is_known && self.is_registrar(next_hop))
    }

    /// Whether it has ended after [`Self::unregister`].
    pub(crate) fn is_off(&self) -> bool {
        matches!(self.state, State::Off)
    }

    /// Takes our address out of the registrar, if it may be there, and ends.
    pub(crate) fn unregister(&mut self, now: Instant, layer: &mut TransactionLayer) {
        self.keep_alive = None;
        layer.abandon(Owner::Registration);
        let in_flight = match std::mem::replace(&mut self.state, State::Off) {
            State::Registering(attempt) => Some(attempt.contact),
            other @ (State::Unregistering(_) | State::Off) => {
                self.state = other;
                return;
            }
            State::Idle | State::Resolving { .. } | State::Registered { .. } | State::Waiting { .. } => None,
        };
        if let Some(contact) = self.binding.clone().or(in_flight) {
            self.state = State::Unregistering(Attempt::new(contact.clone()));
            self.send(now, &contact, 0, layer);
        }
    }

    /// The registrar's addresses.
    pub(crate) fn handle_resolved(&mut self, now: Instant, mut routes: Vec<Route>, layer: &mut TransactionLayer) {
        let State::Resolving { .. } = self.state else { return };
        routes.truncate(MAX_ROUTES);
        if routes.is_empty() {
            return self.fail(now, Failure::Unresolved("it has no address".to_owned()), layer);
        }
        let kept = self.current.filter(|current| routes.contains(current));
        let turn = self.pauses.failures() as usize % routes.len();
        self.current = kept.or_else(|| routes.get(turn).copied());
        self.routes = routes;
        self.register(now, layer);
    }

    /// The registrar's name could not be looked up.
    pub(crate) fn handle_unresolved(&mut self, now: Instant, error: &str, layer: &mut TransactionLayer) {
        if let State::Resolving { .. } = self.state {
            self.fail(now, Failure::Unresolved(error.to_owned()), layer);
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
            other => self.state = other,
        }
    }

    /// Some registrars take one Contact at a time. What they refuse is not tried again: the old binding runs out.
    fn forget_refused_removal(&mut self) {
        if let State::Waiting { .. } = self.state
            && self.current.is_some()
            && self.binding.as_ref() != Some(&self.contact())
        {
            self.binding = None;
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
            401 | 407 => {
                if let Err(failure) = self.take_challenge(&mut attempt, response, &mut layer.random) {
                    return self.fail(now, failure, layer);
                }
                // The challenge has shown where we are seen: the answer carries that address already.
                attempt.contact = self.contact();
            }
            423 => {
                let least = response.headers.min_expires().unwrap_or(0);
                if attempt.is_raised || least <= self.wanted_expires_s {
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

    /// Prepares the answer to a 401 or 407.
    fn take_challenge(
        &mut self,
        attempt: &mut Attempt,
        response: &Response,
        random: &mut Random,
    ) -> Result<(), Failure> {
        let is_proxy = response.status == 407;
        let kind = usize::from(is_proxy);
        let challenge = Challenge::choose(&response.headers, is_proxy).ok_or(Failure::UnknownChallenge)?;
        if self.account.credentials.is_none() {
            return Err(Failure::NoPassword);
        }
        if attempt.is_fresh[kind] && !challenge.is_stale {
            return Err(Failure::WrongPassword);
        }
        attempt.challenges += 1;
        if attempt.challenges > MAX_CHALLENGES {
            return Err(Failure::from_response(response));
        }
        attempt.is_fresh[kind] = true;
        self.authorizers[kind] = Some(Authorizer::new(challenge, random));
        Ok(())
    }

    fn succeed(&mut self, now: Instant, attempt: Attempt, response: &Response, layer: &mut TransactionLayer) {
        let granted_s = self.granted_expires_s(&attempt.contact, response);
        if granted_s == 0 {
            return self.fail(now, Failure::NotKept, layer);
        }
        self.pauses = Pauses::default();
        self.binding = Some(attempt.contact);
        self.keep_alive = self.current.filter(|_| self.public.is_some()).map(|route| (now + KEEP_ALIVE, route));
        layer.out.event(Event::Registered { expires_s: granted_s, public: self.public });
        let has_moved = self.binding.as_ref() != Some(&self.contact());
        if has_moved && self.moved.is_none_or(|moved| now >= moved + MOVE_AGAIN) {
            self.moved = Some(now);
            return self.register(now, layer);
        }
        self.state = State::Registered { refresh: now + refresh_after(granted_s, &mut layer.random) };
    }

    /// What the registrar grants to our Contact among those it lists (RFC 3261 §10.2.4).
    fn granted_expires_s(&self, contact: &SipUri, response: &Response) -> u32 {
        let Ok(Contacts::List(contacts)) = response.headers.contacts() else { return self.wanted_expires_s };
        let is_equal = |one: &&NameAddr| one.uri.as_sip().is_some_and(|uri| uri.is_equivalent(contact));
        let is_ours = |one: &&NameAddr| one.uri.user().as_deref() == Some(self.token.as_str());
        let ours = contacts.iter().find(is_equal).or_else(|| contacts.iter().find(is_ours));
        let expires = ours.and_then(|one| one.parameters.value("expires")).and_then(|value| value.parse().ok());
        expires.or_else(|| response.headers.expires()).unwrap_or(self.wanted_expires_s)
    }

    fn fail(&mut self, now: Instant, failure: Failure, layer: &mut TransactionLayer) {
        let pause = self.pauses.after(&failure, &mut layer.random);
        let text = failure.text(&self.registrar.host, &self.account, self.current.map(|route| route.remote));
        if !failure.leaves_route() {
            self.current = None;
        }
        self.authorizers = [None, None];
        layer.out.event(Event::RegistrationFailed { text, retry_in: pause });
        self.state = State::Waiting { until: now + pause };
    }

    /// Runs what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if let Some((at, route)) = self.keep_alive
            && now >= at
        {
            self.keep_alive = Some((now + KEEP_ALIVE, route));
            layer.out.send(self.path(route), KEEP_ALIVE_BYTES.to_vec());
        }
        match self.state {
            State::Resolving { give_up } if now >= give_up => {
                self.fail(now, Failure::Unresolved("the look-up takes too long".to_owned()), layer);
            }
            State::Registered { refresh } if now >= refresh => self.register(now, layer),
            State::Waiting { until } if now >= until => self.resolve(now, layer),
            State::Idle
            | State::Resolving { .. }
            | State::Registering(_)
            | State::Registered { .. }
            | State::Waiting { .. }
            | State::Unregistering(_)
            | State::Off => {}
        }
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        let of_state = match self.state {
            State::Resolving { give_up } => Some(Deadline::new(give_up, "registrar look-up")),
            State::Registered { refresh } => Some(Deadline::new(refresh, "refresh registration")),
            State::Waiting { until } => Some(Deadline::new(until, "register again")),
            State::Idle | State::Registering(_) | State::Unregistering(_) | State::Off => None,
        };
        earliest([of_state, self.keep_alive.map(|(at, _)| Deadline::new(at, "keep-alive"))])
    }

    fn resolve(&mut self, now: Instant, layer: &mut TransactionLayer) {
        self.state = State::Resolving { give_up: now + RESOLVE_LIMIT };
        layer.out.resolve(self.registrar.host.clone(), self.registrar.port);
    }

    fn register(&mut self, now: Instant, layer: &mut TransactionLayer) {
        let contact = self.contact();
        self.state = State::Registering(Attempt::new(contact.clone()));
        self.send(now, &contact, self.wanted_expires_s, layer);
    }

    /// Sends a REGISTER for `contact`; a binding of another address is removed by it.
    fn send(&mut self, now: Instant, contact: &SipUri, expires_s: u32, layer: &mut TransactionLayer) {
        let Some(route) = self.current.or_else(|| self.routes.first().copied()) else { return };
        self.cseq += 1;
        let uri = self.domain();
        let address = NameAddr::new(self.account.uri.clone());
        let mut request = Request::new(Method::Register, uri.clone())
            .with("Max-Forwards", MAX_FORWARDS)
            .with("From", address.clone().with_tag(&self.from_tag))
            .with("To", address)
            .with("Call-ID", &self.call_id)
            .with("CSeq", format!("{} REGISTER", self.cseq))
            .with("Contact", format!("<{contact}>;expires={expires_s}"));
        if let Some(old) = self.binding.as_ref().filter(|old| *old != contact) {
            request.headers.push("Contact", format!("<{old}>;expires=0"));
        }
        request.headers.push("Expires", expires_s.to_string());
        request.headers.push("Allow", ALLOW);
        request.headers.push("Supported", SUPPORTED);
        if let Some(credentials) = &self.account.credentials {
            self.authorizers.iter_mut().flatten().for_each(|authorizer| {
                let value = authorizer.authorize(credentials, "REGISTER", &uri.to_string());
                request.headers.push(authorizer.header_name(), value);
            });
        }
        let own = self.own_address(route);
        layer.request(now, Owner::Registration, self.path(route), (own.ip().into(), own.port()), request);
    }

    /// The Request-URI: the domain of the account (RFC 3261 §10.2).
    fn domain(&self) -> SipUri {
        match self.account.uri.as_sip() {
            Some(uri) => SipUri::new(None, uri.host.clone(), uri.port),
            None => {
                let host = Host::parse(&self.registrar.host).unwrap_or_else(|_| Host::Name(String::new()));
                SipUri::new(None, host, self.registrar.port)
            }
        }
    }

    /// Our Contact as it should be.
    fn contact(&self) -> SipUri {
        let own = self.public.or_else(|| self.current.map(|route| self.own_address(route)));
        let host = own.map_or_else(|| Host::Name("invalid".to_owned()), |own| own.ip().into());
        SipUri::new(Some(&self.token), host, own.map(|own| own.port()))
    }

    /// The address that we send from to the registrar.
    fn own_address(&self, route: Route) -> SocketAddr {
        let is_same_family = |socket: &&SocketAddr| socket.is_ipv4() == route.local.is_ipv4();
        let socket = self.sockets.iter().find(is_same_family).or_else(|| self.sockets.first());
        SocketAddr::new(route.local, socket.map_or(5060, SocketAddr::port))
    }

    fn path(&self, route: Route) -> Path {
        Path { local: Some(self.own_address(route)), remote: route.remote }
    }

    fn learn_public(&mut self, response: &Response) {
        let (Some(route), Ok(via)) = (self.current, response.headers.via()) else { return };
        let own = self.own_address(route);
        let port = match via.rport() {
            Rport::Port(port) => port,
            Rport::Asked | Rport::Absent => own.port(),
        };
        let seen = SocketAddr::new(via.received().unwrap_or_else(|| own.ip()), port);
        self.public = (seen != own).then_some(seen);
    }
}

/// When to refresh a lifetime of `granted_s`: early enough for one more attempt after a lost one, which takes 32 s to
/// notice. Up to a tenth earlier, so that a crowd restarted together spreads.
fn refresh_after(granted_s: u32, random: &mut Random) -> Duration {
    let part = if granted_s >= 240 { u64::from(granted_s) * 750 } else { u64::from(granted_s) * 500 };
    let earlier = part / 10 * u64::from(random.below(1000)) / 1000;
    Duration::from_millis(part - earlier)
}
