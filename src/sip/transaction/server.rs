//! The non-INVITE server transaction (RFC 3261 §17.2.2, figure 8).
//!
//! Every request but INVITE is answered in the turn it arrives in, and RFC 4320 §4.1 forbids provisional responses to
//! it. So the states Trying and Proceeding take no time here, and what is left is Completed with timer J.

use crate::sip::event::{Outbox, Path};
use crate::sip::timer::LIFETIME;
use crate::time::{Deadline, Instant};

/// One answered request.
#[derive(Debug)]
pub(crate) struct Server {
    path: Path,
    response: Vec<u8>,
    timer_j: Instant,
}

impl Server {
    /// Sends the final response to a request that came in along `path`.
    pub(crate) fn respond(now: Instant, path: Path, response: Vec<u8>, out: &mut Outbox) -> Self {
        out.send(path, response.clone());
        // Over a connection no request comes twice (RFC 3261 §17.2.2).
        let timer_j = if path.transport.is_reliable() { now } else { now + LIFETIME };
        Self { path, response, timer_j }
    }

    /// The same request again: the same response.
    pub(crate) fn handle_resent(&self, out: &mut Outbox) {
        out.send(self.path, self.response.clone());
    }

    /// Whether it may be forgotten at `now`.
    pub(crate) fn is_terminated(&self, now: Instant) -> bool {
        now >= self.timer_j
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Deadline {
        Deadline::new(self.timer_j, "timer J")
    }
}
