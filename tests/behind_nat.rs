//! The gateway stands behind a symmetric NAT of its own, Galene on the open network: sound goes both ways whatever UDP the
//! router lets through, and after a change of the router's address.

mod real;

use std::time::{Duration, Instant};

use lab::coturn::{self, Coturn};
use lab::gateway::Gateway;
use lab::network::{Host, Nat, Network, SERVER};
use lab::program::find_or_skip;
use lab::telephone::{Telephone, TelephoneSetup};
use real::open_network::{OpenNetwork, hears_the_room, speak};
use real::{PATIENCE, alone, assert_once, binary, eventually, from};
use serde_json::json;

/// From the answer to the room's sound. Galene's side waits for something better than what a STUN server sees, than an address
/// that it sees by our checks alone, and than a relay: half a second, one, and two.
const REFLEXIVE_WITHIN: Duration = Duration::from_millis(700);
const UNTOLD_WITHIN: Duration = Duration::from_millis(1200);
const RELAYED_WITHIN: Duration = Duration::from_millis(2300);

/// A gateway at home that calls into a room on the open network.
struct World {
    open: OpenNetwork,
    gateway: Gateway,
}

impl World {
    /// `server` is the only one that Galene names, if any.
    fn new(network: Network, server: Option<&str>) -> Self {
        let ice_servers = server.map(|url| coturn::ice_servers(&[url]));
        let open = OpenNetwork::new(network, ice_servers.unwrap_or_else(|| json!([])));
        let start = || Gateway::start(binary(), &open.url, &["-insecure", "-debug"]);
        let gateway = open.network.inside(Host::Home, start).unwrap();
        Self { open, gateway }
    }

    fn call(&self) -> Telephone {
        let setup = TelephoneSetup::new(&self.gateway.uri()).from(&from("Ada"));
        let telephone = self.open.network.inside(Host::Home, || Telephone::call(setup)).unwrap();
        speak(&telephone);
        telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
        telephone
    }

    fn log(&self) -> String {
        self.gateway.lines().join("\n")
    }

    /// Waits until both hear each other, from now on.
    fn assert_both_ways(&mut self, telephone: &Telephone) {
        hears_the_room(telephone).unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
        assert!(self.open.room_hears("Ada").is_some(), "the room does not hear the telephone\n{}", self.log());
    }

    /// Calls, and tells how soon after the answer the room was heard.
    fn heard_after(&mut self) -> Duration {
        let telephone = self.call();
        let answered = Instant::now();
        self.assert_both_ways(&telephone);
        OpenNetwork::heard_after(&telephone.finish(), answered)
    }

    /// A busy machine delays one call, a way that is found late delays all.
    fn assert_heard_within(&mut self, limit: Duration) {
        assert_once("the room is heard in time", || {
            let heard_after = self.heard_after();
            println!("heard {heard_after:?} after the answer");
            (heard_after <= limit).then_some(()).ok_or_else(|| format!("{heard_after:?}\n{}", self.log()))
        });
    }

    fn ways(&self) -> Vec<String> {
        self.gateway.lines().into_iter().filter(|line| line.contains("the way to Galene is")).collect()
    }
}

#[test]
fn behind_a_symmetric_nat_both_ways_are_found_without_any_server() {
    let _alone = alone();
    let Some(network) = Network::new(Nat::Symmetric) else { return };
    let mut world = World::new(network, None);
    world.assert_heard_within(UNTOLD_WITHIN);
}

#[test]
fn behind_a_nat_that_keeps_ports_a_stun_server_saves_half_a_second() {
    let _alone = alone();
    let Some(binary) = find_or_skip("turnserver") else { return };
    let Some(network) = Network::new(Nat::KeepsPorts) else { return };
    let coturn = network.inside(Host::Server, || Coturn::start_at(SERVER, &binary, None, &[])).unwrap();
    let mut world = World::new(network, Some(&format!("stun:{}", coturn.address())));
    world.assert_heard_within(REFLEXIVE_WITHIN);
}

#[test]
fn where_udp_passes_to_the_turn_server_alone_its_relay_carries_both_ways() {
    let _alone = alone();
    let Some(binary) = find_or_skip("turnserver") else { return };
    let Some(network) = Network::new(Nat::Symmetric) else { return };
    let coturn = network.inside(Host::Server, || Coturn::start_at(SERVER, &binary, None, &[])).unwrap();
    network.block_udp_but(Some(coturn.address().port())).unwrap();
    let mut world = World::new(network, Some(&format!("turn:{}", coturn.address())));
    world.assert_heard_within(RELAYED_WITHIN);
    let ways = world.ways();
    assert!(ways.len() >= 2 && ways.iter().all(|way| way.contains("by the relay")), "{ways:#?}");
}

#[test]
fn where_no_udp_passes_at_all_a_relay_by_tcp_carries_both_ways() {
    let _alone = alone();
    let Some(binary) = find_or_skip("turnserver") else { return };
    let Some(network) = Network::new(Nat::Symmetric) else { return };
    let coturn = network.inside(Host::Server, || Coturn::start_at(SERVER, &binary, None, &[])).unwrap();
    network.block_udp_but(None).unwrap();
    let mut world = World::new(network, Some(&format!("turn:{}?transport=tcp", coturn.address())));
    world.assert_heard_within(RELAYED_WITHIN);
}

#[test]
fn a_change_of_the_routers_address_in_mid_call_is_healed_both_ways() {
    let _alone = alone();
    let Some(network) = Network::new(Nat::Symmetric) else { return };
    let mut world = World::new(network, None);
    let telephone = world.call();
    world.assert_both_ways(&telephone);
    world.open.network.change_address(77).unwrap();
    let changed = Instant::now();
    // What was on its way is past within a second.
    std::thread::sleep(Duration::from_secs(1));
    world.assert_both_ways(&telephone);
    println!("both ways again {:?} after the change", changed.elapsed());
    // The connection to Galene is dead too, which takes until the second ping without an answer to see.
    eventually("the caller is a member anew", || world.gateway.lines().iter().any(|line| line.contains("back in")));
    world.assert_both_ways(&telephone);
    println!("all is well {:?} after the change", changed.elapsed());
    assert!(!telephone.is_over());
}
