//! Sound made a little shorter or longer at the same pitch (waveform-similarity overlap and add).
//!
//! Owns: where a piece can be taken out or played twice unnoticed, and the seam. Does not own: when that is wanted
//! (`pace`).
//!
//! Three kinds of sound can be cut: what nobody hears, at any place; voiced sound, by whole pitch periods, where a period
//! is very like the next one; steady noise, which is like itself in power only, so that the seam keeps that. All else
//! (onsets, changes, several voices at once) is left as it is.

/// Periods from 400 Hz down to 66 Hz; a higher voice is cut by several of its own.
const SHORTEST_PERIOD_US: usize = 2500;
const LONGEST_PERIOD_US: usize = 15_000;
/// The piece of a steady noise that is taken out or repeated.
const NOISE_PIECE_US: usize = 10_000;
/// How long one sound fades into the other.
const SEAM_US: usize = 5000;
/// As much is compared at most to tell how alike two places are.
const COMPARED_US: usize = 12_000;
/// Correlation from which a period is the same again.
const ALIKE: f32 = 0.9;
/// Correlation at every lag up to which a sound is noise.
const UNLIKE: f32 = 0.4;
/// The powers of the two halves of a steady sound differ by less than this factor.
const STEADY: f32 = 3.0;
/// Mean square of −50 dBFS: (32768 · 10^(−50/20))².
const QUIET: f32 = 10_737.0;

/// See the module. It keeps nothing but its rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeScale {
    sample_rate_hz: usize,
}

/// Where a sound goes on if a piece of it is left out or repeated.
#[derive(Clone, Copy, Debug)]
struct Cut {
    samples: usize,
    /// Correlation of what is blended, for a seam without a dip.
    likeness: f32,
}

impl TimeScale {
    /// For speech sampled at this rate.
    pub(super) const fn new(sample_rate_hz: u32) -> Self {
        Self { sample_rate_hz: sample_rate_hz as usize }
    }

    /// Takes at most `most` samples out of `pcm`; returns how many: the rest has moved to the front. 0 where a cut would
    /// be heard.
    pub(super) fn shorten(&self, pcm: &mut [i16], most: usize) -> usize {
        let Some(cut) = self.find(pcm, most) else { return 0 };
        let seam = self.seam(pcm, cut.samples);
        for at in 0..seam {
            pcm[at] = blend(pcm[at], pcm[at + cut.samples], at, seam, cut.likeness);
        }
        pcm.copy_within(seam + cut.samples.., seam);
        cut.samples
    }

    /// Plays a piece of the first `len` samples of `pcm` twice, as far as there is space behind them; returns by how many
    /// samples they are more. 0 where that would be heard.
    pub(super) fn lengthen(&self, pcm: &mut [i16], len: usize) -> usize {
        let Some(cut) = self.find(&pcm[..len], pcm.len() - len) else { return 0 };
        let seam = self.seam(&pcm[..len], cut.samples);
        pcm.copy_within(..len, cut.samples);
        for at in cut.samples..cut.samples + seam {
            // What would have come, one piece further on by now, becomes what came before.
            pcm[at] = blend(pcm[at + cut.samples], pcm[at], at - cut.samples, seam, cut.likeness);
        }
        cut.samples
    }

    const fn samples(&self, us: usize) -> usize {
        self.sample_rate_hz * us / 1_000_000
    }

    fn seam(&self, pcm: &[i16], piece: usize) -> usize {
        self.samples(SEAM_US).min(pcm.len() - piece)
    }

    fn find(&self, pcm: &[i16], most: usize) -> Option<Cut> {
        let seam = self.samples(SEAM_US);
        let most = most.min(pcm.len().saturating_sub(seam));
        if most == 0 || pcm.len() < 2 * seam {
            return None;
        }
        let (early, late) = pcm.split_at(pcm.len() / 2);
        let (early, late) = (power(early), power(late));
        let shortest = self.samples(SHORTEST_PERIOD_US);
        if early.max(late) < QUIET {
            return Some(Cut { samples: most, likeness: 0.0 });
        }
        if most < shortest {
            return None;
        }
        let (lag, likeness) = self.most_alike(pcm, shortest, most.min(self.samples(LONGEST_PERIOD_US)));
        if likeness >= ALIKE {
            Some(Cut { samples: lag, likeness })
        } else if likeness <= UNLIKE && early.max(late) < STEADY * early.min(late) {
            Some(Cut { samples: most.min(self.samples(NOISE_PIECE_US)), likeness: 0.0 })
        } else {
            None
        }
    }

    /// The lag at which the beginning of the sound is most like what follows it, and how alike that is.
    fn most_alike(&self, pcm: &[i16], shortest: usize, longest: usize) -> (usize, f32) {
        // At 16 kHz every other lag, and of each every other sample, will do to find the neighbourhood.
        let stride = (self.sample_rate_hz / 8000).max(1);
        let compared = |lag: usize| self.samples(COMPARED_US).min(pcm.len() - lag);
        let alike = |lag: usize, stride| {
            let compared = compared(lag);
            likeness(&pcm[..compared], &pcm[lag..lag + compared], stride)
        };
        let better = |best: (usize, f32), next: (usize, f32)| if next.1 > best.1 { next } else { best };
        let rough = (shortest..=longest).step_by(stride).map(|lag| (lag, alike(lag, 2 * stride)));
        let (near, _) = rough.fold((shortest, f32::MIN), better);
        let around = shortest.max(near - near.min(stride))..=longest.min(near + stride);
        around.map(|lag| (lag, alike(lag, 1))).fold((near, f32::MIN), better)
    }
}

/// From `from` to `to`, at place `at` of `seam` samples, so that the power of two sounds with this correlation stays.
fn blend(from: i16, to: i16, at: usize, seam: usize, likeness: f32) -> i16 {
    let share = (at + 1) as f32 / (seam + 1) as f32;
    let rest = 1.0 - share;
    let power = share * share + rest * rest + 2.0 * share * rest * likeness;
    ((f32::from(from) * rest + f32::from(to) * share) / power.sqrt()) as i16
}

/// Correlation of two sounds of one length, looking at one sample in `stride`; 0 for silence.
fn likeness(a: &[i16], b: &[i16], stride: usize) -> f32 {
    let (mut product, mut energy_a, mut energy_b) = (0.0f32, 1.0f32, 1.0f32);
    for (&a, &b) in a.iter().zip(b).step_by(stride) {
        let (a, b) = (f32::from(a), f32::from(b));
        (product, energy_a, energy_b) = (product + a * b, energy_a + a * a, energy_b + b * b);
    }
    product / (energy_a * energy_b).sqrt()
}

/// Mean square.
fn power(pcm: &[i16]) -> f32 {
    pcm.iter().map(|&sample| f32::from(sample) * f32::from(sample)).sum::<f32>() / pcm.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::f64::consts::TAU;

    /// A vowel of this pitch: eight harmonics.
    fn vowel(samples: usize, rate_hz: u32, pitch_hz: f64) -> Vec<i16> {
        let sample = |i: usize| -> f64 {
            let phase = i as f64 / f64::from(rate_hz) * pitch_hz * TAU;
            (1..9).map(|k| (phase * f64::from(k) + f64::from(k * k)).sin() * 2000.0).sum()
        };
        (0..samples).map(|i| sample(i) as i16).collect()
    }

    fn noise(samples: usize, amplitude: f64) -> Vec<i16> {
        let mut state = 7u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 16) / 32_768.0 - 1.0
        };
        (0..samples).map(|_| (uniform() * amplitude) as i16).collect()
    }

    /// Each frame of 20 ms shortened and the next one lengthened, and how often either was done.
    fn scaled(pcm: &[i16], rate_hz: u32) -> (Vec<i16>, usize) {
        let (scale, frame_samples) = (TimeScale::new(rate_hz), rate_hz as usize / 50);
        let (mut out, mut done) = (Vec::new(), 0);
        for (number, frame) in pcm.chunks_exact(frame_samples).enumerate() {
            let mut space = [0; 640];
            space[..frame.len()].copy_from_slice(frame);
            let len = if number % 2 == 0 {
                frame.len() - scale.shorten(&mut space[..frame.len()], frame.len())
            } else {
                frame.len() + scale.lengthen(&mut space, frame.len())
            };
            done += usize::from(len != frame.len());
            out.extend_from_slice(&space[..len]);
        }
        (out, done)
    }

    /// The largest change of slope: a click stands out in it.
    fn sharpest(pcm: &[i16]) -> i32 {
        let bend = |w: &[i16]| (i32::from(w[0]) - 2 * i32::from(w[1]) + i32::from(w[2])).abs();
        pcm.windows(3).map(bend).max().unwrap_or(0)
    }

    #[test]
    fn a_vowel_is_cut_by_whole_periods_without_a_click_and_keeps_its_level() {
        for rate_hz in [8000, 16_000] {
            for pitch_hz in [83.0, 100.0, 137.0, 220.0, 391.0] {
                let said = vowel(rate_hz as usize, rate_hz, pitch_hz);
                let (out, done) = scaled(&said, rate_hz);
                assert!(done >= 45, "{rate_hz} {pitch_hz}: {done}");
                assert!(sharpest(&out) < sharpest(&said) * 11 / 10, "{pitch_hz}: {}", sharpest(&out));
                let ratio = power(&out) / power(&said);
                assert!((0.95..1.05).contains(&ratio), "{pitch_hz}: {ratio}");
            }
        }
    }

    #[test]
    fn a_tone_stays_one_tone() {
        let tone = |i: usize| ((i as f64 / 16_000.0 * 440.0 * TAU).sin() * 8000.0) as i16;
        let (out, done) = scaled(&(0..16_000).map(tone).collect::<Vec<_>>(), 16_000);
        assert!(done >= 45);
        // The error of predicting each sample from the two before it: 0 for a tone.
        let turn = 2.0 * (440.0 / 16_000.0 * TAU).cos();
        let error = |w: &[i16]| f64::from(w[2]) - turn * f64::from(w[1]) + f64::from(w[0]);
        let worst = out.windows(3).map(error).fold(0.0, |worst: f64, error| worst.max(error.abs()));
        assert!(worst < 40.0, "{worst}");
    }

    #[test]
    fn steady_noise_can_be_cut_and_its_power_stays() {
        for rate_hz in [8000, 16_000] {
            let said = noise(rate_hz as usize, 3000.0);
            let (out, done) = scaled(&said, rate_hz);
            assert!(done >= 40, "{done}");
            let ratio = power(&out) / power(&said);
            assert!((0.93..1.07).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn silence_can_be_cut_by_any_length_and_an_onset_or_a_mixture_not_at_all() {
        let scale = TimeScale::new(16_000);
        let mut silence = noise(320, 50.0);
        assert_eq!(scale.shorten(&mut silence, 7), 7);
        assert_eq!(scale.shorten(&mut silence, 240), 240);
        let mut onset = [noise(160, 10.0), vowel(160, 16_000, 110.0)].concat();
        assert_eq!(scale.shorten(&mut onset, 240), 0);
        onset.resize(640, 0);
        assert_eq!(scale.lengthen(&mut onset, 320), 0);
        // Two notes without a common period, and noise that gets louder.
        let pairs = vowel(320, 16_000, 211.0).into_iter().zip(noise(320, 6000.0));
        let mut mixture: Vec<i16> = pairs.map(|(a, b)| a / 2 + b / 2).collect();
        assert_eq!(scale.shorten(&mut mixture, 240), 0);
        let mut louder = noise(320, 4000.0);
        louder[..160].iter_mut().for_each(|sample| *sample /= 4);
        assert_eq!(scale.shorten(&mut louder, 240), 0);
    }

    proptest! {
        #[test]
        fn any_sound_and_any_wish_are_survived(
            mut pcm in proptest::collection::vec(any::<i16>(), 0..700),
            quiet in any::<bool>(),
            most in 0usize..900,
            len in 0usize..700,
            wide in any::<bool>()
        ) {
            let scale = TimeScale::new(if wide { 16_000 } else { 8000 });
            if quiet {
                pcm.iter_mut().for_each(|sample| *sample %= 100);
            }
            let len = len.min(pcm.len());
            let added = scale.lengthen(&mut pcm, len);
            prop_assert!(len + added <= pcm.len());
            let removed = scale.shorten(&mut pcm, most);
            prop_assert!(removed <= most.min(pcm.len()));
        }
    }
}
