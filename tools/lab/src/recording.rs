//! What arrived at a telephone, placed on the clock that everything in the laboratory shares.
//!
//! Owns: arrival times and RTP timestamps → positions. Within one run of a stream packets stand where their RTP
//! timestamps put them, and the run as a whole stands where the median packet arrived, so that neither one late
//! packet nor jitter moves the speech. Does not own: decoding. RFC: 3550 §5.1.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::pcm::Pcm;

/// A packet whose timestamp and arrival disagree by this much begins a new run, as after a hold.
const NEW_RUN: Duration = Duration::from_millis(500);
/// A day's worth of silence in front of a run is a mistake, not a recording.
const LONGEST: Duration = Duration::from_secs(3600);

/// Samples of one stream after the other, with their time.
#[derive(Debug, Clone)]
pub struct Recording {
    rate_hz: u32,
    runs: Vec<Run>,
}

#[derive(Debug, Clone)]
struct Run {
    ssrc: u32,
    first_timestamp: u32,
    first_arrival: Instant,
    packets: Vec<Packet>,
}

#[derive(Debug, Clone)]
struct Packet {
    /// Samples after the run's first timestamp.
    offset_samples: i64,
    arrival: Instant,
    samples: Vec<i16>,
}

impl Recording {
    /// An empty recording of that sample rate, which is also the RTP clock rate.
    pub fn new(rate_hz: u32) -> Self {
        Self { rate_hz, runs: Vec::new() }
    }

    /// Samples per second.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Adds what one RTP packet brought.
    pub fn add(&mut self, arrival: Instant, ssrc: u32, timestamp: u32, samples: Vec<i16>) {
        let rate_hz = i64::from(self.rate_hz);
        let fitting = self.runs.last_mut().filter(|run| run.ssrc == ssrc).and_then(|run| {
            let offset_samples = i64::from(timestamp.wrapping_sub(run.first_timestamp) as i32);
            let due = signed_us(arrival, run.first_arrival) - offset_samples * 1_000_000 / rate_hz;
            (due.unsigned_abs() < NEW_RUN.as_micros() as u64).then_some((run, offset_samples))
        });
        match fitting {
            Some((run, offset_samples)) => run.packets.push(Packet { offset_samples, arrival, samples }),
            None => self.runs.push(Run {
                ssrc,
                first_timestamp: timestamp,
                first_arrival: arrival,
                packets: vec![Packet { offset_samples: 0, arrival, samples }],
            }),
        }
    }

    /// The samples from `origin` on; silence where nothing arrived.
    pub fn render(&self, origin: Instant) -> Vec<i16> {
        let rate_hz = i64::from(self.rate_hz);
        let longest = LONGEST.as_secs() as i64 * rate_hz;
        let mut output = Vec::new();
        for run in &self.runs {
            let mut arrivals: Vec<i64> = run
                .packets
                .iter()
                .map(|packet| signed_us(packet.arrival, origin) - packet.offset_samples * 1_000_000 / rate_hz)
                .collect();
            arrivals.sort_unstable();
            let start = arrivals[arrivals.len() / 2] * rate_hz / 1_000_000;
            for packet in &run.packets {
                let position = start + packet.offset_samples;
                let skipped = (-position).clamp(0, packet.samples.len() as i64) as usize;
                let position = position.max(0);
                if position > longest || skipped == packet.samples.len() {
                    continue;
                }
                let (from, samples) = (position as usize, &packet.samples[skipped..]);
                if output.len() < from + samples.len() {
                    output.resize(from + samples.len(), 0);
                }
                output[from..from + samples.len()].copy_from_slice(samples);
            }
        }
        output
    }

    /// Writes `render(origin)` as a WAV.
    pub fn write_wav(&self, path: &Path, origin: Instant) -> Result<(), String> {
        Pcm { rate_hz: self.rate_hz, samples: self.render(origin) }.write_wav(path)
    }
}

fn signed_us(later: Instant, earlier: Instant) -> i64 {
    match later.checked_duration_since(earlier) {
        Some(after) => after.as_micros() as i64,
        None => -(earlier.duration_since(later).as_micros() as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_packet_stands_at_its_timestamp_and_a_lost_one_leaves_silence() {
        let origin = Instant::now();
        let mut recording = Recording::new(8000);
        let base = u32::MAX - 200;
        for (index, delay_ms) in [(0, 9), (1, 0), (2, 0), (4, 0)] {
            let arrival = origin + Duration::from_millis(100 + index * 20 + delay_ms);
            recording.add(arrival, 7, base.wrapping_add(index as u32 * 160), vec![index as i16 + 1; 160]);
        }
        let samples = recording.render(origin);
        assert_eq!(samples[799], 0);
        assert_eq!(samples[800], 1);
        assert_eq!(samples[960], 2);
        assert_eq!(samples[1300], 0);
        assert_eq!((samples[1440], samples.len()), (5, 1600));
    }

    #[test]
    fn after_a_pause_of_timestamps_or_with_another_source_a_new_run_begins() {
        let origin = Instant::now();
        let mut recording = Recording::new(8000);
        recording.add(origin, 7, 0, vec![1; 160]);
        recording.add(origin + Duration::from_secs(2), 7, 160, vec![2; 160]);
        recording.add(origin + Duration::from_secs(3), 8, 99, vec![3; 160]);
        let samples = recording.render(origin);
        assert_eq!((samples[0], samples[160], samples[16000], samples[24000]), (1, 0, 2, 3));
    }
}
