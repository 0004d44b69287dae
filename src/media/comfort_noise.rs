//! The background of the voices that are not decoded: one noise for all of them, as loud and as coloured as their own.
//!
//! Owns: the spectrum of a voice's background, measured where it is decoded; the noise made from the sum of the spectra.
//! Does not own: which voices are left undecoded (`attention`).
//!
//! A background that vanishes and comes back with each sentence is heard as pumping. Noises of different rooms have nothing
//! in common, so their autocorrelations add up, and one generator serves a room of any size: white noise through the linear
//! prediction filter of the sum (RFC 3389 §3 describes the same model).

use super::mixer::BusFrame;

/// Coefficients of the filter: the slope and two broad peaks, all that the noise of rooms and lines has.
const ORDER: usize = 6;
/// White noise added for the computation, as a share of the power: it keeps the filter stable whatever the input.
const WHITE_SHARE: f32 = 1e-3;
/// How much of a new frame a background takes over.
const FOLLOW: f32 = 0.25;
/// Below this mean square not even the last bit moves.
const NOTHING: f32 = 0.25;

/// The mean products of samples 0 to [`ORDER`] apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Background([f32; ORDER + 1]);

impl Background {
    /// Takes over some of what these samples are like, or all of it if nothing is known yet.
    pub(super) fn follow(&mut self, samples: &[i16]) {
        if samples.len() <= ORDER {
            return;
        }
        let share = if self.0[0] == 0.0 { 1.0 } else { FOLLOW };
        for (lag, mean) in self.0.iter_mut().enumerate() {
            let pairs = samples[lag..].iter().zip(samples);
            // At most 1920 products of samples below −50 dBFS on average: they fit, and if not, it is noise anyway.
            let sum = pairs.fold(0_i32, |sum, (&later, &earlier)| {
                sum.wrapping_add(i32::from(later).wrapping_mul(i32::from(earlier)))
            });
            *mean += share * (sum as f32 / samples.len() as f32 - *mean);
        }
    }
}

/// One room's.
#[derive(Debug)]
pub(super) struct ComfortNoise {
    sum: Background,
    /// The sum that the filter was computed for.
    shaped: Background,
    filter: [f32; ORDER],
    /// Of the white noise: it is spread evenly between minus and plus this.
    amplitude: f32,
    /// The latest samples, the last one first.
    past: [f32; ORDER],
    random: u32,
}

impl ComfortNoise {
    pub(super) fn new() -> Self {
        Self {
            sum: Background::default(),
            shaped: Background::default(),
            filter: [0.0; ORDER],
            amplitude: 0.0,
            past: [0.0; ORDER],
            // Any odd number: the noise need not be unpredictable.
            random: 0x9e37_79b9,
        }
    }

    /// Begins a tick.
    pub(super) fn clear(&mut self) {
        self.sum = Background::default();
    }

    /// A voice that is not decoded in this tick.
    pub(super) fn add(&mut self, background: &Background) {
        for (sum, mean) in self.sum.0.iter_mut().zip(background.0) {
            *sum += mean;
        }
    }

    /// The tick's noise; false (and no frame) if there is nothing to hear.
    pub(super) fn fill(&mut self, frame: &mut BusFrame) -> bool {
        if self.sum.0[0] < NOTHING {
            self.past = [0.0; ORDER];
            return false;
        }
        if self.sum != self.shaped {
            self.shaped = self.sum;
            self.shape();
        }
        for sample in frame {
            self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let white = self.random.cast_signed() as f32 / 2_147_483_648.0;
            let predicted: f32 = self.filter.iter().zip(&self.past).rev().map(|(factor, past)| factor * past).sum();
            let noise = white * self.amplitude + predicted;
            self.past.copy_within(..ORDER - 1, 1);
            self.past[0] = noise;
            *sample = noise as i16; // saturates
        }
        true
    }

    /// Levinson and Durbin's recursion.
    fn shape(&mut self) {
        let means = &self.shaped.0;
        let mut error = means[0] * (1.0 + WHITE_SHARE);
        self.filter = [0.0; ORDER];
        for order in 0..ORDER {
            let former = self.filter;
            let predicted: f32 = (0..order).map(|at| former[at] * means[order - at]).sum();
            let reflection = (means[order + 1] - predicted) / error;
            for at in 0..order {
                self.filter[at] = former[at] - reflection * former[order - 1 - at];
            }
            self.filter[order] = reflection;
            error *= 1.0 - reflection * reflection;
        }
        // The variance of what is spread evenly is a third of the square of its bounds.
        self.amplitude = (3.0 * error.max(0.0)).sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::mixer::SILENCE;

    fn mean_product(samples: &[i16], lag: usize) -> f64 {
        let sum: f64 = samples[lag..].iter().zip(samples).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        sum / samples.len() as f64
    }

    /// Noise through a filter of one pole: positive makes it dull, negative sharp.
    fn noise(seed: u32, pole: f64, amplitude: f64) -> Vec<i16> {
        let (mut random, mut past) = (seed, 0.0);
        let mut next = || {
            random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            past = past * pole + (f64::from(random >> 8) / f64::from(1 << 23) - 1.0) * amplitude;
            past as i16
        };
        (0..16_000).map(|_| next()).collect()
    }

    fn background(samples: &[i16]) -> Background {
        let mut background = Background::default();
        samples.chunks(320).for_each(|frame| background.follow(frame));
        background
    }

    fn made(backgrounds: &[Background], ticks: usize) -> Vec<i16> {
        let mut comfort_noise = ComfortNoise::new();
        let mut all = Vec::new();
        for _ in 0..ticks {
            let mut frame = SILENCE;
            comfort_noise.clear();
            backgrounds.iter().for_each(|background| comfort_noise.add(background));
            assert!(comfort_noise.fill(&mut frame));
            all.extend(frame);
        }
        all
    }

    #[test]
    fn it_is_as_loud_and_as_coloured_as_the_sum_of_the_backgrounds() {
        let (dull, sharp) = (noise(1, 0.9, 40.0), noise(2, -0.6, 60.0));
        let made = made(&[background(&dull), background(&sharp)], 200);
        for lag in 0..4 {
            let expected = mean_product(&dull, lag) + mean_product(&sharp, lag);
            let got = mean_product(&made, lag);
            let tolerance = 0.12 * (mean_product(&dull, 0) + mean_product(&sharp, 0));
            assert!((got - expected).abs() < tolerance, "lag {lag}: {got} instead of {expected}");
        }
    }

    #[test]
    fn silence_makes_none_and_a_pure_tone_no_howl() {
        let (mut comfort_noise, mut frame) = (ComfortNoise::new(), SILENCE);
        comfort_noise.add(&background(&[0; 3200]));
        assert!(!comfort_noise.fill(&mut frame));
        let tone: Vec<i16> = (0..3200).map(|n| ((n as f64 * 0.3).sin() * 100.0) as i16).collect();
        let made = made(&[background(&tone)], 500);
        let ratio = mean_product(&made, 0) / mean_product(&tone, 0);
        assert!((0.3..3.0).contains(&ratio), "{ratio}");
    }
}
