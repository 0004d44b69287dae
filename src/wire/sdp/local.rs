//! The descriptions this program sends to telephones (RFC 3264 §5, §6, §8).

use std::net::IpAddr;

use sdp_types::{Attribute, Connection, Media, Origin, Session, Time};

use super::SessionDescription;
use super::audio::Direction;
use super::codec::Codec;
use super::crypto::Crypto;
use super::dtls::LocalDtls;
use super::extended_reports::ExtendedReportRequest;

/// What `o=` says: who describes, and how often it has done so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSession {
    /// The same for the whole call.
    pub id: u64,
    /// One more with every changed description (RFC 3264 §8).
    pub version: u64,
    /// Our address.
    pub address: IpAddr,
}

/// Our audio line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAudio {
    /// The RTP port; RTCP is on the next one unless [`Self::rtcp_port`] says otherwise.
    pub port: u16,
    /// Written as `a=rtcp:` where it is not the next port.
    pub rtcp_port: Option<u16>,
    /// RTP and RTCP share the port.
    pub has_rtcp_mux: bool,
    /// `RTP/AVP`, or what the offer said.
    pub protocol: String,
    /// The formats, the preferred one first.
    pub codecs: Vec<Codec>,
    /// Which way media flow as we see it.
    pub direction: Direction,
    /// The packet length we would like to receive.
    pub ptime_ms: Option<u16>,
    /// The longest packet we can receive.
    pub maxptime_ms: Option<u16>,
    /// Our keys: in an offer one for each suite, in an answer the one with the tag that is taken.
    pub crypto: Vec<Crypto>,
    /// What we say of DTLS, where the keys come by that.
    pub dtls: Option<LocalDtls>,
    /// The extended reports that we would get, and agree to: written if there are any.
    pub extended_reports: ExtendedReportRequest,
}

impl LocalSession {
    /// An offer of one audio line.
    pub fn offer(&self, audio: &LocalAudio) -> String {
        self.describe(vec![audio.to_media()], Vec::new())
    }

    /// The answer to `offer`: our audio for the line at `index`, every other line refused with port 0.
    pub fn answer(&self, offer: &SessionDescription, index: usize, audio: &LocalAudio) -> String {
        let answer_line = |(at, media): (usize, &Media)| if at == index { audio.to_media() } else { refused(media) };
        let medias = offer.session.medias.iter().enumerate().map(answer_line).collect();
        // RFC 3264 §6: the t= line of the answer is that of the offer.
        self.describe(medias, offer.session.times.clone())
    }

    /// A later offer in a session whose lines are those of `previous`: our audio for the line at `index`, the other
    /// lines stay refused, since lines never go away (RFC 3264 §8).
    pub fn offer_again(&self, previous: &SessionDescription, index: usize, audio: &LocalAudio) -> String {
        self.answer(previous, index, audio)
    }

    fn describe(&self, medias: Vec<Media>, times: Vec<Time>) -> String {
        Session {
            origin: Origin::with_ip_addr(self.id, self.version, self.address),
            session_name: "-".to_owned(),
            session_description: None,
            uri: None,
            emails: Vec::new(),
            phones: Vec::new(),
            connection: Some(Connection::from_ip_addr(self.address)),
            bandwidths: Vec::new(),
            times,
            time_zones: Vec::new(),
            key: None,
            attributes: Vec::new(),
            medias,
        }
        .to_string()
    }
}

impl LocalAudio {
    /// An audio line over plain RTP, both ways.
    pub fn new(port: u16, codecs: Vec<Codec>) -> Self {
        Self {
            port,
            rtcp_port: None,
            has_rtcp_mux: false,
            protocol: "RTP/AVP".to_owned(),
            codecs,
            direction: Direction::SendRecv,
            ptime_ms: None,
            maxptime_ms: None,
            crypto: Vec::new(),
            dtls: None,
            extended_reports: ExtendedReportRequest::default(),
        }
    }

    fn to_media(&self) -> Media {
        let mut attributes = Vec::new();
        for codec in &self.codecs {
            attributes.push(Attribute::with_value("rtpmap", codec));
            if let Some(fmtp) = &codec.fmtp {
                attributes.push(Attribute::with_value("fmtp", format!("{} {fmtp}", codec.payload_type)));
            }
        }
        attributes.extend(self.ptime_ms.map(|ms| Attribute::with_value("ptime", ms)));
        attributes.extend(self.maxptime_ms.map(|ms| Attribute::with_value("maxptime", ms)));
        attributes.extend(self.rtcp_port.map(|port| Attribute::with_value("rtcp", port)));
        let wanted = Some(self.extended_reports).filter(|wanted| !wanted.is_empty());
        attributes.extend(wanted.map(|wanted| Attribute::with_value("rtcp-xr", wanted)));
        attributes.extend(self.crypto.iter().map(|crypto| Attribute::with_value("crypto", crypto)));
        attributes.extend(self.dtls.iter().flat_map(LocalDtls::attributes));
        attributes.extend(self.has_rtcp_mux.then(|| Attribute::new("rtcp-mux")));
        attributes.push(Attribute::new(self.direction.as_str()));
        let formats: Vec<_> = self.codecs.iter().map(|codec| codec.payload_type.to_string()).collect();
        media_line("audio", self.port, &self.protocol, &formats.join(" "), attributes)
    }
}

/// The line that refuses `media` (RFC 3264 §6): the formats do not matter, one is enough.
fn refused(media: &Media) -> Media {
    let format = media.fmt.split_ascii_whitespace().next().unwrap_or("0");
    media_line(&media.media, 0, &media.proto, format, Vec::new())
}

fn media_line(kind: &str, port: u16, protocol: &str, formats: &str, attributes: Vec<Attribute>) -> Media {
    Media {
        media: kind.to_owned(),
        port,
        num_ports: None,
        proto: protocol.to_owned(),
        fmt: formats.to_owned(),
        media_title: None,
        connections: Vec::new(),
        bandwidths: Vec::new(),
        key: None,
        attributes,
    }
}
