//! The engine in virtual time: telephones and members that whistle, each at a pitch of its own.

use std::time::Duration;

use super::*;
use crate::media::control::*;
use crate::media::g711::Law;
use crate::media::line::law;
use crate::media::opus;
use crate::media::vad::tests::vowel;
use crate::wire::rtp::{RtpHeader, RtpPacket};

const ROOM: RoomKey = RoomKey(1);

#[derive(Default)]
struct Recorder {
    packets: Vec<(Instant, LegKey, RtpHeader, Vec<u8>)>,
    events: Vec<MixEvent>,
    retired: Vec<Retired>,
    now: Instant,
}

impl Sink for Recorder {
    fn packet(&mut self, leg: LegKey, packet: &[u8]) -> bool {
        let RtpPacket { header, payload } = RtpPacket::parse(packet).unwrap();
        self.packets.push((self.now, leg, header, payload.to_vec()));
        true
    }
    fn event(&mut self, event: MixEvent) {
        self.events.push(event);
    }
    fn retire(&mut self, retired: Retired) {
        self.retired.push(retired);
    }
}

/// A whistle of one pitch.
fn whistle(hz: f32, rate_hz: u32, first: usize, samples: usize) -> Vec<i16> {
    let sample = |n: usize| ((n as f32 / rate_hz as f32 * hz * std::f32::consts::TAU).sin() * 6000.0) as i16;
    (first..first + samples).map(sample).collect()
}

/// How loud one pitch is within `pcm`: 1 is as loud as it was whistled.
fn loudness(pcm: &[i16], hz: f32, rate_hz: u32) -> f32 {
    let (mut cosine, mut sine) = (0.0, 0.0);
    for (n, &sample) in pcm.iter().enumerate() {
        let phase = n as f32 / rate_hz as f32 * hz * std::f32::consts::TAU;
        cosine += f32::from(sample) * phase.cos();
        sine += f32::from(sample) * phase.sin();
    }
    cosine.hypot(sine) * 2.0 / pcm.len().max(1) as f32 / 6000.0
}

struct Phone {
    key: CallerKey,
    hz: f32,
    law: Law,
    packet_ms: usize,
    sequence: u16,
    samples: usize,
}

impl Phone {
    fn packet(&mut self) -> Vec<u8> {
        let pcm = whistle(self.hz, 8000, self.samples, self.packet_ms * 8);
        self.packet_of(&pcm)
    }

    fn packet_of(&mut self, pcm: &[i16]) -> Vec<u8> {
        let len = pcm.len();
        let header = RtpHeader {
            marker: false,
            payload_type: 0,
            sequence_number: self.sequence,
            timestamp: self.samples as u32,
            ssrc: 5,
        };
        let mut payload = vec![0; len];
        self.law.encode(pcm, &mut payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.samples += len;
        [&header.to_bytes()[..], &payload].concat()
    }

    /// The network or the telephone itself drops one.
    fn lose(&mut self) {
        self.packet();
    }
}

struct World {
    engine: Engine,
    sink: Recorder,
}

fn telephone(codec: TelephoneCodec) -> Telephone {
    Telephone::new(codec, 0)
}

fn down_leg(number: u32) -> LegKey {
    LegKey(1000 + number)
}

fn up_leg(number: u32) -> LegKey {
    LegKey(2000 + number)
}

impl World {
    fn new() -> Self {
        let mut world = Self { engine: Engine::new(), sink: Recorder::default() };
        world.command(Command::OpenRoom(Box::new(Room::new(ROOM))));
        world
    }

    fn now(&self) -> Instant {
        self.sink.now
    }

    fn command(&mut self, command: Command) {
        self.engine.handle_command(command, &mut self.sink);
    }

    /// A telephone that is answered, connected and on the air.
    fn add_phone(&mut self, room: RoomKey, number: u32, codec: TelephoneCodec) -> Phone {
        let key = CallerKey(number);
        let setup = CallerSetup {
            key,
            leg: down_leg(number),
            telephone: telephone(codec),
            ssrc: number,
            first_sequence: 65_000,
            first_timestamp: u32::MAX - 1000,
            agc: true,
        };
        self.command(Command::AddCaller { room, caller: Box::new(Caller::new(&setup).unwrap()) });
        self.command(Command::StartTelephone(key));
        let up = Up::new(&UpSetup {
            leg: up_leg(number),
            telephone: codec,
            codec: RoomCodec::Opus,
            payload_type: 111,
            ssrc: number,
            first_sequence: 65_530,
            first_timestamp: u32::MAX - 5000,
        });
        self.command(Command::SetUp { caller: key, up: Some(Box::new(up.unwrap())) });
        self.command(Command::SetPresent { caller: key, present: true });
        let law = law(codec).expect("the telephones of these tests speak G.711");
        Phone { key, hz: 300.0 + 170.0 * number as f32, law, packet_ms: 20, sequence: 0xfff0, samples: 0 }
    }

    fn pass(&mut self, ms: u64) {
        self.sink.now = self.now() + Duration::from_millis(ms);
    }

    fn hear(&mut self, phone: &Phone, packet: &[u8]) {
        self.engine.handle_telephone_packet(self.sink.now, phone.key, packet, &mut self.sink);
    }

    /// 20 ms: packets of these telephones in the middle, the tick at the end.
    fn turn(&mut self, phones: &mut [&mut Phone]) {
        self.pass(7);
        for phone in phones {
            let packet = phone.packet();
            self.hear(phone, &packet);
        }
        self.pass(13);
        self.tick();
    }

    fn tick(&mut self) {
        let now = self.now();
        self.engine.handle_timeout(now, &mut self.sink);
        self.engine.tick(now, 0, &mut self.sink);
    }

    fn sent_to(&self, leg: LegKey) -> Vec<(Instant, RtpHeader, &[u8])> {
        let sent = self.sink.packets.iter().filter(|packet| packet.1 == leg);
        sent.map(|(at, _, header, payload)| (*at, *header, payload.as_slice())).collect()
    }

    /// The last half second that a telephone was sent.
    fn heard_by(&self, number: u32, law: Law) -> Vec<i16> {
        let bytes: Vec<u8> = self.sent_to(down_leg(number)).iter().flat_map(|sent| sent.2.to_vec()).collect();
        let tail = &bytes[bytes.len().saturating_sub(4000)..];
        let mut pcm = vec![0; tail.len()];
        law.decode(tail, &mut pcm);
        pcm
    }

    /// The last half second that Galene was sent.
    fn heard_above(&self, number: u32) -> Vec<i16> {
        let mut decoder = opus::Decoder::new(8000).unwrap();
        let mut pcm = Vec::new();
        for (_, _, payload) in self.sent_to(up_leg(number)) {
            let mut frame = [0; 960];
            let samples = decoder.decode(Some(payload), false, &mut frame).unwrap();
            pcm.extend_from_slice(&frame[..samples]);
        }
        pcm.split_off(pcm.len().saturating_sub(4000))
    }
}

#[test]
fn a_telephones_packet_leaves_for_the_room_at_once() {
    let mut world = World::new();
    let mut phone = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    for _ in 0..50 {
        world.pass(20);
        let before = world.sink.packets.len();
        let packet = phone.packet();
        world.hear(&phone, &packet);
        assert_eq!(world.sink.packets.len(), before + 1);
    }
    let sent = world.sent_to(up_leg(1));
    for pair in sent.windows(2) {
        assert_eq!(pair[1].1.sequence_number, pair[0].1.sequence_number.wrapping_add(1));
        assert_eq!(pair[1].1.timestamp, pair[0].1.timestamp.wrapping_add(960));
        assert_eq!((pair[1].1.payload_type, pair[1].1.ssrc), (111, 1));
    }
    assert!(loudness(&world.heard_above(1), phone.hz, 8000) > 0.7);
}

#[test]
fn silence_goes_up_whenever_the_telephone_sends_nothing_and_the_timeline_keeps_its_pace() {
    let mut world = World::new();
    let mut phone = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    for speaking in [false, true, false, true] {
        for _ in 0..100 {
            if speaking {
                world.turn(&mut [&mut phone])
            } else {
                world.turn(&mut [])
            }
            if !speaking {
                phone.samples += 160;
            }
        }
    }
    let sent = world.sent_to(up_leg(1));
    for (at, header, _) in &sent {
        let passed_ms = (header.timestamp.wrapping_sub(sent[0].1.timestamp) / 48) as i64;
        let real_ms = (at.saturating_since(sent[0].0).as_millis()) as i64;
        assert!((passed_ms - real_ms).abs() <= 40, "{passed_ms} of {real_ms} ms");
    }
    for pair in sent.windows(2) {
        assert_eq!(pair[1].1.sequence_number, pair[0].1.sequence_number.wrapping_add(1));
        // A pause is refreshed every 400 ms; 200 ms pass before silence is taken for silence.
        assert!(pair[1].0.saturating_since(pair[0].0) <= Duration::from_millis(600));
    }
    // All of the speech, but of the silence only its beginning and what refreshes it.
    assert!((235..=280).contains(&sent.len()), "{}", sent.len());
}

#[test]
fn a_lost_packet_is_concealed_and_a_long_gap_becomes_a_timestamp_jump() {
    let mut world = World::new();
    let mut phone = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    for turn in 0..60 {
        match turn {
            20 => {
                phone.lose();
                world.turn(&mut []);
            }
            40..48 => {
                phone.lose();
                world.turn(&mut []);
            }
            _ => world.turn(&mut [&mut phone]),
        }
    }
    let steps: Vec<u32> = world
        .sent_to(up_leg(1))
        .windows(2)
        .map(|pair| {
            assert_eq!(pair[1].1.sequence_number, pair[0].1.sequence_number.wrapping_add(1));
            pair[1].1.timestamp.wrapping_sub(pair[0].1.timestamp)
        })
        .collect();
    assert_eq!(steps.iter().filter(|&&step| step == 960).count(), steps.len() - 1, "{steps:?}");
    assert_eq!(steps.iter().max(), Some(&(9 * 960)));
    world.command(Command::RemoveCaller(phone.key));
    let Some(Retired::Caller(caller)) = world.sink.retired.pop() else { panic!("no caller") };
    assert_eq!((caller.stats().received, caller.stats().concealed), (51, 1));
}

#[test]
fn short_packets_are_gathered_and_long_ones_become_long_frames() {
    for (packet_ms, frame_ms) in [(10, 20), (20, 20), (30, 20), (40, 40), (60, 60)] {
        let mut world = World::new();
        let mut phone = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
        phone.packet_ms = packet_ms;
        for _ in 0..20 {
            world.pass(packet_ms as u64);
            let packet = phone.packet();
            world.hear(&phone, &packet);
        }
        let sent = world.sent_to(up_leg(1));
        assert_eq!(sent.len(), 20 * packet_ms / frame_ms);
        for (_, _, payload) in sent {
            assert_eq!(opus::packet::duration_ticks(payload), Some(frame_ms as u32 * 48));
        }
    }
}

#[test]
fn telephones_hear_each_other_but_not_themselves_nor_another_room() {
    let mut world = World::new();
    world.command(Command::OpenRoom(Box::new(Room::new(RoomKey(2)))));
    let mut a = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    let mut b = world.add_phone(ROOM, 2, TelephoneCodec::Pcma);
    let mut c = world.add_phone(ROOM, 3, TelephoneCodec::Pcma);
    let mut elsewhere = world.add_phone(RoomKey(2), 4, TelephoneCodec::Pcmu);
    for _ in 0..100 {
        world.turn(&mut [&mut a, &mut b, &mut elsewhere]);
        let _ = c.packet();
    }
    for (number, law, expected) in [
        (1, Law::Mu, [0.0, 1.0, 0.0]),
        (2, Law::A, [1.0, 0.0, 0.0]),
        (3, Law::A, [1.0, 1.0, 0.0]),
        (4, Law::Mu, [0.0, 0.0, 0.0]),
    ] {
        let heard = world.heard_by(number, law);
        for (hz, expected) in [a.hz, b.hz, elsewhere.hz].into_iter().zip(expected) {
            let loud = loudness(&heard, hz, 8000);
            assert!((loud - expected).abs() < 0.08, "telephone {number} hears {hz} Hz at {loud}");
        }
    }
    for number in 1..=4 {
        let sent = world.sent_to(down_leg(number));
        assert_eq!(sent.len(), 100);
        for (at, pair) in sent.windows(2).enumerate() {
            assert_eq!(pair[0].1.marker, at == 0);
            assert_eq!(pair[1].1.timestamp, pair[0].1.timestamp.wrapping_add(160));
        }
    }
}

#[test]
fn who_is_muted_or_not_on_the_air_is_not_heard_by_neighbours() {
    let mut world = World::new();
    let mut a = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    let _listener = world.add_phone(ROOM, 2, TelephoneCodec::Pcmu);
    let (mut here, mut above) = (Vec::new(), Vec::new());
    for (muted, present) in [(false, true), (true, true), (false, true), (false, false)] {
        world.command(Command::SetMuted { caller: a.key, muted });
        world.command(Command::SetPresent { caller: a.key, present });
        for _ in 0..50 {
            world.turn(&mut [&mut a]);
        }
        here.push(loudness(&world.heard_by(2, Law::Mu), a.hz, 8000) > 0.5);
        above.push(loudness(&world.heard_above(1), a.hz, 8000) > 0.5);
    }
    assert_eq!(here, [true, false, true, false]);
    assert_eq!(above, [true, false, true, true]);
}

#[test]
fn moderation_silences_a_telephone_for_its_neighbours_with_the_next_tick() {
    for (muted, present) in [(true, true), (false, false)] {
        let mut world = World::new();
        let mut a = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
        let _listener = world.add_phone(ROOM, 2, TelephoneCodec::Pcmu);
        for _ in 0..50 {
            world.turn(&mut [&mut a]);
        }
        assert!(loudness(&world.heard_by(2, Law::Mu), a.hz, 8000) > 0.5);
        world.command(Command::SetMuted { caller: a.key, muted });
        world.command(Command::SetPresent { caller: a.key, present });
        world.tick();
        let sent = world.sent_to(down_leg(2));
        let mut pcm = [0; 160];
        Law::Mu.decode(sent.last().unwrap().2, &mut pcm);
        // The band filter rings for a moment.
        assert!(pcm[80..].iter().all(|sample| sample.unsigned_abs() < 50), "{pcm:?}");
    }
}

#[test]
fn who_waits_for_the_room_hears_the_sign_of_that_and_nothing_else() {
    for codec in [TelephoneCodec::Pcmu, TelephoneCodec::Pcma] {
        let law = if codec == TelephoneCodec::Pcmu { Law::Mu } else { Law::A };
        let mut world = World::new();
        let mut speaker = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
        let (waiting, _other) = (world.add_phone(ROOM, 2, codec), world.add_phone(ROOM, 3, codec));
        let speaker_hz = speaker.hz;
        let levels = |world: &World, number| {
            let heard = world.heard_by(number, law);
            (loudness(&heard, 440.0, 8000), loudness(&heard, speaker_hz, 8000))
        };
        for (is_waiting, hears_tone, hears_room) in [(false, false, true), (true, true, false), (false, false, true)] {
            world.command(Command::SetWaiting { caller: waiting.key, waiting: is_waiting });
            // Two cycles of the tone, which ends half a second after the next has begun.
            for _ in 0..325 {
                world.turn(&mut [&mut speaker]);
            }
            let (tone, room) = levels(&world, 2);
            assert_eq!((tone > 0.05, room > 0.5), (hears_tone, hears_room), "{codec:?} {is_waiting}: {tone} {room}");
            let (tone, room) = levels(&world, 3);
            assert!(tone < 0.05 && room > 0.5, "{codec:?} {is_waiting}: {tone} {room}");
        }
    }
}

fn add_voice(world: &mut World, room: RoomKey, number: u32) {
    let setup = StreamSetup { key: StreamKey(number), codecs: vec![(111, RoomCodec::Opus)], always_decode: false };
    world.command(Command::AddStream { room, stream: Box::new(Stream::new(setup).unwrap()) });
}

#[test]
fn a_room_voice_is_heard_by_every_telephone_within_60_ms() {
    let mut world = World::new();
    let (_a, _b) = (world.add_phone(ROOM, 1, TelephoneCodec::Pcmu), world.add_phone(ROOM, 2, TelephoneCodec::Pcma));
    add_voice(&mut world, ROOM, 1);
    let mut encoder = opus::Encoder::new(48_000, 5, 32_000).unwrap();
    let spoken_at = 50;
    for turn in 0..120_usize {
        world.pass(18);
        let pcm = if turn < spoken_at { vec![0; 960] } else { whistle(440.0, 48_000, turn * 960, 960) };
        let mut packet = vec![0; 12 + 1275];
        let len = encoder.encode(&pcm, &mut packet[12..]).unwrap();
        let header = RtpHeader {
            marker: false,
            payload_type: 111,
            sequence_number: turn as u16,
            timestamp: turn as u32 * 960,
            ssrc: 9,
        };
        packet[..12].copy_from_slice(&header.to_bytes());
        let now = world.now();
        world.engine.handle_stream_packet(now, StreamKey(1), &packet[..12 + len]);
        world.pass(2);
        world.tick();
    }
    for (number, law) in [(1, Law::Mu), (2, Law::A)] {
        assert!((loudness(&world.heard_by(number, law), 440.0, 8000) - 1.0).abs() < 0.2);
        let onset = world.sent_to(down_leg(number)).iter().position(|(_, _, payload)| {
            let mut pcm = vec![0; payload.len()];
            law.decode(payload, &mut pcm);
            pcm.iter().any(|sample| sample.unsigned_abs() > 2000)
        });
        let late_ticks = onset.unwrap() - spoken_at;
        assert!(late_ticks <= 2, "heard {late_ticks} ticks after it came");
    }
}

#[test]
fn on_hold_nothing_is_sent_and_afterwards_a_marker_begins_a_new_spurt() {
    let mut world = World::new();
    let mut phone = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    let held = Telephone { sends: false, receives: false, ..telephone(TelephoneCodec::Pcmu) };
    for turn in 0..60 {
        match turn {
            20 => world.command(Command::SetTelephone { caller: phone.key, telephone: held, line: None }),
            40 => {
                let telephone = telephone(TelephoneCodec::Pcma);
                world.command(Command::SetTelephone { caller: phone.key, telephone, line: None });
            }
            _ => {}
        }
        world.turn(&mut [&mut phone]);
    }
    let sent = world.sent_to(down_leg(1));
    assert_eq!(sent.len(), 40);
    assert_eq!(sent[20].1.timestamp.wrapping_sub(sent[19].1.timestamp), 21 * 160);
    assert_eq!(sent[20].1.sequence_number, sent[19].1.sequence_number.wrapping_add(1));
    let markers: Vec<bool> = sent.iter().map(|sent| sent.1.marker).collect();
    assert_eq!((markers[0], markers[20], markers.iter().filter(|&&marker| marker).count()), (true, true, 2));
}

#[test]
fn talking_is_told_when_it_begins_and_when_it_has_ended_for_a_while() {
    let mut world = World::new();
    let mut phone = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    let mut told = Vec::new();
    for turn in 0..200 {
        let pcm = if (100..130).contains(&turn) { vowel(turn, 3000.0) } else { [0; 160] };
        let packet = phone.packet_of(&pcm);
        world.hear(&phone, &packet);
        world.pass(20);
        world.tick();
        told.extend(world.sink.events.drain(..).map(|event| (turn, event)));
    }
    let caller = phone.key;
    let [(began, started), (ended, stopped)] = &told[..] else { panic!("{told:?}") };
    let MixEvent::Talking { caller: who, talking: true, .. } = *started else { panic!("{told:?}") };
    let MixEvent::Talking { talking: false, level_dbfs: -35..=-20, gain_db: 0, .. } = *stopped else {
        panic!("{told:?}")
    };
    assert_eq!(who, caller);
    assert!((100..110).contains(began) && (145..175).contains(ended), "{told:?}");
}

#[test]
fn comfort_noise_and_telephone_events_are_never_heard() {
    let mut world = World::new();
    let mut phone = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    let _listener = world.add_phone(ROOM, 2, TelephoneCodec::Pcmu);
    for turn in 0..50 {
        let mut packet = phone.packet();
        packet[1] = if turn % 2 == 0 { 13 } else { 101 };
        world.pass(7);
        world.hear(&phone, &packet);
        world.pass(13);
        world.tick();
    }
    assert!(world.heard_by(2, Law::Mu).iter().all(|sample| sample.unsigned_abs() <= 8));
    assert!(world.heard_above(1).iter().all(|sample| sample.unsigned_abs() <= 8));
}

#[test]
fn everything_comes_back_and_late_packets_find_nobody() {
    let mut world = World::new();
    let mut phone = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    let mut other = world.add_phone(ROOM, 2, TelephoneCodec::Pcmu);
    add_voice(&mut world, ROOM, 1);
    add_voice(&mut world, ROOM, 2);
    world.turn(&mut [&mut phone, &mut other]);
    world.command(Command::RemoveCaller(phone.key));
    world.command(Command::RemoveStream(StreamKey(1)));
    assert_eq!(world.sink.retired.len(), 3);
    world.command(Command::CloseRoom(ROOM));
    assert_eq!(world.sink.retired.len(), 7);
    assert!(world.engine.is_empty());
    world.turn(&mut [&mut phone, &mut other]);
    assert_eq!(world.engine.orphans(), 2);
    add_voice(&mut world, ROOM, 3);
    assert!(matches!(world.sink.retired.pop(), Some(Retired::Stream(_))));
    assert!(matches!(world.sink.events.pop(), Some(MixEvent::Refused(_))));
}

#[test]
fn tables_refuse_what_exceeds_them_and_a_key_that_is_taken() {
    let mut world = World::new();
    for number in 0..MAX_STREAMS as u32 + 1 {
        add_voice(&mut world, ROOM, number);
    }
    assert_eq!(world.sink.retired.len(), 1);
    world.command(Command::OpenRoom(Box::new(Room::new(ROOM))));
    assert_eq!(world.sink.retired.len(), 2);
    for number in 2..MAX_ROOMS_PER_MIX as u32 + 2 {
        world.command(Command::OpenRoom(Box::new(Room::new(RoomKey(number)))));
    }
    assert_eq!(world.sink.retired.len(), 3);
    add_voice(&mut world, RoomKey(2), 5);
    assert_eq!(world.sink.retired.len(), 4);
}

#[test]
fn a_missed_tick_shows_in_the_timestamps_alone() {
    let mut world = World::new();
    let _phone = world.add_phone(ROOM, 1, TelephoneCodec::Pcmu);
    world.turn(&mut []);
    world.pass(60);
    let now = world.now();
    world.engine.tick(now, 2, &mut world.sink);
    for (leg, step) in [(down_leg(1), 3 * 160), (up_leg(1), 3 * 960)] {
        let sent = world.sent_to(leg);
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[1].1.timestamp.wrapping_sub(sent[0].1.timestamp), step);
        assert_eq!(sent[1].1.sequence_number, sent[0].1.sequence_number.wrapping_add(1));
    }
}
