//! What a real Kamailio does to its clients on a bad day, with a call in progress: it is killed and comes back without memory;
//! its TCP connection goes dead without a word.
//!
//! The two mostly wait, and measure nothing finer than a gap in a call, so they run side by side. Killed for 10 s in every run,
//! for 90 s with `GALENE_SIP_LONG=1`, as `tools/test --all` has it.

mod real;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::gateway::Gateway;
use lab::kamailio::{Kamailio, PASSWORD, USER};
use lab::pcm::Pcm;
use lab::program::{Signal, find_or_skip};
use lab::telephone::{RATE_HZ, Telephone, TelephoneSetup, What};
use real::{GROUP, PATIENCE, eventually, from, names, register, room};

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

/// Passes connections on to one address, until they are cut: then nothing moves in them any more, and neither end is told.
struct Wire {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    pongs: Arc<AtomicUsize>,
    /// Connections with a lower number are dead.
    alive_from: Arc<AtomicUsize>,
}

impl Wire {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let [accepted, pongs, alive_from]: [Arc<AtomicUsize>; 3] = Default::default();
        let (wire_pongs, dead) = (Arc::clone(&pongs), Arc::clone(&alive_from));
        let wire = Self { address, accepted: Arc::clone(&accepted), pongs, alive_from };
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (near, far) = (stream.unwrap(), TcpStream::connect(target).unwrap());
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                for (from, to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))] {
                    let (pongs, alive_from) = (Arc::clone(&wire_pongs), Arc::clone(&dead));
                    let is_alive = move || number >= alive_from.load(Ordering::SeqCst);
                    std::thread::spawn(move || pass_on(from.unwrap(), to.unwrap(), &pongs, is_alive));
                }
            }
        });
        wire
    }

    /// Every connection that there is goes dead.
    fn cut(&self) {
        self.alive_from.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, pongs: &AtomicUsize, is_alive: impl Fn() -> bool) {
    let mut buffer = [0; 65_536];
    while let Ok(length) = from.read(&mut buffer) {
        // What is dead still takes what it is given, as a network's memory does; it closes nothing.
        if length == 0 {
            std::thread::park();
        }
        // The answer to a ping of two line ends (RFC 5626 §4.4.1).
        pongs.fetch_add(usize::from(&buffer[..length] == b"\r\n"), Ordering::SeqCst);
        if is_alive() && to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
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
