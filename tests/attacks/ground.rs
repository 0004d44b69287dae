//! What is attacked, and how it is seen to be well afterwards.
//!
//! Owns: two gateways in one room (an open one, and one that lets 127.0.0.1 in alone and asks others for a password), their
//! measures. Does not own: any attack.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::gateway::Gateway;
use lab::member::{Crowd, MemberConfig, MemberEventKind, Speech};
use lab::opus;
use lab::pcm::Pcm;
use lab::program::free_tcp_port;
use lab::room::{GroupConfig, RoomConfig, RoomServer};
use lab::telephone::{RATE_HZ, Telephone, TelephoneSetup};

use crate::real::{AUDIBLE_DBFS, GROUP, PATIENCE, TlsListener, binary, eventually, from, names};

/// The answer to OPTIONS must not take longer.
const PROMPT: Duration = Duration::from_millis(100);
/// Of what a busy machine may spoil.
const ATTEMPTS: usize = 3;
/// Calls that the guarded gateway takes at once: a flood fills them all, and each costs the room server two connections.
pub(crate) const GUARDED_CALLS: usize = 12;
/// How long descriptors may take to come back: the last BYEs of a family are still being answered.
const RETURN: Duration = Duration::from_secs(10);

/// A gateway with all listeners.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) gateway: Gateway,
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
    pid: u32,
    idle: (usize, usize),
    _tls: TlsListener,
}

impl Target {
    fn start(name: &'static str, url: &str, more: &[&str]) -> Self {
        let tls = TlsListener::new();
        let tcp = format!("127.0.0.1:{}", free_tcp_port().unwrap());
        // Without -debug, as in real life: a log of every message would be the slowest part of it.
        let account = ["-sip-password", "the account's", "-debug=false", "-sip-tcp-address", &tcp];
        let gateway = Gateway::start(binary(), url, &[&account, &tls.flags()[..], more].concat()).unwrap();
        let is_idle = || !gateway.thread_names().iter().any(|name| name == "blocking");
        eventually("the group has been asked about", || {
            is_idle() && gateway.lines().iter().any(|line| line.contains("Galene's group"))
        });
        let (pid, idle) = (gateway.id(), (gateway.open_files(), gateway.threads()));
        let tls_address = tls.address().parse().unwrap();
        Self { name, gateway, tcp: tcp.parse().unwrap(), tls: tls_address, pid, idle, _tls: tls }
    }

    pub(crate) fn udp(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// The same process answers OPTIONS at once; how long it took.
    pub(crate) fn assert_prompt(&mut self, after: &str) -> Duration {
        assert!(self.gateway.is_running() && self.gateway.id() == self.pid, "{after}: {}", self.last_words());
        let times: Vec<_> = (0..ATTEMPTS).map(|_| self.options_take()).collect();
        let best = times.into_iter().flatten().min();
        best.filter(|&best| best < PROMPT)
            .unwrap_or_else(|| panic!("{after}: OPTIONS took {best:?}: {}", self.last_words()))
    }

    fn options_take(&self) -> Option<Duration> {
        let socket = stranger(1);
        socket.set_read_timeout(Some(2 * PROMPT)).unwrap();
        let began = Instant::now();
        socket.send_to(&message("OPTIONS", &socket, self.udp(), ""), self.udp()).unwrap();
        let mut buffer = [0; 4096];
        let (length, _) = socket.recv_from(&mut buffer).ok()?;
        buffer[..length].starts_with(b"SIP/2.0 200").then(|| began.elapsed())
    }

    pub(crate) fn last_words(&self) -> String {
        let lines = self.gateway.lines();
        format!("{}:\n  {}", self.name, lines[lines.len().saturating_sub(15)..].join("\n  "))
    }

    /// Whether descriptors and threads are as they were when nothing had happened yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_use() == self.idle
    }

    fn in_use(&self) -> (usize, usize) {
        (self.gateway.open_files(), self.gateway.threads())
    }

    /// The same, after a while.
    pub(crate) fn assert_returned(&self, after: &str, within: Duration) {
        let until = Instant::now() + within;
        while !self.is_idle() {
            let found = self.in_use();
            assert!(Instant::now() < until, "{after}: {found:?}, not {:?}: {}", self.idle, self.last_words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The UDP ports of the process, by /proc: SIP's and those of all media.
    pub(crate) fn udp_ports(&self) -> Vec<u16> {
        let links = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().flatten();
        let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        let inodes: Vec<String> = targets
            .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        // Sockets towards Galene are of both families at once.
        let table = ["/proc/net/udp", "/proc/net/udp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
        let port = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_ours = inodes.iter().any(|inode| Some(&inode.as_str()) == fields.get(9));
            is_ours.then(|| u16::from_str_radix(fields[1].rsplit_once(':')?.1, 16).ok()).flatten()
        };
        table.iter().flat_map(|table| table.lines().skip(1)).filter_map(port).collect()
    }

    /// The same without SIP's.
    pub(crate) fn media_ports(&self) -> Vec<SocketAddr> {
        let ports = self.udp_ports().into_iter().filter(|&port| port != self.udp().port());
        ports.map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
    }

    pub(crate) fn setup(&self, name: &str) -> TelephoneSetup {
        TelephoneSetup::new(&self.gateway.uri()).from(&from(name))
    }
}

/// Everything that the attacks meet.
pub(crate) struct Ground {
    pub(crate) open: Target,
    pub(crate) guarded: Target,
    pub(crate) room: RoomServer,
    pub(crate) member: Option<Crowd>,
    warble: Arc<[i16]>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let room = RoomServer::start(RoomConfig::new(vec![GroupConfig::open(GROUP)])).unwrap();
        let url = room.group_url(GROUP);
        let calls = GUARDED_CALLS.to_string();
        let guests = ["-sip-guest-user", "door", "-sip-guest-password", "open sesame"];
        let guarded = [&guests[..], &["-sip-allow", "127.0.0.1", "-max-calls", &calls]].concat();
        let (open, guarded) = (Target::start("open", &url, &[]), Target::start("guarded", &url, &guarded));
        let speech = Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0)));
        let config = MemberConfig {
            speech,
            levels_every: Some(Duration::from_millis(200)),
            ..MemberConfig::new(&url, "Member")
        };
        let mut member = Crowd::one(config).unwrap();
        member
            .events
            .wait_for(PATIENCE, |event| event.kind == MemberEventKind::SpeechBegins)
            .expect("the member speaks");
        Self { open, guarded, room, member: Some(member), warble: Pcm::warble(RATE_HZ, 5.0).samples.into() }
    }

    /// A call of the open gateway that is heard both ways.
    pub(crate) fn heard_call(&mut self, name: &str) -> Telephone {
        let telephone = self.call(name);
        self.assert_heard(&telephone, name);
        telephone
    }

    /// A call of the open gateway that is answered and speaks.
    pub(crate) fn call(&self, name: &str) -> Telephone {
        let telephone = Telephone::call(self.open.setup(name)).unwrap();
        telephone.speak(Arc::clone(&self.warble), true);
        telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{name}: {why}: {}", self.open.last_words()));
        telephone
    }

    /// The telephone hears the member now, and the member the telephone.
    pub(crate) fn assert_heard(&mut self, telephone: &Telephone, name: &str) {
        while telephone.next_event(Duration::ZERO).is_some() {}
        let member = self.member.as_mut().unwrap();
        member.events.forget();
        let words = self.open.last_words();
        telephone
            .wait_heard(PATIENCE, AUDIBLE_DBFS)
            .unwrap_or_else(|why| panic!("{name} hears nothing: {why}: {words}"));
        let is_heard = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Level { username, dbfs, .. } if username == name && *dbfs > AUDIBLE_DBFS);
        let heard = member.events.wait_for(PATIENCE, |event| is_heard(&event.kind));
        assert!(heard.is_some(), "{name} is not heard in the room: {words}");
    }

    /// After a family of attacks: a fresh call, and nothing left of it all at the open gateway.
    pub(crate) fn assert_well(&mut self, family: &str) {
        drop(self.heard_call(family));
        self.open.assert_returned(family, RETURN);
        let mut left = names(&self.room);
        left.retain(|name| name != "Member" && !name.starts_with("Flood"));
        assert!(left.is_empty(), "{family}: {left:?} in the room");
    }
}

/// A socket of somebody at 127.0.0.`host`.
pub(crate) fn stranger(host: u8) -> UdpSocket {
    let socket = UdpSocket::bind((IpAddr::from([127, 0, 0, host]), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A word that no other message has.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(1);
    format!("{}x{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed))
}

/// A request outside any dialog, with more header lines.
pub(crate) fn message(method: &str, socket: &UdpSocket, to: SocketAddr, more: &str) -> Vec<u8> {
    request(method, &unique(), socket, to, more, "")
}

/// What a telephone would offer.
pub(crate) const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n";

/// The same with its own name for the transaction and the call, and a body of SDP.
pub(crate) fn request(method: &str, word: &str, socket: &UdpSocket, to: SocketAddr, more: &str, body: &str) -> Vec<u8> {
    let (local, length) = (socket.local_addr().unwrap(), body.len());
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} sip:6002@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{word};rport\r\nMax-Forwards: 70\r\n\
         From: \"Flood\" <sip:flood@{local}>;tag={word}\r\nTo: <sip:6002@{to}>\r\nCall-ID: {word}\r\nCSeq: 1 {method}\r\n\
         Contact: <sip:flood@{local}>\r\n{more}{kind}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A little more than a socket's buffer takes at once is lost, so that floods pause to be heard.
pub(crate) fn paced(index: usize) {
    if index % 50 == 49 {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A connection to a listener from 127.0.0.`host`.
pub(crate) fn connect(host: u8, to: SocketAddr) -> TcpStream {
    let socket = nix_socket(host);
    socket.connect_timeout(&to.into(), PATIENCE).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn nix_socket(host: u8) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
    socket
}
