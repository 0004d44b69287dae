//! The non-INVITE client transaction (RFC 3261 §17.1.2, figure 6): our REGISTER, BYE, UPDATE, NOTIFY and CANCEL.

use crate::sip::event::{Outbox, Path};
use crate::sip::timer::{LIFETIME, Resend, T4};
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::Method;

/// One request of ours.
#[derive(Debug)]
pub(crate) struct Client {
    method: Method,
    path: Path,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing heard: repeated by timer E, given up by timer F.
    Trying {
        request: Vec<u8>,
        timer_e: Resend,
        timer_f: Instant,
    },
    /// A provisional response is in: repeated every T2.
    Proceeding {
        request: Vec<u8>,
        timer_e: Resend,
        timer_f: Instant,
    },
    /// The final response is in; its copies are swallowed until timer K.
    Completed {
        timer_k: Instant,
    },
    Terminated,
}

impl Client {
    /// Sends `request`.
    pub(crate) fn send(now: Instant, method: Method, path: Path, request: Vec<u8>, out: &mut Outbox) -> Self {
        out.send(path, request.clone());
        let timer_e = Resend::start(now, "timer E");
        Self { method, path, state: State::Trying { request, timer_e, timer_f: now + LIFETIME } }
    }

    /// Whether a response with our branch and this CSeq method is for this transaction (RFC 3261 §17.1.3).
    pub(crate) fn matches(&self, method: &Method) -> bool {
        self.method == *method
    }

    /// Takes a response; true if the transaction user must see it.
    pub(crate) fn handle_response(&mut self, now: Instant, status: u16) -> bool {
        let is_final = status >= 200;
        match std::mem::replace(&mut self.state, State::Terminated) {
            State::Trying { request, mut timer_e, timer_f } if !is_final => {
                timer_e.slow_down();
                self.state = State::Proceeding { request, timer_e, timer_f };
                true
            }
            waiting @ State::Proceeding { .. } if !is_final => {
                self.state = waiting;
                true
            }
            State::Trying { .. } | State::Proceeding { .. } => {
                self.state = State::Completed { timer_k: now + T4 };
                true
            }
            over @ (State::Completed { .. } | State::Terminated) => {
                self.state = over;
                false
            }
        }
    }

    /// Runs what is due; true if timer F has just ended the wait, which the transaction user takes as a 408.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> bool {
        match &mut self.state {
            State::Trying { request, timer_e, timer_f } | State::Proceeding { request, timer_e, timer_f } => {
                if now >= *timer_f {
                    self.state = State::Terminated;
                    return true;
                }
                if timer_e.fired(now) {
                    out.send(self.path, request.clone());
                }
            }
            State::Completed { timer_k } => {
                if now >= *timer_k {
                    self.state = State::Terminated;
                }
            }
            State::Terminated => {}
        }
        false
    }

    /// Whether it may be forgotten.
    pub(crate) fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        match &self.state {
            State::Trying { timer_e, timer_f, .. } | State::Proceeding { timer_e, timer_f, .. } => {
                earliest([Some(timer_e.deadline()), Some(Deadline::new(*timer_f, "timer F"))])
            }
            State::Completed { timer_k } => Some(Deadline::new(*timer_k, "timer K")),
            State::Terminated => None,
        }
    }
}
