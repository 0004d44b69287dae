//! The socket of one peer connection with Galene: STUN, DTLS, SRTP and SRTCP on one port (RFC 7983, RFC 5761).
//!
//! Owns: what passes to whom, the SRTP contexts, the RTCP session, requests for lost packets. Does not own: ICE and DTLS (`rtc`, on the signalling
//! thread), which say where to send and with which keys.

use std::net::SocketAddr;

use super::batch::Datagram;
use super::dtls_pending::{DtlsPending, Stopped};
use super::outlets::Outlets;
use super::rate::{RTCP_A_SECOND, RTP_A_SECOND, Rate, STUN_A_SECOND};
use super::relay::Relays;
use super::socket::Socket;
use crate::io::rings::Target;
use crate::media::control::{LegKey, LegStats, MixIndex, NetEvent, PeerRole, PeerSetup, StreamKey};
use crate::media::nack::{Requester, WINDOW_PACKETS};
use crate::media::rtcp_session::RtcpSession;
use crate::media::srtp;
use crate::time::Instant;
use crate::wire::route::Route;
use crate::wire::rtp::{DatagramKind, RtpHeader, SrtpKeys};
use crate::wire::stun::{Class, Filter, Message};

/// DTLS datagrams kept until ICE validates their source, which it may do in the same millisecond: one flight.
const MAX_DTLS_HELD: usize = 4;

/// Addresses that ICE has sent to, the latest ones: candidates of one peer.
const MAX_KNOWN: usize = 16;

/// What DTLS makes possible, built on the signalling thread: both directions' ciphers, and RTCP.
#[derive(Debug)]
pub(super) struct Secured {
    sender: srtp::Sender,
    receiver: srtp::Receiver,
    rtcp: RtcpSession,
    lost: Requester,
}

impl Secured {
    /// Derives the session keys.
    pub(super) fn new(keys: &SrtpKeys, rtcp: RtcpSession) -> Result<Self, srtp::SrtpError> {
        let (sender, receiver) = (srtp::Sender::new(&keys.local)?, srtp::Receiver::new(&keys.remote)?);
        Ok(Self { sender, receiver, rtcp, lost: Requester::new() })
    }
}

/// A DTLS datagram that came before ICE told of its source.
#[derive(Debug)]
struct Held {
    from: Route,
    arrival: Instant,
    bytes: Vec<u8>,
}

/// One peer connection's socket.
#[derive(Debug)]
pub(super) struct PeerSocket {
    leg: LegKey,
    mix: MixIndex,
    role: PeerRole,
    socket: Socket,
    stun_filter: Filter,
    /// Addresses of checks and responses of ours: strangers beside them are not even decrypted.
    known: [Option<SocketAddr>; MAX_KNOWN],
    next_known: usize,
    remote: Option<Route>,
    relays: Relays,
    secured: Option<Box<Secured>>,
    /// ICE has begun anew and not found its way yet.
    restarts: bool,
    held: Vec<Held>,
    dtls_pending: DtlsPending,
    stun_rate: Rate,
    rtp_rate: Rate,
    rtcp_rate: Rate,
    stats: LegStats,
}

impl PeerSocket {
    /// Takes over a bound socket; `dtls_pending` is shared with the handle that delivers the datagrams.
    pub(super) fn new(setup: PeerSetup, mix: MixIndex, socket: Socket, dtls_pending: DtlsPending) -> Self {
        Self {
            leg: setup.leg,
            mix,
            role: setup.role,
            socket,
            stun_filter: setup.stun_filter,
            known: [None; MAX_KNOWN],
            next_known: 0,
            remote: None,
            relays: Relays::default(),
            secured: None,
            restarts: false,
            held: Vec::with_capacity(MAX_DTLS_HELD),
            dtls_pending,
            stun_rate: Rate::new(STUN_A_SECOND),
            rtp_rate: Rate::new(RTP_A_SECOND),
            rtcp_rate: Rate::new(RTCP_A_SECOND),
            stats: LegStats::default(),
        }
    }

    pub(super) const fn mix(&self) -> MixIndex {
        self.mix
    }

    /// The room voice that it brings.
    pub(super) const fn stream(&self) -> Option<StreamKey> {
        match self.role {
            PeerRole::Down { stream, .. } => Some(stream),
            PeerRole::Up { .. } => None,
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn stats(&self) -> LegStats {
        let Some(secured) = &self.secured else { return self.stats };
        LegStats {
            reported_loss_percent: secured.rtcp.peer_loss_percent(),
            round_trip: secured.rtcp.stats().round_trip.or_else(|| secured.lost.round_trip()),
            asked_again: secured.lost.stats().asked,
            recovered: secured.lost.stats().recovered,
            ..self.stats
        }
    }

    /// Sorts one datagram by its first bytes; `bytes` is the datagram alone, decrypted in place where it is SRTP.
    pub(super) fn handle_datagram(&mut self, datagram: &Datagram, bytes: &mut [u8], out: &mut Outlets) {
        let from = datagram.from;
        match self.relays.unwrap(from, bytes) {
            Some((peer, place)) => self.handle(Route::Relayed(peer), datagram, &mut bytes[place], out),
            None => self.handle(Route::Direct(from), datagram, bytes, out),
        }
    }

    fn handle(&mut self, from: Route, datagram: &Datagram, bytes: &mut [u8], out: &mut Outlets) {
        match DatagramKind::of(bytes) {
            DatagramKind::Stun => self.handle_stun(from, datagram, bytes, out),
            DatagramKind::Dtls => self.handle_dtls(from, datagram.arrival, bytes, out),
            DatagramKind::Rtp => self.handle_rtp(from, datagram.arrival, bytes, out),
            DatagramKind::Rtcp => self.handle_rtcp(from, datagram.arrival, bytes, out),
            DatagramKind::Unknown => self.stats.dropped.malformed += 1,
        }
    }

    fn handle_stun(&mut self, from: Route, datagram: &Datagram, bytes: &[u8], out: &mut Outlets) {
        let Datagram { local, arrival, .. } = *datagram;
        if !self.stun_filter.accepts(bytes) && !self.is_passed_on(from, bytes) {
            self.stats.dropped.foreign_stun += 1;
        } else if !self.stun_rate.admits(arrival) {
            self.stats.dropped.flood += 1;
        } else {
            let event = NetEvent::Stun { leg: self.leg, from, local, arrival, bytes: bytes.to_vec() };
            // On a connection that works it is about consent (RFC 7675), where seconds count.
            let is_urgent = self.secured.is_none() || self.restarts;
            if !(if is_urgent { out.tell(event) } else { out.tell_soon(event) }) {
                self.stats.dropped.ring_full += 1;
            }
        }
    }

    /// What a TURN server passes on of a peer without a channel (RFC 8656 §11.4).
    fn is_passed_on(&self, from: Route, bytes: &[u8]) -> bool {
        let is_indication = || Message::parse(bytes).is_ok_and(|message| message.class == Class::Indication);
        matches!(from, Route::Direct(server) if self.relays.is_server(server)) && is_indication()
    }

    fn handle_dtls(&mut self, from: Route, arrival: Instant, bytes: &[u8], out: &mut Outlets) {
        if self.remote == Some(from) {
            self.pass_dtls(Held { from, arrival, bytes: bytes.to_vec() }, out);
        } else if self.held.len() < MAX_DTLS_HELD && self.has_sent_to(from) {
            self.held.push(Held { from, arrival, bytes: bytes.to_vec() });
        } else {
            self.stats.dropped.stranger += 1;
        }
    }

    fn pass_dtls(&mut self, held: Held, out: &mut Outlets) {
        let Held { from, arrival, bytes } = held;
        match self.dtls_pending.pass(NetEvent::Dtls { leg: self.leg, from, arrival, bytes }, out) {
            Ok(()) => {}
            Err(Stopped::Flood) => self.stats.dropped.flood += 1,
            Err(Stopped::RingFull) => self.stats.dropped.ring_full += 1,
        }
    }

    /// SRTP is authenticated, so any address that ICE has talked to will do: the far end may change pairs before we hear.
    fn may_send_srtp(&self, from: Route) -> bool {
        self.remote == Some(from) || self.has_sent_to(from)
    }

    /// Whether ICE has talked to it; a relay's channel is bound for nothing else.
    fn has_sent_to(&self, peer: Route) -> bool {
        match peer {
            Route::Direct(address) => self.known.contains(&Some(address)),
            Route::Relayed(address) => self.relays.lead_to(address),
        }
    }

    fn send(&self, bytes: &[u8], to: Route) -> bool {
        match to {
            Route::Direct(address) => self.socket.send(bytes, address),
            Route::Relayed(peer) => self.relays.send(peer, bytes, |bytes, server| self.socket.send(bytes, server)),
        }
    }

    /// News of a TURN server's relay for this socket.
    pub(super) fn set_relay(&mut self, server: SocketAddr, channels: Vec<(u16, SocketAddr)>) {
        self.relays.set(server, channels);
    }

    fn handle_rtp(&mut self, from: Route, arrival: Instant, bytes: &mut [u8], out: &mut Outlets) {
        let Some(stream) = self.stream() else {
            self.stats.dropped.stranger += 1;
            return;
        };
        if !self.may_send_srtp(from) {
            self.stats.dropped.stranger += 1;
        } else if !self.rtp_rate.admits(arrival) {
            self.stats.dropped.flood += 1;
        } else if let Some(secured) = &mut self.secured {
            let Ok(len) = secured.receiver.unprotect_rtp(bytes) else {
                self.stats.dropped.unauthentic += 1;
                return;
            };
            let packet = &bytes[..len];
            if let Ok((header, _)) = RtpHeader::parse(packet) {
                secured.rtcp.on_rtp_received(arrival, &header);
                secured.lost.on_received(arrival, &header);
            }
            if out.pass_to_mix(self.mix, Target::Stream(stream), arrival, packet) {
                self.stats.received += 1;
                if self.stats.received == 1 {
                    // Should the ring be full, a take-over that waits for this goes by its time limit.
                    out.tell(NetEvent::Flows { leg: self.leg });
                }
            } else {
                self.stats.dropped.ring_full += 1;
            }
        } else {
            self.stats.dropped.unready += 1;
        }
    }

    fn handle_rtcp(&mut self, from: Route, arrival: Instant, bytes: &mut [u8], out: &mut Outlets) {
        if !self.may_send_srtp(from) {
            self.stats.dropped.stranger += 1;
        } else if !self.rtcp_rate.admits(arrival) {
            self.stats.dropped.flood += 1;
        } else if let Some(secured) = &mut self.secured {
            let Ok(len) = secured.receiver.unprotect_rtcp(bytes) else {
                self.stats.dropped.unauthentic += 1;
                return;
            };
            self.stats.rtcp_received += 1;
            let before = secured.rtcp.peer_loss_percent();
            secured.rtcp.on_rtcp(arrival, &bytes[..len]);
            let percent = secured.rtcp.peer_loss_percent();
            if percent != before {
                // Should the ring be full, the next change will tell.
                out.tell(NetEvent::LossReported { leg: self.leg, percent });
            }
        } else {
            self.stats.dropped.unready += 1;
        }
    }

    /// Encrypts an RTP packet of `len` bytes at the start of `slot` in place and sends it.
    pub(super) fn send_rtp(&mut self, now: Instant, slot: &mut [u8], len: usize) {
        let (Some(remote), Some(secured)) = (self.remote, &mut self.secured) else {
            self.stats.dropped.unready += 1;
            return;
        };
        if let Ok((header, payload_at)) = RtpHeader::parse(&slot[..len]) {
            secured.rtcp.on_rtp_sent(now, header.timestamp, len - payload_at);
        }
        let protected = secured.sender.protect_rtp(slot, len);
        if protected.is_ok_and(|len| self.send(&slot[..len], remote)) {
            self.stats.sent += 1;
        } else {
            self.stats.dropped.send_failed += 1;
        }
    }

    /// Sends STUN or DTLS, and remembers to whom.
    pub(super) fn send_to(&mut self, to: SocketAddr, bytes: &[u8]) {
        if !self.known.contains(&Some(to)) {
            self.known[self.next_known] = Some(to);
            self.next_known = (self.next_known + 1) % MAX_KNOWN;
        }
        if !self.socket.send(bytes, to) {
            self.stats.dropped.send_failed += 1;
        }
    }

    pub(super) fn set_stun_filter(&mut self, stun_filter: Filter) {
        self.stun_filter = stun_filter;
        self.restarts = true;
    }

    /// ICE validated `remote`: DTLS that came from it before is delivered, what came from elsewhere dropped.
    pub(super) fn set_remote(&mut self, remote: Route, out: &mut Outlets) {
        self.remote = Some(remote);
        self.restarts = false;
        for held in std::mem::take(&mut self.held) {
            if held.from == remote {
                self.pass_dtls(held, out);
            } else {
                self.stats.dropped.stranger += 1;
            }
        }
    }

    /// DTLS is done.
    pub(super) const fn is_secured(&self) -> bool {
        self.secured.is_some()
    }

    pub(super) fn secure(&mut self, secured: Box<Secured>) {
        self.secured = Some(secured);
    }

    pub(super) fn report_if_due(&mut self, now: Instant, buffer: &mut [u8]) {
        let report = self.secured.as_mut().and_then(|secured| secured.rtcp.handle_timeout(now, buffer));
        self.send_rtcp(report, buffer);
    }

    /// Asks Galene for packets that did not come. To be called when the socket has been read: what was only overtaken is
    /// here then.
    pub(super) fn request_lost(&mut self, now: Instant, buffer: &mut [u8]) {
        let Some(secured) = &mut self.secured else { return };
        let mut lost = [0; WINDOW_PACKETS as usize];
        let count = secured.lost.poll(now, &mut lost);
        if count > 0 {
            let request = secured.rtcp.request_again(&lost[..count], buffer);
            self.send_rtcp(request, buffer);
        }
    }

    pub(super) fn say_bye(&mut self, now: Instant, buffer: &mut [u8]) {
        let bye = self.secured.as_mut().and_then(|secured| secured.rtcp.bye(now, buffer));
        self.send_rtcp(bye, buffer);
    }

    fn send_rtcp(&mut self, len: Option<usize>, buffer: &mut [u8]) {
        let (Some(len), Some(remote), Some(secured)) = (len, self.remote, &mut self.secured) else { return };
        let protected = secured.sender.protect_rtcp(buffer, len);
        if !protected.is_ok_and(|len| self.send(&buffer[..len], remote)) {
            self.stats.dropped.send_failed += 1;
        }
    }
}
