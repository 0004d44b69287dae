//! Statistics of one received source (RFC 3550 appendices A.1, A.3 and A.8).

use crate::time::Instant;
use crate::wire::rtcp::ReportBlock;
use crate::wire::rtp::RtpHeader;

/// A number that leads by more is a restart if the next one follows it (A.1).
const MAX_DROPOUT: u16 = 3000;
/// A number that lags by more likewise (A.1).
const MAX_MISORDER: u16 = 100;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Reception {
    pub(super) ssrc: u32,
    base_sequence: u16,
    highest_sequence: u16,
    /// Wraps of the sequence number, shifted left by 16.
    cycles: u32,
    /// What would confirm a restart.
    restart_sequence: Option<u16>,
    received: u32,
    expected_before: u32,
    received_before: u32,
    /// The last packet's payload type and timestamp.
    kind: (u8, u32),
    /// The last packet's arrival minus its timestamp, in RTP clock units.
    transit: u32,
    /// The mean deviation, times 16.
    jitter_x16: u32,
}

impl Reception {
    pub(super) fn new(arrival: Instant, header: &RtpHeader, clock_rate_hz: u32) -> Self {
        Self {
            ssrc: header.ssrc,
            base_sequence: header.sequence_number,
            highest_sequence: header.sequence_number,
            cycles: 0,
            restart_sequence: None,
            received: 1,
            expected_before: 0,
            received_before: 0,
            kind: (header.payload_type, header.timestamp),
            transit: transit(arrival, header, clock_rate_hz),
            jitter_x16: 0,
        }
    }

    /// A further packet of the source.
    pub(super) fn update(&mut self, arrival: Instant, header: &RtpHeader, clock_rate_hz: u32) {
        let ahead = header.sequence_number.wrapping_sub(self.highest_sequence);
        if ahead < MAX_DROPOUT {
            if header.sequence_number < self.highest_sequence {
                self.cycles = self.cycles.wrapping_add(1 << 16);
            }
            self.highest_sequence = header.sequence_number;
        } else if ahead <= u16::MAX - MAX_MISORDER {
            if self.restart_sequence == Some(header.sequence_number) {
                *self = Self::new(arrival, header, clock_rate_hz);
            } else {
                self.restart_sequence = Some(header.sequence_number.wrapping_add(1));
            }
            return;
        }
        self.received = self.received.wrapping_add(1);
        let transit = transit(arrival, header, clock_rate_hz);
        let deviation = transit.wrapping_sub(self.transit).cast_signed().unsigned_abs();
        self.transit = transit;
        let (payload_type, timestamp) = std::mem::replace(&mut self.kind, (header.payload_type, header.timestamp));
        // The packets of a key have the timestamp of its beginning (RFC 4733 §2.2.1), perhaps of another clock than speech.
        if payload_type != header.payload_type || timestamp == header.timestamp {
            return;
        }
        // A.8's integer form; a clock that was set must not poison it for minutes.
        let deviation = deviation.min(clock_rate_hz);
        self.jitter_x16 = self.jitter_x16 + deviation - ((self.jitter_x16 + 8) >> 4);
    }

    /// Whether packets were lost since the last report.
    pub(super) fn misses(&self) -> bool {
        let (expected, _) = self.expected();
        expected.wrapping_sub(self.expected_before) > self.received.wrapping_sub(self.received_before)
    }

    /// Packets that never came, as far as duplicates do not hide it.
    pub(super) fn lost(&self) -> u32 {
        let (expected, _) = self.expected();
        u32::try_from(expected.wrapping_sub(self.received).cast_signed()).unwrap_or(0)
    }

    /// The mean deviation, in RTP clock units.
    pub(super) const fn jitter_ticks(&self) -> u32 {
        self.jitter_x16 >> 4
    }

    /// How many packets there should be, and the highest number so far.
    fn expected(&self) -> (u32, u32) {
        let highest_sequence = self.cycles.wrapping_add(u32::from(self.highest_sequence));
        (highest_sequence.wrapping_sub(u32::from(self.base_sequence)).wrapping_add(1), highest_sequence)
    }

    /// What to report; the fraction lost is that since the last call.
    pub(super) fn report(&mut self) -> ReportBlock {
        let (expected, highest_sequence) = self.expected();
        let expected_interval = expected.wrapping_sub(self.expected_before);
        let received_interval = self.received.wrapping_sub(self.received_before);
        (self.expected_before, self.received_before) = (expected, self.received);
        let lost_interval = expected_interval.wrapping_sub(received_interval).cast_signed();
        let fraction_lost = if expected_interval == 0 || lost_interval <= 0 {
            0
        } else {
            ((u64::from(lost_interval.cast_unsigned()) << 8) / u64::from(expected_interval)).min(255) as u8
        };
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost,
            cumulative_lost: expected.wrapping_sub(self.received).cast_signed().clamp(-0x80_0000, 0x7f_ffff),
            highest_sequence,
            jitter: self.jitter_ticks(),
            last_sender_report: 0,
            delay_since_last_sender_report: 0,
        }
    }
}

fn transit(arrival: Instant, header: &RtpHeader, clock_rate_hz: u32) -> u32 {
    // 64 bits hold this for 12 years at 48 kHz.
    let arrival_ticks = arrival.as_us().wrapping_mul(u64::from(clock_rate_hz)) / 1_000_000;
    (arrival_ticks as u32).wrapping_sub(header.timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence_number: u16, timestamp: u32) -> RtpHeader {
        RtpHeader { marker: false, payload_type: 0, sequence_number, timestamp, ssrc: 5 }
    }

    fn at(packet: u64, late_us: u64) -> Instant {
        Instant::from_us(packet * 20_000 + late_us)
    }

    #[test]
    fn losses_are_counted_over_a_wrap() {
        let mut reception = Reception::new(at(0, 0), &header(65_530, 0), 8000);
        for packet in (1..20u64).filter(|packet| packet % 5 != 0) {
            reception.update(at(packet, 0), &header(65_530u16.wrapping_add(packet as u16), packet as u32 * 160), 8000);
        }
        let report = reception.report();
        assert_eq!((report.cumulative_lost, report.highest_sequence), (3, 0x1_0000 + 13));
        assert_eq!(report.fraction_lost, (3 * 256 / 20) as u8);
        assert_eq!((reception.report().fraction_lost, reception.report().cumulative_lost), (0, 3));
    }

    #[test]
    fn duplicates_make_the_loss_negative_not_huge() {
        let mut reception = Reception::new(at(0, 0), &header(1, 0), 8000);
        reception.update(at(0, 0), &header(1, 0), 8000);
        let report = reception.report();
        assert_eq!((report.cumulative_lost, report.fraction_lost), (-1, 0));
    }

    #[test]
    fn jitter_approaches_the_mean_deviation() {
        let mut reception = Reception::new(at(0, 0), &header(0, 0), 8000);
        for packet in 1..500u64 {
            // Every other packet 10 ms late: deviations of 80 ticks.
            reception.update(at(packet, packet % 2 * 10_000), &header(packet as u16, packet as u32 * 160), 8000);
        }
        let jitter = reception.report().jitter;
        assert!((78..=80).contains(&jitter), "{jitter}");
    }

    #[test]
    fn a_key_is_no_jitter() {
        let mut reception = Reception::new(at(0, 0), &header(0, 0), 48_000);
        for packet in 1..50u64 {
            // The key's clock is another one, and stands still while it lasts.
            let is_key = (20..30).contains(&packet);
            let timestamp = if is_key { 777_777 } else { packet as u32 * 960 };
            let payload_type = if is_key { 101 } else { 0 };
            let header = RtpHeader { payload_type, ..header(packet as u16, timestamp) };
            reception.update(at(packet, 0), &header, 48_000);
        }
        let report = reception.report();
        assert_eq!((report.jitter, report.cumulative_lost), (0, 0));
    }

    #[test]
    fn a_restart_is_believed_at_its_second_packet() {
        let mut reception = Reception::new(at(0, 0), &header(0, 0), 8000);
        reception.update(at(1, 0), &header(30_000, 160), 8000);
        assert_eq!(reception.report().highest_sequence, 0);
        reception.update(at(2, 0), &header(30_001, 320), 8000);
        let report = reception.report();
        assert_eq!((report.highest_sequence, report.cumulative_lost), (30_001, 0));
    }
}
