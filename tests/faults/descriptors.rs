//! The system gives no more file descriptors: calls that need one are refused with 503, those in progress go on, and all works
//! again as soon as there are some.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::gateway::{Gateway, answers};
use lab::program::{Program, find_or_skip, free_tcp_port};
use lab::room::{GroupConfig, RoomConfig};
use lab::telephone::{Telephone, TelephoneSetup, What};

use crate::ground::{assert_both_ways, assert_unharmed, call, member};
use crate::real::{GROUP, Judge, PATIENCE, World, binary, eventually, from};

/// A refusal for want of descriptors must not take longer.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);
/// More than one call takes.
const ENOUGH: usize = 14;

/// The process may have so many descriptors more than now: the limit is one on their numbers, of which the lowest free one is
/// given first.
fn allow(pid: u32, more: usize) {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let used: Vec<usize> = files.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect();
    limit(pid, (0..).filter(|number| !used.contains(number)).nth(more).unwrap());
}

/// The process may have descriptors below this number from now on.
fn limit(pid: u32, files: usize) {
    let (pid, files) = (pid.to_string(), format!("--nofile={files}:"));
    assert!(Command::new("prlimit").args(["--pid", &pid, &files]).status().unwrap().success());
}

/// What becomes of a call: `None` if it is answered.
fn refused(world: &World) -> Option<(u16, String)> {
    let telephone = Telephone::call(TelephoneSetup::new(&world.gateway.uri()).from(&from("Ben"))).unwrap();
    let is_decided = |what: &What| matches!(what, What::Refused { .. } | What::Answered { .. });
    let event = telephone.wait_for(REFUSED_WITHIN, is_decided);
    match event.unwrap_or_else(|why| panic!("{why}\n{}", world.gateway.lines().join("\n"))).what {
        What::Refused { status, warning, .. } => Some((status, warning.unwrap_or_default())),
        _ => None,
    }
}

/// OPTIONS by a new connection; false if the connection is not taken within a moment.
fn answers_by_tcp(to: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let local = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let word = local.port();
    let request = format!(
        "OPTIONS sip:6002@{to} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK{word}\r\nMax-Forwards: 70\r\n\
         From: <sip:a@{local}>;tag={word}\r\nTo: <sip:6002@{to}>\r\nCall-ID: {word}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let mut answer = [0; 11];
    stream.write_all(request.as_bytes()).is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"SIP/2.0 200"
}

#[test]
fn at_whichever_stage_they_run_out_the_caller_hears_503_and_the_call_in_progress_nothing() {
    if find_or_skip("prlimit").is_none() {
        return;
    }
    let tcp = SocketAddr::from(([127, 0, 0, 1], free_tcp_port().unwrap()));
    let room = Judge::start(RoomConfig::new(vec![GroupConfig::open(GROUP)]));
    // By its name, which takes a descriptor to look up.
    let url = room.group_url(GROUP).replace("127.0.0.1", "localhost");
    let gateway = Gateway::start(binary(), &url, &["-sip-tcp-address", &tcp.to_string()]).unwrap();
    let world = World { gateway, room };
    let log = || world.gateway.lines().join("\n");
    let mut member = member(&world.room.group_url(GROUP));
    drop(call(&world.gateway.uri(), "Warm", log));
    eventually("the first call is over", || world.names() == ["Member"]);
    let telephone = call(&world.gateway.uri(), "Ada", log);
    assert_both_ways(&telephone, "Ada", &mut member, log);
    let since = Instant::now();
    let (pid, in_use) = (world.gateway.id(), world.gateway.open_files());

    let mut answered_at = None;
    for more in 0..ENOUGH {
        allow(pid, more);
        let began = Instant::now();
        match refused(&world) {
            None => {
                answered_at = Some(more);
                break;
            }
            Some((status, warning)) => {
                println!("{more} descriptors left: {status} after {:?}, {warning}", began.elapsed());
                assert_eq!(status, 503, "{more}: {warning}");
                assert!(warning.contains("descriptors") && warning.contains("LimitNOFILE"), "{more}: {warning}");
            }
        }
        assert!(answers(world.gateway.address()).unwrap());
        eventually("nothing is left of it", || world.gateway.open_files() == in_use);
    }
    println!("a call takes {answered_at:?} descriptors");
    assert!(answered_at.is_some_and(|more| more >= 3), "{answered_at:?}");
    eventually("the second caller is out", || world.names().len() == 2);

    eventually("nothing is left of it", || world.gateway.open_files() == in_use);
    allow(pid, 0);
    assert!(!answers_by_tcp(tcp), "a connection was taken without a descriptor");
    let told = |line: &str| line.contains("no connection over TCP can be taken now") && line.contains("LimitNOFILE");
    world.gateway.wait_for_line(PATIENCE, told).unwrap_or_else(|why| panic!("{why}"));
    limit(pid, 1024);
    eventually("connections are taken again", || answers_by_tcp(tcp));
    drop(call(&world.gateway.uri(), "Eve", log));
    eventually("all is given back", || world.gateway.open_files() == in_use);
    let told = world.gateway.lines().iter().filter(|line| line.contains("LimitNOFILE")).count();
    assert!((1..=2 * ENOUGH).contains(&told), "{told} lines\n{}", log());
    assert_both_ways(&telephone, "Ada", &mut member, log);
    assert_unharmed(telephone, since);
}

#[test]
fn where_they_do_not_suffice_to_start_it_says_so_and_ends() {
    let mut starts_with = None;
    for files in 3..32 {
        let limited = ["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")];
        let mut command = Command::new("sh");
        command.args(limited).arg(binary()).args(["-no-sip-register", "-sip-udp-address", "127.0.0.1:0"]);
        let mut program = Program::start(command.arg("http://127.0.0.1:1/group/test/")).unwrap();
        let is_decided =
            |line: &str| ["SIP at", "galene-sip: ", "shared libraries"].iter().any(|word| line.contains(word));
        let line = program.wait_for_line(PATIENCE, is_decided).unwrap();
        if line.contains("SIP at") {
            starts_with = Some(files);
            break;
        }
        let code = program.wait_exit(PATIENCE).unwrap().code();
        // What the system's loader needs is not ours.
        assert!(line.contains("shared libraries") || code == Some(1), "{files}: {code:?} {line}");
        assert!(line.contains("shared libraries") || line.contains("LimitNOFILE"), "{line}");
    }
    println!("it starts with {starts_with:?}");
    assert!(starts_with.is_some());
}

#[test]
fn who_begins_to_speak_while_there_are_none_is_heard_when_there_are() {
    if find_or_skip("prlimit").is_none() {
        return;
    }
    let world = World::new();
    let log = || world.gateway.lines().join("\n");
    let telephone = call(&world.gateway.uri(), "Ada", log);
    telephone.wait_for(PATIENCE, |what| matches!(what, What::Level { .. })).unwrap();
    allow(world.gateway.id(), 0);
    let mut member = member(&world.room.group_url(GROUP));
    let told = world.gateway.wait_for_line(PATIENCE, |line| line.contains("Member is not heard by telephones"));
    assert!(told.unwrap_or_else(|why| panic!("{why}")).contains("LimitNOFILE"));
    limit(world.gateway.id(), 1024);
    let freed = Instant::now();
    assert_both_ways(&telephone, "Ada", &mut member, log);
    println!("heard {:?} after there was a descriptor", freed.elapsed());
}
