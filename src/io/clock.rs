//! The only clock.

use std::time::SystemTime;

use crate::time::{Instant, NtpAnchor};

/// Counts from its start; copies tell the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: std::time::Instant,
    anchor: NtpAnchor,
}

impl Clock {
    /// Starts counting.
    pub fn start() -> Self {
        let unix_at_zero = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: std::time::Instant::now(), anchor: NtpAnchor { unix_at_zero } }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        Instant::from_us(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// What wall-clock time the start was.
    pub fn anchor(&self) -> NtpAnchor {
        self.anchor
    }
}
