//! Galene's end of a peer connection, whose ICE does what pion's does (v4.3.0, as Galene 1.1 has it), with its waits and its
//! impatience: it pings every pair each 200 ms, seven times, nominates one when that is old enough for its kind, and keeps it
//! until that has been silent for 30 s.
//!
//! Left out: TCP, IPv6, a relay of its own. What its STUN server sees belongs to its only socket here, as with
//! `-udp-range PORT`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::rtc::candidate::{Candidate, CandidateKind, host_line, priority, server_line};
use galene_sip::rtc::description::{LocalDescription, RemoteDescription, Setup, Voice};
use galene_sip::rtc::dtls::{self, Dtls, DtlsError, DtlsRole, Identity};
use galene_sip::rtc::ice::Credentials;
use galene_sip::rtc::reflexive::{self, Query};
use galene_sip::time::Instant;
use galene_sip::wire::rtp::SrtpKeys;
use galene_sip::wire::stun::{BINDING, Builder, Class, Message, RoleAttribute, TransactionId};

/// No timer of Go's fires on the dot, and what has to be more than a second old is so then.
const CHECK_INTERVAL: Duration = Duration::from_micros(200_100);
const KEEPALIVE_INTERVAL: Duration = Duration::from_micros(2_000_100);
const FAILED: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const MAX_REQUESTS: u32 = 7;
/// Its host candidates follow the description.
const GATHERING: Duration = Duration::from_millis(5);
const QUERY_TAG: [u8; 4] = *b"pion";

#[derive(Debug)]
pub(crate) enum Output {
    Transmit {
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// With its `candidate:`.
    Candidate(String),
    /// ICE has failed. Galene has it begin anew.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Checking { since: Instant },
    Connected,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PairState {
    Waiting,
    InProgress,
    Succeeded,
    Failed,
}

/// A candidate of the other end's, and the pair that it makes with our only one.
#[derive(Debug)]
struct Pair {
    remote: SocketAddr,
    kind: CandidateKind,
    priority: u32,
    state: PairState,
    requests: u32,
    nominate_on_success: bool,
    heard_at: Instant,
}

#[derive(Debug)]
struct Request {
    id: TransactionId,
    to: SocketAddr,
    nominates: bool,
    at: Instant,
}

#[derive(Debug)]
pub(crate) struct Galene {
    host: SocketAddr,
    identity: Arc<Identity>,
    controls: bool,
    local: Credentials,
    remote: Option<Credentials>,
    tie_breaker: u64,
    state: State,
    started_at: Instant,
    contact_at: Option<Instant>,
    /// The index is stable within a generation.
    pairs: Vec<Pair>,
    requests: Vec<Request>,
    nominated: Option<usize>,
    selected: Option<usize>,
    stun_server: Option<SocketAddr>,
    query: Option<Query>,
    gathered_at: Option<Instant>,
    dtls: Option<Dtls>,
    dtls_runs: bool,
    held: Vec<Vec<u8>>,
    pub(crate) dtls_failure: Option<DtlsError>,
    pub(crate) keys: Option<SrtpKeys>,
    random: Random,
    outputs: VecDeque<Output>,
}

impl Galene {
    pub(crate) fn new(
        host: SocketAddr,
        identity: Arc<Identity>,
        stun_server: Option<SocketAddr>,
        mut random: Random,
    ) -> Self {
        Self {
            host,
            identity,
            controls: false,
            local: Credentials::generate(&mut random),
            remote: None,
            tie_breaker: random.next_u64(),
            state: State::New,
            started_at: Instant::ZERO,
            contact_at: None,
            pairs: Vec::new(),
            requests: Vec::new(),
            nominated: None,
            selected: None,
            stun_server,
            query: None,
            gathered_at: None,
            dtls: None,
            dtls_runs: false,
            held: Vec::new(),
            dtls_failure: None,
            keys: None,
            random,
            outputs: VecDeque::new(),
        }
    }

    /// A down stream's; every one after the first begins ICE anew.
    pub(crate) fn offer(&mut self, now: Instant) -> String {
        self.controls = true;
        if self.remote.is_some() {
            self.restart();
        }
        self.gather(now);
        let voice = Voice { ssrc: 1, cname: "c".into(), stream_id: "s".into(), track_id: "t".into() };
        self.describe(|local| local.offer(&voice))
    }

    pub(crate) fn handle_answer(&mut self, now: Instant, sdp: &str) {
        let remote = RemoteDescription::parse(sdp).expect("the gateway's answer can be read");
        let role = if remote.setup == Setup::Active { DtlsRole::Server } else { DtlsRole::Client };
        self.start(now, &remote, role);
    }

    /// An up stream's.
    pub(crate) fn handle_offer(&mut self, now: Instant, sdp: &str) -> String {
        let remote = RemoteDescription::parse(sdp).expect("the gateway's offer can be read");
        if self.remote.as_ref().is_some_and(|known| *known != remote.credentials) {
            self.restart();
        }
        self.gather(now);
        let answer = self.describe(|local| local.answer(&remote, DtlsRole::Client));
        self.start(now, &remote, DtlsRole::Client);
        answer
    }

    pub(crate) fn add_candidate(&mut self, now: Instant, line: &str) {
        let Ok(Candidate { address, priority, .. }) = Candidate::parse(line) else { return };
        let kind = match line.split(" typ ").nth(1).and_then(|rest| rest.split(' ').next()) {
            Some("host") => CandidateKind::Host,
            Some("srflx") => CandidateKind::ServerReflexive,
            Some("relay") => CandidateKind::Relayed,
            other => panic!("a candidate of kind {other:?}"),
        };
        self.add_pair(now, address, kind, priority);
    }

    /// Gives back what is neither STUN nor DTLS, if it comes from where a candidate is.
    pub(crate) fn handle_input(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        if self.stun_server == Some(from) {
            if let Some(query) = &mut self.query {
                query.handle_input(bytes);
            }
            self.settle(now);
            return false;
        }
        let is_media = match bytes.first() {
            Some(0..=3) => {
                self.handle_stun(now, from, bytes);
                false
            }
            Some(_) => {
                let Some(pair) = self.pairs.iter_mut().find(|pair| pair.remote == from) else { return false };
                pair.heard_at = now;
                if matches!(bytes[0], 20..=63) {
                    self.held.push(bytes.to_vec());
                }
                bytes[0] >= 128
            }
            None => false,
        };
        self.settle(now);
        is_media && self.keys.is_some()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.gathered_at.take_if(|at| *at <= now).is_some() {
            self.outputs.push_back(Output::Candidate(format!("candidate:{}", host_line(self.host, 0))));
        }
        if self.contact_at.take_if(|at| *at <= now).is_some() {
            self.contact(now);
        }
        if let Some(query) = &mut self.query {
            query.handle_timeout(now);
        }
        if let Some(dtls) = self.dtls.as_mut().filter(|_| self.dtls_runs) {
            dtls.handle_timeout(now);
        }
        self.settle(now);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let query = self.query.as_ref().and_then(Query::next_timeout).map(|deadline| deadline.at);
        let dtls = self.dtls.as_ref().filter(|_| self.dtls_runs).and_then(Dtls::next_timeout);
        [self.gathered_at, self.contact_at, query, dtls.map(|deadline| deadline.at)].into_iter().flatten().min()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Where media goes: pion sends by a pair that works until one is selected.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        let works = || self.best(|pair| pair.state == PairState::Succeeded);
        self.selected.or_else(works).map(|index| self.pairs[index].remote)
    }

    /// What kind of candidate of the other end's is selected.
    pub(crate) fn selected_kind(&self) -> Option<CandidateKind> {
        self.selected.map(|index| self.pairs[index].kind)
    }

    fn describe(&self, write: impl FnOnce(LocalDescription<'_>) -> String) -> String {
        write(LocalDescription {
            session_id: 1,
            version: 1,
            credentials: &self.local,
            ice_lite: false,
            candidates: &[],
            server_candidates: &[],
            trickles: true,
            fingerprint: self.identity.fingerprint(),
        })
    }

    fn gather(&mut self, now: Instant) {
        self.gathered_at = Some(now + GATHERING);
        self.query = self.stun_server.map(|_| Query::new(now, QUERY_TAG, &mut self.random));
    }

    fn restart(&mut self) {
        self.local = Credentials::generate(&mut self.random);
        self.remote = None;
        self.pairs.clear();
        self.requests.clear();
        (self.nominated, self.selected) = (None, None);
    }

    fn start(&mut self, now: Instant, remote: &RemoteDescription, role: DtlsRole) {
        self.remote = Some(remote.credentials.clone());
        self.state = State::Checking { since: now };
        self.started_at = now;
        self.contact_at = Some(now);
        if self.dtls.is_none() {
            self.dtls = Some(Dtls::new(now, &self.identity, role, remote.fingerprints.clone()));
        }
        for Candidate { address, priority, .. } in &remote.candidates {
            // Of those in a description the parser tells no kind, but only a host's has this preference.
            let is_host = priority >> 24 == 126;
            let is_relayed = priority >> 24 == 0;
            let kind = match (is_host, is_relayed) {
                (true, _) => CandidateKind::Host,
                (_, true) => CandidateKind::Relayed,
                (false, false) => CandidateKind::ServerReflexive,
            };
            self.add_pair(now, *address, kind, *priority);
        }
        self.settle(now);
    }

    fn add_pair(&mut self, now: Instant, remote: SocketAddr, kind: CandidateKind, priority: u32) {
        if self.state == State::Failed {
            return;
        }
        if let Some(known) = self.pairs.iter_mut().find(|pair| pair.remote == remote) {
            // What is signalled takes the place of what a check has shown (RFC 8838 §11.4).
            if known.kind == CandidateKind::PeerReflexive && kind != known.kind {
                (known.kind, known.priority) = (kind, priority);
            }
            return;
        }
        let (state, requests, nominate_on_success) = (PairState::Waiting, 0, false);
        self.pairs.push(Pair { remote, kind, priority, state, requests, nominate_on_success, heard_at: now });
        if self.state != State::New {
            self.contact_at = Some(now);
        }
    }

    fn best(&self, counts: impl Fn(&Pair) -> bool) -> Option<usize> {
        let pairs = self.pairs.iter().enumerate().filter(|(_, pair)| counts(pair));
        // The first of equals.
        pairs.rev().max_by_key(|(_, pair)| pair.priority).map(|(index, _)| index)
    }

    fn is_nominatable(&self, now: Instant, index: usize) -> bool {
        let wait_ms = match self.pairs[index].kind {
            CandidateKind::Host => 0,
            CandidateKind::ServerReflexive => 500,
            CandidateKind::PeerReflexive => 1000,
            CandidateKind::Relayed => 2000,
        };
        now.saturating_since(self.started_at) > Duration::from_millis(wait_ms)
    }

    /// pion's turn.
    fn contact(&mut self, now: Instant) {
        match self.state {
            State::New | State::Failed => return,
            State::Checking { since } if now.saturating_since(since) > FAILED => return self.fail(),
            State::Checking { .. } | State::Connected => {}
        }
        if let Some(selected) = self.selected {
            if now.saturating_since(self.pairs[selected].heard_at) > FAILED {
                return self.fail();
            }
            self.ping(now, selected, false);
        } else if let Some(nominated) = self.nominated {
            self.ping(now, nominated, true);
        } else {
            let best = self.best(|pair| pair.state == PairState::Succeeded);
            match best.filter(|best| self.controls && self.is_nominatable(now, *best)) {
                Some(best) => {
                    self.nominated = Some(best);
                    self.ping(now, best, true);
                }
                None => self.ping_all(now),
            }
        }
        let connected = self.state == State::Connected;
        self.contact_at = Some(now + if connected { KEEPALIVE_INTERVAL } else { CHECK_INTERVAL });
    }

    fn ping_all(&mut self, now: Instant) {
        for index in 0..self.pairs.len() {
            let pair = &mut self.pairs[index];
            match pair.state {
                PairState::Waiting => pair.state = PairState::InProgress,
                PairState::InProgress => {}
                PairState::Succeeded | PairState::Failed => continue,
            }
            if pair.requests > MAX_REQUESTS {
                pair.state = PairState::Failed;
            } else {
                pair.requests += 1;
                self.ping(now, index, false);
            }
        }
    }

    fn ping(&mut self, now: Instant, index: usize, nominates: bool) {
        let Some(remote) = &self.remote else { return };
        let mut id = [0; 12];
        self.random.fill(&mut id);
        let id = TransactionId(id);
        let role = match self.controls {
            true => RoleAttribute::Controlling(self.tie_breaker),
            false => RoleAttribute::Controlled(self.tie_breaker),
        };
        let mut request = Builder::new(Class::Request, id)
            .username(&format!("{}:{}", remote.ufrag, self.local.ufrag))
            .priority(priority(CandidateKind::Host, 0))
            .role(role);
        if nominates {
            request = request.use_candidate();
        }
        let (to, bytes) = (self.pairs[index].remote, request.finish(remote.password.as_bytes()));
        self.requests.retain(|request| now.saturating_since(request.at) < REQUEST_TIMEOUT);
        self.requests.push(Request { id, to, nominates, at: now });
        self.outputs.push_back(Output::Transmit { to, bytes });
    }

    fn handle_stun(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let (Ok(message), Some(remote)) = (Message::parse(bytes), &self.remote) else { return };
        let same_role = match message.role {
            Some(RoleAttribute::Controlling(_)) => self.controls,
            Some(RoleAttribute::Controlled(_)) => !self.controls,
            None => false,
        };
        if message.method != BINDING || same_role || self.state == State::Failed {
            return;
        }
        match message.class {
            Class::Success if message.verify(remote.password.as_bytes()) => {
                self.handle_success(now, from, message.transaction_id);
            }
            Class::Request => {
                let expected = format!("{}:{}", self.local.ufrag, remote.ufrag);
                if message.username == Some(&expected) && message.verify(self.local.password.as_bytes()) {
                    self.handle_request(now, from, &message);
                }
            }
            Class::Success | Class::Error | Class::Indication => {}
        }
    }

    fn handle_request(&mut self, now: Instant, from: SocketAddr, message: &Message<'_>) {
        self.add_pair(now, from, CandidateKind::PeerReflexive, priority(CandidateKind::PeerReflexive, 0));
        let Some(index) = self.pairs.iter().position(|pair| pair.remote == from) else { return };
        self.pairs[index].heard_at = now;
        let succeeded = self.pairs[index].state == PairState::Succeeded;
        if message.use_candidate && !self.controls {
            match succeeded {
                true => self.select_nominated(now, index),
                false => self.pairs[index].nominate_on_success = true,
            }
        }
        let answer = Builder::new(Class::Success, message.transaction_id).xor_mapped_address(from);
        self.outputs.push_back(Output::Transmit { to: from, bytes: answer.finish(self.local.password.as_bytes()) });
        if !self.controls {
            if !succeeded || self.selected.is_none() {
                self.ping(now, index, false);
            }
        } else if succeeded && self.nominated.is_none() && self.selected.is_none() {
            let best = self.best(|pair| pair.state != PairState::Failed);
            if best == Some(index) && self.is_nominatable(now, index) {
                self.nominated = Some(index);
                self.ping(now, index, true);
            }
        }
    }

    fn handle_success(&mut self, now: Instant, from: SocketAddr, id: TransactionId) {
        let Some(index) = self.pairs.iter().position(|pair| pair.remote == from) else { return };
        let Some(asked) = self.requests.iter().position(|request| request.id == id) else { return };
        let request = self.requests.remove(asked);
        if request.to != from {
            return;
        }
        self.pairs[index].heard_at = now;
        self.pairs[index].state = PairState::Succeeded;
        if self.controls && request.nominates && self.selected.is_none() {
            self.select(now, index);
        } else if !self.controls && self.pairs[index].nominate_on_success {
            self.select_nominated(now, index);
        }
    }

    /// Where the other end controls: a better one, or the first.
    fn select_nominated(&mut self, now: Instant, index: usize) {
        let priority = |index: usize| self.pairs[index].priority;
        if self.selected.is_none_or(|selected| selected != index && priority(selected) <= priority(index)) {
            self.select(now, index);
        }
    }

    fn select(&mut self, now: Instant, index: usize) {
        self.selected = Some(index);
        self.state = State::Connected;
        if !self.dtls_runs {
            self.dtls_runs = true;
            self.contact_at = Some(now + KEEPALIVE_INTERVAL);
            if let Some(dtls) = &mut self.dtls {
                dtls.start(now);
            }
        }
    }

    fn fail(&mut self) {
        self.state = State::Failed;
        self.pairs.clear();
        self.requests.clear();
        (self.nominated, self.selected) = (None, None);
        self.outputs.push_back(Output::Failed);
    }

    fn settle(&mut self, now: Instant) {
        while let Some(output) = self.query.as_mut().and_then(Query::poll_output) {
            match (output, self.stun_server) {
                (reflexive::Output::Transmit { bytes }, Some(to)) => {
                    self.outputs.push_back(Output::Transmit { to, bytes });
                }
                (reflexive::Output::Mapped(mapped), _) if mapped != self.host => {
                    let line = server_line(CandidateKind::ServerReflexive, mapped, self.host);
                    self.outputs.push_back(Output::Candidate(format!("candidate:{line}")));
                }
                (
                    reflexive::Output::Transmit { .. } | reflexive::Output::Mapped(_) | reflexive::Output::Failed(_),
                    _,
                ) => {}
            }
        }
        let Some(dtls) = self.dtls.as_mut().filter(|_| self.dtls_runs) else { return };
        for bytes in self.held.drain(..) {
            dtls.handle_input(now, &bytes);
        }
        let mut flight = Vec::new();
        while let Some(output) = dtls.poll_output() {
            match output {
                dtls::Output::Transmit(bytes) => flight.push(bytes),
                dtls::Output::Connected(keys) => self.keys = Some(keys),
                // Nothing but another connection helps.
                dtls::Output::Failed(error) => {
                    self.dtls_failure = Some(error);
                    self.dtls_runs = false;
                    return;
                }
            }
        }
        if let Some(to) = self.remote() {
            self.outputs.extend(flight.into_iter().map(|bytes| Output::Transmit { to, bytes }));
        }
    }
}
