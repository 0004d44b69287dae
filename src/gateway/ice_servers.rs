//! The STUN and TURN servers that Galene names for its peer connections.
//!
//! Owns: what of its list can be used, the servers' addresses, when they are asked. Does not own: what they answer
//! (`rtc::gathering`), the look-up of their names (`io`).
//!
//! Most gateways stand beside their Galene and need no server, which costs each stream a relay of its own. So servers are
//! asked only when a way is not found at once, and from then on at once; STUN servers, which keep nothing for us, at once
//! wherever we are likely to need them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::galene::RtcConfiguration;
use crate::rtc::gathering::Server;
use crate::rtc::turn::Credentials;
use crate::wire::address::is_private;
use crate::wire::ice_uri::{IceUri, Service, Transport};
use crate::wire::uri::Host;

/// Servers that are used; people write two or three.
const MAX_SERVERS: usize = 8;
/// Addresses of one server that are asked at once: one of each version of IP, or of two servers that SRV names.
const ADDRESSES_OF_ONE: usize = 2;
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
    /// Where the servers are that have names, best first, by their URIs; nowhere while one is being looked for.
    addresses: BTreeMap<String, Vec<SocketAddr>>,
    /// A connection was found that needed them.
    are_needed: bool,
}

impl IceServers {
    /// What Galene says; gives the servers that are to be looked for.
    pub(super) fn learn(&mut self, rtc: &RtcConfiguration) -> Vec<IceUri> {
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
        let mut wanted = Vec::new();
        for Known { uri, .. } in &self.servers {
            if matches!(uri.host, Host::Name(_)) && !self.addresses.contains_key(&uri.to_string()) {
                self.addresses.insert(uri.to_string(), Vec::new());
                wanted.push(uri.clone());
            }
        }
        wanted
    }

    /// A server was looked for; a failure is forgotten, so that Galene's next word has it looked for again.
    pub(super) fn on_addresses(&mut self, uri: &IceUri, addresses: Vec<SocketAddr>) {
        if addresses.is_empty() {
            self.addresses.remove(&uri.to_string());
            self.told = RtcConfiguration::default();
        } else {
            self.addresses.insert(uri.to_string(), addresses);
        }
    }

    /// Only relayed candidates may be used.
    pub(super) const fn relay_only(&self) -> bool {
        self.told.relay_only
    }

    /// When a connection with these addresses of its own asks the servers, if there is no way; `None` if there are none.
    pub(super) fn gather_after(&self, candidates: &[SocketAddr]) -> Option<Duration> {
        let is_behind_nat = candidates.iter().all(|candidate| is_private(candidate.ip()));
        let is_relay = |known: &Known| known.uri.service == Service::Turn;
        // A question to a STUN server leaves nothing behind there.
        let costs_nothing = !self.servers.iter().any(is_relay);
        let at_once = self.are_needed || self.relay_only() || (is_behind_nat && costs_nothing);
        (!self.servers.is_empty()).then_some(if at_once { Duration::ZERO } else { GATHER_AFTER })
    }

    /// A connection has found no way without them.
    pub(super) const fn note_need(&mut self) {
        self.are_needed = true;
    }

    /// Those that are asked over UDP.
    pub(super) fn over_udp(&self) -> impl Iterator<Item = Server> {
        self.located().filter_map(|(known, address)| {
            let credentials = match (known.uri.service, &known.credentials) {
                _ if known.uri.transport != Transport::Udp => return None,
                (Service::Stun, _) => None,
                (Service::Turn, Some(credentials)) => Some(credentials.clone()),
                (Service::Turn, None) => return None,
            };
            Some(Server { address, credentials, is_reliable: false, is_alternate: false })
        })
    }

    /// The relays that are reached by TCP or TLS.
    pub(super) fn over_streams(&self) -> impl Iterator<Item = StreamServer> {
        self.located().filter_map(|(known, address)| {
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
            Some(StreamServer { address, tls_name, credentials })
        })
    }

    /// Each server at each of its addresses.
    fn located(&self) -> impl Iterator<Item = (&Known, SocketAddr)> {
        self.servers.iter().flat_map(|known| self.addresses_of(known).into_iter().map(move |address| (known, address)))
    }

    /// Of a server with a name, at most [`ADDRESSES_OF_ONE`].
    fn addresses_of(&self, known: &Known) -> Vec<SocketAddr> {
        let at = |ip: IpAddr| vec![SocketAddr::new(ip, known.uri.port_or_default())];
        match &known.uri.host {
            Host::V4(ip) => at((*ip).into()),
            Host::V6(ip) => at((*ip).into()),
            Host::Name(_) => {
                let found = self.addresses.get(&known.uri.to_string());
                found.into_iter().flatten().take(ADDRESSES_OF_ONE).copied().collect()
            }
        }
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
        assert_eq!(servers.gather_after(&[]), None);
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
        let uri = |text: &str| IceUri::parse(text).unwrap();
        let names = ["turn:turn.test", "turn:turn.test?transport=tcp", "turns:turn.test"].map(uri);
        assert_eq!(servers.learn(&rtc), names);
        assert!(servers.learn(&rtc).is_empty());
        let udp = |servers: &IceServers| -> Vec<_> {
            servers.over_udp().map(|server| (server.address.to_string(), server.credentials.is_some())).collect()
        };
        let addressed = [("192.0.2.1:3478".to_owned(), false), ("[::1]:3478".to_owned(), true)];
        assert_eq!(udp(&servers), addressed);
        let found = ["192.0.2.2:7000", "[2001:db8::1]:7000", "192.0.2.3:7000"].map(|text| text.parse().unwrap());
        servers.on_addresses(&names[0], found.to_vec());
        let [stun, turn_v6] = addressed;
        let named = ["192.0.2.2:7000", "[2001:db8::1]:7000"].map(|address| (address.to_owned(), true));
        assert_eq!(udp(&servers), [&[stun], &named[..], &[turn_v6]].concat(), "two of one server are enough");
        servers.on_addresses(&names[2], vec![found[0]]);
        let streams: Vec<_> = servers.over_streams().collect();
        assert_eq!((streams.len(), streams[0].address), (1, found[0]));
        assert_eq!(streams[0].tls_name.as_deref(), Some("turn.test"));
    }

    #[test]
    fn servers_are_asked_late_unless_they_are_needed() {
        let mut servers = IceServers::default();
        let (home, public) = (["192.168.7.2:9".parse().unwrap()], ["192.0.2.9:9".parse().unwrap()]);
        servers.learn(&told(&["turn:192.0.2.1"], false));
        assert_eq!(servers.gather_after(&home), Some(GATHER_AFTER));
        servers.note_need();
        assert_eq!(servers.gather_after(&home), Some(Duration::ZERO));
        let mut servers = IceServers::default();
        servers.learn(&told(&["stun:192.0.2.1"], false));
        assert_eq!(servers.gather_after(&home), Some(Duration::ZERO));
        assert_eq!(servers.gather_after(&public), Some(GATHER_AFTER));
        servers.learn(&told(&["stun:192.0.2.1", "turn:192.0.2.1"], false));
        assert_eq!(servers.gather_after(&home), Some(GATHER_AFTER));
        let mut servers = IceServers::default();
        servers.learn(&told(&["turn:192.0.2.1"], true));
        assert_eq!((servers.gather_after(&public), servers.relay_only()), (Some(Duration::ZERO), true));
    }

    #[test]
    fn a_name_that_has_no_address_is_looked_up_again_at_the_next_word() {
        let mut servers = IceServers::default();
        let rtc = told(&["turn:turn.test"], false);
        assert_eq!(servers.learn(&rtc).len(), 1);
        servers.on_addresses(&IceUri::parse("turn:turn.test").unwrap(), Vec::new());
        assert_eq!(servers.learn(&rtc).len(), 1);
    }
}
