//! What every call and every room needs: the SIP endpoint, sockets, keys, randomness and the outbox.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::GatewayConfig;
use super::event::{MemberKey, Output, SocketError, Sockets};
use super::ice_servers::IceServers;
use super::member::Member;
use super::refusal::CallFailure;
use crate::config::Secret;
use crate::galene::RtcConfiguration;
use crate::galene::client::{self, Client, ClientConfig, Credentials};
use crate::galene::name::WantedName;
use crate::media::control::{Command, LegKey, NetCommand};
use crate::random::Random;
use crate::rtc::dtls::Identity;
use crate::sip::endpoint::Endpoint;
use crate::sip::event::CallKey;
use crate::time::Instant;
use crate::wire::address::is_private;

/// How long a client id of ours counts as ours after its connection broke: Galene keeps such a ghost 45 to 55 s.
const GHOST: Duration = Duration::from_secs(60);

/// Whom a media socket serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LegOwner {
    /// A caller's stream to Galene.
    Up(CallKey),
    /// A room voice.
    Voice {
        /// The room's name.
        room: String,
        /// The call whose member receives it here.
        listener: CallKey,
        /// The stream's id.
        stream: String,
    },
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
    /// Ids of our own members and their streams, until Galene says that they left or, with a time, until that.
    pub(super) own_ids: BTreeMap<String, Option<Instant>>,
    /// While registered: our address as the registrar sees it, where it differs from our own.
    pub(super) registered: Option<Option<SocketAddr>>,
    /// What was said last of a failed registration, until one succeeds.
    pub(super) registration_failure: Option<String>,
    /// For connections that find no way without.
    pub(super) ice_servers: IceServers,
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
            registered: None,
            registration_failure: None,
            ice_servers: IceServers::default(),
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

    /// A new member of the group, which must be found within `status_within`, if that is given.
    pub(super) fn new_member(
        &mut self,
        now: Instant,
        key: MemberKey,
        name: WantedName,
        status_within: Option<Duration>,
    ) -> Member {
        let reveal = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
        let credentials = Credentials { password: reveal(&self.config.password), token: reveal(&self.config.token) };
        let config = ClientConfig { group_url: self.config.group_url.clone(), name, credentials, status_within };
        Member { key, client: Client::new(config, self.random.fork(), now) }
    }

    /// Whether keys of encryption may stand in descriptions that travel like this.
    pub(super) const fn may_tell_keys(&self, is_confidential: bool) -> bool {
        is_confidential || self.config.srtp_keys_in_clear
    }

    /// The address that a session description shows to a caller: the public one where a NAT stands between us.
    pub(super) fn address_for(&self, local: IpAddr, caller: IpAddr) -> IpAddr {
        let public = self.registered.flatten().map(|public| public.ip()).or(self.config.public_address);
        match public.filter(|public| public.is_ipv4() == local.is_ipv4()) {
            Some(public) if is_private(local) && !is_private(caller) => public,
            Some(_) | None => local,
        }
    }

    /// Galene says which servers there are.
    pub(super) fn learn_ice_servers(&mut self, rtc: &RtcConfiguration) {
        let names = self.ice_servers.learn(rtc);
        self.outputs.extend(names.into_iter().map(Output::FindIceServer));
    }

    /// Ends a membership; the last words still go out.
    pub(super) fn leave(&mut self, member: Member) {
        let Member { key, mut client } = member;
        client.leave();
        while let Some(output) = client.poll_output() {
            if let client::Output::Event(_) = output {
                continue;
            }
            self.outputs.push_back(Output::Galene { member: key, output });
        }
    }

    /// An id of ours stays ours for as long as Galene may still speak of it: a member's until its ghost is gone.
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
