//! Something to say: the speech by which a path is measured.
//!
//! Owns: the reference (four sentences by espeak-ng where that is installed, else a voice-like signal made here, so
//! that a bare machine can be judged too), its level and its noise floor. The reference never repeats
//! itself, so that a delay is found without doubt. Does not own: codecs,
//! change of rate, measurement.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::pcm::Pcm;
use crate::random::token;
use crate::voice;

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
    sound: Pcm,
}

impl Reference {
    /// By espeak-ng if it is there, else built in.
    pub fn new() -> Self {
        Self::by_espeak().unwrap_or_else(Self::built_in)
    }

    /// The voice-like signal that needs no other program.
    pub fn built_in() -> Self {
        let parts = (0..SENTENCES.len() as u64).map(|index| voice::sentence(REFERENCE_RATE_HZ, index + 1)).collect();
        Self { made_by: "the built-in synthetic voice (espeak-ng is not installed)", sound: assemble(parts) }
    }

    /// `None` if espeak-ng is missing or fails.
    pub fn by_espeak() -> Option<Self> {
        let parts = SENTENCES
            .iter()
            .map(|(voice, text)| espeak(voice, 150, text, REFERENCE_RATE_HZ))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { made_by: "espeak-ng", sound: assemble(parts) })
    }

    /// The speech at that rate, over its floor of noise, which has the same level in the band of every rate.
    pub fn at(&self, rate_hz: u32) -> Vec<i16> {
        let floor = 10f64.powf(NOISE_FLOOR_DBFS / 20.0) * 32768.0;
        let mut noise = voice::Noise::new(7);
        let samples = self.sound.resampled(rate_hz).samples.into_iter();
        samples.map(|sample| (f64::from(sample) + noise.gauss() * floor).round() as i16).collect()
    }

    /// As it sounds in the band of that rate, at whichever rate it is then asked for: what is said above it is no part of what is
    /// heard, nor is it missing there (ITU-T P.862.2 has both sides of a comparison in one band).
    pub fn in_band_of(mut self, rate_hz: u32) -> Self {
        self.sound = self.sound.resampled(rate_hz);
        self
    }

    /// No more than its first seconds.
    pub fn beginning(mut self, seconds: f64) -> Self {
        self.sound.samples.truncate((seconds * f64::from(self.sound.rate_hz)) as usize);
        self
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.sound.samples.len() as f64 / f64::from(self.sound.rate_hz)
    }
}

impl Default for Reference {
    fn default() -> Self {
        Self::new()
    }
}

/// A text spoken by espeak-ng, full scale being 1; `None` if it is missing or fails.
pub(crate) fn espeak(voice: &str, words_a_minute: u32, text: &str, rate_hz: u32) -> Option<Vec<f64>> {
    let path = std::env::temp_dir().join(format!("galene-sip-lab-{}.wav", token()));
    let status = Command::new("espeak-ng")
        .args(["-v", voice, "-s", &words_a_minute.to_string(), "-w"])
        .arg(&path)
        .arg(text)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let sound = read_and_remove(&path);
    let sound = status.ok().filter(|status| status.success()).and(sound)?.resampled(rate_hz);
    Some(sound.samples.iter().map(|&sample| f64::from(sample) / 32768.0).collect())
}

fn read_and_remove(path: &Path) -> Option<Pcm> {
    let read = Pcm::read_wav(path).ok();
    let _ = std::fs::remove_file(path);
    read
}

/// Sentences with pauses, at the level of a measurement.
fn assemble(parts: Vec<Vec<f64>>) -> Pcm {
    let pause = vec![0.0; (PAUSE_S * f64::from(REFERENCE_RATE_HZ)) as usize];
    let mut samples = pause.clone();
    for part in parts {
        samples.extend(part);
        samples.extend(&pause);
    }
    let active: Vec<f64> = samples.iter().copied().filter(|sample| sample.abs() > ACTIVE_SAMPLE).collect();
    let power = active.iter().map(|sample| sample * sample).sum::<f64>() / active.len().max(1) as f64;
    let gain = 10f64.powf(ACTIVE_LEVEL_DBFS / 20.0) / power.sqrt().max(1e-9);
    let finished = samples.iter().map(|sample| (sample * gain).clamp(-0.99, 0.99));
    Pcm { rate_hz: REFERENCE_RATE_HZ, samples: finished.map(|sample| (sample * 32768.0).round() as i16).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power(samples: &[i16]) -> f64 {
        samples.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>() / samples.len() as f64
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
