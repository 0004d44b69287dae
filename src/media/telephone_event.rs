//! Keys as RTP events (RFC 4733): each press once, however many of its packets are lost, doubled or out of order.
//!
//! Owns: which packets belong to one press, when it is over. Does not own: which payload type they have (`control`).
//!
//! All packets of a press carry the RTP time of its beginning, and its length so far. So whatever begins before the end of the
//! press known last is that press, or an older one: also from the many senders whose timestamps run on during a press.

use std::time::Duration;

use super::control::{EventFormat, KeyForm, KeyPress};
use crate::time::Instant;
use crate::wire::rtp::{RtpHeader, timestamp_distance};

/// A press without news for so long is over: its packets come every 20 to 50 ms, and the last one thrice.
const LOST_AFTER: Duration = Duration::from_millis(250);

/// So long after a press its timestamp means nothing any more: the sender may have begun a new clock.
const FORGET_AFTER: Duration = Duration::from_secs(5);

/// The sixteen keys by their numbers (RFC 4733 §3.2).
const KEYS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

/// One telephone's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TelephoneEvents {
    press: Option<Press>,
}

/// The latest press.
#[derive(Clone, Copy, Debug)]
struct Press {
    ssrc: u32,
    key: char,
    /// On the RTP clock; of the first segment, if there are several.
    begin: u32,
    end: u32,
    last: Instant,
    is_over: bool,
}

impl TelephoneEvents {
    pub(super) const fn new() -> Self {
        Self { press: None }
    }

    /// Takes a packet; gives a press that is over by it.
    pub(super) fn handle_packet(
        &mut self,
        now: Instant,
        header: &RtpHeader,
        payload: &[u8],
        format: EventFormat,
    ) -> Option<KeyPress> {
        // RFC 4733 §2.3: event; end bit, reserved bit, volume; duration.
        let &[event, flags, high, low, ..] = payload else { return None };
        // Flash and what is no key at all has no use here.
        let key = *KEYS.get(usize::from(event))?;
        let (is_end, duration) = (flags & 0x80 != 0, u32::from(u16::from_be_bytes([high, low])));
        let end = header.timestamp.wrapping_add(duration);
        let mut former = None;
        if self.press.is_some_and(|press| press.is_over && now.saturating_since(press.last) > FORGET_AFTER) {
            self.press = None;
        }
        match &mut self.press {
            Some(press) if press.ssrc == header.ssrc && press.is_same_or_older(key, header) => {
                if press.is_over || key != press.key || timestamp_distance(press.begin, header.timestamp) < 0 {
                    return None;
                }
                press.last = now;
                if timestamp_distance(press.end, end) > 0 {
                    press.end = end;
                }
            }
            other => {
                // The end of the former one was lost, should it still be open.
                former = other.take().filter(|press| !press.is_over).map(|press| press.told(format));
                let (ssrc, begin) = (header.ssrc, header.timestamp);
                self.press = Some(Press { ssrc, key, begin, end, last: now, is_over: false });
            }
        }
        // A press that begins while another one ends is told at its own end packet's repetition, or when that is missed.
        if is_end && former.is_none() { self.finish(format) } else { former }
    }

    /// Each tick: a press whose end got lost.
    pub(super) fn handle_timeout(&mut self, now: Instant, format: EventFormat) -> Option<KeyPress> {
        let press = self.press.as_ref().filter(|press| !press.is_over)?;
        if now.saturating_since(press.last) < LOST_AFTER { None } else { self.finish(format) }
    }

    fn finish(&mut self, format: EventFormat) -> Option<KeyPress> {
        let press = self.press.as_mut().filter(|press| !press.is_over)?;
        press.is_over = true;
        Some(press.told(format))
    }
}

impl Press {
    fn is_same_or_older(&self, key: char, header: &RtpHeader) -> bool {
        let past_end = timestamp_distance(self.end, header.timestamp);
        // RFC 4733 §2.5.1.3: a key held for longer than the duration can say goes on in a further segment.
        let is_next_segment = past_end == 0 && !self.is_over && key == self.key && !header.marker;
        past_end < 0 || header.timestamp == self.begin || is_next_segment
    }

    fn told(&self, format: EventFormat) -> KeyPress {
        let ticks = u64::from(self.end.wrapping_sub(self.begin));
        let duration_ms = ticks * 1000 / u64::from(format.clock_rate_hz.max(1));
        KeyPress { key: self.key, form: KeyForm::Event, duration_ms: u16::try_from(duration_ms).unwrap_or(u16::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORMAT: EventFormat = EventFormat { payload_type: 101, clock_rate_hz: 8000 };

    fn header(timestamp: u32, marker: bool) -> RtpHeader {
        RtpHeader { marker, payload_type: 101, sequence_number: 0, timestamp, ssrc: 9 }
    }

    fn payload(event: u8, is_end: bool, duration: u16) -> [u8; 4] {
        let [high, low] = duration.to_be_bytes();
        [event, u8::from(is_end) << 7 | 10, high, low]
    }

    /// A press as telephones send it: every 20 ms, the end thrice. With its time in ms.
    fn press(event: u8, begin_ms: u64, length_ms: u64) -> Vec<(u64, RtpHeader, [u8; 4])> {
        let timestamp = (begin_ms * 8) as u32;
        let at = |ms: u64, is_end| {
            (begin_ms + ms, header(timestamp, ms == 20), payload(event, is_end, (ms.min(length_ms) * 8) as u16))
        };
        let body = (1..length_ms / 20).map(|turn| at(turn * 20, false));
        body.chain((0..3).map(|turn| at(length_ms + 20 * turn, true))).collect()
    }

    fn keys(packets: &[(u64, RtpHeader, [u8; 4])], end_ms: u64) -> Vec<(char, u16)> {
        let (mut events, mut found, mut next) = (TelephoneEvents::new(), Vec::new(), 0);
        for ms in (0..end_ms).step_by(20) {
            let now = Instant::from_us(ms * 1000);
            while let Some((_, header, payload)) = packets.get(next).filter(|packet| packet.0 <= ms) {
                found.extend(events.handle_packet(now, header, payload, FORMAT));
                next += 1;
            }
            found.extend(events.handle_timeout(now, FORMAT));
        }
        found.into_iter().map(|press| (press.key, press.duration_ms)).collect()
    }

    #[test]
    fn every_key_is_told_once_with_its_length() {
        for (event, key) in KEYS.into_iter().enumerate() {
            assert_eq!(keys(&press(event as u8, 1000, 100), 3000), [(key, 100)]);
        }
        assert_eq!(keys(&press(16, 1000, 100), 3000), []);
    }

    #[test]
    fn the_same_key_twice_in_a_row_is_two_presses() {
        let packets = [press(5, 1000, 80), press(5, 1200, 60)].concat();
        assert_eq!(keys(&packets, 3000), [('5', 80), ('5', 60)]);
    }

    #[test]
    fn a_press_without_an_end_is_over_with_the_next_one_or_after_250_ms() {
        let without_end = |event, begin| {
            let mut packets = press(event, begin, 100);
            packets.truncate(4);
            packets
        };
        let packets = [without_end(1, 1000), press(2, 1160, 100), without_end(3, 2000)].concat();
        assert_eq!(keys(&packets, 4000), [('1', 80), ('2', 100), ('3', 80)]);
    }

    #[test]
    fn a_key_that_is_held_for_ten_seconds_goes_on_in_segments() {
        let mut packets = Vec::new();
        for turn in 1..=500u64 {
            let ticks = turn * 160;
            let (segment, within) = ((ticks - 1) / 65_535, (ticks - 1) % 65_535 + 1);
            let timestamp = 8000 + (segment * 65_535) as u32;
            packets.push((1000 + turn * 20, header(timestamp, turn == 1), payload(7, turn == 500, within as u16)));
            if within + 160 > 65_535 {
                packets.push((1000 + turn * 20, header(timestamp, false), payload(7, false, u16::MAX)));
            }
        }
        assert_eq!(keys(&packets, 13_000), [('7', 10_000)]);
    }

    #[test]
    fn a_timestamp_that_runs_on_during_a_press_is_the_same_press() {
        let mut packets = press(4, 1000, 120);
        for (at, (_, header, _)) in packets.iter_mut().enumerate() {
            header.timestamp += 100 * at as u32;
        }
        let told = keys(&packets, 3000);
        assert!(matches!(told[..], [('4', _)]), "{told:?}");
    }

    proptest! {
        #[test]
        fn each_key_is_told_once_whatever_is_lost_doubled_or_late(
            seed in proptest::collection::vec((any::<bool>(), 0..3u64, 0..60u64), 40),
        ) {
            let all = [press(1, 1000, 100), press(2, 1500, 100), press(2, 2000, 140)];
            let mut packets = Vec::new();
            for press in &all {
                // One of each press comes in any case.
                let spared = seed[0].1 as usize;
                for (at, packet) in press.iter().enumerate() {
                    let (lost, copies, late_ms) = seed[(at + packets.len()) % seed.len()];
                    if lost && at != spared {
                        continue;
                    }
                    packets.extend((0..=copies).map(|copy| (packet.0 + late_ms * copy, packet.1, packet.2)));
                }
            }
            packets.sort_by_key(|packet| packet.0);
            let told: String = keys(&packets, 4000).into_iter().map(|(key, _)| key).collect();
            prop_assert_eq!(told, "122");
        }

        #[test]
        fn nothing_panics(packets in proptest::collection::vec((any::<u32>(), any::<bool>(), any::<[u8; 4]>()), 0..50)) {
            let mut events = TelephoneEvents::new();
            for (timestamp, marker, payload) in packets {
                events.handle_packet(Instant::ZERO, &header(timestamp, marker), &payload, FORMAT);
            }
            events.handle_packet(Instant::ZERO, &header(0, false), &[1], FORMAT);
        }
    }
}
