//! Finding a SIP server (RFC 3263): names to addresses.

use std::net::SocketAddr;
use std::time::Duration;

use super::blocking;
use super::sip::source_address;
use crate::sip::event::{Route, Target};

/// How long an answer of the system's resolver is used, which tells no lifetime of its own.
const SYSTEM_LIFETIME: Duration = Duration::from_secs(60);

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
pub(super) async fn locate(target: &Target, ipv6: bool) -> Result<Located, String> {
    let name = target.host.trim_matches(['[', ']']);
    let transport = target.transport_or_default();
    let port = target.port.unwrap_or(transport.default_port());
    let found = blocking::resolve(name.to_owned(), port).await;
    let found = found.map_err(|error| format!("{name} cannot be looked up: {error}"))?;
    let of_family: Vec<SocketAddr> = found.into_iter().filter(|address| address.is_ipv6() == ipv6).collect();
    if of_family.is_empty() {
        let (has_not, other) = if ipv6 { ("IPv6", "udp4") } else { ("IPv4", "udp6") };
        return Err(format!("{name} has no {has_not} address: try -sip-register-network {other}"));
    }
    let routes: Vec<_> = of_family
        .into_iter()
        .filter_map(|remote| source_address(remote).map(|local| Route { transport, remote, local }))
        .collect();
    if routes.is_empty() {
        Err(format!("there is no route to {name}: check this machine's network"))
    } else {
        Ok(Located { routes, lifetime: SYSTEM_LIFETIME })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sip::Transport;

    #[test]
    fn a_literal_address_needs_no_resolver_and_the_wrong_family_names_the_flag() {
        let locate = |ipv6| {
            let target = Target { host: "127.0.0.1".into(), port: Some(5070), transport: None, is_secure: false };
            async_io::block_on(locate(&target, ipv6))
        };
        let (remote, local) = ("127.0.0.1:5070".parse().unwrap(), "127.0.0.1".parse().unwrap());
        assert_eq!(locate(false).unwrap().routes, [Route { transport: Transport::Udp, remote, local }]);
        assert!(locate(true).unwrap_err().contains("-sip-register-network udp4"));
    }
}
