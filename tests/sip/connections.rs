//! TCP and TLS as the user agent sees them: who may hold a connection for how long, and which way messages take.

use std::time::Duration;

use galene_sip::sip::event::{ConnectionCommand, ConnectionKey, Event, Input};
use galene_sip::wire::sip::Transport;

use crate::peer::{ANSWER, OFFER, Phone, Sent, World, config};

const LISTENER: &str = "10.0.0.2:5060";

/// A connection of somebody else.
fn accepted(world: &mut World, number: u64, from: &str) -> ConnectionKey {
    let connection = ConnectionKey::Theirs(number);
    let (local, remote) = (LISTENER.parse().unwrap(), from.parse().unwrap());
    world.input(Input::Accepted { connection, transport: Transport::Tcp, local, remote });
    connection
}

fn bytes(world: &mut World, connection: ConnectionKey, text: &str) {
    world.input(Input::Bytes { connection, bytes: text.as_bytes() });
}

fn closed(world: &mut World) -> Vec<ConnectionKey> {
    let close = |command: ConnectionCommand| match command {
        ConnectionCommand::Close { connection } => Some(connection),
        ConnectionCommand::Open { .. } | ConnectionCommand::Write { .. } => None,
    };
    std::mem::take(&mut world.connections).into_iter().filter_map(close).collect()
}

/// The last connection that was asked for, and where to.
fn opened(world: &mut World) -> (ConnectionKey, String, Option<String>) {
    match world.connections.pop() {
        Some(ConnectionCommand::Open { connection, remote, server_name }) => {
            world.connections.clear();
            (connection, remote.to_string(), server_name)
        }
        other => panic!("{other:?}"),
    }
}

/// The telephone's words as they are over TCP.
fn over_tcp(text: &str) -> String {
    text.replace("SIP/2.0/UDP", "SIP/2.0/TCP").replace("@10.0.0.7:5062>", "@10.0.0.7:5062;transport=tcp>")
}

/// A call over `connection`, answered and acknowledged.
fn call(world: &mut World, phone: &mut Phone, connection: ConnectionKey) -> galene_sip::sip::CallKey {
    let invite = over_tcp(&phone.request("INVITE", "", OFFER));
    bytes(world, connection, &invite);
    let key = world.invited();
    world.act(|endpoint, now| endpoint.answer(now, key, ANSWER.into()));
    let ok = world.sent().pop().unwrap();
    assert_eq!((ok.what().as_str(), ok.remote.clone()), ("200 INVITE", format!("{connection:?}")));
    assert!(ok.header("Contact").contains(";transport=tcp>"), "{}", ok.header("Contact"));
    phone.listen(&ok);
    let ack = over_tcp(&phone.request("ACK", "", ""));
    bytes(world, connection, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call: key });
    key
}

#[test]
fn a_call_over_tcp_stays_on_its_connection_in_both_directions() {
    let mut world = World::open();
    let connection = accepted(&mut world, 1, "10.0.0.7:40001");
    let mut phone = Phone::new();
    let key = call(&mut world, &mut phone, connection);
    world.pass(40_000);
    assert!(world.sent().is_empty(), "an acknowledged answer is sent once");
    world.act(|endpoint, now| endpoint.hang_up(now, key, ""));
    let bye = world.one();
    assert_eq!((bye.what().as_str(), bye.remote.clone()), ("BYE", format!("{connection:?}")));
    assert!(bye.header("Via").starts_with("SIP/2.0/TCP 10.0.0.2:5060;"));
    world.pass(20_000);
    assert!(world.sent().is_empty(), "no timer E over a connection");
}

#[test]
fn a_call_whose_connection_is_gone_is_ended_by_a_new_one_to_the_contact() {
    let mut world = World::open();
    let connection = accepted(&mut world, 1, "10.0.0.7:40001");
    let mut phone = Phone::new();
    let key = call(&mut world, &mut phone, connection);
    world.input(Input::Closed { connection, error: String::new() });
    assert_eq!(world.endpoint.calls(), 1, "a call outlives its connection");
    world.act(|endpoint, now| endpoint.hang_up(now, key, ""));
    let (new, remote, name) = opened(&mut world);
    assert_eq!((remote.as_str(), name), ("10.0.0.7:5062", None));
    assert!(world.sent().is_empty(), "nothing is sent before it is open");
    world.input(Input::Connected { connection: new, local: "10.0.0.2:33333".parse().unwrap() });
    assert_eq!(world.said(), ["BYE"]);
    world.input(Input::Closed { connection: new, error: "refused".into() });
    assert_eq!(world.endpoint.calls(), 0, "nobody is left to wait for");
}

#[test]
fn messages_are_taken_out_of_a_stream_and_pings_are_answered() {
    let mut world = World::open();
    let connection = accepted(&mut world, 1, "10.0.0.7:40001");
    let mut phone = Phone::new();
    let both = over_tcp(&(phone.request("OPTIONS", "", "") + &phone.request("OPTIONS", "", "")));
    let (first, second) = both.split_at(both.len() / 2 + 30);
    bytes(&mut world, connection, first);
    assert_eq!(world.said(), ["200 OPTIONS"]);
    bytes(&mut world, connection, second);
    assert_eq!(world.said(), ["200 OPTIONS"]);
    bytes(&mut world, connection, "\r\n\r\n");
    assert_eq!(world.one().bytes, b"\r\n");
}

#[test]
fn a_message_without_a_length_or_too_long_is_refused_and_the_connection_closed() {
    for (length, status) in [("", "400 OPTIONS"), ("Content-Length: 99999\r\n", "513 OPTIONS")] {
        let mut world = World::open();
        let connection = accepted(&mut world, 1, "10.0.0.7:40001");
        let request = over_tcp(&Phone::new().request("OPTIONS", "", "")).replace("Content-Length: 0\r\n", length);
        bytes(&mut world, connection, &request);
        assert_eq!(world.said(), [status]);
        assert_eq!(closed(&mut world), [connection]);
        bytes(&mut world, connection, &request);
        assert!(world.said().is_empty(), "what comes after the end is not heard");
    }
}

#[test]
fn a_silent_stranger_is_closed_and_a_call_keeps_its_connection_for_an_hour() {
    let mut world = World::open();
    let stranger = accepted(&mut world, 1, "10.0.0.9:40001");
    let telephone = accepted(&mut world, 2, "10.0.0.7:40001");
    call(&mut world, &mut Phone::new(), telephone);
    world.pass(19_000);
    bytes(&mut world, stranger, "\r\n\r\n");
    assert!(closed(&mut world).is_empty());
    world.pass(1_000);
    assert_eq!(closed(&mut world), [stranger], "a ping is no reason to stay");
    world.pass(3_600_000);
    assert!(closed(&mut world).is_empty());
}

#[test]
fn a_message_has_ten_seconds_to_arrive_also_of_those_whom_we_know() {
    let mut world = World::open();
    let telephone = accepted(&mut world, 1, "10.0.0.7:40001");
    let mut phone = Phone::new();
    call(&mut world, &mut phone, telephone);
    let options = over_tcp(&phone.request("OPTIONS", "", ""));
    for (at, byte) in options.bytes().enumerate().take(12) {
        assert!(closed(&mut world).is_empty(), "closed at byte {at}");
        world.input(Input::Bytes { connection: telephone, bytes: &[byte] });
        world.pass(900);
    }
    assert_eq!(closed(&mut world), [telephone]);
}

#[test]
fn strangers_take_each_others_places_and_never_those_of_calls() {
    let mut world = World::open();
    let telephone = accepted(&mut world, 1_000, "10.0.0.7:40001");
    call(&mut world, &mut Phone::new(), telephone);
    let mut gone = Vec::new();
    for number in 0..300 {
        accepted(&mut world, number, &format!("10.1.{}.{}:4000", number / 200, number % 200 + 1));
        world.pass(1);
        gone.extend(closed(&mut world));
    }
    assert_eq!(gone.len(), 300 - 32);
    assert!(!gone.contains(&telephone));
    assert_eq!(gone[..3], [0, 1, 2].map(ConnectionKey::Theirs), "those silent for longest go first");

    let mut world = World::open();
    for number in 0..20 {
        accepted(&mut world, number, &format!("10.1.0.1:{}", 4000 + number));
    }
    accepted(&mut world, 99, "10.1.0.2:4000");
    let gone = closed(&mut world);
    assert_eq!(gone.len(), 12, "one address has eight places");
    assert!(!gone.contains(&ConnectionKey::Theirs(99)));
}

/// A call over UDP, and the gateway's BYE in it, which a long Record-Route makes too long for a datagram.
fn long_bye() -> (World, ConnectionKey) {
    let mut world = World::open();
    let mut phone = Phone::new();
    let routes: String = (0..30).map(|hop| format!("Record-Route: <sip:10.0.0.7:5062;lr;hop={hop:030}>\r\n")).collect();
    let invite = phone.request("INVITE", &routes, OFFER);
    world.receive("10.0.0.7:5062", &invite);
    let key = world.invited();
    world.act(|endpoint, now| endpoint.answer(now, key, ANSWER.into()));
    let ok = world.sent().pop().unwrap();
    phone.listen(&ok);
    let ack = phone.request("ACK", "", "");
    world.receive("10.0.0.7:5062", &ack);
    world.events();
    world.act(|endpoint, now| endpoint.hang_up(now, key, ""));
    let (connection, remote, _) = opened(&mut world);
    assert_eq!(remote, "10.0.0.7:5062");
    (world, connection)
}

#[test]
fn a_request_of_more_than_1300_bytes_goes_by_tcp() {
    let (mut world, connection) = long_bye();
    assert!(world.sent().is_empty());
    world.input(Input::Connected { connection, local: "10.0.0.2:33333".parse().unwrap() });
    let bye = world.one();
    assert!(bye.bytes.len() > 1300 && bye.header("Via").starts_with("SIP/2.0/TCP"));
    world.pass(5_000);
    assert!(world.sent().is_empty());
    bytes(&mut world, connection, &Phone::response(&bye, 200, ""));
    assert_eq!(world.endpoint.calls(), 0);
}

#[test]
fn where_tcp_is_refused_the_long_request_goes_as_a_datagram_after_all() {
    let (mut world, connection) = long_bye();
    world.input(Input::Closed { connection, error: "refused".into() });
    let bye = world.one();
    assert_eq!((bye.what().as_str(), bye.remote.as_str()), ("BYE", "10.0.0.7:5062"));
    assert!(bye.header("Via").starts_with("SIP/2.0/UDP"));
    world.pass(600);
    assert_eq!(world.said(), ["BYE"], "timer E runs");
    world.receive("10.0.0.7:5062", &Phone::response(&bye, 200, ""));
    assert_eq!(world.endpoint.calls(), 0);
}

/// A user agent that registers over `transport` with the addresses given.
fn registering(transport: Transport, remotes: &[&str]) -> World {
    let mut world = World::new(config(Some("sip.example.com"), None));
    world.transport = transport;
    world.act(|endpoint, now| endpoint.start(now));
    world.resolve("sip.example.com", None, remotes);
    world
}

fn connect(world: &mut World, port: u16) -> (ConnectionKey, Sent) {
    let (connection, ..) = opened(world);
    world.input(Input::Connected { connection, local: format!("10.0.0.2:{port}").parse().unwrap() });
    (connection, world.one())
}

fn register(world: &mut World, port: u16) -> ConnectionKey {
    let (connection, register) = connect(world, port);
    bytes(world, connection, &Phone::response(&register, 200, "Expires: 600\r\n"));
    assert!(matches!(world.event(), Event::Registered { .. }));
    connection
}

#[test]
fn a_registration_over_tls_names_the_server_and_the_ports_of_its_connection() {
    let mut world = registering(Transport::Tls, &["192.0.2.1:5061"]);
    let (connection, remote, name) = opened(&mut world);
    assert_eq!((remote.as_str(), name.as_deref()), ("192.0.2.1:5061", Some("sip.example.com")));
    assert!(world.sent().is_empty());
    world.input(Input::Connected { connection, local: "10.0.0.2:40000".parse().unwrap() });
    let register = world.one();
    assert!(register.header("Via").starts_with("SIP/2.0/TLS 10.0.0.2:40000;branch="));
    assert!(register.header("Contact").contains("@10.0.0.2:40000;transport=tls>"));
}

#[test]
fn a_pong_is_waited_for_ten_seconds_and_then_everything_begins_anew() {
    let mut world = registering(Transport::Tcp, &["192.0.2.1:5060"]);
    let connection = register(&mut world, 40_000);
    for at_ms in [1_000, 16_000, 31_000] {
        world.pass(at_ms - world.now_ms());
        let sent = world.one();
        assert_eq!((sent.bytes.as_slice(), sent.at_ms), (&b"\r\n\r\n"[..], at_ms));
        bytes(&mut world, connection, "\r\n");
    }
    world.pass(24_999);
    assert_eq!(world.sent().len(), 1);
    assert!(closed(&mut world).is_empty());
    world.pass(1);
    assert_eq!(closed(&mut world), [connection]);
    // The name is looked up again, a new connection opened, and the old one's binding taken back.
    assert_eq!(world.resolves.len(), 2);
    world.resolve("sip.example.com", None, &["192.0.2.1:5060"]);
    let (_, again) = connect(&mut world, 40_001);
    let contacts: Vec<_> = again.headers().values("Contact").map(str::to_owned).collect();
    assert!(contacts[0].contains("@10.0.0.2:40001;transport=tcp>;expires=600"), "{contacts:?}");
    assert!(contacts[1].contains("@10.0.0.2:40000;transport=tcp>;expires=0"), "{contacts:?}");
}

#[test]
fn a_registrar_that_never_answers_pings_is_not_expected_to() {
    let mut world = registering(Transport::Tcp, &["192.0.2.1:5060"]);
    register(&mut world, 40_000);
    world.pass(300_000);
    assert_eq!(world.sent().len(), 20, "a ping every 15 s");
    assert!(closed(&mut world).is_empty());
}

#[test]
fn a_connection_that_ends_is_opened_again_at_once() {
    let mut world = registering(Transport::Tcp, &["192.0.2.1:5060"]);
    let connection = register(&mut world, 40_000);
    world.pass(500);
    world.input(Input::Closed { connection, error: "reset".into() });
    world.resolve("sip.example.com", None, &["192.0.2.1:5060"]);
    assert_eq!(world.now_ms(), 500);
    register(&mut world, 40_001);
}

#[test]
fn calls_by_the_registered_connection_are_let_in_whatever_they_name() {
    let mut world = registering(Transport::Tcp, &["192.0.2.1:5060"]);
    let connection = register(&mut world, 40_000);
    let invite = over_tcp(&Phone::new().request("INVITE", "", OFFER));
    bytes(&mut world, connection, &invite);
    world.invited();
    let stranger = accepted(&mut world, 1, "198.51.100.9:4000");
    world.sent();
    bytes(&mut world, stranger, &invite.replace("z9hG4bK-1", "z9hG4bK-2").replace("call-1", "call-2"));
    assert_eq!(world.said(), ["403 INVITE"]);
}

#[test]
fn the_next_address_has_its_turn_at_once_where_one_refuses() {
    let mut world = registering(Transport::Tcp, &["192.0.2.1:5060", "192.0.2.2:5060", "192.0.2.3:5060"]);
    let (first, remote, _) = opened(&mut world);
    assert_eq!(remote, "192.0.2.1:5060");
    world.input(Input::Closed { connection: first, error: "refused".into() });
    let (second, register) = connect(&mut world, 40_000);
    bytes(&mut world, second, &Phone::response(&register, 503, ""));
    assert!(world.events().is_empty(), "nobody needs to know while there is a next one");
    let (_, remote, _) = opened(&mut world);
    assert_eq!((remote.as_str(), world.now_ms()), ("192.0.2.3:5060", 0));
}

#[test]
fn silence_over_udp_is_waited_out_only_by_the_last_address_and_the_first_is_returned_to() {
    let mut world = registering(Transport::Udp, &["192.0.2.1:5060", "192.0.2.2:5060"]);
    assert_eq!(world.one().remote, "192.0.2.1:5060");
    world.pass(8_000);
    let second = world.sent().pop().unwrap();
    assert_eq!((second.remote.as_str(), second.at_ms), ("192.0.2.2:5060", 8_000));
    world.receive("192.0.2.2:5060", &Phone::response(&second, 200, "Expires: 600\r\n"));
    assert!(matches!(world.event(), Event::Registered { .. }));
    world.pass(120_000);
    let first = world.one();
    assert_eq!(first.remote, "192.0.2.1:5060", "it may be back");
    world.receive("192.0.2.1:5060", &Phone::response(&first, 200, "Expires: 600\r\n"));
    assert!(matches!(world.event(), Event::Registered { .. }));
    world.pass(300_000);
    assert!(world.sent().is_empty());
}

#[test]
fn the_substitute_connection_serves_until_the_first_address_is_back() {
    let mut world = registering(Transport::Tcp, &["192.0.2.1:5060", "192.0.2.2:5060"]);
    let (first, ..) = opened(&mut world);
    world.input(Input::Closed { connection: first, error: "refused".into() });
    let second = register(&mut world, 40_000);
    world.pass(120_000);
    let (first, remote, _) = opened(&mut world);
    assert_eq!(remote, "192.0.2.1:5060");
    world.sent();
    world.input(Input::Closed { connection: first, error: "refused".into() });
    let again = world.one();
    assert_eq!((again.what().as_str(), again.remote.clone()), ("REGISTER", format!("{second:?}")));
    bytes(&mut world, second, &Phone::response(&again, 200, "Expires: 600\r\n"));
    world.events();
    world.pass(120_000);
    world.sent();
    let (first, _) = connect(&mut world, 40_001);
    assert_ne!(first, second);
    assert_eq!(closed(&mut world), [second], "the first is back, the substitute is not needed");
}

#[test]
fn names_are_looked_up_again_when_their_lifetime_is_over() {
    let mut world = World::new(config(Some("sip.example.com"), None));
    world.act(|endpoint, now| endpoint.start(now));
    let resolve = |world: &mut World, remote: &str| {
        let local = "10.0.0.2".parse().unwrap();
        let route = galene_sip::sip::event::Route { transport: Transport::Udp, remote: remote.parse().unwrap(), local };
        let target = crate::peer::target("sip.example.com");
        world.input(Input::Resolved { target, routes: vec![route], lifetime: Duration::from_secs(60) });
    };
    resolve(&mut world, "192.0.2.1:5060");
    let register = world.one();
    world.receive("192.0.2.1:5060", &Phone::response(&register, 200, "Expires: 600\r\n"));
    while world.resolves.len() < 2 {
        world.pass(1_000);
    }
    assert!((405_000..=451_000).contains(&world.now_ms()), "{}", world.now_ms());
    resolve(&mut world, "192.0.2.9:5060");
    assert_eq!(world.one().remote, "192.0.2.9:5060");
}

#[test]
fn while_no_name_server_answers_the_addresses_of_before_serve() {
    let mut world = World::new(config(Some("sip.example.com"), None));
    world.act(|endpoint, now| endpoint.start(now));
    let (local, remote) = ("10.0.0.2".parse().unwrap(), "192.0.2.1:5060".parse().unwrap());
    let routes = vec![galene_sip::sip::event::Route { transport: Transport::Udp, remote, local }];
    let target = crate::peer::target("sip.example.com");
    world.input(Input::Resolved { target: target.clone(), routes, lifetime: Duration::from_secs(60) });
    let register = world.one();
    world.receive("192.0.2.1:5060", &Phone::response(&register, 200, "Expires: 600\r\n"));
    world.events();
    while world.resolves.len() < 2 {
        world.pass(1_000);
    }
    world.input(Input::Unresolved { target, error: "no answer".into() });
    assert_eq!((world.one().remote.as_str(), world.events().len()), ("192.0.2.1:5060", 0));
}
