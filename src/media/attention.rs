//! Which of a room voice's Opus packets are decoded: work follows voices.
//!
//! Owns: the rule, what the decoder needs in order to go on after packets that it never got, and what a silent voice's
//! background is like. Does not own: what a packet says of itself (`opus::glance`), the noise made of the background
//! (`comfort_noise`).
//!
//! A packet is left undecoded while *all* of this holds:
//! - SILK has found no voice for 200 ms. The flag alone means "no speech", not "nothing to hear": it is clear for music,
//!   applause and loud noise too.
//! - What was last decoded lay below −50 dBFS.
//! - The packet's own gains are hardly larger than they were then: no sound sets in with it.
//! - It is not the tenth in a row: that one is decoded as a probe, for what swells so slowly that its gains tell nothing.
//! - It is not the first after a pause (DTX): these are rare, and the only ones that tell of the background.
//!
//! CELT has neither flag nor gains; its packets are left undecoded only where they say that they hold digital silence (a
//! muted microphone) and the decoder has fallen silent too. Then leaving them out changes no bit of what follows.
//!
//! Packets that announce a pause never reach the decoder: it would take them for losses, and fade the next onset in.

use super::comfort_noise::Background;
use super::control::RoomCodec;
use super::decoders::{Decoders, MAX_PACKET_SAMPLES};
use super::jitter::MAX_PAYLOAD_BYTES;
use super::mixer::BUS_RATE_HZ;
use super::opus;
use super::opus::glance::Glance;
use super::simd::kernels;

/// Samples of 48 kHz, the unit of RTP, in one of ours.
const TICKS_A_SAMPLE: usize = (opus::RTP_CLOCK_HZ / BUS_RATE_HZ) as usize;

/// How long the voice flag must have been clear, in samples of 48 kHz.
const VOICELESS_TICKS: u32 = opus::RTP_CLOCK_HZ / 5;

/// Mean square of −50 dBFS: (32768 · 10^(−50/20))².
const QUIET_MEAN_SQUARE: u64 = 10_737;

/// One packet in so many is decoded all the same: two a second. The gains in all others tell of whatever gets louder.
const PROBE_EVERY: u8 = 25;

/// So many steps of 1.37 dB more are a sound that sets in: steady noise varies by less.
const LOUDER_STEPS: u8 = 3;

/// The frames of digital silence that a CELT decoder needs to come to rest: its windows overlap by one frame.
const SILENT_FRAMES: u8 = 3;

/// What was noticed of the packets so far, without decoding them.
#[derive(Clone, Copy, Debug, Default)]
struct Notice {
    voiceless_ticks: u32,
    /// Voiceless packets skipped since the last one that was decoded.
    skipped: u8,
    silent_frames: u8,
    /// The last packet announced a pause.
    paused: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The output is its sound.
    Decoded,
    /// The output is silence: nothing but the background is to be heard.
    Skipped,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Attention {
    /// Only pauses are skipped.
    is_undivided: bool,
    notice: Notice,
    /// What was last decoded lay below −50 dBFS.
    was_quiet: bool,
    /// The gain of what was decoded while it was quiet.
    quiet_gain: u8,
    /// The last packet, if it was skipped.
    left_out: [u8; MAX_PAYLOAD_BYTES],
    left_out_bytes: usize,
    background: Background,
    rests: bool,
}

impl Attention {
    /// `is_undivided`: whatever sounds is decoded, be it as soft as it may.
    pub(super) fn new(is_undivided: bool) -> Self {
        Self {
            is_undivided,
            notice: Notice::default(),
            was_quiet: false,
            quiet_gain: 0,
            left_out: [0; MAX_PAYLOAD_BYTES],
            left_out_bytes: 0,
            background: Background::default(),
            rests: false,
        }
    }

    /// The background, while it is all that there is to hear.
    pub(super) fn background(&self) -> Option<Background> {
        self.rests.then_some(self.background)
    }

    /// The sender has announced a pause and sent nothing since.
    pub(super) const fn is_paused(&self) -> bool {
        self.notice.paused
    }

    /// Leaves out the next packet, which plays so many samples of 48 kHz, if it is not worth decoding and no pause begins with
    /// it; or else does nothing.
    pub(super) fn skip(&mut self, codec: RoomCodec, payload: &[u8], duration_ticks: u32) -> bool {
        let glance = glance_at(codec, payload);
        let (skips, notice) = self.judge(glance, duration_ticks);
        if !skips || glance == Glance::Pause {
            return false;
        }
        self.notice = notice;
        self.leave_out(payload);
        true
    }

    /// Fills `out`, which is as long as the packet.
    pub(super) fn decode(
        &mut self,
        decoders: &mut Decoders,
        codec: RoomCodec,
        payload: &[u8],
        out: &mut [i16],
    ) -> Outcome {
        let duration_ticks = (out.len() * TICKS_A_SAMPLE) as u32;
        let glance = glance_at(codec, payload);
        let (skips, notice) = self.judge(glance, duration_ticks);
        self.notice = notice;
        if skips {
            out.fill(0);
            if glance != Glance::Pause {
                self.leave_out(payload);
            }
            return Outcome::Skipped;
        }
        self.catch_up(decoders, codec, payload);
        decoders.decode(codec, payload, out);
        self.listen(glance, out);
        Outcome::Decoded
    }

    /// Whether the next packet is left undecoded, and what is then known.
    fn judge(&self, glance: Glance, duration_ticks: u32) -> (bool, Notice) {
        let former = self.notice;
        let mut notice = Notice { paused: glance == Glance::Pause, ..former };
        if notice.paused {
            return (true, notice);
        }
        notice.silent_frames = if glance == Glance::Silence { former.silent_frames.saturating_add(1) } else { 0 };
        let Glance::Voiceless { gain } = glance else {
            notice.voiceless_ticks = 0;
            return (notice.silent_frames > SILENT_FRAMES && !self.is_undivided, notice);
        };
        notice.voiceless_ticks = former.voiceless_ticks.saturating_add(duration_ticks);
        let may_skip = !self.is_undivided
            && !former.paused
            && notice.voiceless_ticks >= VOICELESS_TICKS
            && self.was_quiet
            && gain <= self.quiet_gain.saturating_add(LOUDER_STEPS);
        notice.skipped = if may_skip { (former.skipped + 1) % PROBE_EVERY } else { 0 };
        (notice.skipped != 0, notice)
    }

    fn leave_out(&mut self, payload: &[u8]) {
        // A longer payload does not come out of the jitter buffer.
        let bytes = payload.len().min(MAX_PAYLOAD_BYTES);
        self.left_out[..bytes].copy_from_slice(&payload[..bytes]);
        self.left_out_bytes = bytes;
    }

    /// Where the coder changes, the packet before prepares the decoder (RFC 6716 §4.5.1): it must not be missing. SILK
    /// itself finds its way within a frame.
    fn catch_up(&mut self, decoders: &mut Decoders, codec: RoomCodec, payload: &[u8]) {
        let left_out = &self.left_out[..std::mem::take(&mut self.left_out_bytes)];
        if codec == RoomCodec::Opus
            && !left_out.is_empty()
            && opus::packet::is_celt(left_out) != opus::packet::is_celt(payload)
        {
            let mut unheard = [0; MAX_PACKET_SAMPLES];
            decoders.decode(codec, left_out, &mut unheard);
        }
    }

    /// Learns from what was decoded.
    fn listen(&mut self, glance: Glance, pcm: &[i16]) {
        self.was_quiet = (kernels().energy)(pcm) < QUIET_MEAN_SQUARE * pcm.len() as u64;
        self.rests = false;
        if let (Glance::Voiceless { gain }, true) = (glance, self.was_quiet) {
            self.rests = true;
            self.background.follow(pcm);
            // A larger one at once, a smaller one slowly: what varies is known by its upper edge.
            self.quiet_gain = gain.max(self.quiet_gain.saturating_sub(1));
        } else {
            self.quiet_gain = 0;
        }
    }
}

fn glance_at(codec: RoomCodec, payload: &[u8]) -> Glance {
    match codec {
        RoomCodec::Opus => Glance::at(payload),
        RoomCodec::G722 | RoomCodec::Pcmu | RoomCodec::Pcma => Glance::Unknown,
    }
}
