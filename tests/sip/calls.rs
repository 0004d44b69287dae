//! Call flows of RFC 3665 §3 as far as they concern the side that is called, and what goes wrong in them.

use galene_sip::sip::event::{EndReason, Event, Rejection};

use crate::peer::{ANSWER, OFFER, OWN, PHONE, Phone, World};

#[test]
fn a_call_rings_is_answered_and_is_ended_by_the_caller() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let invite = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    let Event::Invite { call, caller, offer, replaces: None, local, remote, is_confidential: false } = world.event()
    else {
        panic!()
    };
    assert_eq!(caller.display_name.as_deref(), Some("Alice"));
    assert_eq!((caller.user.as_deref(), caller.host.as_deref()), (Some("alice"), Some("example.org")));
    assert_eq!(offer.as_deref(), Some(OFFER.as_bytes()));
    assert_eq!((local.to_string(), remote.to_string()), (OWN.into(), PHONE.into()));
    world.act(|endpoint, now| endpoint.ring(now, call));
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    let sent = world.sent();
    let said: Vec<_> = sent.iter().map(|one| one.what()).collect();
    assert_eq!(said, ["100 INVITE", "180 INVITE", "200 INVITE"]);
    for one in &sent {
        assert_eq!((one.local.as_deref(), one.remote.as_str()), (Some(OWN), PHONE));
    }
    assert_eq!(sent[0].headers().to().unwrap().tag(), None);
    assert_eq!(sent[1].headers().to(), sent[2].headers().to());
    assert_eq!(sent[2].header("Contact"), "<sip:6002@10.0.0.2:5060>");
    assert_eq!(sent[2].message().body(), ANSWER.as_bytes());
    assert!(!sent[2].header("Allow").is_empty());
    phone.listen(&sent[2]);
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call });
    world.pass(60_000);
    assert!(world.said().is_empty());
    let bye = phone.request("BYE", "", "");
    world.receive(PHONE, &bye);
    world.receive(PHONE, &bye);
    assert_eq!(world.said(), ["200 BYE", "200 BYE"]);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Bye });
    assert_eq!(world.endpoint.calls(), 0);
}

#[test]
fn the_gateway_hangs_up_and_the_bye_is_repeated_until_it_is_answered() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let key = phone.call(&mut world);
    world.act(|endpoint, now| endpoint.hang_up(now, key, "The room is closed"));
    world.pass(600);
    let byes = world.sent();
    assert_eq!(
        byes.iter().map(|one| (one.what(), one.at_ms)).collect::<Vec<_>>(),
        [("BYE".into(), 0), ("BYE".into(), 500)]
    );
    assert_eq!(byes[0].remote, PHONE);
    assert_eq!(byes[0].header("Reason"), "SIP;cause=200;text=\"The room is closed\"");
    assert!(byes[0].text().starts_with(&format!("BYE sip:alice@{PHONE} SIP/2.0")));
    let branch = byes[0].headers().via().unwrap().branch().unwrap().into_owned();
    assert!(branch.starts_with("z9hG4bK") && branch != "z9hG4bK-1");
    world.receive(PHONE, &Phone::response(&byes[0], 200, ""));
    world.pass(60_000);
    assert!(world.said().is_empty() && world.events().is_empty());
    assert_eq!(world.endpoint.calls(), 0);
}

#[test]
fn an_unanswered_bye_is_given_up_after_32_seconds() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let key = phone.call(&mut world);
    world.act(|endpoint, now| endpoint.hang_up(now, key, ""));
    world.pass(31_999);
    assert_eq!((world.sent().len(), world.endpoint.calls()), (11, 1));
    world.pass(1);
    assert_eq!(world.endpoint.calls(), 0);
}

#[test]
fn a_resent_invite_is_one_call() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let invite = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    let key = world.invited();
    world.receive(PHONE, &invite);
    world.act(|endpoint, now| endpoint.ring(now, key));
    world.receive(PHONE, &invite);
    world.act(|endpoint, now| endpoint.answer(now, key, ANSWER.into()));
    world.receive(PHONE, &invite);
    assert_eq!(world.said(), ["100 INVITE", "100 INVITE", "180 INVITE", "180 INVITE", "200 INVITE"]);
    assert!(world.events().is_empty());
}

#[test]
fn a_lost_200_is_repeated_from_t1_to_t2_until_the_ack() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, OFFER);
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    world.pass(8_000);
    let sent = world.sent();
    assert_eq!(sent.iter().skip(1).map(|one| one.at_ms).collect::<Vec<_>>(), [0, 500, 1500, 3500, 7500]);
    assert!(sent.iter().skip(2).all(|one| one.bytes == sent[1].bytes));
    phone.listen(&sent[1]);
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    world.receive(PHONE, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call });
    world.pass(60_000);
    assert!(world.said().is_empty());
}

#[test]
fn a_call_that_is_never_acknowledged_gets_a_bye_after_32_seconds() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, OFFER);
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    world.pass(31_999);
    assert_eq!(world.said().len(), 12);
    assert!(world.events().is_empty());
    world.pass(1);
    assert_eq!(world.said(), ["BYE"]);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::NoAck });
}

#[test]
fn hanging_up_before_the_ack_waits_for_it() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let key = phone.call_to_the_answer(&mut world, "");
    world.act(|endpoint, now| endpoint.hang_up(now, key, ""));
    world.pass(400);
    assert!(world.said().is_empty());
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    assert_eq!(world.said(), ["BYE"]);
    assert!(world.events().is_empty());
}

#[test]
fn an_invite_without_offer_gets_ours_and_the_ack_brings_the_answer() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let invite = phone.request("INVITE", "", "");
    world.receive(PHONE, &invite);
    let Event::Invite { call, offer: None, .. } = world.event() else { panic!() };
    world.act(|endpoint, now| endpoint.answer(now, call, OFFER.into()));
    phone.listen(&world.sent().pop().unwrap());
    let ack = phone.request("ACK", "", ANSWER);
    world.receive(PHONE, &ack);
    assert_eq!(world.events(), [Event::Answer { call, sdp: ANSWER.into() }, Event::Acknowledged { call }]);
}

#[test]
fn an_ack_without_the_answer_ends_the_call() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, "");
    world.act(|endpoint, now| endpoint.answer(now, call, OFFER.into()));
    phone.listen(&world.sent().pop().unwrap());
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::NoAnswer });
    assert_eq!(world.said(), ["BYE"]);
}

#[test]
fn a_cancelled_call_gets_487_and_the_ack_ends_it() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, OFFER);
    world.act(|endpoint, now| endpoint.ring(now, call));
    world.sent();
    let cancel = phone.request("CANCEL", "", "");
    world.receive(PHONE, &cancel);
    world.receive(PHONE, &cancel);
    let sent = world.sent();
    assert_eq!(sent.iter().map(|one| one.what()).collect::<Vec<_>>(), ["487 INVITE", "200 CANCEL", "200 CANCEL"]);
    assert_eq!(sent[0].headers().to(), sent[1].headers().to());
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Cancelled });
    world.pass(600);
    assert_eq!(world.said(), ["487 INVITE"]);
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    world.pass(60_000);
    assert!(world.said().is_empty());
    assert_eq!(world.endpoint.calls(), 0);
    assert!(world.endpoint.next_timeout().is_none());
}

#[test]
fn a_cancel_that_crosses_the_200_has_no_effect() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call_to_the_answer(&mut world, "");
    let cancel = Phone { remote_tag: None, ..phone.clone() }.request("CANCEL", "", "");
    world.receive(PHONE, &cancel);
    let ok = world.one();
    assert_eq!(ok.what(), "200 CANCEL");
    // Who takes the dialog's tag from the latest answer ends the right one.
    assert!(ok.header("To").ends_with(&format!(";tag={}", phone.remote_tag.as_ref().unwrap())), "{}", ok.text());
    assert!(world.events().is_empty());
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call });
}

#[test]
fn a_bye_before_the_answer_ends_the_invite_with_487() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, OFFER);
    world.act(|endpoint, now| endpoint.ring(now, call));
    phone.listen(&world.sent().pop().unwrap());
    let bye = phone.request("BYE", "", "");
    world.receive(PHONE, &bye);
    assert_eq!(world.said(), ["200 BYE", "487 INVITE"]);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Bye });
}

#[test]
fn a_rejection_is_repeated_until_its_ack_and_says_why() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, OFFER);
    let rejection = Rejection {
        status: 480,
        reason: "The room is locked".into(),
        warning: Some("Try \"later\"".into()),
        retry_after_s: Some(60),
    };
    world.sent();
    world.act(|endpoint, now| endpoint.reject(now, call, &rejection));
    let refusal = world.one();
    assert!(refusal.text().starts_with("SIP/2.0 480 The room is locked\r\n"));
    assert_eq!(refusal.header("Warning"), "399 galene-sip \"Try \\\"later\\\"\"");
    assert_eq!(refusal.header("Retry-After"), "60");
    world.pass(1_500);
    assert_eq!(world.said(), ["480 INVITE", "480 INVITE"]);
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    world.pass(60_000);
    assert!(world.said().is_empty() && world.events().is_empty());
}

#[test]
fn a_reinvite_is_offered_to_the_gateway_and_answered() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    let hold = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &hold);
    assert_eq!(world.event(), Event::Offer { call, sdp: Some(OFFER.into()) });
    world.act(|endpoint, now| endpoint.accept_offer(now, call, ANSWER.into()));
    world.pass(600);
    assert_eq!(world.said(), ["100 INVITE", "200 INVITE", "200 INVITE"]);
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call });
    let asks = phone.request("INVITE", "", "");
    world.receive(PHONE, &asks);
    assert_eq!(world.event(), Event::Offer { call, sdp: None });
    world.act(|endpoint, now| endpoint.accept_offer(now, call, OFFER.into()));
    let ack = phone.request("ACK", "", ANSWER);
    world.receive(PHONE, &ack);
    assert_eq!(world.events(), [Event::Answer { call, sdp: ANSWER.into() }, Event::Acknowledged { call }]);
}

#[test]
fn a_refused_reinvite_leaves_the_call_as_it_was() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    let video = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &video);
    world.events();
    let warning = Some("No audio".to_owned());
    let rejection = Rejection { status: 488, warning, ..Rejection::default() };
    world.act(|endpoint, now| endpoint.refuse_offer(now, call, &rejection));
    assert_eq!(world.said(), ["100 INVITE", "488 INVITE"]);
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    world.pass(60_000);
    assert!(world.said().is_empty() && world.events().is_empty());
    let bye = phone.request("BYE", "", "");
    world.receive(PHONE, &bye);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Bye });
}

#[test]
fn a_cancelled_reinvite_leaves_the_call_as_it_was() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    let hold = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &hold);
    let cancel = phone.request("CANCEL", "", "");
    world.receive(PHONE, &cancel);
    world.act(|endpoint, now| endpoint.accept_offer(now, call, ANSWER.into()));
    assert_eq!(world.said(), ["100 INVITE", "487 INVITE", "200 CANCEL"]);
    assert_eq!(world.endpoint.calls(), 1);
}

#[test]
fn glare_is_491_before_the_ack_and_500_before_the_answer() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite(&mut world, "");
    world.act(|endpoint, now| endpoint.ring(now, call));
    phone.listen(&world.sent().pop().unwrap());
    let second = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &second);
    let refusal = world.one();
    assert_eq!(refusal.what(), "500 INVITE");
    assert!(refusal.header("Retry-After").parse::<u32>().unwrap() <= 10);
    world.act(|endpoint, now| endpoint.answer(now, call, OFFER.into()));
    world.sent();
    let third = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &third);
    assert_eq!(world.said(), ["491 INVITE"]);
    // The ACK of the first INVITE still counts.
    let ack = Phone { cseq: 1, ..phone.clone() }.request("ACK", "", ANSWER);
    world.receive(PHONE, &ack);
    assert_eq!(world.events(), [Event::Answer { call, sdp: ANSWER.into() }, Event::Acknowledged { call }]);
}

#[test]
fn a_reinvite_with_a_new_contact_moves_the_target() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    phone.address = "10.0.0.9:5070".into();
    let moved = phone.request("INVITE", "", OFFER);
    world.receive("10.0.0.9:5070", &moved);
    world.act(|endpoint, now| endpoint.accept_offer(now, call, ANSWER.into()));
    let ack = phone.request("ACK", "", "");
    world.receive("10.0.0.9:5070", &ack);
    world.sent();
    world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
    let bye = world.one();
    assert_eq!(bye.remote, "10.0.0.9:5070");
    assert!(bye.text().starts_with("BYE sip:alice@10.0.0.9:5070 "));
}

#[test]
fn requests_follow_the_record_route_and_a_name_is_looked_up() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let route = "Record-Route: <sip:proxy.example.com;lr>\r\n";
    let invite = phone.request("INVITE", route, OFFER);
    world.receive(PHONE, &invite);
    assert_eq!(world.resolves, [("proxy.example.com".to_owned(), None)]);
    let call = world.invited();
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    let ok = world.sent().pop().unwrap();
    assert_eq!(ok.header("Record-Route"), "<sip:proxy.example.com;lr>");
    phone.listen(&ok);
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    world.resolve("proxy.example.com", None, &["192.0.2.44:5060"]);
    world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
    let bye = world.one();
    assert_eq!((bye.remote.as_str(), bye.header("Route").as_str()), ("192.0.2.44:5060", "<sip:proxy.example.com;lr>"));
}

#[test]
fn an_invite_that_expires_is_over_and_a_long_ringing_is_repeated() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite_with(&mut world, "Expires: 90\r\n", OFFER);
    world.act(|endpoint, now| endpoint.ring(now, call));
    world.sent();
    world.pass(89_000);
    let again = world.one();
    assert_eq!((again.what().as_str(), again.at_ms), ("180 INVITE", 60_000));
    world.pass(1_000);
    assert_eq!(world.said(), ["487 INVITE"]);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Cancelled });
}

#[test]
fn an_ack_with_the_branch_of_its_invite_counts_as_well() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call_to_the_answer(&mut world, "");
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call });
}

#[test]
fn a_key_by_info_is_told_once_and_other_infos_are_answered_as_rfc_6086_asks() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    let relay = phone.request("INFO", "Content-Type: application/dtmf-relay\r\n", "Signal=5\r\nDuration=160\r\n");
    // The telephone did not get our 200 and asks again.
    world.receive(PHONE, &relay);
    world.receive(PHONE, &relay);
    assert_eq!(world.said(), ["200 INFO", "200 INFO"]);
    assert_eq!(world.events(), [Event::Key { call, key: '5', duration_ms: 160 }]);
    for (headers, body, answer, header) in [
        ("Content-Type: application/dtmf\r\n", "#", "200 INFO", ("Accept", "")),
        ("", "", "200 INFO", ("Accept", "")),
        ("Content-Type: text/plain\r\n", "5", "415 INFO", ("Accept", "application/dtmf-relay, application/dtmf")),
        ("Content-Type: application/dtmf-relay\r\n", "Signal=x", "400 INFO", ("Accept", "")),
        ("Info-Package: foo\r\nContent-Type: application/dtmf\r\n", "5", "469 INFO", ("Recv-Info", "")),
    ] {
        let info = phone.request("INFO", headers, body);
        world.receive(PHONE, &info);
        let said = world.one();
        assert_eq!((said.what().as_str(), said.header(header.0).as_str()), (answer, header.1), "{body}");
    }
    assert_eq!(world.events(), [Event::Key { call, key: '#', duration_ms: 0 }]);
    let foreign = Phone { call_id: "another".into(), ..phone }.request("INFO", "", "");
    world.receive(PHONE, &foreign);
    assert_eq!(world.said(), ["481 INFO"]);
}

#[test]
fn beyond_the_router_our_contact_is_the_public_address_with_our_port() {
    for (caller, host) in [("192.0.2.77:5060", "203.0.113.9"), ("10.0.0.7:5060", "10.0.0.9")] {
        let public_address = Some("203.0.113.9".parse().unwrap());
        let mut world =
            World::new(galene_sip::sip::event::EndpointConfig { public_address, ..crate::peer::config(None, None) });
        let invite = Phone::new().request("INVITE", "", OFFER);
        let input = galene_sip::sip::event::Input::Datagram {
            local: "10.0.0.9:5070".parse().unwrap(),
            remote: caller.parse().unwrap(),
            bytes: invite.as_bytes(),
        };
        world.input(input);
        let call = world.invited();
        world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
        let contact = world.sent().pop().unwrap().header("Contact");
        assert!(contact.contains(&format!("@{host}:5070")), "{contact}");
    }
}

/// Found by fuzzing: keys and offers went on to a gateway that had done with the call.
#[test]
fn a_call_that_the_gateway_has_ended_brings_no_news() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
    let info = phone.request("INFO", "Content-Type: application/dtmf-relay\r\n", "Signal=5\r\n");
    let update = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &info);
    world.receive(PHONE, &update);
    assert_eq!(world.said(), ["BYE", "481 INFO", "481 UPDATE"]);
    // The same where our BYE waits for the ACK.
    let mut phone = Phone { call_id: "another".into(), branch: 100, ..Phone::new() };
    let call = phone.call_to_the_answer(&mut world, "");
    world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
    let update = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &update);
    assert_eq!((world.said(), world.events()), (vec!["481 UPDATE".to_owned()], vec![]));
}
