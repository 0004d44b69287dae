//! What a change of this machine's network means for calls: a telephone whose address of ours is gone is told of another one.
//!
//! Owns: which calls are stranded, and when they go on. Does not own: the lost memberships (`restoration`), the re-INVITE
//! (`sip`), the sockets (`io`).
//!
//! Where a registrar tells our public address, calls wait until it has told the new one.

use std::net::IpAddr;

use super::Gateway;
use super::event::Sockets;
use crate::sip::event as sip;
use crate::time::Instant;

impl<S: Sockets> Gateway<S> {
    /// Addresses of this machine are gone, or there are new ones or new ways.
    pub(super) fn on_network(&mut self, now: Instant, gone: &[IpAddr], has_new: bool) {
        self.desk.sip.handle_input(now, sip::Input::Network { gone, has_new });
        for call in self.calls.values_mut().filter(|call| gone.contains(&call.telephone.local_ip().to_canonical())) {
            call.is_stranded = true;
        }
        if has_new {
            self.hasten_rejoin(now);
        }
        if self.desk.sip.registration_status().is_none() {
            self.move_stranded(now);
        }
    }

    /// Gives stranded telephones other sockets, if there is a way to them now.
    pub(super) fn move_stranded(&mut self, now: Instant) {
        let desk = &mut self.desk;
        for call in self.calls.values_mut().filter(|call| call.is_stranded && call.answered) {
            let Some(remote) = desk.sip.far_end(call.key) else { continue };
            match desk.sockets.move_telephone(call.telephone.leg, call.telephone.local_port(), remote) {
                Ok(local) => {
                    call.is_stranded = false;
                    let address = desk.address_for(local.ip(), remote);
                    call.telephone.move_to(local, address);
                    desk.sip.move_call(now, call.key, local.ip(), call.telephone.local_description().to_owned());
                    tracing::info!("{}: our address is gone, the telephone is told of {address}", call.title);
                }
                // The next change may bring one.
                Err(error) => tracing::debug!("{}: no other address for the telephone: {error:?}", call.title),
            }
        }
    }
}
