//! The INVITE client transaction (RFC 3261 §17.1.1, figure 5, as changed by RFC 6026 §7.2): our re-INVITEs, and the calls
//! that a transfer makes us place.
//!
//! Owns: the repetition of the INVITE, the ACK for a refusal. Does not own the ACK for a 2xx, which is the call's (§13.2.2.4).
//! Over a connection timer A does not run and timer D is zero; the end of the connection ends the wait.

use std::time::Duration;

use super::client::Sending;
use crate::sip::event::{ConnectionKey, Outbox, Path};
use crate::sip::timer::{LIFETIME, T1};
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{Method, Request, Response};

/// One INVITE of ours.
#[derive(Debug)]
pub(crate) struct InviteClient {
    /// With the connection that it took.
    path: Path,
    /// As sent, with its Via.
    request: Request,
    /// See [`Sending`].
    fallback: Option<(Path, Request)>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing heard: repeated by timer A where datagrams get lost, whose interval doubles without end; given up by timer B.
    Calling {
        timer_a: Option<Instant>,
        interval: Duration,
        timer_b: Instant,
    },
    /// A provisional response is in. How long it may last is for the transaction user to say.
    Proceeding,
    /// A 2xx is in; further ones pass until timer M (RFC 6026).
    Accepted {
        timer_m: Instant,
    },
    /// A refusal is in and is acknowledged, again if it comes again, until timer D.
    Completed {
        ack: Vec<u8>,
        timer_d: Instant,
    },
    Terminated,
}

impl InviteClient {
    /// Sends an INVITE.
    pub(crate) fn send(now: Instant, sending: Sending, out: &mut Outbox) -> Self {
        let Sending { path, request, server_name, fallback } = sending;
        let mut client = Self { path, request, fallback, state: State::Terminated };
        client.try_by(now, server_name.as_deref(), out);
        client
    }

    fn try_by(&mut self, now: Instant, name: Option<&str>, out: &mut Outbox) {
        self.path.connection = out.send_request(self.path, self.request.to_bytes(), name);
        let is_reliable = self.path.transport.is_reliable();
        let is_unsent = is_reliable && self.path.connection.is_none();
        if is_unsent && let Some(fallback) = self.fallback.take() {
            (self.path, self.request) = fallback;
            return self.try_by(now, None, out);
        }
        // What could not even be sent is not waited for.
        let timer_b = if is_unsent { now } else { now + LIFETIME };
        self.state = State::Calling { timer_a: (!is_reliable).then_some(now + T1), interval: T1, timer_b };
    }

    /// Where it was sent.
    pub(crate) const fn path(&self) -> Path {
        self.path
    }

    /// The CANCEL for it (RFC 3261 §9.1), if one would have an effect: a provisional response is in, the final is not.
    pub(crate) fn cancel(&self) -> Option<Request> {
        let State::Proceeding = self.state else { return None };
        let mut cancel = Request::new(Method::Cancel, self.request.uri.clone());
        for name in ["Via", "Max-Forwards", "From", "To", "Call-ID", "Route"] {
            cancel.headers.copy(name, &self.request.headers);
        }
        let number = self.request.headers.cseq().map_or(0, |cseq| cseq.number);
        cancel.headers.push("CSeq", format!("{number} CANCEL"));
        Some(cancel)
    }

    /// Takes a response; true if the transaction user must see it.
    pub(crate) fn handle_response(&mut self, now: Instant, response: &Response, out: &mut Outbox) -> bool {
        match &self.state {
            State::Calling { .. } | State::Proceeding if response.is_provisional() => {
                self.state = State::Proceeding;
                true
            }
            State::Calling { .. } | State::Proceeding if response.is_success() => {
                self.state = State::Accepted { timer_m: now + LIFETIME };
                true
            }
            State::Calling { .. } | State::Proceeding => {
                let ack = self.ack(response).to_bytes();
                out.send(self.path, ack.clone());
                self.state = if self.path.transport.is_reliable() {
                    State::Terminated
                } else {
                    State::Completed { ack, timer_d: now + LIFETIME }
                };
                true
            }
            State::Accepted { .. } => response.is_success(),
            State::Completed { ack, .. } => {
                if !response.is_provisional() {
                    out.send(self.path, ack.clone());
                }
                false
            }
            State::Terminated => false,
        }
    }

    /// The ACK for a refusal (RFC 3261 §17.1.1.3): all of the INVITE's but To, which is the response's.
    fn ack(&self, response: &Response) -> Request {
        let mut ack = Request::new(Method::Ack, self.request.uri.clone());
        for name in ["Via", "Max-Forwards", "From"] {
            ack.headers.copy(name, &self.request.headers);
        }
        ack.headers.copy("To", &response.headers);
        ack.headers.copy("Call-ID", &self.request.headers);
        let number = self.request.headers.cseq().map_or(0, |cseq| cseq.number);
        ack.headers.push("CSeq", format!("{number} ACK"));
        ack.headers.copy("Route", &self.request.headers);
        ack
    }

    /// Runs what is due; true if timer B has just ended the wait, which the transaction user takes as a 408.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> bool {
        match &mut self.state {
            State::Calling { timer_a, interval, timer_b } => {
                if now >= *timer_b {
                    self.state = State::Terminated;
                    return true;
                }
                if let Some(timer_a) = timer_a.as_mut().filter(|timer_a| now >= **timer_a) {
                    *interval *= 2;
                    *timer_a = now + *interval;
                    out.send(self.path, self.request.to_bytes());
                }
            }
            State::Accepted { timer_m: until } | State::Completed { timer_d: until, .. } => {
                if now >= *until {
                    self.state = State::Terminated;
                }
            }
            State::Proceeding | State::Terminated => {}
        }
        false
    }

    /// A connection has ended; true if it was ours and nothing else can be tried, which the transaction user takes as a
    /// 503 (RFC 3261 §8.1.3.1).
    pub(crate) fn handle_closed(&mut self, now: Instant, connection: ConnectionKey, out: &mut Outbox) -> bool {
        if self.path.connection != Some(connection) || !matches!(self.state, State::Calling { .. } | State::Proceeding)
        {
            return false;
        }
        let Some(fallback) = self.fallback.take() else {
            self.state = State::Terminated;
            return true;
        };
        (self.path, self.request) = fallback;
        self.try_by(now, None, out);
        false
    }

    /// Whether it may be forgotten.
    pub(crate) const fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated)
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        match &self.state {
            State::Calling { timer_a, timer_b, .. } => {
                earliest([timer_a.map(|at| Deadline::new(at, "timer A")), Some(Deadline::new(*timer_b, "timer B"))])
            }
            State::Accepted { timer_m } => Some(Deadline::new(*timer_m, "timer M")),
            State::Completed { timer_d, .. } => Some(Deadline::new(*timer_d, "timer D")),
            State::Proceeding | State::Terminated => None,
        }
    }
}
