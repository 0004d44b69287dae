//! Lost packets of a room stream, asked for again by RTCP generic NACK (RFC 4585 §6.2.1).
//!
//! Owns: which numbers are missing, when to ask for which, the round trip that the answers show, when asking is in vain.
//! Does not own: the RTCP bytes (`rtcp_session`), and whether the sound waits for an answer: that is the jitter buffer's
//! decision, on another thread, which sees the answers come late and grows by [`LONGEST_WAIT`] at most.
//! Flow: [`Requester::on_received`] for each authentic packet, then [`Requester::poll`] once the socket is empty.
//! Invariants: nothing is allocated; a number is asked for at most `MAX_TRIES` times and only while its answer can still
//! be played.
//!
//! Galene answers for audio too, though its SDP says no `nack`: `gotNACK` in its `rtpconn/rtpconn.go` sends whatever its
//! cache of 24 packets or more has, with the old sequence number. The round trip is that of the requests themselves: a
//! connection that only receives gets none from RTCP, since nobody reports on it (Galene's SR there carry no blocks).

use std::time::Duration;

use crate::time::Instant;
use crate::wire::rtp::{RtpHeader, sequence_distance};

/// How long after its time a packet can still be played. Someone who speaks to a telephone hears the answer later by so
/// much: 40 ms are the time until the loss shows (the next packet, and the next look at the socket), 40 the round trip.
pub const LONGEST_WAIT: Duration = Duration::from_millis(80);

/// Numbers looked back: those of [`LONGEST_WAIT`] at 200 packets a second, the most that a leg may bring; and one request
/// names so many with a single bit mask.
pub const WINDOW_PACKETS: u16 = 16;

/// A packet that was overtaken by the next one comes within this time; otherwise it is lost.
const PATIENCE: Duration = Duration::from_millis(3);

/// An answer can be lost too; more than this does not fit into [`LONGEST_WAIT`] where the round trip is worth measuring.
const MAX_TRIES: u8 = 3;

/// The round trip before the first answer, for the second try alone.
const ASSUMED_ROUND_TRIP: Duration = Duration::from_millis(30);

/// The least that an answer may be later than usual before it counts as lost.
const LEAST_MARGIN: Duration = Duration::from_millis(5);

/// So many requests in a row without an answer: the packets never reached Galene, or it does not answer.
const IN_VAIN: u8 = 8;

/// Where asking is in vain or the answers come too late, one request in this time finds out whether that has changed.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// A number that leads by more is a restart of the sender if the next one follows it (RFC 3550 A.1).
const MAX_DROPOUT: i16 = 3000;

/// The oldest number of the window, from the newest.
const OLDEST: i16 = 1 - WINDOW_PACKETS.cast_signed();

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NackStats {
    /// Packets asked for, each try counted.
    pub asked: u32,
    /// Packets that came after they were asked for.
    pub recovered: u32,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    /// When it would have come, between its neighbours.
    expected: Instant,
    /// When the packet behind it came.
    noticed: Instant,
    first_asked: Instant,
    last_asked: Instant,
    tries: u8,
}

/// See the module.
#[derive(Debug)]
pub struct Requester {
    ssrc: Option<u32>,
    highest: u16,
    highest_arrival: Instant,
    /// Of the numbers up to `highest`, by number: what is missing.
    missing: [Option<Missing>; WINDOW_PACKETS as usize],
    missing_count: u16,
    /// What would confirm a restart.
    restart: Option<u16>,
    round_trip: Option<Duration>,
    deviation: Duration,
    /// Packets given up in a row.
    unanswered: u8,
    next_probe: Instant,
    stats: NackStats,
}

impl Default for Requester {
    fn default() -> Self {
        Self::new()
    }
}

impl Requester {
    /// Before the first packet.
    pub const fn new() -> Self {
        Self {
            ssrc: None,
            highest: 0,
            highest_arrival: Instant::ZERO,
            missing: [None; WINDOW_PACKETS as usize],
            missing_count: 0,
            restart: None,
            round_trip: None,
            deviation: Duration::ZERO,
            unanswered: 0,
            next_probe: Instant::ZERO,
            stats: NackStats { asked: 0, recovered: 0 },
        }
    }

    /// What came of it so far.
    pub const fn stats(&self) -> NackStats {
        self.stats
    }

    /// From a request to its answer, averaged; `None` before the first answer.
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Takes note of a packet.
    pub fn on_received(&mut self, arrival: Instant, header: &RtpHeader) {
        let number = header.sequence_number;
        if self.ssrc != Some(header.ssrc) {
            self.ssrc = Some(header.ssrc);
            return self.restart_at(arrival, number);
        }
        match sequence_distance(self.highest, number) {
            0 => {}
            1..=MAX_DROPOUT => self.advance_to(arrival, number),
            OLDEST..=-1 => self.fill(arrival, number),
            _ if self.restart == Some(number) => self.restart_at(arrival, number),
            _ => self.restart = Some(number.wrapping_add(1)),
        }
    }

    /// What to ask for now, in ascending order; to be sent at once.
    pub fn poll(&mut self, now: Instant, requests: &mut [u16; WINDOW_PACKETS as usize]) -> usize {
        if self.missing_count == 0 {
            return 0;
        }
        let mut count = 0;
        let round_trip = self.round_trip.unwrap_or(Duration::ZERO);
        let patience = self.round_trip.unwrap_or(ASSUMED_ROUND_TRIP) + LEAST_MARGIN.max(self.deviation * 4);
        for back in (0..WINDOW_PACKETS).rev() {
            let number = self.highest.wrapping_sub(back);
            let Some(missing) = &mut self.missing[place(number)] else { continue };
            let is_due = match missing.tries {
                0 => now >= missing.noticed + PATIENCE,
                1..MAX_TRIES => now >= missing.last_asked + patience,
                MAX_TRIES.. => false,
            };
            let latest = missing.expected + LONGEST_WAIT;
            let is_promising = self.unanswered < IN_VAIN && now + round_trip <= latest;
            let is_probe = !is_promising && missing.tries == 0 && now <= latest && now >= self.next_probe;
            if is_due && (is_promising || is_probe) {
                if is_probe {
                    self.next_probe = now + PROBE_INTERVAL;
                }
                if missing.tries == 0 {
                    missing.first_asked = now;
                }
                (missing.last_asked, missing.tries) = (now, missing.tries + 1);
                requests[count] = number;
                count += 1;
            }
        }
        self.stats.asked = self.stats.asked.wrapping_add(count as u32);
        count
    }

    /// What was known of the numbers is forgotten, not what is known of the path.
    fn restart_at(&mut self, arrival: Instant, number: u16) {
        (self.highest, self.highest_arrival) = (number, arrival);
        self.missing = [None; WINDOW_PACKETS as usize];
        (self.missing_count, self.restart) = (0, None);
    }

    fn advance_to(&mut self, arrival: Instant, number: u16) {
        let steps = number.wrapping_sub(self.highest);
        let gap = arrival.saturating_since(self.highest_arrival);
        let first = steps.saturating_sub(WINDOW_PACKETS) + 1;
        for step in first..=steps {
            let expected = self.highest_arrival + gap * u32::from(step) / u32::from(steps);
            let is_missing = step < steps;
            let missing = is_missing.then_some(Missing {
                expected,
                noticed: arrival,
                first_asked: Instant::ZERO,
                last_asked: Instant::ZERO,
                tries: 0,
            });
            self.replace(self.highest.wrapping_add(step), missing);
        }
        (self.highest, self.highest_arrival, self.restart) = (number, arrival, None);
    }

    /// A number enters the window, and the one of [`WINDOW_PACKETS`] before leaves it.
    fn replace(&mut self, number: u16, missing: Option<Missing>) {
        if missing.is_none() && self.missing[place(number)].is_none() {
            return;
        }
        self.missing_count += u16::from(missing.is_some());
        if let Some(left) = std::mem::replace(&mut self.missing[place(number)], missing) {
            self.missing_count -= 1;
            self.unanswered = self.unanswered.saturating_add(u8::from(left.tries > 0));
        }
    }

    /// A number of the window comes late.
    fn fill(&mut self, arrival: Instant, number: u16) {
        let Some(missing) = self.missing[place(number)].take() else { return };
        self.missing_count -= 1;
        if missing.tries == 0 {
            return;
        }
        self.stats.recovered = self.stats.recovered.wrapping_add(1);
        self.unanswered = 0;
        // Nobody knows which of two requests was answered. Taking the first errs towards asking less, and a path that has
        // become longer than the wait for the second shows.
        self.measure(arrival.saturating_since(missing.first_asked));
    }

    /// Averages as RFC 6298 §2 does, but with less memory: there are few samples.
    fn measure(&mut self, sample: Duration) {
        match self.round_trip {
            Some(mean) => {
                self.deviation = (self.deviation * 3 + mean.abs_diff(sample)) / 4;
                self.round_trip = Some((mean * 3 + sample) / 4);
            }
            None => (self.round_trip, self.deviation) = (Some(sample), sample / 2),
        }
    }
}

const fn place(number: u16) -> usize {
    (number % WINDOW_PACKETS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const LOOK_US: u64 = 20_000;
    const NOTHING: [u16; 0] = [];

    fn ms(ms: u64) -> Instant {
        Instant::from_us(ms * 1000)
    }

    fn receive(requester: &mut Requester, arrival: Instant, sequence_number: u16) {
        let header = RtpHeader { marker: false, payload_type: 111, sequence_number, timestamp: 0, ssrc: 7 };
        requester.on_received(arrival, &header);
    }

    fn poll(requester: &mut Requester, now: Instant) -> Vec<u16> {
        let mut requests = [0; WINDOW_PACKETS as usize];
        let count = requester.poll(now, &mut requests);
        requests[..count].to_vec()
    }

    /// Packets 20 ms apart from 65 530 on, of which `lost` (counted from 0) do not come.
    fn received(packets: u64, lost: &[u64]) -> Requester {
        let mut requester = Requester::new();
        for packet in (0..packets).filter(|packet| !lost.contains(packet)) {
            receive(&mut requester, ms(packet * 20), number(packet));
        }
        requester
    }

    fn number(packet: u64) -> u16 {
        65_530u16.wrapping_add(packet as u16)
    }

    #[test]
    fn a_hole_is_asked_for_once_the_next_packet_has_been_there_for_3_ms() {
        let mut requester = received(8, &[6]);
        assert_eq!(poll(&mut requester, ms(142)), NOTHING);
        assert_eq!(poll(&mut requester, ms(143)), [number(6)]);
        assert_eq!(poll(&mut requester, ms(150)), NOTHING);
    }

    #[test]
    fn an_overtaken_packet_is_not_asked_for() {
        let mut requester = received(8, &[6]);
        receive(&mut requester, ms(142), number(6));
        assert_eq!(poll(&mut requester, ms(150)), NOTHING);
        assert_eq!(requester.stats(), NackStats::default());
    }

    #[test]
    fn an_answer_tells_the_round_trip_and_a_lost_one_is_asked_for_again_after_it() {
        let mut requester = received(20, &[18]);
        assert_eq!(poll(&mut requester, ms(383)), [number(18)]);
        receive(&mut requester, ms(393), number(18));
        assert_eq!(requester.round_trip(), Some(Duration::from_millis(10)));
        assert_eq!(requester.stats(), NackStats { asked: 1, recovered: 1 });
        receive(&mut requester, ms(420), number(21));
        assert_eq!(poll(&mut requester, ms(423)), [number(20)]);
        // 10 ms and four times the deviation.
        assert_eq!(poll(&mut requester, ms(452)), NOTHING);
        assert_eq!(poll(&mut requester, ms(453)), [number(20)]);
        // It was expected at 400 ms: after 470 an answer would come too late.
        assert_eq!(poll(&mut requester, ms(500)), NOTHING);
        receive(&mut requester, ms(459), number(20));
        assert_eq!(requester.round_trip(), Some(Duration::from_micros(16_500)));
    }

    #[test]
    fn of_a_long_hole_only_what_can_still_be_played_is_asked_for() {
        let mut requester = received(41, &(10..40).collect::<Vec<_>>());
        // 803 ms: what was expected before 723 is over.
        assert_eq!(poll(&mut requester, ms(803)), [37, 38, 39].map(number));
    }

    #[test]
    fn where_the_answers_come_too_late_one_request_in_five_seconds_finds_out_whether_that_has_changed() {
        let mut requester = Requester::new();
        let (mut answers, mut asked) = (Vec::new(), Vec::new());
        for packet in 0..1500_u64 {
            let now = ms(packet * 20);
            for (at, number) in answers.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
                receive(&mut requester, at, number);
            }
            if packet % 20 != 10 {
                receive(&mut requester, now, number(packet));
            }
            let now = now + PATIENCE;
            for number in poll(&mut requester, now) {
                asked.push(now);
                answers.push((now + Duration::from_millis(120), number));
            }
        }
        assert!((6..=9).contains(&asked.len()), "{asked:?}");
        assert_eq!(requester.round_trip(), Some(Duration::from_millis(120)));
        // The path becomes short: the next probes bring the average down.
        let asked = requester.stats().asked;
        for packet in 1500..4000_u64 {
            if packet % 20 != 10 {
                receive(&mut requester, ms(packet * 20), number(packet));
            }
            let now = ms(packet * 20 + 3);
            for number in poll(&mut requester, now) {
                receive(&mut requester, now + Duration::from_millis(10), number);
            }
        }
        assert!(requester.stats().asked - asked > 50, "{:?}", requester.stats());
        assert_eq!(requester.round_trip().map(|round_trip| round_trip.as_millis()), Some(10));
    }

    #[test]
    fn what_was_never_sent_is_asked_for_eight_times_and_then_rarely() {
        let mut requester = Requester::new();
        let mut asked = 0;
        for packet in (0..1000_u64).filter(|packet| packet % 4 != 3) {
            receive(&mut requester, ms(packet * 20), number(packet));
            asked += poll(&mut requester, ms(packet * 20 + 3)).len();
        }
        // Each of the eight twice, those that were under way when the eighth left the window, and four probes in 20 s.
        assert!((16..=32).contains(&asked), "{asked}");
    }

    #[test]
    fn a_restart_or_another_source_leaves_nothing_to_ask_for() {
        let mut requester = received(20, &[18]);
        let header = RtpHeader { marker: true, payload_type: 111, sequence_number: 9, timestamp: 0, ssrc: 8 };
        requester.on_received(ms(390), &header);
        assert_eq!(poll(&mut requester, ms(400)), NOTHING);
        let mut requester = received(20, &[18]);
        receive(&mut requester, ms(385), 30_000);
        receive(&mut requester, ms(386), 30_001);
        assert_eq!(poll(&mut requester, ms(400)), NOTHING);
        receive(&mut requester, ms(390), 30_003);
        assert_eq!(poll(&mut requester, ms(400)), [30_002]);
    }

    /// Everything ever received and asked, by numbers that do not wrap: the slow truth about which packets are missing.
    #[derive(Default)]
    struct Oracle {
        arrivals: BTreeMap<i64, Instant>,
        asked: BTreeMap<i64, Vec<Instant>>,
    }

    impl Oracle {
        /// Whether a request at `now` was right; that none was forgotten is judged by the caller.
        fn may_ask(&self, number: i64, now: Instant, round_trip: Duration) -> bool {
            let Some((&behind, &noticed)) = self.arrivals.range(number + 1..).min_by_key(|(_, at)| **at) else {
                return false;
            };
            let asked = self.asked.get(&number).map_or(&[][..], Vec::as_slice);
            let (&newest, _) = self.arrivals.last_key_value().unwrap();
            !self.arrivals.contains_key(&number)
                && behind > number
                && newest - number < i64::from(WINDOW_PACKETS)
                && now >= noticed + PATIENCE
                && asked.len() < usize::from(MAX_TRIES)
                && asked.last().is_none_or(|&last| now >= last + round_trip + LEAST_MARGIN)
        }
    }

    proptest! {
        /// On any network: no request for what is here, was never noticed, or is old; no number more than thrice or within a
        /// round trip; and with answers within 30 ms, no first request is ever missed.
        #[test]
        fn requests_agree_with_a_history_of_everything(
            start in any::<u16>(),
            fates in proptest::collection::vec((0..100u32, 0..25_000u64), 40..200),
            loss_percent in 1..40u32,
            round_trip_us in 500..30_000u64,
        ) {
            let (mut requester, mut oracle) = (Requester::new(), Oracle::default());
            let number = |packet: i64| start.wrapping_add(packet as u16);
            let mut flying: Vec<(u64, i64)> = Vec::new();
            for (packet, (fate, late_us)) in fates.iter().enumerate() {
                // The first comes in any case, and a little reordering is part of it.
                if *fate >= loss_percent || packet == 0 {
                    flying.push((packet as u64 * 20_000 + late_us, packet as i64));
                }
            }
            flying.sort_unstable();
            let mut answered = 0u32;
            for look in 0..fates.len() as u64 + 10 {
                let now_us = look * LOOK_US + 7_000;
                let mut here: Vec<_> = flying.extract_if(.., |(at, _)| *at <= now_us).collect();
                here.sort_unstable();
                for (at_us, packet) in here {
                    receive(&mut requester, Instant::from_us(at_us), number(packet));
                    // The numbers before the first that came are unknown.
                    oracle.arrivals.entry(packet).or_insert_with(|| Instant::from_us(at_us));
                }
                let now = Instant::from_us(now_us);
                let known_round_trip = requester.round_trip().unwrap_or(ASSUMED_ROUND_TRIP);
                let requests = poll(&mut requester, now);
                let Some((&newest, _)) = oracle.arrivals.last_key_value() else { continue };
                let first = *oracle.arrivals.first_key_value().unwrap().0;
                prop_assert!(requests.is_sorted_by_key(|request| sequence_distance(number(newest), *request)));
                for packet in first.max(newest - 40)..newest {
                    let asks = requests.contains(&number(packet));
                    let may = oracle.may_ask(packet, now, known_round_trip);
                    prop_assert!(may || !asks, "packet {} at {:?}", packet, now);
                    let is_first = !oracle.asked.contains_key(&packet);
                    // Its place in time is that between its neighbours when it was noticed: here at least its own, less jitter.
                    let is_early = now_us + 30_000 <= packet as u64 * 20_000 + 80_000;
                    prop_assert!(asks || !(may && is_first && is_early && answered > 0), "packet {} at {:?}", packet, now);
                    if asks {
                        oracle.asked.entry(packet).or_default().push(now);
                        flying.push((now_us + round_trip_us, packet));
                        answered += 1;
                    }
                }
            }
        }
    }
}
