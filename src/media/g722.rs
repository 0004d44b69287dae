//! G.722 at 64 kbit/s (ITU-T G.722): 16 kHz in two bands of ADPCM, one byte for two samples.
//!
//! Owns: encoder, decoder, the two-band filter. Does not own: RTP, whose clock for G.722 is 8 kHz by an old error
//! (RFC 3551 §4.5.2), so that a 20 ms packet is 160 ticks, 160 bytes and 320 samples.
//! Fixed-point arithmetic as the recommendation has it, so that every decoder tracks every encoder; block names are its.

use band::{Band, HIGH_SCALE, LOW_SCALE, saturate};

mod band;

/// The audio rate.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// The quadrature mirror filter's half (blocks TX QMF and RX QMF).
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

/// Decision levels of the low band's quantiser (Q6).
const LOW_DECISIONS: [i32; 30] = [
    0, 35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121, 1219, 1339,
    1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
/// The high band's only decision level.
const HIGH_DECISION: i32 = 564;

/// The low band's values for 6 bits (QM6), for the decoder's output.
const LOW_VALUES_6_BITS: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360, -8576,
    -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688, -1360, -1040,
    -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456,
    4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];
/// The same for the upper 4 bits (QM4), for the predictors of both sides.
const LOW_VALUES_4_BITS: [i32; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];
/// The high band's values (QM2).
const HIGH_VALUES: [i32; 4] = [-7408, -1616, 7408, 1616];

/// From 16 kHz to bytes.
#[derive(Clone, Debug)]
pub struct Encoder {
    qmf: [i32; 24],
    low: Band,
    high: Band,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// In the recommendation's reset state.
    pub const fn new() -> Self {
        Self { qmf: [0; 24], low: Band::new(LOW_SCALE), high: Band::new(HIGH_SCALE) }
    }

    /// Encodes pairs of samples, as many as both slices hold; returns the bytes written.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> usize {
        let pairs = pcm.as_chunks::<2>().0;
        for (byte, pair) in out.iter_mut().zip(pairs) {
            *byte = self.encode_pair(*pair);
        }
        pairs.len().min(out.len())
    }

    fn encode_pair(&mut self, [first, second]: [i16; 2]) -> u8 {
        self.qmf.copy_within(2.., 0);
        (self.qmf[22], self.qmf[23]) = (i32::from(first), i32::from(second));
        let (mut odd, mut even) = (0, 0);
        for (tap, pair) in self.qmf.as_chunks::<2>().0.iter().enumerate() {
            odd += pair[0] * QMF[tap];
            even += pair[1] * QMF[11 - tap];
        }
        let (low, high) = ((even + odd) >> 14, (even - odd) >> 14);
        let low_code = self.quantise_low(low);
        self.low.adapt(LOW_VALUES_4_BITS[usize::from(low_code >> 2)], usize::from(low_code >> 2), &LOW_SCALE);
        let high_code = self.quantise_high(high);
        self.high.adapt(HIGH_VALUES[usize::from(high_code)], usize::from(high_code), &HIGH_SCALE);
        (high_code << 6) | low_code
    }

    /// Block QUANTL: 6 bits. Codes 0 to 3 are never sent.
    fn quantise_low(&self, sample: i32) -> u8 {
        let error = saturate(sample - self.low.estimate);
        let magnitude = if error >= 0 { error } else { -(error + 1) };
        let level = LOW_DECISIONS[1..]
            .iter()
            .position(|decision| magnitude < (decision * self.low.scale) >> 12)
            .map_or(30, |position| position as u8 + 1);
        match (error < 0, level) {
            (true, 1) => 63,
            (true, 2) => 62,
            (true, level) => 34 - level,
            (false, level) => 62 - level,
        }
    }

    /// Block QUANTH: 2 bits.
    fn quantise_high(&self, sample: i32) -> u8 {
        let error = saturate(sample - self.high.estimate);
        let magnitude = if error >= 0 { error } else { -(error + 1) };
        let is_large = magnitude >= (HIGH_DECISION * self.high.scale) >> 12;
        match (error < 0, is_large) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        }
    }
}

/// From bytes to 16 kHz.
#[derive(Clone, Debug)]
pub struct Decoder {
    qmf: [i32; 24],
    low: Band,
    high: Band,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// In the recommendation's reset state.
    pub const fn new() -> Self {
        Self { qmf: [0; 24], low: Band::new(LOW_SCALE), high: Band::new(HIGH_SCALE) }
    }

    /// Decodes as many bytes as `out` has room for, two samples each; returns the samples written.
    pub fn decode(&mut self, bytes: &[u8], out: &mut [i16]) -> usize {
        let pairs = out.as_chunks_mut::<2>().0;
        let count = bytes.len().min(pairs.len());
        for (pair, &byte) in pairs.iter_mut().zip(bytes) {
            *pair = self.decode_byte(byte);
        }
        2 * count
    }

    fn decode_byte(&mut self, byte: u8) -> [i16; 2] {
        let (low_code, high_code) = (usize::from(byte & 0x3f), usize::from(byte >> 6));
        let low_value = (LOW_VALUES_6_BITS[low_code] * self.low.scale) >> 15;
        let low = (self.low.estimate + low_value).clamp(-16_384, 16_383);
        self.low.adapt(LOW_VALUES_4_BITS[low_code >> 2], low_code >> 2, &LOW_SCALE);
        let high_value = (HIGH_VALUES[high_code] * self.high.scale) >> 15;
        let high = (self.high.estimate + high_value).clamp(-16_384, 16_383);
        self.high.adapt(HIGH_VALUES[high_code], high_code, &HIGH_SCALE);
        self.qmf.copy_within(2.., 0);
        (self.qmf[22], self.qmf[23]) = (low + high, low - high);
        let (mut first, mut second) = (0, 0);
        for (tap, pair) in self.qmf.as_chunks::<2>().0.iter().enumerate() {
            second += pair[0] * QMF[tap];
            first += pair[1] * QMF[11 - tap];
        }
        [saturate(first >> 11) as i16, saturate(second >> 11) as i16]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tones(samples: usize, amplitude: f64) -> Vec<i16> {
        (0..samples)
            .map(|i| {
                let t = i as f64 / 16_000.0 * std::f64::consts::TAU;
                (amplitude * (0.5 * (440.0 * t).sin() + 0.3 * (1700.0 * t).sin() + 0.2 * (5200.0 * t).sin())) as i16
            })
            .collect()
    }

    #[test]
    fn what_is_coded_comes_back_22_samples_later() {
        let pcm = tones(16_000, 12_000.0);
        let (mut bytes, mut out) = (vec![0; 8000], vec![0; 16_000]);
        assert_eq!(Encoder::new().encode(&pcm, &mut bytes), 8000);
        assert_eq!(Decoder::new().decode(&bytes, &mut out), 16_000);
        let (mut signal, mut noise) = (0.0, 0.0);
        for (original, heard) in pcm[1000..15_000].iter().zip(&out[1022..]) {
            signal += f64::from(*original).powi(2);
            noise += (f64::from(*original) - f64::from(*heard)).powi(2);
        }
        let snr_db = 10.0 * (signal / noise).log10();
        assert!(snr_db > 22.0, "{snr_db} dB");
    }

    #[test]
    fn silence_stays_almost_silent_and_slices_may_be_short() {
        let (mut bytes, mut out) = ([0; 160], [0; 320]);
        assert_eq!(Encoder::new().encode(&[0; 320], &mut bytes), 160);
        assert_eq!(Decoder::new().decode(&bytes, &mut out), 320);
        assert!(out.iter().all(|sample| sample.abs() < 16));
        assert_eq!(Encoder::new().encode(&[0; 7], &mut bytes), 3);
        assert_eq!(Decoder::new().decode(&bytes, &mut out[..5]), 4);
    }

    /// The checksums are those of what FFmpeg 8's G.722 encoder and decoder make of the same input.
    #[test]
    fn bytes_and_samples_are_those_of_ffmpeg() {
        let mut state = 1u32;
        let pcm: Vec<i16> = (0..16_000i32)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (state >> 16).cast_signed() - 32_768;
                let saw_tooth = (i * 37 % 4000 - 2000) * (1 + i / 8000 * 3);
                saturate(noise * (i / 4000 * 300 + 20) / 1000 + saw_tooth) as i16
            })
            .collect();
        let (mut bytes, mut out) = (vec![0; 8000], vec![0; 16_000]);
        Encoder::new().encode(&pcm, &mut bytes);
        assert_eq!(crc32fast::hash(&bytes), 0x719f_112d);
        Decoder::new().decode(&bytes, &mut out);
        let out_bytes: Vec<u8> = out.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        assert_eq!(crc32fast::hash(&out_bytes), 0xb8f9_e607);
    }

    proptest! {
        /// The arithmetic never overflows: tests run with overflow checks.
        #[test]
        fn any_sound_and_any_bytes_are_survived(
            pcm in proptest::collection::vec(prop_oneof![any::<i16>(), Just(i16::MIN), Just(i16::MAX)], 0..800),
            bytes in proptest::collection::vec(any::<u8>(), 0..400)
        ) {
            let (mut encoded, mut out) = (vec![0; 400], vec![0; 800]);
            let len = Encoder::new().encode(&pcm, &mut encoded);
            Decoder::new().decode(&encoded[..len], &mut out);
            Decoder::new().decode(&bytes, &mut out);
        }
    }
}
