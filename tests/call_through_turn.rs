//! Galene is reached by a relay alone: a call goes both ways through coturn, over UDP, TCP and TLS, found by its address or by
//! SRV, named by another one, with a dead one before it; and another relay takes over when a connection ends.

#[path = "common/name_server.rs"]
mod name_server;
mod real;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::coturn::{Coturn, ice_servers};
use lab::member::{Crowd, MemberConfig, MemberEventKind, Speech};
use lab::opus;
use lab::pcm::Pcm;
use lab::program::{find_or_skip, free_tcp_port, free_udp_port};
use lab::room::{GroupConfig, RoomConfig, RoomEventKind};
use lab::telephone::RATE_HZ;
use name_server::{NameServer, loopback, srv};
use real::{AUDIBLE_DBFS, GROUP, PATIENCE, World, alone, from};

/// A room that lets nobody in without a relay, and whose only servers are these.
fn room_behind(urls: &[&str]) -> RoomConfig {
    RoomConfig { ice_servers: ice_servers(urls), relay_only: true, ..RoomConfig::new(vec![GroupConfig::open(GROUP)]) }
}

/// Calls, speaks and listens; how long it took until the room was heard.
fn call_both_ways(coturn: &Coturn, urls: &[&str], flags: &[&str]) -> Duration {
    let mut world = World::in_room(room_behind(urls), &[&["-insecure", "-debug"], flags].concat());
    let speech = Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0)));
    let url_of_group = world.room.group_url(GROUP);
    let levels_every = Some(Duration::from_millis(200));
    let config = MemberConfig { insecure: true, speech, levels_every, ..MemberConfig::new(&url_of_group, "Member") };
    let mut member = Crowd::one(config).unwrap();
    let telephone = world.call(&from("Ada"));
    telephone.speak(Pcm::warble(RATE_HZ, 5.0).samples.into(), true);
    let words = |world: &World| format!("{}\n{}", world.gateway.lines().join("\n"), coturn.program.lines().join("\n"));
    let answered_after = telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", words(&world)));
    let answered = Instant::now();
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap_or_else(|why| panic!("{why}\n{}", words(&world)));
    let is_heard = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Level { username, dbfs, .. } if username == "Ada" && *dbfs > AUDIBLE_DBFS);
    assert!(member.events.wait_for(PATIENCE, |event| is_heard(&event.kind)).is_some(), "{}", words(&world));
    world.room_says("Ada", |kind| matches!(kind, RoomEventKind::DownConnected { .. }));
    // It was no accident that both ways worked: they go on.
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    let report = telephone.finish();
    let heard = report.recording.render(answered);
    let onset = heard.iter().position(|sample| sample.unsigned_abs() > 1000).expect("it was heard");
    let onset = Duration::from_secs_f64(onset as f64 / f64::from(RATE_HZ));
    println!("{urls:?}: answered after {answered_after:?}, heard {onset:?} later");
    let lines = world.gateway.lines();
    let ways: Vec<&String> = lines.iter().filter(|line| line.contains("the way to Galene is")).collect();
    assert!(ways.len() >= 2 && ways.iter().all(|line| line.contains("by the relay")), "{ways:#?}");
    answered_after + onset
}

fn coturn(tls: Option<(&str, &str)>) -> Option<(PathBuf, Coturn)> {
    let binary = find_or_skip("turnserver")?;
    let coturn = Coturn::start(&binary, tls, &[]).unwrap();
    Some((binary, coturn))
}

#[test]
fn a_call_goes_both_ways_through_a_relay_over_udp() {
    let _alone = alone();
    let Some((_, coturn)) = coturn(None) else { return };
    call_both_ways(&coturn, &[&format!("turn:{}", coturn.address())], &[]);
    // What was allocated is given back when the call ends.
    let is_released = |line: &str| line.contains("lifetime=0") || line.contains("delete") || line.contains("closed");
    coturn.program.wait_for_line(PATIENCE, is_released).unwrap();
}

#[test]
fn a_call_goes_both_ways_through_a_relay_over_tcp() {
    let _alone = alone();
    let Some((_, coturn)) = coturn(None) else { return };
    call_both_ways(&coturn, &[&format!("turn:{}?transport=tcp", coturn.address())], &[]);
}

#[test]
fn a_call_goes_both_ways_through_a_relay_over_tls() {
    let _alone = alone();
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let Some((_, coturn)) = coturn(Some((&certificate, &key))) else { return };
    call_both_ways(&coturn, &[&format!("turns:{}", coturn.tls_address().unwrap())], &[]);
}

#[test]
fn a_dead_server_before_a_live_one_does_not_hold_a_call_up() {
    let _alone = alone();
    let Some((_, coturn)) = coturn(None) else { return };
    let dead = format!("turn:127.0.0.1:{}", free_udp_port().unwrap());
    let live = format!("turn:{}", coturn.address());
    let alone = call_both_ways(&coturn, &[&live], &[]);
    let behind_dead = call_both_ways(&coturn, &[&dead, &live], &[]);
    // Less than two of the dead one's questions are apart.
    assert!(behind_dead < alone + Duration::from_millis(500), "{behind_dead:?} instead of {alone:?}");
}

#[test]
fn a_server_that_names_another_one_is_followed_over_udp_and_over_tcp() {
    let _alone = alone();
    let Some((binary, coturn)) = coturn(None) else { return };
    let other = coturn.address().to_string();
    let first = Coturn::start(&binary, None, &["--alternate-server", &other]).unwrap();
    for query in ["", "?transport=tcp"] {
        call_both_ways(&coturn, &[&format!("turn:{}{query}", first.address())], &[]);
    }
}

#[test]
fn a_relay_is_found_by_srv_records() {
    let _alone = alone();
    let Some((_, coturn)) = coturn(None) else { return };
    let port = coturn.address().port();
    let names = NameServer::start(vec![
        srv("_turn._udp.relay.test.", 1, free_udp_port().unwrap(), "turn-host.test."),
        srv("_turn._udp.relay.test.", 2, port, "turn-host.test."),
        loopback("turn-host.test."),
    ]);
    call_both_ways(&coturn, &["turn:relay.test"], &["-sip-dns", &names.address().to_string()]);
    assert!(names.questions().contains(&"TCP SRV _turn._udp.relay.test.".to_owned()), "{:?}", names.questions());
}

#[test]
fn a_call_goes_on_by_another_relay_soon_after_the_connection_to_the_first_has_ended() {
    let _alone = alone();
    let Some((binary, coturn)) = coturn(None) else { return };
    let second = SocketAddr::from((Ipv4Addr::LOCALHOST, free_tcp_port().unwrap()));
    let urls = [coturn.address(), second].map(|address| format!("turn:{address}?transport=tcp"));
    let world = World::in_room(room_behind(&[&urls[0], &urls[1]]), &["-insecure", "-debug"]);
    let speech = Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0)));
    let config = MemberConfig { insecure: true, speech, ..MemberConfig::new(&world.room.group_url(GROUP), "Member") };
    let _member = Crowd::one(config).unwrap();
    let telephone = world.call(&from("Ada"));
    telephone.speak(Pcm::warble(RATE_HZ, 5.0).samples.into(), true);
    telephone.wait_answered(PATIENCE).unwrap();
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    let _second = Coturn::start_on(second, &binary, None, &[]).unwrap();
    let before = world.gateway.lines().len();
    drop(coturn);
    let ended = Instant::now();
    // Of the caller's stream, and of the member's voice.
    let ways = || {
        let lines = world.gateway.lines();
        let ways = lines[before..].iter().filter(|line| line.contains("the way to Galene is")).count();
        (ways, lines.join("\n"))
    };
    while ways().0 < 2 {
        assert!(ended.elapsed() < Duration::from_secs(8), "{}", ways().1);
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("both ways stand again {:?} after the end of the first relay", ended.elapsed());
    assert!(ways().1.contains("the relay has gone"), "{}", ways().1);
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    telephone.finish();
}
