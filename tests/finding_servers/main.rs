//! The gateway's program finds its registrar by NAPTR, SRV and A records of a name server on loopback, and goes to the next
//! server when one is gone.

#[path = "../common/name_server.rs"]
mod name_server;
#[path = "../real/mod.rs"]
mod real;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lab::gateway::Gateway;
use lab::kamailio::{Kamailio, PASSWORD, USER};
use lab::program::{find_or_skip, free_tcp_port, free_udp_port};
use lab::registrar::Registrar;
use lab::room::RoomServer;
use name_server::{NameServer, address, loopback, naptr, srv};
use real::{GROUP, PATIENCE, alone, register, room};

fn register_by(names: &NameServer, password: &str, flags: &[&str], room: &RoomServer) -> Gateway {
    let names = names.address().to_string();
    let flags = [&["-sip-dns", &names], flags].concat();
    register(&format!("sip:{USER}@example.test"), password, &flags, &room.group_url(GROUP))
}

#[test]
fn records_lead_to_the_next_server_where_one_refuses_and_when_one_is_gone() {
    let Some(binary) = find_or_skip("kamailio") else { return };
    let _alone = alone();
    let room = room();
    let at = || SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
    let first = Kamailio::start_at(&binary, at(), None).unwrap();
    let second = Kamailio::start_at(&binary, at(), None).unwrap();
    let names = NameServer::start(vec![
        naptr("example.test.", 20, "SIP+D2U", "_sip._udp.example.test."),
        naptr("example.test.", 10, "SIP+D2T", "_sip._tcp.elsewhere.test."),
        srv("_sip._tcp.elsewhere.test.", 1, free_tcp_port().unwrap(), "closed.test."),
        srv("_sip._tcp.elsewhere.test.", 2, first.address().port(), "first.test."),
        srv("_sip._tcp.elsewhere.test.", 3, second.address().port(), "second.test."),
        loopback("closed.test."),
        loopback("first.test."),
        loopback("second.test."),
    ]);
    let gateway = register_by(&names, PASSWORD, &[], &room);
    let bound = first.wait_bound(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert!(bound.contains(";transport=tcp"), "{bound}");
    let questions = names.questions();
    let expected =
        ["UDP NAPTR example.test.", "UDP SRV _sip._tcp.elsewhere.test.", "TCP SRV _sip._tcp.elsewhere.test."];
    assert_eq!(questions[..3], expected);
    // The connection ends with the server; calls can come in by the other one within moments.
    drop(first);
    second.wait_bound(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert!(!gateway.lines().iter().any(|line| line.contains("not registered")), "nobody needs to know");
}

#[test]
fn a_registrar_that_moves_to_another_address_is_found_there() {
    let Some(binary) = find_or_skip("kamailio") else { return };
    let _alone = alone();
    let room = room();
    let port = free_udp_port().unwrap();
    let (here, there) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let zone = |host| vec![srv("_sip._udp.example.test.", 1, port, "home.test."), address("home.test.", host)];
    let names = NameServer::start(zone(here));
    let old = Kamailio::start_at(&binary, (here, port).into(), None).unwrap();
    let gateway = register_by(&names, PASSWORD, &["-sip-transport", "udp"], &room);
    old.wait_bound(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    drop(old);
    let new = Kamailio::start_at(&binary, (there, port).into(), None).unwrap();
    names.change(zone(there));
    let moved = Instant::now();
    // 28 to 29 s, of which a busy machine may make more.
    new.wait_bound(Duration::from_secs(40)).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    println!("registered at the new address after {:.1} s", moved.elapsed().as_secs_f64());
}

#[test]
fn without_naptr_the_records_of_udp_are_asked_for_and_a_port_needs_none() {
    let _alone = alone();
    let room = room();
    let mut registrar = Registrar::start(USER, "right").unwrap();
    let port = registrar.account().registrar.port();
    let names = NameServer::start(vec![srv("_sip._udp.example.test.", 1, port, "host.test."), loopback("host.test.")]);
    let gateway = register_by(&names, "right", &[], &room);
    let registered = registrar.wait_registered(PATIENCE, |_| ());
    registered.unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert!(names.questions().contains(&"UDP NAPTR example.test.".to_owned()));
    drop(gateway);

    let before = names.questions().len();
    let server = format!("host.test:{port}");
    let gateway = register_by(&names, "right", &["-sip-registrar", &server], &room);
    let registered = registrar.wait_registered(PATIENCE, |_| ());
    registered.unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert_eq!(names.questions()[before..], ["UDP A host.test.".to_owned()]);
}
