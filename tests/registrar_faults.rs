//! What a real Kamailio does to its clients on a bad day, with a call in progress: it is killed and comes back without memory;
//! its TCP connection goes dead without a word.
//!
//! The two mostly wait, and measure nothing finer than a gap in a call, so they run side by side. Killed for 10 s in every run,
//! for 90 s with `GALENE_SIP_LONG=1`, as `tools/test --all` has it.

mod real;
#[path = "common/wire.rs"]
mod wire;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lab::gateway::Gateway;
use lab::kamailio::{Kamailio, PASSWORD, USER};
use lab::pcm::Pcm;
use lab::program::{Signal, find_or_skip};
use lab::telephone::{RATE_HZ, Telephone, TelephoneSetup, What};
use real::{GROUP, PATIENCE, eventually, from, names, register, room};
use wire::Wire;

/// Registered again so soon after the registrar is back.
const AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// A call by way of the registrar, in which the telephone speaks.
fn call(kamailio: &Kamailio, gateway: &Gateway) -> Telephone {
    let setup = TelephoneSetup::new(&format!("sip:{USER}@{}", kamailio.address())).from(&from("Ada"));
    let telephone = Telephone::call(setup).unwrap();
    telephone.speak(Pcm::warble(RATE_HZ, 5.0).samples.into(), true);
    telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    // An answer without ACK ends the call after 32 s, and the ACK too goes by way of the registrar.
    gateway.wait_for_line(PATIENCE, |line| line.contains(": acknowledged")).unwrap();
    telephone
}

/// The call has gone on all the while.
fn assert_unharmed(telephone: Telephone, lasted: Duration) {
    let reception = telephone.finish().reception;
    assert!(reception.longest_gap < Duration::from_millis(500), "{reception:?}");
    // A packet every 20 ms.
    assert!(reception.packets as f64 > lasted.as_secs_f64() * 50.0 * 0.98, "{lasted:?}: {reception:?}");
}

fn times_bound(kamailio: &Kamailio) -> usize {
    kamailio.program.lines().iter().filter(|line| line.contains("lab: bound ")).count()
}

#[test]
fn a_registrar_that_is_killed_and_forgets_all_has_us_again_within_thirty_seconds_and_the_call_goes_on() {
    let Some(binary) = find_or_skip("kamailio") else { return };
    let away = Duration::from_secs(if std::env::var_os("GALENE_SIP_LONG").is_some() { 90 } else { 10 });
    let room = room();
    let kamailio = Kamailio::start(&binary).unwrap();
    let address = kamailio.address();
    let gateway = register(&format!("sip:{USER}@{address}"), PASSWORD, &[], &room.group_url(GROUP));
    kamailio.wait_bound(PATIENCE).unwrap();
    let telephone = call(&kamailio, &gateway);
    let began = Instant::now();
    drop(kamailio);
    std::thread::sleep(away);
    let kamailio = Kamailio::start_at(&binary, address, None).unwrap();
    let back = Instant::now();
    kamailio.wait_bound(AGAIN_WITHIN).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    println!("killed for {away:?}: registered again {:?} after its return", back.elapsed());
    assert_eq!(names(&room), ["Ada"]);
    // Its BYE comes by way of the registrar, which knows nothing of the call.
    assert_unharmed(telephone, began.elapsed());
    eventually("the caller is out", || names(&room).is_empty());
}

#[test]
fn a_connection_that_goes_dead_without_a_word_is_replaced_within_thirty_seconds_and_the_call_goes_on() {
    let Some(binary) = find_or_skip("kamailio") else { return };
    let room = room();
    let kamailio = Kamailio::start(&binary).unwrap();
    let wire = Wire::to(kamailio.address());
    let account = format!("sip:{USER}@{};transport=tcp", wire.address);
    let mut gateway = register(&account, PASSWORD, &["-sip-tcp-address", "127.0.0.1:0"], &room.group_url(GROUP));
    kamailio.wait_bound(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    let telephone = call(&kamailio, &gateway);
    // From its first answer on, the registrar is expected to answer pings.
    let called = Instant::now();
    while wire.pongs.load(Ordering::SeqCst) == 0 {
        assert!(called.elapsed() < AGAIN_WITHIN, "no ping: {}", gateway.lines().join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let began = Instant::now();
    let (bound_before, connections_before) = (times_bound(&kamailio), wire.accepted.load(Ordering::SeqCst));
    wire.cut();
    let is_back = || wire.accepted.load(Ordering::SeqCst) > connections_before && times_bound(&kamailio) > bound_before;
    while !is_back() {
        assert!(began.elapsed() < AGAIN_WITHIN, "not registered again: {}", gateway.lines().join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("cut silently: registered again after {:?}", began.elapsed());
    assert_eq!(names(&room), ["Ada"]);
    // Our BYE goes by the new connection.
    let lasted = began.elapsed();
    gateway.signal(Signal::SIGTERM);
    telephone.wait_for(PATIENCE, |what| matches!(what, What::Bye { .. })).unwrap();
    assert_unharmed(telephone, lasted);
}
