//! Real telephones call the gateway over TCP and TLS.

mod real;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use lab::baresip::Baresip;
use lab::pcm::Pcm;
use lab::program::{Folder, Program, Signal, find_or_skip, free_tcp_port};
use lab::room::{GroupConfig, RoomEventKind};
use lab::speech::Reference;
use lab::telephone::RATE_HZ;
use real::{GROUP, PATIENCE, TlsListener, World, alone, eventually};

/// SIPp's calls last this long.
const CALL_MS: &str = "300";

fn sipp(transport: &str, target: &str) -> Program {
    let mut command = Command::new("sipp");
    command.args(["-sn", "uac", "-t", transport, "-s", "6002", "-i", "127.0.0.1", "-m", "20", "-r", "10"]);
    command.args(["-d", CALL_MS, "-nostdin", "-max_socket", "1000", target]);
    let folder = std::env::temp_dir();
    Program::start(command.current_dir(folder)).unwrap()
}

#[test]
fn twenty_calls_of_sipp_over_one_connection_and_over_one_each() {
    if find_or_skip("sipp").is_none() {
        return;
    }
    let _alone = alone();
    let address = format!("127.0.0.1:{}", free_tcp_port().unwrap());
    let world = World::with(GroupConfig::open(GROUP), &["-sip-tcp-address", &address]);
    for transport in ["t1", "tn"] {
        let mut sipp = sipp(transport, &address);
        let status = sipp.wait_exit(3 * PATIENCE).unwrap();
        let said = || format!("{}\n{}", sipp.lines().join("\n"), world.gateway.lines().join("\n"));
        assert_eq!(status.code(), Some(0), "{transport}: {}", said());
        eventually("the callers are out", || world.names().is_empty());
    }
}

/// baresip is in the room with its voice, and takes our BYE by the connection that it has opened.
fn baresip_calls(transport: &str, flags: &[&str], address: &str) {
    let Some(binary) = find_or_skip("baresip") else { return };
    let mut world = World::with(GroupConfig::open(GROUP), flags);
    let folder = Folder::new().unwrap();
    let said = folder.path().join("said.wav");
    Pcm { rate_hz: RATE_HZ, samples: Reference::built_in().at(RATE_HZ) }.write_wav(&said).unwrap();
    let uri = format!("sip:6002@{address};transport={transport}");
    let baresip = Baresip::start(&binary, &said, Some(&uri)).unwrap();
    world.room_says("baresip", |kind| matches!(kind, RoomEventKind::Published { .. }));
    assert!(world.gateway.lines().iter().any(|line| line.contains(&format!("SIP/2.0/{}", transport.to_uppercase()))));
    world.gateway.signal(Signal::SIGTERM);
    let ended = baresip.program.wait_for_line(PATIENCE, |line| line.contains("session closed"));
    ended.unwrap_or_else(|why| panic!("{why}\n{}", world.gateway.lines().join("\n")));
    assert_eq!(world.gateway.wait_exit(PATIENCE).unwrap().code(), Some(0));
}

#[test]
fn baresip_calls_over_tcp_and_is_told_of_the_end() {
    let _alone = alone();
    let address = format!("127.0.0.1:{}", free_tcp_port().unwrap());
    baresip_calls("tcp", &["-sip-tcp-address", &address], &address);
}

#[test]
fn baresip_calls_over_tls_and_is_told_of_the_end() {
    let _alone = alone();
    let tls = TlsListener::new();
    baresip_calls("tls", &tls.flags(), tls.address());
}

/// What the other side says until it closes.
fn until_closed(mut stream: &TcpStream) -> String {
    let mut said = String::new();
    stream.set_read_timeout(Some(3 * PATIENCE)).unwrap();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn a_hundred_silent_strangers_are_closed_and_keep_nobody_out() {
    let _alone = alone();
    let address = format!("127.0.0.1:{}", free_tcp_port().unwrap());
    let world = World::with(GroupConfig::open(GROUP), &["-sip-tcp-address", &address]);
    let open_before = world.gateway.open_files();
    let strangers: Vec<_> = (0..100).map(|_| TcpStream::connect(&address).unwrap()).collect();
    eventually("one address has eight places", || world.gateway.open_files() == open_before + 8);
    let mut telephone = TcpStream::connect(&address).unwrap();
    let request = "OPTIONS sip:6002@h SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\n\
                   To: <sip:6002@h>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";
    telephone.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 15];
    telephone.set_read_timeout(Some(PATIENCE)).unwrap();
    telephone.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"SIP/2.0 200 OK\r");
    // What has no length cannot be followed by anything.
    telephone.write_all(request.replace("Content-Length: 0\r\n", "").as_bytes()).unwrap();
    assert!(until_closed(&telephone).contains("SIP/2.0 400 "));
    strangers.iter().for_each(|stranger| stranger.shutdown(Shutdown::Both).unwrap_or(()));
    eventually("all are closed", || world.gateway.open_files() == open_before);
}
