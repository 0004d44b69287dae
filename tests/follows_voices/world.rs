//! A member's packets through the engine to a telephone.

use std::time::Duration;

use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::time::Instant;
use galene_sip::wire::rtp::{RtpHeader, RtpPacket};
use lab::opus::{Encoder, EncoderConfig, FRAME_SAMPLES};
use lab::telephone::Codec;

use super::telephone::telephone;

const ROOM: RoomKey = RoomKey(1);
const CALLER: CallerKey = CallerKey(1);
const STREAM: StreamKey = StreamKey(1);
/// An Opus packet of no more bytes announces a pause; only the first of several is sent.
const PAUSE_BYTES: usize = 2;

/// What a telephone of the room heard.
pub(crate) struct Room {
    /// At 8 kHz.
    pub(crate) samples: Vec<i16>,
    pub(crate) skipped: u32,
    /// Ticks for which the member's socket was read.
    pub(crate) looks: usize,
}

#[derive(Default)]
struct Ear {
    samples: Vec<i16>,
    stats: StreamStats,
}

impl Sink for Ear {
    fn packet(&mut self, _: LegKey, packet: &[u8]) -> bool {
        let packet = RtpPacket::parse(packet).expect("the engine sends RTP");
        self.samples.extend(packet.payload.iter().map(|byte| Codec::Pcmu.decode(*byte)));
        true
    }

    fn event(&mut self, _: MixEvent) {}

    fn retire(&mut self, retired: Retired) {
        if let Retired::Stream(stream) = retired {
            self.stats = stream.stats();
        }
    }
}

/// What a browser sends: a packet every 20 ms, `None` in the pauses of DTX.
pub(crate) fn encode(samples: &[f64], config: EncoderConfig) -> Vec<Option<Vec<u8>>> {
    let mut encoder = Encoder::new(config).expect("libopus has memory");
    let pcm: Vec<i16> = samples.iter().map(|sample| (sample * 32_768.0).round() as i16).collect();
    let mut pauses = false;
    let frames = pcm.chunks_exact(FRAME_SAMPLES);
    frames
        .map(|frame| {
            let packet = encoder.encode(frame);
            let paused = std::mem::replace(&mut pauses, packet.len() <= PAUSE_BYTES);
            (!(paused && pauses)).then_some(packet)
        })
        .collect()
}

impl Room {
    /// One packet a tick on a perfect network, into a room of one telephone. Read as the net thread does: before each tick,
    /// unless the voice has been played ahead of it.
    pub(crate) fn hear(packets: &[Option<Vec<u8>>], always_decode: bool) -> Self {
        let (mut ear, mut engine) = (Ear::default(), Engine::new());
        let telephone = telephone(TelephoneCodec::Pcmu, 20);
        let caller = CallerSetup {
            key: CALLER,
            leg: LegKey(1),
            telephone,
            ssrc: 1,
            first_sequence: 0,
            first_timestamp: 0,
            agc: false,
        };
        let setup = StreamSetup { key: STREAM, codecs: vec![(111, RoomCodec::Opus)], always_decode };
        let stream = Box::new(Stream::new(setup).expect("libopus has memory"));
        engine.handle_command(Command::OpenRoom(Box::new(galene_sip::media::control::Room::new(ROOM))), &mut ear);
        engine.handle_command(
            Command::AddCaller { room: ROOM, caller: Box::new(Caller::new(&caller).expect("libopus has memory")) },
            &mut ear,
        );
        engine.handle_command(Command::StartTelephone(CALLER), &mut ear);
        engine.handle_command(Command::AddStream { room: ROOM, stream }, &mut ear);
        let (mut sequence_number, mut looks, mut unread) = (65_500_u16, 0, Vec::new());
        for (tick, packet) in packets.iter().enumerate() {
            let now = Instant::from_us(1_000_000) + Duration::from_millis(20) * tick as u32;
            if let Some(payload) = packet {
                let timestamp = tick as u32 * FRAME_SAMPLES as u32;
                let header = RtpHeader { marker: false, payload_type: 111, sequence_number, timestamp, ssrc: 7 };
                sequence_number = sequence_number.wrapping_add(1);
                unread.push((now, [&header.to_bytes()[..], payload].concat()));
            }
            if !engine.is_ahead(STREAM) {
                looks += 1;
                unread.drain(..).for_each(|(at, packet)| engine.handle_stream_packet(at, STREAM, &packet));
            }
            engine.tick(now + Duration::from_millis(2), 0, &mut ear);
        }
        engine.handle_command(Command::CloseRoom(ROOM), &mut ear);
        Self { samples: ear.samples, skipped: ear.stats.skipped, looks }
    }
}

pub(crate) fn level_dbfs(samples: &[i16]) -> f64 {
    lab::pcm::level_dbfs(samples)
}
