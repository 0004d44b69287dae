//! The non-INVITE client transaction (RFC 3261 §17.1.2, figure 6): our REGISTER, BYE, UPDATE, NOTIFY and CANCEL.
//!
//! Over a connection timer E does not run and timer K is zero; the end of the connection ends the wait.

use crate::sip::event::{ConnectionKey, Outbox, Path};
use crate::sip::timer::{LIFETIME, Resend, T4};
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{Method, Request};

/// What is sent, with its Via, and where to.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) path: Path,
    pub(crate) request: Request,
    /// Whom a new connection over TLS has to lead to.
    pub(crate) server_name: Option<String>,
    /// The same request as a datagram: for one that was put on a connection because of its length alone (RFC 3261
    /// §18.1.1).
    pub(crate) fallback: Option<(Path, Request)>,
}

/// One request of ours.
#[derive(Debug)]
pub(crate) struct Client {
    method: Method,
    path: Path,
    /// The connection that it took.
    connection: Option<ConnectionKey>,
    fallback: Option<(Path, Vec<u8>)>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing heard: repeated by timer E where datagrams get lost, given up by timer F.
    Trying {
        request: Vec<u8>,
        timer_e: Option<Resend>,
        timer_f: Instant,
    },
    /// A provisional response is in: repeated every T2.
    Proceeding {
        request: Vec<u8>,
        timer_e: Option<Resend>,
        timer_f: Instant,
    },
    /// The final response is in; its copies are swallowed until timer K.
    Completed {
        timer_k: Instant,
    },
    Terminated,
}

impl Client {
    /// Sends a request.
    pub(crate) fn send(now: Instant, sending: Sending, out: &mut Outbox) -> Self {
        let Sending { path, request, server_name, fallback } = sending;
        let fallback = fallback.map(|(path, request)| (path, request.to_bytes()));
        let method = request.method.clone();
        let mut client = Self { method, path, connection: None, fallback, state: State::Terminated };
        client.try_by(now, path, request.to_bytes(), server_name.as_deref(), out);
        client
    }

    fn try_by(&mut self, now: Instant, path: Path, request: Vec<u8>, name: Option<&str>, out: &mut Outbox) {
        self.path = path;
        self.connection = out.send_request(path, request.clone(), name);
        let is_reliable = path.transport.is_reliable();
        if is_reliable
            && self.connection.is_none()
            && let Some((path, request)) = self.fallback.take()
        {
            return self.try_by(now, path, request, None, out);
        }
        // What could not even be sent is not waited for.
        let wait_until = if is_reliable && self.connection.is_none() { now } else { now + LIFETIME };
        let timer_e = (!is_reliable).then(|| Resend::start(now, "timer E"));
        self.state = State::Trying { request, timer_e, timer_f: wait_until };
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
                if let Some(timer_e) = &mut timer_e {
                    timer_e.slow_down();
                }
                self.state = State::Proceeding { request, timer_e, timer_f };
                true
            }
            waiting @ State::Proceeding { .. } if !is_final => {
                self.state = waiting;
                true
            }
            State::Trying { .. } | State::Proceeding { .. } => {
                if !self.path.transport.is_reliable() {
                    self.state = State::Completed { timer_k: now + T4 };
                }
                true
            }
            over @ (State::Completed { .. } | State::Terminated) => {
                self.state = over;
                false
            }
        }
    }

    /// A connection has ended; true if it was ours and nothing else can be tried, which the transaction user takes as a
    /// 503 (RFC 3261 §8.1.3.1).
    pub(crate) fn handle_closed(&mut self, now: Instant, connection: ConnectionKey, out: &mut Outbox) -> bool {
        if self.connection != Some(connection) {
            return false;
        }
        match std::mem::replace(&mut self.state, State::Terminated) {
            State::Trying { .. } | State::Proceeding { .. } => match self.fallback.take() {
                Some((path, request)) => {
                    self.try_by(now, path, request, None, out);
                    false
                }
                None => true,
            },
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
                if timer_e.as_mut().is_some_and(|timer_e| timer_e.fired(now)) {
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
                earliest([timer_e.as_ref().map(Resend::deadline), Some(Deadline::new(*timer_f, "timer F"))])
            }
            State::Completed { timer_k } => Some(Deadline::new(*timer_k, "timer K")),
            State::Terminated => None,
        }
    }
}
