//! Those who run the room: kicks, real and forged, the end of the server, names that are not the caller's to take.

mod real;

use std::time::Duration;

use lab::program::Signal;
use lab::room::{ClientName, GroupConfig, Permissions, RoomCommand, RoomEventKind};
use lab::telephone::{Direction, Side, Telephone, What};
use real::{GROUP, PATIENCE, World, alone, eventually, from};
use serde_json::json;

/// What has to happen at once happens within this.
const QUICK: Duration = Duration::from_secs(1);

fn assert_bye(telephone: &Telephone, world: &World) {
    let ended = telephone.wait_for(2 * QUICK, |what| matches!(what, What::Bye { .. }));
    let ended = ended.unwrap_or_else(|why| panic!("no BYE: {why}\n{}", world.gateway.lines().join("\n")));
    assert!(matches!(ended.what, What::Bye { by: Side::Them, .. }), "{ended:?}");
}

fn in_the_room(world: &World, name: &str) -> Telephone {
    let telephone = world.call(&from(name));
    telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", world.gateway.lines().join("\n")));
    telephone
}

#[test]
fn a_kick_ends_the_call_and_the_next_one_is_answered() {
    let _alone = alone();
    let world = World::new();
    let telephone = in_the_room(&world, "Ada");
    let by = Some(ClientName { id: "42".to_owned(), username: "chair".to_owned() });
    world.room.command(RoomCommand::Kick { client: "Ada".to_owned(), by, message: "quiet, please".to_owned() });
    assert_bye(&telephone, &world);
    eventually("the caller is out", || world.names().is_empty());
    drop(in_the_room(&world, "Grace"));
}

#[test]
fn a_forged_kick_and_a_forged_mute_are_not_obeyed() {
    let _alone = alone();
    let world = World::new();
    let telephone = in_the_room(&world, "Ada");
    for kind in ["kicked", "mute", "error", "clearchat"] {
        let message = json!({
            "type": "usermessage", "kind": kind, "source": "66", "username": "Mallory", "privileged": false,
            "dest": "", "value": "go away"
        });
        world.room.command(RoomCommand::Send { client: "Ada".to_owned(), message });
    }
    assert!(telephone.wait_for(QUICK, |what| matches!(what, What::Bye { .. })).is_err());
    assert_eq!(world.names(), ["Ada"]);
    let report = telephone.finish();
    assert!(matches!(report.end, What::Bye { by: Side::Us, .. }), "{:?}", report.end);
}

#[test]
fn the_end_of_the_server_ends_the_call_of_who_is_not_to_wait() {
    let _alone = alone();
    let mut world = World::with(GroupConfig::open(GROUP), &["-rejoin-for", "0"]);
    let telephone = in_the_room(&world, "Ada");
    world.room.command(RoomCommand::ShutDown { message: "server is shutting down".to_owned() });
    assert_bye(&telephone, &world);
    assert!(world.gateway.is_running());
}

#[test]
fn a_caller_named_like_a_user_of_the_group_gets_another_name() {
    let _alone = alone();
    let group = GroupConfig::open(GROUP).user("chair", "secret", Permissions::OP);
    let world = World::with(group, &[]);
    let _telephone = in_the_room(&world, "chair");
    assert_eq!(world.names(), ["chair (telephone)"]);
}

#[test]
fn a_name_that_galene_would_not_take_is_cleaned() {
    let _alone = alone();
    let world = World::new();
    for (shown, taken) in [("/ops/../Ada", "ops/Ada"), ("../Eve", "Eve"), ("", "100")] {
        let telephone = in_the_room(&world, shown);
        assert_eq!(world.names(), [taken], "for '{shown}'");
        telephone.finish();
        eventually("the caller is out", || world.names().is_empty());
    }
}

#[test]
fn ctrl_c_in_mid_call_says_bye_and_leaves_the_room() {
    let _alone = alone();
    let mut world = World::new();
    let telephone = in_the_room(&world, "Ada");
    world.gateway.signal(Signal::SIGINT);
    assert_bye(&telephone, &world);
    assert_eq!(world.gateway.wait_exit(2 * QUICK).unwrap().code(), Some(0));
    world.room_says("Ada", |kind| matches!(kind, RoomEventKind::Left));
    assert!(world.names().is_empty());
}

#[test]
fn a_caller_who_hangs_up_before_the_answer_leaves_nothing_behind() {
    let _alone = alone();
    let world = World::new();
    let telephone = world.call(&from("Ada"));
    telephone.hang_up();
    telephone.wait_for(PATIENCE, |what| matches!(what, What::Refused { .. } | What::Bye { .. })).unwrap();
    eventually("nobody is left in the room", || world.names().is_empty());
}

#[test]
fn a_held_call_stays_in_the_room_and_resumes() {
    let _alone = alone();
    let world = World::new();
    let telephone = in_the_room(&world, "Ada");
    for (direction, they_send) in [(Direction::SendOnly, false), (Direction::SendRecv, true)] {
        telephone.set_direction(direction);
        let changed = telephone.wait_for(PATIENCE, |what| matches!(what, What::Changed { .. })).unwrap();
        match changed.what {
            What::Changed { they_send: got, .. } => assert_eq!(got, they_send, "{direction:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.names(), ["Ada"]);
    }
    telephone.wait_for(PATIENCE, |what| matches!(what, What::Level { packets, .. } if *packets > 40)).unwrap();
}
