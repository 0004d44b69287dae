//! What a room server is told before it starts: its groups, and the knobs that make it a judge.
//!
//! The defaults are the real server's behaviour on a loopback machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Everything about one room server.
#[derive(Clone, Debug)]
pub struct RoomConfig {
    /// Where HTTP and WebSocket are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address in every media candidate.
    pub media_address: IpAddr,
    /// Serves `https` and `wss` with a certificate that nobody knows.
    pub tls: bool,
    /// All peer connections on one UDP port, looked up by source address first and by ufrag second, as Galene does
    /// with `-udp-range PORT`: a source address that comes again while its old connection lives reaches the old one.
    pub one_port: bool,
    /// The groups, by name.
    pub groups: Vec<GroupConfig>,
    /// From an up stream's first packet until others hear of it.
    pub publish_delay: Duration,
    /// Whoever comes in between a stream's offer and its first packet is not shown the stream, until it repeats its
    /// `request`. The real server has this race (it plans with the listeners of that moment); it is off by default, so
    /// that a test meets it only where it looks for it.
    pub overlooks_newcomers: bool,
    /// How long this side waits, from the start of ICE, before it settles for a pair with such a remote candidate.
    pub nomination_waits: NominationWaits,
    /// When the server's own candidates are told.
    pub candidates: Candidates,
    /// How many packets of a stream can be asked for again by NACK; 0 answers none.
    pub cache_packets: usize,
    /// Silence of a client after which it gets a `ping`.
    pub ping_after: Duration,
    /// Silence of a client after which it is thrown out.
    pub dead_after: Duration,
    /// How often the two above are looked at.
    pub liveness_tick: Duration,
    /// A client whose connection breaks without a goodbye lingers in the roster and keeps its streams for so long, as
    /// if the network had swallowed the news.
    pub ghost: Option<Duration>,
    /// Media on its way down is lost and delayed like this.
    pub down_impairment: Impairment,
    /// `iceServers` to hand out, as JSON.
    pub ice_servers: serde_json::Value,
    /// Hands out `iceTransportPolicy: "relay"`.
    pub relay_only: bool,
}

impl RoomConfig {
    /// A loopback server with these groups.
    pub fn new(groups: Vec<GroupConfig>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            media_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            tls: false,
            one_port: false,
            groups,
            publish_delay: Duration::from_millis(200),
            overlooks_newcomers: false,
            nomination_waits: NominationWaits::default(),
            candidates: Candidates::AfterDescription,
            cache_packets: 24,
            ping_after: Duration::from_secs(20),
            dead_after: Duration::from_secs(45),
            liveness_tick: Duration::from_secs(10),
            ghost: None,
            down_impairment: Impairment::default(),
            ice_servers: serde_json::Value::Array(Vec::new()),
            relay_only: false,
        }
    }
}

/// pion's patience as the controlling agent, by the kind of the remote candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NominationWaits {
    /// Told in a description or by `ice`.
    pub host: Duration,
    /// Told with type `srflx`.
    pub server_reflexive: Duration,
    /// Seen as the source of a check, and not told.
    pub peer_reflexive: Duration,
    /// Told with type `relay`.
    pub relayed: Duration,
    /// A candidate that is told after its check stays peer-reflexive, as in older versions; pion 4.3 follows
    /// RFC 8838 §11.4 and takes it for what it is told to be.
    pub peer_reflexive_for_good: bool,
}

impl Default for NominationWaits {
    fn default() -> Self {
        Self {
            host: Duration::ZERO,
            server_reflexive: Duration::from_millis(500),
            peer_reflexive: Duration::from_millis(1000),
            relayed: Duration::from_millis(2000),
            peer_reflexive_for_good: false,
        }
    }
}

/// When the server's candidates are told; a client must take all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// Inside the description.
    InDescription,
    /// By `ice` messages after the offer or answer.
    AfterDescription,
    /// By `ice` messages before the offer or answer that they belong to.
    BeforeDescription,
}

/// What happens to media packets on their way to listeners, the same for all of them in a seeded order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Lost packets in a thousand.
    pub loss_per_mille: u16,
    /// Each packet is late by an amount drawn evenly between zero and this.
    pub jitter: Duration,
    /// Seed of both.
    pub seed: u64,
}

/// One group.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Its name, as in the URL.
    pub name: String,
    /// A longer name to show, may be empty.
    pub display_name: String,
    /// Users with a password of their own.
    pub users: Vec<UserConfig>,
    /// What anybody else may do, if anybody else may come in.
    pub wildcard: Option<WildcardConfig>,
    /// Tokens that open the group.
    pub tokens: Vec<TokenConfig>,
    /// With `Some`, only operators come in; the text is the reason (empty for Galene's own).
    pub locked: Option<String>,
    /// How many may be inside, operators apart.
    pub max_clients: Option<usize>,
    /// The audio codecs that may be published.
    pub codecs: Vec<AudioCodec>,
    /// With rules, the status names an `authServer`, which is this server too.
    pub auth: Option<Vec<AuthRule>>,
    /// Sends everybody to another group's URL.
    pub redirect: Option<String>,
    /// Throws everybody but operators out when the last operator leaves, and keeps them out.
    pub autokick: bool,
}

impl GroupConfig {
    /// A group that anyone may enter with any password, to listen, speak and chat.
    pub fn open(name: &str) -> Self {
        let wildcard = WildcardConfig { password: None, permissions: Permissions::PRESENT.to_vec() };
        Self { wildcard: Some(wildcard), ..Self::closed(name) }
    }

    /// A group that nobody may enter until users, tokens or a wildcard are added.
    pub fn closed(name: &str) -> Self {
        Self {
            name: name.into(),
            display_name: String::new(),
            users: Vec::new(),
            wildcard: None,
            tokens: Vec::new(),
            locked: None,
            max_clients: None,
            codecs: vec![AudioCodec::Opus],
            auth: None,
            redirect: None,
            autokick: false,
        }
    }

    /// Adds a user with a password.
    pub fn user(mut self, name: &str, password: &str, permissions: &[&'static str]) -> Self {
        let (name, password) = (name.into(), password.into());
        self.users.push(UserConfig { name, password, permissions: permissions.to_vec() });
        self
    }
}

/// The sets of permissions that Galene has names for.
pub struct Permissions;

impl Permissions {
    /// Everything.
    pub const OP: &'static [&'static str] = &["op", "present", "message", "caption", "token"];
    /// Speaking and chatting.
    pub const PRESENT: &'static [&'static str] = &["present", "message"];
    /// Chatting.
    pub const MESSAGE: &'static [&'static str] = &["message"];
    /// Listening alone.
    pub const OBSERVE: &'static [&'static str] = &[];
}

/// A configured user.
#[derive(Clone, Debug)]
pub struct UserConfig {
    /// The name, which others can then not take.
    pub name: String,
    /// The password.
    pub password: String,
    /// What the user may do.
    pub permissions: Vec<&'static str>,
}

/// What users without an entry may do.
#[derive(Clone, Debug)]
pub struct WildcardConfig {
    /// The password; `None` takes any.
    pub password: Option<String>,
    /// What they may do.
    pub permissions: Vec<&'static str>,
}

/// A token.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The token itself.
    pub token: String,
    /// The name that it fixes.
    pub username: Option<String>,
    /// What its bearer may do.
    pub permissions: Vec<&'static str>,
}

/// What the authorisation server says to a user.
#[derive(Clone, Debug)]
pub struct AuthRule {
    /// The user; anyone not named is refused.
    pub username: String,
    /// The password that must be given, else refused.
    pub password: String,
    /// The answer to the right password.
    pub verdict: AuthVerdict,
}

/// An authorisation server's answer.
#[derive(Clone, Debug)]
pub enum AuthVerdict {
    /// 200 with a token that carries the name and these permissions.
    Token(Vec<&'static str>),
    /// 204: the group's own passwords decide.
    UsePassword,
    /// 403.
    Refuse,
}

/// An audio codec that Galene knows, with the one payload type that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioCodec {
    /// 111.
    Opus,
    /// 9.
    G722,
    /// 0.
    Pcmu,
    /// 8.
    Pcma,
}

impl AudioCodec {
    /// All of them, in Galene's order of preference.
    pub const ALL: [Self; 4] = [Self::Opus, Self::G722, Self::Pcmu, Self::Pcma];

    /// Galene's payload type for it.
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Opus => 111,
            Self::G722 => 9,
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// Its encoding name in a description.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::G722 => "G722",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }
}
