//! A telephone's packets put back in order without delaying those that are in order.
//!
//! Owns: a hole is waited for until two later packets are there or 30 ms have passed, then given up. Does not own:
//! concealment (`plc`), the way down's jitter buffer (`jitter`): what leaves here goes up to the room at once.
//! Nothing is allocated after `new`.

use std::time::Duration;

use crate::time::{Deadline, Instant};
use crate::wire::rtp::{RtpHeader, sequence_distance, timestamp_distance};

/// The longest payload kept: 60 ms of 16 bits at 8 kHz, more than any codec we answer with.
pub const MAX_PAYLOAD_BYTES: usize = 960;

/// How long a hole is waited for.
const HOLE_WAIT: Duration = Duration::from_millis(30);
/// As many later packets say that the missing one is lost rather than late.
const HOLE_PACKETS: usize = 2;
/// Packets that can wait: the two above, and what a burst brings before they are taken out.
const SLOTS: usize = 8;
/// A longer gap is not concealed: a guess that long is worse than silence.
const MAX_CONCEALED_MS: u32 = 100;
/// Senders round their timestamps: a smaller gap between neighbours means nothing.
const TIMESTAMP_SLACK_MS: u32 = 5;
/// So many packets in a row from behind are a sender that has started anew, not stragglers.
const LATE_RUN_MEANS_RESTART: u8 = 5;

/// What became of a packet that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// To be popped in its turn.
    Kept,
    /// Its place was given up before, or it has been here already.
    LateOrDuplicate,
    /// Longer than [`MAX_PAYLOAD_BYTES`].
    TooLong,
}

/// What comes next, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release<'a> {
    /// A packet.
    Packet {
        /// Its header.
        header: RtpHeader,
        /// Its payload.
        payload: &'a [u8],
        /// When it came.
        arrival: Instant,
    },
    /// Sound was lost: conceal so much of it (at most 100 ms).
    Conceal {
        /// In RTP clock units.
        duration_ticks: u32,
    },
    /// Nothing was sent, or too much was lost: let so much time pass on the way up.
    Jump {
        /// In RTP clock units.
        duration_ticks: u32,
    },
}

#[derive(Clone, Debug)]
struct Slot {
    /// `None` once taken out.
    header: Option<RtpHeader>,
    arrival: Instant,
    duration_ticks: u32,
    len: usize,
    payload: [u8; MAX_PAYLOAD_BYTES],
}

/// Where the stream stands.
#[derive(Clone, Copy, Debug)]
struct Position {
    ssrc: u32,
    next_sequence: u16,
    /// The end of the last packet on the sender's clock.
    next_timestamp: u32,
    /// When the last packet came that was released.
    last_arrival: Instant,
    /// Whether the gap before the next packet has been told already.
    gap_is_told: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Reorder {
    clock_rate_hz: u32,
    slots: Box<[Slot]>,
    waiting: usize,
    position: Option<Position>,
    late_run: u8,
    last_late: u16,
}

impl Reorder {
    /// For a stream with this RTP clock.
    pub fn new(clock_rate_hz: u32) -> Self {
        let empty =
            Slot { header: None, arrival: Instant::ZERO, duration_ticks: 0, len: 0, payload: [0; MAX_PAYLOAD_BYTES] };
        Self {
            clock_rate_hz,
            slots: vec![empty; SLOTS].into_boxed_slice(),
            waiting: 0,
            position: None,
            late_run: 0,
            last_late: 0,
        }
    }

    /// Takes a packet that lasts `duration_ticks` (0 for events and comfort noise, which share the sequence). Call
    /// [`Self::pop`] until it gives nothing after each push.
    pub fn push(&mut self, now: Instant, header: &RtpHeader, payload: &[u8], duration_ticks: u32) -> Pushed {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Pushed::TooLong;
        }
        let ahead = match self.position {
            Some(position) if position.ssrc == header.ssrc => {
                sequence_distance(position.next_sequence, header.sequence_number)
            }
            Some(_) | None => self.restart(now, header),
        };
        if ahead < 0 {
            let follows = header.sequence_number == self.last_late.wrapping_add(1);
            self.late_run = if follows { self.late_run + 1 } else { 1 };
            self.last_late = header.sequence_number;
            if self.late_run < LATE_RUN_MEANS_RESTART {
                return Pushed::LateOrDuplicate;
            }
        }
        if !(0..SLOTS as i16).contains(&ahead) {
            self.restart(now, header);
        }
        self.late_run = 0;
        let slot = &mut self.slots[usize::from(header.sequence_number) % SLOTS];
        if slot.header.is_some() {
            return Pushed::LateOrDuplicate;
        }
        (slot.header, slot.arrival, slot.duration_ticks, slot.len) =
            (Some(*header), now, duration_ticks, payload.len());
        slot.payload[..payload.len()].copy_from_slice(payload);
        self.waiting += 1;
        Pushed::Kept
    }

    /// What can leave now.
    pub fn pop(&mut self, now: Instant) -> Option<Release<'_>> {
        let position = self.position.as_mut()?;
        let first = first_waiting(&self.slots, position.next_sequence)?;
        let slot = &mut self.slots[first];
        let header = slot.header?;
        let is_next = header.sequence_number == position.next_sequence;
        if !is_next && self.waiting < HOLE_PACKETS && now < slot.arrival + HOLE_WAIT {
            return None;
        }
        if !position.gap_is_told {
            position.gap_is_told = true;
            if let Some(gap) = gap_before(position, &header, slot.arrival, is_next, self.clock_rate_hz) {
                return Some(gap);
            }
        }
        *position = Position {
            ssrc: header.ssrc,
            next_sequence: header.sequence_number.wrapping_add(1),
            next_timestamp: header.timestamp.wrapping_add(slot.duration_ticks),
            last_arrival: slot.arrival,
            gap_is_told: false,
        };
        slot.header = None;
        self.waiting -= 1;
        Some(Release::Packet { header, payload: &slot.payload[..slot.len], arrival: slot.arrival })
    }

    /// When a hole will be given up.
    pub fn next_timeout(&self) -> Option<Deadline> {
        let first = first_waiting(&self.slots, self.position?.next_sequence)?;
        Some(Deadline::new(self.slots[first].arrival + HOLE_WAIT, "telephone packet missing"))
    }

    /// Begins anew with this packet; its distance from where it is expected is then 0.
    fn restart(&mut self, now: Instant, header: &RtpHeader) -> i16 {
        for slot in &mut self.slots {
            slot.header = None;
        }
        self.waiting = 0;
        self.position = Some(match self.position {
            Some(position) if position.ssrc == header.ssrc => {
                Position { next_sequence: header.sequence_number, gap_is_told: false, ..position }
            }
            // Another source has a clock of its own: the time that has passed here stands for the gap.
            Some(position) => {
                let gap_ticks = ticks(now.saturating_since(position.last_arrival), self.clock_rate_hz);
                Position {
                    ssrc: header.ssrc,
                    next_sequence: header.sequence_number,
                    next_timestamp: header.timestamp.wrapping_sub(gap_ticks),
                    gap_is_told: false,
                    ..position
                }
            }
            None => Position {
                ssrc: header.ssrc,
                next_sequence: header.sequence_number,
                next_timestamp: header.timestamp,
                last_arrival: now,
                gap_is_told: true,
            },
        });
        0
    }
}

/// The slot of the earliest packet.
fn first_waiting(slots: &[Slot], next_sequence: u16) -> Option<usize> {
    (0..SLOTS as u16)
        .map(|ahead| usize::from(next_sequence.wrapping_add(ahead)) % SLOTS)
        .find(|&slot| slots[slot].header.is_some())
}

/// What lies between the last packet and `header`.
fn gap_before(
    position: &Position,
    header: &RtpHeader,
    arrival: Instant,
    is_next: bool,
    clock_rate_hz: u32,
) -> Option<Release<'static>> {
    let told_ticks = timestamp_distance(position.next_timestamp, header.timestamp);
    let passed_ticks = ticks(arrival.saturating_since(position.last_arrival), clock_rate_hz);
    // A timestamp that leads or lags the clock by more than a second is a sender's new start, not a gap.
    let is_plausible = told_ticks.abs_diff(passed_ticks.cast_signed()) <= clock_rate_hz;
    let gap_ticks = if is_plausible { told_ticks.max(0).cast_unsigned() } else { passed_ticks };
    if gap_ticks == 0 || is_next && gap_ticks <= clock_rate_hz / 1000 * TIMESTAMP_SLACK_MS {
        None
    } else if is_next || gap_ticks > clock_rate_hz / 1000 * MAX_CONCEALED_MS {
        Some(Release::Jump { duration_ticks: gap_ticks })
    } else {
        Some(Release::Conceal { duration_ticks: gap_ticks })
    }
}

/// A duration on an RTP clock; what does not fit becomes the most that does.
fn ticks(duration: Duration, clock_rate_hz: u32) -> u32 {
    u32::try_from(duration.as_micros() * u128::from(clock_rate_hz) / 1_000_000).unwrap_or(i32::MAX.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(sequence_number: u16) -> RtpHeader {
        let timestamp = u32::from(sequence_number) * 160;
        RtpHeader { marker: false, payload_type: 0, sequence_number, timestamp, ssrc: 1 }
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_us(ms * 1000)
    }

    /// Everything that can leave, packets as their first byte, gaps as negative milliseconds (jumps: below −1000).
    fn drain(reorder: &mut Reorder, now: Instant) -> Vec<i32> {
        let mut out = Vec::new();
        while let Some(release) = reorder.pop(now) {
            out.push(match release {
                Release::Packet { payload, .. } => i32::from(payload[0]),
                Release::Conceal { duration_ticks } => -(duration_ticks as i32 / 8),
                Release::Jump { duration_ticks } => -1000 - duration_ticks as i32 / 8,
            });
        }
        out
    }

    fn push(reorder: &mut Reorder, at: Instant, sequence_number: u16) -> Vec<i32> {
        reorder.push(at, &header(sequence_number), &[sequence_number as u8], 160);
        drain(reorder, at)
    }

    #[test]
    fn packets_in_order_leave_at_once_also_near_the_wrap() {
        let mut reorder = Reorder::new(8000);
        for (step, sequence_number) in (65_530..=65_535).chain(0..5).enumerate() {
            // Timestamps of this test wrap with the sequence: keep them continuous instead.
            let mut header = header(sequence_number);
            header.timestamp = step as u32 * 160;
            let now = ms(step as u64 * 20);
            assert_eq!(reorder.push(now, &header, &[sequence_number as u8], 160), Pushed::Kept);
            assert_eq!(drain(&mut reorder, now), [i32::from(sequence_number as u8)]);
        }
    }

    #[test]
    fn a_swapped_pair_is_put_in_order() {
        let mut reorder = Reorder::new(8000);
        assert_eq!(push(&mut reorder, ms(0), 10), [10]);
        assert!(push(&mut reorder, ms(20), 12).is_empty());
        assert_eq!(reorder.next_timeout().unwrap().at, ms(50));
        assert_eq!(push(&mut reorder, ms(25), 11), [11, 12]);
        assert_eq!(reorder.next_timeout(), None);
        assert_eq!(reorder.push(ms(30), &header(11), &[11], 160), Pushed::LateOrDuplicate);
        assert_eq!(reorder.push(ms(30), &header(13), &[0; 961], 160), Pushed::TooLong);
    }

    #[test]
    fn a_hole_is_concealed_after_two_later_packets_or_30_ms() {
        let mut reorder = Reorder::new(8000);
        assert_eq!(push(&mut reorder, ms(0), 10), [10]);
        assert!(push(&mut reorder, ms(40), 12).is_empty());
        assert_eq!(push(&mut reorder, ms(60), 13), [-20, 12, 13]);
        assert!(push(&mut reorder, ms(100), 15).is_empty());
        assert!(drain(&mut reorder, ms(129)).is_empty());
        assert_eq!(drain(&mut reorder, ms(130)), [-20, 15]);
    }

    #[test]
    fn a_long_hole_and_a_pause_are_jumps() {
        let mut reorder = Reorder::new(8000);
        assert_eq!(push(&mut reorder, ms(0), 10), [10]);
        assert!(push(&mut reorder, ms(140), 17).is_empty());
        assert_eq!(push(&mut reorder, ms(160), 18), [-1120, 17, 18]);
        // Silence suppression: the next number, a later timestamp.
        let mut late = header(19);
        late.timestamp += 8000;
        reorder.push(ms(1180), &late, &[19], 160);
        assert_eq!(drain(&mut reorder, ms(1180)), [-2000, 19]);
    }

    #[test]
    fn a_new_source_or_a_new_start_is_followed_at_once_and_time_goes_on() {
        let mut reorder = Reorder::new(8000);
        assert_eq!(push(&mut reorder, ms(0), 10), [10]);
        let other = RtpHeader { ssrc: 2, sequence_number: 40_000, timestamp: 123_456_789, ..header(0) };
        reorder.push(ms(50), &other, &[1], 160);
        assert_eq!(drain(&mut reorder, ms(50)), [-1050, 1]);
        // The same source far ahead, with an unrelated timestamp.
        let ahead = RtpHeader { sequence_number: 50_000, timestamp: 5, ..other };
        reorder.push(ms(70), &ahead, &[2], 160);
        assert_eq!(drain(&mut reorder, ms(70)), [-1020, 2]);
        // And from behind: stragglers at first, then believed.
        for late in 0..4 {
            let behind = RtpHeader { sequence_number: 49_000 + late, timestamp: 160 * u32::from(late), ..other };
            assert_eq!(reorder.push(ms(90), &behind, &[3], 160), Pushed::LateOrDuplicate);
        }
        let behind = RtpHeader { sequence_number: 49_004, timestamp: 640, ..other };
        assert_eq!(reorder.push(ms(90), &behind, &[3], 160), Pushed::Kept);
        assert_eq!(drain(&mut reorder, ms(90)).last(), Some(&3));
    }

    #[test]
    fn events_within_the_sequence_leave_no_hole() {
        let mut reorder = Reorder::new(8000);
        assert_eq!(push(&mut reorder, ms(0), 10), [10]);
        for sequence_number in 11..15 {
            let event = RtpHeader { payload_type: 101, timestamp: header(11).timestamp, ..header(sequence_number) };
            reorder.push(ms(20), &event, &[99], 0);
            assert_eq!(drain(&mut reorder, ms(20)), [99]);
        }
        assert_eq!(push(&mut reorder, ms(100), 15), [-1080, 15]);
    }

    proptest! {
        /// Whatever comes: every kept packet leaves once, in ascending order unless a restart lies between.
        #[test]
        fn any_sequence_of_packets_is_survived(
            packets in proptest::collection::vec((any::<u16>(), any::<u32>(), 0u32..3, 0u64..50), 1..200)
        ) {
            let mut reorder = Reorder::new(8000);
            let (mut now, mut kept, mut left) = (Instant::ZERO, 0, 0);
            for (sequence_number, timestamp, ssrc, wait_ms) in packets {
                now += Duration::from_millis(wait_ms);
                let header = RtpHeader { marker: false, payload_type: 0, sequence_number, timestamp, ssrc };
                kept += u32::from(reorder.push(now, &header, &[1], 160) == Pushed::Kept);
                while let Some(release) = reorder.pop(now) {
                    left += u32::from(matches!(release, Release::Packet { .. }));
                }
            }
            prop_assert!(left <= kept);
        }
    }
}
