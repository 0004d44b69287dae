//! What a change of this machine's network means for the registration: an address of ours that is gone is no Contact.
//!
//! Does not own: the connection from such an address, whose end is told as any other's (`handle_closed`).

use std::net::IpAddr;

use super::{Registration, State};
use crate::sip::layer::{Owner, TransactionLayer};
use crate::time::Instant;

impl Registration {
    /// Addresses of ours are gone, or there are new ones or new ways.
    pub(crate) fn handle_network(
        &mut self,
        now: Instant,
        gone: &[IpAddr],
        has_new: bool,
        layer: &mut TransactionLayer,
    ) {
        let is_lost = self.servers.lose(gone);
        if is_lost {
            self.is_cut_off = true;
            // As the registrar saw the address that is gone; and what it sees now is worth a second REGISTER.
            (self.public, self.moved, self.keep_alive) = (None, None, None);
        }
        match self.state {
            State::Registering(_) | State::Registered { .. } | State::Removing { .. } if is_lost => {
                layer.abandon(Owner::Registration);
                self.resolve(now, layer);
            }
            State::Waiting { .. } if has_new && self.is_cut_off => self.resolve(now, layer),
            // A look-up may still fail for want of a way that is there now; then the next one comes after a pause.
            State::Idle
            | State::Resolving { .. }
            | State::Connecting
            | State::Registering(_)
            | State::Registered { .. }
            | State::Removing { .. }
            | State::Waiting { .. }
            | State::Unregistering(_)
            | State::Off => {}
        }
    }
}
