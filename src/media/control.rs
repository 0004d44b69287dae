//! The only words spoken between the signalling, net and mix threads.
//!
//! Owns: the keys that name rooms, callers, streams and sockets; what signalling asks of a mix thread ([`Command`]) and of
//! the net thread ([`NetCommand`]), and what comes back ([`MixEvent`], [`NetEvent`]); every capacity of the media side.
//! Does not own: the objects themselves (`caller`, `stream`, `room`; re-exported here because signalling builds them),
//! sockets and rings (`io`).
//!
//! Signalling allocates the keys: ever-increasing numbers, never used twice, so that a late packet or command for something
//! that is gone is dropped and counted instead of reaching a successor.

use std::time::Duration;

mod mix;
mod net;

pub use super::burst_metrics::{Bursts, Periods};
pub use super::caller::Caller;
pub use super::emodel::VoicePath;
pub use super::line::Line;
pub use super::room::Room;
pub use super::stream::Stream;
pub use super::up::Up;
pub use mix::{CallerSetup, CallerStats, Command, Heard, MixEvent, Retired, StreamSetup, StreamStats, UpSetup};
pub use net::{
    Drops, DtlsSource, LegStats, NetCommand, NetEvent, PeerReport, PeerRole, PeerSetup, Protection, TelephoneRemote,
    TelephoneSetup,
};

/// The rhythm of every room: one frame of each voice.
pub const TICK: Duration = Duration::from_millis(20);

/// Rooms of one mix thread. A gateway serves a handful of groups; 64 keep the tables of a thread below 1 MB.
pub const MAX_ROOMS_PER_MIX: usize = 64;

/// Room voices (down streams) of one room. Galene's own groups grow unusable with fewer open microphones; 128 decoders of
/// 30 µs each would take a fifth of a 20 ms tick if all of them spoke at once.
pub const MAX_STREAMS: usize = 128;

/// Telephones in one room: 64 Opus encoders of 85 µs take a quarter of a tick.
pub const MAX_CALLERS: usize = 64;

/// Bytes of one packet on any ring: an Ethernet frame's payload, more than any RTP or SRTCP packet of ours.
pub const MAX_PACKET_BYTES: usize = 1500;

/// A Galene group with callers of ours in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(pub u32);

/// One telephone call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerKey(pub u32);

/// One room voice: a down stream of Galene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey(pub u32);

/// One media socket of the net thread (for a telephone, the RTP and RTCP pair).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegKey(pub u32);

/// One of the mix threads; it owns whole rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MixIndex(pub u8);

/// What a telephone speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TelephoneCodec {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722, 64 kbit/s.
    G722,
    /// Opus (RFC 7587).
    Opus,
}

impl TelephoneCodec {
    /// The RTP clock: the sampling rate of G.711 (RFC 3551 §4.5.14), half of it for G.722 by an old error (§4.5.2), 48 kHz
    /// for Opus whatever it carries (RFC 7587 §4.1).
    pub const fn clock_rate_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 8000,
            Self::Opus => 48_000,
        }
    }

    /// The rate of its sound here: 8 kHz, or the bus's 16 kHz.
    pub const fn sound_rate_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8000,
            Self::G722 | Self::Opus => 16_000,
        }
    }
}

/// What a group's streams are coded in; Galene's answer or offer decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomCodec {
    /// Opus (RFC 7587).
    Opus,
    /// G.722, 64 kbit/s.
    G722,
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

impl RoomCodec {
    /// The RTP clock: 48 kHz for Opus (RFC 7587 §4.1), 8 kHz for the others, G.722 included (RFC 3551 §4.5.2).
    pub const fn clock_rate_hz(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::G722 | Self::Pcmu | Self::Pcma => 8000,
        }
    }
}

/// What SDP settled for a telephone's audio; set when the call is built and again at each re-INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telephone {
    /// What both sides send.
    pub codec: TelephoneCodec,
    /// Its number in the packets that we send.
    pub send_payload_type: u8,
    /// Its number in the packets that the telephone sends; everything else is not speech.
    pub receive_payload_type: u8,
    /// Milliseconds of speech in each packet that we send: 10, 20, 30, 40 or 60; anything else is taken as 20.
    pub ptime_ms: u8,
    /// May we send (RFC 3264 §5.1)? False while the telephone has put us on hold without music.
    pub sends: bool,
    /// Do we take what the telephone sends?
    pub receives: bool,
    /// What it says of the Opus that it would receive.
    pub opus: OpusWishes,
    /// How it sends keys as events; without, they are looked for in its sound.
    pub events: Option<EventFormat>,
    /// The number of its comfort noise (RFC 3389).
    pub comfort_noise_payload_type: u8,
    /// It would know what its voice is like when it comes here (RFC 3611): [`Heard`] is told to the net thread.
    pub asks_metrics: bool,
}

/// Keys as RTP events (RFC 4733).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventFormat {
    /// Their number.
    pub payload_type: u8,
    /// The clock of their durations.
    pub clock_rate_hz: u32,
}

/// The static payload type of comfort noise (RFC 3389 §4), which comes from telephones that never announced it, too.
pub const COMFORT_NOISE: u8 = 13;

/// A key of a telephone, pressed and let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPress {
    /// `0` to `9`, `*`, `#`, `A` to `D`.
    pub key: char,
    /// How it came.
    pub form: KeyForm,
    /// For how long, as far as is known.
    pub duration_ms: u16,
}

/// The three ways of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// RTP events (RFC 4733).
    Event,
    /// SIP INFO.
    Info,
    /// Tones in the sound.
    Tone,
}

/// What a telephone says of the Opus that it would receive (RFC 7587 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusWishes {
    /// `maxaveragebitrate`, in bit/s.
    pub max_bitrate_bps: u32,
    /// `cbr`: all packets of one length.
    pub constant_rate: bool,
    /// `useinbandfec`: it makes use of copies.
    pub fec: bool,
}

impl OpusWishes {
    /// Where nothing is said.
    pub const NONE: Self = Self { max_bitrate_bps: 510_000, constant_rate: false, fec: false };
}

impl Telephone {
    /// One that sends and receives packets of 20 ms.
    pub const fn new(codec: TelephoneCodec, payload_type: u8) -> Self {
        Self {
            codec,
            send_payload_type: payload_type,
            receive_payload_type: payload_type,
            ptime_ms: 20,
            sends: true,
            receives: true,
            opus: OpusWishes::NONE,
            events: None,
            comfort_noise_payload_type: COMFORT_NOISE,
            asks_metrics: false,
        }
    }

    /// Whether what was built for `former` serves this one too: both laws of G.711 share all but their tables.
    pub fn shares_line_with(&self, former: &Self) -> bool {
        match (self.codec, former.codec) {
            (TelephoneCodec::Pcmu | TelephoneCodec::Pcma, TelephoneCodec::Pcmu | TelephoneCodec::Pcma)
            | (TelephoneCodec::G722, TelephoneCodec::G722)
            | (TelephoneCodec::Opus, TelephoneCodec::Opus) => true,
            (
                TelephoneCodec::Pcmu | TelephoneCodec::Pcma | TelephoneCodec::G722 | TelephoneCodec::Opus,
                TelephoneCodec::Pcmu | TelephoneCodec::Pcma | TelephoneCodec::G722 | TelephoneCodec::Opus,
            ) => false,
        }
    }
}
