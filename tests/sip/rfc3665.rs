//! The call flows of RFC 3665 §3 as Bob sees them, who is called. Each is named as there. (3.4, a failed proxy, is 3.2 for
//! him; registrations, §2, are in `registration`.)

use galene_sip::sip::event::{CallKey, EndReason, Event, Rejection};

use crate::peer::{ANSWER, OFFER, PHONE, Phone, Sent, World};

const PROXIES: &str = "Record-Route: <sip:ss2.biloxi.example.com;lr>, <sip:ss1.atlanta.example.com;lr>\r\n";
const PROXY: &str = "192.0.2.222:5060";

fn what(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(Sent::what).collect()
}

/// INVITE, 180.
fn rings(world: &mut World, phone: &mut Phone, extra: &str, body: &str) -> CallKey {
    let invite = phone.request("INVITE", extra, body);
    world.receive(&phone.address.clone(), &invite);
    let call = world.invited();
    world.act(|endpoint, now| endpoint.ring(now, call));
    call
}

fn is_answered(world: &mut World, phone: &mut Phone, call: CallKey, sdp: &str) -> Sent {
    world.act(|endpoint, now| endpoint.answer(now, call, sdp.into()));
    let ok = world.sent().pop().unwrap();
    assert_eq!((ok.what().as_str(), ok.message().body()), ("200 INVITE", sdp.as_bytes()));
    phone.listen(&ok);
    ok
}

fn acknowledges(world: &mut World, phone: &mut Phone, sdp: &str) {
    let ack = phone.request("ACK", "", sdp);
    world.receive(&phone.address.clone(), &ack);
}

fn hangs_up(world: &mut World, phone: &mut Phone, call: CallKey) {
    let bye = phone.request("BYE", "", "");
    world.receive(&phone.address.clone(), &bye);
    assert_eq!(world.said(), ["200 BYE"]);
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Bye });
    assert_eq!(world.endpoint.calls(), 0);
}

#[test]
fn s3_1_successful_session_establishment() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = rings(&mut world, &mut phone, "", OFFER);
    is_answered(&mut world, &mut phone, call, ANSWER);
    acknowledges(&mut world, &mut phone, "");
    assert_eq!(world.event(), Event::Acknowledged { call });
    // F7, F8: here it is Bob who hangs up.
    world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
    let bye = world.one();
    assert_eq!(bye.what(), "BYE");
    world.receive(PHONE, &Phone::response(&bye, 200, ""));
    assert_eq!(world.endpoint.calls(), 0);
}

#[test]
fn s3_2_session_establishment_through_two_proxies() {
    let (mut world, mut phone) = (World::open(), Phone { address: PROXY.into(), ..Phone::new() });
    let call = rings(&mut world, &mut phone, PROXIES, OFFER);
    world.resolve("ss2.biloxi.example.com", None, &[PROXY]);
    let ok = is_answered(&mut world, &mut phone, call, ANSWER);
    assert_eq!(ok.headers().record_routes().unwrap().len(), 2);
    acknowledges(&mut world, &mut phone, "");
    world.events();
    world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
    let bye = world.one();
    assert_eq!(bye.remote, PROXY);
    let routes: Vec<_> = bye.headers().values("Route").map(str::to_owned).collect();
    assert_eq!(routes, ["<sip:ss2.biloxi.example.com;lr>", "<sip:ss1.atlanta.example.com;lr>"]);
}

#[test]
fn s3_3_session_with_multiple_proxy_authentication() {
    let (mut world, mut phone) = (World::open(), Phone { address: PROXY.into(), ..Phone::new() });
    // What the proxies were shown is none of Bob's business.
    let shown = "Proxy-Authorization: Digest username=\"alice\", realm=\"atlanta.example.com\", nonce=\"wf84\", opaque=\"\", \
                 uri=\"sip:bob@biloxi.example.com\", response=\"42ce3cef44b22f50c6a6071bc8\"\r\n";
    let call = rings(&mut world, &mut phone, &format!("{PROXIES}{shown}"), OFFER);
    is_answered(&mut world, &mut phone, call, ANSWER);
    acknowledges(&mut world, &mut phone, "");
    world.events();
    hangs_up(&mut world, &mut phone, call);
}

#[test]
fn s3_5_session_through_a_sip_alg() {
    // The ALG is the other end of everything: Contact, media and packets are its own.
    let (mut world, mut phone) = (World::open(), Phone { address: "192.0.2.128:5060".into(), ..Phone::new() });
    let offer = OFFER.replace("10.0.0.7", "192.0.2.128");
    let call = rings(&mut world, &mut phone, "", &offer);
    is_answered(&mut world, &mut phone, call, ANSWER);
    acknowledges(&mut world, &mut phone, "");
    world.events();
    hangs_up(&mut world, &mut phone, call);
}

#[test]
fn s3_6_session_via_redirect_and_proxy_servers_with_sdp_in_ack() {
    let (mut world, mut phone) = (World::open(), Phone { address: PROXY.into(), ..Phone::new() });
    let call = rings(&mut world, &mut phone, "Record-Route: <sip:ss3.chicago.example.com;lr>\r\n", "");
    is_answered(&mut world, &mut phone, call, OFFER);
    acknowledges(&mut world, &mut phone, ANSWER);
    assert_eq!(world.events(), [Event::Answer { call, sdp: ANSWER.into() }, Event::Acknowledged { call }]);
    hangs_up(&mut world, &mut phone, call);
}

#[test]
fn s3_7_session_with_re_invite_ip_address_change() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = rings(&mut world, &mut phone, "", OFFER);
    is_answered(&mut world, &mut phone, call, ANSWER);
    acknowledges(&mut world, &mut phone, "");
    world.events();
    phone.address = "192.0.2.103:5060".into();
    let moved = OFFER.replace("10.0.0.7", "192.0.2.103");
    let reinvite = phone.request("INVITE", "", &moved);
    world.receive("192.0.2.103:5060", &reinvite);
    assert_eq!(world.event(), Event::Offer { call, sdp: Some(moved.into_bytes()) });
    world.act(|endpoint, now| endpoint.accept_offer(now, call, ANSWER.into()));
    acknowledges(&mut world, &mut phone, "");
    world.events();
    world.sent();
    world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
    assert_eq!(world.one().remote, "192.0.2.103:5060");
}

#[test]
fn s3_8_unsuccessful_no_answer() {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = rings(&mut world, &mut phone, PROXIES, OFFER);
    world.sent();
    let cancel = phone.request("CANCEL", "", "");
    world.receive(PHONE, &cancel);
    let sent = world.sent();
    assert_eq!(what(&sent), ["487 INVITE", "200 CANCEL"]);
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    world.pass(60_000);
    assert!(world.said().is_empty());
    assert_eq!(world.event(), Event::Ended { call, why: EndReason::Cancelled });
}

fn turned_away(status: u16) {
    let (mut world, mut phone) = (World::open(), Phone::new());
    let call = phone.invite_with(&mut world, PROXIES, OFFER);
    world.act(|endpoint, now| endpoint.reject(now, call, &Rejection { status, ..Rejection::default() }));
    assert_eq!(world.said(), ["100 INVITE".to_owned(), format!("{status} INVITE")]);
    let ack = phone.ack_refusal();
    world.receive(PHONE, &ack);
    world.pass(60_000);
    assert!(world.said().is_empty() && world.events().is_empty());
}

#[test]
fn s3_9_unsuccessful_busy() {
    turned_away(486);
}

#[test]
fn s3_10_unsuccessful_no_response_from_user_agent() {
    // The proxy repeats its INVITE to the one that seems dead; when it lives after all, it is one call.
    let (mut world, mut phone) = (World::open(), Phone::new());
    let invite = phone.request("INVITE", PROXIES, OFFER);
    for _ in 0..7 {
        world.receive(PHONE, &invite);
    }
    world.invited();
    assert_eq!(world.said(), ["100 INVITE"; 7]);
}

#[test]
fn s3_11_unsuccessful_temporarily_unavailable() {
    turned_away(480);
}
