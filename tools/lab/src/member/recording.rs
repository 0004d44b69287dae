//! What a member heard of one stream: its packets with their times of arrival, and the sound that they make on the
//! one clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::opus::{Decoder, FRAME_SAMPLES, RATE_HZ};
use crate::pcm::Pcm;

/// A packet whose time of arrival is further than this from where its timestamp would have it belongs to a new
/// beginning: the sender has changed its clock.
const NEW_BEGINNING_US: i64 = 400_000;
/// A hole longer than this stays silent.
const LONGEST_HOLE_SAMPLES: i64 = RATE_HZ as i64;

/// An Opus packet of no more bytes announces a pause (RFC 7587 §3.1.3).
const PAUSE_BYTES: usize = 2;

/// One stream as one member heard it.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The stream's id.
    pub stream: String,
    /// Its publisher's id.
    pub source: String,
    /// Its publisher's name.
    pub username: String,
    /// Its label.
    pub label: String,
    /// When it was offered.
    pub offered_us: u64,
    /// When it was connected, 0 before that.
    pub connected_us: u64,
    /// When it ended, 0 before that.
    pub closed_us: u64,
    /// All that came, in order of arrival.
    pub packets: Vec<HeardPacket>,
}

/// A packet as it came.
#[derive(Clone, Debug)]
pub struct HeardPacket {
    /// When.
    pub at_us: u64,
    /// RTP payload type.
    pub payload_type: u8,
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker.
    pub marker: bool,
    /// What it carries.
    pub payload: Arc<[u8]>,
}

/// A stream in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Packets that came, repetitions not counted.
    pub packets: usize,
    /// Packets that did not.
    pub lost: usize,
    /// The longest time between two arrivals.
    pub longest_gap_us: u64,
    /// How late the latest packet was, against the earliest and by the timestamps.
    pub jitter_us: u64,
}

/// A packet in its place in the stream.
struct Placed<'a> {
    at_us: i64,
    sequence: i64,
    /// On the clock of the samples.
    timestamp: i64,
    /// When its first sample is heard.
    heard_us: i64,
    packet: &'a HeardPacket,
}

impl Recording {
    /// The sound from a time on, as somebody hears it who waits for every packet: the earliest packet sets the clock
    /// and the others follow by their timestamps; what was lost is recovered or made up.
    pub fn sound(&self, from_us: u64) -> Pcm {
        let mut samples: Vec<i16> = Vec::new();
        let Ok(mut decoder) = Decoder::new() else { return Pcm::default() };
        let mut put = |heard_us: i64, sound: &[i16]| {
            let start = (heard_us - from_us as i64) * i64::from(RATE_HZ) / 1_000_000;
            // What was heard before the recording begins is cut off.
            let skipped = usize::try_from(-start).unwrap_or(0).min(sound.len());
            let start = usize::try_from(start).unwrap_or(0);
            let sound = &sound[skipped..];
            let end = start + sound.len();
            if samples.len() < end {
                samples.resize(end, 0);
            }
            samples[start..end].copy_from_slice(sound);
        };
        let mut previous: Option<(i64, i64)> = None;
        let mut pauses = false;
        for placed in self.placed() {
            if let Some((sequence, end)) = previous {
                let hole = placed.timestamp - end;
                if pauses && placed.sequence == sequence + 1 && (1..=LONGEST_HOLE_SAMPLES).contains(&hole) {
                    // As in a browser, the decoder makes the noise of a pause.
                    for frame in (1..=hole / FRAME_SAMPLES as i64).rev() {
                        let before_us = frame * FRAME_SAMPLES as i64 * 1_000_000 / i64::from(RATE_HZ);
                        put(placed.heard_us - before_us, &decoder.conceal());
                    }
                }
                if placed.sequence > sequence + 1 && (1..=LONGEST_HOLE_SAMPLES).contains(&hole) {
                    let frames = hole / FRAME_SAMPLES as i64;
                    for frame in (1..=frames).rev() {
                        let sound =
                            if frame == 1 { decoder.recover(&placed.packet.payload) } else { decoder.conceal() };
                        let before_us = frame * FRAME_SAMPLES as i64 * 1_000_000 / i64::from(RATE_HZ);
                        put(placed.heard_us - before_us, &sound);
                    }
                }
            }
            let sound = decoder.decode(&placed.packet.payload);
            put(placed.heard_us, &sound);
            pauses = placed.packet.payload.len() <= PAUSE_BYTES;
            previous = Some((placed.sequence, placed.timestamp + sound.len() as i64));
        }
        Pcm { rate_hz: RATE_HZ, samples }
    }

    /// The stream in figures.
    pub fn statistics(&self) -> Statistics {
        let placed = self.placed();
        let lost = placed.windows(2).map(|pair| pair[1].sequence - pair[0].sequence - 1).sum::<i64>();
        let jitter = placed.iter().map(|placed| placed.at_us - placed.heard_us).max().unwrap_or(0);
        let gaps = self.packets.windows(2).map(|pair| pair[1].at_us.saturating_sub(pair[0].at_us));
        Statistics {
            packets: placed.len(),
            lost: usize::try_from(lost).unwrap_or(0),
            longest_gap_us: gaps.max().unwrap_or(0),
            jitter_us: u64::try_from(jitter).unwrap_or(0),
        }
    }

    /// Writes the sound from a time on as `NAME-STREAM.wav` into a folder.
    ///
    /// # Errors
    ///
    /// In words, if the file cannot be written.
    pub fn write(&self, folder: &Path, from_us: u64) -> Result<PathBuf, String> {
        let harmless = |text: &str| text.replace(|character: char| !character.is_alphanumeric(), "_");
        let path = folder.join(format!("{}-{}.wav", harmless(&self.username), harmless(&self.stream)));
        self.sound(from_us).write_wav(&path)?;
        Ok(path)
    }

    /// The packets in the order of their sequence numbers, each at its time on the one clock.
    fn placed(&self) -> Vec<Placed<'_>> {
        let mut placed: Vec<Placed<'_>> = Vec::new();
        let mut highest: Option<(i64, i64)> = None;
        for packet in &self.packets {
            let (sequence, timestamp) = match highest {
                None => (i64::from(packet.sequence), i64::from(packet.timestamp)),
                // Each number is the one nearest to the highest so far (RFC 3550 A.1).
                Some((sequence, timestamp)) => (
                    sequence + i64::from(packet.sequence.wrapping_sub(sequence as u16) as i16),
                    timestamp + i64::from(packet.timestamp.wrapping_sub(timestamp as u32) as i32),
                ),
            };
            if highest.is_none_or(|(so_far, _)| sequence > so_far) {
                highest = Some((sequence, timestamp));
            }
            let at_us = i64::try_from(packet.at_us).unwrap_or(i64::MAX);
            placed.push(Placed { at_us, sequence, timestamp, heard_us: 0, packet });
        }
        placed.sort_by_key(|placed| placed.sequence);
        placed.dedup_by_key(|placed| placed.sequence);
        let mut start = 0;
        while start < placed.len() {
            let reference = placed[start].offset_us();
            let same = |placed: &Placed<'_>| (placed.offset_us() - reference).abs() <= NEW_BEGINNING_US;
            let length = placed[start..].iter().take_while(|placed| same(placed)).count().max(1);
            let segment = &mut placed[start..start + length];
            let earliest = segment.iter().map(Placed::offset_us).min().unwrap_or(0);
            for one in segment {
                one.heard_us = earliest + one.timestamp_us();
            }
            start += length;
        }
        placed
    }
}

impl Placed<'_> {
    fn timestamp_us(&self) -> i64 {
        self.timestamp * 1_000_000 / i64::from(RATE_HZ)
    }

    fn offset_us(&self) -> i64 {
        self.at_us - self.timestamp_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opus::{Encoder, EncoderConfig};
    use crate::pcm;

    /// A second of warble, frame by frame, the first heard at 1 s.
    fn recording() -> (Recording, Pcm) {
        let sound = Pcm::warble(RATE_HZ, 1.0);
        let mut encoder = Encoder::new(EncoderConfig::default()).unwrap();
        let packet = |(index, frame): (usize, &[i16])| HeardPacket {
            at_us: 1_000_000 + 20_000 * index as u64,
            payload_type: 111,
            sequence: 65_530u16.wrapping_add(index as u16),
            timestamp: u32::MAX.wrapping_add(960 * index as u32),
            marker: false,
            payload: Arc::from(encoder.encode(frame)),
        };
        let packets = sound.samples.chunks_exact(FRAME_SAMPLES).enumerate().map(packet).collect();
        (Recording { packets, ..Recording::default() }, sound)
    }

    #[test]
    fn a_packet_is_heard_where_it_arrived() {
        let (recording, sound) = recording();
        let heard = recording.sound(900_000);
        assert_eq!(heard.samples.len(), 4_800 + sound.samples.len());
        assert!(heard.samples[..4_800].iter().all(|sample| *sample == 0));
        assert!(pcm::level_dbfs(&heard.samples[5_000..]) > -30.0);
        assert_eq!(recording.sound(1_100_000).samples.len(), sound.samples.len() - 4_800);
        let expected = Statistics { packets: 50, lost: 0, longest_gap_us: 20_000, jitter_us: 0 };
        assert_eq!(recording.statistics(), expected);
    }

    #[test]
    fn disorder_repetition_and_jitter_change_nothing_and_loss_is_filled() {
        let (recording, _) = recording();
        let whole = recording.sound(1_000_000);
        let mut shaken = recording.clone();
        shaken.packets.swap(10, 11);
        shaken.packets[20].at_us += 70_000;
        shaken.packets.push(shaken.packets[3].clone());
        assert_eq!(shaken.sound(1_000_000), whole);
        let mut torn = recording;
        torn.packets.drain(20..23);
        let figures = torn.statistics();
        assert_eq!((figures.packets, figures.lost, figures.longest_gap_us), (47, 3, 80_000));
        let torn = torn.sound(1_000_000);
        assert_eq!(torn.samples.len(), whole.samples.len());
        // The last of the three is recovered from the packet after the hole.
        assert!(pcm::level_dbfs(&torn.samples[22 * 960..23 * 960]) > -40.0);
    }

    #[test]
    fn a_sender_that_changes_its_clock_is_heard_on() {
        let (mut recording, _) = recording();
        for packet in &mut recording.packets[25..] {
            packet.timestamp = packet.timestamp.wrapping_add(10 * RATE_HZ);
        }
        let heard = recording.sound(1_000_000);
        assert_eq!(heard.samples.len(), RATE_HZ as usize);
    }
}
