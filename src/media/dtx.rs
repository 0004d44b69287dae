//! A caller's silence towards the room: next to nothing is encoded and sent (discontinuous transmission, RFC 7587 §3.1.3).
//!
//! Owns: which frames are encoded and sent. Does not own: speech or not (`talking`), encoder and timeline (`up`).
//!
//! Where nobody talks and the line's noise is low and steady, one frame in 400 ms is encoded and sent, and after it a packet
//! without content says that a pause begins: from these the listeners' decoders make noise of the same level and colour until
//! the next one. This is libopus's own DTX, with the difference that frames which are not sent are not encoded either.
//! Whatever stands out, speech or not, is encoded at once: nothing waits for a verdict.
//!
//! Decoders learn from frames without a voice flag only, and an encoder that gets one frame in twenty would need ten seconds
//! to see that noise is no voice: hence it starts anew once there is nothing but noise, and a pause begins when its packets
//! say so.

use super::opus::glance::Glance;
use super::simd::kernels;

// Samples are counted as if there were 8000 a second.

/// Noise so steady for so long is what a pause would be filled with.
const SETTLED_SAMPLES: u32 = 8 * 100;
/// Then listeners must hear so much of it without a voice flag to learn it. libopus's own figure.
const LEARNED_SAMPLES: u32 = 8 * 200;
/// A pause's noise is sent anew after so long. libopus's own figure.
const REFRESH_SAMPLES: u32 = 8 * 400;
/// Louder noise is always sent: mean square of −45 dBFS.
const LOUDEST_MEAN_SQUARE: u64 = 33_954;
/// Softer noise is an idle line whatever it does: mean square of −66 dBFS.
const IDLE_MEAN_SQUARE: u64 = 269;

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Encode and send it.
    Send,
    /// The same, with an encoder that knows nothing yet but this noise.
    Settle,
    /// Encode and send it; it is the first after a pause.
    Resume,
    /// Send a packet without content.
    Pause,
    /// Nothing.
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Everything is sent; the noise has been steady for so long, and without a voice flag for so long.
    Sending { steady_samples: u32, learned_samples: u32 },
    /// Since the last frame that was sent.
    Pausing { samples: u32 },
}

/// What stands out begins here.
const ANEW: State = State::Sending { steady_samples: 0, learned_samples: 0 };

/// See the module.
#[derive(Debug)]
pub(super) struct Dtx {
    state: State,
    /// Samples of the input for each that is counted.
    samples_each: u32,
    /// The mean square of the line's noise.
    noise: u64,
}

impl Dtx {
    /// For frames of 8 or 16 kHz.
    pub(super) const fn new(rate_hz: u32) -> Self {
        Self { state: ANEW, samples_each: rate_hz / 8000, noise: 0 }
    }

    /// Judges the next frame.
    pub(super) fn judge(&mut self, frame: &[i16], is_talking: bool) -> Turn {
        let samples = frame.len() as u32 / self.samples_each;
        let mean_square = (kernels().energy)(frame) / frame.len().max(1) as u64;
        let stands_out = is_talking || mean_square > LOUDEST_MEAN_SQUARE;
        // 3 dB to either side: noise does not vary by more from frame to frame, what dies away does.
        let is_steady = !stands_out
            && (mean_square <= IDLE_MEAN_SQUARE || (self.noise / 2..=2 * self.noise).contains(&mean_square));
        if !is_steady {
            let was_pausing = matches!(self.state, State::Pausing { .. });
            (self.state, self.noise) = (ANEW, if stands_out { 0 } else { mean_square });
            return if was_pausing { Turn::Resume } else { Turn::Send };
        }
        match &mut self.state {
            State::Sending { learned_samples, .. } if *learned_samples >= LEARNED_SAMPLES => {
                self.state = State::Pausing { samples };
                Turn::Pause
            }
            State::Sending { steady_samples, learned_samples } => {
                let before = *steady_samples;
                *steady_samples = before.saturating_add(samples);
                self.noise = (3 * self.noise + mean_square) / 4;
                if (before..*steady_samples).contains(&SETTLED_SAMPLES) {
                    *learned_samples = 0;
                    Turn::Settle
                } else {
                    Turn::Send
                }
            }
            State::Pausing { samples: since } => {
                *since += samples;
                if *since >= REFRESH_SAMPLES {
                    (*since, self.noise) = (0, mean_square);
                    Turn::Send
                } else if *since == samples {
                    Turn::Pause
                } else {
                    Turn::Leave
                }
            }
        }
    }

    /// A frame of `samples` was sent as this packet.
    pub(super) fn sent(&mut self, packet: &[u8], samples: usize) {
        let samples = samples as u32 / self.samples_each; // at most 120 ms
        let State::Sending { steady_samples, learned_samples } = &mut self.state else { return };
        let is_voiceless = matches!(Glance::at(packet), Glance::Voiceless { .. });
        if *steady_samples > SETTLED_SAMPLES {
            *learned_samples = if is_voiceless {
                learned_samples.saturating_add(samples)
            } else {
                // A single frame mistaken for voice undoes no more than one other.
                learned_samples.saturating_sub(samples)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 ms whose samples are all plus or minus `amplitude`.
    fn frame(amplitude: i16) -> [i16; 160] {
        std::array::from_fn(|at| if at * 7919 % 13 < 6 { amplitude } else { -amplitude })
    }

    /// A packet without a voice flag, and one with.
    const VOICELESS: [u8; 3] = [1 << 3, 0, 0];
    const VOICED: [u8; 3] = [1 << 3, 0x80, 0];

    /// Judges frames of this amplitude; what is sent looks like `packet`.
    fn judge(dtx: &mut Dtx, frames: usize, amplitude: i16, is_talking: bool, packet: &[u8]) -> Vec<Turn> {
        let turns = (0..frames).map(|_| {
            let turn = dtx.judge(&frame(amplitude), is_talking);
            match turn {
                Turn::Send | Turn::Settle | Turn::Resume => dtx.sent(packet, 160),
                Turn::Pause | Turn::Leave => {}
            }
            turn
        });
        turns.collect()
    }

    #[test]
    fn a_steady_line_pauses_after_300_ms_and_is_refreshed_every_400() {
        let mut dtx = Dtx::new(8000);
        let turns = judge(&mut dtx, 60, 40, false, &VOICELESS);
        let at = |wanted| turns.iter().positions(wanted);
        assert_eq!(at(Turn::Settle), [6]);
        assert_eq!(at(Turn::Pause), [16, 36, 56]);
        assert_eq!(turns[17..35], [Turn::Leave; 18]);
        assert_eq!((turns[35], turns[55]), (Turn::Send, Turn::Send));
    }

    trait Positions {
        fn positions(self, wanted: Turn) -> Vec<usize>;
    }

    impl<'a, I: Iterator<Item = &'a Turn>> Positions for I {
        fn positions(self, wanted: Turn) -> Vec<usize> {
            self.enumerate().filter(|(_, turn)| **turn == wanted).map(|(at, _)| at).collect()
        }
    }

    #[test]
    fn speech_loud_noise_and_noise_that_packets_call_voice_are_always_sent() {
        for (amplitude, is_talking, packet) in [(40, true, &VOICELESS), (300, false, &VOICELESS), (40, false, &VOICED)]
        {
            let turns = judge(&mut Dtx::new(8000), 200, amplitude, is_talking, packet);
            assert!(turns.iter().all(|turn| matches!(turn, Turn::Send | Turn::Settle)), "{amplitude} {is_talking}");
        }
    }

    #[test]
    fn whatever_gets_louder_or_softer_ends_a_pause_at_once() {
        for (amplitude, is_talking) in [(60, false), (5000, false), (25, false), (40, true)] {
            let mut dtx = Dtx::new(8000);
            judge(&mut dtx, 40, 40, false, &VOICELESS);
            assert_eq!(
                judge(&mut dtx, 2, amplitude, is_talking, &VOICELESS),
                [Turn::Resume, Turn::Send],
                "{amplitude}"
            );
        }
    }

    #[test]
    fn an_idle_line_pauses_although_its_last_bit_flickers() {
        let mut dtx = Dtx::new(8000);
        judge(&mut dtx, 20, 8, false, &VOICELESS);
        for amplitude in [0, 8, 1, 12, 0] {
            let turns = judge(&mut dtx, 1, amplitude, false, &VOICELESS);
            assert!(matches!(turns[0], Turn::Leave | Turn::Pause | Turn::Send), "{turns:?}");
        }
    }
}
