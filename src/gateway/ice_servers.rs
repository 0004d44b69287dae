//! The STUN and TURN servers that Galene names for its peer connections.
//!
//! Owns: what of its list can be used, the servers' addresses, when they are asked. Does not own: what they answer
//! (`rtc::gathering`), the look-up of their names (`io`).
//!
//! Most gateways stand beside their Galene and need no server, which costs each stream a relay of its own. So servers are
//! asked only when a way is not found at once, and from then on at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::galene::RtcConfiguration;
use crate::rtc::gathering::Server;
use crate::rtc::turn::Credentials;
use crate::wire::ice_uri::{IceUri, Service, Transport};
use crate::wire::uri::Host;

/// Servers that are used; people write two or three.
const MAX_SERVERS: usize = 8;
/// A way without servers is found within two round trips.
const GATHER_AFTER: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    uri: IceUri,
    credentials: Option<Credentials>,
}

/// A server that is reached by TCP or TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamServer {
    pub(super) address: SocketAddr,
    /// For TLS: what its certificate must name.
    pub(super) tls_name: Option<String>,
    pub(super) credentials: Credentials,
}

/// The servers of this gateway's Galene.
#[derive(Debug, Default)]
pub(super) struct IceServers {
    told: RtcConfiguration,
    servers: Vec<Known>,
    /// IPv4 addresses of names; none while one is being looked up.
    addresses: BTreeMap<String, Option<IpAddr>>,
    /// A connection was found that needed them.
    are_needed: bool,
}

impl IceServers {
    /// What Galene says; gives the names that are to be looked up.
    pub(super) fn learn(&mut self, rtc: &RtcConfiguration) -> Vec<String> {
        if self.told == *rtc {
            return Vec::new();
        }
        self.told = rtc.clone();
        self.servers.clear();
        for server in &rtc.ice_servers {
            let credentials = server.username.clone().zip(server.credential.clone());
            let credentials = credentials.map(|(username, password)| Credentials { username, password });
            for url in &server.urls {
                match IceUri::parse(url) {
                    Ok(uri) if self.servers.len() < MAX_SERVERS => {
                        self.servers.push(Known { uri, credentials: credentials.clone() });
                    }
                    Ok(_) => tracing::warn!("more than {MAX_SERVERS} ICE servers: {url} is not used"),
                    Err(error) => tracing::warn!("Galene names an ICE server that cannot be used, {url}: {error}"),
                }
            }
        }
        let names = self.servers.iter().filter_map(|known| match &known.uri.host {
            Host::Name(name) if !self.addresses.contains_key(name) => Some(name.clone()),
            Host::Name(_) | Host::V4(_) | Host::V6(_) => None,
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names.dedup();
        self.addresses.extend(names.iter().map(|name| (name.clone(), None)));
        names
    }

    /// A name has been looked up; a failure is forgotten, so that Galene's next word has it looked up again.
    pub(super) fn on_address(&mut self, name: &str, addresses: &[IpAddr]) {
        match addresses.iter().find(|address| address.is_ipv4()) {
            Some(address) => drop(self.addresses.insert(name.to_owned(), Some(*address))),
            None => {
                self.addresses.remove(name);
                self.told = RtcConfiguration::default();
            }
        }
    }

    /// Only relayed candidates may be used.
    pub(super) const fn relay_only(&self) -> bool {
        self.told.relay_only
    }

    /// When a connection without a way asks the servers; `None` if there are none.
    pub(super) fn gather_after(&self) -> Option<Duration> {
        let at_once = self.are_needed || self.relay_only();
        (!self.servers.is_empty()).then_some(if at_once { Duration::ZERO } else { GATHER_AFTER })
    }

    /// A connection has found no way without them.
    pub(super) const fn note_need(&mut self) {
        self.are_needed = true;
    }

    /// Those that are asked over UDP.
    pub(super) fn over_udp(&self) -> impl Iterator<Item = Server> {
        self.servers.iter().filter_map(|known| {
            let credentials = match (known.uri.service, &known.credentials) {
                (Service::Stun, _) => None,
                (Service::Turn, Some(credentials)) => Some(credentials.clone()),
                (Service::Turn, None) => return None,
            };
            let address = self.address_of(known).filter(|_| known.uri.transport == Transport::Udp)?;
            Some(Server { address, credentials, is_reliable: false })
        })
    }

    /// The relays that are reached by TCP or TLS.
    pub(super) fn over_streams(&self) -> impl Iterator<Item = StreamServer> {
        self.servers.iter().filter_map(|known| {
            let credentials = known.credentials.clone().filter(|_| known.uri.service == Service::Turn)?;
            let tls_name = match known.uri.transport {
                Transport::Udp => return None,
                Transport::Tcp => None,
                Transport::Tls => Some(match &known.uri.host {
                    Host::Name(name) => name.clone(),
                    Host::V4(ip) => ip.to_string(),
                    Host::V6(ip) => ip.to_string(),
                }),
            };
            Some(StreamServer { address: self.address_of(known)?, tls_name, credentials })
        })
    }

    fn address_of(&self, known: &Known) -> Option<SocketAddr> {
        let ip = match &known.uri.host {
            Host::V4(ip) => IpAddr::from(*ip),
            // Relays for IPv4 alone are asked for, over IPv4.
            Host::V6(_) => return None,
            Host::Name(name) => self.addresses.get(name).copied().flatten()?,
        };
        Some(SocketAddr::new(ip, known.uri.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::galene::IceServer;

    fn told(urls: &[&str], relay_only: bool) -> RtcConfiguration {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let server = IceServer { urls, username: Some("me".into()), credential: Some("secret".into()) };
        RtcConfiguration { ice_servers: vec![server], relay_only }
    }

    #[test]
    fn names_are_looked_up_once_and_servers_sorted_by_how_they_are_reached() {
        let mut servers = IceServers::default();
        assert_eq!(servers.gather_after(), None);
        let rtc = told(
            &[
                "stun:192.0.2.1",
                "turn:turn.test",
                "turn:turn.test?transport=tcp",
                "turns:turn.test",
                "http://x",
                "turn:[::1]",
            ],
            false,
        );
        assert_eq!(servers.learn(&rtc), ["turn.test"]);
        assert!(servers.learn(&rtc).is_empty());
        assert_eq!(servers.over_udp().map(|server| server.address.to_string()).collect::<Vec<_>>(), ["192.0.2.1:3478"]);
        servers.on_address("turn.test", &["2001:db8::1".parse().unwrap(), "192.0.2.2".parse().unwrap()]);
        let udp: Vec<_> = servers.over_udp().collect();
        assert_eq!(udp.len(), 2);
        assert!(udp[0].credentials.is_none() && udp[1].credentials.is_some());
        let streams: Vec<_> = servers.over_streams().collect();
        assert_eq!(streams.iter().map(|stream| stream.address.port()).collect::<Vec<_>>(), [3478, 5349]);
        assert_eq!(streams[1].tls_name.as_deref(), Some("turn.test"));
    }

    #[test]
    fn servers_are_asked_late_unless_they_are_needed() {
        let mut servers = IceServers::default();
        servers.learn(&told(&["turn:192.0.2.1"], false));
        assert_eq!(servers.gather_after(), Some(GATHER_AFTER));
        servers.note_need();
        assert_eq!(servers.gather_after(), Some(Duration::ZERO));
        let mut servers = IceServers::default();
        servers.learn(&told(&["turn:192.0.2.1"], true));
        assert_eq!((servers.gather_after(), servers.relay_only()), (Some(Duration::ZERO), true));
    }

    #[test]
    fn a_name_that_has_no_address_is_looked_up_again_at_the_next_word() {
        let mut servers = IceServers::default();
        let rtc = told(&["turn:turn.test"], false);
        assert_eq!(servers.learn(&rtc).len(), 1);
        servers.on_address("turn.test", &[]);
        assert_eq!(servers.learn(&rtc).len(), 1);
    }
}
