//! Callers stay on the line while Galene, or the way to it, is away, and are back soon after it.

mod real;

use std::time::{Duration, Instant};

use lab::member::{Crowd, MemberConfig, MemberEventKind, Speech};
use lab::opus;
use lab::pcm::{Pcm, tone_dbfs};
use lab::room::{GroupConfig, RoomCommand, RoomConfig, RoomEventKind};
use lab::telephone::{RATE_HZ, Telephone, What};
use real::{AUDIBLE_DBFS, GROUP, Judge, PATIENCE, World, alone, eventually, from};

/// From Galene's return, or from the loss of a connection, to voices both ways.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// What the member hums; the sign of waiting is at 440 Hz.
const HUM_HZ: f64 = 700.0;

fn hum(url: &str) -> Crowd {
    let speech = Some(Speech::looped(Pcm::tone(opus::RATE_HZ, 1.0, HUM_HZ, -20.0)));
    let config =
        MemberConfig { insecure: true, listen: false, speakers: 1, speech, ..MemberConfig::new(url, "Member") };
    let mut crowd = Crowd::join(config, 1).unwrap();
    eventually("the member publishes", || {
        crowd.events.all().iter().any(|event| event.kind == MemberEventKind::UpConnected)
    });
    crowd
}

fn in_the_room(world: &World) -> Telephone {
    let telephone = world.call(&from("Ada"));
    telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", world.gateway.lines().join("\n")));
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    telephone
}

fn is_carried(kind: &RoomEventKind) -> bool {
    matches!(kind, RoomEventKind::UpFirstPacket { .. })
}

/// How loud a frequency was at most, over 100 ms, in what a telephone heard between two moments.
fn level_dbfs(heard: &[i16], origin: Instant, from: Instant, until: Instant, hz: f64) -> f64 {
    let at = |when: Instant| (when.saturating_duration_since(origin).as_secs_f64() * f64::from(RATE_HZ)) as usize;
    let blocks = heard[at(from).min(heard.len())..at(until).min(heard.len())].chunks_exact(RATE_HZ as usize / 10);
    blocks.map(|block| tone_dbfs(block, RATE_HZ, hz)).fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn a_restart_of_the_server_is_waited_for_with_a_tone_and_both_ways_are_back_within_five_seconds() {
    let _alone = alone();
    let world = World::new();
    let _member = hum(&world.room.group_url(GROUP));
    let telephone = in_the_room(&world);
    let World { gateway, room } = world;
    let address = room.address();

    room.command(RoomCommand::ShutDown { message: "server is shutting down".to_owned() });
    drop(room);
    let gone = Instant::now();
    std::thread::sleep(Duration::from_secs(8));
    let returned = Instant::now();
    let config = RoomConfig { listen: address, ..RoomConfig::new(vec![GroupConfig::open(GROUP)]) };
    let mut world = World { gateway, room: Judge::start(config) };
    let _member = hum(&world.room.group_url(GROUP));
    world.room_says("Ada", is_carried);
    let back_after = returned.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let now = Instant::now();
    let report = telephone.finish();
    let heard = report.recording.render(report.invited_at);
    let level = |from, until, hz| level_dbfs(&heard, report.invited_at, from, until, hz);

    println!("back {} ms after the server", back_after.as_millis());
    assert!(back_after < BACK_WITHIN, "{back_after:?}\n{}", world.gateway.lines().join("\n"));
    let (waiting, later) = (gone + Duration::from_secs(1), gone + Duration::from_secs(7));
    assert!(level(waiting, later, 440.0) > -30.0, "no sign: {}", level(waiting, later, 440.0));
    assert!(level(waiting, later, HUM_HZ) < -50.0);
    let end = now - Duration::from_millis(500);
    assert!(level(end, now, HUM_HZ) > -30.0, "the room is not heard: {}", level(end, now, HUM_HZ));
    assert!(level(end, now, 440.0) < -45.0, "the sign goes on");
    eventually("the caller has left the room", || !world.names().iter().any(|name| name == "Ada"));
}

#[test]
fn a_connection_that_is_cut_is_replaced_at_once_and_the_ghost_is_not_heard() {
    let _alone = alone();
    let mut world = World::new();
    let _member = hum(&world.room.group_url(GROUP));
    let telephone = in_the_room(&world);
    world.room_says("Ada", is_carried);
    world.room.events.forget_seen();
    let cut = Instant::now();
    world.room.command(RoomCommand::Cut { client: "Ada".to_owned() });
    world.room_says("Ada", is_carried);
    let back_after = cut.elapsed();
    println!("back {} ms after the cut", back_after.as_millis());
    assert!(back_after < BACK_WITHIN, "{back_after:?}");
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    assert!(telephone.wait_for(Duration::from_secs(1), |what| matches!(what, What::Bye { .. })).is_err());
    telephone.finish();
}
