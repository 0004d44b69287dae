//! How many DTLS datagrams of one socket are on their way to signalling: a flood of them fills no ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::outlets::Outlets;
use crate::media::control::NetEvent;

/// Those that signalling has not read yet: two flights.
const MAX_PENDING: u32 = 8;

/// The count, of which the net thread and the handle have a clone each.
#[derive(Clone, Debug, Default)]
pub(super) struct DtlsPending(Arc<AtomicU32>);

/// Why a datagram does not reach signalling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// As many as may wait do.
    Flood,
    RingFull,
}

impl DtlsPending {
    /// Hands a datagram over; for the net thread alone.
    pub(super) fn pass(&self, datagram: NetEvent, out: &mut Outlets) -> Result<(), Stopped> {
        // Only this thread adds, so the count cannot overshoot.
        if self.0.load(Ordering::Acquire) >= MAX_PENDING {
            return Err(Stopped::Flood);
        }
        self.0.fetch_add(1, Ordering::AcqRel);
        if out.tell(datagram) {
            return Ok(());
        }
        self.taken();
        Err(Stopped::RingFull)
    }

    /// One of them is not on its way any more.
    pub(super) fn taken(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
