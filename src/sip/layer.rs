//! The transaction layer (RFC 3261 §17) as its users see it: requests go out, responses go out, nothing is lost.
//!
//! Owns: all transactions, branches, the header fields every message of ours has. Does not own who uses a transaction.

use std::collections::BTreeMap;

use super::event::{CallKey, ConnectionKey, Outbox, Path};
use super::transaction::client::{Client, Sending};
use super::transaction::client_invite::InviteClient;
use super::transaction::server::Server;
use super::transaction::{Origin, ServerKey, ServerTransaction, ServerTransactions};
use crate::random::Random;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{BRANCH_COOKIE, Method, Request, Response, Transport, Via};
use crate::wire::uri::Host;

/// What is added to its INVITE's branch, which it shares, to name a CANCEL in our table.
const CANCEL: &str = " CANCEL";

/// What is longer does not fit into one packet on every way, and packets in parts get lost (RFC 3261 §18.1.1).
const MAX_DATAGRAM_BYTES: usize = 1300;

/// Who waits for the response to a request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Registration,
    /// The registrar's sign of life.
    Watch,
    /// A BYE.
    Call(CallKey),
    /// A session refresh: UPDATE or re-INVITE.
    Refresh(CallKey),
    /// OPTIONS in a call whose telephone is silent.
    Probe(CallKey),
    /// An INVITE to the target of a transfer.
    Transfer(CallKey),
    /// No one: NOTIFY and CANCEL.
    Unheeded,
}

/// What became of a request of ours.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// A final or provisional response.
    Response(&'a Response),
    /// None within 64·T1, or the connection has ended before it came.
    Timeout,
}

/// An exchange that we began.
#[derive(Debug)]
enum ClientTransaction {
    Invite(Box<InviteClient>),
    Other(Box<Client>),
}

impl ClientTransaction {
    fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(invite) => invite.is_terminated(),
            Self::Other(other) => other.is_terminated(),
        }
    }
}

/// All transactions, ours and the peers'.
#[derive(Debug)]
pub(crate) struct TransactionLayer {
    pub(crate) servers: ServerTransactions,
    clients: BTreeMap<String, (Owner, ClientTransaction)>,
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

    /// Gives the final response to a request other than INVITE, and keeps it for the same request again while there is
    /// room; false if there is none.
    pub(crate) fn respond(
        &mut self,
        now: Instant,
        path: Path,
        key: ServerKey,
        origin: Option<Origin>,
        response: Response,
    ) -> bool {
        let bytes = self.encode(response);
        if self.servers.is_full() {
            self.out.send(path, bytes);
            return false;
        }
        let server = Server::respond(now, path, bytes, &mut self.out);
        self.servers.insert(key, ServerTransaction::Other(server), origin);
        true
    }

    /// Sends a request along `path` with a new branch: by the connection of `path` if that is there, and over TCP if it is
    /// too long for a datagram. `sent_by` is our address in its Via.
    pub(crate) fn request(&mut self, now: Instant, owner: Owner, path: Path, sent_by: (Host, u16), request: Request) {
        let is_invite = request.method == Method::Invite;
        let (branch, sending) = self.prepare(path, sent_by, request);
        let client = if is_invite {
            ClientTransaction::Invite(Box::new(InviteClient::send(now, sending, &mut self.out)))
        } else {
            ClientTransaction::Other(Box::new(Client::send(now, sending, &mut self.out)))
        };
        self.clients.insert(branch, (owner, client));
    }

    /// Sends the ACK for a 2xx, which is no transaction; its way and its bytes are for the same 2xx again.
    pub(crate) fn acknowledge(&mut self, path: Path, sent_by: (Host, u16), ack: Request) -> (Path, Vec<u8>) {
        let (_, Sending { path, request, server_name, .. }) = self.prepare(path, sent_by, ack);
        let bytes = request.to_bytes();
        let connection = self.out.send_request(path, bytes.clone(), server_name.as_deref());
        (Path { connection, ..path }, bytes)
    }

    /// Chooses the way and adds what every request has.
    fn prepare(&mut self, path: Path, sent_by: (Host, u16), mut request: Request) -> (String, Sending) {
        let branch = format!("{BRANCH_COOKIE}{}", self.random.token(20));
        request.headers.push("User-Agent", self.user_agent.clone());
        let connected = path.connection.and_then(|connection| self.out.connections.transport(connection));
        let path = Path {
            transport: connected.unwrap_or(path.transport),
            connection: path.connection.filter(|_| connected.is_some()),
            ..path
        };
        let with_via = |transport| {
            let mut request = request.clone();
            let via = Via::new(transport, sent_by.0.clone(), sent_by.1, &branch);
            request.headers.push_front("Via", via.to_string());
            request
        };
        let server_name = next_hop_name(&request);
        let request = with_via(path.transport);
        let is_too_long = path.transport == Transport::Udp && request.to_bytes().len() > MAX_DATAGRAM_BYTES;
        let sending = if is_too_long {
            let path_over_tcp = Path { transport: Transport::Tcp, ..path };
            let fallback = Some((path, request));
            Sending { path: path_over_tcp, request: with_via(Transport::Tcp), server_name, fallback }
        } else {
            Sending { path, request, server_name, fallback: None }
        };
        (branch, sending)
    }

    /// Sends a CANCEL for the INVITE of `owner`; false if there is none that has had a provisional response and no final
    /// one (RFC 3261 §9.1).
    pub(crate) fn cancel(&mut self, now: Instant, owner: Owner) -> bool {
        let cancel = self.clients.iter().find_map(|(branch, (other, client))| match client {
            ClientTransaction::Invite(invite) if *other == owner => {
                invite.cancel().map(|request| (branch.clone(), invite.path(), request))
            }
            ClientTransaction::Invite(_) | ClientTransaction::Other(_) => None,
        });
        let Some((branch, path, request)) = cancel else { return false };
        let sending = Sending { path, request, server_name: None, fallback: None };
        let client = Box::new(Client::send(now, sending, &mut self.out));
        self.clients.insert(format!("{branch}{CANCEL}"), (Owner::Unheeded, ClientTransaction::Other(client)));
        true
    }

    /// The way that the INVITE went which this response answers.
    pub(crate) fn path_of(&self, response: &Response) -> Option<Path> {
        match self.clients.get(&*response.headers.via().ok()?.branch()?)? {
            (_, ClientTransaction::Invite(invite)) => Some(invite.path()),
            (_, ClientTransaction::Other(_)) => None,
        }
    }

    /// A connection has ended; the owners whose request went by it and cannot go by another way.
    pub(crate) fn handle_closed(&mut self, now: Instant, connection: ConnectionKey) -> Vec<Owner> {
        let mut unanswered = Vec::new();
        self.clients.retain(|_, (owner, client)| {
            let is_unanswered = match client {
                ClientTransaction::Invite(invite) => invite.handle_closed(now, connection, &mut self.out),
                ClientTransaction::Other(other) => other.handle_closed(now, connection, &mut self.out),
            };
            if is_unanswered {
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
        let mut branch = response.headers.via().ok()?.branch()?.into_owned();
        let method = response.headers.cseq().ok()?.method;
        if method == Method::Cancel {
            branch.push_str(CANCEL);
        }
        let (owner, client) = self.clients.get_mut(&branch)?;
        let is_news = match client {
            ClientTransaction::Invite(invite) => {
                method == Method::Invite && invite.handle_response(now, response, &mut self.out)
            }
            ClientTransaction::Other(other) => other.matches(&method) && other.handle_response(now, response.status),
        };
        is_news.then_some(*owner)
    }

    /// Runs what is due; the owners whose request has just remained unanswered.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<Owner> {
        self.servers.handle_timeout(now, &mut self.out);
        let mut unanswered = Vec::new();
        self.clients.retain(|_, (owner, client)| {
            let is_unanswered = match client {
                ClientTransaction::Invite(invite) => invite.handle_timeout(now, &mut self.out),
                ClientTransaction::Other(other) => other.handle_timeout(now, &mut self.out),
            };
            if is_unanswered {
                unanswered.push(*owner);
            }
            !client.is_terminated()
        });
        unanswered
    }

    /// What was sent for one of these calls is now the other's.
    pub(crate) fn exchange_calls(&mut self, one: CallKey, other: CallKey) {
        for (owner, _) in self.clients.values_mut() {
            match owner {
                Owner::Call(key) | Owner::Refresh(key) | Owner::Probe(key) if *key == one => *key = other,
                Owner::Call(key) | Owner::Refresh(key) | Owner::Probe(key) if *key == other => *key = one,
                Owner::Registration
                | Owner::Watch
                | Owner::Call(_)
                | Owner::Refresh(_)
                | Owner::Probe(_)
                | Owner::Transfer(_)
                | Owner::Unheeded => {}
            }
        }
    }

    /// Gives up what `owner` still waits for.
    pub(crate) fn abandon(&mut self, owner: Owner) {
        self.clients.retain(|_, (other, _)| *other != owner);
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        let clients = self.clients.values().map(|(_, client)| match client {
            ClientTransaction::Invite(invite) => invite.next_timeout(),
            ClientTransaction::Other(other) => other.next_timeout(),
        });
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
