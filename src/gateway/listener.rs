//! One member of ours that has asked Galene for a room's streams, and its peer connections.
//!
//! Owns: a link for each stream that Galene offers to this member, candidates that come before their offer, streams that it
//! refused. Does not own: the voices in the mix, which links of several listeners may feed (`room`), the member itself
//! (`call`), who listens when (`room`).

use std::collections::{BTreeMap, BTreeSet};

use super::desk::{Desk, LegOwner};
use super::event::Sockets;
use super::peer_leg::{PeerLeg, PeerNews};
use super::refusal::CallFailure;
use super::restarts::Restarts;
use crate::galene::client::Client;
use crate::galene::message::{Candidate, Offer};
use crate::media::control::{PeerRole, RoomCodec, RoomKey, StreamKey};
use crate::rtc::peer::{Failure, Input, PeerError};
use crate::sip::event::CallKey;
use crate::time::{Deadline, Instant, earliest};

/// Candidates that came before their offer; Galene sends a handful a stream, and offers follow within a round trip.
const MAX_EARLY_CANDIDATES: usize = 256;

/// Refused streams whose `close` has not come.
const MAX_REFUSED: usize = 256;

/// A stream on its way to us.
struct Link {
    peer: PeerLeg,
    /// As our answer settled them.
    codecs: Vec<(u8, RoomCodec)>,
    /// Its first packet has come.
    flows: bool,
    restarts: Restarts,
}

/// A link that has just connected.
pub(super) struct Connected {
    pub(super) stream: String,
    pub(super) codecs: Vec<(u8, RoomCodec)>,
}

/// What has become of links.
#[derive(Default)]
pub(super) struct Polled {
    pub(super) connected: Vec<Connected>,
    /// Streams whose links are of no use any more, and are to be closed.
    pub(super) unusable: Vec<String>,
}

/// What one member receives.
pub(super) struct Listener {
    pub(super) call: CallKey,
    /// By the stream's id.
    links: BTreeMap<String, Link>,
    early_candidates: Vec<(String, Candidate)>,
    /// Streams whose `close` we have asked for.
    refused: BTreeSet<String>,
}

impl Listener {
    pub(super) const fn new(call: CallKey) -> Self {
        Self { call, links: BTreeMap::new(), early_candidates: Vec::new(), refused: BTreeSet::new() }
    }

    pub(super) fn has(&self, stream: &str) -> bool {
        self.links.contains_key(stream)
    }

    /// The streams of which something has come here.
    pub(super) fn flowing(&self) -> impl Iterator<Item = &str> {
        self.links.iter().filter(|(_, link)| link.flows).map(|(stream, _)| stream.as_str())
    }

    pub(super) fn carries(&self, stream: &str) -> bool {
        self.links.get(stream).is_some_and(|link| link.flows)
    }

    /// Opens a socket and a peer connection for a stream that is about to be answered.
    pub(super) fn open_link<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
        (room, room_name): (RoomKey, &str),
        id: &str,
        stream: StreamKey,
    ) -> Result<(), CallFailure> {
        let owner = LegOwner::Voice { room: room_name.to_owned(), listener: self.call, stream: id.to_owned() };
        let peer = PeerLeg::open(now, desk, owner)?;
        let role = PeerRole::Down { stream, ssrc: desk.random.next_u32() };
        peer.add_to_net(desk, room, role);
        let link = Link { peer, codecs: Vec::new(), flows: false, restarts: Restarts::default() };
        self.links.insert(id.to_owned(), link);
        Ok(())
    }

    /// Answers an offer of a stream that has a link.
    pub(super) fn answer<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
        client: &mut Client,
        offer: &Offer,
    ) -> Result<(), PeerError> {
        let early: Vec<_> = self.early_candidates.extract_if(.., |(id, _)| *id == offer.id).collect();
        let Some(link) = self.links.get_mut(&offer.id) else { return Ok(()) };
        let (answer, negotiated) = link.peer.peer.handle_offer(now, &offer.sdp)?;
        link.codecs = super::codec::of_offer(&negotiated);
        link.peer.codec = link.codecs.first().map(|(_, codec)| *codec);
        link.peer.renew_credentials(desk);
        link.restarts.expect_path(now);
        client.send_answer(now, &offer.id, &answer);
        for (_, candidate) in early {
            link.peer.peer.add_candidate(now, &candidate.candidate);
        }
        Ok(())
    }

    /// Refuses a stream; Galene answers with a `close`.
    pub(super) fn refuse(&mut self, now: Instant, client: &mut Client, id: &str) {
        if self.refused.len() < MAX_REFUSED {
            self.refused.insert(id.to_owned());
        }
        client.abort(now, id);
    }

    /// Whether a `close` is the answer to a refusal of ours, which it settles.
    pub(super) fn take_refused(&mut self, id: &str) -> bool {
        self.refused.remove(id)
    }

    /// A candidate for a stream, perhaps before its offer.
    pub(super) fn on_candidate(&mut self, now: Instant, id: &str, candidate: Candidate) {
        match self.links.get_mut(id) {
            Some(link) => link.peer.peer.add_candidate(now, &candidate.candidate),
            None if self.early_candidates.len() < MAX_EARLY_CANDIDATES => {
                self.early_candidates.push((id.to_owned(), candidate));
            }
            None => tracing::debug!("call {}: too many candidates without an offer; one is dropped", self.call.0),
        }
    }

    /// Another server's address is known.
    pub(super) fn add_servers<S: Sockets>(&mut self, now: Instant, desk: &Desk<S>) {
        self.links.values_mut().for_each(|link| link.peer.add_servers(now, desk));
    }

    pub(super) fn on_packet(&mut self, now: Instant, id: &str, input: Input<'_>) {
        if let Some(link) = self.links.get_mut(id) {
            link.peer.handle_input(now, input);
        }
    }

    pub(super) fn on_flow(&mut self, id: &str) {
        if let Some(link) = self.links.get_mut(id) {
            link.flows = true;
        }
    }

    /// Closes the link of a stream; false if there was none.
    pub(super) fn close_link<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, id: &str) -> bool {
        self.early_candidates.retain(|(of, _)| of != id);
        let Some(link) = self.links.remove(id) else { return false };
        link.peer.close(now, desk);
        true
    }

    pub(super) fn close_all<S: Sockets>(self, now: Instant, desk: &mut Desk<S>) {
        self.links.into_values().for_each(|link| link.peer.close(now, desk));
    }

    /// Drives every peer connection. Where a path was lost, `client` asks for another; where DTLS has failed, which no restart
    /// of ICE mends, it gives the stream up, to be offered it anew.
    pub(super) fn poll<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
        mut client: Option<&mut Client>,
    ) -> Polled {
        let mut polled = Polled::default();
        for (id, link) in &mut self.links {
            while let Some(news) = link.peer.poll(now, desk) {
                match news {
                    PeerNews::Connected => {
                        polled.connected.push(Connected { stream: id.clone(), codecs: link.codecs.clone() });
                    }
                    PeerNews::Candidate(candidate) => {
                        if let Some(client) = &mut client {
                            client.send_candidate(now, id, &candidate);
                        }
                    }
                    PeerNews::Doubtful => {
                        if let Some(client) = &mut client {
                            client.renegotiate(now, id);
                        }
                    }
                    PeerNews::Failed(failure) => {
                        tracing::warn!("call {}: a voice of the room has no media path: {failure}", self.call.0);
                        if let Failure::Dtls(_) = failure {
                            if let Some(client) = &mut client {
                                client.abort(now, id);
                            }
                            polled.unusable.push(id.clone());
                            continue;
                        }
                        link.restarts.expect_path(now);
                        if let Some(client) = &mut client {
                            client.renegotiate(now, id);
                        }
                    }
                }
            }
        }
        polled
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, mut client: Option<&mut Client>) {
        for (id, link) in &mut self.links {
            link.peer.peer.handle_timeout(now);
            if link.restarts.handle_timeout(now, link.peer.peer.has_path())
                && let Some(client) = &mut client
            {
                client.renegotiate(now, id);
            }
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        earliest(self.links.values().flat_map(|link| [link.peer.peer.next_timeout(), link.restarts.next_timeout()]))
    }
}
