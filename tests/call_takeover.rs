//! When the call ends whose member listens for the room, the others go on hearing it.
//!
//! With `GALENE_URL` the tests that need no hand on the room run against that Galene group, of which `op` with the password
//! `op` is an operator.

mod real;

use std::time::{Duration, Instant};

use lab::member::{Crowd, MemberCommand, MemberConfig, MemberEventKind, Speech};
use lab::opus;
use lab::pcm::Pcm;
use lab::room::{GroupConfig, RoomCommand, RoomConfig, RoomEventKind};
use lab::telephone::{RATE_HZ, Report, Telephone, What};
use real::{AUDIBLE_DBFS, GROUP, PATIENCE, Place, World, alone, assert_once, eventually, from};
use serde_json::Value;

/// Nobody is to notice that one listener takes over from another.
const NO_GAP: Duration = Duration::from_millis(20);
/// After a kick the others' members have to be asked, offered, connected.
const SHORT_GAP: Duration = Duration::from_millis(500);
/// What is made up at a time.
const FRAME: Duration = Duration::from_millis(20);
/// From the end of one listener on, everything has long happened by then.
const AFTERMATH: Duration = Duration::from_millis(2500);
/// Who publishes in a full room.
const MANY: usize = 30;

/// Members of whom the first hums without a pause; the others publish a quiet noise.
fn hum(url: &str, members: usize) -> Crowd {
    let config = MemberConfig {
        insecure: true,
        listen: false,
        speakers: 1,
        speech: Some(Speech::looped(Pcm::tone(opus::RATE_HZ, 1.0, 440.0, -20.0))),
        ..MemberConfig::new(url, "Member")
    };
    let mut crowd = Crowd::join(config, members).unwrap();
    eventually("all members publish", || {
        crowd.events.all().iter().filter(|event| event.kind == MemberEventKind::UpConnected).count() == members
    });
    crowd
}

fn in_the_room(place: &Place, name: &str) -> Telephone {
    let telephone = place.call(&from(name));
    telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", place.gateway.lines().join("\n")));
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    telephone
}

/// The longest time without the hum in what a telephone heard from `origin` on.
fn longest_gap(report: &Report, origin: Instant) -> Duration {
    // More than two periods of the hum, and a fiftieth of its peak.
    let (block_samples, quiet) = (RATE_HZ as usize / 200, 100);
    let heard = report.recording.render(origin);
    let blocks = heard.chunks_exact(block_samples);
    let (mut gap, mut longest) = (0, 0);
    for block in blocks {
        let is_quiet = block.iter().all(|sample| sample.unsigned_abs() < quiet);
        gap = if is_quiet { gap + 1 } else { 0 };
        longest = longest.max(gap);
    }
    Duration::from_millis(5 * longest)
}

/// The figures behind a name in the counters of voices that the gateway has told the end of.
fn of_ended_voices(place: &Place, name: &str) -> Vec<u32> {
    let word = format!(" {name}: ");
    let lines = place.gateway.lines();
    let ended = lines.iter().filter(|line| line.contains("voice ") && line.contains(" removed: "));
    let figure = |line: &String| {
        let rest = line.split_once(&word)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    ended.filter_map(figure).collect()
}

/// What one telephone heard from the moment on when the other's end made its member take over.
fn heard_by_the_next(place: &Place, members: usize, end: impl FnOnce(Telephone)) -> (Report, Instant) {
    let first = in_the_room(place, "Ada");
    let second = in_the_room(place, "Ben");
    std::thread::sleep(Duration::from_millis(500));
    let origin = Instant::now();
    end(first);
    std::thread::sleep(AFTERMATH);
    assert!(of_ended_voices(place, "concealed").is_empty(), "the voice was built anew");
    let report = second.finish();
    eventually("the voices are gone", || of_ended_voices(place, "concealed").len() == members);
    (report, origin)
}

#[test]
fn the_room_is_heard_without_a_gap_when_the_listener_hangs_up() {
    let _alone = alone();
    assert_once("no gap", || {
        let place = Place::new();
        let _member = hum(place.url(), 1);
        let (report, origin) = heard_by_the_next(&place, 1, |first| drop(first.finish()));
        let gap = longest_gap(&report, origin);
        let concealed = of_ended_voices(&place, "concealed");
        let found = format!("longest gap {gap:?}; frames made up {concealed:?}; {:?}", report.reception);
        println!("{found}");
        (gap <= NO_GAP && concealed == [0]).then_some(()).ok_or(found)
    });
}

#[test]
fn the_room_is_back_within_half_a_second_when_the_listener_is_kicked_with_thirty_members_there() {
    let _alone = alone();
    assert_once("half a second", || {
        let place = Place::new();
        let _members = hum(place.url(), MANY);
        let config = MemberConfig {
            insecure: true,
            listen: false,
            speech: None,
            password: "op".to_owned(),
            ..MemberConfig::new(place.url(), "op")
        };
        let mut operator = Crowd::one(config).unwrap();
        let kick = |first: Telephone| {
            let is_here =
                |kind: &MemberEventKind| matches!(kind, MemberEventKind::User { username, .. } if username == "Ada");
            operator.events.wait_for(PATIENCE, |event| is_here(&event.kind)).expect("the operator sees the caller");
            let (kind, dest, value) = ("kick".to_owned(), "Ada".to_owned(), Value::from("out"));
            operator.command(0, MemberCommand::Action { kind, dest, value });
            first.wait_for(PATIENCE, |what| matches!(what, What::Bye { .. })).expect("the kick ends the call");
        };
        let (report, origin) = heard_by_the_next(&place, MANY, kick);
        let gap = longest_gap(&report, origin);
        // The hum goes on in what is made up for it, so that a level tells of the rest alone.
        let concealed = of_ended_voices(&place, "concealed");
        let longest = gap + FRAME * concealed.iter().copied().max().unwrap_or_default();
        let found =
            format!("longest gap {longest:?}, of which silent {gap:?}; frames made up, by voice: {concealed:?}");
        println!("{found}");
        (longest <= SHORT_GAP).then_some(()).ok_or(found)
    });
}

#[test]
fn who_hangs_up_is_silent_at_once_and_out_of_the_room_as_soon_as_another_listens() {
    let _alone = alone();
    let mut world = World::new();
    let _members = hum(&world.room.group_url(GROUP), 10);
    let first = world.call(&from("Ada"));
    first.wait_answered(PATIENCE).unwrap();
    first.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    let second = world.call(&from("Ben"));
    second.wait_answered(PATIENCE).unwrap();
    first.finish();
    let closed = world.room_says("Ada", |kind| matches!(kind, RoomEventKind::UpClosed { .. }));
    let left = world.room_says("Ada", |kind| *kind == RoomEventKind::Left);
    let is_bens = |kind: &RoomEventKind| matches!(kind, RoomEventKind::DownConnected { .. });
    let connected: Vec<u64> = world
        .room
        .events
        .all()
        .iter()
        .filter(|event| event.client.username == "Ben" && is_bens(&event.kind))
        .map(|event| event.at_us)
        .collect();
    println!("out {} ms after the end of the stream", (left.at_us - closed.at_us) / 1000);
    assert_eq!(connected.len(), 10);
    assert!(connected.iter().all(|at_us| (closed.at_us..left.at_us).contains(at_us)));
    assert!(left.at_us - closed.at_us < 1_000_000);
    second.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
}

#[test]
fn a_lost_connection_of_the_listener_is_taken_over_from() {
    let _alone = alone();
    let mut world = World::new();
    let _members = hum(&world.room.group_url(GROUP), 10);
    let first = world.call(&from("Ada"));
    first.wait_answered(PATIENCE).unwrap();
    let second = world.call(&from("Ben"));
    second.wait_answered(PATIENCE).unwrap();
    second.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    world.room.command(RoomCommand::Cut { client: "Ada".to_owned() });
    let lost = world.room_says("Ada", |kind| *kind == RoomEventKind::Left);
    let is_last = |kind: &RoomEventKind| matches!(kind, RoomEventKind::DownConnected { .. });
    eventually("the second caller's member hears everybody", || {
        let events = world.room.events.all().iter();
        events.filter(|event| event.client.username == "Ben" && is_last(&event.kind)).count() == 10
    });
    let last = world.room.events.all().iter().rfind(|event| is_last(&event.kind)).unwrap().at_us;
    println!("ten voices are back after {} ms", (last - lost.at_us) / 1000);
    assert!(last - lost.at_us < SHORT_GAP.as_micros() as u64);
    std::thread::sleep(Duration::from_secs(1));
    second.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    // Its caller has another membership meanwhile, and hears what the other's member listens to.
    first.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    assert!(!first.is_over());
}

#[test]
fn a_member_whom_the_server_overlooks_is_asked_for_again() {
    let _alone = alone();
    let mut config = RoomConfig::new(vec![GroupConfig::open(GROUP)]);
    config.overlooks_newcomers = true;
    // The member's first packet comes after the caller and before the server shows the stream to those whom it knew.
    config.publish_delay = Duration::from_millis(1200);
    let mut world = World::in_room(config, &[]);
    let config = MemberConfig {
        insecure: true,
        speech: Some(Speech::looped(Pcm::tone(opus::RATE_HZ, 1.0, 440.0, -20.0))),
        first_packet_after: Duration::from_millis(900),
        ..MemberConfig::new(&world.room.group_url(GROUP), "Member")
    };
    let _member = Crowd::one(config).unwrap();
    world.room_says("Member", |kind| matches!(kind, RoomEventKind::UpConnected { .. }));
    let telephone = world.call(&from("Ada"));
    telephone.wait_answered(PATIENCE).unwrap();
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    let all = world.room.events.all();
    let adas = |kind: fn(&RoomEventKind) -> bool| {
        all.iter()
            .filter(|event| event.client.username == "Ada" && kind(&event.kind))
            .map(|event| event.at_us)
            .collect::<Vec<_>>()
    };
    let requested = adas(|kind| matches!(kind, RoomEventKind::Requested(_)));
    let closed = adas(|kind| matches!(kind, RoomEventKind::DownClosed { .. }));
    let offered = adas(|kind| matches!(kind, RoomEventKind::DownOffered { .. }));
    let published = all.iter().find(|event| matches!(event.kind, RoomEventKind::Published { .. })).unwrap().at_us;
    assert!(requested.len() >= 2 && !closed.is_empty(), "{requested:?}, {closed:?}");
    assert!(closed[0] < offered[0] && requested[1] < offered[0], "{requested:?}, {closed:?}, {offered:?}");
    println!("published at {published}, requested {requested:?}, offered {offered:?}");
}
