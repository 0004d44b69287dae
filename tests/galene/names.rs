//! The one retry under another name.

use galene_sip::galene::refusal::Shown;
use galene_sip::galene::{Refusal, WantedName};
use serde_json::json;

use crate::world::{GROUP, World};

fn asking(name: WantedName, password: Option<&str>) -> World {
    let mut world = World::new(GROUP, name, password, None);
    world.until_join();
    world.sent();
    world
}

#[test]
fn a_caller_named_like_a_configured_user_is_asked_in_once_more_as_a_telephone() {
    for (error, text) in
        [(None, "not authorised"), (Some("duplicate-username"), "not authorised: this username is taken")]
    {
        let mut world = asking(WantedName::of_caller(Some("admin"), None), Some("secret"));
        world.fail(error, text);
        let join = json!({"type": "join", "kind": "join", "group": "room", "username": "admin (telephone)",
            "password": "secret"});
        assert_eq!(world.sent(), [join]);
        world.joined(json!(["present"]));
        world.joined_event();
    }
}

#[test]
fn the_second_refusal_blames_the_credentials() {
    let mut world = asking(WantedName::of_caller(Some("admin"), None), Some("wrong"));
    world.fail(None, "not authorised");
    world.fail(None, "not authorised");
    let refusal = world.refusal();
    let expected = Refusal::NotAuthorised { username: "admin (telephone)".into(), shown: Shown::Password };
    assert_eq!(refusal, expected);
    assert!(refusal.explain().contains("-password") && !refusal.explain().contains("wrong"));

    let mut world = asking(WantedName::of_caller(None, None), None);
    world.fail(None, "not authorised");
    world.fail(Some("duplicate-username"), "this username is taken");
    assert_eq!(world.refusal(), Refusal::DuplicateUsername { username: "SIP user (telephone)".into() });
}

#[test]
fn the_operators_name_is_never_changed() {
    for (error, text, is_expected) in [
        (None, "not authorised", (|refusal| matches!(refusal, Refusal::NotAuthorised { .. })) as fn(&Refusal) -> bool),
        (Some("duplicate-username"), "taken", |refusal| matches!(refusal, Refusal::DuplicateUsername { .. })),
    ] {
        let mut world = asking(WantedName::fixed("door"), Some("secret"));
        world.fail(error, text);
        let refusal = world.refusal();
        assert!(is_expected(&refusal), "{refusal:?}");
    }
}
