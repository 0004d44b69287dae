//! Candidates (RFC 8445 §5.1, RFC 8839 §5.1): what the agents tell each other of their addresses.
//!
//! Owns: the attribute's text and the priority formula. Does not own: what is done with a candidate.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// Longest candidate line read, in bytes; a real one has about 100.
const MAX_LINE_BYTES: usize = 512;
/// RFC 8445 §5.1.2.1: the only component, as RTCP shares it.
const COMPONENT: u32 = 1;

/// Where an address comes from; the values are the recommended type preferences (RFC 8445 §5.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateKind {
    /// An interface's own address.
    Host,
    /// Learned from a check.
    PeerReflexive,
    /// What a STUN server sees of our socket.
    ServerReflexive,
    /// A TURN server's, for us.
    Relayed,
}

impl CandidateKind {
    /// RFC 8839 §5.1.
    const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::PeerReflexive => "prflx",
            Self::ServerReflexive => "srflx",
            Self::Relayed => "relay",
        }
    }

    const fn preference(self) -> u32 {
        match self {
            Self::Host => 126,
            Self::PeerReflexive => 110,
            Self::ServerReflexive => 100,
            Self::Relayed => 0,
        }
    }
}

/// The priority of a candidate of ours, the `rank`th in our order of liking (RFC 8445 §5.1.2.1).
pub fn priority(kind: CandidateKind, rank: usize) -> u32 {
    let local_preference = 65_535 - u32::try_from(rank).unwrap_or(65_535).min(65_535);
    (kind.preference() << 24) | (local_preference << 8) | (256 - COMPONENT)
}

/// A UDP candidate of the peer, for our one component, with an address that can be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where checks go.
    pub address: SocketAddr,
    /// As the peer computed it.
    pub priority: u32,
    /// The generation that it belongs to, where the peer says so (`ufrag` extension, RFC 8839 §5.1).
    pub ufrag: Option<String>,
}

/// Why a candidate line is of no use to us; none of these is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Fields are missing or malformed.
    #[error("malformed")]
    Malformed,
    /// Another component, which rtcp-mux makes superfluous.
    #[error("another component")]
    Component,
    /// TCP.
    #[error("not UDP")]
    Transport,
    /// A name (mDNS) instead of an address.
    #[error("a name, not an address")]
    Name,
    /// Unspecified, multicast, link-local without scope, or port 0.
    #[error("an address that nothing can be sent to")]
    Address,
}

impl Candidate {
    /// Reads `candidate:…`, with or without `a=` before it.
    ///
    /// # Errors
    /// The candidate is to be ignored, and why.
    pub fn parse(line: &str) -> Result<Self, Unusable> {
        let line = line.trim();
        if line.len() > MAX_LINE_BYTES {
            return Err(Unusable::Malformed);
        }
        let line = line.strip_prefix("a=").unwrap_or(line);
        let mut words = line.strip_prefix("candidate:").ok_or(Unusable::Malformed)?.split_ascii_whitespace();
        let mut word = || words.next().ok_or(Unusable::Malformed);
        let _foundation = word()?;
        let component: u32 = word()?.parse().map_err(|_| Unusable::Malformed)?;
        let transport = word()?;
        let priority = word()?.parse().map_err(|_| Unusable::Malformed)?;
        let host = word()?;
        let port: u16 = word()?.parse().map_err(|_| Unusable::Malformed)?;
        if word()? != "typ" {
            return Err(Unusable::Malformed);
        }
        word()?;
        if component != COMPONENT {
            return Err(Unusable::Component);
        }
        if !transport.eq_ignore_ascii_case("udp") {
            return Err(Unusable::Transport);
        }
        let ip: IpAddr = host.parse().map_err(|_| Unusable::Name)?;
        let address = canonical(SocketAddr::new(ip, port));
        if !is_sendable(address) {
            return Err(Unusable::Address);
        }
        let mut ufrag = None;
        while let (Some(key), Some(value)) = (words.next(), words.next()) {
            if key == "ufrag" {
                ufrag = Some(value.to_owned());
            }
        }
        Ok(Self { address, priority, ufrag })
    }
}

/// The value of `a=candidate` for a host candidate, the `rank`th in our order of liking.
pub fn host_line(address: SocketAddr, rank: usize) -> String {
    line(rank + 1, CandidateKind::Host, address, rank)
}

/// The same for a candidate that a server gave us for our socket at `related`.
pub fn server_line(kind: CandidateKind, address: SocketAddr, related: SocketAddr) -> String {
    // Above those of host candidates.
    let foundation = 100 + kind.preference() as usize;
    format!("{} raddr {} rport {}", line(foundation, kind, address, 0), related.ip(), related.port())
}

/// RFC 8839 §5.1. The foundation need only differ between addresses of different kinds and bases (RFC 8445 §5.1.1.3).
fn line(foundation: usize, kind: CandidateKind, address: SocketAddr, rank: usize) -> String {
    let (ip, port, priority) = (address.ip(), address.port(), priority(kind, rank));
    format!("{foundation} {COMPONENT} udp {priority} {ip} {port} typ {}", kind.name())
}

/// One form for one address: IPv4 never inside IPv6, no flow label; so that addresses can be compared.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => match v6.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::new(ip.into(), v6.port()),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into(),
        },
    }
}

fn is_sendable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let useless_kind = match ip {
        IpAddr::V4(ip) => ip.is_broadcast(),
        // A link-local address means nothing without an interface, which the text does not name.
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !useless_kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_as_pion_writes_it_is_read() {
        let line = "candidate:3288671519 1 udp 2130706431 192.0.2.4 40001 typ host ufrag AbCd";
        let candidate = Candidate::parse(line).unwrap();
        assert_eq!(candidate.address, "192.0.2.4:40001".parse::<SocketAddr>().unwrap());
        assert_eq!((candidate.priority, candidate.ufrag.as_deref()), (2_130_706_431, Some("AbCd")));
        let line = "a=candidate:1 1 UDP 1694498815 2001:db8::1 9 typ srflx raddr 0.0.0.0 rport 0 generation 0\r\n";
        assert_eq!(Candidate::parse(line).unwrap().address, "[2001:db8::1]:9".parse::<SocketAddr>().unwrap());
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let unusable = |line| Candidate::parse(line).unwrap_err();
        assert_eq!(unusable("candidate:1 1 udp 1 7f3a.local 9 typ host"), Unusable::Name);
        assert_eq!(unusable("candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active"), Unusable::Transport);
        assert_eq!(unusable("candidate:1 2 udp 1 192.0.2.1 9 typ host"), Unusable::Component);
        assert_eq!(unusable("candidate:1 1 udp 1 0.0.0.0 9 typ host"), Unusable::Address);
        assert_eq!(unusable("candidate:1 1 udp 1 fe80::1 9 typ host"), Unusable::Address);
        assert_eq!(unusable("candidate:1 1 udp 1 192.0.2.1 0 typ host"), Unusable::Address);
        assert_eq!(unusable("candidate:1 1 udp 1 192.0.2.1 70000 typ host"), Unusable::Malformed);
        assert_eq!(unusable("candidate:1 1 udp"), Unusable::Malformed);
        assert_eq!(unusable(""), Unusable::Malformed);
        assert_eq!(
            unusable(&format!("candidate:{} 1 udp 1 192.0.2.1 9 typ host", "9".repeat(600))),
            Unusable::Malformed
        );
    }

    #[test]
    fn our_own_line_is_read_back_and_ranks_by_order() {
        let address = "192.0.2.9:5000".parse().unwrap();
        let candidate = Candidate::parse(&format!("candidate:{}", host_line(address, 0))).unwrap();
        assert_eq!((candidate.address, candidate.priority), (address, 2_130_706_431));
        assert!(priority(CandidateKind::Host, 0) > priority(CandidateKind::Host, 1));
        assert!(priority(CandidateKind::Host, 40) > priority(CandidateKind::PeerReflexive, 0));
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_is_the_ipv4_address() {
        assert_eq!(canonical("[::ffff:192.0.2.1]:7".parse().unwrap()), "192.0.2.1:7".parse::<SocketAddr>().unwrap());
    }
}
