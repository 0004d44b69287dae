//! What a client is told that does what the room server does not take. With `GALENE_URL=http://host:port/group/test/` the
//! same is asked of a real Galene, which has a group `mute` too, where nobody may speak.

use std::net::TcpStream;

use lab::room::{GroupConfig, Permissions, RoomConfig, RoomEventKind, RoomServer, WildcardConfig};
use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// A client that says what it likes.
struct Client {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
}

impl Client {
    /// Joins a group as `raw`.
    fn join(host: &str, group: &str) -> Self {
        let stream = MaybeTlsStream::Plain(TcpStream::connect(host).unwrap());
        let (socket, _) = tungstenite::client(format!("ws://{host}/ws"), stream).unwrap();
        let mut client = Self { socket };
        client.say(&json!({"type": "handshake", "version": ["2"], "id": "raw-client"}));
        client.say(&json!({"type": "join", "kind": "join", "group": group, "username": "raw", "password": "x"}));
        client.hears(|message| message["type"] == "user" && message["id"] == "raw-client");
        client
    }

    fn say(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).unwrap();
    }

    /// The next message.
    fn next(&mut self) -> Option<Value> {
        loop {
            match self.socket.read().ok()? {
                Message::Text(text) => return serde_json::from_str(&text).ok(),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    fn hears(&mut self, is_wanted: impl Fn(&Value) -> bool) {
        while !is_wanted(&self.next().expect("the connection stays open")) {}
    }

    /// Everything until the answer to a `ping`.
    fn until_pong(&mut self) -> Vec<Value> {
        self.say(&json!({"type": "ping"}));
        let next = || self.next().filter(|message| message["type"] != "pong");
        std::iter::from_fn(next).collect()
    }
}

/// Where to ask, and what has to live as long as that.
fn host() -> (String, Option<RoomServer>) {
    if let Ok(url) = std::env::var("GALENE_URL") {
        let rest = url.strip_prefix("http://").expect("a Galene without TLS");
        return (rest.split('/').next().unwrap().to_owned(), None);
    }
    let wildcard = WildcardConfig { password: None, permissions: Permissions::MESSAGE.to_vec() };
    let mute = GroupConfig { wildcard: Some(wildcard), ..GroupConfig::closed("mute") };
    let room = RoomServer::start(RoomConfig::new(vec![GroupConfig::open("test"), mute])).unwrap();
    (room.address().to_string(), Some(room))
}

/// The answer to a refused offer: `abort`, then why.
fn assert_refused(answer: &[Value], text: Option<&str>) {
    assert_eq!(answer.len(), 2, "{answer:#?}");
    assert_eq!(answer[0], json!({"type": "abort", "id": "up"}));
    let why = answer[1]["value"].clone();
    assert!(why.as_str().is_some_and(|why| !why.is_empty()) && text.is_none_or(|text| why == text), "{why}");
    let error = json!({"type": "usermessage", "kind": "error", "dest": "raw-client", "privileged": true, "value": why});
    assert_eq!(answer[1], error);
}

#[test]
fn an_offer_of_who_may_not_speak_is_aborted_with_the_reason() {
    let (host, _room) = host();
    let mut client = Client::join(&host, "mute");
    client.until_pong();
    client.say(&json!({"type": "offer", "id": "up", "label": "camera", "sdp": "v=0\r\n"}));
    assert_refused(&client.until_pong(), Some("not authorised"));
    client.say(&json!({"type": "close", "id": "up"}));
    assert_eq!(client.until_pong(), [] as [Value; 0]);
}

#[test]
fn an_offer_that_is_no_description_is_aborted_with_the_reason() {
    let (host, _room) = host();
    let mut client = Client::join(&host, "test");
    client.until_pong();
    for sdp in ["rubbish", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"] {
        client.say(&json!({"type": "offer", "id": "up", "label": "camera", "sdp": sdp}));
        assert_refused(&client.until_pong(), None);
        client.say(&json!({"type": "close", "id": "up"}));
        assert_eq!(client.until_pong(), [] as [Value; 0]);
    }
}

/// The real server may crash of it, so it is not asked.
#[test]
fn to_say_leave_instead_of_closing_the_connection_is_a_mistake() {
    let mut room = RoomServer::start(RoomConfig::new(vec![GroupConfig::open("test")])).unwrap();
    let mut client = Client::join(&room.address().to_string(), "test");
    client.say(&json!({"type": "join", "kind": "leave", "group": "test"}));
    while client.next().is_some() {}
    let errors = room.events.all().iter().filter(|event| matches!(event.kind, RoomEventKind::ProtocolError(_)));
    assert_eq!(errors.count(), 1);
}
