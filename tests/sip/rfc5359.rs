//! The service flows of RFC 5359 §2 in which our side has a part: the one that is put on hold, transferred, parked. Each
//! is named as there. (Forwarding, find-me, screening, pickup, redial and click-to-dial happen before us or are the
//! caller's; for 2.10 and 2.11 the room is the conference.)

use galene_sip::sip::event::{CallKey, EndReason, Event};

use crate::peer::{ANSWER, OFFER, PHONE, Phone, Sent, World};

const BOB: &str = "10.0.0.8:5060";
const TARGET_CONTACT: &str = "Contact: <sip:carol@10.0.0.66:5060>\r\n";

fn direction(sdp: &str, direction: &str) -> String {
    format!("{sdp}a={direction}\r\n")
}

/// A re-INVITE, its 200, its ACK.
fn changes(world: &mut World, phone: &mut Phone, call: CallKey, offer: &str, answer: &str) {
    let reinvite = phone.request("INVITE", "", offer);
    world.receive(PHONE, &reinvite);
    assert_eq!(world.event(), Event::Offer { call, sdp: Some(offer.into()) });
    world.act(|endpoint, now| endpoint.accept_offer(now, call, answer.into()));
    let ok = world.sent().pop().unwrap();
    assert_eq!((ok.what().as_str(), ok.message().body()), ("200 INVITE", answer.as_bytes()));
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call });
}

fn hangs_up(world: &mut World, phone: &mut Phone, call: CallKey) {
    let bye = phone.request("BYE", "", "");
    world.receive(&phone.address.clone(), &bye);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Bye });
}

/// REFER to Carol, answered with 202 and the first NOTIFY; our INVITE to her.
fn refers(world: &mut World, phone: &mut Phone, call: CallKey, refer_to: &str) -> Sent {
    let refer =
        phone.request("REFER", &format!("Refer-To: {refer_to}\r\nReferred-By: <sip:alice@example.org>\r\n"), "");
    world.receive(PHONE, &refer);
    assert!(matches!(world.event(), Event::Transfer { .. }));
    world.act(|endpoint, now| endpoint.place(now, call, OFFER.into()));
    world.resolve("example.com", None, &["10.0.0.66:5060"]);
    let mut sent = world.sent();
    assert_eq!(sent.iter().map(Sent::what).collect::<Vec<_>>(), ["202 REFER", "NOTIFY", "INVITE"]);
    world.receive(PHONE, &Phone::response(&sent[1], 200, ""));
    sent.pop().unwrap()
}

/// Carol answers; what the transferor hears.
fn carol_answers(world: &mut World, call: CallKey, invite: &Sent) {
    world.receive(&invite.remote, &Phone::response_with(invite, 200, TARGET_CONTACT, ANSWER));
    let sent = world.sent();
    assert_eq!(sent.iter().map(Sent::what).collect::<Vec<_>>(), ["ACK", "NOTIFY"]);
    assert_eq!(sent[1].message().body(), b"SIP/2.0 200 OK\r\n");
    assert_eq!(sent[1].header("Subscription-State"), "terminated;reason=noresource");
    world.receive(PHONE, &Phone::response(&sent[1], 200, ""));
    assert_eq!(world.event(), Event::Transferred { call, sdp: ANSWER.into() });
}

#[test]
fn s2_1_call_hold() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    changes(&mut world, &mut phone, call, &direction(OFFER, "sendonly"), &direction(ANSWER, "recvonly"));
    changes(&mut world, &mut phone, call, &direction(OFFER, "sendrecv"), &direction(ANSWER, "sendrecv"));
    hangs_up(&mut world, &mut phone, call);
}

#[test]
fn s2_2_consultation_hold() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    changes(&mut world, &mut phone, call, &direction(OFFER, "inactive"), &direction(ANSWER, "inactive"));
    // Meanwhile she speaks with somebody else; nothing comes by here.
    world.pass(600_000);
    assert!(world.said().is_empty());
    changes(&mut world, &mut phone, call, OFFER, ANSWER);
    hangs_up(&mut world, &mut phone, call);
}

#[test]
fn s2_3_music_on_hold() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    // The holder asks for our offer, which the music server answers (F5 to F9); that its music stays out of the room is
    // shown in `gateway::tests::dialogs`.
    let asks = phone.request("INVITE", "", "");
    world.receive(PHONE, &asks);
    assert_eq!(world.event(), Event::Offer { call, sdp: None });
    world.act(|endpoint, now| endpoint.accept_offer(now, call, OFFER.into()));
    let music = direction(&ANSWER.replace("10.0.0.2", "192.0.2.50"), "sendonly");
    let ack = phone.request("ACK", "", &music);
    world.receive(PHONE, &ack);
    assert_eq!(world.events(), [Event::Answer { call, sdp: music.into_bytes() }, Event::Acknowledged { call }]);
    world.sent();
    changes(&mut world, &mut phone, call, OFFER, ANSWER);
    hangs_up(&mut world, &mut phone, call);
}

#[test]
fn s2_4_transfer_unattended() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    let invite = refers(&mut world, &mut phone, call, "<sip:carol@example.com>");
    let bye = phone.request("BYE", "", "");
    world.receive(PHONE, &bye);
    assert_eq!((world.said(), world.event()), (vec!["200 BYE".into()], Event::Parted { call }));
    carol_answers(&mut world, call, &invite);
    assert_eq!(world.endpoint.calls(), 1);
}

#[test]
fn s2_5_transfer_attended() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    changes(&mut world, &mut phone, call, &direction(OFFER, "sendonly"), &direction(ANSWER, "recvonly"));
    let refer_to = "<sip:carol@example.com?Replaces=consult%40alice%3Bto-tag%3Dc1%3Bfrom-tag%3Da2>";
    let invite = refers(&mut world, &mut phone, call, refer_to);
    assert_eq!(invite.header("Replaces"), "consult@alice;to-tag=c1;from-tag=a2");
    carol_answers(&mut world, call, &invite);
    let bye = phone.request("BYE", "", "");
    world.receive(PHONE, &bye);
    assert_eq!(world.said(), ["200 BYE"]);
    assert!(world.events().is_empty());
}

#[test]
fn s2_16_call_park() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    // The park server takes the call over (F7), then whoever fetches it does (F17): each INVITE names the dialog before.
    let mut former = (phone.call_id.clone(), phone.remote_tag.clone().unwrap(), PHONE);
    for (call_id, address) in [("park@server", "10.0.0.50:5060"), ("fetch@carol", BOB)] {
        let mut taker = Phone { address: address.into(), call_id: call_id.into(), ..Phone::new() };
        let replaces = format!("Replaces: {};to-tag={};from-tag=a1\r\n", former.0, former.1);
        let invite = taker.request("INVITE", &replaces, OFFER);
        world.receive(address, &invite);
        let Event::Invite { call: key, replaces: Some(replaced), .. } = world.event() else { panic!() };
        assert_eq!(replaced, call);
        world.act(|endpoint, now| endpoint.take_over(now, key, replaced, ANSWER.into()));
        let sent = world.sent();
        let said: Vec<_> = sent.iter().map(|one| (one.what(), one.remote.clone())).collect();
        assert_eq!(said[1..], [("200 INVITE".into(), address.to_owned()), ("BYE".into(), former.2.to_owned())]);
        world.receive(former.2, &Phone::response(&sent[2], 200, ""));
        taker.listen(&sent[1]);
        let ack = taker.request("ACK", "", "");
        world.receive(address, &ack);
        assert_eq!(world.event(), Event::Acknowledged { call });
        former = (call_id.to_owned(), taker.remote_tag.clone().unwrap(), address);
    }
    assert_eq!(world.endpoint.calls(), 1);
}
