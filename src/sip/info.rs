//! INFO inside a call (RFC 6086): keys in the two forms that telephones send, older than that RFC.
//!
//! Owns: what an INFO says and which answer it gets. Does not own: the dialog (`call`), what a key does (`gateway`).
//!
//! There is no Info Package of ours, so one gets 469 with an empty `Recv-Info` (§4.2.2); without one it is the old usage:
//! `application/dtmf-relay` and `application/dtmf` are keys, nothing at all is a sign of life, the rest gets 415.

use super::reply::Refusal;
use crate::wire::sip::Headers;

/// What we understand.
const ACCEPT_INFO: &str = "application/dtmf-relay, application/dtmf";

/// A longer body is no key: all forms of it have one or two short lines.
const MAX_BODY_BYTES: usize = 512;

/// A key by INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InfoKey {
    /// `0` to `9`, `*`, `#`, `A` to `D`.
    pub(crate) key: char,
    /// 0 if nothing is said of it.
    pub(crate) duration_ms: u16,
}

/// The key that an INFO tells of, if any.
///
/// # Errors
/// The refusal to be sent.
pub(crate) fn key(headers: &Headers, body: &[u8]) -> Result<Option<InfoKey>, Refusal> {
    if headers.has("Info-Package") {
        return Err(Refusal::new(469).with("Recv-Info", ""));
    }
    if body.is_empty() {
        return Ok(None);
    }
    let content_type = headers.get("Content-Type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let read = match media_type.as_str() {
        "application/dtmf-relay" => relay,
        "application/dtmf" => alone,
        _ => return Err(Refusal::new(415).with("Accept", ACCEPT_INFO)),
    };
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_BODY_BYTES);
    text.and_then(read).map(Some).ok_or_else(|| Refusal::because(400, "No key in the body"))
}

/// `Signal=5` and `Duration=160`, a line each.
fn relay(text: &str) -> Option<InfoKey> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let duration_ms = value("Duration").and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(InfoKey { key: named(value("Signal")?)?, duration_ms })
}

/// `5`.
fn alone(text: &str) -> Option<InfoKey> {
    Some(InfoKey { key: named(text.trim())?, duration_ms: 0 })
}

/// By its sign, or by its number as in RFC 4733.
fn named(text: &str) -> Option<char> {
    let mut signs = text.chars();
    match (signs.next()?.to_ascii_uppercase(), signs.next()) {
        (sign @ ('0'..='9' | '*' | '#' | 'A'..='D'), None) => Some(sign),
        _ => ["10", "11"].iter().position(|number| *number == text).map(|at| ['*', '#'][at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        fields.iter().for_each(|(name, value)| headers.push(name, (*value).to_owned()));
        headers
    }

    fn read(content_type: &str, body: &str) -> Option<(char, u16)> {
        let read = key(&headers(&[("Content-Type", content_type)]), body.as_bytes()).ok()??;
        Some((read.key, read.duration_ms))
    }

    #[test]
    fn both_forms_of_a_key_are_read_as_telephones_write_them() {
        let relay = "application/dtmf-relay";
        assert_eq!(read(relay, "Signal=5\r\nDuration=160\r\n"), Some(('5', 160)));
        assert_eq!(read(relay, "Signal= #\nDuration= 250"), Some(('#', 250)));
        assert_eq!(read("Application/DTMF-Relay; charset=utf-8", "duration=9\r\nsignal=d"), Some(('D', 9)));
        assert_eq!(read(relay, "Signal=11\r\n"), Some(('#', 0)));
        assert_eq!(read("application/dtmf", "*\r\n"), Some(('*', 0)));
        for bad in ["", "Signal=", "Signal=12", "Signal=E", "5", "Signal=55\r\n"] {
            assert_eq!(read(relay, bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_key_gets_the_answer_that_rfc_6086_asks_for() {
        assert_eq!(key(&headers(&[]), b""), Ok(None));
        let package = key(&headers(&[("Info-Package", "foo"), ("Content-Type", "application/dtmf")]), b"5");
        assert_eq!(package, Err(Refusal::new(469).with("Recv-Info", "")));
        let other = key(&headers(&[("Content-Type", "application/media_control+xml")]), b"<x/>");
        assert_eq!(other, Err(Refusal::new(415).with("Accept", ACCEPT_INFO)));
        let long = "Signal=5\r\n".repeat(100);
        assert!(key(&headers(&[("Content-Type", "application/dtmf-relay")]), long.as_bytes()).is_err());
        assert!(key(&headers(&[("Content-Type", "application/dtmf-relay")]), &[0xff]).is_err());
    }
}
