//! The connection to the registrar (RFC 5626 §3.5.1, §4.4.1): calls come in by it, so it must be seen to live.
//!
//! Owns: the ping of two line ends and the wait for the pong of one. Does not own: opening again (`registration`).
//! A registrar that has never answered a ping is not expected to: then only the system's own time-out of unacknowledged
//! bytes tells that the connection is gone, which is why the pings go on.

use std::net::SocketAddr;
use std::time::Duration;

use crate::sip::event::{ConnectionKey, Outbox, Path, Route};
use crate::time::{Deadline, Instant};

/// From one ping to the next. NATs forget idle connections after minutes; what this decides is how soon a broken one is
/// noticed.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// The first comes soon: only who has been heard to answer is missed when he falls silent.
const FIRST_PING_AFTER: Duration = Duration::from_secs(1);
/// How long the answer may take (RFC 5626 §4.4.1).
const PONG_WITHIN: Duration = Duration::from_secs(10);
const PING: &[u8] = b"\r\n\r\n";

/// A connection that is being opened to one of the registrar's addresses.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) connection: ConnectionKey,
    pub(super) route: Route,
    pub(super) give_up: Instant,
}

/// An open connection to one of the registrar's addresses.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) connection: ConnectionKey,
    pub(super) route: Route,
    /// Our end.
    pub(super) local: SocketAddr,
    ping: Ping,
}

#[derive(Debug)]
enum Ping {
    Next(Instant),
    Sent { pong_by: Instant, is_expected: bool },
}

impl Flow {
    /// One that is open from now on.
    pub(super) fn new(now: Instant, opening: &Opening, local: SocketAddr) -> Self {
        let Opening { connection, route, .. } = *opening;
        Self { connection, route, local, ping: Ping::Next(now + FIRST_PING_AFTER) }
    }

    /// The way of messages by it.
    pub(super) fn path(&self) -> Path {
        let Self { connection, route, local, .. } = self;
        Path { transport: route.transport, local: Some(*local), remote: route.remote, connection: Some(*connection) }
    }

    /// A pong has come; true if one was waited for.
    pub(super) fn handle_pong(&mut self, now: Instant) -> bool {
        match self.ping {
            Ping::Sent { .. } => {
                self.ping = Ping::Next(now + PING_INTERVAL);
                true
            }
            Ping::Next(_) => false,
        }
    }

    /// Runs what is due. `is_expected`: the other side has been heard to answer pings. True if it is dead.
    pub(super) fn handle_timeout(&mut self, now: Instant, is_expected: bool, out: &mut Outbox) -> bool {
        match self.ping {
            Ping::Next(at) if now >= at => {
                out.send(self.path(), PING.to_vec());
                self.ping = Ping::Sent { pong_by: now + PONG_WITHIN, is_expected };
                false
            }
            Ping::Sent { pong_by, is_expected } if now >= pong_by => {
                self.ping = Ping::Next(pong_by + (PING_INTERVAL - PONG_WITHIN));
                is_expected
            }
            Ping::Next(_) | Ping::Sent { .. } => false,
        }
    }

    /// The next deadline.
    pub(super) fn next_timeout(&self) -> Deadline {
        match self.ping {
            Ping::Next(at) => Deadline::new(at, "ping"),
            Ping::Sent { pong_by, .. } => Deadline::new(pong_by, "pong"),
        }
    }
}
