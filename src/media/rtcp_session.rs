//! One RTP session's control side (RFC 3550 §6): counts both ways, regular reports, reads the peer's reports.
//!
//! Owns: reception statistics, LSR and DLSR, round-trip time, what loss the peer reports (which steers FEC), extended reports
//! (RFC 3611). Does not own: the packets' bytes (`wire::rtcp`), encryption, sockets. One source each way; a new remote source starts anew.
//! Simplification against §6.3: a session has two parties, so the interval is a fixed second, well below 5 % of 64 kbit/s;
//! who only receives, and misses nothing, reports every fifth second, which is §6.2's usual least interval.

use std::time::Duration;

use super::control::{Heard, PeerReport};
use crate::time::{Deadline, Instant, NtpAnchor};
use crate::wire::rtcp::{ReportBlock, RtcpError, RtcpPacket, SenderInfo, VoipMetrics, Writer, packets};
use crate::wire::rtp::RtpHeader;
use extended::Extended;
use reception::Reception;

mod extended;
mod reception;

/// Between two reports.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two reports of one who only receives and has nothing to complain of: the peer's packets are all that it costs to
/// learn of that.
pub const QUIET_REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// The first report comes early, since the peer's round-trip time depends on it.
const FIRST_REPORT: Duration = Duration::from_millis(500);
/// Room that every report fits: SR with one block, SDES with the longest CNAME, XR with two blocks, and BYE.
pub const MAX_REPORT_BYTES: usize = 400;
/// Who sent nothing for so long sends no SR (RFC 3550 §6.4: since the report before the last).
const SENDER_TIMEOUT: Duration = Duration::from_secs(2);
/// The reported loss is averaged over some so many reports.
const LOSS_REPORTS: u32 = 4;

/// What a session is made of.
#[derive(Clone, Debug)]
pub struct RtcpConfig {
    /// Ours, also where we only receive.
    pub ssrc: u32,
    /// The same for all streams of one participant (RFC 3550 §6.5.1); at most 255 bytes are sent.
    pub cname: String,
    /// The RTP clock of what we send.
    pub send_clock_rate_hz: u32,
    /// The RTP clock of what we receive.
    pub receive_clock_rate_hz: u32,
    /// The wall clock.
    pub anchor: NtpAnchor,
}

/// What is known of the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtcpStats {
    /// Packets and payload bytes sent.
    pub sent_packets: u32,
    /// See above.
    pub sent_octets: u32,
    /// From our sender report to the peer's answer, less the time it held it.
    pub round_trip: Option<Duration>,
    /// The last block the peer sent about our stream.
    pub peer_report: Option<ReportBlock>,
    /// The last block we sent about the peer's stream.
    pub own_report: Option<ReportBlock>,
    /// Datagrams that were no RTCP, or cut short.
    pub malformed: u32,
}

/// What a datagram of the peer asks for beyond its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtcpNews {
    /// The source that we receive is gone.
    pub has_left: bool,
    /// The peer reported on our stream: [`RtcpSession::peer_loss_percent`] may have changed.
    pub has_report: bool,
}

/// See the module.
#[derive(Debug)]
pub struct RtcpSession {
    config: RtcpConfig,
    next_report: Instant,
    last_report: Option<Instant>,
    last_sent: Option<(Instant, u32)>,
    reception: Option<Reception>,
    /// Packets that sources before the present one lost.
    lost_before: u32,
    /// Source, middle of the NTP time and arrival of the peer's last sender report.
    last_sender_report: Option<(u32, u32, Instant)>,
    /// The fraction lost as the peer reports it, averaged, in 1/65536.
    peer_loss_x256: u32,
    /// Apart, since few telephones ask for it.
    extended: Box<Extended>,
    stats: RtcpStats,
}

impl RtcpSession {
    /// A session that begins now.
    pub fn new(config: RtcpConfig, now: Instant) -> Self {
        Self {
            config,
            next_report: now + FIRST_REPORT,
            last_report: None,
            last_sent: None,
            reception: None,
            lost_before: 0,
            last_sender_report: None,
            peer_loss_x256: 0,
            extended: Box::default(),
            stats: RtcpStats::default(),
        }
    }

    /// What is known of the path.
    pub const fn stats(&self) -> RtcpStats {
        self.stats
    }

    /// The loss of our packets that the peer has reported of late, rounded up: 0 says that FEC is not needed.
    pub const fn peer_loss_percent(&self) -> u8 {
        (self.peer_loss_x256 * 100).div_ceil(256 * 256) as u8
    }

    /// Whether the peer asks for VoIP metrics.
    pub fn set_metrics_asked(&mut self, is_asked: bool) {
        self.extended.set_asked(is_asked);
    }

    /// What the mix has counted so far of what is received here.
    pub fn hear(&mut self, heard: Heard) {
        self.extended.hear(heard);
    }

    /// What the peer's last VoIP metrics say of our stream.
    pub fn peer_metrics(&self) -> Option<VoipMetrics> {
        self.extended.peer()
    }

    /// A new codec has another RTP clock, both ways: what was measured with the former one means nothing any more.
    pub fn set_clock_rate(&mut self, clock_rate_hz: u32) {
        (self.config.send_clock_rate_hz, self.config.receive_clock_rate_hz) = (clock_rate_hz, clock_rate_hz);
        self.forget_source();
        self.last_sent = None;
    }

    /// Another source, or another meaning of its clock: the sum of loss goes on.
    fn forget_source(&mut self) {
        self.lost_before = self.lost();
        self.reception = None;
    }

    /// Packets that never came, of all sources so far.
    pub fn lost(&self) -> u32 {
        self.lost_before.saturating_add(self.reception.as_ref().map_or(0, Reception::lost))
    }

    /// How unevenly the received source's packets come.
    pub fn jitter(&self) -> Duration {
        self.reception.as_ref().map_or(Duration::ZERO, |reception| {
            duration_of_ticks(reception.jitter_ticks(), self.config.receive_clock_rate_hz)
        })
    }

    /// What the peer's last report says of all that it was sent.
    pub fn peer_report(&self) -> Option<PeerReport> {
        self.stats.peer_report.map(|report| PeerReport {
            lost: u32::try_from(report.cumulative_lost).unwrap_or(0),
            jitter: duration_of_ticks(report.jitter, self.config.send_clock_rate_hz),
        })
    }

    /// Counts an RTP packet that was sent.
    pub const fn on_rtp_sent(&mut self, now: Instant, timestamp: u32, payload_bytes: usize) {
        self.last_sent = Some((now, timestamp));
        self.stats.sent_packets = self.stats.sent_packets.wrapping_add(1);
        self.stats.sent_octets = self.stats.sent_octets.wrapping_add(payload_bytes as u32);
    }

    /// Counts an (authentic) RTP packet that was received.
    pub fn on_rtp_received(&mut self, arrival: Instant, header: &RtpHeader) {
        let clock_rate_hz = self.config.receive_clock_rate_hz;
        match &mut self.reception {
            Some(reception) if reception.ssrc == header.ssrc => reception.update(arrival, header, clock_rate_hz),
            Some(_) | None => {
                self.forget_source();
                self.reception = Some(Reception::new(arrival, header, clock_rate_hz));
            }
        }
    }

    /// Reads an (authentic) RTCP datagram.
    pub fn on_rtcp(&mut self, arrival: Instant, datagram: &[u8]) -> RtcpNews {
        let mut news = RtcpNews::default();
        for packet in packets(datagram) {
            match packet {
                Ok(packet) => self.on_packet(arrival, packet, &mut news),
                Err(RtcpError::Truncated | RtcpError::Version(_) | RtcpError::Padding) => self.stats.malformed += 1,
            }
        }
        news
    }

    /// Writes the report that is due into `out` ([`MAX_REPORT_BYTES`] are enough), or nothing.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if now < self.next_report {
            return None;
        }
        // A late turn is not made up for by a burst.
        self.next_report = (self.next_report + REPORT_INTERVAL).max(now + REPORT_INTERVAL / 2);
        if !self.has_news(now) {
            return None;
        }
        self.last_report = Some(now);
        let mut writer = Writer::new(out);
        self.write_report(now, false, &mut writer);
        writer.finish()
    }

    /// Whether a report is worth its packet.
    fn has_news(&self, now: Instant) -> bool {
        let sends = self.last_sent.is_some_and(|(at, _)| now.saturating_since(at) < SENDER_TIMEOUT);
        let misses = self.reception.as_ref().is_some_and(Reception::misses);
        let is_long_ago = self.last_report.is_none_or(|at| now.saturating_since(at) >= QUIET_REPORT_INTERVAL);
        sends || misses || is_long_ago
    }

    /// Writes a last report and BYE into `out`; nothing if the peer has never heard of us (RFC 3550 §6.3.7).
    pub fn bye(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        if self.last_report.is_none() && self.stats.sent_packets == 0 {
            return None;
        }
        let mut writer = Writer::new(out);
        self.write_report(now, true, &mut writer);
        writer.bye(self.config.ssrc);
        writer.finish()
    }

    /// Writes a request for `lost` packets of the received source into `out` ([`MAX_REPORT_BYTES`] are enough for those
    /// within [`WINDOW_PACKETS`](super::nack::WINDOW_PACKETS) of each other).
    ///
    /// It is the smallest compound that feedback may come in (RFC 4585 §3.1); the RR has no block, since that would cut the
    /// interval short which the next regular one tells of.
    pub fn request_again(&mut self, lost: &[u16], out: &mut [u8]) -> Option<usize> {
        let media_ssrc = self.reception.as_ref()?.ssrc;
        let mut writer = Writer::new(out);
        writer.receiver_report(self.config.ssrc, &[]);
        writer.source_description(self.config.ssrc, self.config.cname.as_bytes());
        writer.generic_nack(self.config.ssrc, media_ssrc, lost);
        writer.finish()
    }

    /// When the next report is due.
    pub const fn next_timeout(&self) -> Deadline {
        Deadline::new(self.next_report, "RTCP report")
    }

    fn write_report(&mut self, now: Instant, is_last: bool, writer: &mut Writer<'_>) {
        let report = self.reception.as_mut().map(Reception::report).map(|mut report| {
            if let Some((ssrc, middle, arrival)) = self.last_sender_report
                && ssrc == report.ssrc
            {
                report.last_sender_report = middle;
                report.delay_since_last_sender_report = units_65536(now.saturating_since(arrival));
            }
            report
        });
        self.stats.own_report = report.or(self.stats.own_report);
        let reports = report.as_slice();
        match self.last_sent {
            Some((sent_at, timestamp)) if now.saturating_since(sent_at) < SENDER_TIMEOUT => {
                let since_ticks =
                    now.saturating_since(sent_at).as_micros() * u128::from(self.config.send_clock_rate_hz) / 1_000_000;
                let info = SenderInfo {
                    ntp: self.config.anchor.at(now),
                    rtp_timestamp: timestamp.wrapping_add(since_ticks as u32),
                    packets: self.stats.sent_packets,
                    octets: self.stats.sent_octets,
                };
                writer.sender_report(self.config.ssrc, &info, reports);
            }
            Some(_) | None => writer.receiver_report(self.config.ssrc, reports),
        }
        writer.source_description(self.config.ssrc, self.config.cname.as_bytes());
        self.extended.write(now, (self.config.ssrc, self.stats.round_trip), is_last, writer);
    }

    fn on_packet(&mut self, arrival: Instant, packet: RtcpPacket<'_>, news: &mut RtcpNews) {
        match packet {
            RtcpPacket::SenderReport { ssrc, info, reports } => {
                self.last_sender_report = Some((ssrc, info.ntp.middle(), arrival));
                reports.iter().for_each(|report| self.on_report(arrival, &report, news));
            }
            RtcpPacket::ReceiverReport { reports, .. } => {
                reports.iter().for_each(|report| self.on_report(arrival, &report, news));
            }
            RtcpPacket::Bye(sources) => {
                let remote = self.reception.as_ref().map(|reception| reception.ssrc);
                news.has_left |= sources.iter().any(|ssrc| Some(ssrc) == remote);
            }
            RtcpPacket::ExtendedReport { ssrc, blocks } => {
                self.extended.on_blocks(arrival, ssrc, blocks, self.config.ssrc);
            }
            // Nothing is kept for retransmission: neither Galene nor telephones ask for audio again.
            RtcpPacket::SourceDescription { .. } | RtcpPacket::GenericNack { .. } | RtcpPacket::Other { .. } => {}
        }
    }

    /// A block about our stream (RFC 3550 §6.4.1: round-trip time = A − LSR − DLSR).
    fn on_report(&mut self, arrival: Instant, report: &ReportBlock, news: &mut RtcpNews) {
        if report.ssrc != self.config.ssrc {
            return;
        }
        news.has_report = true;
        self.stats.peer_report = Some(*report);
        let lost_x256 = u32::from(report.fraction_lost) * 256;
        self.peer_loss_x256 = if lost_x256 > self.peer_loss_x256 {
            // Loss is answered soon, its end is believed slowly.
            self.peer_loss_x256.midpoint(lost_x256)
        } else {
            self.peer_loss_x256 - (self.peer_loss_x256 - lost_x256).div_ceil(LOSS_REPORTS)
        };
        if report.last_sender_report != 0 {
            let units = self
                .config
                .anchor
                .at(arrival)
                .middle()
                .wrapping_sub(report.last_sender_report)
                .wrapping_sub(report.delay_since_last_sender_report);
            // Clocks of 1/65536 s round: a little below zero is zero. Half the range is nonsense.
            let units = u64::from(units.cast_signed().max(0).cast_unsigned());
            self.stats.round_trip = Some(Duration::from_micros(units * 1_000_000 / 65_536));
        }
    }
}

fn duration_of_ticks(ticks: u32, clock_rate_hz: u32) -> Duration {
    Duration::from_micros(u64::from(ticks) * 1_000_000 / u64::from(clock_rate_hz.max(1)))
}

/// A duration in units of 1/65536 s; what does not fit becomes the most that does.
fn units_65536(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros() * 65_536 / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(ssrc: u32, unix_s: u64) -> RtcpSession {
        let config = RtcpConfig {
            ssrc,
            cname: format!("cname-{ssrc}"),
            send_clock_rate_hz: 8000,
            receive_clock_rate_hz: 8000,
            anchor: NtpAnchor { unix_at_zero: Duration::from_secs(unix_s) },
        };
        RtcpSession::new(config, Instant::ZERO)
    }

    fn header(ssrc: u32, sequence_number: u16) -> RtpHeader {
        let timestamp = u32::from(sequence_number) * 160;
        RtpHeader { marker: false, payload_type: 0, sequence_number, timestamp, ssrc }
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_us(ms * 1000)
    }

    #[test]
    fn two_sessions_learn_round_trip_time_and_loss_of_each_other() {
        // Their wall clocks are a day apart, the way takes 30 ms each way, every tenth packet of `a` is lost.
        let (mut a, mut b) = (session(1, 1_700_000_000), session(2, 1_700_086_400));
        let mut flying: Vec<(u64, bool, Vec<u8>)> = Vec::new();
        for now in 0..5000u64 {
            if now % 20 == 0 {
                let sequence_number = (now / 20) as u16;
                a.on_rtp_sent(ms(now), header(1, sequence_number).timestamp, 160);
                if !sequence_number.is_multiple_of(10) {
                    b.on_rtp_received(ms(now + 30), &header(1, sequence_number));
                }
            }
            let mut out = [0; MAX_REPORT_BYTES];
            if let Some(len) = a.handle_timeout(ms(now), &mut out) {
                flying.push((now + 30, true, out[..len].to_vec()));
            }
            if now % 7 == 0
                && let Some(len) = b.handle_timeout(ms(now), &mut out)
            {
                flying.push((now + 30, false, out[..len].to_vec()));
            }
            for (_, to_b, bytes) in flying.extract_if(.., |(at, _, _)| *at == now) {
                if to_b {
                    b.on_rtcp(ms(now), &bytes)
                } else {
                    a.on_rtcp(ms(now), &bytes)
                };
            }
        }
        let round_trip = a.stats().round_trip.unwrap();
        assert!(round_trip.abs_diff(Duration::from_millis(60)) < Duration::from_millis(1), "{round_trip:?}");
        assert_eq!(b.stats().round_trip, None);
        assert!((9..=11).contains(&a.peer_loss_percent()), "{}", a.peer_loss_percent());
        let report = a.stats().peer_report.unwrap();
        assert_eq!((report.ssrc, report.cumulative_lost), (1, 22));
        assert_eq!((a.stats().malformed, b.stats().malformed), (0, 0));
    }

    #[test]
    fn who_only_listens_reports_every_second_what_is_missing_and_else_every_fifth() {
        let mut session = session(1, 0);
        let mut out = [0; MAX_REPORT_BYTES];
        let mut reported = Vec::new();
        for packet in 0..750_u64 {
            // One is lost in the thirteenth second.
            if packet != 600 {
                session.on_rtp_received(ms(packet * 20), &header(2, packet as u16));
            }
            if session.handle_timeout(ms(packet * 20), &mut out).is_some() {
                reported.push(packet * 20);
            }
        }
        assert_eq!(reported, [500, 5500, 10_500, 12_500]);
        let mut reported = Vec::new();
        for packet in 750..1250_u64 {
            if packet % 10 != 0 {
                session.on_rtp_received(ms(packet * 20), &header(2, packet as u16));
            }
            if session.handle_timeout(ms(packet * 20), &mut out).is_some() {
                reported.push(packet * 20);
            }
        }
        assert_eq!(reported, (0..10).map(|second| 15_500 + second * 1000).collect::<Vec<_>>());
    }

    #[test]
    fn who_sends_reports_as_sender_and_who_only_listens_as_receiver() {
        let mut session = session(1, 0);
        let mut out = [0; MAX_REPORT_BYTES];
        assert_eq!(session.handle_timeout(ms(499), &mut out), None);
        let len = session.handle_timeout(session.next_timeout().at, &mut out).unwrap();
        let first = packets(&out[..len]).next();
        assert!(
            matches!(first, Some(Ok(RtcpPacket::ReceiverReport { ssrc: 1, reports })) if reports.iter().count() == 0)
        );
        session.on_rtp_sent(ms(1000), 800, 33);
        let len = session.handle_timeout(ms(1500), &mut out).unwrap();
        let Some(Ok(RtcpPacket::SenderReport { info, .. })) = packets(&out[..len]).next() else { panic!() };
        // Half a second after the packet: 4000 ticks on.
        assert_eq!((info.rtp_timestamp, info.packets, info.octets), (4800, 1, 33));
        let len = session.handle_timeout(ms(6600), &mut out).unwrap();
        assert!(matches!(packets(&out[..len]).next(), Some(Ok(RtcpPacket::ReceiverReport { .. }))));
    }

    #[test]
    fn a_request_names_the_received_source_and_leaves_the_reports_alone() {
        let mut session = session(1, 0);
        let mut out = [0; MAX_REPORT_BYTES];
        assert_eq!(session.request_again(&[3], &mut out), None);
        for number in [1, 2, 5] {
            session.on_rtp_received(ms(u64::from(number) * 20), &header(9, number));
        }
        let len = session.request_again(&[3, 4], &mut out).unwrap();
        let read: Vec<_> = packets(&out[..len]).map(Result::unwrap).collect();
        assert!(matches!(read[0], RtcpPacket::ReceiverReport { ssrc: 1, reports } if reports.iter().count() == 0));
        assert!(matches!(read[1], RtcpPacket::SourceDescription { ssrc: 1, cname: Some(b"cname-1") }));
        assert!(matches!(read[2], RtcpPacket::GenericNack { sender_ssrc: 1, media_ssrc: 9, lost }
            if lost.iter().eq([3, 4])));
        session.handle_timeout(ms(1000), &mut out).unwrap();
        assert_eq!(session.stats().own_report.map(|report| report.fraction_lost), Some((2 * 256 / 5) as u8));
    }

    #[test]
    fn a_bye_of_the_received_source_is_news() {
        let (mut a, mut b) = (session(1, 0), session(2, 0));
        let mut out = [0; MAX_REPORT_BYTES];
        assert_eq!(b.bye(ms(4), &mut out), None, "nobody knows it");
        b.on_rtp_sent(ms(5), 160, 160);
        let len = b.bye(ms(5), &mut out).unwrap();
        assert!(!a.on_rtcp(ms(6), &out[..len]).has_left);
        a.on_rtp_received(ms(7), &header(2, 1));
        assert_eq!(a.on_rtcp(ms(8), &out[..len]), RtcpNews { has_left: true, has_report: false });
        assert_eq!(a.on_rtcp(ms(9), &out[..len - 1]), RtcpNews::default());
        assert_eq!(a.stats().malformed, 1);
    }

    #[test]
    fn the_sum_of_loss_goes_on_with_another_source_and_jitter_is_told_in_time() {
        let mut session = session(1, 0);
        for (ssrc, number, late_ms) in [(9, 1, 0), (9, 4, 16), (8, 1, 0), (8, 3, 16)] {
            session.on_rtp_received(ms(u64::from(number) * 20 + late_ms), &header(ssrc, number));
        }
        // One deviation of 16 ms, of which a sixteenth counts.
        assert_eq!((session.lost(), session.jitter()), (3, Duration::from_millis(1)));
        assert_eq!(session.peer_report(), None);
    }

    #[test]
    fn reported_loss_rises_at_once_and_falls_to_nothing_in_the_end() {
        let mut session = session(1, 0);
        let report = |fraction_lost| {
            let mut out = [0; 100];
            let mut writer = Writer::new(&mut out);
            writer.receiver_report(9, &[ReportBlock { ssrc: 1, fraction_lost, ..ReportBlock::default() }]);
            let len = writer.finish().unwrap();
            out[..len].to_vec()
        };
        assert!(session.on_rtcp(ms(0), &report(26)).has_report);
        assert_eq!(session.peer_loss_percent(), 6);
        for second in 1..40 {
            session.on_rtcp(ms(second * 1000), &report(0));
        }
        assert_eq!(session.peer_loss_percent(), 0);
        session.on_rtcp(ms(0), &report(255));
        session.on_rtcp(ms(0), &report(255));
        assert!(session.peer_loss_percent() >= 70);
    }
}
