//! A caller is in the local mix exactly while Galene carries its up stream, and what an operator does is done at once.

use serde_json::json;

use super::world::World;
use super::{seconds, world_with_calls};

/// Two calls, one of which is about to be moderated.
fn world_of_two() -> World {
    let mut world = world_with_calls(&["ada", "ben"]);
    world.mix.clear();
    world
}

#[test]
fn nobody_is_in_the_local_mix_before_galene_has_answered_and_dtls_is_up() {
    let mut world = World::new();
    world.media_is_cut = true;
    world.invite("ada");
    world.run(seconds(2));
    assert_eq!(world.mix, ["OpenRoom", "AddCaller", "StartTelephone"]);
    world.media_is_cut = false;
    world.run(seconds(3));
    assert_eq!(world.mix[3..], ["SetUp true", "SetPresent true", "StartTelephone"]);
}

#[test]
fn losing_present_takes_the_caller_off_the_air_and_getting_it_back_puts_him_on() {
    let mut world = world_of_two();
    world.tell(2, &json!({"type": "joined", "kind": "change", "group": "club", "permissions": ["message"]}));
    assert_eq!(world.mix, ["SetPresent false", "SetUp false"]);
    // Galene ends the stream by an `abort` too, which finds nothing to end any more.
    let stream = world.sent(2, "offer")[0]["id"].clone();
    world.tell(2, &json!({"type": "abort", "id": stream}));
    assert_eq!(world.mix.len(), 2);
    world.tell(2, &json!({"type": "joined", "kind": "change", "group": "club", "permissions": ["present"]}));
    world.run(seconds(1));
    assert_eq!(world.mix[2..], ["SetUp true", "SetPresent true"]);
    assert_eq!(world.statuses("ben"), [180, 200]);
}

#[test]
fn the_abort_of_his_stream_takes_the_caller_off_the_air_and_not_out_of_the_room() {
    let mut world = world_of_two();
    world.tell(2, &json!({"type": "abort", "id": "another"}));
    assert!(world.mix.is_empty());
    let stream = world.sent(2, "offer")[0]["id"].clone();
    world.tell(2, &json!({"type": "abort", "id": stream}));
    assert_eq!(world.mix, ["SetPresent false", "SetUp false"]);
    assert_eq!(world.sent(2, "close")[0]["id"], stream);
    assert!(!world.gone.contains(&2));
}

#[test]
fn a_kick_takes_the_caller_out_of_the_local_mix_at_once() {
    let mut world = world_of_two();
    world.kick(2);
    assert_eq!(world.mix, ["SetPresent false", "SetUp false", "RemoveCaller"]);
    assert!(world.sip.last().unwrap().starts_with("BYE"));
}

#[test]
fn an_operator_mutes_and_nobody_else() {
    let mut world = world_of_two();
    world.tell(2, &json!({"type": "usermessage", "kind": "mute", "source": "x", "username": "mallory"}));
    assert!(world.mix.is_empty());
    world.tell(2, &json!({"type": "usermessage", "kind": "mute", "source": "x", "username": "op", "privileged": true}));
    assert_eq!(world.mix, ["SetMuted true"]);
}
