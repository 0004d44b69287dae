//! How loud an Opus packet may be, by its first symbols: some 100 ns instead of a decoder's 30 µs.
//!
//! Owns: SILK's gains (RFC 6716 §4.2.7.4) of packets without voice, CELT's silence flag (§4.3). Does not own: what follows
//! from them (`stream`).
//!
//! SILK writes the step of its quantiser before anything else of a frame. It follows the sound's level, though not
//! exactly: a tone, which is easily predicted, needs a smaller one than noise. Hence it tells nothing absolute; but nothing
//! gets louder of a sudden without larger steps.

use super::packet::{Frames, Mode};
use super::range::RangeDecoder;

/// Subframes of 5 ms.
const SUBFRAMES_A_10_MS: u32 = 2;

/// The odds of the symbols before the gains, in 1/256 (§4.2.7.1 to §4.2.7.4).
const STEREO_WEIGHTS: [u8; 25] = [7, 2, 1, 1, 1, 10, 24, 8, 1, 1, 3, 23, 92, 23, 3, 1, 1, 8, 24, 10, 1, 1, 1, 2, 7];
const STEREO_COARSE: [u8; 3] = [85, 86, 85];
const STEREO_FINE: [u8; 5] = [51, 51, 52, 51, 51];
const MID_ONLY: [u8; 2] = [192, 64];
const VOICELESS_TYPE: [u8; 2] = [26, 230];
const VOICELESS_GAIN: [u8; 8] = [32, 112, 68, 29, 12, 1, 1, 1];
const LOW_GAIN_BITS: [u8; 8] = [32; 8];
const GAIN_STEP: [u8; 41] = [
    6, 5, 11, 31, 132, 21, 8, 4, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1,
];
const MAX_GAIN: i32 = 63;

/// What can be told of a packet without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// SILK finds no speech in it; this is its largest quantiser step, in units of 1.37 dB from 0 to 63.
    Voiceless {
        /// Of all 5 ms of the packet.
        gain: u8,
    },
    /// No frame of it holds anything: the sender pauses (DTX, RFC 7587 §3.1.3).
    Pause,
    /// CELT says that there is not a single bit of sound in it.
    Silence,
    /// Only the decoder can tell: speech, CELT with sound, SILK frames above 20 ms (whose later gains lie behind sound).
    Unknown,
}

impl Glance {
    /// Looks at a packet; a malformed one is [`Self::Unknown`].
    pub fn at(packet: &[u8]) -> Self {
        let Ok(frames) = Frames::parse(packet) else { return Self::Unknown };
        // libopus takes a frame of one byte for a lost one too.
        if frames.iter().all(|frame| frame.len() <= 1) {
            return Self::Pause;
        }
        match frames.mode {
            Mode::Celt if frames.iter().all(celt_is_silent) => Self::Silence,
            Mode::Silk | Mode::Hybrid if frames.frame_ticks <= 960 => {
                let subframes = frames.frame_ticks / 480 * SUBFRAMES_A_10_MS;
                let gains = frames.iter().map(|frame| voiceless_gain(frame, subframes, frames.stereo));
                let loudest = gains.fold(Some(0), |loudest, gain| Some(gain?.max(loudest?)));
                loudest.map_or(Self::Unknown, |gain| Self::Voiceless { gain })
            }
            Mode::Celt | Mode::Silk | Mode::Hybrid => Self::Unknown,
        }
    }
}

/// The silence flag is the first symbol.
fn celt_is_silent(frame: &[u8]) -> bool {
    frame.len() > 1 && RangeDecoder::new(frame).bit(15)
}

/// The largest gain of one frame of 10 or 20 ms; `None` where a voice flag or a copy of the last frame (LBRR) is, or nothing.
fn voiceless_gain(frame: &[u8], subframes: u32, stereo: bool) -> Option<u8> {
    if frame.len() <= 1 {
        return None;
    }
    let mut bits = RangeDecoder::new(frame);
    let channels = if stereo { 2 } else { 1 };
    for _voice_and_copy in 0..2 * channels {
        if bits.bit(1) {
            return None;
        }
    }
    if stereo {
        // Decoded to mono, the side channel is not heard.
        bits.symbol(&STEREO_WEIGHTS);
        for _weight in 0..2 {
            bits.symbol(&STEREO_COARSE);
            bits.symbol(&STEREO_FINE);
        }
        bits.symbol(&MID_ONLY);
    }
    bits.symbol(&VOICELESS_TYPE);
    let mut gain = (bits.symbol(&VOICELESS_GAIN) * 8 + bits.symbol(&LOW_GAIN_BITS)) as i32;
    let mut largest = gain;
    for _subframe in 1..subframes {
        let step = bits.symbol(&GAIN_STEP) as i32;
        gain = (gain + step - 4).max(2 * step - 16).clamp(0, MAX_GAIN);
        largest = largest.max(gain);
    }
    Some(largest as u8) // 0 to 63
}
