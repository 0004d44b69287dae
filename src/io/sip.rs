//! The UDP sockets of SIP as a whole: binding by `-sip-udp-address`, and which one sends what.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;

use super::udp::SipSocket;
use crate::config::SipAddress;

/// SIP's registered port (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;

/// One IPv4 and one IPv6 socket, or the one that was asked for.
#[derive(Clone, Debug)]
pub(super) struct SipSockets(Vec<Rc<SipSocket>>);

impl SipSockets {
    /// Binds what `-sip-udp-address` says.
    ///
    /// # Errors
    /// One sentence that names the flag.
    pub(super) fn bind(address: &SipAddress) -> Result<Self, String> {
        let wrong = |address: SocketAddr, error: io::Error| {
            format!("cannot receive SIP at {address}: {error}; choose another address or port with -sip-udp-address")
        };
        match *address {
            SipAddress::One(address) => {
                SipSocket::bind(address).map(|socket| Self(vec![Rc::new(socket)])).map_err(|e| wrong(address, e))
            }
            SipAddress::Any(Some(port)) => {
                Self::bind_all(port).map_err(|error| wrong((Ipv4Addr::UNSPECIFIED, port).into(), error))
            }
            SipAddress::Any(None) => Self::bind_all(SIP_PORT)
                .or_else(|_| Self::bind_all(0))
                .map_err(|error| wrong((Ipv4Addr::UNSPECIFIED, 0).into(), error)),
        }
    }

    /// Every address of both families at one port. A machine without IPv6 does without it.
    fn bind_all(port: u16) -> io::Result<Self> {
        let v4 = SipSocket::bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        let port = v4.bound().port();
        let v6 = SipSocket::bind((Ipv6Addr::UNSPECIFIED, port).into());
        Ok(Self([Ok(v4), v6].into_iter().flatten().map(Rc::new).collect()))
    }

    /// All sockets.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<SipSocket>> {
        self.0.iter()
    }

    /// The bound addresses, perhaps unspecified.
    pub(super) fn bound(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|socket| socket.bound()).collect()
    }

    /// Sends one datagram; a failure is the network's noise and logged as such.
    pub(super) fn send(&self, local: Option<SocketAddr>, remote: SocketAddr, bytes: &[u8]) {
        let socket = self.0.iter().find(|socket| socket.bound().is_ipv4() == remote.is_ipv4());
        let sent = match socket {
            Some(socket) => socket.send(bytes, remote, local),
            None => Err(io::Error::other("no socket of this address family")),
        };
        if let Err(error) = sent {
            tracing::debug!("SIP to {remote} was not sent: {error}");
        }
    }
}

/// The address that the system would send from on the way to `remote`.
///
/// # Errors
/// The system's: there is no way, or no socket to ask by.
pub(super) fn source_address(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Connecting a UDP socket sends nothing; it asks the routing table.
    let socket = UdpSocket::bind(any)?;
    socket.connect(remote)?;
    socket.local_addr().map(|local| local.ip())
}
