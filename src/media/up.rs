//! A caller's stream to Galene: speech at 8 or 16 kHz in, RTP out at once.
//!
//! Owns: the encoder, the gathering of 10 ms pieces, the stream's one timeline (sequence, timestamp), silence where the
//! telephone sends nothing. Does not own: the telephone's order and holes (`caller`), encryption (`io::net`).
//!
//! The timeline is the telephone's own clock while it sends, so that packets which the network delayed are not stretched;
//! only after 200 ms without any is time filled with silence by the tick, and the two are joined there.

use std::time::Duration;

use super::control::{LegKey, RoomCodec, TICK, TelephoneCodec, UpSetup};
use super::dtx::{Dtx, Turn};
use super::engine::Sink;
use super::g711::Law;
use super::g722;
use super::line_noise::LineNoise;
use super::opus::{self, OpusError};
use super::resample::{Down16To8, Up8To16};
use crate::time::Instant;
use crate::wire::rtp::{HEADER_BYTES, RtpHeader};

/// 20 ms at 8 kHz.
pub(super) const FRAME_SAMPLES: usize = 160;

/// The longest frame: 60 ms, Opus's own limit, at 16 kHz.
const MAX_FRAME_SAMPLES: usize = 3 * 2 * FRAME_SAMPLES;

/// The measured optimum for telephone speech: nothing is heard any more that µ-law alone does not do (at 24 kbit/s PESQ is
/// 0.06 lower and the encoder no cheaper; a higher complexity or rate gains nothing).
const OPUS_BITRATE_BPS: u32 = 32_000;
const OPUS_COMPLEXITY: u8 = 0;

/// The same for wideband speech (libopus 1.6.1, 20 ms; PESQ in wide band). As it was said, at 32 kbit/s: complexity 3 has 3.92
/// at 109 µs, 4 has 4.43 at 114 µs, 5 the same at 164 µs. From G.722, which alone has 3.93, at complexity 4: 3.79 at 32 kbit/s,
/// 3.87 at 40, 3.90 at 48. The music coder has 3.89 at 64 kbit/s and takes a fifth, but it has no voice flag, by which
/// pauses begin here and listeners spare the work of silence.
const WIDE_OPUS_BITRATE_BPS: u32 = 48_000;
const WIDE_OPUS_COMPLEXITY: u8 = 4;

/// How long the telephone may send nothing before silence is sent for it. A loss burst or jitter of up to this length
/// leaves the timeline alone; silence suppression lasts longer.
const SILENCE_AFTER: Duration = Duration::from_millis(200);

/// The same for a telephone that pauses in its own way: Opus sends something every 400 ms then.
const SILENCE_AFTER_PAUSE: Duration = Duration::from_millis(500);
/// An Opus packet of no more bytes says that a pause begins, or goes on.
const PAUSE_BYTES: usize = 2;
/// The same for one that has said that it falls silent.
const SILENCE_AFTER_NOTICE: Duration = Duration::from_millis(40);

/// Below this share of lost packets in-band FEC costs more (0.1 to 0.25 PESQ) than it repairs.
pub(super) const FEC_ABOVE_PERCENT: u8 = 1;

/// Above this the way may be too narrow: the rate falls to three quarters, in wide band to two thirds.
pub(super) const CONGESTED_ABOVE_PERCENT: u8 = 10;
pub(super) const CONGESTED_BITRATE_BPS: u32 = 24_000;
const CONGESTED_WIDE_BITRATE_BPS: u32 = 32_000;

/// The codec of the room, and what brings speech to its rate where that is another.
#[derive(Debug)]
enum Encoder {
    Opus(opus::Encoder),
    G722 { encoder: Box<g722::Encoder>, widen: Option<Box<Up8To16>> },
    G711 { law: Law, narrow: Option<Box<Down16To8>> },
}

impl Encoder {
    fn new(codec: RoomCodec, telephone: TelephoneCodec) -> Result<Self, OpusError> {
        let rate_hz = telephone.sound_rate_hz();
        let is_wide = rate_hz > 8000;
        let g711 = |law| Self::G711 { law, narrow: is_wide.then(Box::default) };
        Ok(match codec {
            RoomCodec::Opus if is_wide => {
                Self::Opus(opus::Encoder::new(rate_hz, WIDE_OPUS_COMPLEXITY, WIDE_OPUS_BITRATE_BPS)?)
            }
            RoomCodec::Opus => Self::Opus(opus::Encoder::new(rate_hz, OPUS_COMPLEXITY, OPUS_BITRATE_BPS)?),
            RoomCodec::G722 => Self::G722 { encoder: Box::default(), widen: (!is_wide).then(Box::default) },
            RoomCodec::Pcmu => g711(Law::Mu),
            RoomCodec::Pcma => g711(Law::A),
        })
    }

    /// Forgets what an Opus encoder learns of the sound; the others learn nothing.
    fn reset(&mut self) {
        match self {
            Self::Opus(encoder) => encoder.reset(),
            Self::G722 { .. } | Self::G711 { .. } => {}
        }
    }

    fn encode(&mut self, frame: &[i16], out: &mut [u8]) -> usize {
        match self {
            // It fails only for frame lengths that are not made here, and for buffers that are too small.
            Self::Opus(encoder) => encoder.encode(frame, out).unwrap_or(0),
            Self::G722 { encoder, widen: None } => encoder.encode(frame, out),
            Self::G722 { encoder, widen: Some(widen) } => {
                let mut wide = [0; MAX_FRAME_SAMPLES];
                let samples = widen.process(frame, &mut wide);
                encoder.encode(&wide[..samples], out)
            }
            Self::G711 { law, narrow: None } => law.encode(frame, out),
            Self::G711 { law, narrow: Some(narrow) } => {
                let mut pcm = [0; MAX_FRAME_SAMPLES / 2];
                let samples = narrow.process(frame, &mut pcm);
                law.encode(&pcm[..samples], out)
            }
        }
    }
}

/// One up stream. Built by signalling once its answer is there; it comes back when it ends.
#[derive(Debug)]
pub struct Up {
    leg: LegKey,
    payload_type: u8,
    ssrc: u32,
    encoder: Encoder,
    dtx: Dtx,
    /// The first byte of the last Opus packet: how it was coded.
    table_of_contents: u8,
    /// Of the input.
    rate_hz: u32,
    /// 20 ms of it.
    frame_samples: usize,
    /// Of RTP.
    clock_rate_hz: u32,
    sequence: u16,
    /// Of the first gathered sample.
    timestamp: u32,
    /// The next packet begins after a pause.
    marker: bool,
    gathered: [i16; MAX_FRAME_SAMPLES],
    gathered_samples: usize,
    /// When the telephone last had something; `None` while silence is sent for it.
    last_speech: Option<Instant>,
    /// How long after that it counts as silent.
    patience: Duration,
    /// The length of the telephone's own packet, if that was the last that went up.
    forwarded_samples: Option<u32>,
    /// What the encoder knows of the sound is out of date.
    is_stale: bool,
    loss_percent: u8,
    counters: UpCounters,
}

/// The bits of a packet's first byte that tell of more frames than one (RFC 6716 §3.1).
const FRAME_COUNT_BITS: u8 = 0x03;

/// What an up stream has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UpCounters {
    /// Packets.
    pub(super) sent: u32,
    /// Of these, made silence.
    pub(super) silence: u32,
    /// Packets that the ring had no room for.
    pub(super) dropped: u32,
}

impl Up {
    /// Builds the encoder.
    ///
    /// # Errors
    /// libopus has no memory.
    pub fn new(setup: &UpSetup) -> Result<Self, OpusError> {
        let rate_hz = setup.telephone.sound_rate_hz();
        let mut up = Self {
            leg: setup.leg,
            payload_type: setup.payload_type,
            ssrc: setup.ssrc,
            encoder: Encoder::new(setup.codec, setup.telephone)?,
            dtx: Dtx::new(rate_hz),
            table_of_contents: 0,
            rate_hz,
            frame_samples: rate_hz as usize / 50,
            clock_rate_hz: setup.codec.clock_rate_hz(),
            sequence: setup.first_sequence,
            timestamp: setup.first_timestamp,
            marker: true,
            gathered: [0; MAX_FRAME_SAMPLES],
            gathered_samples: 0,
            last_speech: None,
            patience: SILENCE_AFTER,
            forwarded_samples: None,
            is_stale: false,
            loss_percent: 0,
            counters: UpCounters::default(),
        };
        up.warm();
        Ok(up)
    }

    /// The first frames cost page faults; they are taken here, on the signalling thread.
    fn warm(&mut self) {
        let mut out = [0; opus::MAX_FRAME_BYTES];
        self.encoder.encode(&[0; MAX_FRAME_SAMPLES][..self.frame_samples], &mut out);
    }

    /// The telephone's codec has changed and with it the rate of the speech: the stream goes on where `former` ended.
    pub(super) fn go_on_from(&mut self, former: &mut Self) {
        if (former.leg, former.ssrc) != (self.leg, self.ssrc) {
            return;
        }
        former.jump(0);
        (self.sequence, self.timestamp, self.marker) = (former.sequence, former.timestamp, former.marker);
        self.last_speech = former.last_speech;
        self.set_loss(former.loss_percent);
    }

    pub(super) const fn counters(&self) -> UpCounters {
        self.counters
    }

    /// Speech of the telephone, in order and without holes since the last call.
    pub(super) fn speak(&mut self, now: Instant, pcm: &[i16], is_talking: bool, sink: &mut impl Sink) {
        (self.last_speech, self.patience) = (Some(now), SILENCE_AFTER);
        let frame_samples = self.frame_samples;
        if self.gathered_samples == 0
            && [1, 2, 3].contains(&(pcm.len() / frame_samples))
            && pcm.len().is_multiple_of(frame_samples)
        {
            self.send_frame(pcm, None, is_talking, sink);
            return;
        }
        let mut rest = pcm;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(frame_samples - self.gathered_samples));
            self.gathered[self.gathered_samples..][..piece.len()].copy_from_slice(piece);
            self.gathered_samples += piece.len();
            rest = later;
            if self.gathered_samples == frame_samples {
                self.gathered_samples = 0;
                let frame = self.gathered;
                self.send_frame(&frame[..frame_samples], None, is_talking, sink);
            }
        }
    }

    /// The telephone's clock leaves out `samples`: so does ours, unless made silence has taken that time already.
    pub(super) fn pause(&mut self, samples: u32) {
        if self.last_speech.is_some() {
            self.jump(samples);
        }
    }

    /// The same speech as the telephone's own packet, if the room can have that as it is: nothing is coded twice. False if
    /// it has to be encoded, by [`Self::speak`].
    pub(super) fn forward(
        &mut self,
        now: Instant,
        packet: &[u8],
        pcm: &[i16],
        is_talking: bool,
        sink: &mut impl Sink,
    ) -> bool {
        if !matches!(self.encoder, Encoder::Opus(_)) || self.gathered_samples > 0 || pcm.is_empty() {
            return false;
        }
        self.last_speech = Some(now);
        self.patience = if packet.len() > PAUSE_BYTES { SILENCE_AFTER } else { SILENCE_AFTER_PAUSE };
        self.send_frame(pcm, Some(packet), is_talking, sink);
        true
    }

    /// Speech that was lost on its way here, of which the room may learn as of any loss: it has the telephone's own packets,
    /// and the next one may carry a copy. False if it has to be made up.
    pub(super) fn lose(&mut self, samples: u32) -> bool {
        let Some(forwarded_samples) = self.forwarded_samples else { return false };
        let packets = (samples / forwarded_samples).max(1);
        self.sequence = self.sequence.wrapping_add(packets as u16);
        self.timestamp = self.timestamp.wrapping_add(self.ticks(samples));
        true
    }

    /// The telephone has said that it falls silent.
    pub(super) const fn expect_silence(&mut self) {
        self.patience = SILENCE_AFTER_NOTICE;
    }

    /// Each 20 ms: silence, or the telephone's noise, if it has sent nothing for long. True if it was that.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        missed: u32,
        noise: Option<&mut LineNoise>,
        sink: &mut impl Sink,
    ) -> bool {
        match self.last_speech {
            Some(last) if now.saturating_since(last) < self.patience => return false,
            Some(last) => {
                // Its last packet ended about when it came; this frame of silence ends now.
                let waited = now.saturating_since(last).saturating_sub(TICK);
                self.jump(samples_of(waited, self.rate_hz));
                self.last_speech = None;
            }
            None if missed > 0 => self.jump(missed.saturating_mul(self.frame_samples as u32)),
            None => {}
        }
        self.counters.silence += 1;
        let mut silence = [0; MAX_FRAME_SAMPLES];
        let silence = &mut silence[..self.frame_samples];
        if let Some(noise) = noise {
            noise.fill(silence);
        }
        self.send_frame(silence, None, false, sink);
        true
    }

    /// What Galene reports of our packets.
    pub(super) fn set_loss(&mut self, percent: u8) {
        if percent != self.loss_percent
            && let Encoder::Opus(encoder) = &mut self.encoder
        {
            self.loss_percent = percent;
            let bitrate_bps = match (percent > CONGESTED_ABOVE_PERCENT, self.frame_samples > FRAME_SAMPLES) {
                (true, true) => CONGESTED_WIDE_BITRATE_BPS,
                (true, false) => CONGESTED_BITRATE_BPS,
                (false, true) => WIDE_OPUS_BITRATE_BPS,
                (false, false) => OPUS_BITRATE_BPS,
            };
            // libopus refuses no value of these.
            let _ = encoder.set_fec(percent > FEC_ABOVE_PERCENT, percent);
            let _ = encoder.set_bitrate(bitrate_bps);
        }
    }

    /// Time that is not sent. A gathered piece of a frame goes with it.
    fn jump(&mut self, samples: u32) {
        let samples = samples.wrapping_add(self.gathered_samples as u32);
        self.gathered_samples = 0;
        self.timestamp = self.timestamp.wrapping_add(self.ticks(samples));
        self.marker = true;
    }

    /// So many samples on the RTP clock.
    fn ticks(&self, samples: u32) -> u32 {
        (u64::from(samples) * u64::from(self.clock_rate_hz) / u64::from(self.rate_hz)) as u32
    }

    /// Sends the telephone's `own` packet, or else what becomes of `frame`; or nothing, in a pause.
    fn send_frame(&mut self, frame: &[i16], own: Option<&[u8]>, is_talking: bool, sink: &mut impl Sink) {
        let turn = match self.encoder {
            Encoder::Opus(_) => self.dtx.judge(frame, is_talking),
            Encoder::G722 { .. } | Encoder::G711 { .. } => Turn::Send,
        };
        let mut packet = [0; HEADER_BYTES + opus::MAX_FRAME_BYTES];
        let payload = &mut packet[HEADER_BYTES..];
        let len = match turn {
            Turn::Send | Turn::Resume => self.code(frame, own, payload),
            Turn::Settle => {
                self.is_stale = true;
                self.code(frame, own, payload)
            }
            Turn::Pause => {
                payload[0] = self.table_of_contents;
                1
            }
            Turn::Leave => 0,
        };
        if matches!(self.encoder, Encoder::Opus(_)) && len > 1 {
            self.dtx.sent(&payload[..len], frame.len());
            self.table_of_contents = payload[0] & !FRAME_COUNT_BITS;
        }
        self.marker |= turn == Turn::Resume;
        self.send_packet(&mut packet, len, sink);
        self.timestamp = self.timestamp.wrapping_add(self.ticks(frame.len() as u32));
    }

    /// The next packet's content, and its length.
    fn code(&mut self, frame: &[i16], own: Option<&[u8]>, payload: &mut [u8]) -> usize {
        if let Some(own) = own {
            let len = own.len().min(payload.len());
            payload[..len].copy_from_slice(&own[..len]);
            (self.forwarded_samples, self.is_stale) = (Some(frame.len() as u32), true);
            return len;
        }
        self.forwarded_samples = None;
        if std::mem::take(&mut self.is_stale) {
            self.encoder.reset();
        }
        self.encoder.encode(frame, payload)
    }

    fn send_packet(&mut self, packet: &mut [u8], payload_bytes: usize, sink: &mut impl Sink) {
        if payload_bytes == 0 {
            return;
        }
        let header = RtpHeader {
            marker: std::mem::take(&mut self.marker),
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        packet[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        if sink.packet(self.leg, &packet[..HEADER_BYTES + payload_bytes]) {
            self.counters.sent += 1;
        } else {
            self.counters.dropped += 1;
        }
    }
}

fn samples_of(duration: Duration, rate_hz: u32) -> u32 {
    u32::try_from(duration.as_micros() * u128::from(rate_hz) / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::control::{MixEvent, Retired};
    use crate::wire::rtp::RtpPacket;

    #[derive(Default)]
    struct Packets(Vec<(RtpHeader, usize)>);

    impl Sink for Packets {
        fn packet(&mut self, _: LegKey, packet: &[u8]) -> bool {
            let RtpPacket { header, payload } = RtpPacket::parse(packet).unwrap();
            self.0.push((header, payload.len()));
            true
        }
        fn event(&mut self, _: MixEvent) {}
        fn retire(&mut self, _: Retired) {}
    }

    fn up(codec: RoomCodec) -> Up {
        of(TelephoneCodec::Pcmu, codec)
    }

    fn of(telephone: TelephoneCodec, codec: RoomCodec) -> Up {
        let setup = UpSetup {
            leg: LegKey(1),
            telephone,
            codec,
            payload_type: 9,
            ssrc: 1,
            first_sequence: 65_535,
            first_timestamp: 0,
        };
        Up::new(&setup).unwrap()
    }

    #[test]
    fn a_group_without_opus_gets_its_own_codec_with_that_clock() {
        for codec in [RoomCodec::G722, RoomCodec::Pcmu, RoomCodec::Pcma] {
            let (mut up, mut sink) = (up(codec), Packets::default());
            for packet in 0..3 {
                up.speak(Instant::from_us(packet * 20_000), &[1000; FRAME_SAMPLES], true, &mut sink);
            }
            let steps: Vec<_> =
                sink.0.iter().map(|(header, len)| (header.timestamp, *len, header.payload_type)).collect();
            assert_eq!(steps, [(0, 160, 9), (160, 160, 9), (320, 160, 9)], "{codec:?}");
        }
    }

    #[test]
    fn reported_loss_makes_the_packets_carry_copies() {
        let (mut up, mut sink) = (up(RoomCodec::Opus), Packets::default());
        let mut bytes = [0; 2];
        for (percent, bytes) in [0, 20].into_iter().zip(&mut bytes) {
            up.set_loss(percent);
            sink.0.clear();
            for packet in 0..100_u64 {
                let pcm: Vec<i16> = (0..160).map(|n| ((n + packet * 37) * 211 % 6000) as i16 - 3000).collect();
                up.speak(Instant::from_us(packet * 20_000), &pcm, true, &mut sink);
            }
            *bytes = sink.0.iter().map(|sent| sent.1).sum();
        }
        assert_ne!(bytes[0], bytes[1]);
    }
}
