//! Header values as what they mean. Each accessor reads the raw value anew: nothing is cached, nothing goes stale.

use std::net::SocketAddr;

use super::auth::Authentication;
use super::grammar::{find_outside, is_quoted_string, is_token, parse_saturating, split, trim};
use super::headers::Headers;
use super::method::CSeq;
use super::name_addr::{Contacts, NameAddr};
use super::via::Via;
use crate::wire::uri::unquote;

/// Hops that one request may have taken: RFC 4475 §3.1.1.7 has 34, and 70 is where Max-Forwards begins.
pub const MAX_VIAS: usize = 70;

/// Values of Contact, Route or Record-Route in one message.
pub const MAX_ADDRESSES: usize = 32;

/// A header that is missing or cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} header: {problem}")]
pub struct HeaderError {
    /// Which header.
    pub name: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// One Warning value (RFC 3261 §20.43).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// 300 to 399.
    pub code: u16,
    /// Who warns: a host or a pseudonym.
    pub agent: String,
    /// What about, without quotes.
    pub text: String,
}

impl Headers {
    /// The top Via: who sent a request last, whom a response was for.
    ///
    /// # Errors
    /// If it is missing or malformed.
    pub fn via(&self) -> Result<Via, HeaderError> {
        let value = self.raw_list("Via").next().ok_or(HeaderError { name: "Via", problem: "missing" })?;
        read_one("Via", value, Via::parse)
    }

    /// All Vias, the top one first.
    ///
    /// # Errors
    /// If one is malformed.
    pub fn vias(&self) -> Result<Vec<Via>, HeaderError> {
        self.read_list("Via", MAX_VIAS, Via::parse)
    }

    /// Notes in the top Via where the request came from (RFC 3261 §18.2.1, RFC 3581 §4).
    ///
    /// # Errors
    /// If there is no proper Via.
    pub fn mark_source(&mut self, source: SocketAddr) -> Result<(), HeaderError> {
        let mut via = self.via()?;
        via.mark_source(source);
        self.replace_first("Via", via.to_string());
        Ok(())
    }

    /// Who began the dialog.
    ///
    /// # Errors
    /// If it is missing or malformed.
    pub fn from(&self) -> Result<NameAddr, HeaderError> {
        self.only("From", NameAddr::parse)
    }

    /// Whom it was begun with.
    ///
    /// # Errors
    /// If it is missing or malformed.
    pub fn to(&self) -> Result<NameAddr, HeaderError> {
        self.only("To", NameAddr::parse)
    }

    /// The Call-ID, compared byte by byte.
    ///
    /// # Errors
    /// If it is missing, empty or more than one word.
    pub fn call_id(&self) -> Result<&str, HeaderError> {
        self.only("Call-ID", |_| Ok(()))?;
        self.get("Call-ID")
            .filter(|value| !value.is_empty() && !value.contains([' ', '\t']))
            .ok_or(HeaderError { name: "Call-ID", problem: "not one word" })
    }

    /// The place in the dialog.
    ///
    /// # Errors
    /// If it is missing or malformed.
    pub fn cseq(&self) -> Result<CSeq, HeaderError> {
        self.only("CSeq", CSeq::parse)
    }

    /// The addresses to reach the sender at.
    ///
    /// # Errors
    /// If one is malformed, or `*` is not alone.
    pub fn contacts(&self) -> Result<Contacts, HeaderError> {
        let mut raw = self.raw_list("Contact");
        if raw.next() == Some(Ok("*")) {
            return match raw.next() {
                None => Ok(Contacts::All),
                Some(_) => Err(HeaderError { name: "Contact", problem: "* is not alone" }),
            };
        }
        self.read_list("Contact", MAX_ADDRESSES, NameAddr::parse).map(Contacts::List)
    }

    /// The proxies that the request is still to pass.
    ///
    /// # Errors
    /// If one is malformed.
    pub fn routes(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.read_list("Route", MAX_ADDRESSES, NameAddr::parse)
    }

    /// The proxies that want to be passed by later requests.
    ///
    /// # Errors
    /// If one is malformed.
    pub fn record_routes(&self) -> Result<Vec<NameAddr>, HeaderError> {
        self.read_list("Record-Route", MAX_ADDRESSES, NameAddr::parse)
    }

    /// How many hops are left; `None` if it is not said (RFC 2543 did not know it).
    ///
    /// # Errors
    /// If it is not a number of 0 to 255.
    pub fn max_forwards(&self) -> Result<Option<u8>, HeaderError> {
        if !self.has("Max-Forwards") {
            return Ok(None);
        }
        let read = |value: &str| parse_saturating(value).and_then(|n| n.try_into().ok()).ok_or("not 0 to 255");
        self.only("Max-Forwards", read).map(Some)
    }

    /// Seconds that something lives. A value that is no number counts as absent (RFC 3261 §10.3).
    pub fn expires(&self) -> Option<u32> {
        self.seconds("Expires")
    }

    /// The least that a registrar accepts.
    pub fn min_expires(&self) -> Option<u32> {
        self.seconds("Min-Expires")
    }

    /// Seconds to wait before the next attempt; its comment and parameters are left out.
    pub fn retry_after(&self) -> Option<u32> {
        self.seconds("Retry-After")
    }

    /// The leading number of a header that begins with seconds: also Session-Expires and Min-SE.
    pub fn seconds(&self, name: &str) -> Option<u32> {
        let value = self.get(name)?;
        let end = value.find(|character: char| !character.is_ascii_digit()).unwrap_or(value.len());
        let rest = trim(&value[end..]);
        if rest.is_empty() || rest.starts_with([';', '(']) { parse_saturating(&value[..end]) } else { None }
    }

    /// Extensions that the receiver must know.
    pub fn require(&self) -> impl Iterator<Item = &str> {
        self.values("Require")
    }

    /// Extensions that the sender knows.
    pub fn supported(&self) -> impl Iterator<Item = &str> {
        self.values("Supported")
    }

    /// The type of the body in small letters, without parameters: `application/sdp`.
    pub fn content_type(&self) -> Option<String> {
        let value = self.get("Content-Type")?;
        let (kind, subtype) = value.split(';').next()?.split_once('/')?;
        Some(format!("{}/{}", trim(kind), trim(subtype)).to_ascii_lowercase())
    }

    /// The challenges of a 401. Unreadable ones are left out: another one may do.
    pub fn www_authenticate(&self) -> impl Iterator<Item = Authentication> {
        self.authentications("WWW-Authenticate")
    }

    /// The challenges of a 407. Unreadable ones are left out.
    pub fn proxy_authenticate(&self) -> impl Iterator<Item = Authentication> {
        self.authentications("Proxy-Authenticate")
    }

    /// The credentials of a request.
    pub fn authorization(&self) -> impl Iterator<Item = Authentication> {
        self.authentications("Authorization")
    }

    /// The readable warnings.
    pub fn warnings(&self) -> impl Iterator<Item = Warning> {
        self.values("Warning").filter_map(Warning::parse)
    }

    fn authentications<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Authentication> {
        self.lines(name).filter_map(|header| Authentication::parse(header.value()).ok())
    }

    /// The one value of a header that must not come twice.
    pub(super) fn only<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<T, HeaderError> {
        let mut lines = self.lines(name);
        let header = lines.next().ok_or(HeaderError { name, problem: "missing" })?;
        if lines.next().is_some() {
            return Err(HeaderError { name, problem: "more than one" });
        }
        read(header.value()).map_err(|problem| HeaderError { name, problem })
    }

    fn raw_list<'a>(&'a self, name: &'static str) -> impl Iterator<Item = Result<&'a str, &'static str>> {
        self.lines(name)
            .flat_map(|header| split(header.value(), b','))
            .map(|part| part.map_err(|_| "unbalanced quotes or angle brackets"))
    }

    fn read_list<T>(
        &self,
        name: &'static str,
        limit: usize,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Vec<T>, HeaderError> {
        let mut list = Vec::new();
        for value in self.raw_list(name) {
            if list.len() == limit {
                return Err(HeaderError { name, problem: "too many values" });
            }
            list.push(read_one(name, value, &read)?);
        }
        Ok(list)
    }
}

fn read_one<T>(
    name: &'static str,
    value: Result<&str, &'static str>,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<T, HeaderError> {
    value.and_then(read).map_err(|problem| HeaderError { name, problem })
}

impl Warning {
    /// Reads one value.
    pub fn parse(text: &str) -> Option<Self> {
        let (code, rest) = text.split_once(' ')?;
        let rest = trim(rest);
        let at = find_outside(rest, b' ').ok()??;
        let (agent, text) = (&rest[..at], trim(&rest[at..]));
        let code = parse_saturating(code).filter(|code| (100..1000).contains(code))?;
        let is_sound = is_quoted_string(text) && !agent.is_empty();
        is_sound.then(|| Self { code: code as u16, agent: agent.to_owned(), text: unquote(text).into_owned() })
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let agent = if is_token(&self.agent.replace([':', '[', ']'], "")) { &self.agent } else { "-" };
        write!(f, "{} {agent} {}", self.code, crate::wire::uri::quote(&self.text))
    }
}
