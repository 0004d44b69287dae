//! What goes into the user agent and what comes out of it: the words shared with `gateway` and `io`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::auth::Credentials;
use crate::wire::uri::Uri;

/// One call, from its INVITE on. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(pub u64);

/// Settings of the user agent.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Who we are: `sip:user@domain`.
    pub account: Account,
    /// Where we register; `None` means that we do not, and take every call.
    pub registrar: Option<Registrar>,
    /// Addresses whose calls are taken although the Request-URI does not carry our token.
    pub allow: Vec<IpAddr>,
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
    /// Host name or address.
    pub host: String,
    /// The port, if one was given; else `io` may ask for SRV records.
    pub port: Option<u16>,
}

/// A resolved address together with the address the system would send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
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
    /// The answer to [`Output::Resolve`], best address first.
    Resolved {
        /// As asked.
        host: String,
        /// As asked.
        port: Option<u16>,
        /// At least one for a name that exists.
        routes: Vec<Route>,
    },
    /// [`Output::Resolve`] came to nothing.
    Unresolved {
        /// As asked.
        host: String,
        /// As asked.
        port: Option<u16>,
        /// Why, in plain words.
        error: String,
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
    /// Look a host up (SRV `_sip._udp` first if `port` is `None`), then give [`Input::Resolved`] or
    /// [`Input::Unresolved`].
    Resolve {
        /// Host name or literal address.
        host: String,
        /// The port to reach it at, if known.
        port: Option<u16>,
    },
    /// Something the gateway must know.
    Event(Event),
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
        /// The address of ours that was called.
        local: SocketAddr,
        /// Where the INVITE came from.
        remote: SocketAddr,
        /// Nobody on the way reads what it says: it came over TLS.
        is_confidential: bool,
    },
    /// A new offer in the call (re-INVITE), or the wish for ours (`None`): `accept_offer` or `refuse_offer`.
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
    /// The ACK for our 200 is in.
    Acknowledged {
        /// The call.
        call: CallKey,
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
    /// A call from `remote` was refused: it neither carried our token nor came from the registrar or an allowed address.
    Stranger {
        /// Where it came from.
        remote: SocketAddr,
    },
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

/// The two ends of a message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Our socket's address, if it is known.
    pub(crate) local: Option<SocketAddr>,
    /// The peer's.
    pub(crate) remote: SocketAddr,
}

/// What waits for `poll_output`.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<Output>);

impl Outbox {
    pub(crate) fn send(&mut self, path: Path, bytes: Vec<u8>) {
        self.0.push_back(Output::Send { local: path.local, remote: path.remote, bytes });
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.0.push_back(Output::Event(event));
    }

    pub(crate) fn resolve(&mut self, host: String, port: Option<u16>) {
        self.0.push_back(Output::Resolve { host, port });
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }
}
