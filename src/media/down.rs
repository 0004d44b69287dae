//! From the bus to a telephone: total − own → limiter → 8 kHz → G.711 → RTP.
//!
//! Owns: the rendering of one listener's tick, and the packets of one telephone: sequence, timestamps in the telephone's own
//! clock, marker (RFC 3551 §4.1), packet time. Does not own: who listens to what (`room`).

use super::control::{LegKey, Telephone};
use super::engine::Sink;
use super::g711::Law;
use super::mixer::{BUS_FRAME_SAMPLES, Bus, BusFrame, Limiter};
use super::resample::Down16To8;
use crate::wire::rtp::{HEADER_BYTES, RtpHeader};

/// One tick at 8 kHz, and just as many bytes of G.711.
pub(super) const G711_TICK_BYTES: usize = BUS_FRAME_SAMPLES / 2;

/// One tick as a telephone of that law gets it.
pub(super) type EncodedTick = [u8; G711_TICK_BYTES];

/// A millisecond of G.711, and of G.722: a byte is a tick of their RTP clocks.
const BYTES_A_MS: usize = 8;

/// The longest packet time, plus the tick that completes it.
const MAX_GATHERED_BYTES: usize = 60 * BYTES_A_MS + G711_TICK_BYTES;

/// The longest payload: 60 ms of G.711, or of Opus at up to 136 kbit/s on average, of which we use a fraction.
const MAX_PAYLOAD_BYTES: usize = 1024;

/// Bus to 8 kHz, with the state that must not jump.
#[derive(Clone, Debug)]
pub(super) struct Renderer {
    limiter: Limiter,
    filter: Down16To8,
}

impl Renderer {
    pub(super) fn new() -> Self {
        Self { limiter: Limiter::new(), filter: Down16To8::new() }
    }

    /// What a listener hears who contributed `own`.
    pub(super) fn render(&mut self, bus: &Bus, own: &BusFrame) -> [i16; G711_TICK_BYTES] {
        let (mut wide, mut narrow) = ([0; BUS_FRAME_SAMPLES], [0; G711_TICK_BYTES]);
        bus.minus(own, &mut self.limiter, &mut wide);
        self.filter.process(&wide, &mut narrow);
        narrow
    }
}

/// G.711 of a rendered tick.
pub(super) fn encode(law: Law, pcm: &[i16; G711_TICK_BYTES]) -> EncodedTick {
    let mut bytes = [0; G711_TICK_BYTES];
    law.encode(pcm, &mut bytes);
    bytes
}

/// The packets towards one telephone.
#[derive(Debug)]
pub(super) struct Down {
    leg: LegKey,
    ssrc: u32,
    sequence: u16,
    /// Of the first gathered byte.
    timestamp: u32,
    /// The next packet is the first of a spurt: at the start, and after a hold.
    marker: bool,
    gathered: [u8; MAX_GATHERED_BYTES],
    gathered_bytes: usize,
}

/// What became of a tick's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) packets: u32,
    pub(super) dropped: u32,
}

impl Sent {
    /// One more, which the ring took or not.
    pub(super) fn count(&mut self, is_sent: bool) {
        if is_sent {
            self.packets += 1;
        } else {
            self.dropped += 1;
        }
    }
}

impl Down {
    pub(super) const fn new(leg: LegKey, ssrc: u32, first_sequence: u16, first_timestamp: u32) -> Self {
        Self {
            leg,
            ssrc,
            sequence: first_sequence,
            timestamp: first_timestamp,
            marker: true,
            gathered: [0; MAX_GATHERED_BYTES],
            gathered_bytes: 0,
        }
    }

    /// Time passes without packets, on the RTP clock: a missed tick, or a hold, after which a new spurt begins.
    pub(super) fn skip(&mut self, clock_ticks: u32, ends_spurt: bool) {
        let skipped = clock_ticks.wrapping_add(self.gathered_bytes as u32);
        self.timestamp = self.timestamp.wrapping_add(skipped);
        self.gathered_bytes = 0;
        self.marker |= ends_spurt;
    }

    /// Adds a tick and sends every packet that is complete. Packets of 10 ms leave two at a time.
    pub(super) fn send(&mut self, telephone: &Telephone, tick: &EncodedTick, sink: &mut impl Sink) -> Sent {
        let packet_bytes = packet_ms(telephone.ptime_ms) * BYTES_A_MS;
        if self.gathered_bytes + tick.len() > MAX_GATHERED_BYTES {
            // Unreachable: less than one packet, at most 60 ms, is ever left over.
            self.skip(0, false);
        }
        self.gathered[self.gathered_bytes..][..tick.len()].copy_from_slice(tick);
        self.gathered_bytes += tick.len();
        let mut sent = Sent::default();
        let mut start = 0;
        while self.gathered_bytes - start >= packet_bytes {
            let header = self.next_header(telephone.send_payload_type, packet_bytes as u32);
            sent.count(send(self.leg, &header, &self.gathered[start..start + packet_bytes], sink));
            start += packet_bytes;
        }
        self.gathered.copy_within(start..self.gathered_bytes, 0);
        self.gathered_bytes -= start;
        sent
    }

    /// Sends one packet, which lasts `clock_ticks`.
    pub(super) fn send_packet(
        &mut self,
        payload_type: u8,
        payload: &[u8],
        clock_ticks: u32,
        sink: &mut impl Sink,
    ) -> bool {
        let header = self.next_header(payload_type, clock_ticks);
        send(self.leg, &header, payload, sink)
    }

    fn next_header(&mut self, payload_type: u8, clock_ticks: u32) -> RtpHeader {
        let header = RtpHeader {
            marker: std::mem::take(&mut self.marker),
            payload_type,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(clock_ticks);
        header
    }
}

fn send(leg: LegKey, header: &RtpHeader, payload: &[u8], sink: &mut impl Sink) -> bool {
    let mut packet = [0; HEADER_BYTES + MAX_PAYLOAD_BYTES];
    let len = payload.len().min(MAX_PAYLOAD_BYTES);
    packet[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    packet[HEADER_BYTES..][..len].copy_from_slice(&payload[..len]);
    sink.packet(leg, &packet[..HEADER_BYTES + len])
}

/// What the telephone asked for, if it can be made of ticks.
pub(super) const fn packet_ms(ptime_ms: u8) -> usize {
    match ptime_ms {
        10 | 30 | 40 | 60 => ptime_ms as usize,
        _ => 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::control::{MixEvent, Retired, TelephoneCodec};

    #[derive(Default)]
    struct Packets(Vec<(RtpHeader, Vec<u8>)>);

    impl Sink for Packets {
        fn packet(&mut self, _: LegKey, packet: &[u8]) -> bool {
            let (header, start) = RtpHeader::parse(packet).unwrap();
            self.0.push((header, packet[start..].to_vec()));
            true
        }
        fn event(&mut self, _: MixEvent) {}
        fn retire(&mut self, _: Retired) {}
    }

    fn telephone(ptime_ms: u8) -> Telephone {
        Telephone { ptime_ms, ..Telephone::new(TelephoneCodec::Pcmu, 0) }
    }

    #[test]
    fn every_packet_time_is_honoured_with_timestamps_of_the_telephones_clock() {
        for (ptime_ms, packets_of_120_ms) in [(10, 12), (20, 6), (30, 4), (40, 3), (60, 2), (50, 6)] {
            let (mut down, mut sink) = (Down::new(LegKey(1), 7, 65_534, u32::MAX - 200), Packets::default());
            for tick in 0..6 {
                down.send(&telephone(ptime_ms), &[tick; G711_TICK_BYTES], &mut sink);
            }
            assert_eq!(sink.0.len(), packets_of_120_ms, "{ptime_ms} ms");
            let bytes: Vec<u8> = sink.0.iter().flat_map(|(_, payload)| payload.clone()).collect();
            assert_eq!(bytes, (0..960).map(|i| (i / 160) as u8).collect::<Vec<_>>());
            for (at, pair) in sink.0.windows(2).enumerate() {
                assert_eq!(pair[0].0.marker, at == 0);
                assert!(!pair[1].0.marker);
                assert_eq!(pair[1].0.sequence_number, pair[0].0.sequence_number.wrapping_add(1));
                assert_eq!(pair[1].0.timestamp, pair[0].0.timestamp.wrapping_add(pair[0].1.len() as u32));
            }
        }
    }

    #[test]
    fn a_hold_shows_as_a_timestamp_jump_and_a_marker_but_no_lost_packet() {
        let (mut down, mut sink) = (Down::new(LegKey(1), 7, 0, 0), Packets::default());
        down.send(&telephone(20), &[0; G711_TICK_BYTES], &mut sink);
        down.skip(50 * G711_TICK_BYTES as u32, true);
        down.send(&telephone(20), &[0; G711_TICK_BYTES], &mut sink);
        let (header, _) = sink.0[1];
        assert_eq!((header.sequence_number, header.timestamp, header.marker), (1, 51 * 160, true));
    }
}
