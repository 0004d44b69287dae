//! The URIs of servers that help ICE: `stun:` and `stuns:` (RFC 7064), `turn:` and `turns:` (RFC 7065).
//!
//! Owns: the text, and what RFC 5928 makes of it for SRV. Does not own: looking the host up.

use std::fmt;
use std::str::FromStr;

use super::uri::{Host, UriError, parse_host_port};

/// The port for UDP and TCP (RFC 8489 §18.6, RFC 8656 §20).
pub const DEFAULT_PORT: u16 = 3478;
/// The port for TLS.
pub const DEFAULT_TLS_PORT: u16 = 5349;

/// What is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Only which address others see.
    Stun,
    /// A relay.
    Turn,
}

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

/// Why a text names no server that could be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IceUriError {
    /// No scheme, or another one.
    #[error("it must begin with stun:, stuns:, turn: or turns:")]
    Scheme,
    /// As `turn://host`: a habit from other URIs.
    #[error("no // comes after the scheme: write turn:host, not turn://host")]
    Slashes,
    /// As `turn:user@host`, which no RFC has.
    #[error("the user name does not belong into it")]
    User,
    /// Neither a name nor an address, or a path behind it.
    #[error("{0:?} is no host: a name, an IPv4 address, or an IPv6 address in brackets is wanted")]
    Host(String),
    /// Not a number of 1 to 65535.
    #[error("the port must be a number of 1 to 65535")]
    Port,
    /// Something else than `transport=` behind the question mark.
    #[error("only ?transport=udp or ?transport=tcp can follow")]
    Query,
    /// STUN has no choice of transport (RFC 7064 §3.1).
    #[error("nothing can follow the port of a stun: or stuns: URI")]
    StunQuery,
    /// A transport that no relay is reached by here.
    #[error("transport={0:?} is not known: udp and tcp are")]
    Transport(String),
    /// `turns:` with UDP would be DTLS.
    #[error("turns: with transport=udp is DTLS, which is not supported: use transport=tcp, or turn:")]
    Dtls,
}

/// A server by its URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceUri {
    /// What it is for.
    pub service: Service,
    /// Its name or address.
    pub host: Host,
    /// As given.
    pub port: Option<u16>,
    /// How it is reached.
    pub transport: Transport,
}

impl IceUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// What is wrong with it, in words for whoever wrote it.
    pub fn parse(text: &str) -> Result<Self, IceUriError> {
        let (scheme, rest) = text.split_once(':').ok_or(IceUriError::Scheme)?;
        let (service, is_secure) = match scheme.to_ascii_lowercase().as_str() {
            "stun" => (Service::Stun, false),
            "stuns" => (Service::Stun, true),
            "turn" => (Service::Turn, false),
            "turns" => (Service::Turn, true),
            _ => return Err(IceUriError::Scheme),
        };
        if rest.starts_with("//") {
            return Err(IceUriError::Slashes);
        }
        if rest.contains('@') {
            return Err(IceUriError::User);
        }
        let (host_port, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        if host_port.contains(char::is_whitespace) {
            return Err(IceUriError::Host(host_port.to_owned()));
        }
        let (host, port) = parse_host_port(host_port).map_err(|error| match error {
            UriError::Port => IceUriError::Port,
            _ => IceUriError::Host(host_port.to_owned()),
        })?;
        let transport = match (service, query) {
            (Service::Stun, Some(_)) => return Err(IceUriError::StunQuery),
            (Service::Stun, None) if is_secure => Transport::Tls,
            (Service::Stun, None) => Transport::Udp,
            (Service::Turn, query) => transport(query, is_secure)?,
        };
        Ok(Self { service, host, port, transport })
    }

    /// As given, or the default of the transport.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(match self.transport {
            Transport::Udp | Transport::Tcp => DEFAULT_PORT,
            Transport::Tls => DEFAULT_TLS_PORT,
        })
    }

    /// The name whose SRV records lead to the server (RFC 5928 §3, RFC 8489 §8): where a name and no port is given. A URI
    /// that names no transport means UDP, or TLS, here as in browsers, so others are not looked for.
    pub fn srv_name(&self) -> Option<String> {
        let (Host::Name(name), None) = (&self.host, self.port) else { return None };
        let service = match (self.service, self.transport) {
            (Service::Stun, Transport::Udp) => "_stun._udp",
            (Service::Stun, Transport::Tcp) => "_stun._tcp",
            (Service::Stun, Transport::Tls) => "_stuns._tcp",
            (Service::Turn, Transport::Udp) => "_turn._udp",
            (Service::Turn, Transport::Tcp) => "_turn._tcp",
            (Service::Turn, Transport::Tls) => "_turns._tcp",
        };
        Some(format!("{service}.{name}"))
    }
}

/// RFC 7065 §3.1, and the table of RFC 5928 §3 for what is not given.
fn transport(query: Option<&str>, is_secure: bool) -> Result<Transport, IceUriError> {
    let Some(query) = query else { return Ok(if is_secure { Transport::Tls } else { Transport::Udp }) };
    let (name, value) = query.split_once('=').ok_or(IceUriError::Query)?;
    if !name.eq_ignore_ascii_case("transport") || value.contains(['&', '=']) {
        return Err(IceUriError::Query);
    }
    match (value.to_ascii_lowercase().as_str(), is_secure) {
        ("udp", false) => Ok(Transport::Udp),
        ("tcp", false) => Ok(Transport::Tcp),
        ("tcp", true) => Ok(Transport::Tls),
        ("udp", true) => Err(IceUriError::Dtls),
        (_, _) => Err(IceUriError::Transport(value.to_owned())),
    }
}

impl FromStr for IceUri {
    type Err = IceUriError;

    fn from_str(text: &str) -> Result<Self, IceUriError> {
        Self::parse(text)
    }
}

impl fmt::Display for IceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.service, self.transport) {
            (Service::Stun, Transport::Tls) => "stuns",
            (Service::Stun, Transport::Udp | Transport::Tcp) => "stun",
            (Service::Turn, Transport::Tls) => "turns",
            (Service::Turn, Transport::Udp | Transport::Tcp) => "turn",
        };
        write!(f, "{scheme}:{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))?;
        match (self.service, self.transport) {
            (Service::Turn, Transport::Tcp) => f.write_str("?transport=tcp"),
            (Service::Stun, _) | (Service::Turn, Transport::Udp | Transport::Tls) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_server_is_read_and_written() {
        use Service::{Stun, Turn};
        use Transport::{Tcp, Tls, Udp};
        for (text, service, host, port, transport, written, srv) in [
            (
                "stun:stun.example.org",
                Stun,
                "stun.example.org",
                (None, 3478),
                Udp,
                "stun:stun.example.org",
                Some("_stun._udp.stun.example.org"),
            ),
            ("stuns:192.0.2.1", Stun, "192.0.2.1", (None, 5349), Tls, "stuns:192.0.2.1", None),
            (
                "turn:turn.example.org:443",
                Turn,
                "turn.example.org",
                (Some(443), 443),
                Udp,
                "turn:turn.example.org:443",
                None,
            ),
            ("TURN:h?transport=UDP", Turn, "h", (None, 3478), Udp, "turn:h", Some("_turn._udp.h")),
            (
                "turn:[2001:db8::1]:99?transport=tcp",
                Turn,
                "2001:db8::1",
                (Some(99), 99),
                Tcp,
                "turn:[2001:db8::1]:99?transport=tcp",
                None,
            ),
            ("turn:h?transport=tcp", Turn, "h", (None, 3478), Tcp, "turn:h?transport=tcp", Some("_turn._tcp.h")),
            ("turns:h", Turn, "h", (None, 5349), Tls, "turns:h", Some("_turns._tcp.h")),
            ("turns:[::1]?Transport=tcp", Turn, "::1", (None, 5349), Tls, "turns:[::1]", None),
        ] {
            let uri: IceUri = text.parse().unwrap();
            assert_eq!(uri, IceUri { service, host: host.parse().unwrap(), port: port.0, transport }, "{text}");
            assert_eq!((uri.port_or_default(), uri.srv_name().as_deref()), (port.1, srv), "{text}");
            assert_eq!(uri.to_string(), written);
            assert_eq!(written.parse(), Ok(uri));
        }
    }

    #[test]
    fn junk_is_named() {
        use IceUriError::{Dtls, Port, Query, Scheme, Slashes, StunQuery, User};
        for (text, error) in [
            ("", Scheme),
            ("turn.example.org", Scheme),
            ("sip:h", Scheme),
            ("turn://h", Slashes),
            ("turn:u:p@h", User),
            ("turn:h:0", Port),
            ("turn:h:65536", Port),
            ("turn:h:", Port),
            ("turn:h?", Query),
            ("turn:h?proto=udp", Query),
            ("turn:h?transport=udp&x=1", Query),
            ("turn:h?transport=sctp", IceUriError::Transport("sctp".into())),
            ("turn:h?transport=", IceUriError::Transport(String::new())),
            ("stun:h?transport=udp", StunQuery),
            ("turns:h?transport=udp", Dtls),
            ("turn:", IceUriError::Host(String::new())),
            ("turn:[::1", IceUriError::Host("[::1".into())),
            ("turn:h/path", IceUriError::Host("h/path".into())),
            ("turn: h", IceUriError::Host(" h".into())),
        ] {
            assert_eq!(IceUri::parse(text), Err(error), "{text}");
        }
        assert!(IceUri::parse("turn:2001:db8::1").is_err());
    }
}
