//! Header values of the extensions that live in a dialog: RAck and RSeq (RFC 3262), Session-Expires (RFC 4028),
//! Replaces (RFC 3891), Refer-To (RFC 3515) and Refer-Sub (RFC 4488).

use std::fmt;

use super::grammar::{parse_parameters, parse_saturating, trim};
use super::headers::Headers;
use super::method::{CSeq, Method};
use super::name_addr::NameAddr;
use super::typed::HeaderError;
use crate::wire::uri::{SipUri, Uri, unescape};

/// Which reliable provisional response a PRACK acknowledges (RFC 3262 §7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RAck {
    /// The response's RSeq, 1 to 2³² − 1.
    pub rseq: u32,
    /// The response's CSeq.
    pub cseq: CSeq,
}

/// Who refreshes a session (RFC 4028 §4), by the roles in the transaction that carries the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresher {
    /// Who sends the request.
    Uac,
    /// Who answers it.
    Uas,
}

/// How long a session lives without a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// The interval.
    pub seconds: u32,
    /// Who refreshes, if that is said.
    pub refresher: Option<Refresher>,
}

/// The dialog that an INVITE takes the place of (RFC 3891 §6.1), named as its owner, who gets the INVITE, sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    /// Its Call-ID.
    pub call_id: String,
    /// The tag of the owner.
    pub to_tag: String,
    /// The tag of the other side.
    pub from_tag: String,
    /// Only while it is not answered.
    pub is_early_only: bool,
}

/// Whom to call (RFC 3515 §2.1), taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferTo {
    /// The target without the header fields and the method that its URI carried.
    pub target: SipUri,
    /// The dialog that the call to the target is to take the place of, as written in the URI.
    pub replaces: Option<String>,
}

impl Headers {
    /// The response that a PRACK is for.
    ///
    /// # Errors
    /// If it is missing or malformed.
    pub fn rack(&self) -> Result<RAck, HeaderError> {
        self.only("RAck", RAck::parse)
    }

    /// The lifetime of the session; an unreadable one counts as absent, since a timer is a wish.
    pub fn session_expires(&self) -> Option<SessionExpires> {
        SessionExpires::parse(self.get("Session-Expires")?)
    }

    /// The dialog to be replaced, if one is named.
    ///
    /// # Errors
    /// If there are several, or it is malformed.
    pub fn replaces(&self) -> Result<Option<Replaces>, HeaderError> {
        if self.has("Replaces") { self.only("Replaces", Replaces::parse).map(Some) } else { Ok(None) }
    }

    /// Whom a REFER names.
    ///
    /// # Errors
    /// If it is missing, comes twice or asks for anything but an INVITE to a SIP URI.
    pub fn refer_to(&self) -> Result<ReferTo, HeaderError> {
        self.only("Refer-To", ReferTo::parse)
    }

    /// Whether a REFER asks for no subscription (RFC 4488 §4).
    pub fn declines_refer_subscription(&self) -> bool {
        self.get("Refer-Sub").is_some_and(|value| value.split(';').next().is_some_and(|word| is_false(trim(word))))
    }

    /// Whether `extension` is among those that the sender knows or insists on.
    pub fn knows(&self, extension: &str) -> bool {
        self.supported().chain(self.require()).any(|known| known.eq_ignore_ascii_case(extension))
    }
}

fn is_false(word: &str) -> bool {
    word.eq_ignore_ascii_case("false")
}

impl RAck {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (rseq, cseq) = text.split_once([' ', '\t']).ok_or("no CSeq")?;
        let is_number = !rseq.is_empty() && rseq.bytes().all(|byte| byte.is_ascii_digit());
        let rseq = rseq.parse().ok().filter(|_| is_number).ok_or("bad response number")?;
        Ok(Self { rseq, cseq: CSeq::parse(trim(cseq))? })
    }
}

impl SessionExpires {
    fn parse(text: &str) -> Option<Self> {
        let (seconds, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
        let seconds = parse_saturating(trim(seconds))?;
        let parameters = parse_parameters(parameters).ok()?;
        let refresher = parameters.value("refresher").and_then(|value| match value.to_ascii_lowercase().as_str() {
            "uac" => Some(Refresher::Uac),
            "uas" => Some(Refresher::Uas),
            _ => None,
        });
        Some(Self { seconds, refresher })
    }
}

impl fmt::Display for SessionExpires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refresher = match self.refresher {
            None => "",
            Some(Refresher::Uac) => ";refresher=uac",
            Some(Refresher::Uas) => ";refresher=uas",
        };
        write!(f, "{}{refresher}", self.seconds)
    }
}

impl Replaces {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (call_id, parameters) = text.split_at(text.find(';').ok_or("no tags")?);
        let call_id = trim(call_id);
        if call_id.is_empty() || call_id.contains([' ', '\t', ',']) {
            return Err("not one Call-ID");
        }
        let parameters = parse_parameters(parameters)?;
        // RFC 3891 §6.1: a dialog with a peer from before RFC 3261 has 0 for its tag.
        let tag = |name| parameters.value(name).map(std::borrow::Cow::into_owned);
        Ok(Self {
            call_id: call_id.to_owned(),
            to_tag: tag("to-tag").ok_or("no to-tag")?,
            from_tag: tag("from-tag").ok_or("no from-tag")?,
            is_early_only: parameters.has("early-only"),
        })
    }
}

impl ReferTo {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let Uri::Sip(mut target) = NameAddr::parse(text)?.uri else { return Err("not a SIP URI") };
        if target.parameters.value("method").is_some_and(|method| Method::parse(&method) != Some(Method::Invite)) {
            return Err("another method than INVITE");
        }
        target.parameters.remove("method");
        // Of the header fields that the URI may dictate only this one is taken: the others would let a stranger write
        // into a request that goes out in our name.
        let replaces = target.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
        let replaces = replaces.map(|(_, value)| unescape(value).into_owned());
        if replaces.as_deref().is_some_and(|value| Replaces::parse(value).is_err()) {
            return Err("a malformed Replaces");
        }
        target.headers.clear();
        Ok(Self { target, replaces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Headers {
        let mut headers = Headers::new();
        headers.push(name, value);
        headers
    }

    #[test]
    fn rack_names_a_response_and_its_request() {
        let rack = with("RAck", "776656  1 INVITE").rack().unwrap();
        assert_eq!((rack.rseq, rack.cseq.to_string().as_str()), (776_656, "1 INVITE"));
        for bad in ["", "1", "1 2", "x 1 INVITE", "+1 1 INVITE", "4294967296 1 INVITE"] {
            assert!(with("RAck", bad).rack().is_err(), "{bad}");
        }
    }

    #[test]
    fn session_expires_may_name_the_refresher() {
        let read = |text| with("x", text).session_expires();
        assert_eq!(read("1800"), Some(SessionExpires { seconds: 1800, refresher: None }));
        let uas = SessionExpires { seconds: 90, refresher: Some(Refresher::Uas) };
        assert_eq!(read("90 ; Refresher = UAS"), Some(uas));
        assert_eq!(uas.to_string(), "90;refresher=uas");
        assert_eq!(read("90;refresher=me"), Some(SessionExpires { seconds: 90, refresher: None }));
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn replaces_needs_both_tags_and_comes_once() {
        let read = |text: &str| with("Replaces", text).replaces();
        let found = read("98asjd8@test.com;to-tag=9;from-tag=7 ; early-only").unwrap().unwrap();
        assert_eq!(
            (found.call_id.as_str(), found.to_tag.as_str(), found.from_tag.as_str()),
            ("98asjd8@test.com", "9", "7")
        );
        assert!(found.is_early_only);
        for bad in ["", "a;to-tag=1", "a;from-tag=1", ";to-tag=1;from-tag=2", "a b;to-tag=1;from-tag=2"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let mut twice = with("Replaces", "a;to-tag=1;from-tag=2");
        twice.push("Replaces", "b;to-tag=1;from-tag=2");
        assert!(twice.replaces().is_err());
        assert_eq!(Headers::new().replaces(), Ok(None));
    }

    #[test]
    fn refer_to_is_freed_of_what_its_uri_dictates() {
        let text = "<sips:bob@b.example.com;method=INVITE;x=y?Replaces=12%40h%3Bto-tag%3D1%3Bfrom-tag%3D2&Route=z>";
        let found = with("r", text).refer_to().unwrap();
        assert_eq!(found.target.to_string(), "sips:bob@b.example.com;x=y");
        assert_eq!(found.replaces.as_deref(), Some("12@h;to-tag=1;from-tag=2"));
        for bad in ["<sip:b@h;method=BYE>", "<tel:123>", "<http://h/>", "<sip:b@h?Replaces=12>", "b"] {
            assert!(with("Refer-To", bad).refer_to().is_err(), "{bad}");
        }
        assert_eq!(with("Refer-To", "sip:b@h").refer_to().unwrap().replaces, None);
    }

    #[test]
    fn refer_sub_false_declines_the_subscription() {
        assert!(with("Refer-Sub", "False;x").declines_refer_subscription());
        assert!(!with("Refer-Sub", "true").declines_refer_subscription());
        assert!(!Headers::new().declines_refer_subscription());
    }
}
