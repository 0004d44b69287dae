//! Calls that go on from another address of ours.

use std::net::IpAddr;

use super::Endpoint;
use super::requests::own_address;
use crate::sip::event::CallKey;
use crate::time::Instant;
use crate::wire::sip::NameAddr;

impl Endpoint {
    /// Where the requests of a call go.
    pub fn far_end(&self, call: CallKey) -> Option<IpAddr> {
        self.calls.get(&call).map(|call| call.path().remote.ip())
    }

    /// A call that is up goes on from another address of ours, where the old one is gone: the peer is told by a re-INVITE with
    /// `sdp`, an offer. Its answer comes as [`Event::Answer`](crate::sip::event::Event::Answer).
    pub fn move_call(&mut self, now: Instant, call: CallKey, local: IpAddr, sdp: Vec<u8>) {
        let Some(moving) = self.calls.get_mut(&call) else { return };
        let path = moving.move_to(local);
        let Ok(former) = NameAddr::parse(moving.contact()) else { return };
        let contact = self.contact(&former.uri, path);
        let ours = (format!("<{contact}>"), own_address(path));
        self.with_call(call, |call, _| call.tell_move(now, ours, sdp));
    }
}
