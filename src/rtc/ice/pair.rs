//! Candidate pairs (RFC 8445 §6.1.2) and the check that one of them may have under way.
//!
//! There is one socket, and the kernel chooses the interface by the destination, for checks as for media. So there
//! is one pair for each remote candidate, with our best candidate of its address family, and one more with our relay if
//! there is one; more pairs would send the same datagrams.

use crate::rtc::retransmission::Retransmission;
use crate::time::Instant;
use crate::wire::route::Route;
use crate::wire::stun::TransactionId;

/// A check that has been sent and not been answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) id: TransactionId,
    /// It carried USE-CANDIDATE.
    pub(super) nominating: bool,
    pub(super) sent_at: Instant,
    schedule: Retransmission,
}

impl Check {
    pub(super) fn new(now: Instant, id: TransactionId, nominating: bool) -> Self {
        Self { id, nominating, sent_at: now, schedule: Retransmission::new(now, false) }
    }

    /// When it is to be sent again, or given up.
    pub(super) const fn next_at(&self) -> Instant {
        self.schedule.next_at()
    }

    /// It is to be sent again at once.
    pub(super) const fn hurry(&mut self, now: Instant) {
        self.schedule.hurry(now);
    }

    /// Counts one more transmission, or says that there have been enough.
    pub(super) fn retransmit(&mut self, now: Instant) -> bool {
        let is_due = self.schedule.retransmit(now);
        if is_due {
            self.sent_at = now;
        }
        is_due
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
