//! One allocation against a scripted server, in virtual time.

use proptest::prelude::*;

use super::*;
use crate::wire::stun::{ALLOCATE, AddressFamily, Builder, CHANNEL_BIND, REFRESH, TransactionId, long_term_key};

const TAG: [u8; 4] = [1, 2, 3, 4];
const RELAYED: &str = "203.0.113.9:50000";
const MAPPED: &str = "198.51.100.7:4567";
const PEER: &str = "192.0.2.33:6000";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at_ms(ms: u64) -> Instant {
    Instant::from_us(ms * 1000)
}

fn credentials() -> Credentials {
    Credentials { username: "u".into(), password: "p".into() }
}

fn with_families(families: Families) -> Allocation {
    Allocation::new(Instant::ZERO, credentials(), families, TAG, false, Random::for_test(1))
}

fn allocation() -> Allocation {
    with_families(Families::V4)
}

/// A server that knows `u` with the password `p`.
struct Server {
    nonce: Vec<u8>,
    lifetime_s: u32,
    /// Every request of this method is refused with this code.
    refuses: Option<(u16, u16)>,
    /// Methods that were done, in their order; with the channels that were bound.
    done: Vec<(u16, Option<u16>)>,
    asked: usize,
}

impl Server {
    fn new() -> Self {
        Self { nonce: b"first".to_vec(), lifetime_s: 600, refuses: None, done: Vec::new(), asked: 0 }
    }

    fn key() -> [u8; 16] {
        long_term_key("u", "lab", "p")
    }

    fn answer(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.asked += 1;
        let message = Message::parse(bytes).unwrap();
        assert!(message.class == Class::Request && message.has_fingerprint && message.unknown_attributes().is_empty());
        assert!(message.transaction_id.0.starts_with(&TAG));
        let (method, id) = (message.method, message.transaction_id);
        let error = |code| Builder::of(method, Class::Error, id).error_code(code, "words");
        if !message.verify(&Self::key()) {
            return error(401).realm("lab").nonce(&self.nonce).finish_unsigned();
        }
        assert_eq!((message.username, message.realm), (Some("u"), Some("lab")));
        if message.nonce != Some(&self.nonce) {
            return error(438).realm("lab").nonce(&self.nonce).finish_unsigned();
        }
        if let Some((_, code)) = self.refuses.filter(|(refused, _)| *refused == method) {
            return error(code).finish(&Self::key());
        }
        self.done.push((method, message.channel));
        let done = Builder::of(method, Class::Success, id);
        match method {
            ALLOCATE => {
                assert_eq!(message.requested_transport, Some(17));
                done.xor_relayed_address(address(RELAYED))
                    .xor_mapped_address(address(MAPPED))
                    .lifetime_s(self.lifetime_s)
                    .finish(&Self::key())
            }
            REFRESH => done.lifetime_s(message.lifetime_s.unwrap().min(self.lifetime_s)).finish(&Self::key()),
            CHANNEL_BIND => {
                assert!(message.peer_address.is_some() && message.channel.is_some());
                done.finish(&Self::key())
            }
            other => panic!("method {other}"),
        }
    }

    fn count(&self, method: u16) -> usize {
        self.done.iter().filter(|(done, _)| *done == method).count()
    }
}

/// Carries datagrams between both, at once; gives what else the allocation puts out. ChannelData is given too.
fn exchange(now: Instant, allocation: &mut Allocation, server: &mut Server) -> Vec<Output> {
    let mut others = Vec::new();
    while let Some(output) = allocation.poll_output() {
        match output {
            Output::Transmit { bytes } if ChannelData::parse(&bytes).is_none() => {
                let answer = server.answer(&bytes);
                allocation.handle_input(now, &answer);
            }
            other => others.push(other),
        }
    }
    others
}

/// Lets time pass until `until`, with a server that hears nothing unless there is one.
fn pass(until: Instant, allocation: &mut Allocation, mut server: Option<&mut Server>) -> Vec<Output> {
    let mut others = Vec::new();
    while let Some(Deadline { at, .. }) = allocation.next_timeout().filter(|deadline| deadline.at <= until) {
        allocation.handle_timeout(at);
        match &mut server {
            Some(server) => others.extend(exchange(at, allocation, server)),
            None => others.extend(std::iter::from_fn(|| allocation.poll_output())),
        }
        assert!(allocation.next_timeout().is_none_or(|deadline| deadline.at > at), "it would spin");
    }
    others
}

fn allocated() -> (Allocation, Server) {
    let (mut allocation, mut server) = (allocation(), Server::new());
    let outputs = exchange(Instant::ZERO, &mut allocation, &mut server);
    let expected = Output::Allocated { relayed: address(RELAYED), further: None, mapped: Some(address(MAPPED)) };
    assert_eq!(outputs, [expected]);
    (allocation, server)
}

fn bound() -> (Allocation, Server, u16) {
    let (mut allocation, mut server) = allocated();
    allocation.bind(Instant::ZERO, address(PEER));
    let outputs = exchange(Instant::ZERO, &mut allocation, &mut server);
    let [Output::ChannelBound { peer, channel }] = outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(peer, address(PEER));
    (allocation, server, channel)
}

fn data(channel: u16, payload: &[u8]) -> Vec<u8> {
    channel_data(channel, payload).unwrap()
}

fn requests(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Transmit { .. })).count()
}

#[test]
fn it_is_challenged_asks_again_and_has_a_relay() {
    let (allocation, server) = allocated();
    assert_eq!((server.asked, server.done), (2, vec![(ALLOCATE, None)]));
    assert_eq!(allocation.drops(), Drops::default());
    assert_eq!(allocation.next_timeout().unwrap().at, at_ms(540_000));
}

#[test]
fn a_server_that_asks_nobody_serves_too() {
    let mut allocation = allocation();
    let Some(Output::Transmit { bytes }) = allocation.poll_output() else { panic!("nothing is sent") };
    let id = Message::parse(&bytes).unwrap().transaction_id;
    let answer = Builder::of(ALLOCATE, Class::Success, id).xor_relayed_address(address(RELAYED)).finish_unsigned();
    allocation.handle_input(Instant::ZERO, &answer);
    let expected = Output::Allocated { relayed: address(RELAYED), further: None, mapped: None };
    assert_eq!(allocation.poll_output(), Some(expected));
}

#[test]
fn every_refusal_says_what_to_mend() {
    for (code, failure, words) in [
        (300, Failure::Alternate { server: None, domain: None }, "another one:"),
        (403, Failure::Forbidden, "forbids"),
        (440, Failure::Family, "version of IP"),
        (441, Failure::WrongUser, "another user name"),
        (442, Failure::Transport, "UDP"),
        (486, Failure::Quota, "quota"),
        (508, Failure::Capacity, "port range"),
        (500, Failure::Refused(500), "code 500"),
    ] {
        let (mut allocation, mut server) = (allocation(), Server::new());
        server.refuses = Some((ALLOCATE, code));
        assert_eq!(exchange(Instant::ZERO, &mut allocation, &mut server), [Output::Failed(failure.clone())]);
        assert!(failure.to_string().contains(words), "{failure}");
        assert!(allocation.is_over() && allocation.next_timeout().is_none());
    }
}

#[test]
fn a_former_relay_of_our_socket_is_ended_and_one_that_stays_is_told() {
    let there = Output::Allocated { relayed: address(RELAYED), further: None, mapped: Some(address(MAPPED)) };
    for (refusals, expected) in [(1, there.clone()), (4, there), (5, Output::Failed(Failure::Mismatch))] {
        let (mut allocation, mut server) = (allocation(), Server::new());
        server.refuses = Some((ALLOCATE, 437));
        let mut outputs = exchange(Instant::ZERO, &mut allocation, &mut server);
        for refused in 1.. {
            if !outputs.is_empty() {
                break;
            }
            server.refuses = server.refuses.filter(|_| refused < refusals);
            let at = allocation.next_timeout().unwrap().at;
            assert!(at <= at_ms(1500), "{at:?}");
            outputs = pass(at, &mut allocation, Some(&mut server));
        }
        assert_eq!((outputs, server.count(REFRESH)), (vec![expected], 1), "{refusals} times");
    }
}

#[test]
fn a_relay_in_doubt_is_kept_if_the_server_has_it_and_ends_soon_if_not() {
    let (mut allocation, mut server, _) = bound();
    allocation.prove(at_ms(10_000));
    assert_eq!(exchange(at_ms(10_000), &mut allocation, &mut server), []);
    assert_eq!((server.count(REFRESH), pass(at_ms(60_000), &mut allocation, Some(&mut server))), (1, vec![]));
    server.refuses = Some((REFRESH, 437));
    allocation.prove(at_ms(60_000));
    let outputs = exchange(at_ms(60_000), &mut allocation, &mut server);
    assert_eq!(outputs, [Output::Failed(Failure::Lost)]);
    let (mut unheard, ..) = bound();
    unheard.prove(at_ms(10_000));
    let outputs = pass(at_ms(12_000), &mut unheard, None);
    assert_eq!((requests(&outputs), outputs.last()), (4, Some(&Output::Failed(Failure::Expired))));
}

#[test]
fn another_server_is_named() {
    let mut allocation = allocation();
    let Some(Output::Transmit { bytes }) = allocation.poll_output() else { panic!("nothing is sent") };
    let id = Message::parse(&bytes).unwrap().transaction_id;
    let answer = Builder::of(ALLOCATE, Class::Error, id)
        .error_code(300, "")
        .alternate_server(address(PEER))
        .alternate_domain("turn.test");
    allocation.handle_input(Instant::ZERO, &answer.finish_plain());
    let failure = Failure::Alternate { server: Some(address(PEER)), domain: Some("turn.test".into()) };
    assert_eq!(allocation.poll_output(), Some(Output::Failed(failure.clone())));
    assert!(failure.to_string().contains("another one, 192.0.2.33:6000"), "{failure}");
}

#[test]
fn a_wrong_password_is_told_from_the_first_challenge() {
    let credentials = Credentials { username: "u".into(), password: "wrong".into() };
    let random = Random::for_test(1);
    let mut allocation = Allocation::new(Instant::ZERO, credentials, Families::V4, TAG, false, random);
    let mut server = Server::new();
    let outputs = exchange(Instant::ZERO, &mut allocation, &mut server);
    assert_eq!((outputs, server.asked), (vec![Output::Failed(Failure::Credentials)], 2));
}

#[test]
fn a_challenge_without_realm_or_one_stale_nonce_after_another_ends_it() {
    for (code, expected) in [(401, 1), (438, 4)] {
        let mut allocation = allocation();
        let mut asked = 0;
        while let Some(output) = allocation.poll_output() {
            let Output::Transmit { bytes } = output else {
                assert_eq!(output, Output::Failed(Failure::Unintelligible));
                break;
            };
            asked += 1;
            let id = Message::parse(&bytes).unwrap().transaction_id;
            let error = Builder::of(ALLOCATE, Class::Error, id).error_code(code, "").nonce(b"n");
            let error = if code == 438 { error.realm("lab") } else { error };
            allocation.handle_input(Instant::ZERO, &error.finish_unsigned());
        }
        assert_eq!((asked, allocation.is_over()), (expected, true));
    }
}

#[test]
fn silence_is_given_up_after_seven_transmissions_or_at_once_where_nothing_is_lost() {
    let mut allocation = allocation();
    let outputs = pass(at_ms(60_000), &mut allocation, None);
    assert_eq!(requests(&outputs), 7);
    assert_eq!(outputs.last(), Some(&Output::Failed(Failure::NoAnswer)));
    let random = Random::for_test(1);
    let mut reliable = Allocation::new(Instant::ZERO, credentials(), Families::V4, TAG, true, random);
    assert!(matches!(reliable.poll_output(), Some(Output::Transmit { .. })));
    assert_eq!(pass(at_ms(7_999), &mut reliable, None), []);
    assert_eq!(pass(at_ms(8_000), &mut reliable, None), [Output::Failed(Failure::NoAnswer)]);
}

/// Every request and every answer is lost once, one run each.
#[test]
fn any_one_lost_datagram_delays_it_by_a_quarter_of_a_second() {
    for lost in 0..6 {
        let (mut allocation, mut server) = (allocation(), Server::new());
        allocation.bind(Instant::ZERO, address(PEER));
        let (mut count, mut now, mut bound_at) = (0, Instant::ZERO, None);
        let mut is_lost = || {
            count += 1;
            count - 1 == lost
        };
        while bound_at.is_none() {
            while let Some(output) = allocation.poll_output() {
                match output {
                    Output::Transmit { bytes } if !is_lost() => {
                        let answer = server.answer(&bytes);
                        if !is_lost() {
                            allocation.handle_input(now, &answer);
                        }
                    }
                    Output::ChannelBound { .. } => bound_at = Some(now),
                    Output::Transmit { .. } | Output::Allocated { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            if bound_at.is_none() {
                now = allocation.next_timeout().unwrap().at;
                allocation.handle_timeout(now);
            }
        }
        assert_eq!(bound_at, Some(at_ms(250)), "datagram {lost} is lost");
    }
}

#[test]
fn datagrams_go_both_ways_on_the_channel() {
    let (mut allocation, _, channel) = bound();
    allocation.send(Instant::ZERO, address(PEER), b"to them");
    assert_eq!(allocation.poll_output(), Some(Output::Transmit { bytes: data(channel, b"to them") }));
    allocation.handle_input(Instant::ZERO, &data(channel, b"to us"));
    let received = |peer: &str, bytes: &[u8]| Output::Received { peer: address(peer), bytes: bytes.to_vec() };
    assert_eq!(allocation.poll_output(), Some(received(PEER, b"to us")));
    let indication = Builder::of(DATA, Class::Indication, TransactionId([0; 12]))
        .xor_peer_address(address("192.0.2.33:7000"))
        .data(b"from another port")
        .finish_unsigned();
    allocation.handle_input(Instant::ZERO, &indication);
    assert_eq!(allocation.poll_output(), Some(received("192.0.2.33:7000", b"from another port")));
    assert_eq!(allocation.drops(), Drops::default());
}

#[test]
fn what_is_sent_early_waits_for_the_channel() {
    let (mut allocation, mut server) = (allocation(), Server::new());
    for number in 0..10u8 {
        allocation.send(Instant::ZERO, address(PEER), &[number]);
    }
    let outputs = exchange(Instant::ZERO, &mut allocation, &mut server);
    let channel = 0x4000;
    let mut expected = vec![
        Output::Allocated { relayed: address(RELAYED), further: None, mapped: Some(address(MAPPED)) },
        Output::ChannelBound { peer: address(PEER), channel },
    ];
    expected.extend((0..8u8).map(|number| Output::Transmit { bytes: data(channel, &[number]) }));
    assert_eq!(outputs, expected);
    assert_eq!(allocation.drops().unsendable, 2);
    assert_eq!(server.done, [(ALLOCATE, None), (CHANNEL_BIND, Some(channel))]);
}

#[test]
fn a_refused_peer_is_told_and_only_a_new_bind_tries_it_again() {
    let (mut allocation, mut server) = allocated();
    server.refuses = Some((CHANNEL_BIND, 403));
    allocation.send(Instant::ZERO, address(PEER), b"x");
    let outputs = exchange(Instant::ZERO, &mut allocation, &mut server);
    assert_eq!(outputs, [Output::PeerRefused { peer: address(PEER) }]);
    let asked = server.asked;
    allocation.send(Instant::ZERO, address(PEER), b"y");
    assert_eq!((allocation.poll_output(), allocation.drops().unsendable), (None, 1));
    server.refuses = None;
    allocation.bind(Instant::ZERO, address(PEER));
    let outputs = exchange(Instant::ZERO, &mut allocation, &mut server);
    assert_eq!(outputs, [Output::ChannelBound { peer: address(PEER), channel: 0x4000 }]);
    assert_eq!(server.asked, asked + 1);
}

#[test]
fn a_peer_of_the_other_family_is_refused_without_asking() {
    let (mut allocation, _) = allocated();
    let peer = address("[2001:db8::1]:9");
    allocation.bind(Instant::ZERO, peer);
    assert_eq!(allocation.poll_output(), Some(Output::PeerRefused { peer }));
    allocation.send(Instant::ZERO, peer, b"x");
    assert_eq!((allocation.poll_output(), allocation.drops().unsendable), (None, 1));
    let Some(Output::Transmit { bytes }) = with_families(Families::V6).poll_output() else { panic!("nothing") };
    assert_eq!(Message::parse(&bytes).unwrap().requested_family, Some(AddressFamily::V6));
}

#[test]
fn a_relay_of_both_versions_of_ip_serves_peers_of_both() {
    let mut allocation = with_families(Families::Both);
    let Some(Output::Transmit { bytes }) = allocation.poll_output() else { panic!("nothing is sent") };
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.requested_family, message.additional_family), (None, Some(AddressFamily::V6)));
    let (further, peer) = (address("[2001:db8::7]:50001"), address("[2001:db8::1]:9"));
    let answer = |further| {
        let success = Builder::of(ALLOCATE, Class::Success, message.transaction_id);
        success.xor_relayed_address(address(RELAYED)).xor_relayed_address(further).finish_unsigned()
    };
    allocation.handle_input(Instant::ZERO, &answer(further));
    let relayed = address(RELAYED);
    let allocated = |further| Some(Output::Allocated { relayed, further, mapped: None });
    assert_eq!(allocation.poll_output(), allocated(Some(further)));
    for peer in [peer, address(PEER)] {
        allocation.bind(Instant::ZERO, peer);
        let Some(Output::Transmit { bytes }) = allocation.poll_output() else { panic!("{peer} is not asked for") };
        assert_eq!(Message::parse(&bytes).unwrap().peer_address, Some(peer));
    }
    // Two of one version are one.
    let mut twice = with_families(Families::Both);
    twice.poll_output();
    twice.handle_input(Instant::ZERO, &answer(address("203.0.113.9:50002")));
    assert_eq!(twice.poll_output(), allocated(None));
    twice.bind(Instant::ZERO, peer);
    assert_eq!(twice.poll_output(), Some(Output::PeerRefused { peer }));
}

#[test]
fn a_day_is_refreshed_and_rebound_in_time() {
    let (mut allocation, mut server, channel) = bound();
    assert_eq!(pass(at_ms(86_400_000), &mut allocation, Some(&mut server)), []);
    assert_eq!((server.count(ALLOCATE), server.count(REFRESH)), (1, 160));
    assert_eq!(server.count(CHANNEL_BIND), 361);
    let same = |(method, bound): &(u16, Option<u16>)| *method != CHANNEL_BIND || *bound == Some(channel);
    assert!(server.done.iter().all(same));
    assert_eq!(allocation.drops(), Drops::default());
}

#[test]
fn a_short_lifetime_is_refreshed_at_its_half() {
    let (mut allocation, mut server) = (allocation(), Server::new());
    server.lifetime_s = 40;
    exchange(Instant::ZERO, &mut allocation, &mut server);
    assert_eq!(allocation.next_timeout().unwrap().at, at_ms(20_000));
    server.lifetime_s = 0; // nonsense
    pass(at_ms(20_000), &mut allocation, Some(&mut server));
    assert_eq!(allocation.next_timeout().unwrap().at, at_ms(25_000));
}

#[test]
fn a_stale_nonce_in_mid_life_is_replaced_everywhere() {
    let (mut allocation, mut server, _) = bound();
    for number in 0..60u32 {
        server.nonce = number.to_be_bytes().to_vec();
        assert_eq!(pass(at_ms(60_000 * u64::from(number)), &mut allocation, Some(&mut server)), []);
    }
    assert!(server.count(REFRESH) >= 6 && server.count(CHANNEL_BIND) >= 14);
    let before = server.asked;
    server.nonce = b"last".to_vec();
    allocation.release(at_ms(3_600_000));
    assert_eq!(exchange(at_ms(3_600_000), &mut allocation, &mut server), [Output::Released]);
    assert_eq!(server.asked, before + 2);
}

#[test]
fn a_minute_without_the_server_is_survived_and_ten_are_not() {
    let (mut allocation, mut server, _) = bound();
    pass(at_ms(530_000), &mut allocation, Some(&mut server));
    let outputs = pass(at_ms(590_000), &mut allocation, None);
    assert!(requests(&outputs) == outputs.len() && outputs.len() < 60, "{}", outputs.len());
    assert_eq!(pass(at_ms(1_000_000), &mut allocation, Some(&mut server)), []);
    let outputs = pass(at_ms(2_000_000), &mut allocation, None);
    assert_eq!(outputs.last(), Some(&Output::Failed(Failure::Expired)));
    assert!(allocation.is_over());
}

#[test]
fn a_server_that_was_restarted_is_told() {
    for method in [REFRESH, CHANNEL_BIND] {
        let (mut allocation, mut server, _) = bound();
        server.refuses = Some((method, 437));
        let outputs = pass(at_ms(600_000), &mut allocation, Some(&mut server));
        assert_eq!(outputs, [Output::Failed(Failure::Lost)]);
    }
}

#[test]
fn an_overloaded_server_is_asked_again_and_a_peer_may_be_refused_later() {
    let (mut allocation, mut server, _) = bound();
    server.refuses = Some((REFRESH, 500));
    assert_eq!(pass(at_ms(570_000), &mut allocation, Some(&mut server)), []);
    server.refuses = Some((CHANNEL_BIND, 508));
    assert_eq!(pass(at_ms(730_000), &mut allocation, Some(&mut server)), []);
    server.refuses = Some((CHANNEL_BIND, 403));
    let outputs = pass(at_ms(740_000), &mut allocation, Some(&mut server));
    assert_eq!(outputs, [Output::PeerRefused { peer: address(PEER) }]);
}

#[test]
fn junk_and_forged_answers_are_dropped_and_counted() {
    let (mut allocation, mut server) = (allocation(), Server::new());
    let Some(Output::Transmit { bytes }) = allocation.poll_output() else { panic!("nothing is sent") };
    allocation.handle_input(Instant::ZERO, &server.answer(&bytes));
    let Some(Output::Transmit { bytes }) = allocation.poll_output() else { panic!("nothing is sent") };
    let id = Message::parse(&bytes).unwrap().transaction_id;
    let success = |method| Builder::of(method, Class::Success, id).xor_relayed_address(address("198.51.100.66:1"));
    allocation.handle_input(Instant::ZERO, &success(ALLOCATE).finish_plain());
    allocation.handle_input(Instant::ZERO, &success(ALLOCATE).finish(b"guess"));
    assert_eq!(allocation.drops().unauthentic, 2);
    allocation.handle_input(Instant::ZERO, &success(REFRESH).finish(&Server::key()));
    let other = TransactionId([0; 12]);
    allocation
        .handle_input(Instant::ZERO, &Builder::of(ALLOCATE, Class::Error, other).error_code(403, "").finish_plain());
    allocation.handle_input(Instant::ZERO, &bytes);
    allocation.handle_input(Instant::ZERO, &data(0x4000, b"nobody's"));
    let early = Builder::of(DATA, Class::Indication, id).xor_peer_address(address(PEER)).data(b"early");
    allocation.handle_input(Instant::ZERO, &early.finish_unsigned());
    assert_eq!(allocation.drops().unexpected, 5);
    allocation.handle_input(Instant::ZERO, b"junk");
    allocation.handle_input(Instant::ZERO, &Builder::of(ALLOCATE, Class::Error, id).finish_plain());
    assert_eq!(allocation.drops().malformed, 2);
    assert_eq!(allocation.poll_output(), None);
    allocation.handle_input(Instant::ZERO, &server.answer(&bytes));
    assert!(matches!(allocation.poll_output(), Some(Output::Allocated { .. })));
    allocation.handle_input(Instant::ZERO, &Builder::of(DATA, Class::Indication, id).data(b"whose?").finish_plain());
    assert_eq!((allocation.poll_output(), allocation.drops().malformed), (None, 3));
}

#[test]
fn the_release_is_sent_once_more_if_nobody_hears_it_and_ends() {
    let (mut allocation, mut server, channel) = bound();
    allocation.release(at_ms(1000));
    let Some(Output::Transmit { bytes }) = allocation.poll_output() else { panic!("nothing is sent") };
    assert_eq!(Message::parse(&bytes).unwrap().lifetime_s, Some(0));
    allocation.handle_input(at_ms(1000), &data(channel, b"late"));
    allocation.send(at_ms(1000), address(PEER), b"late");
    assert_eq!(allocation.poll_output(), None);
    assert_eq!(pass(at_ms(2000), &mut allocation, Some(&mut server)), [Output::Released]);
    assert_eq!(server.done.last(), Some(&(REFRESH, None)));
    let (mut unheard, ..) = bound();
    unheard.release(at_ms(1000));
    assert_eq!(pass(at_ms(20_000), &mut unheard, None).last(), Some(&Output::Released));
    let mut early = self::allocation();
    early.release(Instant::ZERO);
    assert!(matches!(early.poll_output(), Some(Output::Transmit { .. })));
    assert_eq!((early.poll_output(), early.is_over()), (Some(Output::Released), true));
}

#[test]
fn there_are_so_many_peers_and_forgotten_ones_make_room_when_the_server_has_forgotten_them() {
    let (mut allocation, mut server) = allocated();
    let peer = |number: u16| SocketAddr::from(([192, 0, 2, 1], number));
    for number in 1..=33 {
        allocation.bind(Instant::ZERO, peer(number));
    }
    assert_eq!(exchange(Instant::ZERO, &mut allocation, &mut server).len(), MAX_PEERS);
    assert_eq!(allocation.drops().unsendable, 1);
    allocation.forget(peer(1));
    allocation.bind(at_ms(599_000), peer(33));
    assert_eq!(allocation.drops().unsendable, 2);
    pass(at_ms(600_000), &mut allocation, Some(&mut server));
    allocation.bind(at_ms(600_000), peer(33));
    let outputs = exchange(at_ms(600_000), &mut allocation, &mut server);
    assert_eq!(outputs, [Output::ChannelBound { peer: peer(33), channel: 0x4020 }]);
    assert_eq!(server.done.iter().filter(|done| **done == (CHANNEL_BIND, Some(0x4000))).count(), 1);
    // One that is wanted again in time keeps its channel, but its permission has ended.
    allocation.forget(peer(2));
    pass(at_ms(1_000_000), &mut allocation, Some(&mut server));
    allocation.send(at_ms(1_000_000), peer(2), b"again");
    let outputs = exchange(at_ms(1_000_000), &mut allocation, &mut server);
    let bound = Output::ChannelBound { peer: peer(2), channel: 0x4001 };
    assert_eq!(outputs, [bound, Output::Transmit { bytes: data(0x4001, b"again") }]);
}

proptest! {
    /// Whatever a server answers to our own transactions, signed or not, there is no panic, and no request without an end.
    #[test]
    fn no_server_makes_it_panic_or_ask_for_ever(
        answers in proptest::collection::vec((0u16..12, 0usize..8, any::<u32>(), 0usize..3), 0..60)
    ) {
        let mut allocation = allocation();
        allocation.bind(Instant::ZERO, address(PEER));
        let (mut id, mut asked, mut now) = (TransactionId([0; 12]), 0, Instant::ZERO);
        let codes = [300, 401, 403, 437, 438, 486, 500, 699];
        for (method, code, number, shape) in answers {
            let mut sent = 0;
            while let Some(output) = allocation.poll_output() {
                if let Output::Transmit { bytes } = output
                    && let Ok(message) = Message::parse(&bytes)
                {
                    (id, asked) = (message.transaction_id, message.method);
                    sent += 1;
                }
            }
            prop_assert!(sent <= 3);
            let class = [Class::Success, Class::Error, Class::Indication][shape];
            let method = if method < 9 { asked } else { method };
            let answer = Builder::of(method, class, id)
                .error_code(codes[code], "")
                .realm("r")
                .nonce(&number.to_be_bytes())
                .lifetime_s(number)
                .xor_relayed_address(SocketAddr::from((number.to_be_bytes(), number as u16)))
                .data(&[1; 3]);
            let answer = if method < 6 { answer.finish(&long_term_key("u", "r", "p")) } else { answer.finish_plain() };
            allocation.handle_input(now, &answer);
            allocation.handle_input(now, &number.to_be_bytes());
            if let Some(deadline) = allocation.next_timeout().filter(|_| code == 0) {
                now = now.max(deadline.at);
                allocation.handle_timeout(now);
            }
        }
    }
}
