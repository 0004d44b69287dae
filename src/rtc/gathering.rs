//! Candidates that servers have for our socket (RFC 8445 §5.1.1.2): what STUN servers see of it, and one relay.
//!
//! Owns: which servers are asked, the relay that is kept, what goes through it. Does not own: when to begin (`peer`), what
//! the candidates are good for (`ice`), how servers are found.
//! Flow: [`Gathering::add_server`] for each → [`Output::Candidate`]s. All servers are asked at once; of several relays the first
//! is kept, the others are given back, so that one that is dead holds nothing up. [`Gathering::release`] ends it.
//! A server that names another (RFC 8489 §10) is followed once; where that one names a third, it ends.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::candidate::{CandidateKind, server_line};
use super::ice::RelayFamilies;
use super::reflexive::{self, Query};
use super::turn::{self, Allocation, Credentials, Failure, Families};
use crate::random::Random;
use crate::time::{Deadline, Instant, earliest};

/// Servers that are asked for one connection; people write two or three.
pub const MAX_SERVERS: usize = 8;
/// After so long without a relay over UDP, those over TCP and TLS are tried too: UDP to the server may be blocked.
const STREAMS_AFTER: Duration = Duration::from_millis(700);

/// A server, as its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is reached over UDP, or where its stand-in is that speaks TCP or TLS with it.
    pub address: SocketAddr,
    /// For a relay; a STUN server wants none.
    pub credentials: Option<Credentials>,
    /// There is a stream behind it, which loses nothing.
    pub is_reliable: bool,
    /// Another server has named this one.
    pub is_alternate: bool,
}

/// What gathering wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to a server.
    Transmit {
        /// Which.
        server: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// The peer should know this candidate: the value of `a=candidate`.
    Candidate(String),
    /// There is a relay with addresses of these versions of IP, or none any longer.
    Relay(RelayFamilies),
    /// Which peers the relay's channels lead to, each time that there is one more.
    Channels {
        /// The relay's server.
        server: SocketAddr,
        /// Number and peer.
        channels: Vec<(u16, SocketAddr)>,
    },
    /// A peer has sent this through the relay.
    Received {
        /// Who.
        peer: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Relays that are reached over TCP or TLS are wanted too.
    WantsStreams,
    /// A server that is reached by a stream has named another one, which is to take its place.
    WantsAlternate {
        /// The stand-in of the one.
        instead_of: SocketAddr,
        /// The other, over the same transport.
        alternate: SocketAddr,
        /// What its certificate is to name, if not the same.
        domain: Option<String>,
    },
}

/// What a relay is asked for with.
#[derive(Clone, Debug)]
struct Wish {
    server: SocketAddr,
    credentials: Credentials,
    is_reliable: bool,
    is_alternate: bool,
    families: Families,
}

/// An allocation at one server.
#[derive(Debug)]
struct Relay {
    wish: Wish,
    allocation: Allocation,
    channels: Vec<(u16, SocketAddr)>,
}

/// The servers of one connection.
#[derive(Debug)]
pub struct Gathering {
    /// Candidates name it as what they are related to.
    base: SocketAddr,
    transaction_tag: [u8; 4],
    /// That the peer has addresses of, as far as is known.
    families: Families,
    queries: Vec<(SocketAddr, Query)>,
    relays: Vec<Relay>,
    /// The one that is used.
    relay: Option<SocketAddr>,
    candidates: Vec<String>,
    streams_at: Option<Instant>,
    random: Random,
    outputs: VecDeque<Output>,
}

impl Gathering {
    /// For a socket that is reached at `base`, and a peer with addresses of `families`; transactions begin with
    /// `transaction_tag`.
    pub fn new(now: Instant, base: SocketAddr, families: Families, transaction_tag: [u8; 4], random: Random) -> Self {
        Self {
            base,
            transaction_tag,
            families,
            queries: Vec::new(),
            relays: Vec::new(),
            relay: None,
            candidates: Vec::new(),
            streams_at: Some(now + STREAMS_AFTER),
            random,
            outputs: VecDeque::new(),
        }
    }

    /// Asks a server too.
    pub fn add_server(&mut self, now: Instant, server: Server) {
        let Server { address, credentials, is_reliable, is_alternate } = server;
        if self.is_server(address) || self.queries.len() + self.relays.len() >= MAX_SERVERS {
            return;
        }
        match credentials {
            None => self.queries.push((address, Query::new(now, self.transaction_tag, &mut self.random))),
            Some(_) if self.relay.is_some() => {}
            Some(credentials) => {
                let families = self.families;
                let relay = self.ask(now, Wish { server: address, credentials, is_reliable, is_alternate, families });
                self.relays.push(relay);
            }
        }
        self.settle(now);
    }

    fn ask(&mut self, now: Instant, wish: Wish) -> Relay {
        let (tag, random) = (self.transaction_tag, self.random.fork());
        let allocation = Allocation::new(now, wish.credentials.clone(), wish.families, tag, wish.is_reliable, random);
        // What comes from it in its channels is the peers'.
        self.outputs.push_back(Output::Channels { server: wish.server, channels: Vec::new() });
        Relay { wish, allocation, channels: Vec::new() }
    }

    /// The connection to a server has ended.
    pub fn on_disconnected(&mut self, now: Instant, server: SocketAddr) {
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.wish.server == server) {
            relay.allocation.disconnect();
        }
        self.settle(now);
    }

    /// Whether a datagram from there is for us.
    pub fn is_server(&self, address: SocketAddr) -> bool {
        self.queries.iter().any(|(server, _)| *server == address)
            || self.relays.iter().any(|relay| relay.wish.server == address)
    }

    /// What has been found, as values of `a=candidate`.
    pub fn candidates(&self) -> &[String] {
        &self.candidates
    }

    /// Whether there is a relay.
    pub fn has_relay(&self) -> bool {
        self.relay.is_some()
    }

    /// Sends to a peer through the relay; without one it is lost.
    pub fn send(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) {
        if let Some(server) = self.relay
            && let Some(relay) = self.relays.iter_mut().find(|relay| relay.wish.server == server)
        {
            relay.allocation.send(now, peer, bytes);
            self.settle(now);
        }
    }

    /// The relay is in doubt: without a word of its server it is soon none any longer.
    pub fn prove(&mut self, now: Instant) {
        self.relays.iter_mut().for_each(|relay| relay.allocation.prove(now));
        self.settle(now);
    }

    /// Gives every relay back; what the servers say to that is not waited for.
    pub fn release(&mut self, now: Instant) {
        for relay in &mut self.relays {
            relay.allocation.release(now);
        }
        self.queries.clear();
        self.streams_at = None;
        self.settle(now);
        self.relays.clear();
        self.relay = None;
    }

    /// A datagram came from a server.
    pub fn handle_input(&mut self, now: Instant, server: SocketAddr, bytes: &[u8]) {
        for (_, query) in self.queries.iter_mut().filter(|(address, _)| *address == server) {
            query.handle_input(bytes);
        }
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.wish.server == server) {
            relay.allocation.handle_input(now, bytes);
        }
        self.settle(now);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.streams_at.take_if(|at| *at <= now).is_some() && self.relay.is_none() {
            self.outputs.push_back(Output::WantsStreams);
        }
        self.queries.iter_mut().for_each(|(_, query)| query.handle_timeout(now));
        self.relays.iter_mut().for_each(|relay| relay.allocation.handle_timeout(now));
        self.settle(now);
    }

    /// When [`Gathering::handle_timeout`] is wanted.
    pub fn next_timeout(&self) -> Option<Deadline> {
        let queries = self.queries.iter().map(|(_, query)| query.next_timeout());
        let relays = self.relays.iter().map(|relay| relay.allocation.next_timeout());
        let streams = self.streams_at.map(|at| Deadline::new(at, "TURN over TCP"));
        earliest(queries.chain(relays).chain([streams]))
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn add_candidate(&mut self, kind: CandidateKind, address: SocketAddr, related: SocketAddr) {
        // What the server sees is our own address where no NAT stands between (RFC 8445 §5.1.3: redundant).
        let line = server_line(kind, address, related);
        if address != related && !self.candidates.contains(&line) {
            self.outputs.push_back(Output::Candidate(line.clone()));
            self.candidates.push(line);
        }
    }

    /// Takes what queries and allocations have to say.
    fn settle(&mut self, now: Instant) {
        let base = self.base;
        let mut reflexive = Vec::new();
        self.queries.retain_mut(|(server, query)| {
            while let Some(output) = query.poll_output() {
                match output {
                    reflexive::Output::Transmit { bytes } => {
                        self.outputs.push_back(Output::Transmit { server: *server, bytes });
                    }
                    reflexive::Output::Mapped(address) => {
                        reflexive.push(address);
                        return false;
                    }
                    reflexive::Output::Failed(failure) => {
                        tracing::debug!("STUN server {server}: {failure}");
                        return false;
                    }
                }
            }
            true
        });
        reflexive.into_iter().for_each(|mapped| self.add_candidate(CandidateKind::ServerReflexive, mapped, base));
        for at in 0..self.relays.len() {
            while let Some(output) = self.relays[at].allocation.poll_output() {
                self.on_relay(now, at, output);
            }
        }
        self.relays.retain(|relay| !relay.allocation.is_over());
    }

    fn on_relay(&mut self, now: Instant, at: usize, output: turn::Output) {
        let server = self.relays[at].wish.server;
        match output {
            turn::Output::Transmit { bytes } => self.outputs.push_back(Output::Transmit { server, bytes }),
            turn::Output::Allocated { .. } if self.relay.is_some_and(|other| other != server) => {
                self.relays[at].allocation.release(now);
            }
            turn::Output::Allocated { relayed, further, mapped } => {
                self.relay = Some(server);
                let base = self.base;
                if let Some(mapped) = mapped.filter(|mapped| !mapped.ip().is_loopback()) {
                    self.add_candidate(CandidateKind::ServerReflexive, mapped, base);
                }
                let addresses = [Some(relayed), further];
                for relayed in addresses.into_iter().flatten() {
                    self.add_candidate(CandidateKind::Relayed, relayed, mapped.unwrap_or(base));
                }
                let has = |is_of: fn(&SocketAddr) -> bool| addresses.iter().flatten().any(is_of);
                let families = RelayFamilies { v4: has(SocketAddr::is_ipv4), v6: has(SocketAddr::is_ipv6) };
                self.outputs.push_back(Output::Relay(families));
            }
            turn::Output::ChannelBound { peer, channel } => {
                let relay = &mut self.relays[at];
                relay.channels.retain(|(_, other)| *other != peer);
                relay.channels.push((channel, peer));
                let channels = relay.channels.clone();
                self.outputs.push_back(Output::Channels { server, channels });
            }
            turn::Output::PeerRefused { peer } => tracing::debug!("TURN server {server}: it relays nothing to {peer}"),
            turn::Output::Received { peer, bytes } => self.outputs.push_back(Output::Received { peer, bytes }),
            turn::Output::Failed(failure) => self.on_failed(now, at, failure),
            turn::Output::Released => {}
        }
    }

    fn on_failed(&mut self, now: Instant, at: usize, failure: Failure) {
        let wish = self.relays[at].wish.clone();
        let Wish { server, is_reliable, is_alternate, families, .. } = wish;
        match failure {
            Failure::Alternate { server: Some(alternate), domain } if is_reliable && !is_alternate => {
                tracing::debug!("TURN server {server}: it sends us to {alternate}");
                self.outputs.push_back(Output::WantsAlternate { instead_of: server, alternate, domain });
            }
            // RFC 8489 §10: the other one is of the same version of IP.
            Failure::Alternate { server: Some(alternate), .. }
                if !is_alternate && alternate.is_ipv4() == server.is_ipv4() && !self.is_server(alternate) =>
            {
                tracing::debug!("TURN server {server}: it sends us to {alternate}");
                self.relays[at] = self.ask(now, Wish { server: alternate, is_alternate: true, ..wish });
            }
            // It may relay IPv6 alone, which the peer can perhaps be reached by.
            Failure::Family if families == Families::Both => {
                self.relays[at] = self.ask(now, Wish { families: Families::V6, ..wish });
            }
            failure => {
                // One of several is enough.
                if self.relay.is_some_and(|relay| relay != server) {
                    tracing::debug!("TURN server {server}: {failure}");
                } else {
                    tracing::warn!("TURN server {server}: {failure}");
                }
                if self.relay.take_if(|relay| *relay == server).is_some() {
                    self.candidates.clear();
                    self.outputs.push_back(Output::Relay(RelayFamilies::default()));
                }
            }
        }
    }
}
