//! RTCP packets (RFC 3550 §6, RFC 4585 §6.2.1, RFC 3611): compounds taken apart and put together.
//!
//! Owns: SR, RR, SDES (CNAME), BYE, the generic NACK and extended reports, both ways. Does not own: when to send which
//! (`media::rtcp_session`), encryption (`media::srtp`). Other packet types are stepped over.

use thiserror::Error;

use crate::time::NtpTime;

mod xr;

pub use xr::{Concealment, Dlrr, DlrrItems, ExtendedReport, ExtendedReports, UNAVAILABLE, VoipMetrics};

const TYPE_SENDER_REPORT: u8 = 200;
const TYPE_RECEIVER_REPORT: u8 = 201;
const TYPE_SOURCE_DESCRIPTION: u8 = 202;
const TYPE_BYE: u8 = 203;
const TYPE_TRANSPORT_FEEDBACK: u8 = 205;
const TYPE_EXTENDED_REPORT: u8 = 207;
const FORMAT_GENERIC_NACK: u8 = 1;
const SDES_CNAME: u8 = 1;

const HEADER_BYTES: usize = 4;
const SENDER_INFO_BYTES: usize = 20;
const REPORT_BLOCK_BYTES: usize = 24;

/// Why bytes are no RTCP compound. What was read before the fault stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtcpError {
    /// A packet's length reaches beyond the datagram, or is too short for its type.
    #[error("an RTCP packet is cut short")]
    Truncated,
    /// The version is not 2.
    #[error("RTCP version {0}")]
    Version(u8),
    /// Padding that is empty, longer than the packet, or not in the compound's last packet (RFC 3550 §6.4.1).
    #[error("bad RTCP padding")]
    Padding,
}

/// What the sender says of its own stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// The wall clock at sending.
    pub ntp: NtpTime,
    /// The same moment on the stream's RTP clock.
    pub rtp_timestamp: u32,
    /// Packets sent since the start, wrapping.
    pub packets: u32,
    /// Payload bytes sent since the start, wrapping.
    pub octets: u32,
}

/// What a receiver says of one stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream's source.
    pub ssrc: u32,
    /// Packets lost since the last report, in 1/256 of those expected.
    pub fraction_lost: u8,
    /// Packets lost since the start, negative with duplicates: 24 bits signed.
    pub cumulative_lost: i32,
    /// The highest sequence number, with the count of wraps above it.
    pub highest_sequence: u32,
    /// In RTP clock units.
    pub jitter: u32,
    /// The middle of the last sender report's NTP time, 0 if none came.
    pub last_sender_report: u32,
    /// Since that report, in units of 1/65536 s.
    pub delay_since_last_sender_report: u32,
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum RtcpPacket<'a> {
    /// SR.
    SenderReport {
        /// Who reports.
        ssrc: u32,
        /// On its own stream.
        info: SenderInfo,
        /// On what it hears.
        reports: Reports<'a>,
    },
    /// RR.
    ReceiverReport {
        /// Who reports.
        ssrc: u32,
        /// On what it hears.
        reports: Reports<'a>,
    },
    /// SDES: the first source and its CNAME, where it has one.
    SourceDescription {
        /// The source.
        ssrc: u32,
        /// Not necessarily text.
        cname: Option<&'a [u8]>,
    },
    /// BYE.
    Bye(Sources<'a>),
    /// RTPFB with format 1.
    GenericNack {
        /// Who asks.
        sender_ssrc: u32,
        /// Of which stream.
        media_ssrc: u32,
        /// For what.
        lost: LostPackets<'a>,
    },
    /// XR.
    ExtendedReport {
        /// Who reports.
        ssrc: u32,
        /// On what.
        blocks: ExtendedReports<'a>,
    },
    /// A type or format we have no use for.
    Other {
        /// The packet type.
        packet_type: u8,
        /// Count, subtype or feedback format: 0 to 31.
        format: u8,
    },
}

/// The report blocks of an SR or RR.
#[derive(Clone, Copy, Debug)]
pub struct Reports<'a>(&'a [[u8; REPORT_BLOCK_BYTES]]);

impl Reports<'_> {
    /// In the packet's order.
    pub fn iter(&self) -> impl Iterator<Item = ReportBlock> {
        self.0.iter().map(|block| {
            let word = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            ReportBlock {
                ssrc: word(0),
                fraction_lost: block[4],
                // 24 bits, sign-extended.
                cumulative_lost: (word(4) << 8).cast_signed() >> 8,
                highest_sequence: word(8),
                jitter: word(12),
                last_sender_report: word(16),
                delay_since_last_sender_report: word(20),
            }
        })
    }
}

/// The sources of a BYE.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a>(&'a [[u8; 4]]);

impl Sources<'_> {
    /// In the packet's order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|&bytes| u32::from_be_bytes(bytes))
    }
}

/// The sequence numbers of a generic NACK.
#[derive(Clone, Copy, Debug)]
pub struct LostPackets<'a>(&'a [[u8; 4]]);

impl LostPackets<'_> {
    /// Each packet identifier, followed by those of the sixteen after it whose bits are set.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|&[a, b, c, d]| {
            let (first, following) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            std::iter::once(first).chain(
                (0..16).filter(move |bit| following & (1 << bit) != 0).map(move |bit| first.wrapping_add(bit + 1)),
            )
        })
    }
}

/// The packets of a datagram, one after the other; after an error, nothing.
///
/// Reduced-size datagrams (RFC 5506) are read like compounds.
pub fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets { rest: datagram }
}

/// See [`packets`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<RtcpPacket<'a>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = take_packet(&mut self.rest);
        if parsed.is_err() {
            self.rest = &[];
        }
        Some(parsed)
    }
}

fn take_packet<'a>(rest: &mut &'a [u8]) -> Result<RtcpPacket<'a>, RtcpError> {
    let &[first, packet_type, high, low] = rest.first_chunk().ok_or(RtcpError::Truncated)?;
    if first >> 6 != 2 {
        return Err(RtcpError::Version(first >> 6));
    }
    let packet_bytes = HEADER_BYTES + 4 * usize::from(u16::from_be_bytes([high, low]));
    let (packet, after) = rest.split_at_checked(packet_bytes).ok_or(RtcpError::Truncated)?;
    *rest = after;
    let mut body = &packet[HEADER_BYTES..];
    if first & 0x20 != 0 {
        let padding_bytes = usize::from(body.last().copied().unwrap_or(0));
        if padding_bytes == 0 || padding_bytes > body.len() || !after.is_empty() {
            return Err(RtcpError::Padding);
        }
        body = &body[..body.len() - padding_bytes];
    }
    parse_body(packet_type, first & 0x1f, body)
}

fn parse_body(packet_type: u8, count: u8, body: &[u8]) -> Result<RtcpPacket<'_>, RtcpError> {
    match packet_type {
        TYPE_SENDER_REPORT => {
            let (ssrc, body) = take_u32(body)?;
            let (info, body) = body.split_at_checked(SENDER_INFO_BYTES).ok_or(RtcpError::Truncated)?;
            let (ntp_seconds, info) = take_u32(info)?;
            let (ntp_fraction, info) = take_u32(info)?;
            let (rtp_timestamp, info) = take_u32(info)?;
            let (packets, info) = take_u32(info)?;
            let (octets, _) = take_u32(info)?;
            let ntp = NtpTime((u64::from(ntp_seconds) << 32) | u64::from(ntp_fraction));
            let info = SenderInfo { ntp, rtp_timestamp, packets, octets };
            Ok(RtcpPacket::SenderReport { ssrc, info, reports: Reports(take_chunks(body, count)?) })
        }
        TYPE_RECEIVER_REPORT => {
            let (ssrc, body) = take_u32(body)?;
            Ok(RtcpPacket::ReceiverReport { ssrc, reports: Reports(take_chunks(body, count)?) })
        }
        TYPE_SOURCE_DESCRIPTION if count > 0 => {
            let (ssrc, items) = take_u32(body)?;
            Ok(RtcpPacket::SourceDescription { ssrc, cname: find_cname(items)? })
        }
        TYPE_BYE => Ok(RtcpPacket::Bye(Sources(take_chunks(body, count)?))),
        TYPE_TRANSPORT_FEEDBACK if count == FORMAT_GENERIC_NACK => {
            let (sender_ssrc, body) = take_u32(body)?;
            let (media_ssrc, body) = take_u32(body)?;
            Ok(RtcpPacket::GenericNack { sender_ssrc, media_ssrc, lost: LostPackets(body.as_chunks().0) })
        }
        TYPE_EXTENDED_REPORT => {
            let (ssrc, blocks) = take_u32(body)?;
            Ok(RtcpPacket::ExtendedReport { ssrc, blocks: ExtendedReports::new(blocks) })
        }
        _ => Ok(RtcpPacket::Other { packet_type, format: count }),
    }
}

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), RtcpError> {
    let (word, rest) = bytes.split_first_chunk().ok_or(RtcpError::Truncated)?;
    Ok((u32::from_be_bytes(*word), rest))
}

fn take_chunks<const BYTES: usize>(bytes: &[u8], count: u8) -> Result<&[[u8; BYTES]], RtcpError> {
    bytes.as_chunks().0.get(..usize::from(count)).ok_or(RtcpError::Truncated)
}

/// Looks through the items of one chunk (RFC 3550 §6.5).
fn find_cname(mut items: &[u8]) -> Result<Option<&[u8]>, RtcpError> {
    loop {
        match *items {
            [] | [0, ..] => return Ok(None),
            [item, len, ref rest @ ..] => {
                let (text, after) = rest.split_at_checked(usize::from(len)).ok_or(RtcpError::Truncated)?;
                if item == SDES_CNAME {
                    return Ok(Some(text));
                }
                items = after;
            }
            [_] => return Err(RtcpError::Truncated),
        }
    }
}

/// Puts a compound together in a buffer of the caller. What does not fit is left out, and [`Self::finish`] says so.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    /// Begins at the start of `buf`.
    pub const fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, len: 0, overflowed: false }
    }

    /// SR; at most 31 of the reports are written.
    pub fn sender_report(&mut self, ssrc: u32, info: &SenderInfo, reports: &[ReportBlock]) {
        let reports = &reports[..reports.len().min(31)];
        let body_bytes = 4 + SENDER_INFO_BYTES + reports.len() * REPORT_BLOCK_BYTES;
        let Some(body) = self.packet(TYPE_SENDER_REPORT, reports.len() as u8, body_bytes) else { return };
        let words = [ssrc, (info.ntp.0 >> 32) as u32, info.ntp.0 as u32, info.rtp_timestamp, info.packets, info.octets];
        let (head, blocks) = body.split_at_mut(4 + SENDER_INFO_BYTES);
        put_words(head, &words);
        put_reports(blocks, reports);
    }

    /// RR; at most 31 of the reports are written.
    pub fn receiver_report(&mut self, ssrc: u32, reports: &[ReportBlock]) {
        let reports = &reports[..reports.len().min(31)];
        let body_bytes = 4 + reports.len() * REPORT_BLOCK_BYTES;
        let Some(body) = self.packet(TYPE_RECEIVER_REPORT, reports.len() as u8, body_bytes) else { return };
        let (head, blocks) = body.split_at_mut(4);
        put_words(head, &[ssrc]);
        put_reports(blocks, reports);
    }

    /// SDES with a CNAME, of which at most 255 bytes are written.
    pub fn source_description(&mut self, ssrc: u32, cname: &[u8]) {
        let cname = &cname[..cname.len().min(255)];
        // The list of items ends with at least one zero byte.
        let body_bytes = (4 + 2 + cname.len() + 1).next_multiple_of(4);
        let Some(body) = self.packet(TYPE_SOURCE_DESCRIPTION, 1, body_bytes) else { return };
        body.fill(0);
        body[..4].copy_from_slice(&ssrc.to_be_bytes());
        body[4] = SDES_CNAME;
        body[5] = cname.len() as u8;
        body[6..6 + cname.len()].copy_from_slice(cname);
    }

    /// BYE of one source.
    pub fn bye(&mut self, ssrc: u32) {
        if let Some(body) = self.packet(TYPE_BYE, 1, 4) {
            put_words(body, &[ssrc]);
        }
    }

    /// A generic NACK for `lost`, which should ascend: each word covers up to 17 neighbours. Nothing if it is empty.
    pub fn generic_nack(&mut self, sender_ssrc: u32, media_ssrc: u32, lost: &[u16]) {
        let words = nack_words(lost).count();
        if words == 0 {
            return;
        }
        let body_bytes = 8 + 4 * words;
        let Some(body) = self.packet(TYPE_TRANSPORT_FEEDBACK, FORMAT_GENERIC_NACK, body_bytes) else { return };
        put_words(&mut body[..8], &[sender_ssrc, media_ssrc]);
        for (place, word) in body[8..].chunks_mut(4).zip(nack_words(lost)) {
            put_words(place, &[word]);
        }
    }

    /// The compound's length, `None` if anything did not fit.
    pub fn finish(self) -> Option<usize> {
        if self.overflowed { None } else { Some(self.len) }
    }

    /// Writes a header and hands out the room for `body_bytes`, a multiple of 4.
    fn packet(&mut self, packet_type: u8, count: u8, body_bytes: usize) -> Option<&mut [u8]> {
        let Some(packet) = self.buf.get_mut(self.len..self.len + HEADER_BYTES + body_bytes) else {
            self.overflowed = true;
            return None;
        };
        self.len += packet.len();
        let (header, body) = packet.split_at_mut(HEADER_BYTES);
        let [high, low] = ((body_bytes / 4) as u16).to_be_bytes();
        header.copy_from_slice(&[0x80 | count, packet_type, high, low]);
        Some(body)
    }
}

fn put_words(bytes: &mut [u8], words: &[u32]) {
    for (place, word) in bytes.chunks_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

fn put_reports(bytes: &mut [u8], reports: &[ReportBlock]) {
    for (place, report) in bytes.chunks_mut(REPORT_BLOCK_BYTES).zip(reports) {
        let lost = report.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0xff_ffff;
        put_words(
            place,
            &[
                report.ssrc,
                (u32::from(report.fraction_lost) << 24) | lost,
                report.highest_sequence,
                report.jitter,
                report.last_sender_report,
                report.delay_since_last_sender_report,
            ],
        );
    }
}

/// Packet identifier and bit mask of following losses (RFC 4585 §6.2.1).
fn nack_words(mut lost: &[u16]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let (&first, rest) = lost.split_first()?;
        let mut following = 0u32;
        let covered = rest.iter().take_while(|sequence| (1..=16).contains(&sequence.wrapping_sub(first))).count();
        for sequence in &rest[..covered] {
            following |= 1 << (sequence.wrapping_sub(first) - 1);
        }
        lost = &rest[covered..];
        Some((u32::from(first) << 16) | following)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INFO: SenderInfo =
        SenderInfo { ntp: NtpTime(0x0123_4567_89ab_cdef), rtp_timestamp: 160, packets: 5, octets: 800 };
    const REPORT: ReportBlock = ReportBlock {
        ssrc: 9,
        fraction_lost: 12,
        cumulative_lost: -3,
        highest_sequence: 0x1_0005,
        jitter: 77,
        last_sender_report: 0x4567_89ab,
        delay_since_last_sender_report: 65_536,
    };

    #[test]
    fn a_compound_reads_back_as_it_was_written() {
        let mut buf = [0xaa; 300];
        let mut writer = Writer::new(&mut buf);
        writer.sender_report(1, &INFO, &[REPORT]);
        writer.source_description(1, b"galene");
        writer.generic_nack(1, 9, &[65_530, 65_535, 3, 40]);
        writer.receiver_report(1, &[REPORT, REPORT]);
        writer.bye(1);
        let len = writer.finish().unwrap();
        let read: Vec<_> = packets(&buf[..len]).map(Result::unwrap).collect();
        assert!(matches!(read[0], RtcpPacket::SenderReport { ssrc: 1, info: INFO, reports }
            if reports.iter().collect::<Vec<_>>() == [REPORT]));
        assert!(matches!(read[1], RtcpPacket::SourceDescription { ssrc: 1, cname: Some(b"galene") }));
        assert!(matches!(read[2], RtcpPacket::GenericNack { sender_ssrc: 1, media_ssrc: 9, lost }
            if lost.iter().collect::<Vec<_>>() == [65_530, 65_535, 3, 40]));
        assert!(matches!(read[3], RtcpPacket::ReceiverReport { reports, .. } if reports.iter().count() == 2));
        assert!(matches!(read[4], RtcpPacket::Bye(sources) if sources.iter().eq([1])));
    }

    #[test]
    fn a_full_buffer_is_reported() {
        let mut buf = [0; 30];
        let mut writer = Writer::new(&mut buf);
        writer.receiver_report(1, &[REPORT]);
        assert_eq!(writer.finish(), None);
        assert_eq!(Writer::new(&mut []).finish(), Some(0));
    }

    #[test]
    fn padding_and_unknown_types_are_stepped_over() {
        // APP, then an RR with four bytes of padding.
        let bytes = [0x81, 204, 0, 1, 0, 0, 0, 7, 0xa0, 201, 0, 2, 0, 0, 0, 5, 0, 0, 0, 4];
        let read: Vec<_> = packets(&bytes).map(Result::unwrap).collect();
        assert!(matches!(read[0], RtcpPacket::Other { packet_type: 204, format: 1 }));
        assert!(matches!(read[1], RtcpPacket::ReceiverReport { ssrc: 5, reports } if reports.iter().count() == 0));
        assert!(matches!(packets(&[0xa0, 201, 0, 1, 0, 0, 0, 9]).next(), Some(Err(RtcpError::Padding))));
        assert!(matches!(packets(&[0x81, 201, 0, 1, 0, 0, 0, 9]).next(), Some(Err(RtcpError::Truncated))));
        assert!(matches!(packets(&[0x00, 201, 0, 0]).next(), Some(Err(RtcpError::Version(0)))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), plausible in any::<bool>()) {
            let mut bytes = bytes;
            if plausible && bytes.len() > 4 {
                bytes[0] = 0x80 | (bytes[0] & 0x3f);
                bytes[1] = 200 + bytes[1] % 8;
                bytes[2] = 0;
                bytes[3] %= 50;
            }
            for packet in packets(&bytes).flatten() {
                match packet {
                    RtcpPacket::SenderReport { reports, .. } | RtcpPacket::ReceiverReport { reports, .. } => {
                        reports.iter().for_each(drop);
                    }
                    RtcpPacket::Bye(sources) => sources.iter().for_each(drop),
                    RtcpPacket::GenericNack { lost, .. } => lost.iter().for_each(drop),
                    RtcpPacket::ExtendedReport { blocks, .. } => blocks.iter().for_each(drop),
                    RtcpPacket::SourceDescription { .. } | RtcpPacket::Other { .. } => {}
                }
            }
        }

        #[test]
        fn every_lost_packet_is_named_once(start in any::<u16>(), steps in proptest::collection::vec(1u16..30, 1..60)) {
            let mut lost = vec![start];
            for step in steps {
                lost.push(lost[lost.len() - 1].wrapping_add(step));
            }
            let mut buf = [0; 400];
            let mut writer = Writer::new(&mut buf);
            writer.generic_nack(1, 2, &lost);
            let len = writer.finish().unwrap();
            let Some(Ok(RtcpPacket::GenericNack { lost: read, .. })) = packets(&buf[..len]).next() else { panic!() };
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), lost);
        }
    }
}
