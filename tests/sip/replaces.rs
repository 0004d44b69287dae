//! An INVITE that takes the place of a call (RFC 3891 §3).

use galene_sip::sip::event::{CallKey, EndReason, Event};

use crate::peer::{ANSWER, OFFER, PHONE, Phone, World};

const OTHER: &str = "10.0.0.8:5060";

/// A call, and how another telephone names it.
fn call() -> (World, Phone, CallKey, String) {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let key = phone.call(&mut world);
    let replaces = format!("{};to-tag={};from-tag=a1", phone.call_id, phone.remote_tag.as_ref().unwrap());
    (world, phone, key, replaces)
}

fn other() -> Phone {
    Phone { address: OTHER.into(), call_id: "call-2@other".into(), ..Phone::new() }
}

#[test]
fn the_new_dialog_goes_on_under_the_key_of_the_former_which_gets_bye() {
    let (mut world, _, key, replaces) = call();
    let mut other = other();
    let invite = other.request("INVITE", &format!("Require: replaces\r\nReplaces: {replaces}\r\n"), OFFER);
    world.receive(OTHER, &invite);
    let Event::Invite { call: taker, replaces: Some(former), .. } = world.event() else { panic!() };
    assert_eq!(former, key);
    world.act(|endpoint, now| endpoint.take_over(now, taker, former, ANSWER.into()));
    let sent = world.sent();
    let said: Vec<_> = sent.iter().map(|one| (one.what(), one.remote.as_str())).collect();
    assert_eq!(said, [("100 INVITE".into(), OTHER), ("200 INVITE".into(), OTHER), ("BYE".into(), PHONE)]);
    world.receive(PHONE, &Phone::response(&sent[2], 200, ""));
    other.listen(&sent[1]);
    let ack = other.request("ACK", "", "");
    world.receive(OTHER, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call: key });
    assert_eq!(world.endpoint.calls(), 1);
    let bye = other.request("BYE", "", "");
    world.receive(OTHER, &bye);
    assert_eq!(world.event(), Event::Ended { call: key, why: EndReason::Bye });
    world.pass(60_000);
    assert!(world.events().is_empty());
}

#[test]
fn a_rejected_one_leaves_the_call_as_it_was() {
    let (mut world, mut phone, key, replaces) = call();
    let invite = other().request("INVITE", &format!("Replaces: {replaces}\r\n"), OFFER);
    world.receive(OTHER, &invite);
    let Event::Invite { call: taker, .. } = world.event() else { panic!() };
    world.act(|endpoint, now| {
        endpoint.reject(now, taker, &galene_sip::sip::event::Rejection { status: 488, ..Default::default() })
    });
    assert_eq!(world.said(), ["100 INVITE", "488 INVITE"]);
    let bye = phone.request("BYE", "", "");
    world.receive(PHONE, &bye);
    assert_eq!(world.event(), Event::Ended { call: key, why: EndReason::Bye });
}

#[test]
fn what_is_not_there_is_over_or_was_to_be_early_is_refused() {
    let refused = |world: &mut World, extra: &str| {
        let invite = other().request("INVITE", extra, OFFER);
        world.receive(OTHER, &invite);
        let ack = Phone { cseq: 1, branch: 2, ..other() }.ack_refusal();
        world.receive(OTHER, &ack);
        world.said().pop().unwrap()
    };
    let (mut world, _, key, replaces) = call();
    let header = format!("Replaces: {replaces}\r\n");
    assert_eq!(refused(&mut world, &header.replace("from-tag=a1", "from-tag=0")), "481 INVITE");
    let (mut world, _, key2, replaces) = call();
    assert_eq!(refused(&mut world, &format!("Replaces: {replaces};early-only\r\n")), "486 INVITE");
    assert_eq!(key, key2);
    let (mut world, ..) = call();
    assert_eq!(refused(&mut world, "Replaces: x;to-tag=1\r\n"), "400 INVITE");
    let (mut world, ..) = call();
    assert_eq!(refused(&mut world, &format!("{header}{header}")), "400 INVITE");
    let (mut world, ..) = call();
    assert_eq!(refused(&mut world, &format!("{header}Join: x;to-tag=1;from-tag=2\r\n")), "400 INVITE");
    let (mut world, _, key, replaces) = call();
    world.act(|endpoint, now| endpoint.hang_up(now, key, ""));
    assert_eq!(refused(&mut world, &format!("Replaces: {replaces}\r\n")), "603 INVITE");
    // An early dialog that the caller began.
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, OFFER);
    world.act(|endpoint, now| endpoint.ring(now, call));
    let tag = world.sent().pop().unwrap().headers().to().unwrap().tag().unwrap().into_owned();
    assert_eq!(refused(&mut world, &format!("Replaces: call-1@phone;to-tag={tag};from-tag=a1\r\n")), "481 INVITE");
}
