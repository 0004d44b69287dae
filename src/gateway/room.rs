//! One Galene group with callers of ours in it: who listens for all of them, and the voices that come down.
//!
//! Only the listener's client asks for streams; its voices serve every caller of the group here, so that each is received
//! and decoded once. Streams of our own callers are refused: they are mixed directly.
//!
//! # Taking over
//!
//! A voice in the mix outlives the link that feeds it, since Galene gives all listeners of a stream the same sequence
//! numbers and timestamps. When the listener's caller hangs up, its member stays (a *leaver*) until the next listener
//! hears every stream that it hears: both feed the same jitter buffers meanwhile, and nothing is missed. After a kick or
//! a lost connection the voices wait, faded by concealment, until the next listener's links reach them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::desk::Desk;
use super::event::Sockets;
use super::listener::{Connected, Listener, Polled};
use super::member::Member;
use super::overlooked::Overlooked;
use crate::galene::client::Client;
use crate::galene::message::{Candidate, Offer};
use crate::media::control::{Command, MAX_STREAMS, RoomKey, Stream, StreamKey, StreamSetup};
use crate::rtc::peer::Input;
use crate::sip::event::CallKey;
use crate::time::{Deadline, Instant, earliest};

/// How long a member stays whose caller has hung up, and how long a voice waits for its next link: many times what ICE and
/// DTLS of thirty streams take, and short enough to see that the caller's name goes from the room.
const TAKE_OVER_WITHIN: Duration = Duration::from_secs(2);

/// A stream of the room in the mix.
struct Voice {
    key: StreamKey,
    /// Its stream has been handed to the mix thread.
    is_in_mix: bool,
    /// Labelled as something that is likely music.
    always_decode: bool,
}

/// A member whose caller has hung up, and which still receives.
struct Leaver {
    listener: Listener,
    member: Member,
    leave_by: Instant,
}

/// A group with callers of ours.
pub(super) struct Room {
    pub(super) key: RoomKey,
    pub(super) name: String,
    pub(super) callers: BTreeSet<CallKey>,
    /// What the member receives that has asked for the streams.
    listener: Option<Listener>,
    leavers: Vec<Leaver>,
    /// By the stream's id.
    voices: BTreeMap<String, Voice>,
    /// After a listener was lost: until when voices that no link feeds are kept.
    keep_voices_until: Option<Instant>,
    /// By the listener.
    overlooked: Overlooked,
}

impl Room {
    pub(super) fn new(key: RoomKey, name: String) -> Self {
        Self {
            key,
            name,
            callers: BTreeSet::new(),
            listener: None,
            leavers: Vec::new(),
            voices: BTreeMap::new(),
            keep_voices_until: None,
            overlooked: Overlooked::default(),
        }
    }

    /// Whose member has asked for the streams.
    pub(super) fn listens(&self) -> Option<CallKey> {
        self.listener.as_ref().map(|listener| listener.call)
    }

    /// The calls that are over and whose members still receive.
    pub(super) fn leavers(&self) -> impl Iterator<Item = CallKey> {
        self.leavers.iter().map(|leaver| leaver.listener.call)
    }

    /// The member of such a call.
    pub(super) fn leaver(&mut self, call: CallKey) -> Option<&mut Member> {
        self.leavers.iter_mut().find(|leaver| leaver.listener.call == call).map(|leaver| &mut leaver.member)
    }

    fn listener_of(&mut self, call: CallKey) -> Option<&mut Listener> {
        let leavers = self.leavers.iter_mut().map(|leaver| &mut leaver.listener);
        self.listener.iter_mut().chain(leavers).find(|listener| listener.call == call)
    }

    /// The client of `call` listens for everybody from now on.
    pub(super) fn listen(&mut self, now: Instant, call: CallKey, client: &mut Client) {
        self.listener = Some(Listener::new(call));
        self.overlooked = Overlooked::default();
        client.request_audio(now);
    }

    /// The listener's call is over and another caller is there. Its member stays until that one hears everything, or is
    /// given back: because its connection is gone, or because it never heard anything.
    pub(super) fn retire_listener<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
        member: Member,
    ) -> Option<Member> {
        let listener = self.listener.take()?;
        if !member.client.is_closed() && listener.flowing().next().is_some() {
            self.leavers.push(Leaver { listener, member, leave_by: now + TAKE_OVER_WITHIN });
            return None;
        }
        self.drop_listener(now, desk, listener);
        Some(member)
    }

    /// The connection of the listener is gone, not its caller.
    pub(super) fn lose_listener<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        if let Some(listener) = self.listener.take() {
            self.drop_listener(now, desk, listener);
        }
    }

    /// The connection of a member is gone whose caller hung up before.
    pub(super) fn lose_leaver<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, call: CallKey) {
        let at = self.leavers.iter().position(|leaver| leaver.listener.call == call);
        if let Some(at) = at {
            let leaver = self.leavers.remove(at);
            self.drop_listener(now, desk, leaver.listener);
        }
    }

    /// Nothing comes by these links any more, while the voices wait for others.
    fn drop_listener<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, listener: Listener) {
        listener.close_all(now, desk);
        self.keep_voices_until = Some(now + TAKE_OVER_WITHIN);
    }

    /// Galene offers a voice to the listener, or a known one anew.
    pub(super) fn on_offer<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
        client: &mut Client,
        offer: &Offer,
    ) {
        self.overlooked.on_offer(&offer.id);
        if desk.own_ids.contains_key(&offer.source) {
            client.abort(now, &offer.id);
            return;
        }
        let Some(call) = self.listens() else { return };
        if let Some(replaced) = &offer.replace {
            self.close_link(now, desk, call, replaced);
        }
        let is_taken = self.has_link(call, &offer.id) || self.add_link(now, desk, offer);
        let Some(listener) = &mut self.listener else { return };
        if !is_taken {
            listener.refuse(now, client, &offer.id);
        } else if let Err(error) = listener.answer(now, desk, client, offer) {
            tracing::warn!("the voice of {} in {} is refused: {error}", offer.username, self.name);
            listener.refuse(now, client, &offer.id);
            self.close_link(now, desk, call, &offer.id);
        }
    }

    /// Galene offers something to a member whose caller has hung up: what it has goes on, nothing new is taken.
    pub(super) fn on_offer_to_leaver<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
        call: CallKey,
        offer: &Offer,
    ) {
        if let Some(replaced) = &offer.replace {
            self.close_link(now, desk, call, replaced);
        }
        let Some(leaver) = self.leavers.iter_mut().find(|leaver| leaver.listener.call == call) else { return };
        if leaver.listener.has(&offer.id)
            && let Err(error) = leaver.listener.answer(now, desk, &mut leaver.member.client, offer)
        {
            tracing::debug!("an offer to a member that leaves: {error}");
        }
    }

    fn has_link(&self, call: CallKey, id: &str) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.call == call && listener.has(id))
    }

    /// A link of the listener to a voice, which another may have fed before.
    fn add_link<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, offer: &Offer) -> bool {
        let known = self.voices.get(&offer.id).map(|voice| voice.key);
        if known.is_none() && self.voices.len() >= MAX_STREAMS {
            tracing::warn!(
                "{}: more than {MAX_STREAMS} voices; {} is not heard by telephones",
                self.name,
                offer.username
            );
            return false;
        }
        let Some(listener) = &mut self.listener else { return false };
        let key = known.unwrap_or_else(|| StreamKey(desk.new_key()));
        if let Err(failure) = listener.open_link(now, desk, (self.key, &self.name), &offer.id, key) {
            tracing::warn!("{} is not heard by telephones: {}", offer.username, failure.explain());
            self.overlooked.on_no_socket(now);
            return false;
        }
        let always_decode = matches!(offer.label.as_str(), "screenshare" | "video");
        self.voices.entry(offer.id.clone()).or_insert(Voice { key, is_in_mix: false, always_decode });
        true
    }

    /// A candidate for a voice, perhaps before its offer.
    pub(super) fn on_candidate(&mut self, now: Instant, call: CallKey, id: &str, candidate: Candidate) {
        if let Some(listener) = self.listener_of(call) {
            listener.on_candidate(now, id, candidate);
        }
    }

    /// Another server's address is known.
    pub(super) fn add_servers<S: Sockets>(&mut self, now: Instant, desk: &Desk<S>) {
        if let Some(listener) = &mut self.listener {
            listener.add_servers(now, desk);
        }
    }

    pub(super) fn on_packet(&mut self, now: Instant, call: CallKey, id: &str, input: Input<'_>) {
        if let Some(listener) = self.listener_of(call) {
            listener.on_packet(now, id, input);
        }
    }

    /// The first packet of a voice came by the link of this call's member.
    pub(super) fn on_flow(&mut self, call: CallKey, id: &str) {
        if let Some(listener) = self.listener_of(call) {
            listener.on_flow(id);
        }
    }

    /// Galene tells one member that a stream has ended, perhaps one that it never heard of.
    pub(super) fn on_close<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, call: CallKey, id: &str) {
        if self.close_link(now, desk, call, id) || self.listens() != Some(call) {
            return;
        }
        if let Some(listener) = &mut self.listener
            && !listener.take_refused(id)
        {
            self.overlooked.on_close(now, id);
        }
    }

    /// The stream has ended for one member; where no other receives it, it has ended for all.
    fn close_link<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, call: CallKey, id: &str) -> bool {
        let closed = self.listener_of(call).is_some_and(|listener| listener.close_link(now, desk, id));
        if closed && !self.is_fed(id) {
            self.remove_voice(desk, id);
        }
        closed
    }

    fn is_fed(&self, id: &str) -> bool {
        let leavers = self.leavers.iter().map(|leaver| &leaver.listener);
        self.listener.iter().chain(leavers).any(|listener| listener.has(id))
    }

    fn remove_voice<S: Sockets>(&mut self, desk: &mut Desk<S>, id: &str) {
        if let Some(voice) = self.voices.remove(id)
            && voice.is_in_mix
        {
            desk.mix(Command::RemoveStream(voice.key));
        }
    }

    fn remove_unfed_voices<S: Sockets>(&mut self, desk: &mut Desk<S>) {
        let unfed: Vec<String> = self.voices.keys().filter(|id| !self.is_fed(id)).cloned().collect();
        unfed.iter().for_each(|id| self.remove_voice(desk, id));
    }

    /// Nobody is to hear anything any more: who has not left yet leaves.
    pub(super) fn close_voices<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        for leaver in std::mem::take(&mut self.leavers) {
            desk.leave(leaver.member);
            leaver.listener.close_all(now, desk);
        }
        if let Some(listener) = self.listener.take() {
            listener.close_all(now, desk);
        }
        self.remove_unfed_voices(desk);
    }

    /// Drives every voice's peer connections; `client` is the listener's.
    pub(super) fn poll<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, client: Option<&mut Client>) {
        let mut polled: Vec<(CallKey, Polled)> = Vec::new();
        for Leaver { listener, .. } in &mut self.leavers {
            polled.push((listener.call, listener.poll(now, desk, None)));
        }
        if let Some(listener) = &mut self.listener {
            polled.push((listener.call, listener.poll(now, desk, client)));
        }
        for (call, Polled { connected, unusable }) in polled {
            connected.into_iter().for_each(|link| self.on_connected(desk, link));
            for id in unusable {
                self.close_link(now, desk, call, &id);
            }
        }
        self.let_leave(now, desk);
        if self.keep_voices_until.take_if(|until| *until <= now).is_some() {
            self.remove_unfed_voices(desk);
        }
    }

    /// A voice that another link fed before goes on where it is.
    fn on_connected<S: Sockets>(&mut self, desk: &mut Desk<S>, link: Connected) {
        let Some(voice) = self.voices.get_mut(&link.stream).filter(|voice| !voice.is_in_mix) else { return };
        let setup = StreamSetup { key: voice.key, codecs: link.codecs, always_decode: voice.always_decode };
        match Stream::new(setup) {
            Ok(stream) => {
                voice.is_in_mix = true;
                desk.mix(Command::AddStream { room: self.key, stream: Box::new(stream) });
            }
            Err(error) => tracing::error!("a voice of {} cannot be decoded: {error}", self.name),
        }
    }

    /// Members whose callers have hung up leave as soon as the listener hears what they hear, or when their time is up.
    fn let_leave<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        let listener = self.listener.as_ref();
        let carries = |id: &str| listener.is_some_and(|listener| listener.carries(id));
        let leaving: Vec<Leaver> = self
            .leavers
            .extract_if(.., |leaver| leaver.leave_by <= now || leaver.listener.flowing().all(carries))
            .collect();
        if leaving.is_empty() {
            return;
        }
        for Leaver { listener, member, leave_by } in leaving {
            let left_ms = leave_by.saturating_since(now).as_millis();
            tracing::debug!("call {}: its member leaves, {left_ms} ms before it must", listener.call.0);
            desk.leave(member);
            listener.close_all(now, desk);
        }
        if self.keep_voices_until.is_none() {
            self.remove_unfed_voices(desk);
        }
    }

    /// Time passes; what is to be asked of Galene is asked by the listener's client.
    pub(super) fn handle_timeout(&mut self, now: Instant, mut client: Option<&mut Client>) {
        for leaver in &mut self.leavers {
            leaver.member.client.handle_timeout(now);
            leaver.listener.handle_timeout(now, None);
        }
        if let Some(listener) = &mut self.listener {
            listener.handle_timeout(now, client.as_deref_mut());
        }
        let repeats_request = self.overlooked.handle_timeout(now);
        if let Some(client) = client.filter(|_| repeats_request) {
            client.request_audio(now);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        let leavers = self.leavers.iter().flat_map(|leaver| {
            let leave = Deadline::new(leaver.leave_by, "leave the room after its caller");
            [leaver.member.client.next_timeout(), leaver.listener.next_timeout(), Some(leave)]
        });
        let keep = self.keep_voices_until.map(|at| Deadline::new(at, "give up voices that nobody receives"));
        let listener = self.listener.as_ref().and_then(Listener::next_timeout);
        earliest(leavers.chain([listener, keep, self.overlooked.next_timeout()]))
    }
}
