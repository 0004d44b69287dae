//! The telephone's session description: what it offers, and what it reads from the other side's.
//!
//! Owns: one audio line with PCMU, PCMA and telephone-event. Does not own: sockets. RFC: 3264, 4566.

use std::net::{IpAddr, SocketAddr};

use super::g711::Codec;
use super::srtp::Key;

/// The payload number under which the telephone announces telephone-event (RFC 4733).
pub(super) const TELEPHONE_EVENT_PAYLOAD_TYPE: u8 = 101;

/// Who may send, from the point of view of who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both sides.
    SendRecv,
    /// Only the writer.
    SendOnly,
    /// Only the reader.
    RecvOnly,
    /// Nobody.
    Inactive,
}

impl Direction {
    fn attribute(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// What an answer to an offer of this direction says when the answerer would send and receive.
    pub(super) fn answer(self) -> Self {
        match self {
            Self::SendRecv => Self::SendRecv,
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::Inactive => Self::Inactive,
        }
    }
}

/// What a telephone writes into its own description.
#[derive(Debug, Clone)]
pub(super) struct LocalDescription {
    /// Session number of the o= line; stays for the call.
    pub(super) session: u64,
    /// Raised with every change.
    pub(super) version: u32,
    /// The address in c=, which a telephone behind a NAT gets wrong.
    pub(super) address: IpAddr,
    /// Where it receives RTP.
    pub(super) port: u16,
    /// Codecs by preference.
    pub(super) codecs: Vec<Codec>,
    /// Who may send.
    pub(super) direction: Direction,
    /// Packet length in ms.
    pub(super) ptime_ms: u32,
    /// What it encrypts with, if it does.
    pub(super) key: Option<Key>,
}

impl LocalDescription {
    /// The text of the description.
    pub(super) fn to_text(&self) -> String {
        let family = if self.address.is_ipv4() { "IP4" } else { "IP6" };
        let Self { session, version, address, port, direction, ptime_ms, .. } = self;
        let numbers: Vec<String> = self.codecs.iter().map(|codec| codec.payload_type().to_string()).collect();
        let event = TELEPHONE_EVENT_PAYLOAD_TYPE;
        let mut text = format!(
            "v=0\r\no=- {session} {version} IN {family} {address}\r\ns=lab\r\nc=IN {family} {address}\r\nt=0 0\r\n\
             m=audio {port} {} {} {event}\r\n",
            if self.key.is_some() { "RTP/SAVP" } else { "RTP/AVP" },
            numbers.join(" ")
        );
        for codec in &self.codecs {
            text.push_str(&format!("a=rtpmap:{} {}/8000\r\n", codec.payload_type(), codec.name()));
        }
        text.push_str(&format!(
            "a=rtpmap:{event} telephone-event/8000\r\na=fmtp:{event} 0-16\r\na=ptime:{ptime_ms}\r\na={}\r\n",
            direction.attribute()
        ));
        text.extend(self.key.as_ref().map(Key::attribute));
        text
    }
}

/// What a telephone needs of the other side's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteDescription {
    /// Where RTP goes.
    pub(super) address: SocketAddr,
    /// The first codec of the line that the telephone knows.
    pub(super) codec: Codec,
    /// Who may send, as the other side sees it.
    pub(super) direction: Direction,
    /// What the other side encrypts with, if it does.
    pub(super) key: Option<Key>,
}

impl RemoteDescription {
    /// Reads the first audio line that was not refused.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|_| "the SDP is not text".to_owned())?;
        let mut session_address = None;
        let mut session_direction = Direction::SendRecv;
        let mut audio: Option<(u16, Vec<u8>)> = None;
        let (mut media_address, mut media_direction, mut within) = (None, None, Within::Session);
        let mut key = None;
        for line in text.lines().map(str::trim_end) {
            if let Some(rest) = line.strip_prefix("m=") {
                within = Within::OtherMedia;
                let words: Vec<&str> = rest.split(' ').collect();
                let port = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(0);
                if words[0] == "audio" && port != 0 && audio.is_none() {
                    audio = Some((port, words.iter().skip(3).filter_map(|word| word.parse().ok()).collect()));
                    within = Within::Audio;
                }
                continue;
            }
            let (address, direction) = (connection(line), direction(line));
            match within {
                Within::Session => {
                    session_address = address.or(session_address);
                    session_direction = direction.unwrap_or(session_direction);
                }
                Within::Audio => {
                    media_address = address.or(media_address);
                    media_direction = direction.or(media_direction);
                    key = Key::parse(line).or(key);
                }
                Within::OtherMedia => (),
            }
        }
        let (port, numbers) = audio.ok_or("the SDP has no audio line that is not refused")?;
        let codec = numbers.into_iter().find_map(Codec::from_payload_type).ok_or("neither PCMU nor PCMA in the SDP")?;
        let address = media_address.or(session_address).ok_or("no usable c= line in the SDP")?;
        let direction = media_direction.unwrap_or(session_direction);
        Ok(Self { address: SocketAddr::new(address, port), codec, direction, key })
    }
}

/// Where in a description a line stands.
enum Within {
    Session,
    Audio,
    OtherMedia,
}

fn connection(line: &str) -> Option<IpAddr> {
    line.strip_prefix("c=IN IP4 ").or_else(|| line.strip_prefix("c=IN IP6 "))?.trim().parse().ok()
}

fn direction(line: &str) -> Option<Direction> {
    match line.strip_prefix("a=")? {
        "sendrecv" => Some(Direction::SendRecv),
        "sendonly" => Some(Direction::SendOnly),
        "recvonly" => Some(Direction::RecvOnly),
        "inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_offer_reads_back() {
        let offer = LocalDescription {
            session: 9,
            version: 2,
            address: "127.0.0.1".parse().unwrap(),
            port: 4000,
            codecs: vec![Codec::Pcma, Codec::Pcmu],
            direction: Direction::SendOnly,
            ptime_ms: 20,
            key: Some(Key::random()),
        };
        let read = RemoteDescription::parse(offer.to_text().as_bytes()).unwrap();
        assert_eq!(read.address, "127.0.0.1:4000".parse().unwrap());
        assert_eq!(read.codec, Codec::Pcma);
        assert_eq!(read.direction, Direction::SendOnly);
        assert_eq!(read.key, offer.key);
    }

    #[test]
    fn a_refused_line_is_passed_over_and_the_media_address_wins() {
        let text = "v=0\r\nc=IN IP4 1.2.3.4\r\na=recvonly\r\nm=audio 0 RTP/AVP 0\r\nc=IN IP4 9.9.9.9\r\n\
                    m=audio 7000 RTP/AVP 96 0\r\nc=IN IP6 ::1\r\n";
        let read = RemoteDescription::parse(text.as_bytes()).unwrap();
        assert_eq!(read.address, "[::1]:7000".parse().unwrap());
        assert_eq!(read.direction, Direction::RecvOnly);
        assert!(RemoteDescription::parse(b"v=0\r\nm=audio 7000 RTP/AVP 0\r\n").is_err());
    }
}
