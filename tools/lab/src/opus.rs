//! Opus, as a browser uses it: frames of 48 kHz mono, mostly 20 ms. A wrapper over libopus apart from the gateway's own.
//!
//! RFC: 6716 (the codec), 7587 (in RTP).

use std::ffi::c_int;
use std::ptr::NonNull;

/// The RTP clock of Opus, and the rate of all samples here.
pub const RATE_HZ: u32 = 48_000;
/// Samples in a 20 ms frame.
pub const FRAME_SAMPLES: usize = 960;
/// The longest packet lasts 120 ms.
const LONGEST_SAMPLES: usize = 6 * FRAME_SAMPLES;
/// No packet of 20 ms is longer (RFC 6716 §3.4).
const LONGEST_BYTES: usize = 1275;

/// How to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Target rate in bit/s.
    pub bitrate_bps: i32,
    /// Whether packets carry their predecessor once more.
    pub fec: bool,
    /// The loss that the encoder expects; with none it never spends bits on FEC.
    pub loss_percent: i32,
    /// Nothing up to 8 kHz is left out, nothing above coded: SILK alone.
    pub wideband_only: bool,
    /// Whether the encoder pauses in silence (discontinuous transmission).
    pub dtx: bool,
}

impl Default for EncoderConfig {
    /// 32 kbit/s with FEC that is really there.
    fn default() -> Self {
        Self { bitrate_bps: 32_000, fec: true, loss_percent: 10, wideband_only: false, dtx: false }
    }
}

/// Encodes frames.
pub struct Encoder(NonNull<opusic_sys::OpusEncoder>);

// SAFETY: the encoder is one block of memory without ties to the thread that made it.
unsafe impl Send for Encoder {}

impl Encoder {
    /// A new encoder, or libopus's error number.
    pub fn new(config: EncoderConfig) -> Result<Self, i32> {
        let mut error: c_int = 0;
        // SAFETY: `error` outlives the call; the other arguments are plain numbers.
        let encoder = unsafe {
            opusic_sys::opus_encoder_create(RATE_HZ as i32, 1, opusic_sys::OPUS_APPLICATION_VOIP, &raw mut error)
        };
        let encoder = Self(NonNull::new(encoder).ok_or(error)?);
        let max_bandwidth = if config.wideband_only {
            opusic_sys::OPUS_BANDWIDTH_WIDEBAND
        } else {
            opusic_sys::OPUS_BANDWIDTH_FULLBAND
        };
        let settings = [
            (opusic_sys::OPUS_SET_BITRATE_REQUEST, config.bitrate_bps),
            (opusic_sys::OPUS_SET_INBAND_FEC_REQUEST, c_int::from(config.fec)),
            (opusic_sys::OPUS_SET_PACKET_LOSS_PERC_REQUEST, config.loss_percent),
            (opusic_sys::OPUS_SET_MAX_BANDWIDTH_REQUEST, max_bandwidth),
            (opusic_sys::OPUS_SET_DTX_REQUEST, c_int::from(config.dtx)),
            (opusic_sys::OPUS_SET_COMPLEXITY_REQUEST, 9),
        ];
        for (request, value) in settings {
            // SAFETY: the encoder is alive, and each of these requests takes one int.
            let result = unsafe { opusic_sys::opus_encoder_ctl(encoder.0.as_ptr(), request, value) };
            if result != 0 {
                return Err(result);
            }
        }
        Ok(encoder)
    }

    /// Encodes one frame.
    ///
    /// # Panics
    ///
    /// If `frame` is none of 10, 20, 40 and 60 ms.
    pub fn encode(&mut self, frame: &[i16]) -> Vec<u8> {
        assert!(matches!(frame.len(), 480 | FRAME_SAMPLES | 1920 | 2880), "a frame is 10, 20, 40 or 60 ms");
        let mut packet = vec![0; LONGEST_BYTES];
        // SAFETY: the frame has the 960 samples and the packet the 1275 bytes that are announced.
        let length = unsafe {
            opusic_sys::opus_encode(
                self.0.as_ptr(),
                frame.as_ptr(),
                frame.len() as c_int,
                packet.as_mut_ptr(),
                LONGEST_BYTES as i32,
            )
        };
        // An error is impossible with a frame and a buffer of these sizes; an empty packet would be lost to a receiver.
        packet.truncate(usize::try_from(length).unwrap_or(0));
        packet
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: made by `opus_encoder_create`, and dropped once.
        unsafe { opusic_sys::opus_encoder_destroy(self.0.as_ptr()) }
    }
}

/// Decodes packets of any length to 48 kHz mono.
pub struct Decoder(NonNull<opusic_sys::OpusDecoder>);

// SAFETY: the decoder is one block of memory without ties to the thread that made it.
unsafe impl Send for Decoder {}

impl Decoder {
    /// A new decoder, or libopus's error number.
    pub fn new() -> Result<Self, i32> {
        let mut error: c_int = 0;
        // SAFETY: `error` outlives the call; the other arguments are plain numbers.
        let decoder = unsafe { opusic_sys::opus_decoder_create(RATE_HZ as i32, 1, &raw mut error) };
        NonNull::new(decoder).map(Self).ok_or(error)
    }

    /// Decodes a packet; one that makes no sense gives nothing.
    pub fn decode(&mut self, packet: &[u8]) -> Vec<i16> {
        self.run(Some(packet), LONGEST_SAMPLES, false)
    }

    /// Recovers the frame before `next`, from the copy in `next` if it has one, else by concealment.
    pub fn recover(&mut self, next: &[u8]) -> Vec<i16> {
        self.run(Some(next), FRAME_SAMPLES, true)
    }

    /// Makes up a frame.
    pub fn conceal(&mut self) -> Vec<i16> {
        self.run(None, FRAME_SAMPLES, false)
    }

    fn run(&mut self, packet: Option<&[u8]>, capacity: usize, fec: bool) -> Vec<i16> {
        let mut samples = vec![0; capacity];
        let (bytes, length) = packet.map_or((std::ptr::null(), 0), |packet| (packet.as_ptr(), packet.len()));
        let Ok(length) = i32::try_from(length) else { return Vec::new() };
        // SAFETY: `bytes` holds `length` bytes (or is null with length 0, which libopus takes for a loss), and
        // `samples` has room for `capacity` mono samples.
        let count = unsafe {
            opusic_sys::opus_decode(
                self.0.as_ptr(),
                bytes,
                length,
                samples.as_mut_ptr(),
                capacity as c_int,
                c_int::from(fec),
            )
        };
        samples.truncate(usize::try_from(count).unwrap_or(0));
        samples
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: made by `opus_decoder_create`, and dropped once.
        unsafe { opusic_sys::opus_decoder_destroy(self.0.as_ptr()) }
    }
}

/// How a packet is coded, by its first byte (RFC 6716 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Speech up to 8 kHz.
    Silk,
    /// Speech below 8 kHz, the rest as music.
    Hybrid,
    /// Music.
    Celt,
}

/// The mode of a packet; `None` for an empty one.
pub fn mode(packet: &[u8]) -> Option<Mode> {
    Some(match packet.first()? >> 3 {
        0..=11 => Mode::Silk,
        12..=15 => Mode::Hybrid,
        _ => Mode::Celt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcm::{self, Pcm};

    #[test]
    fn speech_like_sound_is_hybrid_with_fec_and_comes_back() {
        let sound = Pcm::warble(RATE_HZ, 1.0);
        let (mut encoder, mut decoder) = (Encoder::new(EncoderConfig::default()).unwrap(), Decoder::new().unwrap());
        let packets: Vec<_> = sound.samples.chunks_exact(FRAME_SAMPLES).map(|frame| encoder.encode(frame)).collect();
        assert_eq!(packets.len(), 50);
        assert!(packets.iter().filter(|packet| mode(packet) == Some(Mode::Hybrid)).count() > 40);
        let heard: Vec<_> = packets.iter().flat_map(|packet| decoder.decode(packet)).collect();
        assert_eq!(heard.len(), sound.samples.len());
        assert!((pcm::level_dbfs(&heard) - pcm::level_dbfs(&sound.samples)).abs() < 2.0);
    }

    #[test]
    fn a_lost_frame_is_recovered_or_made_up_and_nonsense_is_nothing() {
        let mut decoder = Decoder::new().unwrap();
        let mut encoder = Encoder::new(EncoderConfig::default()).unwrap();
        let packet = encoder.encode(&[0; FRAME_SAMPLES]);
        assert_eq!(decoder.recover(&packet).len(), FRAME_SAMPLES);
        assert_eq!(decoder.conceal().len(), FRAME_SAMPLES);
        assert!(decoder.decode(&[0xff; 3]).is_empty());
        assert_eq!(mode(&[]), None);
    }
}
