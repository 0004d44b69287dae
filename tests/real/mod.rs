//! What the tests with real parts share: a room, the gateway's program, and telephones.
//!
//! Every part runs on 127.0.0.1 on free ports and ends with the test. Tests of one file run one at a time, since
//! they measure times.

#![allow(dead_code, reason = "each test file uses its own part of this")]

pub(crate) mod open_network;

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lab::gateway::Gateway;
use lab::program::{Folder, free_tcp_port, free_udp_port};
use lab::room::{GroupConfig, Permissions, RoomConfig, RoomEvent, RoomEventKind, RoomServer};
use lab::telephone::{Telephone, TelephoneSetup};

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Longer than the gateway remembers a call that has ended (64·T1, RFC 3261 §17).
pub(crate) const TRANSACTIONS_LINGER: Duration = Duration::from_secs(34);
/// What is louder than this was said by somebody.
pub(crate) const AUDIBLE_DBFS: f64 = -45.0;
/// The group of all tests.
pub(crate) const GROUP: &str = "test";

static ALONE: Mutex<()> = Mutex::new(());

/// Held by a test as long as it runs.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    // A test that failed leaves nothing behind that the next one could see.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Programs that are started from now on have small pages alone: with huge ones what grows by a KiB grows by nothing or by 2 MB.
pub(crate) fn measure_memory_finely() {
    // SAFETY: a switch of this process's, which its children inherit; it takes no pointers.
    let set = unsafe { nix::libc::prctl(nix::libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    assert_eq!(set, 0, "huge pages cannot be switched off");
}

/// The program under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_galene-sip"))
}

/// A room server that lets no test pass in which a client broke the protocol.
pub(crate) struct Judge(RoomServer);

impl Judge {
    pub(crate) fn start(config: RoomConfig) -> Self {
        Self(RoomServer::start(config).expect("a room on 127.0.0.1"))
    }
}

impl Deref for Judge {
    type Target = RoomServer;

    fn deref(&self) -> &RoomServer {
        &self.0
    }
}

impl DerefMut for Judge {
    fn deref_mut(&mut self) -> &mut RoomServer {
        &mut self.0
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let is_error = |event: &&RoomEvent| matches!(event.kind, RoomEventKind::ProtocolError(_));
        let errors: Vec<String> = self.0.events.all().iter().filter(is_error).map(RoomEvent::to_json).collect();
        assert!(errors.is_empty() || std::thread::panicking(), "{errors:#?}");
    }
}

/// A room server and a gateway that calls into it.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) room: Judge,
}

impl World {
    /// An open group.
    pub(crate) fn new() -> Self {
        Self::with(GroupConfig::open(GROUP), &[])
    }

    /// A group of one's own and more flags for the gateway.
    pub(crate) fn with(group: GroupConfig, flags: &[&str]) -> Self {
        Self::in_room(RoomConfig::new(vec![group]), flags)
    }

    /// A room server of one's own, with the group `GROUP` in it.
    pub(crate) fn in_room(config: RoomConfig, flags: &[&str]) -> Self {
        let room = Judge::start(config);
        let gateway = Gateway::start(binary(), &room.group_url(GROUP), flags).expect("a gateway that answers");
        // It answers before it has asked about its group, which takes a thread and a connection for a moment: who counts
        // those begins after it.
        let has_asked =
            |line: &String| line.contains("Galene's group") || line.contains("calls cannot be answered now");
        eventually("the group has been asked about", || {
            gateway.lines().iter().any(has_asked) && !gateway.thread_names().iter().any(|name| name == "blocking")
        });
        Self { gateway, room }
    }

    /// A telephone that calls the gateway.
    pub(crate) fn call(&self, from: &str) -> Telephone {
        Telephone::call(self.setup(from)).expect("a telephone on 127.0.0.1")
    }

    /// The same, to be changed before it calls.
    pub(crate) fn setup(&self, from: &str) -> TelephoneSetup {
        TelephoneSetup::new(&self.gateway.uri()).from(from)
    }

    /// Waits for an event of the room about `username`, among those before too.
    pub(crate) fn room_says(&mut self, username: &str, is_wanted: impl Fn(&RoomEventKind) -> bool) -> RoomEvent {
        let event =
            self.room.events.wait_for(PATIENCE, |event| event.client.username == username && is_wanted(&event.kind));
        event.unwrap_or_else(|| {
            let events: Vec<String> = self.room.events.all().iter().map(RoomEvent::to_json).collect();
            let log = self.gateway.lines();
            panic!(
                "the room did not see that of {username}:\n  {}\ngateway:\n  {}",
                events.join("\n  "),
                log.join("\n  ")
            )
        })
    }

    /// The names in the room now.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.room)
    }
}

/// A group to call into, the embedded one or that of `GALENE_URL`, and a gateway for it.
pub(crate) struct Place {
    pub(crate) gateway: Gateway,
    url: String,
    _room: Option<Judge>,
}

impl Place {
    /// An open group whose operator is `op` with the password `op`.
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// The same with more flags for the gateway.
    pub(crate) fn with(flags: &[&str]) -> Self {
        let (url, room) = match std::env::var("GALENE_URL") {
            Ok(url) => (url, None),
            Err(_) => {
                let group = GroupConfig::open(GROUP).user("op", "op", Permissions::OP);
                let room = Judge::start(RoomConfig::new(vec![group]));
                (room.group_url(GROUP), Some(room))
            }
        };
        // A Galene on the same machine mostly has a certificate of its own making.
        let gateway =
            Gateway::start(binary(), &url, &[&["-insecure"], flags].concat()).expect("a gateway that answers");
        Self { gateway, url, _room: room }
    }

    /// The group's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A telephone that calls the gateway.
    pub(crate) fn call(&self, from: &str) -> Telephone {
        Telephone::call(self.setup(from)).expect("a telephone on 127.0.0.1")
    }

    /// The same, to be changed before it calls.
    pub(crate) fn setup(&self, from: &str) -> TelephoneSetup {
        TelephoneSetup::new(&self.gateway.uri()).from(from)
    }
}

/// A room server with the open group `GROUP`.
pub(crate) fn room() -> RoomServer {
    RoomServer::start(RoomConfig::new(vec![GroupConfig::open(GROUP)])).unwrap()
}

/// The names in a room now.
pub(crate) fn names(room: &RoomServer) -> Vec<String> {
    room.snapshot().clients.into_iter().map(|client| client.name.username).collect()
}

/// A gateway on a free UDP port of 127.0.0.1 that registers `account`, a SIP URI, with a real registrar. Returns at once.
pub(crate) fn register(account: &str, password: &str, flags: &[&str], group_url: &str) -> Gateway {
    let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
    let listen = address.to_string();
    let mut arguments = vec!["-sip", account, "-sip-password", password, "-sip-udp-address", &listen, "-debug"];
    arguments.extend(flags);
    arguments.push(group_url);
    Gateway::launch(binary(), &arguments, address).unwrap()
}

/// Where the gateway listens for TLS: a free port of 127.0.0.1, with a certificate of its own making.
pub(crate) struct TlsListener {
    address: String,
    certificate: String,
    key: String,
    _folder: Folder,
}

impl TlsListener {
    pub(crate) fn new() -> Self {
        let folder = Folder::new().unwrap();
        let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let write = |name, pem: &str| folder.write(name, pem).unwrap().to_str().unwrap().to_owned();
        let certificate = write("certificate.pem", &signed.cert.pem());
        let key = write("key.pem", &signed.signing_key.serialize_pem());
        let address = format!("127.0.0.1:{}", free_tcp_port().unwrap());
        Self { address, certificate, key, _folder: folder }
    }

    /// Where to call it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What the gateway is told.
    pub(crate) fn flags(&self) -> [&str; 6] {
        ["-sip-tls-address", &self.address, "-sip-tls-certificate", &self.certificate, "-sip-tls-key", &self.key]
    }
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Holds if one of a few attempts goes well: a fault of the gateway's shows every time, what a busy machine spoils does not.
pub(crate) fn assert_once(what: &str, mut attempt: impl FnMut() -> Result<(), String>) {
    const ATTEMPTS: usize = 3;
    let mut failures = Vec::new();
    while failures.len() < ATTEMPTS {
        match attempt() {
            Ok(()) => return,
            Err(why) => failures.push(why),
        }
    }
    panic!("{what}: {failures:#?}");
}

/// The name in the room of somebody who calls as `"Ada" <sip:100@…>`.
pub(crate) fn from(name: &str) -> String {
    format!("\"{name}\" <sip:100@127.0.0.1>")
}
