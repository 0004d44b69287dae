//! One media leg of the net thread, of either kind, and the table of all.

use super::batch::Datagram;
use super::cadence::Pace;
use super::outlets::Outlets;
use super::peer_socket::PeerSocket;
use super::socket::Socket;
use super::telephone_socket::TelephoneSocket;
use crate::media::control::{Heard, LegKey, LegStats, MixIndex, StreamKey};
use crate::time::Instant;

/// Legs of one gateway: a port each, and the default ephemeral range of Linux has 28 000; 8 busy rooms need 1500.
pub(super) const MAX_LEGS: usize = 4096;

/// What a leg is made of.
#[derive(Debug)]
pub(super) enum LegKind {
    Peer(PeerSocket),
    Telephone(TelephoneSocket),
}

/// One leg, built and freed by the signalling thread.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) key: LegKey,
    pub(super) kind: LegKind,
    /// When its RTP socket is read.
    pub(super) pace: Pace,
    /// A telephone whose caller speaks.
    pub(super) talks: bool,
}

impl Leg {
    pub(super) const fn new(key: LegKey, kind: LegKind) -> Self {
        Self { key, kind, pace: Pace::AtOnce, talks: false }
    }

    /// The one that RTP comes on.
    pub(super) fn socket(&self) -> &Socket {
        match &self.kind {
            LegKind::Peer(peer) => peer.socket(),
            LegKind::Telephone(telephone) => telephone.rtp_socket(),
        }
    }

    /// A telephone's second one, unless its RTCP comes on the first.
    pub(super) fn rtcp_socket(&self) -> Option<&Socket> {
        match &self.kind {
            LegKind::Peer(_) => None,
            LegKind::Telephone(telephone) => telephone.rtcp_socket(),
        }
    }

    /// Who works with its packets.
    pub(super) const fn mix(&self) -> MixIndex {
        match &self.kind {
            LegKind::Peer(peer) => peer.mix(),
            LegKind::Telephone(telephone) => telephone.mix(),
        }
    }

    /// The room voice that it brings, and whose work that is.
    fn voice(&self) -> Option<(MixIndex, StreamKey)> {
        match &self.kind {
            LegKind::Peer(peer) => Some((peer.mix(), peer.stream()?)),
            LegKind::Telephone(_) => None,
        }
    }

    pub(super) fn stats(&self) -> LegStats {
        match &self.kind {
            LegKind::Peer(peer) => peer.stats(),
            LegKind::Telephone(telephone) => telephone.stats(),
        }
    }

    /// A datagram of its RTP socket; SRTP is decrypted in place.
    pub(super) fn handle_datagram(&mut self, datagram: &Datagram, bytes: &mut [u8], out: &mut Outlets) {
        match &mut self.kind {
            LegKind::Peer(peer) => peer.handle_datagram(datagram, bytes, out),
            LegKind::Telephone(telephone) => telephone.handle_datagram(datagram, bytes, out),
        }
    }

    /// A datagram of its RTCP socket; SRTCP is decrypted in place.
    pub(super) fn handle_rtcp(&mut self, datagram: &Datagram, bytes: &mut [u8], out: &mut Outlets) {
        match &mut self.kind {
            LegKind::Peer(_) => {}
            LegKind::Telephone(telephone) => telephone.handle_rtcp(datagram, bytes, out),
        }
    }

    /// Encrypts if need be and sends; `len` bytes at the start of `slot`.
    pub(super) fn send_rtp(&mut self, now: Instant, slot: &mut [u8], len: usize) {
        match &mut self.kind {
            LegKind::Peer(peer) => peer.send_rtp(now, slot, len),
            LegKind::Telephone(telephone) => telephone.send_rtp(now, slot, len),
        }
    }

    /// What a telephone's extended reports are to tell.
    pub(super) fn hear(&mut self, heard: Heard) {
        match &mut self.kind {
            LegKind::Peer(_) => {}
            LegKind::Telephone(telephone) => telephone.hear(heard),
        }
    }

    /// Sends the RTCP report if it is due, and tells of a telephone that has fallen silent.
    pub(super) fn report_if_due(&mut self, now: Instant, buffer: &mut [u8], out: &mut Outlets) {
        match &mut self.kind {
            LegKind::Peer(peer) => peer.report_if_due(now, buffer),
            LegKind::Telephone(telephone) => telephone.report_if_due(now, buffer, out),
        }
    }

    /// Asks for what is lost and can still be played, if it is Galene that sends here.
    pub(super) fn request_lost(&mut self, now: Instant, buffer: &mut [u8]) {
        match &mut self.kind {
            LegKind::Peer(peer) => peer.request_lost(now, buffer),
            LegKind::Telephone(_) => {}
        }
    }

    /// RTCP BYE.
    pub(super) fn say_bye(&mut self, now: Instant, buffer: &mut [u8]) {
        match &mut self.kind {
            LegKind::Peer(peer) => peer.say_bye(now, buffer),
            LegKind::Telephone(telephone) => telephone.say_bye(now, buffer),
        }
    }
}

/// A leg, and beside each other what is looked at before its own memory is touched.
#[derive(Debug)]
struct Seat {
    key: LegKey,
    voice: Option<(MixIndex, StreamKey)>,
    leg: Box<Leg>,
}

/// All legs, in the order of their keys, which is the order of their arrival.
#[derive(Debug)]
pub(super) struct Legs(Vec<Seat>);

impl Legs {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(MAX_LEGS))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn at(&self, at: usize) -> &Leg {
        &self.0[at].leg
    }

    pub(super) fn at_mut(&mut self, at: usize) -> &mut Leg {
        &mut self.0[at].leg
    }

    /// The room voice that a leg brings, and whose work it is.
    pub(super) fn voice_at(&self, at: usize) -> Option<(MixIndex, StreamKey)> {
        self.0[at].voice
    }

    pub(super) fn position_of(&self, key: LegKey) -> Option<usize> {
        self.position(key).ok()
    }

    fn position(&self, key: LegKey) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |seat| seat.key)
    }

    pub(super) fn find(&mut self, key: LegKey) -> Option<&mut Leg> {
        let at = self.position(key).ok()?;
        Some(self.at_mut(at))
    }

    /// Gives the leg back if the table is full or has one of that key.
    pub(super) fn insert(&mut self, leg: Box<Leg>) -> Result<(), Box<Leg>> {
        let key = leg.key;
        match self.position(key) {
            Err(at) if self.0.len() < MAX_LEGS => {
                self.0.insert(at, Seat { key, voice: leg.voice(), leg });
                Ok(())
            }
            Err(_) | Ok(_) => Err(leg),
        }
    }

    pub(super) fn remove(&mut self, key: LegKey) -> Option<Box<Leg>> {
        let at = self.position(key).ok()?;
        Some(self.0.remove(at).leg)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Leg> {
        self.0.iter_mut().map(|seat| seat.leg.as_mut())
    }
}
