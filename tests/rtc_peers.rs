//! Two peer connections against each other, through good and bad networks.

mod rtc_link;

use std::time::Duration;

use galene_sip::rtc::description::Codec;
use galene_sip::rtc::dtls::DtlsError;
use galene_sip::rtc::ice;
use galene_sip::rtc::peer::{Event, Failure, PeerError};
use galene_sip::wire::rtp::SrtpKeys;
use rtc_link::{CLEAR, Link, Weather, address, peer};

fn link(weather: Weather, seed: u64) -> Link {
    Link::new([peer(0, seed, false), peer(1, seed, false)], weather, seed)
}

fn keys(link: &Link, side: usize) -> Vec<&SrtpKeys> {
    let keys = link.events[side].iter().filter_map(|event| match event {
        Event::Connected { keys } => Some(keys),
        _ => None,
    });
    keys.collect()
}

fn failures(link: &Link, side: usize) -> Vec<&Failure> {
    let failures = link.events[side].iter().filter_map(|event| match event {
        Event::Failed(failure) => Some(failure),
        _ => None,
    });
    failures.collect()
}

/// Both have keys, once, and they fit together.
fn assert_connected(link: &Link) {
    let (ours, theirs) = (keys(link, 0), keys(link, 1));
    assert_eq!((ours.len(), theirs.len()), (1, 1), "{:?}", link.events);
    assert_eq!((&ours[0].local, &ours[0].remote), (&theirs[0].remote, &theirs[0].local));
    assert_ne!(ours[0].local, ours[0].remote);
}

#[test]
fn on_a_clear_network_two_peers_connect_within_6_round_trips() {
    let mut link = link(Weather { delay_ms: 10, ..CLEAR }, 1);
    link.negotiate();
    let took = link.connect().unwrap();
    assert_connected(&link);
    assert!(took <= Duration::from_millis(120), "{took:?}");
    assert_eq!(link.selected(0), Some(address("192.0.2.2:6000")));
}

#[test]
fn all_peers_connect_at_0_10_and_20_percent_loss_and_reordering() {
    for loss_percent in [0, 10, 20] {
        for ice_lite in [false, true] {
            let weather = Weather { loss_percent, delay_ms: 10, jitter_ms: 30 };
            let mut times: Vec<Duration> = (0..40)
                .map(|seed| {
                    let mut link = Link::new([peer(0, seed, ice_lite), peer(1, seed, false)], weather, seed);
                    link.negotiate();
                    let took = link.connect();
                    assert_connected(&link);
                    took.unwrap()
                })
                .collect();
            times.sort();
            println!("{loss_percent} % loss, lite {ice_lite}: median {:?}, most {:?}", times[20], times[39]);
            assert!(times[20] < Duration::from_millis(1000), "{:?}", times[20]);
        }
    }
}

#[test]
fn candidates_may_be_trickled_before_the_descriptions_they_belong_to() {
    let mut link = link(CLEAR, 2);
    let bare =
        |sdp: &str| -> String { sdp.split_inclusive("\r\n").filter(|line| !line.contains("candidate")).collect() };
    let trickled = |sdp: &str| {
        sdp.lines()
            .find_map(|line| line.strip_prefix("a=")?.starts_with("candidate:").then(|| line[2..].to_owned()))
            .unwrap()
    };
    let now = link.now;
    let offer = link.peers[0].offer(now);
    link.peers[1].add_candidate(now, &trickled(&offer));
    let (answer, _) = link.peers[1].handle_offer(now, &bare(&offer)).unwrap();
    link.peers[0].add_candidate(now, &trickled(&answer));
    link.peers[0].add_candidate(now, "candidate:1 1 udp 1 0b36a1d2.local 4000 typ host");
    link.peers[0].add_candidate(now, "candidate:1 1 tcp 1 192.0.2.2 4000 typ host tcptype passive");
    link.peers[0].add_candidate(now, "");
    link.run(Duration::from_millis(100));
    link.peers[0].handle_answer(link.now, &bare(&answer)).unwrap();
    link.connect().unwrap();
    assert_connected(&link);
}

#[test]
fn without_any_candidate_of_the_peer_its_checks_show_where_it_is() {
    let mut link = link(CLEAR, 3);
    let offer = link.peers[0].offer(link.now);
    let (answer, _) = link.peers[1].handle_offer(link.now, &offer).unwrap();
    let bare: String = answer.split_inclusive("\r\n").filter(|line| !line.contains("candidate:")).collect();
    link.peers[0].handle_answer(link.now, &bare).unwrap();
    link.connect().unwrap();
    assert_connected(&link);
}

#[test]
fn the_answer_decides_the_codec() {
    let mut link = link(CLEAR, 4);
    let now = link.now;
    let offer = link.peers[0].offer(now);
    let only_g722 = offer.replace("SAVPF 111 9 0 8", "SAVPF 9");
    let (answer, received) = link.peers[1].handle_offer(now, &only_g722).unwrap();
    let sent = link.peers[0].handle_answer(now, &answer).unwrap();
    assert_eq!(sent, received);
    assert_eq!((sent.preferred().codec, sent.preferred().number), (Codec::G722, 9));
    assert_eq!(link.peers[0].handle_answer(now, &answer), Err(PeerError::OutOfTurn));
}

#[test]
fn a_certificate_that_was_not_announced_is_refused() {
    for wrong_side in [0, 1] {
        let mut link = link(CLEAR, 5);
        let forge = |sdp: &str| -> String {
            let lines = sdp.split_inclusive("\r\n").map(|line| match line.strip_prefix("a=fingerprint:sha-256 ") {
                Some(digest) => format!(
                    "a=fingerprint:sha-256 {}{}",
                    if digest.starts_with("00") { "11" } else { "00" },
                    &digest[2..]
                ),
                None => line.to_owned(),
            });
            lines.collect()
        };
        let offer = link.peers[0].offer(link.now);
        let offer = if wrong_side == 0 { forge(&offer) } else { offer };
        let (answer, _) = link.peers[1].handle_offer(link.now, &offer).unwrap();
        let answer = if wrong_side == 1 { forge(&answer) } else { answer };
        link.peers[0].handle_answer(link.now, &answer).unwrap();
        assert_eq!(link.connect(), None);
        let deceived = 1 - wrong_side;
        assert_eq!(failures(&link, deceived), [&Failure::Dtls(DtlsError::Fingerprint)]);
        assert!(keys(&link, deceived).is_empty());
    }
}

#[test]
fn strangers_datagrams_change_nothing() {
    let mut link = link(Weather { delay_ms: 10, ..CLEAR }, 6);
    let stranger = address("203.0.113.5:53");
    link.negotiate();
    let mut hello = vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20];
    hello.extend([2, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 40];
    let stun = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let junk = [128, 111, 0, 1, 2, 3];
    for _ in 0..200 {
        for side in [0, 1] {
            for bytes in [&hello[..], &alert, &stun, &junk, &[22], &[]] {
                link.inject(side, stranger, bytes);
            }
        }
        link.run(Duration::from_millis(1));
    }
    assert_connected(&link);
    assert!(link.peers.iter().all(|peer| peer.drops().stranger > 100));
}

#[test]
fn a_lost_last_flight_is_repeated_after_we_are_connected() {
    // Everything that the server sends is lost from the moment it has keys, for half a second.
    for seed in 0..10 {
        let mut link = link(Weather { delay_ms: 10, ..CLEAR }, seed);
        link.negotiate();
        while !link.is_connected(0) && !link.is_connected(1) {
            link.weather.loss_percent = 0;
            link.run(Duration::from_micros(100));
        }
        link.weather.loss_percent = 100;
        link.run(Duration::from_millis(500));
        link.weather.loss_percent = 0;
        link.connect().unwrap();
        assert_connected(&link);
    }
}

#[test]
fn consent_lives_for_an_hour_of_20_percent_loss_and_dies_30_s_after_the_network() {
    let mut link = link(CLEAR, 7);
    link.negotiate();
    link.connect().unwrap();
    link.weather.loss_percent = 20;
    link.sent = [0; 2];
    link.run(Duration::from_secs(3600));
    assert_eq!([failures(&link, 0).len(), failures(&link, 1).len()], [0, 0]);
    // A check every 4 to 6 s, some repeated, and as many answers.
    assert!(link.sent.iter().all(|sent| (1200..3600).contains(sent)), "{:?}", link.sent);
    link.weather.loss_percent = 100;
    link.run(Duration::from_secs(20));
    assert_eq!([failures(&link, 0).len(), failures(&link, 1).len()], [0, 0]);
    link.run(Duration::from_secs(12));
    let expired = Failure::Ice(ice::Failure::ConsentExpired);
    assert_eq!([failures(&link, 0), failures(&link, 1)], [[&expired], [&expired]]);
    link.sent = [0; 2];
    link.run(Duration::from_secs(60));
    assert_eq!(link.sent, [0, 0], "nothing is sent without consent");
}

#[test]
fn a_restart_heals_a_lost_connection_and_keeps_the_keys() {
    let mut link = link(CLEAR, 8);
    link.negotiate();
    link.connect().unwrap();
    link.weather.loss_percent = 100;
    link.run(Duration::from_secs(40));
    link.weather.loss_percent = 0;
    link.events.iter_mut().for_each(|events| events.retain(|event| matches!(event, Event::Connected { .. })));
    let filter = link.peers[0].stun_filter();
    link.negotiate();
    let again = link.peers[0].stun_filter();
    assert!(again.ufrag != filter.ufrag && again.password != filter.password);
    link.run(Duration::from_millis(200));
    assert_eq!(link.selected(0), Some(address("192.0.2.2:6000")));
    assert_eq!(link.selected(1), Some(address("192.0.2.1:5000")));
    assert_connected(&link);
    link.run(Duration::from_secs(600));
    assert_eq!([failures(&link, 0).len(), failures(&link, 1).len()], [0, 0]);
}

#[test]
fn an_offer_that_restarts_nothing_changes_nothing() {
    let mut link = link(CLEAR, 9);
    let offer = link.peers[0].offer(link.now);
    let (answer, _) = link.peers[1].handle_offer(link.now, &offer).unwrap();
    link.peers[0].handle_answer(link.now, &answer).unwrap();
    link.connect().unwrap();
    link.events = [Vec::new(), Vec::new()];
    let (again, _) = link.peers[1].handle_offer(link.now, &offer).unwrap();
    let without_version = |sdp: &str| sdp.lines().filter(|line| !line.starts_with("o=")).collect::<Vec<_>>().join("\n");
    assert_eq!(without_version(&again), without_version(&answer));
    link.run(Duration::from_secs(60));
    assert!(link.events.iter().all(Vec::is_empty), "{:?}", link.events);
    let other = galene_sip::rtc::fingerprint::Fingerprint::of(
        galene_sip::rtc::fingerprint::FingerprintHash::Sha256,
        b"another",
    );
    let lines = offer.lines().map(|line| match line.starts_with("a=fingerprint") {
        true => format!("a=fingerprint:{other}\r\n"),
        false => format!("{line}\r\n"),
    });
    let changed: String = lines.collect();
    assert_eq!(link.peers[1].handle_offer(link.now, &changed), Err(PeerError::NewCertificate));
}

#[test]
fn when_a_nat_gives_one_side_another_address_the_other_follows() {
    for moving in [0, 1] {
        let mut link = link(CLEAR, 10);
        link.negotiate();
        link.connect().unwrap();
        link.sources[moving] = address("198.51.100.1:1024");
        link.run(Duration::from_secs(29));
        assert_eq!(link.selected(1 - moving), Some(address("198.51.100.1:1024")), "side {moving} moved");
        link.run(Duration::from_secs(120));
        assert_eq!([failures(&link, 0).len(), failures(&link, 1).len()], [0, 0]);
    }
}
