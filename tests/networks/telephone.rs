//! The voice of a telephone behind a NAT, straight or by way of its provider, and strangers who spray packets at the gateway.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use galene_sip::media::control::TelephoneRemote;
use galene_sip::media::latch::{Evidence, Latch, Verdict};
use galene_sip::random::Random;
use galene_sip::time::Instant;

use crate::loss::Weather;
use crate::nat::{Behaviour, FULL_CONE, Nat, PORT_RESTRICTED, SYMMETRIC};
use crate::network::Network;

const DELAY_MS: u32 = 20;
/// Nobody can time his packets better than his network delivers them.
const JITTER_MS: u32 = 4;
/// A packet of each side's.
const PACKET_MS: u64 = 20;
/// 500 packets a second, as many as a stranger sends who wants to be one of them.
const SPRAY_MS: u64 = 2;
/// Longer than the latch waits for anybody.
const PATIENCE_MS: u64 = 30_000;
const TALK_MS: u64 = 10_000;
const TELEPHONE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7)), 4000);
const ITS_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
const ITS_NEW_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const OUR_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PROVIDER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const TO_GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(PROVIDER), 6000);
const TO_TELEPHONE: SocketAddr = SocketAddr::new(IpAddr::V4(PROVIDER), 6002);
const ITS_SSRC: u32 = 7;

/// What the telephone writes of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Private,
    /// What a STUN server has told it of its socket.
    Reflexive,
}

/// Which way its voice goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    /// Signalling at most.
    NoMedia,
    /// By the provider, who sends to where the descriptions say.
    Relays,
    /// By the provider, who sends to where packets come from.
    Latches,
}

const NATS: [Option<Behaviour>; 5] = [
    None,
    Some(FULL_CONE),
    Some(PORT_RESTRICTED),
    Some(PORT_RESTRICTED.keeping_ports("port restricted, keeps")),
    Some(SYMMETRIC),
];

/// The last two: whose router keeps ports, or does not.
const GATEWAYS: [Option<Behaviour>; 3] =
    [None, Some(PORT_RESTRICTED.keeping_ports("port restricted, keeps")), Some(SYMMETRIC)];

pub(crate) fn table() -> String {
    let mut table = format!(
        "The voice of a telephone, {DELAY_MS} ms between any two: ms until we hear it, and until it hears us; the later of both\n\
         after its router has given it another port, and another address; packets of 500 strangers a second that were believed.\n\n\
         {:22} {:9} {:9} {:22} {:>5} {:>8} {:>6} {:>6} {:>9}\n",
        "telephone behind", "SDP says", "provider", "gateway behind", "up", "down", "port", "moved", "strangers"
    );
    for provider in [Provider::NoMedia, Provider::Relays, Provider::Latches] {
        for gateway in GATEWAYS {
            for telephone in NATS {
                let says: &[Says] =
                    if telephone.is_some() { &[Says::Private, Says::Reflexive] } else { &[Says::Reflexive] };
                for says in says {
                    writeln!(table, "{}", row(telephone, *says, provider, gateway)).unwrap();
                }
            }
        }
    }
    table
}

fn row(telephone: Option<Behaviour>, says: Says, provider: Provider, gateway: Option<Behaviour>) -> String {
    let mut line = Line::new(telephone, says, provider, gateway);
    let ms = |at: Option<u64>| at.map_or_else(|| "never".to_owned(), |ms| ms.to_string());
    let (up, down) = line.heard_within(TALK_MS);
    let found = up.is_some() && down.is_some();
    let later = |line: &mut Line, outside| {
        telephone.filter(|_| found)?;
        line.renumber(outside);
        let (up, down) = line.heard_within(PATIENCE_MS);
        up.zip(down).map(|(up, down)| up.max(down))
    };
    let port = later(&mut line, ITS_ROUTER);
    let moved = later(&mut line, ITS_NEW_ADDRESS);
    let case = format!("{telephone:?} {says:?} {provider:?} {gateway:?}: {up:?} {down:?} {port:?} {moved:?}");
    assert_eq!(line.believed_strangers, 0, "{case}");
    // Where nobody but the gateway decides, everybody is heard, and found again as fast as it dares.
    let is_within = |after: Option<u64>, limit_ms| after.is_some_and(|ms| ms <= limit_ms);
    let (heard_ms, port_ms, moved_ms) = match (provider, gateway) {
        (Provider::Latches, _) => (100, 100, 100),
        (Provider::NoMedia, None) => (2500, 1500, 10_000),
        (Provider::NoMedia, Some(_)) | (Provider::Relays, _) => (u64::MAX, u64::MAX, u64::MAX),
    };
    if heard_ms < u64::MAX {
        assert!(is_within(up, heard_ms) && is_within(down, heard_ms), "{case}");
        assert!(telephone.is_none() || (is_within(port, port_ms) && is_within(moved, moved_ms)), "{case}");
    }
    let [port, moved] =
        [port, moved].map(|after| if found && telephone.is_some() { ms(after) } else { "-".to_owned() });
    let name = |nat: Option<Behaviour>| nat.map_or("-", |nat| nat.name);
    let says = if says == Says::Private { "private" } else { "public" };
    let by = match provider {
        Provider::NoMedia => "-",
        Provider::Relays => "relays",
        Provider::Latches => "latches",
    };
    format!(
        "{:22} {says:9} {by:9} {:22} {:>5} {:>8} {port:>6} {moved:>6} {:>9}",
        name(telephone),
        name(gateway),
        ms(up),
        ms(down),
        line.believed_strangers
    )
}

struct Line {
    now_ms: u64,
    network: Network,
    latch: Latch,
    provider: Provider,
    gateway: SocketAddr,
    /// As its SDP has it.
    gateway_says: SocketAddr,
    telephone: SocketAddr,
    telephone_says: SocketAddr,
    /// Whence the provider has got packets of the gateway and of the telephone.
    sources: [Option<SocketAddr>; 2],
    sequence: u16,
    strangers: Random,
    believed_strangers: u32,
    /// What was said before does not count.
    listens_from_ms: u64,
    heard_at_ms: [Option<u64>; 2],
}

impl Line {
    fn new(telephone: Option<Behaviour>, says: Says, provider: Provider, gateway: Option<Behaviour>) -> Self {
        let nats = [
            telephone.map(|behaviour| Nat::new(behaviour, Ipv4Addr::new(192, 168, 1, 0), ITS_ROUTER)),
            gateway.map(|behaviour| Nat::new(behaviour, Ipv4Addr::new(10, 0, 0, 0), OUR_ROUTER)),
        ];
        let weather = Weather { delay_ms: DELAY_MS, jitter_ms: JITTER_MS, ..Weather::default() };
        let mut network = Network::new(weather, nats.into_iter().flatten().collect(), 1);
        let now_ms = 1000;
        let own = if telephone.is_some() { TELEPHONE } else { SocketAddr::from((ITS_ROUTER, TELEPHONE.port())) };
        let stun_server = SocketAddr::from((PROVIDER, 3478));
        let its_nat = network.nats.iter_mut().find(|nat| nat.holds(own.ip()));
        let telephone_says = match (says, its_nat) {
            (Says::Reflexive, Some(nat)) => nat.outbound(at(now_ms), own, stun_server).expect("it gets out"),
            (Says::Private | Says::Reflexive, _) => own,
        };
        let gateway_port = 20_000;
        let (gateway, gateway_says) = match gateway {
            Some(_) => (Ipv4Addr::new(10, 0, 0, 2), OUR_ROUTER),
            None => (Ipv4Addr::new(198, 51, 100, 9), Ipv4Addr::new(198, 51, 100, 9)),
        };
        // As the gateway sees it: the provider's own, or what the telephone says.
        let signalled = if provider == Provider::NoMedia { telephone_says } else { TO_GATEWAY };
        let latch = Latch::new(TelephoneRemote {
            rtp: Some(signalled),
            rtcp: None,
            rtcp_mux: false,
            payload_type: 0,
            clock_rate_hz: 8000,
            // Calls come by way of the provider in any case.
            signalling_host: Some(PROVIDER.into()),
            asks_metrics: false,
            has_claim: !is_private(signalled.ip()),
            is_expected: true,
        });
        Self {
            now_ms,
            network,
            latch,
            provider,
            gateway: (gateway, gateway_port).into(),
            gateway_says: (gateway_says, gateway_port).into(),
            telephone: own,
            telephone_says,
            sources: [None; 2],
            sequence: 65_500,
            strangers: Random::for_test(2),
            believed_strangers: 0,
            listens_from_ms: 0,
            heard_at_ms: [None; 2],
        }
    }

    fn renumber(&mut self, outside: Ipv4Addr) {
        let its = self.network.nats.iter_mut().find(|nat| nat.holds(self.telephone.ip()));
        its.expect("it is behind one").renumber(outside);
    }

    /// Lets so much time pass; how soon the gateway has heard the telephone, and the telephone the gateway.
    fn heard_within(&mut self, limit_ms: u64) -> (Option<u64>, Option<u64>) {
        let from_ms = self.now_ms;
        (self.listens_from_ms, self.heard_at_ms) = (from_ms, [None; 2]);
        while self.now_ms < from_ms + limit_ms {
            self.now_ms += 1;
            self.pass();
        }
        let [up, down] = self.heard_at_ms.map(|at_ms| at_ms.map(|at_ms| at_ms - from_ms));
        (up, down)
    }

    fn pass(&mut self) {
        while let Some(datagram) = self.network.arrive(at(self.now_ms)) {
            self.deliver(datagram.from, datagram.to, &datagram.bytes);
        }
        if self.now_ms % PACKET_MS == 3 {
            self.sequence = self.sequence.wrapping_add(1);
            let to = if self.provider == Provider::NoMedia { self.gateway_says } else { TO_TELEPHONE };
            self.send(self.telephone, to, ITS_SSRC, self.sequence);
        }
        if self.now_ms % PACKET_MS == 11
            && let Some(to) = self.latch.remote()
        {
            self.send(self.gateway, to, 1, 1);
        }
        if self.now_ms.is_multiple_of(SPRAY_MS) {
            let random = self.strangers.next_u64();
            let from = SocketAddr::from(([203, 0, 114, random as u8], (random >> 8) as u16 | 1));
            self.send(from, self.gateway_says, (random >> 24) as u32 | 0x100, (random >> 48) as u16);
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, ssrc: u32, sequence: u16) {
        let mut bytes = ssrc.to_be_bytes().to_vec();
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(self.now_ms.to_be_bytes());
        self.network.send(at(self.now_ms), from, to, bytes);
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let ssrc = u32::from_be_bytes(*bytes.first_chunk().expect("an SSRC"));
        let sequence = u16::from_be_bytes([bytes[4], bytes[5]]);
        let said_at_ms = u64::from_be_bytes(*bytes.last_chunk().expect("a time"));
        let listener = match to {
            to if to == self.gateway => {
                let (source, is_authentic) = (from, false);
                let evidence = Evidence { source, ssrc, sequence, payload_type: 0, is_authentic };
                match self.latch.judge(at(self.now_ms), &evidence) {
                    Verdict::Drop => return,
                    Verdict::Take | Verdict::Latched if ssrc == ITS_SSRC => 0,
                    Verdict::Take | Verdict::Latched => {
                        self.believed_strangers += 1;
                        return;
                    }
                }
            }
            to if to == self.telephone => 1,
            TO_GATEWAY => {
                self.sources[0] = Some(from);
                return self.relay(TO_TELEPHONE, self.telephone_says, 1, bytes);
            }
            TO_TELEPHONE => {
                self.sources[1] = Some(from);
                return self.relay(TO_GATEWAY, self.gateway_says, 0, bytes);
            }
            _ => return,
        };
        if said_at_ms >= self.listens_from_ms {
            self.heard_at_ms[listener].get_or_insert(self.now_ms);
        }
    }

    /// The provider passes a packet on, to whom it knows there.
    fn relay(&mut self, from: SocketAddr, signalled: SocketAddr, source: usize, bytes: &[u8]) {
        let to = match self.provider {
            Provider::Latches => self.sources[source].unwrap_or(signalled),
            Provider::Relays | Provider::NoMedia => signalled,
        };
        self.network.send(at(self.now_ms), from, to, bytes.to_vec());
    }
}

fn is_private(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_private())
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}
