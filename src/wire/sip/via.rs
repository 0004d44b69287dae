//! Via (RFC 3261 §20.42, `rport` of RFC 3581).

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::grammar::{is_blank, is_token, parse_parameters, trim};
use super::transport::Transport;
use crate::wire::uri::{Host, Parameters, parse_host_port};

/// What every branch of an RFC 3261 implementation begins with (§8.1.1.7).
pub const BRANCH_COOKIE: &str = "z9hG4bK";

/// One Via value: a hop that the request took, and the way back of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// `UDP`, `TCP`, `TLS` … in capitals.
    pub transport: String,
    /// Who sent the request, in its own words.
    pub host: Host,
    /// The port, if written.
    pub port: Option<u16>,
    /// `branch`, `received`, `rport` …
    pub parameters: Parameters,
}

/// The `rport` parameter (RFC 3581).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rport {
    /// Not there.
    Absent,
    /// There without a value: the sender wants to know the port that we see.
    Asked,
    /// The source port that the receiver saw.
    Port(u16),
}

impl Via {
    /// A Via of ours that asks for `rport`; over a connection it asks for that to be used again (RFC 5923 §4).
    pub fn new(transport: Transport, host: Host, port: u16, branch: &str) -> Self {
        let mut parameters = Parameters::new();
        parameters.push("branch", Some(branch.to_owned()));
        parameters.push("rport", None);
        if transport.is_reliable() {
            parameters.push("alias", None);
        }
        Self { transport: transport.via().to_owned(), host, port: Some(port), parameters }
    }

    /// The transaction's name.
    pub fn branch(&self) -> Option<Cow<'_, str>> {
        self.parameters.value("branch")
    }

    /// The branch, if it identifies the transaction all by itself (RFC 3261 §17.2.3). The bare cookie does not.
    pub fn unique_branch(&self) -> Option<Cow<'_, str>> {
        let is_unique = |branch: &str| {
            let cookie = branch.get(..BRANCH_COOKIE.len());
            branch.len() > BRANCH_COOKIE.len() && cookie.is_some_and(|text| text.eq_ignore_ascii_case(BRANCH_COOKIE))
        };
        self.branch().filter(|branch| is_unique(branch))
    }

    /// The address that the receiver saw.
    pub fn received(&self) -> Option<IpAddr> {
        Host::parse(&self.parameters.value("received")?).ok()?.address()
    }

    /// The source port that the receiver saw, or whether it was asked for. A bad value counts as asked.
    pub fn rport(&self) -> Rport {
        match (self.parameters.has("rport"), self.parameters.value("rport")) {
            (false, _) => Rport::Absent,
            (true, value) => value.and_then(|value| value.parse().ok()).map_or(Rport::Asked, Rport::Port),
        }
    }

    /// The multicast or forced address of the response.
    pub fn maddr(&self) -> Option<Host> {
        Host::parse(&self.parameters.value("maddr")?).ok()
    }

    /// The port, or the default of the transport.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.transport == "TLS" { 5061 } else { 5060 })
    }

    /// Notes where the request really came from (RFC 3261 §18.2.1, RFC 3581 §4).
    pub fn mark_source(&mut self, source: SocketAddr) {
        let address = source.ip().to_canonical();
        let is_asked = self.rport() != Rport::Absent;
        if is_asked {
            self.parameters.set("rport", Some(source.port().to_string()));
        }
        // A `received` that came with the request is the sender's invention.
        self.parameters.remove("received");
        if is_asked || self.host.address() != Some(address) {
            self.parameters.set("received", Some(address.to_string()));
        }
    }

    /// Reads one value.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut protocol = text.splitn(3, '/').map(trim);
        let (name, version, rest) = (protocol.next(), protocol.next(), protocol.next());
        let (Some(name), Some(version), Some(rest)) = (name, version, rest) else { return Err("no transport") };
        if !name.eq_ignore_ascii_case("SIP") || version != "2.0" {
            return Err("not SIP/2.0");
        }
        let (transport, rest) = rest.split_once(is_blank).ok_or("no host")?;
        if !is_token(transport) {
            return Err("bad transport");
        }
        let end = rest.find(';').unwrap_or(rest.len());
        let (host, port) = parse_host_port(trim(&rest[..end])).map_err(|_| "bad host or port")?;
        Ok(Self { transport: transport.to_ascii_uppercase(), host, port, parameters: parse_parameters(&rest[end..])? })
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Via {
        Via::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn blanks_may_stand_around_every_sign() {
        let via = parse("SIP  /    2.0   / udp  192.168.255.111  :  5070 ; branch= z9hG4bK30239");
        assert_eq!(via.to_string(), "SIP/2.0/UDP 192.168.255.111:5070;branch=z9hG4bK30239");
        assert_eq!(via.unique_branch().as_deref(), Some("z9hG4bK30239"));
        let via = parse("SIP/2.0/TLS [2001:db8::1]");
        assert_eq!((via.host.to_string().as_str(), via.port_or_default()), ("[2001:db8::1]", 5061));
    }

    #[test]
    fn the_bare_cookie_identifies_nothing() {
        assert_eq!(parse("SIP/2.0/UDP h;branch=z9hG4bK").unique_branch(), None);
        assert_eq!(parse("SIP/2.0/UDP h;branch=1").unique_branch(), None);
        assert_eq!(parse("SIP/2.0/UDP h").unique_branch(), None);
    }

    #[test]
    fn the_source_is_noted_where_it_differs_or_was_asked_for() {
        let source: SocketAddr = "192.0.2.7:4444".parse().unwrap();
        let marked = |text: &str| {
            let mut via = parse(text);
            via.mark_source(source);
            via.to_string()
        };
        assert_eq!(marked("SIP/2.0/UDP 192.0.2.7:5060;branch=x"), "SIP/2.0/UDP 192.0.2.7:5060;branch=x");
        assert_eq!(marked("SIP/2.0/UDP 10.0.0.1"), "SIP/2.0/UDP 10.0.0.1;received=192.0.2.7");
        assert_eq!(
            marked("SIP/2.0/UDP 10.0.0.1;rport;received=1.1.1.1"),
            "SIP/2.0/UDP 10.0.0.1;rport=4444;received=192.0.2.7"
        );
        let via = parse(&marked("SIP/2.0/UDP h;rport"));
        assert_eq!((via.rport(), via.received()), (Rport::Port(4444), Some(source.ip())));
    }

    #[test]
    fn an_address_of_version_four_in_six_is_noted_as_four() {
        let mut via = parse("SIP/2.0/UDP h");
        via.mark_source("[::ffff:192.0.2.7]:5060".parse().unwrap());
        assert_eq!(via.received(), Some("192.0.2.7".parse().unwrap()));
        via.mark_source("[2001:db8::7]:5060".parse().unwrap());
        assert_eq!(via.to_string(), "SIP/2.0/UDP h;received=2001:db8::7");
        assert_eq!(parse(&via.to_string()), via);
    }

    #[test]
    fn what_is_no_via_is_refused() {
        for bad in [
            "",
            "SIP/2.0",
            "SIP/2.0/UDP",
            "SIP/7.0/UDP h",
            "HTTP/2.0/UDP h",
            "SIP/2.0/UDP h;;",
            "SIP/2.0/UDP user@h",
            "SIP/2.0/UDP h x",
            "SIP/2.0/U,P h",
            "SIP/2.0/UDP h:70000",
            "SIP/2.0/UDP ;branch=x",
        ] {
            assert!(Via::parse(bad).is_err(), "{bad}");
        }
    }
}
