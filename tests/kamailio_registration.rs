//! The gateway's program registers with a real Kamailio, with digest authentication, over UDP.

mod real;

use std::net::SocketAddr;
use std::time::Duration;

use lab::gateway::Gateway;
use lab::kamailio::{Kamailio, PASSWORD, USER};
use lab::program::{Signal, find_or_skip, free_udp_port};
use lab::room::RoomServer;
use lab::telephone::{Telephone, TelephoneSetup, What};
use real::{GROUP, PATIENCE, alone, binary, from, register, room};

/// Unregistering and BYE have to be done within this after a signal.
const QUICK: Duration = Duration::from_secs(1);

fn register_at(kamailio: &Kamailio, password: &str, room: &RoomServer) -> Gateway {
    register(&format!("sip:{USER}@{}", kamailio.address()), password, &[], &room.group_url(GROUP))
}

#[test]
fn the_right_password_registers_calls_come_through_and_a_signal_unregisters() {
    let Some(kamailio) = find_or_skip("kamailio") else { return };
    let _alone = alone();
    let room = room();
    let mut kamailio = Kamailio::start(&kamailio).unwrap();
    let mut gateway = register_at(&kamailio, PASSWORD, &room);
    let bound = kamailio.wait_bound(PATIENCE).unwrap();
    assert!(bound.contains(&gateway.address().to_string()), "{bound}");

    // A call by way of the registrar reaches the gateway at its Contact, and the route is kept for what follows.
    let setup = TelephoneSetup::new(&format!("sip:{USER}@{}", kamailio.address())).from(&from("Ada"));
    let telephone = Telephone::call(setup).unwrap();
    telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));

    gateway.signal(Signal::SIGTERM);
    telephone.wait_for(QUICK, |what| matches!(what, What::Bye { .. })).unwrap();
    assert_eq!(gateway.wait_exit(2 * QUICK).unwrap().code(), Some(0));
    kamailio.wait_unbound(PATIENCE).unwrap();
    assert!(kamailio.program.is_running());
}

#[test]
fn a_digest_of_sha_256_is_given_where_it_is_asked_for() {
    let Some(kamailio) = find_or_skip("kamailio") else { return };
    let _alone = alone();
    let room = room();
    let kamailio = Kamailio::start_with_sha_256(&kamailio).unwrap();
    let gateway = register_at(&kamailio, PASSWORD, &room);
    let bound = kamailio.wait_bound(PATIENCE).unwrap();
    assert!(bound.contains("+sip.instance=\"<urn:uuid:") && bound.contains("reg-id=1"), "{bound}");
    gateway.wait_for_line(PATIENCE, |line| line.contains("algorithm=SHA-256")).unwrap();
}

#[test]
fn a_call_that_passes_the_registrar_by_is_refused_with_the_flag_that_would_allow_it() {
    let Some(kamailio) = find_or_skip("kamailio") else { return };
    let _alone = alone();
    let room = room();
    let kamailio = Kamailio::start(&kamailio).unwrap();
    let gateway = register_at(&kamailio, PASSWORD, &room);
    let bound = kamailio.wait_bound(PATIENCE).unwrap();
    // The registrar's address is trusted; another address of this machine is not, and knows no token.
    let mut setup = TelephoneSetup::new(&gateway.uri()).from(&from("Eve"));
    setup.local = Some([127, 0, 0, 2].into());
    let telephone = Telephone::call(setup).unwrap();
    let event = telephone.wait_for(PATIENCE, |what| matches!(what, What::Refused { .. })).unwrap();
    assert!(matches!(event.what, What::Refused { status: 403, .. }), "{event:?}; bound: {bound}");
    gateway.wait_for_line(PATIENCE, |line| line.contains("-sip-allow 127.0.0.2")).unwrap();
}

#[test]
fn a_wrong_password_is_told_in_one_line_that_names_the_flag() {
    let Some(kamailio) = find_or_skip("kamailio") else { return };
    let _alone = alone();
    let room = room();
    let kamailio = Kamailio::start(&kamailio).unwrap();
    let mut gateway = register_at(&kamailio, "not this one", &room);
    let is_told = |line: &str| line.contains("-sip-password") && line.contains("refuse");
    gateway.wait_for_line(PATIENCE, is_told).unwrap();
    assert!(gateway.is_running());
    // It is told once, and tried again only after minutes; the password itself is told nowhere.
    std::thread::sleep(Duration::from_secs(2));
    let lines = gateway.lines();
    assert_eq!(lines.iter().filter(|line| is_told(line)).count(), 1, "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("not this one")));
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit(2 * QUICK).unwrap().code(), Some(0));
}

#[test]
fn an_unknown_registrar_is_told_in_words() {
    let _alone = alone();
    let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
    let listen = address.to_string();
    let arguments =
        ["-sip", "sip:6002@no-such-host.invalid", "-sip-udp-address", &listen, "http://127.0.0.1:1/group/x/"];
    let gateway = Gateway::launch(binary(), &arguments, address).unwrap();
    gateway
        .wait_for_line(PATIENCE, |line| line.contains("no-such-host.invalid") && line.contains("-sip-registrar"))
        .unwrap();
}
