//! A caller's silence towards the room: next to nothing is encoded and sent (discontinuous transmission, RFC 7587 §3.1.3).
//!
//! Owns: which frames are encoded and sent. Does not own: speech or not (`talking`), encoder and timeline (`up`).
//!
//! Where nobody talks and the line's noise is low and steady, one frame in 400 ms is encoded and sent, and after it a packet
//! without content says that a pause begins: from these the listeners' decoders make noise of the same level and colour until
//! the next one. This is libopus's own DTX, with the difference that frames which are not sent are not encoded either.
//! Decoders learn from frames without a voice flag only, and an encoder that gets one frame in twenty would need ten seconds to
//! see that noise is no voice: hence it starts anew with the noise.
//! Whatever stands out, speech or not, is encoded at once: nothing waits for a verdict.

use super::simd::kernels;

/// Noise so steady for so long is what a pause would be filled with.
const SETTLED_SAMPLES: u32 = 8 * 100;
/// Then listeners must hear so much of it to learn it. libopus's own figure.
const LEARNED_SAMPLES: u32 = SETTLED_SAMPLES + 8 * 200;
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
    /// The same; it is the first after a pause.
    Resume,
    /// Send a packet without content.
    Pause,
    /// Nothing.
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Everything is sent; the noise has been steady for so long.
    Sending { steady_samples: u32 },
    /// Since this frame was sent.
    Pausing { samples: u32 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Dtx {
    state: State,
    /// The mean square of the line's noise.
    noise: u64,
}

impl Dtx {
    pub(super) const fn new() -> Self {
        Self { state: State::Sending { steady_samples: 0 }, noise: 0 }
    }

    /// Judges the next frame, at 8 kHz.
    pub(super) fn judge(&mut self, frame: &[i16], is_talking: bool) -> Turn {
        let samples = frame.len() as u32;
        let mean_square = (kernels().energy)(frame) / u64::from(samples.max(1));
        let stands_out = is_talking || mean_square > LOUDEST_MEAN_SQUARE;
        // 3 dB above what is known: noise does not vary by so much from frame to frame.
        let is_steady = !stands_out && mean_square <= (2 * self.noise).max(IDLE_MEAN_SQUARE);
        match &mut self.state {
            State::Sending { steady_samples } if is_steady => {
                let before = *steady_samples;
                *steady_samples += samples;
                if *steady_samples > LEARNED_SAMPLES {
                    self.state = State::Pausing { samples };
                    return Turn::Pause;
                }
                // A fading word is no noise yet: the level is followed.
                self.noise = (3 * self.noise + mean_square) / 4;
                if (before..*steady_samples).contains(&SETTLED_SAMPLES) { Turn::Settle } else { Turn::Send }
            }
            State::Sending { steady_samples } => {
                *steady_samples = 0;
                self.noise = if stands_out { 0 } else { mean_square };
                Turn::Send
            }
            State::Pausing { samples: since } if is_steady => {
                *since += samples;
                if *since >= REFRESH_SAMPLES {
                    *since = 0;
                    self.noise = mean_square;
                    Turn::Send
                } else if *since == samples {
                    Turn::Pause
                } else {
                    Turn::Leave
                }
            }
            State::Pausing { .. } => {
                self.state = State::Sending { steady_samples: 0 };
                self.noise = if stands_out { 0 } else { mean_square };
                Turn::Resume
            }
        }
    }
}
