//! What the gateway may hear of a call, and what an INVITE may get.
//!
//! Owns: which calls are alive for the gateway, and the final response to each INVITE that was announced. Does not own: how
//! far a call has come for SIP.

use std::collections::BTreeMap;
use std::time::Duration;

use galene_sip::sip::endpoint::Endpoint;
use galene_sip::sip::event::{CallKey, Event};
use galene_sip::time::Instant;
use galene_sip::wire::sip::{Message, Method, Response};

/// For so long a transaction is remembered; after that the same branch is a new one.
const REMEMBERED: Duration = Duration::from_secs(31);

#[derive(Debug, Default)]
struct Call {
    is_live: bool,
    is_answered: bool,
    is_acknowledged: bool,
    /// The call that it takes the place of.
    replaces: Option<CallKey>,
}

#[derive(Debug)]
pub(super) struct Model {
    calls: BTreeMap<CallKey, Call>,
    /// INVITEs by branch, with the final response.
    invites: BTreeMap<String, Option<(Instant, Vec<u8>)>>,
    /// What came last was a message.
    pub(super) is_readable: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self { calls: BTreeMap::new(), invites: BTreeMap::new(), is_readable: true }
    }
}

impl Model {
    /// How many calls there were.
    pub(super) fn announced(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn last_key(&self) -> u64 {
        self.calls.keys().last().map_or(0, |call| call.0)
    }

    pub(super) fn live(&self) -> Vec<CallKey> {
        self.calls.iter().filter(|(_, call)| call.is_live).map(|(key, _)| *key).collect()
    }

    pub(super) fn is_answered(&self, key: CallKey) -> bool {
        self.calls[&key].is_answered
    }

    /// The gateway knows that its telephone has what it wants, so that only silence can end it.
    pub(super) fn is_acknowledged(&self, key: CallKey) -> bool {
        self.calls[&key].is_acknowledged
    }

    /// The live call whose place this one is to take.
    pub(super) fn takes_place_of(&self, key: CallKey) -> Option<CallKey> {
        let call = &self.calls[&key];
        call.replaces.filter(|former| !call.is_answered && self.calls[former].is_live)
    }

    /// The gateway answers.
    pub(super) fn answered(&mut self, key: CallKey) {
        self.call(key).is_answered = true;
    }

    /// The gateway ends it, and hears no more of it.
    pub(super) fn given_up(&mut self, key: CallKey) {
        self.call(key).is_live = false;
    }

    /// The gateway has it take another one's place: its own key is dead, and the other's telephone new.
    pub(super) fn taken_over(&mut self, key: CallKey) {
        let former = self.call(key).replaces;
        self.call(key).is_live = false;
        if let Some(former) = former {
            self.call(former).is_acknowledged = false;
        }
    }

    fn call(&mut self, key: CallKey) -> &mut Call {
        self.calls.get_mut(&key).unwrap_or_else(|| panic!("{key:?} was never announced"))
    }

    /// `message` is what came last.
    pub(super) fn on_event(&mut self, event: &Event, message: &[u8]) {
        match event {
            Event::Invite { call, replaces, .. } => {
                if let Some(former) = replaces {
                    assert!(self.call(*former).is_live, "{call:?} is to replace a call that is over");
                }
                let new = Call { is_live: true, replaces: *replaces, ..Call::default() };
                assert!(self.calls.insert(*call, new).is_none(), "{call:?} was announced twice");
                self.on_invite(message);
            }
            Event::Ended { call, .. } => {
                assert!(std::mem::take(&mut self.call(*call).is_live), "{event:?} of a call that is over");
            }
            Event::Acknowledged { call } => {
                let one = self.call(*call);
                assert!(one.is_live && one.is_answered, "{event:?} of a call that is over, or not answered");
                one.is_acknowledged = true;
            }
            // Until the target has answered nobody is there to be asked.
            Event::Parted { call } => {
                assert!(self.call(*call).is_live, "{event:?} of a call that is over");
                self.call(*call).is_acknowledged = false;
            }
            Event::Offer { call, .. }
            | Event::Answer { call, .. }
            | Event::Key { call, .. }
            | Event::Transfer { call, .. }
            | Event::Transferred { call, .. }
            | Event::TransferFailed { call, .. } => {
                assert!(self.call(*call).is_live, "{event:?} of a call that is over");
            }
            Event::Registered { .. }
            | Event::RegistrationFailed { .. }
            | Event::Unregistered
            | Event::Stranger { .. } => {}
        }
    }

    fn on_invite(&mut self, message: &[u8]) {
        let Ok(Message::Request(request)) = Message::parse(message) else { return };
        if let Some(branch) = super::branch_of(&Response::to_request(&request, 100, "")) {
            self.invites.insert(branch, None);
        }
    }

    /// A response goes out.
    pub(super) fn on_response(&mut self, now: Instant, response: &Response) {
        let is_invite = response.headers.cseq().is_ok_and(|cseq| cseq.method == Method::Invite);
        if response.status < 200 || !is_invite || !self.is_readable {
            return;
        }
        let Some(branch) = super::branch_of(response) else { return };
        let Some(final_one) = self.invites.get_mut(&branch) else { return };
        let bytes = response.to_bytes();
        match final_one {
            Some((at, former)) if now.saturating_since(*at) < REMEMBERED => {
                let shown = [former.as_slice(), &bytes].map(String::from_utf8_lossy);
                assert!(*former == bytes, "two final responses: {shown:#?}");
            }
            Some(_) => {
                self.invites.remove(&branch);
            }
            None => *final_one = Some((now, bytes)),
        }
    }

    /// An ACK comes: what has refused the INVITE is soon forgotten.
    pub(super) fn on_ack(&mut self, message: &[u8]) {
        let Ok(Message::Request(ack)) = Message::parse(message) else { return };
        let Some(branch) = super::branch_of(&Response::to_request(&ack, 200, "")) else { return };
        let is_refusal = |bytes: &[u8]| !bytes.starts_with(b"SIP/2.0 2");
        if let Some(Some((_, bytes))) = self.invites.get(&branch)
            && is_refusal(bytes)
        {
            self.invites.remove(&branch);
        }
    }

    /// What is alive for the gateway is alive for the user agent: else nobody would ever say that it has ended.
    pub(super) fn compare(&self, endpoint: &Endpoint) {
        for call in self.live() {
            assert!(endpoint.has_call(call), "{call:?} has gone without a word");
        }
    }
}
