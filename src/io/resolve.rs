//! Host names to addresses, by the system's resolver on a thread of its own.

use std::net::SocketAddr;

use super::blocking;
use super::sip::source_address;
use crate::sip::event::Route;

/// SIP's registered port (RFC 3261 §19.1.2).
const SIP_PORT: u16 = 5060;

/// The addresses of `host` in one family, each with our own address on the way there.
///
/// # Errors
/// One plain line: no such name, no such family, no answer.
pub(super) async fn routes(host: &str, port: Option<u16>, ipv6: bool) -> Result<Vec<Route>, String> {
    let name = host.trim_matches(['[', ']']);
    let found = blocking::resolve(name.to_owned(), port.unwrap_or(SIP_PORT)).await;
    let found = found.map_err(|error| format!("{name} cannot be looked up: {error}"))?;
    let of_family: Vec<SocketAddr> = found.into_iter().filter(|address| address.is_ipv6() == ipv6).collect();
    if of_family.is_empty() {
        let (has_not, other) = if ipv6 { ("IPv6", "udp4") } else { ("IPv4", "udp6") };
        return Err(format!("{name} has no {has_not} address: try -sip-register-network {other}"));
    }
    let routes: Vec<_> = of_family
        .into_iter()
        .filter_map(|remote| source_address(remote).map(|local| Route { remote, local }))
        .collect();
    if routes.is_empty() {
        Err(format!("there is no route to {name}: check this machine's network"))
    } else {
        Ok(routes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_address_needs_no_resolver_and_the_wrong_family_names_the_flag() {
        let routes_to = |host, ipv6| async_io::block_on(routes(host, Some(5070), ipv6));
        let found = routes_to("127.0.0.1", false).unwrap();
        assert_eq!(found, [Route { remote: "127.0.0.1:5070".parse().unwrap(), local: "127.0.0.1".parse().unwrap() }]);
        assert!(routes_to("127.0.0.1", true).unwrap_err().contains("-sip-register-network udp4"));
    }
}
