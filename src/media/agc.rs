//! Quiet telephones come up slowly, and very loud ones down: a bounded gain for each caller.
//!
//! Owns: the caller's speech level and the gain that follows from it. Does not own: what is speech (`vad`), its switch
//! (`-no-agc`), the limiter of the sum (`mixer`).
//! Sources: ITU-T P.56 (active speech level) and G.169 (automatic level control: bounded gain, slow, never on noise).
//! Telephone speech is nominally at −26 dBFS (ITU-T P.830); between −30 and −20 nothing is changed, bit for bit.
//!
//! The gain moves only while the caller speaks. It is lowered at once where a peak would clip, before that peak, and comes
//! back at its usual pace: no pumping.

use super::vad::Verdict;

/// Speech within these active levels is left alone.
const QUIET_DBFS: f32 = -30.0;
const LOUD_DBFS: f32 = -20.0;
/// The bounds of the gain: four times up makes line noise audible enough, half down is what a shouting caller needs.
const HIGHEST_GAIN_DB: f32 = 12.0;
const LOWEST_GAIN_DB: f32 = -6.0;
/// Noise between the words shall not come above this by the gain.
const LOUDEST_NOISE_DBFS: f32 = -45.0;
/// The gain's pace in dB for each second of speech: too slow to be heard as a change.
const DB_A_SECOND: f32 = 3.0;
/// The level is the mean over the latest three seconds of speech, and none before the first half second of it.
const LEVEL_S: f32 = 3.0;
const FIRST_LEVEL_S: f32 = 0.5;
/// The mean over which noise is measured.
const NOISE_S: f32 = 1.0;
/// The loudest sample that the gain may make, as in `mixer`.
const CEILING: f32 = 32_000.0;
/// A gain that must fall at once does so within 2 ms: one of so many parts of a second.
const FALL_PARTS: usize = 500;

/// The gain of one caller.
#[derive(Clone, Debug)]
pub(super) struct Agc {
    /// Mean power of speech and how many seconds of it are known.
    speech_power: f32,
    speech_s: f32,
    /// Mean power of what is not speech.
    noise_power: f32,
    gain_db: f32,
    /// The factor that the latest sample had; exactly 1 at 0 dB.
    factor: f32,
}

impl Agc {
    /// At rest.
    pub(super) const fn new() -> Self {
        Self { speech_power: 0.0, speech_s: 0.0, noise_power: 0.0, gain_db: 0.0, factor: 1.0 }
    }

    /// At present.
    pub(super) const fn gain_db(&self) -> f32 {
        self.gain_db
    }

    /// Applies the gain to a piece of that rate; `latest` is the verdict on the frame that ends with it or, if it ends
    /// none, on the one before.
    pub(super) fn process(&mut self, pcm: &mut [i16], rate_hz: u32, latest: Verdict) {
        let seconds = pcm.len() as f32 / rate_hz as f32;
        let power = 10f32.powf(latest.level_dbfs / 10.0);
        if latest.is_voice {
            self.speech_s = (self.speech_s + seconds).min(LEVEL_S);
            self.speech_power += (power - self.speech_power) * (seconds / self.speech_s.max(seconds));
            self.follow(seconds);
        } else {
            self.noise_power += (power - self.noise_power) * (seconds / NOISE_S).min(1.0);
        }
        self.apply(pcm, rate_hz as usize / FALL_PARTS);
    }

    /// Towards the gain that the level asks for.
    fn follow(&mut self, seconds: f32) {
        if self.speech_s < FIRST_LEVEL_S {
            return;
        }
        let speech_dbfs = dbfs(self.speech_power);
        let highest = (LOUDEST_NOISE_DBFS - dbfs(self.noise_power)).clamp(0.0, HIGHEST_GAIN_DB);
        let wanted = if speech_dbfs < QUIET_DBFS {
            (QUIET_DBFS - speech_dbfs).min(highest)
        } else if speech_dbfs > LOUD_DBFS {
            (LOUD_DBFS - speech_dbfs).max(LOWEST_GAIN_DB)
        } else {
            0.0
        };
        let pace = DB_A_SECOND * seconds;
        self.gain_db += (wanted - self.gain_db).clamp(-pace, pace);
    }

    fn apply(&mut self, pcm: &mut [i16], fall_samples: usize) {
        let mut factor = if self.gain_db == 0.0 { 1.0 } else { 10f32.powf(self.gain_db / 20.0) };
        if factor == 1.0 && self.factor == 1.0 {
            return;
        }
        let highest = |samples: &[i16]| {
            let peak = samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
            (CEILING / f32::from(peak.max(1))).max(1.0)
        };
        let mut over = pcm.len();
        let allowed = highest(pcm);
        if factor > allowed {
            // Down at once; a peak in the first samples could not be foreseen, so there it is a step.
            factor = allowed;
            self.gain_db = 20.0 * allowed.log10();
            over = over.min(fall_samples);
            self.factor = self.factor.min(highest(&pcm[..over]));
        }
        let step = (factor - self.factor) / over.max(1) as f32;
        for (position, sample) in pcm.iter_mut().enumerate() {
            let factor = if position < over { self.factor + step * (position + 1) as f32 } else { factor };
            // The conversion saturates.
            *sample = (f32::from(*sample) * factor).round() as i16;
        }
        self.factor = factor;
    }
}

fn dbfs(power: f32) -> f32 {
    10.0 * power.max(1e-10).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::vad::{level_dbfs, tests::vowel};

    const FRAMES_A_SECOND: usize = 50;

    fn level(pcm: &[i16]) -> f32 {
        level_dbfs(pcm.iter().map(|&sample| i64::from(sample).pow(2) as u64).sum(), pcm.len())
    }

    /// Passes a frame of that verdict and returns what became of it.
    fn pass(agc: &mut Agc, frame: &[i16; 160], is_voice: bool) -> [i16; 160] {
        let mut pcm = *frame;
        agc.process(&mut pcm, 8000, Verdict { is_voice, level_dbfs: level(frame) });
        pcm
    }

    /// A second of speech by this amplitude.
    fn talk(agc: &mut Agc, amplitude: f64) -> Vec<i16> {
        (0..FRAMES_A_SECOND).flat_map(|frame| pass(agc, &vowel(frame, amplitude), true)).collect()
    }

    #[test]
    fn a_talker_at_minus_45_dbfs_comes_up_by_12_db_within_six_seconds_and_no_faster_than_3_db_a_second() {
        let mut agc = Agc::new();
        let mut levels = Vec::new();
        for _ in 0..12 {
            levels.push(level(&talk(&mut agc, 247.0)));
        }
        assert!((levels[0] + 45.0).abs() < 1.5, "{levels:?}");
        assert!(levels.windows(2).all(|pair| (-0.1..3.2).contains(&(pair[1] - pair[0]))), "{levels:?}");
        assert!((levels[6] + 33.0).abs() < 1.5 && (levels[11] - levels[6]).abs() < 0.3, "{levels:?}");
    }

    #[test]
    fn a_usual_talker_passes_bit_by_bit_for_a_minute() {
        let mut agc = Agc::new();
        for _ in 0..60 {
            let expected: Vec<i16> = (0..FRAMES_A_SECOND).flat_map(|frame| vowel(frame, 2300.0)).collect();
            assert!((level(&expected) + 26.0).abs() < 1.5, "{}", level(&expected));
            assert_eq!(talk(&mut agc, 2300.0), expected);
        }
    }

    #[test]
    fn a_very_loud_talker_goes_down_by_6_db_at_most() {
        let mut agc = Agc::new();
        let levels: Vec<f32> = (0..10).map(|_| level(&talk(&mut agc, 18_000.0))).collect();
        assert!((levels[9] - levels[0] + 6.0).abs() < 0.8, "{levels:?}");
    }

    #[test]
    fn noise_alone_is_never_amplified_and_a_noisy_line_less_than_a_clean_one() {
        let mut agc = Agc::new();
        let noise: [i16; 160] = std::array::from_fn(|n| ((n * 7919) % 401) as i16 - 200);
        for _ in 0..60 * FRAMES_A_SECOND {
            assert_eq!(pass(&mut agc, &noise, false), noise);
        }
        let noise_dbfs = level(&noise);
        (0..20).for_each(|_| drop(talk(&mut agc, 247.0)));
        assert!((noise_dbfs + agc.gain_db() - LOUDEST_NOISE_DBFS).abs() < 0.1 || agc.gain_db() == 0.0);
        let after = pass(&mut agc, &noise, false);
        assert!(level(&after) <= LOUDEST_NOISE_DBFS.max(noise_dbfs) + 0.1, "{}", level(&after));
    }

    #[test]
    fn a_shout_after_quiet_speech_does_not_clip_and_the_gain_comes_back_slowly() {
        let mut agc = Agc::new();
        (0..10).for_each(|_| drop(talk(&mut agc, 247.0)));
        assert!(agc.gain_db() > 11.0);
        // The first sample is the loudest already.
        let shout: [i16; 160] = std::array::from_fn(|n| ((n as f32 * 0.8).cos() * 30_000.0) as i16);
        let mut last = 0.0;
        for turn in 0..20 {
            let loud = pass(&mut agc, &shout, true);
            assert!(loud.iter().all(|sample| f32::from(sample.unsigned_abs()) <= CEILING + 1.0), "{turn}");
            let factor = level(&loud) - level(&shout);
            assert!(factor < 0.7 && (turn == 0 || (factor - last).abs() < 0.3), "{turn}: {factor} after {last} dB");
            last = factor;
        }
        let before = agc.gain_db();
        drop(talk(&mut agc, 247.0));
        assert!(agc.gain_db() - before <= DB_A_SECOND + 0.01);
    }
}
