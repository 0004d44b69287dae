//! Provisional responses that must arrive: 100rel and PRACK (RFC 3262), and the descriptions in them.

use galene_sip::sip::event::{CallKey, EndReason, Event};

use crate::peer::{ANSWER, OFFER, PHONE, Phone, Sent, World};

const REQUIRED: &str = "Require: 100rel\r\n";
const SUPPORTED: &str = "Supported: 100rel\r\n";

fn invited(extra: &str, body: &str) -> (World, Phone, CallKey) {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let invite = phone.request("INVITE", extra, body);
    world.receive(PHONE, &invite);
    let call = world.invited();
    world.sent();
    (world, phone, call)
}

/// The PRACK for a response.
fn prack(phone: &mut Phone, response: &Sent, body: &str) -> String {
    phone.listen(response);
    let rack = format!("RAck: {} {}\r\n", response.header("RSeq"), response.header("CSeq"));
    phone.request("PRACK", &rack, body)
}

#[test]
fn a_description_goes_out_reliably_and_the_200_repeats_it_not() {
    let (mut world, mut phone, call) = invited(SUPPORTED, OFFER);
    world.act(|endpoint, now| endpoint.ring(now, call));
    // Nothing is lost with a lost 180.
    assert_eq!(world.one().header("RSeq"), "");
    world.act(|endpoint, now| endpoint.progress(now, call, ANSWER.into()));
    let progress = world.one();
    assert_eq!((progress.what().as_str(), progress.header("Require").as_str()), ("183 INVITE", "100rel"));
    assert_eq!(progress.message().body(), ANSWER.as_bytes());
    world.pass(3_600);
    let again = world.sent();
    assert_eq!(again.iter().map(|one| one.at_ms).collect::<Vec<_>>(), [500, 1500, 3500]);
    assert!(again.iter().all(|one| one.bytes == progress.bytes));
    // The room is joined meanwhile: the 200 waits for the PRACK.
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    assert!(world.said().is_empty());
    let prack = prack(&mut phone, &progress, "");
    world.receive(PHONE, &prack);
    let sent = world.sent();
    assert_eq!(sent.iter().map(|one| one.what()).collect::<Vec<_>>(), ["200 PRACK", "200 INVITE"]);
    assert!(sent[1].message().body().is_empty());
    let ack = Phone { cseq: 1, ..phone.clone() }.request("ACK", "", "");
    world.receive(PHONE, &ack);
    assert_eq!(world.event(), Event::Acknowledged { call });
    // The PRACK once more gets its 200 once more, and changes nothing.
    world.receive(PHONE, &prack);
    assert_eq!(world.said(), ["200 PRACK"]);
    world.pass(60_000);
    assert!(world.said().is_empty() && world.events().is_empty());
}

#[test]
fn a_caller_that_requires_it_gets_every_response_reliably_one_after_the_other() {
    let (mut world, mut phone, call) = invited(REQUIRED, OFFER);
    world.act(|endpoint, now| endpoint.ring(now, call));
    let ringing = world.one();
    assert_eq!((ringing.what().as_str(), ringing.header("Require").as_str()), ("180 INVITE", "100rel"));
    world.act(|endpoint, now| endpoint.progress(now, call, ANSWER.into()));
    assert!(world.said().is_empty());
    let first = prack(&mut phone, &ringing, "");
    world.receive(PHONE, &first);
    let sent = world.sent();
    assert_eq!(sent.iter().map(|one| one.what()).collect::<Vec<_>>(), ["200 PRACK", "183 INVITE"]);
    let number = |one: &Sent| one.header("RSeq").parse::<u32>().unwrap();
    assert_eq!(number(&sent[1]), number(&ringing) + 1);
    let second = prack(&mut phone, &sent[1], "");
    world.receive(PHONE, &second);
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    assert_eq!(world.said(), ["200 PRACK", "200 INVITE"]);
}

#[test]
fn a_200_need_not_wait_for_the_prack_of_a_bare_180_which_still_counts() {
    let (mut world, mut phone, call) = invited(REQUIRED, OFFER);
    world.act(|endpoint, now| endpoint.ring(now, call));
    let ringing = world.one();
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    let ok = world.one();
    assert_eq!((ok.what().as_str(), ok.message().body()), ("200 INVITE", ANSWER.as_bytes()));
    let late = prack(&mut phone, &ringing, "");
    world.receive(PHONE, &late);
    assert_eq!(world.said(), ["200 PRACK"]);
}

#[test]
fn a_response_that_is_never_acknowledged_ends_the_invite_with_504() {
    let (mut world, _, call) = invited(SUPPORTED, OFFER);
    world.act(|endpoint, now| endpoint.progress(now, call, ANSWER.into()));
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    world.pass(31_999);
    assert_eq!(world.said().len(), 7);
    world.pass(1);
    assert_eq!(world.said(), ["504 INVITE"]);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::NoPrack });
    assert_eq!(world.endpoint.calls(), 0);
}

#[test]
fn a_prack_for_something_else_gets_481_and_one_without_rack_400() {
    let (mut world, mut phone, call) = invited(SUPPORTED, OFFER);
    world.act(|endpoint, now| endpoint.progress(now, call, ANSWER.into()));
    let progress = world.one();
    phone.listen(&progress);
    let rseq: u32 = progress.header("RSeq").parse().unwrap();
    for (rack, status) in [
        (format!("RAck: {} 1 INVITE\r\n", rseq + 1), "481 PRACK"),
        (format!("RAck: {rseq} 2 INVITE\r\n"), "481 PRACK"),
        (format!("RAck: {rseq} 1 UPDATE\r\n"), "481 PRACK"),
        ("RAck: one\r\n".to_owned(), "400 PRACK"),
        (String::new(), "400 PRACK"),
    ] {
        let wrong = phone.request("PRACK", &rack, "");
        world.receive(PHONE, &wrong);
        assert_eq!(world.said(), [status], "{rack}");
    }
}

#[test]
fn without_an_offer_ours_goes_out_in_the_183_and_the_prack_brings_the_answer() {
    for extra in [SUPPORTED, REQUIRED] {
        let (mut world, mut phone, call) = invited(extra, "");
        world.act(|endpoint, now| endpoint.ring(now, call));
        // The first reliable response would have to carry the offer (RFC 3262 §5).
        assert_eq!(world.said().len(), usize::from(extra == SUPPORTED));
        world.act(|endpoint, now| endpoint.progress(now, call, OFFER.into()));
        let progress = world.one();
        let bare = prack(&mut phone, &progress, "");
        world.receive(PHONE, &bare);
        assert_eq!(world.said(), ["400 PRACK"]);
        let answer = prack(&mut phone, &progress, ANSWER);
        world.receive(PHONE, &answer);
        assert_eq!(
            (world.said(), world.event()),
            (vec!["200 PRACK".into()], Event::Answer { call, sdp: ANSWER.into() })
        );
        world.act(|endpoint, now| endpoint.answer(now, call, OFFER.into()));
        let ok = world.one();
        assert!(ok.message().body().is_empty());
        let ack = Phone { cseq: 1, ..phone.clone() }.request("ACK", "", "");
        world.receive(PHONE, &ack);
        assert_eq!(world.event(), Event::Acknowledged { call });
    }
}

#[test]
fn a_prack_or_an_update_may_offer_anew_before_the_answer() {
    let (mut world, mut phone, call) = invited(SUPPORTED, OFFER);
    world.act(|endpoint, now| endpoint.progress(now, call, ANSWER.into()));
    let progress = world.one();
    let again = prack(&mut phone, &progress, OFFER);
    world.receive(PHONE, &again);
    assert_eq!(world.event(), Event::Offer { call, sdp: Some(OFFER.into()) });
    // The answer to the call waits for the answer to the offer.
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    assert!(world.said().is_empty());
    world.act(|endpoint, now| endpoint.accept_offer(now, call, ANSWER.into()));
    let sent = world.sent();
    assert_eq!(sent.iter().map(|one| one.what()).collect::<Vec<_>>(), ["200 PRACK", "200 INVITE"]);
    assert_eq!(sent[0].message().body(), ANSWER.as_bytes());

    let (mut world, mut phone, call) = invited(SUPPORTED, OFFER);
    world.act(|endpoint, now| endpoint.progress(now, call, ANSWER.into()));
    let progress = world.one();
    let plain = prack(&mut phone, &progress, "");
    world.receive(PHONE, &plain);
    let update = phone.request("UPDATE", "", OFFER);
    world.receive(PHONE, &update);
    assert_eq!(world.event(), Event::Offer { call, sdp: Some(OFFER.into()) });
    world.act(|endpoint, now| endpoint.accept_offer(now, call, ANSWER.into()));
    assert_eq!(world.said(), ["200 PRACK", "200 UPDATE"]);
}

#[test]
fn a_caller_without_100rel_gets_a_preview_of_the_answer_but_never_an_offer() {
    let (mut world, _, call) = invited("", OFFER);
    world.act(|endpoint, now| endpoint.progress(now, call, ANSWER.into()));
    let progress = world.one();
    assert_eq!((progress.header("RSeq"), progress.message().body().to_vec()), (String::new(), ANSWER.into()));
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    assert_eq!(world.one().message().body(), ANSWER.as_bytes());
    let (mut world, _, call) = invited("", "");
    world.act(|endpoint, now| endpoint.progress(now, call, OFFER.into()));
    assert!(world.said().is_empty());
}

#[test]
fn a_cancel_stops_the_repetition() {
    let (mut world, mut phone, call) = invited(SUPPORTED, OFFER);
    world.act(|endpoint, now| endpoint.progress(now, call, ANSWER.into()));
    world.sent();
    let cancel = phone.request("CANCEL", "", "");
    world.receive(PHONE, &cancel);
    assert_eq!(world.said(), ["487 INVITE", "200 CANCEL"]);
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    world.pass(60_000);
    assert!(world.said().is_empty());
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Cancelled });
}
