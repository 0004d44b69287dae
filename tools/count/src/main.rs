//! `second-of-work CALLERS MEMBERS SECONDS CIPHER`: the gateway's own work for one room, to have its instructions counted.
//!
//! Owns: the packets of telephones and members (made, and encrypted, before the work begins, and always as many, so that
//! the difference of two runs is the work of the seconds between them); the engine and SRTP fed with them tick by tick.
//! Does not own: counting (`tools/count/run`), and what the program leaves to the kernel: sockets, wakes.
//!
//! A tenth of the callers and a tenth of the members speak (one at least) all the time; of the others a telephone sends
//! its line's noise, a member its microphone's, as browsers do without DTX. CIPHER is `gcm256`, `gcm128`, `cm` or `none`.

use std::hint::black_box;
use std::process::exit;
use std::time::Duration;

use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::media::g711::Law;
use galene_sip::media::opus;
use galene_sip::media::srtp::{MAX_RTP_OVERHEAD_BYTES, Receiver, Sender};
use galene_sip::time::Instant;
use galene_sip::wire::rtp::{RtpHeader, SrtpMaterial, SrtpProfile};
use telephone::telephone;

/// The benches' voice.
#[allow(dead_code, reason = "only the voice is wanted here")]
#[path = "../../../benches/common/speech.rs"]
mod speech;
#[path = "../../../tests/common/telephone.rs"]
mod telephone;

const TICKS_A_SECOND: u32 = 50;

/// Packets are made for so many seconds, however many are played.
const SECONDS_MADE: u32 = 4;

/// Seconds of sound that the packets repeat.
const SECONDS_OF_SOUND: usize = 2;

/// Up legs are numbered from here, telephones' from 0.
const FIRST_UP_LEG: u32 = 1000;

const ROOM: RoomKey = RoomKey(1);
const OPUS_PAYLOAD_TYPE: u8 = 111;

/// A microphone or a line on which nobody speaks: some −65 dBFS.
const QUIET_AMPLITUDE: i16 = 24;

/// Takes what the engine sends; what goes to Galene is encrypted, as the net thread does it.
struct Net {
    senders: Vec<Sender>,
    up: u64,
    down: u64,
}

impl Sink for Net {
    fn packet(&mut self, leg: LegKey, packet: &[u8]) -> bool {
        let Some(caller) = leg.0.checked_sub(FIRST_UP_LEG) else {
            self.down += 1;
            black_box(packet);
            return true;
        };
        self.up += 1;
        let mut slot = [0; MAX_PACKET_BYTES];
        slot[..packet.len()].copy_from_slice(packet);
        if let Some(sender) = self.senders.get_mut(caller as usize) {
            black_box(sender.protect_rtp(&mut slot, packet.len()).is_ok());
        }
        true
    }
    fn event(&mut self, _: MixEvent) {}
    fn retire(&mut self, _: Retired) {}
}

/// One sender of packets, and what opens them.
struct Source {
    packets: Vec<Vec<u8>>,
    receiver: Option<Receiver>,
}

fn material(profile: SrtpProfile, key: u8) -> SrtpMaterial {
    SrtpMaterial { profile, key: vec![key; profile.key_bytes()], salt: vec![2; profile.salt_bytes()] }
}

/// RTP of these payloads, over and over, from the `offset`th on.
fn rtp(payloads: &[Vec<u8>], offset: usize, payload_type: u8, ssrc: u32, step: u32) -> Vec<Vec<u8>> {
    let packet = |tick: u32| {
        let header =
            RtpHeader { marker: tick == 0, payload_type, sequence_number: tick as u16, timestamp: tick * step, ssrc };
        [&header.to_bytes()[..], &payloads[(tick as usize + offset) % payloads.len()]].concat()
    };
    (0..SECONDS_MADE * TICKS_A_SECOND).map(packet).collect()
}

fn sound(speaks: bool, sample_rate_hz: u32) -> Vec<i16> {
    let samples = SECONDS_OF_SOUND * sample_rate_hz as usize;
    if speaks {
        return speech::speech(samples, sample_rate_hz);
    }
    let mut state = 1_u32;
    (0..samples)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as i16 % QUIET_AMPLITUDE
        })
        .collect()
}

fn telephone_payloads(speaks: bool) -> Vec<Vec<u8>> {
    let encode = |frame: &[i16]| {
        let mut payload = vec![0; frame.len()];
        Law::Mu.encode(frame, &mut payload);
        payload
    };
    sound(speaks, 8000).chunks_exact(160).map(encode).collect()
}

/// As browsers send: 32 kbit/s with FEC.
fn member_payloads(speaks: bool) -> Vec<Vec<u8>> {
    let mut encoder = opus::Encoder::new(48_000, 5, 32_000).expect("a rate of Opus");
    encoder.set_fec(true, 10).expect("a percentage");
    let encode = |frame: &[i16]| {
        let mut payload = vec![0; opus::MAX_FRAME_BYTES];
        let len = encoder.encode(frame, &mut payload).expect("20 ms");
        payload.truncate(len);
        payload
    };
    sound(speaks, 48_000).chunks_exact(960).map(encode).collect()
}

/// `count` senders of whom a tenth speak.
fn sources(count: u32, payloads: [&[Vec<u8>]; 2], payload_type: u8, step: u32) -> Vec<Source> {
    let speaking = count.div_ceil(10);
    (0..count)
        .map(|number| {
            let payloads = payloads[usize::from(number < speaking)];
            let packets = rtp(payloads, number as usize * 13, payload_type, 5000 + number, step);
            Source { packets, receiver: None }
        })
        .collect()
}

/// What Galene does to a member's packets before they leave.
fn encrypt(source: &mut Source, profile: SrtpProfile) {
    let mut sender = Sender::new(&material(profile, 1)).expect("the lengths are the profile's");
    for packet in &mut source.packets {
        let len = packet.len();
        packet.resize(len + MAX_RTP_OVERHEAD_BYTES, 0);
        let len = sender.protect_rtp(packet, len).expect("numbers rise");
        packet.truncate(len);
    }
    source.receiver = Some(Receiver::new(&material(profile, 1)).expect("the lengths are the profile's"));
}

fn add_caller(engine: &mut Engine, net: &mut Net, number: u32) {
    let key = CallerKey(number);
    let telephone = telephone(TelephoneCodec::Pcmu, 20);
    let leg = LegKey(number);
    let caller = CallerSetup { key, leg, telephone, ssrc: number, first_sequence: 0, first_timestamp: 0, agc: true };
    let up = UpSetup {
        leg: LegKey(FIRST_UP_LEG + number),
        telephone: TelephoneCodec::Pcmu,
        codec: RoomCodec::Opus,
        payload_type: OPUS_PAYLOAD_TYPE,
        ssrc: number,
        first_sequence: 0,
        first_timestamp: 0,
    };
    let up = Up::new(&up).expect("libopus has memory");
    for command in [
        Command::AddCaller { room: ROOM, caller: Box::new(Caller::new(&caller).expect("libopus has memory")) },
        Command::StartTelephone(key),
        Command::SetUp { caller: key, up: Some(Box::new(up)) },
        Command::SetPresent { caller: key, present: true },
    ] {
        engine.handle_command(command, net);
    }
}

fn add_member(engine: &mut Engine, net: &mut Net, number: u32) {
    let codecs = vec![(OPUS_PAYLOAD_TYPE, RoomCodec::Opus)];
    let setup = StreamSetup { key: StreamKey(number), codecs, always_decode: false };
    let stream = Box::new(Stream::new(setup).expect("libopus has memory"));
    engine.handle_command(Command::AddStream { room: ROOM, stream }, net);
}

/// Everybody's packets of 20 ms, and the tick.
fn turn(engine: &mut Engine, net: &mut Net, tick: u32, telephones: &[Source], members: &mut [Source]) {
    let start = Instant::from_us(1_000_000) + Duration::from_millis(20) * tick;
    for (number, telephone) in (0..).zip(telephones) {
        engine.handle_telephone_packet(start, CallerKey(number), &telephone.packets[tick as usize], net);
    }
    let mut slot = [0; MAX_PACKET_BYTES];
    for (number, member) in (0..).zip(members) {
        let packet = &member.packets[tick as usize];
        let slot = &mut slot[..packet.len()];
        slot.copy_from_slice(packet);
        let len = match &mut member.receiver {
            Some(receiver) => receiver.unprotect_rtp(slot).expect("authentic"),
            None => slot.len(),
        };
        engine.handle_stream_packet(start, StreamKey(number), &slot[..len]);
    }
    let now = start + Duration::from_millis(15);
    if engine.next_timeout().is_some_and(|deadline| deadline.at <= now) {
        engine.handle_timeout(now, net);
    }
    engine.tick(now, 0, net);
}

fn run(callers: u32, members: u32, seconds: u32, profile: Option<SrtpProfile>) {
    let telephones = sources(callers, [&telephone_payloads(false), &telephone_payloads(true)], 0, 160);
    let payloads = [&member_payloads(false)[..], &member_payloads(true)];
    let mut streams = sources(members, payloads, OPUS_PAYLOAD_TYPE, 960);
    let senders = profile.map_or_else(Vec::new, |profile| {
        streams.iter_mut().for_each(|source| encrypt(source, profile));
        let sender = |_| Sender::new(&material(profile, 3)).expect("the lengths are the profile's");
        (0..callers).map(sender).collect()
    });
    let mut net = Net { senders, up: 0, down: 0 };
    let mut engine = Engine::new();
    engine.handle_command(Command::OpenRoom(Box::new(Room::new(ROOM))), &mut net);
    (0..callers).for_each(|number| add_caller(&mut engine, &mut net, number));
    (0..members).for_each(|number| add_member(&mut engine, &mut net, number));
    for tick in 0..seconds * TICKS_A_SECOND {
        turn(&mut engine, &mut net, tick, &telephones, &mut streams);
    }
    println!("{} packets up, {} down", net.up, net.down);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u32>().ok());
    let cipher = match arguments.get(3).map(String::as_str) {
        Some("gcm256") => Some(Some(SrtpProfile::AeadAes256Gcm)),
        Some("gcm128") => Some(Some(SrtpProfile::AeadAes128Gcm)),
        Some("cm") => Some(Some(SrtpProfile::Aes128CmSha1_80)),
        Some("none") => Some(None),
        Some(_) | None => None,
    };
    match (number(0), number(1), number(2), cipher) {
        (Some(callers), Some(members), Some(seconds), Some(cipher))
            if callers as usize <= MAX_CALLERS && members as usize <= MAX_STREAMS && seconds <= SECONDS_MADE =>
        {
            run(callers, members, seconds, cipher);
        }
        _ => {
            eprintln!("second-of-work CALLERS MEMBERS SECONDS gcm256|gcm128|cm|none (at most {SECONDS_MADE} s)");
            exit(2);
        }
    }
}
