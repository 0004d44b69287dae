//! A SIP registrar for one account, on a free port of 127.0.0.1, with digest authentication.
//!
//! Owns: the socket, the thread, the events. Does not own: what is answered (`location`) and who is believed
//! (`digest`); passing calls on, since whoever wants to call asks for the Contact. RFC: 3261 §10.3.

mod digest;
mod location;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::event_log::EventLog;
use crate::poll::{Poll, Waker};
use location::Location;

/// More than any datagram holds.
const LARGEST_DATAGRAM: usize = 65_536;
/// Longer than anything is waited for: only a datagram or the waker end the wait.
const NO_DEADLINE: Duration = Duration::from_secs(3600);

/// What a user agent must know to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user part of the address of record, and the name for the digest.
    pub user: String,
    /// The secret of the digest.
    pub password: String,
    /// Where the registrar listens.
    pub registrar: SocketAddr,
}

impl Account {
    /// The SIP URI that is registered.
    pub fn address_of_record(&self) -> String {
        format!("sip:{}@{}", self.user, self.registrar)
    }
}

/// One thing that happened at the registrar.
#[derive(Debug, Clone)]
pub struct RegistrarEvent {
    /// When.
    pub at: Instant,
    /// What.
    pub kind: RegistrarEventKind,
}

/// What can happen at the registrar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrarEventKind {
    /// A REGISTER without valid credentials got a fresh nonce to answer.
    Challenged,
    /// A binding was made or refreshed.
    Registered {
        /// The Contact URI.
        contact: String,
        /// Its lifetime as granted, in seconds.
        expires_s: u32,
    },
    /// A binding was removed.
    Unregistered {
        /// The Contact URI.
        contact: String,
    },
    /// A REGISTER was refused.
    Refused {
        /// In words.
        why: String,
    },
}

/// A running registrar; it ends when it is dropped.
pub struct Registrar {
    /// What has happened.
    pub events: EventLog<RegistrarEvent>,
    account: Account,
    end: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Registrar {
    /// Starts it for one user.
    ///
    /// # Errors
    /// As the system has them.
    pub fn start(user: &str, password: &str) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let account = Account { user: user.to_owned(), password: password.to_owned(), registrar: socket.local_addr()? };
        let poll = Poll::new()?;
        poll.add(&socket, 0)?;
        let (waker, end) = (poll.waker(), Arc::new(AtomicBool::new(false)));
        let (sender, receiver) = mpsc::channel();
        let (location, is_over) = (Location::new(account.clone()), Arc::clone(&end));
        let thread = thread::Builder::new()
            .name("registrar".to_owned())
            .spawn(move || serve(&socket, poll, location, &sender, &is_over))?;
        Ok(Self { events: EventLog::new(receiver), account, end, waker, thread: Some(thread) })
    }

    /// What a user agent must know to register here.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Waits until somebody has registered, and tells each event until then; the Contact URI.
    ///
    /// # Errors
    /// In words, when a REGISTER is refused or none comes in time.
    pub fn wait_registered(
        &mut self,
        patience: Duration,
        mut tell: impl FnMut(&RegistrarEvent),
    ) -> Result<String, String> {
        let until = Instant::now() + patience;
        while let Some(event) = self.events.next(until.saturating_duration_since(Instant::now())) {
            tell(&event);
            match event.kind {
                RegistrarEventKind::Registered { contact, .. } => return Ok(contact),
                RegistrarEventKind::Refused { why } => return Err(format!("the registrar refused: {why}")),
                RegistrarEventKind::Challenged | RegistrarEventKind::Unregistered { .. } => (),
            }
        }
        Err(format!("nobody registered within {patience:?}"))
    }

    /// Waits until the binding of `contact` was removed.
    pub fn wait_unregistered(&mut self, patience: Duration, contact: &str) -> Option<RegistrarEvent> {
        let wanted = RegistrarEventKind::Unregistered { contact: contact.to_owned() };
        self.events.wait_for(patience, |event| event.kind == wanted)
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said why.
            let _ = thread.join();
        }
    }
}

fn serve(
    socket: &UdpSocket,
    mut poll: Poll,
    mut location: Location,
    events: &Sender<RegistrarEvent>,
    is_over: &AtomicBool,
) {
    let (mut ready, mut buffer) = (Vec::new(), vec![0; LARGEST_DATAGRAM]);
    while !is_over.load(Ordering::Acquire) && poll.wait(NO_DEADLINE, &mut ready).is_ok() {
        while let Ok((length, source)) = socket.recv_from(&mut buffer) {
            let at = Instant::now();
            let Some(answer) = location.handle_datagram(at, &buffer[..length], source) else { continue };
            // Events first, so that whoever has the answer finds them. An answer that is lost is asked for again, and
            // events that nobody waits for any more are not missed.
            for kind in answer.events {
                let _ = events.send(RegistrarEvent { at, kind });
            }
            let _ = socket.send_to(&answer.datagram, source);
        }
    }
}
