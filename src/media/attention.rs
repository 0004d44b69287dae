//! Whether a room voice's next Opus packet is worth decoding: work follows voices.
//!
//! Owns: the rule. Does not own: what a packet says of itself (`opus::glance`), what is heard instead (`comfort_noise`).
//!
//! A packet is left undecoded while *all* of this holds:
//! - SILK has found no voice for 200 ms. The flag alone means "no speech", not "nothing to hear": it is clear for music,
//!   applause and loud noise too.
//! - What was last decoded lay below −50 dBFS.
//! - The packet's own gains are hardly larger than they were then: no sound sets in with it.
//! - It is not the tenth in a row: that one is decoded as a probe, for what swells so slowly that its gains tell nothing.
//!
//! CELT has neither flag nor gains; its packets are left undecoded only where they say that they hold digital silence (a
//! muted microphone) and the decoder has fallen silent too. Then leaving them out changes no bit of what follows.

use super::opus::glance::Glance;

/// How long the voice flag must have been clear, in samples of 48 kHz.
const VOICELESS_TICKS: u32 = 48_000 / 5;

/// Mean square of −50 dBFS: (32768 · 10^(−50/20))².
const QUIET_MEAN_SQUARE: u64 = 10_737;

/// One packet in so many is decoded all the same.
const PROBE_EVERY: u8 = 10;

/// So many steps of 1.37 dB more are a sound that sets in: steady noise varies by less.
const LOUDER_STEPS: u8 = 3;

/// The frames of digital silence that a CELT decoder needs to come to rest: its windows overlap by one frame.
const SILENT_FRAMES: u8 = 3;

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It may be heard.
    Decode,
    /// Nothing but what was there before.
    Skip,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Attention {
    voiceless_ticks: u32,
    /// What was last decoded lay below −50 dBFS.
    was_quiet: bool,
    /// The gain of what was decoded while it was quiet.
    quiet_gain: u8,
    /// The gain of the packet under consideration.
    gain: u8,
    skipped: u8,
    silent_frames: u8,
}

impl Attention {
    /// Judges the next packet, of `duration_ticks` at 48 kHz.
    pub(super) fn judge(&mut self, glance: Glance, duration_ticks: u32) -> Worth {
        match glance {
            Glance::Voiceless { gain } => {
                self.silent_frames = 0;
                self.gain = gain;
                self.voiceless_ticks = self.voiceless_ticks.saturating_add(duration_ticks);
                let is_louder = gain > self.quiet_gain.saturating_add(LOUDER_STEPS);
                let may_skip = self.voiceless_ticks >= VOICELESS_TICKS && self.was_quiet && !is_louder;
                self.skipped = if may_skip { (self.skipped + 1) % PROBE_EVERY } else { 0 };
                if self.skipped == 0 { Worth::Decode } else { Worth::Skip }
            }
            Glance::Silence => {
                self.voiceless_ticks = 0;
                self.silent_frames = self.silent_frames.saturating_add(1);
                if self.silent_frames > SILENT_FRAMES { Worth::Skip } else { Worth::Decode }
            }
            Glance::Unknown => {
                (self.voiceless_ticks, self.silent_frames) = (0, 0);
                Worth::Decode
            }
        }
    }

    /// A packet was decoded to `samples` of this energy; true if they are the background of a voice that is silent.
    pub(super) fn heard(&mut self, energy: u64, samples: usize) -> bool {
        self.was_quiet = energy < QUIET_MEAN_SQUARE * samples as u64;
        let is_background = self.was_quiet && self.voiceless_ticks > 0;
        if is_background {
            // A larger one at once, a smaller one slowly: what varies is known by its upper edge.
            self.quiet_gain = self.gain.max(self.quiet_gain.saturating_sub(1));
        } else {
            self.quiet_gain = 0;
        }
        is_background
    }
}
