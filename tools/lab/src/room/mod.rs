//! An embedded room server that speaks Galene's protocol.
//!
//! One thread per server, one loop: wait, take what came, send what follows. It behaves as Galene at 9e03b36 does
//! where a client can tell the difference, and its [`RoomConfig`] has a knob for each thing that goes wrong in
//! practice. What happens is told as [`RoomEvent`]s, and [`RoomCommand`]s make things happen.
//!
//! - `server`: the loop and its sockets; `web`: HTTP; `admission`: who may enter;
//! - `session`: a client's joining and leaving; `talk`: what clients say and do; `streams`: what is offered to whom; `media`: packets;
//! - `command`: what tests make happen; [`cli`]: by hand.

mod admission;
pub mod cli;
mod command;
mod config;
mod event;
mod media;
mod server;
mod session;
mod streams;
mod talk;
mod web;

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::event_log::EventLog;
use crate::poll::Waker;
pub use config::*;
pub use event::*;
use server::{Control, Server};

/// A running room server. It stops when it is dropped.
pub struct RoomServer {
    address: SocketAddr,
    scheme: &'static str,
    control: Sender<Control>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    /// What has happened.
    pub events: EventLog<RoomEvent>,
}

impl RoomServer {
    /// Starts a server in a thread of its own.
    ///
    /// # Errors
    ///
    /// In words, if the address or the thread cannot be had.
    pub fn start(config: RoomConfig) -> Result<Self, String> {
        let scheme = if config.tls { "https" } else { "http" };
        let (control, commands) = channel();
        let (reports, events) = channel();
        let mut server = Server::new(config, commands, reports)?;
        let (address, waker) = (server.address(), server.waker());
        let thread = std::thread::Builder::new().name("room".into()).spawn(move || server.run());
        let thread = Some(thread.map_err(|error| error.to_string())?);
        Ok(Self { address, scheme, control, waker, thread, events: EventLog::new(events) })
    }

    /// Where it is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that people give for a group.
    pub fn group_url(&self, group: &str) -> String {
        format!("{}://{}/group/{group}/", self.scheme, self.address)
    }

    /// Makes something happen.
    pub fn command(&self, command: RoomCommand) {
        self.tell(Control::Command(command));
    }

    /// How things stand.
    pub fn snapshot(&self) -> RoomSnapshot {
        let (sender, receiver) = channel();
        self.tell(Control::Snapshot(sender));
        receiver.recv_timeout(Duration::from_secs(5)).unwrap_or_default()
    }

    fn tell(&self, control: Control) {
        // A server that has stopped obeys nobody.
        let _ = self.control.send(control);
        self.waker.wake();
    }
}

impl Drop for RoomServer {
    fn drop(&mut self) {
        self.tell(Control::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
