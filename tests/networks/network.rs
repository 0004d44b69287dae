//! The internet between hosts that may stand behind NATs, in virtual time. A datagram passes the sender's NAT when it is sent
//! and the receiver's when it arrives.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::time::Instant;

use crate::loss::{Channel, Weather};
use crate::nat::Nat;

/// A TCP connection to a TURN server, behind a stand-in on the loopback address that speaks UDP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    /// The stand-in, and who uses it.
    pub(crate) stand_in: SocketAddr,
    pub(crate) user: SocketAddr,
    pub(crate) server: SocketAddr,
    /// The user's end as the server sees it.
    pub(crate) seen_at: SocketAddr,
    /// Nothing passes any more, and nobody is told.
    pub(crate) is_dead: bool,
}

/// On its way, or just arrived.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Datagram {
    at: Instant,
    number: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    pub(crate) nats: Vec<Nat>,
    pub(crate) stream: Option<Stream>,
    /// Nothing gets anywhere.
    pub(crate) is_cut: bool,
    channels: BTreeMap<(IpAddr, IpAddr), Channel>,
    flying: BinaryHeap<Reverse<Datagram>>,
    sent: u64,
    random: Random,
}

impl Network {
    pub(crate) fn new(weather: Weather, nats: Vec<Nat>, seed: u64) -> Self {
        let (channels, flying) = (BTreeMap::new(), BinaryHeap::new());
        Self { weather, nats, stream: None, is_cut: false, channels, flying, sent: 0, random: Random::for_test(seed) }
    }

    pub(crate) fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.is_cut {
            return;
        }
        let Weather { delay_ms, jitter_ms, loss } = self.weather;
        if let Some(stream) = self.stream {
            let way = match (to == stream.stand_in, to == stream.seen_at) {
                (true, _) => Some((stream.seen_at, stream.server)),
                (_, true) => Some((stream.stand_in, stream.user)),
                (false, false) => None,
            };
            if let Some((from, to)) = way {
                if !stream.is_dead {
                    self.fly(now + ms(delay_ms), from, to, bytes);
                }
                return;
            }
        }
        if to.ip().is_loopback() {
            // A stand-in whose connection is closed.
            return;
        }
        let nat_of = |ip: IpAddr| move |nat: &Nat| nat.holds(ip);
        let inside = self.nats.iter().position(nat_of(from.ip()));
        if inside.is_some() && inside == self.nats.iter().position(nat_of(to.ip())) {
            return self.fly(now, from, to, bytes);
        }
        let seen_at = match inside {
            None => Some(from),
            Some(nat) => self.nats[nat].outbound(now, from, to),
        };
        let Some(from) = seen_at else { return };
        let returns = inside.is_some_and(|nat| self.nats[nat].is_at(to.ip()));
        if returns && !inside.is_some_and(|nat| self.nats[nat].hairpins()) {
            return;
        }
        let channel = self.channels.entry((from.ip(), to.ip())).or_default();
        let is_lost = channel.loses(now, loss, &mut self.random);
        let jitter = Duration::from_micros(u64::from(self.random.below(jitter_ms * 1000 + 1)));
        if !is_lost {
            self.fly(now + ms(delay_ms) + jitter, from, to, bytes);
        }
    }

    fn fly(&mut self, at: Instant, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.sent += 1;
        self.flying.push(Reverse(Datagram { at, number: self.sent, from, to, bytes }));
    }

    /// When something arrives next.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.flying.peek().map(|Reverse(datagram)| datagram.at)
    }

    /// What has arrived by now, at the address that its receiver has.
    pub(crate) fn arrive(&mut self, now: Instant) -> Option<Datagram> {
        while self.next_at().is_some_and(|at| at <= now) {
            let Reverse(datagram) = self.flying.pop()?;
            let is_private = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_private());
            let Some(nat) = self.nats.iter_mut().find(|nat| nat.is_at(datagram.to.ip())) else {
                // From outside nothing leads to a private address.
                if is_private(datagram.to.ip()) && !is_private(datagram.from.ip()) && !datagram.from.ip().is_loopback()
                {
                    continue;
                }
                return Some(datagram);
            };
            if let Some(to) = nat.inbound(now, datagram.to, datagram.from) {
                return Some(Datagram { to, ..datagram });
            }
        }
        None
    }
}

pub(crate) fn ms(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}
