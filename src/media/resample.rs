//! From the telephone's 8 kHz to the bus's 16 kHz and back.
//!
//! Owns: a low-pass filter for both ways, and its counterpart for what comes back. Does not own: Opus, which resamples for
//! itself.
//! The filter: 51 taps, linear phase, hence 25 samples at 16 kHz = 1.6 ms of delay; flat to 3.6 kHz within 0.14 dB, 62 dB
//! down from 4.4 kHz (what it lets through between 4.0 and 4.4 kHz lands above 3.6 kHz, where telephones hear nothing).
//! Its counterpart, as long, is its inverse up to 4 kHz and beyond that mirrors the band's edge, so that both in a row pass
//! 8 kHz unchanged within 0.01 dB: G.711 from one telephone to another comes out as it went in but for a sample in a
//! hundred, where the filter twice costs 0.1 PESQ. The mirror image, up to 4.6 kHz, is heard by nobody: everything on the bus ends at a telephone.

use super::simd::{Kernels, kernels};

/// Samples at 16 kHz from input to output.
pub const DELAY_16K_SAMPLES: usize = 25;

const TAPS: usize = 51;
/// Every other tap: 26 meet the samples at even distance from the newest, 25 (and a zero) the others.
const PHASE_TAPS: usize = TAPS.div_ceil(2);
/// Samples worked on at a time: one tick at 16 kHz.
const BLOCK_16K: usize = 320;
const BLOCK_8K: usize = BLOCK_16K / 2;

/// The first half and the middle of the symmetric impulse response (Parks-McClellan, pass band to 3.6 kHz, stop band from
/// 4.4 kHz at 16 kHz, weights 1 to 20).
const HALF_RESPONSE: [f32; TAPS / 2 + 1] = [
    -0.002_166_084,
    -0.005_260_453,
    -0.003_063_055,
    0.003_038_362,
    0.003_658_271,
    -0.003_785_136,
    -0.005_184_846,
    0.004_534_105,
    0.007_561_268,
    -0.005_402_634,
    -0.010_647_654,
    0.006_203_001,
    0.014_779_613,
    -0.006_999_763,
    -0.020_291_109,
    0.007_711_394,
    0.027_997_218,
    -0.008_344_023,
    -0.039_543_25,
    0.008_854_61,
    0.059_322_033,
    -0.009_236_446,
    -0.103_455_04,
    0.009_468_683,
    0.317_420_45,
    0.490_451_78,
];

/// The same of the counterpart (least squares: both in a row are 1 at f plus 8 kHz − f; stop band from 5 kHz, 50 dB).
const HALF_COUNTERPART: [f32; TAPS / 2 + 1] = [
    0.002_650_73,
    0.004_326_408,
    0.003_318_075,
    -0.001_724_156,
    -0.005_075_669,
    0.002_378_982,
    0.008_878_092,
    -0.004_584_098,
    -0.014_015_399,
    0.009_224_324,
    0.019_572_33,
    -0.017_165_37,
    -0.024_020_504,
    0.028_823_836,
    0.025_225_805,
    -0.043_843_966,
    -0.020_603_9,
    0.060_977_88,
    0.007_031_941,
    -0.078_179_3,
    0.020_499_885,
    0.092_981_15,
    -0.077_673_756,
    -0.103_007_16,
    0.308_412_3,
    0.606_615_2,
];

/// The taps that meet a sample at 8 kHz when the output lies on one (0), and when it lies between two (1): doubled, since
/// half of the samples at 16 kHz are zero. The oldest sample's tap comes first.
const fn phases(half: &[f32; TAPS / 2 + 1]) -> [[f32; PHASE_TAPS]; 2] {
    let mut phases = [[0.0; PHASE_TAPS]; 2];
    let mut tap = 0;
    while tap < TAPS {
        let mirrored = if tap <= TAPS / 2 { tap } else { TAPS - 1 - tap };
        phases[tap % 2][PHASE_TAPS - 1 - tap / 2] = 2.0 * half[mirrored];
        tap += 1;
    }
    phases
}

static PHASES: [[f32; PHASE_TAPS]; 2] = phases(&HALF_RESPONSE);
static COUNTERPART_PHASES: [[f32; PHASE_TAPS]; 2] = phases(&HALF_COUNTERPART);

/// From 16 kHz to 8 kHz.
#[derive(Clone, Debug)]
pub struct Down16To8 {
    kernels: &'static Kernels,
    /// The last samples of the input so far: the first of each pair, the second of each pair.
    histories: [[f32; PHASE_TAPS]; 2],
}

impl Default for Down16To8 {
    fn default() -> Self {
        Self::new()
    }
}

impl Down16To8 {
    /// After silence.
    pub fn new() -> Self {
        Self { kernels: kernels(), histories: [[0.0; PHASE_TAPS]; 2] }
    }

    /// Filters `input`, of even length, into `out` of at least half that length; returns the samples written. What does
    /// not fit is not taken in.
    pub fn process(&mut self, input: &[i16], out: &mut [i16]) -> usize {
        let samples = (input.len() / 2).min(out.len());
        for (input, out) in input[..2 * samples].chunks(BLOCK_16K).zip(out[..samples].chunks_mut(BLOCK_8K)) {
            let mut lines = [[0.0; PHASE_TAPS + BLOCK_8K]; 2];
            for (half, (line, history)) in lines.iter_mut().zip(&self.histories).enumerate() {
                line[..PHASE_TAPS].copy_from_slice(history);
                for (place, pair) in line[PHASE_TAPS..].iter_mut().zip(input.as_chunks::<2>().0) {
                    *place = f32::from(pair[half]);
                }
            }
            // The newest sample of each output is the first of its pair.
            let mut sums = [0.0; BLOCK_8K];
            (self.kernels.filter)(&lines[0][1..], &PHASES[0], &mut sums);
            (self.kernels.filter)(&lines[1], &PHASES[1], &mut sums);
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = to_i16(0.5 * sum);
            }
            for (history, line) in self.histories.iter_mut().zip(&lines) {
                history.copy_from_slice(&line[input.len() / 2..][..PHASE_TAPS]);
            }
        }
        samples
    }
}

/// From 8 kHz to 16 kHz.
#[derive(Clone, Debug)]
pub struct Up8To16 {
    kernels: &'static Kernels,
    phases: &'static [[f32; PHASE_TAPS]; 2],
    /// The last samples of the input so far.
    history: [f32; PHASE_TAPS],
}

impl Default for Up8To16 {
    fn default() -> Self {
        Self::new()
    }
}

impl Up8To16 {
    /// After silence, for sound that is heard as it is.
    pub fn new() -> Self {
        Self { kernels: kernels(), phases: &PHASES, history: [0.0; PHASE_TAPS] }
    }

    /// After silence, for sound that [`Down16To8`] brings back: that is then what it was.
    pub fn to_bus() -> Self {
        Self { phases: &COUNTERPART_PHASES, ..Self::new() }
    }

    /// Filters `input` into `out` of at least twice its length; returns the samples written. What does not fit is not
    /// taken in.
    pub fn process(&mut self, input: &[i16], out: &mut [i16]) -> usize {
        let samples = input.len().min(out.len() / 2);
        for (input, out) in input[..samples].chunks(BLOCK_8K).zip(out[..2 * samples].chunks_mut(BLOCK_16K)) {
            let mut line = [0.0; PHASE_TAPS + BLOCK_8K];
            line[..PHASE_TAPS].copy_from_slice(&self.history);
            for (place, &sample) in line[PHASE_TAPS..].iter_mut().zip(input) {
                *place = f32::from(sample);
            }
            let mut sums = [[0.0; BLOCK_8K]; 2];
            for (sums, taps) in sums.iter_mut().zip(self.phases) {
                (self.kernels.filter)(&line[1..], taps, sums);
            }
            for ((pair, on), between) in out.as_chunks_mut::<2>().0.iter_mut().zip(sums[0]).zip(sums[1]) {
                *pair = [to_i16(on), to_i16(between)];
            }
            self.history.copy_from_slice(&line[input.len()..input.len() + PHASE_TAPS]);
        }
        2 * samples
    }
}

/// Rounds, and clamps what the filter makes of a full-scale edge. Added to one and a half times 2²³, a sample is rounded and
/// its integer stands in the lowest bits; unlike a conversion, this is done to whole vectors.
fn to_i16(sample: f32) -> i16 {
    const INTEGERS: f32 = 12_582_912.0;
    (sample.clamp(-32_768.0, 32_767.0) + INTEGERS).to_bits() as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::g711::Law;
    use std::f64::consts::TAU;

    fn sine(frequency_hz: f64, rate_hz: f64, samples: usize) -> Vec<i16> {
        (0..samples).map(|i| (16_000.0 * (TAU * frequency_hz * i as f64 / rate_hz).sin()).round() as i16).collect()
    }

    /// The level of one frequency in `pcm` against an amplitude of 16 000, in dB. The first 400 samples are the filter's.
    fn level_db(pcm: &[i16], frequency_hz: f64, rate_hz: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (i, &sample) in pcm.iter().enumerate().skip(400) {
            let angle = TAU * frequency_hz * i as f64 / rate_hz;
            re += f64::from(sample) * angle.cos();
            im += f64::from(sample) * angle.sin();
        }
        let amplitude = 2.0 * re.hypot(im) / (pcm.len() - 400) as f64;
        20.0 * (amplitude / 16_000.0).max(1e-9).log10()
    }

    fn down(input: &[i16]) -> Vec<i16> {
        let (mut filter, mut out) = (Down16To8::new(), vec![0; input.len() / 2]);
        assert_eq!(filter.process(input, &mut out), out.len());
        out
    }

    fn up(input: &[i16]) -> Vec<i16> {
        let (mut filter, mut out) = (Up8To16::new(), vec![0; input.len() * 2]);
        assert_eq!(filter.process(input, &mut out), out.len());
        out
    }

    #[test]
    fn downwards_the_pass_band_is_flat_and_what_would_alias_is_gone() {
        for frequency in [100.0, 300.0, 1000.0, 2500.0, 3400.0, 3600.0] {
            let level = level_db(&down(&sine(frequency, 16_000.0, 8400)), frequency, 8000.0);
            assert!(level.abs() < 0.2, "{frequency} Hz: {level} dB");
        }
        for frequency in [4400.0, 4500.0, 5000.0, 6000.0, 7000.0, 7900.0] {
            let alias = 8000.0 - frequency;
            let level = level_db(&down(&sine(frequency, 16_000.0, 8400)), alias, 8000.0);
            assert!(level < -60.0, "{frequency} Hz: {level} dB");
        }
    }

    #[test]
    fn upwards_the_pass_band_is_flat_and_no_image_remains() {
        for frequency in [100.0, 300.0, 1000.0, 2500.0, 3400.0, 3600.0] {
            let out = up(&sine(frequency, 8000.0, 4400));
            let level = level_db(&out, frequency, 16_000.0);
            assert!(level.abs() < 0.2, "{frequency} Hz: {level} dB");
            let image = level_db(&out, 8000.0 - frequency, 16_000.0);
            assert!(image < -60.0, "{frequency} Hz: {image} dB");
        }
    }

    #[test]
    fn to_the_bus_and_back_g711_hardly_changes() {
        let mut state = 1u32;
        let bytes: Vec<u8> = (0..16_000)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = (state >> 16) as f64 / 65_536.0 - 0.5;
                let vowel: f64 = (1..20).map(|k| (TAU * 150.0 * f64::from(k * i) / 8000.0).sin()).sum();
                let mut byte = [0];
                Law::Mu.encode(&[(vowel * 800.0 + noise * 300.0) as i16], &mut byte);
                byte[0]
            })
            .collect();
        let (mut pcm, mut wide, mut back) = (vec![0; 16_000], vec![0; 32_000], vec![0; 16_000]);
        Law::Mu.decode(&bytes, &mut pcm);
        Up8To16::to_bus().process(&pcm, &mut wide);
        Down16To8::new().process(&wide, &mut back);
        let mut again = vec![0; 16_000];
        Law::Mu.encode(&back, &mut again);
        let unlike = again[DELAY_16K_SAMPLES..].iter().zip(&bytes).filter(|(again, byte)| again != byte).count();
        // Near zero, where µ-law's steps are finer than the filters' error.
        assert!(unlike < 160, "{unlike}");
    }

    #[test]
    fn the_delay_is_25_samples_each_way() {
        let mut impulse = [0; 320];
        impulse[100] = 16_000;
        let loudest = |pcm: &[i16]| (0..pcm.len()).max_by_key(|&i| pcm[i]).unwrap();
        assert_eq!(loudest(&up(&impulse)), 200 + DELAY_16K_SAMPLES);
        impulse.rotate_right(1);
        assert_eq!(loudest(&down(&impulse)), (101 + DELAY_16K_SAMPLES) / 2);
    }

    #[test]
    fn the_cut_into_ticks_changes_nothing() {
        let input = sine(700.0, 16_000.0, 3200);
        let whole = down(&input);
        let mut filter = Down16To8::new();
        let mut parts = Vec::new();
        for tick in input.chunks(64) {
            let mut out = [0; 32];
            assert_eq!(filter.process(tick, &mut out), 32);
            parts.extend(out);
        }
        assert_eq!(parts, whole);
        let mut filter = Up8To16::new();
        let mut out = [0; 100];
        assert_eq!(filter.process(&input[..80], &mut out), 100);
        assert_eq!(out, up(&input[..50])[..]);
    }

    #[test]
    fn full_scale_edges_are_clamped() {
        let square: Vec<i16> = (0..640).map(|i| if i / 40 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let out = down(&square);
        assert!(out.contains(&i16::MAX) && out.contains(&i16::MIN));
    }
}
