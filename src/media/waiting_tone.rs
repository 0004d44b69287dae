//! What a caller hears while its membership of the room is restored: two soft, short tones every three seconds.
//!
//! Owns: the sound. Does not own: who hears it when (`room`, told by signalling).
//!
//! No network uses this cadence for anything (ITU-T E.180: busy and congestion have one tone a half or a quarter second,
//! ringing one of a second or more), so nobody takes it for the end of the call.

use std::f32::consts::TAU;

use super::mixer::{BUS_FRAME_SAMPLES, BUS_RATE_HZ, BusFrame};

const FREQUENCY_HZ: u32 = 440;
/// −24 dBFS: below speech, above every line's noise.
const AMPLITUDE: f32 = 2067.0;
/// The tones begin here in each cycle, in ticks of 20 ms.
const TONES_AT_TICKS: [u32; 2] = [0, 12];
/// 160 ms each.
const TONE_TICKS: u32 = 8;
const CYCLE_TICKS: u32 = 150;

/// Where in its cycle the sign is.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingTone {
    tick: u32,
}

impl WaitingTone {
    /// The next 20 ms.
    pub(super) fn fill(&mut self, frame: &mut BusFrame) {
        let tick = self.tick;
        self.tick = (tick + 1) % CYCLE_TICKS;
        let tone = TONES_AT_TICKS.into_iter().find(|at| (*at..at + TONE_TICKS).contains(&tick));
        let Some(began_at) = tone else { return frame.fill(0) };
        let (first, length) = ((tick - began_at) * BUS_FRAME_SAMPLES as u32, TONE_TICKS * BUS_FRAME_SAMPLES as u32);
        for (sample, at) in frame.iter_mut().zip(first..) {
            // Raised at both ends over a tick, so that nothing clicks.
            let from_end = (at + 1).min(length - at) as f32 / BUS_FRAME_SAMPLES as f32;
            let phase = at * FREQUENCY_HZ % BUS_RATE_HZ;
            *sample = (AMPLITUDE * from_end.min(1.0) * (TAU * phase as f32 / BUS_RATE_HZ as f32).sin()) as i16;
        }
    }

    /// The next one begins with a tone.
    pub(super) const fn rewind(&mut self) {
        self.tick = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tones_sound_every_three_seconds_without_a_click() {
        let (mut tone, mut frame) = (WaitingTone::default(), [0; BUS_FRAME_SAMPLES]);
        let mut sound = Vec::new();
        for _ in 0..2 * CYCLE_TICKS {
            tone.fill(&mut frame);
            sound.extend(frame);
        }
        let loud = |tick: u32| sound[tick as usize * BUS_FRAME_SAMPLES..][..BUS_FRAME_SAMPLES].iter().any(|s| *s != 0);
        let ticks: Vec<u32> = (0..CYCLE_TICKS).filter(|tick| loud(*tick)).collect();
        assert_eq!(ticks, (0..8).chain(12..20).collect::<Vec<_>>());
        assert_eq!(sound[..sound.len() / 2], sound[sound.len() / 2..]);
        let peak = sound.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
        assert!((2000..=2067).contains(&peak), "{peak}");
        // A sine of 440 Hz at this level moves by 357 a sample at most.
        assert!(sound.windows(2).all(|pair| pair[0].abs_diff(pair[1]) <= 360));
    }
}
