//! Hosts and ports (RFC 3261 §25.1 `hostport`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::UriError;

/// The longest domain name (RFC 1035 §2.3.4).
const MAX_NAME_BYTES: usize = 255;

/// A domain name or an address. Names are compared without regard to case.
#[derive(Clone, Debug)]
pub enum Host {
    /// A domain name as written.
    Name(String),
    /// `192.0.2.1`.
    V4(Ipv4Addr),
    /// `[2001:db8::1]`.
    V6(Ipv6Addr),
}

impl Host {
    /// Reads a name, an IPv4 address, or an IPv6 address in or without brackets (Via's `received` has none).
    ///
    /// # Errors
    /// [`UriError::Host`] if it is none of them.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(UriError::Host)?;
            return inner.parse().map(Self::V6).map_err(|_| UriError::Host);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        // An underscore is no host name by the book, but names of containers and Windows machines have it.
        let is_name = !text.is_empty()
            && text.len() <= MAX_NAME_BYTES
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name { Ok(Self::Name(text.to_owned())) } else { Err(UriError::Host) }
    }

    /// The address, if it is one.
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::V4(address) => Some(IpAddr::V4(*address)),
            Self::V6(address) => Some(IpAddr::V6(*address)),
        }
    }
}

/// `host`, `host:port` or `[v6]:port`.
pub(crate) fn parse_host_port(text: &str) -> Result<(Host, Option<u16>), UriError> {
    let split_at = match text.rfind(']') {
        Some(bracket) => text[bracket..].find(':').map(|colon| bracket + colon),
        None => text.find(':'),
    };
    let Some(colon) = split_at else { return Ok((Host::parse(text)?, None)) };
    Ok((Host::parse(text[..colon].trim_end())?, Some(parse_port(text[colon + 1..].trim_start())?)))
}

pub(crate) fn parse_port(text: &str) -> Result<u16, UriError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UriError::Port);
    }
    text.parse().ok().filter(|&port| port != 0).ok_or(UriError::Port)
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a.eq_ignore_ascii_case(b),
            (Self::V4(a), Self::V4(b)) => a == b,
            (Self::V6(a), Self::V6(b)) => a == b,
            (Self::Name(_) | Self::V4(_) | Self::V6(_), _) => false,
        }
    }
}

impl Eq for Host {}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(address),
        }
    }
}

impl FromStr for Host {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}
