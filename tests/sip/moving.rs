//! A call whose address of ours is gone goes on from another one.

use galene_sip::sip::event::Event;

use crate::peer::{ANSWER, OFFER, PHONE, Phone, World};

#[test]
fn the_telephone_is_told_of_another_address_by_a_re_invite_and_again_after_a_glare() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call_with(&mut world, "Allow: INVITE, UPDATE\r\n");
    world.sent();
    let remote = PHONE.parse::<std::net::SocketAddr>().unwrap().ip();
    assert_eq!(world.endpoint.far_end(call), Some(remote));
    let here = "10.9.9.9".parse().unwrap();
    world.act(|endpoint, now| endpoint.move_call(now, call, here, OFFER.into()));
    world.pass(1);
    let invite = world.one();
    assert_eq!((invite.what().as_str(), invite.local.as_deref()), ("INVITE", Some("10.9.9.9:5060")));
    assert!(invite.header("Contact").contains("@10.9.9.9:5060"), "{}", invite.text());
    assert!(invite.header("Via").contains(" 10.9.9.9:5060;"), "{}", invite.text());
    assert_eq!(invite.message().body(), OFFER.as_bytes());
    // It has an offer of its own under way.
    world.receive(PHONE, &Phone::response(&invite, 491, ""));
    assert_eq!(world.said(), ["ACK"]);
    world.wait(2_010);
    let again = world.one();
    assert_eq!((again.what().as_str(), again.message().body()), ("INVITE", OFFER.as_bytes()));
    let contact = format!("Contact: <sip:alice@{PHONE}>\r\n");
    world.receive(PHONE, &Phone::response_with(&again, 200, &contact, ANSWER));
    assert_eq!(world.said(), ["ACK"]);
    assert_eq!(world.event(), Event::Answer { call, sdp: ANSWER.into() });
    // Once is enough, and what follows comes from there too.
    world.pass(60_000);
    assert!(world.said().is_empty());
    world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
    assert_eq!(world.one().local.as_deref(), Some("10.9.9.9:5060"));
}

#[test]
fn a_telephone_that_refuses_to_be_told_is_asked_no_more() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call_with(&mut world, "");
    world.sent();
    let here = "10.9.9.9".parse().unwrap();
    world.act(|endpoint, now| endpoint.move_call(now, call, here, OFFER.into()));
    world.pass(1);
    let invite = world.one();
    world.receive(PHONE, &Phone::response(&invite, 488, ""));
    world.sent();
    world.pass(60_000);
    assert!(world.said().is_empty());
}
