//! Telephone calls in noise of which it is known when somebody speaks: what voice activity detection is judged by.
//!
//! Owns: a call (one talker, pauses, a noise at a ratio to the voice) and its truth, which the clean voice gives by
//! ITU-T P.56; precision and recall. Does not own: codecs, detectors.
//!
//! The truth is P.56's activity with its hangover of 200 ms, since what a detector drives (talk indication, suppression of
//! line noise) is about utterances rather than phonemes; the exact activity without hangover is kept beside it.
//! A ratio is P.56's active level against the root mean square of the noise, both behind the telephone's band filter.

mod active;
mod corpus;
mod noise;

pub use active::Active;
pub use corpus::{Part, Talker, espeak_talkers, recorded_talkers};
pub use noise::Kind;

use std::f64::consts::TAU;

use crate::voice::Noise;

/// What telephones send.
pub const RATE_HZ: u32 = 8000;
/// 20 ms.
pub const FRAME_SAMPLES: usize = 160;
/// A microphone and its room in peace: what stands behind a 'clean' voice too.
const FLOOR_DBFS: f64 = -70.0;
/// A telephone's microphone lets little through below.
const BAND_FROM_HZ: f64 = 200.0;
/// Pauses between utterances in seconds.
const PAUSE_S: (f64, f64) = (0.4, 3.0);

/// One call as the telephone would send it, before G.711.
#[derive(Clone, Debug)]
pub struct Call {
    /// The samples.
    pub pcm: Vec<i16>,
    /// Frame by frame: speech, P.56's hangover included.
    pub truth: Vec<bool>,
    /// Frame by frame: speech at this moment.
    pub exact: Vec<bool>,
}

/// What a call is made of.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// What is heard behind the voice, and how far below it in dB; `None` is a quiet room.
    pub noise: Option<(Kind, f64)>,
    /// The voice's active level.
    pub level_dbfs: f64,
    /// About how long.
    pub seconds: f64,
    /// Everything random.
    pub seed: u64,
}

impl Call {
    /// The talker at `index` speaks, some of the others babble if that is the noise.
    pub fn new(talkers: &[Talker], index: usize, scene: &Scene) -> Self {
        let mut random = Noise::new(scene.seed);
        let voice = speak(&talkers[index].utterances, scene.seconds, &mut random);
        let voice = telephone_band(&voice);
        let active = Active::of(&voice, RATE_HZ);
        let gain = active::amplitude(scene.level_dbfs - active.level_db);
        let mut samples: Vec<f64> = voice.iter().map(|sample| sample * gain).collect();
        if let Some((kind, ratio_db)) = scene.noise {
            let others: Vec<&[f64]> = talkers
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
                .flat_map(|(_, talker)| talker.utterances.iter().map(Vec::as_slice))
                .collect();
            let noise = kind.make(samples.len(), &others, &mut random);
            let noise = if kind.is_acoustic() { telephone_band(&noise) } else { noise };
            let scale = active::amplitude(scene.level_dbfs - ratio_db) / root_mean_square(&noise).max(1e-12);
            samples.iter_mut().zip(noise).for_each(|(sample, noise)| *sample += scale * noise);
        }
        let floor = active::amplitude(FLOOR_DBFS);
        let pcm = samples.iter().map(|sample| ((sample + floor * random.gauss()) * 32_768.0).round() as i16).collect();
        Self { pcm, truth: by_frame(&active.with_hangover), exact: by_frame(&active.exact) }
    }

    /// Its frames.
    pub fn frames(&self) -> &[[i16; FRAME_SAMPLES]] {
        self.pcm.as_chunks().0
    }
}

/// Verdicts counted against the truth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    /// Speech found.
    pub found: usize,
    /// Speech missed.
    pub missed: usize,
    /// Speech claimed where there was none.
    pub claimed: usize,
    /// Frames without speech that were taken for that.
    pub rejected: usize,
}

impl Score {
    /// Counts one frame.
    pub fn count(&mut self, truth: bool, verdict: bool) {
        let counter = match (truth, verdict) {
            (true, true) => &mut self.found,
            (true, false) => &mut self.missed,
            (false, true) => &mut self.claimed,
            (false, false) => &mut self.rejected,
        };
        *counter += 1;
    }

    /// Of the frames that were called speech, those that are.
    pub fn precision(&self) -> f64 {
        self.found as f64 / (self.found + self.claimed).max(1) as f64
    }

    /// Of the frames that are speech, those that were called so.
    pub fn recall(&self) -> f64 {
        self.found as f64 / (self.found + self.missed).max(1) as f64
    }
}

/// Utterances in turn from a random one on, with pauses before, between and after them.
fn speak(utterances: &[Vec<f64>], seconds: f64, random: &mut Noise) -> Vec<f64> {
    let pause = |random: &mut Noise| vec![0.0; (random.between(PAUSE_S.0, PAUSE_S.1) * f64::from(RATE_HZ)) as usize];
    let first = (random.unit() * utterances.len() as f64) as usize;
    // The first word may be the call's first sound.
    let mut samples = pause(random);
    samples.truncate(samples.len().saturating_sub((PAUSE_S.0 * f64::from(RATE_HZ)) as usize));
    for turn in 0.. {
        if samples.len() as f64 >= seconds * f64::from(RATE_HZ) || utterances.is_empty() {
            break;
        }
        samples.extend(&utterances[(first + turn) % utterances.len()]);
        samples.extend(pause(random));
    }
    samples
}

/// A Butterworth high-pass of second order, twice.
fn telephone_band(samples: &[f64]) -> Vec<f64> {
    let angle = TAU * BAND_FROM_HZ / f64::from(RATE_HZ);
    let (alpha, cos) = (angle.sin() / 2f64.sqrt(), angle.cos());
    let (gain, a1, a2) = ((1.0 + cos) / 2.0 / (1.0 + alpha), -2.0 * cos / (1.0 + alpha), (1.0 - alpha) / (1.0 + alpha));
    let once = |samples: &[f64]| -> Vec<f64> {
        let (mut x, mut y) = ([0.0; 2], [0.0; 2]);
        let filter = |&input: &f64| {
            let output = gain * (input - 2.0 * x[0] + x[1]) - a1 * y[0] - a2 * y[1];
            (x, y) = ([input, x[0]], [output, y[0]]);
            output
        };
        samples.iter().map(filter).collect()
    };
    once(&once(samples))
}

fn root_mean_square(samples: &[f64]) -> f64 {
    (samples.iter().map(|sample| sample * sample).sum::<f64>() / samples.len().max(1) as f64).sqrt()
}

/// A frame is active if more than half of its samples are.
fn by_frame(active: &[bool]) -> Vec<bool> {
    let count = |frame: &[bool]| frame.iter().filter(|active| **active).count();
    active.chunks_exact(FRAME_SAMPLES).map(|frame| 2 * count(frame) > FRAME_SAMPLES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcm::level_dbfs;

    fn talkers() -> Vec<Talker> {
        let talker = |seed| Talker {
            name: "built in".into(),
            utterances: vec![crate::voice::sentence(RATE_HZ, seed), crate::voice::sentence(RATE_HZ, seed + 50)],
        };
        (1..5).map(talker).collect()
    }

    #[test]
    fn the_noise_lies_as_far_below_the_voice_as_it_was_asked_for() {
        let talkers = talkers();
        for kind in [Kind::Babble, Kind::Car, Kind::Hum] {
            let scene = Scene { noise: Some((kind, 10.0)), level_dbfs: -26.0, seconds: 12.0, seed: 3 };
            let (noisy, clean) =
                (Call::new(&talkers, 0, &scene), Call::new(&talkers, 0, &Scene { noise: None, ..scene }));
            assert_eq!(noisy.truth, clean.truth);
            let rest: Vec<i16> = noisy.pcm.iter().zip(&clean.pcm).map(|(noisy, clean)| noisy - clean).collect();
            assert!((level_dbfs(&rest) + 36.0).abs() < 0.5, "{kind}: {}", level_dbfs(&rest));
            let speech = clean.truth.iter().filter(|truth| **truth).count();
            assert!(speech * 10 > clean.truth.len() * 3 && speech * 10 < clean.truth.len() * 9);
        }
    }

    #[test]
    fn precision_and_recall_are_what_their_names_say() {
        let mut score = Score::default();
        for (truth, verdict) in [(true, true), (true, true), (true, true), (true, false), (false, true), (false, false)]
        {
            score.count(truth, verdict);
        }
        assert_eq!((score.precision(), score.recall()), (0.75, 0.75));
    }
}
