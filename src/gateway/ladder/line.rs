//! A message as one readable line. Nothing secret is in it: of the headers it has the CSeq alone.

use serde::Deserialize;

use super::Way;
use crate::sip::event::{Direction, Passed};
use crate::wire::sip::{Headers, Message, Method};

/// The heading of the columns.
pub(super) const HEAD: &str = "telephone    Galene";
/// From the telephone's column to Galene's.
const INDENT: &str = "             ";
/// The longest reason, name or codec list that is shown.
const MAX_CHARACTERS: usize = 80;
/// Payload types that need no `a=rtpmap` (RFC 3551 §6), as far as telephones use them.
const STATIC: [(&str, &str); 6] =
    [("0", "PCMU"), ("3", "GSM"), ("8", "PCMA"), ("9", "G722"), ("13", "CN"), ("18", "G729")];

/// A SIP message and its call.
#[derive(Debug)]
pub(super) struct SipLine {
    pub(super) call_id: String,
    pub(super) direction: Direction,
    /// An INVITE that begins a call.
    pub(super) is_first: bool,
    pub(super) text: String,
}

impl SipLine {
    /// `None` for what is no SIP message.
    pub(super) fn of(passed: &Passed) -> Option<Self> {
        let message = Message::parse(&passed.bytes).ok()?;
        let headers = message.headers();
        let cseq = headers.cseq().ok()?;
        let what = match &message {
            Message::Request(request) => format!("{} ({})", request.method, cseq.number),
            Message::Response(response) => {
                format!("{} {} ({} {})", response.status, clean(&response.reason), cseq.number, cseq.method)
            }
        };
        let arrow = match passed.direction {
            Direction::Received => "──▶",
            Direction::Sent => "◀──",
        };
        let session = session(headers, message.body()).map_or_else(String::new, |session| format!(", {session}"));
        let has_tag = headers.to().is_ok_and(|to| to.tag().is_some());
        let is_first = matches!(&message, Message::Request(request) if request.method == Method::Invite && !has_tag);
        let text = format!("{arrow} {what}, {} {}{session}", passed.transport.via(), passed.remote);
        Some(Self { call_id: headers.call_id().ok()?.to_owned(), direction: passed.direction, is_first, text })
    }
}

/// Something between us and Galene.
pub(super) fn of_galene(way: Way, text: &str) -> String {
    let arrow = match way {
        Way::ToGalene => "──▶",
        Way::FromGalene => "◀──",
    };
    format!("{INDENT}{arrow} {}", clean(text))
}

/// The kind of a message of ours to Galene, where it is worth a line: not those that only keep the connection or tell
/// candidates.
pub(in crate::gateway) fn kind_of_galene(json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        name: String,
        kind: Option<String>,
    }
    let Kind { name, kind } = serde_json::from_str(json).ok()?;
    match (name.as_str(), kind) {
        ("handshake" | "ping" | "pong" | "ice", _) => None,
        (_, Some(kind)) if kind != name => Some(format!("{name} {kind}")),
        (_, _) => Some(name),
    }
}

/// Text of a peer, short and in one line.
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_CHARACTERS).collect()
}

/// A session description in brief: where the voice goes, codecs, encryption, direction.
fn session(headers: &Headers, body: &[u8]) -> Option<String> {
    let is_sdp = headers.content_type().is_some_and(|one| one.to_ascii_lowercase().starts_with("application/sdp"));
    let text = std::str::from_utf8(body).ok().filter(|text| is_sdp && !text.is_empty())?;
    let lines = || text.lines().map(str::trim_end);
    let media = lines().find_map(|line| line.strip_prefix("m=audio "))?;
    let mut words = media.split(' ');
    let (port, profile) = (words.next()?, words.next()?);
    let codecs: Vec<&str> = words.map(|number| codec(text, number)).collect();
    let address =
        lines().filter_map(|line| line.strip_prefix("c=")?.split(' ').nth(2)).next_back().unwrap_or("nowhere");
    let is_direction = |line: &&str| ["sendrecv", "sendonly", "recvonly", "inactive"].contains(line);
    let direction = lines().filter_map(|line| line.strip_prefix("a=")).rfind(is_direction).unwrap_or("sendrecv");
    let says = |attribute: &str| lines().any(|line| line.starts_with(attribute));
    let keys = match (says("a=crypto:"), says("a=fingerprint:")) {
        (true, _) => ", keys",
        (false, true) => ", DTLS",
        (false, false) => "",
    };
    Some(clean(&format!("{profile} {address}:{port} {} {direction}{keys}", codecs.join(" "))))
}

fn codec<'a>(sdp: &'a str, number: &'a str) -> &'a str {
    let mapped = sdp.lines().find_map(|line| line.strip_prefix("a=rtpmap:")?.strip_prefix(number)?.strip_prefix(' '));
    let fixed = || STATIC.iter().find(|(known, _)| *known == number).map(|(_, name)| *name);
    mapped.and_then(|name| name.split('/').next()).or_else(fixed).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sip::Transport;

    fn line(text: &str) -> Option<String> {
        let remote = "192.0.2.1:5060".parse().unwrap();
        let passed = Passed {
            direction: Direction::Sent,
            transport: Transport::Tls,
            local: None,
            remote,
            bytes: text.as_bytes().to_vec(),
        };
        SipLine::of(&passed).map(|line| line.text)
    }

    #[test]
    fn an_offer_is_told_in_brief_and_its_keys_are_not() {
        let sdp = "v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=-\r\nc=IN IP4 10.0.0.7\r\nt=0 0\r\n\
            m=audio 4000 RTP/SAVP 0 96 101 77\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n\
            a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0\r\na=sendonly\r\n";
        let ok = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\n\
             Call-ID: x\r\nCSeq: 3 INVITE\r\nContent-Type: application/SDP\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        let told = line(&ok).unwrap();
        let session = "RTP/SAVP 10.0.0.7:4000 PCMU opus telephone-event 77 sendonly, keys";
        assert_eq!(told, format!("◀── 200 OK (3 INVITE), TLS 192.0.2.1:5060, {session}"));
        assert!(!told.contains("c2VjcmV0"));
        assert_eq!(line("\r\n\r\n"), None);
    }

    #[test]
    fn only_the_kind_of_a_message_to_galene_is_told() {
        let kind = |json: &str| kind_of_galene(json);
        assert_eq!(kind(r#"{"type":"join","kind":"join","password":"secret"}"#).as_deref(), Some("join"));
        assert_eq!(kind(r#"{"type":"useraction","kind":"setdata"}"#).as_deref(), Some("useraction setdata"));
        assert_eq!(kind(r#"{"type":"offer","sdp":"v=0"}"#).as_deref(), Some("offer"));
        assert_eq!(kind(r#"{"type":"pong"}"#), None);
        assert_eq!(kind("no json"), None);
    }
}
