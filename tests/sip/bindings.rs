//! What a registration goes through in months: bindings of earlier runs, registrars that send on, that weaken their
//! questions, that die and come back.

use std::time::Duration;

use galene_sip::sip::event::{Event, Status};
use galene_sip::wire::sip::Contacts;
use galene_sip::wire::stun;

use crate::peer::{OFFER, PHONE, Phone, REGISTRAR, Sent, World, config};

const INSTANCE: &str = "urn:uuid:2ed6657d-e927-568b-95e1-2665a8aea6a2";
const OTHER_INSTANCE: &str = "urn:uuid:00000000-0000-5000-8000-000000000000";

/// Started, with an instance id, and its first REGISTER.
fn started(password: Option<&str>) -> (World, Sent) {
    let mut config = config(Some("sip.example.com"), password);
    config.instance = Some(INSTANCE.into());
    let mut world = World::new(config);
    world.act(|endpoint, now| endpoint.start(now));
    world.resolve("sip.example.com", None, &[REGISTRAR]);
    let register = world.one();
    (world, register)
}

fn contacts(register: &Sent) -> Vec<String> {
    register.headers().values("Contact").map(str::to_owned).collect()
}

fn challenge(realm: &str, algorithm: &str, qop: &str) -> String {
    format!("WWW-Authenticate: Digest realm=\"{realm}\", nonce=\"n\", algorithm={algorithm}, qop=\"{qop}\"\r\n")
}

fn failure(world: &mut World) -> (String, Duration) {
    match world.event() {
        Event::RegistrationFailed { text, retry_in } => (text, retry_in),
        other => panic!("{other:?}"),
    }
}

fn status(world: &World) -> Status {
    world.endpoint.registration_status().unwrap()
}

/// Lets `ms` pass with the registrar's name always resolved.
fn pass_resolving(world: &mut World, ms: u64, mut each: impl FnMut(&mut World)) {
    let end = world.now_ms() + ms;
    while world.now_ms() < end {
        world.pass(100);
        if !std::mem::take(&mut world.resolves).is_empty() {
            world.resolve("sip.example.com", None, &[REGISTRAR]);
        }
        each(world);
    }
}

#[test]
fn the_contact_names_the_instance_and_the_flow_and_a_proxy_that_cannot_gets_none() {
    let (mut world, register) = started(None);
    let expected = format!(";expires=600;+sip.instance=\"<{INSTANCE}>\";reg-id=1");
    assert!(contacts(&register)[0].ends_with(&expected), "{:?}", contacts(&register));
    assert!(register.header("Supported").contains("outbound"));
    world.receive(REGISTRAR, &Phone::response(&register, 439, ""));
    let again = world.one();
    assert!(
        contacts(&again)[0].ends_with(&format!("\"<{INSTANCE}>\"")) && !again.header("Supported").contains("outbound")
    );
    world.receive(REGISTRAR, &Phone::response(&again, 439, ""));
    assert!(failure(&mut world).0.contains("439"));
}

#[test]
fn bindings_of_earlier_runs_are_removed_and_foreign_ones_are_not() {
    let (mut world, register) = started(None);
    let ours = &contacts(&register)[0];
    let token = "AAAAAAAAAAAAAAAAAAAAAAA1";
    let listed = format!(
        "Contact: {ours}\r\n\
         Contact: <sip:old@10.9.9.9:5060>;expires=300;+sip.instance=\"<{INSTANCE}>\"\r\n\
         Contact: <sip:{token}@10.0.0.2:5060>;expires=300\r\n\
         Contact: <sip:{token}@10.0.0.3:5060>;expires=300\r\n\
         Contact: <sip:alice@10.0.0.2:5060>;expires=300\r\n\
         Contact: <sip:{token}@10.0.0.2>;expires=300;+sip.instance=\"<{OTHER_INSTANCE}>\"\r\n"
    );
    world.receive(REGISTRAR, &Phone::response(&register, 200, &listed));
    assert!(matches!(world.event(), Event::Registered { expires_s: 600, .. }));
    let mut removed = vec![];
    for _ in 0..2 {
        let removal = world.one();
        assert_eq!((contacts(&removal).len(), removal.header("Expires").as_str()), (1, "0"));
        removed.push(contacts(&removal)[0].clone());
        assert_eq!(status(&world), Status::Registered { public: None });
        // This registrar keeps them all the same.
        world.receive(REGISTRAR, &Phone::response(&removal, 200, &listed));
    }
    removed.sort();
    assert_eq!(removed, [format!("<sip:{token}@10.0.0.2:5060>;expires=0"), "<sip:old@10.9.9.9:5060>;expires=0".into()]);
    assert!(world.said().is_empty());
    world.wait(450_000);
    let refresh = world.one();
    world.receive(REGISTRAR, &Phone::response(&refresh, 200, &listed));
    assert!(world.said().is_empty(), "what cannot be removed is not tried again");
}

#[test]
fn a_removal_may_be_challenged_and_refused_without_harm() {
    let (mut world, register) = started(Some("secret"));
    let listed = format!("Contact: <sip:old@10.9.9.9>;+sip.instance=\"<{INSTANCE}>\"\r\n");
    world.receive(REGISTRAR, &Phone::response(&register, 200, &listed));
    let removal = world.one();
    world.receive(REGISTRAR, &Phone::response(&removal, 401, &challenge("example.com", "MD5", "auth")));
    let again = world.one();
    assert_eq!(contacts(&again), contacts(&removal));
    assert!(again.header("Authorization").contains("response="));
    world.receive(REGISTRAR, &Phone::response(&again, 403, ""));
    assert_eq!(world.events().len(), 1);
    assert_eq!(status(&world), Status::Registered { public: None });
}

#[test]
fn a_registrar_that_sends_on_is_followed_once_for_each_host() {
    let (mut world, register) = started(Some("secret"));
    world.receive(REGISTRAR, &Phone::response(&register, 302, "Contact: <sip:two.example.com:5080>\r\n"));
    assert_eq!(world.resolves.pop(), Some(("two.example.com".into(), Some(5080))));
    world.resolve("two.example.com", Some(5080), &["192.0.2.9:5080"]);
    let second = world.one();
    assert_eq!(second.remote, "192.0.2.9:5080");
    assert!(second.text().starts_with("REGISTER sip:two.example.com:5080 SIP/2.0\r\n"));
    world.receive("192.0.2.9:5080", &Phone::response(&second, 301, "Contact: <sip:two.example.com>\r\n"));
    assert!(failure(&mut world).0.contains("two.example.com"));
    world.resolves.clear();
    world.pass(1_001);
    assert_eq!(world.resolves, [("sip.example.com".into(), None)], "the configured one has the next turn");
}

#[test]
fn who_we_are_sent_to_gets_no_digest_for_a_realm_of_its_own() {
    for (realm, is_answered) in [("example.com", true), ("elsewhere.example", false)] {
        let (mut world, register) = started(Some("secret"));
        world.receive(REGISTRAR, &Phone::response(&register, 401, &challenge("example.com", "MD5", "auth")));
        let answered = world.one();
        world.receive(REGISTRAR, &Phone::response(&answered, 302, "Contact: <sip:two.example.com>\r\n"));
        world.resolve("two.example.com", None, &["192.0.2.9:5060"]);
        let second = world.one();
        assert!(second.header("Authorization").is_empty());
        world.receive("192.0.2.9:5060", &Phone::response(&second, 401, &challenge(realm, "MD5", "auth")));
        let sent = world.sent();
        assert_eq!(sent.len(), usize::from(is_answered));
        if !is_answered {
            let (text, pause) = failure(&mut world);
            assert!(text.contains("elsewhere.example") && text.contains("-sip-registrar"), "{text}");
            assert!(pause >= Duration::from_secs(240));
        }
    }
}

#[test]
fn a_digest_weaker_than_the_one_before_is_refused() {
    let (mut world, register) = started(Some("secret"));
    world.receive(REGISTRAR, &Phone::response(&register, 401, &challenge("example.com", "SHA-512-256", "auth")));
    let strong = world.one();
    assert!(strong.header("Authorization").contains("algorithm=SHA-512-256"));
    world.receive(REGISTRAR, &Phone::response(&strong, 200, ""));
    world.events();
    world.wait(450_000);
    let refresh = world.one();
    world.receive(REGISTRAR, &Phone::response(&refresh, 401, &challenge("example.com", "MD5", "auth")));
    assert!(world.sent().is_empty());
    let (text, _) = failure(&mut world);
    assert!(text.contains("weaker digest"), "{text}");
    assert_eq!(status(&world), Status::Failed { why: text });
}

#[test]
fn auth_int_is_answered_where_nothing_else_is_offered() {
    let (mut world, register) = started(Some("secret"));
    world.receive(REGISTRAR, &Phone::response(&register, 401, &challenge("example.com", "MD5", "auth-int")));
    let answer = world.one().header("Authorization");
    assert!(answer.contains("qop=auth-int") && answer.contains("nc=00000001"), "{answer}");
}

#[test]
fn a_registrar_that_dies_for_a_while_has_us_again_within_thirty_seconds() {
    for away_ms in [30_000, 47_000, 90_000, 200_000] {
        let (mut world, register) = started(None);
        world.receive(REGISTRAR, &Phone::response(&register, 200, ""));
        world.registrar_lives = true;
        world.pass(100_000);
        world.sent();
        world.events();
        world.registrar_lives = false;
        pass_resolving(&mut world, away_ms, |world| drop(world.sent()));
        // It is back, and has forgotten us.
        let back_ms = world.now_ms();
        world.registrar_lives = true;
        world.events();
        let mut again_ms = None;
        pass_resolving(&mut world, 30_000, |world| {
            for register in world.sent().iter().filter(|one| one.what() == "REGISTER") {
                world.receive(REGISTRAR, &Phone::response(register, 200, ""));
            }
            let is_registered = |event: &Event| matches!(event, Event::Registered { .. });
            if again_ms.is_none() && world.events().iter().any(is_registered) {
                again_ms = Some(world.now_ms() - back_ms);
            }
        });
        assert!(again_ms.is_some(), "not registered 30 s after {away_ms} ms away");
    }
}

#[test]
fn a_registrar_that_answers_no_questions_is_asked_twice_and_left_alone() {
    let (mut world, register) = started(None);
    world.receive(REGISTRAR, &Phone::response(&register, 200, ""));
    world.pass(300_000);
    let pings = world.pings();
    let branches: std::collections::BTreeSet<_> =
        pings.iter().map(|ping| ping.headers().via().unwrap().branch().unwrap().into_owned()).collect();
    assert_eq!(branches.len(), 2);
    assert!(pings.iter().all(|ping| ping.text().starts_with("OPTIONS sip:example.com SIP/2.0\r\n")));
    assert!(world.said().is_empty());
    assert!(matches!(world.events()[..], [Event::Registered { .. }]));
}

#[test]
fn what_is_told_of_messages_shows_neither_the_token_nor_a_digest() {
    let (mut world, register) = started(Some("secret"));
    world.receive(REGISTRAR, &Phone::response(&register, 401, &challenge("example.com", "MD5", "auth")));
    let answer = world.one();
    let Ok(Contacts::List(contacts)) = answer.headers().contacts() else { panic!() };
    let token = contacts[0].uri.user().unwrap().into_owned();
    let authorization = answer.header("Authorization");
    let digest = authorization.split("response=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!((world.passed.len(), digest.len()), (3, 32));
    for passed in &world.passed {
        let text = String::from_utf8(passed.bytes.clone()).unwrap();
        assert!(!text.contains(&token) && !text.contains(digest), "{text}");
    }
    assert!(world.passed[2].bytes.len() == answer.bytes.len());
}

#[test]
fn a_gruu_is_the_contact_of_calls_that_come_by_the_registrar_and_of_no_others() {
    let mut config = config(Some("sip.example.com"), None);
    (config.instance, config.gruu) = (Some(INSTANCE.into()), true);
    config.allow = vec!["10.0.0.7".parse().unwrap()];
    let mut world = World::new(config);
    world.act(|endpoint, now| endpoint.start(now));
    world.resolve("sip.example.com", None, &[REGISTRAR]);
    let register = world.one();
    assert!(register.header("Supported").ends_with(", outbound, gruu"));
    let gruu = "sip:6002@example.com;gr=urn:uuid:2ed6657d";
    let listed =
        format!("Contact: {};pub-gruu=\"{gruu}\";temp-gruu=\"sip:x@example.com;gr\"\r\n", contacts(&register)[0]);
    world.receive(REGISTRAR, &Phone::response(&register, 200, &listed));
    world.events();
    for (from, contact) in [(REGISTRAR, format!("<{gruu}>")), (PHONE, "<sip:6002@10.0.0.2:5060>".into())] {
        let mut phone = Phone { call_id: from.into(), branch: from.len() as u32, ..Phone::new() };
        let invite = phone.request("INVITE", "", OFFER);
        world.receive(from, &invite);
        let call = world.invited();
        world.sent();
        world.act(|endpoint, now| endpoint.ring(now, call));
        assert_eq!(world.one().header("Contact"), contact);
    }
}

/// The answer to a STUN question: we are seen at `address`.
fn stun_answer(question: &Sent, address: &str) -> Vec<u8> {
    let id = stun::Message::parse(&question.bytes).unwrap().transaction_id;
    let answer = stun::Builder::new(stun::Class::Success, id).xor_mapped_address(address.parse().unwrap());
    answer.finish_unsigned()
}

#[test]
fn a_registrar_that_keeps_flows_is_asked_by_stun_as_often_as_it_wants() {
    let (mut world, register) = started(None);
    let extra = "Require: outbound\r\nFlow-Timer: 20\r\n";
    world.receive(REGISTRAR, &Phone::response(&register, 200, extra));
    world.events();
    world.wait(20_001);
    let question = world.one();
    assert!((16_000..=20_000).contains(&question.at_ms) && question.bytes.starts_with(&[0, 1, 0, 0]), "{question:?}");
    // Lost on the way: it is repeated. A forged answer has the wrong source.
    world.pass(600);
    assert_eq!(world.one().bytes, question.bytes);
    world.receive_bytes("10.6.6.6:5060", &stun_answer(&question, "10.0.0.2:5060"));
    world.pass(1_100);
    assert_eq!(world.one().bytes, question.bytes);
    world.receive_bytes(REGISTRAR, &stun_answer(&question, "10.0.0.2:5060"));
    world.pass(10_000);
    assert!(world.sent().is_empty() && world.pings().is_empty());
    // The NAT has given us another address: the registrar must know at once.
    world.wait(20_000);
    let question = world.one();
    world.receive_bytes(REGISTRAR, &stun_answer(&question, "198.51.100.4:40000"));
    let moved = world.one();
    assert!(contacts(&moved)[0].contains("@198.51.100.4:40000>"), "{:?}", contacts(&moved));
    let seen = Phone::response(&moved, 200, extra).replace(";rport", ";rport=40000;received=198.51.100.4");
    world.receive(REGISTRAR, &seen);
    // No answer within ten seconds: it may have restarted.
    world.events();
    world.wait(20_001);
    world.pass(10_000);
    assert_eq!(std::mem::take(&mut world.resolves).last(), Some(&("sip.example.com".to_owned(), None)));
}
