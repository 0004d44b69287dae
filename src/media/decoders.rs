//! The decoders that one room voice may need, all to the bus's rate.
//!
//! Owns: codec after codec the same three answers, a packet, a repaired one, a made-up one, which always fill their output.
//! Does not own: which of them is due (`jitter`), what is done with the sound (`stream`).

use super::control::{RoomCodec, StreamSetup};
use super::g711::Law;
use super::g722;
use super::mixer::BUS_RATE_HZ;
use super::opus::{self, OpusError};
use super::plc::Concealer;
use super::resample::Up8To16;

/// The longest packet on the bus: 120 ms.
pub(super) const MAX_PACKET_SAMPLES: usize = BUS_RATE_HZ as usize / 1000 * opus::MAX_PACKET_MS;

/// G.722: 16 kHz already.
#[derive(Debug)]
struct Wide {
    decoder: g722::Decoder,
    concealer: Concealer,
}

/// G.711: 8 kHz, to be widened.
#[derive(Debug)]
struct Narrow {
    law: Law,
    concealer: Concealer,
    widen: Up8To16,
}

/// The decoders that a stream's payload types may need.
#[derive(Debug, Default)]
pub(super) struct Decoders {
    opus: Option<opus::Decoder>,
    g722: Option<Box<Wide>>,
    pcmu: Option<Box<Narrow>>,
    pcma: Option<Box<Narrow>>,
}

impl Decoders {
    pub(super) fn new(setup: &StreamSetup) -> Result<Self, OpusError> {
        let mut decoders = Self::default();
        let narrow =
            |law| Some(Box::new(Narrow { law, concealer: Concealer::new(BUS_RATE_HZ / 2), widen: Up8To16::to_bus() }));
        for (_, codec) in &setup.codecs {
            match codec {
                RoomCodec::Opus => decoders.opus = Some(opus::Decoder::new(BUS_RATE_HZ)?),
                RoomCodec::G722 => {
                    let wide = Wide { decoder: g722::Decoder::new(), concealer: Concealer::new(BUS_RATE_HZ) };
                    decoders.g722 = Some(Box::new(wide));
                }
                RoomCodec::Pcmu => decoders.pcmu = narrow(Law::Mu),
                RoomCodec::Pcma => decoders.pcma = narrow(Law::A),
            }
        }
        Ok(decoders)
    }

    /// Fills `out`, which is as long as the packet; with silence where it cannot be decoded.
    pub(super) fn decode(&mut self, codec: RoomCodec, payload: &[u8], out: &mut [i16]) {
        let decoded = match codec {
            RoomCodec::Opus => self.opus.as_mut().and_then(|opus| opus.decode(Some(payload), false, out).ok()),
            RoomCodec::G722 => self.g722.as_mut().map(|wide| wide.decode(payload, out)),
            RoomCodec::Pcmu => self.pcmu.as_mut().map(|narrow| narrow.decode(payload, out)),
            RoomCodec::Pcma => self.pcma.as_mut().map(|narrow| narrow.decode(payload, out)),
        };
        out[decoded.unwrap_or(0)..].fill(0);
    }

    /// Fills `out` with the lost packet before `next`.
    pub(super) fn recover(&mut self, codec: RoomCodec, next: &[u8], out: &mut [i16]) {
        let recovered = match codec {
            RoomCodec::Opus => self.opus.as_mut().and_then(|opus| opus.decode(Some(next), true, out).ok()),
            RoomCodec::G722 | RoomCodec::Pcmu | RoomCodec::Pcma => None,
        };
        if recovered.is_none() {
            self.conceal(codec, out);
        }
    }

    /// Fills `out` with what may have been lost.
    pub(super) fn conceal(&mut self, codec: RoomCodec, out: &mut [i16]) {
        let concealed = match codec {
            RoomCodec::Opus => self.opus.as_mut().and_then(|opus| opus.decode(None, false, out).ok()),
            RoomCodec::G722 => self.g722.as_mut().map(|wide| wide.conceal(out)),
            RoomCodec::Pcmu => self.pcmu.as_mut().map(|narrow| narrow.conceal(out)),
            RoomCodec::Pcma => self.pcma.as_mut().map(|narrow| narrow.conceal(out)),
        };
        out[concealed.unwrap_or(0)..].fill(0);
    }
}

impl Wide {
    fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> usize {
        let samples = self.decoder.decode(payload, out);
        self.concealer.good(&mut out[..samples]);
        samples
    }

    fn conceal(&mut self, out: &mut [i16]) -> usize {
        self.concealer.conceal(out);
        out.len()
    }
}

impl Narrow {
    fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> usize {
        let mut pcm = [0; MAX_PACKET_SAMPLES / 2];
        let samples = self.law.decode(payload, &mut pcm);
        self.concealer.good(&mut pcm[..samples]);
        self.widen.process(&pcm[..samples], out)
    }

    fn conceal(&mut self, out: &mut [i16]) -> usize {
        let mut pcm = [0; MAX_PACKET_SAMPLES / 2];
        let pcm = &mut pcm[..(out.len() / 2).min(MAX_PACKET_SAMPLES / 2)];
        self.concealer.conceal(pcm);
        self.widen.process(pcm, out)
    }
}
