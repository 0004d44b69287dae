//! An allocation against a server that loses, repeats, forges and forgets.
//!
//! Model: the server knows which channels it has bound; data may only go to those. After clean time there is a relay, or
//! the allocation is over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::rtc::turn::{Allocation, Credentials, Families, MAX_PEERS, MAX_WAITING, Output};
use galene_sip::time::Instant;
use galene_sip::wire::stun::{
    ALLOCATE, BINDING, Builder, CHANNEL_BIND, CHANNELS, ChannelData, Class, DATA, Message, REFRESH, TransactionId,
    long_term_key,
};

use super::{Choices, Wakes};

const TAG: [u8; 4] = [1, 2, 3, 4];
/// One request each for the refresh and for every peer, and what waited for one peer.
const MAX_OUTPUTS: usize = MAX_PEERS + MAX_WAITING + 4;
const CODES: [u16; 14] = [300, 400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 486, 500, 508];

struct World {
    allocation: Allocation,
    now: Instant,
    wakes: Wakes,
    /// Requests that have reached the server and are not answered.
    requests: Vec<Vec<u8>>,
    answers: Vec<Vec<u8>>,
    nonce: u8,
    /// What the server has bound.
    bound: BTreeMap<u16, SocketAddr>,
    /// What the allocation says is bound.
    told: BTreeMap<u16, SocketAddr>,
    is_allocated: bool,
    is_over: bool,
    /// Anything may have been forged, so that only the allocation's own word counts.
    is_forged: bool,
}

/// Runs the operations.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let first = choices.byte();
    let families = match first & 5 {
        0 | 4 => Families::V4,
        1 => Families::V6,
        _ => Families::Both,
    };
    let credentials = Credentials { username: "u".into(), password: "p".into() };
    let is_reliable = first & 2 != 0;
    let allocation = Allocation::new(Instant::ZERO, credentials, families, TAG, is_reliable, Random::for_test(1));
    let mut world = World {
        allocation,
        now: Instant::ZERO,
        wakes: Wakes::default(),
        requests: Vec::new(),
        answers: Vec::new(),
        nonce: 0,
        bound: BTreeMap::new(),
        told: BTreeMap::new(),
        is_allocated: false,
        is_over: false,
        is_forged: false,
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
            0 | 1 => self.pass(choices.duration(), choices.flag()),
            // Timers are late.
            2 => self.now += choices.duration(),
            3 | 4 => self.serve(choices.below(256)),
            5 | 6 => self.deliver(choices.below(256)),
            // Lost, or twice, or changed on the way.
            7 => self.requests.clear(),
            8 => self.answers.clear(),
            9 => {
                self.answers.extend(choices.pick_some(&self.answers));
            }
            10 => {
                if let Some(mut answer) = choices.pick_some(&self.answers) {
                    choices.mutate(&mut answer);
                    self.input(&answer);
                }
            }
            11 => self.forge(choices),
            12 => self.nonce = choices.byte(),
            13 => {
                self.allocation.bind(self.now, peer(choices.byte()));
                self.drain();
            }
            14 => {
                let raw = choices.raw();
                self.allocation.send(self.now, peer(choices.byte()), raw);
                self.drain();
            }
            _ => match choices.below(8) {
                0 => {
                    self.allocation.release(self.now);
                    self.drain();
                }
                1..=3 => self.allocation.forget(peer(choices.byte())),
                4 => {
                    self.allocation.prove(self.now);
                    self.drain();
                }
                5 => self.send_data(choices),
                _ => self.input(choices.raw()),
            },
        }
    }

    /// The server answers a request as it should.
    fn serve(&mut self, index: usize) {
        if self.requests.is_empty() {
            return;
        }
        let bytes = self.requests.remove(index % self.requests.len());
        let message = Message::parse(&bytes).expect("what is sent to the server can be read");
        let answer = self.answer(&message);
        self.answers.push(answer);
    }

    fn answer(&mut self, message: &Message<'_>) -> Vec<u8> {
        let key = long_term_key("u", "lab", "p");
        let (method, id) = (message.method, message.transaction_id);
        let error = |code| Builder::of(method, Class::Error, id).error_code(code, "words");
        if !message.verify(&key) {
            return error(401).realm("lab").nonce(&[self.nonce]).finish_unsigned();
        }
        if message.nonce != Some(&[self.nonce][..]) {
            return error(438).realm("lab").nonce(&[self.nonce]).finish_unsigned();
        }
        let done = Builder::of(method, Class::Success, id);
        match method {
            ALLOCATE => {
                let relayed = ([203, 0, 113, 9], 50_000).into();
                done.xor_relayed_address(relayed).lifetime_s(600).finish(&key)
            }
            REFRESH => done.lifetime_s(message.lifetime_s.unwrap_or(600).min(600)).finish(&key),
            CHANNEL_BIND => {
                let channel = message.channel.expect("a binding has a channel");
                let peer = message.peer_address.expect("a binding has a peer");
                assert!(CHANNELS.contains(&channel));
                let former = self.bound.insert(channel, peer);
                assert!(former.is_none_or(|former| former == peer), "a channel is never given to another peer");
                done.finish(&key)
            }
            other => panic!("a request of method {other}"),
        }
    }

    fn deliver(&mut self, index: usize) {
        if !self.answers.is_empty() {
            let answer = self.answers.remove(index % self.answers.len());
            self.input(&answer);
        }
    }

    /// An answer that the server did not give: to a request that is out, or to none.
    fn forge(&mut self, choices: &mut Choices<'_>) {
        self.is_forged = true;
        let asked = choices.pick_some(&self.requests);
        let asked = asked.as_deref().and_then(|bytes| Message::parse(bytes).ok());
        let id = asked.map_or_else(|| TransactionId([choices.byte(); 12]), |asked| asked.transaction_id);
        let method = match choices.below(8) {
            0 => BINDING,
            1 => DATA,
            2 => ALLOCATE,
            _ => asked.map_or(REFRESH, |asked| asked.method),
        };
        let class = choices.pick(&[Class::Error, Class::Success, Class::Indication, Class::Request]);
        let mut builder = Builder::of(method, class, id);
        let contents = choices.byte();
        if class == Class::Error || contents & 1 != 0 {
            builder = builder.error_code(choices.pick(&CODES), "forged");
        }
        if contents & 2 != 0 {
            builder = builder.realm(&choices.text());
        }
        if contents & 4 != 0 {
            builder = builder.nonce(choices.raw());
        }
        if contents & 8 != 0 {
            builder = builder.lifetime_s(u32::from(choices.u16()) << choices.below(17));
        }
        if contents & 16 != 0 {
            builder = builder.xor_relayed_address(peer(choices.byte()));
        }
        if contents & 32 != 0 {
            builder = builder.xor_peer_address(peer(choices.byte())).data(choices.raw());
        }
        let bytes = match choices.below(4) {
            0 => builder.finish_plain(),
            1 => builder.finish_unsigned(),
            // As a server that is wicked itself.
            2 => builder.finish(&long_term_key("u", "lab", "p")),
            _ => builder.finish(b"guess"),
        };
        self.input(&bytes);
    }

    /// A datagram of a peer, by any channel.
    fn send_data(&mut self, choices: &mut Choices<'_>) {
        let channel = CHANNELS.start() + u16::from(choices.byte() % 64);
        let payload = choices.raw();
        let header = ChannelData::header(channel, payload.len() as u16);
        self.input(&[&header[..], payload].concat());
    }

    fn input(&mut self, bytes: &[u8]) {
        self.allocation.handle_input(self.now, bytes);
        self.drain();
    }

    /// Time passes; a server that is there answers at once.
    fn pass(&mut self, by: Duration, is_served: bool) {
        let until = self.now + by;
        while let Some(deadline) = self.allocation.next_timeout().filter(|deadline| deadline.at <= until) {
            self.now = self.now.max(deadline.at);
            self.allocation.handle_timeout(self.now);
            self.drain();
            while is_served && !(self.requests.is_empty() && self.answers.is_empty()) {
                self.serve(0);
                self.deliver(0);
            }
            self.wakes.check(self.now, self.allocation.next_timeout());
        }
        self.now = self.now.max(until);
    }

    fn drain(&mut self) {
        let mut count = 0;
        while let Some(output) = self.allocation.poll_output() {
            count += 1;
            assert!(count <= MAX_OUTPUTS, "more than {MAX_OUTPUTS} outputs at once");
            assert!(!self.is_over, "{output:?} after the last word");
            self.on_output(output);
        }
        self.requests.truncate(256);
        self.answers.truncate(256);
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Transmit { bytes } => match ChannelData::parse(&bytes) {
                Some(data) => {
                    assert!(self.told.contains_key(&data.channel), "data for a channel that is not bound");
                    assert!(self.is_forged || self.bound.contains_key(&data.channel));
                }
                None => self.requests.push(bytes),
            },
            Output::Allocated { relayed, .. } => {
                assert!(!self.is_allocated, "allocated twice");
                assert!(!relayed.ip().is_unspecified() && relayed.port() != 0);
                self.is_allocated = true;
            }
            Output::ChannelBound { peer, channel } => {
                assert!(self.is_allocated && CHANNELS.contains(&channel));
                let former = self.told.insert(channel, peer);
                assert!(former.is_none_or(|former| former == peer), "a channel is never given to another peer");
            }
            Output::PeerRefused { .. } => {}
            Output::Received { .. } => assert!(self.is_allocated),
            Output::Failed(_) | Output::Released => self.is_over = true,
        }
    }

    /// With a good server for half an hour there is a relay that works, or it is over.
    fn come_to_rest(&mut self) {
        (self.requests, self.answers) = (Vec::new(), Vec::new());
        self.pass(Duration::from_secs(1800), true);
        assert_eq!(self.allocation.is_over(), self.is_over);
        if self.is_over {
            assert!(self.allocation.next_timeout().is_none());
            self.allocation.bind(self.now, peer(0));
            self.allocation.send(self.now, peer(0), b"late");
            self.drain();
            return;
        }
        assert!(self.is_allocated, "neither allocated nor over");
        self.allocation.release(self.now);
        self.drain();
        self.pass(Duration::from_secs(120), false);
        assert!(self.is_over, "a release ends, heard or not");
    }
}

/// More peers than an allocation serves, of both families.
fn peer(number: u8) -> SocketAddr {
    match number {
        240.. => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)], 6000).into(),
        _ => ([192, 0, 2, number % 48], 6000).into(),
    }
}
