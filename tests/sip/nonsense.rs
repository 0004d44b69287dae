//! A registrar that answers nonsense for ten minutes: it is asked rarely, nothing that it says is believed for long, and when it
//! makes sense again we are registered soon.

use galene_sip::sip::event::Event;

use crate::peer::{Phone, REGISTRAR, Sent, World, config};

const NONSENSE_MS: u64 = 600_000;
/// Pauses grow to 20 s, an attempt that gets no answer takes 32 s and up to 11 datagrams, and one that is challenged in vain five.
const MOST_ASKED: usize = 240;
/// The longest pause, and an attempt that is still waiting for its last answer.
const AGAIN_WITHIN_MS: u64 = 60_000;

fn challenge(nonce: usize, more: &str) -> String {
    format!("WWW-Authenticate: Digest realm=\"example.com\", nonce=\"n{nonce}\", qop=\"auth\"{more}\r\n")
}

/// What it answers to its nth REGISTER.
type Nonsense = fn(usize, &Sent) -> Vec<String>;

const NONSENSE: [(&str, Nonsense); 18] = [
    ("nothing", |_, _| vec![]),
    ("bytes", |nth, _| vec!["\u{fffd}\0\u{1}".repeat(nth % 50 + 1)]),
    ("a status of 999", |_, register| vec![Phone::response(register, 999, "")]),
    ("a status that is none", |_, register| vec![Phone::response(register, 200, "").replace(" 200 ", " OK ")]),
    ("100 for ever", |_, register| vec![Phone::response(register, 100, "")]),
    ("200 for another method", |_, register| {
        vec![Phone::response(register, 200, "").replace(" REGISTER\r\n", " INVITE\r\n")]
    }),
    ("200 for another transaction", |_, register| {
        vec![Phone::response(register, 200, "").replace("branch=z9hG4bK", "branch=z9hG4bKx")]
    }),
    ("200 that keeps nothing", |_, register| vec![Phone::response(register, 200, "Expires: 0\r\n")]),
    ("new nonces without end", |nth, register| vec![Phone::response(register, 401, &challenge(nth, ", stale=true"))]),
    ("two kinds of challenges without end", |nth, register| {
        let proxy = challenge(nth, ", stale=true").replace("WWW", "Proxy");
        let (status, extra) = if nth % 2 == 0 { (407, proxy) } else { (401, challenge(nth, ", stale=true")) };
        vec![Phone::response(register, status, &extra)]
    }),
    ("423 without Min-Expires", |_, register| vec![Phone::response(register, 423, "")]),
    ("423 with ever more", |nth, register| {
        vec![Phone::response(register, 423, &format!("Min-Expires: {}\r\n", 700 + nth * 1000))]
    }),
    ("423 with centuries", |_, register| vec![Phone::response(register, 423, "Min-Expires: 4294967296\r\n")]),
    ("302 to itself", |_, register| vec![Phone::response(register, 302, "Contact: <sip:sip.example.com>\r\n")]),
    ("302 to ever new hosts", |nth, register| {
        vec![Phone::response(register, 302, &format!("Contact: <sip:h{nth}.example.com>\r\n"))]
    }),
    ("302 to nowhere", |_, register| vec![Phone::response(register, 302, "")]),
    ("439 for ever", |_, register| vec![Phone::response(register, 439, "")]),
    ("500 with a large body, twice", |_, register| {
        let large = Phone::response_with(register, 500, "", &"x".repeat(60_000));
        vec![large.clone(), large]
    }),
];

/// Lets time pass in small steps; each REGISTER gets these answers. How many there were.
fn answer_for(world: &mut World, ms: u64, asked: &mut usize, answers: impl Fn(usize, &Sent) -> Vec<String>) {
    let end_ms = world.now_ms() + ms;
    while world.now_ms() < end_ms {
        for (host, _) in std::mem::take(&mut world.resolves) {
            world.resolve(&host, None, &[REGISTRAR]);
        }
        let sent = world.sent();
        if sent.is_empty() && world.resolves.is_empty() {
            world.pass(100);
        }
        for register in sent.iter().filter(|one| one.what() == "REGISTER") {
            *asked += 1;
            answers(*asked, register).iter().for_each(|answer| world.receive(REGISTRAR, answer));
        }
    }
}

#[test]
fn whatever_it_answers_it_is_asked_rarely_and_has_us_again_when_it_makes_sense() {
    for (name, nonsense) in NONSENSE {
        let mut world = World::new(config(Some("sip.example.com"), Some("secret")));
        world.registrar_lives = true;
        world.act(|endpoint, now| endpoint.start(now));
        let mut asked = 0;
        answer_for(&mut world, NONSENSE_MS, &mut asked, nonsense);
        assert!((10..=MOST_ASKED).contains(&asked), "{name}: {asked} REGISTERs in ten minutes");
        let events = world.events();
        assert!(!events.iter().any(|event| matches!(event, Event::Registered { .. })), "{name}: {events:?}");
        answer_for(&mut world, AGAIN_WITHIN_MS, &mut asked, |_, register| vec![Phone::response(register, 200, "")]);
        let events = world.events();
        let granted = events.iter().any(|event| matches!(event, Event::Registered { expires_s: 600.., .. }));
        assert!(granted, "{name}: {events:?}");
    }
}

#[test]
fn lifetimes_that_make_no_sense_neither_spin_nor_last() {
    for (lifetime, least, most) in [
        ("Expires: 1\r\n", 60, 121),
        ("Expires: 4294967296\r\n", 1, 2),
        ("Expires: -5\r\n", 1, 3),
        ("Expires: soon\r\n", 1, 3),
    ] {
        let mut world = World::new(config(Some("sip.example.com"), None));
        world.registrar_lives = true;
        world.act(|endpoint, now| endpoint.start(now));
        let mut asked = 0;
        answer_for(&mut world, NONSENSE_MS, &mut asked, |_, register| vec![Phone::response(register, 200, lifetime)]);
        assert!((least..=most).contains(&asked), "{lifetime}: {asked} REGISTERs in ten minutes");
        // Also a registrar that promises years is asked again within the hour.
        answer_for(&mut world, 3_600_000, &mut asked, |_, register| vec![Phone::response(register, 200, lifetime)]);
        assert!(asked > least, "{lifetime}: {asked} REGISTERs in 70 minutes");
    }
}
