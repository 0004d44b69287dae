//! Callers stay on the line while Galene, or the way to it, is away.

use std::time::Duration;

use serde_json::json;

use super::world::World;
use super::{seconds, world_with_calls};

/// The server's own goodbye, as a restart of it looks, and then the end of the connection.
fn shut_down(world: &mut World, call: u64) {
    let value = "server is shutting down";
    world.tell(call, &json!({"type": "usermessage", "kind": "kicked", "privileged": true, "value": value}));
}

fn said(world: &World, word: &str) -> bool {
    world.sip.iter().any(|text| text.starts_with(word))
}

#[test]
fn a_caller_whose_connection_breaks_hears_the_tone_and_is_back_at_once_as_another_member() {
    let mut world = world_with_calls(&["ada"]);
    world.hears(1, "v1");
    world.mix.clear();
    world.disconnect(1);
    world.run(seconds(1));
    assert_eq!(
        world.mix,
        ["SetWaiting true", "SetPresent false", "SetUp false", "SetWaiting false", "SetUp true", "SetPresent true"]
    );
    let joins = world.sent(1, "join");
    assert_eq!((joins.len(), &joins[1]["username"]), (2, &json!("ada")));
    assert_eq!(world.sent(1, "request").len(), 2);
    let ids: Vec<_> = world.sent(1, "handshake").iter().map(|hello| hello["id"].clone()).collect();
    assert_ne!(ids[0], ids[1]);
    // The former one is a ghost of ours for Galene: its stream is not the caller's to hear.
    world.offer_stream(1, "ghost", ids[0].as_str().unwrap());
    assert_eq!(world.sent(1, "abort").len(), 1);
    world.hears(1, "v1");
    assert_eq!(world.down_streams().len(), 1);
    assert!(!said(&world, "BYE"));
}

#[test]
fn a_server_that_is_restarted_finds_its_callers_again_within_five_seconds_of_its_return() {
    let mut world = world_with_calls(&["ada", "ben"]);
    world.galene_is_away = true;
    shut_down(&mut world, 1);
    shut_down(&mut world, 2);
    world.asked_at.clear();
    world.run(seconds(60) - Duration::from_millis(1));
    assert!(!said(&world, "BYE"));
    assert!(world.asked_at.len() < 50, "two callers ask as often as one: {}", world.asked_at.len());
    assert!(world.asked_at.windows(2).all(|pair| pair[1].saturating_since(pair[0]) <= seconds(3)));
    world.galene_is_away = false;
    world.mix.clear();
    world.galene.clear();
    // The callers' patience ends in a millisecond; the tries that are due then still count.
    world.run(seconds(5));
    assert_eq!(world.count("SetWaiting false"), 2, "{:?}", world.mix);
    assert_eq!(world.count("SetPresent true"), 2);
    assert_eq!((world.sent(1, "join").len(), world.sent(2, "join").len()), (1, 1));
    assert_eq!(world.sent(1, "request").len() + world.sent(2, "request").len(), 1, "one listens for both");
}

#[test]
fn a_caller_is_told_when_the_room_does_not_come_back() {
    let mut world = world_with_calls(&["ada"]);
    world.galene_is_away = true;
    world.disconnect(1);
    world.run(seconds(64));
    let bye = world.sip.iter().find(|text| text.starts_with("BYE")).expect("patience has an end");
    assert!(bye.contains("connection refused"), "{bye}");
    assert!(world.gateway.sockets().open.is_empty());
    assert_eq!(world.mix.last().unwrap(), "CloseRoom");
}

#[test]
fn who_hangs_up_meanwhile_leaves_nothing_behind() {
    let mut world = world_with_calls(&["ada"]);
    world.galene_is_away = true;
    world.disconnect(1);
    world.run(seconds(2));
    world.request("ada", "BYE", 2, None);
    assert!(world.gateway.sockets().open.is_empty());
    world.asked_at.clear();
    world.run(seconds(60));
    assert_eq!(world.asked_at, []);
    assert_eq!(world.mix.last().unwrap(), "CloseRoom");
}

#[test]
fn a_locked_room_is_tried_again_until_it_opens() {
    let mut world = world_with_calls(&["ada"]);
    let locked = json!({"kind": "fail", "value": "this group is locked"});
    let joined = std::mem::replace(&mut world.joined, locked);
    world.disconnect(1);
    world.run(seconds(20));
    assert!(!said(&world, "BYE") && world.sent(1, "join").len() > 3);
    world.joined = joined;
    world.run(seconds(5));
    assert_eq!(world.count("SetWaiting false"), 1);
}

#[test]
fn a_caller_who_is_back_without_the_permission_to_speak_listens() {
    let mut world = world_with_calls(&["ada"]);
    world.joined["permissions"] = json!(["message"]);
    world.mix.clear();
    world.disconnect(1);
    world.run(seconds(2));
    assert_eq!((world.count("SetWaiting false"), world.count("SetPresent true")), (1, 0));
    assert_eq!(world.sent(1, "request").len(), 2);
}

#[test]
fn one_whose_connection_breaks_hears_nothing_of_the_room_that_others_go_on_hearing() {
    let mut world = world_with_calls(&["ada", "ben"]);
    world.hears(1, "v1");
    world.galene_is_away = true;
    world.mix.clear();
    world.disconnect(1);
    assert_eq!(world.sent(2, "request").len(), 1, "ben's member listens");
    world.hears(2, "v1");
    world.run(seconds(10));
    assert_eq!(world.count("RemoveStream"), 0);
    assert_eq!(world.count("SetWaiting true"), 1);
    world.galene_is_away = false;
    world.run(seconds(5));
    assert_eq!(world.count("SetWaiting false"), 1);
    assert_eq!(world.sent(1, "request").len(), 1, "ben's goes on");
}

#[test]
fn a_word_for_the_former_membership_is_not_taken_for_the_new_one() {
    let mut world = world_with_calls(&["ada"]);
    let former = crate::gateway::event::MemberKey { call: crate::sip::event::CallKey(1), nth: 0 };
    world.disconnect(1);
    world.run(seconds(1));
    let input = crate::galene::client::Input::Disconnected(crate::galene::Fault::Unreachable("late".into()));
    world.gateway.handle_input(world.now, crate::gateway::Input::Galene { member: former, input });
    world.run(seconds(1));
    assert_eq!(world.sent(1, "join").len(), 2);
}
