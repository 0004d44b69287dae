//! A member of a Galene group against a server, an authorisation server and a network that say anything at any time.
//!
//! Model: the order of what the gateway hears (at most one `Joined`, nothing after the last word), and where secrets may
//! go: only to the encrypted places that the status of an encrypted group names.

use std::fmt::Write as _;
use std::time::Duration;

use galene_sip::galene::client::{Client, ClientConfig, Credentials, Event, HttpResponse, Input, MAX_MEMBERS, Output};
use galene_sip::galene::{Candidate, Fault, RequestKey, WantedName};
use galene_sip::random::Random;
use galene_sip::time::Instant;
use serde_json::{Value, json};
use url::Url;

use super::{Choices, Wakes};

const PASSWORD: &str = "pass-word-secret";
const TOKEN: &str = "to-ken-secret";
/// What the authorisation server gives.
const GIVEN: &str = "gi-ven-secret";
/// An event or two and a message for what came in.
const MAX_OUTPUTS: usize = 8;
/// Where things may be said to be, the usual ones first.
const PLACES: [&str; 12] = [
    "https://g.example/group/a/",
    "wss://g.example/ws",
    "https://auth.example/",
    "ws://g.example/ws",
    "http://g.example/group/a/",
    "http://auth.example/",
    "/group/b/",
    "https://other.example/group/a/",
    "https://g.example/group/b/?token=another",
    "https://g.example:8443/group/a/",
    "",
    "wss://evil.example/ws",
];

struct World {
    client: Client,
    now: Instant,
    wakes: Wakes,
    is_secure: bool,
    has_joined: bool,
    is_over: bool,
    /// It was asked for, and is open.
    has_socket: bool,
    is_connected: bool,
    socket_is_secure: bool,
    requests: Vec<RequestKey>,
}

/// Runs the operations.
pub fn run(bytes: &[u8]) {
    if holds_secret(&String::from_utf8_lossy(bytes)) {
        return; // It would be said by others than us.
    }
    let mut choices = Choices::new(bytes);
    let first = choices.byte();
    let is_secure = first & 1 == 0;
    let group_url = Url::parse(if is_secure { PLACES[0] } else { PLACES[4] }).expect("that is a URL");
    let name = if first & 2 == 0 { WantedName::of_caller(Some("Anna"), None) } else { WantedName::fixed("gw") };
    let credentials = Credentials {
        password: (first & 4 == 0).then(|| PASSWORD.to_owned()),
        token: (first & 24 == 24).then(|| TOKEN.to_owned()),
    };
    let status_within = (first & 32 != 0).then(|| Duration::from_secs(2));
    let config = ClientConfig { group_url, name, credentials, status_within };
    let client = Client::new(config, Random::for_test(1), Instant::ZERO);
    let mut world = World {
        client,
        now: Instant::ZERO,
        wakes: Wakes::default(),
        is_secure,
        has_joined: false,
        is_over: false,
        has_socket: false,
        is_connected: false,
        socket_is_secure: false,
        requests: Vec::new(),
    };
    world.drain();
    while let Some(operation) = choices.operation() {
        world.operate(operation, &mut choices);
    }
    world.come_to_rest();
}

impl World {
    fn operate(&mut self, operation: u8, choices: &mut Choices<'_>) {
        match operation % 16 {
            0 => self.pass(choices.duration()),
            // Timers are late.
            1 => self.now += choices.duration(),
            2 | 3 => self.respond(choices),
            4 => self.connected(),
            5..=10 => {
                let text = message(choices);
                self.text(&text);
            }
            11 => {
                let mut text = message(choices).into_bytes();
                choices.mutate(&mut text);
                self.text(&String::from_utf8_lossy(&text));
            }
            12 => {
                let text = choices.text();
                self.text(&text);
            }
            13 if choices.byte().is_multiple_of(4) => {
                let fault = fault(choices);
                (self.has_socket, self.is_connected) = (false, false);
                self.input(Input::Disconnected(fault));
            }
            // All of a good way in: status, socket, handshake, joined.
            13 | 14 => self.join(choices),
            _ => self.wish(choices),
        }
    }

    fn join(&mut self, choices: &mut Choices<'_>) {
        let place = |index: usize| PLACES[index];
        let mut status = json!({"name": "a", "location": place(0), "endpoint": place(1)});
        if choices.flag() {
            status["authServer"] = place(2).into();
        }
        self.answer(200, PLACES[0], status.to_string().into_bytes());
        self.answer(200, PLACES[2], GIVEN.as_bytes().to_vec());
        self.connected();
        self.text(r#"{"type":"handshake","version":["2"]}"#);
        self.text(r#"{"type":"joined","kind":"join","group":"a","permissions":["present"]}"#);
    }

    /// The answer to the latest request.
    fn answer(&mut self, status: u16, from: &str, body: Vec<u8>) {
        let Some(request) = self.requests.pop() else { return };
        let Ok(final_url) = Url::parse(from) else { return };
        self.input(Input::Response { request, result: Ok(HttpResponse { status, final_url, body }) });
    }

    fn respond(&mut self, choices: &mut Choices<'_>) {
        let request = if choices.byte() % 8 == 1 {
            RequestKey(choices.byte().into())
        } else {
            let Some(request) = self.requests.pop() else { return };
            request
        };
        if choices.byte() % 8 == 1 {
            return self.input(Input::Response { request, result: Err(fault(choices)) });
        }
        let body = match choices.below(4) {
            0 | 1 => {
                let mut status = json!({"name": "a"});
                for field in ["location", "endpoint", "authServer", "redirect"] {
                    if choices.flag() {
                        status[field] = choices.pick(&PLACES).into();
                    }
                }
                status.to_string().into_bytes()
            }
            2 => GIVEN.as_bytes().to_vec(),
            _ => choices.raw().to_vec(),
        };
        let status = choices.pick(&[200, 204, 401, 403, 404, 500, 302, 418]);
        let Ok(final_url) = Url::parse(choices.pick(&PLACES)) else { return };
        self.input(Input::Response { request, result: Ok(HttpResponse { status, final_url, body }) });
    }

    /// What the gateway wants.
    fn wish(&mut self, choices: &mut Choices<'_>) {
        let (now, client) = (self.now, &mut self.client);
        match choices.below(12) {
            0 => {
                client.leave();
                let mut rest = std::iter::from_fn(|| client.poll_output());
                assert!(rest.all(|output| matches!(output, Output::Disconnect)), "nothing is said after leaving");
                (self.is_over, self.has_socket, self.is_connected) = (true, false, false);
            }
            1 => client.request_audio(now),
            2 => client.request_nothing(now),
            3 => client.send_offer(now, "up", "camera", &choices.text()),
            4 => client.send_answer(now, &choices.text(), "v=0"),
            5 => {
                let (mid, index) = (Some("0".to_owned()), Some(0));
                let candidate = Candidate { candidate: choices.text(), sdp_mid: mid, sdp_m_line_index: index };
                client.send_candidate(now, "up", &candidate);
            }
            6 => client.renegotiate(now, "down"),
            7 => client.abort(now, "down"),
            8 => client.close(now, "up"),
            _ => assert_ne!(client.new_stream_id(), client.new_stream_id()),
        }
        self.drain();
    }

    /// The socket that was asked for is open.
    fn connected(&mut self) {
        if self.has_socket && !std::mem::replace(&mut self.is_connected, true) {
            self.input(Input::Connected);
        }
    }

    /// Only what is open brings anything.
    fn text(&mut self, text: &str) {
        if self.is_connected {
            self.input(Input::Text(text));
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.client.handle_input(self.now, input);
        self.drain();
    }

    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(deadline) = self.client.next_timeout().filter(|deadline| deadline.at <= until) {
            self.now = self.now.max(deadline.at);
            self.client.handle_timeout(self.now);
            self.drain();
            self.wakes.check(self.now, self.client.next_timeout());
        }
        self.now = self.now.max(until);
    }

    fn drain(&mut self) {
        let mut count = 0;
        while let Some(output) = self.client.poll_output() {
            count += 1;
            assert!(count <= MAX_OUTPUTS, "more than {MAX_OUTPUTS} outputs at once");
            let shown = format!("{output:?}");
            assert!(!shown.contains(PASSWORD) && !shown.contains(GIVEN), "a secret in the log: {shown}");
            self.on_output(output);
        }
        assert!(self.client.roster().len() <= MAX_MEMBERS);
        assert_eq!(self.client.is_closed(), self.is_over);
    }

    fn on_output(&mut self, output: Output) {
        assert!(!self.is_over || matches!(output, Output::Disconnect), "{output:?} after the last word");
        match output {
            Output::Get { request, url } => {
                assert!(!holds_secret(url.as_str()), "a secret in {url}");
                assert!(!self.is_secure || url.scheme() == "https");
                assert_eq!(url.host_str(), Some("g.example"), "a group that moves to another host is not followed");
                self.requests.push(request);
            }
            Output::Post { request, url, json } => {
                assert!(!self.is_secure || url.scheme() == "https", "a password goes to {url}");
                assert!(!json.contains(TOKEN));
                self.requests.push(request);
            }
            Output::Connect { url } => {
                assert!(!std::mem::replace(&mut self.has_socket, true), "a second socket");
                assert!(matches!(url.scheme(), "ws" | "wss") && !holds_secret(url.as_str()));
                self.socket_is_secure = url.scheme() == "wss";
            }
            Output::Send(text) => {
                assert!(self.is_connected, "nothing is open to send over");
                assert!(serde_json::from_str::<Value>(&text).is_ok_and(|value| value["type"].is_string()));
                assert!(!self.is_secure || self.socket_is_secure || !holds_secret(&text));
            }
            Output::Disconnect => {
                self.is_connected = false;
                assert!(std::mem::take(&mut self.has_socket), "there is no socket to close");
                assert!(self.is_over);
            }
            Output::Event(event) => self.on_event(&event),
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::Joined(_) => assert!(!std::mem::replace(&mut self.has_joined, true), "joined twice"),
            Event::Refused(_) => {
                assert!(!self.has_joined, "refused after having joined");
                self.is_over = true;
            }
            Event::Disconnected { .. } => {
                assert!(self.has_joined, "disconnected before having joined");
                self.is_over = true;
            }
            Event::GroupIs(_) | Event::Notice(_) => {}
            other => assert!(self.has_joined, "{other:?} before having joined"),
        }
    }

    /// A server that has fallen silent is given up.
    fn come_to_rest(&mut self) {
        self.pass(Duration::from_secs(60));
        assert!(self.is_over && self.client.next_timeout().is_none(), "it waits for ever");
        assert!(!self.has_socket, "its socket stays open");
    }
}

fn holds_secret(text: &str) -> bool {
    [PASSWORD, TOKEN, GIVEN].iter().any(|secret| text.contains(secret))
}

fn fault(choices: &mut Choices<'_>) -> Fault {
    let kinds = [Fault::Unreachable, Fault::Tls, Fault::Protocol];
    choices.pick(&kinds)("in words".to_owned())
}

/// A message of the server's, with any of its fields.
fn message(choices: &mut Choices<'_>) -> String {
    const TYPES: [&str; 16] = [
        "joined",
        "handshake",
        "usermessage",
        "user",
        "offer",
        "answer",
        "ice",
        "renegotiate",
        "close",
        "abort",
        "chat",
        "ping",
        "pong",
        "chathistory",
        "joined",
        "odd",
    ];
    const KINDS: [&str; 16] = [
        "join",
        "fail",
        "redirect",
        "change",
        "leave",
        "kicked",
        "mute",
        "error",
        "warning",
        "info",
        "add",
        "delete",
        "clearchat",
        "",
        "odd",
        "join",
    ];
    let mut text = format!(r#"{{"type":"{}","kind":"{}""#, choices.pick(&TYPES), choices.pick(&KINDS));
    let fields = choices.byte();
    let mut field = |bit: u8, name: &str, value: Value| {
        if fields & bit != 0 {
            let _ = write!(text, ",{}:{value}", json!(name));
        }
    };
    field(1, "id", format!("m{}", choices.byte()).into());
    field(2, "privileged", true.into());
    field(4, "version", json!(["2", "1"]));
    field(8, "permissions", choices.pick_some(&[json!(["present"]), json!([]), json!(7)]).unwrap_or_default());
    field(16, "value", choices.pick(&["not authorised", "too many users", "/group/b/", "words", ""]).into());
    field(32, "error", choices.pick(&["duplicate-username", "need-username", "odd"]).into());
    field(64, "sdp", "v=0".into());
    field(64, "candidate", json!({"candidate": "candidate:1 1 UDP 1 192.0.2.1 1 typ host"}));
    field(128, "username", choices.text().into());
    field(128, "source", "m1".into());
    text.push('}');
    text
}
