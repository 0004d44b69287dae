//! TCP connections that can go dead without a word.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Passes connections on to one address, until they are cut: then nothing moves in them any more, and neither end is told.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: Arc<AtomicUsize>,
    pub(crate) pongs: Arc<AtomicUsize>,
    /// Connections with a lower number are dead.
    alive_from: Arc<AtomicUsize>,
}

impl Wire {
    pub(crate) fn to(target: SocketAddr) -> Self {
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
    pub(crate) fn cut(&self) {
        self.alive_from.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Every one that will be too, until the next [`Self::cut`].
    pub(crate) fn cut_for_good(&self) {
        self.alive_from.store(usize::MAX, Ordering::SeqCst);
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
