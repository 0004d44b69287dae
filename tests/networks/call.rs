//! One voice between the gateway and Galene, through any NATs, with servers or without.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::rtc::candidate::CandidateKind;
use galene_sip::rtc::dtls::Identity;
use galene_sip::rtc::gathering::Server;
use galene_sip::time::{Instant, doubled};

use crate::galene::{self, Galene};
use crate::gateway::Gateway;
use crate::loss::Weather;
use crate::nat::{Behaviour, Nat};
use crate::network::{Network, Stream, ms};
use crate::turn_server::TurnServer;

pub(crate) const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 3478);
/// Where the router of the gateway is, and where it is after it has a new address.
pub(crate) const GATEWAYS_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const NEW_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const GALENES_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GATHER_AFTER: Duration = Duration::from_millis(200);
/// As the gateway has it for the room's voices.
const FIRST_LOOK: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(30);
const PACKET: Duration = Duration::from_millis(20);
const START: Instant = Instant::from_us(1_000_000);

/// The servers that Galene names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    None,
    Stun,
    Turn,
    TurnByTcp,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A caller; the gateway offers, and controls.
    Up,
    /// The room; Galene offers, and controls.
    Down,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    pub(crate) gateway: Option<Behaviour>,
    pub(crate) galene: Option<Behaviour>,
    pub(crate) servers: Servers,
    pub(crate) way: Way,
    /// An earlier connection has needed servers: they are asked at once.
    pub(crate) needs_servers: bool,
    pub(crate) weather: Weather,
    pub(crate) seed: u64,
}

#[derive(Debug)]
enum Signal {
    Offer(String),
    Answer(String),
    Candidate(String),
    Renegotiate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Gateway,
    Galene,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) now: Instant,
    situation: Situation,
    pub(crate) network: Network,
    pub(crate) gateway: Gateway,
    pub(crate) galene: Galene,
    server: Option<TurnServer>,
    hosts: [SocketAddr; 2],
    /// The WebSocket: in order, and nothing is lost.
    signals: VecDeque<(Instant, Side, Signal)>,
    /// Both speak.
    next_packet_at: Option<Instant>,
    /// Only what was said from then on counts as heard.
    listens_from: Instant,
    heard_at: [Option<Instant>; 2],
    streams: u16,
    has_moved: bool,
    /// When the gateway looks whether a voice of the room has a path, and how often it had none.
    look_at: Instant,
    looks: u32,
    /// How often ICE began anew, with another connection or without.
    pub(crate) restarts: u32,
}

impl Call {
    pub(crate) fn new(situation: Situation) -> Self {
        let Situation { gateway, galene, servers, weather, seed, .. } = situation;
        let host = |inside: bool, private: &str, public: &str| -> SocketAddr {
            if inside { private } else { public }.parse().expect("an address")
        };
        let gateways = host(gateway.is_some(), "10.0.0.2:30000", "198.51.100.9:30000");
        let galenes = host(galene.is_some(), "192.168.0.2:8000", "203.0.113.10:8000");
        let nats = [
            gateway.map(|behaviour| Nat::new(behaviour, Ipv4Addr::new(10, 0, 0, 0), GATEWAYS_ROUTER)),
            galene.map(|behaviour| Nat::new(behaviour, Ipv4Addr::new(192, 168, 0, 0), GALENES_ROUTER)),
        ];
        let network = Network::new(weather, nats.into_iter().flatten().collect(), seed);
        let hosts = [gateways, galenes];
        let (gateway, galene) = ends(&situation, hosts, 0);
        let mut call = Self {
            now: START,
            situation,
            network,
            gateway,
            galene,
            server: (servers != Servers::None).then(|| TurnServer::new(SERVER)),
            hosts,
            signals: VecDeque::new(),
            next_packet_at: Some(START),
            listens_from: START,
            heard_at: [None; 2],
            streams: 0,
            has_moved: false,
            look_at: START + FIRST_LOOK,
            looks: 0,
            restarts: 0,
        };
        call.offer();
        call
    }

    fn offer(&mut self) {
        match self.situation.way {
            Way::Up => {
                let offer = self.gateway.peer.offer(self.now);
                self.tell(Side::Galene, Signal::Offer(offer));
            }
            Way::Down => {
                let offer = self.galene.offer(self.now);
                self.tell(Side::Gateway, Signal::Offer(offer));
            }
        }
        self.drain();
    }

    fn tell(&mut self, to: Side, signal: Signal) {
        self.signals.push_back((self.now + ms(self.network.weather.delay_ms), to, signal));
    }

    /// The router of the gateway has a new address, and remembers nothing.
    pub(crate) fn renumber(&mut self) {
        self.has_moved = true;
        for nat in self.network.nats.iter_mut().filter(|nat| nat.is_at(GATEWAYS_ROUTER.into())) {
            nat.renumber(NEW_ROUTER);
        }
        if let Some(stream) = &mut self.network.stream {
            stream.is_dead = true;
        }
    }

    /// Nobody says anything for so long.
    pub(crate) fn be_silent(&mut self, duration: Duration) {
        self.next_packet_at = None;
        self.run(self.now + duration, |_| false);
        self.next_packet_at = Some(self.now);
    }

    /// Nothing gets anywhere for so long, by TCP it comes later.
    pub(crate) fn be_cut(&mut self, duration: Duration) {
        self.network.is_cut = true;
        self.be_silent(duration);
        self.network.is_cut = false;
    }

    /// How long it takes from now on until each hears the other, if it is no longer than `limit`.
    pub(crate) fn both_hear(&mut self, limit: Duration) -> Option<Duration> {
        (self.listens_from, self.heard_at) = (self.now, [None; 2]);
        let from = self.now;
        self.run(from + limit, |call| call.heard_at.iter().all(Option::is_some));
        let heard_at = self.heard_at[0].zip(self.heard_at[1]).map(|(one, other)| one.max(other));
        heard_at.map(|at| at.saturating_since(from))
    }

    /// Lets time pass until then, or until it is `enough`.
    pub(crate) fn run(&mut self, end: Instant, enough: impl Fn(&Self) -> bool) {
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
            self.drain();
            if enough(self) {
                return;
            }
        }
        self.now = end;
    }

    /// Which candidate of the gateway's Galene uses, and which way the gateway takes.
    pub(crate) fn pair(&self) -> Option<&'static str> {
        if self.gateway.route?.is_relayed() {
            return Some("relay");
        }
        Some(match self.galene.selected_kind()? {
            CandidateKind::Host => "host",
            CandidateKind::ServerReflexive => "srflx",
            CandidateKind::PeerReflexive => "prflx",
            CandidateKind::Relayed => "relay",
        })
    }

    fn next_at(&self) -> Option<Instant> {
        let signal = self.signals.front().filter(|_| !self.network.is_cut).map(|(at, ..)| *at);
        let look = (self.situation.way == Way::Down).then_some(self.look_at);
        let gateway = self.gateway.peer.next_timeout().map(|deadline| deadline.at);
        let all = [self.network.next_at(), signal, gateway, self.galene.next_timeout(), self.next_packet_at, look];
        all.into_iter().flatten().min()
    }

    fn step(&mut self) {
        let now = self.now;
        if let Some(datagram) = self.network.arrive(now) {
            return self.deliver(datagram.from, datagram.to, &datagram.bytes);
        }
        let has_signal = self.signals.front().is_some_and(|(at, ..)| *at <= now) && !self.network.is_cut;
        if has_signal && let Some((_, to, signal)) = self.signals.pop_front() {
            return self.hear(to, signal);
        }
        if self.look_at <= now {
            self.look();
        }
        if self.next_packet_at.is_some_and(|at| at <= now) {
            self.next_packet_at = Some(now + PACKET);
            self.speak();
        }
        if self.gateway.peer.next_timeout().is_some_and(|deadline| deadline.at <= now) {
            self.gateway.peer.handle_timeout(now);
        }
        if self.galene.next_timeout().is_some_and(|at| at <= now) {
            self.galene.handle_timeout(now);
        }
    }

    /// Whether an offer of Galene's has led to a path: if not, another is asked for, ever more seldom.
    fn look(&mut self) {
        if self.gateway.peer.has_path() {
            self.looks = 0;
            self.look_at = self.now + MAX_PAUSE;
            return;
        }
        self.looks += 1;
        self.look_at = self.now + doubled(FIRST_LOOK, self.looks, MAX_PAUSE);
        self.tell(Side::Galene, Signal::Renegotiate);
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        let listener = match to {
            to if to == self.hosts[0] => self.gateway.handle_input(now, from, bytes).then_some(0),
            to if to == self.hosts[1] => self.galene.handle_input(now, from, bytes).then_some(1),
            to => {
                let server = self.server.as_mut().filter(|server| server.is_at(to.ip()));
                if let Some((from, to, bytes)) = server.and_then(|server| server.handle_input(now, from, to, bytes)) {
                    self.network.send(now, from, to, bytes);
                }
                None
            }
        };
        if let (Some(listener), Some(said_at)) = (listener, said_at(bytes))
            && said_at >= self.listens_from
        {
            self.heard_at[listener].get_or_insert(now);
        }
    }

    fn speak(&mut self) {
        let mut packet = vec![128, 111];
        packet.extend(self.now.as_us().to_be_bytes());
        if let Some((to, bytes)) = self.gateway.send_media(&packet) {
            self.network.send(self.now, self.hosts[0], to, bytes);
        }
        if let Some(to) = self.galene.remote().filter(|_| self.galene.keys.is_some()) {
            self.network.send(self.now, self.hosts[1], to, packet);
        }
    }

    fn hear(&mut self, side: Side, signal: Signal) {
        let now = self.now;
        match (side, signal) {
            (Side::Gateway, Signal::Offer(sdp)) => {
                self.look_at = now + doubled(FIRST_LOOK, self.looks, MAX_PAUSE);
                let (answer, _) = self.gateway.peer.handle_offer(now, &sdp).expect("Galene's offer can be used");
                self.tell(Side::Galene, Signal::Answer(answer));
            }
            (Side::Gateway, Signal::Answer(sdp)) => {
                self.gateway.peer.handle_answer(now, &sdp).expect("Galene's answer can be used");
            }
            (Side::Gateway, Signal::Candidate(line)) => self.gateway.peer.add_candidate(now, &line),
            (Side::Galene, Signal::Offer(sdp)) => {
                let answer = self.galene.handle_offer(now, &sdp);
                self.tell(Side::Gateway, Signal::Answer(answer));
            }
            (Side::Galene, Signal::Answer(sdp)) => self.galene.handle_answer(now, &sdp),
            (Side::Galene, Signal::Candidate(line)) => self.galene.add_candidate(now, &line),
            (_, Signal::Renegotiate) => {
                self.restarts += 1;
                self.offer();
            }
        }
    }

    /// A connection to the TURN server, if there is one that is reached so. A former one is closed.
    fn open_stream(&mut self) {
        if self.situation.servers != Servers::TurnByTcp {
            return;
        }
        self.streams += 1;
        let router = if self.has_moved { NEW_ROUTER } else { GATEWAYS_ROUTER };
        let stand_in = SocketAddr::from((Ipv4Addr::LOCALHOST, 7000 + self.streams));
        let seen_at = SocketAddr::from((router, 39_000 + self.streams));
        self.network.stream = Some(Stream { stand_in, user: self.hosts[0], server: SERVER, seen_at, is_dead: false });
        let credentials = Some(TurnServer::credentials());
        self.gateway
            .peer
            .add_server(self.now, Server { address: stand_in, credentials, is_reliable: true, is_alternate: false });
    }

    /// The gateway looks for another way.
    fn ask_for_restart(&mut self) {
        match self.situation.way {
            Way::Up => {
                self.restarts += 1;
                self.offer();
            }
            Way::Down => self.tell(Side::Galene, Signal::Renegotiate),
        }
    }

    /// The gateway has given up: Galene is asked to offer a down stream anew, and an up stream gets another connection.
    fn begin_anew(&mut self) {
        if self.situation.way == Way::Down {
            return self.ask_for_restart();
        }
        self.restarts += 1;
        self.hosts[0].set_port(self.hosts[0].port() + 1);
        self.signals.clear();
        (self.gateway, self.galene) = ends(&self.situation, self.hosts, self.restarts.into());
        self.offer();
    }

    fn drain(&mut self) {
        if self.gateway.failure.take().is_some() {
            self.begin_anew();
        }
        if std::mem::take(&mut self.gateway.wants_restart) {
            self.ask_for_restart();
        }
        if std::mem::take(&mut self.gateway.wants_stream) {
            self.open_stream();
        }
        let (datagrams, candidates) = self.gateway.poll(self.now);
        for (to, bytes) in datagrams {
            self.network.send(self.now, self.hosts[0], to, bytes);
        }
        for line in candidates {
            self.tell(Side::Galene, Signal::Candidate(line));
        }
        if self.gateway.failure.is_some() || self.gateway.wants_restart || self.gateway.wants_stream {
            return self.drain();
        }
        while let Some(output) = self.galene.poll_output() {
            match output {
                galene::Output::Transmit { to, bytes } => self.network.send(self.now, self.hosts[1], to, bytes),
                galene::Output::Candidate(line) => self.tell(Side::Gateway, Signal::Candidate(line)),
                // Galene offers a down stream anew, and asks for a new offer of an up stream.
                galene::Output::Failed => match self.situation.way {
                    Way::Up => self.tell(Side::Gateway, Signal::Renegotiate),
                    Way::Down => {
                        self.restarts += 1;
                        self.offer();
                    }
                },
            }
        }
    }
}

/// The `nth` connection's two ends.
fn ends(situation: &Situation, hosts: [SocketAddr; 2], nth: u64) -> (Gateway, Galene) {
    let Situation { galene, servers, needs_servers, seed, .. } = *situation;
    let server = |credentials| Server { address: SERVER, credentials, is_reliable: false, is_alternate: false };
    let named = match servers {
        Servers::None | Servers::TurnByTcp => vec![],
        Servers::Stun => vec![server(None)],
        Servers::Turn => vec![server(Some(TurnServer::credentials()))],
    };
    let zero = std::time::Instant::now();
    let identity = |seed| Identity::for_test(zero, seed).expect("the cryptographic library works");
    let gather_after = (servers != Servers::None).then_some(if needs_servers { Duration::ZERO } else { GATHER_AFTER });
    let seed = (seed << 8) + nth;
    let mut random = Random::for_test(seed);
    let gateway = Gateway::new(hosts[0], identity(seed), gather_after, named, random.fork());
    let galenes_stun = (servers != Servers::None && galene.is_some()).then_some(SERVER);
    (gateway, Galene::new(hosts[1], identity(!seed), galenes_stun, random.fork()))
}

fn said_at(packet: &[u8]) -> Option<Instant> {
    // A channel's header may stand before it.
    let bytes = packet.last_chunk()?;
    Some(Instant::from_us(u64::from_be_bytes(*bytes)))
}
