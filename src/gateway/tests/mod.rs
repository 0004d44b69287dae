//! Calls from INVITE to end in virtual time, against real peer connections.

mod admission;
mod dialogs;
mod dtls;
mod encryption;
mod ladders;
mod moderation;
mod moving;
mod restoration;
mod silent;
mod take_over;
mod world;

use std::time::Duration;

use serde_json::json;
use world::{OFFER, World};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A world with calls that are answered and acknowledged; their keys are 1, 2, …
fn world_with_calls(names: &[&str]) -> World {
    let mut world = World::new();
    for name in names {
        world.invite(name);
        world.run(seconds(1));
        assert_eq!(world.statuses(name), [180, 200], "{name}");
        world.request(name, "ACK", 1, None);
    }
    world
}

fn body(text: &str) -> &str {
    text.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn a_call_rings_at_once_and_is_answered_when_the_room_is_joined_and_dtls_is_up() {
    let mut world = World::new();
    let joined = std::mem::replace(&mut world.joined, json!({"kind": "not yet"}));
    world.invite("ada");
    assert_eq!(world.statuses("ada"), [180]);
    assert_eq!(world.sent(1, "join")[0]["username"], "ada");
    world.tell_joined(1, &joined);
    world.run(seconds(1));
    assert_eq!(world.statuses("ada"), [180, 200]);
    assert!(body(world.sip.last().unwrap()).contains("m=audio 20002 RTP/AVP 0"));
    assert_eq!(world.mix, ["OpenRoom", "AddCaller", "SetUp true", "SetPresent true", "StartTelephone"]);
    assert_eq!(world.sent(1, "request")[0]["request"], json!({"": ["audio"]}));
}

#[test]
fn a_call_that_ends_leaves_nothing_behind() {
    let mut world = world_with_calls(&["ada"]);
    world.offer_stream(1, "voice", "member1");
    world.run(seconds(1));
    assert_eq!(world.mix.last().unwrap(), "AddStream");
    world.mix.clear();
    world.request("ada", "BYE", 2, None);
    assert_eq!(world.statuses("ada"), [180, 200, 200]);
    assert_eq!(world.mix, ["SetPresent false", "SetUp false", "RemoveCaller", "RemoveStream", "CloseRoom"]);
    assert!(world.gateway.sockets().open.is_empty());
    assert_eq!(world.sent(1, "close").len(), 1);
}

#[test]
fn only_one_caller_listens_and_our_own_streams_are_refused() {
    let mut world = world_with_calls(&["ada", "ben"]);
    assert_eq!((world.sent(1, "request").len(), world.sent(2, "request").len()), (1, 0));
    let bens_id = world.sent(2, "handshake")[0]["id"].as_str().unwrap().to_owned();
    world.offer_stream(1, "bens-voice", &bens_id);
    assert_eq!(world.sent(1, "abort")[0]["id"], "bens-voice");
    world.offer_stream(1, "voice", "member1");
    assert_eq!(world.sent(1, "answer").len(), 1);
}

#[test]
fn a_kick_ends_the_call_and_a_forged_one_does_nothing() {
    let mut world = world_with_calls(&["ada"]);
    world.tell(
        1,
        &json!({"type": "usermessage", "kind": "kicked", "source": "x", "username": "mallory", "value": "out"}),
    );
    assert!(!world.sip.iter().any(|text| text.starts_with("BYE")));
    world.kick(1);
    assert!(world.sip.last().unwrap().starts_with("BYE"));
    assert!(world.gateway.sockets().open.is_empty());
}

#[test]
fn a_wrong_token_is_a_403_after_one_retry_under_another_name() {
    let mut world = World::new();
    world.joined = json!({"kind": "fail", "value": "not authorised"});
    world.invite("ada");
    world.run(seconds(1));
    let names: Vec<_> = world.sent(1, "join").iter().map(|join| join["username"].clone()).collect();
    assert_eq!(names, ["ada", "ada (telephone)"]);
    assert_eq!(world.statuses("ada"), [180, 403]);
    assert!(world.sip.last().unwrap().contains("Warning: 399"));
    assert!(world.gateway.sockets().open.is_empty());
}

#[test]
fn without_the_right_to_speak_a_call_is_refused_in_words() {
    let mut world = World::new();
    world.joined = json!({"kind": "join", "permissions": ["message"]});
    world.invite("ada");
    world.run(seconds(1));
    assert_eq!(world.statuses("ada"), [180, 403]);
    assert!(world.sip.last().unwrap().contains("'present'"));
}

#[test]
fn without_a_free_port_the_gateway_is_full_and_says_which_flag_helps() {
    let mut world = World::new();
    world.gateway.sockets().refuse = Some("-rtp-ports");
    world.invite("ada");
    assert_eq!(world.statuses("ada"), [503]);
    let answer = world.sip.last().unwrap();
    assert!(answer.contains("-rtp-ports") && answer.contains("Retry-After: 60"));
}

#[test]
fn a_reinvite_holds_and_a_bad_one_changes_nothing() {
    let mut world = world_with_calls(&["ada"]);
    world.request("ada", "INVITE", 2, Some(&format!("{OFFER}a=sendonly\r\n")));
    assert!(world.sip.last().unwrap().contains("a=recvonly"));
    world.request("ada", "ACK", 2, None);
    world.request("ada", "INVITE", 3, Some(&OFFER.replace("m=audio 4000", "m=video 4000")));
    assert_eq!(world.statuses("ada"), [180, 200, 200, 488]);
    assert!(world.gateway.sockets().open.len() == 2);
}

#[test]
fn a_call_without_an_offer_gets_ours() {
    let mut world = World::new();
    world.request("ada", "INVITE", 1, None);
    world.run(seconds(1));
    assert!(body(world.sip.last().unwrap()).contains("RTP/AVP 111 9 0 8 101"));
    world.request("ada", "ACK", 1, Some(OFFER));
    assert_eq!(world.mix.last().unwrap(), "SetTelephone true");
}

#[test]
fn cancel_before_the_answer_leaves_nothing_behind() {
    let mut world = World::new();
    world.joined = json!({"kind": "ignored"});
    world.invite("ada");
    let cancel = "CANCEL";
    world.request("ada", cancel, 1, None);
    assert!(world.statuses("ada").contains(&487) || world.statuses("ada").contains(&481));
}

#[test]
fn a_galene_that_never_answers_is_a_480() {
    let mut world = World::new();
    world.joined = json!({"kind": "ignored"});
    world.invite("ada");
    world.run(seconds(30));
    assert_eq!(world.statuses("ada"), [180, 480]);
    assert!(world.gateway.sockets().open.is_empty());
}

#[test]
fn shutting_down_says_bye_to_everybody() {
    let mut world = world_with_calls(&["ada", "ben"]);
    world.gateway.handle_input(world.now, super::Input::ShutDown);
    world.run(seconds(1));
    assert!(world.sip.iter().filter(|text| text.starts_with("BYE")).count() >= 2);
    assert!(world.stopped && world.gateway.sockets().open.is_empty());
}

#[test]
fn a_caller_from_outside_is_shown_the_public_address_and_one_from_inside_is_not() {
    let mut world = World::new();
    world.gateway.desk.registered = Some(Some("203.0.113.5:1024".parse().unwrap()));
    let address_for = |local: &str, caller: &str| {
        world.gateway.desk.address_for(local.parse().unwrap(), caller.parse().unwrap()).to_string()
    };
    assert_eq!(address_for("192.168.0.2", "198.51.100.1"), "203.0.113.5");
    assert_eq!(address_for("192.168.0.2", "192.168.0.7"), "192.168.0.2");
    assert_eq!(address_for("198.51.100.9", "198.51.100.1"), "198.51.100.9");
    assert_eq!(address_for("fd00::2", "2001:db8::1"), "fd00::2");
}

#[test]
fn without_a_media_path_the_call_is_refused_with_words_about_udp() {
    let mut world = World::new();
    world.media_is_cut = true;
    world.invite("ada");
    world.run(seconds(21));
    assert_eq!(world.statuses("ada"), [180, 183, 480]);
    assert!(world.sip.last().unwrap().contains("UDP passes"));
}

#[test]
fn who_loses_present_before_the_answer_is_refused_in_words() {
    let mut world = World::new();
    world.media_is_cut = true;
    world.invite("ada");
    world.tell(1, &json!({"type": "joined", "kind": "change", "group": "club", "permissions": ["message"]}));
    assert_eq!(world.statuses("ada"), [180, 403]);
    assert!(world.sip.last().unwrap().contains("'present'"));
}

#[test]
fn a_voice_whose_path_is_lost_is_asked_for_until_it_is_back() {
    let mut world = world_with_calls(&["ada"]);
    world.offer_stream(1, "voice", "member1");
    world.run(seconds(1));
    world.media_is_cut = true;
    world.run(seconds(50));
    assert!(world.sent(1, "renegotiate").len() >= 3, "{:?}", world.sent(1, "renegotiate"));
    assert!(world.sent(1, "renegotiate").iter().all(|message| message["id"] == "voice"));
    assert_eq!(world.statuses("ada"), [180, 200]);
}

#[test]
fn a_voice_whose_dtls_fails_is_given_up_and_heard_once_it_is_offered_anew() {
    let mut world = world_with_calls(&["ada"]);
    world.dtls_is_cut = true;
    world.offer_stream(1, "voice", "member1");
    world.run(seconds(29));
    assert!(world.sent(1, "abort").is_empty());
    world.run(seconds(3));
    assert_eq!(world.sent(1, "abort").len(), 1);
    assert_eq!(world.sent(1, "abort")[0]["id"], "voice");
    world.dtls_is_cut = false;
    let requests = world.sent(1, "request").len();
    world.tell(1, &json!({"type": "close", "id": "voice"}));
    world.run(seconds(1));
    assert_eq!(world.sent(1, "request").len(), requests + 1);
    assert!(!world.mix.iter().any(|command| command == "AddStream"));
    world.offer_stream(1, "voice", "member1");
    world.run(seconds(1));
    assert_eq!(world.mix.last().unwrap(), "AddStream");
}

#[test]
fn ways_that_are_silent_for_10_s_are_looked_for_anew_and_a_break_of_12_s_ends_nothing() {
    let mut world = world_with_calls(&["ada"]);
    world.offer_stream(1, "voice", "member1");
    world.run(seconds(1));
    let up = world.sent(1, "offer")[0]["id"].clone();
    world.media_is_cut = true;
    world.run(seconds(4));
    assert_eq!((world.sent(1, "offer").len(), world.sent(1, "renegotiate").len()), (1, 0));
    world.run(seconds(8));
    let offers = world.sent(1, "offer");
    assert_eq!((offers.len(), &offers[1]["id"]), (2, &up));
    assert_eq!(world.sent(1, "renegotiate")[0]["id"], "voice");
    world.media_is_cut = false;
    world.run(seconds(60));
    assert_eq!((world.sent(1, "offer").len(), world.sent(1, "renegotiate").len()), (2, 1));
    assert_eq!(world.statuses("ada"), [180, 200]);
}

#[test]
fn the_end_of_a_callers_own_stream_makes_nobody_ask_for_it() {
    let mut world = world_with_calls(&["ada", "ben"]);
    let bens_stream = world.sent(2, "offer")[0]["id"].clone();
    world.tell(1, &json!({"type": "close", "id": bens_stream}));
    world.run(seconds(10));
    assert_eq!(world.sent(1, "request").len(), 1);
    world.tell(1, &json!({"type": "close", "id": "a-members"}));
    world.run(seconds(10));
    assert_eq!(world.sent(1, "request").len(), 2);
}

#[test]
fn after_sigterm_calls_go_on_for_a_while_and_no_more_are_taken() {
    let mut world = world_with_calls(&["ada", "ben"]);
    world.gateway.handle_input(world.now, super::Input::Drain);
    world.invite("cyd");
    assert_eq!(world.statuses("cyd"), [480]);
    world.run(seconds(10));
    assert!(!world.sip.iter().any(|text| text.starts_with("BYE")) && !world.stopped);
    world.request("ada", "BYE", 2, None);
    assert!(!world.gateway.is_stopping());
    world.request("ben", "BYE", 2, None);
    assert!(world.gateway.is_stopping());
    world.run(seconds(1));
    assert!(world.stopped);
}

#[test]
fn who_has_not_hung_up_in_time_gets_bye_and_so_does_everybody_at_a_second_sigterm() {
    for signals in [1, 2] {
        let mut world = world_with_calls(&["ada"]);
        for _ in 0..signals {
            world.gateway.handle_input(world.now, super::Input::Drain);
        }
        world.run(seconds(if signals == 1 { 30 } else { 0 }));
        assert!(world.sip.last().unwrap().starts_with("BYE"), "{signals}");
    }
}

#[test]
fn who_calls_from_beyond_the_router_is_told_its_address_and_who_is_within_ours() {
    for (caller, public) in [("192.0.2.1:5060", true), ("192.168.9.7:5060", false)] {
        let mut world = World::new();
        world.gateway.desk.config.public_address = Some("203.0.113.9".parse().unwrap());
        let (local, remote) = ("192.168.9.9:5060".parse().unwrap(), caller.parse().unwrap());
        let text = format!(
            "INVITE sip:room@203.0.113.9 SIP/2.0\r\nVia: SIP/2.0/UDP {caller};branch=z9hG4bKp\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:room@203.0.113.9>\r\nCall-ID: p\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:a@{caller}>\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{OFFER}",
            OFFER.len()
        );
        let input = crate::sip::event::Input::Datagram { local, remote, bytes: text.as_bytes() };
        world.gateway.handle_input(world.now, super::Input::Sip(input));
        world.run(seconds(1));
        let answer = world.sip.iter().find(|text| text.starts_with("SIP/2.0 200")).unwrap();
        let address = if public { "203.0.113.9" } else { "192.168.9.9" };
        assert!(answer.contains(&format!("c=IN IP4 {address}\r\n")), "{answer}");
    }
}
