//! Groups with an authorisation server.

use galene_sip::galene::refusal::Shown;
use galene_sip::galene::{Refusal, RequestKey, WantedName};
use serde_json::{Value, json};

use crate::world::{Asked, GROUP, World};

const AUTH: &str = "https://auth.example/login";

/// Up to the first POST.
fn asking(name: WantedName, password: Option<&str>) -> (World, RequestKey, Value) {
    let mut world = World::new(GROUP, name, password, None);
    world.status(json!({"authServer": AUTH}));
    let (request, body) = post(&mut world);
    (world, request, body)
}

fn post(world: &mut World) -> (RequestKey, Value) {
    let asked = world.asked();
    let Some(Asked::Post(request, url, body)) = asked.into_iter().next_back() else { panic!("no POST") };
    assert_eq!(url, AUTH);
    (request, body)
}

fn greet(world: &mut World) -> Value {
    world.connected();
    world.say(json!({"type": "handshake", "version": ["2"]}));
    world.sent().pop().unwrap()
}

#[test]
fn with_a_token_from_the_authorisation_server_galene_never_sees_the_password() {
    let (mut world, request, body) = asking(WantedName::fixed("door"), Some("secret"));
    assert_eq!(body, json!({"location": GROUP, "username": "door", "password": "secret"}));
    world.respond(request, 200, AUTH, "eyJ.abc.def\n");
    let join = json!({"type": "join", "kind": "join", "group": "room", "username": "door", "token": "eyJ.abc.def"});
    assert_eq!(greet(&mut world), join);
}

#[test]
fn no_opinion_of_the_authorisation_server_means_the_password() {
    let (mut world, request, _) = asking(WantedName::fixed("door"), Some("secret"));
    world.respond(request, 204, AUTH, "");
    assert_eq!(greet(&mut world)["password"], "secret");

    let (mut world, request, body) = asking(WantedName::fixed("door"), None);
    assert_eq!(body["password"], "");
    world.respond(request, 204, AUTH, "");
    let join = greet(&mut world);
    assert_eq!((join.get("password"), join.get("token")), (None, None));
}

#[test]
fn a_refusal_by_the_authorisation_server_is_retried_once_under_another_name() {
    let (mut world, request, _) = asking(WantedName::of_caller(Some("admin"), None), Some("secret"));
    world.respond(request, 403, AUTH, "");
    let (request, body) = post(&mut world);
    assert_eq!(body["username"], "admin (telephone)");
    world.respond(request, 401, AUTH, "");
    let refusal = Refusal::NotAuthorised { username: "admin (telephone)".into(), shown: Shown::Password };
    assert_eq!(world.refusal(), refusal);
}

#[test]
fn another_name_takes_another_token_over_the_same_websocket() {
    let (mut world, request, _) = asking(WantedName::of_caller(Some("admin"), None), Some("secret"));
    world.respond(request, 200, AUTH, "first");
    greet(&mut world);
    world.fail(Some("duplicate-username"), "taken");
    let (request, body) = post(&mut world);
    assert_eq!(body["username"], "admin (telephone)");
    world.respond(request, 200, AUTH, "second");
    let join =
        json!({"type": "join", "kind": "join", "group": "room", "username": "admin (telephone)", "token": "second"});
    assert_eq!(world.asked(), [Asked::Send(join)]);
    world.fail(None, "not authorised");
    assert!(matches!(world.refusal(), Refusal::NotAuthorised { shown: Shown::AuthServerToken, .. }));
}

#[test]
fn what_is_no_token_is_not_sent_to_galene() {
    for body in ["".into(), "<html> no".into(), "é".into(), "x".repeat(4097)] {
        let (mut world, request, _) = asking(WantedName::fixed("door"), Some("secret"));
        world.respond(request, 200, AUTH, &body);
        assert!(matches!(world.refusal(), Refusal::Protocol(_)), "{body}");
    }
    for status in [302, 404, 500] {
        let (mut world, request, _) = asking(WantedName::fixed("door"), Some("secret"));
        world.respond(request, status, AUTH, "token");
        assert!(world.refusal().explain().contains(&status.to_string()));
    }
}

#[test]
fn a_secure_group_has_no_unencrypted_authorisation_server() {
    let mut world = World::alice();
    world.status(json!({"authServer": "http://auth.example/"}));
    assert!(matches!(world.refusal(), Refusal::Protocol(_)));
}
