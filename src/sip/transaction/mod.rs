//! Transactions (RFC 3261 §17, RFC 6026): which datagram belongs to which exchange, and what is sent again when.
//!
//! Owns: the states and timers of one exchange, and the bounded table of those that peers have begun.
//! Does not own: what a request means (`endpoint`, `call`, `registration`).

pub(crate) mod client;
pub(crate) mod client_invite;
pub(crate) mod server;
pub(crate) mod server_invite;

use std::collections::BTreeMap;

use super::event::Outbox;
use crate::time::{Deadline, Instant, earliest};
use server::Server;
use server_invite::InviteServer;

/// Server transactions at most, 1 to 2 KB each. One lives 32 s, so this is 128 new ones a second for ever; a call needs
/// two to four.
/// What comes on top is answered without state.
pub(crate) const MAX_SERVER_TRANSACTIONS: usize = 4096;

/// What makes two requests the same (RFC 3261 §17.2.3). A CANCEL has a key of its own; an ACK has its INVITE's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerKey {
    /// The branch of the top Via, or, from before RFC 3261, all that identified a request then.
    pub(crate) branch: String,
    /// Host and port of the top Via.
    pub(crate) sent_by: String,
    /// The method, `INVITE` for an ACK.
    pub(crate) method: String,
}

/// What stays the same when a request reaches us on two ways (RFC 3261 §8.2.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) from_tag: String,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
}

/// An exchange that a peer began.
#[derive(Debug)]
pub(crate) enum ServerTransaction {
    Invite(InviteServer),
    Other(Server),
}

#[derive(Debug)]
struct Entry {
    transaction: ServerTransaction,
    /// Known for requests outside a dialog, which alone can be merged.
    origin: Option<Origin>,
}

/// All exchanges that peers began.
#[derive(Debug, Default)]
pub(crate) struct ServerTransactions(BTreeMap<ServerKey, Entry>);

impl ServerTransactions {
    /// Whether no further one can be kept.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MAX_SERVER_TRANSACTIONS
    }

    /// Whether there is room left for nothing but calls.
    pub(crate) fn is_crowded(&self) -> bool {
        self.0.len() >= MAX_SERVER_TRANSACTIONS / 2
    }

    /// The transaction that a request belongs to.
    pub(crate) fn find(&mut self, key: &ServerKey) -> Option<&mut ServerTransaction> {
        self.0.get_mut(key).map(|entry| &mut entry.transaction)
    }

    /// The INVITE transaction of `key`.
    pub(crate) fn find_invite(&mut self, key: &ServerKey) -> Option<&mut InviteServer> {
        match self.find(key)? {
            ServerTransaction::Invite(invite) => Some(invite),
            ServerTransaction::Other(_) => None,
        }
    }

    /// Whether the same request is being handled already under another key of the same method.
    pub(crate) fn has_merged(&self, key: &ServerKey, origin: &Origin) -> bool {
        self.0
            .iter()
            .any(|(other, entry)| other != key && other.method == key.method && entry.origin.as_ref() == Some(origin))
    }

    /// Keeps a new transaction. The caller has asked [`Self::is_full`].
    pub(crate) fn insert(&mut self, key: ServerKey, transaction: ServerTransaction, origin: Option<Origin>) {
        self.0.insert(key, Entry { transaction, origin });
    }

    /// Runs what is due and forgets what is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        self.0.retain(|_, entry| match &mut entry.transaction {
            ServerTransaction::Invite(invite) => {
                invite.handle_timeout(now, out);
                !invite.is_terminated()
            }
            ServerTransaction::Other(other) => !other.is_terminated(now),
        });
    }

    /// The next deadline of any.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        earliest(self.0.values().map(|entry| match &entry.transaction {
            ServerTransaction::Invite(invite) => invite.next_timeout(),
            ServerTransaction::Other(other) => Some(other.next_timeout()),
        }))
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests;
