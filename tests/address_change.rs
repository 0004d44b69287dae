//! The gateway's own address changes in mid call, as from Wi-Fi to LTE: sound goes both ways again, and the registrar learns the
//! new Contact. Addresses that the gateway does not use come and go unheeded.

mod real;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lab::coturn::{self, Coturn};
use lab::gateway::Gateway;
use lab::kamailio::{self, Kamailio};
use lab::network::{Host, Nat, Network, SERVER};
use lab::program::{find_or_skip, free_udp_port};
use lab::rtpengine::Rtpengine;
use lab::telephone::{Telephone, TelephoneSetup};
use real::open_network::{OpenNetwork, hears_the_room, speak};
use real::{PATIENCE, alone, binary, eventually, from};
use serde_json::{Value, json};

/// From the change, or from the return of a network, to sound both ways.
const AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// A gateway at home that is registered at a provider on the open network, and a telephone beside it, as of a PBX on the same
/// machine.
struct World {
    open: OpenNetwork,
    gateway: Gateway,
    kamailio: Kamailio,
    _relay: Option<Rtpengine>,
}

impl World {
    fn new(network: Network, ice_servers: Value, transport: &str) -> Option<Self> {
        Self::start(network, ice_servers, transport, None)
    }

    /// With a provider that relays media.
    fn relayed(network: Network, transport: &str) -> Option<Self> {
        let rtpengine = find_or_skip("rtpengine")?;
        let relay = network.inside(Host::Server, || Rtpengine::start_at(SERVER, &rtpengine)).unwrap();
        Self::start(network, json!([]), transport, Some(relay))
    }

    fn start(network: Network, ice_servers: Value, transport: &str, relay: Option<Rtpengine>) -> Option<Self> {
        let binary_of_kamailio = find_or_skip("kamailio")?;
        let open = OpenNetwork::new(network, ice_servers);
        let control = relay.as_ref().map(Rtpengine::control);
        let start = || Kamailio::start_provider(&binary_of_kamailio, SERVER, control).unwrap();
        let kamailio = open.network.inside(Host::Server, start);
        let account = format!("sip:{}@{};transport={transport}", kamailio::USER, kamailio.address());
        let gateway = open.network.inside(Host::Home, || {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port().unwrap()));
            let listen = format!(":{}", address.port());
            let flags = ["-sip", &account, "-sip-password", kamailio::PASSWORD, "-sip-udp-address", &listen];
            let more = ["-sip-allow", "127.0.0.1", "-insecure", "-debug", &open.url];
            Gateway::launch(binary(), &[&flags[..], &more].concat(), address).unwrap()
        });
        kamailio.wait_bound(PATIENCE).unwrap();
        Some(Self { open, gateway, kamailio, _relay: relay })
    }

    fn log(&self) -> String {
        self.gateway.lines().join("\n")
    }

    /// The Contacts that the provider was told, one a line.
    fn bindings(&self) -> Vec<String> {
        self.kamailio.program.lines().into_iter().filter(|line| line.contains("lab: bound ")).collect()
    }

    /// A telephone beside the gateway that hears and is heard.
    fn call(&mut self) -> Telephone {
        let uri = self.gateway.uri();
        self.call_from(Host::Home, &uri)
    }

    fn call_from(&mut self, host: Host, uri: &str) -> Telephone {
        let setup = TelephoneSetup::new(uri).from(&from("Ada"));
        let telephone = self.open.network.inside(host, || Telephone::call(setup)).unwrap();
        speak(&telephone);
        telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
        self.assert_both_ways(&telephone);
        telephone
    }

    /// Waits until both hear each other, from now on.
    fn assert_both_ways(&mut self, telephone: &Telephone) {
        assert!(self.open.room_hears("Ada").is_some(), "the room does not hear the telephone\n{}", self.log());
        hears_the_room(telephone).unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
    }

    /// Home leaves its network, is without one for `between`, and then in another: both hear each other again soon after
    /// that, and the provider knows the new Contact.
    fn assert_healed(&mut self, what: &str, telephone: Telephone, between: Duration) {
        let before = self.bindings().len();
        self.open.network.leave_home().unwrap();
        std::thread::sleep(between);
        self.open.network.move_home().unwrap();
        let moved = Instant::now();
        // What was on its way, and what was in the level of 200 ms, is past by then.
        std::thread::sleep(Duration::from_millis(400));
        let up = self.open.room_hears("Ada");
        assert!(up.is_some(), "the room does not hear the telephone\n{}", self.log());
        let up = moved.elapsed();
        eventually("the provider knows another Contact", || self.bindings().len() > before);
        let registered = moved.elapsed();
        self.assert_both_ways(&telephone);
        assert!(!telephone.is_over());
        let down = OpenNetwork::heard_after(&telephone.finish(), moved + Duration::from_millis(400));
        let down = down + Duration::from_millis(400);
        println!(
            "{what}: heard again {up:.2?} (up) and {down:.2?} (down) after it, registered within {registered:.2?}"
        );
        let (old, new) = (&self.bindings()[before - 1], &self.bindings()[before]);
        assert_ne!(old, new, "{}", self.log());
        assert!(up.max(down) < AGAIN_WITHIN, "{}", self.log());
        assert!(registered < AGAIN_WITHIN, "{}", self.log());
    }
}

#[test]
fn another_network_in_mid_call_is_healed_both_ways() {
    let _alone = alone();
    let Some(network) = Network::new(Nat::Symmetric) else { return };
    let Some(mut world) = World::new(network, json!([]), "udp") else { return };
    let telephone = world.call();
    world.assert_healed("moved", telephone, Duration::ZERO);
}

#[test]
fn another_network_is_found_where_udp_passes_to_the_turn_server_alone() {
    let _alone = alone();
    let Some(binary) = find_or_skip("turnserver") else { return };
    let Some(network) = Network::new(Nat::Symmetric) else { return };
    let coturn = network.inside(Host::Server, || Coturn::start_at(SERVER, &binary, None, &[])).unwrap();
    network.block_udp_but(Some(coturn.address().port())).unwrap();
    let url = format!("turn:{}", coturn.address());
    let ice_servers = coturn::ice_servers(&[&url]);
    let Some(mut world) = World::new(network, ice_servers, "tcp") else { return };
    let telephone = world.call();
    world.assert_healed("moved, by the relay", telephone, Duration::ZERO);
    let log = world.log();
    let ways: Vec<&str> = log.lines().filter(|line| line.contains("the way to Galene is")).collect();
    assert!(ways.len() >= 4 && ways.iter().all(|way| way.contains("by the relay")), "{ways:#?}");
}

fn assert_telephone_is_told(transport: &str, between: Duration) {
    let _alone = alone();
    let Some(network) = Network::with_far_home(Nat::Symmetric, Nat::Symmetric) else { return };
    let Some(mut world) = World::relayed(network, transport) else { return };
    let uri = format!("sip:{}@{}", kamailio::USER, world.kamailio.address());
    let telephone = world.call_from(Host::FarHome, &uri);
    let what = format!("moved after {between:?}, the telephone elsewhere ({transport})");
    world.assert_healed(&what, telephone, between);
    world.gateway.wait_for_line(PATIENCE, |line| line.contains("the telephone is told of")).unwrap();
    // Its BYE finds us where we are now.
    world.gateway.wait_for_line(PATIENCE, |line| line.contains("ended; 0 calls remain")).unwrap();
}

#[test]
fn a_telephone_elsewhere_is_told_of_the_new_address_that_comes_after_two_seconds_without_any() {
    assert_telephone_is_told("udp", Duration::from_secs(2));
}

#[test]
fn a_telephone_elsewhere_is_told_of_the_new_address_by_a_new_connection() {
    assert_telephone_is_told("tcp", Duration::ZERO);
}

#[test]
fn addresses_that_are_not_in_use_come_and_go_unheeded() {
    let _alone = alone();
    let Some(network) = Network::new(Nat::Symmetric) else { return };
    let Some(mut world) = World::new(network, json!([]), "udp") else { return };
    let telephone = world.call();
    let (lines, bindings) = (world.gateway.lines().len(), world.bindings().len());
    for _ in 0..10 {
        let ip = |words: &[&str]| world.open.network.ip(Host::Home, words).unwrap();
        ip(&["link", "add", "docker0", "type", "bridge"]);
        ip(&["addr", "add", "172.17.0.1/16", "dev", "docker0"]);
        ip(&["addr", "add", "fd00:7::1/64", "dev", "docker0"]);
        ip(&["link", "set", "docker0", "up"]);
        ip(&["link", "del", "docker0"]);
    }
    world.assert_both_ways(&telephone);
    let said = world.gateway.lines().split_off(lines);
    let is_alarmed = |line: &&String| line.contains("WARN") || line.contains("REGISTER") || line.contains("the way to");
    assert_eq!(said.iter().filter(is_alarmed).count(), 0, "{said:#?}");
    assert_eq!(world.bindings().len(), bindings);
    let report = telephone.finish();
    println!("longest pause between packets: {:.1?}", report.reception.longest_gap);
    assert!(report.reception.lost == 0, "{:?}", report.reception);
}
