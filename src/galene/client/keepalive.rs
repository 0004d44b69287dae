//! Pings: ours, and when a silent server counts as dead.
//!
//! Galene pings a client that was silent for 20 s and drops it after 45 s. We ping sooner and in both cases, when we or
//! the server said nothing, so that a caller is soon back in the room by another connection when this one is dead.

use std::time::Duration;

use crate::time::{Deadline, Instant, earliest};

/// We ping when either side said nothing for this long.
pub const PING_AFTER: Duration = Duration::from_secs(2);

/// The server is dead when it said nothing for this long: two of our pings have gone without a pong.
pub const DEAD_AFTER: Duration = Duration::from_secs(6);

/// Watches both directions of one connection.
#[derive(Debug)]
pub(super) struct KeepAlive {
    last_sent: Instant,
    last_received: Instant,
    last_ping: Instant,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Dead,
}

impl KeepAlive {
    pub(super) fn new(now: Instant) -> Self {
        Self { last_sent: now, last_received: now, last_ping: now }
    }

    pub(super) fn on_sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    pub(super) fn on_received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// [`Due::Ping`] is said once: the ping is taken as sent.
    pub(super) fn on_timeout(&mut self, now: Instant) -> Due {
        if now >= self.dead_at() {
            return Due::Dead;
        }
        if now < self.ping_at() {
            return Due::Nothing;
        }
        self.last_ping = now;
        self.last_sent = now;
        Due::Ping
    }

    pub(super) fn next_timeout(&self) -> Deadline {
        let (ping, dead) = (Deadline::new(self.ping_at(), "Galene ping"), Deadline::new(self.dead_at(), "Galene dead"));
        earliest([Some(ping), Some(dead)]).unwrap_or(dead)
    }

    fn ping_at(&self) -> Instant {
        self.last_ping.max(self.last_sent.min(self.last_received)) + PING_AFTER
    }

    fn dead_at(&self) -> Instant {
        self.last_received + DEAD_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_us(seconds * 1_000_000)
    }

    #[test]
    fn a_server_that_answers_no_ping_is_dead_after_6_s() {
        let mut keep_alive = KeepAlive::new(at(0));
        let mut heard = Vec::new();
        loop {
            let now = keep_alive.next_timeout().at;
            match keep_alive.on_timeout(now) {
                Due::Nothing => panic!("woken for nothing"),
                due => heard.push((now, due)),
            }
            if now >= at(6) {
                break;
            }
        }
        assert_eq!(heard, [(at(2), Due::Ping), (at(4), Due::Ping), (at(6), Due::Dead)]);
    }

    #[test]
    fn we_ping_after_our_own_silence_while_the_server_speaks() {
        let mut keep_alive = KeepAlive::new(at(0));
        keep_alive.on_received(at(1));
        assert_eq!(keep_alive.on_timeout(at(2)), Due::Ping);
        keep_alive.on_received(at(5));
        keep_alive.on_sent(at(6));
        assert_eq!(keep_alive.next_timeout().at, at(7));
        assert_eq!(keep_alive.on_timeout(at(6)), Due::Nothing);
    }
}
