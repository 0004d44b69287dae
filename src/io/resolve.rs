//! Finding a SIP server (RFC 3263): transport, port and addresses of a name; and a STUN or TURN server (RFC 5928).
//!
//! Owns: the order NAPTR, SRV, A or AAAA, and the order of what they give (RFC 2782). For the others SRV begins, since their URIs
//! say which transport is meant. Does not own: the questions themselves
//! (`dns`), which address has its turn (`sip::registration`).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::rdata::{NAPTR, SRV};
use hickory_proto::rr::{RData, RecordType};

use super::blocking;
use super::dns::{Dns, DnsError, hosts};
use super::fault;
use super::sip::source_address;
use crate::sip::event::{Route, Target};
use crate::wire::ice_uri::IceUri;
use crate::wire::sip::Transport;
use crate::wire::uri::Host;

/// How long an answer of the system's resolver is used, which tells no lifetime of its own.
const SYSTEM_LIFETIME: Duration = Duration::from_secs(60);
/// The least that an answer is used for, also where its lifetime is zero: the time of one registration.
const LEAST_LIFETIME: Duration = Duration::from_secs(5);
/// The most, also where there is nothing to look up.
const MOST_LIFETIME: Duration = Duration::from_secs(86_400);
/// Servers of one name whose addresses are looked up.
const MAX_SERVERS: usize = 8;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located {
    /// Best first.
    pub(super) routes: Vec<Route>,
    /// For how long this may be used.
    pub(super) lifetime: Duration,
}

/// The addresses of `target` in one family, each with our own address on the way there.
///
/// # Errors
/// One plain line: no such name, no such family, no answer.
pub(super) async fn locate(dns: &Dns, target: &Target, ipv6: bool) -> Result<Located, String> {
    let name = target.host.trim_matches(['[', ']']);
    let mut found = Found { remotes: Vec::new(), lifetime: Duration::MAX };
    let mut other_family = false;
    match find_services(dns, target, name).await {
        Some(services) => {
            found.lifetime = services.lifetime;
            for service in services.records.iter().take(MAX_SERVERS) {
                let host = service.target.to_ascii();
                if let Ok(addresses) = find_addresses(dns, host.trim_end_matches('.'), ipv6).await {
                    found.add(services.transport, service.port, &addresses);
                }
            }
        }
        None => {
            let transport = target.transport_or_default();
            let addresses = find_addresses(dns, name, ipv6).await?;
            other_family = !addresses.of_family.is_empty() || addresses.has_other;
            found.add(transport, target.port.unwrap_or_else(|| transport.default_port()), &addresses);
        }
    }
    if found.remotes.is_empty() && other_family {
        let (has_not, other) = if ipv6 { ("IPv6", "udp4") } else { ("IPv4", "udp6") };
        return Err(format!("{name} has no {has_not} address: try -sip-register-network {other}"));
    }
    if found.remotes.is_empty() {
        return Err(format!("{name} cannot be looked up: no server of it has an address"));
    }
    let with_source = |(transport, remote): (Transport, SocketAddr)| {
        source_address(remote).ok().map(|local| Route { transport, remote, local })
    };
    let routes: Vec<_> = found.remotes.into_iter().filter_map(with_source).collect();
    if routes.is_empty() {
        if let Some(words) = fault::out_of_descriptors() {
            return Err(words.to_owned());
        }
        return Err(format!("there is no route to {name}: check this machine's network"));
    }
    Ok(Located { routes, lifetime: found.lifetime.clamp(LEAST_LIFETIME, MOST_LIFETIME) })
}

/// Where a STUN or TURN server is that has a name: by its SRV records if its URI gives no port and there are any, else by its
/// addresses. IPv4 comes before IPv6; what there is no route to is left out.
///
/// # Errors
/// One plain line: no such name, no answer, no route.
pub(super) async fn locate_ice_server(dns: &Dns, uri: &IceUri) -> Result<Vec<SocketAddr>, String> {
    let Host::Name(name) = &uri.host else { return Err(format!("{uri} has no name to be looked up")) };
    let is_local = !name.contains('.') && !dns.is_chosen;
    let records = match uri.srv_name().filter(|_| !is_local) {
        Some(srv_name) => ask_records(dns, &srv_name).await.map_or_else(|_| Vec::new(), |(records, _)| records),
        None => Vec::new(),
    };
    let mut found = Vec::new();
    for record in records.iter().take(MAX_SERVERS) {
        let host = record.target.to_ascii();
        found.extend(addresses_of_both(dns, host.trim_end_matches('.'), record.port).await.unwrap_or_default());
    }
    if records.is_empty() {
        found = addresses_of_both(dns, name, uri.port_or_default()).await?;
    }
    if found.is_empty() {
        return Err(format!("{name} cannot be looked up: no server of it has an address"));
    }
    found.retain(|address| source_address(*address).is_ok());
    if found.is_empty() {
        return Err(format!("there is no route to {name}: check this machine's network"));
    }
    Ok(found)
}

async fn addresses_of_both(dns: &Dns, name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let (v4, v6) = smol::future::zip(find_addresses(dns, name, false), find_addresses(dns, name, true)).await;
    let mut ips: Vec<IpAddr> = [&v4, &v6].into_iter().flatten().flat_map(|found| found.of_family.clone()).collect();
    if ips.is_empty() && dns.is_chosen {
        // The server of the flag is for SIP: others' names need not be known to it.
        let found = blocking::resolve(name.to_owned(), 0).await;
        let found = found.map_err(|error| format!("{name} cannot be looked up: {error}"))?;
        ips = found.iter().map(SocketAddr::ip).collect();
        ips.sort_by_key(IpAddr::is_ipv6);
    } else if ips.is_empty() {
        v4.and(v6)?;
    }
    ips.dedup();
    Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

struct Found {
    remotes: Vec<(Transport, SocketAddr)>,
    lifetime: Duration,
}

impl Found {
    fn add(&mut self, transport: Transport, port: u16, addresses: &Addresses) {
        self.lifetime = self.lifetime.min(addresses.lifetime);
        self.remotes.extend(addresses.of_family.iter().map(|ip| (transport, SocketAddr::new(*ip, port))));
    }
}

/// The servers of a name for one transport, in the order in which they are to be tried.
struct Services {
    transport: Transport,
    records: Vec<SRV>,
    lifetime: Duration,
}

/// RFC 3263 §4.1 and §4.2. `None` where the name itself is the server's: it is an address, a port says so, it is a name
/// of the local network, or there are no records.
async fn find_services(dns: &Dns, target: &Target, name: &str) -> Option<Services> {
    let is_local = !name.contains('.') && !dns.is_chosen;
    if target.port.is_some() || name.parse::<IpAddr>().is_ok() || is_local {
        return None;
    }
    if let Some(transport) = target.transport {
        return ask_services(dns, transport, &service_name(transport, name)).await.ok().flatten();
    }
    match dns.ask(name, RecordType::NAPTR).await {
        // Who does not answer at all will not answer the next questions either.
        Err(DnsError::Silence) => return None,
        Err(DnsError::NoName) => {}
        Ok(answer) => {
            for (transport, replacement) in supported(answer.records, target.is_secure) {
                if let Ok(Some(mut services)) = ask_services(dns, transport, &replacement).await {
                    services.lifetime = services.lifetime.min(answer.lifetime);
                    return Some(services);
                }
            }
        }
    }
    let transports: &[Transport] =
        if target.is_secure { &[Transport::Tls] } else { &[Transport::Udp, Transport::Tcp, Transport::Tls] };
    for transport in transports {
        match ask_services(dns, *transport, &service_name(*transport, name)).await {
            Ok(Some(services)) => return Some(services),
            Ok(None) | Err(DnsError::NoName) => {}
            Err(DnsError::Silence) => return None,
        }
    }
    None
}

fn service_name(transport: Transport, name: &str) -> String {
    match transport {
        Transport::Udp => format!("_sip._udp.{name}"),
        Transport::Tcp => format!("_sip._tcp.{name}"),
        Transport::Tls => format!("_sips._tcp.{name}"),
    }
}

/// The NAPTR records that lead to SRV records of a transport of ours, best first.
fn supported(records: Vec<RData>, is_secure: bool) -> Vec<(Transport, String)> {
    let mut records: Vec<NAPTR> = records
        .into_iter()
        .filter_map(|record| match record {
            RData::NAPTR(naptr) => Some(naptr),
            _ => None,
        })
        .collect();
    records.sort_by_key(|record| (record.order, record.preference));
    let transport = |services: &[u8]| match services.to_ascii_uppercase().as_slice() {
        b"SIPS+D2T" => Some(Transport::Tls),
        b"SIP+D2T" if !is_secure => Some(Transport::Tcp),
        b"SIP+D2U" if !is_secure => Some(Transport::Udp),
        _ => None,
    };
    let leads_to_srv = |record: &&NAPTR| record.flags.eq_ignore_ascii_case(b"s");
    let usable = records.iter().filter(leads_to_srv);
    usable.filter_map(|record| Some((transport(&record.services)?, record.replacement.to_ascii()))).collect()
}

async fn ask_services(dns: &Dns, transport: Transport, name: &str) -> Result<Option<Services>, DnsError> {
    let (records, lifetime) = ask_records(dns, name).await?;
    Ok((!records.is_empty()).then_some(Services { transport, records, lifetime }))
}

/// The SRV records of a name, in the order in which they are to be tried, and for how long they hold.
async fn ask_records(dns: &Dns, name: &str) -> Result<(Vec<SRV>, Duration), DnsError> {
    let answer = dns.ask(name, RecordType::SRV).await?;
    let records: Vec<SRV> = answer
        .records
        .into_iter()
        .filter_map(|record| match record {
            // The root as a target means that there is no such service (RFC 2782).
            RData::SRV(srv) if !srv.target.is_root() => Some(srv),
            _ => None,
        })
        .collect();
    Ok((in_order(records, |bound| dns.below(bound)), answer.lifetime))
}

/// By priority, and within one by weight and chance (RFC 2782): a server of weight 0 is hardly ever the first.
fn in_order(mut records: Vec<SRV>, mut below: impl FnMut(u32) -> u32) -> Vec<SRV> {
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let of_priority = records.iter().take_while(|record| record.priority == first.priority).count();
        let total: u32 = records[..of_priority].iter().map(|record| u32::from(record.weight)).sum();
        let mut left = below(total + 1);
        let chosen = records[..of_priority].iter().position(|record| {
            let weight = u32::from(record.weight);
            let is_chosen = left <= weight;
            left = left.saturating_sub(weight);
            is_chosen
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}

#[derive(Debug, PartialEq, Eq)]
struct Addresses {
    of_family: Vec<IpAddr>,
    /// There is at least one of the other family.
    has_other: bool,
    lifetime: Duration,
}

impl Addresses {
    fn sorted(found: Vec<IpAddr>, ipv6: bool, lifetime: Duration) -> Self {
        let all = found.len();
        let of_family: Vec<_> = found.into_iter().filter(|ip| ip.is_ipv6() == ipv6).collect();
        Self { has_other: of_family.len() < all, of_family, lifetime }
    }
}

/// The addresses of one host: its own if it is one, `/etc/hosts`, the name servers, and last whatever else the system asks.
async fn find_addresses(dns: &Dns, name: &str, ipv6: bool) -> Result<Addresses, String> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(Addresses::sorted(vec![ip], ipv6, Duration::MAX));
    }
    let in_file = hosts(name);
    if !in_file.is_empty() {
        return Ok(Addresses::sorted(in_file, ipv6, SYSTEM_LIFETIME));
    }
    let kind = if ipv6 { RecordType::AAAA } else { RecordType::A };
    if name.contains('.') || dns.is_chosen {
        let answer = dns.ask(name, kind).await;
        let address = |record: RData| match record {
            RData::A(v4) => Some(IpAddr::V4(v4.0)),
            RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
            _ => None,
        };
        match answer {
            Ok(answer) if !answer.records.is_empty() => {
                let found = answer.records.into_iter().filter_map(address).collect();
                return Ok(Addresses::sorted(found, ipv6, answer.lifetime));
            }
            Err(DnsError::Silence) if dns.is_chosen => {
                return Err(format!("{name} cannot be looked up: the server of -sip-dns does not answer"));
            }
            Ok(_) | Err(DnsError::NoName) if dns.is_chosen => {
                return Err(format!("{name} cannot be looked up: the server of -sip-dns does not know it"));
            }
            Ok(_) | Err(_) => {}
        }
    }
    let found = blocking::resolve(name.to_owned(), 0).await;
    let found = found.map_err(|error| format!("{name} cannot be looked up: {error}"))?;
    Ok(Addresses::sorted(found.iter().map(SocketAddr::ip).collect(), ipv6, SYSTEM_LIFETIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use hickory_proto::rr::Name;

    fn srv(priority: u16, weight: u16, port: u16) -> SRV {
        SRV::new(priority, weight, port, Name::from_ascii("h.example.").unwrap())
    }

    #[test]
    fn a_literal_address_needs_no_resolver_and_the_wrong_family_names_the_flag() {
        let dns = Dns::new(None, Random::for_test(1));
        let locate = |ipv6| {
            let target = Target { host: "127.0.0.1".into(), port: Some(5070), transport: None, is_secure: false };
            async_io::block_on(locate(&dns, &target, ipv6))
        };
        let (remote, local) = ("127.0.0.1:5070".parse().unwrap(), "127.0.0.1".parse().unwrap());
        assert_eq!(locate(false).unwrap().routes, [Route { transport: Transport::Udp, remote, local }]);
        assert!(locate(true).unwrap_err().contains("-sip-register-network udp4"));
    }

    #[test]
    fn priorities_come_first_and_weights_decide_by_chance_within_them() {
        let mut random = Random::for_test(5);
        let mut firsts = [0; 3];
        for _ in 0..1000 {
            let records = vec![srv(20, 9, 4), srv(10, 30, 1), srv(10, 60, 2), srv(10, 0, 3)];
            let ports: Vec<_> = in_order(records, |bound| random.below(bound)).iter().map(|one| one.port).collect();
            assert_eq!((ports.len(), ports[3]), (4, 4));
            firsts[usize::from(ports[0]) - 1] += 1;
        }
        assert!((270..390).contains(&firsts[0]) && (590..720).contains(&firsts[1]) && firsts[2] < 30, "{firsts:?}");
    }

    #[test]
    fn naptr_records_are_taken_in_their_order_without_what_we_cannot_do() {
        let naptr = |order, preference, flags: &str, services: &str, to: &str| {
            let (flags, services) = (flags.as_bytes().into(), services.as_bytes().into());
            let replacement = Name::from_ascii(to).unwrap();
            RData::NAPTR(NAPTR::new(order, preference, flags, services, Box::default(), replacement))
        };
        let records = vec![
            naptr(90, 50, "s", "SIP+D2T", "tcp.example."),
            naptr(50, 60, "S", "sip+d2u", "udp.example."),
            naptr(50, 50, "s", "SIPS+D2T", "tls.example."),
            naptr(10, 50, "s", "SIP+D2S", "sctp.example."),
            naptr(10, 50, "u", "SIP+D2U", "uri.example."),
        ];
        let transports = |is_secure| -> Vec<_> {
            supported(records.clone(), is_secure).into_iter().map(|(transport, _)| transport).collect()
        };
        assert_eq!(transports(false), [Transport::Tls, Transport::Udp, Transport::Tcp]);
        assert_eq!(transports(true), [Transport::Tls]);
    }
}
