//! What the engine costs against the libopus calls that it must make: whole rooms, 20 ms at a time.
//!
//! A turn is what the mix does in 20 ms: every telephone's packet, every room voice's packet, the tick. Beside it, the same
//! frames go through bare libopus: one decoding for each packet of a speaking member, one encoding for each packet of a
//! speaking telephone. Both run in alternation over the same second of speech, and of each turn the fastest run counts.

mod common;
#[path = "../tests/common/parties.rs"]
mod parties;

use std::hint::black_box;
use std::time::{Duration, Instant as Clock};

use common::{frames, speech};
use criterion::{BenchmarkId, Criterion};
use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::media::g711::{Law, ULAW_SILENCE};
use galene_sip::media::{g722, opus};
use galene_sip::time::Instant;
use galene_sip::wire::rtp::RtpHeader;
use parties::{caller, telephone, voice};

const ROOM: RoomKey = RoomKey(1);
/// Of the speech that is said again and again.
const TURNS: usize = 50;
/// How often it is said while the time is taken.
const ROUNDS: usize = 8;
/// Samples of a telephone's packet, and of a frame on the bus.
const NARROW: usize = 160;
const WIDE: usize = 320;
/// The share of a silent member's packets that design has decoded.
const PROBE_EVERY: usize = 10;
const NEVER: Duration = Duration::MAX;

/// Who is in a room, and how many of them speak.
#[derive(Clone, Copy, Debug)]
struct Scene {
    name: &'static str,
    callers: usize,
    speaking_callers: usize,
    members: usize,
    speaking_members: usize,
    codec: TelephoneCodec,
}

/// Nobody, spoken with in G.711.
const EMPTY: Scene =
    Scene { name: "", callers: 0, speaking_callers: 0, members: 0, speaking_members: 0, codec: TelephoneCodec::Pcmu };

/// Every one of so many callers and members speaks.
const fn all_speak(name: &'static str, each: usize) -> Scene {
    Scene { name, callers: each, speaking_callers: each, members: each, speaking_members: each, ..EMPTY }
}

const SPEAKING: [Scene; 2] = [all_speak("8 callers x 8 members, all speak", 8), all_speak("50 x 50, all speak", 50)];

/// Twenty listeners among fifty members.
const QUIET: [Scene; 3] = [
    Scene { name: "nobody speaks", callers: 20, members: 50, ..EMPTY },
    Scene { name: "one member speaks", callers: 20, members: 50, speaking_members: 1, ..EMPTY },
    Scene { name: "one caller speaks", callers: 20, speaking_callers: 1, members: 50, ..EMPTY },
];

/// The crowd for a Raspberry Pi.
const CROWD: Scene = Scene { name: "50 x 50, five speak", callers: 50, members: 50, speaking_members: 5, ..EMPTY };

/// What a caller's own silence costs beside speech, and speech in each codec.
const SILENT: Scene = Scene { name: "a silent telephone", callers: 1, ..EMPTY };
const SPEAKERS: [Scene; 3] = [
    Scene { name: "a speaking telephone, G.711", speaking_callers: 1, ..SILENT },
    Scene { name: "a speaking telephone, G.722", speaking_callers: 1, codec: TelephoneCodec::G722, ..SILENT },
    Scene { name: "a speaking telephone, Opus", speaking_callers: 1, codec: TelephoneCodec::Opus, ..SILENT },
];

/// Where the packets go: nowhere.
#[derive(Default)]
struct Outbox {
    packets: u64,
    retired: Vec<Retired>,
}

impl Sink for Outbox {
    fn packet(&mut self, _: LegKey, packet: &[u8]) -> bool {
        black_box(packet);
        self.packets += 1;
        true
    }
    fn event(&mut self, _: MixEvent) {}
    fn retire(&mut self, retired: Retired) {
        self.retired.push(retired);
    }
}

/// What one participant sends in the second: payloads.
type Second = Vec<Vec<u8>>;

/// The whole second of everybody.
struct Script {
    callers: Vec<Second>,
    members: Vec<Second>,
}

impl Script {
    fn new(scene: &Scene) -> Self {
        let silence = vec![vec![ULAW_SILENCE; NARROW]; TURNS];
        let mut callers = vec![silence; scene.callers];
        for (number, second) in callers.iter_mut().take(scene.speaking_callers).enumerate() {
            *second = match scene.codec {
                TelephoneCodec::G722 => g722(&said(number, 16_000)),
                TelephoneCodec::Opus => opus_packets(&said(number, 48_000)),
                TelephoneCodec::Pcmu | TelephoneCodec::Pcma => mu_law(&said(number, 8000)),
            };
        }
        let mut members = vec![opus_packets(&vec![0; 48_000]); scene.members];
        for (number, second) in members.iter_mut().take(scene.speaking_members).enumerate() {
            *second = opus_packets(&said(number + 1, 48_000));
        }
        Self { callers, members }
    }
}

/// A second that belongs to one speaker, who leaves no pause between syllables.
fn said(speaker: usize, rate_hz: u32) -> Vec<i16> {
    let skipped = speaker * rate_hz as usize / 7;
    let syllable = rate_hz as usize * 262 / 1000;
    let voice = speech(skipped + rate_hz as usize + syllable, rate_hz).split_off(skipped);
    voice.iter().zip(&voice[syllable..]).map(|(&now, &next)| now.saturating_add(next)).collect()
}

fn mu_law(pcm: &[i16]) -> Second {
    let encode = |frame: &[i16]| {
        let mut bytes = vec![0; NARROW];
        Law::Mu.encode(frame, &mut bytes);
        bytes
    };
    pcm.chunks(NARROW).map(encode).collect()
}

fn g722(pcm: &[i16]) -> Second {
    let mut encoder = g722::Encoder::new();
    let encode = |frame: &[i16]| {
        let mut bytes = vec![0; NARROW];
        encoder.encode(frame, &mut bytes);
        bytes
    };
    pcm.chunks(WIDE).map(encode).collect()
}

fn opus_packets(pcm: &[i16]) -> Second {
    frames(&mut opus::Encoder::new(48_000, 9, 32_000).expect("a rate of Opus"), pcm)
}

/// A room at work, without threads.
struct Conference {
    engine: Engine,
    outbox: Outbox,
    telephone: Telephone,
    turn: u32,
}

/// The time of one turn, cut where the tick begins.
#[derive(Clone, Copy)]
struct Turn {
    packets: Duration,
    tick: Duration,
}

impl Conference {
    fn new(scene: &Scene) -> Self {
        let (mut engine, mut outbox) = (Engine::new(), Outbox::default());
        engine.handle_command(Command::OpenRoom(Box::new(Room::new(ROOM))), &mut outbox);
        // Hardly a telephone has no events; from one without, keys would be looked for in the sound.
        let events = Some(EventFormat { payload_type: 101, clock_rate_hz: scene.codec.clock_rate_hz() });
        let telephone = Telephone { events, ..telephone(scene.codec, 20) };
        let callers = (1..=scene.callers as u32).flat_map(|number| caller(ROOM, number, telephone, RoomCodec::Opus));
        let voices = (1..=scene.members as u32).map(|number| voice(ROOM, number));
        callers.chain(voices).for_each(|command| engine.handle_command(command, &mut outbox));
        Self { engine, outbox, telephone, turn: 0 }
    }

    fn turn(&mut self, script: &Script) -> Turn {
        let Self { engine, outbox, telephone, turn } = self;
        let at = *turn as usize % TURNS;
        let now = Instant::from_us(1_000_000) + Duration::from_millis(20) * *turn;
        let mut packet = [0; MAX_PACKET_BYTES];
        let mut fill = |payload: &[u8], payload_type: u8, step: u32| {
            let (sequence_number, timestamp) = (*turn as u16, turn.wrapping_mul(step));
            let header = RtpHeader { marker: false, payload_type, sequence_number, timestamp, ssrc: 1 };
            packet[..12].copy_from_slice(&header.to_bytes());
            packet[12..12 + payload.len()].copy_from_slice(payload);
            packet
        };
        let (payload_type, step) = (telephone.receive_payload_type, telephone.codec.clock_rate_hz() / TURNS as u32);
        let callers: Vec<_> = script.callers.iter().map(|second| fill(&second[at], payload_type, step)).collect();
        let members: Vec<_> = script.members.iter().map(|second| fill(&second[at], 111, 960)).collect();
        let start = Clock::now();
        for (number, (packet, second)) in (1..).zip(callers.iter().zip(&script.callers)) {
            engine.handle_telephone_packet(now, CallerKey(number), &packet[..12 + second[at].len()], outbox);
        }
        for (number, (packet, second)) in (1..).zip(members.iter().zip(&script.members)) {
            engine.handle_stream_packet(now, StreamKey(number), &packet[..12 + second[at].len()]);
        }
        let packets = start.elapsed();
        engine.tick(now + Duration::from_millis(2), 0, outbox);
        let tick = start.elapsed() - packets;
        *turn += 1;
        Turn { packets, tick }
    }

    /// Ends it: how many packets of the members were decoded.
    fn decoded(mut self) -> u32 {
        self.engine.handle_command(Command::CloseRoom(ROOM), &mut self.outbox);
        let decoded = |retired: &Retired| match retired {
            Retired::Stream(stream) => stream.stats().decoded,
            Retired::Room(_) | Retired::Caller(_) | Retired::Up(_) | Retired::Line(_) => 0,
        };
        self.outbox.retired.iter().map(decoded).sum()
    }
}

/// The calls of libopus that must be made: every speaker's, and a look at the silent ones now and then.
struct Bare {
    encoders: Vec<(opus::Encoder, Vec<Vec<i16>>)>,
    decoders: Vec<(opus::Decoder, Second)>,
    probed: Vec<(opus::Decoder, Second)>,
}

impl Bare {
    fn new(scene: &Scene, script: &Script) -> Self {
        let heard = |bytes: &Vec<u8>| {
            let mut pcm = vec![0; NARROW];
            Law::Mu.decode(bytes, &mut pcm);
            pcm
        };
        let encoder = || opus::Encoder::new(8000, 0, 32_000).expect("a rate of Opus");
        let decoder = || opus::Decoder::new(16_000).expect("a rate of Opus");
        let callers = script.callers.iter().take(scene.speaking_callers);
        // Of the silent ones, one packet in ten is decoded to know that they still are.
        let members = script.members.iter().take(scene.speaking_members);
        let probed = script.members.iter().skip(scene.speaking_members);
        Self {
            encoders: callers.map(|second| (encoder(), second.iter().map(heard).collect())).collect(),
            decoders: members.map(|second| (decoder(), second.clone())).collect(),
            probed: probed.map(|second| (decoder(), second.clone())).collect(),
        }
    }

    fn turn(&mut self, at: usize) -> Turn {
        let (mut packet, mut pcm) = ([0; opus::MAX_FRAME_BYTES], [0; WIDE]);
        let start = Clock::now();
        for (encoder, frames) in &mut self.encoders {
            black_box(encoder.encode(&frames[at], &mut packet).expect("20 ms"));
        }
        let packets = start.elapsed();
        for (decoder, second) in &mut self.decoders {
            black_box(decoder.decode(Some(&second[at]), false, &mut pcm).expect("a packet of ours"));
        }
        for (decoder, second) in self.probed.iter_mut().skip(at % PROBE_EVERY).step_by(PROBE_EVERY) {
            black_box(decoder.decode(Some(&second[at]), false, &mut pcm).expect("a packet of ours"));
        }
        Turn { packets, tick: start.elapsed() - packets }
    }
}

/// A second of both, in µs a turn: the engine's packets and ticks, libopus' encodings and decodings.
struct Cost {
    engine: Turn,
    bare: Turn,
    packets_decoded: u32,
}

fn measure(scene: &Scene) -> Cost {
    let script = Script::new(scene);
    let (mut conference, mut bare) = (Conference::new(scene), Bare::new(scene, &script));
    // The first seconds fill the jitter buffers, and tell silence from speech.
    for at in 0..2 * TURNS {
        conference.turn(&script);
        bare.turn(at % TURNS);
    }
    let mut fastest = [[Turn { packets: NEVER, tick: NEVER }; 2]; TURNS];
    for _ in 0..ROUNDS {
        for (at, fastest) in fastest.iter_mut().enumerate() {
            for (kept, turn) in fastest.iter_mut().zip([conference.turn(&script), bare.turn(at)]) {
                *kept = Turn { packets: kept.packets.min(turn.packets), tick: kept.tick.min(turn.tick) };
            }
        }
    }
    let mean = |of: usize| {
        let sum = |part: fn(&Turn) -> Duration| fastest.iter().map(|pair| part(&pair[of])).sum::<Duration>();
        Turn { packets: sum(|turn| turn.packets) / TURNS as u32, tick: sum(|turn| turn.tick) / TURNS as u32 }
    };
    Cost { engine: mean(0), bare: mean(1), packets_decoded: conference.decoded() }
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn print_ratios() {
    println!("20 ms of a room (packets and tick) against the bare libopus calls that it must make:");
    for scene in SPEAKING {
        let Cost { engine, bare, packets_decoded } = measure(&scene);
        let frames = (scene.speaking_members * TURNS * (ROUNDS + 2)) as u32;
        assert!(
            packets_decoded + scene.members as u32 * 5 >= frames,
            "only {packets_decoded} of {frames} were decoded"
        );
        let (own, opus) = (us(engine.packets + engine.tick), us(bare.packets + bare.tick));
        println!(
            "  {:<34} {own:>7.0} us, libopus alone {opus:>7.0} us: ratio {:.3} x (at most 1.15)",
            scene.name,
            own / opus
        );
        println!(
            "  {:<34} beside libopus: {:.2} us a telephone packet, {:.2} us of the tick a caller and member",
            "",
            us(engine.packets.saturating_sub(bare.packets)) / scene.callers as f64,
            us(engine.tick.saturating_sub(bare.tick)) / scene.callers as f64,
        );
    }
    println!("ticks of rooms of {} listeners and {} members:", QUIET[0].callers, QUIET[0].members);
    for scene in QUIET {
        let Cost { engine, bare, .. } = measure(&scene);
        println!(
            "  {:<34} {:>7.1} us, libopus alone {:>5.1} us: {:.2} us a listener beside it (at most 2)",
            scene.name,
            us(engine.tick),
            us(bare.tick),
            us(engine.tick.saturating_sub(bare.tick)) / scene.callers as f64
        );
    }
    let silent = us(measure(&SILENT).engine.packets);
    println!("  {:<34} {silent:>7.1} us a packet", SILENT.name);
    let mut narrow = None;
    for scene in SPEAKERS {
        let engine = measure(&scene).engine;
        let whole = us(engine.packets + engine.tick);
        println!(
            "  {:<34} {whole:>7.1} us a packet and the tick down to it = {:.2} % of a core, {:.2} x G.711; its packet {:.1} x a silent one",
            scene.name,
            whole / 200.0,
            whole / *narrow.get_or_insert(whole),
            us(engine.packets) / silent,
        );
    }
    let Cost { engine, bare, .. } = measure(&CROWD);
    let whole = us(engine.packets + engine.tick);
    println!(
        "  {:<34} {whole:>7.0} us with its packets = {:.1} % of a core; libopus alone {:.0} us",
        CROWD.name,
        whole / 200.0,
        us(bare.tick + bare.packets)
    );
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick");
    group.sample_size(10);
    for scene in SPEAKING.into_iter().chain(QUIET) {
        let (script, mut conference) = (Script::new(&scene), Conference::new(&scene));
        group.bench_function(BenchmarkId::new("turn", scene.name), |bencher| {
            bencher.iter(|| conference.turn(&script));
        });
    }
    group.finish();
}

fn main() {
    common::run(print_ratios, bench);
}
