//! The way in: status, WebSocket, handshake, join, and each way to be refused.

use std::time::Duration;

use galene_sip::galene::client::{Event, Input, JOIN_TIMEOUT};
use galene_sip::galene::{Fault, Permissions, Refusal, WantedName};
use serde_json::json;

use crate::world::{Asked, ENDPOINT, GROUP, World};

#[test]
fn a_caller_joins_by_password_in_the_order_of_the_protocol() {
    let mut world = World::alice();
    let asked = world.asked();
    let [Asked::Get(request, url)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(url, &format!("{GROUP}.status"));
    let status = json!({"name": "room", "displayName": "The Room", "location": GROUP, "endpoint": ENDPOINT});
    world.respond(*request, 200, url, &status.to_string());

    let asked = world.asked();
    let [Asked::Event(Event::GroupIs(group)), Asked::Connect(url)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((group.name.as_str(), group.display_name.as_deref()), ("room", Some("The Room")));
    assert_eq!(url, ENDPOINT);

    world.connected();
    let id = world.client.id().to_owned();
    assert_eq!(id.len(), 11);
    assert_eq!(world.asked(), [Asked::Send(json!({"type": "handshake", "version": ["2"], "id": id}))]);

    world.say(json!({"type": "handshake", "version": ["2"]}));
    let join = json!({"type": "join", "kind": "join", "group": "room", "username": "Alice", "password": "secret"});
    assert_eq!(world.asked(), [Asked::Send(join)]);

    world.joined(json!(["present", "message", 7]));
    let joined = world.joined_event();
    assert_eq!((joined.id, joined.username.as_str(), joined.group.as_str()), (id, "Alice", "room"));
    assert_eq!(joined.permissions, Permissions { present: true, message: true, op: false });
    assert!(!world.client.is_closed());
}

#[test]
fn the_token_of_the_url_is_shown_instead_of_the_password_and_never_in_a_request() {
    let url = format!("{GROUP}?token=abc");
    let mut world = World::new(&url, WantedName::fixed("door"), Some("secret"), None);
    let asked = world.asked();
    assert!(matches!(&asked[..], [Asked::Get(_, url)] if !url.contains("abc")), "{asked:?}");

    let mut world = World::new(&url, WantedName::fixed("door"), Some("secret"), None);
    world.status(json!({"authServer": "https://auth.example/"}));
    world.connected();
    world.say(json!({"type": "handshake", "version": ["2"]}));
    let join = json!({"type": "join", "kind": "join", "group": "room", "username": "door", "token": "abc"});
    assert_eq!(world.sent()[1], join);
}

#[test]
fn a_token_may_fix_another_name_than_was_asked_for() {
    let mut world = World::new(GROUP, WantedName::of_caller(None, Some("1001")), None, Some("t"));
    world.until_join();
    world.say(json!({"type": "joined", "kind": "join", "group": "room", "username": "guest 7", "permissions": []}));
    assert_eq!(world.joined_event().username, "guest 7");
}

#[test]
fn a_group_that_has_moved_on_its_host_is_followed_and_its_old_token_forgotten() {
    let mut world = World::new(&format!("{GROUP}?token=abc"), WantedName::fixed("door"), Some("secret"), None);
    world.status(json!({"redirect": "https://g.example:8443/group/other/?token=new"}));
    let asked = world.asked();
    let [Asked::Get(request, url)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(url, "https://g.example:8443/group/other/.status");
    let status = json!({"name": "other", "location": "https://g.example:8443/group/other/", "endpoint": ENDPOINT});
    world.respond(*request, 200, url, &status.to_string());
    world.connected();
    world.say(json!({"type": "handshake", "version": ["2"]}));
    let join = json!({"type": "join", "kind": "join", "group": "other", "username": "door", "token": "new"});
    assert_eq!(world.sent()[1], join);
}

#[test]
fn credentials_follow_no_redirect_to_another_host_or_out_of_tls_and_no_loop() {
    for elsewhere in ["https://evil.example/group/room/", "http://g.example:8443/group/room/"] {
        let mut world = World::alice();
        world.status(json!({"redirect": elsewhere}));
        let refusal = world.refusal();
        assert!(matches!(&refusal, Refusal::Moved(url) if url.as_str() == elsewhere), "{refusal:?}");
        assert!(refusal.explain().contains(elsewhere));
    }
    let mut world = World::alice();
    for _ in 0..3 {
        world.status(json!({"redirect": GROUP}));
    }
    world.status(json!({"redirect": GROUP}));
    assert!(matches!(world.refusal(), Refusal::Moved(_)));

    let mut world = World::alice();
    world.until_join();
    world.say(json!({"type": "joined", "kind": "redirect", "group": "room", "value": "/group/b/?token=t"}));
    let refusal = world.refusal();
    assert!(
        matches!(&refusal, Refusal::Moved(url) if url.as_str() == "https://g.example:8443/group/b/"),
        "{refusal:?}"
    );
}

#[test]
fn a_secure_group_leads_to_no_unencrypted_websocket() {
    let mut world = World::alice();
    world.status(json!({"endpoint": "ws://g.example:8443/ws"}));
    let refusal = world.refusal();
    assert!(matches!(&refusal, Refusal::Protocol(text) if text.contains("not encrypted")), "{refusal:?}");
    let plain = "http://127.0.0.1:1/group/room/";
    let mut world = World::new(plain, WantedName::fixed("door"), None, None);
    world.status(json!({"location": plain, "endpoint": "ws://127.0.0.1:1/ws"}));
    assert!(matches!(world.asked().last(), Some(Asked::Connect(_))));
}

#[test]
fn what_the_status_request_meets_is_told_in_plain_words() {
    let page = "<html>hello</html>";
    for (status, body, word) in [
        (404, "", "no group at https://g.example:8443/group/room/"),
        (502, "", "HTTP status 502"),
        (401, "", "HTTP status 401"),
        (200, page, "no JSON object"),
        (200, "{}", "'name'"),
    ] {
        let mut world = World::alice();
        let request = world.request();
        world.respond(request, status, &format!("{GROUP}.status"), body);
        let refusal = world.refusal();
        assert!(refusal.explain().contains(word), "{}", refusal.explain());
    }
    for (fault, refusal) in [
        (Fault::Unreachable("no such host".into()), Refusal::Unreachable("no such host".into())),
        (Fault::Tls("expired".into()), Refusal::Tls("expired".into())),
    ] {
        let mut world = World::alice();
        let request = world.request();
        world.client.handle_input(world.now, Input::Response { request, result: Err(fault) });
        assert_eq!(world.refusal(), refusal);
    }
    let mut world = World::new("ftp://g.example/group/a/", WantedName::fixed("x"), None, None);
    assert!(matches!(world.refusal(), Refusal::Protocol(_)));
}

#[test]
fn galenes_refusals_are_told_apart_by_its_words() {
    for (error, text, expected) in [
        (None, "group does not exist", Refusal::NoSuchGroup { location: GROUP.into() }),
        (None, "too many users", Refusal::Full),
        (None, "this group is locked", Refusal::Locked("this group is locked".into())),
        (None, "back at\n9", Refusal::Locked("back at 9".into())),
        (None, "there are no operators in this group", Refusal::Locked("there are no operators in this group".into())),
    ] {
        let mut world = World::alice();
        world.until_join();
        world.asked();
        world.fail(error, text);
        assert_eq!(world.asked(), [Asked::Event(Event::Refused(expected)), Asked::Disconnect]);
    }
    let mut world = World::alice();
    world.until_join();
    world.fail(None, "internal server error");
    assert!(matches!(world.refusal(), Refusal::Unreachable(_)));
}

#[test]
fn a_server_of_another_version_is_not_shown_the_password() {
    for versions in [json!(["1"]), json!("2"), json!(null)] {
        let mut world = World::alice();
        world.status(json!({}));
        world.connected();
        world.asked();
        world.say(json!({"type": "handshake", "version": versions}));
        assert!(matches!(&world.asked()[..], [Asked::Event(Event::Refused(Refusal::Protocol(_))), Asked::Disconnect]));
    }
}

#[test]
fn a_server_that_falls_silent_at_any_step_is_unreachable_after_ten_seconds() {
    type Steps = fn(&mut World);
    let steps: [(Steps, &str); 4] = [
        (|_| {}, "g.example:8443 has not answered within 10 s"),
        (|world| world.status(json!({})), "opened a WebSocket"),
        (
            |world| {
                world.status(json!({}));
                world.connected();
            },
            "greeting",
        ),
        (World::until_join, "let us into the group"),
    ];
    for (go, words) in steps {
        let mut world = World::alice();
        go(&mut world);
        world.sleep(JOIN_TIMEOUT - Duration::from_micros(1));
        assert!(!world.client.is_closed());
        world.sleep(Duration::from_micros(1));
        let refusal = world.refusal();
        assert!(matches!(&refusal, Refusal::Unreachable(text) if text.contains(words)), "{refusal:?}");
    }
}

#[test]
fn a_connection_that_breaks_before_joining_is_explained_by_what_the_server_said_last() {
    let mut world = World::alice();
    world.until_join();
    world.asked();
    world.disconnected("connection reset");
    assert_eq!(world.asked(), [Asked::Event(Event::Refused(Refusal::Unreachable("connection reset".into())))]);

    let mut world = World::alice();
    world.until_join();
    world.say(json!({"type": "usermessage", "kind": "error", "value": "forged"}));
    world.say(json!({"type": "usermessage", "kind": "error", "value": "spoofed client id", "privileged": true}));
    world.disconnected("closed");
    assert_eq!(world.refusal(), Refusal::Protocol("spoofed client id".into()));
    assert_eq!(world.client.ignored().forged, 1);
}

#[test]
fn messages_out_of_place_or_garbled_do_not_disturb_joining() {
    let mut world = World::alice();
    world.status(json!({}));
    world.connected();
    for text in ["", "null", "[]", r#"{"type":"joined","kind":"join"}"#, r#"{"type":"offer","id":"a","sdp":"v=0"}"#] {
        world.say_text(text);
    }
    world.say(json!({"type": "ping"}));
    world.say(json!({"type": "handshake", "version": ["2"]}));
    world.say(json!({"type": "handshake", "version": ["1"]}));
    world.say(json!({"type": "joined", "kind": "sideways"}));
    let kinds: Vec<_> = world.sent().iter().map(|message| message["type"].clone()).collect();
    assert_eq!(kinds, ["handshake", "pong", "join"]);
    world.joined(json!([]));
    world.joined_event();
    assert_eq!((world.client.ignored().garbled, world.client.ignored().unknown), (3, 4));
}

#[test]
fn leaving_while_joining_gives_up_without_an_event() {
    let mut world = World::alice();
    let request = world.request();
    world.client.leave();
    assert!(world.client.is_closed());
    world.respond(request, 200, GROUP, "{}");
    assert_eq!(world.asked(), []);

    let mut world = World::alice();
    world.status(json!({}));
    world.asked();
    world.client.leave();
    world.connected();
    assert_eq!(world.asked(), [Asked::Disconnect]);
}

#[test]
fn a_response_to_no_request_of_ours_is_ignored() {
    let mut world = World::alice();
    let request = world.request();
    world.respond(galene_sip::galene::RequestKey(request.0 + 7), 404, GROUP, "");
    assert!(!world.client.is_closed());
}
