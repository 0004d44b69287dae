//! A caller is in the local mix exactly while Galene carries its up stream.

use serde_json::json;

use super::{seconds, world_with_calls};

#[test]
fn losing_present_takes_the_caller_off_the_air_and_getting_it_back_puts_him_on() {
    let mut world = world_with_calls(&["ada"]);
    world.mix.clear();
    world.tell(1, &json!({"type": "joined", "kind": "change", "group": "club", "permissions": ["message"]}));
    assert_eq!(world.mix, ["SetPresent false", "SetUp false"]);
    world.tell(1, &json!({"type": "joined", "kind": "change", "group": "club", "permissions": ["present"]}));
    world.run(seconds(1));
    assert_eq!(world.mix[2..], ["SetUp true", "SetPresent true"]);
    assert_eq!(world.statuses("ada"), [180, 200]);
}

#[test]
fn an_operator_mutes_and_nobody_else() {
    let mut world = world_with_calls(&["ada"]);
    world.tell(1, &json!({"type": "usermessage", "kind": "mute", "source": "x", "username": "mallory"}));
    assert_ne!(world.mix.last().unwrap(), "SetMuted true");
    world.tell(1, &json!({"type": "usermessage", "kind": "mute", "source": "x", "username": "op", "privileged": true}));
    assert_eq!(world.mix.last().unwrap(), "SetMuted true");
}

