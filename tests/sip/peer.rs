//! The world around one user agent: a virtual clock, what was sent, and a telephone that speaks from a script.

use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::sip::auth::Credentials;
use galene_sip::sip::endpoint::Endpoint;
use galene_sip::sip::event::{
    Account, CallKey, ConnectionCommand, EndpointConfig, Event, Input, Output, Passed, Registrar, Route, Target,
};
use galene_sip::time::Instant;
use galene_sip::wire::sip::{Headers, Message, Transport};
use galene_sip::wire::uri::Uri;

/// Our only socket.
pub(crate) const OWN: &str = "10.0.0.2:5060";
/// Where the telephone is.
pub(crate) const PHONE: &str = "10.0.0.7:5062";
/// Where the registrar is.
pub(crate) const REGISTRAR: &str = "192.0.2.1:5060";
pub(crate) const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 10.0.0.7\r\ns=-\r\nc=IN IP4 10.0.0.7\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
pub(crate) const ANSWER: &str =
    "v=0\r\no=- 2 2 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n";

/// One datagram that the user agent sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at_ms: u64,
    pub(crate) local: Option<String>,
    pub(crate) remote: String,
    pub(crate) bytes: Vec<u8>,
}

impl Sent {
    pub(crate) fn message(&self) -> Message {
        Message::parse(&self.bytes).expect("what we send can be read")
    }

    pub(crate) fn headers(&self) -> Headers {
        self.message().headers().clone()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        self.headers().get(name).unwrap_or_default().to_owned()
    }

    /// `200 INVITE` for a response, `BYE` for a request, `keep-alive` for a double line end.
    pub(crate) fn what(&self) -> String {
        if self.bytes == b"\r\n\r\n" {
            return "keep-alive".to_owned();
        }
        match self.message() {
            Message::Request(request) => request.method.to_string(),
            Message::Response(response) => {
                format!("{} {}", response.status, response.headers.cseq().unwrap().method)
            }
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }
}

pub(crate) struct World {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Instant,
    sent: Vec<Sent>,
    /// Questions whether the registrar lives, which are in `sent` not.
    pings: Vec<Sent>,
    /// Whether they get an answer.
    pub(crate) registrar_lives: bool,
    events: Vec<Event>,
    pub(crate) resolves: Vec<(String, Option<u16>)>,
    /// What was wanted of connections since the last look, but for what went over them: that is in `sent`.
    pub(crate) connections: Vec<ConnectionCommand>,
    /// What was told of messages since the last look.
    pub(crate) passed: Vec<Passed>,
    /// The transport of the registrar's addresses.
    pub(crate) transport: Transport,
}

impl World {
    /// A user agent that does not register and takes every call.
    pub(crate) fn open() -> Self {
        Self::new(config(None, None))
    }

    pub(crate) fn new(config: EndpointConfig) -> Self {
        let endpoint = Endpoint::new(config, Random::for_test(1));
        Self {
            endpoint,
            now: Instant::ZERO,
            sent: vec![],
            pings: vec![],
            registrar_lives: false,
            events: vec![],
            resolves: vec![],
            connections: vec![],
            passed: vec![],
            transport: Transport::Udp,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now.as_us() / 1000
    }

    pub(crate) fn receive(&mut self, from: &str, text: &str) {
        self.receive_bytes(from, text.as_bytes());
    }

    pub(crate) fn receive_bytes(&mut self, from: &str, bytes: &[u8]) {
        let (local, remote) = (OWN.parse().unwrap(), from.parse().unwrap());
        self.endpoint.handle_input(self.now, Input::Datagram { local, remote, bytes });
        self.drain();
    }

    pub(crate) fn resolve(&mut self, host: &str, port: Option<u16>, remotes: &[&str]) {
        let local = "10.0.0.2".parse().unwrap();
        let transport = self.transport;
        let route = |remote: &&str| Route { transport, remote: remote.parse().unwrap(), local };
        let target = Target { port, ..target(host) };
        self.input(Input::Resolved {
            target,
            routes: remotes.iter().map(route).collect(),
            lifetime: Duration::from_secs(3600),
        });
    }

    /// Takes any input.
    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.endpoint.handle_input(self.now, input);
        self.drain();
    }

    /// Lets `ms` pass, deadline by deadline.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        for _ in 0..100_000 {
            let Some(deadline) = self.endpoint.next_timeout().filter(|deadline| deadline.at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(deadline.at);
            self.endpoint.handle_timeout(self.now);
            self.drain();
        }
        panic!("a deadline that never passes: {:?}", self.endpoint.next_timeout());
    }

    /// Lets time pass, `ms` at most, until something is sent or happens.
    pub(crate) fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.sent.is_empty() && self.events.is_empty() {
            let next = self.endpoint.next_timeout().filter(|deadline| deadline.at <= end).expect("something to come");
            self.pass(u64::try_from(next.at.saturating_since(self.now).as_millis()).unwrap() + 1);
        }
    }

    /// Does something to the user agent.
    pub(crate) fn act(&mut self, act: impl FnOnce(&mut Endpoint, Instant)) {
        act(&mut self.endpoint, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Send { local, remote, bytes } => {
                    let (at_ms, local) = (self.now_ms(), local.map(|local| local.to_string()));
                    let sent = Sent { at_ms, local, remote: remote.to_string(), bytes };
                    if sent.bytes.starts_with(b"OPTIONS ") { self.pings.push(sent) } else { self.sent.push(sent) }
                }
                Output::Connection(ConnectionCommand::Write { connection, bytes }) => {
                    self.sent.push(Sent { at_ms: self.now_ms(), local: None, remote: format!("{connection:?}"), bytes })
                }
                Output::Connection(command) => self.connections.push(command),
                Output::Resolve(target) => self.resolves.push((target.host, target.port)),
                Output::Event(event) => self.events.push(event),
                Output::Passed(passed) => self.passed.push(passed),
            }
        }
        if self.registrar_lives && !self.pings.is_empty() {
            for ping in std::mem::take(&mut self.pings) {
                self.receive(&ping.remote, &Phone::response(&ping, 404, ""));
            }
        }
    }

    /// The questions whether the registrar lives since the last look.
    pub(crate) fn pings(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.pings)
    }

    /// What was sent since the last look.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// What was sent since the last look, in short.
    pub(crate) fn said(&mut self) -> Vec<String> {
        self.sent().iter().map(Sent::what).collect()
    }

    /// The only thing sent since the last look.
    pub(crate) fn one(&mut self) -> Sent {
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "{:?}", sent.iter().map(Sent::what).collect::<Vec<_>>());
        sent.into_iter().next().unwrap()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn event(&mut self) -> Event {
        let events = self.events();
        assert_eq!(events.len(), 1, "{events:?}");
        events.into_iter().next().unwrap()
    }

    /// The key of the call that has just come in.
    pub(crate) fn invited(&mut self) -> CallKey {
        match self.event() {
            Event::Invite { call, .. } => call,
            other => panic!("{other:?}"),
        }
    }
}

/// A server as most people name it.
pub(crate) fn target(host: &str) -> Target {
    Target { host: host.into(), port: None, transport: None, is_secure: false }
}

pub(crate) fn config(registrar: Option<&str>, password: Option<&str>) -> EndpointConfig {
    let credentials = password.map(|password| Credentials { username: "6002".into(), password: password.to_owned() });
    EndpointConfig {
        account: Account { uri: Uri::parse("sip:6002@example.com").unwrap(), credentials },
        registrar: registrar.map(|host| Registrar { target: target(host), proxy: None }),
        allow: vec![],
        refer_anywhere: false,
        guests: None,
        instance: None,
        gruu: false,
        public_address: None,
        local: vec!["0.0.0.0:5060".parse().unwrap()],
        user_agent: "galene-sip/test".into(),
    }
}

/// A telephone that calls.
#[derive(Clone, Debug)]
pub(crate) struct Phone {
    pub(crate) address: String,
    /// The Request-URI of requests outside the dialog.
    pub(crate) target: String,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) branch: u32,
    /// Filled in by [`Self::listen`].
    pub(crate) remote_tag: Option<String>,
}

impl Phone {
    pub(crate) fn new() -> Self {
        Self {
            address: PHONE.into(),
            target: "sip:6002@10.0.0.2".into(),
            call_id: "call-1@phone".into(),
            cseq: 0,
            branch: 0,
            remote_tag: None,
        }
    }

    /// A request of the next CSeq (the last INVITE's for ACK and CANCEL), with a new branch except for CANCEL.
    pub(crate) fn request(&mut self, method: &str, extra: &str, body: &str) -> String {
        if !matches!(method, "ACK" | "CANCEL") {
            self.cseq += 1;
        }
        if method != "CANCEL" {
            self.branch += 1;
        }
        let Self { address, target, call_id, cseq, branch, remote_tag } = self;
        let tag = remote_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK-{branch};rport\r\n\
             Max-Forwards: 70\r\nFrom: \"Alice\" <sip:alice@example.org>;tag=a1\r\nTo: <sip:6002@example.com>{tag}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:alice@{address}>\r\n{extra}{content}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// The ACK for a refusal: the INVITE's branch.
    pub(crate) fn ack_refusal(&mut self) -> String {
        self.branch -= 1;
        self.request("ACK", "", "")
    }

    /// Learns the tag of the dialog.
    pub(crate) fn listen(&mut self, response: &Sent) {
        let to = response.headers().to().unwrap();
        self.remote_tag = Some(to.tag().expect("a To tag").into_owned());
    }

    /// Calls, is answered, and acknowledges.
    pub(crate) fn call(&mut self, world: &mut World) -> CallKey {
        self.call_with(world, "")
    }

    /// An INVITE with this body, which the gateway hears of.
    pub(crate) fn invite(&mut self, world: &mut World, body: &str) -> CallKey {
        self.invite_with(world, "", body)
    }

    /// The same with header lines of one's own.
    pub(crate) fn invite_with(&mut self, world: &mut World, extra: &str, body: &str) -> CallKey {
        let invite = self.request("INVITE", extra, body);
        world.receive(&self.address.clone(), &invite);
        world.invited()
    }

    /// Calls with header lines of one's own and is answered.
    pub(crate) fn call_to_the_answer(&mut self, world: &mut World, extra: &str) -> CallKey {
        let key = self.invite_with(world, extra, OFFER);
        world.act(|endpoint, now| endpoint.answer(now, key, ANSWER.into()));
        let ok = world.sent().pop().unwrap();
        assert_eq!(ok.what(), "200 INVITE");
        self.listen(&ok);
        key
    }

    /// The same, and acknowledges.
    pub(crate) fn call_with(&mut self, world: &mut World, extra: &str) -> CallKey {
        let key = self.call_to_the_answer(world, extra);
        let ack = self.request("ACK", "", "");
        world.receive(&self.address.clone(), &ack);
        assert_eq!(world.event(), Event::Acknowledged { call: key });
        key
    }

    /// The response of `status` to a request of the user agent.
    pub(crate) fn response(request: &Sent, status: u16, extra: &str) -> String {
        Self::response_with(request, status, extra, "")
    }

    /// The same with a session description.
    pub(crate) fn response_with(request: &Sent, status: u16, extra: &str, body: &str) -> String {
        let headers = request.headers();
        let via = headers.get("Via").unwrap();
        let copy = |name: &str| format!("{name}: {}\r\n", headers.get(name).unwrap());
        let common: String = ["From", "To", "Call-ID", "CSeq"].iter().map(|name| copy(name)).collect();
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "SIP/2.0 {status} Reason\r\nVia: {via}\r\n{common}{extra}{content}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}
