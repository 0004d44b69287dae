//! No port is free: none for SIP, none in the range of telephones' voices, none in that towards Galene.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use lab::gateway::answers;
use lab::program::{Program, free_udp_port};
use lab::room::GroupConfig;
use lab::telephone::{Telephone, TelephoneSetup};

use crate::ground::refusal;
use crate::real::{GROUP, PATIENCE, World, binary, eventually, from};

/// As `LO-HI`, all of them free at this moment.
fn free_range(ports: u16) -> (u16, String) {
    loop {
        let first = free_udp_port().unwrap() & !1;
        let is_free = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if first < u16::MAX - ports && (first..first + ports).all(is_free) {
            return (first, format!("{first}-{}", first + ports - 1));
        }
    }
}

fn hold(first: u16, ports: u16) -> Vec<UdpSocket> {
    (first..first + ports).map(|port| UdpSocket::bind(("0.0.0.0", port)).unwrap()).collect()
}

/// With all ports of the flag's range held by somebody else, a caller hears 503 and the log names the flag.
fn assert_refused(flag: &str, ports: u16) {
    let (first, range) = free_range(ports);
    let held = hold(first, ports);
    let world = World::with(GroupConfig::open(GROUP), &[flag, &range]);
    let telephone = Telephone::call(TelephoneSetup::new(&world.gateway.uri()).from(&from("Ada"))).unwrap();
    let (status, warning) = refusal(&telephone, PATIENCE).unwrap();
    assert!(status == 503 && warning.contains(&format!("widen {flag}")), "{status} {warning}");
    world.gateway.wait_for_line(PATIENCE, |line| line.contains(" WARN call 1") && line.contains(flag)).unwrap();
    eventually("nobody is left in the room", || world.names().is_empty());
    assert!(answers(world.gateway.address()).unwrap());
    drop(held);
}

#[test]
fn a_range_that_others_hold_is_503_and_its_flag_is_named() {
    assert_refused("-rtp-ports", 4);
    assert_refused("-ice-ports", 2);
}

#[test]
fn a_sip_port_that_another_program_has_is_told_with_its_flag() {
    for transport in ["udp", "tcp"] {
        let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let taken = if transport == "udp" { udp.local_addr().unwrap() } else { tcp.local_addr().unwrap() };
        let free = SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
        let flag = format!("-sip-{transport}-address");
        let mut arguments = vec!["-no-sip-register".to_owned(), flag.clone(), taken.to_string()];
        if transport == "tcp" {
            arguments.extend(["-sip-udp-address".to_owned(), free.to_string()]);
        }
        let mut program =
            Program::start(Command::new(binary()).args(arguments).arg("http://127.0.0.1:1/group/test/")).unwrap();
        let line = program.wait_for_line(PATIENCE, |line| line.starts_with("galene-sip: ")).unwrap();
        assert!(line.contains(&flag) && line.contains("in use"), "{line}");
        assert_eq!(program.wait_exit(PATIENCE).unwrap().code(), Some(1));
    }
}
