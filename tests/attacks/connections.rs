//! Connections over TCP and TLS that are no use to anyone.
//!
//! Owns: six attacks at the open gateway's listeners; after each of them somebody with a request gets through.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::ground::{Ground, connect, message, stranger};

/// Strangers' places and the system's queue are filled more than twice.
const MANY: usize = 200;
/// Connections that somebody tries who wants to be heard.
const ATTEMPTS: usize = 5;

/// A request on a new connection is answered, though perhaps not on the first one: strangers who are still on their way in
/// take its place as they take each other's.
fn assert_served(ground: &Ground) {
    let mut failures = Vec::new();
    while failures.len() < ATTEMPTS {
        match serve(ground) {
            Ok(()) => return,
            Err(why) => failures.push(why.to_string()),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("nobody gets through: {failures:?}");
}

fn serve(ground: &Ground) -> std::io::Result<()> {
    let mut stream = connect(1, ground.open.tcp);
    let request = String::from_utf8(message("OPTIONS", &stranger(1), ground.open.udp(), "")).unwrap();
    stream.write_all(request.replace("SIP/2.0/UDP", "SIP/2.0/TCP").as_bytes())?;
    let mut answer = [0; 11];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"SIP/2.0 200");
    Ok(())
}

/// Connections of many addresses, half of them to TLS, with `first` as their first words.
fn strangers(ground: &Ground, first: &[u8]) -> Vec<TcpStream> {
    let one = |index: usize| {
        let to = if index.is_multiple_of(2) { ground.open.tcp } else { ground.open.tls };
        let mut stream = connect(2 + (index % 100) as u8, to);
        // Those that are closed already had their turn.
        let _ = stream.write_all(first);
        stream
    };
    (0..MANY).map(one).collect()
}

pub(crate) fn idle(ground: &mut Ground) {
    let _held = strangers(ground, b"");
    assert_served(ground);
}

/// The beginning of a ClientHello that announces more.
pub(crate) fn half_handshakes(ground: &mut Ground) {
    let _held = strangers(ground, &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 7, 7, 7]);
    assert_served(ground);
}

pub(crate) fn dripping(ground: &mut Ground) {
    let mut held = strangers(ground, b"OPTIONS sip:6002@h SIP/2.0\r\nVia: SIP");
    for _ in 0..10 {
        for stream in &mut held {
            let _ = stream.write_all(b"a");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_served(ground);
}

/// Messages whose end is far away.
pub(crate) fn huge_lengths(ground: &mut Ground) {
    for length in ["16000", "999999999", "18446744073709551616", "-5"] {
        let head =
            format!("OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bKa\r\nContent-Length: {length}\r\n\r\n");
        let mut held = strangers(ground, head.as_bytes());
        for stream in &mut held {
            let _ = stream.write_all(&[b'x'; 15_000]);
        }
        assert_served(ground);
    }
}

pub(crate) fn garbage(ground: &mut Ground) {
    let long_line = vec![b'a'; 100_000];
    let noise: Vec<u8> = (0..20_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for first in [&long_line[..], &noise, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n\r\n\r\n", &[0; 30_000]] {
        let _held = strangers(ground, first);
        assert_served(ground);
    }
}

/// Opened and closed at once, five hundred times.
pub(crate) fn comings_and_goings(ground: &mut Ground) {
    for index in 0..500_u32 {
        drop(connect(2 + (index % 200) as u8, if index.is_multiple_of(2) { ground.open.tcp } else { ground.open.tls }));
    }
    assert_served(ground);
}
