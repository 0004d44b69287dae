//! The RTP and RTCP sockets of one telephone.
//!
//! Owns: symmetric RTP (RFC 4961) with the latch of `media::latch`, where RTCP goes (RFC 3605, RFC 5761, else RTP's
//! port + 1), the RTCP session. Does not own: codecs; what a payload type means is the mix thread's matter.

use std::net::SocketAddr;

use super::batch::Datagram;
use super::outlets::Outlets;
use super::rate::{RTCP_A_SECOND, RTP_A_SECOND, Rate};
use super::socket::Socket;
use crate::io::rings::Target;
use crate::media::control::{CallerKey, LegKey, LegStats, MixIndex, NetEvent, TelephoneRemote, TelephoneSetup};
use crate::media::latch::{Latch, Verdict};
use crate::media::rtcp_session::RtcpSession;
use crate::time::Instant;
use crate::wire::rtp::{DatagramKind, RtpHeader};

/// One telephone's pair of sockets.
#[derive(Debug)]
pub(super) struct TelephoneSocket {
    leg: LegKey,
    mix: MixIndex,
    caller: CallerKey,
    rtp: Socket,
    /// None where RTCP shares RTP's port or no second port was given.
    rtcp: Option<Socket>,
    latch: Latch,
    remote: TelephoneRemote,
    /// Where the telephone's RTCP was last seen to come from.
    rtcp_source: Option<SocketAddr>,
    rtp_rate: Rate,
    rtcp_rate: Rate,
    session: RtcpSession,
    stats: LegStats,
}

impl TelephoneSocket {
    /// Takes over a bound pair.
    pub(super) fn new(
        setup: &TelephoneSetup,
        mix: MixIndex,
        rtp: Socket,
        rtcp: Option<Socket>,
        session: RtcpSession,
    ) -> Self {
        Self {
            leg: setup.leg,
            mix,
            caller: setup.caller,
            rtp,
            rtcp,
            latch: Latch::new(setup.remote.rtp, setup.remote.payload_type),
            remote: setup.remote,
            rtcp_source: None,
            rtp_rate: Rate::new(RTP_A_SECOND),
            rtcp_rate: Rate::new(RTCP_A_SECOND),
            session,
            stats: LegStats::default(),
        }
    }

    pub(super) const fn mix(&self) -> MixIndex {
        self.mix
    }

    pub(super) fn rtp_socket(&self) -> &Socket {
        &self.rtp
    }

    pub(super) fn rtcp_socket(&self) -> Option<&Socket> {
        self.rtcp.as_ref()
    }

    pub(super) fn stats(&self) -> LegStats {
        LegStats {
            reported_loss_percent: self.session.peer_loss_percent(),
            round_trip: self.session.stats().round_trip,
            ..self.stats
        }
    }

    /// A datagram on the RTP port; RTCP is taken there too, since some telephones multiplex unasked.
    pub(super) fn handle_datagram(&mut self, datagram: &Datagram, bytes: &[u8], out: &mut Outlets) {
        match DatagramKind::of(bytes) {
            DatagramKind::Rtp => self.handle_rtp(datagram, bytes, out),
            DatagramKind::Rtcp => self.handle_rtcp(datagram, bytes, out),
            // NAT keep-alives of one or two bytes, STUN of an agent that we do not speak with, and worse.
            DatagramKind::Stun | DatagramKind::Dtls | DatagramKind::Unknown => self.stats.dropped.malformed += 1,
        }
    }

    fn handle_rtp(&mut self, datagram: &Datagram, bytes: &[u8], out: &mut Outlets) {
        let Ok((header, _)) = RtpHeader::parse(bytes) else {
            self.stats.dropped.malformed += 1;
            return;
        };
        match self.latch.judge(datagram.from, header.ssrc, header.sequence_number, header.payload_type) {
            Verdict::Drop => {
                self.stats.dropped.stranger += 1;
                return;
            }
            Verdict::Latched => {
                // Should the ring be full, signalling merely does not hear of an address that it does not need.
                out.tell(NetEvent::Latched { leg: self.leg, remote: datagram.from });
            }
            Verdict::Take => {}
        }
        if !self.rtp_rate.admits(datagram.arrival) {
            self.stats.dropped.flood += 1;
            return;
        }
        self.session.on_rtp_received(datagram.arrival, &header);
        if out.pass_to_mix(self.mix, Target::Caller(self.caller), datagram.arrival, bytes) {
            self.stats.received += 1;
        } else {
            self.stats.dropped.ring_full += 1;
        }
    }

    /// A datagram on the RTCP port, or RTCP on the other. Unauthenticated as it is, it must come from the telephone's host.
    pub(super) fn handle_rtcp(&mut self, datagram: &Datagram, bytes: &[u8], out: &mut Outlets) {
        let host = self.latch.remote().map(|remote| remote.ip());
        let signalled_host = self.remote.rtcp.map(|remote| remote.ip());
        let from = Some(datagram.from.ip());
        if DatagramKind::of(bytes) != DatagramKind::Rtcp {
            self.stats.dropped.malformed += 1;
        } else if from != host && from != signalled_host {
            self.stats.dropped.stranger += 1;
        } else if !self.rtcp_rate.admits(datagram.arrival) {
            self.stats.dropped.flood += 1;
        } else {
            self.rtcp_source = Some(datagram.from);
            self.stats.rtcp_received += 1;
            let before = self.session.peer_loss_percent();
            self.session.on_rtcp(datagram.arrival, bytes);
            let percent = self.session.peer_loss_percent();
            if percent != before {
                // Should the ring be full, the next change will tell.
                out.tell(NetEvent::LossReported { leg: self.leg, percent });
            }
        }
    }

    /// Sends an RTP packet to where the telephone is.
    pub(super) fn send_rtp(&mut self, now: Instant, packet: &[u8]) {
        let Some(remote) = self.latch.remote() else {
            self.stats.dropped.unready += 1;
            return;
        };
        if let Ok((header, payload_at)) = RtpHeader::parse(packet) {
            self.session.on_rtp_sent(now, header.timestamp, packet.len() - payload_at);
        }
        if self.rtp.send(packet, remote) {
            self.stats.sent += 1;
        } else {
            self.stats.dropped.send_failed += 1;
        }
    }

    /// A re-INVITE.
    pub(super) fn update(&mut self, remote: TelephoneRemote) {
        self.latch.update(remote.rtp, remote.payload_type);
        if remote.rtcp.is_some() && remote.rtcp != self.remote.rtcp {
            self.rtcp_source = None;
        }
        self.remote = remote;
    }

    fn rtcp_remote(&self) -> Option<SocketAddr> {
        let rtp = self.latch.remote()?;
        if self.remote.rtcp_mux {
            return Some(rtp);
        }
        let moved = self.remote.rtp != Some(rtp);
        let beside_rtp = || SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1));
        match (self.rtcp_source, self.remote.rtcp) {
            (Some(source), _) => Some(source),
            (None, Some(signalled)) if !moved => Some(signalled),
            (None, Some(_) | None) => Some(beside_rtp()),
        }
    }

    pub(super) fn report_if_due(&mut self, now: Instant, buffer: &mut [u8]) {
        let report = self.session.handle_timeout(now, buffer);
        self.send_rtcp(report, buffer);
    }

    pub(super) fn say_bye(&mut self, now: Instant, buffer: &mut [u8]) {
        let bye = self.session.bye(now, buffer);
        self.send_rtcp(bye, buffer);
    }

    fn send_rtcp(&mut self, len: Option<usize>, buffer: &[u8]) {
        let (Some(len), Some(remote)) = (len, self.rtcp_remote()) else { return };
        let socket = match &self.rtcp {
            Some(socket) if !self.remote.rtcp_mux => socket,
            Some(_) | None => &self.rtp,
        };
        if !socket.send(&buffer[..len], remote) {
            self.stats.dropped.send_failed += 1;
        }
    }
}
