//! Who listens for a room when the listener's call ends, and what becomes of the voices meanwhile.

use std::time::Duration;

use serde_json::json;

use super::world::World;
use super::{seconds, world_with_calls};
use crate::gateway::Input;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A room of that many callers, the first of whom listens to two voices.
fn world_with_voices(names: &[&str]) -> World {
    let mut world = world_with_calls(names);
    world.hears(1, "v1");
    world.hears(1, "v2");
    assert_eq!(world.count("AddStream"), 2);
    world.mix.clear();
    world
}

#[test]
fn when_the_listener_hangs_up_its_member_stays_until_the_next_one_hears_every_stream() {
    let mut world = world_with_voices(&["ada", "ben"]);
    let voices = world.down_streams();
    world.request("ada", "BYE", 2, None);
    assert_eq!(world.statuses("ada"), [180, 200, 200]);
    assert_eq!(world.mix, ["SetPresent false", "SetUp false", "RemoveCaller"]);
    assert_eq!(world.sent(1, "close")[0]["id"], world.sent(1, "offer")[0]["id"]);
    assert_eq!((world.sent(2, "request").len(), world.gone.len()), (1, 0));

    world.hears(2, "v1");
    assert_eq!(world.gone.len(), 0, "v2 would be missed");
    assert_eq!(world.down_streams(), [voices[0], voices[1], voices[0]], "both links feed the same voice");
    world.hears(2, "v2");
    assert!(world.gone.contains(&1));
    assert_eq!(world.down_streams(), voices);
    assert_eq!(world.mix.len(), 3, "{:?}", world.mix);
    world.run(seconds(5));
    assert_eq!(world.mix.len(), 3, "{:?}", world.mix);
}

#[test]
fn what_the_next_listener_has_not_received_after_two_seconds_is_waited_for_no_longer() {
    let mut world = world_with_voices(&["ada", "ben"]);
    world.mute_streams.insert("v2".into());
    world.request("ada", "BYE", 2, None);
    let hung_up = world.now;
    world.hears(2, "v1");
    world.hears(2, "v2");
    world.run((hung_up + ms(1999)).saturating_since(world.now));
    assert_eq!(world.gone.len(), 0);
    world.run(ms(1));
    assert!(world.gone.contains(&1));
    assert_eq!((world.down_streams().len(), world.count("RemoveStream")), (2, 0), "v2 may yet speak");
}

#[test]
fn a_stream_that_the_next_listener_is_not_offered_ends_with_the_former_ones_membership() {
    let mut world = world_with_voices(&["ada", "ben"]);
    world.request("ada", "BYE", 2, None);
    world.hears(2, "v1");
    world.run(seconds(2));
    assert!(world.gone.contains(&1));
    assert_eq!((world.down_streams().len(), world.count("RemoveStream")), (1, 1));
}

#[test]
fn without_another_caller_the_listener_leaves_at_once() {
    let mut world = world_with_voices(&["ada"]);
    world.request("ada", "BYE", 2, None);
    assert!(world.gone.contains(&1) && world.gateway.sockets().open.is_empty());
}

#[test]
fn when_the_last_caller_hangs_up_too_both_members_leave_at_once() {
    let mut world = world_with_voices(&["ada", "ben"]);
    world.request("ada", "BYE", 2, None);
    world.request("ben", "BYE", 2, None);
    assert_eq!(world.gone.iter().copied().collect::<Vec<_>>(), [1, 2]);
    assert!(world.gateway.sockets().open.is_empty());
    assert_eq!(world.count("RemoveStream"), 2);
    assert_eq!(world.mix.last().unwrap(), "CloseRoom");
    assert_eq!(world.gateway.next_timeout().map(|deadline| deadline.at > world.now), Some(true));
}

#[test]
fn shutting_down_waits_for_no_take_over() {
    let mut world = world_with_voices(&["ada", "ben", "cyd"]);
    world.request("ada", "BYE", 2, None);
    assert_eq!(world.gone.len(), 0);
    world.gateway.handle_input(world.now, Input::ShutDown);
    world.run(Duration::ZERO);
    assert_eq!(world.gone.len(), 3);
    assert!(world.gateway.sockets().open.is_empty());
}

#[test]
fn after_a_kick_the_voices_wait_for_the_next_listeners_links() {
    let mut world = world_with_voices(&["ada", "ben"]);
    let voices = world.down_streams();
    world.kick(1);
    assert!(world.down_streams().is_empty());
    assert_eq!(world.sent(2, "request").len(), 1);
    world.hears(2, "v1");
    world.hears(2, "v2");
    assert_eq!(world.down_streams(), voices);
    world.run(seconds(5));
    assert_eq!((world.count("AddStream"), world.count("RemoveStream")), (0, 0));
}

#[test]
fn after_a_lost_connection_a_voice_that_does_not_come_back_is_given_up() {
    let mut world = world_with_voices(&["ada", "ben"]);
    world.disconnect(1);
    let lost = world.now;
    world.hears(2, "v1");
    world.run((lost + ms(1999)).saturating_since(world.now));
    assert_eq!(world.count("RemoveStream"), 0);
    world.run(ms(1));
    assert_eq!((world.down_streams().len(), world.count("RemoveStream")), (1, 1));
    world.hears(2, "v2");
    assert_eq!(world.count("AddStream"), 1, "a latecomer is a new voice");
}

#[test]
fn when_one_listener_after_another_dies_in_mid_take_over_the_voices_go_on() {
    let mut world = world_with_voices(&["ada", "ben", "cyd", "dan", "eve"]);
    let voices = world.down_streams();
    world.request("ada", "BYE", 2, None);
    world.hears(2, "v1");
    world.kick(2);
    assert_eq!(world.sent(3, "request").len(), 1);
    // This one has received nothing, so there is nothing to stay for.
    world.request("cyd", "BYE", 2, None);
    assert!(world.gone.contains(&3) && !world.gone.contains(&1));
    assert_eq!(world.sent(4, "request").len(), 1);
    world.hears(4, "v2");
    world.request("dan", "BYE", 2, None);
    assert_eq!(world.sent(5, "request").len(), 1);
    assert!(!world.gone.contains(&4) && !world.gone.contains(&1));
    world.hears(5, "v2");
    assert!(world.gone.contains(&4) && !world.gone.contains(&1));
    world.hears(5, "v1");
    assert!(world.gone.contains(&1));
    world.run(seconds(5));
    assert_eq!(world.down_streams().len(), 2);
    assert!(voices.iter().all(|voice| world.down_streams().contains(voice)));
    assert_eq!((world.count("AddStream"), world.count("RemoveStream")), (0, 0));
}

#[test]
fn who_has_hung_up_and_is_then_kicked_is_gone_and_his_voices_wait() {
    let mut world = world_with_voices(&["ada", "ben"]);
    world.request("ada", "BYE", 2, None);
    world.kick(1);
    assert!(world.down_streams().is_empty());
    world.hears(2, "v1");
    world.hears(2, "v2");
    world.run(seconds(5));
    assert_eq!((world.down_streams().len(), world.count("AddStream"), world.count("RemoveStream")), (2, 0, 0));
}

#[test]
fn a_close_counts_only_for_the_member_that_it_came_to() {
    let mut world = world_with_voices(&["ada", "ben"]);
    world.request("ada", "BYE", 2, None);
    world.tell(2, &json!({"type": "close", "id": "v1"}));
    world.hears(2, "v1");
    world.tell(1, &json!({"type": "close", "id": "v1"}));
    assert_eq!((world.down_streams().len(), world.count("RemoveStream")), (2, 0));
    world.tell(2, &json!({"type": "close", "id": "v1"}));
    assert_eq!(world.count("RemoveStream"), 1);
    // The one that is left is the leaver's.
    world.tell(1, &json!({"type": "close", "id": "v2"}));
    assert_eq!(world.count("RemoveStream"), 2);
    assert!(world.gone.contains(&1) && world.down_streams().is_empty());
}

#[test]
fn a_leaver_takes_nothing_new_and_answers_a_restart_of_what_it_has() {
    let mut world = world_with_voices(&["ada", "ben"]);
    world.request("ada", "BYE", 2, None);
    world.offer_stream(1, "v3", "member1");
    assert_eq!(world.sent(1, "answer").len(), 2);
    world.offer_stream(1, "v1", "member1");
    assert_eq!(world.sent(1, "answer").len(), 3);
}

#[test]
fn the_listener_who_loses_present_goes_on_listening() {
    let mut world = world_with_voices(&["ada", "ben"]);
    world.tell(1, &json!({"type": "joined", "kind": "change", "group": "club", "permissions": ["message"]}));
    world.run(seconds(5));
    assert_eq!((world.sent(2, "request").len(), world.down_streams().len()), (0, 2));
    assert_eq!(world.count("RemoveStream"), 0);
}

#[test]
fn an_answered_caller_listens_rather_than_one_who_may_still_fail() {
    let mut world = world_with_voices(&["ada"]);
    let joined = std::mem::replace(&mut world.joined, json!({"kind": "not yet"}));
    world.invite("ben");
    world.joined = joined.clone();
    world.invite("cyd");
    world.run(seconds(1));
    world.media_is_cut = true;
    world.tell_joined(2, &joined);
    assert_eq!((world.statuses("ben"), world.statuses("cyd")), (vec![180], vec![180, 200]));
    world.request("ada", "BYE", 2, None);
    assert_eq!((world.sent(2, "request").len(), world.sent(3, "request").len()), (0, 1));
}

#[test]
fn the_end_of_a_former_callers_stream_makes_nobody_ask_for_it() {
    let mut world = world_with_voices(&["ada", "ben"]);
    let bens_stream = world.sent(2, "offer")[0]["id"].clone();
    world.request("ben", "BYE", 2, None);
    world.tell(1, &json!({"type": "close", "id": bens_stream}));
    world.run(seconds(10));
    assert_eq!(world.sent(1, "request").len(), 1);
}

#[test]
fn urls_that_lead_to_one_group_share_its_room() {
    let mut world = World::new();
    let alias = json!({
        "name": "alias", "location": "https://galene.test/group/alias/", "endpoint": "wss://galene.test/ws",
        "redirect": "https://galene.test/group/club/"
    });
    world.status.insert("https://galene.test/group/alias/.status".into(), alias);
    for (name, url) in [("ada", "alias"), ("ben", "club")] {
        world.gateway.desk.config.group_url = format!("https://galene.test/group/{url}/").parse().unwrap();
        world.invite(name);
        world.run(seconds(1));
        assert_eq!(world.statuses(name), [180, 200], "{name}");
    }
    assert_eq!(world.sent(1, "join")[0]["group"], "club");
    assert_eq!((world.count("OpenRoom"), world.count("AddCaller")), (1, 2));
    assert_eq!((world.sent(1, "request").len(), world.sent(2, "request").len()), (1, 0));
}
