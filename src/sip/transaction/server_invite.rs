//! The INVITE server transaction (RFC 3261 §17.2.1, figure 7, as changed by RFC 6026 §7.1 and §8.7).
//!
//! Owns: the answer to a resent INVITE, the repetition of a refusal until its ACK. Does not own the repetition of a
//! 2xx, which is the call's (RFC 3261 §13.3.1.4). Over a connection timer G does not run and timer I is zero.

use crate::sip::event::{Outbox, Path};
use crate::sip::timer::{LIFETIME, Resend, T4};
use crate::time::{Deadline, Instant, earliest};

/// One INVITE and its responses.
#[derive(Debug)]
pub(crate) struct InviteServer {
    path: Path,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No final response yet; the latest provisional one answers a resent INVITE.
    Proceeding {
        provisional: Option<Vec<u8>>,
    },
    /// A 2xx went out; resent INVITEs are swallowed until timer L (RFC 6026).
    Accepted {
        timer_l: Instant,
    },
    /// A refusal went out and is repeated by timer G until its ACK or timer H.
    Completed {
        response: Vec<u8>,
        timer_g: Option<Resend>,
        timer_h: Instant,
    },
    /// The refusal was acknowledged; stray ACKs are swallowed until timer I.
    Confirmed {
        timer_i: Instant,
    },
    Terminated,
}

impl InviteServer {
    /// An INVITE that came in, answered along `path`.
    pub(crate) fn new(path: Path) -> Self {
        Self { path, state: State::Proceeding { provisional: None } }
    }

    /// The same INVITE again.
    pub(crate) fn handle_resent(&self, out: &mut Outbox) {
        match &self.state {
            State::Proceeding { provisional: Some(response) } | State::Completed { response, .. } => {
                out.send(self.path, response.clone());
            }
            State::Proceeding { provisional: None }
            | State::Accepted { .. }
            | State::Confirmed { .. }
            | State::Terminated => {}
        }
    }

    /// Sends a response of the transaction user. After a final one only further 2xx pass, and only while Accepted.
    pub(crate) fn respond(&mut self, now: Instant, status: u16, bytes: Vec<u8>, out: &mut Outbox) {
        match (&self.state, status) {
            (State::Proceeding { .. }, 100..=199) => {
                out.send(self.path, bytes.clone());
                self.state = State::Proceeding { provisional: Some(bytes) };
            }
            (State::Proceeding { .. }, 200..=299) => {
                out.send(self.path, bytes);
                self.state = State::Accepted { timer_l: now + LIFETIME };
            }
            (State::Proceeding { .. }, _) => {
                out.send(self.path, bytes.clone());
                let timer_g = (!self.path.transport.is_reliable()).then(|| Resend::start(now, "timer G"));
                self.state = State::Completed { response: bytes, timer_g, timer_h: now + LIFETIME };
            }
            (State::Accepted { .. }, 200..=299) => out.send(self.path, bytes),
            (State::Accepted { .. } | State::Completed { .. } | State::Confirmed { .. } | State::Terminated, _) => {}
        }
    }

    /// The ACK for a refusal. (That for a 2xx is no part of this transaction and goes to the dialog.)
    pub(crate) fn handle_ack(&mut self, now: Instant) {
        if let State::Completed { .. } = self.state {
            let timer_i = if self.path.transport.is_reliable() { now } else { now + T4 };
            self.state = State::Confirmed { timer_i };
        }
    }

    /// Whether no final response was given yet, so that a CANCEL still has an effect.
    pub(crate) fn is_proceeding(&self) -> bool {
        matches!(self.state, State::Proceeding { .. })
    }

    /// Whether it may be forgotten.
    pub(crate) fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    /// Runs what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        match &mut self.state {
            State::Completed { response, timer_g, timer_h } => {
                if now >= *timer_h {
                    self.state = State::Terminated;
                } else if timer_g.as_mut().is_some_and(|timer_g| timer_g.fired(now)) {
                    out.send(self.path, response.clone());
                }
            }
            State::Accepted { timer_l: until } | State::Confirmed { timer_i: until } => {
                if now >= *until {
                    self.state = State::Terminated;
                }
            }
            State::Proceeding { .. } | State::Terminated => {}
        }
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        match &self.state {
            State::Completed { timer_g, timer_h, .. } => {
                earliest([timer_g.as_ref().map(Resend::deadline), Some(Deadline::new(*timer_h, "timer H"))])
            }
            State::Accepted { timer_l } => Some(Deadline::new(*timer_l, "timer L")),
            State::Confirmed { timer_i } => Some(Deadline::new(*timer_i, "timer I")),
            State::Proceeding { .. } | State::Terminated => None,
        }
    }
}
