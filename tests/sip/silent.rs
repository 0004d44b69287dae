//! A telephone whose media has fallen silent is asked by OPTIONS, and its call ends only if it is gone.

use galene_sip::sip::event::{EndReason, Event};

use crate::peer::{PHONE, Phone, World};

/// A call that is up, its telephone asked; the question.
fn asked() -> (World, Phone, galene_sip::sip::event::CallKey, crate::peer::Sent) {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    world.act(|endpoint, now| endpoint.probe(now, call));
    let question = world.pings().pop().unwrap();
    (world, phone, call, question)
}

#[test]
fn any_answer_but_408_and_481_is_a_sign_of_life() {
    for status in [200, 401, 404, 405, 488, 500, 503] {
        let (mut world, _phone, call, question) = asked();
        assert_eq!(question.what(), "OPTIONS");
        // While it is open no other goes out.
        world.act(|endpoint, now| endpoint.probe(now, call));
        assert!(world.pings().is_empty());
        world.receive(PHONE, &Phone::response(&question, status, ""));
        assert!(world.events().is_empty() && world.sent().is_empty(), "{status}");
        world.act(|endpoint, now| endpoint.probe(now, call));
        assert_eq!(world.pings().len(), 1, "{status}");
    }
}

#[test]
fn a_telephone_that_denies_the_call_or_says_nothing_has_vanished() {
    for status in [Some(408), Some(481), None] {
        let (mut world, _phone, call, question) = asked();
        match status {
            Some(status) => world.receive(PHONE, &Phone::response(&question, status, "")),
            None => world.pass(32_000),
        }
        assert_eq!(world.event(), Event::Ended { call, why: EndReason::Silent });
        assert_eq!(world.said().last().unwrap(), "BYE");
    }
}

#[test]
fn a_call_that_ends_meanwhile_is_not_ended_twice() {
    let (mut world, _phone, call, question) = asked();
    world.act(|endpoint, now| endpoint.hang_up(now, call, "enough"));
    world.receive(PHONE, &Phone::response(&question, 481, ""));
    assert!(world.events().is_empty());
}
