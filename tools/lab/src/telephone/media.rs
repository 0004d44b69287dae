//! The voice of a telephone: RTP out every 20 ms by an absolute clock, RTP in with the time of its arrival.
//!
//! Owns: packets, their order and loss, levels. Does not own: sockets. RFC: 3550, 3551.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::g711::Codec;
use crate::random::random_u64;
use crate::recording::Recording;

/// Both codecs of a telephone run at this rate.
pub const RATE_HZ: u32 = 8000;
/// Levels below this are all called silence.
const SILENCE_DBFS: f64 = -99.0;
/// A sender that was kept off the processor for longer than this leaves the gap and goes on.
const LONGEST_BURST: Duration = Duration::from_millis(200);

/// Counts of what arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reception {
    /// Packets with the negotiated codec.
    pub packets: u64,
    /// Packets with another payload type (comfort noise, events, another codec).
    pub other_payload_types: u64,
    /// Datagrams that are no RTP.
    pub not_rtp: u64,
    /// Sequence numbers that never came, as far as known.
    pub lost: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Packets whose marker bit was set.
    pub markers: u64,
    /// Packets whose timestamp did not advance by their predecessor's length.
    pub timestamp_jumps: u64,
    /// Streams told apart by SSRC.
    pub sources: u64,
    /// The longest time between two packets.
    pub longest_gap: Duration,
}

/// What arrives.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) reception: Reception,
    pub(super) recording: Recording,
    /// SSRC, highest sequence number, its timestamp, its length in samples.
    last: Option<(u32, u16, u32, usize)>,
    last_arrival: Option<Instant>,
    energy: f64,
    samples: u64,
    packets: u32,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            reception: Reception::default(),
            recording: Recording::new(RATE_HZ),
            last: None,
            last_arrival: None,
            energy: 0.0,
            samples: 0,
            packets: 0,
        }
    }

    /// Takes one datagram; true if it was speech in the negotiated codec.
    pub(super) fn handle_datagram(&mut self, now: Instant, codec: Codec, datagram: &[u8]) -> bool {
        let Some(packet) = Rtp::parse(datagram) else {
            self.reception.not_rtp += 1;
            return false;
        };
        if packet.payload_type != codec.payload_type() {
            self.reception.other_payload_types += 1;
            return false;
        }
        self.reception.packets += 1;
        self.reception.markers += u64::from(packet.marker);
        if let Some(before) = self.last_arrival.replace(now) {
            self.reception.longest_gap = self.reception.longest_gap.max(now - before);
        }
        self.follow(&packet);
        let samples: Vec<i16> = packet.payload.iter().map(|&byte| codec.decode(byte)).collect();
        self.energy += samples.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>();
        self.samples += samples.len() as u64;
        self.packets += 1;
        self.recording.add(now, packet.ssrc, packet.timestamp, samples);
        true
    }

    /// Level in dBFS and number of packets since the last call.
    pub(super) fn take_level(&mut self) -> (f64, u32) {
        let level_dbfs = level_dbfs(self.energy, self.samples);
        let packets = std::mem::take(&mut self.packets);
        (self.energy, self.samples) = (0.0, 0);
        (level_dbfs, packets)
    }

    fn follow(&mut self, packet: &Rtp<'_>) {
        let now = Some((packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload.len()));
        match self.last {
            Some((ssrc, sequence_number, timestamp, length)) if ssrc == packet.ssrc => {
                let step = packet.sequence_number.wrapping_sub(sequence_number) as i16;
                if step <= 0 {
                    self.reception.reordered += 1;
                    // It was counted as lost when its successor came.
                    self.reception.lost = self.reception.lost.saturating_sub(u64::from(step < 0));
                    return;
                }
                self.reception.lost += step as u64 - 1;
                let expected = timestamp.wrapping_add(length as u32);
                self.reception.timestamp_jumps += u64::from(step == 1 && packet.timestamp != expected);
            }
            Some(_) | None => self.reception.sources += 1,
        }
        self.last = now;
    }
}

/// 10·log10 of the mean square, 0 dBFS being a full-scale square wave.
pub fn level_dbfs(energy: f64, samples: u64) -> f64 {
    if samples == 0 || energy <= 0.0 {
        return SILENCE_DBFS;
    }
    (10.0 * (energy / samples as f64 / (32768.0 * 32768.0)).log10()).max(SILENCE_DBFS)
}

/// What is said.
#[derive(Debug)]
pub(super) struct Sender {
    codec: Codec,
    samples_a_packet: usize,
    ssrc: u32,
    sequence_number: u16,
    timestamp: u32,
    next_at: Instant,
    is_first: bool,
    speech: Option<(Arc<[i16]>, bool, usize)>,
    pub(super) packets: u64,
}

impl Sender {
    pub(super) fn new(now: Instant, codec: Codec, ptime_ms: u32) -> Self {
        let random = random_u64();
        Self {
            codec,
            samples_a_packet: (RATE_HZ / 1000 * ptime_ms) as usize,
            ssrc: random as u32,
            sequence_number: (random >> 32) as u16,
            timestamp: random_u64() as u32,
            next_at: now,
            is_first: true,
            speech: None,
            packets: 0,
        }
    }

    /// When the next packet is due.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// From now on another codec.
    pub(super) fn set_codec(&mut self, codec: Codec) {
        self.codec = codec;
    }

    /// Speaks from the next packet on, which is due at the returned time.
    pub(super) fn speak(&mut self, samples: Arc<[i16]>, repeats: bool) -> Instant {
        self.speech = Some((samples, repeats, 0));
        self.next_at
    }

    /// The packet that is due, if one is.
    pub(super) fn poll_packet(&mut self, now: Instant) -> Option<Vec<u8>> {
        let length = Duration::from_micros(self.samples_a_packet as u64 * 1_000_000 / u64::from(RATE_HZ));
        while now > self.next_at + LONGEST_BURST {
            self.advance(length);
        }
        if now < self.next_at {
            return None;
        }
        let mut packet = Vec::with_capacity(12 + self.samples_a_packet);
        packet.extend([0x80, self.codec.payload_type() | if self.is_first { 0x80 } else { 0 }]);
        packet.extend(self.sequence_number.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        for _ in 0..self.samples_a_packet {
            let sample = self.next_sample();
            packet.push(self.codec.encode(sample));
        }
        self.is_first = false;
        self.packets += 1;
        self.sequence_number = self.sequence_number.wrapping_add(1);
        self.advance(length);
        Some(packet)
    }

    fn advance(&mut self, length: Duration) {
        self.next_at += length;
        self.timestamp = self.timestamp.wrapping_add(self.samples_a_packet as u32);
    }

    fn next_sample(&mut self) -> i16 {
        let Some((samples, repeats, position)) = &mut self.speech else { return 0 };
        if *position >= samples.len() {
            if !*repeats || samples.is_empty() {
                return 0;
            }
            *position = 0;
        }
        *position += 1;
        samples[*position - 1]
    }
}

/// The fields of an RTP packet that a telephone looks at.
struct Rtp<'a> {
    marker: bool,
    payload_type: u8,
    sequence_number: u16,
    timestamp: u32,
    ssrc: u32,
    payload: &'a [u8],
}

impl<'a> Rtp<'a> {
    fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (header, mut payload) = datagram.split_at_checked(12)?;
        if header[0] >> 6 != 2 {
            return None;
        }
        payload = payload.get(4 * usize::from(header[0] & 0x0f)..)?;
        if header[0] & 0x10 != 0 {
            let words = u16::from_be_bytes([*payload.get(2)?, *payload.get(3)?]);
            payload = payload.get(4 + 4 * usize::from(words)..)?;
        }
        if header[0] & 0x20 != 0 {
            payload = payload.get(..payload.len().checked_sub(usize::from(*payload.last()?))?)?;
        }
        Some(Self {
            marker: header[1] & 0x80 != 0,
            payload_type: header[1] & 0x7f,
            sequence_number: u16::from_be_bytes([header[2], header[3]]),
            timestamp: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_every_20_ms_arrives_as_it_was_said() {
        let start = Instant::now();
        let mut sender = Sender::new(start, Codec::Pcma, 20);
        let mut receiver = Receiver::new();
        sender.speak(Arc::from(vec![5000i16; 240]), false);
        for tick in 0..3 {
            let now = start + Duration::from_millis(20 * tick);
            let packet = sender.poll_packet(now).unwrap();
            assert!(sender.poll_packet(now).is_none());
            assert!(receiver.handle_datagram(now, Codec::Pcma, &packet));
            assert!(!receiver.handle_datagram(now, Codec::Pcmu, &packet));
        }
        let samples = receiver.recording.render(start);
        assert!((samples[239] - 5000).abs() < 200 && samples[240].abs() < 10 && samples.len() == 480);
        let reception = &receiver.reception;
        assert_eq!((reception.packets, reception.lost, reception.markers, reception.sources), (3, 0, 1, 1));
        assert_eq!((reception.timestamp_jumps, reception.other_payload_types), (0, 3));
        let (level, packets) = receiver.take_level();
        assert!((-20.5..-17.5).contains(&level), "{level}");
        assert_eq!(packets, 3);
    }

    #[test]
    fn after_a_long_stop_the_clock_goes_on_without_a_burst() {
        let start = Instant::now();
        let mut sender = Sender::new(start, Codec::Pcmu, 20);
        let now = start + Duration::from_secs(2);
        let burst = std::iter::from_fn(|| sender.poll_packet(now)).count();
        assert_eq!(burst, 11);
    }

    #[test]
    fn loss_and_reordering_are_counted() {
        let now = Instant::now();
        let mut receiver = Receiver::new();
        for sequence_number in [65534u16, 65535, 2, 1, 3] {
            let mut packet = vec![0x80, 0];
            packet.extend(sequence_number.to_be_bytes());
            packet.extend([0; 168]);
            receiver.handle_datagram(now, Codec::Pcmu, &packet);
        }
        assert_eq!((receiver.reception.lost, receiver.reception.reordered), (1, 1));
        assert!(!receiver.handle_datagram(now, Codec::Pcmu, &[0x80, 0, 1]));
        assert!(!receiver.handle_datagram(now, Codec::Pcmu, &[0xb0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 9]));
    }
}
