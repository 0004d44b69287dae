//! Thirty-nine attacks on the running program: afterwards it is the same process, answers at once, has given everything back and
//! carries a call as well as before.
//!
//! Owns: their order, and what is asserted after each (the process, OPTIONS within 100 ms), each family (a fresh call heard both
//! ways, descriptors and threads exactly back) and all (memory, PESQ). Everybody is at an address of his own in 127.0.0.0/8.
//! With `GALENE_SIP_LONG` a call is judged by PESQ after each.
//! The program runs as in production: optimisation of the test profile, log without `-debug`.

mod caller;
mod connections;
mod fail2ban;
mod floods;
mod galene;
mod ground;
mod junk;
mod media;
#[path = "../real/mod.rs"]
mod real;
mod sip_messages;

use std::time::{Duration, Instant};

use ground::{GUARDED_CALLS, Ground};
use real::{alone, measure_memory_finely};

/// What an attack is called, and what it does.
type Attack = (&'static str, fn(&mut Ground));

/// What all attacks together may leave in resident memory, each of two gateways: a heap that is cut up, by messages of up to 65 kB.
/// It ends: of five rounds in one process the first took 2.0 MB, the next two 0.6 each, the last two 8 and 24 KiB. The
/// bound finds what loses more than some 60 bytes for each of 60 000 messages and datagrams.
const GROWTH_KIB: u64 = 4096;

/// Calls that were never acknowledged end after 64·T1.
const UNACKNOWLEDGED: Duration = Duration::from_secs(40);

const SIP_MESSAGES: [Attack; 14] = [
    ("all of RFC 4475, over UDP and TCP", sip_messages::torture),
    ("overlong fields", sip_messages::overlong_fields),
    ("format strings, NULs, broken UTF-8", sip_messages::formats_and_bytes),
    ("numbers that fit nowhere", sip_messages::numbers),
    ("a thousand Vias, parameters, parentheses", sip_messages::nesting_and_repetition),
    ("datagrams of 65 kB", sip_messages::largest_datagrams),
    ("headers smuggled in", sip_messages::smuggling),
    ("responses that nobody waits for", sip_messages::stray_responses),
    ("requests of no dialog", sip_messages::requests_of_no_dialog),
    ("guessed dialogs", sip_messages::guessed_dialogs),
    ("INVITE that replaces a foreign call", sip_messages::foreign_replaces),
    ("REFER to foreign domains", sip_messages::toll_fraud),
    ("challenges and redirections of our BYE", sip_messages::digest_leaks),
    ("SDP bombs", sip_messages::sdp_bombs),
];

const FLOODS: [Attack; 9] = [
    ("INVITE without ACK", floods::invites_without_ack),
    ("INVITE of a stranger", floods::invites_of_a_stranger),
    ("INVITE of two hundred strangers", floods::invites_of_many),
    ("REGISTER", floods::registers),
    ("OPTIONS", floods::options),
    ("one transaction again and again", floods::one_transaction),
    ("CANCEL races", floods::cancel_races),
    ("guessed passwords", floods::guessed_passwords),
    ("STUN and DTLS at SIP's port", floods::other_protocols),
];

const CONNECTIONS: [Attack; 6] = [
    ("idle connections", connections::idle),
    ("half TLS handshakes", connections::half_handshakes),
    ("dripping bytes", connections::dripping),
    ("huge lengths", connections::huge_lengths),
    ("garbage", connections::garbage),
    ("five hundred comings and goings", connections::comings_and_goings),
];

const MEDIA: [Attack; 7] = [
    ("random RTP and RTCP", media::random_rtp_and_rtcp),
    ("the right SSRC and sequence, keys", media::guessed_streams),
    ("RTCP BYE", media::forged_rtcp_bye),
    ("ICE checks with a wrong password", media::ice_checks),
    ("ClientHellos and DTLS junk", media::dtls_junk),
    ("SRTP forgeries", media::srtp_forgeries),
    ("empty and largest datagrams", media::extreme_lengths),
];

const GALENE: [Attack; 2] = [
    ("floods of messages from the room", galene::floods_of_messages),
    ("junk in offers from the room", galene::junk_offers),
];

/// The thirty-ninth goes on while a call is judged.
const JUNK: &str = "2000 junk packets a second at every port, during a call";

fn attack(ground: &mut Ground, number: &mut usize, (name, act): Attack) {
    *number += 1;
    let began = Instant::now();
    act(ground);
    let took = began.elapsed();
    let prompt = [ground.open.assert_prompt(name), ground.guarded.assert_prompt(name)];
    println!(
        "{number:2}. {name}: {:.1} s; OPTIONS after {:.1} and {:.1} ms; {} and {} files, {} and {} KiB",
        took.as_secs_f64(),
        prompt[0].as_secs_f64() * 1000.0,
        prompt[1].as_secs_f64() * 1000.0,
        ground.open.gateway.open_files(),
        ground.guarded.gateway.open_files(),
        ground.open.gateway.resident_kib(),
        ground.guarded.gateway.resident_kib(),
    );
    if std::env::var_os("GALENE_SIP_LONG").is_some() {
        junk::assert_fresh_call(ground, *number);
    }
}

/// Fills what is built once: tables of transactions, the ladders of remembered calls, the places of connections, buffers of
/// a few calls and of large messages.
fn warm_up(ground: &mut Ground) {
    sip_messages::overlong_fields(ground);
    floods::invites_of_a_stranger(ground);
    connections::huge_lengths(ground);
    galene::floods_of_messages(ground);
    ground.assert_well("warm-up");
}

#[test]
fn thirty_nine_attacks_leave_the_program_as_it_was() {
    let _alone = alone();
    measure_memory_finely();
    let mut ground = Ground::new();
    let mut number = 0;
    warm_up(&mut ground);
    // Whose calls end by themselves comes first: they do so while the rest goes on.
    attack(&mut ground, &mut number, FLOODS[0]);
    let unacknowledged_since = Instant::now();
    let resident_kib = [ground.open.gateway.resident_kib(), ground.guarded.gateway.resident_kib()];
    let families: [(&str, &[Attack]); 5] = [
        ("SIP messages", &SIP_MESSAGES),
        ("floods", &FLOODS[1..]),
        ("connections", &CONNECTIONS),
        ("media", &MEDIA),
        ("Galene", &GALENE),
    ];
    for (family, attacks) in families {
        for &one in attacks {
            attack(&mut ground, &mut number, one);
        }
        ground.assert_well(family);
    }
    // Nobody else is to be in the room of the call that is judged: twelve who leave at once keep the room server busy.
    ground.guarded.assert_returned("all attacks", UNACKNOWLEDGED.saturating_sub(unacknowledged_since.elapsed()));
    println!(
        "{GUARDED_CALLS} unacknowledged calls are gone within {:.0} s",
        unacknowledged_since.elapsed().as_secs_f64()
    );
    ground.member = None;
    junk::assert_harmless(&ground);
    number += 1;
    println!("{number}. {JUNK}");
    ground.open.assert_prompt(JUNK);
    assert_eq!(number, 39);
    ground.open.assert_returned("all attacks", Duration::from_secs(10));
    for (target, before) in [&ground.open, &ground.guarded].into_iter().zip(resident_kib) {
        let growth_kib = target.gateway.resident_kib().saturating_sub(before);
        println!("{}: {growth_kib} KiB more than {before} after all attacks", target.name);
        assert!(growth_kib <= GROWTH_KIB, "{}: {growth_kib} KiB more", target.name);
        let lines = target.gateway.lines();
        assert!(!lines.iter().any(|line| line.contains("panicked") || line.contains("ERROR")), "{lines:#?}");
    }
}
