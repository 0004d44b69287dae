//! Speech through the engine in virtual time: a telephone or a member on one side of a bad network, the judge's ear on the
//! other.

use std::sync::Arc;
use std::time::Duration;

use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::time::Instant;
use galene_sip::wire::rtp::{RtpHeader, RtpPacket};
use lab::member::{HeardPacket, Recording};
use lab::opus::{Encoder, EncoderConfig};
use lab::telephone::Codec;

use crate::network::{BEGIN_MS, Delivery, Network, Oddity};
use crate::telephone::telephone;

pub(crate) const ROOM: RoomKey = RoomKey(1);
pub(crate) const SPEAKER: CallerKey = CallerKey(1);
const LISTENER: CallerKey = CallerKey(2);
pub(crate) const STREAM: StreamKey = StreamKey(1);
const SPEAKER_LEG: LegKey = LegKey(1);
pub(crate) const LISTENER_LEG: LegKey = LegKey(2);
const UP_LEG: LegKey = LegKey(3);
pub(crate) const OPUS: u8 = 111;
/// Where the ticks lie between packets: away from either.
pub(crate) const TICK_PHASE_MS: u64 = 7;
pub(crate) const TICK_MS: u64 = 20;
/// When the net thread looks at the sockets of Galene: two before the tick.
pub(crate) const LOOK_PHASE_MS: u64 = TICK_PHASE_MS - 2;
/// A piece without a sample above this is a pause: the floor of noise has fewer.
const PAUSE_PEAK: u16 = 120;

/// The three ways through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From a telephone to a member of the room.
    Up,
    /// From a member to a telephone.
    Down,
    /// From a telephone to another one.
    Local,
}

/// What became of the speech.
pub(crate) struct Heard {
    /// At 8 kHz, from when it was said.
    pub(crate) samples: Vec<i16>,
    /// Packets or frames made up, of a hundred that were said.
    pub(crate) concealed_percent: f64,
}

/// What was said, at the rates that the ways need.
pub(crate) struct Said {
    pub(crate) at_8k: Vec<i16>,
    pub(crate) at_48k: Vec<i16>,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Local => "local",
        }
    }

    /// Through that network, which lies before the gateway.
    pub(crate) fn carry(self, said: &Said, network: Network) -> Heard {
        match self {
            Self::Up => up(&said.at_8k, network),
            Self::Down => down(&said.at_48k, network, EncoderConfig::default()),
            Self::Local => local(&said.at_8k, network),
        }
    }
}

#[derive(Default)]
pub(crate) struct Ear {
    pub(crate) now_us: u64,
    up: Vec<HeardPacket>,
    down: Vec<(u64, Vec<u8>)>,
    pub(crate) concealed: u32,
}

impl Sink for Ear {
    fn packet(&mut self, leg: LegKey, packet: &[u8]) -> bool {
        let RtpPacket { header, payload } = RtpPacket::parse(packet).expect("the engine sends RTP");
        if leg == UP_LEG {
            self.up.push(HeardPacket {
                at_us: self.now_us,
                payload_type: header.payload_type,
                sequence: header.sequence_number,
                timestamp: header.timestamp,
                marker: header.marker,
                payload: Arc::from(payload),
            });
        } else if leg == LISTENER_LEG {
            self.down.push((self.now_us, payload.to_vec()));
        }
        true
    }

    fn event(&mut self, _: MixEvent) {}

    fn retire(&mut self, retired: Retired) {
        match retired {
            Retired::Caller(caller) if caller.key() == SPEAKER => self.concealed = caller.stats().concealed,
            Retired::Stream(stream) => self.concealed = stream.stats().concealed,
            Retired::Caller(_) | Retired::Room(_) | Retired::Up(_) | Retired::Line(_) => {}
        }
    }
}

impl Ear {
    /// What the listening telephone heard, from when it was said.
    pub(crate) fn heard_by_telephone(&self) -> Vec<i16> {
        let bytes = self.down.iter().flat_map(|(_, payload)| payload);
        // Continuous from the first tick on.
        let first_us = self.down.first().map_or(0, |first| first.0);
        bytes.map(|byte| Codec::Pcmu.decode(*byte)).skip((BEGIN_MS * 8 - first_us * 8 / 1000) as usize).collect()
    }
}

/// A room with a telephone that speaks and one that listens.
pub(crate) fn engine(ear: &mut impl Sink) -> Engine {
    let mut engine = Engine::new();
    let telephone = telephone(TelephoneCodec::Pcmu, 20);
    engine.handle_command(Command::OpenRoom(Box::new(Room::new(ROOM))), ear);
    for (key, leg) in [(SPEAKER, SPEAKER_LEG), (LISTENER, LISTENER_LEG)] {
        let setup = CallerSetup { key, leg, telephone, ssrc: key.0, first_sequence: 0, first_timestamp: 0, agc: true };
        engine.handle_command(
            Command::AddCaller { room: ROOM, caller: Box::new(Caller::new(&setup).expect("libopus has memory")) },
            ear,
        );
        engine.handle_command(Command::StartTelephone(key), ear);
    }
    engine
}

/// A member's voice comes into the room.
pub(crate) fn room_voice(codec: RoomCodec) -> Command {
    let payload_type = if codec == RoomCodec::Opus { OPUS } else { 0 };
    let setup = StreamSetup { key: STREAM, codecs: vec![(payload_type, codec)], always_decode: false };
    let stream = Stream::new(setup).expect("libopus has memory");
    Command::AddStream { room: ROOM, stream: Box::new(stream) }
}

/// Runs the clock over everything that arrives, and two seconds more.
fn run(
    engine: &mut Engine,
    ear: &mut Ear,
    deliveries: &[Delivery],
    mut deliver: impl FnMut(&mut Engine, &mut Ear, &Delivery),
) {
    let mut waiting = deliveries.iter().peekable();
    let end_ms = deliveries.last().map_or(0, |last| last.at_ms) + 2000;
    for now_ms in 0..end_ms {
        let now = at(now_ms);
        ear.now_us = now.as_us();
        while let Some(delivery) = waiting.next_if(|delivery| delivery.at_ms <= now_ms) {
            deliver(engine, ear, delivery);
        }
        if engine.next_timeout().is_some_and(|deadline| deadline.at <= now) {
            engine.handle_timeout(now, ear);
        }
        if now_ms % TICK_MS == TICK_PHASE_MS {
            engine.tick(now, 0, ear);
        }
    }
    engine.handle_command(Command::CloseRoom(ROOM), ear);
}

pub(crate) fn at(ms: u64) -> Instant {
    Instant::from_us(0) + Duration::from_millis(ms)
}

fn packet(header: RtpHeader, payload_type: u8, payload: &[u8]) -> Vec<u8> {
    [&RtpHeader { payload_type, ..header }.to_bytes()[..], payload].concat()
}

/// In which pieces somebody speaks.
fn speaks(pieces: &[&[i16]]) -> Vec<bool> {
    pieces.iter().map(|piece| piece.iter().any(|sample| sample.unsigned_abs() > PAUSE_PEAK)).collect()
}

/// A telephone speaks.
fn telephone_speaks(engine: &mut Engine, ear: &mut Ear, said_8k: &[i16], network: Network) -> f64 {
    let pieces: Vec<&[i16]> = said_8k.chunks_exact(8 * network.packet_ms() as usize).collect();
    let deliveries = network.carry(&speaks(&pieces), 8);
    run(engine, ear, &deliveries, |engine, ear, delivery| {
        let bytes = packet(delivery.header, 0, &mu_law(pieces[delivery.piece]));
        engine.handle_telephone_packet(at(delivery.at_ms), SPEAKER, &bytes, ear);
    });
    f64::from(ear.concealed) * 100.0 / pieces.len() as f64
}

/// To a member who waits for every packet.
fn up(said_8k: &[i16], network: Network) -> Heard {
    let mut ear = Ear::default();
    let mut engine = engine(&mut ear);
    let setup = UpSetup {
        leg: UP_LEG,
        telephone: TelephoneCodec::Pcmu,
        codec: RoomCodec::Opus,
        payload_type: OPUS,
        ssrc: 2,
        first_sequence: 65_000,
        first_timestamp: 5,
    };
    let up = Up::new(&setup).expect("libopus has memory");
    engine.handle_command(Command::SetUp { caller: SPEAKER, up: Some(Box::new(up)) }, &mut ear);
    let concealed_percent = telephone_speaks(&mut engine, &mut ear, said_8k, network);
    let recording = Recording { packets: ear.up, ..Recording::default() };
    Heard { samples: recording.sound(BEGIN_MS * 1000).resampled(8000).samples, concealed_percent }
}

/// To another telephone in the room.
fn local(said_8k: &[i16], network: Network) -> Heard {
    let mut ear = Ear::default();
    let mut engine = engine(&mut ear);
    engine.handle_command(Command::SetPresent { caller: SPEAKER, present: true }, &mut ear);
    let concealed_percent = telephone_speaks(&mut engine, &mut ear, said_8k, network);
    Heard { samples: ear.heard_by_telephone(), concealed_percent }
}

/// From a member to a telephone.
pub(crate) fn down(said_48k: &[i16], network: Network, config: EncoderConfig) -> Heard {
    let mut ear = Ear::default();
    let mut engine = engine(&mut ear);
    engine.handle_command(room_voice(RoomCodec::Opus), &mut ear);
    let mut encoder = Encoder::new(config).expect("libopus has memory");
    let pieces: Vec<&[i16]> = said_48k.chunks_exact(48 * network.packet_ms() as usize).collect();
    let mut packets: Vec<Vec<u8>> = pieces.iter().map(|piece| encoder.encode(piece)).collect();
    let speaks = speaks(&pieces);
    for (packet, speaks) in packets.iter_mut().zip(&speaks) {
        if network.oddity == Oddity::Pauses && !speaks {
            // An Opus packet without a frame says just that.
            packet.truncate(1);
        }
    }
    let deliveries = network.carry(&speaks, 48);
    // They wait in the socket until it is looked at; the kernel tells when they came.
    let looked_at: Vec<Delivery> = deliveries
        .iter()
        .map(|delivery| Delivery {
            at_ms: (delivery.at_ms - LOOK_PHASE_MS).next_multiple_of(TICK_MS) + LOOK_PHASE_MS,
            ..*delivery
        })
        .collect();
    let mut arrivals = deliveries.iter().map(|delivery| at(delivery.at_ms));
    run(&mut engine, &mut ear, &looked_at, |engine, _, delivery| {
        let bytes = packet(delivery.header, OPUS, &packets[delivery.piece]);
        engine.handle_stream_packet(arrivals.next().expect("as many as deliveries"), STREAM, &bytes);
    });
    let concealed_percent = f64::from(ear.concealed) * 100.0 / packets.len() as f64;
    Heard { samples: ear.heard_by_telephone(), concealed_percent }
}

/// A telephone's µ-law alone: the best that anything can be.
pub(crate) fn mu_law_alone(said_8k: &[i16]) -> Vec<i16> {
    mu_law(said_8k).into_iter().map(|byte| Codec::Pcmu.decode(byte)).collect()
}

fn mu_law(samples: &[i16]) -> Vec<u8> {
    samples.iter().map(|sample| Codec::Pcmu.encode(*sample)).collect()
}
