//! The ICE agent of one component (RFC 8445; trickle RFC 8838; consent RFC 7675).
//!
//! Owns: which of the peer's addresses work and which one is used. Does not own: SDP, sockets, what is sent there.
//! Flow: [`Agent::add_candidate`] and [`Agent::start`] in any order → checks, one every 50 ms → a pair succeeds and is
//! nominated → [`Output::Selected`] → consent checks for ever, or [`Output::Failed`]. [`Agent::restart`] begins again.
//! Where we control, every check nominates (the first pair that works is used at once, a better one that answers
//! later replaces it, as the peer sees it too); where the peer controls, its nomination decides, likewise.
//! Our checks are in `check`, the peer's in `answer`; this file has the state they work on, and the selection.

mod answer;
mod check;
mod consent;
mod pair;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::random::Random;
use crate::rtc::candidate::{Candidate, CandidateKind, canonical, priority};
use crate::time::{Deadline, Instant, earliest};
use crate::wire::route::Route;
use crate::wire::stun::{BINDING, Class, Filter, Message};

pub use consent::CONSENT_BEAT;
use consent::Consent;
use pair::{Pair, PairState};

/// Pairs, with and without our relay: pion on a host with many bridges signals about 20 candidates; the rest is ignored.
pub const MAX_PAIRS: usize = 64;
/// Trickled candidates kept until the description of their generation comes.
const MAX_TRICKLED: usize = 32;
/// A trickled candidate that names no generation may belong to a restart whose offer is still to come.
const TRICKLED_AHEAD: Duration = Duration::from_secs(5);
/// Ta, the pause between new checks (RFC 8445 §14.2).
const PACING: Duration = Duration::from_millis(50);
/// How long we look for a way before we give up: as long as consent would last.
const GIVE_UP: Duration = Duration::from_secs(30);
/// A doubt is told once in so long: looking for a way anew may take longer, and a NAT may change its mind with each packet.
const DOUBT_AGAIN: Duration = Duration::from_secs(30);
/// A selected pair that was silent for longer yields to any other nomination; consent checks are 4 to 6 s apart.
const SILENT: Duration = Duration::from_secs(8);

/// Who nominates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We do.
    Controlling,
    /// The peer does.
    Controlled,
}

/// A side's short-term credentials for one generation.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub password: String,
}

impl Credentials {
    /// Fresh ones: 47 and 142 bits (RFC 8445 §5.3 wants 24 and 128).
    pub fn generate(random: &mut Random) -> Self {
        Self { ufrag: random.token(8), password: random.token(24) }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Why there is no way to the peer. A restart may find one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No check was answered, or none nominated, within 30 s.
    #[error("no address of the peer answered within 30 s")]
    NoPath,
    /// The selected address has been silent for 30 s.
    #[error("the peer has not answered for 30 s")]
    ConsentExpired,
    /// The relay that led to the selected address is no more.
    #[error("the relay has gone")]
    RelayLost,
}

/// Which versions of IP our relay has an address of; without one, neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayFamilies {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// Why the pair in use may be of no use, though consent for it lasts. It is used on; a restart may find another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing has come from there for 10 s.
    Silent,
    /// The peer sees us at another address, and controls: one like pion goes on sending to the old one until it gives up.
    Moved,
}

/// What the agent wants done or known.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a STUN message.
    Transmit {
        /// To whom, and which way.
        to: Route,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send here from now on.
    Selected {
        /// Where, and which way.
        remote: Route,
    },
    /// The pair in use is in doubt.
    Doubtful(Doubt),
    /// It is over, until a restart.
    Failed(Failure),
}

/// Messages that led to nothing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Not STUN, broken, not Binding, or without FINGERPRINT.
    pub malformed: u32,
    /// Not for our ufrag, or the integrity is wrong.
    pub unauthentic: u32,
    /// A response that no check of ours waits for, or from another address than was asked.
    pub unexpected: u32,
    /// A candidate or a check's source beyond [`MAX_PAIRS`].
    pub full: u32,
}

#[derive(Debug)]
enum State {
    /// The peer's credentials are not known (any more).
    Idle,
    /// Looking for a pair.
    Checking { give_up_at: Instant },
    /// A pair is in use.
    Selected(Consent),
    /// Gave up.
    Failed,
}

/// One ICE agent for one component.
#[derive(Debug)]
pub struct Agent {
    role: Role,
    lite: bool,
    tie_breaker: u64,
    local: Credentials,
    remote: Option<Credentials>,
    /// Our host candidates, best first; none if we are to be reached by a relay alone.
    candidates: Vec<SocketAddr>,
    relay: RelayFamilies,
    pairs: Vec<Pair>,
    /// Indices of pairs to be checked next, without repetition (RFC 8445 §6.1.4.1).
    triggered: VecDeque<usize>,
    trickled: VecDeque<(Instant, Candidate)>,
    next_check_at: Instant,
    /// No doubt is told before.
    doubts_from: Instant,
    state: State,
    transaction_tag: [u8; 4],
    drops: Drops,
    random: Random,
    outputs: VecDeque<Output>,
}

impl Agent {
    /// An agent with host candidates in the order of liking; a `lite` one only answers (RFC 8445 §2.5).
    pub fn new(role: Role, lite: bool, candidates: &[SocketAddr], mut random: Random) -> Self {
        let local = Credentials::generate(&mut random);
        Self {
            role: if lite { Role::Controlled } else { role },
            lite,
            tie_breaker: random.next_u64(),
            local,
            remote: None,
            candidates: candidates.iter().copied().map(canonical).take(MAX_PAIRS).collect(),
            relay: RelayFamilies::default(),
            pairs: Vec::new(),
            triggered: VecDeque::new(),
            trickled: VecDeque::new(),
            next_check_at: Instant::ZERO,
            doubts_from: Instant::ZERO,
            state: State::Idle,
            transaction_tag: random.next_u32().to_be_bytes(),
            drops: Drops::default(),
            random,
            outputs: VecDeque::new(),
        }
    }

    /// Our credentials, for the description.
    pub fn credentials(&self) -> &Credentials {
        &self.local
    }

    /// The peer's credentials of this generation.
    pub fn remote_credentials(&self) -> Option<&Credentials> {
        self.remote.as_ref()
    }

    /// Our role now; a conflict may have changed it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Messages that led to nothing.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// What the net thread lets through to us, and to who asks servers with transactions that begin with `gathering_tag`.
    pub fn filter(&self, gathering_tag: [u8; 4]) -> Filter {
        let Credentials { ufrag, password } = self.local.clone();
        Filter { ufrag, password, transaction_tags: [self.transaction_tag, gathering_tag] }
    }

    /// Whether an authentic message of this generation came from there.
    pub fn is_validated(&self, remote: Route) -> bool {
        self.pairs.iter().any(|pair| pair.remote == remote && pair.heard_at.is_some())
    }

    /// Sets the role, as long as no check has been sent; a lite agent is always controlled (RFC 8445 §6.1.1).
    pub fn set_role(&mut self, role: Role) {
        if !self.lite && matches!(self.state, State::Idle) {
            self.role = role;
        }
    }

    /// A new generation (RFC 8445 §9): new credentials, no pairs. Who looks on the old selected address may go on
    /// sending there until another is selected.
    pub fn restart(&mut self, now: Instant) {
        self.local = Credentials::generate(&mut self.random);
        self.transaction_tag = self.random.next_u32().to_be_bytes();
        self.remote = None;
        self.pairs.clear();
        self.triggered.clear();
        self.trickled.retain(|(at, _)| now.saturating_since(*at) <= TRICKLED_AHEAD);
        self.state = State::Idle;
    }

    /// The peer's description is here: checks may begin. Candidates that were trickled ahead of it count now.
    pub fn start(&mut self, now: Instant, remote: Credentials) {
        self.remote = Some(remote);
        self.state = State::Checking { give_up_at: now + GIVE_UP };
        self.next_check_at = now;
        self.pair_with_trickled();
        for index in 0..self.pairs.len() {
            // A lite agent may have been nominated a pair before the description came.
            if self.pairs[index].nominated && self.pairs[index].has_succeeded() {
                self.select(now, index);
            }
        }
        self.send_due_check(now);
    }

    /// A candidate of the peer, from its description or trickled, before or after [`Agent::start`].
    pub fn add_candidate(&mut self, now: Instant, candidate: Candidate) {
        if self.is_current(&candidate) {
            self.pair_with(&candidate);
        }
        if self.trickled.len() == MAX_TRICKLED {
            self.trickled.pop_front();
        }
        self.trickled.push_back((now, candidate));
        self.send_due_check(now);
    }

    /// There is a relay now, or none any longer: a way that led by the former one is lost at once.
    pub fn set_relay(&mut self, now: Instant, relay: RelayFamilies) {
        self.relay = relay;
        if relay == RelayFamilies::default() {
            if self.selected().is_some_and(Route::is_relayed) {
                self.fail(Failure::RelayLost);
            }
            return;
        }
        let of_peer = |pair: &Pair| (pair.remote.peer(), pair.remote_priority);
        for (peer, remote_priority) in self.pairs.iter().map(of_peer).collect::<Vec<_>>() {
            self.find_or_add(Route::Relayed(peer), remote_priority);
        }
        self.pair_with_trickled();
        self.send_due_check(now);
    }

    /// Which versions of IP the peer has addresses of, as far as it has said.
    pub fn remote_families(&self) -> RelayFamilies {
        let has = |is_of: fn(&SocketAddr) -> bool| {
            self.trickled.iter().any(|(_, candidate)| self.is_current(candidate) && is_of(&candidate.address))
        };
        RelayFamilies { v4: has(SocketAddr::is_ipv4), v6: has(SocketAddr::is_ipv6) }
    }

    /// Whether a candidate belongs to the peer's present generation; one that names none does.
    fn is_current(&self, candidate: &Candidate) -> bool {
        let is_of = |remote: &Credentials| candidate.ufrag.as_ref().is_none_or(|ufrag| *ufrag == remote.ufrag);
        self.remote.as_ref().is_some_and(is_of)
    }

    fn pair_with_trickled(&mut self) {
        for (_, candidate) in self.trickled.clone() {
            if self.is_current(&candidate) {
                self.pair_with(&candidate);
            }
        }
    }

    /// A STUN message came on our socket.
    pub fn handle_input(&mut self, now: Instant, from: Route, bytes: &[u8]) {
        let from = from.with_peer(canonical(from.peer()));
        let Ok(message) = Message::parse(bytes) else {
            self.drops.malformed += 1;
            return;
        };
        if message.method != BINDING || !message.has_fingerprint {
            self.drops.malformed += 1;
            return;
        }
        match message.class {
            Class::Request => self.handle_request(now, from, &message),
            Class::Success | Class::Error => self.handle_response(now, from, &message),
            Class::Indication => {} // A keep-alive (RFC 8445 §11): nothing to do.
        }
        self.send_due_check(now);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Checking { give_up_at } if now >= *give_up_at => self.fail(Failure::NoPath),
            State::Selected(consent) if consent.has_expired(now) => self.fail(Failure::ConsentExpired),
            State::Selected(consent) if consent.is_due(now) => self.send_consent_check(now),
            State::Idle | State::Checking { .. } | State::Selected(_) | State::Failed => {}
        }
        self.doubt_silence(now);
        self.retransmit_due_checks(now);
        self.send_due_check(now);
    }

    /// When [`Agent::handle_timeout`] is wanted.
    pub fn next_timeout(&self) -> Option<Deadline> {
        let state = match &self.state {
            State::Idle | State::Failed => return None,
            State::Checking { give_up_at } => Some(Deadline::new(*give_up_at, "ICE gives up")),
            State::Selected(consent) => Some(consent.next_timeout()),
        };
        let paced = self.next_to_check().map(|_| Deadline::new(self.next_check_at, "ICE check (Ta)"));
        let retransmission = earliest(self.pairs.iter().map(|pair| match pair.state {
            PairState::InProgress(check) => Some(Deadline::new(check.next_at(), "ICE check retransmission")),
            PairState::Waiting | PairState::Succeeded | PairState::Failed => None,
        }));
        earliest([state, paced, retransmission])
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn controls(&self) -> bool {
        self.role == Role::Controlling
    }

    /// The address in use.
    pub fn selected(&self) -> Option<Route> {
        match &self.state {
            State::Selected(consent) => Some(consent.remote),
            State::Idle | State::Checking { .. } | State::Failed => None,
        }
    }

    /// None is in use, or one that is silent.
    fn wants_a_pair(&self, now: Instant) -> bool {
        let Some(selected) = self.selected() else { return true };
        let heard_at = self.pairs.iter().find(|pair| pair.remote == selected).and_then(|pair| pair.heard_at);
        heard_at.is_none_or(|heard_at| now.saturating_since(heard_at) > SILENT)
    }

    fn doubt_silence(&mut self, now: Instant) {
        let State::Selected(consent) = &mut self.state else { return };
        if consent.doubt_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let heard_at = self.pairs.iter().find(|pair| pair.remote == consent.remote).and_then(|pair| pair.heard_at);
        match heard_at.map(|at| at + consent::DOUBTFUL) {
            // The peer's own checks have come.
            Some(later) if later > now => consent.doubt_at = Some(later),
            Some(_) | None => self.doubt(now, Doubt::Silent),
        }
    }

    fn doubt(&mut self, now: Instant, doubt: Doubt) {
        if now >= self.doubts_from {
            self.doubts_from = now + DOUBT_AGAIN;
            self.outputs.push_back(Output::Doubtful(doubt));
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.state = State::Failed;
        self.triggered.clear();
        for pair in &mut self.pairs {
            pair.state = PairState::Failed;
        }
        self.outputs.push_back(Output::Failed(failure));
    }

    /// The pair for a signalled candidate; one that a check has made already gets the signalled priority.
    fn pair_with(&mut self, candidate: &Candidate) {
        for remote in [Route::Direct(candidate.address), Route::Relayed(candidate.address)] {
            if let Some(index) = self.find_or_add(remote, candidate.priority) {
                self.pairs[index].remote_priority = candidate.priority;
            }
        }
    }

    /// The pair with this remote address; `None` if we have nothing to reach it from, or too many pairs.
    fn find_or_add(&mut self, remote: Route, remote_priority: u32) -> Option<usize> {
        if let Some(index) = self.pairs.iter().position(|pair| pair.remote == remote) {
            return Some(index);
        }
        let is_ipv4 = remote.peer().is_ipv4();
        let (kind, rank) = match remote {
            Route::Direct(_) => {
                (CandidateKind::Host, self.candidates.iter().position(|local| local.is_ipv4() == is_ipv4)?)
            }
            Route::Relayed(_) if (is_ipv4 && self.relay.v4) || (!is_ipv4 && self.relay.v6) => {
                (CandidateKind::Relayed, 0)
            }
            Route::Relayed(_) => return None,
        };
        if self.pairs.len() == MAX_PAIRS {
            self.drops.full += 1;
            return None;
        }
        self.pairs.push(Pair {
            remote,
            remote_priority,
            local_priority: priority(kind, rank),
            reflexive_priority: priority(CandidateKind::PeerReflexive, rank),
            state: PairState::Waiting,
            nominated: false,
            is_peer_ahead: false,
            heard_at: None,
        });
        Some(self.pairs.len() - 1)
    }

    /// The pair works and is nominated: use it, unless a better one is in use and alive.
    fn select(&mut self, now: Instant, index: usize) {
        let (remote, controls) = (self.pairs[index].remote, self.controls());
        match self.state {
            State::Idle | State::Failed => return,
            State::Checking { .. } => {}
            State::Selected(Consent { remote: current, .. }) if current == remote => return,
            State::Selected(Consent { remote: current, .. }) => {
                let is_better = |current: &Pair| self.pairs[index].priority(controls) >= current.priority(controls);
                let current = self.pairs.iter().find(|pair| pair.remote == current);
                if !self.wants_a_pair(now) && !current.is_none_or(is_better) {
                    return;
                }
            }
        }
        self.state = State::Selected(match self.lite {
            true => Consent::lite(now, remote),
            false => Consent::new(now, remote, &mut self.random),
        });
        self.outputs.push_back(Output::Selected { remote });
        if controls {
            self.stop_lesser_checks(index);
        }
    }

    /// What ranks below the pair in use need not be tried any more; what ranks above may still answer.
    fn stop_lesser_checks(&mut self, selected: usize) {
        let bar = self.pairs[selected].priority(true);
        for pair in self.pairs.iter_mut().filter(|pair| pair.priority(true) < bar) {
            if matches!(pair.state, PairState::InProgress(_)) {
                pair.state = PairState::Waiting;
            }
        }
    }

    /// Checks that are out name the wrong role now and are done anew; nominations were made by the wrong side.
    fn switch_role(&mut self) {
        self.role = match self.role {
            Role::Controlling => Role::Controlled,
            Role::Controlled => Role::Controlling,
        };
        let (controls, selected) = (self.controls(), self.selected());
        for pair in &mut self.pairs {
            let nominate_again = controls && selected.is_none() && pair.has_succeeded();
            if nominate_again || matches!(pair.state, PairState::InProgress(_)) {
                pair.state = PairState::Waiting;
            }
            pair.nominated = false;
        }
    }
}
