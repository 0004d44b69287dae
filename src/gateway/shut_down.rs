//! The end of the program: calls may go on for a while, then everybody gets a goodbye.

use std::time::Duration;

use super::Gateway;
use super::event::Sockets;
use super::refusal::CallFailure;
use crate::time::Instant;

/// How long SIGTERM waits for BYE and un-REGISTER to be answered.
const SHUT_DOWN_WITHIN: Duration = Duration::from_millis(900);

impl<S: Sockets> Gateway<S> {
    /// Calls that there are may go on for a while; a second wish of the same is impatience.
    pub(super) fn drain(&mut self, now: Instant) {
        let patience = self.desk.config.drain_for;
        if self.calls.is_empty() || patience.is_zero() || self.drain_until.is_some() {
            return self.shut_down(now);
        }
        tracing::info!("{} calls may go on for {} s; no more are taken", self.calls.len(), patience.as_secs());
        self.drain_until = Some(now + patience);
    }

    /// Whether the last words are being said.
    pub const fn is_stopping(&self) -> bool {
        self.stop_by.is_some()
    }

    pub(super) fn shut_down(&mut self, now: Instant) {
        if self.stop_by.is_some() {
            return;
        }
        tracing::info!("shutting down: {} calls end", self.calls.len());
        self.stop_by = Some(now + SHUT_DOWN_WITHIN);
        for key in self.calls.keys().copied().collect::<Vec<_>>() {
            self.end_call(now, key, &CallFailure::ShuttingDown);
        }
        self.desk.sip.shut_down(now);
    }
}
