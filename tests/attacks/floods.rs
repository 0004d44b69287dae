//! Too much of what is right.
//!
//! Owns: nine floods of the SIP ports. Strangers' go to the guarded gateway, which refuses them; those of callers who are let in
//! to either.

use std::net::UdpSocket;
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::sip::auth::{Authorizer, Challenge, Credentials};
use galene_sip::wire::sip::Message;

use crate::caller::receive;
use crate::ground::{GUARDED_CALLS, Ground, OFFER, message, paced, request, stranger, unique};

/// What came back so far, by status.
fn answers(socket: &UdpSocket) -> Vec<u16> {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = vec![0; 65_536];
    let next = || {
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).get(8..11).and_then(|status| status.parse().ok()).unwrap_or(0))
    };
    std::iter::from_fn(next).collect()
}

/// Somebody who may call does so three hundred times and acknowledges nothing. The calls end by themselves (64·T1), which the
/// end of all attacks waits for.
pub(crate) fn invites_without_ack(ground: &mut Ground) {
    let caller = stranger(1);
    for index in 0..300 {
        let invite = request("INVITE", &unique(), &caller, ground.guarded.udp(), "", OFFER);
        caller.send_to(&invite, ground.guarded.udp()).unwrap();
        paced(index);
    }
    let mut statuses = answers(&caller);
    statuses.retain(|&status| status == 503);
    // Ours may have lost some of them: its socket takes a few hundred that nobody reads.
    assert!((100..=300 - GUARDED_CALLS).contains(&statuses.len()), "{} of 300 got 503", statuses.len());
}

/// The same from a stranger.
pub(crate) fn invites_of_a_stranger(ground: &mut Ground) {
    let socket = stranger(20);
    for index in 0..4000 {
        let invite = request("INVITE", &unique(), &socket, ground.guarded.udp(), "", OFFER);
        socket.send_to(&invite, ground.guarded.udp()).unwrap();
        paced(index);
    }
    assert!(answers(&socket).iter().all(|&status| status == 401));
}

/// The same from two hundred of them.
pub(crate) fn invites_of_many(ground: &mut Ground) {
    let sockets: Vec<UdpSocket> = (30..230).map(stranger).collect();
    for index in 0..4000 {
        let socket = &sockets[index % sockets.len()];
        let invite = request("INVITE", &unique(), socket, ground.guarded.udp(), "", OFFER);
        socket.send_to(&invite, ground.guarded.udp()).unwrap();
        paced(index);
    }
    let lines = ground.guarded.gateway.lines();
    let told = lines.iter().filter(|line| line.contains(" stranger ")).count();
    assert!(told <= 120, "{told} lines about strangers");
}

fn flood(ground: &Ground, method: &str, expected: u16) {
    let socket = stranger(21);
    for index in 0..4000 {
        socket.send_to(&message(method, &socket, ground.open.udp(), ""), ground.open.udp()).unwrap();
        paced(index);
    }
    let answers = answers(&socket);
    assert!(!answers.is_empty() && answers.iter().all(|&status| status == expected || status == 503), "{answers:?}");
}

pub(crate) fn registers(ground: &mut Ground) {
    flood(ground, "REGISTER", 405);
}

pub(crate) fn options(ground: &mut Ground) {
    flood(ground, "OPTIONS", 200);
}

/// One transaction, sent again and again.
pub(crate) fn one_transaction(ground: &mut Ground) {
    let socket = stranger(22);
    let options = message("OPTIONS", &socket, ground.open.udp(), "");
    let invite = request("INVITE", &unique(), &socket, ground.open.udp(), "Require: nothing\r\n", OFFER);
    for index in 0..4000 {
        socket.send_to(if index % 2 == 0 { &options } else { &invite }, ground.open.udp()).unwrap();
        paced(index);
    }
    assert!(answers(&socket).iter().all(|status| [100, 200, 420, 503].contains(status)));
}

/// Calls that are taken back before, while and after they are answered.
pub(crate) fn cancel_races(ground: &mut Ground) {
    let socket = stranger(23);
    for index in 0..150_u64 {
        let word = unique();
        let udp = ground.open.udp();
        let cancel = String::from_utf8(request("CANCEL", &word, &socket, udp, "", "")).unwrap();
        let invite = request("INVITE", &word, &socket, udp, "", OFFER);
        if index % 3 == 0 {
            socket.send_to(cancel.as_bytes(), udp).unwrap();
        }
        socket.send_to(&invite, udp).unwrap();
        std::thread::sleep(Duration::from_micros(index % 5 * 500));
        socket.send_to(cancel.as_bytes(), udp).unwrap();
        // What was answered in spite of it is ended as a telephone does.
        let answer = receive(&socket, |text| {
            text.contains(&word) && text.contains(" INVITE\r\n") && !text.starts_with("SIP/2.0 1")
        });
        let answer = answer.expect("a final answer");
        let header = |name: &str| answer.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let is_up = answer.starts_with("SIP/2.0 2");
        for (number, method) in [(1, "ACK"), (2, "BYE")].into_iter().take(if is_up { 2 } else { 1 }) {
            let branch = if is_up { unique() } else { word.clone() };
            let text = format!(
                "{method} sip:6002@{udp} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK{branch}\r\n{}\r\n{}\r\n{}\r\n\
                 CSeq: {number} {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
                socket.local_addr().unwrap(),
                header("From"),
                header("To"),
                header("Call-ID")
            );
            socket.send_to(text.as_bytes(), udp).unwrap();
        }
    }
}

/// Five guesses, and no more.
pub(crate) fn guessed_passwords(ground: &mut Ground) {
    let socket = stranger(24);
    let udp = ground.guarded.udp();
    let ask = |more: &str| {
        socket.send_to(&message("OPTIONS", &socket, udp, more), udp).unwrap();
        receive(&socket, |text| text.starts_with("SIP/2.0")).expect("an answer")
    };
    let mut wrong = 0;
    let status = loop {
        let challenged = ask("");
        if !challenged.starts_with("SIP/2.0 401") || wrong == 20 {
            break challenged;
        }
        wrong += 1;
        ask(&guess(&challenged, &format!("guess {wrong}")));
    };
    assert!(status.starts_with("SIP/2.0 403") && wrong == 5, "{wrong} guesses, then {status}");
    let next = stranger(25);
    next.send_to(&message("OPTIONS", &next, udp, ""), udp).unwrap();
    let answer = receive(&next, |_| true).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 401"), "the next address is asked: {answer}");
}

/// The header that answers a 401.
pub(crate) fn guess(challenged: &str, password: &str) -> String {
    let Ok(Message::Response(response)) = Message::parse(challenged.as_bytes()) else { panic!("{challenged}") };
    let challenge = Challenge::choose(&response.headers, false).unwrap();
    let mut authorizer = Authorizer::new(challenge, &mut Random::for_test(3));
    let credentials = Credentials { username: "door".into(), password: password.into() };
    format!("Authorization: {}\r\n", authorizer.authorize(&credentials, "OPTIONS", "sip:6002@127.0.0.1", &[]))
}

/// What belongs to other protocols, at the port of SIP.
pub(crate) fn other_protocols(ground: &mut Ground) {
    let socket = stranger(26);
    for index in 0..4000 {
        let bytes = if index % 2 == 0 { crate::media::stun_request("a:b") } else { crate::media::client_hello(index) };
        socket.send_to(&bytes, ground.open.udp()).unwrap();
        paced(index);
    }
    assert!(answers(&socket).is_empty(), "none is answered");
}
