//! One UDP socket of the net thread.
//!
//! Owns: what the kernel shall tell of each datagram (arrival stamp, local address), sending, and the mapping between IPv4
//! and IPv6 on a dual-stack socket. Does not own: receiving (`batch`). ICMP errors are ignored: unconnected sockets do not report them, and a telephone that
//! is not listening yet is no reason to stop sending.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

/// A bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    udp: UdpSocket,
    bound: SocketAddr,
}

impl Socket {
    /// Takes over a bound socket. Stamps and local addresses are asked for; where the kernel has none, the time of reading
    /// and the bound address stand in.
    pub(super) fn new(udp: UdpSocket) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        let bound = udp.local_addr()?;
        let _ = setsockopt(&udp, sockopt::ReceiveTimestampns, &true);
        if bound.is_ipv4() {
            let _ = setsockopt(&udp, sockopt::Ipv4PacketInfo, &true);
        } else {
            let _ = setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true);
        }
        Ok(Self { udp, bound })
    }

    /// Where it is bound, perhaps to any address.
    pub(super) const fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Sends at once or not at all.
    pub(super) fn send(&self, bytes: &[u8], to: SocketAddr) -> bool {
        let to = match (self.bound, to.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(v4)) => SocketAddr::from((v4.to_ipv6_mapped(), to.port())),
            (SocketAddr::V6(_) | SocketAddr::V4(_), IpAddr::V4(_) | IpAddr::V6(_)) => to,
        };
        match self.udp.send_to(bytes, to) {
            Ok(_) => true,
            // The error of an earlier packet (ICMP), told by the kernel at this one: try once more.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNREFUSED as i32) => {
                self.udp.send_to(bytes, to).is_ok()
            }
            Err(_) => false,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dual_stack_socket_sends_to_ipv4_too() {
        let Ok(udp) = UdpSocket::bind("[::]:0") else { return };
        let dual = Socket::new(udp).unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(dual.send(b"back", far.local_addr().unwrap()));
        let mut buffer = [0; 100];
        assert_eq!(far.recv(&mut buffer).unwrap(), 4);
    }
}
