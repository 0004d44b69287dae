//! The user agent against telephones, a registrar and a gateway that do anything at any time.
//!
//! Owns: the operations, and carrying what goes in and out. Does not own: the text of messages (`phone`), what the gateway
//! may hear and an INVITE may get (`model`).
//! A run ends with a gateway that hangs up and a network that is silent: then nothing is left, not even a timer.

mod model;
mod phone;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::sip::auth::Credentials;
use galene_sip::sip::endpoint::{Endpoint, MAX_CALLS};
use galene_sip::sip::event::{
    Account, CallKey, ConnectionCommand, ConnectionKey, EndpointConfig, Event, Input, Output, Registrar, Rejection,
    Route, Target,
};
use galene_sip::time::Instant;
use galene_sip::wire::sip::{Message, Method, Request, Response, Transport};
use galene_sip::wire::uri::Uri;

use super::{Choices, Wakes};
use model::Model;
use phone::{PHONES, Phone, SDP, address};

/// For one message; timers and shut-downs do something for each call, and for each transaction that a message has begun.
const MAX_OUTPUTS: usize = 64;
const MAX_OUTPUTS_A_CALL: usize = 16;
/// What is remembered of what the user agent asked for.
const MAX_PENDING: usize = 32;
const OWN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 5060);
/// Longer than any timer but those of sessions and of the registration.
const SILENCE: Duration = Duration::from_secs(3 * 3600);

struct World {
    endpoint: Endpoint,
    now: Instant,
    wakes: Wakes,
    model: Model,
    phones: Vec<Phone>,
    /// Requests of the user agent, for answers to them.
    requests: Vec<Request>,
    lookups: Vec<Target>,
    /// Connections that are open, and those that are to be opened.
    connections: Vec<ConnectionKey>,
    opening: Vec<ConnectionKey>,
    accepted: u64,
    /// What came last, to be changed and sent again.
    last: Vec<u8>,
    /// What the gateway does with the next offer.
    on_offer: u8,
    has_registrar: bool,
    is_shut_down: bool,
    floods: usize,
    received: usize,
    is_resting: bool,
    repeated: BTreeSet<Vec<u8>>,
}

/// Runs the operations.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut world = World::new(choices.byte());
    while let Some(operation) = choices.operation() {
        world.operate(operation, &mut choices);
        world.model.compare(&world.endpoint);
    }
    world.come_to_rest(choices.bytes.len().is_multiple_of(2));
}

fn config(first: u8) -> EndpointConfig {
    let uri = Uri::parse("sip:gw@example.test").expect("that is a URI");
    let credentials = Credentials { username: "gw".into(), password: "secret".into() };
    let target = Target { host: "192.0.2.99".into(), port: Some(5060), transport: None, is_secure: false };
    let target = if first & 16 == 0 { target } else { Target { transport: Some(Transport::Tcp), ..target } };
    EndpointConfig {
        account: Account { uri, credentials: Some(credentials.clone()) },
        registrar: (first & 1 != 0).then_some(Registrar { target, proxy: None }),
        allow: (0..PHONES).map(|phone| address(phone).ip()).filter(|_| first & 2 == 0).collect(),
        refer_anywhere: first & 4 == 0,
        guests: (first & 8 != 0).then_some(credentials),
        instance: (first & 32 != 0).then(|| "urn:uuid:00000000-0000-4000-8000-000000000001".into()),
        gruu: first & 32 != 0,
        public_address: None,
        local: vec![OWN],
        user_agent: "fuzzed".into(),
    }
}

impl World {
    fn new(first: u8) -> Self {
        let endpoint = Endpoint::new(config(first), Random::for_test(1));
        let mut world = Self {
            endpoint,
            now: Instant::ZERO,
            wakes: Wakes::default(),
            model: Model::default(),
            phones: (0..PHONES).map(Phone::new).collect(),
            requests: Vec::new(),
            lookups: Vec::new(),
            connections: Vec::new(),
            opening: Vec::new(),
            accepted: 0,
            last: Vec::new(),
            on_offer: 0,
            has_registrar: first & 1 != 0,
            is_shut_down: false,
            floods: 0,
            received: 0,
            is_resting: false,
            repeated: BTreeSet::new(),
        };
        world.endpoint.start(world.now);
        world.drain(MAX_OUTPUTS);
        world
    }

    fn operate(&mut self, operation: u8, choices: &mut Choices<'_>) {
        match operation % 32 {
            0 | 1 => self.pass(choices.duration()),
            // Timers are late.
            2 => self.now += choices.duration(),
            3..=5 => self.call_and_answer(choices),
            6..=15 => self.send_request(choices),
            16..=18 => self.respond(choices),
            19 => {
                let mut bytes = self.last.clone();
                choices.mutate(&mut bytes);
                self.receive(choices.below(PHONES), choices.byte(), &bytes);
            }
            20 => {
                let bytes = self.last.clone();
                self.receive(choices.below(PHONES), choices.byte(), &bytes);
            }
            21 => {
                let raw = choices.raw();
                self.receive(choices.below(PHONES), choices.byte(), raw);
            }
            22 => self.on_offer = choices.byte(),
            23 | 24 => self.look_up(choices),
            25 => self.connect(choices),
            26 if choices.byte() == 0xff => self.flood(),
            27 if choices.byte() % 16 == 1 => self.shut_down(),
            28 if choices.byte() % 4 == 1 => self.transfer(choices),
            _ => self.act(choices),
        }
    }

    /// A call as it should go, up to its ACK or not so far.
    fn call_and_answer(&mut self, choices: &mut Choices<'_>) {
        let (index, how) = (choices.below(PHONES), choices.byte());
        let announced = self.model.announced();
        let extra = choices.below(phone::EXTRAS);
        let invite = self.phones[index].begin(extra, how & 1 == 0);
        self.receive(index, 0, &invite);
        if self.model.announced() == announced || how & 2 != 0 {
            return;
        }
        let call = CallKey(self.model.last_key());
        self.endpoint.ring(self.now, call);
        if how & 4 != 0 {
            self.endpoint.progress(self.now, call, SDP.into());
        }
        self.model.answered(call);
        self.endpoint.answer(self.now, call, SDP.into());
        self.drain(MAX_OUTPUTS);
        if how & 8 == 0 {
            let ack = self.phones[index].acknowledge(how & 1 != 0);
            self.receive(index, 0, &ack);
        }
    }

    fn send_request(&mut self, choices: &mut Choices<'_>) {
        let (index, way) = (choices.below(PHONES), choices.byte());
        let other = self.phones[choices.below(PHONES)].clone();
        let bytes = self.phones[index].request(choices, &other);
        self.receive(index, way, &bytes);
    }

    /// A message comes, as a datagram or by a connection, perhaps in two parts.
    fn receive(&mut self, index: usize, way: u8, bytes: &[u8]) {
        self.last = bytes.to_vec();
        self.received += 1;
        if bytes.starts_with(b"ACK ") {
            self.model.on_ack(bytes);
        }
        let connection = self.connections.get(usize::from(way >> 3)).filter(|_| way & 1 == 1).copied();
        let Some(connection) = connection else {
            return self.input(Input::Datagram { local: OWN, remote: address(index), bytes });
        };
        let half = if way & 2 == 0 { 0 } else { bytes.len() / 2 };
        self.input(Input::Bytes { connection, bytes: &bytes[..half] });
        self.input(Input::Bytes { connection, bytes: &bytes[half..] });
    }

    /// Somebody answers a request of ours.
    fn respond(&mut self, choices: &mut Choices<'_>) {
        const STATUSES: [u16; 16] = [200, 100, 180, 183, 202, 302, 401, 403, 404, 407, 408, 422, 423, 481, 491, 503];
        let index = choices.below(256);
        if self.requests.is_empty() {
            return;
        }
        let index = index % self.requests.len();
        let request = self.requests[index].clone();
        let (status, how) = (choices.pick(&STATUSES), choices.byte());
        if status >= 200 && how & 1 == 0 {
            self.requests.remove(index);
        }
        let phone = choices.below(PHONES);
        let response = phone::response(&request, status, how, phone);
        if request.method == Method::Invite && status == 200 {
            self.phones[phone].take(&request, &response);
        }
        self.receive(phone, choices.byte(), &response.to_bytes());
    }

    fn look_up(&mut self, choices: &mut Choices<'_>) {
        let Some(target) = choices.pick_some(&self.lookups) else { return };
        let transport = choices.pick(&[Transport::Udp, Transport::Tcp, Transport::Tls]);
        let route = Route { transport, remote: address(choices.below(PHONES)), local: OWN.ip() };
        let lifetime = Duration::from_secs(u64::from(choices.byte()));
        self.input(match choices.below(4) {
            0 => Input::Unresolved { target, error: "no such name".into() },
            1 => Input::Resolved { target, routes: vec![], lifetime },
            _ => Input::Resolved { target, routes: vec![route, Route { remote: address(0), ..route }], lifetime },
        });
    }

    fn connect(&mut self, choices: &mut Choices<'_>) {
        match choices.below(4) {
            0 => {
                self.accepted += 1;
                let connection = ConnectionKey::Theirs(self.accepted);
                self.connections.push(connection);
                let transport = choices.pick(&[Transport::Tcp, Transport::Tls]);
                let remote = address(choices.below(PHONES));
                self.input(Input::Accepted { connection, transport, local: OWN, remote });
            }
            1 | 2 if !self.opening.is_empty() => {
                let connection = self.opening.remove(0);
                self.connections.push(connection);
                self.input(Input::Connected { connection, local: OWN });
            }
            _ => {
                let from = if choices.flag() { &mut self.connections } else { &mut self.opening };
                if let Some(connection) = from.pop() {
                    self.input(Input::Closed { connection, error: "reset".into() });
                }
            }
        }
    }

    /// The gateway does something, as it may.
    fn act(&mut self, choices: &mut Choices<'_>) {
        let Some(call) = choices.pick_some(&self.model.live()) else { return };
        let now = self.now;
        let is_answered = self.model.is_answered(call);
        let rejection = Rejection { status: choices.u16(), retry_after_s: Some(7), ..Rejection::default() };
        match choices.below(10) {
            0 => self.endpoint.ring(now, call),
            1 => self.endpoint.progress(now, call, SDP.into()),
            2 if !is_answered => {
                self.model.answered(call);
                self.endpoint.answer(now, call, SDP.into());
            }
            3 if !is_answered => {
                self.model.given_up(call);
                self.endpoint.reject(now, call, &rejection);
            }
            4 => self.answer_offers(call, &rejection),
            5 => {
                self.model.given_up(call);
                self.endpoint.hang_up(now, call, "enough");
            }
            6 | 7 => self.endpoint.probe(now, call),
            8 => {
                if let Some(former) = self.model.takes_place_of(call) {
                    self.model.taken_over(call);
                    self.endpoint.take_over(now, call, former, SDP.into());
                }
            }
            _ => self.endpoint.give_up_transfer(now, call, 503),
        }
        self.drain(MAX_OUTPUTS);
    }

    /// A telephone hands its caller on, and the gateway calls the target.
    fn transfer(&mut self, choices: &mut Choices<'_>) {
        let index = choices.below(PHONES);
        let refer = self.phones[index].refer(choices.flag());
        self.receive(index, 0, &refer);
        for call in self.model.live() {
            self.endpoint.place(self.now, call, SDP.into());
        }
        self.drain(MAX_OUTPUTS);
    }

    fn answer_offers(&mut self, call: CallKey, rejection: &Rejection) {
        if self.on_offer & 1 == 0 {
            self.endpoint.accept_offer(self.now, call, SDP.into());
        } else {
            self.endpoint.refuse_offer(self.now, call, rejection);
        }
    }

    /// As many calls as there may be, and more.
    fn flood(&mut self) {
        self.floods += 1;
        if self.floods > 5 {
            return;
        }
        for _ in 0..128 {
            let invite = self.phones[0].begin(0, true);
            self.receive(0, 0, &invite);
        }
    }

    fn shut_down(&mut self) {
        self.is_shut_down = true;
        self.endpoint.shut_down(self.now);
        self.drain(MAX_OUTPUTS + MAX_OUTPUTS_A_CALL * self.model.announced());
        assert!(self.model.live().is_empty(), "a call has outlived the end of the program");
        self.pass(Duration::from_secs(1));
        assert!(self.endpoint.is_idle(), "the program would not end");
    }

    fn input(&mut self, input: Input<'_>) {
        let malformed = self.endpoint.counters().malformed;
        self.endpoint.handle_input(self.now, input);
        // What cannot be read gets an answer too, which is none to the INVITE that it was once.
        self.model.is_readable = self.endpoint.counters().malformed == malformed;
        self.drain(MAX_OUTPUTS);
        self.model.is_readable = true;
    }

    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(deadline) = self.endpoint.next_timeout().filter(|deadline| deadline.at <= until) {
            self.now = self.now.max(deadline.at);
            self.endpoint.handle_timeout(self.now);
            self.drain(MAX_OUTPUTS + MAX_OUTPUTS_A_CALL * self.model.announced() + self.received);
            self.wakes.check(self.now, self.endpoint.next_timeout());
        }
        self.now = self.now.max(until);
    }

    fn drain(&mut self, most: usize) {
        let mut count = 0;
        while let Some(output) = self.endpoint.poll_output() {
            count += 1;
            assert!(count <= most, "more than {most} outputs at once");
            match output {
                Output::Send { bytes, .. } | Output::Connection(ConnectionCommand::Write { bytes, .. }) => {
                    self.on_sent(&bytes);
                }
                Output::Connection(ConnectionCommand::Open { connection, .. }) => self.opening.push(connection),
                Output::Connection(ConnectionCommand::Close { connection }) => {
                    self.opening.retain(|key| *key != connection);
                    self.connections.retain(|key| *key != connection);
                }
                Output::Resolve(target) => self.lookups.push(target),
                Output::Event(event) => self.on_event(event),
                Output::Passed(_) => count -= 1,
            }
        }
        let excess = self.lookups.len().saturating_sub(MAX_PENDING);
        self.lookups.drain(..excess);
        let excess = self.requests.len().saturating_sub(MAX_PENDING);
        self.requests.drain(..excess);
        assert!(self.endpoint.calls() <= MAX_CALLS);
    }

    fn on_sent(&mut self, bytes: &[u8]) {
        // What is repeated when nobody answers any more has been looked at.
        if self.is_resting && !self.repeated.insert(bytes.to_vec()) {
            return;
        }
        match Message::parse(bytes) {
            Ok(Message::Request(request)) => {
                if request.method != Method::Ack && !self.requests.contains(&request) {
                    self.requests.push(request);
                }
            }
            Ok(Message::Response(response)) => {
                self.phones.iter_mut().for_each(|phone| phone.learn(&response));
                self.model.on_response(self.now, &response);
            }
            Err(_) => self.check_unreadable(bytes),
        }
    }

    /// Line ends keep a way open, STUN too; a refusal of what cannot be read repeats what it cannot make better.
    fn check_unreadable(&self, bytes: &[u8]) {
        let is_keep_alive = bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        let is_stun = bytes.first().is_some_and(|first| *first < 4);
        let text = String::from_utf8_lossy(bytes);
        assert!(is_keep_alive || is_stun || !self.model.is_readable, "we have sent what nobody can read: {text}");
    }

    fn on_event(&mut self, event: Event) {
        self.model.on_event(&event, &self.last);
        if let Event::Offer { call, .. } = event {
            match self.on_offer % 8 {
                // It is answered some other time, or never.
                7 => {}
                6 => {
                    self.model.given_up(call);
                    self.endpoint.hang_up(self.now, call, "no offers");
                }
                _ => self.answer_offers(call, &Rejection { status: 488, ..Rejection::default() }),
            }
        }
    }

    /// The gateway ends all calls, or asks for them; nobody answers any more; time passes.
    fn come_to_rest(mut self, by_probe: bool) {
        self.is_resting = true;
        self.requests.clear();
        for call in self.model.live() {
            self.answer_offers(call, &Rejection::default());
            self.drain(MAX_OUTPUTS);
        }
        for connection in std::mem::take(&mut self.opening) {
            self.input(Input::Closed { connection, error: "no route".into() });
        }
        if by_probe {
            self.pass(Duration::from_secs(40));
            for call in self.model.live() {
                self.endpoint.probe(self.now, call);
                self.drain(MAX_OUTPUTS);
            }
            self.pass(Duration::from_secs(40));
            let is_up = |call: &CallKey| self.model.is_acknowledged(*call);
            assert!(!self.model.live().iter().any(is_up), "a telephone that says nothing has gone");
        }
        for call in self.model.live() {
            self.model.given_up(call);
            self.endpoint.hang_up(self.now, call, "the end");
            self.drain(MAX_OUTPUTS);
        }
        // A registrar is asked again for ever, which takes long to watch.
        let silence = if self.has_registrar { SILENCE / 60 } else { SILENCE };
        self.pass(silence);
        for connection in std::mem::take(&mut self.opening) {
            self.input(Input::Closed { connection, error: "no route".into() });
        }
        self.pass(silence);
        assert_eq!(self.endpoint.calls(), 0, "a call is left");
        assert!(self.has_registrar || self.endpoint.next_timeout().is_none(), "{:?}", self.endpoint.next_timeout());
    }
}

/// What names the transaction that a response belongs to; `None` for those of before RFC 3261.
fn branch_of(response: &Response) -> Option<String> {
    let via = response.headers.via().ok()?;
    Some(format!("{} {}:{}", via.unique_branch()?, via.host, via.port_or_default()))
}
