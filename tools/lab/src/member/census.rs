//! What a publisher sends, counted: coder, channels, voice, pauses, bit rate.
//!
//! Reads the first two bytes of each packet itself (RFC 6716 §3.1, §4.2.3), since the judge borrows nothing from the
//! gateway.

use crate::opus::{self, Mode};

use super::Recording;

/// Packets of one stream by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Census {
    /// Packets that say no more than that nothing follows.
    pub pauses: usize,
    /// Packets of SILK alone.
    pub silk: usize,
    /// Packets of both coders.
    pub hybrid: usize,
    /// Packets of CELT alone.
    pub celt: usize,
    /// Packets of two channels.
    pub stereo: usize,
    /// Packets in which SILK finds speech.
    pub voiced: usize,
    /// The shortest and the longest payload.
    pub bytes: (usize, usize),
    /// Payload bits a second, from the first to the last packet.
    pub bits_per_second: f64,
    /// Times that a timestamp leaves out what no packet carries.
    pub gaps: usize,
}

impl Census {
    /// Counts all packets.
    pub fn of(recording: &Recording) -> Self {
        let mut census = Self { bytes: (usize::MAX, 0), ..Self::default() };
        let mut total_bytes = 0;
        for packet in &recording.packets {
            let payload = &packet.payload;
            total_bytes += payload.len();
            census.bytes = (census.bytes.0.min(payload.len()), census.bytes.1.max(payload.len()));
            if payload.len() <= 2 {
                census.pauses += 1;
                continue;
            }
            let is_voiced = payload[1] & 0x80 != 0;
            census.stereo += usize::from(payload[0] & 4 != 0);
            match opus::mode(payload) {
                Some(Mode::Silk) => {
                    (census.silk, census.voiced) = (census.silk + 1, census.voiced + usize::from(is_voiced))
                }
                Some(Mode::Hybrid) => {
                    (census.hybrid, census.voiced) = (census.hybrid + 1, census.voiced + usize::from(is_voiced));
                }
                Some(Mode::Celt) | None => census.celt += 1,
            }
        }
        let (first, last) = (recording.packets.first(), recording.packets.last());
        let seconds = last.map_or(0, |last| last.at_us) - first.map_or(0, |first| first.at_us);
        census.bits_per_second = total_bytes as f64 * 8e6 / seconds.max(1) as f64;
        let steps = recording.packets.windows(2);
        census.gaps = steps
            .filter(|pair| {
                pair[1].sequence == pair[0].sequence.wrapping_add(1)
                    && pair[1].timestamp.wrapping_sub(pair[0].timestamp) > opus::FRAME_SAMPLES as u32
            })
            .count();
        census
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::HeardPacket;

    #[test]
    fn packets_are_told_apart_by_their_first_bytes() {
        let payloads: [&[u8]; 5] =
            [&[1 << 3, 0x80, 0], &[15 << 3, 0, 0, 0], &[31 << 3 | 4, 0x80, 0], &[15 << 3], &[15 << 3, 0x80, 0]];
        let packets = payloads.into_iter().enumerate().map(|(at, payload)| HeardPacket {
            at_us: at as u64 * 20_000,
            payload_type: 111,
            sequence: at as u16,
            timestamp: at as u32 * 960 + if at == 4 { 9600 } else { 0 },
            marker: false,
            payload: payload.into(),
        });
        let census = Census::of(&Recording { packets: packets.collect(), ..Recording::default() });
        assert_eq!((census.silk, census.hybrid, census.celt, census.pauses), (1, 2, 1, 1));
        assert_eq!((census.voiced, census.stereo, census.gaps, census.bytes), (2, 1, 1, (1, 4)));
    }
}
