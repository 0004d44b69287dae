//! Session descriptions of a peer connection (RFC 8866, RFC 8839, RFC 8842, RFC 9143, RFC 5761).
//!
//! Owns: our offer of one voice, what an answer to it decided, and answers to offers of voices. Does not own: the
//! state that the descriptions talk about. Whatever is not the first audio line that can be had is refused (port 0).

use std::net::SocketAddr;

use sdp_types::{Attribute, Connection, Media, Origin, Session};

use super::candidate::{self, Candidate};
use super::dtls::{DtlsRole, Fingerprint};
use super::ice::Credentials;

/// Longest description read, in bytes; pion's for one voice has 1 to 3 kB.
const MAX_BYTES: usize = 65_536;
/// Media lines of one description; Galene puts the tracks of one stream into it, a handful.
const MAX_MEDIA_LINES: usize = 32;
/// Longest ICE ufrag and password (RFC 8839 §5.4).
const MAX_CREDENTIAL_BYTES: usize = 256;
/// The profile of every line that we take.
const PROTOCOL: &str = "UDP/TLS/RTP/SAVPF";

/// RFC 8866 §6.7.
const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];
/// Foreign codecs that an error names.
const MAX_NAMED: usize = 8;

/// The codecs that a Galene group may carry and that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 7587, at 48 kHz on the wire.
    Opus,
    /// RFC 3551 §4.5.2: the RTP clock is 8 kHz, the sound 16 kHz.
    G722,
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

impl Codec {
    /// In our order of liking.
    pub const ALL: [Self; 4] = [Self::Opus, Self::G722, Self::Pcmu, Self::Pcma];

    /// The payload type that Galene uses, and RFC 3551 §6 but for Opus.
    pub const fn usual_payload_type(self) -> u8 {
        match self {
            Self::Opus => 111,
            Self::G722 => 9,
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// The RTP clock.
    pub const fn clock_rate_hz(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::G722 | Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// As `a=rtpmap` says it.
    const fn encoding(self) -> &'static str {
        match self {
            Self::Opus => "opus/48000/2",
            Self::G722 => "G722/8000",
            Self::Pcmu => "PCMU/8000",
            Self::Pcma => "PCMA/8000",
        }
    }

    fn from_encoding(encoding: &str) -> Option<Self> {
        let mono = encoding.strip_suffix("/1").unwrap_or(encoding);
        Self::ALL.into_iter().find(|codec| codec.encoding().eq_ignore_ascii_case(mono))
    }
}

/// A codec under the payload type that a description gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadType {
    /// 0 to 127.
    pub number: u8,
    /// What it carries.
    pub codec: Codec,
}

/// What a description of the peer's and ours have in common, the peer's favourite first; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Every payload type that may come, or that we may send.
    pub payload_types: Vec<PayloadType>,
}

impl Negotiated {
    /// What to send.
    pub fn preferred(&self) -> PayloadType {
        self.payload_types[0]
    }

    /// The codec of a payload type that came.
    pub fn codec(&self, number: u8) -> Option<Codec> {
        self.payload_types.iter().find(|payload_type| payload_type.number == number).map(|found| found.codec)
    }
}

/// Why a description of the peer's is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// It is no SDP, or too long.
    #[error("the session description is malformed: {0}")]
    Malformed(String),
    /// Something that a peer connection needs is missing or malformed.
    #[error("the session description lacks {0}")]
    Missing(&'static str),
    /// There is no audio line, or it is refused.
    #[error("no audio line was offered or accepted")]
    NoAudio,
    /// None of our codecs.
    #[error("no common codec: the peer has {0}, we have Opus, G.722, PCMU and PCMA")]
    NoCommonCodec(String),
}

/// Who may send the ClientHello (RFC 4145 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The writer will.
    Active,
    /// The reader shall.
    Passive,
    /// The reader chooses.
    ActPass,
}

impl Setup {
    const fn text(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
        }
    }
}

/// A media line as it must be mirrored in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    media: String,
    protocol: String,
    formats: String,
    mid: Option<String>,
}

/// A description of the peer's, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDescription {
    /// ICE credentials.
    pub credentials: Credentials,
    /// The peer only answers checks.
    pub ice_lite: bool,
    /// Of the certificate; at least one.
    pub fingerprints: Vec<Fingerprint>,
    /// Who shall be the DTLS client.
    pub setup: Setup,
    /// Those that we can use.
    pub candidates: Vec<Candidate>,
    /// What both speak.
    pub negotiated: Negotiated,
    /// The peer sends (or, in an answer, would).
    pub sends: bool,
    lines: Vec<Line>,
    audio: usize,
    bundles: bool,
}

impl RemoteDescription {
    /// Reads an offer or an answer.
    ///
    /// # Errors
    /// Nothing can come of it; the text says why.
    pub fn parse(sdp: &str) -> Result<Self, DescriptionError> {
        if sdp.len() > MAX_BYTES {
            return Err(DescriptionError::Malformed(format!("longer than {MAX_BYTES} bytes")));
        }
        let session =
            Session::parse(sdp.as_bytes()).map_err(|error| DescriptionError::Malformed(error.to_string()))?;
        if session.medias.len() > MAX_MEDIA_LINES {
            return Err(DescriptionError::Malformed(format!("more than {MAX_MEDIA_LINES} media lines")));
        }
        let is_ours = |media: &Media| media.media == "audio" && media.port != 0 && media.proto == PROTOCOL;
        let audio = session.medias.iter().position(is_ours).ok_or(DescriptionError::NoAudio)?;
        let scope = Scope { session: &session, media: &session.medias[audio] };
        if !scope.media.has_attribute("rtcp-mux") {
            return Err(DescriptionError::Missing("rtcp-mux"));
        }
        let lines = session.medias.iter().map(|media| Line {
            media: media.media.clone(),
            protocol: media.proto.clone(),
            formats: media.fmt.clone(),
            mid: media.get_first_attribute_value("mid").flatten().map(str::to_owned),
        });
        Ok(Self {
            credentials: scope.credentials()?,
            ice_lite: session.has_attribute("ice-lite"),
            fingerprints: scope.fingerprints()?,
            setup: scope.setup()?,
            candidates: candidates(&session),
            negotiated: negotiated(scope.media)?,
            sends: scope.sends(),
            lines: lines.collect(),
            audio,
            bundles: session.get_attribute_values("group").flatten().any(|group| group.starts_with("BUNDLE")),
        })
    }
}

/// A media line and the session around it, whose attributes it inherits; with BUNDLE a transport attribute may also
/// stand in another line of the group.
struct Scope<'a> {
    session: &'a Session,
    media: &'a Media,
}

impl<'a> Scope<'a> {
    /// Whether the direction, the line's or else the session's, lets the peer send (RFC 8866 §6.7).
    fn sends(&self) -> bool {
        let named = |attribute: &&'a Attribute| DIRECTIONS.contains(&attribute.attribute.as_str());
        let mut attributes = self.media.attributes.iter().chain(&self.session.attributes);
        !matches!(attributes.find(named).map(|found| found.attribute.as_str()), Some("recvonly" | "inactive"))
    }

    /// All values from the innermost place that has any.
    fn values(&self, name: &str) -> Vec<&'a str> {
        let of = |attributes: &'a [Attribute]| -> Vec<&'a str> {
            let named = attributes.iter().filter(|attribute| attribute.attribute == name);
            named.filter_map(|attribute| attribute.value.as_deref()).collect()
        };
        let others = self.session.medias.iter().map(|media| &media.attributes[..]);
        let places = [&self.media.attributes[..], &self.session.attributes[..]].into_iter().chain(others);
        places.map(of).find(|values| !values.is_empty()).unwrap_or_default()
    }

    fn credentials(&self) -> Result<Credentials, DescriptionError> {
        let credential = |name, least: usize| {
            let value = self.values(name).first().copied().ok_or(DescriptionError::Missing(name))?;
            let is_ice_char = |byte: u8| byte.is_ascii_graphic() && byte != b':';
            let is_valid = (least..=MAX_CREDENTIAL_BYTES).contains(&value.len()) && value.bytes().all(is_ice_char);
            is_valid.then(|| value.to_owned()).ok_or(DescriptionError::Missing(name))
        };
        Ok(Credentials { ufrag: credential("ice-ufrag", 4)?, password: credential("ice-pwd", 22)? })
    }

    fn fingerprints(&self) -> Result<Vec<Fingerprint>, DescriptionError> {
        let read: Vec<_> = self.values("fingerprint").into_iter().filter_map(Fingerprint::parse).collect();
        if read.is_empty() { Err(DescriptionError::Missing("a certificate fingerprint")) } else { Ok(read) }
    }

    /// An absent one means active in an answer (RFC 4145 §4.1), where alone it may be absent.
    fn setup(&self) -> Result<Setup, DescriptionError> {
        match self.values("setup").first().copied() {
            None | Some("active") => Ok(Setup::Active),
            Some("passive") => Ok(Setup::Passive),
            Some("actpass") => Ok(Setup::ActPass),
            Some(_) => Err(DescriptionError::Missing("a usable setup")),
        }
    }
}

/// Those of all lines: with BUNDLE they stand in the first, which need not be the one that we take.
fn candidates(session: &Session) -> Vec<Candidate> {
    let attributes = session.medias.iter().flat_map(|media| &media.attributes).chain(&session.attributes);
    let lines = attributes.filter(|attribute| attribute.attribute == "candidate");
    let values = lines.filter_map(|attribute| attribute.value.as_deref());
    let mut found: Vec<Candidate> = Vec::new();
    for candidate in values.filter_map(|value| Candidate::parse(&format!("candidate:{value}")).ok()) {
        if !found.iter().any(|known| known.address == candidate.address) {
            found.push(candidate);
        }
    }
    found
}

fn negotiated(media: &Media) -> Result<Negotiated, DescriptionError> {
    let values = |name| media.attributes.iter().filter(move |attribute| attribute.attribute == name);
    let rtpmap = |number: u8| {
        let maps = values("rtpmap").filter_map(|map| map.value.as_deref()?.split_once(' '));
        maps.into_iter().find(|(of, _)| of.parse() == Ok(number)).map(|(_, encoding)| encoding.trim())
    };
    let codec = |number: u8| match rtpmap(number) {
        Some(encoding) => Codec::from_encoding(encoding),
        // RFC 3551 §6: static payload types need no map.
        None => Codec::ALL.into_iter().find(|codec| number < 96 && codec.usual_payload_type() == number),
    };
    let numbers = media.fmt.split_ascii_whitespace().filter_map(|number| number.parse().ok());
    let known = numbers.filter(|number| *number < 128);
    let payload_types: Vec<PayloadType> =
        known.filter_map(|number| codec(number).map(|codec| PayloadType { number, codec })).collect();
    if payload_types.is_empty() {
        let names = values("rtpmap").filter_map(|map| Some(map.value.as_deref()?.split_once(' ')?.1));
        let names: Vec<&str> = names.take(MAX_NAMED).collect();
        return Err(DescriptionError::NoCommonCodec(if names.is_empty() { media.fmt.clone() } else { names.join(", ") }));
    }
    Ok(Negotiated { payload_types })
}

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
        let payload_types =
            Codec::ALL.map(|codec| PayloadType { number: codec.usual_payload_type(), codec });
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
            let mut media = media(line, 0);
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
        let line = Line { media: "audio".into(), protocol: PROTOCOL.into(), formats: formats.join(" "), mid: None };
        // The default destination (RFC 8839 §4.2.1.2) is our best candidate.
        let default = self.candidates.first();
        let mut media = media(&line, default.map_or(9, SocketAddr::port));
        if let Some(default) = default {
            media.connections = vec![Connection::from_ip_addr(default.ip())];
        }
        for (rank, address) in self.candidates.iter().enumerate() {
            media.add_attribute_with_value("candidate", candidate::host_line(*address, rank));
        }
        media.add_attribute_from_str("end-of-candidates");
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
