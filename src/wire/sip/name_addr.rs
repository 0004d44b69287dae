//! `"Name" <uri>;tag=…`: Contact, From, Record-Route, Route, To (RFC 3261 §20.10, §20.20, §20.30, §20.34, §20.39).

use std::borrow::Cow;
use std::fmt;

use super::grammar::{Unbalanced, find_outside, is_blank, is_token_byte, parse_parameters, quoted_string_length, trim};
use crate::wire::uri::{Parameters, Uri, quote, unquote};

/// An address with an optional name and the parameters of its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr {
    /// The display name without quotes and backslashes; never empty.
    pub display_name: Option<String>,
    /// The address.
    pub uri: Uri,
    /// The header's parameters: `tag`, `expires`, `q` …
    pub parameters: Parameters,
}

impl NameAddr {
    /// `<uri>` alone.
    pub fn new(uri: impl Into<Uri>) -> Self {
        Self { display_name: None, uri: uri.into(), parameters: Parameters::new() }
    }

    /// The tag that makes this end of a dialog unique.
    pub fn tag(&self) -> Option<Cow<'_, str>> {
        self.parameters.value("tag")
    }

    /// The same address with another tag.
    #[must_use]
    pub fn with_tag(mut self, tag: &str) -> Self {
        self.parameters.set("tag", Some(tag.to_owned()));
        self
    }

    /// Reads one value.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = trim(text);
        let open = find_outside(text, b'<').map_err(|Unbalanced| "unbalanced quotes or angle brackets")?;
        let Some(open) = open else { return Self::parse_addr_spec(text) };
        let close = text[open..].find('>').map(|at| open + at).ok_or("unbalanced angle brackets")?;
        // Blanks within the brackets are against the grammar and without ambiguity (RFC 4475 §3.1.2.14).
        let uri = Uri::parse(trim(&text[open + 1..close])).map_err(|_| "bad URI")?;
        Ok(Self {
            display_name: parse_display_name(trim(&text[..open]))?,
            uri,
            parameters: parse_parameters(&text[close + 1..])?,
        })
    }

    /// Without brackets whatever follows a semicolon belongs to the header, and commas and question marks are
    /// forbidden (RFC 3261 §20).
    fn parse_addr_spec(text: &str) -> Result<Self, &'static str> {
        let end = text.find(';').unwrap_or(text.len());
        let uri = text[..end].trim_end_matches(is_blank);
        if uri.contains([',', '?']) {
            return Err("a URI that needs angle brackets");
        }
        let uri = Uri::parse(uri).map_err(|_| "bad URI")?;
        Ok(Self { display_name: None, uri, parameters: parse_parameters(&text[end..])? })
    }
}

fn parse_display_name(text: &str) -> Result<Option<String>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('"') {
        if quoted_string_length(text) != Some(text.len()) {
            return Err("bad display name");
        }
        return Ok(Some(unquote(text).into_owned()).filter(|name| !name.is_empty()));
    }
    // Names in UTF-8 without quotes are common and harmless.
    let is_words = text.bytes().all(|byte| is_token_byte(byte) || matches!(byte, b' ' | b'\t') || byte >= 0x80);
    if is_words { Ok(Some(text.to_owned())) } else { Err("bad display name") }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.display_name {
            write!(f, "{} ", quote(name))?;
        }
        write!(f, "<{}>{}", self.uri, self.parameters)
    }
}

/// The Contact headers of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contacts {
    /// `*`: all bindings, in a REGISTER with `Expires: 0`.
    All,
    /// The addresses in order, perhaps none.
    List(Vec<NameAddr>),
}

impl Contacts {
    /// The first address, the remote target of a dialog.
    pub fn first(&self) -> Option<&NameAddr> {
        match self {
            Self::All => None,
            Self::List(list) => list.first(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> NameAddr {
        NameAddr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn names_are_freed_of_quotes_and_put_back_into_them() {
        for (text, name) in [
            (r#""J Rosenberg \\\""       <sip:j@e.com>  ; tag = 9"#, Some("J Rosenberg \\\"")),
            ("caller<sip:j@e.com>;tag=9", Some("caller")),
            ("token1~` token2'+_ token3*%!.- <sip:j@e.com>;tag=9", Some("token1~` token2'+_ token3*%!.-")),
            ("Köln <sip:j@e.com>;tag=9", Some("Köln")),
            ("\"\" <sip:j@e.com>;tag=9", None),
            ("<sip:j@e.com>;tag=9", None),
            ("< sip:j@e.com >;tag=9", None),
            ("sip:j@e.com ; tag=9", None),
        ] {
            let parsed = parse(text);
            assert_eq!(parsed.display_name.as_deref(), name, "{text}");
            assert_eq!(parsed.tag().as_deref(), Some("9"), "{text}");
            assert_eq!(parse(&parsed.to_string()), parsed, "{text}");
        }
    }

    #[test]
    fn within_brackets_parameters_belong_to_the_uri() {
        assert!(parse("<sip:j@e.com;lr>").parameters.is_empty());
        assert!(parse("sip:j@e.com;lr").parameters.has("lr"));
    }

    #[test]
    fn what_is_ambiguous_or_unbalanced_is_refused() {
        for bad in [
            "",
            "*",
            "Bell, Alexander <sip:a@e.com>",
            "\"Mr. J. User <sip:j@e.com>",
            "\"A\" B <sip:j@e.com>",
            "<sip:j@e.com",
            "sip:j@e.com?Route=x",
            "sip:j@e.com,sip:k@e.com",
            "<sip:j@e.com>;;;",
            "<sip:j@e.com> x",
            "<>",
            "j@e.com",
        ] {
            assert!(NameAddr::parse(bad).is_err(), "{bad}");
        }
    }
}
