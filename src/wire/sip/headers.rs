//! The ordered list of header fields with their raw values (RFC 3261 §7.3).
//!
//! Folded lines are one line here, compact names are long ones; nothing else of a value is touched.
//! Content-Length is not in the list: it is framing, checked by the parser and computed by the writer.

use std::borrow::Cow;

use super::grammar::{find_outside, split, trim};

/// Header lines of one message: RFC 4475 §3.1.1.7 has 44, large proxies add a dozen.
pub const MAX_HEADERS: usize = 128;

/// Long names by compact ones: RFC 3261 §7.3.3, RFC 3515, 3841, 3891, 3892, 4028, 4474, 6665.
const COMPACT_NAMES: [(&str, &str); 19] = [
    ("a", "Accept-Contact"),
    ("b", "Referred-By"),
    ("c", "Content-Type"),
    ("d", "Request-Disposition"),
    ("e", "Content-Encoding"),
    ("f", "From"),
    ("i", "Call-ID"),
    ("j", "Reject-Contact"),
    ("k", "Supported"),
    ("l", "Content-Length"),
    ("m", "Contact"),
    ("n", "Identity-Info"),
    ("o", "Event"),
    ("r", "Refer-To"),
    ("s", "Subject"),
    ("t", "To"),
    ("u", "Allow-Events"),
    ("v", "Via"),
    ("x", "Session-Expires"),
];

/// Names whose spelling is put right when they are read, so that writing them needs no second look.
const LONG_NAMES: [&str; 37] = [
    "Accept",
    "Allow",
    "Authorization",
    "CSeq",
    "Call-ID",
    "Contact",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Event",
    "Expires",
    "From",
    "Max-Forwards",
    "Min-Expires",
    "Min-SE",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Require",
    "RAck",
    "RSeq",
    "Reason",
    "Record-Route",
    "Refer-Sub",
    "Refer-To",
    "Referred-By",
    "Replaces",
    "Require",
    "Retry-After",
    "Route",
    "Session-Expires",
    "Supported",
    "To",
    "Unsupported",
    "Via",
    "WWW-Authenticate",
    "Warning",
];

/// One header line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    name: Cow<'static, str>,
    value: String,
    /// The line was no UTF-8: each character of `value` is one byte of it, and is written so.
    is_latin1: bool,
}

impl Header {
    /// A header whose name is put into its usual spelling. Line ends within `value` become blanks, so that no one's
    /// words can add a header of their own.
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        let mut value = value.into();
        if value.contains(['\r', '\n']) {
            value = value.replace(['\r', '\n'], " ");
        }
        Self { name: usual_name(name), value: trimmed(value), is_latin1: false }
    }

    /// From the bytes of a message. What is no UTF-8 is taken for Latin-1, as old telephones send it.
    pub(super) fn from_bytes(name: &str, value: Vec<u8>) -> Self {
        match String::from_utf8(value) {
            Ok(value) => Self { name: usual_name(name), value: trimmed(value), is_latin1: false },
            Err(error) => {
                let value: String = error.as_bytes().iter().map(|&byte| char::from(byte)).collect();
                Self { name: usual_name(name), value: trimmed(value), is_latin1: true }
            }
        }
    }

    /// The name in its long form.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value on one line, without blanks around it.
    pub fn value(&self) -> &str {
        &self.value
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(b": ");
        if self.is_latin1 {
            out.extend(self.value.chars().map(|character| u8::try_from(character).unwrap_or(b'?')));
        } else {
            out.extend_from_slice(self.value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// `value` without blanks around it. A message cannot carry them.
fn trimmed(mut value: String) -> String {
    let inner = trim(&value);
    if inner.len() != value.len() {
        value = inner.to_owned();
    }
    value
}

fn usual_name(name: &str) -> Cow<'static, str> {
    let compact = COMPACT_NAMES.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)).map(|(_, long)| long);
    let long = LONG_NAMES.iter().find(|long| long.eq_ignore_ascii_case(name));
    compact.or(long).map_or_else(|| Cow::Owned(name.to_owned()), |known| Cow::Borrowed(*known))
}

/// The header fields of a message in their order. Look-ups take the long name, in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// The empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = &Header> {
        self.0.iter()
    }

    /// The lines called `name`.
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Header> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name))
    }

    /// The value of the first line called `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.position(name).map(|at| self.0[at].value.as_str())
    }

    /// Whether there is a line called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// The values of all lines called `name`, with comma lists taken apart (RFC 3261 §7.3.1). Empty values are left
    /// out; a line with unbalanced quotes gives what stands before them.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines(name)
            .flat_map(|header| split(&header.value, b',').map_while(Result::ok))
            .filter(|value| !value.is_empty())
    }

    /// Adds a line at the end.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(Header::new(name, value));
    }

    /// Adds a line before all others, where a Via belongs.
    pub fn push_front(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(0, Header::new(name, value));
    }

    /// Adds a header as it is: the way to copy one from another message.
    pub fn push_header(&mut self, header: Header) {
        self.0.push(header);
    }

    /// Copies all lines called `name` from `other`.
    pub fn copy(&mut self, name: &str, other: &Self) {
        self.0.extend(other.lines(name).cloned());
    }

    /// Makes `value` the only one called `name`, in the place of the first or at the end.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let header = Header::new(name, value);
        match self.position(&header.name) {
            Some(at) => {
                let mut index = 0;
                self.0.retain(|other| {
                    index += 1;
                    index <= at + 1 || !other.name.eq_ignore_ascii_case(&header.name)
                });
                self.0[at] = header;
            }
            None => self.0.push(header),
        }
    }

    /// Takes every line called `name` out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|header| !header.name.eq_ignore_ascii_case(name));
    }

    /// Replaces the first value called `name` and leaves those that share its line; without one, adds it in front.
    pub fn replace_first(&mut self, name: &str, value: impl Into<String>) {
        let new = Header::new(name, value);
        let Some(at) = self.position(&new.name) else { return self.0.insert(0, new) };
        if let Ok(Some(comma)) = find_outside(&self.0[at].value, b',') {
            let rest = trim(&self.0[at].value[comma + 1..]).to_owned();
            let rest = Header { value: rest, ..self.0[at].clone() };
            self.0.insert(at + 1, rest);
        }
        self.0[at] = new;
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|header| header.name.eq_ignore_ascii_case(name))
    }
}
