//! The process stands still for a while and goes on: a machine that is paused, or one that has no time.

use std::time::{Duration, Instant};

use lab::member::{Crowd, MemberEventKind};
use lab::program::Signal;
use lab::telephone::{Telephone, What};

use crate::ground::{assert_both_ways, call, member};
use crate::real::{AUDIBLE_DBFS, GROUP, PATIENCE, World};

/// After this the room must not hear what the telephone said while nobody listened: the jitter buffer's longest delay, the room's
/// way, and the member's look at its level.
const OLD_SOUND_ENDS: Duration = Duration::from_millis(1200);
/// Packets that a telephone may get in the second after: 50 and what is on its way.
const NO_BURST: u32 = 65;

struct Stopped {
    world: World,
    member: Crowd,
    telephone: Telephone,
    went_on: Instant,
}

impl Stopped {
    fn log(&self) -> String {
        self.world.gateway.lines().join("\n")
    }
}

/// Stands still for so long, while the telephone speaks; it falls silent as the process goes on.
fn stop_for(pause: Duration) -> Stopped {
    let mut world = World::new();
    let mut member = member(&world.room.group_url(GROUP));
    let telephone = call(&world.gateway.uri(), "Ada", || world.gateway.lines().join("\n"));
    assert_both_ways(&telephone, "Ada", &mut member, || world.gateway.lines().join("\n"));
    world.gateway.signal(Signal::SIGSTOP);
    std::thread::sleep(pause);
    while telephone.next_event(Duration::ZERO).is_some() {}
    member.events.forget();
    telephone.speak([].into(), false);
    world.gateway.signal(Signal::SIGCONT);
    Stopped { world, member, telephone, went_on: Instant::now() }
}

/// No old sound goes either way, and then all is as before.
fn assert_goes_on(stopped: &mut Stopped) {
    let loud = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Level { username, dbfs, .. } if username == "Ada" && *dbfs > AUDIBLE_DBFS);
    let mut last_heard = None;
    while stopped.went_on.elapsed() < 2 * OLD_SOUND_ENDS {
        let Some(event) = stopped.member.events.next(Duration::from_millis(100)) else { continue };
        if loud(&event.kind) {
            last_heard = Some(stopped.went_on.elapsed());
        }
    }
    println!("the room hears the last of what was said meanwhile {last_heard:?} after");
    assert!(last_heard.is_none_or(|last| last < OLD_SOUND_ENDS), "{last_heard:?}\n{}", stopped.log());
    let mut most = 0;
    while let Some(event) = stopped.telephone.next_event(Duration::ZERO) {
        match event.what {
            What::Level { packets, .. } => most = most.max(packets),
            What::Bye { .. } | What::Failed { .. } => panic!("{:?}\n{}", event.what, stopped.log()),
            _ => {}
        }
    }
    assert!(most < NO_BURST, "{most} packets in a second");
    stopped.telephone.speak(lab::pcm::Pcm::warble(lab::telephone::RATE_HZ, 5.0).samples.into(), true);
    let log = stopped.world.gateway.lines().join("\n");
    assert_both_ways(&stopped.telephone, "Ada", &mut stopped.member, || log.clone());
}

#[test]
fn three_seconds_are_survived_without_a_burst_of_old_sound_and_calls_are_taken_at_once() {
    let mut stopped = stop_for(Duration::from_secs(3));
    // Before anything is asked of the call in progress.
    let next = call(&stopped.world.gateway.uri(), "Ben", || stopped.log());
    drop(next);
    assert_goes_on(&mut stopped);
    assert_eq!(stopped.world.names().iter().filter(|name| *name == "Ada").count(), 1);
}

#[test]
fn seven_seconds_in_which_galene_might_have_died_are_survived_too() {
    let mut stopped = stop_for(Duration::from_secs(7));
    assert_goes_on(&mut stopped);
    let log = stopped.log();
    println!("{}", if log.contains("back in test") { "joined anew" } else { "the same membership" });
    stopped.telephone.wait_for(PATIENCE, |what| matches!(what, What::Level { .. })).unwrap();
}
