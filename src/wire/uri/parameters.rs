//! The list `;name=value` that follows a URI or a header value (RFC 3261 §25.1: `uri-parameters`, `generic-param`).
//!
//! Values are kept as they were written, quotes included, so that a message is written back as it came.

use std::borrow::Cow;
use std::fmt;

/// One `name` or `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name as written; compared without regard to case.
    pub name: String,
    /// The value as written, a quoted string with its quotes.
    pub value: Option<String>,
}

/// An ordered list of parameters. Of several with one name the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<Parameter>);

impl Parameters {
    /// The empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.0.iter()
    }

    /// Whether `name` is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The value of `name` as written.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.find(name)?.value.as_deref()
    }

    /// The value of `name`, a quoted string without its quotes and backslashes.
    pub fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.raw(name).map(unquote)
    }

    /// Adds a parameter at the end. `value` must be a token, a host or a quoted string.
    pub fn push(&mut self, name: impl Into<String>, value: Option<String>) {
        self.0.push(Parameter { name: name.into(), value });
    }

    /// Replaces the value of `name` in its place, or adds it at the end.
    pub fn set(&mut self, name: &str, value: Option<String>) {
        match self.0.iter_mut().find(|parameter| parameter.name.eq_ignore_ascii_case(name)) {
            Some(parameter) => parameter.value = value,
            None => self.push(name, value),
        }
    }

    /// Like [`Self::set`], with `text` in quotes.
    pub fn set_quoted(&mut self, name: &str, text: &str) {
        self.set(name, Some(quote(text)));
    }

    /// Takes every `name` out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|parameter| !parameter.name.eq_ignore_ascii_case(name));
    }

    fn find(&self, name: &str) -> Option<&Parameter> {
        self.0.iter().find(|parameter| parameter.name.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for parameter in &self.0 {
            write!(f, ";{parameter}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// `text` as a quoted string (RFC 3261 §25.1): in quotes, with a backslash before quotes and backslashes.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // A quoted string cannot hold them even behind a backslash.
            '\r' | '\n' => quoted.push(' '),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// The text of a quoted string; anything else is returned as it is.
pub fn unquote(raw: &str) -> Cow<'_, str> {
    let Some(inner) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return Cow::Borrowed(raw) };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        // A backslash at the very end cannot come out of the parser; it is dropped.
        let kept = if character == '\\' { characters.next() } else { Some(character) };
        text.extend(kept);
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_and_unquoting_are_inverse() {
        for text in ["", "plain", r#"a "b" \c"#, "\\", "Б\u{0}\u{7f}"] {
            assert_eq!(unquote(&quote(text)), text);
        }
        assert_eq!(unquote("token"), "token");
        assert_eq!(unquote("\""), "\"");
    }

    #[test]
    fn names_are_found_in_any_case_and_replaced_in_place() {
        let mut parameters = Parameters::new();
        parameters.push("TAG", Some("1".into()));
        parameters.push("lr", None);
        parameters.set("tag", Some("2".into()));
        parameters.set_quoted("reason", "so \"what\"");
        assert_eq!(parameters.to_string(), r#";TAG=2;lr;reason="so \"what\"""#);
        assert_eq!(parameters.value("Reason").as_deref(), Some("so \"what\""));
        assert!(parameters.has("LR") && parameters.value("lr").is_none());
        parameters.remove("Lr");
        assert_eq!(parameters.len(), 2);
    }
}
