//! What libopus alone would cost: the encoding of each telephone that speaks and the decoding of each member who speaks,
//! with the settings that the gateway has (8 kHz, complexity 0, 32 kbit/s up; decoded to 16 kHz down).

use std::ffi::c_int;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::opus::{Encoder, EncoderConfig, FRAME_SAMPLES, RATE_HZ};
use crate::speech::Reference;

/// How often the reference is coded; the fastest time counts.
const ROUNDS: usize = 3;
const UP_RATE_HZ: u32 = 8000;
const DOWN_RATE_HZ: u32 = 16_000;
const UP_BITRATE_BPS: c_int = 32_000;
const LONGEST_BYTES: usize = 1275;
const FRAMES_A_SECOND: f64 = 50.0;

/// The time of one frame.
pub(super) struct Floor {
    encode: Duration,
    decode: Duration,
}

impl Floor {
    /// Codes what is said in the conference.
    pub(super) fn measure(reference: &Reference) -> Result<Self, String> {
        let (mut encode, mut decode) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            encode = encode.min(encoding(&reference.at(UP_RATE_HZ))?);
            decode = decode.min(decoding(&reference.at(RATE_HZ))?);
        }
        Ok(Self { encode, decode })
    }

    /// Percent of a core for so many speakers.
    pub(super) fn percent(&self, telephones: usize, members: usize) -> f64 {
        let frame = self.encode.as_secs_f64() * telephones as f64 + self.decode.as_secs_f64() * members as f64;
        frame * FRAMES_A_SECOND * 100.0
    }
}

/// What this thread has had of the processor: others on the machine do not count.
fn spent() -> Result<Duration, String> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).map_err(|error| error.to_string())
}

/// Mean time of a frame's encoding.
fn encoding(pcm: &[i16]) -> Result<Duration, String> {
    let mut error: c_int = 0;
    // SAFETY: `error` outlives the call; the other arguments are plain numbers.
    let encoder = unsafe {
        opusic_sys::opus_encoder_create(UP_RATE_HZ as i32, 1, opusic_sys::OPUS_APPLICATION_VOIP, &raw mut error)
    };
    if encoder.is_null() {
        return Err(format!("libopus: error {error}"));
    }
    let settings =
        [(opusic_sys::OPUS_SET_BITRATE_REQUEST, UP_BITRATE_BPS), (opusic_sys::OPUS_SET_COMPLEXITY_REQUEST, 0)];
    for (request, value) in settings {
        // SAFETY: the encoder is alive, and each of these requests takes one int.
        unsafe { opusic_sys::opus_encoder_ctl(encoder, request, value) };
    }
    let frames = pcm.as_chunks::<{ UP_RATE_HZ as usize / 50 }>().0;
    let mut packet = [0; LONGEST_BYTES];
    let start = spent()?;
    for frame in frames {
        let (samples, capacity) = (frame.len() as c_int, packet.len() as i32);
        // SAFETY: the frame has as many samples and the packet as many bytes as are announced.
        unsafe { opusic_sys::opus_encode(encoder, frame.as_ptr(), samples, packet.as_mut_ptr(), capacity) };
    }
    let time = spent()?.saturating_sub(start) / frames.len().max(1) as u32;
    // SAFETY: made above, and not used any more.
    unsafe { opusic_sys::opus_encoder_destroy(encoder) };
    Ok(time)
}

/// Mean time of a frame's decoding.
fn decoding(pcm: &[i16]) -> Result<Duration, String> {
    let mut encoder = Encoder::new(EncoderConfig::default()).map_err(|error| format!("libopus: error {error}"))?;
    let packets: Vec<_> = pcm.as_chunks::<FRAME_SAMPLES>().0.iter().map(|frame| encoder.encode(frame)).collect();
    let mut error: c_int = 0;
    // SAFETY: `error` outlives the call; the other arguments are plain numbers.
    let decoder = unsafe { opusic_sys::opus_decoder_create(DOWN_RATE_HZ as i32, 1, &raw mut error) };
    if decoder.is_null() {
        return Err(format!("libopus: error {error}"));
    }
    let mut samples = [0; DOWN_RATE_HZ as usize / 50];
    let start = spent()?;
    for packet in &packets {
        let (length, capacity) = (packet.len() as i32, samples.len() as c_int);
        // SAFETY: the packet has as many bytes and the buffer room for as many samples as are announced.
        unsafe { opusic_sys::opus_decode(decoder, packet.as_ptr(), length, samples.as_mut_ptr(), capacity, 0) };
    }
    let time = spent()?.saturating_sub(start) / packets.len().max(1) as u32;
    // SAFETY: made above, and not used any more.
    unsafe { opusic_sys::opus_decoder_destroy(decoder) };
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_speaker_costs_the_same() {
        let floor = Floor::measure(&Reference::built_in()).unwrap();
        assert!(floor.percent(1, 0) > 0.0 && floor.percent(0, 1) > 0.0);
        let both = floor.percent(1, 0) + floor.percent(0, 1);
        assert!((floor.percent(8, 8) / both - 8.0).abs() < 1e-6);
    }
}
