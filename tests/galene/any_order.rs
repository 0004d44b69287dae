//! Whatever comes in whatever order: no panic, one last event, and silence after it.

use std::time::Duration;

use galene_sip::galene::client::Event;
use galene_sip::galene::{Fault, RequestKey};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{Asked, ENDPOINT, GROUP, World};

const TEXTS: [&str; 22] = [
    r#"{"type":"handshake","version":["2"]}"#,
    r#"{"type":"handshake","version":["1"]}"#,
    r#"{"type":"joined","kind":"join","group":"room","permissions":["present"]}"#,
    r#"{"type":"joined","kind":"fail","value":"not authorised"}"#,
    r#"{"type":"joined","kind":"fail","error":"duplicate-username"}"#,
    r#"{"type":"joined","kind":"change","group":"room"}"#,
    r#"{"type":"joined","kind":"leave"}"#,
    r#"{"type":"joined","kind":"redirect","value":"/group/b/"}"#,
    r#"{"type":"user","kind":"add","id":"a","username":"Ann"}"#,
    r#"{"type":"user","kind":"delete","id":"a"}"#,
    r#"{"type":"offer","id":"s","sdp":"v=0"}"#,
    r#"{"type":"answer","id":"s","sdp":"v=0"}"#,
    r#"{"type":"ice","id":"s","candidate":{"candidate":""}}"#,
    r#"{"type":"close","id":"s"}"#,
    r#"{"type":"abort","id":"s"}"#,
    r#"{"type":"usermessage","kind":"kicked","privileged":true}"#,
    r#"{"type":"usermessage","kind":"kicked"}"#,
    r#"{"type":"usermessage","kind":"error","privileged":true,"value":"x"}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"pong"}"#,
    r#"{"type":"x"}"#,
    "{",
];

fn is_last(event: &Event) -> bool {
    matches!(event, Event::Refused(_) | Event::Disconnected { .. })
}

proptest! {
    #[test]
    fn a_client_survives_any_order_and_ends_once(is_member: bool, steps in prop::collection::vec(0_usize..40, 0..60)) {
        let mut world = if is_member { World::member(json!(["present"])) } else { World::alice() };
        let status = format!(r#"{{"name":"room","location":"{GROUP}","endpoint":"{ENDPOINT}","authServer":"https://a.example/"}}"#);
        let (mut has_ended, mut last_request) = (false, RequestKey(0));
        for step in steps {
            match step {
                0..22 => world.say_text(TEXTS[step]),
                22..28 => world.connected(),
                28..32 => world.respond(last_request, 200, GROUP, &status),
                32 => world.respond(last_request, 200, GROUP, "token"),
                33 => world.respond(last_request, 204, GROUP, ""),
                34 => world.respond(last_request, 403, GROUP, ""),
                35 => world.disconnected("gone"),
                36 => world.sleep(Duration::from_secs(9)),
                37 => world.client.request_audio(world.now),
                38 => world.client.handle_timeout(world.now),
                _ => {
                    let result = Err(Fault::Tls("bad".into()));
                    let input = galene_sip::galene::Input::Response { request: last_request, result };
                    world.client.handle_input(world.now, input);
                }
            }
            let was_ended = has_ended;
            for asked in world.asked() {
                prop_assert!(!was_ended, "{:?} after the end", asked);
                match asked {
                    Asked::Get(request, _) | Asked::Post(request, ..) => last_request = request,
                    Asked::Event(event) => {
                        prop_assert!(!has_ended, "{:?} after the last event", event);
                        has_ended = is_last(&event);
                    }
                    Asked::Connect(_) | Asked::Send(_) => prop_assert!(!has_ended),
                    Asked::Disconnect => prop_assert!(has_ended),
                }
            }
            prop_assert_eq!(has_ended, world.client.is_closed());
        }
    }
}
