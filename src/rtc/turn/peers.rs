//! Whom the relay lets through: one channel a peer (RFC 8656 §12), which is its permission too.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::time::{Deadline, Instant, earliest};
use crate::wire::stun::{CHANNELS, TransactionId};

use super::session::Exchange;

/// Peers of one allocation: as many as ICE has pairs.
pub const MAX_PEERS: usize = 32;
/// Datagrams that wait until a peer's channel is bound: a few checks and the first flight of DTLS.
pub const MAX_WAITING: usize = 8;
/// How often a channel is bound again: a minute before the permission, which has 5 minutes (RFC 8656 §9), would end.
pub(super) const REBIND_INTERVAL: Duration = Duration::from_secs(240);
/// After so long without being bound again the server lets a peer's datagrams through no more.
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// For so long the server ties a channel to its peer (RFC 8656 §12).
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// When something is to be asked.
#[derive(Debug)]
pub(super) enum Upkeep {
    /// Then.
    Due(Instant),
    /// It is asked already.
    Asked(Exchange),
    /// Never.
    Off,
}

impl Upkeep {
    pub(super) fn deadline(&self, reason: &'static str) -> Option<Deadline> {
        match self {
            Self::Due(at) => Some(Deadline::new(*at, reason)),
            Self::Asked(exchange) => Some(exchange.deadline()),
            Self::Off => None,
        }
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) channel: u16,
    /// The server has bound the channel, and our datagrams pass.
    pub(super) is_bound: bool,
    /// When it was bound last.
    bound_at: Option<Instant>,
    /// Off: refused, or forgotten.
    pub(super) upkeep: Upkeep,
    pub(super) waiting: VecDeque<Vec<u8>>,
}

impl Peer {
    /// The server has bound it; whether that is news.
    pub(super) fn on_bound(&mut self, now: Instant) -> bool {
        self.bound_at = Some(now);
        self.upkeep = Upkeep::Due(now + REBIND_INTERVAL);
        !std::mem::replace(&mut self.is_bound, true)
    }

    /// The server has said no, and nobody has wanted it again.
    pub(super) const fn is_refused(&self) -> bool {
        matches!(self.upkeep, Upkeep::Off) && !self.is_bound
    }

    /// The server lets nothing through to it.
    pub(super) fn on_refused(&mut self) {
        self.is_bound = false;
        self.upkeep = Upkeep::Off;
        self.waiting.clear();
    }

    /// It may have a channel at the server still, which no other peer can get.
    fn holds_channel(&self, now: Instant) -> bool {
        self.bound_at.is_some_and(|at| now.saturating_since(at) < CHANNEL_LIFETIME)
    }

    /// Wanted again after it was refused or forgotten.
    fn resume(&mut self, now: Instant) {
        if matches!(self.upkeep, Upkeep::Off) {
            self.upkeep = Upkeep::Due(now);
            self.is_bound &= self.bound_at.is_some_and(|at| now.saturating_since(at) < PERMISSION_LIFETIME);
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    /// Numbers are never used twice, so that a late datagram is never taken for another peer's.
    next_channel: u16,
}

impl Peers {
    pub(super) const fn new() -> Self {
        Self { peers: Vec::new(), next_channel: *CHANNELS.start() }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.iter_mut()
    }

    pub(super) fn find(&mut self, address: SocketAddr) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.address == address)
    }

    pub(super) fn of_channel(&self, channel: u16) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.channel == channel)
    }

    pub(super) fn asking(&mut self, id: TransactionId) -> Option<&mut Peer> {
        let asks = |peer: &&mut Peer| matches!(&peer.upkeep, Upkeep::Asked(exchange) if exchange.id == id);
        self.peers.iter_mut().find(asks)
    }

    /// The peer, to be bound if it is not; `None` if there are too many.
    pub(super) fn want(&mut self, now: Instant, address: SocketAddr) -> Option<&mut Peer> {
        if let Some(index) = self.peers.iter().position(|peer| peer.address == address) {
            let peer = &mut self.peers[index];
            peer.resume(now);
            return Some(peer);
        }
        if self.peers.len() == MAX_PEERS {
            let unused = |peer: &Peer| matches!(peer.upkeep, Upkeep::Off) && !peer.holds_channel(now);
            self.peers.remove(self.peers.iter().position(unused)?);
        }
        let channel = self.next_channel;
        if !CHANNELS.contains(&channel) {
            return None;
        }
        self.next_channel += 1;
        let upkeep = Upkeep::Due(now);
        let waiting = VecDeque::new();
        self.peers.push(Peer { address, channel, is_bound: false, bound_at: None, upkeep, waiting });
        self.peers.last_mut()
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        earliest(self.peers.iter().map(|peer| peer.upkeep.deadline("TURN channel bound again")))
    }

    pub(super) fn clear(&mut self) {
        self.peers.clear();
    }
}
