//! Session descriptions of a peer connection (RFC 8866, RFC 8839, RFC 8842, RFC 9143, RFC 5761).
//!
//! Owns: our offer of one voice, what an answer to it decided, and answers to offers of voices. Does not own: the
//! state that the descriptions talk about. Whatever is not the first audio line that can be had is refused (port 0).

mod local;
mod remote;
#[cfg(test)]
mod tests;

pub use local::{LocalDescription, Voice};
pub use remote::{DescriptionError, RemoteDescription};

/// The profile of every line that we take.
const PROTOCOL: &str = "UDP/TLS/RTP/SAVPF";

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
    /// Values of `a=rtpmap`.
    maps: Vec<String>,
    mid: Option<String>,
}
