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
                let mut gains = frames.iter().map(|frame| voiceless_gain(frame, subframes, frames.stereo));
                let loudest = gains.try_fold(0, |loudest: u8, gain| Some(loudest.max(gain?)));
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

#[cfg(test)]
mod tests {
    use super::super::{Encoder, MAX_FRAME_BYTES};
    use super::*;
    use opusic_sys as ffi;
    use proptest::prelude::*;

    /// White noise of this level in 48 kHz frames of 20 ms, the last 50 of two seconds' glances.
    fn glances(level_dbfs: f32, mut encode: impl FnMut(&[i16]) -> Vec<u8>) -> Vec<Glance> {
        let (mut random, amplitude) = (7_u32, 32_768.0 * 10_f32.powf(level_dbfs / 20.0) * 3_f32.sqrt());
        let mut noise = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((random >> 8) as f32 / (1 << 23) as f32 - 1.0) * amplitude
        };
        let all = (0..100).map(|_| {
            let frame: Vec<i16> = (0..960).map(|_| noise() as i16).collect();
            Glance::at(&encode(&frame))
        });
        all.skip(50).collect()
    }

    fn mean_gain(glances: &[Glance]) -> f32 {
        let gains: Vec<f32> = glances
            .iter()
            .filter_map(|glance| match glance {
                Glance::Voiceless { gain } => Some(f32::from(*gain)),
                Glance::Pause | Glance::Silence | Glance::Unknown => None,
            })
            .collect();
        assert!(gains.len() > 25, "{glances:?}");
        gains.iter().sum::<f32>() / gains.len() as f32
    }

    fn mono(bitrate_bps: u32) -> impl FnMut(&[i16]) -> Vec<u8> {
        let mut encoder = Encoder::new(48_000, 5, bitrate_bps).unwrap();
        move |frame| {
            let mut packet = vec![0; MAX_FRAME_BYTES];
            let bytes = encoder.encode(frame, &mut packet).unwrap();
            packet.truncate(bytes);
            packet
        }
    }

    /// An encoder of two channels.
    struct Stereo(*mut ffi::OpusEncoder);

    impl Stereo {
        fn new() -> Self {
            let mut error = 0;
            // SAFETY: plain numbers and a pointer to a live integer.
            let encoder = unsafe { ffi::opus_encoder_create(48_000, 2, ffi::OPUS_APPLICATION_VOIP, &raw mut error) };
            assert_eq!(error, ffi::OPUS_OK);
            // SAFETY: the encoder is alive and the request takes one integer.
            assert_eq!(unsafe { ffi::opus_encoder_ctl(encoder, ffi::OPUS_SET_BITRATE_REQUEST, 40_000) }, ffi::OPUS_OK);
            Self(encoder)
        }

        /// The same sound in both channels.
        fn encode(&mut self, frame: &[i16]) -> Vec<u8> {
            let both: Vec<i16> = frame.iter().flat_map(|&sample| [sample; 2]).collect();
            let mut packet = vec![0; MAX_FRAME_BYTES];
            // SAFETY: the encoder is alive; 960 frames of two samples, and as many bytes as told.
            let bytes = unsafe { ffi::opus_encode(self.0, both.as_ptr(), 960, packet.as_mut_ptr(), 1275) };
            packet.truncate(bytes as usize);
            if bytes > 0 {
                assert_eq!(packet[0] & 4, 4, "stereo");
            }
            packet
        }
    }

    impl Drop for Stereo {
        fn drop(&mut self) {
            // SAFETY: made by opus_encoder_create, destroyed only here.
            unsafe { ffi::opus_encoder_destroy(self.0) }
        }
    }

    fn stereo() -> impl FnMut(&[i16]) -> Vec<u8> {
        let mut encoder = Stereo::new();
        move |frame| encoder.encode(frame)
    }

    #[test]
    fn the_gain_of_noise_follows_its_level_at_1_37_db_a_step() {
        let gains: Vec<f32> =
            [-65.0, -55.0, -45.0, -35.0].map(|level| mean_gain(&glances(level, mono(32_000)))).to_vec();
        for pair in gains.windows(2) {
            let db = (pair[1] - pair[0]) * 1.37;
            assert!((8.0..12.0).contains(&db), "{gains:?}");
        }
    }

    #[test]
    fn of_a_stereo_packet_the_mid_channel_is_looked_at() {
        let gains: Vec<f32> = [-45.0, -35.0].map(|level| mean_gain(&glances(level, stereo()))).to_vec();
        assert!((8.0..13.0).contains(&((gains[1] - gains[0]) * 1.37)), "{gains:?}");
    }

    #[test]
    fn digital_silence_in_celt_is_told_from_the_softest_noise() {
        let mut encode = mono(128_000);
        let silence: Vec<Glance> = (0..20).map(|_| Glance::at(&encode(&[0; 960]))).collect();
        assert!(silence[3..].iter().all(|&glance| glance == Glance::Silence), "{silence:?}");
        assert!(glances(-84.0, mono(128_000)).iter().all(|&glance| glance == Glance::Unknown));
    }

    #[test]
    fn pauses_and_what_a_glance_cannot_tell() {
        assert_eq!(Glance::at(&[1 << 3]), Glance::Pause);
        assert_eq!(Glance::at(&[31 << 3, 0]), Glance::Pause);
        assert_eq!(Glance::at(&[]), Glance::Unknown);
        assert_eq!(Glance::at(&[1 << 3, 0x80, 0]), Glance::Unknown, "voice");
        assert_eq!(Glance::at(&[1 << 3, 0x40, 0]), Glance::Unknown, "a copy");
        assert_eq!(Glance::at(&[3 << 3, 0, 0]), Glance::Unknown, "60 ms");
    }

    proptest! {
        #[test]
        fn no_packet_harms(packet in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Glance::Voiceless { gain } = Glance::at(&packet) {
                prop_assert!(i32::from(gain) <= MAX_GAIN);
            }
        }
    }
}
