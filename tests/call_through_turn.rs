//! Galene is reached by a relay alone: a call goes both ways through coturn, over UDP, TCP and TLS.

mod real;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::coturn::{Coturn, PASSWORD, USER};
use lab::member::{Crowd, MemberConfig, MemberEventKind, Speech};
use lab::opus;
use lab::pcm::Pcm;
use lab::program::find_or_skip;
use lab::room::{GroupConfig, RoomConfig, RoomEventKind};
use lab::telephone::RATE_HZ;
use real::{AUDIBLE_DBFS, GROUP, PATIENCE, World, alone, from};
use serde_json::json;

/// A room that lets nobody in without a relay, and whose only server is this one.
fn room_behind(url: &str) -> RoomConfig {
    RoomConfig {
        ice_servers: json!([{"urls": [url], "username": USER, "credential": PASSWORD}]),
        relay_only: true,
        ..RoomConfig::new(vec![GroupConfig::open(GROUP)])
    }
}

/// Calls, speaks and listens; what the gateway said meanwhile.
fn call_both_ways(coturn: &Coturn, url: &str) -> Vec<String> {
    let mut world = World::in_room(room_behind(url), &["-insecure", "-debug"]);
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
    println!("{url}: answered after {answered_after:?}, heard {onset:?} later");
    let lines = world.gateway.lines();
    let ways: Vec<&String> = lines.iter().filter(|line| line.contains("the way to Galene is")).collect();
    assert!(ways.len() >= 2 && ways.iter().all(|line| line.contains("by the relay")), "{ways:#?}");
    lines
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
    call_both_ways(&coturn, &format!("turn:{}", coturn.address()));
    // What was allocated is given back when the call ends.
    let is_released = |line: &str| line.contains("lifetime=0") || line.contains("delete") || line.contains("closed");
    coturn.program.wait_for_line(PATIENCE, is_released).unwrap();
}

#[test]
fn a_call_goes_both_ways_through_a_relay_over_tcp() {
    let _alone = alone();
    let Some((_, coturn)) = coturn(None) else { return };
    call_both_ways(&coturn, &format!("turn:{}?transport=tcp", coturn.address()));
}

#[test]
fn a_call_goes_both_ways_through_a_relay_over_tls() {
    let _alone = alone();
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let Some((_, coturn)) = coturn(Some((&certificate, &key))) else { return };
    call_both_ways(&coturn, &format!("turns:{}", coturn.tls_address().unwrap()));
}
