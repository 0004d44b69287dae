//! Digest access authentication, the server's side: MD5 with `qop=auth`, nothing else.
//!
//! Owns: the nonce, the digest, the judgement. RFC: 3261 §22, 2617 §3.2.

use md5::{Digest as _, Md5};

use super::Account;
use crate::random::token;
use crate::telephone::message::elements;

/// The protection domain.
const REALM: &str = "lab";

/// What credentials are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The user is who it says.
    Right,
    /// Whoever made them knows the password, but the nonce is not the last one or its count was used.
    Stale,
    /// They are not of this account.
    Wrong,
}

/// The nonce that is to be answered.
#[derive(Debug)]
pub(super) struct Nonce {
    value: String,
    /// The highest count so far.
    count: u32,
}

impl Nonce {
    /// A new one, that nobody has seen.
    pub(super) fn new() -> Self {
        Self { value: token() + &token(), count: 0 }
    }

    /// The value of WWW-Authenticate.
    pub(super) fn challenge(&self, is_stale: bool) -> String {
        let stale = if is_stale { ", stale=true" } else { "" };
        format!("Digest realm=\"{REALM}\", nonce=\"{}\", algorithm=MD5, qop=\"auth\"{stale}", self.value)
    }

    /// Judges the value of Authorization in a request of `method` to `request_uri`.
    pub(super) fn judge(&mut self, account: &Account, method: &str, request_uri: &str, credentials: &str) -> Verdict {
        let Some(credentials) = Credentials::parse(credentials) else { return Verdict::Wrong };
        let is_of_account = credentials.username == account.user
            && credentials.realm == REALM
            && credentials.uri == request_uri
            && credentials.response == credentials.expected(method, &account.password);
        let Some(count) = credentials.count().filter(|_| is_of_account) else { return Verdict::Wrong };
        if credentials.nonce != self.value || count <= self.count {
            return Verdict::Stale;
        }
        self.count = count;
        Verdict::Right
    }
}

/// The parameters of Authorization.
#[derive(Debug, Default)]
struct Credentials {
    username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    /// The nonce count as written: eight hexadecimal digits.
    nc: String,
    cnonce: String,
}

impl Credentials {
    /// `None` for another scheme, algorithm or quality of protection than was asked for.
    fn parse(value: &str) -> Option<Self> {
        let (scheme, parameters) = value.split_once(' ')?;
        let mut credentials = Self::default();
        let mut has_qop = false;
        for parameter in elements(parameters) {
            let (name, value) = parameter.split_once('=')?;
            let value = unquoted(value.trim());
            match name.trim().to_ascii_lowercase().as_str() {
                "username" => credentials.username = value,
                "realm" => credentials.realm = value,
                "nonce" => credentials.nonce = value,
                "uri" => credentials.uri = value,
                "response" => credentials.response = value.to_ascii_lowercase(),
                "nc" => credentials.nc = value,
                "cnonce" => credentials.cnonce = value,
                "qop" if value == "auth" => has_qop = true,
                "algorithm" if !value.eq_ignore_ascii_case("MD5") => return None,
                _ => (),
            }
        }
        (scheme.eq_ignore_ascii_case("Digest") && has_qop).then_some(credentials)
    }

    fn count(&self) -> Option<u32> {
        u32::from_str_radix(&self.nc, 16).ok().filter(|_| self.nc.len() == 8)
    }

    /// What `response` has to be (RFC 2617 §3.2.2.1).
    fn expected(&self, method: &str, password: &str) -> String {
        let Self { username, realm, nonce, uri, nc, cnonce, .. } = self;
        let secret = hash(&format!("{username}:{realm}:{password}"));
        let request = hash(&format!("{method}:{uri}"));
        hash(&format!("{secret}:{nonce}:{nc}:{cnonce}:auth:{request}"))
    }
}

/// MD5 in lower-case hexadecimal digits.
fn hash(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A token as it is, a quoted string without its quotes and escapes.
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.to_owned() };
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The value of Authorization for a challenge's nonce.
    pub(in crate::registrar) fn answer(nonce: &str, count: u32, uri: &str, user: &str, password: &str) -> String {
        let text = |text: &str| text.to_owned();
        let credentials = Credentials {
            username: text(user),
            realm: text(REALM),
            nonce: text(nonce),
            uri: text(uri),
            nc: format!("{count:08x}"),
            cnonce: text("c"),
            response: String::new(),
        };
        let response = credentials.expected("REGISTER", password);
        format!(
            "Digest username=\"{user}\", realm=\"{REALM}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", \
             algorithm=MD5, qop=auth, nc={count:08x}, cnonce=\"c\""
        )
    }

    #[test]
    fn the_example_of_rfc_2617_has_its_response() {
        let value = "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
                     nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", qop=auth, nc=00000001, \
                     cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\"";
        let credentials = Credentials::parse(value).unwrap();
        assert_eq!(credentials.expected("GET", "Circle Of Life"), credentials.response);
    }

    #[test]
    fn credentials_count_once_for_their_account_uri_and_nonce() {
        let account = Account { user: "a".into(), password: "p".into(), registrar: "127.0.0.1:1".parse().unwrap() };
        let mut nonce = Nonce::new();
        let value = nonce.value.clone();
        let mut judge = |credentials: &str| nonce.judge(&account, "REGISTER", "sip:h", credentials);
        assert_eq!(judge(&answer(&value, 1, "sip:h", "a", "p")), Verdict::Right);
        assert_eq!(judge(&answer(&value, 1, "sip:h", "a", "p")), Verdict::Stale);
        assert_eq!(judge(&answer(&value, 2, "sip:h", "a", "p")), Verdict::Right);
        assert_eq!(judge(&answer("other", 3, "sip:h", "a", "p")), Verdict::Stale);
        for wrong in [
            answer(&value, 3, "sip:h", "a", "q"),
            answer(&value, 3, "sip:h", "b", "p"),
            answer(&value, 3, "sip:x", "a", "p"),
            answer(&value, 3, "sip:h", "a", "p").replace("qop=auth, ", ""),
            answer(&value, 3, "sip:h", "a", "p").replace("Digest", "Basic"),
            "Digest".to_owned(),
        ] {
            assert_eq!(judge(&wrong), Verdict::Wrong, "{wrong}");
        }
    }

    #[test]
    fn a_quoted_string_loses_its_escapes() {
        assert_eq!(unquoted(r#""a\"b\\""#), r#"a"b\"#);
        assert_eq!(unquoted("auth"), "auth");
    }
}
