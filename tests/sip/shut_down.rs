//! The end: callers get BYE, the registrar forgets us, all within a second.

use galene_sip::sip::event::{EndReason, Event};

use crate::peer::{ANSWER, OFFER, PHONE, Phone, REGISTRAR, World, config};

#[test]
fn calls_and_registration_end_and_then_nothing_is_left() {
    let mut world = World::new(config(Some("sip.example.com"), Some("secret")));
    world.act(|endpoint, now| endpoint.start(now));
    world.resolve("sip.example.com", None, &[REGISTRAR]);
    let register = world.one();
    world.receive(REGISTRAR, &Phone::response(&register, 200, ""));
    world.events();
    let mut confirmed = Phone { address: REGISTRAR.into(), ..Phone::new() };
    let first = confirmed.call(&mut world);
    let mut ringing = Phone { call_id: "call-2".into(), branch: 100, ..confirmed.clone() };
    ringing.remote_tag = None;
    let invite = ringing.request("INVITE", "", OFFER);
    world.receive(REGISTRAR, &invite);
    let second = world.invited();
    world.sent();
    world.act(|endpoint, now| endpoint.shut_down(now));
    let sent = world.sent();
    assert_eq!(sent.iter().map(|one| one.what()).collect::<Vec<_>>(), ["BYE", "480 INVITE", "REGISTER"]);
    assert!(sent[2].header("Contact").ends_with(";expires=0"));
    assert_eq!(sent[2].header("Expires"), "0");
    let ended = |call| Event::Ended { call, why: EndReason::ShutDown };
    assert_eq!(world.events(), [ended(first), ended(second)]);
    assert!(!world.endpoint.is_idle());
    world.receive(REGISTRAR, &Phone::response(&sent[0], 200, ""));
    let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n";
    world.receive(REGISTRAR, &Phone::response(&sent[2], 401, challenge));
    let again = world.one();
    assert!(again.header("Contact").ends_with(";expires=0") && !again.header("Authorization").is_empty());
    assert!(!world.endpoint.is_idle());
    world.receive(REGISTRAR, &Phone::response(&again, 200, ""));
    assert_eq!(world.event(), Event::Unregistered);
    assert!(world.endpoint.is_idle());
}

#[test]
fn no_one_is_waited_for_longer_than_a_second() {
    let mut world = World::new(config(Some("sip.example.com"), None));
    world.act(|endpoint, now| endpoint.start(now));
    world.resolve("sip.example.com", None, &[REGISTRAR]);
    world.act(|endpoint, now| endpoint.shut_down(now));
    let sent = world.sent();
    assert!(sent[1].header("Contact").ends_with(";expires=0"), "a REGISTER under way is taken back");
    world.pass(899);
    assert!(!world.endpoint.is_idle());
    world.pass(1);
    assert!(world.endpoint.is_idle());
}

#[test]
fn an_unacknowledged_call_gets_its_bye_in_time() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, OFFER);
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    world.sent();
    world.act(|endpoint, now| endpoint.shut_down(now));
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::ShutDown });
    world.pass(400);
    assert_eq!(world.said(), ["BYE"]);
}

#[test]
fn new_calls_are_turned_away_and_an_idle_agent_is_idle_at_once() {
    let mut world = World::open();
    assert!(!world.endpoint.is_idle());
    world.act(|endpoint, now| endpoint.shut_down(now));
    assert!(world.endpoint.is_idle());
    let invite = Phone::new().request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    assert_eq!(world.said(), ["503 INVITE"]);
    assert!(world.events().is_empty());
}

/// Found by fuzzing: it was told as ended once more, for want of an ACK.
#[test]
fn a_shut_down_shortly_before_an_ack_is_given_up_ends_the_call_once() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call_to_the_answer(&mut world, "");
    world.pass(31_900);
    world.act(|endpoint, now| endpoint.shut_down(now));
    assert_eq!(world.events(), [Event::Ended { call, why: EndReason::ShutDown }]);
    world.said();
    world.pass(500);
    assert_eq!((world.said(), world.events()), (vec!["BYE".to_owned()], vec![]));
}
