//! Candidate pairs (RFC 8445 §6.1.2) and the check that one of them may have under way.
//!
//! There is one socket, and the kernel chooses the interface by the destination, for checks as for media. So there
//! is one pair for each remote candidate, with our best candidate of its address family, and one more with our relay if
//! there is one; more pairs would send the same datagrams.

use std::time::Duration;

use crate::time::Instant;
use crate::wire::route::Route;
use crate::wire::stun::TransactionId;

/// Pause before a check's first retransmission; it doubles after each (RFC 8489 §6.2.1). Shorter than RFC 8445's
/// 500 ms, because a caller waits: at 10 % loss one check in five needs it.
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(250);
/// Longest pause between two transmissions of a check.
const MAX_RETRANSMISSION: Duration = Duration::from_millis(2000);
/// Transmissions of one check: at 0, 0.25, 0.75, 1.75, 3.75, 5.75 and 7.75 s (Rc = 7, RFC 8489 §6.2.1).
const MAX_TRANSMISSIONS: u32 = 7;

/// A check that has been sent and not been answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) id: TransactionId,
    /// It carried USE-CANDIDATE.
    pub(super) nominating: bool,
    pub(super) sent_at: Instant,
    pub(super) next_at: Instant,
    transmissions: u32,
}

impl Check {
    pub(super) fn new(now: Instant, id: TransactionId, nominating: bool) -> Self {
        Self { id, nominating, sent_at: now, next_at: now + FIRST_RETRANSMISSION, transmissions: 1 }
    }

    /// Counts one more transmission, or says that there have been enough.
    pub(super) fn retransmit(&mut self, now: Instant) -> bool {
        if self.transmissions >= MAX_TRANSMISSIONS {
            return false;
        }
        let pause = (FIRST_RETRANSMISSION * 2u32.pow(self.transmissions)).min(MAX_RETRANSMISSION);
        self.transmissions += 1;
        self.sent_at = now;
        self.next_at = now + pause;
        true
    }
}

/// RFC 8445 §6.1.2.6, without Frozen: there is one component and pacing alone orders the checks.
#[derive(Clone, Copy, Debug)]
pub(super) enum PairState {
    /// No check is out, one may come.
    Waiting,
    /// A check is out.
    InProgress(Check),
    /// A check was answered.
    Succeeded,
    /// A check was refused, or not answered while another pair is in use.
    Failed,
}

/// A way to the peer.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) remote: Route,
    /// As the peer signalled it, or as its check's PRIORITY had it.
    pub(super) remote_priority: u32,
    /// Of our candidate in the pair.
    pub(super) local_priority: u32,
    /// What we put into PRIORITY.
    pub(super) reflexive_priority: u32,
    pub(super) state: PairState,
    /// The controlling side wants this pair.
    pub(super) nominated: bool,
    /// The peer's check was answered while ours was out.
    pub(super) is_peer_ahead: bool,
    /// When the last authentic message came from there.
    pub(super) heard_at: Option<Instant>,
}

impl Pair {
    /// RFC 8445 §6.1.2.3.
    pub(super) fn priority(&self, controlling: bool) -> u64 {
        let (ours, theirs) = (u64::from(self.local_priority), u64::from(self.remote_priority));
        let (g, d) = if controlling { (ours, theirs) } else { (theirs, ours) };
        (g.min(d) << 32) + 2 * g.max(d) + u64::from(g > d)
    }

    pub(super) const fn has_succeeded(&self) -> bool {
        matches!(self.state, PairState::Succeeded)
    }
}
