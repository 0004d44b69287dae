//! Opus (RFC 6716) by libopus: one mono encoder, one mono decoder.
//!
//! Owns: the only foreign calls of the codec, behind types that no argument can misuse. Does not own: what a packet
//! says of itself ([`packet`]), when to conceal (`jitter`), when to send FEC (`rtcp_session` reports the loss).
//! Both objects are allocated by `new`; nothing after that allocates.

use std::ffi::c_int;
use std::ptr::NonNull;

use opusic_sys as ffi;
use silk_layer::SilkLayer;
use thiserror::Error;

pub mod glance;
pub mod packet;
mod range;
mod silk_layer;

/// The RTP clock of Opus, whatever rate it is coded at (RFC 7587 §4.1).
pub const RTP_CLOCK_HZ: u32 = 48_000;

/// The longest packet that RFC 6716 §3.4 allows one frame to make, and the largest that our encoder returns.
pub const MAX_FRAME_BYTES: usize = 1275;

/// The longest packet lasts 120 ms (RFC 6716 §3.4 R5).
pub const MAX_PACKET_MS: usize = 120;

/// What libopus objects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpusError {
    /// The sample rate is none of 8, 12, 16, 24 and 48 kHz.
    #[error("Opus knows no sample rate of {0} Hz")]
    SampleRate(u32),
    /// An input of a length that is no Opus frame: 2.5, 5, 10, 20, 40 or 60 ms.
    #[error("{0} samples are no Opus frame")]
    FrameLength(usize),
    /// The output slice is too short.
    #[error("the buffer is too small")]
    BufferTooSmall,
    /// The packet breaks the rules of RFC 6716 §3.4.
    #[error("a malformed Opus packet")]
    InvalidPacket,
    /// libopus is out of memory (at construction) or returned this other code.
    #[error("libopus error {0}")]
    Library(i32),
}

impl OpusError {
    fn from_code(code: c_int) -> Self {
        match code {
            ffi::OPUS_BUFFER_TOO_SMALL => Self::BufferTooSmall,
            ffi::OPUS_INVALID_PACKET => Self::InvalidPacket,
            other => Self::Library(other),
        }
    }
}

/// Whether libopus can be built for this rate; checked here so that the error can name it.
fn check_sample_rate(sample_rate_hz: u32) -> Result<c_int, OpusError> {
    match sample_rate_hz {
        8_000 | 12_000 | 16_000 | 24_000 | 48_000 => Ok(sample_rate_hz.cast_signed()),
        _ => Err(OpusError::SampleRate(sample_rate_hz)),
    }
}

/// A mono voice encoder.
#[derive(Debug)]
pub struct Encoder {
    state: NonNull<ffi::OpusEncoder>,
    sample_rate_hz: u32,
}

// SAFETY: libopus keeps no thread-local or global mutable state; an encoder may be used by any one thread at a time,
// and `&mut self` on every call makes sure of that.
unsafe impl Send for Encoder {}

impl Encoder {
    /// An encoder for `sample_rate_hz` with `complexity` 0 to 10 (more is clamped) at `bitrate_bps` (clamped to 6 to
    /// 510 kbit/s), without FEC and DTX.
    ///
    /// # Errors
    /// [`OpusError::SampleRate`], or [`OpusError::Library`] without memory.
    pub fn new(sample_rate_hz: u32, complexity: u8, bitrate_bps: u32) -> Result<Self, OpusError> {
        let rate = check_sample_rate(sample_rate_hz)?;
        let mut error = ffi::OPUS_OK;
        // SAFETY: plain numbers and a pointer to a live c_int; the result is checked for null.
        let state = unsafe { ffi::opus_encoder_create(rate, 1, ffi::OPUS_APPLICATION_VOIP, &raw mut error) };
        let state = NonNull::new(state).ok_or(OpusError::Library(error))?;
        let mut encoder = Self { state, sample_rate_hz };
        encoder.control(ffi::OPUS_SET_COMPLEXITY_REQUEST, c_int::from(complexity.min(10)))?;
        encoder.control(ffi::OPUS_SET_SIGNAL_REQUEST, ffi::OPUS_SIGNAL_VOICE)?;
        encoder.control(ffi::OPUS_SET_BITRATE_REQUEST, bitrate_bps.clamp(6_000, 510_000).cast_signed())?;
        Ok(encoder)
    }

    /// Encodes one frame of 2.5, 5, 10, 20, 40 or 60 ms into `out` and returns the packet's length in bytes.
    /// [`MAX_FRAME_BYTES`] bytes of `out` are always enough up to 20 ms, three times as many up to 60 ms.
    ///
    /// # Errors
    /// [`OpusError::FrameLength`] or [`OpusError::BufferTooSmall`].
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, OpusError> {
        // In units of 2.5 ms.
        let unit_samples = self.sample_rate_hz as usize / 400;
        if !pcm.len().is_multiple_of(unit_samples) || !matches!(pcm.len() / unit_samples, 1 | 2 | 4 | 8 | 16 | 24) {
            return Err(OpusError::FrameLength(pcm.len()));
        }
        // SAFETY: `state` is alive until drop; `pcm` and `out` are valid for the lengths that are passed along.
        let bytes = unsafe {
            ffi::opus_encode(
                self.state.as_ptr(),
                pcm.as_ptr(),
                pcm.len() as c_int, // at most 2880
                out.as_mut_ptr(),
                i32::try_from(out.len()).unwrap_or(i32::MAX),
            )
        };
        usize::try_from(bytes).map_err(|_| OpusError::from_code(bytes))
    }

    /// Puts a copy of each frame at a lower rate into the next packet, dimensioned for `loss_percent` (clamped to 100).
    ///
    /// # Errors
    /// None that libopus documents.
    pub fn set_fec(&mut self, on: bool, loss_percent: u8) -> Result<(), OpusError> {
        self.control(ffi::OPUS_SET_INBAND_FEC_REQUEST, c_int::from(on))?;
        self.control(ffi::OPUS_SET_PACKET_LOSS_PERC_REQUEST, c_int::from(loss_percent.min(100)))
    }

    /// Forgets the past, as if just built, but for the settings.
    pub fn reset(&mut self) {
        // SAFETY: OPUS_RESET_STATE takes no further argument; it cannot fail.
        let _ = unsafe { ffi::opus_encoder_ctl(self.state.as_ptr(), ffi::OPUS_RESET_STATE) };
    }

    /// Prefers the coder for music, which needs less work at a higher rate and repairs nothing, or the one for voices.
    ///
    /// # Errors
    /// None that libopus documents.
    pub fn set_signal(&mut self, is_music: bool, complexity: u8) -> Result<(), OpusError> {
        let signal = if is_music { ffi::OPUS_SIGNAL_MUSIC } else { ffi::OPUS_SIGNAL_VOICE };
        self.control(ffi::OPUS_SET_SIGNAL_REQUEST, signal)?;
        self.control(ffi::OPUS_SET_COMPLEXITY_REQUEST, c_int::from(complexity.min(10)))
    }

    /// Packets all of one length, or as long as each needs to be.
    ///
    /// # Errors
    /// None that libopus documents.
    pub fn set_constant_rate(&mut self, on: bool) -> Result<(), OpusError> {
        self.control(ffi::OPUS_SET_VBR_REQUEST, c_int::from(!on))
    }

    /// Changes the target rate (clamped to 6 to 510 kbit/s).
    ///
    /// # Errors
    /// None that libopus documents.
    pub fn set_bitrate(&mut self, bitrate_bps: u32) -> Result<(), OpusError> {
        self.control(ffi::OPUS_SET_BITRATE_REQUEST, bitrate_bps.clamp(6_000, 510_000).cast_signed())
    }

    /// One of the requests that take one integer.
    fn control(&mut self, request: c_int, value: c_int) -> Result<(), OpusError> {
        // SAFETY: all callers pass requests of the `SET` kind, whose one variadic argument is an opus_int32 = c_int.
        let code = unsafe { ffi::opus_encoder_ctl(self.state.as_ptr(), request, value) };
        if code == ffi::OPUS_OK { Ok(()) } else { Err(OpusError::from_code(code)) }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: made by opus_encoder_create, destroyed only here.
        unsafe { ffi::opus_encoder_destroy(self.state.as_ptr()) }
    }
}

/// A decoder to mono at one rate, whatever the packets hold.
#[derive(Debug)]
pub struct Decoder {
    state: NonNull<ffi::OpusDecoder>,
    sample_rate_hz: u32,
    /// If its CELT layer cannot be heard.
    silk_layer: Option<SilkLayer>,
    /// The kind of hybrid packets that the state is prepared for, if the last packet was one.
    hybrid_toc: Option<u8>,
}

// SAFETY: as for the encoder.
unsafe impl Send for Decoder {}

impl Decoder {
    /// A decoder to `sample_rate_hz`.
    ///
    /// # Errors
    /// [`OpusError::SampleRate`], or [`OpusError::Library`] without memory.
    pub fn new(sample_rate_hz: u32) -> Result<Self, OpusError> {
        let rate = check_sample_rate(sample_rate_hz)?;
        let mut error = ffi::OPUS_OK;
        // SAFETY: plain numbers and a pointer to a live c_int; the result is checked for null.
        let state = unsafe { ffi::opus_decoder_create(rate, 1, &raw mut error) };
        let state = NonNull::new(state).ok_or(OpusError::Library(error))?;
        // SAFETY: just created, and destroyed only with `Self`.
        let silk_layer = unsafe { SilkLayer::of(state, sample_rate_hz) };
        Ok(Self { state, sample_rate_hz, silk_layer, hybrid_toc: None })
    }

    /// The longest packet's samples: an output of this length is never too small.
    pub const fn max_samples(&self) -> usize {
        self.sample_rate_hz as usize / 1000 * MAX_PACKET_MS
    }

    /// Decodes into `out` and returns the number of samples.
    ///
    /// - `Some(packet)`, `fec` false: the packet itself; `out` must hold all of it.
    /// - `Some(packet)`, `fec` true: the lost packet *before* it, from the copy it carries (concealed where it carries
    ///   none); `out.len()` must be exactly the lost duration.
    /// - `None`: conceals exactly `out.len()` samples. Both lengths are multiples of 2.5 ms.
    ///
    /// # Errors
    /// [`OpusError::InvalidPacket`], [`OpusError::BufferTooSmall`], [`OpusError::FrameLength`].
    pub fn decode(&mut self, packet: Option<&[u8]>, fec: bool, out: &mut [i16]) -> Result<usize, OpusError> {
        let (data, bytes) = match packet {
            // libopus would take an empty packet for a loss.
            Some([]) => return Err(OpusError::InvalidPacket),
            Some(packet) => (packet.as_ptr(), i32::try_from(packet.len()).map_err(|_| OpusError::InvalidPacket)?),
            None => (std::ptr::null(), 0),
        };
        if !fec && let Some(samples) = packet.and_then(|packet| self.decode_silk_layer(packet, out)) {
            return samples;
        }
        let exact = packet.is_none() || fec;
        if exact && (out.is_empty() || !out.len().is_multiple_of(self.sample_rate_hz as usize / 400)) {
            return Err(OpusError::FrameLength(out.len()));
        }
        let room_samples = c_int::try_from(out.len().min(self.max_samples())).unwrap_or(c_int::MAX);
        // SAFETY: `state` is alive until drop; `data` is null or valid for `bytes`, `out` for `room_samples`.
        let samples = unsafe {
            ffi::opus_decode(self.state.as_ptr(), data, bytes, out.as_mut_ptr(), room_samples, c_int::from(fec))
        };
        if let Some(packet) = packet {
            let toc = packet::lone_hybrid_frame(packet).filter(|_| samples > 0).map(|frame| frame.toc);
            // Of a packet that only lends its copy not all is in the state.
            self.hybrid_toc = toc.filter(|_| !fec || toc == self.hybrid_toc);
        }
        usize::try_from(samples).map_err(|_| OpusError::from_code(samples))
    }

    /// Leaves the CELT layer out that nobody hears at our rate; `None` where that is not to be done. A packet of another kind
    /// than the last one changes more than the SILK layer's state, and is libopus' own matter.
    fn decode_silk_layer(&mut self, packet: &[u8], out: &mut [i16]) -> Option<Result<usize, OpusError>> {
        let frame = packet::lone_hybrid_frame(packet)?;
        let layer = self.silk_layer.as_mut().filter(|_| self.hybrid_toc == Some(frame.toc))?;
        if out.len() < self.sample_rate_hz as usize / 1000 * usize::from(frame.ms) {
            return None;
        }
        // SAFETY: the decoder is alive, and `&mut self` is the only way to it.
        let samples = unsafe { layer.decode(frame.bytes, frame.ms, out) };
        Some(samples.ok_or(OpusError::Library(ffi::OPUS_INTERNAL_ERROR)))
    }

    /// Forgets the past, as if just built.
    pub fn reset(&mut self) {
        self.hybrid_toc = None;
        // SAFETY: OPUS_RESET_STATE takes no further argument; it cannot fail.
        let _ = unsafe { ffi::opus_decoder_ctl(self.state.as_ptr(), ffi::OPUS_RESET_STATE) };
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: made by opus_decoder_create, destroyed only here.
        unsafe { ffi::opus_decoder_destroy(self.state.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tone(samples: usize, sample_rate_hz: u32) -> Vec<i16> {
        (0..samples)
            .map(|i| (8000.0 * (i as f64 * 440.0 * std::f64::consts::TAU / f64::from(sample_rate_hz)).sin()) as i16)
            .collect()
    }

    fn rms(pcm: &[i16]) -> f64 {
        (pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / pcm.len() as f64).sqrt()
    }

    #[test]
    fn a_tone_at_8_khz_comes_out_at_16_khz() {
        let mut encoder = Encoder::new(8000, 0, 32_000).unwrap();
        let mut decoder = Decoder::new(16_000).unwrap();
        let pcm = tone(160 * 50, 8000);
        let (mut packet, mut out, mut all) = ([0; MAX_FRAME_BYTES], [0; 1920], Vec::new());
        for frame in pcm.chunks(160) {
            let bytes = encoder.encode(frame, &mut packet).unwrap();
            assert!(bytes < 160, "{bytes} bytes at 32 kbit/s");
            let samples = decoder.decode(Some(&packet[..bytes]), false, &mut out).unwrap();
            assert_eq!(samples, 320);
            all.extend_from_slice(&out[..samples]);
        }
        let level = rms(&all[8000..]) / rms(&pcm);
        assert!((0.9..1.1).contains(&level), "{level}");
    }

    #[test]
    fn a_lost_frame_comes_back_from_the_next_packet() {
        let mut encoder = Encoder::new(8000, 0, 24_000).unwrap();
        encoder.set_fec(true, 20).unwrap();
        let (mut with_fec, mut without) = (Decoder::new(8000).unwrap(), Decoder::new(8000).unwrap());
        // A syllable that begins in the lost frame: concealment can only guess silence.
        let mut pcm = vec![0; 160 * 20];
        pcm.extend(tone(160 * 3, 8000));
        let mut packets = Vec::new();
        for frame in pcm.chunks(160) {
            let mut packet = vec![0; MAX_FRAME_BYTES];
            let bytes = encoder.encode(frame, &mut packet).unwrap();
            packet.truncate(bytes);
            packets.push(packet);
        }
        let mut out = [0; 960];
        for packet in &packets[..21] {
            with_fec.decode(Some(packet), false, &mut out).unwrap();
            without.decode(Some(packet), false, &mut out).unwrap();
        }
        assert!(packet::has_fec(&packets[22]));
        assert_eq!(with_fec.decode(Some(&packets[22]), true, &mut out[..160]), Ok(160));
        let recovered = rms(&out[..160]);
        assert!(recovered > 3000.0, "{recovered}");
        assert_eq!(without.decode(None, false, &mut out[..160]), Ok(160));
    }

    /// What an encoder of 48 kHz makes of harmonics that glide, at one bit rate after the other, a second each.
    fn gliding_voice(bitrates_bps: &[u32]) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(48_000, 5, bitrates_bps[0]).unwrap();
        let mut phase = 0.0_f64;
        let mut packets = Vec::new();
        for frame in 0..50 * bitrates_bps.len() {
            let bitrate_bps = bitrates_bps[frame / 50];
            encoder.set_bitrate(bitrate_bps).unwrap();
            // The copies would keep it from CELT.
            encoder.set_fec(bitrate_bps < 64_000, 10).unwrap();
            let pcm: Vec<i16> = (0..960)
                .map(|n| {
                    let time = (frame * 960 + n) as f64 / 48_000.0;
                    phase += (150.0 + 60.0 * (time * 9.0).sin()) / 48_000.0;
                    let voice: f64 =
                        (1..90).map(|k| (phase * f64::from(k) * std::f64::consts::TAU).sin() / f64::from(k)).sum();
                    (voice * (time * 14.0).sin().abs() * 6000.0) as i16
                })
                .collect();
            let mut packet = vec![0; MAX_FRAME_BYTES];
            let bytes = encoder.encode(&pcm, &mut packet).unwrap();
            packet.truncate(bytes);
            packets.push(packet);
        }
        packets
    }

    /// Decodes to 16 kHz; every `lost`th packet is missing, by turns concealed and taken from the next one's copy.
    fn decode_all(decoder: &mut Decoder, packets: &[Vec<u8>], lost: usize) -> Vec<i16> {
        let mut all = Vec::new();
        for (number, packet) in packets.iter().enumerate() {
            let mut out = [0; 320];
            let decoded = match ((number + 1) % lost, packets.get(number + 1)) {
                (0, Some(next)) if (number + 1) % (2 * lost) == 0 => decoder.decode(Some(next), true, &mut out),
                (0, _) => decoder.decode(None, false, &mut out),
                _ => decoder.decode(Some(packet), false, &mut out),
            };
            assert_eq!(decoded, Ok(320));
            all.extend(out);
        }
        all
    }

    #[test]
    fn of_hybrid_packets_only_the_silk_layer_is_decoded_and_nobody_hears_the_difference() {
        // Hybrid, SILK alone, hybrid, CELT, hybrid.
        let packets = gliding_voice(&[32_000, 14_000, 28_000, 96_000, 32_000]);
        let modes: Vec<_> = packets.iter().map(|packet| packet::Info::parse(packet).unwrap().mode).collect();
        for mode in [packet::Mode::Silk, packet::Mode::Hybrid, packet::Mode::Celt] {
            assert!(modes.iter().filter(|&&other| other == mode).count() > 25, "{mode:?}");
        }
        for lost in [1000, 17, 7] {
            let (mut whole, mut part) = (Decoder::new(16_000).unwrap(), Decoder::new(16_000).unwrap());
            assert!(part.silk_layer.is_some(), "this is not the libopus that we know");
            whole.silk_layer = None;
            let (whole, part) = (decode_all(&mut whole, &packets, lost), decode_all(&mut part, &packets, lost));
            // Where the coder changes, the one crossfades and the other does not quite.
            let steady: Vec<usize> =
                (3..modes.len()).filter(|&n| modes[n - 3..=n].iter().all(|&m| m == modes[n])).collect();
            let mut difference = Vec::new();
            let mut sound = Vec::new();
            for n in steady {
                let span = n * 320..(n + 1) * 320;
                difference
                    .extend(whole[span.clone()].iter().zip(&part[span.clone()]).map(|(a, b)| a.saturating_sub(*b)));
                sound.extend(&whole[span]);
            }
            assert!(rms(&sound) > 500.0);
            assert!(rms(&difference) < rms(&sound) / 300.0, "{} of {}", rms(&difference), rms(&sound));
        }
        assert!(Decoder::new(48_000).unwrap().silk_layer.is_none());
    }

    #[test]
    fn wrong_lengths_and_rates_are_errors() {
        assert_eq!(Encoder::new(44_100, 0, 24_000).unwrap_err(), OpusError::SampleRate(44_100));
        let mut encoder = Encoder::new(8000, 99, 1).unwrap();
        assert_eq!(encoder.encode(&[0; 161], &mut [0; 100]), Err(OpusError::FrameLength(161)));
        assert_eq!(encoder.encode(&[], &mut [0; 100]), Err(OpusError::FrameLength(0)));
        assert_eq!(encoder.encode(&[0; 240], &mut [0; 100]), Err(OpusError::FrameLength(240)));
        assert!(encoder.encode(&[0; 160], &mut []).is_err());
        let mut decoder = Decoder::new(16_000).unwrap();
        assert_eq!(decoder.decode(Some(&[]), false, &mut [0; 1920]), Err(OpusError::InvalidPacket));
        assert_eq!(decoder.decode(None, false, &mut [0; 7]), Err(OpusError::FrameLength(7)));
        assert_eq!(decoder.decode(Some(&[0x08, 1, 2]), false, &mut [0; 10]), Err(OpusError::BufferTooSmall));
    }

    proptest! {
        #[test]
        fn no_packet_harms_the_decoder(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..6),
            fec in any::<bool>()
        ) {
            let mut decoder = Decoder::new(16_000).unwrap();
            let mut out = [0; 1920];
            for packet in &packets {
                let _ = decoder.decode(Some(packet), fec, &mut out[..320]);
                if let Ok(samples) = decoder.decode(Some(packet), false, &mut out) {
                    let info = packet::Info::parse(packet).unwrap();
                    prop_assert_eq!(samples as u32 * 3, info.duration_ticks());
                }
            }
            prop_assert_eq!(decoder.decode(None, false, &mut out[..320]), Ok(320));
        }
    }
}
