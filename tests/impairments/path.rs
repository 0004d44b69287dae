//! Speech through the engine in virtual time: a telephone or a member on one side of a bad network, the judge's ear on the
//! other.

use std::sync::Arc;
use std::time::Duration;

use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::random::Random;
use galene_sip::time::Instant;
use galene_sip::wire::rtp::{RtpHeader, RtpPacket};
use lab::member::{HeardPacket, Recording};
use lab::opus::{Encoder, EncoderConfig};
use lab::telephone::Codec;

pub(crate) const ROOM: RoomKey = RoomKey(1);
const CALLER: CallerKey = CallerKey(1);
pub(crate) const STREAM: StreamKey = StreamKey(1);
const TELEPHONE_LEG: LegKey = LegKey(1);
const UP_LEG: LegKey = LegKey(2);
pub(crate) const OPUS: u8 = 111;
/// When the first packet is sent, and where the ticks lie between packets: away from either.
pub(crate) const BEGIN_MS: u64 = 1000;
pub(crate) const TICK_PHASE_MS: u64 = 7;
/// When the net thread looks at the sockets of Galene: two before the tick.
pub(crate) const LOOK_PHASE_MS: u64 = TICK_PHASE_MS - 2;
pub(crate) const PACKET_MS: u64 = 20;

/// What lies between a sender and the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    /// Each packet for itself.
    pub(crate) loss_percent: u32,
    /// Each packet is delayed by anything up to this, whatever becomes of the order.
    pub(crate) jitter_ms: u32,
    pub(crate) seed: u64,
}

impl Network {
    /// What arrives, and when, in ms: the packet's number with it.
    fn carry(self, packets: usize) -> Vec<(u64, usize)> {
        let mut random = Random::for_test(self.seed);
        let mut arrivals = Vec::new();
        for packet in 0..packets {
            // Drawn in any case, so that a higher loss loses the same packets and more.
            let (fate, delay_ms) = (random.below(100), random.below(self.jitter_ms + 1));
            if fate >= self.loss_percent {
                arrivals.push((BEGIN_MS + packet as u64 * PACKET_MS + u64::from(delay_ms), packet));
            }
        }
        arrivals.sort_unstable();
        arrivals
    }
}

/// What became of the speech.
pub(crate) struct Heard {
    /// At 8 kHz, from when it was said.
    pub(crate) samples: Vec<i16>,
    /// Packets or frames made up, of a hundred that were said.
    pub(crate) concealed_percent: f64,
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
        } else {
            self.down.push((self.now_us, payload.to_vec()));
        }
        true
    }

    fn event(&mut self, _: MixEvent) {}

    fn retire(&mut self, retired: Retired) {
        match retired {
            Retired::Caller(caller) => self.concealed = caller.stats().concealed,
            Retired::Stream(stream) => self.concealed = stream.stats().concealed,
            Retired::Room(_) | Retired::Up(_) => {}
        }
    }
}

impl Ear {
    /// What the telephone heard, from when it was said.
    pub(crate) fn heard_by_telephone(&self) -> Vec<i16> {
        let bytes = self.down.iter().flat_map(|(_, payload)| payload);
        // Continuous from the first tick on.
        let first_us = self.down.first().map_or(0, |first| first.0);
        bytes.map(|byte| Codec::Pcmu.decode(*byte)).skip((BEGIN_MS * 8 - first_us * 8 / 1000) as usize).collect()
    }
}

pub(crate) fn engine(ear: &mut Ear) -> Engine {
    let mut engine = Engine::new();
    let telephone = Telephone {
        codec: TelephoneCodec::Pcmu,
        send_payload_type: 0,
        receive_payload_type: 0,
        ptime_ms: 20,
        sends: true,
        receives: true,
    };
    let setup =
        CallerSetup { key: CALLER, leg: TELEPHONE_LEG, telephone, ssrc: 1, first_sequence: 0, first_timestamp: 0 };
    engine.handle_command(Command::OpenRoom(Box::new(Room::new(ROOM))), ear);
    engine.handle_command(Command::AddCaller { room: ROOM, caller: Box::new(Caller::new(&setup)) }, ear);
    engine.handle_command(Command::StartTelephone(CALLER), ear);
    engine
}

/// Runs the clock over everything that arrives, and two seconds more.
fn run(
    engine: &mut Engine,
    ear: &mut Ear,
    arrivals: &[(u64, usize)],
    mut deliver: impl FnMut(&mut Engine, &mut Ear, u64, usize),
) {
    let mut waiting = arrivals.iter().peekable();
    let end_ms = arrivals.last().map_or(0, |last| last.0) + 2000;
    for now_ms in 0..end_ms {
        let now = at(now_ms);
        ear.now_us = now.as_us();
        while let Some((_, packet)) = waiting.next_if(|(arrival_ms, _)| *arrival_ms <= now_ms) {
            deliver(engine, ear, now_ms, *packet);
        }
        if engine.next_timeout().is_some_and(|deadline| deadline.at <= now) {
            engine.handle_timeout(now, ear);
        }
        if now_ms % PACKET_MS == TICK_PHASE_MS {
            engine.tick(now, 0, ear);
        }
    }
    engine.handle_command(Command::CloseRoom(ROOM), ear);
}

pub(crate) fn at(ms: u64) -> Instant {
    Instant::from_us(0) + Duration::from_millis(ms)
}

fn packet(payload_type: u8, number: usize, ticks: u32, payload: &[u8]) -> Vec<u8> {
    let header = RtpHeader {
        marker: number == 0,
        payload_type,
        sequence_number: 65_500u16.wrapping_add(number as u16),
        timestamp: (number as u32).wrapping_mul(ticks),
        ssrc: 7,
    };
    [&header.to_bytes()[..], payload].concat()
}

/// From a telephone, with the network before the gateway, to a member who waits for every packet.
pub(crate) fn up(said_8k: &[i16], network: Network) -> Heard {
    let mut ear = Ear::default();
    let mut engine = engine(&mut ear);
    let setup = UpSetup {
        leg: UP_LEG,
        codec: RoomCodec::Opus,
        payload_type: OPUS,
        ssrc: 2,
        first_sequence: 65_000,
        first_timestamp: 5,
    };
    let up = Up::new(&setup).expect("libopus has memory");
    engine.handle_command(Command::SetUp { caller: CALLER, up: Some(Box::new(up)) }, &mut ear);
    let frames: Vec<&[i16]> = said_8k.chunks_exact(160).collect();
    run(&mut engine, &mut ear, &network.carry(frames.len()), |engine, ear, now_ms, number| {
        let bytes = packet(0, number, 160, &mu_law(frames[number]));
        engine.handle_telephone_packet(at(now_ms), CALLER, &bytes, ear);
    });
    let recording = Recording { packets: ear.up, ..Recording::default() };
    let samples = recording.sound(BEGIN_MS * 1000).resampled(8000).samples;
    Heard { samples, concealed_percent: f64::from(ear.concealed) * 100.0 / frames.len() as f64 }
}

/// From a member, with the network before the gateway, to a telephone.
pub(crate) fn down(said_48k: &[i16], network: Network, config: EncoderConfig) -> Heard {
    let mut ear = Ear::default();
    let mut engine = engine(&mut ear);
    let setup = StreamSetup { key: STREAM, codecs: vec![(OPUS, RoomCodec::Opus)], always_decode: false };
    let stream = Stream::new(setup).expect("libopus has memory");
    engine.handle_command(Command::AddStream { room: ROOM, stream: Box::new(stream) }, &mut ear);
    let mut encoder = Encoder::new(config).expect("libopus has memory");
    let packets: Vec<Vec<u8>> = said_48k.chunks_exact(960).map(|frame| encoder.encode(frame)).collect();
    // They wait in the socket until it is looked at; the kernel tells when they came.
    let mut drained: Vec<(u64, usize)> = Vec::new();
    let arrivals = network.carry(packets.len());
    let mut arrived_ms = vec![0; packets.len()];
    for (arrival_ms, number) in &arrivals {
        arrived_ms[*number] = *arrival_ms;
        drained.push(((arrival_ms - LOOK_PHASE_MS).next_multiple_of(PACKET_MS) + LOOK_PHASE_MS, *number));
    }
    run(&mut engine, &mut ear, &drained, |engine, _, _, number| {
        let bytes = packet(OPUS, number, 960, &packets[number]);
        engine.handle_stream_packet(at(arrived_ms[number]), STREAM, &bytes);
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
