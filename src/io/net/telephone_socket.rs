//! The RTP and RTCP sockets of one telephone.
//!
//! Owns: symmetric RTP (RFC 4961) with the latch of `media::latch`, where RTCP goes (RFC 3605, RFC 5761, else RTP's
//! port + 1), the RTCP session. Does not own: codecs; what a payload type means is the mix thread's matter. Ciphers are those of
//! `telephone_cipher`; with them, a packet moves nothing before it has proven to be authentic.

use std::net::SocketAddr;

use super::batch::Datagram;
use super::dtls_gate::{DtlsGate, Passed};
use super::dtls_pending::Stopped;
use super::outlets::Outlets;
use super::rate::{RTCP_A_SECOND, RTP_A_SECOND, Rate};
use super::silence::{Binding, Silence};
use super::socket::Socket;
use super::telephone_cipher::{Ciphers, Refused, TelephoneCipher};
use crate::io::rings::Target;
use crate::media::control::{
    CallerKey, DtlsSource, Heard, LegKey, LegStats, MixIndex, NetEvent, TelephoneRemote, TelephoneSetup,
};
use crate::media::latch::{Evidence, Latch, Verdict};
use crate::media::rtcp_session::RtcpSession;
use crate::time::Instant;
use crate::wire::rtp::{DatagramKind, RtpHeader};

/// SRTP packets that are tried a second: a flood of forged ones costs no more than 3 µs each, and leaves room for the telephone's.
const TRIES_A_SECOND: u16 = 5 * RTP_A_SECOND;

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
    cipher: TelephoneCipher,
    dtls: DtlsGate,
    /// Encrypted packets of the telephone's host, and of others while it may still be one of them.
    tries: Rate,
    strange_tries: Rate,
    silence: Silence,
    binding: Binding,
    stats: LegStats,
}

impl TelephoneSocket {
    /// Takes over a bound pair.
    pub(super) fn new(
        setup: &TelephoneSetup,
        mix: MixIndex,
        (rtp, rtcp): (Socket, Option<Socket>),
        mut session: RtcpSession,
        (cipher, dtls): (TelephoneCipher, DtlsGate),
    ) -> Self {
        session.set_metrics_asked(setup.remote.asks_metrics);
        Self {
            leg: setup.leg,
            mix,
            caller: setup.caller,
            rtp,
            rtcp,
            latch: Latch::new(setup.remote),
            remote: setup.remote,
            rtcp_source: None,
            rtp_rate: Rate::new(RTP_A_SECOND),
            rtcp_rate: Rate::new(RTCP_A_SECOND),
            session,
            cipher,
            dtls,
            tries: Rate::new(TRIES_A_SECOND),
            strange_tries: Rate::new(TRIES_A_SECOND),
            silence: Silence::default(),
            binding: Binding::default(),
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

    /// Goes on with another pair; gives the former one, which an epoll set forgets when it is closed.
    pub(super) fn replace_sockets(&mut self, (rtp, rtcp): (Socket, Socket)) -> (Socket, Option<Socket>) {
        (std::mem::replace(&mut self.rtp, rtp), self.rtcp.replace(rtcp))
    }

    pub(super) fn stats(&self) -> LegStats {
        LegStats {
            lost: self.session.lost(),
            jitter: self.session.jitter(),
            reported_loss_percent: self.session.peer_loss_percent(),
            reported: self.session.peer_report(),
            heard_there: self.session.peer_metrics(),
            round_trip: self.session.stats().round_trip,
            ..self.stats
        }
    }

    /// A datagram on the RTP port; RTCP is taken there too, since some telephones multiplex unasked.
    pub(super) fn handle_datagram(&mut self, datagram: &Datagram, bytes: &mut [u8], out: &mut Outlets) {
        match DatagramKind::of(bytes) {
            DatagramKind::Rtp => self.handle_rtp(datagram, bytes, out),
            DatagramKind::Rtcp => self.handle_rtcp(datagram, bytes, out),
            // NAT keep-alives of one or two bytes, STUN of an agent that we do not speak with, and worse.
            DatagramKind::Stun | DatagramKind::Unknown => self.stats.dropped.malformed += 1,
            DatagramKind::Dtls => self.handle_dtls(datagram, bytes, out),
        }
    }

    fn handle_dtls(&mut self, datagram: &Datagram, bytes: &[u8], out: &mut Outlets) {
        match self.dtls.pass(self.leg, datagram, bytes, (&self.latch, self.remote.rtp), out) {
            Passed::ToSignalling => {}
            Passed::Unexpected => self.stats.dropped.malformed += 1,
            Passed::Stranger => self.stats.dropped.stranger += 1,
            Passed::Stopped(Stopped::Flood) => self.stats.dropped.flood += 1,
            Passed::Stopped(Stopped::RingFull) => self.stats.dropped.ring_full += 1,
        }
    }

    /// Sends DTLS.
    pub(super) fn send_to(&mut self, to: SocketAddr, bytes: &[u8]) {
        if !self.rtp.send(bytes, to) {
            self.stats.dropped.send_failed += 1;
        }
    }

    /// DTLS begins anew, or is over.
    pub(super) const fn expect_dtls(&mut self, source: Option<DtlsSource>) {
        self.dtls.expect(source);
    }

    /// Whether a DTLS handshake is under way.
    pub(super) const fn shakes_hands(&self) -> bool {
        self.dtls.is_expected() && self.cipher.is_awaited()
    }

    /// The keys of an association are for its port: without `a=rtcp-mux`, RTCP would need a second one (RFC 5764 §4.1.2),
    /// which we do not have, so there is none.
    const fn has_rtcp(&self) -> bool {
        self.remote.rtcp_mux || !self.dtls.is_expected()
    }

    fn handle_rtp(&mut self, datagram: &Datagram, bytes: &mut [u8], out: &mut Outlets) {
        if !self.is_worth_a_try(datagram) {
            return;
        }
        let (bytes, is_authentic) = match self.cipher.open_rtp(datagram.arrival, bytes) {
            Ok(opened) => (&bytes[..opened.len], opened.is_authentic),
            Err(why) => return self.count(why),
        };
        let Ok((header, _)) = RtpHeader::parse(bytes) else {
            self.stats.dropped.malformed += 1;
            return;
        };
        let evidence = Evidence {
            source: datagram.from,
            ssrc: header.ssrc,
            sequence: header.sequence_number,
            payload_type: header.payload_type,
            is_authentic,
        };
        match self.latch.judge(datagram.arrival, &evidence) {
            Verdict::Drop => {
                self.stats.dropped.stranger += 1;
                return;
            }
            Verdict::Latched => {
                // Whatever has sent RTCP from another host was not the telephone.
                self.rtcp_source = self.rtcp_source.filter(|source| source.ip() == datagram.from.ip());
                // Should the ring be full, signalling merely does not hear of an address that it does not need.
                out.tell(NetEvent::Latched { leg: self.leg, remote: datagram.from });
            }
            Verdict::Take => {}
        }
        self.silence.on_heard(datagram.arrival);
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

    /// Whether an RTP packet is to be looked at before anything is known of it; what is plain costs nothing.
    fn is_worth_a_try(&mut self, datagram: &Datagram) -> bool {
        if self.cipher.is_plain() {
            return true;
        }
        let tries = if self.latch.expects(datagram.from) { &mut self.tries } else { &mut self.strange_tries };
        if !self.latch.is_worth_a_try(datagram.arrival, datagram.from) {
            self.stats.dropped.stranger += 1;
        } else if !tries.admits(datagram.arrival) {
            self.stats.dropped.flood += 1;
        } else {
            return true;
        }
        false
    }

    const fn count(&mut self, why: Refused) {
        match why {
            Refused::Unready => self.stats.dropped.unready += 1,
            Refused::Unauthentic => self.stats.dropped.unauthentic += 1,
            Refused::Unsendable => self.stats.dropped.send_failed += 1,
        }
    }

    /// Whether RTCP may come from `source`: from the telephone's host, or from the one that its SDP names for RTCP alone
    /// (RFC 3605) as long as its RTP comes from where that says.
    fn takes_rtcp_from(&self, source: SocketAddr) -> bool {
        let is_signalled = || self.remote.rtcp.is_some_and(|remote| remote.ip() == source.ip());
        self.latch.expects(source) || (!self.latch.has_moved() && is_signalled())
    }

    /// A datagram on the RTCP port, or RTCP on the other. It must come from the telephone's host, since it may be plain.
    pub(super) fn handle_rtcp(&mut self, datagram: &Datagram, bytes: &mut [u8], out: &mut Outlets) {
        if DatagramKind::of(bytes) != DatagramKind::Rtcp {
            self.stats.dropped.malformed += 1;
        } else if !self.takes_rtcp_from(datagram.from) {
            self.stats.dropped.stranger += 1;
        } else if !self.has_rtcp() {
            self.stats.dropped.unready += 1;
        } else if !self.rtcp_rate.admits(datagram.arrival) {
            self.stats.dropped.flood += 1;
        } else {
            let bytes = match self.cipher.open_rtcp(datagram.arrival, bytes) {
                Ok(len) => &bytes[..len],
                Err(why) => return self.count(why),
            };
            self.rtcp_source = Some(datagram.from);
            self.latch.on_sign_of_life(datagram.arrival, datagram.from);
            self.silence.on_heard(datagram.arrival);
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

    /// Encrypts the RTP packet of `len` bytes at the start of `slot` in place, if it is to be, and sends it to where the
    /// telephone is.
    pub(super) fn send_rtp(&mut self, now: Instant, slot: &mut [u8], len: usize) {
        let Some(remote) = self.latch.remote() else {
            self.stats.dropped.unready += 1;
            return;
        };
        let header = RtpHeader::parse(&slot[..len]);
        match self.cipher.seal_rtp(slot, len) {
            Ok(sealed) => {
                if let Ok((header, payload_at)) = header {
                    self.session.on_rtp_sent(now, header.timestamp, len - payload_at);
                }
                self.binding.on_sent(now);
                if self.rtp.send(&slot[..sealed], remote) {
                    self.stats.sent += 1;
                } else {
                    self.stats.dropped.send_failed += 1;
                }
            }
            Err(why) => self.count(why),
        }
    }

    /// What the mix has counted of its voice.
    pub(super) fn hear(&mut self, heard: Heard) {
        self.session.hear(heard);
    }

    /// The answer, or a re-INVITE.
    pub(super) fn update(&mut self, remote: TelephoneRemote) {
        self.latch.update(remote);
        self.session.set_metrics_asked(remote.asks_metrics);
        if remote.clock_rate_hz != self.remote.clock_rate_hz {
            self.session.set_clock_rate(remote.clock_rate_hz);
        }
        if remote.rtcp.is_some() && remote.rtcp != self.remote.rtcp {
            self.rtcp_source = None;
        }
        self.remote = remote;
    }

    /// New keys, or an end of the encryption.
    pub(super) fn protect(&mut self, now: Instant, ciphers: Ciphers) {
        self.cipher.replace(now, ciphers);
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

    pub(super) fn report_if_due(&mut self, now: Instant, buffer: &mut [u8], out: &mut Outlets) {
        if self.silence.is_news(now, self.remote.is_expected) {
            // Should the ring be full, it is told again.
            out.tell(NetEvent::Silent { leg: self.leg });
        }
        self.keep_binding(now);
        let report = self.session.handle_timeout(now, buffer);
        self.send_rtcp(report, buffer);
    }

    /// While no sound goes to the telephone, on hold, a NAT must not forget where its RTP comes from: an empty datagram, which
    /// every telephone overlooks (RFC 6263 §4.1). With RTCP on the same port, that does it.
    fn keep_binding(&mut self, now: Instant) {
        if let Some(remote) = self.latch.remote()
            && !self.remote.rtcp_mux
            && self.binding.is_due(now)
            && !self.rtp.send(&[], remote)
        {
            self.stats.dropped.send_failed += 1;
        }
    }

    pub(super) fn say_bye(&mut self, now: Instant, buffer: &mut [u8]) {
        let bye = self.session.bye(now, buffer);
        self.send_rtcp(bye, buffer);
    }

    fn send_rtcp(&mut self, len: Option<usize>, buffer: &mut [u8]) {
        let (Some(len), Some(remote), true) = (len, self.rtcp_remote(), self.has_rtcp()) else { return };
        let len = match self.cipher.seal_rtcp(buffer, len) {
            Ok(len) => len,
            Err(why) => return self.count(why),
        };
        let socket = match &self.rtcp {
            Some(socket) if !self.remote.rtcp_mux => socket,
            Some(_) | None => &self.rtp,
        };
        if !socket.send(&buffer[..len], remote) {
            self.stats.dropped.send_failed += 1;
        }
    }
}
