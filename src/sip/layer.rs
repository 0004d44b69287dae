//! The transaction layer (RFC 3261 §17) as its users see it: requests go out, responses go out, nothing is lost.
//!
//! Owns: all transactions, branches, the header fields every message of ours has. Does not own who uses a transaction.

use std::collections::BTreeMap;

use super::event::{CallKey, Outbox, Path};
use super::transaction::client::Client;
use super::transaction::client_invite::InviteClient;
use super::transaction::server::Server;
use super::transaction::{Origin, ServerKey, ServerTransaction, ServerTransactions};
use crate::random::Random;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{BRANCH_COOKIE, Method, Request, Response, Via};
use crate::wire::uri::Host;

/// What is added to its INVITE's branch, which it shares, to name a CANCEL in our table.
const CANCEL: &str = " CANCEL";

/// Who waits for the response to a request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Registration,
    /// A BYE.
    Call(CallKey),
    /// A session refresh: UPDATE or re-INVITE.
    Refresh(CallKey),
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
    /// None within 64·T1.
    Timeout,
}

/// An exchange that we began.
#[derive(Debug)]
enum ClientTransaction {
    Invite(InviteClient),
    Other(Client),
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
    pub(crate) fn new(user_agent: String, random: Random) -> Self {
        Self {
            servers: ServerTransactions::default(),
            clients: BTreeMap::new(),
            out: Outbox::default(),
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

    /// Sends a request along `path` with a new branch. `sent_by` is our address in its Via.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        owner: Owner,
        path: Path,
        sent_by: (Host, u16),
        mut request: Request,
    ) {
        let branch = self.add_via(sent_by, &mut request);
        let client = if request.method == Method::Invite {
            ClientTransaction::Invite(InviteClient::send(now, path, request, &mut self.out))
        } else {
            let method = request.method.clone();
            ClientTransaction::Other(Client::send(now, method, path, request.to_bytes(), &mut self.out))
        };
        self.clients.insert(branch, (owner, client));
    }

    /// Sends the ACK for a 2xx, which is no transaction; the bytes are for the same 2xx again.
    pub(crate) fn acknowledge(&mut self, path: Path, sent_by: (Host, u16), mut ack: Request) -> Vec<u8> {
        self.add_via(sent_by, &mut ack);
        let bytes = ack.to_bytes();
        self.out.send(path, bytes.clone());
        bytes
    }

    fn add_via(&mut self, sent_by: (Host, u16), request: &mut Request) -> String {
        let branch = format!("{BRANCH_COOKIE}{}", self.random.token(20));
        request.headers.push_front("Via", Via::udp(sent_by.0, sent_by.1, &branch).to_string());
        request.headers.push("User-Agent", self.user_agent.clone());
        branch
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
        let client = Client::send(now, Method::Cancel, path, request.to_bytes(), &mut self.out);
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
                Owner::Call(key) | Owner::Refresh(key) if *key == one => *key = other,
                Owner::Call(key) | Owner::Refresh(key) if *key == other => *key = one,
                Owner::Registration | Owner::Call(_) | Owner::Refresh(_) | Owner::Transfer(_) | Owner::Unheeded => {}
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
