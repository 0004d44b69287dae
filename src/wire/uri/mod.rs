//! SIP, SIPS and tel addresses (RFC 3261 §19.1, RFC 3966): parsing, writing, comparing.
//!
//! Owns: the URI alone, hosts, and the parameter list that header fields share with it.
//! Does not own: `"Name" <uri>;tag=…` (`wire::sip`), what a URI means for routing (`sip`).
//! Escapes are kept as written and taken away only where someone reads or compares: writing gives back what came.

mod compare;
mod host;
mod parameters;
mod phone;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use host::Host;
pub(crate) use host::parse_host_port;
pub use parameters::{Parameter, Parameters, quote, unquote};

/// Parameters or headers in one URI: far above any real one, low enough that comparing two stays cheap.
pub const MAX_URI_PARAMETERS: usize = 32;

/// What is wrong with a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// No `scheme:` in front.
    #[error("no scheme")]
    Scheme,
    /// Blanks, control characters, quotes or angle brackets.
    #[error("a character that a URI cannot hold")]
    Character,
    /// Nothing before the `@`.
    #[error("empty user")]
    User,
    /// Neither a name nor an address.
    #[error("bad host")]
    Host,
    /// Not a number of 1 to 65535.
    #[error("bad port")]
    Port,
    /// A parameter without a name, or too many.
    #[error("bad parameter")]
    Parameter,
    /// A header without a name, or too many.
    #[error("bad header in the URI")]
    Header,
}

/// An address of whatever scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uri {
    /// `sip:` and `sips:`.
    Sip(SipUri),
    /// `tel:+1-201-555-0123;phone-context=…`.
    Tel(TelUri),
    /// Any other scheme, kept as it is.
    Other(OtherUri),
}

/// A `sip:` or `sips:` URI. [`PartialEq`] compares the spelling, [`Self::is_equivalent`] the meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipUri {
    /// `sips:`.
    pub is_secure: bool,
    /// The user part with its escapes.
    pub raw_user: Option<String>,
    /// The password with its escapes. RFC 3261 advises against it; it is kept to be written back.
    pub raw_password: Option<String>,
    /// The host.
    pub host: Host,
    /// The port, if written.
    pub port: Option<u16>,
    /// `;transport=udp;lr` …, names and values with their escapes.
    pub parameters: Parameters,
    /// `?Subject=…&…`, names and values with their escapes.
    pub headers: Vec<(String, String)>,
}

/// A telephone number as a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelUri {
    /// The number as written, perhaps with visual separators.
    pub number: String,
    /// What follows.
    pub parameters: Parameters,
}

/// A URI of a scheme that this program does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherUri {
    /// The scheme as written, without the colon.
    pub scheme: String,
    /// All that follows the colon.
    pub rest: String,
}

impl Uri {
    /// Reads a whole URI.
    ///
    /// # Errors
    /// The first thing that RFC 3261 §25.1 does not allow.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let (scheme, rest) = text.split_once(':').ok_or(UriError::Scheme)?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return Err(UriError::Scheme);
        }
        if rest.is_empty() || rest.bytes().any(|byte| byte <= b' ' || byte == 0x7f || b"<>\"".contains(&byte)) {
            return Err(UriError::Character);
        }
        if scheme.eq_ignore_ascii_case("sip") {
            SipUri::parse_rest(rest, false).map(Self::Sip)
        } else if scheme.eq_ignore_ascii_case("sips") {
            SipUri::parse_rest(rest, true).map(Self::Sip)
        } else if scheme.eq_ignore_ascii_case("tel") {
            let (number, parameters) = rest.split_once(';').map_or((rest, None), |(n, p)| (n, Some(p)));
            if number.is_empty() {
                return Err(UriError::User);
            }
            Ok(Self::Tel(TelUri { number: number.to_owned(), parameters: parse_parameters(parameters)? }))
        } else {
            Ok(Self::Other(OtherUri { scheme: scheme.to_owned(), rest: rest.to_owned() }))
        }
    }

    /// The SIP or SIPS URI, if it is one.
    pub const fn as_sip(&self) -> Option<&SipUri> {
        match self {
            Self::Sip(uri) => Some(uri),
            Self::Tel(_) | Self::Other(_) => None,
        }
    }

    /// The user of a SIP URI without escapes, or the number of a tel URI.
    pub fn user(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Sip(uri) => uri.user(),
            Self::Tel(uri) => Some(Cow::Borrowed(&uri.number)),
            Self::Other(_) => None,
        }
    }

    /// The host of a SIP URI.
    pub const fn host(&self) -> Option<&Host> {
        match self {
            Self::Sip(uri) => Some(&uri.host),
            Self::Tel(_) | Self::Other(_) => None,
        }
    }

    /// Whether both name the same thing: RFC 3261 §19.1.4, for tel RFC 3966 §4.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        compare::uris(self, other)
    }
}

impl SipUri {
    /// `sip:user@host:port` with nothing else. Characters that a user part cannot hold are escaped.
    pub fn new(user: Option<&str>, host: Host, port: Option<u16>) -> Self {
        Self {
            is_secure: false,
            raw_user: user.map(escape_user),
            raw_password: None,
            host,
            port,
            parameters: Parameters::new(),
            headers: Vec::new(),
        }
    }

    /// The user part without escapes.
    pub fn user(&self) -> Option<Cow<'_, str>> {
        self.raw_user.as_deref().map(unescape)
    }

    /// The port, or the default of the scheme: 5060, for `sips:` 5061.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.is_secure { 5061 } else { 5060 })
    }

    /// Whether this hop is a loose router (RFC 3261 §16.12).
    pub fn is_loose_router(&self) -> bool {
        self.parameters.has("lr")
    }

    /// Whether both name the same thing (RFC 3261 §19.1.4).
    pub fn is_equivalent(&self, other: &Self) -> bool {
        compare::sip_uris(self, other)
    }

    fn parse_rest(rest: &str, is_secure: bool) -> Result<Self, UriError> {
        // An `@` cannot stand unescaped in a user part, so the first one ends it: `;`, `?` and `:` before it are user.
        let (userinfo, rest) = rest.split_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (raw_user, raw_password) = match userinfo.map(|info| info.split_once(':').ok_or(info)) {
            None => (None, None),
            Some(Ok((user, password))) => (Some(user), Some(password)),
            Some(Err(user)) => (Some(user), None),
        };
        if raw_user.is_some_and(str::is_empty) {
            return Err(UriError::User);
        }
        let (rest, headers) = rest.split_once('?').map_or((rest, None), |(rest, headers)| (rest, Some(headers)));
        let (hostport, parameters) = rest.split_once(';').map_or((rest, None), |(host, p)| (host, Some(p)));
        let (host, port) = parse_host_port(hostport)?;
        Ok(Self {
            is_secure,
            raw_user: raw_user.map(str::to_owned),
            raw_password: raw_password.map(str::to_owned),
            host,
            port,
            parameters: parse_parameters(parameters)?,
            headers: parse_headers(headers)?,
        })
    }
}

impl From<SipUri> for Uri {
    fn from(uri: SipUri) -> Self {
        Self::Sip(uri)
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sip(uri) => uri.fmt(f),
            Self::Tel(uri) => write!(f, "tel:{}{}", uri.number, uri.parameters),
            Self::Other(uri) => write!(f, "{}:{}", uri.scheme, uri.rest),
        }
    }
}

impl fmt::Display for SipUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_secure { "sips:" } else { "sip:" })?;
        if let Some(user) = &self.raw_user {
            f.write_str(user)?;
            if let Some(password) = &self.raw_password {
                write!(f, ":{password}")?;
            }
            f.write_str("@")?;
        }
        write!(f, "{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.parameters)?;
        for (index, (name, value)) in self.headers.iter().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

fn parse_parameters(text: Option<&str>) -> Result<Parameters, UriError> {
    let mut parameters = Parameters::new();
    let Some(text) = text else { return Ok(parameters) };
    for part in text.split(';') {
        let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || parameters.len() == MAX_URI_PARAMETERS {
            return Err(UriError::Parameter);
        }
        parameters.push(name, value.map(str::to_owned));
    }
    Ok(parameters)
}

fn parse_headers(text: Option<&str>) -> Result<Vec<(String, String)>, UriError> {
    let mut headers = Vec::new();
    let Some(text) = text else { return Ok(headers) };
    for part in text.split('&') {
        let (name, value) = part.split_once('=').ok_or(UriError::Header)?;
        if name.is_empty() || headers.len() == MAX_URI_PARAMETERS {
            return Err(UriError::Header);
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    Ok(headers)
}

/// Takes `%HH` escapes away. What is not an escape stays; bytes that are no UTF-8 become U+FFFD.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(String::from_utf8_lossy(&unescape_bytes(text)).into_owned())
}

/// Like [`unescape`], for comparing: the bytes as they are.
fn unescape_bytes(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = match (bytes[at], bytes.get(at + 1), bytes.get(at + 2)) {
            (b'%', Some(&high), Some(&low)) => hex_digit(high).zip(hex_digit(low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                plain.push((high << 4) | low);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    plain
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Escapes what a user part cannot hold (RFC 3261 §25.1 `user`).
pub fn escape_user(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
