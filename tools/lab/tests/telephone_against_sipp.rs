//! The laboratory's telephone calls SIPp's built-in answering scenario, alone and many at once.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::gateway;
use lab::program::{Folder, Program, find_or_skip, free_udp_port};
use lab::telephone::{Side, Telephone, TelephoneSetup, What};

const PATIENCE: Duration = Duration::from_secs(10);

fn start_sipp(binary: &Path, folder: &Folder) -> (Program, SocketAddr) {
    let port = free_udp_port().unwrap();
    let mut command = Command::new(binary);
    command.args(["-sn", "uas", "-i", "127.0.0.1", "-nostdin", "-p", &port.to_string()]).current_dir(folder.path());
    let program = Program::start(&mut command).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // SIPp answers OPTIONS by no scenario, so one waits for its port to be taken.
    while std::net::UdpSocket::bind(address).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    (program, address)
}

#[test]
fn twenty_telephones_call_and_hang_up() {
    let Some(binary) = find_or_skip("sipp") else { return };
    let folder = Folder::new().unwrap();
    let (_sipp, address) = start_sipp(&binary, &folder);
    assert!(!gateway::answers(SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()))).unwrap());
    let telephones: Vec<Telephone> =
        (0..20).map(|_| Telephone::call(TelephoneSetup::new(&format!("sip:service@{address}"))).unwrap()).collect();
    for telephone in &telephones {
        telephone.wait_answered(PATIENCE).unwrap();
    }
    for telephone in telephones {
        let report = telephone.finish();
        assert!(matches!(report.end, What::Bye { by: Side::Us, .. }), "{:?}", report.end);
        assert!(report.answered_after.is_some());
    }
}

#[test]
fn a_call_to_nobody_fails_in_words() {
    let target = format!("sip:6002@127.0.0.1:{}", free_udp_port().unwrap());
    let telephone = Telephone::call(TelephoneSetup::new(&target)).unwrap();
    let why = telephone.wait_answered(Duration::from_millis(300)).unwrap_err();
    assert!(why.contains("not within 300 ms"), "{why}");
    drop(telephone);
}
