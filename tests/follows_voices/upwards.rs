//! A telephone's silence: what the room's browsers hear of it, against the same line encoded throughout.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::media::opus::{self, packet};
use galene_sip::time::Instant;
use galene_sip::wire::rtp::{RtpHeader, RtpPacket};
use lab::member::{HeardPacket, Recording};
use lab::telephone::Codec;

use super::sounds;
use super::sounds::Sound;
use super::telephone::telephone;
use super::world::level_dbfs;

const ROOM: RoomKey = RoomKey(1);
const CALLER: CallerKey = CallerKey(1);
const UP_LEG: LegKey = LegKey(2);
const FRAME_SAMPLES: usize = 160;
const FRAME_TICKS: u32 = 960;
const BEGIN_US: u64 = 1_000_000;
const FRAME_US: u64 = 20_000;
/// 20 ms at 48 kHz.
const HEARD_SAMPLES: usize = 960;

#[derive(Default)]
struct Listener {
    now_us: u64,
    packets: Vec<HeardPacket>,
}

impl Listener {
    fn hear(&mut self, bytes: &[u8]) {
        let RtpPacket { header, payload } = RtpPacket::parse(bytes).expect("the engine sends RTP");
        self.packets.push(HeardPacket {
            at_us: self.now_us,
            payload_type: header.payload_type,
            sequence: header.sequence_number,
            timestamp: header.timestamp,
            marker: header.marker,
            payload: Arc::from(payload),
        });
    }

    /// As a browser plays it, from the first packet on.
    fn sound(self) -> Vec<i16> {
        Recording { packets: self.packets, ..Recording::default() }.sound(BEGIN_US).samples
    }
}

impl Sink for Listener {
    fn packet(&mut self, leg: LegKey, packet: &[u8]) -> bool {
        if leg == UP_LEG {
            self.hear(packet);
        }
        true
    }

    fn event(&mut self, _: MixEvent) {}

    fn retire(&mut self, _: Retired) {}
}

/// A telephone that calls into a room whose stream is connected.
fn engine(listener: &mut Listener) -> Engine {
    let telephone = telephone(TelephoneCodec::Pcmu, 20);
    let setup = CallerSetup {
        key: CALLER,
        leg: LegKey(1),
        telephone,
        ssrc: 1,
        first_sequence: 0,
        first_timestamp: 0,
        agc: false,
    };
    let up = UpSetup {
        leg: UP_LEG,
        telephone: TelephoneCodec::Pcmu,
        codec: RoomCodec::Opus,
        payload_type: 111,
        ssrc: 2,
        first_sequence: 65_500,
        first_timestamp: 0,
    };
    let mut engine = Engine::new();
    engine.handle_command(Command::OpenRoom(Box::new(Room::new(ROOM))), listener);
    engine.handle_command(
        Command::AddCaller { room: ROOM, caller: Box::new(Caller::new(&setup).expect("libopus has memory")) },
        listener,
    );
    let up = Some(Box::new(Up::new(&up).expect("libopus has memory")));
    engine.handle_command(Command::SetUp { caller: CALLER, up }, listener);
    engine
}

fn telephone_packets(said: &[f64]) -> Vec<Vec<u8>> {
    let said: Vec<u8> =
        said.iter().step_by(6).map(|sample| Codec::Pcmu.encode((sample * 32_768.0).round() as i16)).collect();
    let packets = said.chunks_exact(FRAME_SAMPLES).enumerate().map(|(number, payload)| {
        let timestamp = (number * FRAME_SAMPLES) as u32;
        let header = RtpHeader { marker: false, payload_type: 0, sequence_number: number as u16, timestamp, ssrc: 7 };
        [&header.to_bytes()[..], payload].concat()
    });
    packets.collect()
}

fn through_the_gateway(packets: &[Vec<u8>]) -> Listener {
    let mut listener = Listener::default();
    let mut engine = engine(&mut listener);
    for (number, packet) in packets.iter().enumerate() {
        listener.now_us = BEGIN_US + number as u64 * FRAME_US;
        let now = Instant::from_us(listener.now_us);
        engine.handle_telephone_packet(now, CALLER, packet, &mut listener);
        engine.tick(now + Duration::from_millis(5), 0, &mut listener);
    }
    listener
}

/// The same without pauses.
fn encoded_throughout(packets: &[Vec<u8>]) -> Listener {
    let mut listener = Listener::default();
    let mut encoder = opus::Encoder::new(8000, 0, 32_000).expect("libopus has memory");
    for (number, bytes) in packets.iter().enumerate() {
        listener.now_us = BEGIN_US + number as u64 * FRAME_US;
        let payload = RtpPacket::parse(bytes).expect("made above").payload;
        let pcm: Vec<i16> = payload.iter().map(|byte| Codec::Pcmu.decode(*byte)).collect();
        let mut packet = [0; opus::MAX_FRAME_BYTES];
        let len = encoder.encode(&pcm, &mut packet).expect("a frame of 20 ms");
        let timestamp = number as u32 * FRAME_TICKS;
        let header = RtpHeader { marker: false, payload_type: 111, sequence_number: number as u16, timestamp, ssrc: 2 };
        listener.hear(&[&header.to_bytes()[..], &packet[..len]].concat());
    }
    listener
}

/// Levels of frames: encoded throughout, and with pauses.
fn levels(packets: &[Vec<u8>]) -> (usize, Vec<(f64, f64)>) {
    let listener = through_the_gateway(packets);
    let sent = listener.packets.len();
    let (heard, full) = (listener.sound(), encoded_throughout(packets).sound());
    let frames = full.chunks_exact(HEARD_SAMPLES).zip(heard.chunks_exact(HEARD_SAMPLES));
    (sent, frames.map(|(full, heard)| (level_dbfs(full), level_dbfs(heard))).collect())
}

#[test]
fn browsers_hear_each_onset_and_the_lines_noise_as_if_all_of_it_were_sent() {
    thread::scope(|scope| {
        for (background_dbfs, floor_dbfs) in [(-100.0, -65.0), (-60.0, -60.0), (-50.0, -50.0)] {
            scope.spawn(move || sounds::all().iter().for_each(|sound| hear_over(sound, background_dbfs, floor_dbfs)));
        }
    });
}

fn hear_over(Sound { name, samples }: &Sound, background_dbfs: f64, floor_dbfs: f64) {
    let packets = telephone_packets(&sounds::in_a_room(samples, background_dbfs));
    let (sent, frames) = levels(&packets);
    let is_onset = |at: &usize| frames[at - 1].0 < floor_dbfs + 5.0 && frames[*at].0 > floor_dbfs + 10.0;
    let onsets: Vec<f64> = (1..frames.len()).filter(is_onset).map(|at| frames[at].1 - frames[at].0).collect();
    let worst_db = onsets.iter().map(|db| db.abs()).fold(0.0, f64::max);
    // The first half second is sent as it is.
    let quiet = frames.iter().skip(25).filter(|frame| frame.0 < floor_dbfs + 5.0).map(|(full, heard)| heard - full);
    let background_db = quiet.clone().sum::<f64>() / quiet.count().max(1) as f64;
    let name = format!("{name} over {background_dbfs} dBFS");
    println!(
        "{name}: {sent} packets of {}, {} onsets within {worst_db:.1} dB, background {background_db:.1} dB",
        packets.len(),
        onsets.len()
    );
    assert!(background_db.abs() <= 1.5 && sent < packets.len(), "{name}: {background_db:.1} dB, {sent}");
    assert!(worst_db <= allowed_db(&name), "{name}: {worst_db:.1} dB");
}

/// libopus broadens all resonances in the first frame after made-up noise: a pure tone, the sharpest of them, loses most.
fn allowed_db(name: &str) -> f64 {
    match name.split(' ').next() {
        Some("speech" | "noise" | "applause") => 1.5,
        Some("chords" | "melody" | "swelling") => 3.0,
        Some(_) | None => 8.5,
    }
}

#[test]
fn pauses_are_told_by_numbers_timestamps_and_markers() {
    let (silence, beep) = (vec![0.0; sounds::RATE_HZ], |n: usize| (n as f64 * 0.1).sin() * 0.1);
    let said: Vec<f64> =
        silence.iter().copied().chain((0..sounds::RATE_HZ).map(beep)).chain(silence.iter().copied()).collect();
    let sent = through_the_gateway(&telephone_packets(&said)).packets;
    assert!(sent.windows(2).all(|pair| pair[1].sequence == pair[0].sequence.wrapping_add(1)));
    assert!(
        sent.iter().all(|packet| u64::from(packet.timestamp / FRAME_TICKS) == (packet.at_us - BEGIN_US) / FRAME_US)
    );
    let markers: Vec<u32> = sent.iter().filter(|packet| packet.marker).map(|packet| packet.timestamp / 48).collect();
    assert_eq!(markers, [0, 1000]);
    // 300 ms as they are, then a pause that is refreshed once or twice in the rest of the second.
    let before = sent.iter().filter(|packet| packet.timestamp < 48_000).count();
    assert!((17..=22).contains(&before), "{before}");
    let longest = sent.windows(2).map(|pair| pair[1].at_us - pair[0].at_us).max();
    assert_eq!(longest, Some(380_000));
    assert!(sent.iter().all(|sent| packet::duration_ticks(&sent.payload) == Some(FRAME_TICKS)));
}
