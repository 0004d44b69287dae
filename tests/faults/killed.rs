//! The gateway is killed in mid call, as by a power cut or the kernel for want of memory, and started again as systemd does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::gateway::Gateway;
use lab::program::{Signal, free_udp_port};
use lab::registrar::Registrar;
use lab::room::{GroupConfig, RoomConfig};
use lab::telephone::{Telephone, TelephoneSetup};

use crate::ground::call;
use crate::real::{GROUP, Judge, PATIENCE, eventually, from, names, register, room};

/// From the kill to a registration of the next process.
const REGISTERED_WITHIN: Duration = Duration::from_secs(5);
/// The kernel closes the connections of a process that is gone.
const GONE_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn it_is_registered_again_at_once_and_leaves_no_ghost() {
    let room = room();
    let mut registrar = Registrar::start("room", "secret").unwrap();
    let account = registrar.account().address_of_record();
    let mut gateway = register(&account, "secret", &[], &room.group_url(GROUP));
    let contact = registrar.wait_registered(PATIENCE, |_| ()).unwrap();
    let telephone = call(&contact, "Ada", || gateway.lines().join("\n"));
    assert_eq!(names(&room), ["Ada"]);

    let killed = Instant::now();
    gateway.signal(Signal::SIGKILL);
    gateway.wait_exit(PATIENCE).unwrap();
    let address = gateway.address();
    eventually("the ghost is out of the room", || names(&room).is_empty());
    let gone = killed.elapsed();
    assert!(gone < GONE_WITHIN, "{gone:?}");

    let listen = address.to_string();
    let flags = ["-sip", &account, "-sip-password", "secret", "-sip-udp-address", &listen, "-debug"];
    let url = room.group_url(GROUP);
    let next = Gateway::launch(crate::real::binary(), &[&flags[..], &[url.as_str()]].concat(), address).unwrap();
    let contact = registrar.wait_registered(REGISTERED_WITHIN, |_| ());
    let contact = contact.unwrap_or_else(|why| panic!("{why}\n{}", next.lines().join("\n")));
    let registered = killed.elapsed();
    println!("ghost gone after {gone:?}, registered again after {registered:?}");
    assert!(registered < REGISTERED_WITHIN, "{registered:?}");
    // Both hang up on what is gone: nobody knows of the first call any more.
    drop(telephone);
    let telephone = call(&contact, "Ada", || next.lines().join("\n"));
    assert_eq!(names(&room), ["Ada"]);
    drop(telephone);
}

#[test]
fn where_the_network_swallows_the_news_the_ghost_stays_as_long_as_the_server_lets_it_and_the_caller_may_come_again() {
    // A real server has 45 s and looks every ten; what counts is that nothing of ours depends on it.
    let lingering = Duration::from_secs(3);
    let config = RoomConfig { ghost: Some(lingering), ..RoomConfig::new(vec![GroupConfig::open(GROUP)]) };
    let room = Judge::start(config);
    let start = || {
        let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
        let listen = address.to_string();
        let url = room.group_url(GROUP);
        let flags = ["-no-sip-register", "-sip-udp-address", &listen, "-debug", &url];
        let mut gateway = Gateway::launch(crate::real::binary(), &flags, address).unwrap();
        gateway.wait_ready().unwrap();
        gateway
    };
    let mut gateway = start();
    let first = call(&gateway.uri(), "Ada", || gateway.lines().join("\n"));
    let killed = Instant::now();
    gateway.signal(Signal::SIGKILL);
    gateway.wait_exit(PATIENCE).unwrap();
    let next = start();
    let again = Telephone::call(TelephoneSetup::new(&next.uri()).from(&from("Ada"))).unwrap();
    again.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", next.lines().join("\n")));
    assert_eq!(names(&room), ["Ada", "Ada"], "the ghost and the caller");
    eventually("the ghost is out of the room", || names(&room).len() == 1);
    let gone = killed.elapsed();
    assert!(gone >= lingering && gone < lingering + GONE_WITHIN, "{gone:?}");
    drop((first, again));
}
