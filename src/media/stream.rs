//! One room voice: packets of a down stream in, a frame for the bus at each tick.
//!
//! Owns: the jitter buffer's questions answered with a decoder, the cut into 20 ms frames, and, for a voice that is silent,
//! what its background was like. Does not own: the delay (`jitter`), which packets are worth decoding (`attention`), the
//! noise made in place of those that are not (`comfort_noise`), decryption (`io::net`).

use super::attention::{Attention, Outcome};
use super::comfort_noise::Background;
use super::control::{RoomCodec, StreamKey, StreamSetup, StreamStats, TICK};
use super::decoders::{Decoders, MAX_PACKET_SAMPLES};
use super::jitter::{Arrival, JitterBuffer, Playout, Pushed};
use super::mixer::{BUS_FRAME_SAMPLES, BUS_RATE_HZ, BusFrame};
use super::opus::{self, OpusError};
use super::pace::{Pace, Standing};
use super::simd;
use crate::time::Instant;
use crate::wire::rtp::RtpPacket;

/// The jitter buffer's clock: Opus's own. Timestamps of 8 kHz codecs are multiplied to it.
const CLOCK_HZ: u32 = opus::RTP_CLOCK_HZ;

/// Clock units of one sample on the bus.
const TICKS_A_SAMPLE: u32 = CLOCK_HZ / BUS_RATE_HZ;

/// A pause's background is heard for so long without a packet: senders refresh it at least every 400 ms, most of them.
const MAX_PAUSE_TICKS: u32 = 50;

/// Answers of the jitter buffer for one frame: eight of the shortest packets, and as many decisions between them.
const PULLS_A_TICK: usize = 16;

/// A silent voice is played ahead by so many ticks at most; its socket is not looked at for so long.
const MAX_TICKS_AHEAD: u8 = 3;

/// What a voice brings to a tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Played {
    /// A frame.
    Sound,
    /// Nothing but its background, which is not in the frame.
    Background(Background),
    /// Nothing.
    Nothing,
}

/// One room voice. Built by signalling once its offer is answered.
#[derive(Debug)]
pub struct Stream {
    setup: StreamSetup,
    jitter: JitterBuffer,
    /// What the latest packet was coded in; streams do not change it in practice.
    format: Option<(u8, RoomCodec)>,
    decoders: Decoders,
    /// Decoded samples that no tick has taken yet.
    decoded: [i16; BUS_FRAME_SAMPLES + MAX_PACKET_SAMPLES],
    decoded_samples: usize,
    pace: Pace,
    attention: Attention,
    /// Ticks without a packet since the last one.
    idle_ticks: u32,
    stats: StreamStats,
}

impl Stream {
    /// Builds the decoders.
    ///
    /// # Errors
    /// libopus has no memory.
    pub fn new(setup: StreamSetup) -> Result<Self, OpusError> {
        let decoders = Decoders::new(&setup)?;
        let is_undivided = setup.always_decode;
        Ok(Self {
            setup,
            jitter: JitterBuffer::new(CLOCK_HZ),
            format: None,
            decoders,
            decoded: [0; BUS_FRAME_SAMPLES + MAX_PACKET_SAMPLES],
            decoded_samples: 0,
            pace: Pace::new(BUS_RATE_HZ),
            attention: Attention::new(is_undivided),
            idle_ticks: 0,
            stats: StreamStats::default(),
        })
    }

    /// Its name.
    pub const fn key(&self) -> StreamKey {
        self.setup.key
    }

    /// What happened to its packets so far.
    pub fn stats(&self) -> StreamStats {
        let jitter = self.jitter.stats();
        let discarded = jitter.late + jitter.duplicates + jitter.unusable;
        let scaled = self.pace.scaled();
        StreamStats {
            target_ms: self.jitter.target_us() as u32 / 1000,
            shortened_ms: scaled.shortened as u32 / (BUS_RATE_HZ / 1000),
            lengthened_ms: scaled.lengthened as u32 / (BUS_RATE_HZ / 1000),
            received: u32::try_from(jitter.received).unwrap_or(u32::MAX),
            discarded: self.stats.discarded.saturating_add(u32::try_from(discarded).unwrap_or(u32::MAX)),
            ..self.stats
        }
    }

    /// A packet, decrypted; it waits for its turn.
    pub(super) fn handle_packet(&mut self, arrival: Instant, bytes: &[u8]) {
        let parsed = RtpPacket::parse(bytes).ok();
        let known = parsed.and_then(|packet| Some((packet, self.format_of(packet.header.payload_type)?)));
        let Some((RtpPacket { header, payload }, format)) = known else {
            self.stats.discarded += 1;
            return;
        };
        self.format = Some(format);
        let codec = format.1;
        let clock_factor = CLOCK_HZ / codec.clock_rate_hz();
        let (duration_ticks, has_fec) = match codec {
            RoomCodec::Opus => match opus::packet::Info::parse(payload) {
                Ok(info) => (info.duration_ticks(), info.has_fec),
                // The jitter buffer counts it as unusable.
                Err(_) => (0, false),
            },
            RoomCodec::G722 | RoomCodec::Pcmu | RoomCodec::Pcma => (payload.len() as u32 * clock_factor, false),
        };
        let packet = Arrival {
            at: arrival,
            sequence_number: header.sequence_number,
            timestamp: header.timestamp.wrapping_mul(clock_factor),
            duration_ticks: if duration_ticks as usize > MAX_PACKET_SAMPLES * TICKS_A_SAMPLE as usize {
                0
            } else {
                duration_ticks
            },
            has_fec,
            payload,
        };
        match self.jitter.push(&packet) {
            Pushed::Kept | Pushed::Late | Pushed::Duplicate | Pushed::Unusable => {}
        }
    }

    /// That of the latest packet is at hand.
    fn format_of(&self, payload_type: u8) -> Option<(u8, RoomCodec)> {
        let is_it = |format: &(u8, RoomCodec)| format.0 == payload_type;
        self.format.filter(is_it).or_else(|| self.setup.codecs.iter().copied().find(is_it))
    }

    /// The next frame, if there is one.
    pub(super) fn play(&mut self, now: Instant, frame: &mut BusFrame) -> Played {
        if self.pass_over(now) {
            return self.silence();
        }
        self.decode_a_frame(now);
        self.keep_pace(now);
        self.decode_a_frame(now);
        let taken = self.decoded_samples.min(BUS_FRAME_SAMPLES);
        frame[..taken].copy_from_slice(&self.decoded[..taken]);
        frame[taken..].fill(0);
        self.decoded.copy_within(taken..self.decoded_samples, 0);
        self.decoded_samples -= taken;
        self.idle_ticks = if taken > 0 { 0 } else { self.idle_ticks.saturating_add(1) };
        if taken > 0 && (simd::kernels().energy)(frame) > 0 {
            return Played::Sound;
        }
        let goes_on = taken > 0 || self.attention.is_paused() && self.idle_ticks < MAX_PAUSE_TICKS;
        if goes_on { self.silence() } else { Played::Nothing }
    }

    /// After [`Self::play`] at `now`: plays on while the packets of the next ticks are here and none of them would be decoded.
    /// Returns how many ticks that are. Each of them brings the background, whatever comes meanwhile, and need not be asked for.
    pub(super) fn play_ahead(&mut self, now: Instant) -> u8 {
        let is_passed = |ahead: &u8| self.pass_over(now + TICK * u32::from(*ahead));
        (1..=MAX_TICKS_AHEAD).take_while(is_passed).count() as u8
    }

    /// Plays the tick at `now` without a sample being touched, if that is all there is to do: its packet is here, is not worth
    /// decoding, and the delay is as it should be.
    fn pass_over(&mut self, now: Instant) -> bool {
        const FRAME_TICKS: u32 = BUS_FRAME_SAMPLES as u32 * TICKS_A_SAMPLE;
        let (0, Some((_, codec)), Some(standing)) = (self.decoded_samples, self.format, self.standing(now)) else {
            return false;
        };
        let Some((payload, FRAME_TICKS)) = self.jitter.next_in_run(now) else { return false };
        if !self.pace.is_content(&standing) || !self.attention.skip(codec, payload, FRAME_TICKS) {
            return false;
        }
        self.jitter.pull(now);
        self.pace.pass();
        self.stats.skipped += 1;
        self.idle_ticks = 0;
        true
    }

    /// What a tick without sound brings: the background, or nothing before it is known.
    pub(super) fn silence(&self) -> Played {
        self.attention.background().map_or(Played::Nothing, Played::Background)
    }

    /// Decodes until a frame is there, or nothing more is to be had.
    fn decode_a_frame(&mut self, now: Instant) {
        for _ in 0..PULLS_A_TICK {
            if self.decoded_samples >= BUS_FRAME_SAMPLES || !self.decode_more(now) {
                break;
            }
        }
    }

    /// Brings the delay nearer to what the network needs.
    fn keep_pace(&mut self, now: Instant) {
        if self.decoded_samples < BUS_FRAME_SAMPLES {
            return;
        }
        if let Some(standing) = self.standing(now) {
            self.decoded_samples = self.pace.adjust(&standing, &mut self.decoded, self.decoded_samples);
        }
    }

    /// `None` while none of its packets plays.
    fn standing(&self, now: Instant) -> Option<Standing> {
        let us = |samples: i64, rate_hz: u32| samples * 1_000_000 / i64::from(rate_hz);
        Some(Standing {
            delay_us: self.jitter.delay_us(now)? + us(self.decoded_samples as i64, BUS_RATE_HZ),
            target_us: self.jitter.target_us().cast_signed(),
            packet_us: us(i64::from(self.jitter.packet_ticks()), CLOCK_HZ),
        })
    }

    /// Asks the jitter buffer once; false if there is nothing more for this tick.
    fn decode_more(&mut self, now: Instant) -> bool {
        let codec = self.format.map_or(RoomCodec::Opus, |format| format.1);
        let space = &mut self.decoded[self.decoded_samples..];
        let samples = match self.jitter.pull(now) {
            Playout::Empty => return false,
            Playout::Packet { payload, duration_ticks } => {
                let samples = (duration_ticks / TICKS_A_SAMPLE) as usize;
                let space = &mut space[..samples.min(MAX_PACKET_SAMPLES)];
                match self.attention.decode(&mut self.decoders, codec, payload, space) {
                    Outcome::Decoded => self.stats.decoded += 1,
                    Outcome::Skipped => self.stats.skipped += 1,
                }
                space.len()
            }
            Playout::Fec { next, duration_ticks } => {
                let samples = (duration_ticks / TICKS_A_SAMPLE) as usize;
                let space = &mut space[..samples.min(MAX_PACKET_SAMPLES)];
                self.stats.recovered += 1;
                self.decoders.recover(codec, next, space);
                space.len()
            }
            Playout::Conceal { duration_ticks } => {
                let samples = (duration_ticks / TICKS_A_SAMPLE) as usize;
                let space = &mut space[..samples.min(MAX_PACKET_SAMPLES)];
                self.stats.concealed += 1;
                self.decoders.conceal(codec, space);
                space.len()
            }
        };
        self.decoded_samples += samples;
        samples > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::g711::Law;
    use crate::media::g722;
    use crate::wire::rtp::RtpHeader;
    use std::time::Duration;

    /// Plays what `sound` makes for as many ticks through Opus, and returns the stream and the peak of each tick.
    fn play(always_decode: bool, ticks: usize, mut sound: impl FnMut(usize) -> f32) -> (Stream, Vec<u16>) {
        let setup = StreamSetup { key: StreamKey(1), codecs: vec![(111, RoomCodec::Opus)], always_decode };
        let mut stream = Stream::new(setup).unwrap();
        let mut encoder = opus::Encoder::new(48_000, 5, 32_000).unwrap();
        let (mut frame, mut peaks) = ([0; BUS_FRAME_SAMPLES], Vec::new());
        for tick in 0..ticks {
            let pcm: Vec<i16> = (tick * 960..(tick + 1) * 960).map(|n| sound(n) as i16).collect();
            let mut payload = [0; 1275];
            let len = encoder.encode(&pcm, &mut payload).unwrap();
            let header = RtpHeader {
                marker: false,
                payload_type: 111,
                sequence_number: tick as u16,
                timestamp: tick as u32 * 960,
                ssrc: 1,
            };
            let now = Instant::from_us(1_000_000) + Duration::from_millis(20) * tick as u32;
            stream.handle_packet(now, &[&header.to_bytes()[..], &payload[..len]].concat());
            let heard = stream.play(now + Duration::from_millis(2), &mut frame) == Played::Sound;
            peaks.push(if heard { frame.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0) } else { 0 });
        }
        (stream, peaks)
    }

    fn noise() -> impl FnMut(usize) -> f32 {
        let mut state = 1_u32;
        move |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as f32 / 32_768.0 - 1.0
        }
    }

    #[test]
    fn a_silent_rooms_noise_is_not_decoded_but_for_one_packet_in_25() {
        let mut noise = noise();
        let (stream, _) = play(false, 500, |n| noise(n) * 33.0);
        assert!((460..=480).contains(&stream.stats().skipped), "{:?}", stream.stats());
        let mut noise = self::noise();
        let (stream, _) = play(true, 500, |n| noise(n) * 33.0);
        assert_eq!(stream.stats().skipped, 0);
    }

    #[test]
    fn a_voice_after_long_silence_is_heard_from_its_first_frame() {
        let (stream, peaks) = play(false, 300, |n| {
            let speaks = n >= 200 * 960;
            // A vowel: 150 Hz and its harmonics.
            if speaks {
                (1..12).map(|k| (n as f32 * k as f32 * 150.0 / 48_000.0 * std::f32::consts::TAU).sin()).sum::<f32>()
                    * 1500.0
            } else {
                0.0
            }
        });
        assert!(stream.stats().skipped > 100);
        let onset = peaks.iter().position(|&peak| peak > 1000).unwrap();
        assert!((200..=202).contains(&onset), "{onset}");
    }

    #[test]
    fn a_loud_noise_without_a_voice_flag_is_never_skipped() {
        let mut noise = noise();
        let (stream, _) = play(false, 500, |n| noise(n) * 3000.0);
        assert_eq!(stream.stats().skipped, 0);
    }

    /// Sixty packets of a whistle by two links: which packets come by each, and how much later by the second.
    fn play_by_two_links(
        first: std::ops::Range<u16>,
        second: std::ops::Range<u16>,
        lag_us: u64,
    ) -> (StreamStats, Vec<[i16; BUS_FRAME_SAMPLES]>) {
        let setup = StreamSetup { key: StreamKey(1), codecs: vec![(111, RoomCodec::Opus)], always_decode: true };
        let mut stream = Stream::new(setup).unwrap();
        let mut encoder = opus::Encoder::new(48_000, 5, 32_000).unwrap();
        let mut under_way = Vec::new();
        for sequence in 0..60_u16 {
            let from = usize::from(sequence) * 960;
            let pcm: Vec<i16> = (from..from + 960).map(|n| ((n as f32 / 20.0).sin() * 8000.0) as i16).collect();
            let mut payload = [0; 1275];
            let len = encoder.encode(&pcm, &mut payload).unwrap();
            let sent_us = 1_000_000 + u64::from(sequence) * 20_000;
            for (range, ssrc, at_us) in [(&first, 1, sent_us), (&second, 2, sent_us + lag_us)] {
                let timestamp = u32::from(sequence) * 960;
                let sequence_number = sequence.wrapping_add(65_500);
                let header = RtpHeader { marker: false, payload_type: 111, sequence_number, timestamp, ssrc };
                if range.contains(&sequence) {
                    under_way.push((at_us, [&header.to_bytes()[..], &payload[..len]].concat()));
                }
            }
        }
        under_way.sort_by_key(|packet| packet.0);
        let mut frames = Vec::new();
        for tick in 0..63_u64 {
            let now_us = 1_002_000 + tick * 20_000;
            for (at_us, packet) in under_way.extract_if(.., |packet| packet.0 <= now_us) {
                stream.handle_packet(Instant::from_us(at_us), &packet);
            }
            let mut frame = [0; BUS_FRAME_SAMPLES];
            stream.play(Instant::from_us(now_us), &mut frame);
            frames.push(frame);
        }
        (stream.stats(), frames)
    }

    #[test]
    fn while_one_listener_takes_over_from_another_both_links_packets_are_one_voice() {
        let (_, by_one_link) = play_by_two_links(0..60, 0..0, 0);
        for lag_us in [0, 300, 15_000, 45_000] {
            let (stats, by_two_links) = play_by_two_links(0..40, 20..60, lag_us);
            assert_eq!((stats.received, stats.discarded), (60, 20), "after {lag_us} µs: {stats:?}");
            // Nobody hears the change, but for what a slower way costs once it is the only one.
            let unheard = if lag_us < 1000 { 60 } else { 40 };
            assert!(by_one_link[..unheard] == by_two_links[..unheard], "after {lag_us} µs");
        }
    }

    #[test]
    fn packets_of_an_unknown_payload_type_and_rubbish_are_counted() {
        let setup = StreamSetup { key: StreamKey(1), codecs: vec![(0, RoomCodec::Pcmu)], always_decode: false };
        let mut stream = Stream::new(setup).unwrap();
        stream.handle_packet(Instant::ZERO, &[1, 2, 3]);
        let header = RtpHeader { marker: false, payload_type: 8, sequence_number: 1, timestamp: 1, ssrc: 1 };
        stream.handle_packet(Instant::ZERO, &[&header.to_bytes()[..], &[0x55; 160]].concat());
        assert_eq!((stream.stats().received, stream.stats().discarded), (0, 2));
    }

    #[test]
    fn every_codec_of_a_group_is_heard() {
        for codec in [RoomCodec::G722, RoomCodec::Pcmu, RoomCodec::Pcma] {
            let setup = StreamSetup { key: StreamKey(1), codecs: vec![(9, codec)], always_decode: false };
            let mut stream = Stream::new(setup).unwrap();
            let mut g722 = g722::Encoder::new();
            let (mut frame, mut peak) = ([0; BUS_FRAME_SAMPLES], 0);
            for tick in 0..50_u16 {
                let tone =
                    |n: usize, rate: f32| ((n as f32 / rate * 440.0 * std::f32::consts::TAU).sin() * 8000.0) as i16;
                let narrow: Vec<i16> = (0..160).map(|n| tone(usize::from(tick) * 160 + n, 8000.0)).collect();
                let wide: Vec<i16> = (0..320).map(|n| tone(usize::from(tick) * 320 + n, 16_000.0)).collect();
                let mut payload = [0; 160];
                match codec {
                    RoomCodec::G722 => g722.encode(&wide, &mut payload),
                    RoomCodec::Pcma => Law::A.encode(&narrow, &mut payload),
                    RoomCodec::Pcmu | RoomCodec::Opus => Law::Mu.encode(&narrow, &mut payload),
                };
                let timestamp = u32::from(tick) * 160;
                let header = RtpHeader { marker: false, payload_type: 9, sequence_number: tick, timestamp, ssrc: 1 };
                let now = Instant::from_us(1_000_000) + Duration::from_millis(20) * u32::from(tick);
                stream.handle_packet(now, &[&header.to_bytes()[..], &payload].concat());
                if stream.play(now + Duration::from_millis(2), &mut frame) == Played::Sound {
                    peak = frame.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
                }
            }
            assert!((7000..9000).contains(&peak), "{codec:?}: {peak}");
        }
    }
}
