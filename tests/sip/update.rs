//! UPDATE in early and confirmed dialogs, with and without an offer (RFC 3311 §5.2).

use galene_sip::sip::event::{Event, Rejection};

use crate::peer::{ANSWER, OFFER, PHONE, Phone, World};

#[test]
fn an_update_with_an_offer_is_judged_by_the_gateway_and_answered_in_its_200() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    let hold = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &hold);
    assert_eq!(world.event(), Event::Offer { call, sdp: Some(OFFER.into()) });
    // The same again before the gateway has looked: no second event.
    world.receive(PHONE, &hold);
    assert!(world.events().is_empty());
    world.act(|endpoint, now| endpoint.accept_offer(now, call, ANSWER.into()));
    let ok = world.one();
    assert_eq!((ok.what().as_str(), ok.message().body()), ("200 UPDATE", ANSWER.as_bytes()));
    assert!(!ok.header("Contact").is_empty());
    world.receive(PHONE, &hold);
    assert_eq!(world.one().bytes, ok.bytes);
    assert!(world.events().is_empty());
}

#[test]
fn a_refused_offer_leaves_the_call_as_it_was() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    let video = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &video);
    world.events();
    let rejection = Rejection { status: 488, ..Rejection::default() };
    world.act(|endpoint, now| endpoint.refuse_offer(now, call, &rejection));
    assert_eq!(world.said(), ["488 UPDATE"]);
    let again = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &again);
    assert_eq!(world.event(), Event::Offer { call, sdp: Some(OFFER.into()) });
}

#[test]
fn an_update_without_an_offer_moves_the_target() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    phone.address = "10.0.0.9:5070".into();
    let update = phone.request("UPDATE", "", "");
    world.receive("10.0.0.9:5070", &update);
    let ok = world.one();
    assert_eq!((ok.what().as_str(), ok.message().body().len()), ("200 UPDATE", 0));
    world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
    assert_eq!(world.one().remote, "10.0.0.9:5070");
}

#[test]
fn before_the_answer_an_offer_is_too_early_and_a_refresh_is_not() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, OFFER);
    world.act(|endpoint, now| endpoint.ring(now, call));
    phone.listen(&world.sent().pop().unwrap());
    let offers = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &offers);
    let refusal = world.one();
    assert_eq!(refusal.what(), "500 UPDATE");
    assert!(refusal.header("Retry-After").parse::<u32>().unwrap() <= 10);
    let plain = phone.request("UPDATE", "", "");
    world.receive(PHONE, &plain);
    let ok = world.one();
    // The session timer begins with the 200 to the INVITE.
    assert_eq!((ok.what().as_str(), ok.header("Session-Expires").as_str()), ("200 UPDATE", ""));
    assert!(world.events().is_empty());
}

#[test]
fn an_offer_that_meets_ours_gets_491() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, "");
    world.act(|endpoint, now| endpoint.answer(now, call, OFFER.into()));
    phone.listen(&world.sent().pop().unwrap());
    let update = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &update);
    assert_eq!(world.said(), ["491 UPDATE"]);
    let ack = Phone { cseq: 1, ..phone.clone() }.request("ACK", "", ANSWER);
    world.receive(PHONE, &ack);
    assert_eq!(world.events(), [Event::Answer { call, sdp: ANSWER.into() }, Event::Acknowledged { call }]);
}

#[test]
fn two_updates_at_once_and_a_reinvite_beside_one_get_500() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    for method in ["UPDATE", "UPDATE", "INVITE"] {
        let request = phone.request(method, "", OFFER);
        world.receive(PHONE, &request);
    }
    assert_eq!(world.said(), ["500 UPDATE", "500 INVITE"]);
    assert_eq!(world.event(), Event::Offer { call, sdp: Some(OFFER.into()) });
}

#[test]
fn an_update_may_come_between_the_200_and_its_ack() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call_to_the_answer(&mut world, "");
    let update = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &update);
    assert_eq!(world.event(), Event::Offer { call, sdp: Some(OFFER.into()) });
    world.act(|endpoint, now| endpoint.accept_offer(now, call, ANSWER.into()));
    assert_eq!(world.said(), ["200 UPDATE"]);
    let ack = Phone { cseq: 1, ..phone.clone() }.request("ACK", "", "");
    world.receive(PHONE, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call });
}

#[test]
fn an_update_or_prack_of_no_call_gets_481() {
    for method in ["UPDATE", "PRACK"] {
        for tag in [None, Some("none".to_owned())] {
            let mut world = World::open();
            let request = Phone { remote_tag: tag, ..Phone::new() }.request(method, "RAck: 1 1 INVITE\r\n", "");
            world.receive(PHONE, &request);
            assert_eq!(world.said(), [format!("481 {method}")]);
        }
    }
}
