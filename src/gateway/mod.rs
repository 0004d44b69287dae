//! Introduces SIP calls to Galene members and rooms: the only place that knows both sides.
//!
//! Owns: calls, rooms, who listens for whom, admission, the telephone's offer and answer, the mapping of failures to SIP
//! statuses. Does not own: the protocols themselves (`sip`, `galene`, `rtc`), sockets (`io`), sound (`media`, which it
//! speaks to in words of `media::control` alone).
//!
//! A pure machine: [`Gateway::handle_input`] and [`Gateway::handle_timeout`] mutate, [`Gateway::poll_output`] drains.
//!
//! A call's way: INVITE → 180 → Galene `joined` → up stream offered → ICE and DTLS connected → 200 → voices.

mod admission;
mod association;
mod call;
mod codec;
mod desk;
mod dtls_terms;
mod encryption;
pub mod event;
mod formats;
mod galene_events;
mod ice_servers;
mod ladder;
mod listener;
mod member;
mod moving;
mod overlooked;
mod peer_leg;
pub mod refusal;
mod restarts;
mod restoration;
mod room;
mod shut_down;
mod sip_events;
mod statistics;
mod telephone;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use admission::Admission;
pub use admission::Load;
use call::Call;
use desk::{Desk, LegOwner};
use event::{Input, MemberKey, Output, Sockets};
use ladder::{Ladders, Way};
use member::Member;
use refusal::CallFailure;
use room::Room;
use statistics::Endings;

use crate::config::{Secret, SipCodec, SrtpPolicy};
use crate::galene::name::WantedName;
use crate::media::control::{Command, LegKey, MixEvent, NetCommand, NetEvent};
use crate::random::Random;
use crate::rtc::dtls::Identity;
use crate::rtc::peer;
use crate::sip::endpoint::Endpoint;
use crate::sip::event::{CallKey, EndpointConfig, Status};
use crate::time::{Deadline, Instant, earliest};
use crate::wire::ice_uri::IceUri;

/// The name of [`Gateway::probe`]; calls' keys begin at 1.
const PROBE: MemberKey = MemberKey { call: CallKey(0), nth: 0 };

/// What the gateway is built from, beside the SIP endpoint's own settings.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The group's URL without its query.
    pub group_url: url::Url,
    /// Its token.
    pub token: Option<Secret>,
    /// `-username`.
    pub username: Option<String>,
    /// `-password`.
    pub password: Option<Secret>,
    /// `-ice-lite`.
    pub ice_lite: bool,
    /// Unless `-no-agc`: the speech of quiet telephones comes up.
    pub agc: bool,
    /// `-sip-codecs`.
    pub codecs: Option<Vec<SipCodec>>,
    /// `-sip-srtp`.
    pub srtp: SrtpPolicy,
    /// `-sip-srtp-keys-in-clear`.
    pub srtp_keys_in_clear: bool,
    /// `-max-calls`, at most [`crate::config::MAX_CALLS`].
    pub max_calls: usize,
    /// `-max-calls-per-caller`.
    pub max_calls_per_caller: usize,
    /// `-public-address`: ours beyond a NAT, where no registrar tells it.
    pub public_address: Option<IpAddr>,
    /// `-drain-for`: how long calls may go on after SIGTERM.
    pub drain_for: Duration,
    /// `-rejoin-for`: how long a caller stays on the line while Galene is away.
    pub rejoin_for: Duration,
}

/// All calls of this program.
pub struct Gateway<S> {
    desk: Desk<S>,
    calls: BTreeMap<CallKey, Call>,
    rooms: BTreeMap<String, Room>,
    ladders: Ladders,
    admission: Admission,
    endings: Endings,
    /// Asks at the start whether the group is there, so that a wrong URL shows before the first call.
    probe: Option<Member>,
    /// No more calls are taken; those that there are may go on until this moment.
    drain_until: Option<Instant>,
    /// When shutting down has to be over.
    stop_by: Option<Instant>,
    stopped: bool,
}

impl<S: Sockets> Gateway<S> {
    /// A gateway that registers, if it is to, at once.
    pub fn new(
        now: Instant,
        config: GatewayConfig,
        sip: EndpointConfig,
        sockets: S,
        mut random: Random,
        identity: Arc<Identity>,
    ) -> Self {
        let mut endpoint = Endpoint::new(sip, random.fork());
        endpoint.start(now);
        let admission = Admission::new(config.max_calls, config.max_calls_per_caller);
        let mut desk = Desk::new(config, endpoint, sockets, random, identity);
        let probe = Some(desk.new_member(now, PROBE, WantedName::of_caller(None, None), None));
        let (calls, rooms) = (BTreeMap::new(), BTreeMap::new());
        let (ladders, endings) = (Ladders::default(), Endings::default());
        let mut gateway = Self {
            desk,
            calls,
            rooms,
            ladders,
            admission,
            endings,
            probe,
            drain_until: None,
            stop_by: None,
            stopped: false,
        };
        gateway.settle(now);
        gateway
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Sip(input) => self.desk.sip.handle_input(now, input),
            Input::Galene { member: PROBE, input } => {
                if let Some(probe) = &mut self.probe {
                    probe.client.handle_input(now, input);
                }
            }
            Input::Galene { member: key, input } => {
                // What comes for a membership that the call has lost means nothing any more.
                if let Some(member) = self.member(key.call).filter(|member| member.key == key) {
                    member.client.handle_input(now, input);
                }
            }
            Input::Net(event) => self.on_net(now, event),
            Input::Mix(event) => self.on_mix(&event),
            Input::IceServer { uri, addresses } => self.on_ice_server(now, &uri, addresses),
            Input::TurnStreamEnded { leg, stand_in } => {
                self.on_peer(now, leg, peer::Input::Disconnected { server: stand_in });
            }
            Input::Network { gone, has_new } => self.on_network(now, gone, has_new),
            Input::Load(load) => self.on_load(now, load),
            Input::Drain => self.drain(now),
            Input::ShutDown => self.shut_down(now),
        }
        self.settle(now);
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.desk.sip.handle_timeout(now);
        if let Some(probe) = &mut self.probe {
            probe.client.handle_timeout(now);
        }
        for call in self.calls.values_mut() {
            call.handle_timeout(now);
            call.progress(now, &mut self.desk);
        }
        for room in self.rooms.values_mut() {
            let listener = room.listens().and_then(|key| self.calls.get_mut(&key));
            room.handle_timeout(now, listener.map(|call| &mut call.member.client));
        }
        self.rejoin(now);
        let late = self.calls.values().filter(|call| !call.answered && call.answer_by() <= now);
        for (call, failure) in late.map(|call| (call.key, call.why_late())).collect::<Vec<_>>() {
            self.end_call(now, call, &failure);
        }
        self.settle(now);
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn next_timeout(&self) -> Option<Deadline> {
        let calls = earliest(self.calls.values().map(Call::next_timeout));
        let rooms = earliest(self.rooms.values().map(Room::next_timeout));
        let stop = self.stop_by.filter(|_| !self.stopped).map(|at| Deadline::new(at, "shut down"));
        let probe = self.probe.as_ref().and_then(|probe| probe.client.next_timeout());
        let drain = self.drain_until.filter(|_| self.stop_by.is_none()).map(|at| Deadline::new(at, "calls drain"));
        earliest([self.desk.sip.next_timeout(), calls, rooms, probe, stop, drain])
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.desk.outputs.pop_front()
    }

    /// The media sockets' keeper, for `io`.
    pub const fn sockets(&mut self) -> &mut S {
        &mut self.desk.sockets
    }

    /// Passes everything on until nobody has anything to say.
    fn settle(&mut self, now: Instant) {
        loop {
            let mut quiet = !(self.drain_sip(now) | self.drain_probe());
            for key in self.calls.keys().copied().collect::<Vec<_>>() {
                quiet &= !self.drain_call(now, key);
            }
            for room in self.rooms.values_mut() {
                let listener = room.listens().and_then(|key| self.calls.get_mut(&key));
                room.poll(now, &mut self.desk, listener.map(|call| &mut call.member.client));
            }
            for key in self.rooms.values().flat_map(Room::leavers).collect::<Vec<_>>() {
                quiet &= !self.drain_client(now, key);
            }
            if quiet {
                break;
            }
        }
        if self.stop_by.is_none() && self.drain_until.is_some_and(|until| until <= now || self.calls.is_empty()) {
            self.shut_down(now);
            return self.settle(now);
        }
        self.close_ladders();
        let over = self.desk.sip.is_idle() || self.stop_by.is_some_and(|by| by <= now);
        if self.stop_by.is_some() && !self.stopped && over {
            self.stopped = true;
            self.desk.outputs.push_back(Output::Stopped);
        }
    }

    /// Shows with `-debug` how the calls went that are over for SIP too.
    fn close_ladders(&mut self) {
        let is_over = |call: &CallKey| !self.desk.sip.has_call(*call);
        for call in self.ladders.open().filter(is_over).collect::<Vec<_>>() {
            if let Some(ladder) = self.ladders.close(call) {
                tracing::debug!("{ladder}");
            }
        }
    }

    /// How the registration stands; `None` without a registrar.
    pub fn registration_status(&self) -> Option<Status> {
        self.desk.sip.registration_status()
    }

    /// The ladders of the last calls and of those in progress, the oldest first.
    pub fn ladders(&self) -> Vec<String> {
        self.ladders.all().collect()
    }

    /// Handles all that one call's member and peer connection have to say; true if there was anything.
    fn drain_call(&mut self, now: Instant, key: CallKey) -> bool {
        let any = self.drain_client(now, key);
        let Some(call) = self.calls.get_mut(&key) else { return any };
        let any = match call.poll_association(now, &mut self.desk) {
            Ok(news) => any | news,
            Err(failure) => {
                self.end_call(now, key, &failure);
                return true;
            }
        };
        match call.poll_up(now, &mut self.desk) {
            Ok(false) => any,
            Ok(true) => {
                self.ladders.note(now, key, Way::FromGalene, "connected");
                call.answer(now, &mut self.desk);
                true
            }
            Err(failure) => {
                self.end_call(now, key, &failure);
                true
            }
        }
    }

    /// Handles all that one member has to say; true if there was anything.
    fn drain_client(&mut self, now: Instant, key: CallKey) -> bool {
        let mut any = false;
        while let Some(output) = self.member(key).and_then(|member| member.client.poll_output()) {
            any = true;
            self.on_galene(now, key, output);
        }
        any
    }

    /// The member that joined for a call, which may be over.
    fn member(&mut self, key: CallKey) -> Option<&mut Member> {
        match self.calls.get_mut(&key) {
            Some(call) => Some(&mut call.member),
            None => self.rooms.values_mut().find_map(|room| room.leaver(key)),
        }
    }

    fn on_net(&mut self, now: Instant, event: NetEvent) {
        match event {
            NetEvent::Stun { leg, from, bytes, .. } => {
                self.on_peer(now, leg, peer::Input::Stun { from, bytes: &bytes })
            }
            NetEvent::Dtls { leg, from, bytes, .. } => {
                self.on_peer(now, leg, peer::Input::Dtls { from, bytes: &bytes })
            }
            NetEvent::LossReported { leg, percent } => {
                let caller = |key| self.calls.get(&key).map(|call| call.caller);
                let command = match self.desk.leg_owner(leg) {
                    Some(LegOwner::Up(call)) => caller(call).map(|caller| Command::SetUpLoss { caller, percent }),
                    Some(LegOwner::Telephone(call)) => {
                        caller(call).map(|caller| Command::SetDownLoss { caller, percent })
                    }
                    Some(LegOwner::Voice { .. }) | None => None,
                };
                if let Some(command) = command {
                    self.desk.mix(command);
                }
            }
            NetEvent::Silent { leg } => {
                if let Some(call) = self.call_of(leg).map(|call| call.key) {
                    self.desk.sip.probe(now, call);
                }
            }
            NetEvent::Flows { leg } => {
                if let Some(LegOwner::Voice { room, listener, stream }) = self.desk.leg_owner(leg)
                    && let Some(room) = self.rooms.get_mut(&room)
                {
                    room.on_flow(listener, &stream);
                }
            }
            NetEvent::Latched { leg, remote } => {
                if let Some(call) = self.call_of(leg) {
                    tracing::debug!("{}: the telephone's voice comes from {remote}", call.title);
                }
            }
            NetEvent::Removed { leg, stats } => {
                tracing::debug!("socket {} closed: {stats:?}", leg.0);
                tell(self.endings.on_removed(leg, stats));
            }
        }
    }

    /// The address of a server is known: who waits for it asks it now.
    fn on_ice_server(&mut self, now: Instant, uri: &IceUri, addresses: Vec<SocketAddr>) {
        self.desk.ice_servers.on_addresses(uri, addresses);
        for up in self.calls.values_mut().filter_map(|call| call.up.as_mut()) {
            up.link.add_servers(now, &self.desk);
        }
        for room in self.rooms.values_mut() {
            room.add_servers(now, &self.desk);
        }
    }

    /// The media threads have more to do than they can, or no longer.
    fn on_load(&mut self, now: Instant, load: Load) {
        if self.admission.set_load(now, load, self.calls.len()) {
            let Load { busiest_percent, missed_ticks_a_second } = load;
            let (calls, figures) =
                (self.calls.len(), format!("{busiest_percent} % busy, {missed_ticks_a_second} ticks a second missed"));
            if self.admission.is_busy() {
                tracing::warn!(
                    "this machine is at its limit with {calls} calls ({figures}): further ones are refused; -max-calls sets the limit lower"
                );
            } else {
                tracing::info!("calls are taken again ({figures})");
            }
        }
    }

    fn on_peer(&mut self, now: Instant, leg: LegKey, input: peer::Input<'_>) {
        match self.desk.leg_owner(leg) {
            Some(LegOwner::Up(call)) => {
                if let Some(up) = self.calls.get_mut(&call).and_then(|call| call.up.as_mut()) {
                    up.link.handle_input(now, input);
                }
            }
            Some(LegOwner::Voice { room, listener, stream }) => {
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.on_packet(now, listener, &stream, input);
                }
            }
            Some(LegOwner::Telephone(call)) => {
                if let (peer::Input::Dtls { from, bytes }, Some(call)) = (input, self.calls.get_mut(&call)) {
                    call.on_telephone_dtls(now, from.peer(), bytes);
                }
            }
            None => tracing::debug!("a packet for socket {}, which is gone", leg.0),
        }
    }

    fn on_mix(&mut self, event: &MixEvent) {
        match event {
            MixEvent::Talking { caller, talking, level_dbfs, gain_db } => {
                if let Some(call) = self.calls.values_mut().find(|call| call.caller == *caller) {
                    if std::mem::replace(&mut call.talks, *talking) != *talking {
                        self.desk.net(NetCommand::SetTelephoneTalking { leg: call.telephone.leg, talking: *talking });
                    }
                    let what = if *talking { "speaks" } else { "is silent, spoke" };
                    tracing::debug!("{}: {what} at {level_dbfs} dBFS, gain {gain_db} dB", call.title);
                }
            }
            MixEvent::Key { caller, press } => {
                if let Some(call) = self.calls.values().find(|call| call.caller == *caller) {
                    call.on_key(press);
                }
            }
            MixEvent::RoomClosed(room) => tracing::debug!("room {} closed", room.0),
            MixEvent::CallerRemoved { caller, stats } => {
                tracing::debug!("caller {} removed: {stats:?}", caller.0);
                tell(self.endings.on_caller_removed(*caller, *stats));
            }
            MixEvent::StreamRemoved { stream, stats } => tracing::debug!("voice {} removed: {stats:?}", stream.0),
            MixEvent::Refused(why) => tracing::warn!("the mixer refused a command: {why}"),
        }
    }

    fn call_of(&self, leg: LegKey) -> Option<&Call> {
        match self.desk.leg_owner(leg)? {
            LegOwner::Telephone(call) | LegOwner::Up(call) => self.calls.get(&call),
            LegOwner::Voice { .. } => None,
        }
    }

    /// Ends a call for a reason of ours or of Galene's: a rejection before the answer, BYE after it.
    fn end_call(&mut self, now: Instant, key: CallKey, failure: &CallFailure) {
        let Some(call) = self.calls.get(&key) else { return };
        tracing::warn!("{}: {}", call.title, failure.explain());
        if call.answered {
            self.desk.sip.hang_up(now, key, &failure.explain());
        } else {
            self.desk.sip.reject(now, key, &failure.rejection());
        }
        self.forget_call(now, key);
    }

    /// The call is over on the SIP side: everything else of it goes, its membership last if it is the room's listener.
    fn forget_call(&mut self, now: Instant, key: CallKey) {
        let Some(mut call) = self.calls.remove(&key) else { return };
        call.release(now, &mut self.desk);
        if let Some(ending) = call.ending(now) {
            self.endings.begin(now, ending);
        }
        self.desk.keep_ghost(now, call.member.client.id());
        tracing::info!("{}: ended; {} calls remain", call.title, self.calls.len());
        let Call { member, room, .. } = call;
        if let Some(member) = self.leave_room(now, member, room.map(|(name, _)| name)) {
            self.desk.leave(member);
        }
    }

    /// Takes a call out of its room; an empty room closes. If the call's member listened for the room, the next caller's
    /// does from now on, and the former one stays, and is not given back, until that one hears everything.
    fn leave_room(&mut self, now: Instant, member: Member, name: Option<String>) -> Option<Member> {
        let key = member.key.call;
        let Some((name, room)) = name.and_then(|name| Some((name.clone(), self.rooms.get_mut(&name)?))) else {
            return Some(member);
        };
        room.callers.remove(&key);
        if room.callers.is_empty() || self.stop_by.is_some() {
            room.close_voices(now, &mut self.desk);
        }
        if room.callers.is_empty() {
            self.desk.mix(Command::CloseRoom(room.key));
            self.rooms.remove(&name);
            return Some(member);
        }
        if room.listens() != Some(key) {
            return Some(member);
        }
        let left = room.retire_listener(now, &mut self.desk, member);
        self.appoint_listener(now, &name);
        left
    }

    /// Another member listens for a room that has lost its listener, if it has one that is there.
    fn appoint_listener(&mut self, now: Instant, name: &str) {
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.listens().is_none()) else { return };
        let is_there = |key: &&CallKey| self.calls.get(key).is_some_and(|call| call.restoration.is_none());
        // Who is still being put through may yet fail.
        let answered = |key: &&CallKey| self.calls.get(key).is_some_and(|call| call.answered);
        let mut members = room.callers.iter().filter(is_there);
        if let Some(next) = members.clone().find(answered).or_else(|| members.next()).copied()
            && let Some(call) = self.calls.get_mut(&next)
        {
            tracing::debug!("{}: listens for the room {name}", call.title);
            room.listen(now, next, &mut call.member.client);
        }
    }
}

/// The line of a call that is over, once it is complete.
fn tell(summary: Option<String>) {
    if let Some(summary) = summary {
        tracing::info!("{summary}");
    }
}
