//! In the group: streams, people, moderation, pings, leaving.

use std::time::Duration;

use galene_sip::galene::client::{DEAD_AFTER, Event, PING_AFTER};
use galene_sip::galene::message::Offer;
use galene_sip::galene::{Candidate, Permissions};
use serde_json::{Value, json};

use crate::world::{Asked, World};

#[test]
fn every_message_about_a_stream_comes_through_in_the_order_it_came() {
    let mut world = World::member(json!(["present"]));
    let candidate = json!({"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0", "sdpMLineIndex": 0});
    world.say(json!({"type": "ice", "id": "down", "candidate": candidate}));
    world.say(
        json!({"type": "offer", "id": "down", "label": "camera", "source": "bob", "username": "Bob", "sdp": "v=0",
        "replace": "old"}),
    );
    world.say(
        json!({"type": "offer", "id": "down", "label": "camera", "source": "bob", "username": "Bob", "sdp": "v=1"}),
    );
    world.say(json!({"type": "answer", "id": "up", "sdp": "v=2"}));
    world.say(json!({"type": "renegotiate", "id": "up"}));
    world.say(json!({"type": "abort", "id": "up"}));
    world.say(json!({"type": "close", "id": "never seen"}));
    let offer = |sdp: &str, replace: Option<&str>| {
        let (id, label, source, username) = ("down".into(), "camera".into(), "bob".into(), "Bob".into());
        Event::Offer(Box::new(Offer { id, label, source, username, sdp: sdp.into(), replace: replace.map(Into::into) }))
    };
    let candidate = Candidate {
        candidate: "candidate:1 1 udp 1 192.0.2.1 9 typ host".into(),
        sdp_mid: Some("0".into()),
        sdp_m_line_index: Some(0),
    };
    let expected = [
        Event::Candidate { id: "down".into(), candidate },
        offer("v=0", Some("old")),
        offer("v=1", None),
        Event::Answer { id: "up".into(), sdp: "v=2".into() },
        Event::Renegotiate { id: "up".into() },
        Event::Abort { id: "up".into() },
        Event::Close { id: "never seen".into() },
    ];
    assert_eq!(world.events(), expected);
}

#[test]
fn what_is_asked_of_the_client_goes_out_as_the_protocol_has_it() {
    let mut world = World::member(json!(["present"]));
    let (now, client) = (world.now, &mut world.client);
    let id = client.new_stream_id();
    assert_ne!(id, client.new_stream_id());
    client.request_audio(now);
    client.send_offer(now, "up", "camera", "v=0");
    client.send_answer(now, "down", "v=1");
    let candidate = Candidate { candidate: "candidate:1".into(), ..Candidate::default() };
    client.send_candidate(now, "up", &candidate);
    client.renegotiate(now, "down");
    client.abort(now, "down");
    client.close(now, "up");
    client.request_nothing(now);
    let expected = [
        json!({"type": "request", "request": {"": ["audio"]}}),
        json!({"type": "offer", "id": "up", "label": "camera", "sdp": "v=0"}),
        json!({"type": "answer", "id": "down", "sdp": "v=1"}),
        json!({"type": "ice", "id": "up", "candidate": {"candidate": "candidate:1"}}),
        json!({"type": "renegotiate", "id": "down"}),
        json!({"type": "abort", "id": "down"}),
        json!({"type": "close", "id": "up"}),
        json!({"type": "request", "request": {}}),
    ];
    assert_eq!(world.sent(), expected);
}

#[test]
fn nothing_is_asked_of_the_server_before_joining_or_after_leaving() {
    let mut world = World::alice();
    world.until_join();
    world.asked();
    world.client.request_audio(world.now);
    assert_eq!(world.asked(), []);
    world.joined(json!([]));
    world.client.leave();
    world.asked();
    world.client.close(world.now, "up");
    world.say(json!({"type": "ping"}));
    world.disconnected("closed");
    assert_eq!(world.asked(), []);
}

#[test]
fn a_change_replaces_permissions_and_ice_servers() {
    let mut world = World::member(json!(["present", "message"]));
    assert!(world.client.permissions().present);
    world.say(json!({"type": "joined", "kind": "change", "group": "elsewhere", "permissions": ["op"]}));
    assert_eq!(world.events(), []);
    world.say(json!({"type": "joined", "kind": "change", "group": "room", "permissions": ["message"],
        "rtcConfiguration": {"iceServers": [{"urls": ["turn:t"], "username": "u", "credential": "c"}],
            "iceTransportPolicy": "relay"}}));
    let events = world.events();
    let [Event::Changed { permissions, rtc }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(*permissions, Permissions { present: false, message: true, op: false });
    assert_eq!((rtc.ice_servers.len(), rtc.relay_only), (1, true));
    assert!(!world.client.permissions().present);
}

#[test]
fn the_roster_follows_who_comes_and_goes() {
    let mut world = World::member(json!([]));
    for (kind, id, username) in [
        ("add", "a", "Ann"),
        ("add", "b", ""),
        ("change", "a", "Anna"),
        ("change", "c", "Cid"),
        ("add", "a", "Anna"),
        ("delete", "b", ""),
        ("delete", "never seen", "x"),
        ("promote", "a", "x"),
    ] {
        world.say(json!({"type": "user", "kind": kind, "id": id, "username": username, "permissions": ["present"]}));
    }
    let (id, username) = (|id: &str| id.to_owned(), |name: &str| name.to_owned());
    let expected = [
        Event::UserAdded { id: id("a"), username: username("Ann") },
        Event::UserAdded { id: id("b"), username: username("") },
        Event::UserChanged { id: id("a"), username: username("Anna") },
        Event::UserChanged { id: id("c"), username: username("Cid") },
        Event::UserChanged { id: id("a"), username: username("Anna") },
        Event::UserDeleted { id: id("b"), username: username("") },
        Event::UserDeleted { id: id("never seen"), username: username("x") },
    ];
    assert_eq!(world.events(), expected);
    let roster: Vec<_> = world.client.roster().iter().collect();
    assert_eq!(roster, [("a", "Anna"), ("c", "Cid")]);
}

fn user_message(kind: &str, fields: Value) -> Value {
    let mut message = json!({"type": "usermessage", "kind": kind, "value": "because"});
    for (name, value) in fields.as_object().unwrap() {
        message[name] = value.clone();
    }
    message
}

#[test]
fn user_messages_without_privilege_are_ignored_and_counted_whoever_they_claim_to_be_from() {
    let mut world = World::member(json!(["present"]));
    let mut forged = 0;
    for kind in ["kicked", "mute", "error", "warning", "info", "clearchat"] {
        for fields in [
            json!({"source": "eve", "username": "Eve"}),
            json!({}),
            json!({"privileged": false}),
            json!({"privileged": "true"}),
            json!({"privileged": 1, "id": "server"}),
        ] {
            world.say(user_message(kind, fields));
            forged += 1;
        }
    }
    assert_eq!(world.asked(), []);
    assert_eq!(world.client.ignored().forged, forged);
    assert!(!world.client.is_closed());
}

#[test]
fn operators_and_the_server_are_obeyed() {
    let mut world = World::member(json!(["present"]));
    world.say(user_message("mute", json!({"source": "op", "username": "Op", "privileged": true, "dest": "us"})));
    world.say(user_message("mute", json!({"source": "op", "username": "Op", "privileged": true})));
    world.say(user_message("warning", json!({"privileged": true})));
    world.say(user_message("clearchat", json!({"privileged": true})));
    world.say(user_message("filetransfer", json!({"source": "eve", "value": {"type": "invite"}})));
    assert_eq!(world.events(), [Event::Mute, Event::Mute, Event::Notice("because".into())]);
}

#[test]
fn a_kick_by_a_person_is_told_from_one_by_the_server_and_ends_the_membership() {
    for (fields, by_server, reason) in [
        (json!({"id": "op", "username": "Op", "privileged": true}), false, "thrown out by an operator: because"),
        (json!({"source": "op", "privileged": true}), false, "thrown out by an operator: because"),
        (json!({"username": "Op", "privileged": true}), false, "thrown out by an operator: because"),
        (json!({"privileged": true}), true, "thrown out by Galene: because"),
    ] {
        let mut world = World::member(json!(["present"]));
        world.say(user_message("kicked", fields));
        let expected = [
            Asked::Event(Event::Kicked { by_server, message: "because".into() }),
            Asked::Event(Event::Disconnected { reason: reason.into() }),
            Asked::Disconnect,
        ];
        assert_eq!(world.asked(), expected);
        world.disconnected("closed");
        assert_eq!(world.asked(), []);
    }
}

#[test]
fn chat_comes_with_its_writer_and_history_is_marked() {
    let mut world = World::member(json!([]));
    world.say(json!({"type": "chathistory", "id": "1", "source": "a", "username": "Ann", "value": "before"}));
    world.say(
        json!({"type": "chat", "source": "a", "username": "Ann", "dest": "us", "privileged": true, "value": "hi"}),
    );
    world.say(json!({"type": "chat", "source": "a", "value": {"not": "text"}}));
    let events = world.events();
    let [Event::Chat(old), Event::Chat(new)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((old.text.as_str(), old.history, old.private), ("before", true, false));
    assert_eq!((new.text.as_str(), new.history, new.private, new.privileged), ("hi", false, true, true));
}

#[test]
fn pings_are_answered() {
    let mut world = World::member(json!([]));
    world.say(json!({"type": "ping"}));
    assert_eq!(world.sent(), [json!({"type": "pong"})]);
}

#[test]
fn a_living_server_is_pinged_and_kept() {
    let mut world = World::member(json!([]));
    for _ in 0..60 {
        world.sleep(PING_AFTER);
        assert_eq!(world.sent(), [json!({"type": "ping"})]);
        world.say(json!({"type": "pong"}));
    }
}

#[test]
fn a_talkative_server_still_hears_from_us_before_it_would_drop_us() {
    let mut world = World::member(json!([]));
    let mut pings = 0;
    for _ in 0..60 {
        world.sleep(Duration::from_secs(1));
        world.say(json!({"type": "chat", "value": "x"}));
        pings += world.sent().len();
    }
    assert!((29..=31).contains(&pings), "{pings}");
}

#[test]
fn a_dead_server_is_noticed_after_six_seconds_of_silence() {
    let mut world = World::member(json!([]));
    world.sleep(DEAD_AFTER - Duration::from_micros(1));
    assert_eq!(world.sent().len(), 2);
    world.sleep(Duration::from_micros(1));
    let asked = world.asked();
    assert!(matches!(&asked[..], [Asked::Event(Event::Disconnected { .. }), Asked::Disconnect]), "{asked:?}");
    assert_eq!(world.client.next_timeout(), None);
}

#[test]
fn a_lost_connection_is_the_last_event() {
    let mut world = World::member(json!([]));
    world.disconnected("connection reset");
    assert_eq!(world.asked(), [Asked::Event(Event::Disconnected { reason: "connection reset".into() })]);
    assert!(world.client.is_closed());
}

#[test]
fn leaving_is_the_end_of_the_connection_and_no_message_which_could_crash_galene() {
    let mut world = World::member(json!([]));
    world.client.leave();
    assert_eq!(world.asked(), [Asked::Disconnect]);
    assert!(world.client.is_closed());
}

#[test]
fn a_server_that_takes_us_out_of_the_group_ends_the_membership() {
    let mut world = World::member(json!([]));
    world.say(json!({"type": "joined", "kind": "leave", "group": "room"}));
    assert!(matches!(&world.asked()[..], [Asked::Event(Event::Disconnected { .. }), Asked::Disconnect]));
}

#[test]
fn what_is_unknown_or_garbled_is_counted_and_harms_nothing() {
    let mut world = World::member(json!([]));
    for text in ["", "{", "7", r#"{"type":null}"#, r#"{"type":"offer"}"#, r#"{"type":"ice","id":"a","candidate":7}"#] {
        world.say_text(text);
    }
    world.say_text(&format!(r#"{{"type":"chat","value":"{}"}}"#, "x".repeat(1 << 20)));
    for text in [r#"{"type":"weather","value":1}"#, r#"{"type":"handshake","version":["3"]}"#, r#"{"type":"joined"}"#] {
        world.say_text(text);
    }
    assert_eq!(world.asked(), []);
    assert_eq!((world.client.ignored().garbled, world.client.ignored().unknown), (7, 3));
    assert!(!world.client.is_closed());
}

#[test]
fn no_debug_print_shows_a_secret() {
    let mut world = World::alice();
    let config = format!("{:?}", world.client);
    world.until_join();
    let mut outputs = format!("{:?}", world.client);
    while let Some(output) = world.client.poll_output() {
        outputs += &format!("{output:?}");
    }
    assert!(!config.contains("secret") && !outputs.contains("secret"), "{config} {outputs}");
}
