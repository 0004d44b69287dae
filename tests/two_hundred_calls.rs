//! What two hundred calls, eight at a time, leave behind in the gateway's program: nothing.

mod real;

use lab::telephone::Telephone;
use real::{PATIENCE, TRANSACTIONS_LINGER, World, alone, eventually, from, measure_memory_finely};

#[test]
fn after_two_hundred_calls_nothing_is_left() {
    let _alone = alone();
    measure_memory_finely();
    let world = World::new();
    let eight_calls = || {
        let telephones: Vec<Telephone> = (0..8).map(|index| world.call(&from(&format!("Phone {index}")))).collect();
        for telephone in &telephones {
            telephone
                .wait_answered(PATIENCE)
                .unwrap_or_else(|why| panic!("{why}\n{}", world.gateway.lines().join("\n")));
        }
        drop(telephones);
        eventually("the callers are out", || world.names().is_empty());
    };
    // The first four hundred build what is built once, and their SIP transactions stay for 64·T1 (RFC 3261 §17); later
    // ones find room in what those gave back.
    for _ in 0..50 {
        eight_calls();
    }
    std::thread::sleep(TRANSACTIONS_LINGER);
    let open = || (world.gateway.open_files(), world.gateway.threads());
    let before = open();
    let two_hundred_calls_grow_kib = || {
        let resident_before_kib = world.gateway.resident_kib();
        for _ in 0..25 {
            eight_calls();
        }
        eventually("files and threads are as before", || open() == before);
        let growth_kib = world.gateway.resident_kib().saturating_sub(resident_before_kib);
        println!("200 calls: {before:?} file descriptors and threads, {growth_kib} KiB more resident");
        growth_kib
    };
    // What a call leaves behind is left every time; a heap that is cut up once more is not.
    let grows_little = std::iter::repeat_with(two_hundred_calls_grow_kib).take(3).any(|growth_kib| growth_kib <= 200);
    assert!(grows_little, "more than 1 KiB a call, three times over");
}
