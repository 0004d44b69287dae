//! What the mix thread promises: ten thousand ticks with loss, reordering, mutes and people coming and going, and not one
//! call of the allocator, neither to take nor to give back.

mod common {
    pub(crate) mod alloc;
}

use std::time::Duration;

use common::alloc::{Counting, calls};
use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::media::opus;
use galene_sip::random::Random;
use galene_sip::time::Instant;
use galene_sip::wire::rtp::RtpHeader;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TICKS: u32 = 10_000;
const CALLERS: u32 = 6;
const VOICES: u32 = 6;

/// Counts packets, keeps what is retired for later.
struct Outbox {
    packets: u64,
    retired: Vec<Retired>,
}

impl Sink for Outbox {
    fn packet(&mut self, _: LegKey, packet: &[u8]) -> bool {
        self.packets += u64::from(!packet.is_empty());
        true
    }
    fn event(&mut self, _: MixEvent) {}
    fn retire(&mut self, retired: Retired) {
        assert!(self.retired.len() < self.retired.capacity());
        self.retired.push(retired);
    }
}

fn caller(number: u32) -> [Command; 4] {
    let key = CallerKey(number);
    let codec = if number.is_multiple_of(2) { TelephoneCodec::Pcmu } else { TelephoneCodec::Pcma };
    let telephone =
        Telephone { codec, send_payload_type: 0, receive_payload_type: 0, ptime_ms: 30, sends: true, receives: true };
    let leg = LegKey(number);
    let setup = CallerSetup { key, leg, telephone, ssrc: number, first_sequence: 0, first_timestamp: 0, agc: true };
    let codec = [RoomCodec::Opus, RoomCodec::G722, RoomCodec::Pcma][number as usize % 3];
    let up = UpSetup { leg, codec, payload_type: 111, ssrc: number, first_sequence: 0, first_timestamp: 0 };
    [
        Command::AddCaller { room: RoomKey(1), caller: Box::new(Caller::new(&setup)) },
        Command::StartTelephone(key),
        Command::SetUp { caller: key, up: Some(Box::new(Up::new(&up).unwrap())) },
        Command::SetPresent { caller: key, present: true },
    ]
}

fn voice(number: u32) -> Command {
    let setup = StreamSetup { key: StreamKey(number), codecs: vec![(111, RoomCodec::Opus)], always_decode: false };
    Command::AddStream { room: RoomKey(1), stream: Box::new(Stream::new(setup).unwrap()) }
}

/// Everything that the outside makes is made before the counting begins.
struct Outside {
    random: Random,
    /// A second of Opus, speech-like, with FEC and of several lengths.
    packets: Vec<Vec<u8>>,
}

impl Outside {
    fn new() -> Self {
        let mut encoder = opus::Encoder::new(48_000, 3, 32_000).unwrap();
        encoder.set_fec(true, 20).unwrap();
        let packet = |turn: usize| {
            let loud = if turn % 50 < 30 { 5000.0 } else { 10.0 };
            let pcm: Vec<i16> = (0..960).map(|n| (((turn * 960 + n) as f32 * 0.03).sin() * loud) as i16).collect();
            let mut bytes = vec![0; 1275];
            let len = encoder.encode(&pcm, &mut bytes).unwrap();
            bytes.truncate(len);
            bytes
        };
        Self { random: Random::for_test(1), packets: (0..200).map(packet).collect() }
    }

    fn header(&mut self, payload_type: u8, sequence: u32, step: u32, ssrc: u32) -> RtpHeader {
        // One packet in ten comes out of order, is a double of its predecessor, or carries something else.
        let sequence = if self.random.below(10) == 0 { sequence.wrapping_sub(1) } else { sequence };
        let payload_type = if self.random.below(50) == 0 { 13 } else { payload_type };
        let timestamp = sequence.wrapping_mul(step);
        RtpHeader { marker: false, payload_type, sequence_number: sequence as u16, timestamp, ssrc }
    }
}

/// 20 ms of packets for everyone, with loss, and the tick.
fn turn(engine: &mut Engine, outbox: &mut Outbox, outside: &mut Outside, tick: u32, keys: (u32, u32)) {
    let start = Instant::from_us(1_000_000) + Duration::from_millis(20) * tick;
    let mut packet = [0; 1500];
    for number in keys.0..keys.0 + CALLERS {
        if outside.random.below(10) > 0 {
            let header = outside.header(0, tick, 160, number);
            packet[..12].copy_from_slice(&header.to_bytes());
            packet[12..172].fill((tick as u8).wrapping_mul(7));
            engine.handle_telephone_packet(start, CallerKey(number), &packet[..172], outbox);
        }
    }
    for number in keys.1..keys.1 + VOICES {
        if outside.random.below(10) > 0 {
            let header = outside.header(111, tick, 960, number);
            let payload = &outside.packets[(tick + number * 13) as usize % outside.packets.len()];
            packet[..12].copy_from_slice(&header.to_bytes());
            packet[12..12 + payload.len()].copy_from_slice(payload);
            engine.handle_stream_packet(start, StreamKey(number), &packet[..12 + payload.len()]);
        }
    }
    let now = start + Duration::from_millis(15);
    if engine.next_timeout().is_some_and(|deadline| deadline.at <= now) {
        engine.handle_timeout(now, outbox);
    }
    engine.tick(now, u32::from(outside.random.below(500) == 0), outbox);
}

#[test]
fn ten_thousand_ticks_never_call_the_allocator() {
    let mut outside = Outside::new();
    let mut engine = Engine::new();
    let mut outbox = Outbox { packets: 0, retired: Vec::with_capacity(100) };
    engine.handle_command(Command::OpenRoom(Box::new(Room::new(RoomKey(1)))), &mut outbox);
    let mut counted = 0;
    let (mut callers, mut voices) = (1, 1);
    for number in 1..=CALLERS {
        caller(number).into_iter().for_each(|command| engine.handle_command(command, &mut outbox));
    }
    for number in 1..=VOICES {
        engine.handle_command(voice(number), &mut outbox);
    }
    for tick in 0..TICKS {
        // Every ten seconds the eldest leave and others come, built outside the count as signalling builds them.
        let mut commands = Vec::with_capacity(8);
        if tick % 500 == 499 {
            commands.extend([Command::RemoveCaller(CallerKey(callers)), Command::RemoveStream(StreamKey(voices))]);
            commands.extend(caller(callers + CALLERS));
            commands.push(voice(voices + VOICES));
            (callers, voices) = (callers + 1, voices + 1);
        }
        if tick % 70 == 0 {
            commands.push(Command::SetMuted { caller: CallerKey(callers), muted: tick % 140 == 0 });
        }
        let before = calls();
        for command in commands.drain(..) {
            engine.handle_command(command, &mut outbox);
        }
        turn(&mut engine, &mut outbox, &mut outside, tick, (callers, voices));
        counted += calls() - before;
        outbox.retired.clear();
    }
    let before = calls();
    engine.handle_command(Command::CloseRoom(RoomKey(1)), &mut outbox);
    counted += calls() - before;
    assert_eq!(counted, 0);
    assert_eq!(outbox.retired.len() as u32, 1 + 2 * CALLERS + VOICES);
    assert!(outbox.packets > u64::from(TICKS * CALLERS), "{}", outbox.packets);
}
