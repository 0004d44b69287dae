//! Who may call while we are registered: who knows the token, the registrar, and who is on the list.

use galene_sip::random::Random;
use galene_sip::sip::auth::{Authorizer, Challenge, Credentials};
use galene_sip::sip::event::{EndpointConfig, Event, StrangerGot};
use galene_sip::wire::sip::Contacts;

use crate::peer::{OFFER, PHONE, Phone, REGISTRAR, Sent, World, config};

/// A user agent that is registered, and the user part of its Contact.
fn registered() -> (World, String) {
    registered_with(config(Some("sip.example.com"), None))
}

fn registered_with(config: EndpointConfig) -> (World, String) {
    let mut world = World::new(config);
    world.act(|endpoint, now| endpoint.start(now));
    world.resolve("sip.example.com", None, &[REGISTRAR, "192.0.2.2:5060"]);
    let register = world.one();
    let Ok(Contacts::List(contacts)) = register.headers().contacts() else { panic!() };
    let token = contacts[0].uri.user().unwrap().into_owned();
    world.receive(REGISTRAR, &Phone::response(&register, 200, ""));
    assert!(matches!(world.event(), Event::Registered { .. }));
    (world, token)
}

#[test]
fn the_token_opens_the_door_and_is_long() {
    let (mut world, token) = registered();
    assert!(token.len() >= 20);
    let mut phone = Phone { target: format!("sip:{token}@10.0.0.2:5060"), ..Phone::new() };
    let invite = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    world.invited();
    // Who calls learns nothing that would let him in by himself.
    assert!(world.sent().iter().all(|one| !one.text().contains(&token)));
}

#[test]
fn all_addresses_of_the_registrar_and_those_on_the_list_may_call() {
    for from in [REGISTRAR, "192.0.2.2:1234"] {
        let (mut world, _) = registered();
        let invite = Phone::new().request("INVITE", "", OFFER);
        world.receive(from, &invite);
        world.invited();
    }
    let mut listed = config(Some("sip.example.com"), None);
    listed.allow = vec!["10.0.0.7".parse().unwrap()];
    let mut world = World::new(listed);
    let invite = Phone::new().request("INVITE", "", OFFER);
    world.receive("[::ffff:10.0.0.7]:5062", &invite);
    world.invited();
}

#[test]
fn a_stranger_gets_403_one_line_and_no_state() {
    let (mut world, _) = registered();
    world.pass(5_000);
    let before = world.endpoint.next_timeout();
    let invite = Phone::new().request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    let first = world.one();
    assert_eq!(first.what(), "403 INVITE");
    assert_eq!(world.event(), Event::Stranger { remote: PHONE.parse().unwrap(), got: StrangerGot::Refused });
    world.receive(PHONE, &invite);
    assert_eq!(world.one().bytes, first.bytes);
    assert!(world.events().is_empty());
    let options = Phone::new().request("OPTIONS", "", "");
    world.receive(PHONE, &options);
    assert_eq!(world.said(), ["403 OPTIONS"]);
    assert_eq!((world.endpoint.calls(), world.endpoint.next_timeout()), (0, before));
    assert_eq!(world.endpoint.counters().strangers, 3);
    // Whoever goes on, and be it by registering, is told of again, for those who count.
    world.pass(10_000);
    let register = Phone::new().request("REGISTER", "", "");
    world.receive(PHONE, &register);
    assert_eq!(world.event(), Event::Stranger { remote: PHONE.parse().unwrap(), got: StrangerGot::Refused });
}

#[test]
fn a_call_that_was_let_in_goes_on_from_anywhere() {
    let (mut world, token) = registered();
    let mut phone = Phone { target: format!("sip:{token}@10.0.0.2:5060"), ..Phone::new() };
    phone.call(&mut world);
    let bye = phone.request("BYE", "", "");
    world.receive("10.9.9.9:5060", &bye);
    assert_eq!(world.said(), ["200 BYE"]);
}

fn guest(password: &str) -> Credentials {
    Credentials { username: "door".into(), password: password.into() }
}

/// A registered user agent that takes guests.
fn with_guests() -> World {
    let mut config = config(Some("sip.example.com"), Some("the account's"));
    config.guests = Some(guest("open sesame"));
    registered_with(config).0
}

/// The header that answers a 401 with `password`.
fn answer(challenged: &Sent, password: &str) -> String {
    assert_eq!(challenged.what(), "401 INVITE");
    let challenge = Challenge::choose(&challenged.headers(), false).unwrap();
    let mut authorizer = Authorizer::new(challenge, &mut Random::for_test(7));
    format!("Authorization: {}\r\n", authorizer.authorize(&guest(password), "INVITE", "sip:6002@10.0.0.2", &[]))
}

#[test]
fn a_guest_is_asked_without_state_and_let_in_with_the_password() {
    let mut world = with_guests();
    world.pass(5_000);
    let before = world.endpoint.next_timeout();
    let mut phone = Phone::new();
    let invite = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    let challenged = world.one();
    assert_eq!((world.endpoint.calls(), world.endpoint.next_timeout()), (0, before));
    assert_eq!(world.event(), Event::Stranger { remote: PHONE.parse().unwrap(), got: StrangerGot::Asked });
    let offered: Vec<_> = challenged.headers().lines("WWW-Authenticate").map(|line| line.value().to_owned()).collect();
    assert!(offered[0].contains("algorithm=SHA-256") && offered[1].contains("algorithm=MD5"), "{offered:?}");
    assert!(offered.iter().all(|one| one.contains("realm=\"example.com\"") && one.contains("qop=\"auth\"")));
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    assert!(world.said().is_empty());

    let invite = phone.request("INVITE", &answer(&challenged, "open sesame"), OFFER);
    world.receive(PHONE, &invite);
    world.invited();
    world.sent();
    // The call goes on without further proof.
    let again = phone.request("INVITE", &answer(&challenged, "open sesame"), OFFER);
    world.receive(PHONE, &again);
    let stale = world.one();
    assert!(stale.header("WWW-Authenticate").contains("stale=true"), "a replay is stale: {}", stale.text());
}

#[test]
fn a_guest_who_guesses_is_locked_out_and_the_next_address_is_not() {
    let mut world = with_guests();
    for _ in 0..5 {
        let mut phone = Phone::new();
        let invite = phone.request("INVITE", "", OFFER);
        world.receive(PHONE, &invite);
        let guess = phone.request("INVITE", &answer(&world.one(), "a guess"), OFFER);
        world.receive(PHONE, &guess);
        assert!(!world.one().text().contains("stale"));
    }
    let invite = Phone::new().request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    assert_eq!(world.said(), ["403 INVITE"]);
    world.receive("10.0.0.8:5060", &invite);
    assert_eq!(world.said(), ["401 INVITE"]);
    let got = |event| match event {
        Event::Stranger { got, .. } => got,
        other => panic!("{other:?}"),
    };
    let got: Vec<_> = world.events().into_iter().map(got).collect();
    assert_eq!(got, [StrangerGot::Asked, StrangerGot::Mistaken, StrangerGot::Asked], "one line for five guesses");
    world.pass(10_000);
    world.receive(PHONE, &invite);
    assert_eq!(world.event(), Event::Stranger { remote: PHONE.parse().unwrap(), got: StrangerGot::Locked });
}

#[test]
fn the_registrar_is_not_asked_and_other_methods_get_no_challenge() {
    let mut world = with_guests();
    let register = Phone::new().request("REGISTER", "", "");
    world.receive(PHONE, &register);
    assert_eq!(world.said(), ["403 REGISTER"]);
    assert_eq!(world.event(), Event::Stranger { remote: PHONE.parse().unwrap(), got: StrangerGot::Refused });
    let invite = Phone::new().request("INVITE", "", OFFER);
    world.receive(REGISTRAR, &invite);
    world.invited();
}

#[test]
fn without_a_registrar_guests_are_asked_too_but_for_those_on_the_list() {
    let mut open = config(None, None);
    open.guests = Some(guest("open sesame"));
    open.allow = vec!["10.0.0.9".parse().unwrap()];
    let mut world = World::new(open);
    let invite = Phone::new().request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    assert_eq!(world.said(), ["401 INVITE"]);
    world.events();
    world.receive("10.0.0.9:5060", &invite);
    world.invited();
}

#[test]
fn a_request_of_our_own_that_comes_back_is_a_loop() {
    let mut world = World::new(config(Some("sip.example.com"), None));
    world.act(|endpoint, now| endpoint.start(now));
    world.resolve("sip.example.com", None, &["10.0.0.2:5060"]);
    let register = world.one();
    world.receive("10.0.0.2:5060", &register.text());
    assert_eq!(world.said(), ["482 REGISTER"]);
}
