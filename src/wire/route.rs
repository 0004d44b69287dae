//! How a peer's datagrams travel: straight, or by a relay of ours.

use std::net::SocketAddr;

/// A peer's address and the way to it (in ICE's words, the remote candidate and our base, RFC 8445 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// From and to our own socket.
    Direct(SocketAddr),
    /// By the relay that a TURN server has for our socket: the peer sees that server's address instead of ours.
    Relayed(SocketAddr),
}

impl Route {
    /// The peer's address.
    pub const fn peer(self) -> SocketAddr {
        match self {
            Self::Direct(peer) | Self::Relayed(peer) => peer,
        }
    }

    /// By the relay?
    pub const fn is_relayed(self) -> bool {
        matches!(self, Self::Relayed(_))
    }

    /// The same way to or from another address.
    #[must_use]
    pub const fn with_peer(self, peer: SocketAddr) -> Self {
        match self {
            Self::Direct(_) => Self::Direct(peer),
            Self::Relayed(_) => Self::Relayed(peer),
        }
    }
}

impl From<SocketAddr> for Route {
    fn from(peer: SocketAddr) -> Self {
        Self::Direct(peer)
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct(peer) => write!(f, "{peer}"),
            Self::Relayed(peer) => write!(f, "{peer} by the relay"),
        }
    }
}
