//! The virtual clock, the client, and what a scripted Galene says to it.

use std::time::Duration;

use galene_sip::galene::client::{Client, Event, HttpResponse, Input, Joined, Output, RequestKey};
use galene_sip::galene::{ClientConfig, Credentials, Fault, Refusal, WantedName};
use galene_sip::random::Random;
use galene_sip::time::Instant;
use serde_json::{Value, json};
use url::Url;

pub(crate) const GROUP: &str = "https://g.example:8443/group/room/";
pub(crate) const ENDPOINT: &str = "wss://g.example:8443/ws";

/// What the client asked for, as far as a test looks at it.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Get(RequestKey, String),
    Post(RequestKey, String, Value),
    Connect(String),
    Send(Value),
    Disconnect,
    Event(Event),
}

pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) now: Instant,
}

impl World {
    pub(crate) fn new(group_url: &str, name: WantedName, password: Option<&str>, token: Option<&str>) -> Self {
        let credentials = Credentials { password: password.map(Into::into), token: token.map(Into::into) };
        let config = ClientConfig { group_url: Url::parse(group_url).unwrap(), name, credentials, status_within: None };
        Self { client: Client::new(config, Random::for_test(1), Instant::ZERO), now: Instant::ZERO }
    }

    /// Alice, with a password.
    pub(crate) fn alice() -> Self {
        Self::new(GROUP, WantedName::of_caller(Some("Alice"), Some("1001")), Some("secret"), None)
    }

    /// Alice, joined with the given permissions; what she asked for so far is forgotten.
    pub(crate) fn member(permissions: Value) -> Self {
        let mut world = Self::alice();
        world.until_join();
        world.joined(permissions);
        world.asked();
        world
    }

    pub(crate) fn asked(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        while let Some(output) = self.client.poll_output() {
            asked.push(match output {
                Output::Get { request, url } => Asked::Get(request, url.into()),
                Output::Post { request, url, json } => Asked::Post(request, url.into(), parse(&json)),
                Output::Connect { url } => Asked::Connect(url.into()),
                Output::Send(text) => Asked::Send(parse(&text)),
                Output::Disconnect => Asked::Disconnect,
                Output::Event(event) => Asked::Event(event),
            });
        }
        asked
    }

    /// What was sent over the WebSocket, all else set aside.
    pub(crate) fn sent(&mut self) -> Vec<Value> {
        let sent = |asked| if let Asked::Send(value) = asked { Some(value) } else { None };
        self.asked().into_iter().filter_map(sent).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        let event = |asked| if let Asked::Event(event) = asked { Some(event) } else { None };
        self.asked().into_iter().filter_map(event).collect()
    }

    /// The one request that the client waits for.
    pub(crate) fn request(&mut self) -> RequestKey {
        let key = |asked| match asked {
            Asked::Get(key, _) | Asked::Post(key, ..) => Some(key),
            Asked::Connect(_) | Asked::Send(_) | Asked::Disconnect | Asked::Event(_) => None,
        };
        self.asked().into_iter().find_map(key).expect("no request")
    }

    /// The refusal, which must be the last event and close an open WebSocket.
    pub(crate) fn refusal(&mut self) -> Refusal {
        assert!(self.client.is_closed());
        assert_eq!(self.client.next_timeout(), None);
        let mut events = self.events();
        let Some(Event::Refused(refusal)) = events.pop() else { panic!("not refused: {events:?}") };
        refusal
    }

    pub(crate) fn joined_event(&mut self) -> Joined {
        let joined = |event| if let Event::Joined(joined) = event { Some(*joined) } else { None };
        self.events().into_iter().find_map(joined).expect("not joined")
    }

    pub(crate) fn respond(&mut self, request: RequestKey, status: u16, final_url: &str, body: &str) {
        let final_url = Url::parse(final_url).unwrap();
        let result = Ok(HttpResponse { status, final_url, body: body.into() });
        self.client.handle_input(self.now, Input::Response { request, result });
    }

    /// Answers the status request with a plain group, changed by `fields`.
    pub(crate) fn status(&mut self, fields: Value) {
        let mut status = json!({"name": "room", "location": GROUP, "endpoint": ENDPOINT, "clientCount": 3});
        for (name, value) in fields.as_object().unwrap() {
            status[name] = value.clone();
        }
        let request = self.request();
        self.respond(request, 200, &format!("{GROUP}.status"), &status.to_string());
    }

    pub(crate) fn connected(&mut self) {
        self.client.handle_input(self.now, Input::Connected);
    }

    pub(crate) fn say(&mut self, message: Value) {
        self.say_text(&message.to_string());
    }

    pub(crate) fn say_text(&mut self, text: &str) {
        self.client.handle_input(self.now, Input::Text(text));
    }

    pub(crate) fn disconnected(&mut self, text: &str) {
        self.client.handle_input(self.now, Input::Disconnected(Fault::Unreachable(text.into())));
    }

    /// Everything up to the client's `join`, which is left to be polled.
    pub(crate) fn until_join(&mut self) {
        self.status(json!({}));
        self.connected();
        self.say(json!({"type": "handshake", "version": ["2"]}));
    }

    pub(crate) fn joined(&mut self, permissions: Value) {
        self.say(
            json!({"type": "joined", "kind": "join", "group": "room", "username": "Alice", "permissions": permissions,
            "status": {"name": "room", "locked": false}, "rtcConfiguration": {"iceServers": []}}),
        );
    }

    pub(crate) fn fail(&mut self, error: Option<&str>, text: &str) {
        self.say(json!({"type": "joined", "kind": "fail", "group": "room", "error": error, "value": text}));
    }

    /// Lets time pass, waking the client at each of its deadlines.
    pub(crate) fn sleep(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(deadline) = self.client.next_timeout().filter(|deadline| deadline.at <= until) {
            assert!(deadline.at > self.now, "woken twice for {}", deadline.reason);
            self.now = deadline.at;
            self.client.handle_timeout(self.now);
        }
        self.now = until;
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
