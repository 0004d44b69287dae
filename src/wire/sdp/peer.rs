//! What a browser-like peer says in attributes: ICE (RFC 8839), DTLS (RFC 8122, 5763), BUNDLE (RFC 9143), SSRC
//! (RFC 5576).
//!
//! Thin accessors over `sdp-types`: nothing is judged here, unreadable values count as absent.

use std::fmt;

use sdp_types::{Media, Session};

use super::audio::Direction;
use super::codec::Codec;
use super::{MAX_LINES, MAX_MEDIA, MAX_SDP_BYTES, SdpError};

/// Reads a session description as it stands.
///
/// # Errors
/// If a limit is exceeded or a line cannot be read.
pub fn parse_session(bytes: &[u8]) -> Result<Session, SdpError> {
    if bytes.len() > MAX_SDP_BYTES {
        return Err(SdpError::TooLarge("bytes"));
    }
    if bytes.iter().filter(|&&byte| byte == b'\n').count() > MAX_LINES {
        return Err(SdpError::TooLarge("lines"));
    }
    let session = Session::parse(bytes).map_err(|error| SdpError::Syntax(error.to_string()))?;
    if session.medias.len() > MAX_MEDIA { Err(SdpError::TooLarge("media")) } else { Ok(session) }
}

/// Which side begins the DTLS handshake (RFC 4145 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The writer begins.
    Active,
    /// The other side begins.
    Passive,
    /// The answer decides.
    ActPass,
    /// Not now.
    HoldConn,
}

impl Setup {
    const ALL: [Self; 4] = [Self::Active, Self::Passive, Self::ActPass, Self::HoldConn];

    /// The attribute's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
            Self::HoldConn => "holdconn",
        }
    }
}

/// The hash of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// `sha-256` …, in small letters.
    pub hash_function: String,
    /// The hash.
    pub digest: Vec<u8>,
}

impl Fingerprint {
    /// Longest digest: SHA-512.
    const MAX_BYTES: usize = 64;

    /// Reads `sha-256 AB:CD:…`.
    pub fn parse(text: &str) -> Option<Self> {
        let (hash_function, hex) = text.trim().split_once(' ')?;
        let hex = hex.trim();
        if hex.len() > Self::MAX_BYTES * 3 {
            return None;
        }
        let byte = |pair: &str| match pair.len() {
            2 if !pair.starts_with('+') => u8::from_str_radix(pair, 16).ok(),
            _ => None,
        };
        let digest = hex.split(':').map(byte).collect::<Option<Vec<_>>>()?;
        Some(Self { hash_function: hash_function.to_ascii_lowercase(), digest })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hash_function)?;
        for (index, byte) in self.digest.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

/// One `a=ssrc:` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SsrcAttribute<'a> {
    /// The source.
    pub ssrc: u32,
    /// `cname`, `msid` …
    pub name: &'a str,
    /// What follows the name.
    pub value: Option<&'a str>,
}

/// The media that share one transport: the values of `a=group:BUNDLE`.
pub fn bundle_groups(session: &Session) -> impl Iterator<Item = Vec<&str>> {
    session.get_attribute_values("group").flatten().filter_map(|value| {
        let mut words = value.split_ascii_whitespace();
        words.next()?.eq_ignore_ascii_case("BUNDLE").then(|| words.collect())
    })
}

/// A media line of a session, with what the session says for all its lines.
#[derive(Clone, Copy, Debug)]
pub struct PeerMedia<'a> {
    session: &'a Session,
    media: &'a Media,
}

impl<'a> PeerMedia<'a> {
    /// The media lines in order.
    pub fn all(session: &'a Session) -> impl Iterator<Item = Self> {
        session.medias.iter().map(move |media| Self { session, media })
    }

    pub(super) const fn of(session: &'a Session, media: &'a Media) -> Self {
        Self { session, media }
    }

    /// The line itself.
    pub const fn media(&self) -> &'a Media {
        self.media
    }

    /// Whether it is audio.
    pub fn is_audio(&self) -> bool {
        self.media.media.eq_ignore_ascii_case("audio")
    }

    /// Its place in the session by name.
    pub fn mid(&self) -> Option<&'a str> {
        self.own("mid")
    }

    /// The ICE user name fragment.
    pub fn ice_ufrag(&self) -> Option<&'a str> {
        self.inherited("ice-ufrag")
    }

    /// The ICE password.
    pub fn ice_pwd(&self) -> Option<&'a str> {
        self.inherited("ice-pwd")
    }

    /// Whether `option` is among the ICE options, for instance `trickle`.
    pub fn has_ice_option(&self, option: &str) -> bool {
        self.inherited("ice-options").is_some_and(|list| list.split_ascii_whitespace().any(|word| word == option))
    }

    /// Whether the peer only answers checks.
    pub fn is_ice_lite(&self) -> bool {
        self.session.has_attribute("ice-lite")
    }

    /// The candidates, each without `candidate:`.
    pub fn candidates(&self) -> impl Iterator<Item = &'a str> {
        self.media.get_attribute_values("candidate").flatten().map(str::trim)
    }

    /// Whether all candidates are in the description.
    pub fn has_end_of_candidates(&self) -> bool {
        self.media.has_attribute("end-of-candidates") || self.session.has_attribute("end-of-candidates")
    }

    /// The hashes of the peer's certificate: those of the line, else those of the session.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        let attributes =
            if self.media.has_attribute("fingerprint") { &self.media.attributes } else { &self.session.attributes };
        attributes
            .iter()
            .filter(|attribute| attribute.attribute.eq_ignore_ascii_case("fingerprint"))
            .filter_map(|attribute| Fingerprint::parse(attribute.value.as_deref()?))
    }

    /// Who begins the DTLS handshake.
    pub fn setup(&self) -> Option<Setup> {
        let value = self.inherited("setup")?;
        Setup::ALL.into_iter().find(|setup| setup.as_str().eq_ignore_ascii_case(value))
    }

    /// What the peer calls the DTLS association (RFC 8842 §4).
    pub fn tls_id(&self) -> Option<&'a str> {
        self.inherited("tls-id")
    }

    /// Whether RTP and RTCP share the port.
    pub fn has_rtcp_mux(&self) -> bool {
        self.media.has_attribute("rtcp-mux")
    }

    /// Which way media flow as the peer sees it.
    pub fn direction(&self) -> Direction {
        Direction::read(self.session, self.media)
    }

    /// The formats that could be understood, the preferred one first.
    pub fn codecs(&self) -> Vec<Codec> {
        Codec::read_all(self.media)
    }

    /// The stream and the track it belongs to.
    pub fn msid(&self) -> Option<&'a str> {
        self.own("msid")
    }

    /// What is said about its sources.
    pub fn ssrcs(&self) -> impl Iterator<Item = SsrcAttribute<'a>> {
        self.media.get_attribute_values("ssrc").flatten().filter_map(|value| {
            let (ssrc, rest) = value.trim().split_once(' ')?;
            let (name, value) = rest.split_once(':').map_or((rest, None), |(name, value)| (name, Some(value)));
            Some(SsrcAttribute { ssrc: ssrc.parse().ok()?, name: name.trim(), value })
        })
    }

    fn own(&self, name: &'static str) -> Option<&'a str> {
        self.media.get_first_attribute_value(name).flatten().map(str::trim)
    }

    fn inherited(&self, name: &'static str) -> Option<&'a str> {
        self.own(name).or_else(|| self.session.get_first_attribute_value(name).flatten().map(str::trim))
    }
}
