//! Methods and CSeq (RFC 3261 §7.1, §20.16).

use std::fmt;

use super::grammar::{is_token, trim};

/// What a request asks for. Methods are told apart with regard to case (RFC 3261 §7.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// RFC 3261.
    Invite,
    /// RFC 3261.
    Ack,
    /// RFC 3261.
    Bye,
    /// RFC 3261.
    Cancel,
    /// RFC 3261.
    Options,
    /// RFC 3261.
    Register,
    /// RFC 6086.
    Info,
    /// RFC 3428.
    Message,
    /// RFC 6665.
    Notify,
    /// RFC 3262.
    Prack,
    /// RFC 3903.
    Publish,
    /// RFC 3515.
    Refer,
    /// RFC 6665.
    Subscribe,
    /// RFC 3311.
    Update,
    /// Any other token.
    Other(String),
}

impl Method {
    const KNOWN: [Self; 14] = [
        Self::Invite,
        Self::Ack,
        Self::Bye,
        Self::Cancel,
        Self::Options,
        Self::Register,
        Self::Info,
        Self::Message,
        Self::Notify,
        Self::Prack,
        Self::Publish,
        Self::Refer,
        Self::Subscribe,
        Self::Update,
    ];

    /// Reads a method: any token.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(known) = Self::KNOWN.iter().find(|method| method.as_str() == text) {
            return Some(known.clone());
        }
        is_token(text).then(|| Self::Other(text.to_owned()))
    }

    /// The method as it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Register => "REGISTER",
            Self::Info => "INFO",
            Self::Message => "MESSAGE",
            Self::Notify => "NOTIFY",
            Self::Prack => "PRACK",
            Self::Publish => "PUBLISH",
            Self::Refer => "REFER",
            Self::Subscribe => "SUBSCRIBE",
            Self::Update => "UPDATE",
            Self::Other(token) => token,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The CSeq header: the place of a request in its dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2³¹ (RFC 3261 §8.1.1.5).
    pub number: u32,
    /// The request's method.
    pub method: Method,
}

impl CSeq {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (number, method) = text.split_once([' ', '\t']).ok_or("no method")?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("no number");
        }
        let number = number.parse().ok().filter(|number| *number < 1 << 31).ok_or("number of 2^31 or more")?;
        Ok(Self { number, method: Method::parse(trim(method)).ok_or("bad method")? })
    }
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_told_apart_by_case() {
        assert!(Method::KNOWN.iter().all(|method| Method::parse(method.as_str()).as_ref() == Some(method)));
        assert_eq!(Method::parse("invite"), Some(Method::Other("invite".into())));
        assert_eq!(Method::parse("IN VITE"), None);
        assert_eq!(Method::parse(""), None);
    }

    #[test]
    fn cseq_numbers_end_below_two_to_the_thirty_first() {
        let cseq = CSeq::parse("0009  \t INVITE").unwrap();
        assert_eq!(cseq.to_string(), "9 INVITE");
        assert_eq!(CSeq::parse("2147483647 ACK").unwrap().number, i32::MAX as u32);
        for bad in ["", "1", "INVITE 1", "2147483648 ACK", "-1 ACK", "36893488147419103232 ACK", "1 A B"] {
            assert!(CSeq::parse(bad).is_err(), "{bad}");
        }
    }
}
