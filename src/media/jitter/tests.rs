use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::random::Random;

/// What a decoder was told, one letter a pull: the packet's number, F(ec), C(onceal) or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Packet(u16),
    Fec(u16),
    Conceal,
    Empty,
}
use Heard::{Conceal, Empty, Fec};

/// A stream of packets through a network into the buffer, and a tick every 20 ms.
struct World {
    buffer: JitterBuffer,
    /// Arrival in µs → packets.
    network: BTreeMap<u64, Vec<Sent>>,
    now_us: u64,
    /// Sound that the decoder has left, in RTP ticks.
    left_ticks: u32,
}

#[derive(Clone, Copy)]
struct Sent {
    sequence_number: u16,
    timestamp: u32,
    duration_ticks: u32,
    has_fec: bool,
    len: usize,
}

impl World {
    fn new() -> Self {
        Self { buffer: JitterBuffer::new(48_000), network: BTreeMap::new(), now_us: 0, left_ticks: 0 }
    }

    fn send_packet(&mut self, arrival_us: u64, sent: Sent) {
        self.network.entry(arrival_us).or_default().push(sent);
    }

    /// A speech packet of 20 ms, number and time in step.
    fn send(&mut self, arrival_us: u64, sequence_number: u16) {
        let timestamp = u32::from(sequence_number) * 960;
        let sent = Sent { sequence_number, timestamp, duration_ticks: 960, has_fec: false, len: 50 };
        self.send_packet(arrival_us, sent);
    }

    /// One tick: what arrived, then 20 ms of sound.
    fn tick(&mut self) -> Vec<Heard> {
        self.now_us += 20_000;
        let later = self.network.split_off(&(self.now_us + 1));
        for (arrival_us, packets) in std::mem::replace(&mut self.network, later) {
            for sent in packets {
                let mut payload = vec![0; sent.len];
                payload[0] = sent.sequence_number as u8;
                payload[sent.len - 1] = (sent.sequence_number >> 8) as u8;
                self.buffer.push(&Arrival {
                    at: Instant::from_us(arrival_us),
                    sequence_number: sent.sequence_number,
                    timestamp: sent.timestamp,
                    duration_ticks: sent.duration_ticks,
                    has_fec: sent.has_fec,
                    payload: &payload,
                });
            }
        }
        let number = |payload: &[u8]| u16::from_le_bytes([payload[0], payload[payload.len() - 1]]);
        let mut heard = Vec::new();
        while self.left_ticks < 960 {
            let (what, ticks) = match self.buffer.pull(Instant::from_us(self.now_us)) {
                Playout::Packet { payload, duration_ticks } => (Heard::Packet(number(payload)), duration_ticks),
                Playout::Fec { next, duration_ticks } => (Fec(number(next)), duration_ticks),
                Playout::Conceal { duration_ticks } => (Conceal, duration_ticks),
                Playout::Empty => (Empty, 960 - self.left_ticks),
            };
            heard.push(what);
            self.left_ticks += ticks;
        }
        self.left_ticks -= 960;
        heard
    }

    fn ticks(&mut self, count: usize) -> Vec<Heard> {
        (0..count).flat_map(|_| self.tick()).collect()
    }
}

fn packets(numbers: std::ops::Range<u16>) -> Vec<Heard> {
    numbers.map(Heard::Packet).collect()
}

#[test]
fn on_a_clean_network_every_packet_plays_in_turn_with_little_delay() {
    let mut world = World::new();
    for number in 0..500 {
        world.send(u64::from(number) * 20_000 + 7_000, number);
    }
    // Packet 0 came at 7 ms, the tick at 20 ms is too early for it, that at 40 ms takes it: 33 ms.
    assert_eq!(world.ticks(2), [Empty, Heard::Packet(0)]);
    assert_eq!(world.ticks(498), packets(1..499));
    assert_eq!(world.buffer.target_us(), MIN_TARGET_US);
    assert_eq!(world.buffer.stats(), JitterStats { received: 500, ..JitterStats::default() });
}

#[test]
fn reordered_and_doubled_packets_play_once_in_order() {
    let mut world = World::new();
    for number in (0..100u16).step_by(2) {
        world.send(u64::from(number) * 20_000 + 21_000, number);
        world.send(u64::from(number) * 20_000 + 20_500, number + 1);
        world.send(u64::from(number) * 20_000 + 22_000, number);
    }
    let heard = world.ticks(98);
    let played: Vec<_> = heard.iter().filter(|&&heard| heard != Empty && heard != Conceal).copied().collect();
    assert_eq!(played, packets(1..played.len() as u16 + 1), "{heard:?}");
    assert!(world.buffer.stats().duplicates > 40);
}

#[test]
fn a_single_loss_is_concealed_and_the_delay_stays() {
    let mut world = World::new();
    for number in (0..100).filter(|&number| number != 50) {
        world.send(u64::from(number) * 20_000 + 7_000, number);
    }
    let mut expected = vec![Empty];
    expected.extend(packets(0..50));
    expected.push(Conceal);
    expected.extend(packets(51..95));
    assert_eq!(world.ticks(96), expected);
}

#[test]
fn under_loss_the_buffer_waits_for_the_packet_that_repairs() {
    let mut world = World::new();
    let mut lost = 0;
    for number in 0..1000u16 {
        if number % 20 == 10 {
            lost += 1;
            continue;
        }
        let timestamp = u32::from(number) * 960;
        let sent = Sent { sequence_number: number, timestamp, duration_ticks: 960, has_fec: true, len: 70 };
        world.send_packet(u64::from(number) * 20_000 + 12_000, sent);
    }
    world.ticks(998);
    let stats = world.buffer.stats();
    assert!(stats.repaired >= lost - 3, "{stats:?}");
    assert!(world.buffer.target_us() <= 30_000);
}

#[test]
fn of_two_lost_in_a_row_the_second_is_repaired() {
    let mut world = World::new();
    for number in (0..1000u16).filter(|number| !matches!(number % 20, 10 | 11)) {
        let timestamp = u32::from(number) * 960;
        let sent = Sent { sequence_number: number, timestamp, duration_ticks: 960, has_fec: true, len: 70 };
        world.send_packet(u64::from(number) * 20_000 + 12_000, sent);
    }
    world.ticks(998);
    let stats = world.buffer.stats();
    assert!(stats.repaired >= 48 && stats.concealed <= 54, "{stats:?}");
}

#[test]
fn late_packets_make_the_delay_grow_to_what_the_network_needs() {
    let mut world = World::new();
    let mut random = Random::for_test(3);
    for number in 0..3000u16 {
        let late_us = u64::from(random.below(80_000));
        world.send(u64::from(number) * 20_000 + late_us, number);
    }
    world.ticks(1500);
    let before = world.buffer.stats();
    world.ticks(1490);
    let after = world.buffer.stats();
    let target_us = world.buffer.target_us();
    assert!((70_000..=95_000).contains(&target_us), "{target_us}");
    assert!(after.concealed - before.concealed <= 30 && after.late - before.late <= 30, "{before:?} {after:?}");
}

#[test]
fn a_stream_that_breaks_off_is_concealed_for_200_ms_and_then_silent() {
    let mut world = World::new();
    for number in 0..20 {
        world.send(u64::from(number) * 20_000 + 7_000, number);
    }
    let heard = world.ticks(100);
    assert_eq!(heard.iter().filter(|&&heard| heard == Conceal).count(), 10);
    assert_eq!(heard[31..], [Empty; 69]);
    // It returns after 2 s, its clock having run on.
    for number in 100..120 {
        world.send(u64::from(number) * 20_000 + 7_000, number);
    }
    let heard = world.ticks(18);
    assert_eq!(heard[heard.len() - 17..], packets(100..117));
}

#[test]
fn packets_held_up_in_the_network_do_not_delay_what_follows_for_ever() {
    let mut world = World::new();
    for number in 0..1000u16 {
        let sent_us = u64::from(number) * 20_000 + 7_000;
        let arrival_us = if (100..125).contains(&number) { 125 * 20_000 + 7_000 } else { sent_us };
        let timestamp = u32::from(number) * 960;
        let sent = Sent { sequence_number: number, timestamp, duration_ticks: 960, has_fec: false, len: 50 };
        world.send_packet(arrival_us, sent);
    }
    let heard = world.ticks(995);
    // 500 ms came at once: much of it is dropped, nothing plays twice, and what remains too much is left to `pace`.
    let Some(&Heard::Packet(last)) = heard.last() else { panic!("{heard:?}") };
    assert!(last >= 988, "{last}");
    let played: Vec<_> =
        heard.iter().filter_map(|heard| if let Heard::Packet(n) = heard { Some(*n) } else { None }).collect();
    assert!(played.is_sorted_by(|a, b| a < b));
}

#[test]
fn a_pause_of_the_sender_is_silence_and_not_concealed() {
    let mut world = World::new();
    let sent =
        |sequence_number, timestamp, len| Sent { sequence_number, timestamp, duration_ticks: 960, has_fec: false, len };
    for number in 0..10 {
        world.send(u64::from(number) * 20_000 + 7_000, number);
    }
    world.send_packet(207_000, sent(10, 10 * 960, 2));
    // 400 ms later, the next number.
    world.send_packet(607_000, sent(11, 30 * 960, 20));
    world.send_packet(627_000, sent(12, 31 * 960, 20));
    let heard = world.ticks(32);
    assert!(!heard.contains(&Conceal), "{heard:?}");
    assert_eq!(heard[11..=12], [Heard::Packet(10), Empty]);
    assert!(heard.contains(&Heard::Packet(11)));
}

#[test]
fn packets_of_10_40_and_60_ms_play_in_turn() {
    for duration_ticks in [480u32, 1920, 2880] {
        let mut world = World::new();
        for number in 0..60u16 {
            let timestamp = u32::from(number) * duration_ticks;
            let sent = Sent { sequence_number: number, timestamp, duration_ticks, has_fec: false, len: 60 };
            // A packet can be sent only once its last sample was spoken.
            world.send_packet(u64::from(timestamp + duration_ticks) * 1000 / 48 + 1_000, sent);
        }
        let ticks = 60 * duration_ticks as usize / 960 - 3;
        let heard: Vec<_> = world.ticks(ticks).into_iter().filter(|&heard| heard != Empty).collect();
        assert_eq!(heard, packets(0..heard.len() as u16), "{duration_ticks}");
        assert!(heard.len() > 50 - 480 / duration_ticks as usize, "{duration_ticks}: {}", heard.len());
    }
}

#[test]
fn a_sequence_that_starts_anew_is_followed_forwards_and_backwards() {
    let mut world = World::new();
    for number in 0..50u16 {
        world.send(u64::from(number) * 20_000, number);
        world.send((50 + u64::from(number)) * 20_000, 20_000 + number);
        world.send((100 + u64::from(number)) * 20_000, 19_000 + number);
    }
    let heard = world.ticks(148);
    for number in (0..48).chain(20_000..20_048).chain(19_004..19_040) {
        assert!(heard.contains(&Heard::Packet(number)), "{number}");
    }
    assert_eq!(world.buffer.stats().restarts, 2);
}

#[test]
fn what_cannot_be_played_is_refused() {
    let mut buffer = JitterBuffer::new(48_000);
    let arrival = |payload, duration_ticks| Arrival {
        at: Instant::ZERO,
        sequence_number: 1,
        timestamp: 0,
        duration_ticks,
        has_fec: false,
        payload,
    };
    assert_eq!(buffer.push(&arrival(&[0; 1461], 960)), Pushed::Unusable);
    assert_eq!(buffer.push(&arrival(&[], 960)), Pushed::Unusable);
    assert_eq!(buffer.push(&arrival(&[1], 0)), Pushed::Unusable);
    assert_eq!(buffer.pull(Instant::ZERO), Playout::Empty);
    assert_eq!(buffer.push(&arrival(&[1], 960)), Pushed::Kept);
    assert_eq!(buffer.push(&arrival(&[1], 960)), Pushed::Duplicate);
    assert_eq!(buffer.stats(), JitterStats { received: 1, duplicates: 1, unusable: 3, ..JitterStats::default() });
}

proptest! {
    /// Any packets at any time: no panic, each packet plays at most once, sound is made up in bounded stretches.
    #[test]
    fn any_input_is_survived(
        steps in proptest::collection::vec((any::<u16>(), any::<u32>(), 0u64..60_000, 0u32..3000, any::<[bool; 2]>()), 1..300)
    ) {
        let mut buffer = JitterBuffer::new(48_000);
        let (mut now, mut kept, mut played, mut made_up_ticks) = (Instant::ZERO, 0, 0, 0u32);
        let (mut sequence_number, mut timestamp) = (0u16, 0u32);
        for (jump, time_jump, wait_us, duration_ticks, [jumps, has_fec]) in steps {
            now += Duration::from_micros(wait_us);
            let step = if jumps { jump } else { jump % 4 };
            sequence_number = sequence_number.wrapping_add(step);
            timestamp = timestamp.wrapping_add(if jumps { time_jump } else { u32::from(step) * 960 });
            let packet = Arrival { at: now, sequence_number, timestamp, duration_ticks, has_fec, payload: &[1, 2, 3] };
            kept += u32::from(buffer.push(&packet) == Pushed::Kept);
            for _ in 0..2 {
                match buffer.pull(now) {
                    Playout::Packet { .. } => (played, made_up_ticks) = (played + 1, 0),
                    Playout::Conceal { duration_ticks } => made_up_ticks += duration_ticks,
                    Playout::Fec { .. } | Playout::Empty => {}
                }
                prop_assert!(made_up_ticks <= 9600 + 3000);
            }
        }
        prop_assert!(played <= kept);
        for _ in 0..40 {
            buffer.pull(now);
        }
        now += Duration::from_secs(10);
        while !matches!(buffer.pull(now), Playout::Empty) {}
    }
}

/// Packets in step that come 7 ms before a tick, but for those that are lost and come so much later.
fn lossy(count: u16, lost: &[u16], later_us: u64, has_fec: bool) -> World {
    let mut world = World::new();
    for number in 0..count {
        let later_us = if lost.contains(&number) { later_us } else { 0 };
        let timestamp = u32::from(number) * 960;
        let sent = Sent { sequence_number: number, timestamp, duration_ticks: 960, has_fec, len: 50 };
        world.send_packet(u64::from(number) * 20_000 + 13_000 + later_us, sent);
    }
    world
}

#[test]
fn lost_packets_that_come_when_asked_for_again_are_waited_for_from_the_third_on() {
    let lost = [100, 120, 140, 160, 180, 200];
    let mut world = lossy(500, &lost, 45_000, false);
    let heard = world.ticks(490);
    let made_up = |heard: &[Heard]| heard.iter().filter(|heard| **heard == Conceal).count();
    let played = |number| heard.contains(&Heard::Packet(number));
    assert_eq!(lost.map(played), [false, false, true, true, true, true]);
    // The first two, and what delays the sound by a tick at the next hole.
    assert_eq!(made_up(&heard), 3);
    let fourth = heard.iter().position(|heard| *heard == Heard::Packet(160)).unwrap();
    assert_eq!(made_up(&heard[fourth..]), 0);
    assert_eq!(world.buffer.target_us(), 50_000);
}

#[test]
fn a_lost_packet_that_fec_repairs_is_not_waited_for() {
    let lost: Vec<u16> = (1..24).map(|n| n * 20).collect();
    let mut world = lossy(500, &lost, 45_000, true);
    let heard = world.ticks(500);
    assert!(!heard.contains(&Conceal), "{heard:?}");
    assert_eq!(world.buffer.stats().repaired, lost.len() as u64);
}
