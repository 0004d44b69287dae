//! A telephone's packets put back in order without delaying those that are in order.
//!
//! Owns: a hole is waited for until two later packets are there or 30 ms have passed, then given up; on a line that has
//! shown to bring packets later than that, for as long as it needed; and the account of it (`tally`). Does not own: concealment (`plc`), the way down's
//! jitter buffer (`jitter`): what leaves here goes up to the room at once.
//! Nothing is allocated after `new`.

use std::time::Duration;

use crate::time::{Deadline, Instant};
use crate::wire::rtp::{RtpHeader, sequence_distance, timestamp_distance};

mod tally;

pub(super) use tally::Tally;

/// The longest payload kept: 60 ms of 16 bits at 8 kHz, more than any codec we answer with.
pub const MAX_PAYLOAD_BYTES: usize = 960;

/// How long a hole is waited for.
const HOLE_WAIT: Duration = Duration::from_millis(30);
/// As many later packets say that the missing one is lost rather than late.
const HOLE_PACKETS: usize = 2;
/// A packet that came too late shows how long to wait on its line: so much longer than it needed, ...
const WAIT_MARGIN: Duration = Duration::from_millis(5);
/// ... up to this, ...
const MAX_HOLE_WAIT: Duration = Duration::from_millis(120);
/// ... until the line has kept the order for so long.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// Packets that can wait: those of 10 ms that come within the longest wait, and a few more.
const SLOTS: usize = 16;
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
    /// Its place was given up before.
    Late,
    /// It has been here already, or is from so far behind that nobody knows.
    Duplicate,
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
        /// The packet behind the hole, which is released next.
        next_header: RtpHeader,
        /// Its payload.
        next_payload: &'a [u8],
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
    /// When the last packet came that was released, and how long it was.
    last_arrival: Instant,
    last_duration_ticks: u32,
    /// Whether the gap before the next packet has been told already.
    gap_is_told: bool,
    /// What lies before the next packet was given up.
    follows_loss: bool,
}

/// Packets that were given up together.
#[derive(Clone, Copy, Debug)]
struct Hole {
    first: u16,
    /// The one behind them.
    end: u16,
    /// Since when they were known to be missing.
    seen: Instant,
}

/// What a line needs that brings packets out of order.
#[derive(Clone, Copy, Debug)]
struct Disorder {
    wait: Duration,
    last: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Reorder {
    clock_rate_hz: u32,
    slots: Box<[Slot]>,
    waiting: usize,
    position: Option<Position>,
    last_hole: Option<Hole>,
    disorder: Option<Disorder>,
    late_run: u8,
    last_late: u16,
    tally: Tally,
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
            last_hole: None,
            disorder: None,
            late_run: 0,
            last_late: 0,
            tally: Tally::default(),
        }
    }

    /// What became of the present source's packets.
    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The account of the line that this one replaces goes on, if the source stays the same.
    pub(super) fn go_on_from(&mut self, former: &Self) {
        self.tally = former.tally.clone();
    }

    /// Takes a packet that lasts `duration_ticks` (0 for events and comfort noise, which share the sequence). Call
    /// [`Self::pop`] until it gives nothing after each push.
    pub fn push(&mut self, now: Instant, header: &RtpHeader, payload: &[u8], duration_ticks: u32) -> Pushed {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Pushed::TooLong;
        }
        let mut ahead = match self.position {
            Some(position) if position.ssrc == header.ssrc => {
                sequence_distance(position.next_sequence, header.sequence_number)
            }
            Some(_) | None => self.restart(now, header),
        };
        if ahead < 0 {
            self.learn(now, header.sequence_number);
            let follows = header.sequence_number == self.last_late.wrapping_add(1);
            self.late_run = if follows { self.late_run + 1 } else { 1 };
            self.last_late = header.sequence_number;
            if self.late_run < LATE_RUN_MEANS_RESTART {
                return self.tally.on_behind(ahead.unsigned_abs());
            }
        } else if ahead >= SLOTS as i16 {
            // No more space to wait: what is here goes on without what is missing.
            ahead -= self.give_up().cast_signed();
        } else {
            self.note_order(now, header.sequence_number);
        }
        if !(0..SLOTS as i16).contains(&ahead) {
            self.restart(now, header);
        }
        self.late_run = 0;
        let slot = &mut self.slots[usize::from(header.sequence_number) % SLOTS];
        if slot.header.is_some() {
            return Pushed::Duplicate;
        }
        (slot.header, slot.arrival, slot.duration_ticks, slot.len) =
            (Some(*header), now, duration_ticks, payload.len());
        slot.payload[..payload.len()].copy_from_slice(payload);
        self.waiting += 1;
        Pushed::Kept
    }

    /// Where the next packet is expected on the sender's clock.
    pub fn expected_timestamp(&self) -> Option<u32> {
        self.position.map(|position| position.next_timestamp)
    }

    /// What can leave now.
    pub fn pop(&mut self, now: Instant) -> Option<Release<'_>> {
        let first = self.first_waiting()?;
        if self.slots[first].header?.sequence_number != self.position?.next_sequence {
            let has_waited = match self.disorder {
                None => self.waiting >= HOLE_PACKETS,
                Some(_) => false,
            };
            if !has_waited && now < self.seen()? + self.hole_wait() {
                return None;
            }
            self.give_up();
        }
        let position = self.position.as_mut()?;
        let slot = &mut self.slots[first];
        let header = slot.header?;
        if !position.gap_is_told {
            position.gap_is_told = true;
            let next_payload = &slot.payload[..slot.len];
            if let Some(gap) = gap_before(position, &header, slot.arrival, self.clock_rate_hz, next_payload) {
                return Some(gap);
            }
        }
        *position = Position {
            ssrc: header.ssrc,
            next_sequence: header.sequence_number.wrapping_add(1),
            next_timestamp: header.timestamp.wrapping_add(slot.duration_ticks),
            last_arrival: slot.arrival,
            last_duration_ticks: slot.duration_ticks,
            gap_is_told: false,
            follows_loss: false,
        };
        slot.header = None;
        self.waiting -= 1;
        self.tally.on_there(slot.duration_ticks);
        Some(Release::Packet { header, payload: &slot.payload[..slot.len], arrival: slot.arrival })
    }

    /// When a hole will be given up.
    pub fn next_timeout(&self) -> Option<Deadline> {
        self.seen().map(|seen| Deadline::new(seen + self.hole_wait(), "telephone packet missing"))
    }

    fn hole_wait(&self) -> Duration {
        self.disorder.map_or(HOLE_WAIT, |disorder| disorder.wait)
    }

    /// The slot of the earliest packet.
    fn first_waiting(&self) -> Option<usize> {
        let next_sequence = self.position?.next_sequence;
        (0..SLOTS as u16)
            .map(|ahead| usize::from(next_sequence.wrapping_add(ahead)) % SLOTS)
            .find(|&slot| self.slots[slot].header.is_some())
    }

    /// Since when a hole is known: the first arrival behind it.
    fn seen(&self) -> Option<Instant> {
        self.slots.iter().filter(|slot| slot.header.is_some()).map(|slot| slot.arrival).min()
    }

    /// Expects the earliest packet that waits, and returns how many before it are given up; 0 if none waits.
    fn give_up(&mut self) -> u16 {
        let header = self.first_waiting().and_then(|first| self.slots[first].header);
        let (Some(header), Some(seen), Some(position)) = (header, self.seen(), &mut self.position) else { return 0 };
        let missing = header.sequence_number.wrapping_sub(position.next_sequence);
        self.last_hole = Some(Hole { first: position.next_sequence, end: header.sequence_number, seen });
        (position.next_sequence, position.follows_loss) = (header.sequence_number, true);
        self.tally.on_missing(missing);
        missing
    }

    /// A packet came too late: would it have been in time, had its hole been waited for longer?
    fn learn(&mut self, now: Instant, sequence_number: u16) {
        let Some(hole) = self.last_hole else { return };
        let is_in_hole =
            sequence_distance(hole.first, sequence_number) >= 0 && sequence_distance(sequence_number, hole.end) > 0;
        let wait = now.saturating_since(hole.seen) + WAIT_MARGIN;
        if is_in_hole && wait <= MAX_HOLE_WAIT {
            self.disorder = Some(Disorder { wait: wait.max(self.hole_wait()), last: now });
        }
    }

    /// A packet came in time: was that worth the wait, or is the line in order again?
    fn note_order(&mut self, now: Instant, sequence_number: u16) {
        let Some(disorder) = &mut self.disorder else { return };
        let is_behind = |slot: &Slot| {
            slot.header.is_some_and(|waiting| sequence_distance(sequence_number, waiting.sequence_number) > 0)
        };
        if self.slots.iter().any(is_behind) {
            disorder.last = now;
        } else if now.saturating_since(disorder.last) > FORGET_AFTER {
            self.disorder = None;
        }
    }

    /// Begins anew with this packet; its distance from where it is expected is then 0.
    fn restart(&mut self, now: Instant, header: &RtpHeader) -> i16 {
        for slot in &mut self.slots {
            slot.header = None;
        }
        self.waiting = 0;
        self.tally.restart(header.ssrc);
        self.position = Some(match self.position {
            Some(position) if position.ssrc == header.ssrc => {
                Position { next_sequence: header.sequence_number, gap_is_told: false, follows_loss: false, ..position }
            }
            // Another source has a clock of its own: the time that has passed here stands for the gap.
            Some(position) => {
                let gap_ticks = passed_ticks(&position, now, self.clock_rate_hz);
                Position {
                    ssrc: header.ssrc,
                    next_sequence: header.sequence_number,
                    next_timestamp: header.timestamp.wrapping_sub(gap_ticks),
                    gap_is_told: false,
                    follows_loss: false,
                    ..position
                }
            }
            None => Position {
                ssrc: header.ssrc,
                next_sequence: header.sequence_number,
                next_timestamp: header.timestamp,
                last_arrival: now,
                last_duration_ticks: 0,
                gap_is_told: true,
                follows_loss: false,
            },
        });
        0
    }
}

/// What lies between the last packet and `header`.
fn gap_before<'a>(
    position: &Position,
    header: &RtpHeader,
    arrival: Instant,
    clock_rate_hz: u32,
    next_payload: &'a [u8],
) -> Option<Release<'a>> {
    let told_ticks = timestamp_distance(position.next_timestamp, header.timestamp);
    let passed_ticks = passed_ticks(position, arrival, clock_rate_hz);
    // A timestamp that leads or lags the clock by more than a second is a sender's new start, not a gap.
    let is_plausible = told_ticks.abs_diff(passed_ticks.cast_signed()) <= clock_rate_hz;
    let gap_ticks = if is_plausible { told_ticks.max(0).cast_unsigned() } else { passed_ticks };
    let is_next = !position.follows_loss;
    if gap_ticks == 0 || is_next && gap_ticks <= clock_rate_hz / 1000 * TIMESTAMP_SLACK_MS {
        None
    } else if is_next || gap_ticks > clock_rate_hz / 1000 * MAX_CONCEALED_MS {
        Some(Release::Jump { duration_ticks: gap_ticks })
    } else {
        Some(Release::Conceal { duration_ticks: gap_ticks, next_header: *header, next_payload })
    }
}

/// What the clock says of the time between the last packet's end and the arrival of another.
fn passed_ticks(position: &Position, arrival: Instant, clock_rate_hz: u32) -> u32 {
    ticks(arrival.saturating_since(position.last_arrival), clock_rate_hz).saturating_sub(position.last_duration_ticks)
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
                Release::Conceal { duration_ticks, .. } => -(duration_ticks as i32 / 8),
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
        assert_eq!(reorder.push(ms(30), &header(11), &[11], 160), Pushed::Duplicate);
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
    fn no_packet_is_lost_behind_a_hole_of_any_length() {
        for missing in 1..40 {
            let mut reorder = Reorder::new(8000);
            assert_eq!(push(&mut reorder, ms(0), 10), [10]);
            let first = 11 + missing;
            let mut heard = push(&mut reorder, ms(u64::from(missing) * 20 + 20), first);
            heard.extend(push(&mut reorder, ms(u64::from(missing) * 20 + 40), first + 1));
            let gap = if missing > 5 { -1000 - i32::from(missing) * 20 } else { -i32::from(missing) * 20 };
            assert_eq!(heard, [gap, i32::from(first), i32::from(first) + 1], "{missing} missing");
        }
    }

    #[test]
    fn a_line_that_brings_packets_late_is_waited_for_until_it_keeps_the_order() {
        let mut reorder = Reorder::new(8000);
        assert_eq!(push(&mut reorder, ms(0), 10), [10]);
        assert!(push(&mut reorder, ms(40), 12).is_empty());
        assert_eq!(push(&mut reorder, ms(60), 13), [-20, 12, 13]);
        // 11 comes 50 ms after it was first missed: from now on that is waited for, and 5 ms more.
        assert!(push(&mut reorder, ms(90), 11).is_empty());
        assert!(push(&mut reorder, ms(100), 15).is_empty());
        assert!(push(&mut reorder, ms(120), 16).is_empty());
        assert_eq!(reorder.next_timeout().unwrap().at, ms(155));
        assert_eq!(push(&mut reorder, ms(150), 14), [14, 15, 16]);
        // A true loss is given up then, and a hole long after all disorder as soon as ever.
        assert!(push(&mut reorder, ms(200), 18).is_empty());
        assert_eq!(drain(&mut reorder, ms(255)), [-20, 18]);
        let mut now = 400;
        for sequence_number in 19..=120 {
            now = 20 * u64::from(sequence_number) * 10;
            let mut header = header(sequence_number);
            header.timestamp = 18 * 160 + (u32::from(sequence_number) - 18) * 1600;
            reorder.push(ms(now), &header, &[0], 1600);
            drain(&mut reorder, ms(now));
        }
        for (later, sequence_number) in [(20, 122), (40, 123)] {
            let mut header = header(sequence_number);
            header.timestamp = 18 * 160 + 103 * 1600 + (u32::from(sequence_number) - 121) * 160;
            reorder.push(ms(now + later), &header, &[sequence_number as u8], 160);
        }
        assert_eq!(drain(&mut reorder, ms(now + 40)), [-20, 122, 123]);
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
        assert_eq!(drain(&mut reorder, ms(50)), [-1030, 1]);
        // The same source far ahead, with an unrelated timestamp.
        let ahead = RtpHeader { sequence_number: 50_000, timestamp: 5, ..other };
        reorder.push(ms(80), &ahead, &[2], 160);
        assert_eq!(drain(&mut reorder, ms(80)), [-1010, 2]);
        // And from behind: stragglers at first, then believed.
        for late in 0..4 {
            let behind = RtpHeader { sequence_number: 49_000 + late, timestamp: 160 * u32::from(late), ..other };
            assert_eq!(reorder.push(ms(90), &behind, &[3], 160), Pushed::Duplicate);
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
