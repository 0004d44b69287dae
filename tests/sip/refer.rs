//! A telephone hands its caller on (REFER: RFC 3515, RFC 4488, RFC 5589): we call the target.

use galene_sip::sip::event::{CallKey, EndReason, Event};

use crate::peer::{ANSWER, OFFER, PHONE, Phone, REGISTRAR, Sent, World, config};

const TARGET: &str = "10.0.0.66:5060";
/// What the registrar puts into the answers.
const BY_TARGET: &str = "Contact: <sip:carol@10.0.0.66:5060>\r\n";

/// A call while we are registered at sip.example.com.
fn call() -> (World, Phone, CallKey) {
    call_registered_with("")
}

/// The same with more in the registrar's 200.
fn call_registered_with(extra: &str) -> (World, Phone, CallKey) {
    let mut world = World::new(config(Some("sip.example.com"), None));
    world.act(|endpoint, now| endpoint.start(now));
    world.resolve("sip.example.com", None, &[REGISTRAR]);
    let register = world.one();
    world.receive(REGISTRAR, &Phone::response(&register, 200, &format!("Expires: 100000\r\n{extra}")));
    world.events();
    let mut phone = Phone { address: REGISTRAR.into(), ..Phone::new() };
    let key = phone.call(&mut world);
    (world, phone, key)
}

fn refer(world: &mut World, phone: &mut Phone, refer_to: &str, extra: &str) {
    let refer = phone.request("REFER", &format!("Refer-To: {refer_to}\r\n{extra}"), "");
    world.receive(REGISTRAR, &refer);
}

/// What was sent but for keep-alives.
fn sent(world: &mut World) -> Vec<Sent> {
    world.sent().into_iter().filter(|one| one.what() != "keep-alive").collect()
}

fn what(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(Sent::what).collect()
}

/// REFER, 202, the first NOTIFY, and our INVITE to the target.
fn referred(world: &mut World, phone: &mut Phone, key: CallKey, refer_to: &str) -> Sent {
    refer(world, phone, refer_to, "Referred-By: <sip:alice@example.org>\r\n");
    assert!(matches!(world.event(), Event::Transfer { call, .. } if call == key));
    world.act(|endpoint, now| endpoint.place(now, key, OFFER.into()));
    let mut all = sent(world);
    assert_eq!(what(&all), ["202 REFER", "NOTIFY", "INVITE"]);
    assert_eq!(all[1].header("Subscription-State"), "active;expires=60");
    assert_eq!(all[1].header("Content-Type"), "message/sipfrag;version=2.0");
    assert_eq!(all[1].message().body(), b"SIP/2.0 100 Trying\r\n");
    world.receive(REGISTRAR, &Phone::response(&all[1], 200, ""));
    all.pop().unwrap()
}

fn fragments(sent: &[Sent]) -> Vec<String> {
    let notifies = sent.iter().filter(|one| one.what() == "NOTIFY");
    let in_short = |one: &Sent| {
        let body = String::from_utf8(one.message().body().to_vec()).unwrap();
        format!("{} {}", body[8..11].to_owned(), one.header("Subscription-State").split(';').next().unwrap())
    };
    notifies.map(in_short).collect()
}

#[test]
fn a_call_of_ours_takes_the_service_route_and_so_does_all_that_belongs_to_it() {
    let routes = "Service-Route: <sip:edge.example.com;lr>, <sip:home.example.com;lr>\r\n";
    let (mut world, mut phone, key) = call_registered_with(routes);
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    let route = |sent: &Sent| sent.message().headers().values("Route").map(str::to_owned).collect::<Vec<_>>();
    let wanted = ["<sip:edge.example.com;lr>", "<sip:home.example.com;lr>"];
    assert_eq!((invite.remote.as_str(), route(&invite)), (REGISTRAR, wanted.map(str::to_owned).to_vec()));
    world.receive(REGISTRAR, &Phone::response(&invite, 486, ""));
    let all = sent(&mut world);
    assert_eq!(what(&all), ["ACK", "NOTIFY"]);
    assert_eq!(route(&all[0]), wanted);
    assert!(route(&all[1]).is_empty(), "the call that came in has a route of its own");
}

#[test]
fn a_blind_transfer_keeps_the_key_and_the_transferor_says_bye() {
    let (mut world, mut phone, key) = call();
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    // By way of the registrar, as ourselves, with who sent us.
    assert_eq!(invite.remote, REGISTRAR);
    assert!(invite.text().starts_with("INVITE sip:carol@sip.example.com SIP/2.0\r\n"));
    assert!(invite.header("From").starts_with("<sip:6002@example.com>;tag="));
    assert_eq!(invite.header("Referred-By"), "<sip:alice@example.org>");
    assert_eq!(invite.message().body(), OFFER.as_bytes());
    world.receive(REGISTRAR, &Phone::response(&invite, 100, ""));
    world.receive(REGISTRAR, &Phone::response(&invite, 180, ""));
    world.receive(REGISTRAR, &Phone::response(&invite, 180, ""));
    let all = sent(&mut world);
    assert_eq!(fragments(&all), ["180 active"]);
    let ok = Phone::response_with(&invite, 200, BY_TARGET, ANSWER).replacen(
        "To: <sip:carol@sip.example.com>",
        "To: <sip:carol@sip.example.com>;tag=c",
        1,
    );
    world.receive(REGISTRAR, &ok);
    let all = sent(&mut world);
    assert_eq!(what(&all), ["ACK", "NOTIFY"]);
    assert_eq!((all[0].remote.as_str(), all[0].header("CSeq").as_str()), (TARGET, "1 ACK"));
    assert_eq!(fragments(&all), ["200 terminated"]);
    assert_eq!(world.event(), Event::Transferred { call: key, sdp: ANSWER.into() });
    // The ACK was lost.
    world.receive(REGISTRAR, &ok);
    assert_eq!(world.one().bytes, all[0].bytes);
    let bye = phone.request("BYE", "", "");
    world.receive(REGISTRAR, &bye);
    world.receive(REGISTRAR, &Phone::response(&all[1], 200, ""));
    assert_eq!(world.said(), ["200 BYE"]);
    assert!(world.events().is_empty());
    assert_eq!(world.endpoint.calls(), 1);
    // The call is the target's now.
    world.act(|endpoint, now| endpoint.hang_up(now, key, ""));
    let bye = world.one();
    assert_eq!((bye.remote.as_str(), bye.what().as_str()), (TARGET, "BYE"));
    assert!(bye.header("To").ends_with(";tag=c"));
}

#[test]
fn a_transferor_that_never_says_bye_gets_ours() {
    let (mut world, mut phone, key) = call();
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@example.com>");
    world.receive(REGISTRAR, &Phone::response_with(&invite, 200, BY_TARGET, ANSWER));
    let notify = sent(&mut world).pop().unwrap();
    world.receive(REGISTRAR, &Phone::response(&notify, 200, ""));
    world.events();
    world.pass(31_999);
    assert!(sent(&mut world).is_empty());
    world.pass(1);
    let bye = sent(&mut world).pop().unwrap();
    assert_eq!((bye.what().as_str(), bye.header("Call-ID").as_str()), ("BYE", "call-1@phone"));
    assert!(world.events().is_empty());
}

#[test]
fn a_transferor_that_hangs_up_first_leaves_the_caller_waiting() {
    let (mut world, mut phone, key) = call();
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    let bye = phone.request("BYE", "", "");
    world.receive(REGISTRAR, &bye);
    assert_eq!((world.said(), world.event()), (vec!["200 BYE".into()], Event::Parted { call: key }));
    world.receive(REGISTRAR, &Phone::response_with(&invite, 200, BY_TARGET, ANSWER));
    assert_eq!(world.event(), Event::Transferred { call: key, sdp: ANSWER.into() });
    assert_eq!(world.endpoint.calls(), 1);
}

#[test]
fn a_failed_transfer_leaves_the_call_as_it_was_or_ends_it_if_the_telephone_is_gone() {
    for has_hung_up in [false, true] {
        let (mut world, mut phone, key) = call();
        let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
        if has_hung_up {
            let bye = phone.request("BYE", "", "");
            world.receive(REGISTRAR, &bye);
            world.events();
            world.sent();
        }
        world.receive(REGISTRAR, &Phone::response(&invite, 486, ""));
        let all = sent(&mut world);
        assert_eq!(what(&all), ["ACK", "NOTIFY"]);
        assert_eq!(all[0].headers().via(), invite.headers().via());
        assert_eq!(fragments(&all), ["486 terminated"]);
        let mut expected = vec![Event::TransferFailed { call: key, status: 486 }];
        expected.extend(has_hung_up.then_some(Event::Ended { call: key, why: EndReason::Bye }));
        assert_eq!(world.events(), expected);
        assert_eq!(world.endpoint.calls(), usize::from(!has_hung_up));
        if !has_hung_up {
            // A second try names its subscription.
            refer(&mut world, &mut phone, "sip:carol@sip.example.com", "");
            let notify = sent(&mut world).pop().unwrap();
            assert_eq!(notify.header("Event"), format!("refer;id={}", phone.cseq));
        }
    }
}

#[test]
fn an_attended_transfer_replaces_the_call_that_the_transferor_has_with_the_target() {
    let (mut world, mut phone, key) = call();
    let refer_to = "<sip:carol@sip.example.com?Replaces=x%40y%3Bto-tag%3D1%3Bfrom-tag%3D2>";
    let invite = referred(&mut world, &mut phone, key, refer_to);
    assert_eq!(invite.header("Replaces"), "x@y;to-tag=1;from-tag=2");
    assert_eq!(invite.header("Require"), "replaces");
    assert!(invite.text().starts_with("INVITE sip:carol@sip.example.com SIP/2.0\r\n"));
}

#[test]
fn a_target_that_rings_for_a_minute_is_cancelled() {
    let (mut world, mut phone, key) = call();
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    world.receive(REGISTRAR, &Phone::response(&invite, 180, ""));
    let notify = sent(&mut world).pop().unwrap();
    world.receive(REGISTRAR, &Phone::response(&notify, 200, ""));
    world.pass(60_000);
    let all = sent(&mut world);
    let cancel = all.iter().find(|one| one.what() == "CANCEL").unwrap();
    assert_eq!((cancel.headers().via(), cancel.header("CSeq").as_str()), (invite.headers().via(), "1 CANCEL"));
    assert_eq!(fragments(&all), ["408 terminated"]);
    world.receive(REGISTRAR, &Phone::response(cancel, 200, ""));
    world.receive(REGISTRAR, &Phone::response(&invite, 487, ""));
    assert!(sent(&mut world).iter().any(|one| one.what() == "ACK"));
    assert_eq!(world.event(), Event::TransferFailed { call: key, status: 408 });
    assert_eq!(world.endpoint.calls(), 1);
}

#[test]
fn who_hangs_up_for_the_caller_cancels_and_an_answer_that_crosses_it_is_ended() {
    let (mut world, mut phone, key) = call();
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    world.act(|endpoint, now| endpoint.hang_up(now, key, ""));
    let bye = world.one();
    world.receive(REGISTRAR, &Phone::response(&bye, 200, ""));
    // No CANCEL before a provisional response.
    world.receive(REGISTRAR, &Phone::response(&invite, 180, ""));
    assert_eq!(world.said(), ["CANCEL"]);
    world.receive(REGISTRAR, &Phone::response_with(&invite, 200, BY_TARGET, ANSWER));
    let all = sent(&mut world);
    assert_eq!(what(&all), ["ACK", "BYE"]);
    assert_eq!(all[1].remote, TARGET);
    world.receive(TARGET, &Phone::response(&all[1], 200, ""));
    assert!(world.events().is_empty());
    assert_eq!(world.endpoint.calls(), 0);
}

#[test]
fn the_second_answer_of_a_forked_call_is_ended() {
    let (mut world, mut phone, key) = call();
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    let ok = |tag: &str| {
        let to = "To: <sip:carol@sip.example.com>";
        Phone::response_with(&invite, 200, BY_TARGET, ANSWER).replacen(to, &format!("{to};tag={tag}"), 1)
    };
    world.receive(REGISTRAR, &ok("one"));
    world.events();
    world.sent();
    world.receive(REGISTRAR, &ok("two"));
    let all = sent(&mut world);
    assert_eq!(what(&all), ["ACK", "BYE"]);
    assert!(all.iter().all(|one| one.header("To").ends_with(";tag=two")));
    assert!(world.events().is_empty());
    let _ = key;
}

#[test]
fn our_invite_is_repeated_by_timer_a_and_given_up_by_timer_b() {
    let (mut world, mut phone, key) = call();
    let start = world.now_ms();
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    world.pass(32_000);
    let all = sent(&mut world);
    let invites = all.iter().filter(|one| one.bytes == invite.bytes).map(|one| one.at_ms - start);
    assert_eq!(invites.collect::<Vec<_>>(), [500, 1500, 3500, 7500, 15_500, 31_500]);
    assert_eq!(fragments(&all), ["408 terminated"]);
    assert_eq!(world.event(), Event::TransferFailed { call: key, status: 408 });
}

#[test]
fn a_target_that_answers_under_ever_new_tags_fills_no_table() {
    let (mut world, mut phone, key) = call();
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    let to = "To: <sip:carol@sip.example.com>";
    for tag in 0..2 * galene_sip::sip::endpoint::MAX_CALLS {
        let ok = Phone::response_with(&invite, 200, BY_TARGET, ANSWER).replacen(to, &format!("{to};tag=t{tag}"), 1);
        world.receive(REGISTRAR, &ok);
    }
    assert_eq!(world.endpoint.calls(), galene_sip::sip::endpoint::MAX_CALLS);
    assert!(world.endpoint.counters().overflows > 0);
}

#[test]
fn without_a_subscription_nothing_is_told() {
    let (mut world, mut phone, key) = call();
    refer(&mut world, &mut phone, "<sip:carol@sip.example.com>", "Require: norefersub\r\nRefer-Sub: false\r\n");
    world.act(|endpoint, now| endpoint.place(now, key, OFFER.into()));
    let all = sent(&mut world);
    assert_eq!(what(&all), ["202 REFER", "INVITE"]);
    assert_eq!(all[0].header("Refer-Sub"), "false");
    world.receive(REGISTRAR, &Phone::response_with(&all[1], 200, BY_TARGET, ANSWER));
    assert_eq!(what(&sent(&mut world)), ["ACK"]);
}

#[test]
fn targets_elsewhere_are_refused_unless_that_is_allowed() {
    let (mut world, mut phone, _) = call();
    for (refer_to, status) in [
        ("<sip:+900123@premium.example.net>", "403 REFER"),
        ("<sip:carol@198.51.100.1>", "403 REFER"),
        ("<sips:carol@sip.example.com>", "403 REFER"),
        ("<sip:carol@sip.example.com;method=BYE>", "400 REFER"),
        ("<tel:123>", "400 REFER"),
        ("<sip:carol@192.0.2.1>", "202 REFER"),
    ] {
        refer(&mut world, &mut phone, refer_to, "");
        assert_eq!(sent(&mut world)[0].what(), status, "{refer_to}");
    }
    let mut world = World::new(galene_sip::sip::event::EndpointConfig { refer_anywhere: true, ..config(None, None) });
    let mut phone = Phone::new();
    let key = phone.call(&mut world);
    let refer = phone.request("REFER", "Refer-To: <sip:carol@elsewhere.example.net:5070>\r\nRefer-Sub: false\r\n", "");
    world.receive(PHONE, &refer);
    world.act(|endpoint, now| endpoint.place(now, key, OFFER.into()));
    assert_eq!(world.resolves, [("elsewhere.example.net".to_owned(), Some(5070))]);
    world.said();
    world.resolve("elsewhere.example.net", Some(5070), &["198.51.100.7:5070"]);
    assert_eq!(world.one().remote, "198.51.100.7:5070");
}

#[test]
fn outside_a_call_refer_is_refused_always() {
    for refer_anywhere in [false, true] {
        let mut world = World::new(galene_sip::sip::event::EndpointConfig { refer_anywhere, ..config(None, None) });
        let refer = Phone::new().request("REFER", "Refer-To: <sip:carol@example.com>\r\n", "");
        world.receive(PHONE, &refer);
        assert_eq!(world.said(), ["403 REFER"]);
        assert!(world.events().is_empty());
    }
}

#[test]
fn one_transfer_at_a_time_and_none_before_the_ack() {
    let (mut world, mut phone, key) = call();
    referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    refer(&mut world, &mut phone, "<sip:dave@sip.example.com>", "");
    assert_eq!(what(&sent(&mut world)), ["491 REFER"]);
    let (mut world, mut phone) = (World::open(), Phone::new());
    phone.call_to_the_answer(&mut world, "");
    let refer = phone.request("REFER", "Refer-To: <sip:carol@example.com>\r\n", "");
    world.receive(PHONE, &refer);
    assert_eq!(world.said(), ["491 REFER"]);
}

#[test]
fn a_name_that_leads_nowhere_fails_the_transfer() {
    let mut world = World::open();
    let mut phone = Phone::new();
    let key = phone.call(&mut world);
    let refer = phone.request("REFER", "Refer-To: <sip:carol@example.com>\r\n", "");
    world.receive(PHONE, &refer);
    world.events();
    world.act(|endpoint, now| endpoint.place(now, key, OFFER.into()));
    world.sent();
    world.resolve("example.com", None, &[]);
    assert_eq!(fragments(&world.sent()), ["503 terminated"]);
    assert_eq!(world.event(), Event::TransferFailed { call: key, status: 503 });
}

/// Found by fuzzing: the gateway heard of a transfer of a call that it knew to be over.
#[test]
fn a_call_that_ends_at_the_moment_when_its_transfer_fails_is_told_of_no_more() {
    let (mut world, mut phone, key) = call();
    let invite = referred(&mut world, &mut phone, key, "<sip:carol@sip.example.com>");
    world.receive(REGISTRAR, &Phone::response(&invite, 180, BY_TARGET));
    // The target may ring for 60 s, and OPTIONS wait for 32 s.
    world.pass(28_000);
    world.act(|endpoint, now| endpoint.probe(now, key));
    world.pass(32_000);
    assert_eq!(world.events(), [Event::Ended { call: key, why: EndReason::Silent }]);
}
