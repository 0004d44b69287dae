//! What goes into the user agent and what comes out of it: the words shared with `gateway` and `io`.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::auth::Credentials;
use super::connections::Connections;
use super::passed::masked;
pub use super::passed::{Direction, Passed};
use crate::wire::sip::{Headers, Transport};
use crate::wire::uri::{Host, SipUri, Uri};

/// One call, from its INVITE on. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(pub u64);

/// One connection over TCP or TLS. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionKey {
    /// One that the user agent has asked for.
    Ours(u64),
    /// One that came in, numbered by `io`.
    Theirs(u64),
}

/// Settings of the user agent.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Who we are: `sip:user@domain`.
    pub account: Account,
    /// Where we register; `None` means that we do not, and take every call that `guests` does not hinder.
    pub registrar: Option<Registrar>,
    /// Addresses whose calls are taken although the Request-URI does not carry our token.
    pub allow: Vec<IpAddr>,
    /// Calls may be transferred (REFER) to anyone, not only within the registrar's domain.
    pub refer_anywhere: bool,
    /// What everyone else has to prove to know before a call is taken; `None` refuses them.
    pub guests: Option<Credentials>,
    /// Who we are whatever our address, `urn:uuid:…` (RFC 5626 §4.1); see [`instance_id`](super::instance_id).
    pub instance: Option<String>,
    /// Whether callers are given a URI that the registrar has made (RFC 5627) in the place of our address.
    pub gruu: bool,
    /// What others beyond a NAT reach us at, where no registrar tells it.
    pub public_address: Option<IpAddr>,
    /// The bound sockets; their addresses may be unspecified.
    pub local: Vec<SocketAddr>,
    /// Name and version for the `User-Agent` and `Server` headers.
    pub user_agent: String,
}

/// The SIP account.
#[derive(Clone, Debug)]
pub struct Account {
    /// The address of record.
    pub uri: Uri,
    /// Name and password for the digest; without them a challenge ends the attempt.
    pub credentials: Option<Credentials>,
}

/// Where to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrar {
    /// The server that is spoken to: the registrar itself or the proxy before it.
    pub target: Target,
    /// The proxy as it goes into a Route header, if there is one.
    pub proxy: Option<SipUri>,
}

/// A server as a URI names it: what finding its addresses begins with (RFC 3263 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// The port, if one was given: then there are no SRV records to ask for.
    pub port: Option<u16>,
    /// The transport, if one was given: then there are no NAPTR records to ask for.
    pub transport: Option<Transport>,
    /// `sips:`: nothing but TLS will do.
    pub is_secure: bool,
}

impl Target {
    /// The server that `uri` leads to; `None` if its transport is none of ours.
    pub fn of(uri: &SipUri) -> Option<Self> {
        let parameter = uri.parameters.value("transport");
        let transport = match &parameter {
            Some(text) => Some(Transport::from_parameter(text)?),
            None => None,
        };
        // `sips:` over TCP is TLS (RFC 3261 §26.2.2); over UDP it is nothing.
        let transport = match transport {
            Some(Transport::Udp) if uri.is_secure => return None,
            Some(Transport::Tcp) if uri.is_secure => Some(Transport::Tls),
            other => other,
        };
        let forced = uri.parameters.value("maddr").and_then(|maddr| Host::parse(&maddr).ok());
        let host = forced.unwrap_or_else(|| uri.host.clone()).to_string();
        Some(Self { host, port: uri.port, transport, is_secure: uri.is_secure })
    }

    /// The transport and the address, if the host is an address itself (RFC 3263 §4.1).
    pub fn literal(&self) -> Option<(Transport, SocketAddr)> {
        let address = Host::parse(&self.host).ok()?.address()?;
        let transport = self.transport_or_default();
        Some((transport, SocketAddr::new(address, self.port.unwrap_or_else(|| transport.default_port()))))
    }

    /// The transport where nothing else is known of it.
    pub fn transport_or_default(&self) -> Transport {
        self.transport.unwrap_or(if self.is_secure { Transport::Tls } else { Transport::Udp })
    }
}

/// A resolved address together with the address the system would send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// How to send.
    pub transport: Transport,
    /// Where to send.
    pub remote: SocketAddr,
    /// Our own address on the way there, for `Via` and `Contact`.
    pub local: IpAddr,
}

/// What the user agent is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A datagram from the network.
    Datagram {
        /// The address it was sent to.
        local: SocketAddr,
        /// The address it came from.
        remote: SocketAddr,
        /// All of it.
        bytes: &'a [u8],
    },
    /// Somebody has opened a connection to one of our listeners.
    Accepted {
        /// Its key, [`ConnectionKey::Theirs`].
        connection: ConnectionKey,
        /// TCP or TLS, whose handshake may still be under way.
        transport: Transport,
        /// Our end.
        local: SocketAddr,
        /// The other one.
        remote: SocketAddr,
    },
    /// [`ConnectionCommand::Open`] has succeeded.
    Connected {
        /// As asked.
        connection: ConnectionKey,
        /// Our end.
        local: SocketAddr,
    },
    /// Bytes have arrived on a connection.
    Bytes {
        /// Which.
        connection: ConnectionKey,
        /// Any part of a stream of messages.
        bytes: &'a [u8],
    },
    /// A connection has ended, or could not be opened.
    Closed {
        /// Which.
        connection: ConnectionKey,
        /// Why, in plain words.
        error: String,
    },
    /// The machine has slept, and our time with it, but not the registrar's.
    Woken,
    /// The answer to [`Output::Resolve`], best address first.
    Resolved {
        /// As asked.
        target: Target,
        /// At least one for a name that exists.
        routes: Vec<Route>,
        /// For how long the answer may be used.
        lifetime: Duration,
    },
    /// [`Output::Resolve`] came to nothing.
    Unresolved {
        /// As asked.
        target: Target,
        /// Why, in plain words.
        error: String,
    },
    /// The network of this machine has changed.
    Network {
        /// Addresses that it has not any more.
        gone: &'a [IpAddr],
        /// There is an address or a way that was not there before.
        has_new: bool,
    },
}

/// What the user agent wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Send {
        /// From this address; from any socket of the right family if `None`.
        local: Option<SocketAddr>,
        /// To this one.
        remote: SocketAddr,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Do something to a connection.
    Connection(ConnectionCommand),
    /// Find a server (RFC 3263), then give [`Input::Resolved`] or [`Input::Unresolved`].
    Resolve(Target),
    /// Something the gateway must know.
    Event(Event),
    /// A message has come or is about to go; for ladders and captures alone.
    Passed(Passed),
}

/// What to do to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionCommand {
    /// Open it, then give [`Input::Connected`] or [`Input::Closed`].
    Open {
        /// Its key, [`ConnectionKey::Ours`].
        connection: ConnectionKey,
        /// Where to.
        remote: SocketAddr,
        /// Over TLS, with a server that proves to have this name; `None` for TCP.
        server_name: Option<String>,
    },
    /// Send bytes.
    Write {
        /// By this connection.
        connection: ConnectionKey,
        /// One message, or line ends.
        bytes: Vec<u8>,
    },
    /// Close it once all that was written is out. Nothing more needs to be said of it.
    Close {
        /// Which.
        connection: ConnectionKey,
    },
}

/// Who calls, by the From header alone: no other header is ever shown to a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The display name, if there is one.
    pub display_name: Option<String>,
    /// User part of the URI, or the number of a `tel:` URI, unescaped.
    pub user: Option<String>,
    /// Host part of the URI.
    pub host: Option<String>,
    /// The URI as written.
    pub uri: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new call; 100 has been sent. Answer it with `ring`, `answer` or `reject`.
    Invite {
        /// Its key.
        call: CallKey,
        /// Who calls.
        caller: Caller,
        /// The offer; without one `answer` carries ours, and the caller's answer comes as [`Event::Answer`].
        offer: Option<Vec<u8>>,
        /// The call whose place this one is to take (RFC 3891): `take_over` or `reject`.
        replaces: Option<CallKey>,
        /// The address of ours that was called.
        local: SocketAddr,
        /// Where the INVITE came from.
        remote: SocketAddr,
        /// Nobody on the way reads what it says: it came over TLS.
        is_confidential: bool,
    },
    /// A new offer in the call (re-INVITE, UPDATE, PRACK), or the wish for ours (`None`): `accept_offer` or `refuse_offer`.
    Offer {
        /// The call.
        call: CallKey,
        /// The session description offered.
        sdp: Option<Vec<u8>>,
    },
    /// The caller's answer to our offer.
    Answer {
        /// The call.
        call: CallKey,
        /// The session description.
        sdp: Vec<u8>,
    },
    /// The caller pressed a key, told by INFO.
    Key {
        /// The call.
        call: CallKey,
        /// `0` to `9`, `*`, `#`, `A` to `D`.
        key: char,
        /// For how long; 0 if that was not said.
        duration_ms: u16,
    },
    /// The ACK for our 200 is in.
    Acknowledged {
        /// The call.
        call: CallKey,
    },
    /// The caller's telephone hands its caller on to `target` (REFER): `place` with an offer of a new telephone's.
    Transfer {
        /// The call.
        call: CallKey,
        /// Whom we are to call, for the log.
        target: String,
    },
    /// The telephone that transfers the call has hung up; the caller goes on without one until the target answers.
    Parted {
        /// The call.
        call: CallKey,
    },
    /// The target has answered, and is the call's telephone from now on.
    Transferred {
        /// The call.
        call: CallKey,
        /// Its answer to the offer of `place`.
        sdp: Vec<u8>,
    },
    /// The target did not answer; the call goes on as it was, or [`Event::Ended`] follows.
    TransferFailed {
        /// The call.
        call: CallKey,
        /// The SIP status.
        status: u16,
    },
    /// The call is over and its key dead. Not given for what the gateway itself ended by `reject` or `hang_up`.
    Ended {
        /// The call.
        call: CallKey,
        /// Why.
        why: EndReason,
    },
    /// The registrar has our address.
    Registered {
        /// For how long.
        expires_s: u32,
        /// Our address as seen by the registrar, where it differs from our own.
        public: Option<SocketAddr>,
    },
    /// An attempt to register failed; another follows.
    RegistrationFailed {
        /// One plain line with the remedy.
        text: String,
        /// When the next attempt comes.
        retry_in: Duration,
    },
    /// The registrar has dropped our address, after `shut_down`.
    Unregistered,
    /// A request from `remote` was not let in: it neither carried our token nor came from the registrar or an allowed address.
    Stranger {
        /// Where it came from.
        remote: SocketAddr,
        /// What it got.
        got: StrangerGot,
    },
}

/// What a stranger gets who wants to call or to register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrangerGot {
    /// 401 for the guests' password: whoever knows it comes again with it.
    Asked,
    /// 403.
    Refused,
    /// 401 again, after a wrong answer. It was asked at this address, so that nobody has forged it.
    Mistaken,
    /// 403 for too many of those.
    Locked,
}

/// How the registration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not begun, or taken back.
    Off,
    /// The first attempt is under way.
    Trying,
    /// The registrar has our address.
    Registered {
        /// Our address as it sees us, where that differs from our own.
        public: Option<SocketAddr>,
    },
    /// The last attempt failed; the next one is under way or waits.
    Failed {
        /// One plain line with the remedy.
        why: String,
    },
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("not registered"),
            Self::Trying => f.write_str("registering"),
            Self::Registered { public: None } => f.write_str("registered"),
            Self::Registered { public: Some(public) } => write!(f, "registered; our public address is {public}"),
            Self::Failed { why } => write!(f, "not registered: {why}"),
        }
    }
}

/// Why a call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The caller hung up.
    Bye,
    /// The caller gave up before the answer.
    Cancelled,
    /// Our 200 was never acknowledged; a BYE has been sent.
    NoAck,
    /// The ACK brought no answer to our offer; a BYE has been sent.
    NoAnswer,
    /// A provisional response that must be acknowledged never was; the INVITE has got 504.
    NoPrack,
    /// The session timer ran out, or the caller denied the call when it was asked; a BYE has been sent.
    Lapsed,
    /// The telephone denied the call or said nothing when it was asked; a BYE has been sent.
    Silent,
    /// [`shut_down`](super::endpoint::Endpoint::shut_down) ended it.
    ShutDown,
}

/// How to turn a call away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// SIP status, 400 to 699; anything else is taken as 500.
    pub status: u16,
    /// Reason phrase; the standard one if empty.
    pub reason: String,
    /// Text of a `Warning` header (code 399).
    pub warning: Option<String>,
    /// Seconds for a `Retry-After` header.
    pub retry_after_s: Option<u32>,
}

/// A message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// How it travels.
    pub(crate) transport: Transport,
    /// Our socket's address, if it is known.
    pub(crate) local: Option<SocketAddr>,
    /// The peer's.
    pub(crate) remote: SocketAddr,
    /// The connection to prefer, as long as it is there.
    pub(crate) connection: Option<ConnectionKey>,
}

impl Path {
    /// The way of a datagram.
    pub(crate) const fn udp(local: Option<SocketAddr>, remote: SocketAddr) -> Self {
        Self { transport: Transport::Udp, local, remote, connection: None }
    }

    /// The same with the port that a response has to go to if the connection is gone by then (RFC 3261 §18.2.2).
    pub(crate) fn back_to(self, request: &Headers) -> Self {
        let port = request.via().ok().map(|via| via.port_or_default()).filter(|_| self.connection.is_some());
        Self { remote: SocketAddr::new(self.remote.ip(), port.unwrap_or_else(|| self.remote.port())), ..self }
    }
}

/// What waits for `poll_output`, and the connections that messages go by.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) queue: VecDeque<Output>,
    pub(crate) connections: Connections,
    /// Whether messages are told of as they pass, and what is masked in them: who knows this token may call.
    told_without: Option<String>,
}

impl Outbox {
    /// One that tells of messages as they pass, without ever showing `token`.
    pub(crate) fn telling(token: String) -> Self {
        Self { told_without: Some(token), ..Self::default() }
    }

    /// Tells that a message passes along `path`.
    pub(crate) fn tell(&mut self, direction: Direction, path: Path, bytes: &[u8]) {
        let Some(token) = &self.told_without else { return };
        let Path { transport, local, remote, connection } = path;
        let transport = connection.and_then(|one| self.connections.transport(one)).unwrap_or(transport);
        let bytes = masked(bytes, token);
        self.queue.push_back(Output::Passed(Passed { direction, transport, local, remote, bytes }));
    }

    /// Sends a response, or anything else that goes back the way a request came.
    pub(crate) fn send(&mut self, path: Path, bytes: Vec<u8>) {
        self.send_request(path, bytes, None);
    }

    /// Sends a request. `server_name` is whom a new connection over TLS has to lead to. The connection that it takes, or
    /// `None` if it takes none.
    pub(crate) fn send_request(
        &mut self,
        path: Path,
        bytes: Vec<u8>,
        server_name: Option<&str>,
    ) -> Option<ConnectionKey> {
        // Line ends and STUN keep a way open and say nothing.
        if bytes.first().is_some_and(|first| first.is_ascii_alphabetic()) {
            self.tell(Direction::Sent, path, &bytes);
        }
        if path.transport == Transport::Udp {
            self.queue.push_back(Output::Send { local: path.local, remote: path.remote, bytes });
            return None;
        }
        self.connections.send(path, bytes, server_name, &mut self.queue)
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }

    pub(crate) fn resolve(&mut self, target: Target) {
        self.queue.push_back(Output::Resolve(target));
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }
}
