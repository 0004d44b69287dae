//! Two ICE agents against each other, over a network that loses, repeats, reorders, forges and closes ways.
//!
//! Model: which route has brought the answer to what was asked by it; only such a route may be selected. Once the network is
//! good again what is selected works, and after a restart both ends use the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::rtc::candidate::{Candidate, CandidateKind, priority};
use galene_sip::rtc::ice::{Agent, MAX_PAIRS, Output, RelayFamilies, Role};
use galene_sip::time::Instant;
use galene_sip::wire::route::Route;
use galene_sip::wire::stun::{Builder, Class, Message, RoleAttribute, TransactionId};

use super::{Choices, Wakes};

/// Candidates of one generation that nobody has; many more would leave no place for the right ones.
const MAX_DEAD: usize = 12;
/// Each pair's retransmission, a new check, an answer, a selection.
const MAX_OUTPUTS: usize = MAX_PAIRS + 4;
/// Datagrams on their way; more are lost.
const MAX_IN_FLIGHT: usize = 64;

#[derive(Clone)]
struct Flight {
    sender: usize,
    to: Route,
    bytes: Vec<u8>,
}

struct Side {
    agent: Agent,
    is_lite: bool,
    has_relay: bool,
    has_failed: bool,
    /// Where checks of this generation went.
    asked: BTreeMap<[u8; 12], Route>,
    /// Routes from which the answer to a check (or for a lite agent anything) has come in this generation.
    answered: BTreeSet<Route>,
    dead: usize,
    wakes: Wakes,
}

struct World {
    sides: [Side; 2],
    now: Instant,
    flights: Vec<Flight>,
    is_direct_open: bool,
}

/// Runs the operations.
pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let first = choices.byte();
    let is_lite = first & 1 != 0;
    let role = |is_controlling| if is_controlling { Role::Controlling } else { Role::Controlled };
    let side = |index: usize, role, is_lite| {
        let agent = Agent::new(role, is_lite, &[host(index)], Random::for_test(index as u64));
        let (has_relay, has_failed, asked) = (false, false, BTreeMap::new());
        Side {
            agent,
            is_lite,
            has_relay,
            has_failed,
            asked,
            answered: BTreeSet::new(),
            dead: 0,
            wakes: Wakes::default(),
        }
    };
    let sides = [side(0, role(is_lite || first & 2 != 0), false), side(1, role(first & 4 != 0), is_lite)];
    let mut world = World { sides, now: Instant::ZERO, flights: Vec::new(), is_direct_open: first & 8 == 0 };
    while let Some(operation) = choices.operation() {
        world.operate(operation, &mut choices);
    }
    world.come_to_rest();
}

/// A side's own address.
fn host(side: usize) -> SocketAddr {
    ([192, 0, 2, side as u8 + 1], 5000).into()
}

/// That of its relay.
fn relay(side: usize) -> SocketAddr {
    ([203, 0, 113, side as u8 + 1], 6000).into()
}

impl World {
    fn operate(&mut self, operation: u8, choices: &mut Choices<'_>) {
        let side = usize::from(operation >> 7);
        match operation % 16 {
            0 | 1 => self.pass(choices.duration(), false),
            2 => self.pass(choices.duration(), true),
            // Timers are late.
            3 => self.now += choices.duration(),
            4..=6 => self.deliver(choices.below(MAX_IN_FLIGHT), choices.byte()),
            7 => self.forge(side, choices),
            8 => self.flights.clear(),
            9 => self.is_direct_open = choices.flag(),
            10 => self.set_relay(side, choices.flag()),
            11 => self.describe(side),
            12 => self.trickle(side, choices),
            13 => self.restart(side),
            14 => {
                let role = choices.pick(&[Role::Controlling, Role::Controlled]);
                if !self.sides[1].is_lite {
                    self.sides[side].agent.set_role(role);
                }
            }
            _ => {
                let mut raw = choices.raw().to_vec();
                if let Some(flight) = choices.pick_some(&self.flights) {
                    raw = flight.bytes;
                    choices.mutate(&mut raw);
                }
                self.bring(side, stranger(choices.byte()), &raw);
            }
        }
    }

    /// What the other side has sent comes, perhaps from where it was not sent. It may come from a candidate that somebody in
    /// between has. A lite agent asks nobody back: who can hold up a check can divert it.
    fn bring(&mut self, side: usize, from: Route, bytes: &[u8]) {
        let one = &mut self.sides[side];
        let answers = |message: Message<'_>| {
            message.class == Class::Success && one.asked.get(&message.transaction_id.0) == Some(&from)
        };
        if one.is_lite || Message::parse(bytes).is_ok_and(answers) {
            one.answered.insert(from);
        }
        self.input(side, from, bytes);
    }

    /// One datagram arrives: once, or a copy of it, or from where it was not sent.
    fn deliver(&mut self, index: usize, how: u8) {
        if self.flights.is_empty() {
            return;
        }
        let index = index % self.flights.len();
        let flight = if how % 8 == 1 { self.flights[index].clone() } else { self.flights.remove(index) };
        if how % 8 == 2 {
            return self.bring(1 - flight.sender, stranger(how), &flight.bytes);
        }
        self.arrive(&flight);
    }

    /// Carries a datagram to its end, if there is a way.
    fn arrive(&mut self, flight: &Flight) {
        let Some(from) = self.way(flight.sender, flight.to) else { return };
        self.bring(1 - flight.sender, from, &flight.bytes);
    }

    /// How the other side sees what is sent this way, if it gets there.
    fn way(&self, sender: usize, to: Route) -> Option<Route> {
        let receiver = 1 - sender;
        let source = if to.is_relayed() { relay(sender) } else { host(sender) };
        let target = to.peer();
        if to.is_relayed() && !self.sides[sender].has_relay {
            return None;
        }
        if target == relay(receiver) && self.sides[receiver].has_relay {
            return Some(Route::Relayed(source));
        }
        let is_open = self.is_direct_open || to.is_relayed();
        (target == host(receiver) && is_open).then_some(Route::Direct(source))
    }

    /// A check or an answer of somebody who does not know the password.
    fn forge(&mut self, side: usize, choices: &mut Choices<'_>) {
        let asked = choices.pick_some(&self.flights);
        let asked = asked.as_ref().and_then(|flight| Message::parse(&flight.bytes).ok());
        let id = asked.map_or_else(|| TransactionId([choices.byte(); 12]), |asked| asked.transaction_id);
        let class = choices.pick(&[Class::Request, Class::Success, Class::Error, Class::Indication]);
        let ufrag = self.sides[side].agent.credentials().ufrag.clone();
        let tie_breaker = u64::from(choices.byte()) << 56;
        let role = choices.pick(&[RoleAttribute::Controlling(tie_breaker), RoleAttribute::Controlled(tie_breaker)]);
        let mut builder = Builder::new(class, id).username(&format!("{ufrag}:x")).priority(u32::MAX).role(role);
        if choices.flag() {
            builder = builder.use_candidate();
        }
        if class == Class::Error {
            builder = builder.error_code(choices.pick(&[487, 400, 401, 420, 500]), "forged");
        }
        let bytes = if choices.flag() { builder.finish(b"guess") } else { builder.finish_unsigned() };
        self.input(side, stranger(choices.byte()), &bytes);
    }

    fn set_relay(&mut self, side: usize, has_relay: bool) {
        let has_relay = has_relay && !self.sides[side].is_lite;
        self.sides[side].has_relay = has_relay;
        self.sides[side].agent.set_relay(self.now, RelayFamilies { v4: has_relay, v6: false });
        self.drain(side);
    }

    /// The other side's description comes, whose candidates are those of now. New credentials in it are a restart for us too.
    fn describe(&mut self, side: usize) {
        let theirs = self.sides[1 - side].agent.credentials().clone();
        if self.sides[side].agent.remote_credentials() == Some(&theirs) {
            return;
        }
        if self.sides[side].agent.remote_credentials().is_some() {
            self.restart(side);
        }
        self.sides[side].agent.start(self.now, theirs);
        self.drain(side);
        self.signal(side);
    }

    /// The other side's candidates come.
    fn signal(&mut self, side: usize) {
        let other = 1 - side;
        let ufrag = Some(self.sides[other].agent.credentials().ufrag.clone());
        let mut candidates = vec![(host(other), CandidateKind::Host)];
        if self.sides[other].has_relay {
            candidates.push((relay(other), CandidateKind::Relayed));
        }
        for (address, kind) in candidates {
            let candidate = Candidate { address, priority: priority(kind, 0), ufrag: ufrag.clone() };
            self.sides[side].agent.add_candidate(self.now, candidate);
        }
        self.drain(side);
    }

    /// A candidate that leads nowhere, perhaps of another generation; or the right ones.
    fn trickle(&mut self, side: usize, choices: &mut Choices<'_>) {
        if choices.flag() {
            return self.signal(side);
        }
        self.sides[side].dead += 1;
        if self.sides[side].dead > MAX_DEAD {
            return;
        }
        let theirs = self.sides[1 - side].agent.credentials().ufrag.clone();
        let ufrag = choices.pick_some(&[None, Some("old".to_owned()), Some(theirs)]).flatten();
        let address = stranger(choices.byte()).peer();
        let candidate = Candidate { address, priority: u32::from(choices.byte()) << 23, ufrag };
        self.sides[side].agent.add_candidate(self.now, candidate);
        self.drain(side);
    }

    fn restart(&mut self, side: usize) {
        let one = &mut self.sides[side];
        one.agent.restart(self.now);
        one.answered.clear();
        one.asked.clear();
        (one.has_failed, one.dead) = (false, 0);
        self.drain(side);
    }

    fn input(&mut self, side: usize, from: Route, bytes: &[u8]) {
        self.sides[side].agent.handle_input(self.now, from, bytes);
        self.drain(side);
    }

    fn drain(&mut self, side: usize) {
        let mut count = 0;
        while let Some(output) = self.sides[side].agent.poll_output() {
            count += 1;
            assert!(count <= MAX_OUTPUTS, "more than {MAX_OUTPUTS} outputs at once");
            let one = &mut self.sides[side];
            match output {
                Output::Transmit { to, bytes } if self.flights.len() < MAX_IN_FLIGHT => {
                    let message = Message::parse(&bytes).expect("what is sent can be read");
                    if message.class == Class::Request {
                        one.asked.insert(message.transaction_id.0, to);
                    }
                    self.flights.push(Flight { sender: side, to, bytes });
                }
                Output::Transmit { .. } => {}
                Output::Selected { remote } => {
                    assert!(!one.has_failed, "selected after it has failed");
                    assert!(one.agent.is_validated(remote));
                    assert!(one.answered.contains(&remote), "{remote} has never answered");
                }
                Output::Doubtful(_) => assert!(one.agent.selected().is_some(), "a doubt of nothing"),
                Output::Failed(_) => {
                    assert!(!std::mem::replace(&mut one.has_failed, true), "failed twice");
                }
            }
        }
    }

    /// Time passes, with a network that delivers at once or not at all.
    fn pass(&mut self, by: Duration, is_carried: bool) {
        let until = self.now + by;
        self.carry(is_carried);
        loop {
            let next = |side: &Side| side.agent.next_timeout().filter(|deadline| deadline.at <= until);
            let due = [0, 1].into_iter().filter_map(|side| Some((next(&self.sides[side])?.at, side))).min();
            let Some((at, side)) = due else { break };
            self.now = self.now.max(at);
            self.sides[side].agent.handle_timeout(self.now);
            self.drain(side);
            self.carry(is_carried);
            let one = &mut self.sides[side];
            one.wakes.check(self.now, one.agent.next_timeout());
        }
        self.now = self.now.max(until);
    }

    /// Delivers all there is, and what comes of it.
    fn carry(&mut self, is_carried: bool) {
        let mut count = 0;
        while is_carried && !self.flights.is_empty() {
            count += 1;
            assert!(count < 20 * MAX_IN_FLIGHT, "they talk without end");
            let flight = self.flights.remove(0);
            self.arrive(&flight);
        }
    }

    /// With a good network both have a way, or have given up, within a minute, and after a restart they have the same one.
    /// (Without it they need not: what is better and alive is not left for the other side's choice of a bad moment.)
    fn come_to_rest(&mut self) {
        self.flights.clear();
        if !self.is_direct_open && self.sides.iter().all(|side| !side.has_relay) {
            self.set_relay(0, true);
        }
        let is_settled = |world: &Self| {
            [0, 1].into_iter().all(|side| {
                let (us, them) = (&world.sides[side], &world.sides[1 - side]);
                us.agent.remote_credentials() == Some(them.agent.credentials()) && !us.has_failed
            })
        };
        // Consent lasts for 30 s, and finding nothing too.
        if is_settled(self) {
            (0..2).for_each(|side| self.signal(side));
            self.pass(Duration::from_secs(60), true);
        }
        if is_settled(self) {
            for side in [0, 1] {
                let Some(to) = self.sides[side].agent.selected() else { panic!("{side} has neither a way nor failed") };
                let from = self.way(side, to).unwrap_or_else(|| panic!("{side} sends to {to}, which leads nowhere"));
                assert!(self.sides[1 - side].agent.is_validated(from), "{from} is not heard");
            }
        }
        (0..2).for_each(|side| self.restart(side));
        (0..2).for_each(|side| self.describe(side));
        self.pass(Duration::from_secs(60), true);
        self.check_agreement();
    }

    fn check_agreement(&self) {
        let ends = [0, 1].map(|side| {
            let route = self.sides[side].agent.selected().unwrap_or_else(|| panic!("{side} has no way"));
            (if route.is_relayed() { relay(side) } else { host(side) }, route.peer())
        });
        assert_eq!(ends[0], (ends[1].1, ends[1].0), "both use the same way");
        if !self.sides[1].is_lite {
            assert_ne!(self.sides[0].agent.role(), self.sides[1].agent.role(), "one of them controls");
        }
    }
}

/// An address where nobody of ours is.
fn stranger(number: u8) -> Route {
    let address = ([198, 51, 100, number & 0x7f], 7000).into();
    if number & 0x80 != 0 { Route::Relayed(address) } else { Route::Direct(address) }
}
