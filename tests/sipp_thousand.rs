//! SIPp's built-in caller, many times: 20 calls a second, up to 50 at once, and what is left of them.
//!
//! 200 calls in every run; 1000 with `GALENE_SIP_LONG=1`, as `tools/test --all` has it.

mod real;

use std::process::Command;

use lab::program::{Program, find_or_skip};
use real::{PATIENCE, TRANSACTIONS_LINGER, World, alone, eventually, measure_memory_finely};

/// That takes 6 KiB a call.
const REMEMBERED_KIB_A_CALL: u64 = 10;

/// What a thousand calls may leave for good: 1 KiB each.
const GROWTH_KIB: u64 = 1000;

/// So many calls of SIPp's own scenario, each of 2.5 s: 20 a second are 50 at once.
fn calls(world: &World, count: usize) {
    let (count, target) = (count.to_string(), world.gateway.address().to_string());
    let mut command = Command::new("sipp");
    command.args(["-sn", "uac", "-s", "6002", "-i", "127.0.0.1", "-r", "20", "-l", "50", "-d", "2500", "-nostdin"]);
    command.args(["-m", &count, &target]);
    let mut sipp = Program::start(command.current_dir(std::env::temp_dir())).unwrap();
    let status = sipp.wait_exit(12 * PATIENCE).unwrap();
    // SIPp's status is not 0 if one call has failed.
    assert_eq!(status.code(), Some(0), "{}", sipp.lines().join("\n"));
}

#[test]
fn none_of_a_thousand_calls_fails_and_nothing_is_left_of_them() {
    if find_or_skip("sipp").is_none() {
        return;
    }
    let _alone = alone();
    measure_memory_finely();
    let is_long = std::env::var_os("GALENE_SIP_LONG").is_some();
    let world = World::new();
    let nobody = || eventually("the callers are out", || world.names().is_empty());
    let open = || (world.gateway.open_files(), world.gateway.threads());
    let before = open();
    // As many at once as there will be: what is built once is built by them.
    calls(&world, 60);
    nobody();
    eventually("files and threads are as before", || open() == before);
    let grown_kib = |from_kib: u64| world.gateway.resident_kib().saturating_sub(from_kib);
    let count = if is_long { 1000 } else { 200 };
    let resident_kib = world.gateway.resident_kib();
    calls(&world, count);
    nobody();
    eventually("files and threads are as before", || open() == before);
    println!("{count} calls: {before:?} descriptors and threads, {} KiB more resident", grown_kib(resident_kib));
    let remembered_kib = count as u64 * REMEMBERED_KIB_A_CALL;
    assert!(grown_kib(resident_kib) <= remembered_kib, "{} KiB more", grown_kib(resident_kib));
    if is_long {
        // The next thousand find room in what the first gave back.
        let resident_kib = world.gateway.resident_kib();
        std::thread::sleep(TRANSACTIONS_LINGER);
        calls(&world, count);
        nobody();
        eventually("files and threads are as before", || open() == before);
        println!("{count} calls more: {} KiB more resident", grown_kib(resident_kib));
        assert!(grown_kib(resident_kib) <= GROWTH_KIB, "{} KiB more", grown_kib(resident_kib));
    }
}
