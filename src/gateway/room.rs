//! One Galene group with callers of ours in it: who listens for all of them, and the voices that come down.
//!
//! Only the listener's client asks for streams; its voices serve every caller of the group here, so that each is received
//! and decoded once. Streams of our own callers are refused: they are mixed directly.

use std::collections::{BTreeMap, BTreeSet};

use super::desk::{Desk, LegOwner};
use super::event::Sockets;
use super::overlooked::Overlooked;
use super::peer_leg::{PeerLeg, PeerNews};
use super::restarts::Restarts;
use crate::galene::client::Client;
use crate::galene::message::{Candidate, Offer};
use crate::media::control::{Command, MAX_STREAMS, PeerRole, RoomKey, Stream, StreamKey, StreamSetup};
use crate::rtc::peer::Input;
use crate::sip::event::CallKey;
use crate::time::Instant;

/// Candidates that came before their offer; Galene sends a handful a stream, and offers follow within a round trip.
const MAX_EARLY_CANDIDATES: usize = 256;

/// Refused streams whose `close` has not come; our own callers' streams are most of them.
const MAX_REFUSED: usize = 256;

/// A room voice.
struct Voice {
    link: PeerLeg,
    stream: StreamKey,
    setup: StreamSetup,
    /// Its stream has been handed to the mix thread.
    connected: bool,
    restarts: Restarts,
}

/// A group with callers of ours.
pub(super) struct Room {
    pub(super) key: RoomKey,
    pub(super) name: String,
    pub(super) callers: BTreeSet<CallKey>,
    /// Whose client has asked for the streams.
    pub(super) listener: Option<CallKey>,
    voices: BTreeMap<String, Voice>,
    early_candidates: Vec<(String, Candidate)>,
    /// Streams whose `close` we have asked for.
    refused: BTreeSet<String>,
    overlooked: Overlooked,
}

impl Room {
    pub(super) fn new(key: RoomKey, name: String) -> Self {
        Self {
            key,
            name,
            callers: BTreeSet::new(),
            listener: None,
            voices: BTreeMap::new(),
            early_candidates: Vec::new(),
            refused: BTreeSet::new(),
            overlooked: Overlooked::default(),
        }
    }

    /// The client of `call` listens for everybody from now on.
    pub(super) fn listen(&mut self, now: Instant, call: CallKey, client: &mut Client) {
        self.listener = Some(call);
        client.request_audio(now);
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
            self.refuse(now, client, &offer.id);
            return;
        }
        if let Some(replaced) = &offer.replace {
            self.remove_voice(desk, replaced);
        }
        if !self.voices.contains_key(&offer.id) && !self.add_voice(now, desk, offer) {
            self.refuse(now, client, &offer.id);
            return;
        }
        let early: Vec<_> = self.early_candidates.extract_if(.., |(id, _)| *id == offer.id).collect();
        let Some(voice) = self.voices.get_mut(&offer.id) else { return };
        match voice.link.peer.handle_offer(now, &offer.sdp) {
            Ok((answer, negotiated)) => {
                voice.setup.codecs = super::codec::of_offer(&negotiated);
                voice.link.codec = voice.setup.codecs.first().map(|(_, codec)| *codec);
                voice.link.renew_credentials(desk);
                voice.restarts.expect_path(now);
                client.send_answer(now, &offer.id, &answer);
                for (_, candidate) in early {
                    voice.link.peer.add_candidate(now, &candidate.candidate);
                }
            }
            Err(error) => {
                tracing::warn!("the voice of {} in {} is refused: {error}", offer.username, self.name);
                self.refuse(now, client, &offer.id);
                self.remove_voice(desk, &offer.id);
            }
        }
    }

    fn add_voice<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, offer: &Offer) -> bool {
        if self.voices.len() >= MAX_STREAMS {
            tracing::warn!(
                "{}: more than {MAX_STREAMS} voices; {} is not heard by telephones",
                self.name,
                offer.username
            );
            return false;
        }
        let owner = LegOwner::Voice(self.name.clone(), offer.id.clone());
        let link = match PeerLeg::open(now, desk, owner) {
            Ok(link) => link,
            Err(failure) => {
                tracing::warn!("{} is not heard by telephones: {}", offer.username, failure.explain());
                return false;
            }
        };
        let stream = StreamKey(desk.new_key());
        let role = PeerRole::Down { stream, ssrc: desk.random.next_u32() };
        link.add_to_net(desk, self.key, role);
        let always_decode = matches!(offer.label.as_str(), "screenshare" | "video");
        let setup = StreamSetup { key: stream, codecs: Vec::new(), always_decode };
        self.voices
            .insert(offer.id.clone(), Voice { link, stream, setup, connected: false, restarts: Restarts::default() });
        true
    }

    /// A candidate for a voice, perhaps before its offer.
    pub(super) fn on_candidate(&mut self, now: Instant, id: &str, candidate: Candidate) {
        match self.voices.get_mut(id) {
            Some(voice) => voice.link.peer.add_candidate(now, &candidate.candidate),
            None if self.early_candidates.len() < MAX_EARLY_CANDIDATES => {
                self.early_candidates.push((id.to_owned(), candidate));
            }
            None => tracing::debug!("{}: too many candidates without an offer; one is dropped", self.name),
        }
    }

    pub(super) fn on_packet(&mut self, now: Instant, id: &str, input: Input<'_>) {
        if let Some(voice) = self.voices.get_mut(id) {
            voice.link.handle_input(now, input);
        }
    }

    /// Refuses a stream; Galene answers with a `close`.
    fn refuse(&mut self, now: Instant, client: &mut Client, id: &str) {
        if self.refused.len() < MAX_REFUSED {
            self.refused.insert(id.to_owned());
        }
        client.abort(now, id);
    }

    /// Galene says that a stream has ended, perhaps one that we never heard of.
    pub(super) fn on_close<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, id: &str) {
        if self.voices.contains_key(id) {
            self.remove_voice(desk, id);
        } else if !self.refused.remove(id) {
            self.overlooked.on_close(now, id);
        }
    }

    /// The voice's stream has ended.
    pub(super) fn remove_voice<S: Sockets>(&mut self, desk: &mut Desk<S>, id: &str) {
        self.early_candidates.retain(|(of, _)| of != id);
        if let Some(voice) = self.voices.remove(id) {
            if voice.connected {
                desk.mix(Command::RemoveStream(voice.stream));
            }
            desk.close_leg(voice.link.leg);
        }
    }

    /// The listener is gone, and with it every voice.
    pub(super) fn remove_all_voices<S: Sockets>(&mut self, desk: &mut Desk<S>) {
        self.listener = None;
        self.early_candidates.clear();
        self.refused.clear();
        self.overlooked = Overlooked::default();
        while let Some(id) = self.voices.keys().next().cloned() {
            self.remove_voice(desk, &id);
        }
    }

    /// Drives every voice's peer connection.
    pub(super) fn poll<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, listener: Option<&mut Client>) {
        let mut lost = Vec::new();
        for (id, voice) in &mut self.voices {
            while let Some(news) = voice.link.poll(desk) {
                match news {
                    PeerNews::Connected if !voice.connected => {
                        voice.connected = true;
                        match Stream::new(voice.setup.clone()) {
                            Ok(stream) => desk.mix(Command::AddStream { room: self.key, stream: Box::new(stream) }),
                            Err(error) => tracing::error!("a voice of {} cannot be decoded: {error}", self.name),
                        }
                    }
                    PeerNews::Connected => {}
                    PeerNews::Failed(reason) => {
                        tracing::warn!("a voice of {} has no media path: {reason}", self.name);
                        voice.restarts.expect_path(now);
                        lost.push(id);
                    }
                }
            }
        }
        if let Some(client) = listener {
            lost.into_iter().for_each(|id| client.renegotiate(now, id));
        }
    }

    /// Time passes; what is to be asked of Galene is asked by the listener's client.
    pub(super) fn handle_timeout(&mut self, now: Instant, listener: Option<&mut Client>) {
        let mut pathless = Vec::new();
        for (id, voice) in &mut self.voices {
            voice.link.peer.handle_timeout(now);
            if voice.restarts.handle_timeout(now, voice.link.peer.has_path()) {
                pathless.push(id);
            }
        }
        let repeats_request = self.overlooked.handle_timeout(now);
        let Some(client) = listener else { return };
        pathless.into_iter().for_each(|id| client.renegotiate(now, id));
        if repeats_request {
            client.request_audio(now);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<crate::time::Deadline> {
        let voices =
            self.voices.values().flat_map(|voice| [voice.link.peer.next_timeout(), voice.restarts.next_timeout()]);
        crate::time::earliest(voices.chain([self.overlooked.next_timeout()]))
    }
}
