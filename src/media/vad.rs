//! Voice activity of one telephone, frame by frame: does somebody speak, and how loudly.
//!
//! Owns: the level and the verdict. Does not own: Opus' own voice flag (`opus::packet`), what follows from the verdict
//! (`talking`, `caller`).
//! Method: a spectrum of 16 bands over their own noise floors and a measure of pitch ([`features`]) go into a small recurrent
//! network ([`network`]) that has learned speech in babble, cars, hum and hiss. It ends speech some 200 ms after its
//! last sound, as ITU-T P.56 does.

pub mod features;
pub mod network;
mod spectrum;
mod weights;

use super::simd::{Kernels, kernels};
use features::Features;
use network::Network;
pub use spectrum::FRAME_SAMPLES;

/// No level is reported below.
pub const SILENCE_DBFS: f32 = -96.0;

/// Nobody speaks so softly, and idle lines are below.
const QUIETEST_SPEECH_DBFS: f32 = -66.0;
/// The logarithm of the odds above which a frame is speech: a little more than even, so that in loud babble as many
/// frames are claimed as are missed.
const SPEECH_LOG_ODDS: f32 = 0.4;
/// After a second below that, nothing is looked at until there is more: an idle line costs next to nothing.
const IDLE_FRAMES: u8 = 50;

/// What one frame is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Someone speaks.
    pub is_voice: bool,
    /// The frame's power against a full-scale square wave: [`SILENCE_DBFS`] to 0.
    pub level_dbfs: f32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Vad {
    kernels: &'static Kernels,
    features: Features,
    network: Network,
    /// Frames in a row below [`QUIETEST_SPEECH_DBFS`].
    quiet_frames: u8,
}

impl Default for Vad {
    fn default() -> Self {
        Self::new()
    }
}

impl Vad {
    /// Before the first frame.
    pub fn new() -> Self {
        Self { kernels: kernels(), features: Features::new(), network: Network::new(), quiet_frames: 0 }
    }

    /// Judges the next 20 ms.
    pub fn process(&mut self, frame: &[i16; FRAME_SAMPLES]) -> Verdict {
        let level_dbfs = level_dbfs((self.kernels.energy)(frame), frame.len());
        let is_quiet = level_dbfs < QUIETEST_SPEECH_DBFS;
        self.quiet_frames = if is_quiet { self.quiet_frames.saturating_add(1) } else { 0 };
        if self.quiet_frames > IDLE_FRAMES {
            self.features.skip(frame);
            return Verdict { is_voice: false, level_dbfs };
        }
        let features = self.features.next(frame);
        Verdict { is_voice: self.network.next(&features) > SPEECH_LOG_ODDS, level_dbfs }
    }
}

/// The mean power of `samples` samples in dB of full scale.
pub fn level_dbfs(energy: u64, samples: usize) -> f32 {
    if energy == 0 || samples == 0 {
        return SILENCE_DBFS;
    }
    let power = energy as f32 / samples as f32 / (32_768.0 * 32_768.0);
    (10.0 * power.log10()).clamp(SILENCE_DBFS, 0.0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::random::Random;

    /// 20 ms of a voice: a melody around 130 Hz, three formants, syllables of 180 ms with pauses of 60 ms between them.
    pub(crate) fn vowel(frame: usize, amplitude: f64) -> [i16; FRAME_SAMPLES] {
        std::array::from_fn(|n| {
            let seconds = (frame * FRAME_SAMPLES + n) as f64 / 8000.0;
            let in_syllable = seconds % 0.24;
            let loudness = (in_syllable / 0.03).min((0.18 - in_syllable) / 0.05).clamp(0.0, 1.0);
            let turns = 130.0 * seconds + 6.0 * (seconds * 3.0).sin();
            let glide = 1.0 + 0.3 * (seconds * 11.0).sin();
            let strength = |hz: f64| {
                let near = |formant: f64, width: f64| 1.0 / (1.0 + ((hz - formant) / width).powi(2));
                near(550.0 * glide, 90.0) + 0.6 * near(1500.0 / glide, 120.0) + 0.3 * near(2500.0, 160.0)
            };
            let sum: f64 = (1..26)
                .map(|harmonic| {
                    let harmonic = f64::from(harmonic);
                    strength(130.0 * harmonic) * (std::f64::consts::TAU * turns * harmonic).sin()
                })
                .sum();
            (amplitude * loudness * sum) as i16
        })
    }

    fn noise(random: &mut Random, amplitude: i32) -> [i16; FRAME_SAMPLES] {
        std::array::from_fn(|_| (random.below(2 * amplitude.cast_unsigned() + 1).cast_signed() - amplitude) as i16)
    }

    #[test]
    fn a_voice_is_found_within_three_frames_in_quiet_and_in_noise() {
        let mut random = Random::for_test(1);
        for amplitude in [0, 30, 300] {
            let mut vad = Vad::new();
            let before = (0..150).filter(|_| vad.process(&noise(&mut random, amplitude)).is_voice).count();
            let verdicts: Vec<bool> = (0..250)
                .map(|frame| {
                    let noise = noise(&mut random, amplitude);
                    let voice = vowel(frame, 3000.0);
                    vad.process(&std::array::from_fn(|n| voice[n].saturating_add(noise[n]))).is_voice
                })
                .collect();
            let (first, voiced) = (verdicts.iter().position(|voice| *voice), verdicts.iter().filter(|v| **v).count());
            assert!(before == 0 && first < Some(3) && voiced >= 245, "noise {amplitude}: {before} {first:?} {voiced}");
        }
    }

    #[test]
    fn steady_noise_is_no_speech_at_any_level_for_a_minute() {
        let mut random = Random::for_test(2);
        for amplitude in [0, 5, 50, 500, 3000] {
            let mut vad = Vad::new();
            let voiced = (0..3000).filter(|_| vad.process(&noise(&mut random, amplitude)).is_voice).count();
            assert_eq!(voiced, 0, "amplitude {amplitude}");
        }
    }

    #[test]
    fn clicks_tones_and_hum_are_no_speech() {
        let tone =
            |hz: f64, amplitude: f64, n: usize| amplitude * (n as f64 * hz * std::f64::consts::TAU / 8000.0).sin();
        let mut random = Random::for_test(3);
        let mut voiced = [0; 3];
        let mut vads = [Vad::new(), Vad::new(), Vad::new()];
        for frame in 0..1000 {
            let at = |n: usize| frame * FRAME_SAMPLES + n;
            let mut click = noise(&mut random, 10);
            if frame % 37 == 5 {
                click[80] = 20_000;
            }
            let dial: [i16; FRAME_SAMPLES] = std::array::from_fn(|n| tone(425.0, 4000.0, at(n)) as i16);
            let hum: [i16; FRAME_SAMPLES] = std::array::from_fn(|n| {
                (1..12).map(|h| tone(50.0 * f64::from(h), 400.0 / f64::from(h), at(n))).sum::<f64>() as i16
            });
            for ((vad, frame), voiced) in vads.iter_mut().zip([click, dial, hum]).zip(&mut voiced) {
                *voiced += usize::from(vad.process(&frame).is_voice);
            }
        }
        // The dial tone's beginning may be anything.
        assert!(voiced[0] == 0 && voiced[1] < 15 && voiced[2] < 15, "{voiced:?}");
    }

    #[test]
    fn an_idle_line_is_not_looked_at_and_the_next_word_is_found_all_the_same() {
        let mut vad = Vad::new();
        let mut random = Random::for_test(4);
        for _ in 0..2000 {
            assert!(!vad.process(&noise(&mut random, 8)).is_voice);
        }
        let found = (0..50).position(|frame| vad.process(&vowel(frame, 1000.0)).is_voice);
        assert!(found < Some(3), "{found:?}");
    }

    #[test]
    fn levels_are_those_of_full_scale() {
        let mut vad = Vad::new();
        assert_eq!(vad.process(&[i16::MIN; FRAME_SAMPLES]).level_dbfs, 0.0);
        assert!((vad.process(&[3277; FRAME_SAMPLES]).level_dbfs + 20.0).abs() < 0.01);
        assert_eq!(vad.process(&[0; FRAME_SAMPLES]).level_dbfs, SILENCE_DBFS);
        assert_eq!(level_dbfs(0, 0), SILENCE_DBFS);
    }
}
