//! A registrar beyond a NAT: whether calls get in at any time, and how soon after a change of address.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::sip::endpoint::Endpoint;
use galene_sip::sip::event::{Account, EndpointConfig, Input, Output, Registrar, Route, Target};
use galene_sip::time::Instant;
use galene_sip::wire::sip::{Message, Transport};
use galene_sip::wire::stun::{self, Builder, Class};
use galene_sip::wire::uri::Uri;

use crate::loss::Weather;
use crate::nat::{Behaviour, FULL_CONE, Nat, PORT_RESTRICTED, SYMMETRIC};
use crate::network::Network;

const OWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5060);
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)), 5060);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const NEW_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const DELAY_MS: u32 = 20;
const EXPIRIES_S: [u64; 4] = [15, 20, 30, 60];
/// Calls come in every second.
const RINGS: u64 = 600;
/// What a call that comes in looks like to the NAT.
const RING: &[u8] = b"ring";

/// How the registrar takes signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It answers OPTIONS.
    Answers,
    /// It takes REGISTER and nothing else.
    Mute,
    /// It keeps flows (RFC 5626), and answers STUN.
    KeepsFlows,
}

pub(crate) fn table() -> String {
    let mut table = format!(
        "A registrar beyond a NAT, by UDP: of {RINGS} calls, one a second, those that reach us; and seconds from a new address\n\
         of our router until the first one does.\n\n{:16} {:>9} {:12} {:>6} {:>6}\n",
        "gateway behind", "expires_s", "registrar", "reach", "moved"
    );
    for behaviour in [FULL_CONE, PORT_RESTRICTED, SYMMETRIC] {
        for expiry_s in EXPIRIES_S {
            for (name, kind) in [("answers", Kind::Answers), ("is mute", Kind::Mute), ("keeps flows", Kind::KeepsFlows)]
            {
                let mut world = World::new(behaviour.expiring_after(Duration::from_secs(expiry_s)), kind);
                let reach = (0..RINGS).filter(|_| world.ring()).count();
                world.network.nats[0].renumber(NEW_ROUTER);
                let moved = (1..=RINGS).find(|_| world.ring());
                let moved = moved.map_or_else(|| "never".to_owned(), |seconds| seconds.to_string());
                writeln!(table, "{:16} {expiry_s:>9} {name:12} {reach:>6} {moved:>6}", behaviour.name).unwrap();
            }
        }
    }
    table
}

struct World {
    now: Instant,
    network: Network,
    endpoint: Endpoint,
    kind: Kind,
    /// Where the last REGISTER came from: its Contact, as the registrar sees it.
    binding: Option<SocketAddr>,
    rang: bool,
}

impl World {
    fn new(behaviour: Behaviour, kind: Kind) -> Self {
        let host = Target { host: "registrar.test".into(), port: None, transport: None, is_secure: false };
        let account = Account { uri: Uri::parse("sip:room@registrar.test").expect("a URI"), credentials: None };
        let config = EndpointConfig {
            account,
            registrar: Some(Registrar { target: host, proxy: None }),
            allow: Vec::new(),
            refer_anywhere: false,
            guests: None,
            instance: Some("urn:uuid:00000000-0000-1000-8000-000a95a0e128".into()),
            gruu: false,
            public_address: None,
            local: vec![OWN],
            user_agent: "networks".into(),
        };
        let weather = Weather { delay_ms: DELAY_MS, ..Weather::default() };
        let nat = Nat::new(behaviour, Ipv4Addr::new(10, 0, 0, 0), ROUTER);
        let mut world = Self {
            now: Instant::from_us(1_000_000),
            network: Network::new(weather, vec![nat], 1),
            endpoint: Endpoint::new(config, Random::for_test(1)),
            kind,
            binding: None,
            rang: false,
        };
        world.endpoint.start(world.now);
        world.drain();
        world.pass(Duration::from_secs(1));
        assert!(world.binding.is_some(), "it is registered");
        world
    }

    /// A call comes in, and a second passes.
    fn ring(&mut self) -> bool {
        self.rang = false;
        if let Some(to) = self.binding {
            self.network.send(self.now, ADDRESS, to, RING.to_vec());
        }
        self.pass(Duration::from_secs(1));
        self.rang
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let timeout = self.endpoint.next_timeout().map(|deadline| deadline.at);
            let Some(at) = [timeout, self.network.next_at()].into_iter().flatten().min().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            match self.network.arrive(self.now) {
                Some(datagram) if datagram.to == OWN && datagram.bytes == RING => self.rang = true,
                Some(datagram) if datagram.to == OWN => {
                    let (local, remote, bytes) = (OWN, datagram.from, &datagram.bytes[..]);
                    self.endpoint.handle_input(self.now, Input::Datagram { local, remote, bytes });
                }
                Some(datagram) if datagram.to == ADDRESS => self.serve(datagram.from, &datagram.bytes),
                Some(_) => {}
                None if timeout.is_some_and(|at| at <= self.now) => self.endpoint.handle_timeout(self.now),
                None => {}
            }
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Send { remote, bytes, .. } => self.network.send(self.now, OWN, remote, bytes),
                Output::Resolve(target) => {
                    let route = Route { transport: Transport::Udp, remote: ADDRESS, local: OWN.ip() };
                    let lifetime = Duration::from_secs(3600);
                    self.endpoint.handle_input(self.now, Input::Resolved { target, routes: vec![route], lifetime });
                }
                Output::Connection(command) => panic!("over UDP there are no connections: {command:?}"),
                Output::Event(_) | Output::Passed(_) => {}
            }
        }
    }

    /// The registrar's part.
    fn serve(&mut self, from: SocketAddr, bytes: &[u8]) {
        if let Ok(question) = stun::Message::parse(bytes) {
            if self.kind == Kind::KeepsFlows {
                let answer = Builder::new(Class::Success, question.transaction_id).xor_mapped_address(from);
                self.network.send(self.now, ADDRESS, from, answer.finish_unsigned());
            }
            return;
        }
        // A double line end keeps the binding alive by itself.
        let Ok(Message::Request(request)) = Message::parse(bytes) else { return };
        let header = |name: &str| request.headers.get(name).unwrap_or_default().to_owned();
        let method = request.method.to_string();
        let extra = match method.as_str() {
            "REGISTER" => {
                self.binding = Some(from);
                let contact = header("Contact");
                let contact = if contact.contains(";expires=") { contact } else { format!("{contact};expires=600") };
                let flows = if self.kind == Kind::KeepsFlows { "Require: outbound\r\nFlow-Timer: 25\r\n" } else { "" };
                format!("Contact: {contact}\r\n{flows}")
            }
            "OPTIONS" if self.kind != Kind::Mute => String::new(),
            _ => return,
        };
        let received = format!(";received={};rport={}", from.ip(), from.port());
        let via = header("Via").replace(";rport", &received);
        let answer = format!(
            "SIP/2.0 200 OK\r\nVia: {via}\r\nFrom: {}\r\nTo: {};tag=r\r\nCall-ID: {}\r\nCSeq: {}\r\n{extra}\
             Content-Length: 0\r\n\r\n",
            header("From"),
            header("To"),
            header("Call-ID"),
            header("CSeq")
        );
        self.network.send(self.now, ADDRESS, from, answer.into_bytes());
    }
}
