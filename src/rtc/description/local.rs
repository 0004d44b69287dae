//! Our descriptions: the offer of one voice, the answer to an offer of voices.

use std::net::SocketAddr;

use sdp_types::{Connection, Media, Origin, Session};

use super::{Codec, Line, PROTOCOL, PayloadType, RemoteDescription, Setup};
use crate::rtc::candidate;
use crate::rtc::dtls::DtlsRole;
use crate::rtc::fingerprint::Fingerprint;
use crate::rtc::ice::Credentials;

/// What our descriptions say of us.
#[derive(Clone, Copy, Debug)]
pub struct LocalDescription<'a> {
    /// `o=`: the session's number and the version of its description (RFC 8866 §5.2).
    pub session_id: u64,
    /// Grows by one with each description.
    pub version: u64,
    /// ICE credentials.
    pub credentials: &'a Credentials,
    /// We only answer checks.
    pub ice_lite: bool,
    /// Host candidates in the order of liking.
    pub candidates: &'a [SocketAddr],
    /// Further ones, as values of `a=candidate`.
    pub server_candidates: &'a [String],
    /// There may be more to come, by trickle.
    pub trickles: bool,
    /// Of our certificate.
    pub fingerprint: &'a Fingerprint,
}

/// What an offer says of the voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// The RTP source.
    pub ssrc: u32,
    /// The canonical name that RTCP repeats (RFC 7022).
    pub cname: String,
    /// The media stream's id (RFC 8830).
    pub stream_id: String,
    /// Its only track's.
    pub track_id: String,
}

impl LocalDescription<'_> {
    /// One voice that we send. Which of the codecs, the answer decides.
    pub fn offer(&self, voice: &Voice) -> String {
        let payload_types = Codec::ALL.map(|codec| PayloadType { number: codec.usual_payload_type(), codec });
        let mut media = self.audio(&payload_types, Setup::ActPass, "0", "sendonly");
        let Voice { ssrc, cname, stream_id, track_id } = voice;
        media.add_attribute_with_value("msid", format!("{stream_id} {track_id}"));
        media.add_attribute_with_value("ssrc", format!("{ssrc} cname:{cname}"));
        media.add_attribute_with_value("ssrc", format!("{ssrc} msid:{stream_id} {track_id}"));
        self.write(vec![media], Some("0"))
    }

    /// The answer to an offer: its audio line received, all others refused.
    pub fn answer(&self, offer: &RemoteDescription, role: DtlsRole) -> String {
        let setup = match role {
            DtlsRole::Client => Setup::Active,
            DtlsRole::Server => Setup::Passive,
        };
        let direction = if offer.sends { "recvonly" } else { "inactive" };
        let lines = offer.lines.iter().enumerate().map(|(index, line)| {
            let mid = line.mid.as_deref().unwrap_or("");
            if index == offer.audio {
                return self.audio(&offer.negotiated.payload_types, setup, mid, direction);
            }
            // str0m, for one, refuses a dynamic payload type without its map even here.
            let mut media = media(line, 0);
            for map in &line.maps {
                media.add_attribute_with_value("rtpmap", map);
            }
            if !mid.is_empty() {
                media.add_attribute_with_value("mid", mid);
            }
            media.add_attribute_from_str("inactive");
            media
        });
        let mid = offer.lines[offer.audio].mid.as_deref();
        self.write(lines.collect(), mid.filter(|_| offer.bundles))
    }

    fn audio(&self, payload_types: &[PayloadType], setup: Setup, mid: &str, direction: &str) -> Media {
        let formats: Vec<String> = payload_types.iter().map(|payload_type| payload_type.number.to_string()).collect();
        let formats = formats.join(" ");
        let line = Line { media: "audio".into(), protocol: PROTOCOL.into(), formats, maps: Vec::new(), mid: None };
        // The default destination (RFC 8839 §4.2.1.2) is our best candidate.
        let default = self.candidates.first();
        let mut media = media(&line, default.map_or(9, SocketAddr::port));
        if let Some(default) = default {
            media.connections = vec![Connection::from_ip_addr(default.ip())];
        }
        for (rank, address) in self.candidates.iter().enumerate() {
            media.add_attribute_with_value("candidate", candidate::host_line(*address, rank));
        }
        for line in self.server_candidates {
            media.add_attribute_with_value("candidate", line);
        }
        if !self.trickles {
            media.add_attribute_from_str("end-of-candidates");
        }
        media.add_attribute_with_value("ice-ufrag", &self.credentials.ufrag);
        media.add_attribute_with_value("ice-pwd", &self.credentials.password);
        media.add_attribute_with_value("ice-options", "trickle");
        media.add_attribute_with_value("fingerprint", self.fingerprint);
        media.add_attribute_with_value("setup", setup.text());
        if !mid.is_empty() {
            media.add_attribute_with_value("mid", mid);
        }
        media.add_attribute_from_str(direction);
        media.add_attribute_from_str("rtcp-mux");
        for PayloadType { number, codec } in payload_types {
            media.add_attribute_with_value("rtpmap", format!("{number} {}", codec.encoding()));
            if *codec == Codec::Opus {
                media.add_attribute_with_value("fmtp", format!("{number} minptime=10;useinbandfec=1"));
            }
        }
        media
    }

    fn write(&self, medias: Vec<Media>, bundle: Option<&str>) -> String {
        let origin = Origin {
            username: None,
            sess_id: self.session_id.to_string(),
            sess_version: self.version,
            nettype: sdp_types::NetType::In,
            addrtype: sdp_types::AddrType::Ip4,
            unicast_address: "127.0.0.1".into(), // Says nothing of us (RFC 8829 §5.2.1).
        };
        let mut session = Session::new(origin, "-");
        if let Some(mid) = bundle {
            session.add_attribute_with_value("group", format!("BUNDLE {mid}"));
        }
        session.add_attribute_with_value("msid-semantic", " WMS *");
        if self.ice_lite {
            session.add_attribute_from_str("ice-lite");
        }
        session.add_medias(medias);
        let mut bytes = Vec::new();
        session.write(&mut bytes).expect("writing into a Vec does not fail");
        String::from_utf8(bytes).expect("every field that goes in is a string")
    }
}

/// A bare line with the address that stands for none.
fn media(line: &Line, port: u16) -> Media {
    Media {
        media: line.media.clone(),
        port,
        num_ports: None,
        proto: line.protocol.clone(),
        fmt: line.formats.clone(),
        media_title: None,
        connections: vec![Connection::from_ip_addr(std::net::Ipv4Addr::UNSPECIFIED)],
        bandwidths: Vec::new(),
        key: None,
        attributes: Vec::new(),
    }
}
