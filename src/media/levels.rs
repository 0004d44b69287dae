//! How loud a telephone's talk is, and the noise of its pauses, against 0 dBm0 (RFC 3611 §4.7.4).
//!
//! Owns: the two means, which forget. Does not own: what is talk (`vad`, `talking`).

use super::vad::Verdict;

/// Pieces until a mean is told: half a second of 20 ms.
const KNOWN_PIECES: u32 = 25;
/// Each piece weighs so much in the end: the mean is that of the last five seconds or so.
const WEIGHT_OF_ONE_IN: u32 = 250;
/// A sine at full scale has 3.17 dBm0 in µ-law and 3.14 in A-law (ITU-T G.711 §4), and -3.01 dB against a square wave.
const DBM0_OF_FULL_SCALE: f64 = 6.2;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Levels {
    talk: Mean,
    noise: Mean,
}

#[derive(Clone, Debug, Default)]
struct Mean {
    power: f64,
    pieces: u32,
}

impl Levels {
    /// A piece of sound; between two words of a caller who `is_talking` it is neither.
    pub(super) fn hear(&mut self, verdict: Verdict, is_talking: bool) {
        if verdict.is_voice {
            self.talk.add(verdict.level_dbfs);
        } else if !is_talking {
            self.noise.add(verdict.level_dbfs);
        }
    }

    /// Of the talk; `None` as long as there was too little.
    pub(super) fn talk_dbm0(&self) -> Option<i8> {
        self.talk.dbm0()
    }

    /// Of the pauses, likewise.
    pub(super) fn noise_dbm0(&self) -> Option<i8> {
        self.noise.dbm0()
    }
}

impl Mean {
    fn add(&mut self, level_dbfs: f32) {
        self.pieces = (self.pieces + 1).min(WEIGHT_OF_ONE_IN);
        let power = 10f64.powf(f64::from(level_dbfs) / 10.0);
        self.power += (power - self.power) / f64::from(self.pieces);
    }

    fn dbm0(&self) -> Option<i8> {
        let level_dbfs = 10.0 * self.power.max(1e-12).log10();
        (self.pieces >= KNOWN_PIECES).then(|| (level_dbfs + DBM0_OF_FULL_SCALE).round() as i8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn talk_and_noise_are_told_apart_once_there_was_enough_and_the_old_is_forgotten() {
        let mut levels = Levels::default();
        let talk = |level_dbfs| Verdict { is_voice: true, level_dbfs };
        let pause = |level_dbfs| Verdict { is_voice: false, level_dbfs };
        for _ in 0..24 {
            levels.hear(talk(-26.2), true);
        }
        assert_eq!((levels.talk_dbm0(), levels.noise_dbm0()), (None, None));
        levels.hear(talk(-26.2), true);
        (0..100).for_each(|_| levels.hear(pause(-40.0), true));
        (0..25).for_each(|_| levels.hear(pause(-76.2), false));
        assert_eq!((levels.talk_dbm0(), levels.noise_dbm0()), (Some(-20), Some(-70)));
        (0..2000).for_each(|_| levels.hear(talk(-36.2), true));
        assert_eq!(levels.talk_dbm0(), Some(-30));
    }
}
