//! Whether a caller speaks: voice activity of 20 ms frames with a hangover, so that it does not flicker between words.

use super::up::FRAME_SAMPLES;
use super::vad::Vad;

/// Frames without voice until a caller counts as silent: 400 ms, longer than the pauses within a sentence.
const HANGOVER_FRAMES: u8 = 20;

/// One caller's state.
#[derive(Debug)]
pub(super) struct Talking {
    vad: Vad,
    gathered: [i16; FRAME_SAMPLES],
    gathered_samples: usize,
    silent_frames: u8,
    talking: bool,
}

impl Talking {
    pub(super) fn new() -> Self {
        Self {
            vad: Vad::new(8000),
            gathered: [0; FRAME_SAMPLES],
            gathered_samples: 0,
            silent_frames: 0,
            talking: false,
        }
    }

    /// Listens to a piece of any length; tells if the state has changed by it.
    pub(super) fn hear(&mut self, pcm: &[i16]) -> Option<bool> {
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
        (self.talking != before).then_some(self.talking)
    }

    /// Does the caller speak, or has it just ceased to?
    pub(super) const fn is_talking(&self) -> bool {
        self.talking
    }

    fn judge_frame(&mut self) {
        if self.vad.process(&self.gathered).is_voice {
            self.silent_frames = 0;
            self.talking = true;
        } else {
            self.silent_frames = self.silent_frames.saturating_add(1);
            self.talking &= self.silent_frames < HANGOVER_FRAMES;
        }
    }
}
