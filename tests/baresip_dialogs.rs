//! baresip, a real softphone, puts its call on hold, takes it back and hands its caller on to another baresip.

mod real;

use lab::baresip::Baresip;
use lab::pcm::Pcm;
use lab::program::{Folder, Signal, find_or_skip};
use lab::room::RoomEventKind;
use lab::speech::Reference;
use lab::telephone::RATE_HZ;
use real::{PATIENCE, World, alone, eventually};

#[test]
fn baresip_holds_resumes_and_transfers_and_the_caller_stays_in_the_room() {
    let Some(binary) = find_or_skip("baresip") else { return };
    let _alone = alone();
    let mut world = World::new();
    let folder = Folder::new().unwrap();
    let said = folder.path().join("said.wav");
    Pcm { rate_hz: RATE_HZ, samples: Reference::built_in().at(RATE_HZ) }.write_wav(&said).unwrap();
    let mut alice = Baresip::start(&binary, &said, Some(&world.gateway.uri())).unwrap();
    world.room_says("baresip", |kind| matches!(kind, RoomEventKind::Published { .. }));
    let says = |world: &World, what: &str, times: usize| {
        let count = || world.gateway.lines().iter().filter(|line| line.contains(what)).count();
        eventually(&format!("{what}, {times} times"), || count() >= times);
    };
    alice.command("hold").unwrap();
    says(&world, "a=sendonly", 1);
    says(&world, "a=recvonly", 1);
    alice.command("resume").unwrap();
    eventually("both ways again", || {
        let lines = world.gateway.lines();
        let last = |what: &str| lines.iter().rposition(|line| line.contains(what));
        last("a=sendrecv") > last("a=recvonly")
    });

    let mut carol = Baresip::start(&binary, &said, None).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    alice.command(&format!("transfer {}", carol.uri())).unwrap();
    says(&world, "SIP/2.0 202", 1);
    says(&world, ": transferred", 1);
    // The transferor hangs up when it hears of the success.
    says(&world, "BYE sip:", 1);
    assert_eq!(world.names(), ["baresip"]);
    alice.program.signal(Signal::SIGTERM);
    alice.program.wait_exit(PATIENCE).unwrap();
    assert_eq!(world.names(), ["baresip"]);
    // Carol is the caller's telephone now: with her the call ends.
    carol.program.signal(Signal::SIGTERM);
    carol.program.wait_exit(PATIENCE).unwrap();
    eventually("the room is empty", || world.names().is_empty());
}
