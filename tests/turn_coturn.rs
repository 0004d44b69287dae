//! An allocation at a real TURN server, coturn, over UDP, TCP and TLS on loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use galene_sip::io::tls::Tls;
use galene_sip::io::turn_stream::TurnStream;
use galene_sip::random::Random;
use galene_sip::rtc::reflexive;
use galene_sip::rtc::turn::{Allocation, Credentials, Drops, Failure, Families, Output};
use galene_sip::time::Instant;
use galene_sip::wire::stun::ChannelData;
use lab::coturn::{Coturn, PASSWORD, USER};
use lab::program::{find_or_skip, skip};
use rustls::pki_types::{CertificateDer, ServerName};
use smol::LocalExecutor;

const PATIENCE: Duration = Duration::from_secs(10);

fn socket() -> UdpSocket {
    socket_at(Ipv4Addr::LOCALHOST)
}

fn socket_at(ip: impl Into<IpAddr>) -> UdpSocket {
    let socket = UdpSocket::bind((ip.into(), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket
}

/// What the net thread and the driver will be to an allocation.
struct Client<'a> {
    socket: &'a UdpSocket,
    server: SocketAddr,
    allocation: Allocation,
    started: std::time::Instant,
    /// How far the allocation's clock is ahead.
    ahead: Duration,
    /// What went to the server and was not for a peer.
    requests: usize,
}

impl<'a> Client<'a> {
    fn new(socket: &'a UdpSocket, server: SocketAddr, password: &str, families: Families) -> Self {
        let credentials = Credentials { username: USER.into(), password: password.into() };
        let seed = u64::from(socket.local_addr().unwrap().port());
        let allocation = Allocation::new(Instant::ZERO, credentials, families, [7; 4], false, Random::for_test(seed));
        Self { socket, server, allocation, started: std::time::Instant::now(), ahead: Duration::ZERO, requests: 0 }
    }

    fn to(socket: &'a UdpSocket, server: SocketAddr) -> Self {
        Self::new(socket, server, PASSWORD, Families::V4)
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.started.elapsed() + self.ahead
    }

    /// What it puts out next besides what goes to the server; nothing within `patience`.
    fn next_within(&mut self, patience: Duration) -> Option<Output> {
        let until = std::time::Instant::now() + patience;
        let mut buffer = [0; 4096];
        loop {
            while let Some(output) = self.allocation.poll_output() {
                let Output::Transmit { bytes } = output else { return Some(output) };
                self.requests += usize::from(ChannelData::parse(&bytes).is_none());
                self.socket.send_to(&bytes, self.server).unwrap();
            }
            if std::time::Instant::now() > until {
                return None;
            }
            if let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
                assert_eq!(from, self.server);
                self.allocation.handle_input(self.now(), &buffer[..len]);
            }
            let now = self.now();
            if self.allocation.next_timeout().is_some_and(|deadline| now >= deadline.at) {
                self.allocation.handle_timeout(now);
            }
        }
    }

    fn next(&mut self) -> Output {
        self.next_within(PATIENCE).expect("nothing comes of it")
    }

    /// The relay's address and ours.
    fn allocated(&mut self) -> (SocketAddr, SocketAddr) {
        match self.next() {
            Output::Allocated { relayed, mapped: Some(mapped), .. } => (relayed, mapped),
            other => panic!("{other:?}"),
        }
    }

    fn bind(&mut self, peer: &UdpSocket) {
        let peer = peer.local_addr().unwrap();
        self.allocation.bind(self.now(), peer);
        assert!(matches!(self.next(), Output::ChannelBound { peer: bound, .. } if bound == peer));
    }

    /// Waits until so many requests went out and all were answered, which gives no outputs.
    fn ask(&mut self, requests: usize) {
        let until = std::time::Instant::now() + PATIENCE;
        let soon = |client: &Self| client.allocation.next_timeout().unwrap().at < client.now() + Duration::from_secs(5);
        while self.requests < requests || soon(self) {
            assert!(std::time::Instant::now() < until, "{} of {requests} requests", self.requests);
            assert_eq!(self.next_within(Duration::from_millis(20)), None);
        }
    }

    fn release(&mut self) {
        self.allocation.release(self.now());
        assert_eq!(self.next(), Output::Released);
        // On a busy machine an answer may be so late that its request went out twice; the second is unexpected then.
        let Drops { malformed, unauthentic, unexpected: _, unsendable } = self.allocation.drops();
        assert_eq!((malformed, unauthentic, unsendable), (0, 0, 0));
    }
}

/// Datagrams of odd lengths pass both ways between an allocation and two peers; gives our address as coturn sees it.
fn exchange(socket: &UdpSocket, server: SocketAddr) -> SocketAddr {
    exchange_by(Client::to(socket, server), Ipv4Addr::LOCALHOST.into())
}

/// The same with peers at `ip`, where the relay is too.
fn exchange_by(mut client: Client<'_>, ip: IpAddr) -> SocketAddr {
    let (relayed, mapped) = client.allocated();
    assert_eq!(relayed.ip(), ip);
    let (peer, other) = (socket_at(ip), socket_at(ip));
    client.bind(&peer);
    let (peer_address, other_address) = (peer.local_addr().unwrap(), other.local_addr().unwrap());
    let mut buffer = [0; 4096];
    for len in [1, 2, 3, 4, 5, 172, 1200] {
        let (ours, theirs) = (vec![len as u8; len], vec![!(len as u8); len]);
        client.allocation.send(client.now(), peer_address, &ours);
        assert_eq!(client.next_within(Duration::ZERO), None);
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (len, relayed));
        assert_eq!(buffer[..len], ours);
        peer.send_to(&theirs, relayed).unwrap();
        assert_eq!(client.next(), Output::Received { peer: peer_address, bytes: theirs });
    }
    // Without a channel, but with the permission of its address: in an indication.
    other.send_to(b"hello", relayed).unwrap();
    assert_eq!(client.next(), Output::Received { peer: other_address, bytes: b"hello".to_vec() });
    client.release();
    mapped
}

/// Runs a stand-in for `server` in a thread while `test` runs, which gets its address and the word of its end.
fn with_stream(
    server: SocketAddr,
    tls: Option<Tls>,
    peer_port: u16,
    test: impl FnOnce(SocketAddr, &mpsc::Receiver<String>),
) {
    let (opened, address) = mpsc::channel();
    let (told, ended) = mpsc::channel();
    let (end, over) = smol::channel::bounded::<()>(1);
    let running = thread::spawn(move || {
        let executor = LocalExecutor::new();
        let tls = tls.map(|tls| (ServerName::try_from("localhost").unwrap(), tls));
        let told = move |_, why| drop(told.send(why));
        let stream = TurnStream::open(&executor, server, tls, peer_port, told).unwrap();
        opened.send(stream.address()).unwrap();
        smol::block_on(executor.run(over.recv())).unwrap_err();
    });
    test(address.recv_timeout(PATIENCE).unwrap(), &ended);
    drop(end);
    running.join().unwrap();
}

struct SelfSigned {
    der: CertificateDer<'static>,
    certificate: String,
    key: String,
}

impl SelfSigned {
    fn new() -> Self {
        let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = signed.signing_key.serialize_pem();
        Self { der: signed.cert.der().clone(), certificate: signed.cert.pem(), key }
    }

    fn start(&self, binary: &std::path::Path) -> Coturn {
        Coturn::start(binary, Some((&self.certificate, &self.key)), &[]).unwrap()
    }
}

#[test]
fn datagrams_pass_both_ways_over_udp() {
    let Some(binary) = find_or_skip("turnserver") else { return };
    let coturn = Coturn::start(&binary, None, &[]).unwrap();
    let socket = socket();
    assert_eq!(exchange(&socket, coturn.address()), socket.local_addr().unwrap());
    // The relay was given back: the same port may soon have another. coturn takes a second to forget one.
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        match Client::to(&socket, coturn.address()).next() {
            Output::Allocated { .. } => break,
            other => assert_eq!(other, Output::Failed(Failure::Mismatch)),
        }
        assert!(std::time::Instant::now() < until, "the relay was not given back");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Whether this machine has IPv6, on loopback at least.
fn has_ipv6() -> bool {
    let has = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        skip("this machine has no ::1");
    }
    has
}

#[test]
fn datagrams_pass_both_ways_over_ipv6_to_a_relay_of_ipv6() {
    let Some(binary) = find_or_skip("turnserver").filter(|_| has_ipv6()) else { return };
    let coturn = Coturn::start_at(Ipv6Addr::LOCALHOST, &binary, None, &[]).unwrap();
    let socket = socket_at(Ipv6Addr::LOCALHOST);
    let client = Client::new(&socket, coturn.address(), PASSWORD, Families::V6);
    assert_eq!(exchange_by(client, Ipv6Addr::LOCALHOST.into()), socket.local_addr().unwrap());
    // And by a stream of IPv6, whose stand-in has an address of IPv4.
    let socket = self::socket();
    with_stream(coturn.address(), None, socket.local_addr().unwrap().port(), |stand_in, _| {
        exchange_by(Client::new(&socket, stand_in, PASSWORD, Families::V6), Ipv6Addr::LOCALHOST.into());
    });
}

#[test]
fn one_relay_has_addresses_of_both_versions_of_ip_and_passes_on_to_both() {
    let Some(binary) = find_or_skip("turnserver").filter(|_| has_ipv6()) else { return };
    let coturn = Coturn::start(&binary, None, &["--relay-ip", "::1"]).unwrap();
    let socket = socket();
    let mut client = Client::new(&socket, coturn.address(), PASSWORD, Families::Both);
    let allocated = client.next();
    let Output::Allocated { relayed, further: Some(further), .. } = allocated else {
        panic!("{allocated:?}\n{}", coturn.program.lines().join("\n"))
    };
    assert_eq!((relayed.ip(), further.ip()), (Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)));
    for (relay, peer) in [(relayed, self::socket()), (further, socket_at(Ipv6Addr::LOCALHOST))] {
        client.bind(&peer);
        let peer_address = peer.local_addr().unwrap();
        client.allocation.send(client.now(), peer_address, b"out");
        assert_eq!(client.next_within(Duration::ZERO), None);
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (3, relay));
        peer.send_to(b"back", relay).unwrap();
        assert_eq!(client.next(), Output::Received { peer: peer_address, bytes: b"back".to_vec() });
    }
    client.release();
}

#[test]
fn coturn_names_another_server() {
    let Some(binary) = find_or_skip("turnserver") else { return };
    let other = SocketAddr::from(([127, 0, 0, 2], 3999));
    let coturn = Coturn::start(&binary, None, &["--alternate-server", &other.to_string()]).unwrap();
    let expected = Output::Failed(Failure::Alternate { server: Some(other), domain: None });
    assert_eq!(Client::to(&socket(), coturn.address()).next(), expected);
}

#[test]
fn datagrams_pass_both_ways_over_tcp_and_tls() {
    let Some(binary) = find_or_skip("turnserver") else { return };
    let signed = SelfSigned::new();
    let coturn = signed.start(&binary);
    let trusting = Tls::new(std::slice::from_ref(&signed.der), false);
    for (server, tls) in [(coturn.address(), None), (coturn.tls_address().unwrap(), Some(trusting))] {
        let socket = socket();
        with_stream(server, tls, socket.local_addr().unwrap().port(), |stand_in, ended| {
            exchange(&socket, stand_in);
            assert!(ended.try_recv().is_err());
        });
    }
}

#[test]
fn a_certificate_that_nobody_trusts_and_a_server_that_goes_are_told() {
    let Some(binary) = find_or_skip("turnserver") else { return };
    let signed = SelfSigned::new();
    let coturn = signed.start(&binary);
    let (address, tls_address) = (coturn.address(), coturn.tls_address().unwrap());
    let stranger = Tls::new(&[SelfSigned::new().der], false);
    with_stream(tls_address, Some(stranger), 9, |_, ended| {
        let why = ended.recv_timeout(PATIENCE).unwrap();
        assert!(why.contains("comes from nobody whom this system trusts"), "{why}");
    });
    let socket = socket();
    with_stream(address, None, socket.local_addr().unwrap().port(), |stand_in, ended| {
        Client::to(&socket, stand_in).allocated();
        drop(coturn);
        let why = ended.recv_timeout(PATIENCE).unwrap();
        assert!(why.contains("closed the connection") || why.contains("broke off"), "{why}");
    });
}

#[test]
fn what_coturn_refuses_is_said_with_what_to_mend() {
    let Some(binary) = find_or_skip("turnserver") else { return };
    let coturn = Coturn::start(&binary, None, &["--denied-peer-ip", "192.0.2.0-192.0.2.255"]).unwrap();
    let narrow = Coturn::start(&binary, None, &["--user-quota", "1"]).unwrap();
    let failed = |mut client: Client<'_>| match client.next() {
        Output::Failed(failure) => failure,
        other => panic!("{other:?}"),
    };
    let (first, second) = (socket(), socket());
    let server = coturn.address();
    let wrong = failed(Client::new(&first, server, "wrong", Families::V4));
    assert_eq!(wrong, Failure::Credentials);
    assert!(wrong.to_string().contains("user name and password"));
    assert_eq!(failed(Client::new(&socket(), server, PASSWORD, Families::V6)), Failure::Family);
    Client::to(&first, narrow.address()).allocated();
    assert_eq!(failed(Client::to(&second, narrow.address())), Failure::Quota);
    Client::to(&first, server).allocated();
    // 437, for the socket has an allocation, which nobody has given back: it is ended.
    let mut client = Client::to(&first, server);
    client.allocated();
    let peer = SocketAddr::from(([192, 0, 2, 7], 5000));
    client.allocation.bind(client.now(), peer);
    assert_eq!(client.next(), Output::PeerRefused { peer });
    client.release();
}

#[test]
fn stale_nonces_are_replaced_and_the_relay_is_kept() {
    let Some(binary) = find_or_skip("turnserver") else { return };
    let coturn = Coturn::start(&binary, None, &["--stale-nonce=1", "--max-allocate-lifetime=120"]).unwrap();
    let (socket, peer) = (socket(), socket());
    let mut client = Client::to(&socket, coturn.address());
    let (relayed, _) = client.allocated();
    client.bind(&peer);
    let refresh_at = client.allocation.next_timeout().unwrap().at;
    assert!(refresh_at > Instant::from_us(59_000_000) && refresh_at < Instant::from_us(61_000_000), "{refresh_at:?}");
    // coturn counts whole seconds: a nonce of one is surely stale after three. The allocation's clock runs ahead, so that it
    // refreshes each time, and binds again the last time.
    let stale = Duration::from_millis(3100);
    for (pause, ahead_s, requests) in
        [(stale, 65, 2), (Duration::ZERO, 130, 1), (Duration::ZERO, 195, 1), (stale, 260, 4)]
    {
        assert_eq!(client.next_within(pause), None);
        let before = client.requests;
        client.ahead = Duration::from_secs(ahead_s);
        client.ask(before + requests);
    }
    peer.send_to(b"still here", relayed).unwrap();
    let expected = Output::Received { peer: peer.local_addr().unwrap(), bytes: b"still here".to_vec() };
    assert_eq!(client.next(), expected);
    client.release();
}

#[test]
fn coturn_tells_our_address() {
    let Some(binary) = find_or_skip("turnserver") else { return };
    let coturn = Coturn::start(&binary, None, &[]).unwrap();
    let socket = socket();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut query = reflexive::Query::new(Instant::ZERO, [7; 4], &mut Random::for_test(1));
    let Some(reflexive::Output::Transmit { bytes }) = query.poll_output() else { panic!("nothing is sent") };
    socket.send_to(&bytes, coturn.address()).unwrap();
    let mut buffer = [0; 200];
    let len = socket.recv(&mut buffer).unwrap();
    query.handle_input(&buffer[..len]);
    assert_eq!(query.poll_output(), Some(reflexive::Output::Mapped(socket.local_addr().unwrap())));
}
