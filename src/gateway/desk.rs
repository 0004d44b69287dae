//! What every call and every room needs: the SIP endpoint, sockets, keys, randomness and the outbox.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::GatewayConfig;
use super::event::{Output, SocketError, Sockets};
use super::refusal::CallFailure;
use crate::media::control::{Command, LegKey, NetCommand};
use crate::random::Random;
use crate::rtc::dtls::Identity;
use crate::sip::endpoint::Endpoint;
use crate::sip::event::CallKey;
use crate::time::Instant;

/// How long a client id of ours counts as ours after its connection broke: Galene keeps such a ghost 45 to 55 s.
const GHOST: Duration = Duration::from_secs(60);

/// Whom a media socket serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LegOwner {
    /// A caller's stream to Galene.
    Up(CallKey),
    /// A room voice: the room's name and the stream's id.
    Voice(String, String),
    /// A telephone's RTP pair.
    Telephone(CallKey),
}

/// Shared by all calls and rooms; holds no call's state.
pub(super) struct Desk<S> {
    pub(super) config: GatewayConfig,
    pub(super) sip: Endpoint,
    pub(super) sockets: S,
    pub(super) random: Random,
    pub(super) identity: Arc<Identity>,
    pub(super) outputs: VecDeque<Output>,
    /// Client ids of our own callers, until Galene says that they left or, with a time, until that.
    pub(super) own_ids: BTreeMap<String, Option<Instant>>,
    legs: BTreeMap<LegKey, LegOwner>,
    last_key: u32,
}

impl<S: Sockets> Desk<S> {
    pub(super) fn new(
        config: GatewayConfig,
        sip: Endpoint,
        sockets: S,
        random: Random,
        identity: Arc<Identity>,
    ) -> Self {
        Self {
            config,
            sip,
            sockets,
            random,
            identity,
            outputs: VecDeque::new(),
            own_ids: BTreeMap::new(),
            legs: BTreeMap::new(),
            last_key: 0,
        }
    }

    /// A number for a room, caller, stream or leg, never given before.
    pub(super) const fn new_key(&mut self) -> u32 {
        self.last_key += 1;
        self.last_key
    }

    pub(super) fn new_leg(&mut self, owner: LegOwner) -> LegKey {
        let leg = LegKey(self.new_key());
        self.legs.insert(leg, owner);
        leg
    }

    pub(super) fn leg_owner(&self, leg: LegKey) -> Option<LegOwner> {
        self.legs.get(&leg).cloned()
    }

    pub(super) fn close_leg(&mut self, leg: LegKey) {
        if self.legs.remove(&leg).is_some() {
            self.outputs.push_back(Output::Close(leg));
        }
    }

    pub(super) fn net(&mut self, command: NetCommand) {
        self.outputs.push_back(Output::Net(command));
    }

    pub(super) fn mix(&mut self, command: Command) {
        self.outputs.push_back(Output::Mix(command));
    }

    /// A client id of ours whose connection broke stays ours until its ghost is gone.
    pub(super) fn keep_ghost(&mut self, now: Instant, id: &str) {
        self.own_ids.retain(|_, until| until.is_none_or(|until| now < until));
        self.own_ids.insert(id.to_owned(), Some(now + GHOST));
    }
}

impl From<SocketError> for CallFailure {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::NoPort(flag) => Self::NoPort(flag),
            SocketError::System(text) => Self::Socket(text),
        }
    }
}
