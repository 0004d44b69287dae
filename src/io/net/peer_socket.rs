//! The socket of one peer connection with Galene: STUN, DTLS, SRTP and SRTCP on one port (RFC 7983, RFC 5761).
//!
//! Owns: what passes to whom, the SRTP contexts, the RTCP session. Does not own: ICE and DTLS (`rtc`, on the signalling
//! thread), which say where to send and with which keys.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::outlets::Outlets;
use super::rate::{RTCP_A_SECOND, RTP_A_SECOND, Rate, STUN_A_SECOND};
use super::socket::{Datagram, Socket};
use crate::io::rings::Target;
use crate::media::control::{LegKey, LegStats, MixIndex, NetEvent, PeerRole, PeerSetup};
use crate::media::rtcp_session::RtcpSession;
use crate::media::srtp;
use crate::time::{Instant, NtpAnchor};
use crate::wire::rtp::{DatagramKind, RtpHeader, SrtpKeys};
use crate::wire::stun::Filter;

/// DTLS datagrams of one leg that signalling has not read yet: two flights.
pub(super) const MAX_DTLS_PENDING: u32 = 8;

/// DTLS datagrams kept until ICE validates their source, which it may do in the same millisecond: one flight.
const MAX_DTLS_HELD: usize = 4;

/// Addresses that ICE has sent to, the latest ones: candidates of one peer.
const MAX_KNOWN: usize = 16;

/// Both directions' ciphers, made on the signalling thread.
#[derive(Debug)]
pub(super) struct SrtpContexts {
    sender: srtp::Sender,
    receiver: srtp::Receiver,
}

impl SrtpContexts {
    /// Derives the session keys.
    pub(super) fn new(keys: &SrtpKeys) -> Result<Self, srtp::SrtpError> {
        Ok(Self { sender: srtp::Sender::new(&keys.local)?, receiver: srtp::Receiver::new(&keys.remote)? })
    }
}

/// A DTLS datagram that came before ICE told of its source.
#[derive(Debug)]
struct Held {
    from: SocketAddr,
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
    remote: Option<SocketAddr>,
    contexts: Option<Box<SrtpContexts>>,
    held: Vec<Held>,
    dtls_pending: Arc<AtomicU32>,
    stun_rate: Rate,
    rtp_rate: Rate,
    rtcp_rate: Rate,
    rtcp: RtcpSession,
    stats: LegStats,
}

impl PeerSocket {
    /// Takes over a bound socket; `dtls_pending` is shared with the handle that delivers the datagrams.
    pub(super) fn new(
        setup: PeerSetup,
        mix: MixIndex,
        socket: Socket,
        rtcp: RtcpSession,
        dtls_pending: Arc<AtomicU32>,
    ) -> Self {
        Self {
            leg: setup.leg,
            mix,
            role: setup.role,
            socket,
            stun_filter: setup.stun_filter,
            known: [None; MAX_KNOWN],
            next_known: 0,
            remote: None,
            contexts: None,
            held: Vec::with_capacity(MAX_DTLS_HELD),
            dtls_pending,
            stun_rate: Rate::new(STUN_A_SECOND),
            rtp_rate: Rate::new(RTP_A_SECOND),
            rtcp_rate: Rate::new(RTCP_A_SECOND),
            rtcp,
            stats: LegStats::default(),
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub(super) fn stats(&self) -> LegStats {
        self.stats
    }

    /// The latest counters of the RTCP session go into the statistics.
    pub(super) fn rtcp(&mut self) -> &mut RtcpSession {
        &mut self.rtcp
    }

    /// Sorts one datagram by its first bytes; `bytes` is the datagram alone, decrypted in place where it is SRTP.
    pub(super) fn handle_datagram(&mut self, datagram: &Datagram, bytes: &mut [u8], out: &mut Outlets) {
        match DatagramKind::of(bytes) {
            DatagramKind::Stun => self.handle_stun(datagram, bytes, out),
            DatagramKind::Dtls => self.handle_dtls(datagram, bytes, out),
            DatagramKind::Rtp => self.handle_rtp(datagram, bytes, out),
            DatagramKind::Rtcp => self.handle_rtcp(datagram, bytes, out),
            DatagramKind::Unknown => self.stats.dropped.malformed += 1,
        }
    }

    fn handle_stun(&mut self, datagram: &Datagram, bytes: &[u8], out: &mut Outlets) {
        let Datagram { from, local, arrival, .. } = *datagram;
        if !self.stun_filter.accepts(bytes) {
            self.stats.dropped.foreign_stun += 1;
        } else if !self.stun_rate.admits(arrival) {
            self.stats.dropped.flood += 1;
        } else if !out.tell(NetEvent::Stun { leg: self.leg, from, local, arrival, bytes: bytes.to_vec() }) {
            self.stats.dropped.ring_full += 1;
        }
    }

    fn handle_dtls(&mut self, datagram: &Datagram, bytes: &[u8], out: &mut Outlets) {
        let Datagram { from, arrival, .. } = *datagram;
        if self.remote == Some(from) {
            self.pass_dtls(Held { from, arrival, bytes: bytes.to_vec() }, out);
        } else if self.held.len() < MAX_DTLS_HELD && self.known.contains(&Some(from)) {
            self.held.push(Held { from, arrival, bytes: bytes.to_vec() });
        } else {
            self.stats.dropped.stranger += 1;
        }
    }

    fn pass_dtls(&mut self, held: Held, out: &mut Outlets) {
        // Only this thread adds, so the count cannot overshoot.
        if self.dtls_pending.load(Ordering::Acquire) >= MAX_DTLS_PENDING {
            self.stats.dropped.flood += 1;
            return;
        }
        self.dtls_pending.fetch_add(1, Ordering::AcqRel);
        if !out.tell(NetEvent::Dtls { leg: self.leg, from: held.from, arrival: held.arrival, bytes: held.bytes }) {
            self.dtls_pending.fetch_sub(1, Ordering::AcqRel);
            self.stats.dropped.ring_full += 1;
        }
    }

    /// SRTP is authenticated, so any address that ICE has talked to will do: the far end may change pairs before we hear.
    fn may_send_srtp(&self, from: SocketAddr) -> bool {
        self.remote == Some(from) || self.known.contains(&Some(from))
    }

    fn handle_rtp(&mut self, datagram: &Datagram, bytes: &mut [u8], out: &mut Outlets) {
        let PeerRole::Down { stream, .. } = self.role else {
            self.stats.dropped.stranger += 1;
            return;
        };
        if !self.may_send_srtp(datagram.from) {
            self.stats.dropped.stranger += 1;
        } else if !self.rtp_rate.admits(datagram.arrival) {
            self.stats.dropped.flood += 1;
        } else if let Some(contexts) = &mut self.contexts {
            let Ok(len) = contexts.receiver.unprotect_rtp(bytes) else {
                self.stats.dropped.unauthentic += 1;
                return;
            };
            let packet = &bytes[..len];
            if let Ok((header, _)) = RtpHeader::parse(packet) {
                self.rtcp.handle_rtp(datagram.arrival, &header);
            }
            if out.to_mix(self.mix, Target::Stream(stream), datagram.arrival, packet) {
                self.stats.received += 1;
            } else {
                self.stats.dropped.ring_full += 1;
            }
        } else {
            self.stats.dropped.unready += 1;
        }
    }

    fn handle_rtcp(&mut self, datagram: &Datagram, bytes: &mut [u8], out: &Outlets) {
        if !self.may_send_srtp(datagram.from) {
            self.stats.dropped.stranger += 1;
        } else if !self.rtcp_rate.admits(datagram.arrival) {
            self.stats.dropped.flood += 1;
        } else if let Some(contexts) = &mut self.contexts {
            let Ok(len) = contexts.receiver.unprotect_rtcp(bytes) else {
                self.stats.dropped.unauthentic += 1;
                return;
            };
            self.stats.rtcp_received += 1;
            self.rtcp.handle_rtcp(datagram.arrival, out.clock.anchor(), &bytes[..len]);
        } else {
            self.stats.dropped.unready += 1;
        }
    }

    /// Encrypts an RTP packet of `len` bytes at the start of `slot` in place and sends it.
    pub(super) fn send_rtp(&mut self, now: Instant, slot: &mut [u8], len: usize) {
        let (Some(remote), Some(contexts)) = (self.remote, &mut self.contexts) else {
            self.stats.dropped.unready += 1;
            return;
        };
        self.rtcp.handle_sent(now, &slot[..len]);
        let sent = contexts.sender.protect_rtp(slot, len).is_ok_and(|len| self.socket.send(&slot[..len], remote));
        if sent {
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
    }

    /// ICE validated `remote`: DTLS that came from it before is delivered, what came from elsewhere dropped.
    pub(super) fn set_remote(&mut self, remote: SocketAddr, out: &mut Outlets) {
        self.remote = Some(remote);
        for held in std::mem::take(&mut self.held) {
            if held.from == remote {
                self.pass_dtls(held, out);
            } else {
                self.stats.dropped.stranger += 1;
            }
        }
    }

    pub(super) fn set_contexts(&mut self, contexts: Box<SrtpContexts>, clock_rate_hz: u32) {
        self.contexts = Some(contexts);
        self.rtcp.set_clock_rate(clock_rate_hz);
    }

    /// A report or, with `bye`, the last one.
    pub(super) fn send_report(&mut self, now: Instant, anchor: NtpAnchor, bye: bool, buffer: &mut [u8]) {
        let (Some(remote), Some(contexts)) = (self.remote, &mut self.contexts) else { return };
        let len = if bye { self.rtcp.bye(now, anchor, buffer) } else { self.rtcp.report(now, anchor, buffer) };
        if let Ok(len) = contexts.sender.protect_rtcp(buffer, len)
            && !self.socket.send(&buffer[..len], remote)
        {
            self.stats.dropped.send_failed += 1;
        }
    }
}
