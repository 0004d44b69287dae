//! One UDP socket of the net thread.
//!
//! Owns: non-blocking receive with the kernel's arrival stamp and the local address, send, and the mapping between IPv4
//! and IPv6 on a dual-stack socket. ICMP errors are ignored: unconnected sockets do not report them, and a telephone that
//! is not listening yet is no reason to stop sending.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};

use crate::io::clock::Clock;
use crate::time::Instant;

/// A stamp older than this is not a queued packet but a wall clock that was set meanwhile.
const MAX_STAMP_AGE: Duration = Duration::from_secs(1);

/// What [`Socket::receive`] says of a datagram whose bytes are in the caller's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    pub(super) len: usize,
    pub(super) from: SocketAddr,
    /// The address it was sent to, as far as the kernel told.
    pub(super) local: SocketAddr,
    pub(super) arrival: Instant,
}

/// A bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    udp: UdpSocket,
    local: SocketAddr,
    control: Vec<u8>,
}

impl Socket {
    /// Takes over a bound socket. Stamps and local addresses are asked for; where the kernel has none, the time of reading
    /// and the bound address stand in.
    pub(super) fn new(udp: UdpSocket) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        let local = udp.local_addr()?;
        let _ = setsockopt(&udp, sockopt::ReceiveTimestampns, &true);
        if local.is_ipv4() {
            let _ = setsockopt(&udp, sockopt::Ipv4PacketInfo, &true);
        } else {
            let _ = setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true);
        }
        let control = nix::cmsg_space!(nix::sys::time::TimeSpec, nix::libc::in_pktinfo, nix::libc::in6_pktinfo);
        Ok(Self { udp, local, control })
    }

    /// The next datagram, or `None` if there is none (or only an error of a former send, which is dropped).
    pub(super) fn receive(&mut self, clock: &Clock, buffer: &mut [u8]) -> Option<Datagram> {
        let mut parts = [IoSliceMut::new(buffer)];
        let control = Some(self.control.as_mut_slice());
        let message =
            recvmsg::<SockaddrStorage>(self.udp.as_raw_fd(), &mut parts, control, MsgFlags::MSG_DONTWAIT).ok()?;
        let from = unmapped(&message.address?)?;
        let (mut local, mut arrival) = (self.local, clock.now());
        for control in message.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::ScmTimestampns(stamp) => arrival = arrival - age(Duration::from(stamp)),
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    local.set_ip(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    local.set_ip(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical());
                }
                _ => {}
            }
        }
        Some(Datagram { len: message.bytes, from, local, arrival })
    }

    /// Sends at once or not at all.
    pub(super) fn send(&self, bytes: &[u8], to: SocketAddr) -> bool {
        let to = match (self.local, to.ip()) {
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

/// How long ago the kernel stamped a packet (stamps are wall-clock time).
fn age(stamp: Duration) -> Duration {
    let Ok(now) = clock_gettime(ClockId::CLOCK_REALTIME) else { return Duration::ZERO };
    match Duration::from(now).checked_sub(stamp) {
        Some(age) if age <= MAX_STAMP_AGE => age,
        Some(_) | None => Duration::ZERO,
    }
}

fn unmapped(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = address.as_sockaddr_in6()?;
    // The scope stays with link-local addresses, which cannot be answered without it.
    Some(match v6.ip().to_ipv4_mapped() {
        Some(v4) => SocketAddr::from((v4, v6.port())),
        None => SocketAddr::V6(std::net::SocketAddrV6::new(v6.ip(), v6.port(), 0, v6.scope_id())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dual_stack_socket_speaks_ipv4_without_showing_it() {
        let clock = Clock::start();
        let Ok(udp) = UdpSocket::bind("[::]:0") else { return };
        let mut dual = Socket::new(udp).unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.send_to(b"hello", ("127.0.0.1", dual.local.port())).unwrap();
        let mut buffer = [0; 100];
        // Loopback delivers within send_to.
        let datagram = dual.receive(&clock, &mut buffer).unwrap();
        assert_eq!((datagram.len, datagram.from), (5, far.local_addr().unwrap()));
        assert_eq!(datagram.local.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(dual.send(b"back", datagram.from));
        assert_eq!(far.recv(&mut buffer).unwrap(), 4);
        assert!(dual.receive(&clock, &mut buffer).is_none());
    }
}
