//! Calls beyond what is allowed or can be carried, and what becomes of those that are there.

use super::{seconds, world_with_calls};
use crate::gateway::{Input, Load};

#[test]
fn a_caller_with_as_many_calls_as_one_may_have_is_busy_while_others_get_through() {
    let mut world = world_with_calls(&["ada"]);
    world.gateway.admission = super::super::Admission::new(3, 1);
    world.invite_as("ada2", "ada");
    assert_eq!(world.statuses("ada2"), [486]);
    assert!(world.sip.iter().any(|text| text.contains("Warning: ") && text.contains("-max-calls-per-caller")));
    world.invite("ben");
    world.run(seconds(1));
    assert_eq!(world.statuses("ben"), [180, 200]);
}

#[test]
fn a_gateway_at_its_limit_refuses_with_503_and_takes_calls_again_when_one_ends() {
    let mut world = world_with_calls(&["ada"]);
    world.gateway.admission = super::super::Admission::new(1, 1);
    world.invite("ben");
    assert_eq!(world.statuses("ben"), [503]);
    assert!(world.sip.last().unwrap().contains("Retry-After: "));
    assert_eq!(world.galene.iter().filter(|(call, _)| call.0 == 2).count(), 0, "nothing is asked of Galene for it");
    world.request("ada", "BYE", 2, None);
    world.invite("cyd");
    world.run(seconds(1));
    assert_eq!(world.statuses("cyd"), [180, 200]);
}

#[test]
fn a_busy_machine_keeps_its_calls_answers_options_and_refuses_new_ones_until_it_is_relieved() {
    let mut world = world_with_calls(&["ada"]);
    let load = |busiest_percent| Input::Load(Load { busiest_percent, missed_ticks_a_second: 0 });
    world.gateway.handle_input(world.now, load(90));
    world.invite("ben");
    assert_eq!(world.statuses("ben"), [503]);
    world.request("options", "OPTIONS", 1, None);
    assert_eq!(world.statuses("options"), [200]);
    world.run(seconds(60));
    assert!(!world.sip.iter().any(|text| text.starts_with("BYE")));
    world.gateway.handle_input(world.now, load(20));
    world.invite("cyd");
    world.run(seconds(1));
    assert_eq!(world.statuses("cyd"), [180, 200]);
}
