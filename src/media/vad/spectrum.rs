//! The spectrum of one frame: its power in bands of hearing, and how periodic it is.
//!
//! Owns: the window, the Fourier transform, the sums. Does not own: what they mean (`features`).
//! Method: a real transform of 256 samples by a complex one of half the length; autocorrelation by the cosine transform
//! of the magnitudes of the lowest kilohertz (Wiener–Khinchin), where voiced speech has most of its harmonics.

use std::f64::consts::TAU;
use std::sync::OnceLock;

use crate::media::simd::kernels;

/// 20 ms at 8 kHz.
pub const FRAME_SAMPLES: usize = 160;

/// Samples under the window: the frame and 12 ms before it, so that a bin is 31 Hz wide.
const WINDOW_SAMPLES: usize = 256;
const HALF: usize = WINDOW_SAMPLES / 2;

/// Bands: from 62 Hz, 60 Hz wide at first, then growing with frequency as hearing does, to 3.7 kHz.
pub(super) const BANDS: usize = 16;
const EDGES: [usize; BANDS + 1] = [2, 4, 6, 8, 10, 13, 16, 20, 25, 31, 38, 46, 56, 68, 82, 100, 118];

/// Bins whose harmonics are looked at for a pitch: 94 Hz to 1 kHz.
const PITCH_BINS: std::ops::Range<usize> = 3..33;
/// Periods that are tried: every sample up to 5 ms, every second up to 10 ms, every fourth up to 16 ms (400 to 63 Hz).
const LAGS: usize = 52;
/// The same, filled up with zeros, to sums that are made side by side.
const LAG_ROW: usize = 64;
const SHORTEST_LAG: usize = 20;

fn lag_samples(index: usize) -> usize {
    match index {
        0..20 => SHORTEST_LAG + index,
        20..40 => 40 + 2 * (index - 20),
        _ => 80 + 4 * (index - 40),
    }
}

/// What never changes: built once, shared by all.
#[derive(Debug)]
struct Tables {
    window: [f32; WINDOW_SAMPLES],
    /// e^(−2πik/256).
    cos: [f32; HALF],
    sin: [f32; HALF],
    reversed: [u8; HALF],
    /// The turns of each step of the transform behind each other, as vectors want them: those for pieces of `half` points begin
    /// at `half`.
    step_cos: [f32; HALF],
    step_sin: [f32; HALF],
    lag_cos: [[f32; LAG_ROW]; PITCH_BINS.end - PITCH_BINS.start],
}

impl Tables {
    fn shared() -> &'static Self {
        static TABLES: OnceLock<Tables> = OnceLock::new();
        TABLES.get_or_init(Self::new)
    }

    fn new() -> Self {
        let turn = |part: usize| TAU * part as f64 / WINDOW_SAMPLES as f64;
        let step_turns: [f64; HALF] = std::array::from_fn(|at| {
            let half = 1 << at.max(1).ilog2();
            turn((at - half.min(at)) * HALF / half)
        });
        Self {
            // Hann's, over full scale 1.
            window: std::array::from_fn(|n| ((0.5 - 0.5 * turn(n).cos()) / 32_768.0) as f32),
            cos: std::array::from_fn(|k| turn(k).cos() as f32),
            sin: std::array::from_fn(|k| -turn(k).sin() as f32),
            reversed: std::array::from_fn(|n| (n as u8).reverse_bits() >> (8 - HALF.ilog2())),
            step_cos: step_turns.map(|angle| angle.cos() as f32),
            step_sin: step_turns.map(|angle| -angle.sin() as f32),
            lag_cos: std::array::from_fn(|bin| {
                let cosine = |lag| turn((bin + PITCH_BINS.start) * lag_samples(lag)).cos() as f32;
                std::array::from_fn(|lag| if lag < LAGS { cosine(lag) } else { 0.0 })
            }),
        }
    }
}

/// The analyser of one voice; it keeps the end of the last frame.
#[derive(Clone, Debug)]
pub(super) struct Spectrum {
    tables: &'static Tables,
    before: [i16; WINDOW_SAMPLES - FRAME_SAMPLES],
    /// Power of each bin of the latest frame.
    power: [f32; HALF],
}

impl Spectrum {
    pub(super) fn new() -> Self {
        Self { tables: Tables::shared(), before: [0; WINDOW_SAMPLES - FRAME_SAMPLES], power: [0.0; HALF] }
    }

    /// Takes the next frame without looking at it.
    pub(super) fn skip(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        let kept = self.before.len();
        self.before.copy_from_slice(&frame[FRAME_SAMPLES - kept..]);
    }

    /// Takes the next frame; its mean power by band, a full-scale sine being about 1.
    pub(super) fn bands(&mut self, frame: &[i16; FRAME_SAMPLES]) -> [f32; BANDS] {
        self.transform(frame);
        self.skip(frame);
        std::array::from_fn(|band| {
            let bins = &self.power[EDGES[band]..EDGES[band + 1]];
            bins.iter().sum::<f32>() / bins.len() as f32
        })
    }

    /// How periodic the latest frame is, 0 to 1, counting of each band as much as `weights` says.
    pub(super) fn periodicity(&self, weights: &[f32; BANDS]) -> f32 {
        let (mut correlation, mut magnitudes) = ([0.0; LAG_ROW], [0.0; PITCH_BINS.end - PITCH_BINS.start]);
        let mut band = 0;
        for (bin, magnitude) in PITCH_BINS.zip(&mut magnitudes) {
            while bin >= EDGES[band + 1] {
                band += 1;
            }
            *magnitude = self.power[bin].sqrt() * weights[band];
        }
        let total = magnitudes.iter().fold(1e-9, |total, magnitude| total + magnitude);
        (kernels().add_rows)(&mut correlation, self.tables.lag_cos.as_flattened(), &magnitudes);
        (correlation.iter().copied().fold(0.0, f32::max) / total).min(1.0)
    }

    fn transform(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        let Tables { window, cos, sin, reversed, step_cos, step_sin, .. } = self.tables;
        let mut input = [0.0f32; WINDOW_SAMPLES];
        for ((input, &sample), weight) in input.iter_mut().zip(self.before.iter().chain(frame)).zip(window) {
            *input = f32::from(sample) * weight;
        }
        // Even samples as real, odd ones as imaginary parts of half as many points, in bit-reversed order.
        let (mut re, mut im) = ([0.0f32; HALF], [0.0f32; HALF]);
        for (pair, &to) in input.chunks_exact(2).zip(reversed) {
            (re[usize::from(to)], im[usize::from(to)]) = (pair[0], pair[1]);
        }
        let mut half = 1;
        while half < HALF {
            let turns = step_cos[half..2 * half].iter().zip(&step_sin[half..2 * half]);
            for (re, im) in re.chunks_exact_mut(2 * half).zip(im.chunks_exact_mut(2 * half)) {
                let ((re_a, re_b), (im_a, im_b)) = (re.split_at_mut(half), im.split_at_mut(half));
                let points = re_a.iter_mut().zip(im_a).zip(re_b.iter_mut().zip(im_b));
                for (((re_a, im_a), (re_b, im_b)), (c, s)) in points.zip(turns.clone()) {
                    let (re, im) = (*re_b * c - *im_b * s, *re_b * s + *im_b * c);
                    (*re_b, *im_b) = (*re_a - re, *im_a - im);
                    (*re_a, *im_a) = (*re_a + re, *im_a + im);
                }
            }
            half *= 2;
        }
        // The two interleaved spectra apart, and joined to that of all samples.
        for k in 1..HALF {
            let mirror = HALF - k;
            let (even_re, even_im) = (re[k] + re[mirror], im[k] - im[mirror]);
            let (odd_re, odd_im) = (im[k] + im[mirror], re[mirror] - re[k]);
            let real = even_re + odd_re * cos[k] - odd_im * sin[k];
            let imaginary = even_im + odd_re * sin[k] + odd_im * cos[k];
            // Over (N / 4)²: Hann's window has a mean of one half; the two halves above are doubled.
            self.power[k] = (real * real + imaginary * imaginary) / (HALF * HALF) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frequency_hz: f64, amplitude: f64) -> Vec<i16> {
        (0..480).map(|n| (amplitude * (TAU * frequency_hz * f64::from(n) / 8000.0).sin()) as i16).collect()
    }

    fn analysed(pcm: &[i16]) -> (Spectrum, [f32; BANDS]) {
        let (mut spectrum, mut bands) = (Spectrum::new(), [0.0; BANDS]);
        for frame in pcm.as_chunks().0 {
            bands = spectrum.bands(frame);
        }
        (spectrum, bands)
    }

    #[test]
    fn the_transform_is_the_discrete_fourier_transform() {
        let pcm: Vec<i16> = (0..320).map(|n: i64| (n * n * 7919 % 20_011 - 10_000) as i16).collect();
        let (spectrum, _) = analysed(&pcm);
        for bin in [1, 2, 17, 64, 127] {
            let (mut re, mut im) = (0.0, 0.0);
            for (n, sample) in pcm[320 - WINDOW_SAMPLES..].iter().enumerate() {
                let angle = TAU * (n * bin) as f64 / WINDOW_SAMPLES as f64;
                let weighed = f64::from(*sample) * f64::from(spectrum.tables.window[n]);
                (re, im) = (re + weighed * angle.cos(), im - weighed * angle.sin());
            }
            let expected = (re * re + im * im) / f64::from(64 * 64);
            let got = f64::from(spectrum.power[bin]);
            assert!((got - expected).abs() <= 1e-4 * expected.max(1e-6), "bin {bin}: {got}, not {expected}");
        }
    }

    #[test]
    fn a_tone_stands_in_its_band_with_its_power() {
        let (spectrum, bands) = analysed(&tone(1000.0, 16_384.0));
        assert!((spectrum.power[32] - 0.25).abs() < 0.01, "{}", spectrum.power[32]);
        let loudest = (0..BANDS).max_by(|&a, &b| bands[a].total_cmp(&bands[b])).unwrap();
        assert!((EDGES[loudest]..EDGES[loudest + 1]).contains(&32));
    }

    #[test]
    fn harmonics_of_one_pitch_are_periodic_and_noise_is_not() {
        let vowel: Vec<i16> = (0..480)
            .map(|n| (1..8).map(|h| (TAU * 120.0 * f64::from(h * n) / 8000.0).sin() * 2000.0).sum::<f64>() as i16)
            .collect();
        let mut random = crate::random::Random::for_test(1);
        let noise: Vec<i16> = (0..480).map(|_| random.below(8000) as i16 - 4000).collect();
        let of = |pcm: &[i16]| analysed(pcm).0.periodicity(&[1.0; BANDS]);
        assert!(of(&vowel) > 0.35 && of(&noise) < 0.25, "{} {}", of(&vowel), of(&noise));
    }
}
