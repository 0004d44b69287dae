//! Finding the session description in a message body (RFC 3261 §8.2.3, RFC 5621).
//!
//! Owns: Content-Type, Content-Encoding, Content-Disposition and `multipart/…`. Does not own the description's content.

use super::reply::{ACCEPT, Refusal};
use crate::wire::sip::Headers;

/// Parts of a multipart body that are looked at: ISUP trunks send two.
const MAX_PARTS: usize = 16;
/// Multiparts within multiparts: RFC 5621 §3.2 has one of alternatives in one of different things.
const MAX_DEPTH: usize = 3;

/// Why a body cannot be used; both end in a 415.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Not `application/sdp`, nor anything that contains it.
    Type,
    /// Compressed or otherwise encoded.
    Encoding,
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Type => Self::new(415).with("Accept", ACCEPT),
            BodyError::Encoding => Self::new(415).with("Accept", ACCEPT).with("Accept-Encoding", "identity"),
        }
    }
}

/// The session description that a message carries, if any. A body that may be ignored (`handling=optional`) and is of
/// another type counts as none.
///
/// # Errors
/// The body is required and cannot be read.
pub(crate) fn session_description(headers: &Headers, body: &[u8]) -> Result<Option<Vec<u8>>, BodyError> {
    if body.is_empty() {
        return Ok(None);
    }
    let handling = headers.get("Content-Disposition").map_or(Handling::Unsaid, Handling::of);
    if headers.values("Content-Encoding").any(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return if handling == Handling::Optional { Ok(None) } else { Err(BodyError::Encoding) };
    }
    // A body without a type is against RFC 3261 §20.15; what it is, only `application/sdp` can be guessed.
    let content_type = headers.get("Content-Type").unwrap_or("application/sdp");
    match description_in(content_type, body, MAX_DEPTH) {
        Ok(Some(sdp)) => Ok(Some(sdp)),
        Ok(None) | Err(BodyError::Type) if handling == Handling::Optional => Ok(None),
        Ok(None) => Err(BodyError::Type),
        Err(error) => Err(error),
    }
}

/// What to do with a body that is not understood (RFC 3261 §20.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    Optional,
    Required,
    /// Counts as required for a whole body. For a part beside a session description it does not: trunks add theirs
    /// without a word.
    Unsaid,
}

impl Handling {
    fn of(disposition: &str) -> Self {
        let said = disposition.split(';').skip(1).find_map(|parameter| {
            let parameter = parameter.replace([' ', '\t', '"'], "").to_ascii_lowercase();
            Some(parameter.strip_prefix("handling=")?.to_owned())
        });
        match said.as_deref() {
            Some("optional") => Self::Optional,
            Some("required") => Self::Required,
            Some(_) | None => Self::Unsaid,
        }
    }
}

/// The session description in a body or part of this type. A part of a multipart that is not understood, although it
/// says that it must be, spoils the whole (RFC 5621 §3.1), except among alternatives.
fn description_in(content_type: &str, content: &[u8], depth: usize) -> Result<Option<Vec<u8>>, BodyError> {
    let kind = media_type(content_type);
    match kind {
        "application/sdp" => return Ok(Some(content.to_vec())),
        "other" => return Ok(None),
        _ if depth == 0 => return Ok(None),
        _ => {}
    }
    let Some(boundary) = boundary(content_type) else { return Ok(None) };
    let mut found = None;
    for (head, content) in parts(content, &boundary) {
        let content_type = field(head, &["Content-Type", "c"]).unwrap_or("text/plain");
        let in_part = match description_in(content_type, content, depth - 1) {
            Err(_) if kind == "multipart/alternative" => None,
            in_part => in_part?,
        };
        let handling = field(head, &["Content-Disposition"]).map_or(Handling::Unsaid, Handling::of);
        if in_part.is_none() && handling == Handling::Required && kind != "multipart/alternative" {
            return Err(BodyError::Type);
        }
        found = found.or(in_part);
    }
    Ok(found)
}

/// `type/subtype` in lower case for the types that matter here; others come back as `other`.
fn media_type(value: &str) -> &'static str {
    let name = value.split(';').next().unwrap_or_default().replace([' ', '\t'], "").to_ascii_lowercase();
    match name.as_str() {
        "application/sdp" => "application/sdp",
        "multipart/mixed" => "multipart/mixed",
        "multipart/alternative" => "multipart/alternative",
        "multipart/related" => "multipart/related",
        _ => "other",
    }
}

fn boundary(content_type: &str) -> Option<String> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("boundary") && !value.is_empty()).then(|| value.to_owned())
    })
}

/// The parts with their heads (RFC 2046 §5.1).
fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<(&'a str, &'a [u8])> {
    let delimiter = format!("--{boundary}");
    let mut starts = find_all(body, delimiter.as_bytes());
    // On a line of its own: one boundary may begin like another.
    starts.retain(|&at| {
        let rest = &body[at + delimiter.len()..];
        (at == 0 || body[at - 1] == b'\n')
            && (rest.starts_with(b"--") || matches!(rest, [b'\r' | b'\n' | b' ' | b'\t', ..]))
    });
    starts.truncate(MAX_PARTS + 1);
    let part = |pair: &[usize]| {
        let (head, content) = split_head(&body[pair[0] + delimiter.len()..pair[1]])?;
        Some((head, content.strip_suffix(b"\r\n").unwrap_or(content)))
    };
    starts.windows(2).filter_map(part).collect()
}

/// The value of a part's header field.
fn field<'a>(head: &'a str, names: &[&str]) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        names.iter().any(|wanted| name.trim().eq_ignore_ascii_case(wanted)).then_some(value.trim())
    })
}

fn split_head(part: &[u8]) -> Option<(&str, &[u8])> {
    let at = find_all(part, b"\r\n\r\n").first().copied()?;
    Some((std::str::from_utf8(&part[..at]).ok()?, &part[at + 4..]))
}

fn find_all(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
    haystack.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.push(name, *value);
        }
        headers
    }

    #[test]
    fn plain_session_descriptions_are_taken_and_an_empty_body_is_none() {
        assert_eq!(session_description(&headers(&[("c", "Application/SDP ;x=y")]), b"v=0"), Ok(Some(b"v=0".to_vec())));
        assert_eq!(session_description(&headers(&[("c", "text/plain")]), b""), Ok(None));
        assert_eq!(session_description(&headers(&[]), b"v=0"), Ok(Some(b"v=0".to_vec())));
    }

    #[test]
    fn other_types_and_encodings_are_refused_unless_optional() {
        assert_eq!(session_description(&headers(&[("c", "text/plain")]), b"x"), Err(BodyError::Type));
        let optional = [("c", "text/plain"), ("Content-Disposition", "render; handling=optional")];
        assert_eq!(session_description(&headers(&optional), b"x"), Ok(None));
        let zipped = [("c", "application/sdp"), ("e", "gzip")];
        assert_eq!(session_description(&headers(&zipped), b"x"), Err(BodyError::Encoding));
    }

    #[test]
    fn the_description_is_found_among_several_parts() {
        let body = b"--b1\r\nContent-Type: application/isup;version=x\r\n\r\n\x01\x02\r\n--b1\r\n\
                     Content-Type: application/sdp\r\n\r\nv=0\r\ns=-\r\n\r\n--b1--\r\n";
        let typed = headers(&[("c", "multipart/mixed; boundary=\"b1\"")]);
        assert_eq!(session_description(&typed, body), Ok(Some(b"v=0\r\ns=-\r\n".to_vec())));
        let wrong = headers(&[("c", "multipart/mixed; boundary=other")]);
        assert_eq!(session_description(&wrong, body), Err(BodyError::Type));
        let missing = headers(&[("c", "multipart/mixed")]);
        assert_eq!(session_description(&missing, body), Err(BodyError::Type));
    }

    #[test]
    fn a_part_that_must_be_understood_and_is_not_spoils_the_whole() {
        let body = |disposition: &str| {
            format!(
                "--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b\r\nContent-Type: application/x\r\n\
                 Content-Disposition: signal{disposition}\r\n\r\nx\r\n--b--"
            )
        };
        let mixed = headers(&[("c", "multipart/mixed;boundary=b")]);
        let read = |disposition: &str| session_description(&mixed, body(disposition).as_bytes());
        assert_eq!(read(";handling=optional"), Ok(Some(b"v=0".to_vec())));
        assert_eq!(read(""), Ok(Some(b"v=0".to_vec())));
        assert_eq!(read("; handling = Required"), Err(BodyError::Type));
        let alternative = headers(&[("c", "multipart/alternative;boundary=b")]);
        let body = body(";handling=required");
        assert_eq!(session_description(&alternative, body.as_bytes()), Ok(Some(b"v=0".to_vec())));
    }

    #[test]
    fn a_multipart_may_hold_another_but_not_without_end() {
        let nest = |inner: &str, boundary: &str| {
            format!(
                "--{boundary}\r\nContent-Type: multipart/mixed;boundary={boundary}i\r\n\r\n{inner}\r\n--{boundary}--"
            )
        };
        let body = "--oi\r\nc: application/sdp\r\n\r\nv=0\r\n--oi--";
        let mixed = headers(&[("c", "multipart/mixed;boundary=o")]);
        assert_eq!(session_description(&mixed, nest(body, "o").as_bytes()), Ok(Some(b"v=0".to_vec())));
        let mut deep = "--oiiiii\r\nc: application/sdp\r\n\r\nv=0\r\n--oiiiii--".to_owned();
        for boundary in ["oiiii", "oiii", "oii", "oi", "o"] {
            deep = nest(&deep, boundary);
        }
        assert_eq!(session_description(&mixed, deep.as_bytes()), Err(BodyError::Type));
    }
}
