//! A network address translator by what RFC 4787 says of them: how it maps (§4.1), what it lets in (§5), which ports it
//! gives (§4.2), how long it remembers (§4.3), and whether its own side can reach itself by its outside (§6).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use galene_sip::time::Instant;

/// What of the other end's address decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependence {
    Endpoint,
    Address,
    AddressAndPort,
}

type Part = (Option<IpAddr>, Option<u16>);

impl Dependence {
    const fn part_of(self, remote: SocketAddr) -> Part {
        match self {
            Self::Endpoint => (None, None),
            Self::Address => (Some(remote.ip()), None),
            Self::AddressAndPort => (Some(remote.ip()), Some(remote.port())),
        }
    }
}

/// What a firewall in the same box lets out over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Udp {
    Free,
    To(SocketAddr),
    Blocked,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    pub(crate) name: &'static str,
    pub(crate) mapping: Dependence,
    pub(crate) filtering: Dependence,
    pub(crate) keeps_ports: bool,
    pub(crate) hairpins: bool,
    pub(crate) expiry: Duration,
    pub(crate) udp: Udp,
}

/// Shorter than the two minutes that RFC 4787 demands, as many have it.
const EXPIRY: Duration = Duration::from_secs(30);

impl Behaviour {
    const fn new(name: &'static str, mapping: Dependence, filtering: Dependence) -> Self {
        let (keeps_ports, hairpins) = (false, false);
        Self { name, mapping, filtering, keeps_ports, hairpins, expiry: EXPIRY, udp: Udp::Free }
    }

    pub(crate) const fn keeping_ports(self, name: &'static str) -> Self {
        Self { name, keeps_ports: true, ..self }
    }

    pub(crate) const fn with_udp(self, name: &'static str, udp: Udp) -> Self {
        Self { name, udp, ..self }
    }

    /// Another mapping for each peer, of which no server can tell.
    pub(crate) fn is_symmetric(self) -> bool {
        self.mapping != Dependence::Endpoint
    }

    pub(crate) const fn expiring_after(self, expiry: Duration) -> Self {
        Self { expiry, ..self }
    }
}

/// The old names, of RFC 3489, say mapping and filtering in one.
pub(crate) const FULL_CONE: Behaviour = Behaviour::new("full cone", Dependence::Endpoint, Dependence::Endpoint);
pub(crate) const HAIRPINNING: Behaviour =
    Behaviour { name: "full cone, hairpins", hairpins: true, ..FULL_CONE.keeping_ports("") };
pub(crate) const ADDRESS_RESTRICTED: Behaviour =
    Behaviour::new("address restricted", Dependence::Endpoint, Dependence::Address);
pub(crate) const PORT_RESTRICTED: Behaviour =
    Behaviour::new("port restricted", Dependence::Endpoint, Dependence::AddressAndPort);
pub(crate) const MAPS_BY_ADDRESS: Behaviour =
    Behaviour::new("maps by address", Dependence::Address, Dependence::AddressAndPort);
pub(crate) const SYMMETRIC: Behaviour =
    Behaviour::new("symmetric", Dependence::AddressAndPort, Dependence::AddressAndPort);
/// A new mapping for each peer, through which everybody comes in.
pub(crate) const SYMMETRIC_OPEN: Behaviour =
    Behaviour::new("symmetric, open", Dependence::AddressAndPort, Dependence::Endpoint);

#[derive(Debug)]
struct Mapping {
    inside: SocketAddr,
    part: Part,
    port: u16,
    used_at: Instant,
    /// Whom packets went to, as far as the filter looks, and when the last did.
    contacted: BTreeMap<Part, Instant>,
}

/// One of them, with everything whose address begins like its own behind it.
#[derive(Debug)]
pub(crate) struct Nat {
    behaviour: Behaviour,
    /// A /24.
    inside: Ipv4Addr,
    outside: Ipv4Addr,
    next_port: u16,
    mappings: Vec<Mapping>,
}

impl Nat {
    pub(crate) const fn new(behaviour: Behaviour, inside: Ipv4Addr, outside: Ipv4Addr) -> Self {
        Self { behaviour, inside, outside, next_port: 40_000, mappings: Vec::new() }
    }

    pub(crate) fn holds(&self, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == self.inside.octets()[..3])
    }

    pub(crate) fn is_at(&self, ip: IpAddr) -> bool {
        ip == IpAddr::V4(self.outside)
    }

    pub(crate) const fn hairpins(&self) -> bool {
        self.behaviour.hairpins
    }

    /// It is restarted, or has a new lease: all is forgotten, and it may be elsewhere.
    pub(crate) fn renumber(&mut self, outside: Ipv4Addr) {
        self.outside = outside;
        self.mappings.clear();
        // A fresh box does not give the same numbers in the same order by luck.
        self.next_port += 1000;
    }

    /// The source that the outside sees of a packet from inside; `None` if it does not get out.
    pub(crate) fn outbound(&mut self, now: Instant, inside: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        match self.behaviour.udp {
            Udp::Free => {}
            Udp::To(only) if only == remote => {}
            Udp::To(_) | Udp::Blocked => return None,
        }
        self.forget(now);
        let part = self.behaviour.mapping.part_of(remote);
        let known = self.mappings.iter().position(|mapping| mapping.inside == inside && mapping.part == part);
        let index = known.unwrap_or_else(|| {
            let port = self.port_for(inside);
            self.mappings.push(Mapping { inside, part, port, used_at: now, contacted: BTreeMap::new() });
            self.mappings.len() - 1
        });
        let mapping = &mut self.mappings[index];
        mapping.used_at = now;
        mapping.contacted.insert(self.behaviour.filtering.part_of(remote), now);
        Some(SocketAddr::new(self.outside.into(), mapping.port))
    }

    /// Who inside gets a packet that came to `outside`; `None` if it is not let in. It keeps nothing open (RFC 4787 REQ-6).
    pub(crate) fn inbound(&mut self, now: Instant, outside: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        self.forget(now);
        let mapping = self.mappings.iter().find(|mapping| mapping.port == outside.port())?;
        let contacted_at = mapping.contacted.get(&self.behaviour.filtering.part_of(remote))?;
        (now.saturating_since(*contacted_at) <= self.behaviour.expiry).then_some(mapping.inside)
    }

    fn forget(&mut self, now: Instant) {
        self.mappings.retain(|mapping| now.saturating_since(mapping.used_at) <= self.behaviour.expiry);
    }

    fn port_for(&mut self, inside: SocketAddr) -> u16 {
        let is_free = |port| self.mappings.iter().all(|mapping| mapping.port != port);
        if self.behaviour.keeps_ports && is_free(inside.port()) {
            return inside.port();
        }
        self.next_port += 1;
        self.next_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_us(1_000_000);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Which of three remote ends (who was sent to, another port of that host, another host) see the same source, and come in.
    fn judged(behaviour: Behaviour) -> ([bool; 3], [bool; 3]) {
        let (inside, outside) = (Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(198, 51, 100, 1));
        let remotes = ["203.0.113.1:1000", "203.0.113.1:1001", "203.0.113.2:1000"].map(address);
        let own = address("10.0.0.2:5000");
        let mut nat = Nat::new(behaviour, inside, outside);
        let source = nat.outbound(NOW, own, remotes[0]).unwrap();
        let comes_in = remotes.map(|remote| nat.inbound(NOW, source, remote) == Some(own));
        let is_same = remotes.map(|remote| nat.outbound(NOW, own, remote) == Some(source));
        (is_same, comes_in)
    }

    #[test]
    fn it_maps_and_filters_as_rfc_4787_has_it() {
        assert_eq!(judged(FULL_CONE), ([true; 3], [true; 3]));
        assert_eq!(judged(ADDRESS_RESTRICTED), ([true; 3], [true, true, false]));
        assert_eq!(judged(PORT_RESTRICTED), ([true; 3], [true, false, false]));
        assert_eq!(judged(MAPS_BY_ADDRESS), ([true, true, false], [true, false, false]));
        assert_eq!(judged(SYMMETRIC), ([true, false, false], [true, false, false]));
        assert_eq!(judged(SYMMETRIC_OPEN), ([true, false, false], [true; 3]));
    }

    #[test]
    fn a_mapping_lives_by_what_goes_out_alone() {
        let own = address("10.0.0.2:5000");
        let remote = address("203.0.113.1:1000");
        let mut nat = Nat::new(FULL_CONE.keeping_ports(""), own.ip().to_string().parse().unwrap(), Ipv4Addr::LOCALHOST);
        let source = nat.outbound(NOW, own, remote).unwrap();
        assert_eq!(source.port(), 5000);
        let at = |seconds| NOW + Duration::from_secs(seconds);
        assert_eq!(nat.inbound(at(29), source, remote), Some(own));
        assert_eq!(nat.inbound(at(31), source, remote), None);
        assert_eq!(nat.outbound(at(40), own, remote), Some(source));
        assert_eq!(nat.outbound(at(69), own, remote), Some(source));
        assert_eq!(nat.inbound(at(98), source, remote), Some(own));
    }
}
