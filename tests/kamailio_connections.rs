//! The gateway's program registers with a real Kamailio over TCP and TLS, and is called by way of it.

mod real;

use std::net::SocketAddr;
use std::time::Duration;

use lab::gateway::Gateway;
use lab::kamailio::{Kamailio, PASSWORD, USER};
use lab::program::{Signal, find_or_skip, free_udp_port};
use lab::room::{GroupConfig, RoomConfig, RoomServer};
use lab::telephone::{Telephone, TelephoneSetup, What};
use real::{GROUP, PATIENCE, alone, binary, from};

/// Unregistering and BYE have to be done within this after a signal.
const QUICK: Duration = Duration::from_secs(1);

fn room() -> RoomServer {
    RoomServer::start(RoomConfig::new(vec![GroupConfig::open(GROUP)])).unwrap()
}

fn register(account: &str, flags: &[&str], group_url: &str) -> Gateway {
    let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
    let listen = address.to_string();
    let mut arguments = vec!["-sip", account, "-sip-password", PASSWORD, "-sip-udp-address", &listen, "-debug"];
    arguments.extend(flags);
    arguments.push(group_url);
    Gateway::launch(binary(), &arguments, address).unwrap()
}

/// A telephone calls over UDP; Kamailio passes the call on by the gateway's own connection.
fn call_and_end(kamailio: &Kamailio, mut gateway: Gateway) {
    let setup = TelephoneSetup::new(&format!("sip:{USER}@{}", kamailio.address())).from(&from("Ada"));
    let telephone = Telephone::call(setup).unwrap();
    telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    gateway.signal(Signal::SIGTERM);
    let bye = telephone.wait_for(QUICK, |what| matches!(what, What::Bye { .. }));
    bye.unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert_eq!(gateway.wait_exit(2 * QUICK).unwrap().code(), Some(0));
}

#[test]
fn over_tcp_calls_come_in_by_the_connection_that_we_opened() {
    let Some(kamailio) = find_or_skip("kamailio") else { return };
    let _alone = alone();
    let room = room();
    let mut kamailio = Kamailio::start(&kamailio).unwrap();
    let account = format!("sip:{USER}@{};transport=tcp", kamailio.address());
    let gateway = register(&account, &["-sip-tcp-address", "127.0.0.1:0"], &room.group_url(GROUP));
    let bound = kamailio.wait_bound(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert!(bound.contains(";transport=tcp"), "{bound}");
    call_and_end(&kamailio, gateway);
    kamailio.wait_unbound(PATIENCE).unwrap();
    assert!(kamailio.program.is_running());
}
