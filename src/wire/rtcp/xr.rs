//! Extended reports (RFC 3611): the blocks of an XR packet taken apart and put together.
//!
//! Owns: VoIP metrics (§4.7), and the two blocks by which one who only receives measures the round trip (§4.4, §4.5), both
//! ways. Does not own: where the numbers come from (`media::rtcp_session`). Other block types are stepped over.

use crate::time::NtpTime;

const BLOCK_HEADER_BYTES: usize = 4;
const BLOCK_REFERENCE_TIME: u8 = 4;
const BLOCK_DLRR: u8 = 5;
const BLOCK_VOIP_METRICS: u8 = 7;
const REFERENCE_TIME_BYTES: usize = 8;
const DLRR_ITEM_BYTES: usize = 12;
const VOIP_METRICS_BYTES: usize = 32;

/// A level, rating or score that is not known (RFC 3611 §4.7.4, §4.7.5).
pub const UNAVAILABLE: u8 = 127;

/// What a receiver knows of a voice beyond its report block (RFC 3611 §4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoipMetrics {
    /// The stream's source.
    pub ssrc: u32,
    /// Packets lost on the way since the start, in 1/256 of those expected.
    pub loss_rate: u8,
    /// Packets that came and could not be played, likewise.
    pub discard_rate: u8,
    /// Packets lost or discarded within bursts, in 1/256 of those there; 0 if there was no burst.
    pub burst_density: u8,
    /// The same between the bursts.
    pub gap_density: u8,
    /// Of the mean burst.
    pub burst_duration_ms: u16,
    /// Of the mean gap.
    pub gap_duration_ms: u16,
    /// Between the RTP interfaces; 0 if unknown.
    pub round_trip_ms: u16,
    /// What the reporter's own end adds to both ways together; 0 if unknown.
    pub end_system_ms: u16,
    /// Of the talk, against 0 dBm0, in dB; [`UNAVAILABLE`] if unknown.
    pub signal_dbm0: i8,
    /// Of the pauses, likewise.
    pub noise_dbm0: i8,
    /// Residual echo return loss, in dB; [`UNAVAILABLE`] if unknown.
    pub residual_echo_return_loss_db: u8,
    /// So many good packets in a row end a burst.
    pub gap_minimum: u8,
    /// The conversation's quality by the E-model, 0 to 100; [`UNAVAILABLE`] if unknown.
    pub r_factor: u8,
    /// That of another leg of the call; [`UNAVAILABLE`] if unknown.
    pub external_r_factor: u8,
    /// The mean opinion score of one who only listens, in tenths, 10 to 50; [`UNAVAILABLE`] if unknown.
    pub listening_mos_x10: u8,
    /// Of one who converses, likewise.
    pub conversational_mos_x10: u8,
    /// What takes a lost packet's place.
    pub concealment: Concealment,
    /// Whether the jitter buffer adapts; `None` if unknown.
    pub is_adaptive: Option<bool>,
    /// Delay of a packet that comes exactly in time.
    pub buffer_nominal_ms: u16,
    /// Delay of the earliest packet that is not discarded, at present.
    pub buffer_maximum_ms: u16,
    /// The same at the worst.
    pub buffer_absolute_maximum_ms: u16,
}

/// What takes a lost packet's place (RFC 3611 §4.7.6), with its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concealment {
    /// Not told.
    Unspecified = 0,
    /// Silence.
    Disabled = 1,
    /// What copes with high rates of loss.
    Enhanced = 2,
    /// Repetition or interpolation, which copes with single losses.
    Standard = 3,
}

/// When the answerer's clock and the asker's meet (RFC 3611 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dlrr {
    /// Whose reference time this answers.
    pub ssrc: u32,
    /// The middle of that reference time.
    pub last_reference_time: u32,
    /// Since it came, in units of 1/65536 s.
    pub delay: u32,
}

/// One block of an XR packet.
#[derive(Clone, Copy, Debug)]
pub enum ExtendedReport<'a> {
    /// The reporter's wall clock at sending: it asks for a [`Dlrr`].
    ReferenceTime(NtpTime),
    /// The answers.
    Dlrr(DlrrItems<'a>),
    /// What the reporter knows of a voice.
    VoipMetrics(VoipMetrics),
    /// A type that we have no use for, or a block whose length is not that of its type.
    Other {
        /// The block type.
        block_type: u8,
    },
}

/// The answers of one DLRR block.
#[derive(Clone, Copy, Debug)]
pub struct DlrrItems<'a>(&'a [[u8; DLRR_ITEM_BYTES]]);

impl DlrrItems<'_> {
    /// In the block's order.
    pub fn iter(&self) -> impl Iterator<Item = Dlrr> {
        self.0.iter().map(|item| Dlrr { ssrc: word(item, 0), last_reference_time: word(item, 4), delay: word(item, 8) })
    }
}

/// The blocks of one XR packet; what is cut short ends them.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedReports<'a>(&'a [u8]);

impl<'a> ExtendedReports<'a> {
    /// What follows the packet's SSRC.
    pub(super) const fn new(blocks: &'a [u8]) -> Self {
        Self(blocks)
    }

    /// In the packet's order.
    pub fn iter(&self) -> impl Iterator<Item = ExtendedReport<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (&[block_type, _, high, low], after) = rest.split_first_chunk::<BLOCK_HEADER_BYTES>()?;
            let (block, after) = after.split_at_checked(4 * usize::from(u16::from_be_bytes([high, low])))?;
            rest = after;
            Some(read(block_type, block))
        })
    }
}

fn read(block_type: u8, block: &[u8]) -> ExtendedReport<'_> {
    match (block_type, block.len()) {
        (BLOCK_REFERENCE_TIME, REFERENCE_TIME_BYTES) => {
            ExtendedReport::ReferenceTime(NtpTime((u64::from(word(block, 0)) << 32) | u64::from(word(block, 4))))
        }
        (BLOCK_DLRR, _) => ExtendedReport::Dlrr(DlrrItems(block.as_chunks().0)),
        (BLOCK_VOIP_METRICS, VOIP_METRICS_BYTES) => ExtendedReport::VoipMetrics(VoipMetrics::read(block)),
        _ => ExtendedReport::Other { block_type },
    }
}

/// `at` is within `bytes`: the callers know their lengths.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl VoipMetrics {
    /// Where nothing is known.
    pub const UNKNOWN: Self = Self {
        ssrc: 0,
        loss_rate: 0,
        discard_rate: 0,
        burst_density: 0,
        gap_density: 0,
        burst_duration_ms: 0,
        gap_duration_ms: 0,
        round_trip_ms: 0,
        end_system_ms: 0,
        signal_dbm0: UNAVAILABLE.cast_signed(),
        noise_dbm0: UNAVAILABLE.cast_signed(),
        residual_echo_return_loss_db: UNAVAILABLE,
        gap_minimum: 16,
        r_factor: UNAVAILABLE,
        external_r_factor: UNAVAILABLE,
        listening_mos_x10: UNAVAILABLE,
        conversational_mos_x10: UNAVAILABLE,
        concealment: Concealment::Unspecified,
        is_adaptive: None,
        buffer_nominal_ms: 0,
        buffer_maximum_ms: 0,
        buffer_absolute_maximum_ms: 0,
    };

    /// Of a block of [`VOIP_METRICS_BYTES`].
    fn read(block: &[u8]) -> Self {
        let half = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
        Self {
            ssrc: word(block, 0),
            loss_rate: block[4],
            discard_rate: block[5],
            burst_density: block[6],
            gap_density: block[7],
            burst_duration_ms: half(8),
            gap_duration_ms: half(10),
            round_trip_ms: half(12),
            end_system_ms: half(14),
            signal_dbm0: block[16].cast_signed(),
            noise_dbm0: block[17].cast_signed(),
            residual_echo_return_loss_db: block[18],
            gap_minimum: block[19],
            r_factor: block[20],
            external_r_factor: block[21],
            listening_mos_x10: block[22],
            conversational_mos_x10: block[23],
            concealment: Concealment::read(block[24] >> 6),
            is_adaptive: match block[24] >> 4 & 3 {
                2 => Some(false),
                3 => Some(true),
                _ => None,
            },
            buffer_nominal_ms: half(26),
            buffer_maximum_ms: half(28),
            buffer_absolute_maximum_ms: half(30),
        }
    }

    fn write(&self, block: &mut [u8; VOIP_METRICS_BYTES]) {
        let halves = |high: u16, low: u16| (u32::from(high) << 16) | u32::from(low);
        let adaptive = self.is_adaptive.map_or(0, |is_adaptive| 2 + u8::from(is_adaptive));
        let words = [
            self.ssrc,
            u32::from_be_bytes([self.loss_rate, self.discard_rate, self.burst_density, self.gap_density]),
            halves(self.burst_duration_ms, self.gap_duration_ms),
            halves(self.round_trip_ms, self.end_system_ms),
            u32::from_be_bytes([
                self.signal_dbm0.cast_unsigned(),
                self.noise_dbm0.cast_unsigned(),
                self.residual_echo_return_loss_db,
                self.gap_minimum,
            ]),
            u32::from_be_bytes([
                self.r_factor,
                self.external_r_factor,
                self.listening_mos_x10,
                self.conversational_mos_x10,
            ]),
            // The rate of adjustment stays 0, unknown.
            halves(u16::from((self.concealment as u8) << 6 | adaptive << 4) << 8, self.buffer_nominal_ms),
            halves(self.buffer_maximum_ms, self.buffer_absolute_maximum_ms),
        ];
        super::put_words(block, &words);
    }
}

impl Concealment {
    const fn read(two_bits: u8) -> Self {
        match two_bits & 3 {
            1 => Self::Disabled,
            2 => Self::Enhanced,
            3 => Self::Standard,
            _ => Self::Unspecified,
        }
    }
}

impl super::Writer<'_> {
    /// XR with what there is of the two blocks; nothing if there is neither.
    pub fn extended_report(&mut self, ssrc: u32, dlrr: Option<&Dlrr>, metrics: Option<&VoipMetrics>) {
        if dlrr.is_none() && metrics.is_none() {
            return;
        }
        let dlrr_bytes = dlrr.map_or(0, |_| BLOCK_HEADER_BYTES + DLRR_ITEM_BYTES);
        let metrics_bytes = metrics.map_or(0, |_| BLOCK_HEADER_BYTES + VOIP_METRICS_BYTES);
        let Some(body) = self.packet(super::TYPE_EXTENDED_REPORT, 0, 4 + dlrr_bytes + metrics_bytes) else { return };
        let (head, blocks) = body.split_at_mut(4);
        super::put_words(head, &[ssrc]);
        let (dlrr_block, metrics_block) = blocks.split_at_mut(dlrr_bytes);
        if let Some(dlrr) = dlrr {
            let header = block_header(BLOCK_DLRR, DLRR_ITEM_BYTES);
            super::put_words(dlrr_block, &[header, dlrr.ssrc, dlrr.last_reference_time, dlrr.delay]);
        }
        if let (Some(metrics), Some((header, block))) = (metrics, metrics_block.split_first_chunk_mut()) {
            *header = block_header(BLOCK_VOIP_METRICS, VOIP_METRICS_BYTES).to_be_bytes();
            if let Some(block) = block.first_chunk_mut() {
                metrics.write(block);
            }
        }
    }

    /// XR with a reference time, which asks for a [`Dlrr`].
    pub fn reference_time(&mut self, ssrc: u32, now: NtpTime) {
        let body_bytes = 4 + BLOCK_HEADER_BYTES + REFERENCE_TIME_BYTES;
        let Some(body) = self.packet(super::TYPE_EXTENDED_REPORT, 0, body_bytes) else { return };
        let header = block_header(BLOCK_REFERENCE_TIME, REFERENCE_TIME_BYTES);
        super::put_words(body, &[ssrc, header, (now.0 >> 32) as u32, now.0 as u32]);
    }
}

fn block_header(block_type: u8, block_bytes: usize) -> u32 {
    (u32::from(block_type) << 24) | (block_bytes / 4) as u32
}

#[cfg(test)]
mod tests {
    use super::super::{RtcpPacket, Writer, packets};
    use super::*;
    use proptest::prelude::*;

    const METRICS: VoipMetrics = VoipMetrics {
        ssrc: 0x0102_0304,
        loss_rate: 5,
        discard_rate: 6,
        burst_density: 7,
        gap_density: 8,
        burst_duration_ms: 0x0910,
        gap_duration_ms: 0x1112,
        round_trip_ms: 0x1314,
        end_system_ms: 0x1516,
        signal_dbm0: -20,
        noise_dbm0: -70,
        residual_echo_return_loss_db: UNAVAILABLE,
        gap_minimum: 16,
        r_factor: 93,
        external_r_factor: UNAVAILABLE,
        listening_mos_x10: 44,
        conversational_mos_x10: 43,
        concealment: Concealment::Standard,
        is_adaptive: Some(true),
        buffer_nominal_ms: 20,
        buffer_maximum_ms: 0x0122,
        buffer_absolute_maximum_ms: 0x0190,
    };

    fn blocks(bytes: &[u8]) -> Vec<ExtendedReport<'_>> {
        let Some(Ok(RtcpPacket::ExtendedReport { ssrc: 1, blocks })) = packets(bytes).next() else { panic!() };
        blocks.iter().collect()
    }

    #[test]
    fn the_blocks_lie_as_the_rfc_draws_them_and_read_back() {
        let mut buf = [0xaa; 100];
        let mut writer = Writer::new(&mut buf);
        let dlrr = Dlrr { ssrc: 9, last_reference_time: 0x0a0b_0c0d, delay: 65_536 };
        writer.extended_report(1, Some(&dlrr), Some(&METRICS));
        let len = writer.finish().unwrap();
        #[rustfmt::skip]
        let expected = [
            0x80, 207, 0, 14, 0, 0, 0, 1,
            5, 0, 0, 3, 0, 0, 0, 9, 0x0a, 0x0b, 0x0c, 0x0d, 0, 1, 0, 0,
            7, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16,
            236, 186, 127, 16, 93, 127, 44, 43, 0b1111_0000, 0, 0, 20, 0x01, 0x22, 0x01, 0x90,
        ];
        assert_eq!(buf[..len], expected);
        let read = blocks(&buf[..len]);
        assert!(matches!(read[0], ExtendedReport::Dlrr(items) if items.iter().eq([dlrr])));
        assert!(matches!(read[1], ExtendedReport::VoipMetrics(METRICS)));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn what_there_is_nothing_of_is_not_written_and_what_does_not_fit_is_told() {
        let mut buf = [0; 40];
        let mut writer = Writer::new(&mut buf);
        writer.extended_report(1, None, None);
        writer.reference_time(1, NtpTime(0x0123_4567_89ab_cdef));
        assert_eq!(writer.finish(), Some(20));
        assert!(matches!(blocks(&buf[..20])[..], [ExtendedReport::ReferenceTime(NtpTime(0x0123_4567_89ab_cdef))]));
        let mut writer = Writer::new(&mut buf);
        writer.extended_report(1, None, Some(&METRICS));
        assert_eq!(writer.finish(), None);
    }

    #[test]
    fn unknown_blocks_and_wrong_lengths_are_stepped_over_and_a_cut_ends_the_packet() {
        // An RLE block, VoIP metrics of one word, a reference time, and a block that claims more than there is.
        #[rustfmt::skip]
        let bytes = [
            0x80, 207, 0, 9, 0, 0, 0, 1,
            1, 0, 0, 1, 0, 0, 0, 0,
            7, 0, 0, 1, 0, 0, 0, 0,
            4, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2,
            7, 0, 0, 8,
        ];
        let read = blocks(&bytes);
        assert!(matches!(
            read[..],
            [
                ExtendedReport::Other { block_type: 1 },
                ExtendedReport::Other { block_type: 7 },
                ExtendedReport::ReferenceTime(NtpTime(0x1_0000_0002)),
            ]
        ));
    }

    proptest! {
        #[test]
        fn no_blocks_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), kinds in any::<u8>()) {
            let mut body = bytes;
            if body.len() > 4 {
                (body[0], body[2], body[3]) = (kinds % 9, 0, body[3] % 9);
            }
            for block in ExtendedReports::new(&body).iter() {
                if let ExtendedReport::Dlrr(items) = block {
                    items.iter().for_each(drop);
                }
            }
        }
    }
}
