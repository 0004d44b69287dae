//! Session descriptions (RFC 8866), of which audio is read, and offers and answers (RFC 3264).
//!
//! Owns: what a telephone's description says about audio ([`SessionDescription`]), the descriptions this program
//! writes ([`LocalAudio`]), and what a browser-like peer puts into attributes ([`PeerMedia`]).
//! Does not own: lines and their order (the crate `sdp-types`), the choice of a codec (`gateway`, `rtc`).
//! Media lines keep their order, because an answer must have one line for each line of the offer.

mod audio;
mod codec;
mod crypto;
mod dtls;
mod extended_reports;
mod local;
mod peer;

pub use audio::{AudioDescription, Direction};
pub use codec::Codec;
pub use crypto::Crypto;
pub use dtls::{DtlsDescription, LocalDtls};
pub use extended_reports::{ExtendedReportRequest, RoundTripAnswers};
pub use local::{LocalAudio, LocalSession};
pub use peer::{Fingerprint, PeerMedia, Setup, SsrcAttribute, bundle_groups, parse_session};
pub use sdp_types::{Attribute, Connection, Media, Origin, Session};

/// The largest description: one that fills a datagram. Browsers with many codecs stay below 20 KB.
pub const MAX_SDP_BYTES: usize = 65_535;

/// Lines of one description: a browser's, with video and all its candidates, has about 300.
pub const MAX_LINES: usize = 2_000;

/// Media lines of one description: a telephone has 1 to 4, and each costs a line in our answer.
pub const MAX_MEDIA: usize = 32;

/// Formats of one media line that are looked at.
pub const MAX_FORMATS: usize = 64;

/// Why something is no session description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Beyond one of the limits.
    #[error("session description with too many {0}")]
    TooLarge(&'static str),
    /// A line that cannot be read.
    #[error("bad session description: {0}")]
    Syntax(String),
}

/// What a telephone offers or answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDescription {
    /// All lines, for what has no view of its own.
    pub session: Session,
    /// The media lines in order.
    pub media: Vec<MediaDescription>,
}

/// One media line and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaDescription {
    /// Audio over RTP or SRTP.
    Audio(AudioDescription),
    /// Anything else: video, application, audio over something else. An answer refuses it.
    Other,
}

impl SessionDescription {
    /// Reads a telephone's description. If a line is broken that says nothing about audio (`o=`, `s=`, `b=` …), it is
    /// read without those lines: telephones err in them, and the call does not depend on them.
    ///
    /// # Errors
    /// If a limit is exceeded or a line about media is broken.
    pub fn parse(bytes: &[u8]) -> Result<Self, SdpError> {
        let session = parse_session(bytes).or_else(|error| match error {
            SdpError::TooLarge(_) => Err(error),
            SdpError::Syntax(_) => parse_session(&lines_about_media(bytes)).map_err(|_| error),
        })?;
        let media = session.medias.iter().map(|media| MediaDescription::read(&session, media)).collect();
        Ok(Self { session, media })
    }

    /// The first audio line that asks for plain RTP, with its place: it is not refused (port 0), and need not be encrypted.
    pub fn first_audio(&self) -> Option<(usize, &AudioDescription)> {
        self.audio_lines().find(|(_, audio)| audio.is_plain_rtp() && audio.port != 0)
    }

    /// All audio lines with their places.
    pub fn audio_lines(&self) -> impl Iterator<Item = (usize, &AudioDescription)> {
        self.media.iter().enumerate().filter_map(|(index, media)| match media {
            MediaDescription::Audio(audio) => Some((index, audio)),
            MediaDescription::Other => None,
        })
    }
}

impl MediaDescription {
    fn read(session: &Session, media: &Media) -> Self {
        let is_audio = media.media.eq_ignore_ascii_case("audio") && audio::is_rtp(&media.proto);
        if is_audio { Self::Audio(AudioDescription::read(session, media)) } else { Self::Other }
    }
}

fn lines_about_media(bytes: &[u8]) -> Vec<u8> {
    let is_needed = |line: &&[u8]| matches!(line, [b'v' | b'c' | b'a' | b'm', b'=', ..]);
    bytes.split_inclusive(|&byte| byte == b'\n').filter(is_needed).flatten().copied().collect()
}

#[cfg(test)]
mod tests;
