//! The gateway and the telephone behind different NATs, or one of them: sound goes both ways, and again after the telephone's
//! NAT has forgotten the call. Kamailio is the provider's registrar, rtpengine the provider's media relay.

mod real;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lab::gateway::Gateway;
use lab::kamailio::{self, Kamailio};
use lab::network::{FAR_ROUTER, HOME, Host, Nat, Network, ROUTER, SERVER};
use lab::program::{find_or_skip, free_udp_port};
use lab::rtpengine::Rtpengine;
use lab::telephone::{Telephone, TelephoneSetup, What};
use real::open_network::{OpenNetwork, hears_the_room, speak};
use real::{PATIENCE, alone, binary, from};
use serde_json::json;

/// From the answer to sound both ways: the way to Galene is found within a second or so (`behind_nat`), and the telephone is
/// latched on to meanwhile.
const BOTH_WAYS_WITHIN: Duration = Duration::from_millis(2500);
/// After the NAT has forgotten the call: the old port must be silent for a second.
const AGAIN_WITHIN: Duration = Duration::from_secs(3);

/// What carries a call between gateway and telephone.
struct World {
    open: OpenNetwork,
    gateway: Gateway,
    kamailio: Option<Kamailio>,
    _relay: Option<Rtpengine>,
}

impl World {
    /// The gateway at home registers with a provider on the open network, which relays media or does not.
    fn registered(network: Network, relays: bool) -> Option<Self> {
        let programs = find_or_skip("kamailio").zip(find_or_skip("conntrack"))?;
        let rtpengine = if relays { Some(find_or_skip("rtpengine")?) } else { None };
        let open = OpenNetwork::new(network, json!([]));
        let start = || {
            let relay = rtpengine.map(|binary| Rtpengine::start_at(SERVER, &binary).unwrap());
            let kamailio = Kamailio::start_provider(&programs.0, SERVER, relay.as_ref().map(Rtpengine::control));
            (relay, kamailio.unwrap())
        };
        let (relay, kamailio) = open.network.inside(Host::Server, start);
        let account = format!("sip:{}@{}", kamailio::USER, kamailio.address());
        let gateway = open.network.inside(Host::Home, || {
            let address = SocketAddr::from((HOME, free_udp_port().unwrap()));
            let listen = address.to_string();
            let flags = ["-sip", &account, "-sip-password", kamailio::PASSWORD, "-sip-udp-address", &listen];
            Gateway::launch(binary(), &[&flags[..], &["-insecure", "-debug", &open.url]].concat(), address)
        });
        kamailio.wait_bound(PATIENCE).unwrap();
        Some(Self { open, gateway: gateway.unwrap(), kamailio: Some(kamailio), _relay: relay })
    }

    /// The gateway takes calls directly, at `ip`, where `host` is.
    fn direct(network: Network, host: Host, ip: Ipv4Addr, flags: &[&str]) -> Option<Self> {
        find_or_skip("conntrack")?;
        let open = OpenNetwork::new(network, json!([]));
        let flags = [&["-insecure"], flags].concat();
        let gateway = open.network.inside(host, || Gateway::start_at(ip, binary(), &open.url, &flags)).unwrap();
        Some(Self { open, gateway, kamailio: None, _relay: None })
    }

    /// The URI at which telephones call.
    fn uri(&self) -> String {
        let provider = self.kamailio.as_ref().map(|kamailio| format!("sip:{}@{}", kamailio::USER, kamailio.address()));
        provider.unwrap_or_else(|| self.gateway.uri())
    }

    fn log(&self) -> String {
        self.gateway.lines().join("\n")
    }

    /// A telephone on `host` calls: both hear each other soon. Then, if it is behind a NAT, that forgets the call: both hear
    /// each other soon again.
    fn assert_both_ways(&mut self, what: &str, host: Host, setup: TelephoneSetup) {
        let setup = setup.from(&from("Ada"));
        let telephone = self.open.network.inside(host, || Telephone::call(setup)).unwrap();
        speak(&telephone);
        telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
        let answered = Instant::now();
        let up = self.open.room_hears("Ada").unwrap_or_else(|| panic!("the room hears nothing\n{}", self.log()));
        hears_the_room(&telephone).unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
        let forgotten = (host != Host::Server).then(|| self.forget(&telephone, host));
        telephone.hang_up();
        telephone.wait_for(PATIENCE, |what| matches!(what, What::Bye { .. })).unwrap();
        let report = telephone.finish();
        let down = OpenNetwork::heard_after(&report, answered);
        println!("{what}: heard {up:.2?} (up) and {down:.2?} (down) after the answer");
        assert!(up.max(down) < BOTH_WAYS_WITHIN, "{}", self.log());
        if let Some(up) = forgotten {
            // What comes from us every 20 ms does so again.
            let down = report.reception.longest_gap;
            println!("{what}: the NAT forgot the call; heard again after {up:.2?} (up) and {down:.2?} (down)");
            assert!(up.max(down) < AGAIN_WITHIN, "{}", self.log());
        }
        self.gateway.wait_for_line(PATIENCE, |line| line.contains("ended; 0 calls remain")).unwrap();
    }

    /// The router of `host` gives the call other ports: how long it took until the room heard the telephone again.
    fn forget(&mut self, telephone: &Telephone, host: Host) -> Duration {
        self.open.network.forget_flows(host).unwrap();
        let forgotten = Instant::now();
        // What was on its way, and what was in the level of 200 ms, is past by then.
        std::thread::sleep(Duration::from_millis(400));
        self.open.room_hears("Ada").unwrap_or_else(|| panic!("not heard again\n{}", self.log()));
        let up = forgotten.elapsed();
        hears_the_room(telephone).unwrap_or_else(|why| panic!("{why}\n{}", self.log()));
        up
    }
}

#[test]
fn both_behind_symmetric_nats_hear_each_other_by_the_relay_of_their_provider() {
    let _alone = alone();
    let Some(network) = Network::with_far_home(Nat::Symmetric, Nat::Symmetric) else { return };
    let Some(mut world) = World::registered(network, true) else { return };
    let setup = TelephoneSetup::new(&world.uri());
    world.assert_both_ways("relay", Host::FarHome, setup);
}

#[test]
fn without_a_relay_a_full_cone_before_the_gateway_is_enough() {
    let _alone = alone();
    let Some(network) = Network::with_far_home(Nat::FullCone, Nat::Symmetric) else { return };
    let Some(mut world) = World::registered(network, false) else { return };
    let setup = TelephoneSetup::new(&world.uri());
    world.assert_both_ways("full cone here", Host::FarHome, setup);
}

#[test]
fn without_a_relay_a_full_cone_before_the_telephone_is_enough_if_that_follows_the_voice() {
    let _alone = alone();
    let Some(network) = Network::with_far_home(Nat::Symmetric, Nat::FullCone) else { return };
    let Some(mut world) = World::registered(network, false) else { return };
    // It knows from a STUN server what it is seen at.
    let claimed_address = Some(IpAddr::from(FAR_ROUTER));
    let setup = TelephoneSetup { claimed_address, follows_voice: true, ..TelephoneSetup::new(&world.uri()) };
    world.assert_both_ways("full cone there", Host::FarHome, setup);
}

#[test]
fn a_telephone_behind_a_nat_calls_a_gateway_on_a_public_address() {
    let _alone = alone();
    let Some(network) = Network::new(Nat::Symmetric) else { return };
    let Some(mut world) = World::direct(network, Host::Server, SERVER, &[]) else { return };
    let setup = TelephoneSetup::new(&world.uri());
    world.assert_both_ways("telephone behind a NAT", Host::Home, setup);
}

#[test]
fn a_gateway_behind_a_nat_that_registers_is_called_by_a_public_telephone() {
    let _alone = alone();
    let Some(network) = Network::new(Nat::KeepsPorts) else { return };
    let Some(mut world) = World::registered(network, false) else { return };
    let setup = TelephoneSetup::new(&world.uri());
    world.assert_both_ways("learnt address", Host::Server, setup);
}

#[test]
fn a_gateway_behind_a_nat_is_called_at_its_public_address_without_a_registrar() {
    let _alone = alone();
    let Some(network) = Network::new(Nat::FullCone) else { return };
    let public = ROUTER.to_string();
    let Some(mut world) = World::direct(network, Host::Home, HOME, &["-public-address", &public]) else { return };
    let setup = TelephoneSetup::new(&format!("sip:6002@{public}:{}", world.gateway.address().port()));
    world.assert_both_ways("-public-address", Host::Server, setup);
}
