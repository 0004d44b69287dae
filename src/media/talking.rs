//! Whether a caller speaks, and how loudly: voice activity of 20 ms frames, with a hangover for people's eyes.
//!
//! Owns: the cut of a telephone's pieces into the detector's frames, what is talk rather than a single frame, the level of
//! a stretch of talk. Does not own: the verdict on a frame (`vad`), what the verdict does to the sound (`gate`, `agc`).

use super::up::FRAME_SAMPLES;
use super::vad::{SILENCE_DBFS, Vad, Verdict};

/// Frames without voice until a caller counts as silent: 400 ms, longer than the pauses within a sentence.
const HANGOVER_FRAMES: u8 = 20;

/// Frames with voice until its level is told anew: a second, as meters for people need it.
const METER_FRAMES: u32 = 50;

/// A caller began or ceased to speak, or has spoken for another second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    /// Speaks now.
    pub(super) talking: bool,
    /// The mean level of the frames with voice since the last change.
    pub(super) level_dbfs: f32,
}

/// One caller's state.
#[derive(Debug)]
pub(super) struct Talking {
    vad: Vad,
    gathered: [i16; FRAME_SAMPLES],
    gathered_samples: usize,
    latest: Verdict,
    silent_frames: u8,
    talking: bool,
    /// Sum over the frames with voice since the last change.
    power: f64,
    frames: u32,
    /// Of the last change: what is told if there was no voice since.
    level_dbfs: f32,
}

impl Talking {
    pub(super) fn new() -> Self {
        Self {
            vad: Vad::new(),
            gathered: [0; FRAME_SAMPLES],
            gathered_samples: 0,
            latest: Verdict { is_voice: false, level_dbfs: SILENCE_DBFS },
            silent_frames: 0,
            talking: false,
            power: 0.0,
            frames: 0,
            level_dbfs: SILENCE_DBFS,
        }
    }

    /// Listens to a piece of any length; tells if the state has changed by it.
    pub(super) fn hear(&mut self, pcm: &[i16]) -> Option<Change> {
        let before = self.talking;
        let mut rest = pcm;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(FRAME_SAMPLES - self.gathered_samples));
            self.gathered[self.gathered_samples..][..piece.len()].copy_from_slice(piece);
            self.gathered_samples += piece.len();
            rest = later;
            if self.gathered_samples == FRAME_SAMPLES {
                self.gathered_samples = 0;
                self.judge_frame();
            }
        }
        (self.talking != before || self.frames >= METER_FRAMES).then(|| self.change())
    }

    /// Speaks, or did so within the last 400 ms.
    pub(super) const fn is_talking(&self) -> bool {
        self.talking
    }

    /// What the latest whole frame was.
    pub(super) const fn latest(&self) -> Verdict {
        self.latest
    }

    fn change(&mut self) -> Change {
        if self.frames > 0 {
            self.level_dbfs = (10.0 * (self.power / f64::from(self.frames)).max(1e-10).log10()) as f32;
        }
        (self.power, self.frames) = (0.0, 0);
        Change { talking: self.talking, level_dbfs: self.level_dbfs }
    }

    fn judge_frame(&mut self) {
        self.latest = self.vad.process(&self.gathered);
        if self.latest.is_voice {
            self.power += 10f64.powf(f64::from(self.latest.level_dbfs) / 10.0);
            self.frames += 1;
            self.silent_frames = 0;
            self.talking = true;
        } else {
            self.silent_frames = self.silent_frames.saturating_add(1);
            self.talking &= self.silent_frames < HANGOVER_FRAMES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::vad::tests::vowel;

    #[test]
    fn a_stretch_of_talk_is_told_at_its_start_each_second_and_after_its_end() {
        let mut talking = Talking::new();
        let mut told = Vec::new();
        for frame in 0..400 {
            let pcm = if (100..230).contains(&frame) { vowel(frame, 3000.0) } else { [0; FRAME_SAMPLES] };
            // Pieces that are no frames.
            for piece in pcm.chunks(57) {
                told.extend(talking.hear(piece).map(|change| (frame, change)));
            }
        }
        let [(began, start), (second, one), (third, two), (ended, end)] = told[..] else { panic!("{told:?}") };
        assert!((100..104).contains(&began) && (second, third) == (began + 50, began + 100), "{told:?}");
        assert!((240..270).contains(&ended), "{told:?}");
        assert!(start.talking && one.talking && two.talking && !end.talking);
        let second: Vec<i16> = (began + 1..=began + 50).flat_map(|frame| vowel(frame, 3000.0)).collect();
        let energy = second.iter().map(|&sample| u64::from(sample.unsigned_abs()).pow(2)).sum();
        let level = crate::media::vad::level_dbfs(energy, second.len());
        assert!((one.level_dbfs - level).abs() < 0.1, "{told:?}, not {level}");
    }
}
