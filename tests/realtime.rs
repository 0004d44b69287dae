//! What the mix promises: ten thousand ticks with loss, reordering, mutes, take-overs and people coming and going, and not
//! one call of the allocator, neither to take nor to give back, and none of the system. Nothing is logged then, and no lock
//! is fought over; that none is taken in peace either is what `layering` reads in the sources.

mod common {
    pub(crate) mod alloc;
    pub(crate) mod parties;
    pub(crate) mod trap;
}

use std::time::Duration;

use common::alloc::{Counting, calls};

use common::parties;
use common::trap::{self, Trapped};
use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::media::opus;
use galene_sip::random::Random;
use galene_sip::time::Instant;
use galene_sip::wire::rtp::RtpHeader;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TICKS: u32 = 10_000;
/// Ten seconds.
const CHURN_TICKS: u32 = 500;
const CALLERS: u32 = 6;
const VOICES: u32 = 6;

/// Counts packets, keeps what is retired for later.
struct Outbox {
    packets: u64,
    accounts: u32,
    retired: Vec<Retired>,
}

impl Sink for Outbox {
    fn packet(&mut self, _: LegKey, packet: &[u8]) -> bool {
        self.packets += u64::from(!packet.is_empty());
        true
    }
    fn heard(&mut self, _: LegKey, heard: &Heard) {
        self.accounts += u32::from(heard.bursts.missing() > 0);
    }
    fn event(&mut self, _: MixEvent) {}
    fn retire(&mut self, retired: Retired) {
        assert!(self.retired.len() < self.retired.capacity());
        self.retired.push(retired);
    }
}

const ROOM: RoomKey = RoomKey(1);

/// What a telephone speaks, by its number.
fn codec(number: u32) -> TelephoneCodec {
    let codecs = [TelephoneCodec::Pcmu, TelephoneCodec::Pcma, TelephoneCodec::G722, TelephoneCodec::Opus];
    codecs[number as usize % codecs.len()]
}

/// Telephones of all codecs, in groups of all codecs; some have agreed on events, in the others' sound keys are looked for.
fn caller(number: u32) -> [Command; 4] {
    let up_codec = [RoomCodec::Opus, RoomCodec::G722, RoomCodec::Pcma][number as usize % 3];
    let events = number.is_multiple_of(2).then_some(EventFormat { payload_type: 101, clock_rate_hz: 8000 });
    let telephone = Telephone { events, asks_metrics: true, ..parties::telephone(codec(number), 30) };
    parties::caller(ROOM, number, telephone, up_codec)
}

fn voice(number: u32) -> Command {
    parties::voice(ROOM, number)
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
        let payload_type = match self.random.below(50) {
            0 => 13,
            1 => 101,
            _ => payload_type,
        };
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
            let is_opus = codec(number) == TelephoneCodec::Opus;
            let header = outside.header(0, tick, if is_opus { 960 } else { 160 }, number);
            packet[..12].copy_from_slice(&header.to_bytes());
            packet[12..172].fill((tick as u8).wrapping_mul(7));
            let mut len = 160;
            if is_opus {
                let payload = &outside.packets[(tick + number) as usize % outside.packets.len()];
                packet[12..12 + payload.len()].copy_from_slice(payload);
                len = payload.len();
            }
            engine.handle_telephone_packet(start, CallerKey(number), &packet[..12 + len], outbox);
        }
    }
    for number in keys.1..keys.1 + VOICES {
        // Every twenty seconds another listener takes over; for half a second both bring the same packets.
        let (listener, since) = (tick / 1000, tick % 1000);
        let former = (since < 25).then(|| listener.wrapping_sub(1));
        for listener in former.into_iter().chain([listener]) {
            if outside.random.below(10) > 0 {
                let header = outside.header(111, tick, 960, number.wrapping_add(listener << 16));
                let payload = &outside.packets[(tick + number * 13) as usize % outside.packets.len()];
                packet[..12].copy_from_slice(&header.to_bytes());
                packet[12..12 + payload.len()].copy_from_slice(payload);
                engine.handle_stream_packet(start, StreamKey(number), &packet[..12 + payload.len()]);
            }
        }
    }
    let now = start + Duration::from_millis(15);
    if engine.next_timeout().is_some_and(|deadline| deadline.at <= now) {
        engine.handle_timeout(now, outbox);
    }
    engine.tick(now, u32::from(outside.random.below(500) == 0), outbox);
}

/// What signalling asks for, built before the counting begins, as signalling builds it: for each tick.
struct Agenda(Vec<Vec<Command>>);

impl Agenda {
    fn new() -> Self {
        let commands = |tick: u32| {
            let (eldest, _) = eldest(tick);
            let mut commands = Vec::new();
            // Every ten seconds the eldest leave and others come.
            if tick % CHURN_TICKS == CHURN_TICKS - 1 {
                commands.extend([Command::RemoveCaller(CallerKey(eldest)), Command::RemoveStream(StreamKey(eldest))]);
                commands.extend(caller(eldest + CALLERS));
                commands.push(voice(eldest + VOICES));
            }
            // A re-INVITE: another line, and an up stream of its rate.
            if tick % CHURN_TICKS == 100 {
                commands.extend(other_codec(eldest));
            }
            if tick.is_multiple_of(70) {
                commands.push(Command::SetMuted { caller: CallerKey(eldest), muted: tick.is_multiple_of(140) });
            }
            commands
        };
        Self((0..TICKS).map(commands).collect())
    }
}

/// The eldest speaks G.722 from now on, whatever it spoke before.
fn other_codec(number: u32) -> [Command; 2] {
    let caller = CallerKey(number);
    let telephone = parties::telephone(TelephoneCodec::G722, 20);
    let line = Some(Box::new(Line::new(&telephone).expect("libopus has memory")));
    let up = parties::up(number, TelephoneCodec::G722, RoomCodec::Opus);
    [Command::SetTelephone { caller, telephone, line }, Command::SetUp { caller, up: Some(Box::new(up)) }]
}

/// The lowest keys of callers and voices at a tick, before and after what is done in it.
fn eldest(tick: u32) -> (u32, u32) {
    (1 + tick / CHURN_TICKS, 1 + (tick + 1) / CHURN_TICKS)
}

/// A room of all of them.
fn conference(outbox: &mut Outbox) -> Engine {
    let mut engine = Engine::new();
    engine.handle_command(Command::OpenRoom(Box::new(Room::new(ROOM))), outbox);
    let callers = (1..=CALLERS).flat_map(caller);
    callers.chain((1..=VOICES).map(voice)).for_each(|command| engine.handle_command(command, outbox));
    engine
}

#[test]
fn ten_thousand_ticks_call_neither_the_allocator_nor_the_system() {
    let (mut outside, mut agenda) = (Outside::new(), Agenda::new());
    let mut outbox = Outbox { packets: 0, accounts: 0, retired: Vec::with_capacity(200) };
    let mut engine = conference(&mut outbox);
    let work = move || {
        let trap = trap::set();
        let before = calls();
        for (tick, commands) in (0..TICKS).zip(&mut agenda.0) {
            for command in commands.drain(..) {
                engine.handle_command(command, &mut outbox);
            }
            let (_, eldest) = eldest(tick);
            turn(&mut engine, &mut outbox, &mut outside, tick, (eldest, eldest));
        }
        engine.handle_command(Command::CloseRoom(ROOM), &mut outbox);
        let allocations = calls() - before;
        (trap, trap::disarm(), allocations, outbox, agenda)
    };
    let (trap, trapped, allocations, outbox, _) = std::thread::spawn(work).join().expect("the ticks do not panic");
    assert_eq!(allocations, 0);
    let churned = TICKS / CHURN_TICKS;
    // Each change of codec gave a line and an up stream back.
    assert_eq!(outbox.retired.len() as u32, 1 + 2 * (CALLERS + churned) + VOICES + churned + 2 * churned);
    assert!(outbox.packets > u64::from(TICKS * CALLERS), "{}", outbox.packets);
    // Each caller stays for a minute and is told of once a second.
    assert!(outbox.accounts > TICKS / 50 * CALLERS / 2, "{}", outbox.accounts);
    match trap {
        Ok(()) => assert_eq!(trapped, Trapped::default(), "system calls, by their numbers"),
        Err(why) => println!("skipped: no trap for system calls in the tick, {why}"),
    }
}

#[test]
fn the_trap_reports_a_system_call() {
    let work = || {
        let trap = trap::set();
        let process = nix::unistd::getppid();
        (trap, trap::disarm(), process)
    };
    let (trap, trapped, process) = std::thread::spawn(work).join().expect("the trap does not end the thread");
    match trap {
        Ok(()) => {
            assert_eq!((trapped.count, trapped.first[0]), (1, nix::libc::SYS_getppid));
            assert_ne!(process, nix::unistd::getppid());
        }
        Err(why) => println!("skipped: no trap for system calls, {why}"),
    }
}
