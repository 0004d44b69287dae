//! Two peer connections and a seeded network between them, in virtual time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::rtc::dtls::Identity;
use galene_sip::rtc::peer::{Event, Input, Output, Peer, PeerConfig};
use galene_sip::time::Instant;

/// One certificate each, as two programs would have.
pub(crate) static IDENTITIES: LazyLock<[Arc<Identity>; 2]> = LazyLock::new(|| {
    let zero = std::time::Instant::now();
    [0, 1].map(|_| Identity::generate(zero).unwrap())
});

/// The addresses that the two announce.
pub(crate) const ADDRESSES: [&str; 2] = ["192.0.2.1:5000", "192.0.2.2:6000"];

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn peer(side: usize, seed: u64, ice_lite: bool) -> Peer {
    let identity = Arc::clone(&IDENTITIES[side]);
    let config = PeerConfig { identity, candidates: vec![address(ADDRESSES[side])], ice_lite, gather_after: None };
    Peer::new(config, Random::for_test(seed * 2 + side as u64))
}

/// What the network does to a datagram.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) loss_percent: u32,
    /// One way, in ms.
    pub(crate) delay_ms: u32,
    /// Up to so many ms more for each datagram, hence reordering.
    pub(crate) jitter_ms: u32,
}

pub(crate) const CLEAR: Weather = Weather { loss_percent: 0, delay_ms: 1, jitter_ms: 0 };

struct Datagram {
    at: Instant,
    to_side: usize,
    from: SocketAddr,
    bytes: Vec<u8>,
}

pub(crate) struct Link {
    pub(crate) peers: [Peer; 2],
    /// Where each really sends from; a change is a NAT that has forgotten its mapping.
    pub(crate) sources: [SocketAddr; 2],
    pub(crate) now: Instant,
    pub(crate) weather: Weather,
    pub(crate) events: [Vec<Event>; 2],
    /// Datagrams that each side has sent.
    pub(crate) sent: [u32; 2],
    /// As the net thread does, keep from signalling what its filter refuses.
    flying: VecDeque<Datagram>,
    random: Random,
}

impl Link {
    pub(crate) fn new(peers: [Peer; 2], weather: Weather, seed: u64) -> Self {
        Self {
            peers,
            sources: ADDRESSES.map(address),
            now: Instant::from_us(1_000_000),
            weather,
            events: [Vec::new(), Vec::new()],
            sent: [0; 2],
            flying: VecDeque::new(),
            random: Random::for_test(seed),
        }
    }

    /// `peers[0]` offers, `peers[1]` answers.
    pub(crate) fn negotiate(&mut self) {
        let offer = self.peers[0].offer(self.now);
        let (answer, _) = self.peers[1].handle_offer(self.now, &offer).unwrap();
        self.peers[0].handle_answer(self.now, &answer).unwrap();
    }

    /// Puts something foreign onto the wire to a side.
    pub(crate) fn inject(&mut self, to_side: usize, from: SocketAddr, bytes: &[u8]) {
        self.flying.push_back(Datagram { at: self.now, to_side, from, bytes: bytes.to_vec() });
    }

    /// Lets `duration` pass, from event to event.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.drain();
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
            self.drain();
        }
        self.now = end;
    }

    /// Runs until both have keys; tells after how long, or `None` after 40 s.
    pub(crate) fn connect(&mut self) -> Option<Duration> {
        let start = self.now;
        while self.now.saturating_since(start) < Duration::from_secs(40) {
            self.run(Duration::from_millis(1));
            if [0, 1].iter().all(|side| self.is_connected(*side)) {
                return Some(self.now.saturating_since(start));
            }
        }
        None
    }

    pub(crate) fn is_connected(&self, side: usize) -> bool {
        self.events[side].iter().any(|event| matches!(event, Event::Connected { .. }))
    }

    pub(crate) fn selected(&self, side: usize) -> Option<SocketAddr> {
        let mut selections = self.events[side].iter().filter_map(|event| match event {
            Event::Selected { remote } => Some(remote.peer()),
            _ => None,
        });
        selections.next_back()
    }

    fn next_at(&self) -> Option<Instant> {
        let datagrams = self.flying.iter().map(|datagram| datagram.at);
        let timers = self.peers.iter().filter_map(Peer::next_timeout).map(|deadline| deadline.at);
        datagrams.chain(timers).min()
    }

    fn step(&mut self) {
        let due = self.flying.iter().position(|datagram| datagram.at <= self.now);
        if let Some(Datagram { to_side, from, bytes, .. }) = due.and_then(|index| self.flying.remove(index)) {
            let peer = &mut self.peers[to_side];
            match bytes.first() {
                Some(0..=3) if peer.stun_filter().accepts(&bytes) => {
                    peer.handle_input(self.now, Input::Stun { from: from.into(), bytes: &bytes });
                }
                Some(20..=63) => peer.handle_input(self.now, Input::Dtls { from: from.into(), bytes: &bytes }),
                _ => {}
            }
            return;
        }
        for peer in &mut self.peers {
            if peer.next_timeout().is_some_and(|deadline| deadline.at <= self.now) {
                peer.handle_timeout(self.now);
            }
        }
    }

    fn drain(&mut self) {
        for side in [0, 1] {
            while let Some(output) = self.peers[side].poll_output() {
                match output {
                    Output::Event(event) => self.events[side].push(event),
                    Output::Transmit { to, bytes } => self.transmit(side, to, bytes),
                }
            }
        }
    }

    fn transmit(&mut self, side: usize, to: SocketAddr, bytes: Vec<u8>) {
        self.sent[side] += 1;
        let Weather { loss_percent, delay_ms, jitter_ms } = self.weather;
        let is_lost = self.random.below(100) < loss_percent;
        let jitter = self.random.below(jitter_ms * 1000 + 1);
        if is_lost || to != self.sources[1 - side] {
            return;
        }
        let at = self.now + Duration::from_micros(u64::from(delay_ms * 1000 + jitter));
        self.flying.push_back(Datagram { at, to_side: 1 - side, from: self.sources[side], bytes });
    }
}
