//! Junk at every port while two people talk: nobody hears a difference.
//!
//! Owns: one call without junk, which is the fresh call after all attacks, and one with it, compared by PESQ; with
//! `GALENE_SIP_LONG`, a fresh call after each attack.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lab::program::{Folder, make_do};
use lab::speech::Reference;
use lab::trial::{self, Outcome, TrialSetup};

use crate::caller::{SSRC, rtp};
use crate::ground::{Ground, Target, message, stranger};
use crate::media;
use crate::real::{GROUP, assert_once};

/// Packets a second at each port.
const A_SECOND: u32 = 2000;
/// The least that telephone to room may have after all attacks.
const LEAST_UP: f64 = 4.2;
/// With less than this from room to telephone the machine has been too busy to judge by; it is 4.06 otherwise.
const LEAST_DOWN: f64 = 3.8;
/// What junk may take of either direction.
const MOST_LOST: f64 = 0.1;
/// What PESQ needs to be sure of (P.862.3 §9.2).
const SPEECH_S: f64 = 8.0;

fn call(ground: &Ground, folder: &Folder, caller: &str) -> Outcome {
    let setup = TrialSetup {
        group_url: ground.room.group_url(GROUP),
        gateway_uri: ground.open.gateway.uri(),
        member: format!("Friend of {caller}"),
        caller: caller.to_owned(),
        password: String::new(),
        insecure: true,
        is_encrypted: false,
        folder: folder.path().join(caller),
    };
    trial::run(&setup, &Reference::new().beginning(SPEECH_S), |_| ())
        .unwrap_or_else(|why| panic!("{why}: {}", ground.open.last_words()))
}

/// PESQ up and down, none of it where the speech is not to be recognised; where there is no PESQ, that alone has judged.
fn pesq(outcome: &Outcome) -> Option<[f64; 2]> {
    if ![&outcome.up, &outcome.down].iter().all(|heard| heard.quality.is_recognised()) {
        println!("    up {}; down {}", outcome.up.quality, outcome.down.quality);
        return Some([0.0; 2]);
    }
    match (&outcome.up.perceived, &outcome.down.perceived) {
        (Ok(up), Ok(down)) => Some([up.pesq_nb, down.pesq_nb]),
        (Err(why), _) | (_, Err(why)) => {
            make_do(&format!("judged without PESQ: {why}"));
            None
        }
    }
}

/// After one attack, a call of which the room hears all. What the telephone hears is not judged: others speak in the room.
pub(crate) fn assert_fresh_call(ground: &Ground, number: usize) {
    let folder = Folder::new().unwrap();
    let mut calls = 0;
    assert_once(&format!("after attack {number}"), || {
        calls += 1;
        match call(ground, &folder, &format!("Fresh {number} {calls}")).up.perceived {
            Ok(perceived) => {
                let found = format!("PESQ up {:.2}", perceived.pesq_nb);
                println!("    {found}");
                (perceived.pesq_nb >= LEAST_UP).then_some(()).ok_or(found)
            }
            Err(why) => {
                make_do(&format!("judged without PESQ: {why}"));
                Ok(())
            }
        }
    });
}

/// A fresh call is as good as any, and one under junk is as good as that. The same junk goes to nobody meanwhile, so that
/// sending it costs the machine, which carries the room and the telephone too, the same.
pub(crate) fn assert_harmless(ground: &Ground) {
    let folder = Folder::new().unwrap();
    let mut rounds = 0;
    assert_once("a call under junk", || {
        rounds += 1;
        let (clean, _) = under_junk(ground, false, || call(ground, &folder, &format!("Clean {rounds}")));
        let (junk, sent) = under_junk(ground, true, || call(ground, &folder, &format!("Junk {rounds}")));
        let (clean, junk) = (pesq(&clean), pesq(&junk));
        let found = format!("PESQ up and down {clean:.2?} without junk, {junk:.2?} with it, {sent}");
        println!("    {found}");
        let is_good = match (clean, junk) {
            (Some(clean), Some(junk)) => {
                let is_judge = clean[0] >= LEAST_UP && clean[1] >= LEAST_DOWN;
                is_judge && clean.iter().zip(junk).all(|(clean, junk)| junk > clean - MOST_LOST)
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        is_good.then_some(()).ok_or(found)
    });
}

/// Does something while junk comes to every UDP port of the open gateway, those that open meanwhile included, or to as many
/// ports of nobody.
fn under_junk<T>(ground: &Ground, is_aimed: bool, act: impl FnOnce() -> T) -> (T, String) {
    let (target, is_over, sent) = (&ground.open, AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let sprayer = scope.spawn(|| spray(target, is_aimed, &is_over, &sent));
        let began = Instant::now();
        let result = act();
        let seconds = began.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        let ports = sprayer.join().unwrap();
        let sent = sent.load(Ordering::Relaxed);
        // A sender that does not get its turn proves nothing.
        assert!(
            sent as f64 / seconds >= 0.8 * f64::from(A_SECOND),
            "{sent} packets in {seconds} s to the busiest port"
        );
        (result, format!("{:.0} packets a second at each of {ports} ports", sent as f64 / seconds))
    })
}

/// Sends until it is over, counting those to SIP's port; how many ports there were at most.
fn spray(target: &Target, is_aimed: bool, is_over: &AtomicBool, sent: &AtomicU64) -> usize {
    let sockets: Vec<UdpSocket> = (70..78).map(stranger).collect();
    // Nobody reads them.
    let sinks: Vec<UdpSocket> = (0..8).map(|_| stranger(79)).collect();
    let sip = target.udp();
    let words: Vec<Vec<u8>> = (0..1000).map(|seed| junk(seed, &sockets[0], sip)).collect();
    let (mut ports, mut most, mut looked): (Vec<SocketAddr>, usize, Option<Instant>) = (Vec::new(), 0, None);
    let began = Instant::now();
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        if looked.is_none_or(|looked| looked.elapsed() > Duration::from_millis(250)) {
            looked = Some(Instant::now());
            ports = target.media_ports();
            ports.push(sip);
            most = most.max(ports.len());
        }
        let due = (began.elapsed().as_secs_f64() * f64::from(A_SECOND)) as usize;
        while count < due {
            for (port, sink) in ports.iter().zip(sinks.iter().cycle()) {
                let to = if is_aimed { *port } else { sink.local_addr().unwrap() };
                // A port may close under our hands, and says so to the socket that sent there last.
                let _ = sockets[count % sockets.len()].send_to(&words[count * 7 % words.len()], to);
            }
            count += 1;
        }
        sent.store(count as u64, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
    most
}

fn junk(seed: usize, from: &UdpSocket, sip: SocketAddr) -> Vec<u8> {
    match seed % 10 {
        0 | 1 => media::noise(seed),
        2 => media::stun_request("a:b"),
        3 => media::client_hello(seed),
        4 => rtp(0, seed as u16, SSRC, &[0x55; 160]),
        5 => rtp(111, seed as u16, seed as u32, &media::noise(seed + 60)),
        6 => media::rtcp(seed, seed as u32),
        7 => message("BYE", from, sip, ""),
        8 => message("OPTIONS", from, sip, "Content-Length: -1\r\n"),
        _ => Vec::new(),
    }
}
