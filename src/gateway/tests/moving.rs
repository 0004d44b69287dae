//! The network of the machine changes in mid call.

use std::net::IpAddr;
use std::time::Duration;

use super::world::{GATEWAY, OFFER, World};
use super::{body, seconds, world_with_calls};
use crate::gateway::event::Input;

fn network(world: &mut World, gone: &str, has_new: bool) {
    let gone: IpAddr = gone.parse().unwrap();
    world.gateway.handle_input(world.now, Input::Network { gone: &[gone], has_new });
    world.run(Duration::ZERO);
}

#[test]
fn a_telephone_whose_address_of_ours_is_gone_is_told_of_another_as_soon_as_there_is_one() {
    let mut world = world_with_calls(&["ada"]);
    let ours = GATEWAY.split_once(':').unwrap().0;
    world.sip.clear();
    world.gateway.sockets().way_from = Some("192.0.2.77".parse().unwrap());
    // Another's, such as of a bridge of containers.
    network(&mut world, "172.17.0.1", true);
    assert!(world.sip.is_empty(), "{:?}", world.sip);
    world.gateway.sockets().way_from = None;
    network(&mut world, ours, true);
    assert!(world.sip.is_empty(), "there is no way yet: {:?}", world.sip);
    world.gateway.sockets().way_from = Some("192.0.2.77".parse().unwrap());
    network(&mut world, "172.17.0.1", true);
    assert_eq!(world.sip.len(), 1);
    let invite = world.sip[0].clone();
    assert!(invite.starts_with("INVITE ") && invite.contains("@192.0.2.77:5060>"), "{invite}");
    let offer = body(&invite);
    assert!(offer.contains("c=IN IP4 192.0.2.77") && offer.contains("m=audio 20002 "), "{offer}");
    world.mix.clear();
    world.answer(&invite, 200, OFFER);
    assert!(world.sip.last().unwrap().starts_with("ACK "));
    world.sip.clear();
    network(&mut world, "172.17.0.1", true);
    world.run(seconds(5));
    assert!(world.sip.is_empty(), "once is enough: {:?}", world.sip);
}

#[test]
fn a_new_address_ends_the_wait_for_the_next_try_to_be_back_in_the_room() {
    let mut world = world_with_calls(&["ada"]);
    world.galene_is_away = true;
    world.disconnect(1);
    world.run(seconds(20));
    // The tries are 3 s apart by now; one has just been made.
    let tried_at = *world.asked_at.last().unwrap();
    world.run((tried_at + seconds(3) + Duration::from_millis(10)).saturating_since(world.now));
    world.asked_at.clear();
    network(&mut world, "172.17.0.1", true);
    world.run(Duration::from_millis(500));
    assert_eq!(world.asked_at.len(), 1);
}
