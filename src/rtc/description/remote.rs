//! The peer's descriptions: parsed once into what a peer connection needs.

use sdp_types::{Attribute, Media, Session};

use super::{Codec, Line, Negotiated, PROTOCOL, PayloadType, Setup};
use crate::rtc::candidate::Candidate;
use crate::rtc::fingerprint::Fingerprint;
use crate::rtc::ice::Credentials;

/// Longest description read, in bytes; pion's for one voice has 1 to 3 kB.
const MAX_BYTES: usize = 65_536;
/// Media lines of one description; Galene puts the tracks of one stream into it, a handful.
const MAX_MEDIA_LINES: usize = 32;
/// Longest ICE ufrag and password (RFC 8839 §5.4).
const MAX_CREDENTIAL_BYTES: usize = 256;
/// RFC 8866 §6.7.
const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];
/// Foreign codecs that an error names.
const MAX_NAMED: usize = 8;

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
    pub(super) lines: Vec<Line>,
    pub(super) audio: usize,
    pub(super) bundles: bool,
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
        let session = Session::parse(sdp.as_bytes()).map_err(|error| DescriptionError::Malformed(error.to_string()))?;
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
            maps: media.get_attribute_values("rtpmap").flatten().map(str::to_owned).collect(),
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

    /// The audio's `a=mid`, and its place among the media lines.
    pub(in crate::rtc) fn section(&self) -> (Option<String>, u16) {
        (self.lines[self.audio].mid.clone(), self.audio as u16)
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
        return Err(DescriptionError::NoCommonCodec(if names.is_empty() {
            media.fmt.clone()
        } else {
            names.join(", ")
        }));
    }
    Ok(Negotiated { payload_types })
}
