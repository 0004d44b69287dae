//! Asking a telephone whose media has fallen silent whether it is still there: OPTIONS inside the dialog (RFC 3261 §11, §12.2).
//!
//! The session timer finds out too, but only after half an hour. Any answer but 408 and 481 is a sign of life, a refusal
//! of the method and a challenge (which is never answered in a call) among them.

use super::{Call, State};
use crate::sip::event::EndReason;
use crate::sip::layer::{Outcome, Owner, TransactionLayer};
use crate::time::Instant;
use crate::wire::sip::{Method, Response};

impl Call {
    /// Asks, unless a question is open; only a call that is up is asked.
    pub(crate) fn probe(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if !matches!(self.state, State::Confirmed) || self.is_probed {
            return;
        }
        let request = self.dialog.request(Method::Options).with("Contact", &self.contact);
        layer.request(now, Owner::Probe(self.key), self.dialog.path(), self.sent_by.clone(), request);
        self.is_probed = true;
    }

    /// What became of the question.
    pub(crate) fn handle_probe_outcome(&mut self, now: Instant, outcome: &Outcome<'_>, layer: &mut TransactionLayer) {
        let is_gone = match outcome {
            Outcome::Response(response) if response.is_provisional() => return,
            Outcome::Response(Response { status: 408 | 481, .. }) | Outcome::Timeout => true,
            Outcome::Response(_) => false,
        };
        self.is_probed = false;
        if is_gone && matches!(self.state, State::Confirmed) {
            self.end(now, EndReason::Silent, "No media, and no answer to OPTIONS", layer);
        }
    }
}
