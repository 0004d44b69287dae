//! A relay at a TURN server (RFC 8656): one allocation for one socket of ours.
//!
//! Owns: making the allocation, keeping it, a channel for each peer, what goes to peers and comes from them by way of it.
//! Does not own: sockets, which server it is, which peers are worth trying (`ice`).
//! Flow: [`Allocation::new`] asks, is challenged (401), asks again with credentials → [`Output::Allocated`] →
//! (or it is told of a former allocation of the same socket (437), ends that and asks again)
//! [`Allocation::bind`] for each peer → [`Output::ChannelBound`], or [`Output::PeerRefused`] → [`Allocation::release`].
//! Every peer gets a channel: binding it installs the permission too, and its datagrams cost four bytes more each.
//! Who makes what goes to the server is in `session`; the peers are in `peers`.

mod failure;
mod peers;
mod session;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::random::Random;
use crate::rtc::candidate::canonical;
use crate::time::{Deadline, Instant, doubled, earliest};
use crate::wire::stun::{ChannelData, Class, DATA, Message};

pub use failure::Failure;
pub use peers::{MAX_PEERS, MAX_WAITING};
use peers::{Peer, Peers, Upkeep};
use session::{Exchange, LIFETIME_S, Overdue, Request, Session, Verdict};

/// Lifetimes that are believed: a shorter one would have us refresh all the time, a longer one is checked in between.
const BELIEVED_S: RangeInclusive<u32> = 10..=3600;
/// An allocation is refreshed so long before it ends (RFC 8656 §8 suggests about a minute).
const REFRESH_AHEAD: Duration = Duration::from_secs(60);
/// How often it is asked anew after a former allocation of our socket was ended: coturn forgets one within a second, unless
/// it is told again, and the last time is after 1.5 s.
const MAX_EVICTIONS: u32 = 4;
/// From that end to the first time; it doubles.
const EVICTION_PAUSE: Duration = Duration::from_millis(100);
/// How long a server may take to say that a relay in doubt is there: four transmissions, the last at 1.75 s.
const PROOF: Duration = Duration::from_secs(2);
/// Pause before something that was not answered, or refused for the moment, is asked anew.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Who we are to the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Which versions of IP a relay is to have addresses of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4, and IPv6 too if the server has it (RFC 8656 §7.1).
    Both,
}

/// What the allocation wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the server.
    Transmit {
        /// What.
        bytes: Vec<u8>,
    },
    /// There is a relay.
    Allocated {
        /// Its address, which peers send to.
        relayed: SocketAddr,
        /// A second one, of the other version of IP.
        further: Option<SocketAddr>,
        /// Our own address as the server sees it.
        mapped: Option<SocketAddr>,
    },
    /// ChannelData of this channel goes to this peer. Said once for each peer, and again after it was refused or
    /// [forgotten](Allocation::forget).
    ChannelBound {
        /// Who.
        peer: SocketAddr,
        /// Which, until the end of the allocation.
        channel: u16,
    },
    /// The server lets nothing through to this peer; what waited for it is gone.
    PeerRefused {
        /// Who.
        peer: SocketAddr,
    },
    /// A peer has sent something.
    Received {
        /// Who.
        peer: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// There is no relay, or none any longer. It is the last word.
    Failed(Failure),
    /// The release was heard, or nobody hears it. It is the last word.
    Released,
}

/// Datagrams that led to nothing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Neither STUN nor ChannelData, or broken.
    pub malformed: u32,
    /// A success that is not signed by the server.
    pub unauthentic: u32,
    /// A response to nothing, a channel of nobody, or anything when it is over.
    pub unexpected: u32,
    /// What was to go to a peer that is refused, or whose channel is not bound while enough waits, or one too many.
    pub unsendable: u32,
}

#[derive(Debug)]
enum State {
    /// The first request, with or without credentials.
    Allocating(Exchange),
    /// The server has an allocation for our socket, whose end was lost or is not done: it is to end.
    Evicting(Exchange),
    /// The server is given the time to do so.
    Evicted { again_at: Instant },
    /// There is a relay.
    Allocated { expires_at: Instant, refresh: Upkeep },
    /// It is to end.
    Releasing(Exchange),
    /// It has failed or ended.
    Over,
}

/// One allocation.
#[derive(Debug)]
pub struct Allocation {
    families: Families,
    session: Session,
    state: State,
    /// How often it was asked anew, or will be, since the server had one.
    evictions: u32,
    peers: Peers,
    outputs: VecDeque<Output>,
}

impl Allocation {
    /// Asks for a relay whose addresses are of `families`. All transactions begin with `transaction_tag`, by which the net thread
    /// knows the answers. Over a `reliable` transport nothing is sent again.
    pub fn new(
        now: Instant,
        credentials: Credentials,
        families: Families,
        transaction_tag: [u8; 4],
        reliable: bool,
        random: Random,
    ) -> Self {
        let mut session = Session::new(credentials, transaction_tag, reliable, random);
        let exchange = session.ask(now, Request::Allocate { families });
        let outputs = VecDeque::from([transmit(&exchange)]);
        Self { families, session, state: State::Allocating(exchange), evictions: 0, peers: Peers::new(), outputs }
    }

    /// Datagrams that led to nothing.
    pub fn drops(&self) -> Drops {
        self.session.drops
    }

    /// It has failed or was released: nothing will come of it any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Has the server let this peer through, as soon as there is a relay; one that was refused is tried again.
    /// [`MAX_PEERS`] at most.
    pub fn bind(&mut self, now: Instant, peer: SocketAddr) {
        let peer = canonical(peer);
        if matches!(self.state, State::Releasing(_) | State::Over) {
            return;
        }
        if !self.serves(peer) {
            self.outputs.push_back(Output::PeerRefused { peer });
            return;
        }
        match self.peers.want(now, peer) {
            None => self.session.drops.unsendable += 1,
            Some(_) => self.ask_due(now),
        }
    }

    /// Nothing will be sent to this peer for now: its channel is not bound again, and ends by itself.
    pub fn forget(&mut self, peer: SocketAddr) {
        if let Some(peer) = self.peers.find(canonical(peer)) {
            peer.upkeep = Upkeep::Off;
            peer.waiting.clear();
        }
    }

    /// Sends a datagram to a peer, once its channel is bound; [binds](Self::bind) it if nobody has.
    pub fn send(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8]) {
        let peer = canonical(peer);
        let is_wanted = |peer: &mut Peer| !matches!(peer.upkeep, Upkeep::Off) || peer.is_refused();
        if self.serves(peer) && !self.peers.find(peer).is_some_and(is_wanted) {
            self.bind(now, peer);
        }
        match self.peers.find(peer) {
            Some(peer) if peer.is_bound => match channel_data(peer.channel, bytes) {
                Some(bytes) => self.outputs.push_back(Output::Transmit { bytes }),
                None => self.session.drops.unsendable += 1,
            },
            Some(peer) if !peer.is_refused() && peer.waiting.len() < MAX_WAITING => {
                peer.waiting.push_back(bytes.to_vec());
            }
            Some(_) | None => self.session.drops.unsendable += 1,
        }
    }

    /// The connection by which the server was reached has ended: so has the relay, whoever else still thinks of it.
    pub fn disconnect(&mut self) {
        match self.state {
            State::Allocating(_) | State::Evicting(_) | State::Evicted { .. } | State::Allocated { .. } => {
                self.end(Output::Failed(Failure::Disconnected));
            }
            State::Releasing(_) => self.end(Output::Released),
            State::Over => {}
        }
    }

    /// Nothing comes through it: it is refreshed now, and ends unless the server answers within 2 s. It may have been restarted,
    /// or know us by an address that we do not have any more.
    pub fn prove(&mut self, now: Instant) {
        if let State::Allocated { expires_at, refresh } = &mut self.state {
            *expires_at = (now + PROOF).min(*expires_at);
            *refresh = Upkeep::Due(now);
            self.ask_due(now);
        }
    }

    /// Gives the relay back. What the server says to it can be waited for until [`Output::Released`], but need not be.
    pub fn release(&mut self, now: Instant) {
        match self.state {
            State::Releasing(_) | State::Over => {}
            // Unless it has asked who we are, the server has given us nothing.
            State::Allocating(_) if !self.session.was_challenged() => self.end(Output::Released),
            State::Evicted { .. } => self.end(Output::Released),
            State::Allocating(_) | State::Evicting(_) | State::Allocated { .. } => {
                let exchange = self.session.ask(now, Request::Refresh { lifetime_s: 0 });
                self.outputs.push_back(transmit(&exchange));
                self.state = State::Releasing(exchange);
                self.peers.clear();
            }
        }
    }

    /// A datagram came from the server.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        if let Some(data) = ChannelData::parse(bytes) {
            match self.peers.of_channel(data.channel) {
                Some(peer) if matches!(self.state, State::Allocated { .. }) => {
                    let output = Output::Received { peer: peer.address, bytes: data.payload.to_vec() };
                    self.outputs.push_back(output);
                }
                Some(_) | None => self.session.drops.unexpected += 1,
            }
            return;
        }
        let Ok(message) = Message::parse(bytes) else {
            self.session.drops.malformed += 1;
            return;
        };
        match message.class {
            Class::Success | Class::Error => self.handle_response(now, &message),
            Class::Indication => self.handle_indication(&message),
            Class::Request => self.session.drops.unexpected += 1,
        }
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Allocating(exchange) | State::Evicting(exchange) => match exchange.handle_timeout(now) {
                Overdue::No => {}
                Overdue::Retransmit => self.outputs.push_back(transmit(exchange)),
                Overdue::GiveUp => self.end(Output::Failed(Failure::NoAnswer)),
            },
            State::Evicted { again_at } if now >= *again_at => {
                let exchange = self.session.ask(now, Request::Allocate { families: self.families });
                self.outputs.push_back(transmit(&exchange));
                self.state = State::Allocating(exchange);
            }
            State::Evicted { .. } => {}
            State::Allocated { expires_at, .. } if now >= *expires_at => self.end(Output::Failed(Failure::Expired)),
            State::Allocated { refresh, .. } => {
                repeat(now, refresh, &mut self.outputs);
                for peer in self.peers.iter_mut() {
                    repeat(now, &mut peer.upkeep, &mut self.outputs);
                }
                self.ask_due(now);
            }
            State::Releasing(exchange) => match exchange.handle_timeout(now) {
                Overdue::No => {}
                Overdue::Retransmit => self.outputs.push_back(transmit(exchange)),
                Overdue::GiveUp => self.end(Output::Released),
            },
            State::Over => {}
        }
    }

    /// When [`Allocation::handle_timeout`] is wanted.
    pub fn next_timeout(&self) -> Option<Deadline> {
        match &self.state {
            State::Allocating(exchange) | State::Evicting(exchange) | State::Releasing(exchange) => {
                Some(exchange.deadline())
            }
            State::Evicted { again_at } => Some(Deadline::new(*again_at, "TURN allocation asked for again")),
            State::Allocated { expires_at, refresh } => earliest([
                Some(Deadline::new(*expires_at, "TURN allocation expires")),
                refresh.deadline("TURN allocation refreshed"),
                self.peers.next_timeout(),
            ]),
            State::Over => None,
        }
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether the relay can reach an address of this family: the server would only say no (443, RFC 8656 §12.2).
    fn serves(&self, peer: SocketAddr) -> bool {
        match self.families {
            Families::V4 => peer.is_ipv4(),
            Families::V6 => peer.is_ipv6(),
            Families::Both => true,
        }
    }

    fn handle_indication(&mut self, message: &Message<'_>) {
        if message.method != DATA || !matches!(self.state, State::Allocated { .. }) {
            self.session.drops.unexpected += 1;
            return;
        }
        let (Some(peer), Some(data)) = (message.peer_address, message.data) else {
            self.session.drops.malformed += 1;
            return;
        };
        self.outputs.push_back(Output::Received { peer: canonical(peer), bytes: data.to_vec() });
    }

    fn handle_response(&mut self, now: Instant, message: &Message<'_>) {
        let id = message.transaction_id;
        match &mut self.state {
            State::Allocating(exchange) if exchange.id == id => match self.session.judge(now, exchange, message) {
                Verdict::Dropped => {}
                Verdict::Again => self.outputs.push_back(transmit(exchange)),
                Verdict::Done => self.on_allocated(now, message),
                Verdict::Refused(437) if (1..MAX_EVICTIONS).contains(&self.evictions) => self.pause(now),
                Verdict::Refused(437) if self.evictions == 0 => {
                    let exchange = self.session.ask(now, Request::Refresh { lifetime_s: 0 });
                    self.outputs.push_back(transmit(&exchange));
                    self.state = State::Evicting(exchange);
                }
                Verdict::Refused(code) => self.end(Output::Failed(Failure::of(code, message))),
            },
            State::Evicting(exchange) if exchange.id == id => match self.session.judge(now, exchange, message) {
                Verdict::Dropped => {}
                Verdict::Again => self.outputs.push_back(transmit(exchange)),
                // 437: it is ending already.
                Verdict::Done | Verdict::Refused(437) => self.pause(now),
                Verdict::Refused(code) => self.end(Output::Failed(Failure::of(code, message))),
            },
            State::Allocated { refresh: Upkeep::Asked(exchange), .. } if exchange.id == id => {
                match self.session.judge(now, exchange, message) {
                    Verdict::Dropped => {}
                    Verdict::Again => self.outputs.push_back(transmit(exchange)),
                    Verdict::Done => self.keep(now, message.lifetime_s),
                    Verdict::Refused(code) => self.on_refresh_refused(now, code, message),
                }
            }
            State::Releasing(exchange) if exchange.id == id => match self.session.judge(now, exchange, message) {
                Verdict::Dropped => {}
                Verdict::Again => self.outputs.push_back(transmit(exchange)),
                Verdict::Done | Verdict::Refused(_) => self.end(Output::Released),
            },
            State::Allocated { .. } => self.handle_channel_response(now, message),
            State::Allocating(_) | State::Evicting(_) | State::Evicted { .. } | State::Releasing(_) | State::Over => {
                self.session.drops.unexpected += 1
            }
        }
    }

    /// The server has an allocation that ends.
    fn pause(&mut self, now: Instant) {
        let again_at = now + doubled(EVICTION_PAUSE, self.evictions, REFRESH_AHEAD);
        self.evictions += 1;
        self.state = State::Evicted { again_at };
    }

    fn handle_channel_response(&mut self, now: Instant, message: &Message<'_>) {
        let Some(peer) = self.peers.asking(message.transaction_id) else {
            self.session.drops.unexpected += 1;
            return;
        };
        let Upkeep::Asked(exchange) = &mut peer.upkeep else { return };
        match self.session.judge(now, exchange, message) {
            Verdict::Dropped => {}
            Verdict::Again => self.outputs.push_back(transmit(exchange)),
            Verdict::Done => {
                if peer.on_bound(now) {
                    self.outputs.push_back(Output::ChannelBound { peer: peer.address, channel: peer.channel });
                }
                for bytes in std::mem::take(&mut peer.waiting) {
                    match channel_data(peer.channel, &bytes) {
                        Some(bytes) => self.outputs.push_back(Output::Transmit { bytes }),
                        None => self.session.drops.unsendable += 1,
                    }
                }
            }
            Verdict::Refused(437) => self.end(Output::Failed(Failure::Lost)),
            // Overloaded, not unwilling: the channel is good for a while yet.
            Verdict::Refused(500..) if peer.is_bound => peer.upkeep = Upkeep::Due(now + RETRY_PAUSE),
            Verdict::Refused(_) => {
                peer.on_refused();
                self.outputs.push_back(Output::PeerRefused { peer: peer.address });
            }
        }
    }

    fn on_allocated(&mut self, now: Instant, message: &Message<'_>) {
        let is_usable = |address: &SocketAddr| !address.ip().is_unspecified() && address.port() != 0;
        let Some(relayed) = message.relayed_address.map(canonical).filter(is_usable) else {
            return self.end(Output::Failed(Failure::Unintelligible));
        };
        let is_other = |further: &SocketAddr| is_usable(further) && further.is_ipv4() != relayed.is_ipv4();
        let further = message.further_relayed_address.map(canonical).filter(is_other);
        self.families = match (further, relayed) {
            (Some(_), _) => Families::Both,
            (None, SocketAddr::V4(_)) => Families::V4,
            (None, SocketAddr::V6(_)) => Families::V6,
        };
        let mapped = message.mapped_address.map(canonical);
        self.outputs.push_back(Output::Allocated { relayed, further, mapped });
        self.keep(now, message.lifetime_s);
        self.ask_due(now);
    }

    /// The server will keep the allocation for so long.
    fn keep(&mut self, now: Instant, lifetime_s: Option<u32>) {
        let lifetime_s = lifetime_s.unwrap_or(LIFETIME_S).clamp(*BELIEVED_S.start(), *BELIEVED_S.end());
        let lifetime = Duration::from_secs(lifetime_s.into());
        let pause = lifetime.saturating_sub(REFRESH_AHEAD).max(lifetime / 2);
        self.state = State::Allocated { expires_at: now + lifetime, refresh: Upkeep::Due(now + pause) };
    }

    fn on_refresh_refused(&mut self, now: Instant, code: u16, message: &Message<'_>) {
        match (&mut self.state, code) {
            (State::Allocated { refresh, .. }, 500..) => *refresh = Upkeep::Due(now + RETRY_PAUSE),
            (_, 437) => self.end(Output::Failed(Failure::Lost)),
            (_, code) => self.end(Output::Failed(Failure::of(code, message))),
        }
    }

    /// Asks whatever is due, if there is a relay.
    fn ask_due(&mut self, now: Instant) {
        let State::Allocated { refresh, .. } = &mut self.state else { return };
        let mut ask = |upkeep: &mut Upkeep, request| {
            if matches!(upkeep, Upkeep::Due(at) if now >= *at) {
                let exchange = self.session.ask(now, request);
                self.outputs.push_back(transmit(&exchange));
                *upkeep = Upkeep::Asked(exchange);
            }
        };
        ask(refresh, Request::Refresh { lifetime_s: LIFETIME_S });
        for peer in self.peers.iter_mut() {
            let request = Request::ChannelBind { channel: peer.channel, peer: peer.address };
            ask(&mut peer.upkeep, request);
        }
    }

    fn end(&mut self, output: Output) {
        self.state = State::Over;
        self.peers.clear();
        self.outputs.push_back(output);
    }
}

/// Sends what was not answered again. In the end it is asked anew: the way to the server may come back before the
/// allocation expires, which alone decides.
fn repeat(now: Instant, upkeep: &mut Upkeep, outputs: &mut VecDeque<Output>) {
    let Upkeep::Asked(exchange) = upkeep else { return };
    match exchange.handle_timeout(now) {
        Overdue::No => {}
        Overdue::Retransmit => outputs.push_back(transmit(exchange)),
        Overdue::GiveUp => *upkeep = Upkeep::Due(now + RETRY_PAUSE),
    }
}

fn transmit(exchange: &Exchange) -> Output {
    Output::Transmit { bytes: exchange.bytes.clone() }
}

/// The datagram to the server; `None` if it would be longer than any that UDP can carry.
fn channel_data(channel: u16, payload: &[u8]) -> Option<Vec<u8>> {
    let header = ChannelData::header(channel, u16::try_from(payload.len()).ok()?);
    Some([&header[..], payload].concat())
}
