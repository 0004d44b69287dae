//! How well speech came through: what was said against what was heard.
//!
//! Owns: delay by cross-correlation, level, frames that went missing, likeness; and the call of `tools/quality`, which
//! adds PESQ and STOI where Python has them. Does not own: recording. All of it works on 8 kHz, telephone band.

use std::f64::consts::PI;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The rate at which everything is compared.
pub const RATE_HZ: u32 = 8000;
/// A frame of the comparison: 20 ms.
const FRAME_SAMPLES: usize = 160;
/// Mean square above which a frame of the reference counts as speech (−40 dBFS).
const SPEECH_POWER: f64 = 1e-4;
/// A frame of speech that arrives 30 dB weaker than it was said is missing.
const MISSING_RATIO: f64 = 1e-3;
/// Below this likeness it is not our speech that was recorded.
const RECOGNISED: f64 = 0.5;

/// The measure that needs no other program.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// How much later the speech stands in the recording, in ms.
    pub delay_ms: f64,
    /// Likeness at that delay, 0 to 1.
    pub correlation: f64,
    /// Recorded against said, in dB, where there is speech.
    pub gain_db: f64,
    /// Frames of 20 ms with speech.
    pub speech_frames: usize,
    /// How many of them are missing.
    pub missing_frames: usize,
    /// Mean signal-to-distortion ratio over the frames with speech, in dB, each limited to −10 to 35.
    pub segmental_snr_db: f64,
}

impl Quality {
    /// Whether what was said was heard at all.
    pub fn is_recognised(&self) -> bool {
        self.speech_frames > 0 && self.correlation >= RECOGNISED
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "likeness {:.3}, level {:+.1} dB, {} of {} frames of speech missing, segmental SNR {:.1} dB",
            self.correlation, self.gain_db, self.missing_frames, self.speech_frames, self.segmental_snr_db
        )
    }
}

/// Compares samples of 8 kHz.
pub fn measure(said: &[i16], heard: &[i16]) -> Quality {
    let (said, heard) = (unit(said), unit(heard));
    let lag = best_lag(&said, &heard);
    let heard_at = |position: usize| position as i64 + lag;
    let (mut speech_frames, mut missing_frames, mut compared) = (0, 0, Vec::new());
    for (index, frame) in frames(&said).enumerate().filter(|(_, frame)| power(frame) > SPEECH_POWER) {
        speech_frames += 1;
        let begin = usize::try_from(heard_at(index * FRAME_SAMPLES)).ok();
        match begin.and_then(|begin| heard.get(begin..begin + FRAME_SAMPLES)) {
            Some(there) => compared.push((frame, there)),
            // Speech beyond the recording's ends is as missing as what was lost within it.
            None => missing_frames += 1,
        }
    }
    missing_frames += compared.iter().filter(|(one, other)| power(other) < power(one) * MISSING_RATIO).count();
    let (mut product, mut said_energy, mut heard_energy) = (0.0, 0.0, 0.0);
    for (one, other) in &compared {
        product += one.iter().zip(*other).map(|(said, heard)| said * heard).sum::<f64>();
        said_energy += energy(one);
        heard_energy += energy(other);
    }
    let scale = product / said_energy.max(1e-12);
    let segmental: f64 = compared.iter().map(|(one, other)| snr_db(one, other, scale)).sum();
    Quality {
        delay_ms: lag as f64 * 1000.0 / f64::from(RATE_HZ),
        correlation: product.abs() / (said_energy * heard_energy).sqrt().max(1e-12),
        gain_db: 10.0 * (heard_energy.max(1e-12) / said_energy.max(1e-12)).log10(),
        speech_frames,
        missing_frames,
        segmental_snr_db: segmental / compared.len().max(1) as f64,
    }
}

/// How far what was heard lies above its difference from what was said times `scale`.
fn snr_db(said: &[f64], heard: &[f64], scale: f64) -> f64 {
    let error: Vec<f64> = said.iter().zip(heard).map(|(said, heard)| scale * said - heard).collect();
    let ratio = power(said) * scale * scale / power(&error).max(1e-12);
    (10.0 * ratio.max(1e-3).log10()).clamp(-10.0, 35.0)
}

/// What Python adds.
#[derive(Debug, Clone, PartialEq)]
pub struct Perceived {
    /// ITU-T P.862 narrow band, 1 to 4.5.
    pub pesq_nb: f64,
    /// ITU-T P.862.2 wide band, if what was said has 16 kHz or more.
    pub pesq_wb: Option<f64>,
    /// Short-time objective intelligibility, 0 to 1; some machines have PESQ alone.
    pub stoi: Option<f64>,
}

/// PESQ and STOI of two WAV files by `tools/quality`.
///
/// # Errors
/// In words, when Python, its packages or speech in the files are missing.
pub fn perceived(said: &Path, heard: &Path) -> Result<Perceived, String> {
    let mut judged = perceived_each(said, &[heard])?;
    judged.pop().ok_or_else(|| "tools/quality said nothing".to_owned())
}

/// The same of several recordings of what was said, in one go.
///
/// # Errors
/// As for [`perceived`], whichever recording it is.
pub fn perceived_each(said: &Path, heard: &[&Path]) -> Result<Vec<Perceived>, String> {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../quality"));
    let output = Command::new("python3")
        .arg(script)
        .arg(said)
        .args(heard)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("python3 cannot be run ({error})"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let judged: Vec<Perceived> = text.lines().filter_map(judged).collect();
    if judged.len() == heard.len() {
        return Ok(judged);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(errors.lines().last().unwrap_or("tools/quality said too little").to_owned())
}

/// One line of `tools/quality`.
fn judged(line: &str) -> Option<Perceived> {
    let value: Value = line.parse().ok()?;
    let pesq_wb = value["pesq_wb"].as_f64();
    Some(Perceived { pesq_nb: value["pesq_nb"].as_f64()?, pesq_wb, stoi: value["stoi"].as_f64() })
}

fn unit(samples: &[i16]) -> Vec<f64> {
    samples.iter().map(|&sample| f64::from(sample) / 32768.0).collect()
}

fn energy(samples: &[f64]) -> f64 {
    samples.iter().map(|sample| sample * sample).sum()
}

fn power(samples: &[f64]) -> f64 {
    energy(samples) / samples.len().max(1) as f64
}

fn frames(samples: &[f64]) -> impl Iterator<Item = &[f64]> {
    samples.chunks_exact(FRAME_SAMPLES)
}

/// By how many samples `heard` lags behind `said`: the peak of their cross-correlation, by way of the spectrum.
fn best_lag(said: &[f64], heard: &[f64]) -> i64 {
    let size = (said.len() + heard.len()).max(2).next_power_of_two();
    let transformed = |samples: &[f64]| {
        let mut values: Vec<(f64, f64)> = samples.iter().map(|&sample| (sample, 0.0)).collect();
        values.resize(size, (0.0, 0.0));
        transform(&mut values);
        values
    };
    let (one, other) = (transformed(said), transformed(heard));
    // The conjugate of the product with the conjugate: a forward transform of it then is the correlation.
    let mut product: Vec<(f64, f64)> =
        one.iter().zip(&other).map(|(a, b)| (a.0 * b.0 + a.1 * b.1, a.1 * b.0 - a.0 * b.1)).collect();
    transform(&mut product);
    let peak = (0..size).max_by(|&a, &b| product[a].0.abs().total_cmp(&product[b].0.abs())).unwrap_or(0);
    if peak < heard.len() { peak as i64 } else { peak as i64 - size as i64 }
}

/// Fourier transform in place, radix 2; the length is a power of two.
fn transform(values: &mut [(f64, f64)]) {
    let size = values.len();
    let bits = size.trailing_zeros();
    for index in 0..size {
        let mirrored = index.reverse_bits() >> (usize::BITS - bits);
        if index < mirrored {
            values.swap(index, mirrored);
        }
    }
    let mut half = 1;
    while half < size {
        let turns: Vec<(f64, f64)> =
            (0..half).map(|k| -PI * k as f64 / half as f64).map(|angle| (angle.cos(), angle.sin())).collect();
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for ((one, other), turn) in low.iter_mut().zip(high).zip(&turns) {
                let turned = (other.0 * turn.0 - other.1 * turn.1, other.0 * turn.1 + other.1 * turn.0);
                *other = (one.0 - turned.0, one.1 - turned.1);
                *one = (one.0 + turned.0, one.1 + turned.1);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech::Reference;
    use crate::telephone::Codec;

    #[test]
    fn delay_level_and_lost_frames_are_found() {
        let said = Reference::built_in().at(RATE_HZ);
        let coded = said.iter().map(|&sample| Codec::Pcmu.decode(Codec::Pcmu.encode(sample)) / 2);
        let mut heard: Vec<i16> = std::iter::repeat_n(0, 421).chain(coded).collect();
        let whole = measure(&said, &heard);
        assert!((whole.delay_ms - 421.0 / 8.0).abs() < 0.01, "{whole:?}");
        assert!(whole.is_recognised() && whole.correlation > 0.99 && whole.missing_frames == 0, "{whole:?}");
        assert!((whole.gain_db + 6.0).abs() < 0.3 && whole.segmental_snr_db > 20.0, "{whole:?}");
        heard[8000..12_800].fill(0);
        let holed = measure(&said, &heard);
        assert!((10..=31).contains(&holed.missing_frames), "{holed:?}");
    }

    #[test]
    fn a_recording_that_begins_late_has_a_negative_delay_and_silence_is_not_speech() {
        let said = Reference::built_in().at(RATE_HZ);
        let cut = measure(&said, &said[5000..]);
        assert!((cut.delay_ms + 625.0).abs() < 0.01 && cut.missing_frames > 0, "{cut:?}");
        assert!(!measure(&said, &vec![0; 40_000]).is_recognised());
        assert!(!measure(&said, &[]).is_recognised());
        assert!(!measure(&[], &said).is_recognised());
    }
}
