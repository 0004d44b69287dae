//! Finding the session description in a message body (RFC 3261 §8.2.3, RFC 5621).
//!
//! Owns: Content-Type, Content-Encoding, Content-Disposition and `multipart/…`. Does not own the description's content.

use super::reply::{ACCEPT, Refusal};
use crate::wire::sip::Headers;

/// Parts of a multipart body that are looked at: ISUP trunks send two.
const MAX_PARTS: usize = 16;

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
    let is_optional = headers.get("Content-Disposition").is_some_and(is_optional);
    if headers.values("Content-Encoding").any(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return if is_optional { Ok(None) } else { Err(BodyError::Encoding) };
    }
    // A body without a type is against RFC 3261 §20.15; what it is, only `application/sdp` can be guessed.
    let content_type = headers.get("Content-Type").unwrap_or("application/sdp");
    let found = match media_type(content_type) {
        "application/sdp" => Some(body.to_vec()),
        other if other.starts_with("multipart/") => {
            boundary(content_type).and_then(|boundary| part_with_sdp(body, &boundary))
        }
        _ => None,
    };
    match found {
        Some(sdp) => Ok(Some(sdp)),
        None if is_optional => Ok(None),
        None => Err(BodyError::Type),
    }
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

fn is_optional(disposition: &str) -> bool {
    disposition.split(';').skip(1).any(|parameter| {
        let parameter = parameter.replace([' ', '\t', '"'], "").to_ascii_lowercase();
        parameter == "handling=optional"
    })
}

fn boundary(content_type: &str) -> Option<String> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("boundary") && !value.is_empty()).then(|| value.to_owned())
    })
}

/// The first part of type `application/sdp` (RFC 2046 §5.1).
fn part_with_sdp(body: &[u8], boundary: &str) -> Option<Vec<u8>> {
    let delimiter = format!("--{boundary}");
    let mut starts = find_all(body, delimiter.as_bytes());
    starts.truncate(MAX_PARTS + 1);
    starts.windows(2).find_map(|pair| {
        let part = &body[pair[0] + delimiter.len()..pair[1]];
        let (head, content) = split_head(part)?;
        let content_type = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = name.trim();
            (name.eq_ignore_ascii_case("Content-Type") || name.eq_ignore_ascii_case("c")).then_some(value)
        })?;
        (media_type(content_type) == "application/sdp")
            .then(|| content.strip_suffix(b"\r\n").unwrap_or(content).to_vec())
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
}
