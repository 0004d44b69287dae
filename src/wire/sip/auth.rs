//! Challenges and credentials (RFC 3261 §20.7, §20.27, §20.28, §20.44, grammar of RFC 7616 §3).

use std::borrow::Cow;
use std::fmt;

use super::grammar::{is_blank, is_token, parse_parameter_list, trim};
use crate::wire::uri::{Parameter, Parameters};

/// A challenge (`WWW-Authenticate`, `Proxy-Authenticate`) or the answer to one (`Authorization`,
/// `Proxy-Authorization`): both are a scheme and a list of parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// `Digest`, as written.
    pub scheme: String,
    /// `realm`, `nonce` … as written.
    pub parameters: Parameters,
}

impl Authentication {
    /// A Digest without parameters.
    pub fn digest() -> Self {
        Self { scheme: "Digest".to_owned(), parameters: Parameters::new() }
    }

    /// Whether the scheme is Digest.
    pub fn is_digest(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("Digest")
    }

    /// A parameter without its quotes.
    pub fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.parameters.value(name)
    }

    /// Whether the challenge says that only the nonce was too old.
    pub fn is_stale(&self) -> bool {
        self.value("stale").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether `quality` is among the offered qualities of protection.
    pub fn offers_qop(&self, quality: &str) -> bool {
        self.value("qop").is_some_and(|list| list.split(',').any(|one| trim(one).eq_ignore_ascii_case(quality)))
    }

    /// Reads one header value.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = trim(text);
        let (scheme, list) = text.split_once(is_blank).unwrap_or((text, ""));
        if !is_token(scheme) {
            return Err("no scheme");
        }
        let list = trim(list);
        let parameters = if list.is_empty() { Parameters::new() } else { parse_parameter_list(list, b',')? };
        if parameters.iter().any(|Parameter { value, .. }| value.is_none()) {
            return Err("a parameter without value");
        }
        Ok(Self { scheme: scheme.to_owned(), parameters })
    }
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scheme)?;
        for (index, parameter) in self.parameters.iter().enumerate() {
            write!(f, "{}{parameter}", if index == 0 { " " } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_and_written_back() {
        let text = r#"Digest realm="a, \"b\"", nonce="84a4cc6f==", qop="auth , auth-int", stale=TRUE, algorithm=MD5"#;
        let challenge = Authentication::parse(text).unwrap();
        assert_eq!(challenge.to_string(), text);
        assert!(challenge.is_digest() && challenge.is_stale());
        assert_eq!(challenge.value("REALM").as_deref(), Some("a, \"b\""));
        assert!(challenge.offers_qop("auth") && challenge.offers_qop("auth-int") && !challenge.offers_qop("x"));
    }

    #[test]
    fn unknown_schemes_are_read_too_and_broken_ones_refused() {
        let unknown = Authentication::parse("NoOneKnowsThisScheme opaque-data=here").unwrap();
        assert!(!unknown.is_digest());
        assert!(Authentication::parse("Digest").unwrap().parameters.is_empty());
        for bad in ["", "Digest realm", "Digest realm=\"x", "Digest ,", "\"Digest\" a=b"] {
            assert!(Authentication::parse(bad).is_err(), "{bad}");
        }
    }
}
