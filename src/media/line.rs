//! What a telephone's codec needs in the mix: built by signalling, exchanged when SDP settles another codec.
//!
//! Owns: order by the codec's RTP clock, decoding and concealment, the queue to the neighbours at the codec's rate, and for
//! a codec whose encoder has a state, that. Does not own: what is done with the sound (`caller`), the packets down (`down`).
//!
//! G.711 lives at 8 kHz and is encoded once for all who hear the same. G.722 and Opus live at the bus's own 16 kHz, so nothing
//! is filtered away on either way, and each telephone has an encoder of its own.

use super::control::{Telephone, TelephoneCodec};
use super::down::{Down, EncodedTick, G711_TICK_BYTES, Sent, packet_ms};
use super::engine::Sink;
use super::g711::Law;
use super::g722;
use super::line_noise::LineNoise;
use super::local_queue::LocalQueue;
use super::mixer::{BUS_FRAME_SAMPLES, Bus, BusFrame, Limiter};
use super::opus::{self, OpusError, packet};
use super::plc::Concealer;
use super::reorder::Reorder;
use super::resample::{Down16To8, Up8To16};
use super::simd::kernels;
use super::up::{CONGESTED_ABOVE_PERCENT, CONGESTED_BITRATE_BPS, FEC_ABOVE_PERCENT};
use super::vad::{SILENCE_DBFS, level_dbfs};
use crate::time::Instant;

/// The longest packet: 120 ms at 16 kHz.
pub(super) const MAX_PACKET_SAMPLES: usize = 1920;

/// Sound of one packet, or of a hole.
pub(super) type PacketSound = [i16; MAX_PACKET_SAMPLES];

/// Opus is decoded and concealed in steps of 2.5 ms.
const OPUS_STEP_SAMPLES: usize = 40;

/// What we send to a telephone: the music coder at G.711's rate takes a sixth of what the voice coder does and sounds better
/// (20 µs and PESQ 4.51 in wide band, against 114 µs and 4.43), but knows neither copies nor low rates.
const OPUS_BITRATE_BPS: u32 = 64_000;
const OPUS_COMPLEXITY: u8 = 0;
/// The music coder's least rate: at 40 kbit/s it has 4.1.
const LEAST_MUSIC_BITRATE_BPS: u32 = 44_000;
/// The voice coder, as upwards.
const VOICE_BITRATE_BPS: u32 = 32_000;
const VOICE_COMPLEXITY: u8 = 4;
/// 60 ms at 64 kbit/s are 480 bytes; a variable rate may double that for a while.
const OPUS_PACKET_BYTES: usize = 1000;

/// One telephone's line.
#[derive(Debug)]
pub struct Line {
    pub(super) order: Reorder,
    pub(super) sound: Sound,
    /// `None` for G.711.
    pub(super) wide: Option<Wide>,
}

impl Line {
    /// What this telephone needs.
    ///
    /// # Errors
    /// libopus has no memory.
    pub fn new(telephone: &Telephone) -> Result<Self, OpusError> {
        let codec = telephone.codec;
        Ok(Self { order: Reorder::new(codec.clock_rate_hz()), sound: Sound::new(codec)?, wide: Wide::new(telephone)? })
    }

    /// Another law of G.711, or other wishes of the same codec, on a way that loses so many of a hundred packets.
    pub(super) fn set_telephone(&mut self, telephone: &Telephone, loss_percent: u8) {
        if let (Decoder::G711 { law, .. }, Some(other)) = (&mut self.sound.decoder, law(telephone.codec)) {
            *law = other;
        }
        if let Some(wide) = &mut self.wide {
            wide.set_loss(loss_percent, telephone);
        }
    }
}

/// The law of a codec that has one.
pub(super) const fn law(codec: TelephoneCodec) -> Option<Law> {
    match codec {
        TelephoneCodec::Pcmu => Some(Law::Mu),
        TelephoneCodec::Pcma => Some(Law::A),
        TelephoneCodec::G722 | TelephoneCodec::Opus => None,
    }
}

/// From the telephone's packets to the sound for its neighbours.
#[derive(Debug)]
pub(super) struct Sound {
    rate_hz: u32,
    clock_rate_hz: u32,
    decoder: Decoder,
    pub(super) local: LocalQueue,
    /// From 8 kHz, if that is its rate.
    widen: Option<Up8To16>,
    /// To 8 kHz, which is what the listening stages know, if that is not its rate.
    narrow: Option<Box<Narrow>>,
}

#[derive(Debug)]
struct Narrow {
    filter: Down16To8,
    pcm: [i16; MAX_PACKET_SAMPLES / 2],
}

impl Default for Narrow {
    fn default() -> Self {
        Self { filter: Down16To8::new(), pcm: [0; MAX_PACKET_SAMPLES / 2] }
    }
}

#[derive(Debug)]
enum Decoder {
    G711 { law: Law, concealer: Box<Concealer> },
    G722 { decoder: Box<g722::Decoder>, concealer: Box<Concealer> },
    Opus(opus::Decoder),
}

impl Sound {
    fn new(codec: TelephoneCodec) -> Result<Self, OpusError> {
        let rate_hz = codec.sound_rate_hz();
        let concealer = || Box::new(Concealer::new(rate_hz));
        let decoder = match (codec, law(codec)) {
            (_, Some(law)) => Decoder::G711 { law, concealer: concealer() },
            (TelephoneCodec::Opus, None) => Decoder::Opus(opus::Decoder::new(rate_hz)?),
            (_, None) => Decoder::G722 { decoder: Box::default(), concealer: concealer() },
        };
        let is_wide = rate_hz > 8000;
        Ok(Self {
            rate_hz,
            clock_rate_hz: codec.clock_rate_hz(),
            decoder,
            local: LocalQueue::new(rate_hz),
            widen: (!is_wide).then(Up8To16::to_bus),
            narrow: is_wide.then(Box::default),
        })
    }

    /// Of the sound.
    pub(super) const fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// How long a packet lasts on the RTP clock; `None` if it is malformed.
    pub(super) fn duration_ticks(&self, payload: &[u8]) -> Option<u32> {
        match self.decoder {
            // A byte is a tick of the clock for both.
            Decoder::G711 { .. } | Decoder::G722 { .. } => Some(payload.len() as u32),
            Decoder::Opus(_) => packet::duration_ticks(payload),
        }
    }

    /// So much of the RTP clock in samples.
    pub(super) fn samples(&self, clock_ticks: u32) -> u32 {
        (u64::from(clock_ticks) * u64::from(self.rate_hz) / u64::from(self.clock_rate_hz)) as u32
    }

    /// Decodes the next packet and returns the samples.
    pub(super) fn decode(&mut self, payload: &[u8], pcm: &mut PacketSound) -> usize {
        match &mut self.decoder {
            Decoder::G711 { law, concealer } => {
                let samples = law.decode(payload, pcm);
                concealer.good(&mut pcm[..samples]);
                samples
            }
            Decoder::G722 { decoder, concealer } => {
                let samples = decoder.decode(payload, pcm);
                concealer.good(&mut pcm[..samples]);
                samples
            }
            // What libopus refuses counts as nothing; its length was checked before.
            Decoder::Opus(decoder) => decoder.decode(Some(payload), false, pcm).unwrap_or(0),
        }
    }

    /// Makes up what lies before `next`, which is empty if that is no speech, and returns the samples.
    pub(super) fn conceal(&mut self, clock_ticks: u32, next: &[u8], pcm: &mut PacketSound) -> usize {
        let samples = (self.samples(clock_ticks) as usize).min(MAX_PACKET_SAMPLES);
        let mut next_pcm = [0; MAX_PACKET_SAMPLES];
        match &mut self.decoder {
            Decoder::G711 { law, concealer } => {
                let next_samples = law.decode(next, &mut next_pcm);
                concealer.conceal_before(&next_pcm[..next_samples], &mut pcm[..samples]);
                samples
            }
            Decoder::G722 { decoder, concealer } => {
                // It is decoded in its turn, hence by a copy now.
                let next_samples = decoder.as_ref().clone().decode(next, &mut next_pcm);
                concealer.conceal_before(&next_pcm[..next_samples], &mut pcm[..samples]);
                samples
            }
            Decoder::Opus(decoder) => {
                let pcm = &mut pcm[..samples - samples % OPUS_STEP_SAMPLES];
                let next = Some(next).filter(|next| !next.is_empty());
                // From the copy that the next packet carries, if it does.
                decoder.decode(next, next.is_some(), pcm).unwrap_or(0)
            }
        }
    }

    /// The same sound at 8 kHz.
    pub(super) fn narrow<'a>(&'a mut self, pcm: &'a [i16]) -> &'a [i16] {
        let Some(narrow) = &mut self.narrow else { return pcm };
        let samples = narrow.filter.process(pcm, &mut narrow.pcm);
        &narrow.pcm[..samples]
    }

    /// How loud a piece of a wide line is, with all that [`Self::narrow`] leaves out; nothing for a narrow one.
    pub(super) fn upper_level_dbfs(&self, pcm: &[i16]) -> f32 {
        match self.narrow {
            None => SILENCE_DBFS,
            Some(_) => level_dbfs((kernels().energy)(pcm), pcm.len()),
        }
    }

    /// What the packet is in itself, if a room of Opus can have it as it is.
    pub(super) const fn opus_packet<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        match self.decoder {
            Decoder::Opus(_) => Some(payload),
            Decoder::G711 { .. } | Decoder::G722 { .. } => None,
        }
    }

    /// The next frame of the telephone's noise, for the bus.
    pub(super) fn play_noise(&mut self, noise: &mut LineNoise, frame: &mut BusFrame) {
        let mut made = [0; BUS_FRAME_SAMPLES];
        let made = &mut made[..self.rate_hz as usize / 50];
        noise.fill(made);
        self.widen(made, frame);
    }

    fn widen(&mut self, pcm: &[i16], frame: &mut BusFrame) {
        match &mut self.widen {
            Some(filter) => drop(filter.process(pcm, frame)),
            None => frame.copy_from_slice(pcm),
        }
    }

    /// Takes the next frame out of the queue, for the bus; false (and nothing in `frame`) unless `is_heard` and a sample is
    /// above `least_peak`.
    pub(super) fn play(&mut self, now: Instant, is_heard: bool, least_peak: u16, frame: &mut BusFrame) -> bool {
        let mut taken = [0; BUS_FRAME_SAMPLES];
        let taken = &mut taken[..self.rate_hz as usize / 50];
        // Taken in any case, so that the queue is fresh when the caller comes on the air.
        let plays = self.local.take(now, taken);
        if !plays || !is_heard || taken.iter().all(|sample| sample.unsigned_abs() <= least_peak) {
            return false;
        }
        self.widen(taken, frame);
        true
    }
}

/// The way down of a telephone that nobody shares an encoder with.
#[derive(Debug)]
pub(super) struct Wide {
    limiter: Limiter,
    encoder: WideEncoder,
}

#[derive(Debug)]
enum WideEncoder {
    G722(Box<g722::Encoder>),
    Opus(Box<Gathering>),
}

/// Opus, and what is not a whole packet yet: at most two ticks of 60 ms.
#[derive(Debug)]
struct Gathering {
    encoder: opus::Encoder,
    pcm: [i16; 3 * BUS_FRAME_SAMPLES],
    samples: usize,
}

impl Wide {
    fn new(telephone: &Telephone) -> Result<Option<Self>, OpusError> {
        let codec = telephone.codec;
        let encoder = match codec {
            TelephoneCodec::Pcmu | TelephoneCodec::Pcma => return Ok(None),
            TelephoneCodec::G722 => WideEncoder::G722(Box::default()),
            TelephoneCodec::Opus => {
                let mut encoder = opus::Encoder::new(codec.sound_rate_hz(), OPUS_COMPLEXITY, OPUS_BITRATE_BPS)?;
                // The first frames cost page faults; they are taken here, on the signalling thread.
                encoder.encode(&[0; BUS_FRAME_SAMPLES], &mut [0; OPUS_PACKET_BYTES])?;
                WideEncoder::Opus(Box::new(Gathering { encoder, pcm: [0; 3 * BUS_FRAME_SAMPLES], samples: 0 }))
            }
        };
        let mut wide = Self { limiter: Limiter::new(), encoder };
        wide.set_loss(0, telephone);
        Ok(Some(wide))
    }

    /// The telephone misses so many of a hundred packets.
    pub(super) fn set_loss(&mut self, percent: u8, telephone: &Telephone) {
        match &mut self.encoder {
            WideEncoder::G722(_) => {}
            // libopus refuses no value of these.
            WideEncoder::Opus(gathering) => drop(obey(&mut gathering.encoder, percent, telephone)),
        }
    }

    /// Sends what a listener hears who contributed `own`, or gathers it for a longer packet.
    pub(super) fn send(
        &mut self,
        bus: &Bus,
        own: &BusFrame,
        telephone: &Telephone,
        down: &mut Down,
        sink: &mut impl Sink,
    ) -> Sent {
        let mut frame = [0; BUS_FRAME_SAMPLES];
        bus.minus(own, &mut self.limiter, &mut frame);
        match &mut self.encoder {
            WideEncoder::G722(encoder) => {
                let mut tick: EncodedTick = [0; G711_TICK_BYTES];
                encoder.encode(&frame, &mut tick);
                down.send(telephone, &tick, sink)
            }
            WideEncoder::Opus(gathering) => gathering.send(&frame, telephone, down, sink),
        }
    }

    /// Time passes without packets; how much of the RTP clock has been gathered in vain.
    pub(super) fn forget(&mut self) -> u32 {
        match &mut self.encoder {
            WideEncoder::G722(_) => 0,
            WideEncoder::Opus(gathering) => std::mem::take(&mut gathering.samples) as u32 * OPUS_TICKS_A_SAMPLE,
        }
    }
}

/// The encoder as the telephone and its way want it.
fn obey(encoder: &mut opus::Encoder, loss_percent: u8, telephone: &Telephone) -> Result<(), OpusError> {
    let wishes = telephone.opus;
    let fec = wishes.fec && loss_percent > FEC_ABOVE_PERCENT;
    let is_congested = loss_percent > CONGESTED_ABOVE_PERCENT;
    let is_music = !fec && !is_congested && wishes.max_bitrate_bps >= LEAST_MUSIC_BITRATE_BPS;
    let bitrate_bps = match (is_music, is_congested) {
        (true, _) => OPUS_BITRATE_BPS,
        (false, false) => VOICE_BITRATE_BPS,
        (false, true) => CONGESTED_BITRATE_BPS,
    };
    encoder.set_signal(is_music, if is_music { OPUS_COMPLEXITY } else { VOICE_COMPLEXITY })?;
    encoder.set_bitrate(bitrate_bps.min(wishes.max_bitrate_bps))?;
    encoder.set_constant_rate(wishes.constant_rate)?;
    encoder.set_fec(fec, loss_percent)
}

/// 48 kHz against 16 kHz.
const OPUS_TICKS_A_SAMPLE: u32 = 3;

impl Gathering {
    fn send(&mut self, frame: &BusFrame, telephone: &Telephone, down: &mut Down, sink: &mut impl Sink) -> Sent {
        let packet_samples = match packet_ms(telephone.ptime_ms) {
            // Opus has no frames of 30 ms.
            30 => BUS_FRAME_SAMPLES,
            ms => ms * BUS_FRAME_SAMPLES / 20,
        };
        if self.samples + frame.len() > self.pcm.len() {
            // Only after the packets have become shorter: what waits is older than they.
            self.samples = 0;
        }
        self.pcm[self.samples..][..frame.len()].copy_from_slice(frame);
        self.samples += frame.len();
        let mut sent = Sent::default();
        let mut start = 0;
        while self.samples - start >= packet_samples {
            let mut payload = [0; OPUS_PACKET_BYTES];
            // It fails only for frame lengths that are not made here, and for buffers that are too small.
            let pcm = &self.pcm[start..start + packet_samples];
            let len = self.encoder.encode(pcm, &mut payload).unwrap_or(0);
            let clock_ticks = packet_samples as u32 * OPUS_TICKS_A_SAMPLE;
            sent.count(down.send_packet(telephone.send_payload_type, &payload[..len], clock_ticks, sink));
            start += packet_samples;
        }
        self.pcm.copy_within(start..self.samples, 0);
        self.samples -= start;
        sent
    }
}
