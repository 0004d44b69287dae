//! Something to say: the speech by which a path is measured.
//!
//! Owns: the reference (four sentences by espeak-ng where that is installed, else a voice-like signal made here, so
//! that a bare machine can be judged too), its level and its noise floor, resampling. The reference never repeats
//! itself, so that a delay is found without doubt. Does not own: codecs, measurement.

use std::f64::consts::PI;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{token, voice, wav};

/// Rate in which the reference is made; others are derived from it.
pub const REFERENCE_RATE_HZ: u32 = 48_000;
/// Mean level of the parts that are speech, as ITU-T P.56 has it for measurements.
const ACTIVE_LEVEL_DBFS: f64 = -26.0;
/// A room is never silent; without a floor, silence suppression would be tested instead of speech.
const NOISE_FLOOR_DBFS: f64 = -65.0;
/// Silence around and between the sentences, in seconds.
const PAUSE_S: f64 = 0.5;
/// What counts as speech when the level is set, full scale being 1.
const ACTIVE_SAMPLE: f64 = 0.01;

/// Voices of espeak-ng and what they say: everyday words with many different sounds.
const SENTENCES: [(&str, &str); 4] = [
    ("en-us+m3", "Good morning, everybody. Could you please show the third page of the budget once more?"),
    ("en-gb+f2", "The train from Zürich was forty minutes late, so I joined the meeting by telephone."),
    ("en-us+f4", "My neighbour's dog barks whenever a yellow van stops in front of the bakery."),
    ("en-gb+m7", "We should measure twice, choose the shorter path, and thank those who fixed the bridge."),
];

/// A piece of speech.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Who spoke, for people.
    pub made_by: &'static str,
    samples: Vec<f64>,
}

impl Reference {
    /// By espeak-ng if it is there, else built in.
    pub fn new() -> Self {
        Self::by_espeak().unwrap_or_else(Self::built_in)
    }

    /// The voice-like signal that needs no other program.
    pub fn built_in() -> Self {
        let parts = (0..SENTENCES.len() as u64).map(|index| voice::sentence(REFERENCE_RATE_HZ, index + 1)).collect();
        Self { made_by: "the built-in synthetic voice (espeak-ng is not installed)", samples: assemble(parts) }
    }

    /// `None` if espeak-ng is missing or fails.
    pub fn by_espeak() -> Option<Self> {
        let parts = SENTENCES.iter().map(|(voice, text)| espeak(voice, text)).collect::<Option<Vec<_>>>()?;
        Some(Self { made_by: "espeak-ng", samples: assemble(parts) })
    }

    /// The speech at that rate.
    pub fn at(&self, rate_hz: u32) -> Vec<i16> {
        to_i16(&resample_f64(&self.samples, REFERENCE_RATE_HZ, rate_hz))
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(REFERENCE_RATE_HZ)
    }
}

impl Default for Reference {
    fn default() -> Self {
        Self::new()
    }
}

/// Samples at another rate, low-passed at the lower rate's half.
pub fn resample(samples: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    if from_hz == to_hz {
        return samples.to_vec();
    }
    let scaled: Vec<f64> = samples.iter().map(|&sample| f64::from(sample) / 32768.0).collect();
    to_i16(&resample_f64(&scaled, from_hz, to_hz))
}

fn espeak(voice: &str, text: &str) -> Option<Vec<f64>> {
    let path = std::env::temp_dir().join(format!("galene-sip-lab-{}.wav", token()));
    let status = Command::new("espeak-ng")
        .args(["-v", voice, "-s", "150", "-w"])
        .arg(&path)
        .arg(text)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let read = read_and_remove(&path);
    let (rate_hz, samples) = status.ok().filter(|status| status.success()).and(read)?;
    let scaled: Vec<f64> = samples.iter().map(|&sample| f64::from(sample) / 32768.0).collect();
    Some(resample_f64(&scaled, rate_hz, REFERENCE_RATE_HZ))
}

fn read_and_remove(path: &Path) -> Option<(u32, Vec<i16>)> {
    let read = wav::read(path).ok();
    let _ = std::fs::remove_file(path);
    read
}

/// Sentences with pauses, at the level of a measurement, over a floor of noise.
fn assemble(parts: Vec<Vec<f64>>) -> Vec<f64> {
    let pause = vec![0.0; (PAUSE_S * f64::from(REFERENCE_RATE_HZ)) as usize];
    let mut samples = pause.clone();
    for part in parts {
        samples.extend(part);
        samples.extend(&pause);
    }
    let active: Vec<f64> = samples.iter().copied().filter(|sample| sample.abs() > ACTIVE_SAMPLE).collect();
    let power = active.iter().map(|sample| sample * sample).sum::<f64>() / active.len().max(1) as f64;
    let gain = 10f64.powf(ACTIVE_LEVEL_DBFS / 20.0) / power.sqrt().max(1e-9);
    let floor = 10f64.powf(NOISE_FLOOR_DBFS / 20.0);
    let mut noise = voice::Noise::new(7);
    samples.iter().map(|sample| (sample * gain + noise.gauss() * floor).clamp(-0.99, 0.99)).collect()
}

fn to_i16(samples: &[f64]) -> Vec<i16> {
    samples.iter().map(|sample| (sample * 32768.0).round().clamp(-32768.0, 32767.0) as i16).collect()
}

/// Zero crossings of the interpolation kernel on each side: flat to 0.45 of the lower rate.
const KERNEL_CROSSINGS: f64 = 24.0;

/// Interpolation by a windowed sinc; one kernel for each phase that occurs.
fn resample_f64(samples: &[f64], from_hz: u32, to_hz: u32) -> Vec<f64> {
    if from_hz == to_hz {
        return samples.to_vec();
    }
    let divisor = greatest_common_divisor(from_hz, to_hz);
    let (step, phases) = (u64::from(from_hz / divisor), u64::from(to_hz / divisor));
    let cutoff = (f64::from(to_hz) / f64::from(from_hz)).min(1.0) * 0.97;
    let reach = (KERNEL_CROSSINGS / cutoff).ceil() as i64;
    let kernels: Vec<Vec<f64>> = (0..phases)
        .map(|phase| {
            let fraction = phase as f64 / phases as f64;
            (-reach..=reach + 1)
                .map(|tap| {
                    let x = tap as f64 - fraction;
                    let window = 0.5 + 0.5 * (PI * (x / (reach as f64 + 1.0)).clamp(-1.0, 1.0)).cos();
                    cutoff * sinc(cutoff * x) * window
                })
                .collect()
        })
        .collect();
    let length = samples.len() as u64 * phases / step;
    (0..length)
        .map(|index| {
            let position = index * step;
            let first = (position / phases) as i64 - reach;
            let kernel = &kernels[(position % phases) as usize];
            let begin = (-first).clamp(0, kernel.len() as i64) as usize;
            let end = (samples.len() as i64 - first).clamp(begin as i64, kernel.len() as i64) as usize;
            let from = (first + begin as i64) as usize;
            kernel[begin..end].iter().zip(&samples[from..]).map(|(tap, sample)| tap * sample).sum()
        })
        .collect()
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate_hz: u32, hz: f64) -> Vec<i16> {
        let step = 2.0 * PI * hz / f64::from(rate_hz);
        (0..rate_hz).map(|index| (10_000.0 * (step * f64::from(index)).sin()) as i16).collect()
    }

    fn power(samples: &[i16]) -> f64 {
        samples.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>() / samples.len() as f64
    }

    #[test]
    fn a_tone_keeps_its_shape_at_another_rate_and_what_does_not_fit_is_gone() {
        for (from, to) in [(48_000, 8000), (8000, 48_000), (22_050, 8000)] {
            let (expected, got) = (tone(to, 1000.0), resample(&tone(from, 1000.0), from, to));
            assert_eq!(expected.len(), got.len());
            let error: Vec<i16> =
                expected.iter().zip(&got).skip(200).take(6000).map(|(one, other)| one - other).collect();
            assert!(power(&error) < power(&expected) * 1e-4, "{from} {to}");
        }
        assert!(power(&resample(&tone(48_000, 6000.0), 48_000, 8000)[200..7000]) < 1000.0);
    }

    #[test]
    fn the_built_in_voice_has_the_level_of_speech_and_pauses() {
        let samples = Reference::built_in().at(8000);
        let frames: Vec<f64> =
            samples.chunks_exact(160).map(|frame| 10.0 * (power(frame) / 32768f64.powi(2)).log10()).collect();
        let loud = frames.iter().filter(|&&level| level > -40.0).count();
        let quiet = frames.iter().filter(|&&level| level < -60.0).count();
        assert!((6.0..20.0).contains(&(samples.len() as f64 / 8000.0)));
        assert!(loud * 3 > frames.len() && quiet * 10 > frames.len(), "{loud} {quiet} of {}", frames.len());
    }
}
