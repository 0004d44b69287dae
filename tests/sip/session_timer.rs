//! Session timers in both roles (RFC 4028): who refreshes, by what, and what happens when nobody does.

use galene_sip::sip::event::{EndReason, Event};

use crate::peer::{ANSWER, OFFER, PHONE, Phone, World};

/// What the 200 to an INVITE with these lines says of the timer.
fn granted(extra: &str) -> (String, String) {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite_with(&mut world, extra, OFFER);
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    let ok = world.sent().pop().unwrap();
    (ok.header("Session-Expires"), ok.header("Require"))
}

fn says(expires: &str, require: &str) -> (String, String) {
    (expires.to_owned(), require.to_owned())
}

#[test]
fn a_caller_that_asks_for_a_timer_refreshes_unless_it_says_otherwise() {
    assert_eq!(granted("k: timer\r\nx: 1200\r\n"), says("1200;refresher=uac", "timer"));
    assert_eq!(
        granted("Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n"),
        says("600;refresher=uac", "timer")
    );
    assert_eq!(granted("k: timer\r\nx: 600;refresher=uas\r\n"), says("600;refresher=uas", ""));
    assert_eq!(granted("Require: timer\r\nx: 86400\r\n"), says("1800;refresher=uac", "timer"));
    assert_eq!(granted("k: timer\r\nx: 86400\r\nMin-SE: 7200\r\n"), says("7200;refresher=uac", "timer"));
}

#[test]
fn a_caller_that_does_not_ask_for_one_is_refreshed_by_us() {
    assert_eq!(granted("Supported: timer\r\n"), says("1800;refresher=uas", ""));
    assert_eq!(granted(""), says("1800;refresher=uas", ""));
    assert_eq!(granted("Session-Expires: 60\r\n"), says("90;refresher=uas", ""));
}

#[test]
fn an_interval_below_90_s_gets_422_with_the_least_one() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let invite = phone.request("INVITE", "Supported: timer\r\nSession-Expires: 30\r\n", OFFER);
    world.receive(PHONE, &invite);
    let refusal = world.one();
    assert_eq!((refusal.what().as_str(), refusal.header("Min-SE").as_str()), ("422 INVITE", "90"));
    assert!(world.events().is_empty());
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    phone.call_with(&mut world, "Supported: timer\r\nSession-Expires: 90\r\nMin-SE: 90\r\n");
}

#[test]
fn a_caller_that_stops_refreshing_gets_bye_before_the_session_expires() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call_with(&mut world, "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n");
    world.pass(300_000);
    let update = phone.request("UPDATE", "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n", "");
    world.receive(PHONE, &update);
    let ok = world.one();
    assert_eq!((ok.what().as_str(), ok.header("Session-Expires").as_str()), ("200 UPDATE", "600;refresher=uac"));
    world.pass(300_000);
    let reinvite = phone.request("INVITE", "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n", OFFER);
    world.receive(PHONE, &reinvite);
    world.events();
    world.act(|endpoint, now| endpoint.accept_offer(now, call, ANSWER.into()));
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    world.sent();
    world.events();
    // 600 s less 32 s after the re-INVITE.
    world.pass(567_999);
    assert!(world.said().is_empty());
    world.pass(1);
    assert_eq!(world.said(), ["BYE"]);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Lapsed });
}

#[test]
fn we_refresh_by_update_at_half_time_where_it_is_allowed() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    phone.call_with(&mut world, "Supported: timer\r\nAllow: INVITE, UPDATE\r\nx: 1200;refresher=uas\r\n");
    for _ in 0..60 {
        world.pass(600_000);
        let update = world.one();
        assert_eq!(update.what(), "UPDATE");
        assert_eq!(update.header("Session-Expires"), "1200;refresher=uac");
        assert!(update.message().body().is_empty() && !update.header("Contact").is_empty());
        let ok = Phone::response(&update, 200, "Session-Expires: 1200;refresher=uac\r\n");
        world.receive(PHONE, &ok);
    }
    // Ten hours later the call is still there.
    assert!(world.events().is_empty());
    assert_eq!(world.endpoint.calls(), 1);
}

#[test]
fn without_update_we_refresh_by_a_reinvite_that_changes_nothing() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    world.pass(900_000);
    let invite = world.one();
    assert_eq!((invite.what().as_str(), invite.header("CSeq").as_str()), ("INVITE", "1 INVITE"));
    assert_eq!(invite.message().body(), ANSWER.as_bytes());
    world.pass(500);
    assert_eq!(world.one().bytes, invite.bytes);
    let ok = Phone::response_with(&invite, 200, "", OFFER);
    world.receive(PHONE, &ok);
    let ack = world.one();
    assert_eq!((ack.what().as_str(), ack.header("CSeq").as_str()), ("ACK", "1 ACK"));
    assert_ne!(ack.headers().via(), invite.headers().via());
    assert_eq!(world.event(), Event::Answer { call, sdp: OFFER.into() });
    // The ACK was lost.
    world.receive(PHONE, &ok);
    assert_eq!(world.one().bytes, ack.bytes);
    world.pass(899_000);
    assert!(world.said().is_empty() && world.events().is_empty());
    world.pass(1_000);
    assert_eq!(world.said(), ["INVITE"]);
}

#[test]
fn whoever_answers_a_refresh_with_481_or_not_at_all_is_gone() {
    for status in [Some(481), Some(408), None] {
        let (mut world, mut phone) = (World::open(), Phone::new());
        let call = phone.call(&mut world);
        world.pass(900_000);
        let invite = world.one();
        match status {
            Some(status) => {
                world.receive(PHONE, &Phone::response(&invite, status, ""));
                assert_eq!(world.said(), ["ACK", "BYE"]);
            }
            None => {
                world.pass(32_000);
                assert_eq!(world.said().last().unwrap(), "BYE");
            }
        }
        assert_eq!(world.event(), Event::Ended { call, why: EndReason::Lapsed });
    }
}

#[test]
fn a_telephone_without_timers_proves_by_any_other_answer_that_it_lives() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    phone.call(&mut world);
    for _ in 0..10 {
        world.pass(900_000);
        let invite = world.one();
        world.receive(PHONE, &Phone::response(&invite, 488, ""));
        let ack = world.one();
        assert_eq!((ack.what().as_str(), ack.headers().via()), ("ACK", invite.headers().via()));
    }
    assert!(world.events().is_empty());
}

#[test]
fn a_refresh_that_is_refused_is_tried_again_until_the_session_lapses() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call_with(&mut world, "Supported: timer\r\nAllow: UPDATE\r\nx: 90;refresher=uas\r\n");
    world.pass(45_000);
    let update = world.one();
    world.receive(PHONE, &Phone::response(&update, 500, "Retry-After: 12\r\n"));
    world.pass(12_000);
    let update = world.one();
    assert_eq!((update.at_ms, update.what().as_str()), (57_000, "UPDATE"));
    world.receive(PHONE, &Phone::response(&update, 500, ""));
    world.pass(3_000);
    assert_eq!(world.said(), ["BYE"]);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Lapsed });
}

#[test]
fn a_refused_update_becomes_a_reinvite_and_a_422_raises_the_interval() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    phone.call_with(&mut world, "Supported: timer\r\nAllow: INVITE, UPDATE\r\nx: 600;refresher=uas\r\n");
    world.pass(300_000);
    let update = world.one();
    world.receive(PHONE, &Phone::response(&update, 405, "Allow: INVITE\r\n"));
    world.pass(0);
    let invite = world.one();
    assert_eq!((invite.what().as_str(), invite.header("Session-Expires").as_str()), ("INVITE", "600;refresher=uac"));
    world.receive(PHONE, &Phone::response(&invite, 422, "Min-SE: 1000\r\n"));
    world.pass(0);
    let sent = world.sent();
    assert_eq!(sent.iter().map(|one| one.what()).collect::<Vec<_>>(), ["ACK", "INVITE"]);
    assert_eq!(sent[1].header("Session-Expires"), "1000;refresher=uac");
    world.receive(PHONE, &Phone::response_with(&sent[1], 200, "x: 1000;refresher=uac\r\n", OFFER));
    world.said();
    world.pass(499_000);
    assert!(world.said().is_empty());
    world.pass(1_000);
    assert_eq!(world.said(), ["INVITE"]);
}

#[test]
fn the_peer_may_take_the_refreshing_over() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call_with(&mut world, "Supported: timer\r\nAllow: UPDATE\r\nx: 600;refresher=uas\r\n");
    world.pass(300_000);
    let update = world.one();
    world.receive(PHONE, &Phone::response(&update, 200, "Supported: timer\r\nx: 600;refresher=uas\r\n"));
    world.pass(567_999);
    assert!(world.said().is_empty());
    world.pass(1);
    assert_eq!((world.said(), world.event()), (vec!["BYE".to_owned()], Event::Ended { call, why: EndReason::Lapsed }));
}

#[test]
fn our_reinvite_that_meets_theirs_waits_its_turn() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.call(&mut world);
    world.pass(900_000);
    let ours = world.one();
    let theirs = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &theirs);
    assert_eq!(world.said(), ["491 INVITE"]);
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    let update = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &update);
    assert_eq!(world.said(), ["491 UPDATE"]);
    world.receive(PHONE, &Phone::response(&ours, 491, ""));
    assert_eq!(world.said(), ["ACK"]);
    // The caller owns the Call-ID, so we are the first to try again: within 2 s.
    world.pass(2_001);
    let again = world.sent().remove(0);
    assert_eq!((again.what().as_str(), again.header("CSeq").as_str()), ("INVITE", "2 INVITE"));
    world.receive(PHONE, &Phone::response_with(&again, 200, "", OFFER));
    assert_eq!(world.said(), ["ACK"]);
    assert_eq!(world.event(), Event::Answer { call, sdp: OFFER.into() });
}
