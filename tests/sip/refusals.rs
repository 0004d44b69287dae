//! The right status for what cannot be done (RFC 3261 §8.2, §21; RFC 4475 where it says what an endpoint does).

use crate::peer::{ANSWER, OFFER, OWN, PHONE, Phone, Sent, World};
use galene_sip::sip::endpoint::{MAX_CALLS, MAX_MESSAGE_BYTES};

const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, REFER, INFO";

/// What one request outside a dialog gets.
fn answer(edit: impl Fn(String) -> String, method: &str, extra: &str, body: &str) -> Sent {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let request = edit(phone.request(method, extra, body));
    world.receive(PHONE, &request);
    world.one()
}

fn as_it_is(request: String) -> String {
    request
}

#[test]
fn options_get_what_an_invite_would_and_our_abilities() {
    let ok = answer(as_it_is, "OPTIONS", "", "");
    assert_eq!(ok.what(), "200 OPTIONS");
    assert_eq!(ok.header("Allow"), ALLOW);
    assert_eq!(ok.header("Accept"), "application/sdp");
    assert!(!ok.header("Supported").is_empty());
    assert!(ok.headers().to().unwrap().tag().is_some());
}

#[test]
fn a_known_method_gets_405_and_an_unknown_one_501() {
    for (method, status) in [("MESSAGE", "405"), ("REGISTER", "405"), ("PUBLISH", "405"), ("FLY", "501")] {
        let refusal = answer(as_it_is, method, "", "");
        assert_eq!(refusal.what(), format!("{status} {method}"));
        assert_eq!(refusal.header("Allow"), ALLOW);
    }
}

#[test]
fn unknown_extensions_are_named() {
    let refusal = answer(as_it_is, "INVITE", "Require: precondition, 100rel, path\r\nRequire: nothing\r\n", OFFER);
    assert_eq!(refusal.what(), "420 INVITE");
    assert_eq!(refusal.header("Unsupported"), "precondition, nothing");
}

#[test]
fn a_body_of_another_type_or_encoding_gets_415() {
    let text = |request: String| request.replace("application/sdp", "text/plain");
    let refusal = answer(text, "INVITE", "", "hello");
    assert_eq!((refusal.what().as_str(), refusal.header("Accept").as_str()), ("415 INVITE", "application/sdp"));
    let refusal = answer(as_it_is, "INVITE", "Content-Encoding: gzip\r\n", OFFER);
    assert_eq!(refusal.header("Accept-Encoding"), "identity");
}

#[test]
fn an_invite_without_contact_is_bad() {
    let bare = |request: String| request.replace("Contact: ", "X-Contact: ");
    assert!(answer(bare, "INVITE", "", OFFER).text().starts_with("SIP/2.0 400 Missing Contact\r\n"));
}

#[test]
fn other_schemes_get_416() {
    for uri in ["sips:6002@10.0.0.2", "mailto:6002@10.0.0.2"] {
        let edit = |request: String| request.replacen("sip:6002@10.0.0.2", uri, 1);
        assert_eq!(answer(edit, "INVITE", "", OFFER).what(), "416 INVITE");
    }
}

#[test]
fn the_last_hop_is_taken_if_it_is_ours_and_refused_if_it_is_for_someone_else() {
    let last = |request: String| request.replace("Max-Forwards: 70", "Max-Forwards: 0");
    assert_eq!(answer(last, "OPTIONS", "", "").what(), "200 OPTIONS");
    let other = |request: String| last(request).replacen("sip:6002@", "sip:bob@", 1);
    assert_eq!(answer(other, "INVITE", "", OFFER).what(), "483 INVITE");
}

#[test]
fn the_same_request_by_another_way_is_merged() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let invite = phone.request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    world.invited();
    world.receive(PHONE, &invite.replace("z9hG4bK-1", "z9hG4bK-other"));
    assert_eq!(world.said(), ["100 INVITE", "482 INVITE"]);
    assert!(world.events().is_empty());
}

#[test]
fn requests_of_unknown_dialogs_get_481_without_state() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    phone.remote_tag = Some("unknown".into());
    for method in ["BYE", "INVITE", "OPTIONS", "CANCEL"] {
        let request = phone.request(method, "", "");
        world.receive(PHONE, &request);
        assert_eq!(world.said(), [format!("481 {method}")]);
    }
    let ack = phone.request("ACK", "", "");
    world.receive(PHONE, &ack);
    assert!(world.said().is_empty());
    assert_eq!(world.endpoint.next_timeout(), None);
}

#[test]
fn a_bye_without_tag_gets_481() {
    assert_eq!(answer(as_it_is, "BYE", "", "").what(), "481 BYE");
}

#[test]
fn an_older_request_in_a_dialog_gets_500() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    phone.cseq = 10;
    phone.call(&mut world);
    phone.cseq = 5;
    let bye = phone.request("BYE", "", "");
    world.receive(PHONE, &bye);
    assert_eq!(world.said(), ["500 BYE"]);
    assert_eq!(world.endpoint.calls(), 1);
}

#[test]
fn options_and_other_methods_within_a_call_do_not_harm_it() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    phone.call(&mut world);
    for method in ["OPTIONS", "INFO", "FLY"] {
        let request = phone.request(method, "", "");
        world.receive(PHONE, &request);
    }
    assert_eq!(world.said(), ["200 OPTIONS", "200 INFO", "501 FLY"]);
    assert_eq!(world.endpoint.calls(), 1);
}

#[test]
fn a_broken_request_gets_400_and_a_foreign_version_505() {
    let broken = |request: String| request.replace("CSeq: 1 INVITE", "CSeq: one INVITE");
    assert_eq!(&answer(broken, "INVITE", "", OFFER).text()[..11], "SIP/2.0 400");
    let future = |request: String| request.replacen(" SIP/2.0\r\n", " SIP/7.0\r\n", 1);
    assert_eq!(&answer(future, "INVITE", "", OFFER).text()[..11], "SIP/2.0 505");
}

#[test]
fn noise_and_keep_alives_get_nothing() {
    let mut world = World::open();
    for noise in ["", "\r\n\r\n", "\0\0", "hello", "SIP/2.0 200 OK\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        world.receive(PHONE, noise);
    }
    assert!(world.sent().is_empty());
    assert_eq!(world.endpoint.counters().malformed, 3);
}

#[test]
fn a_message_that_is_too_large_gets_513() {
    let body = "a".repeat(MAX_MESSAGE_BYTES);
    assert_eq!(answer(as_it_is, "INVITE", "", &body).what(), "513 INVITE");
}

#[test]
fn responses_go_to_the_source_from_the_address_that_was_asked() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let options = phone.request("OPTIONS", "", "");
    world.receive("192.0.2.99:1024", &options);
    let ok = world.one();
    assert_eq!((ok.local.as_deref(), ok.remote.as_str()), (Some(OWN), "192.0.2.99:1024"));
    assert_eq!(ok.header("Via"), format!("SIP/2.0/UDP {PHONE};branch=z9hG4bK-1;rport=1024;received=192.0.2.99"));
}

#[test]
fn a_peer_from_before_rfc_3261_is_understood() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let old = |request: String, n: u32| request.replace(&format!(";branch=z9hG4bK-{n}"), "");
    let invite = old(phone.request("INVITE", "", OFFER), 1);
    world.receive(PHONE, &invite);
    world.receive(PHONE, &invite);
    let call = world.invited();
    assert_eq!(world.said(), ["100 INVITE", "100 INVITE"]);
    let cancel = old(phone.request("CANCEL", "", ""), 1);
    world.receive(PHONE, &cancel);
    assert_eq!(world.said(), ["487 INVITE", "200 CANCEL"]);
    let ack = old(phone.ack_refusal(), 1);
    world.receive(PHONE, &ack);
    world.pass(10_000);
    assert!(world.said().is_empty());
    world.act(|endpoint, now| endpoint.answer(now, call, ANSWER.into()));
    assert!(world.said().is_empty());
}

#[test]
fn more_calls_than_fit_get_503() {
    let mut world = World::open();
    for n in 0..=MAX_CALLS {
        let mut phone = Phone { call_id: format!("call-{n}"), branch: n as u32 * 10, ..Phone::new() };
        let invite = phone.request("INVITE", "", OFFER);
        world.receive(PHONE, &invite);
    }
    assert_eq!(world.events().len(), MAX_CALLS);
    let last = world.sent().pop().unwrap();
    assert_eq!((last.what().as_str(), last.header("Retry-After").as_str()), ("503 INVITE", "10"));
    assert_eq!(world.endpoint.calls(), MAX_CALLS);
}

#[test]
fn a_flood_of_what_leads_nowhere_is_answered_without_state() {
    let mut world = World::open();
    for n in 0..5_000 {
        let mut phone = Phone { call_id: format!("call-{n}"), branch: n * 10, ..Phone::new() };
        let request = phone.request(["OPTIONS", "REGISTER", "BYE"][n as usize % 3], "", "");
        world.receive(PHONE, &request);
    }
    assert_eq!(world.sent().len(), 5_000);
    assert_eq!(world.endpoint.next_timeout(), None);
}

#[test]
fn refused_invites_leave_room_for_calls() {
    let mut world = World::open();
    let phone = |n: u32| Phone { call_id: format!("call-{n}"), branch: n * 10, ..Phone::new() };
    for n in 0..5_000 {
        let invite = phone(n).request("INVITE", "Require: nothing\r\n", OFFER);
        world.receive(PHONE, &invite);
    }
    assert!(world.said().iter().all(|said| said == "420 INVITE"));
    let invite = phone(5_000).request("INVITE", "", OFFER);
    world.receive(PHONE, &invite);
    world.invited();
    world.pass(32_000);
    assert_eq!(world.endpoint.calls(), 1);
}
