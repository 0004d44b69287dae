//! The machine's own addresses, such as host candidates towards Galene.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;

/// Host candidates of one socket: RFC 8445 wants them all, a machine with more has them for other purposes.
const MAX_ADDRESSES: usize = 8;

/// The addresses of all interfaces that are up, IPv4 first; of loopback interfaces only if `loopback` is wanted or there is
/// nothing else. Link-local addresses are left out: nobody else could name the interface.
///
/// # Errors
/// The system does not tell; it takes a descriptor to ask.
pub(super) fn local_addresses(loopback: bool) -> io::Result<Vec<IpAddr>> {
    let (inside, mut outside): (Vec<_>, Vec<_>) = usable_addresses()?.partition(IpAddr::is_loopback);
    if loopback || outside.is_empty() {
        outside.extend(inside);
    }
    outside.sort_by_key(IpAddr::is_ipv6);
    outside.dedup();
    outside.truncate(MAX_ADDRESSES);
    Ok(outside)
}

/// Every address of an interface that is up, but link-local ones.
///
/// # Errors
/// As [`local_addresses`].
pub(super) fn usable_addresses() -> io::Result<impl Iterator<Item = IpAddr>> {
    let is_up = |interface: &InterfaceAddress| interface.flags.contains(InterfaceFlags::IFF_UP);
    let addresses = getifaddrs()?.filter(is_up).filter_map(|interface| interface.address).filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(addresses.filter(|ip| !is_link_local(*ip)))
}

const fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => Ipv6Addr::is_unicast_link_local(&v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_comes_when_wanted_and_link_local_never() {
        let all = local_addresses(true).unwrap();
        assert!(all.contains(&"127.0.0.1".parse().unwrap()));
        assert!(all.iter().all(|ip| !is_link_local(*ip)) && all.len() <= MAX_ADDRESSES);
    }
}
