//! The transaction layer (RFC 3261 §17) as its users see it: requests go out, responses go out, nothing is lost.
//!
//! Owns: all transactions, branches, the header fields every message of ours has. Does not own who uses a transaction.

use std::collections::BTreeMap;

use super::event::{CallKey, ConnectionKey, Outbox, Path};
use super::transaction::client::{Client, Sending};
use super::transaction::{ServerKey, ServerTransactions};
use crate::random::Random;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{BRANCH_COOKIE, Request, Response, Transport, Via};
use crate::wire::uri::Host;

/// What is longer does not fit into one packet on every way, and packets in parts get lost (RFC 3261 §18.1.1).
const MAX_DATAGRAM_BYTES: usize = 1300;

/// Who waits for the response to a request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Registration,
    /// The registrar's sign of life.
    Watch,
    Call(CallKey),
}

/// What became of a request of ours.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// A final or provisional response.
    Response(&'a Response),
    /// None within 64·T1, or the connection has ended before it came.
    Timeout,
}

/// All transactions, ours and the peers'.
#[derive(Debug)]
pub(crate) struct TransactionLayer {
    pub(crate) servers: ServerTransactions,
    clients: BTreeMap<String, (Owner, Client)>,
    pub(crate) out: Outbox,
    pub(crate) random: Random,
    user_agent: String,
}

impl TransactionLayer {
    /// `token` is not shown to who watches messages.
    pub(crate) fn new(user_agent: String, token: String, random: Random) -> Self {
        Self {
            servers: ServerTransactions::default(),
            clients: BTreeMap::new(),
            out: Outbox::telling(token),
            random,
            user_agent,
        }
    }

    /// The bytes of a response of ours.
    pub(crate) fn encode(&self, mut response: Response) -> Vec<u8> {
        response.headers.push("Server", self.user_agent.clone());
        response.to_bytes()
    }

    /// Gives a response to the INVITE of `key`, if it still waits for one. Returns the bytes for later repetition.
    pub(crate) fn respond_invite(&mut self, now: Instant, key: &ServerKey, response: Response) -> Vec<u8> {
        let status = response.status;
        let bytes = self.encode(response);
        if let Some(invite) = self.servers.find_invite(key) {
            invite.respond(now, status, bytes.clone(), &mut self.out);
        }
        bytes
    }

    /// Sends a request along `path` with a new branch: by the connection of `path` if that is there, and over TCP if it is
    /// too long for a datagram. `sent_by` is our address in its Via.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        owner: Owner,
        path: Path,
        sent_by: (Host, u16),
        mut request: Request,
    ) {
        let branch = format!("{BRANCH_COOKIE}{}", self.random.token(20));
        request.headers.push("User-Agent", self.user_agent.clone());
        let connected = path.connection.and_then(|connection| self.out.connections.transport(connection));
        let path = Path {
            transport: connected.unwrap_or(path.transport),
            connection: path.connection.filter(|_| connected.is_some()),
            ..path
        };
        let encoded = |transport| {
            let mut request = request.clone();
            let via = Via::new(transport, sent_by.0.clone(), sent_by.1, &branch);
            request.headers.push_front("Via", via.to_string());
            request.to_bytes()
        };
        let server_name = next_hop_name(&request);
        let bytes = encoded(path.transport);
        let is_too_long = path.transport == Transport::Udp && bytes.len() > MAX_DATAGRAM_BYTES;
        let sending = if is_too_long {
            let path_over_tcp = Path { transport: Transport::Tcp, ..path };
            let fallback = Some((path, bytes));
            Sending { path: path_over_tcp, request: encoded(Transport::Tcp), server_name, fallback }
        } else {
            Sending { path, request: bytes, server_name, fallback: None }
        };
        let client = Client::send(now, request.method.clone(), sending, &mut self.out);
        self.clients.insert(branch, (owner, client));
    }

    /// A connection has ended; the owners whose request went by it and cannot go by another way.
    pub(crate) fn handle_closed(&mut self, now: Instant, connection: ConnectionKey) -> Vec<Owner> {
        let mut unanswered = Vec::new();
        self.clients.retain(|_, (owner, client)| {
            if client.handle_closed(now, connection, &mut self.out) {
                unanswered.push(*owner);
            }
            !client.is_terminated()
        });
        unanswered
    }

    /// Whether a request of ours with this branch still waits for its end.
    pub(crate) fn has_sent(&self, branch: &str) -> bool {
        self.clients.contains_key(branch)
    }

    /// Whose request this response answers; `None` if no one waits for it.
    pub(crate) fn handle_response(&mut self, now: Instant, response: &Response) -> Option<Owner> {
        let branch = response.headers.via().ok()?.branch()?.into_owned();
        let method = response.headers.cseq().ok()?.method;
        let (owner, client) = self.clients.get_mut(&branch)?;
        (client.matches(&method) && client.handle_response(now, response.status)).then_some(*owner)
    }

    /// Runs what is due; the owners whose request has just remained unanswered.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Owner> {
        self.servers.handle_timeout(now, &mut self.out);
        let mut unanswered = Vec::new();
        self.clients.retain(|_, (owner, client)| {
            if client.handle_timeout(now, &mut self.out) {
                unanswered.push(*owner);
            }
            !client.is_terminated()
        });
        unanswered
    }

    /// Gives up what `owner` still waits for.
    pub(crate) fn abandon(&mut self, owner: Owner) {
        self.clients.retain(|_, (other, _)| *other != owner);
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        let clients = self.clients.values().map(|(_, client)| client.next_timeout());
        earliest(clients.chain([self.servers.next_timeout()]))
    }
}

/// Whom the next hop's certificate has to name (RFC 5922 §7.2): the domain of the URI that the request is routed by.
fn next_hop_name(request: &Request) -> Option<String> {
    let routes = request.headers.routes().ok()?;
    let loose =
        routes.first().map(|route| &route.uri).filter(|uri| uri.as_sip().is_some_and(|uri| uri.is_loose_router()));
    loose.unwrap_or(&request.uri).host().map(Host::to_string)
}
