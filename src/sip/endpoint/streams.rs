//! What connections bring to the user agent and what their end means.
//!
//! Owns: taking messages out of their streams, telling everyone who waits. Does not own: the connections (`connections`).

use std::net::{IpAddr, SocketAddr};

use super::Endpoint;
use crate::sip::connections::Brought;
use crate::sip::event::{ConnectionKey, Path};
use crate::sip::layer::Outcome;
use crate::sip::reply::Refusal;
use crate::time::Instant;
use crate::wire::sip::Message;

impl Endpoint {
    pub(super) fn handle_connected(&mut self, now: Instant, connection: ConnectionKey, local: SocketAddr) {
        let out = &mut self.layer.out;
        out.connections.handle_connected(now, connection, local, &mut out.queue);
        if let Some(registration) = &mut self.registration {
            registration.handle_connected(now, connection, local, &mut self.layer);
        }
    }

    pub(super) fn handle_bytes(&mut self, now: Instant, connection: ConnectionKey, bytes: &[u8]) {
        self.layer.out.connections.handle_bytes(connection, bytes);
        loop {
            let out = &mut self.layer.out;
            let Some(path) = out.connections.path(connection) else { return };
            match out.connections.next(now, connection, &mut out.queue) {
                None => return,
                Some(Brought::Message(bytes)) => self.handle_message(now, path, &bytes),
                Some(Brought::Pong) => {
                    if let Some(registration) = &mut self.registration {
                        registration.handle_pong(now, connection);
                    }
                }
                Some(Brought::Broken { head, status }) => {
                    self.counters.malformed += 1;
                    self.refuse_broken(path, head, status);
                    let out = &mut self.layer.out;
                    out.connections.close(connection, &mut out.queue);
                    return self.handle_closed(now, connection, "what it sends is no SIP");
                }
            }
        }
    }

    /// Says why a connection is closed, if a request was the reason (RFC 3261 §18.3).
    fn refuse_broken(&mut self, path: Path, head: Option<Vec<u8>>, status: u16) {
        if let Some(Ok(Message::Request(mut request))) = head.map(|head| without_length(&head)) {
            let _ = request.headers.mark_source(path.remote);
            self.refuse_statelessly(path, &request, &Refusal::new(status));
        }
    }

    /// Connections from addresses that are gone are lost, and the registrar is to be told of another address.
    pub(super) fn handle_network(&mut self, now: Instant, gone: &[IpAddr], has_new: bool) {
        if let Some(registration) = &mut self.registration {
            registration.handle_network(now, gone, has_new, &mut self.layer);
        }
        let out = &mut self.layer.out;
        for connection in out.connections.lose(gone, &mut out.queue) {
            self.handle_closed(now, connection, "our own address is gone");
        }
    }

    /// The end of a connection that is out of the table already.
    pub(super) fn handle_closed(&mut self, now: Instant, connection: ConnectionKey, error: &str) {
        tracing::debug!(?connection, error, "SIP connection closed");
        if let Some(registration) = &mut self.registration {
            registration.handle_closed(now, connection, error, &mut self.layer);
        }
        for owner in self.layer.handle_closed(now, connection) {
            self.handle_outcome(now, owner, &Outcome::Timeout);
        }
    }
}

/// The head of a message as a message without a body: lines about its length, which may be the trouble, are left out.
fn without_length(head: &[u8]) -> Result<Message, crate::wire::sip::ParseError> {
    let is_length = |line: &&[u8]| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"l")
    };
    let lines: Vec<&[u8]> = head.split_inclusive(|&byte| byte == b'\n').filter(|line| !is_length(line)).collect();
    Message::parse(&lines.concat())
}
