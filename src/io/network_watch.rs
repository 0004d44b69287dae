//! Changes of the machine's network: addresses that have gone, addresses and ways that have come (rtnetlink(7)).
//!
//! Owns: what has changed since the last look. Does not own: who used an address that is gone (`driver`, `sip`).
//! The kernel's messages are hints to look, and never read: so none can be misread, and what a full buffer has lost is made
//! up for by the next look. An address that goes and comes back between two looks has done no harm.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use async_io::{Async, Timer};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

use super::addresses::usable_addresses;
use super::sip::source_address;

/// From a hint to the look. What belongs together, such as an address and the route by it, comes within milliseconds; some who
/// renew an address take it away for as long. And a router whose routes change all the time costs 20 looks a second.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// Descriptors are had again when calls have ended.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Hints that are dropped before a look.
const HINTS_A_LOOK: usize = 1000;

/// A message is larger, and what is not read of it is dropped.
const HINT_BYTES: usize = 64;

/// Interfaces, addresses and routes: the default route comes after the address that it leaves by.
const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE;

/// Hosts on the open network that nobody is (RFC 5737, RFC 3849): the way to them is the default route.
const SOMEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Addresses that this machine had and has not any more.
    pub(super) gone: Vec<IpAddr>,
    /// There is an address, or a way to the open network, that was not there before.
    pub(super) has_new: bool,
}

/// Waits for changes.
#[derive(Debug)]
pub(super) struct NetworkWatch {
    socket: Async<OwnedFd>,
    known: Network,
}

/// The network as it was at a look.
#[derive(Debug, PartialEq, Eq)]
struct Network {
    addresses: BTreeSet<IpAddr>,
    /// Which of them is used on the way to the open network, by family.
    ways: [Option<IpAddr>; 2],
}

impl NetworkWatch {
    /// From now on.
    ///
    /// # Errors
    /// The system's: in some containers netlink is not granted.
    pub(super) fn start() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS as u32))?;
        Ok(Self { socket: Async::new(socket)?, known: Network::look()? })
    }

    /// The next change.
    ///
    /// # Errors
    /// The system's: there will be no more.
    pub(super) async fn next(&mut self) -> io::Result<Change> {
        loop {
            self.socket.readable().await?;
            Timer::after(LOOK_AFTER).await;
            self.clear()?;
            let network = self.look().await;
            if let Some(change) = network.since(&self.known) {
                self.known = network;
                return Ok(change);
            }
        }
    }

    /// A look as soon as there is a descriptor to look by: what cannot be seen has not gone.
    async fn look(&self) -> Network {
        loop {
            match Network::look() {
                Ok(network) => return network,
                Err(_) => Timer::after(LOOK_AGAIN_AFTER).await,
            };
        }
    }

    /// Drops the hints that are there; what comes faster than it is dropped waits for the next look.
    fn clear(&self) -> io::Result<()> {
        let mut hint = [0; HINT_BYTES];
        for _ in 0..HINTS_A_LOOK {
            match recv(self.socket.as_raw_fd(), &mut hint, MsgFlags::MSG_DONTWAIT) {
                // More hints than the buffer holds are a hint too.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Network {
    fn look() -> io::Result<Self> {
        Ok(Self {
            addresses: usable_addresses()?.collect(),
            ways: SOMEWHERE.map(|somewhere| source_address(SocketAddr::new(somewhere, 9)).ok()),
        })
    }

    /// What has changed from `before` on, if anything that matters has.
    fn since(&self, before: &Self) -> Option<Change> {
        let gone: Vec<IpAddr> = before.addresses.difference(&self.addresses).copied().collect();
        let mut ways = self.ways.iter().zip(&before.ways);
        let has_new =
            !self.addresses.is_subset(&before.addresses) || ways.any(|(way, old)| way.is_some() && way != old);
        (has_new || !gone.is_empty()).then_some(Change { gone, has_new })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(addresses: &[&str], way: Option<&str>) -> Network {
        let parse = |text: &&str| text.parse().unwrap();
        Network { addresses: addresses.iter().map(parse).collect(), ways: [way.as_ref().map(parse), None] }
    }

    #[test]
    fn what_goes_and_what_comes_is_told_and_nothing_else() {
        let wifi = network(&["127.0.0.1", "192.168.7.2"], Some("192.168.7.2"));
        let nothing = network(&["127.0.0.1"], None);
        let addressed = network(&["127.0.0.1", "10.0.0.7"], None);
        let mobile = network(&["127.0.0.1", "10.0.0.7"], Some("10.0.0.7"));
        let change = |gone: &[&str], has_new| {
            Some(Change { gone: gone.iter().map(|ip| ip.parse().unwrap()).collect(), has_new })
        };
        assert_eq!(wifi.since(&wifi), None);
        assert_eq!(nothing.since(&wifi), change(&["192.168.7.2"], false));
        assert_eq!(addressed.since(&nothing), change(&[], true));
        // The route comes later.
        assert_eq!(mobile.since(&addressed), change(&[], true));
        assert_eq!(mobile.since(&wifi), change(&["192.168.7.2"], true));
        assert_eq!(addressed.since(&mobile), None);
    }
}
