//! Datagrams of strangers at the ports of media, while a call goes on.
//!
//! Owns: seven attacks, junk of every kind. That a stranger's packet is dropped is known to `tests/media_threads.rs` and the latch;
//! here the call must stay heard, and the stranger get nothing.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use lab::member::MemberEventKind;
use lab::telephone::Telephone;

use crate::caller::{Caller, SSRC, rtp};
use crate::ground::{Ground, paced, stranger};
use crate::real::{AUDIBLE_DBFS, eventually, names};

/// Datagrams of an attack at each port.
const SHOTS: usize = 1000;

/// A STUN Binding request (RFC 8489) for a user, with a wrong MESSAGE-INTEGRITY.
pub(crate) fn stun_request(user: &str) -> Vec<u8> {
    let padded = user.len().div_ceil(4) * 4;
    let mut bytes = vec![0, 1];
    bytes.extend(((4 + padded + 24 + 4) as u16).to_be_bytes());
    bytes.extend([0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    bytes.extend([0, 6]);
    bytes.extend((user.len() as u16).to_be_bytes());
    bytes.extend(user.bytes().chain(std::iter::repeat(0)).take(padded));
    // USE-CANDIDATE, then the integrity.
    bytes.extend([0, 0x25, 0, 0, 0, 8, 0, 20]);
    bytes.extend([0x5A; 20]);
    bytes
}

/// A DTLS 1.2 ClientHello (RFC 6347), in form at least.
pub(crate) fn client_hello(seed: usize) -> Vec<u8> {
    let mut body = vec![254, 253];
    body.extend((0..32).map(|byte| (seed * 31 + byte) as u8));
    body.extend([0, 0, 0, 4, 0xC0, 0x2B, 0xC0, 0x2F, 1, 0, 0, 0]);
    let length = body.len() as u8;
    let handshake = [&[1, 0, 0, length, 0, 0, 0, 0, 0, 0, 0, length][..], &body].concat();
    [&[22, 254, 255, 0, 0, 0, 0, 0, 0, 0, seed as u8, 0, handshake.len() as u8][..], &handshake].concat()
}

/// Anything, of any length.
pub(crate) fn noise(seed: usize) -> Vec<u8> {
    let length = seed * 7919 % 1400;
    (0..length).map(|at| ((seed * 2_654_435_761 + at * 40_503) >> 11) as u8).collect()
}

/// RTCP: a sender report, a BYE or feedback about `ssrc`.
pub(crate) fn rtcp(seed: usize, ssrc: u32) -> Vec<u8> {
    let (count, kind, words) =
        [(0, 200, 6), (1, 203, 1), (1, 205, 3), (1, 206, 2), (31, 201, 1), (2, 204, 2)][seed % 6];
    let mut bytes = vec![0x80 | count, kind, 0, words];
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend(noise(seed + 200).into_iter().cycle().take(4 * usize::from(words) - 4));
    bytes
}

/// Shoots at every media port of a call that is heard both ways, before and afterwards; strangers must get nothing.
fn shoot(ground: &mut Ground, name: &str, shot: impl Fn(usize, SocketAddr) -> Vec<u8>) {
    let telephone = ground.call(name);
    eventually("RTP, RTCP and two ports to Galene", || ground.open.media_ports().len() >= 4);
    let ports = ground.open.media_ports();
    let strangers: Vec<UdpSocket> = (60..64).map(stranger).collect();
    for index in 0..SHOTS {
        for &port in &ports {
            strangers[index % strangers.len()].send_to(&shot(index, port), port).unwrap();
        }
        paced(index * ports.len().div_ceil(4));
        if index % 10 == 9 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    still_heard(ground, telephone, name, &strangers);
}

fn still_heard(ground: &mut Ground, telephone: Telephone, name: &str, strangers: &[UdpSocket]) {
    ground.assert_heard(&telephone, name);
    for stranger in strangers {
        stranger.set_nonblocking(true).unwrap();
        assert!(stranger.recv(&mut [0; 2000]).is_err(), "{name}: a stranger is answered");
    }
    let report = telephone.finish();
    assert_eq!((report.reception.sources, report.reception.timestamp_jumps), (1, 0), "{:?}", report.reception);
}

pub(crate) fn random_rtp_and_rtcp(ground: &mut Ground) {
    shoot(ground, "Sprayed", |index, _| match index % 3 {
        0 => rtp((index % 128) as u8, index as u16, index as u32, &noise(index)),
        1 => rtcp(index, index as u32),
        _ => [&[0x80 | (index % 32) as u8, index as u8][..], &noise(index)].concat(),
    });
}

/// A stranger knows the source and the sequence of a call's voice, and is loud, and presses keys.
pub(crate) fn guessed_streams(ground: &mut Ground) {
    let mut victim = Caller::call(ground.open.udp(), 1, "Guessed");
    eventually("the caller is in the room", || names(&ground.room).iter().any(|name| name == "Guessed"));
    victim.speak_silence(25);
    let attacker = stranger(65);
    victim.heard_packets();
    let member = ground.member.as_mut().unwrap();
    member.events.forget();
    for round in 0..25 {
        for ahead in 0..20 {
            let sequence = victim.sequence().wrapping_add(ahead);
            let loud = [[0x00_u8, 0x80]; 80].concat();
            attacker.send_to(&rtp(0, sequence, SSRC, &loud), victim.media).unwrap();
            attacker.send_to(&rtp(101, sequence, SSRC, &[round % 12, 0x8A, 3, 0x20]), victim.media).unwrap();
        }
        victim.speak_silence(2);
    }
    let heard = victim.heard_packets();
    assert!(heard >= 40, "{heard} packets in a second: the sound goes elsewhere");
    attacker.set_nonblocking(true).unwrap();
    assert!(attacker.recv(&mut [0; 2000]).is_err(), "the sound goes to the attacker");
    let is_loud = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Level { username, dbfs, .. } if username == "Guessed" && *dbfs > AUDIBLE_DBFS);
    assert!(!member.events.all().iter().any(|event| is_loud(&event.kind)), "the attacker is heard in the room");
    let lines = ground.open.gateway.lines();
    assert!(!lines.iter().any(|line| line.contains("Guessed") && line.contains("key")), "the attacker's keys are told");
}

/// BYE in RTCP, for the telephone's and for any source.
pub(crate) fn forged_rtcp_bye(ground: &mut Ground) {
    shoot(ground, "Forged BYE", |index, _| rtcp(1 + 6 * index, if index % 2 == 0 { SSRC } else { index as u32 }));
}

/// Checks for users that there may be, with the wrong password, and STUN that is none.
pub(crate) fn ice_checks(ground: &mut Ground) {
    shoot(ground, "Checked", |index, _| match index % 4 {
        0 => stun_request("user:user"),
        1 => stun_request(&"x".repeat(index % 500)),
        2 => [&[1, 1, 255, 252, 0x21, 0x12, 0xA4, 0x42][..], &noise(index)].concat(),
        _ => [&[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42][..], &[0; 12], &[0, 6, 255, 255]].concat(),
    });
}

pub(crate) fn dtls_junk(ground: &mut Ground) {
    shoot(ground, "Greeted", |index, _| match index % 3 {
        0 | 1 => client_hello(index),
        _ => [&[(20 + index % 44) as u8, 254, 253][..], &noise(index)].concat(),
    });
}

/// Packets that look like Galene's but for their tags, from strangers.
pub(crate) fn srtp_forgeries(ground: &mut Ground) {
    shoot(ground, "Enciphered", |index, _| {
        let mut packet = rtp(111, index as u16, 1, &noise(index + 100));
        packet.extend([0; 16]);
        packet
    });
}

/// Nothing, and as much as there may be.
pub(crate) fn extreme_lengths(ground: &mut Ground) {
    shoot(ground, "Extreme", |index, _| match index % 8 {
        0 => rtp(0, index as u16, 7, &[0; 65_000]),
        1 => vec![0x80],
        2 => vec![0; 3],
        3 => [&[0x8F, 0][..], &[0; 10]].concat(),
        4 => [&[0x90, 0][..], &[0; 12], &[255; 4]].concat(),
        _ => Vec::new(),
    });
}
