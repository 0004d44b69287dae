//! Line noise between a caller's words is faded out, so that thirty telephones' noise does not add up in the room.
//!
//! Owns: when the gate is open, and the fades. Does not own: who speaks (`talking`).
//! Rule: closed only while nobody speaks *and* what comes is below −45 dBFS. Louder sound that is no speech, such as
//! music or a noisy street, is never cut: it may be what the caller wants to be heard.
//! It opens within a frame's first 5 ms and closes over 200 ms; closed, it gives exact silence, which costs the
//! mixer and the encoder next to nothing. An open gate changes no bit.

use super::vad::Verdict;

/// What is louder passes, voice or not.
const LINE_NOISE_BELOW_DBFS: f32 = -45.0;
/// After loud sound that is no speech the gate stays open for so long, as after speech.
const HOLD_US: u32 = 400_000;
/// Shorter than any consonant, long enough to make no click.
const OPENING_S: f32 = 0.005;
/// Noise that ends at once is noticed more than noise.
const CLOSING_S: f32 = 0.2;

/// The gate of one caller.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// 0 to 1; exactly 1 when open and 0 when closed.
    gain: f32,
    hold_us: u32,
}

impl Gate {
    /// Open, until it is known what the line sounds like.
    pub(super) const fn new() -> Self {
        Self { gain: 1.0, hold_us: HOLD_US }
    }

    /// Passes a piece of that rate on; `latest` is the verdict on the frame that ends with it or, if it ends none, on the
    /// one before.
    pub(super) fn process(&mut self, pcm: &mut [i16], rate_hz: u32, talking: bool, latest: Verdict) {
        if talking || latest.level_dbfs >= LINE_NOISE_BELOW_DBFS {
            self.hold_us = HOLD_US;
        } else {
            let piece_us = pcm.len() as u64 * 1_000_000 / u64::from(rate_hz);
            self.hold_us = self.hold_us.saturating_sub(piece_us as u32);
        }
        let is_open = self.hold_us > 0;
        if is_open && self.gain >= 1.0 {
            return;
        }
        if !is_open && self.gain <= 0.0 {
            pcm.fill(0);
            return;
        }
        let rate = rate_hz as f32;
        let step = if is_open { 1.0 / (OPENING_S * rate) } else { -1.0 / (CLOSING_S * rate) };
        for sample in pcm {
            self.gain = (self.gain + step).clamp(0.0, 1.0);
            // The square: a fade that sounds even.
            *sample = (f32::from(*sample) * self.gain * self.gain).round() as i16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: Verdict = Verdict { is_voice: false, level_dbfs: -50.0 };
    const MUSIC: Verdict = Verdict { is_voice: false, level_dbfs: -44.0 };
    const VOICE: Verdict = Verdict { is_voice: true, level_dbfs: -55.0 };

    fn pass(gate: &mut Gate, talking: bool, verdict: Verdict, frames: usize) -> [i16; 160] {
        let mut last = [0; 160];
        for _ in 0..frames {
            last = [1000; 160];
            gate.process(&mut last, 8000, talking, verdict);
        }
        last
    }

    #[test]
    fn line_noise_ends_in_exact_silence_by_a_fade_without_steps() {
        let mut gate = Gate::new();
        assert_eq!(pass(&mut gate, false, NOISE, 19), [1000; 160]);
        let mut last = 1000;
        for _ in 0..11 {
            for sample in pass(&mut gate, false, NOISE, 1) {
                assert!((0..=2).contains(&(last - sample)), "{last} {sample}");
                last = sample;
            }
        }
        assert_eq!(pass(&mut gate, false, NOISE, 1), [0; 160]);
    }

    #[test]
    fn a_soft_voice_opens_it_within_5_ms_and_an_open_gate_changes_nothing() {
        let mut gate = Gate::new();
        pass(&mut gate, false, NOISE, 60);
        let onset = pass(&mut gate, true, VOICE, 1);
        assert!(onset[0] < 10 && onset[39..] == [1000; 121], "{onset:?}");
        assert_eq!(pass(&mut gate, true, NOISE, 500), [1000; 160]);
    }

    #[test]
    fn what_is_loud_is_never_cut_though_it_is_no_speech() {
        let mut gate = Gate::new();
        assert_eq!(pass(&mut gate, false, MUSIC, 1000), [1000; 160]);
        pass(&mut gate, false, NOISE, 60);
        assert_eq!(pass(&mut gate, false, MUSIC, 1)[39..], [1000; 121]);
    }
}
