//! Registering against a scripted registrar.

use std::time::Duration;

use galene_sip::sip::event::{Event, Input, Route};
use galene_sip::wire::sip::{Contacts, Transport};

use crate::peer::{PHONE, Phone, REGISTRAR, Sent, World, config, target};

const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"example.com\", nonce=\"n1\", qop=\"auth\", opaque=\"o\"\r\n";

fn started(password: Option<&str>) -> World {
    let mut world = World::new(config(Some("sip.example.com"), password));
    world.act(|endpoint, now| endpoint.start(now));
    assert_eq!(world.resolves, [("sip.example.com".to_owned(), None)]);
    world.resolve("sip.example.com", None, &[REGISTRAR]);
    world
}

/// `response` with the address that the registrar sees noted in its Via.
fn seen_at(response: &str, address: &str, port: u16) -> String {
    response.replace(";rport", &format!(";rport={port};received={address}"))
}

fn failure(world: &mut World) -> (String, Duration) {
    match world.event() {
        Event::RegistrationFailed { text, retry_in } => (text, retry_in),
        other => panic!("{other:?}"),
    }
}

/// Lets the pause pass and gives the next REGISTER.
fn next_register(world: &mut World, pause: Duration) -> Sent {
    world.pass(u64::try_from(pause.as_millis()).unwrap() + 1);
    world.resolve("sip.example.com", None, &[REGISTRAR]);
    world.one()
}

#[test]
fn a_challenge_is_answered_and_later_requests_count_on() {
    let mut world = started(Some("secret"));
    let first = world.one();
    assert!(first.text().starts_with("REGISTER sip:example.com SIP/2.0\r\n"));
    assert_eq!((first.remote.as_str(), first.local.as_deref()), (REGISTRAR, Some("10.0.0.2:5060")));
    assert!(first.header("Via").starts_with("SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK"));
    assert_eq!(first.header("To"), "<sip:6002@example.com>");
    assert!(first.header("Authorization").is_empty());
    world.receive(REGISTRAR, &Phone::response(&first, 401, CHALLENGE));
    let second = world.one();
    assert_eq!(second.header("CSeq"), "2 REGISTER");
    assert_eq!(second.header("Call-ID"), first.header("Call-ID"));
    let authorization = second.header("Authorization");
    for part in ["username=\"6002\"", "realm=\"example.com\"", "uri=\"sip:example.com\"", "nc=00000001", "opaque=\"o\""]
    {
        assert!(authorization.contains(part), "{authorization}");
    }
    world.receive(REGISTRAR, &Phone::response(&second, 200, "Expires: 600\r\n"));
    assert_eq!(world.event(), Event::Registered { expires_s: 600, public: None });
    world.wait(450_000);
    let refresh = world.one();
    assert!((405_000..=450_000).contains(&refresh.at_ms), "{}", refresh.at_ms);
    assert!(refresh.header("Authorization").contains("nc=00000002"));
    // The nonce has become old: a new one is no reason to doubt the password, stale or not.
    let stale = CHALLENGE.replace("n1", "n2");
    world.receive(REGISTRAR, &Phone::response(&refresh, 401, &stale));
    let again = world.one();
    assert!(again.header("Authorization").contains("nonce=\"n2\""));
    world.receive(REGISTRAR, &Phone::response(&again, 401, &stale.replace("n2\"", "n3\", stale=true")));
    let once_more = world.one();
    assert!(once_more.header("Authorization").contains("nonce=\"n3\""));
    world.receive(REGISTRAR, &Phone::response(&once_more, 200, ""));
    assert!(matches!(world.event(), Event::Registered { .. }));
}

#[test]
fn a_proxy_and_the_registrar_may_both_ask() {
    let mut world = started(Some("secret"));
    let first = world.one();
    let proxy = CHALLENGE.replace("WWW", "Proxy");
    world.receive(REGISTRAR, &Phone::response(&first, 407, &proxy));
    let second = world.one();
    world.receive(REGISTRAR, &Phone::response(&second, 401, CHALLENGE));
    let third = world.one();
    assert!(third.header("Proxy-Authorization").contains("nc=00000002"));
    assert!(third.header("Authorization").contains("nc=00000001"));
}

#[test]
fn a_wrong_password_waits_for_minutes_and_says_so() {
    let mut world = started(Some("wrong"));
    let mut register = world.one();
    let mut pauses = vec![];
    for _ in 0..3 {
        world.receive(REGISTRAR, &Phone::response(&register, 401, CHALLENGE));
        let answer = world.one();
        world.receive(REGISTRAR, &Phone::response(&answer, 401, CHALLENGE));
        let (text, pause) = failure(&mut world);
        assert!(text.contains("-sip-password") && !text.contains("wrong"), "{text}");
        pauses.push(pause.as_secs());
        register = next_register(&mut world, pause);
    }
    for (pause, full) in pauses.iter().zip([300, 600, 1200]) {
        assert!((full * 4 / 5..=full).contains(pause), "{pauses:?}");
    }
}

#[test]
fn what_is_refused_is_explained_in_plain_words() {
    for (status, extra, word) in [
        (401, CHALLENGE, "GALENE_SIP_PASSWORD"),
        (401, "", "ask the provider"),
        (403, "", "-sip-password"),
        (404, "", "check -sip."),
        (500, "", "500"),
    ] {
        let mut world = started(None);
        let register = world.one();
        world.receive(REGISTRAR, &Phone::response(&register, status, extra));
        let (text, _) = failure(&mut world);
        assert!(text.contains(word) && text.contains("sip.example.com"), "{text}");
    }
}

#[test]
fn pauses_grow_to_twenty_seconds_for_ever_and_the_next_address_gets_its_turn() {
    let mut world = World::new(config(Some("sip.example.com"), None));
    world.act(|endpoint, now| endpoint.start(now));
    for full_s in [1, 2, 4, 8, 16, 20, 20, 20] {
        world.resolve("sip.example.com", None, &[REGISTRAR, "192.0.2.2:5060"]);
        // The first one's turn ends after 8 s, since there is another one, which has all of the 32 s of timer F.
        world.pass(8_000 + 32_000);
        let mut remotes: Vec<_> = world.sent().iter().map(|sent| sent.remote.clone()).collect();
        remotes.dedup();
        assert_eq!(remotes, [REGISTRAR, "192.0.2.2:5060"]);
        let (text, pause) = failure(&mut world);
        assert!(text.starts_with("No answer"), "{text}");
        let full = Duration::from_secs(full_s);
        assert!(pause <= full && pause >= full * 4 / 5, "{pause:?}");
        world.pass(u64::try_from(pause.as_millis()).unwrap() + 1);
        world.sent();
    }
}

#[test]
fn an_unknown_registrar_is_named_and_a_success_ends_the_pauses() {
    let mut world = World::new(config(Some("nowhere.invalid"), None));
    world.act(|endpoint, now| endpoint.start(now));
    let unresolved = |error: &str| Input::Unresolved { target: target("nowhere.invalid"), error: error.into() };
    world.act(|endpoint, now| endpoint.handle_input(now, unresolved("no such name")));
    let (text, _) = failure(&mut world);
    assert!(text.contains("nowhere.invalid") && text.contains("no such name") && text.contains("-sip-registrar"));
    world.pass(1_000);
    world.pass(20_000);
    let (text, pause) = failure(&mut world);
    assert!(text.contains("too long") && pause > Duration::from_millis(1_500), "{text}");
    world.pass(2_000);
    world.resolve("nowhere.invalid", None, &[REGISTRAR]);
    let register = world.one();
    world.receive(REGISTRAR, &Phone::response(&register, 200, ""));
    world.events();
    world.wait(450_000);
    world.sent();
    world.pass(31_900);
    world.sent();
    world.wait(200);
    let (_, pause) = failure(&mut world);
    assert!(pause <= Duration::from_secs(1));
}

#[test]
fn a_machine_that_has_slept_registers_at_once_and_waits_no_longer_after_a_failure() {
    let mut world = started(None);
    let register = world.one();
    world.receive(REGISTRAR, &Phone::response(&register, 200, ""));
    world.events();
    world.input(Input::Woken);
    assert_eq!(world.resolves.len(), 2, "its network may be another one");
    world.resolve("sip.example.com", None, &[REGISTRAR]);
    let again = world.one();
    world.receive(REGISTRAR, &Phone::response(&again, 403, ""));
    assert!(failure(&mut world).1 >= Duration::from_secs(200));
    world.input(Input::Woken);
    world.resolve("sip.example.com", None, &[REGISTRAR]);
    assert_eq!(world.one().what(), "REGISTER");
}

#[test]
fn retry_after_is_obeyed() {
    let mut world = started(None);
    let register = world.one();
    world.receive(REGISTRAR, &Phone::response(&register, 503, "Retry-After: 120 (busy)\r\n"));
    assert_eq!(failure(&mut world).1, Duration::from_secs(120));
}

#[test]
fn a_lifetime_that_is_too_brief_is_raised_and_a_shorter_grant_is_kept() {
    let mut world = started(None);
    let register = world.one();
    assert_eq!(register.header("Expires"), "600");
    world.receive(REGISTRAR, &Phone::response(&register, 423, "Min-Expires: 1800\r\n"));
    let raised = world.one();
    assert!(raised.header("Contact").ends_with(";expires=1800"));
    let contact = raised.header("Contact").replace("expires=1800", "expires=60");
    let listed = format!("Contact: <sip:other@10.0.0.9>;expires=9\r\nContact: {contact}\r\nExpires: 7\r\n");
    world.receive(REGISTRAR, &Phone::response(&raised, 200, &listed));
    assert_eq!(world.event(), Event::Registered { expires_s: 60, public: None });
    world.pass(30_000);
    assert!(world.sent()[0].at_ms >= 27_000);
}

#[test]
fn the_public_address_of_a_challenge_is_in_the_first_contact_already() {
    let mut world = started(Some("secret"));
    let first = world.one();
    world.receive(REGISTRAR, &seen_at(&Phone::response(&first, 401, CHALLENGE), "198.51.100.4", 40_123));
    let second = world.one();
    assert!(second.header("Contact").contains("@198.51.100.4:40123>;expires=600"));
    assert_eq!(second.headers().values("Contact").count(), 1);
    world.receive(REGISTRAR, &seen_at(&Phone::response(&second, 200, ""), "198.51.100.4", 40_123));
    let public = Some("198.51.100.4:40123".parse().unwrap());
    assert_eq!(world.event(), Event::Registered { expires_s: 600, public });
    world.pass(60_000);
    let keep_alives: Vec<_> = world.sent().iter().map(|one| (one.what(), one.at_ms)).collect();
    assert_eq!(keep_alives, [("keep-alive".to_owned(), 25_000), ("keep-alive".to_owned(), 50_000)]);
}

#[test]
fn a_new_public_address_replaces_the_old_binding_at_once() {
    let mut world = started(None);
    let first = world.one();
    world.receive(REGISTRAR, &seen_at(&Phone::response(&first, 200, ""), "198.51.100.4", 5060));
    let second = world.one();
    let contacts: Vec<_> = second.headers().values("Contact").map(str::to_owned).collect();
    assert!(contacts[0].contains("@198.51.100.4:5060>;expires=600"), "{contacts:?}");
    assert!(contacts[1].contains("@10.0.0.2:5060>;expires=0"), "{contacts:?}");
    // A NAT that gives another port each time gets no flood in return.
    world.receive(REGISTRAR, &seen_at(&Phone::response(&second, 200, ""), "198.51.100.4", 5061));
    assert!(world.said().is_empty());
    world.pass(450_000);
    let refresh = world.sent().into_iter().find(|one| one.what() == "REGISTER").unwrap();
    assert!(refresh.header("Contact").contains("@198.51.100.4:5061>"));
}

#[test]
fn an_answer_to_options_that_shows_another_address_has_us_register_it_at_once_and_once_in_30_s() {
    let mut world = started(None);
    let first = world.one();
    world.receive(REGISTRAR, &seen_at(&Phone::response(&first, 200, ""), "198.51.100.4", 5060));
    let second = world.one();
    world.receive(REGISTRAR, &seen_at(&Phone::response(&second, 200, ""), "198.51.100.4", 5060));
    let mut ports = Vec::new();
    for (pass_ms, port) in [(15_100, 5060), (15_000, 5070), (15_000, 5080), (15_000, 5080), (15_000, 5090)] {
        world.pass(pass_ms);
        world.sent();
        let question = world.pings().pop().expect("it is asked every 15 s");
        world.receive(REGISTRAR, &seen_at(&Phone::response(&question, 200, ""), "198.51.100.4", port));
        let register = world.sent().into_iter().find(|one| one.what() == "REGISTER");
        ports.push(register.as_ref().map(|one| one.header("Contact").split(';').next().unwrap().to_owned()));
        if let Some(register) = register {
            world.receive(REGISTRAR, &seen_at(&Phone::response(&register, 200, ""), "198.51.100.4", port));
            world.sent();
        }
    }
    let contact = |port: u16| ports.iter().flatten().any(|contact| contact.contains(&format!("@198.51.100.4:{port}")));
    assert_eq!(ports.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false, false, true], "{ports:?}");
    assert!(contact(5070) && contact(5090), "{ports:?}");
}

#[test]
fn a_registrar_that_refuses_two_contacts_gets_one() {
    let mut world = started(None);
    let first = world.one();
    world.receive(REGISTRAR, &seen_at(&Phone::response(&first, 200, ""), "198.51.100.4", 5060));
    let second = world.one();
    world.events();
    world.receive(REGISTRAR, &seen_at(&Phone::response(&second, 400, ""), "198.51.100.4", 5060));
    let (_, pause) = failure(&mut world);
    let third = next_register(&mut world, pause);
    assert_eq!(third.headers().values("Contact").count(), 1);
}

#[test]
fn a_registrar_that_keeps_nothing_is_a_failure() {
    let mut world = started(None);
    let first = world.one();
    world.receive(REGISTRAR, &Phone::response(&first, 200, "Expires: 0\r\n"));
    assert!(failure(&mut world).0.contains("keeps no address"));
}

#[test]
fn forged_and_late_responses_change_nothing() {
    let mut world = started(None);
    let register = world.one();
    let ok = Phone::response(&register, 200, "");
    let branch = register.headers().via().unwrap().branch().unwrap().into_owned();
    world.receive(REGISTRAR, &ok.replace(&branch, "z9hG4bKforged"));
    assert!(world.events().is_empty());
    world.receive(REGISTRAR, &ok);
    world.receive(REGISTRAR, &ok);
    world.receive(REGISTRAR, &Phone::response(&register, 403, ""));
    assert!(matches!(world.event(), Event::Registered { .. }));
    assert_eq!(world.endpoint.counters().stray_responses, 3);
}

#[test]
fn a_challenged_bye_gets_no_digest_whoever_asks() {
    for (from, realm) in [(REGISTRAR, "example.com"), (PHONE, "example.com"), (REGISTRAR, "elsewhere")] {
        let mut world = started(Some("secret"));
        let first = world.one();
        world.receive(REGISTRAR, &Phone::response(&first, 401, CHALLENGE));
        let second = world.one();
        world.receive(REGISTRAR, &Phone::response(&second, 200, ""));
        world.events();
        let Ok(Contacts::List(contacts)) = second.headers().contacts() else { panic!() };
        let target = contacts[0].uri.to_string();
        let key = Phone { address: from.into(), target, ..Phone::new() }.call(&mut world);
        world.act(|endpoint, now| endpoint.hang_up(now, key, ""));
        let bye = world.one();
        let challenge = format!("Proxy-Authenticate: Digest realm=\"{realm}\", nonce=\"x\", qop=\"auth\"\r\n");
        // A proxy hands on what the caller asks: whoever is hung up on must not get a digest to guess the password from.
        world.receive(from, &Phone::response(&bye, 407, &challenge));
        assert!(world.said().is_empty());
        assert_eq!(world.endpoint.calls(), 0);
    }
}

#[test]
fn an_address_of_ours_that_is_gone_is_replaced_at_the_registrar_at_once() {
    let mut world = started(None);
    let first = world.one();
    world.receive(REGISTRAR, &seen_at(&Phone::response(&first, 200, "Expires: 600\r\n"), "203.0.113.5", 4000));
    let moved = world.one();
    assert!(moved.header("Contact").contains("@203.0.113.5:4000"));
    world.receive(REGISTRAR, &seen_at(&Phone::response(&moved, 200, "Expires: 600\r\n"), "203.0.113.5", 4000));
    world.events();
    let network = |world: &mut World, gone: &str, has_new| {
        world.input(Input::Network { gone: &[gone.parse().unwrap()], has_new });
    };
    // Another's, such as of a bridge of containers.
    network(&mut world, "172.17.0.1", true);
    assert!(world.sent().is_empty() && world.resolves.len() == 1);
    // Ours. The next one is not there yet.
    network(&mut world, "10.0.0.2", false);
    assert_eq!(world.resolves.len(), 2);
    world.input(Input::Unresolved { target: target("sip.example.com"), error: "there is no route".into() });
    assert!(failure(&mut world).0.contains("no route"));
    network(&mut world, "172.17.0.1", true);
    assert_eq!(world.resolves.len(), 3, "a pause, however short, is not waited for");
    let (remote, local) = (REGISTRAR.parse().unwrap(), "10.9.9.9".parse().unwrap());
    let routes = vec![Route { transport: Transport::Udp, remote, local }];
    world.input(Input::Resolved { target: target("sip.example.com"), routes, lifetime: Duration::from_secs(3600) });
    let again = world.one();
    assert_eq!(again.local.as_deref(), Some("10.9.9.9:5060"));
    let contact = again.text();
    assert!(contact.contains("@10.9.9.9:5060>;expires=600"), "{contact}");
    assert!(contact.contains("@203.0.113.5:4000>;expires=0"), "{contact}");
    // What it is seen at now counts at once, however soon after the last move.
    world.receive(REGISTRAR, &seen_at(&Phone::response(&again, 200, "Expires: 600\r\n"), "203.0.113.9", 5000));
    assert!(world.one().header("Contact").contains("@203.0.113.9:5000"));
}
