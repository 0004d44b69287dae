//! Extended reports of one session (RFC 3611): what a telephone asked for, and what it tells.
//!
//! Owns: when VoIP metrics are due, and their making from what the mix counts; the answer to a reference time, by which one who
//! only receives measures the round trip; the peer's own metrics. Does not own: counting, the E-model's formulas (`emodel`).
//!
//! The voice that is rated is the one that comes here, as far as the telephones' mixer: what the room's members hear of it
//! waits in buffers of their own. What the session does not know has the RFC's value for that.

use std::time::Duration;

use crate::media::burst_metrics::GAP_MINIMUM;
use crate::media::control::{Heard, TICK, TelephoneCodec, VoicePath};
use crate::time::Instant;
use crate::wire::rtcp::{Concealment, Dlrr, ExtendedReport, ExtendedReports, UNAVAILABLE, VoipMetrics, Writer};

/// Between two reports of VoIP metrics: they are sums over the whole call, and move slowly.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// Sooner than the interval by so much is due, since reports are written on beats.
const METRICS_SLACK: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Extended {
    /// The peer asks for metrics.
    asks_metrics: bool,
    heard: Option<Heard>,
    last_metrics: Option<Instant>,
    /// Whose reference time came when, and the middle of it; until it is answered.
    reference: Option<(u32, u32, Instant)>,
    peer: Option<VoipMetrics>,
}

impl Extended {
    pub(super) const fn set_asked(&mut self, asks_metrics: bool) {
        self.asks_metrics = asks_metrics;
    }

    pub(super) const fn hear(&mut self, heard: Heard) {
        self.heard = Some(heard);
    }

    /// What the peer says of our voice.
    pub(super) const fn peer(&self) -> Option<VoipMetrics> {
        self.peer
    }

    /// Reads the blocks that `reporter` sent; our own source is `ssrc`.
    pub(super) fn on_blocks(&mut self, arrival: Instant, reporter: u32, blocks: ExtendedReports<'_>, ssrc: u32) {
        for block in blocks.iter() {
            match block {
                ExtendedReport::ReferenceTime(time) => self.reference = Some((reporter, time.middle(), arrival)),
                ExtendedReport::VoipMetrics(metrics) if metrics.ssrc == ssrc => self.peer = Some(metrics),
                // We send no reference times: the reports' own round trip is there whenever we send.
                ExtendedReport::Dlrr(_) | ExtendedReport::VoipMetrics(_) | ExtendedReport::Other { .. } => {}
            }
        }
    }

    /// Adds what is due to a compound; everything if it `is_last`.
    pub(super) fn write(
        &mut self,
        now: Instant,
        (ssrc, round_trip): (u32, Option<Duration>),
        is_last: bool,
        writer: &mut Writer<'_>,
    ) {
        let dlrr = self.reference.take().map(|(ssrc, last_reference_time, arrival)| Dlrr {
            ssrc,
            last_reference_time,
            delay: super::units_65536(now.saturating_since(arrival)),
        });
        let is_due =
            is_last || self.last_metrics.is_none_or(|at| now.saturating_since(at) + METRICS_SLACK >= METRICS_INTERVAL);
        let metrics = self.heard.filter(|_| self.asks_metrics && is_due).map(|heard| {
            self.last_metrics = Some(now);
            metrics(&heard, round_trip, self.peer.map_or(0, |peer| peer.end_system_ms))
        });
        writer.extended_report(ssrc, dlrr.as_ref(), metrics.as_ref());
    }
}

/// What is said of a voice. `their_end_ms` is what the telephone's own end adds, 0 if it does not say.
fn metrics(heard: &Heard, round_trip: Option<Duration>, their_end_ms: u16) -> VoipMetrics {
    let Heard { bursts, .. } = heard;
    let of_expected = |packets: u32| {
        let rate = u64::from(packets) * 256 / u64::from(bursts.expected().max(1));
        rate.min(255) as u8
    };
    let packets_ms = |packets: u32| {
        let duration_ms = u64::from(packets) * u64::from(heard.packet_us) / 1000;
        u16::try_from(duration_ms).unwrap_or(u16::MAX)
    };
    // What we send waits to be a packet, what comes waits in the buffer and for the next tick.
    let our_end_ms = u16::from(heard.sent_packet_ms) + heard.target_ms + TICK.as_millis() as u16;
    let listening = path(heard);
    let conversation = round_trip.map(|round_trip| {
        // An end that does not tell is taken to be like ours.
        let their_end_ms = if their_end_ms == 0 { our_end_ms } else { their_end_ms };
        let ends = Duration::from_millis(u64::from(our_end_ms) + u64::from(their_end_ms));
        VoicePath { delay: (round_trip + ends) / 2, ..listening }
    });
    VoipMetrics {
        ssrc: heard.ssrc,
        loss_rate: of_expected(bursts.missing().saturating_sub(heard.late)),
        discard_rate: of_expected(heard.late),
        burst_density: bursts.bursts.density(),
        gap_density: bursts.gaps.density(),
        burst_duration_ms: packets_ms(bursts.bursts.mean_packets()),
        gap_duration_ms: packets_ms(bursts.gaps.mean_packets()),
        round_trip_ms: round_trip.map_or(0, |time| u16::try_from(time.as_millis()).unwrap_or(u16::MAX)),
        end_system_ms: our_end_ms,
        signal_dbm0: heard.talk_dbm0.unwrap_or(UNAVAILABLE.cast_signed()),
        noise_dbm0: heard.noise_dbm0.unwrap_or(UNAVAILABLE.cast_signed()),
        residual_echo_return_loss_db: UNAVAILABLE,
        gap_minimum: GAP_MINIMUM,
        r_factor: conversation.map_or(UNAVAILABLE, |path| path.rating().clamp(0.0, 100.0).round() as u8),
        external_r_factor: UNAVAILABLE,
        listening_mos_x10: tenths(listening),
        conversational_mos_x10: conversation.map_or(UNAVAILABLE, tenths),
        concealment: match heard.codec {
            TelephoneCodec::Pcmu | TelephoneCodec::Pcma | TelephoneCodec::G722 => Concealment::Standard,
            TelephoneCodec::Opus => Concealment::Enhanced,
        },
        is_adaptive: Some(true),
        buffer_nominal_ms: heard.target_ms,
        buffer_maximum_ms: heard.capacity_ms,
        buffer_absolute_maximum_ms: heard.capacity_ms,
    }
}

/// The voice as one hears it who says nothing.
fn path(heard: &Heard) -> VoicePath {
    let bursts = heard.bursts;
    let missing = f64::from(bursts.missing());
    let share = missing / f64::from(bursts.expected().max(1));
    let in_a_row = missing / f64::from(bursts.holes.max(1));
    VoicePath { delay: Duration::ZERO, loss_percent: 100.0 * share, burst_ratio: in_a_row * (1.0 - share) }
}

fn tenths(path: VoicePath) -> u8 {
    (path.mos() * 10.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::control::{Bursts, Periods};
    use crate::wire::rtcp::{RtcpPacket, packets};

    fn ms(ms: u64) -> Instant {
        Instant::from_us(ms * 1000)
    }

    /// Of 1000 packets of 20 ms, 40 missing: 20 in four bursts of ten, 20 alone; eight came late.
    const HEARD: Heard = Heard {
        ssrc: 9,
        codec: TelephoneCodec::Pcma,
        bursts: Bursts {
            bursts: Periods { count: 4, packets: 40, missing: 20 },
            gaps: Periods { count: 5, packets: 960, missing: 20 },
            holes: 32,
        },
        late: 8,
        packet_us: 20_000,
        sent_packet_ms: 20,
        talk_dbm0: Some(-18),
        noise_dbm0: None,
        target_ms: 25,
        capacity_ms: 400,
    };

    #[test]
    fn metrics_are_what_was_counted_and_what_is_unknown_says_so() {
        let told = metrics(&HEARD, Some(Duration::from_millis(71)), 75);
        // 32 and 8 of 1000, 20 of 40, 20 of 960, in 1/256.
        assert_eq!((told.loss_rate, told.discard_rate, told.burst_density, told.gap_density), (8, 2, 128, 5));
        assert_eq!((told.burst_duration_ms, told.gap_duration_ms), (200, 3840));
        // 20 to fill a packet, 25 of buffer, 20 to the tick.
        assert_eq!((told.round_trip_ms, told.end_system_ms), (71, 65));
        assert_eq!((told.signal_dbm0, told.noise_dbm0, told.residual_echo_return_loss_db), (-18, 127, 127));
        // 4 % of loss with 1.2 times the random bursts: 95 × 4 / (4 / 1.2 + 25.1) = 13.36 below 93.2.
        assert_eq!((told.r_factor, told.external_r_factor), (80, UNAVAILABLE));
        // (71 + 65 + 75) / 2 = 105.5 ms cost next to nothing.
        assert_eq!((told.listening_mos_x10, told.conversational_mos_x10), (40, 40));
        assert_eq!((told.buffer_nominal_ms, told.buffer_maximum_ms, told.buffer_absolute_maximum_ms), (25, 400, 400));
        assert_eq!((told.ssrc, told.gap_minimum, told.concealment), (9, 16, Concealment::Standard));
        let far = metrics(&HEARD, Some(Duration::from_millis(600)), 0);
        assert!(far.conversational_mos_x10 < told.conversational_mos_x10 && far.listening_mos_x10 == 40, "{far:?}");
        let unmeasured = metrics(&Heard { codec: TelephoneCodec::Opus, ..HEARD }, None, 0);
        assert_eq!((unmeasured.round_trip_ms, unmeasured.r_factor, unmeasured.conversational_mos_x10), (0, 127, 127));
        assert_eq!((unmeasured.listening_mos_x10, unmeasured.concealment), (40, Concealment::Enhanced));
    }

    fn written(extended: &mut Extended, now: Instant, is_last: bool) -> Vec<(u32, Option<Dlrr>, bool)> {
        let mut buf = [0; 200];
        let mut writer = Writer::new(&mut buf);
        extended.write(now, (1, None), is_last, &mut writer);
        let len = writer.finish().unwrap();
        let read = packets(&buf[..len]).map(|packet| match packet {
            Ok(RtcpPacket::ExtendedReport { ssrc, blocks }) => {
                let dlrr = blocks.iter().find_map(|block| match block {
                    ExtendedReport::Dlrr(items) => items.iter().next(),
                    _ => None,
                });
                (ssrc, dlrr, blocks.iter().any(|block| matches!(block, ExtendedReport::VoipMetrics(_))))
            }
            other => panic!("{other:?}"),
        });
        read.collect()
    }

    #[test]
    fn metrics_go_out_every_five_seconds_and_at_the_end_to_whom_asks_for_them() {
        let mut extended = Extended::default();
        extended.hear(HEARD);
        assert_eq!(written(&mut extended, ms(500), true), [], "nobody has asked");
        extended.set_asked(true);
        let told: Vec<_> =
            (1..13).filter(|&second| !written(&mut extended, ms(second * 1000), false).is_empty()).collect();
        assert_eq!(told, [1, 6, 11]);
        assert_eq!(written(&mut extended, ms(12_100), true), [(1, None, true)]);
        assert_eq!(
            written(&mut Extended { asks_metrics: true, ..Extended::default() }, ms(1), true),
            [],
            "no packet yet"
        );
    }

    #[test]
    fn a_reference_time_is_answered_once_and_metrics_of_our_voice_are_kept() {
        let mut buf = [0; 200];
        let mut writer = Writer::new(&mut buf);
        writer.reference_time(77, crate::time::NtpTime(0x0000_1234_5678_0000));
        let other = VoipMetrics { ssrc: 5, ..metrics(&HEARD, None, 0) };
        let ours = VoipMetrics { ssrc: 1, listening_mos_x10: 33, ..other };
        writer.extended_report(77, None, Some(&ours));
        writer.extended_report(77, None, Some(&other));
        let len = writer.finish().unwrap();
        let mut extended = Extended::default();
        for packet in packets(&buf[..len]) {
            let Ok(RtcpPacket::ExtendedReport { ssrc, blocks }) = packet else { panic!() };
            extended.on_blocks(ms(1000), ssrc, blocks, 1);
        }
        assert_eq!(extended.peer(), Some(ours));
        let answer = Dlrr { ssrc: 77, last_reference_time: 0x1234_5678, delay: 65_536 / 2 };
        assert_eq!(written(&mut extended, ms(1500), false), [(1, Some(answer), false)]);
        assert_eq!(written(&mut extended, ms(2500), false), []);
    }
}
