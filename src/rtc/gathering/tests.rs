//! Several servers in virtual time: dead ones, ones that name others, ones of either version of IP.

use super::*;
use crate::wire::stun::{ALLOCATE, AddressFamily, Builder, Class, Message, REFRESH, long_term_key};

const HERE: &str = "192.0.2.1:5000";
/// From asking to being answered.
const ROUND_TRIP: Duration = Duration::from_millis(20);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at_ms(ms: u64) -> Instant {
    Instant::from_us(ms * 1000)
}

/// What a TURN server does when it is asked for a relay.
#[derive(Clone, Copy)]
enum Kind {
    /// It answers nothing.
    Dead,
    /// It relays these versions of IP, and knows of the second what RFC 8656 says.
    Relays { v4: bool, v6: bool },
    /// It names another one.
    Names(&'static str),
}

/// The servers of the internet, and what they were asked.
struct Internet {
    servers: Vec<(SocketAddr, Kind)>,
    asked: Vec<(Instant, SocketAddr)>,
    released: Vec<SocketAddr>,
    flying: Vec<(Instant, SocketAddr, Vec<u8>)>,
}

impl Internet {
    fn new(servers: &[(&str, Kind)]) -> Self {
        let servers = servers.iter().map(|(text, kind)| (address(text), *kind)).collect();
        Self { servers, asked: Vec::new(), released: Vec::new(), flying: Vec::new() }
    }

    fn ask(&mut self, now: Instant, server: SocketAddr, bytes: &[u8]) {
        self.asked.push((now, server));
        let kind = self.servers.iter().find(|(known, _)| *known == server).map_or(Kind::Dead, |(_, kind)| *kind);
        if let Some(answer) = self.answer(server, kind, bytes) {
            self.flying.push((now + ROUND_TRIP, server, answer));
        }
    }

    fn answer(&mut self, server: SocketAddr, kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
        let message = Message::parse(bytes).unwrap();
        let key = long_term_key("u", "lab", "p");
        let of = |class| Builder::of(message.method, class, message.transaction_id);
        let Kind::Relays { v4, v6 } = kind else {
            let Kind::Names(other) = kind else { return None };
            return Some(of(Class::Error).error_code(300, "").alternate_server(address(other)).finish_unsigned());
        };
        if !message.verify(&key) {
            return Some(of(Class::Error).error_code(401, "").realm("lab").nonce(b"n").finish_unsigned());
        }
        if message.method == REFRESH {
            self.released.push(server);
            return Some(of(Class::Success).lifetime_s(0).finish(&key));
        }
        assert_eq!(message.method, ALLOCATE);
        let wants_v6 = message.requested_family == Some(AddressFamily::V6);
        let wants_both = message.additional_family == Some(AddressFamily::V6);
        let relayed = SocketAddr::new(server.ip(), 50_000);
        let relayed_v6 = address("[2001:db8::9]:50001");
        if !if wants_v6 { v6 } else { v4 } {
            return Some(of(Class::Error).error_code(440, "").finish(&key));
        }
        let success = of(Class::Success).lifetime_s(600);
        let success = if wants_v6 { success } else { success.xor_relayed_address(relayed) };
        let success = if wants_v6 || (wants_both && v6) { success.xor_relayed_address(relayed_v6) } else { success };
        Some(success.xor_mapped_address(address("198.51.100.7:4567")).finish(&key))
    }
}

fn server(text: &str) -> Server {
    let credentials = Some(Credentials { username: "u".into(), password: "p".into() });
    Server { address: address(text), credentials, is_reliable: false, is_alternate: false }
}

fn gathering(families: Families, servers: &[Server]) -> Gathering {
    let mut gathering = Gathering::new(Instant::ZERO, address(HERE), families, [1, 2, 3, 4], Random::for_test(1));
    servers.iter().for_each(|server| gathering.add_server(Instant::ZERO, server.clone()));
    gathering
}

/// Lets time pass until `until`; gives what is for others than the servers, and when.
fn pass(gathering: &mut Gathering, internet: &mut Internet, until: Instant) -> Vec<(Instant, Output)> {
    let (mut others, mut now) = (Vec::new(), Instant::ZERO);
    loop {
        while let Some(output) = gathering.poll_output() {
            match output {
                Output::Transmit { server, bytes } => internet.ask(now, server, &bytes),
                Output::Channels { .. } => {}
                other => others.push((now, other)),
            }
        }
        let arrival = internet.flying.iter().map(|(at, ..)| *at).min();
        let timeout = gathering.next_timeout().map(|deadline| deadline.at);
        let Some(next) = arrival.into_iter().chain(timeout).min().filter(|next| *next <= until) else { return others };
        now = next;
        for (_, server, bytes) in internet.flying.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            gathering.handle_input(now, server, &bytes);
        }
        gathering.handle_timeout(now);
    }
}

const BOTH: RelayFamilies = RelayFamilies { v4: true, v6: true };
const V4: RelayFamilies = RelayFamilies { v4: true, v6: false };
const V6: RelayFamilies = RelayFamilies { v4: false, v6: true };
const RELAYS_V4: Kind = Kind::Relays { v4: true, v6: false };

/// The relays among the outputs, and the addresses of relayed candidates.
fn relays(outputs: &[(Instant, Output)]) -> (Vec<(Instant, RelayFamilies)>, Vec<String>) {
    let relays = outputs.iter().filter_map(|(at, output)| match output {
        Output::Relay(families) => Some((*at, *families)),
        _ => None,
    });
    let candidates = outputs.iter().filter_map(|(_, output)| match output {
        Output::Candidate(line) if line.contains("typ relay") => line.split(' ').nth(4).map(str::to_owned),
        _ => None,
    });
    (relays.collect(), candidates.collect())
}

#[test]
fn a_dead_server_before_a_live_one_holds_nothing_up_and_of_two_live_ones_one_is_given_back() {
    let mut internet = Internet::new(&[
        ("192.0.2.10:3478", Kind::Dead),
        ("192.0.2.11:3478", RELAYS_V4),
        ("192.0.2.12:3478", RELAYS_V4),
    ]);
    let servers = ["192.0.2.10:3478", "192.0.2.11:3478", "192.0.2.12:3478"].map(server);
    let mut gathering = gathering(Families::V4, &servers);
    let outputs = pass(&mut gathering, &mut internet, at_ms(20_000));
    // The challenge, then the relay.
    assert_eq!(relays(&outputs), (vec![(Instant::ZERO + ROUND_TRIP * 2, V4)], vec!["192.0.2.11".to_owned()]));
    assert_eq!(internet.released, [address("192.0.2.12:3478")]);
    let asked_dead = internet.asked.iter().filter(|(_, server)| *server == address("192.0.2.10:3478")).count();
    assert_eq!(asked_dead, 7);
    assert!(gathering.has_relay());
}

#[test]
fn a_server_that_names_another_is_followed_once() {
    let outcome = |servers: &[(&str, Kind)]| {
        let mut internet = Internet::new(servers);
        let mut gathering = gathering(Families::V4, &[server(servers[0].0)]);
        let outputs = pass(&mut gathering, &mut internet, at_ms(20_000));
        let mut asked: Vec<_> = internet.asked.iter().map(|(_, server)| server.to_string()).collect();
        asked.dedup();
        (relays(&outputs).1, asked)
    };
    let [first, second, third] = ["192.0.2.10:3478", "192.0.2.11:3479", "192.0.2.12:3478"];
    let both = vec![first.to_owned(), second.to_owned()];
    let found = outcome(&[(first, Kind::Names(second)), (second, RELAYS_V4)]);
    assert_eq!(found, (vec!["192.0.2.11".to_owned()], both.clone()));
    let chain = outcome(&[(first, Kind::Names(second)), (second, Kind::Names(third)), (third, RELAYS_V4)]);
    assert_eq!(chain, (vec![], both.clone()));
    let circle = outcome(&[(first, Kind::Names(second)), (second, Kind::Names(first))]);
    assert_eq!(circle, (vec![], both));
    let (itself, other_version) = (Kind::Names(first), Kind::Names("[2001:db8::1]:3478"));
    for alone in [itself, other_version] {
        assert_eq!(outcome(&[(first, alone)]), (vec![], vec![first.to_owned()]));
    }
}

#[test]
fn behind_a_stream_the_other_one_is_reached_by_a_stream_too() {
    let stand_in = "127.0.0.1:40000";
    let mut internet = Internet::new(&[(stand_in, Kind::Names("192.0.2.11:3479"))]);
    let stream = Server { is_reliable: true, ..server(stand_in) };
    let mut gathering = gathering(Families::V4, std::slice::from_ref(&stream));
    let wanted = |outputs: &[(Instant, Output)]| {
        outputs.iter().filter(|(_, output)| matches!(output, Output::WantsAlternate { .. })).count()
    };
    let outputs = pass(&mut gathering, &mut internet, at_ms(600));
    let (instead_of, alternate) = (address(stand_in), address("192.0.2.11:3479"));
    let expected = Output::WantsAlternate { instead_of, alternate, domain: None };
    assert!(outputs.iter().any(|(_, output)| *output == expected), "{outputs:?}");
    // The one behind it, by its own stand-in, is believed in no third.
    gathering.add_server(at_ms(600), Server { is_alternate: true, ..stream });
    assert_eq!(wanted(&pass(&mut gathering, &mut internet, at_ms(1200))), 0);
}

#[test]
fn a_relay_has_addresses_of_the_versions_of_ip_that_the_peer_has_and_the_server_too() {
    let v4 = "192.0.2.11".to_owned();
    let v6 = "2001:db8::9".to_owned();
    for (wanted, has, found, lines) in [
        (Families::V4, (true, true), Some(V4), vec![&v4]),
        (Families::V6, (true, true), Some(V6), vec![&v6]),
        (Families::Both, (true, true), Some(BOTH), vec![&v4, &v6]),
        (Families::Both, (true, false), Some(V4), vec![&v4]),
        (Families::Both, (false, true), Some(V6), vec![&v6]),
        (Families::V4, (false, true), None, vec![]),
        (Families::V6, (true, false), None, vec![]),
    ] {
        let mut internet = Internet::new(&[("192.0.2.11:3478", Kind::Relays { v4: has.0, v6: has.1 })]);
        let mut gathering = gathering(wanted, &[server("192.0.2.11:3478")]);
        let (relays, candidates) = relays(&pass(&mut gathering, &mut internet, at_ms(500)));
        assert_eq!(relays.first().map(|(_, families)| *families), found, "{wanted:?} of {has:?}");
        assert_eq!(candidates.iter().collect::<Vec<_>>(), lines, "{wanted:?} of {has:?}");
    }
}

#[test]
fn the_end_of_a_connection_ends_its_relay_at_once() {
    let stand_in = "127.0.0.1:40000";
    let mut internet = Internet::new(&[(stand_in, RELAYS_V4)]);
    let mut gathering = gathering(Families::V4, &[Server { is_reliable: true, ..server(stand_in) }]);
    assert_eq!(relays(&pass(&mut gathering, &mut internet, at_ms(100))).0.len(), 1);
    gathering.on_disconnected(at_ms(100), address("127.0.0.1:40001"));
    assert_eq!(gathering.poll_output(), None, "another one's");
    gathering.on_disconnected(at_ms(100), address(stand_in));
    assert_eq!(gathering.poll_output(), Some(Output::Relay(RelayFamilies::default())));
    assert!(!gathering.has_relay() && gathering.candidates().is_empty());
    assert!(!gathering.is_server(address(stand_in)));
}
