//! SIPp, by scenarios of its own (`tests/data/sipp`), in every form of offer, answer and refresh that it can be made to use.

mod real;

use std::path::Path;
use std::process::Command;

use lab::program::{Folder, Program, find_or_skip, free_udp_port};
use real::{PATIENCE, World, alone, eventually};

/// Calls `calls` times by one scenario; all must go as it says, and nobody may be left in the room.
fn plays(world: &World, scenario: &str, calls: u32, more: &[&str]) {
    let Some(sipp) = find_or_skip("sipp") else { return };
    let folder = Folder::new().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/sipp/{scenario}.xml"));
    let target = world.gateway.address().to_string();
    let mut command = Command::new(sipp);
    command.arg("-sf").arg(file).args([
        "-s",
        "6002",
        "-i",
        "127.0.0.1",
        "-m",
        &calls.to_string(),
        "-r",
        "5",
        "-l",
        "3",
    ]);
    command.args(["-nostdin", "-trace_err"]).args(more).arg(&target).current_dir(folder.path());
    let mut sipp = Program::start(&mut command).unwrap();
    let status = sipp.wait_exit(3 * PATIENCE).unwrap();
    let said = |what: &str| {
        let files = std::fs::read_dir(folder.path())
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
        format!("{what}:\n{}\n{}", sipp.lines().join("\n"), files.collect::<String>())
    };
    assert_eq!(status.code(), Some(0), "{}", said(scenario));
    eventually("the callers are out", || world.names().is_empty());
}

#[test]
fn sipp_offers_late_demands_prack_and_keeps_its_sessions_alive() {
    let _alone = alone();
    let world = World::new();
    plays(&world, "delayed_offer", 3, &[]);
    plays(&world, "prack", 3, &[]);
    plays(&world, "session_timer", 3, &[]);
}

#[test]
fn sipp_holds_sends_many_parts_and_cancels_at_the_last_moment() {
    let _alone = alone();
    let world = World::new();
    plays(&world, "reinvite", 3, &[]);
    plays(&world, "multipart", 3, &[]);
    plays(&world, "cancel_race", 20, &[]);
}

#[test]
fn sipp_tells_keys_by_info_and_changes_the_codec() {
    let _alone = alone();
    let world = World::new();
    plays(&world, "info", 3, &[]);
    let lines = world.gateway.lines();
    for key in ["key 5 for 160 ms (Info)", "key # for 0 ms (Info)"] {
        assert_eq!(lines.iter().filter(|line| line.contains(key)).count(), 3, "{key}: {lines:#?}");
    }
}

#[test]
fn sipp_transfers_its_caller_to_another_sipp() {
    let Some(binary) = find_or_skip("sipp") else { return };
    let _alone = alone();
    let world = World::new();
    let folder = Folder::new().unwrap();
    let port = free_udp_port().unwrap().to_string();
    let mut carol = Command::new(binary);
    carol.args(["-sn", "uas", "-i", "127.0.0.1", "-p", &port, "-m", "1", "-nostdin"]).current_dir(folder.path());
    let mut carol = Program::start(&mut carol).unwrap();
    let target = format!("127.0.0.1:{port}");
    let mut sipp = Command::new(find_or_skip("sipp").unwrap());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sipp/refer.xml");
    sipp.arg("-sf").arg(file).args([
        "-s",
        "6002",
        "-i",
        "127.0.0.1",
        "-m",
        "1",
        "-nostdin",
        "-trace_err",
        "-key",
        "target",
        &target,
    ]);
    let mut sipp = Program::start(sipp.arg(world.gateway.address().to_string()).current_dir(folder.path())).unwrap();
    let status = sipp.wait_exit(3 * PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{}\n{}", sipp.lines().join("\n"), world.gateway.lines().join("\n"));
    // The transferor is gone and the caller is still in the room, on the line with the target.
    assert_eq!(world.names(), ["SIPp"]);
    drop(world);
    // The gateway's end is the call's.
    assert_eq!(carol.wait_exit(3 * PATIENCE).unwrap().code(), Some(0), "{}", carol.lines().join("\n"));
}
