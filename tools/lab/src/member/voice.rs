//! What a member says: a sound, cut into frames of 20 ms and coded, silence before and after it.

use std::sync::Arc;
use std::time::Duration;

use super::Speech;
use crate::opus::{Encoder, EncoderConfig, FRAME_SAMPLES, RATE_HZ};
use crate::peer::Packet;
use crate::room::AudioCodec;

pub(super) const FRAME: Duration = Duration::from_millis(20);
const FRAME_TICKS: u32 = FRAME_SAMPLES as u32;

pub(super) struct Voice {
    samples: Vec<i16>,
    looped: bool,
    encoder: Encoder,
    /// The time at which the speech is to begin, when that is known.
    begin_us: Option<u64>,
    /// The next sample of the speech, while it lasts.
    position: Option<usize>,
    sequence: u16,
    timestamp: u32,
}

/// A frame and what of the speech is in it.
pub(super) struct Frame {
    pub(super) packet: Packet,
    pub(super) begins: bool,
    pub(super) ends: bool,
}

impl Voice {
    pub(super) fn new(speech: &Speech, config: EncoderConfig, seed: u32) -> Result<Self, String> {
        let encoder = Encoder::new(config).map_err(|error| format!("libopus: error {error}"))?;
        Ok(Self {
            samples: speech.sound.resampled(RATE_HZ).samples,
            looped: speech.looped,
            encoder,
            begin_us: None,
            position: None,
            // Anywhere, as RFC 3550 §5.1 has it.
            sequence: seed as u16,
            timestamp: seed,
        })
    }

    /// Lets the speech begin, from its start, at a time.
    pub(super) fn begin_at(&mut self, at_us: u64) {
        self.begin_us = Some(at_us);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begin_us.is_some()
    }

    /// The next frame, to be sent now.
    pub(super) fn next_frame(&mut self, now_us: u64) -> Frame {
        let mut begins = false;
        if self.begin_us.is_some_and(|at_us| at_us <= now_us) && !self.samples.is_empty() {
            // A time that has come once does not come again.
            self.begin_us = Some(u64::MAX);
            self.position = Some(0);
            begins = true;
        }
        let mut frame = [0; FRAME_SAMPLES];
        let mut ends = false;
        if let Some(position) = self.position {
            let rest = &self.samples[position..];
            let count = rest.len().min(FRAME_SAMPLES);
            frame[..count].copy_from_slice(&rest[..count]);
            ends = position + FRAME_SAMPLES >= self.samples.len();
            self.position = match ends {
                false => Some(position + FRAME_SAMPLES),
                true if self.looped => {
                    self.begin_us = Some(now_us);
                    None
                }
                true => None,
            };
        }
        let packet = Packet {
            payload_type: AudioCodec::Opus.payload_type(),
            sequence: self.sequence,
            timestamp: self.timestamp,
            marker: begins,
            payload: Arc::from(self.encoder.encode(&frame)),
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME_TICKS);
        Frame { packet, begins, ends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcm::Pcm;

    fn marks(looped: bool) -> Vec<(bool, bool)> {
        let sound = Pcm::tone(8_000, 0.05, 500.0, -20.0);
        let speech = if looped { Speech::looped(sound) } else { Speech::once(sound) };
        let mut voice = Voice::new(&speech, EncoderConfig::default(), 0xffff_ffff).unwrap();
        voice.begin_at(40_000);
        let frames: Vec<_> = (0..8).map(|index| voice.next_frame(index * 20_000)).collect();
        assert_eq!(frames[0].packet.sequence, 0xffff);
        assert_eq!((frames[1].packet.sequence, frames[1].packet.timestamp), (0, 959));
        frames.iter().map(|frame| (frame.begins, frame.ends)).collect()
    }

    #[test]
    fn a_speech_begins_at_its_time_and_ends_with_its_last_sample() {
        let none = (false, false);
        let mut expected = vec![none; 8];
        expected[2] = (true, false);
        expected[4] = (false, true);
        assert_eq!(marks(false), expected);
        expected[5] = (true, false);
        expected[7] = (false, true);
        assert_eq!(marks(true), expected);
    }
}
