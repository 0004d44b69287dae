//! Messages as they pass by, for who draws ladders and keeps captures.
//!
//! Owns: what is known of a message beside its bytes, and the masking of secrets in them. Does not own: what becomes of it.
//! A masked message is as long as it was and still SIP, so that other programs can read a capture.

use std::net::SocketAddr;

use crate::wire::sip::Transport;

/// What stands in the place of a secret's bytes.
const MASK: u8 = b'*';

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To us.
    Received,
    /// From us.
    Sent,
}

/// One message, sent or received; repetitions pass as often as they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which way.
    pub direction: Direction,
    /// How.
    pub transport: Transport,
    /// Our end, where it is known.
    pub local: Option<SocketAddr>,
    /// The other end.
    pub remote: SocketAddr,
    /// All of it, but for its secrets.
    pub bytes: Vec<u8>,
}

/// `message` with its secrets masked: digests, the keys of `a=crypto` (RFC 4568), and `token`, which lets its bearer call.
pub(crate) fn masked(message: &[u8], token: &str) -> Vec<u8> {
    let mut bytes = message.to_vec();
    let (mut start, mut is_digest) = (0, false);
    while start < bytes.len() {
        let end = bytes[start..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| start + at);
        let line = &mut bytes[start..end];
        // A line that begins with white space continues the header above (RFC 3261 §7.3.1).
        is_digest = is_digest_header(line) || is_digest && matches!(line.first(), Some(b' ' | b'\t'));
        if is_digest {
            // A reader may know whose digest it was and for what, but not the digest.
            mask_values(line, b"response", b'=');
            mask_values(line, b"cnonce", b'=');
        } else if line.get(..8).is_some_and(|name| name.eq_ignore_ascii_case(b"a=crypto")) {
            mask_values(line, b"inline", b':');
        }
        start = end + 1;
    }
    let token = token.as_bytes();
    if !token.is_empty() && bytes.len() >= token.len() {
        for at in 0..=bytes.len() - token.len() {
            if bytes[at..].starts_with(token) {
                bytes[at..at + token.len()].fill(MASK);
            }
        }
    }
    bytes
}

fn is_digest_header(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default().trim_ascii();
    ["Authorization", "Proxy-Authorization"].iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
}

/// Masks every value that follows `name` and `separator`, quoted or up to the next delimiter, with white space around the
/// separator or without.
fn mask_values(line: &mut [u8], name: &[u8], separator: u8) {
    let blanks = |bytes: &[u8]| bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let mut from = 0;
    while let Some(at) = line[from..].windows(name.len()).position(|window| window.eq_ignore_ascii_case(name)) {
        from += at + name.len();
        let before = from + blanks(&line[from..]);
        if line.get(before) != Some(&separator) {
            continue;
        }
        let value = before + 1 + blanks(&line[before + 1..]);
        let is_quoted = line.get(value) == Some(&b'"');
        let start = value + usize::from(is_quoted);
        let is_end = |byte: &u8| match is_quoted {
            true => matches!(byte, b'"' | b'\r'),
            false => matches!(byte, b'"' | b',' | b'|' | b';' | b' ' | b'\t' | b'\r'),
        };
        let end = line[start..].iter().position(is_end).map_or(line.len(), |length| start + length);
        line[start..end].fill(MASK);
        from = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_nothing_else_changes() {
        let message = "INVITE sip:AbCdEf@10.0.0.2 SIP/2.0\r\nContact: <sip:AbCdEf@10.0.0.2>\r\n\
            Authorization: Digest username=\"u\", response=\"0123\", cnonce=\"c\", qop=auth\r\n\
            proxy-authorization : Digest response=4567,realm=\"r\"\r\nFrom: <sip:a@b>;response=\"keep\"\r\n\r\n\
            a=crypto:1 AEAD_AES_128_GCM inline:a2V5/+=|2^20;inline:b2V5 FEC\r\na=inline:keep\r\n";
        let expected = "INVITE sip:******@10.0.0.2 SIP/2.0\r\nContact: <sip:******@10.0.0.2>\r\n\
            Authorization: Digest username=\"u\", response=\"****\", cnonce=\"*\", qop=auth\r\n\
            proxy-authorization : Digest response=****,realm=\"r\"\r\nFrom: <sip:a@b>;response=\"keep\"\r\n\r\n\
            a=crypto:1 AEAD_AES_128_GCM inline:*******|2^20;inline:**** FEC\r\na=inline:keep\r\n";
        let masked = masked(message.as_bytes(), "AbCdEf");
        assert_eq!(String::from_utf8(masked).unwrap(), expected);
    }

    #[test]
    fn secrets_are_masked_however_they_are_written() {
        for (written, shown) in [
            (
                "AUTHORIZATION: Digest response = \"01 23\" , cnonce=c",
                "AUTHORIZATION: Digest response = \"*****\" , cnonce=*",
            ),
            (
                "Authorization: Digest qop=auth,\r\n\tresponse=\"01\"",
                "Authorization: Digest qop=auth,\r\n\tresponse=\"**\"",
            ),
            ("a=CRYPTO:1 F8 inline:a2V5", "a=CRYPTO:1 F8 inline:****"),
        ] {
            assert_eq!(String::from_utf8(masked(written.as_bytes(), "")).unwrap(), shown);
        }
    }

    #[test]
    fn anything_can_be_masked() {
        for odd in [
            &b""[..],
            b"\n",
            b"\r\n\r\n",
            b"Authorization:",
            b"Authorization: response=",
            b"Authorization: cnonce = \"",
            b"\xff\xfe:",
        ] {
            assert_eq!(masked(odd, "token").len(), odd.len());
        }
        assert_eq!(masked(b"abc", ""), b"abc");
    }
}
