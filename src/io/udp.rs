//! SIP's UDP sockets: each datagram with the local address that it was sent to, so that the reply leaves from there.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use async_io::Async;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
    setsockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

/// A datagram and where it came from and went to.
#[derive(Debug)]
pub(super) struct Received {
    /// Its bytes in the caller's buffer.
    pub len: usize,
    /// The sender.
    pub remote: SocketAddr,
    /// The local address that was asked.
    pub local: SocketAddr,
}

/// A UDP socket that tells which local address was asked (IP_PKTINFO).
#[derive(Debug)]
pub(super) struct SipSocket {
    socket: Async<UdpSocket>,
    bound: SocketAddr,
}

impl SipSocket {
    /// Binds `address`; an IPv6 socket takes IPv6 alone.
    ///
    /// # Errors
    /// The system's, for example that the port is taken.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
        socket.bind(&address.into())?;
        let socket = Async::new(UdpSocket::from(socket))?;
        let bound = socket.get_ref().local_addr()?;
        Ok(Self { socket, bound })
    }

    /// The address that it is bound to.
    pub(super) const fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Waits for the next datagram.
    ///
    /// # Errors
    /// The system's; an ICMP error of an earlier send shows here and is no reason to stop.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.socket.read_with(|socket| receive(socket, self.bound, buffer)).await
    }

    /// Sends `bytes` to `remote`, from `local` if it is an address of this socket. Never waits: a datagram that the
    /// system has no room for is lost like any other.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn send(&self, bytes: &[u8], remote: SocketAddr, local: Option<SocketAddr>) -> io::Result<()> {
        send(self.socket.get_ref(), bytes, remote, local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified()))
    }
}

fn receive(socket: &UdpSocket, bound: SocketAddr, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = nix::cmsg_space!(nix::libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let remote =
        message.address.as_ref().and_then(to_std).ok_or_else(|| io::Error::other("datagram without a sender"))?;
    let mut local = bound;
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                local.set_ip(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                local.set_ip(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
            }
            _ => {}
        }
    }
    Ok(Received { len: message.bytes, remote, local })
}

fn send(socket: &UdpSocket, bytes: &[u8], remote: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
    let slices = [IoSlice::new(bytes)];
    let fd = socket.as_raw_fd();
    match (remote, from) {
        (SocketAddr::V4(remote), Some(IpAddr::V4(from))) => {
            let from = nix::libc::in_addr { s_addr: u32::from(from).to_be() };
            let info = nix::libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: from,
                ipi_addr: nix::libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(fd, &slices, &control, MsgFlags::empty(), Some(&SockaddrIn::from(remote)))?;
        }
        (SocketAddr::V6(remote), Some(IpAddr::V6(from))) => {
            let address = nix::libc::in6_addr { s6_addr: from.octets() };
            let info = nix::libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: remote.scope_id() };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(fd, &slices, &control, MsgFlags::empty(), Some(&SockaddrIn6::from(remote)))?;
        }
        (SocketAddr::V4(_) | SocketAddr::V6(_), _) => {
            socket.send_to(bytes, remote)?;
        }
    }
    Ok(())
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_leaves_from_the_address_that_was_asked() {
        let server = SipSocket::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = server.bound().port();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for asked in ["127.0.0.1", "127.0.0.2"] {
            let asked = SocketAddr::new(asked.parse().unwrap(), port);
            client.send_to(b"ping", asked).unwrap();
            let mut buffer = [0; 64];
            let received = async_io::block_on(server.receive(&mut buffer)).unwrap();
            assert_eq!((received.len, received.remote, received.local), (4, client.local_addr().unwrap(), asked));
            server.send(b"pong", received.remote, Some(received.local)).unwrap();
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (4, asked));
        }
    }
}
