//! Who may call while we are registered: who knows the token, the registrar, and who is on the list.

use galene_sip::sip::event::Event;
use galene_sip::wire::sip::Contacts;

use crate::peer::{OFFER, PHONE, Phone, REGISTRAR, World, config};

/// A user agent that is registered, and the user part of its Contact.
fn registered() -> (World, String) {
    let mut world = World::new(config(Some("sip.example.com"), None));
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
    assert_eq!(world.event(), Event::Stranger { remote: PHONE.parse().unwrap() });
    world.receive(PHONE, &invite);
    assert_eq!(world.one().bytes, first.bytes);
    assert!(world.events().is_empty());
    let options = Phone::new().request("OPTIONS", "", "");
    world.receive(PHONE, &options);
    assert_eq!(world.said(), ["403 OPTIONS"]);
    assert_eq!((world.endpoint.calls(), world.endpoint.next_timeout()), (0, before));
    assert_eq!(world.endpoint.counters().strangers, 3);
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
