//! What the SIP dialog does to a call while its place in the room stays: early media, hold, refreshes.

use super::world::{OFFER, World};
use super::{body, seconds, world_with_calls};

/// A call whose media path to Galene is long in coming: 183 follows a second after the INVITE.
fn slow_call(extra: &str, offer: Option<&str>) -> World {
    let mut world = World::new();
    world.media_is_cut = true;
    world.request_with("ada", "INVITE", 1, extra, offer);
    world.run(seconds(2));
    world
}

fn header<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

#[test]
fn who_waits_for_the_media_path_hears_the_room_after_a_second() {
    let mut world = slow_call("Supported: 100rel\r\n", Some(OFFER));
    assert_eq!(world.statuses("ada"), [180, 183]);
    assert_eq!(world.mix.last().unwrap(), "StartTelephone");
    let progress = world.sip.iter().find(|text| text.starts_with("SIP/2.0 183")).unwrap().clone();
    assert!(body(&progress).contains("m=audio"));
    let rack = format!("RAck: {} 1 INVITE\r\n", header(&progress, "RSeq"));
    world.request_with("ada", "PRACK", 2, &rack, None);
    world.media_is_cut = false;
    world.run(seconds(5));
    assert_eq!(world.statuses("ada"), [180, 183, 200, 200]);
    assert!(body(world.sip.last().unwrap()).is_empty());
}

#[test]
fn a_call_without_offer_is_settled_by_prack_before_its_answer() {
    let mut world = slow_call("Require: 100rel\r\n", None);
    let progress = world.sip.last().unwrap().clone();
    assert!(body(&progress).contains("RTP/AVP"));
    let rack = format!("RAck: {} 1 INVITE\r\n", header(&progress, "RSeq"));
    world.request_with("ada", "PRACK", 2, &rack, Some(OFFER));
    assert_eq!(world.mix.last().unwrap(), "SetTelephone true");
    assert!(world.sip.last().unwrap().starts_with("SIP/2.0 200"));
}

#[test]
fn a_room_that_is_joined_quickly_needs_no_early_media() {
    let world = world_with_calls(&["ada"]);
    assert_eq!(world.statuses("ada"), [180, 200]);
}

#[test]
fn music_on_hold_is_not_heard_in_the_room() {
    let mut world = world_with_calls(&["ada"]);
    for (cseq, direction, is_heard) in
        [(2, "sendonly", false), (3, "sendrecv", true), (4, "inactive", false), (5, "sendrecv", true)]
    {
        world.request("ada", "INVITE", cseq, Some(&format!("{OFFER}a={direction}\r\n")));
        world.request("ada", "ACK", cseq, None);
        assert_eq!(*world.mix.last().unwrap(), format!("SetTelephone {is_heard}"), "{direction}");
    }
    let old_style = OFFER.replace("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0");
    world.request("ada", "UPDATE", 6, Some(&old_style));
    assert_eq!(world.mix.last().unwrap(), "SetTelephone false");
    assert!(world.sip.last().unwrap().contains("200 OK"));
}

#[test]
fn a_call_held_for_hours_is_still_there() {
    let mut world = world_with_calls(&["ada"]);
    world.request("ada", "INVITE", 2, Some(&format!("{OFFER}a=sendonly\r\n")));
    world.request("ada", "ACK", 2, None);
    for quarter in 0..24 {
        world.run(seconds(900));
        let refresh = world.sip.last().unwrap().clone();
        assert!(refresh.starts_with("INVITE") && body(&refresh).contains("a=recvonly"), "{quarter}: {refresh}");
        world.answer(&refresh, 200, &format!("{OFFER}a=sendonly\r\n"));
        assert!(world.sip.last().unwrap().starts_with("ACK"));
        assert_eq!(world.mix.last().unwrap(), "SetTelephone false");
    }
    assert_eq!(world.gateway.calls.len(), 1);
}

#[test]
fn a_caller_that_vanished_leaves_the_room_within_half_an_hour() {
    let mut world = world_with_calls(&["ada"]);
    world.run(seconds(935));
    assert!(world.sip.last().unwrap().starts_with("BYE"));
    assert!(world.gateway.calls.is_empty() && world.gateway.sockets().open.is_empty());
}

#[test]
fn another_telephone_takes_a_call_over_and_the_member_stays() {
    let mut world = world_with_calls(&["ada"]);
    let ok = world.sip.iter().find(|text| text.starts_with("SIP/2.0 200")).unwrap();
    let tag = header(ok, "To").split_once("tag=").unwrap().1.to_owned();
    let members = world.galene.len();
    let replaces = format!("Replaces: ada;to-tag={tag};from-tag=ada\r\n");
    // What it cannot speak leaves the call as it was.
    world.request_with("bob", "INVITE", 1, &replaces, Some(&OFFER.replace("AVP 0 8", "AVP 18")));
    assert_eq!(world.statuses("bob"), [488]);
    let other = OFFER.replace("192.0.2.1", "192.0.2.77");
    world.request_with("cyd", "INVITE", 1, &replaces, Some(&other));
    assert_eq!(world.statuses("cyd"), [200]);
    assert!(world.sip.last().unwrap().starts_with("BYE sip:ada@"));
    let bye = world.sip.last().unwrap().clone();
    world.answer(&bye, 200, "");
    world.request("cyd", "ACK", 1, None);
    assert_eq!(world.gateway.calls.len(), 1);
    assert_eq!((world.galene.len(), world.mix.last().unwrap().as_str()), (members, "SetTelephone true"));
    let settings = world.gateway.calls.values().next().unwrap().telephone.settings();
    assert_eq!(settings.remote.rtp, Some("192.0.2.77:4000".parse().unwrap()));
    world.request("cyd", "BYE", 2, None);
    assert!(world.gateway.calls.is_empty() && world.gateway.sockets().open.is_empty());
}

#[test]
fn a_blind_transfer_keeps_the_member_and_its_place_in_the_mix() {
    let mut world = world_with_calls(&["ada"]);
    let members = world.galene.len();
    world.request_with("ada", "REFER", 2, "Refer-To: <sip:carol@gateway.test>\r\n", None);
    let invite = world.sip.iter().find(|text| text.starts_with("INVITE")).unwrap().clone();
    assert!(invite.starts_with("INVITE sip:carol@gateway.test SIP/2.0"));
    assert!(body(&invite).contains("m=audio 20002 RTP/AVP"), "{invite}");
    world.request("ada", "BYE", 3, None);
    // Nobody is at the telephone: nothing goes to it, and nothing is taken from it.
    assert_eq!(world.mix.last().unwrap(), "SetTelephone false");
    assert_eq!((world.gateway.calls.len(), world.galene.len()), (1, members));
    world.answer(&invite, 200, &OFFER.replace("192.0.2.1", "192.0.2.66"));
    assert!(world.sip.iter().any(|text| text.starts_with("ACK sip:phone@")));
    assert_eq!((world.mix.last().unwrap().as_str(), world.galene.len()), ("SetTelephone true", members));
    let call = world.gateway.calls.values().next().unwrap();
    assert_eq!(call.telephone.settings().remote.rtp, Some("192.0.2.66:4000".parse().unwrap()));
    world.run(seconds(60));
    assert_eq!(world.gateway.calls.len(), 1);
}

#[test]
fn a_transfer_that_fails_after_the_transferor_left_ends_the_call() {
    let mut world = world_with_calls(&["ada"]);
    world.request_with("ada", "REFER", 2, "Refer-To: <sip:carol@gateway.test>\r\n", None);
    let invite = world.sip.iter().find(|text| text.starts_with("INVITE")).unwrap().clone();
    world.request("ada", "BYE", 3, None);
    world.answer(&invite, 486, "");
    assert!(world.gateway.calls.is_empty() && world.gateway.sockets().open.is_empty());
}

#[test]
fn a_kick_while_the_target_rings_cancels_the_call_to_it() {
    let mut world = world_with_calls(&["ada"]);
    world.request_with("ada", "REFER", 2, "Refer-To: <sip:carol@gateway.test>\r\n", None);
    let invite = world.sip.iter().find(|text| text.starts_with("INVITE")).unwrap().clone();
    world.answer(&invite, 180, "");
    world.kick(1);
    assert!(world.sip.iter().any(|text| text.starts_with("CANCEL")));
    assert!(world.sip.iter().any(|text| text.starts_with("BYE sip:ada@")));
    assert!(world.gateway.calls.is_empty());
}
