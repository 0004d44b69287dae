//! A room server that has gone mad. No stranger gets so far; still one call's trouble must stay its own.
//!
//! Owns: two attacks from the room on the open gateway.

use lab::room::RoomCommand;
use serde_json::{Value, json};

use crate::ground::Ground;
use crate::real::{eventually, names};

const VICTIM: &str = "Mad";

/// Sends to one caller's member while another call goes on, which must stay heard.
fn send(ground: &mut Ground, messages: impl Iterator<Item = Value>) {
    let other = ground.call("Other");
    let victim = ground.call(VICTIM);
    eventually("the caller is in the room", || names(&ground.room).iter().any(|name| name == VICTIM));
    for message in messages {
        ground.room.command(RoomCommand::Send { client: VICTIM.to_owned(), message });
    }
    ground.assert_heard(&other, "Other");
    drop(victim);
}

/// Megabytes of JSON, depths of it, and ten thousand streams.
pub(crate) fn floods_of_messages(ground: &mut Ground) {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let giants =
        [json!({"type": "chat", "value": "x".repeat(900_000)}), json!({"type": "user", "kind": "add", "id": deep})];
    let offer = |index: u32| json!({"type": "offer", "id": format!("stream-{index}"), "source": "nobody", "username": "Nobody", "label": "camera", "sdp": "v=0\r\n"});
    let users =
        (0..5000).map(|index| json!({"type": "user", "kind": "add", "id": format!("u{index}"), "username": "U"}));
    send(ground, giants.into_iter().chain((0..10_000).map(offer)).chain(users));
}

/// Offers whose descriptions are no descriptions, and messages whose parts are of other types.
pub(crate) fn junk_offers(ground: &mut Ground) {
    let descriptions = [
        Value::Null,
        json!(7),
        json!(""),
        json!("\0\0\0"),
        json!("v=0\r\n".repeat(20_000)),
        json!(format!(
            "v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=-\r\nt=0 0\r\n{}",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".repeat(2000)
        )),
        json!(
            "v=0\r\no=- 99999999999999999999 1 IN IP4 x\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:\r\na=fingerprint:sha-256 ZZ\r\na=candidate:1 1 udp 1 999.1.1.1 70000 typ host\r\n"
        ),
    ];
    let mut messages: Vec<Value> = descriptions
        .into_iter()
        .enumerate()
        .map(|(index, sdp)| json!({"type": "offer", "id": format!("junk-{index}"), "source": "x", "label": "camera", "sdp": sdp}))
        .collect();
    for kind in ["answer", "ice", "close", "abort", "renegotiate", "joined", "usermessage", "fly"] {
        messages
            .push(json!({"type": kind, "id": "none", "sdp": [], "candidate": {"candidate": "candidate:x"}, "kind": 4}));
    }
    send(ground, messages.into_iter());
}
