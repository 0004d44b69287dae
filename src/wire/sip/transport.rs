//! The transports of SIP (RFC 3261 §18) and what differs between them.

use std::fmt;

/// How messages travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams: they get lost, and are sent again by timers.
    #[default]
    Udp,
    /// A connection: nothing gets lost but the connection itself.
    Tcp,
    /// A connection that nobody else can read.
    Tls,
}

impl Transport {
    /// The value of a URI's `transport` parameter. Others than ours (`sctp`, `ws`) are `None`.
    pub fn from_parameter(text: &str) -> Option<Self> {
        [Self::Udp, Self::Tcp, Self::Tls].into_iter().find(|transport| text.eq_ignore_ascii_case(transport.parameter()))
    }

    /// As a URI's `transport` parameter.
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// As in a Via.
    pub const fn via(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Whether messages arrive as long as the connection lives, so that none is sent twice (RFC 3261 §17).
    pub const fn is_reliable(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls => true,
        }
    }

    /// The registered port (RFC 3261 §19.1.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.via())
    }
}
