//! Sound as samples: WAV files, change of rate, levels, and sounds to test with.

use std::f64::consts::PI;
use std::path::Path;

/// Mono sound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pcm {
    /// Samples a second.
    pub rate_hz: u32,
    /// The samples.
    pub samples: Vec<i16>,
}

impl Pcm {
    /// Reads a WAV file of any rate, integer or float; more channels than one are averaged.
    pub fn read_wav(path: &Path) -> Result<Self, String> {
        let fail = |error: hound::Error| format!("{}: {error}", path.display());
        let mut reader = hound::WavReader::open(path).map_err(fail)?;
        let spec = reader.spec();
        let samples: Vec<f64> = match spec.sample_format {
            hound::SampleFormat::Float => {
                reader.samples::<f32>().map(|sample| sample.map(f64::from)).collect::<Result<_, _>>().map_err(fail)?
            }
            hound::SampleFormat::Int => {
                let full_scale = f64::from(1u32 << (spec.bits_per_sample.clamp(1, 32) - 1));
                let scaled = |sample: Result<i32, _>| sample.map(|sample| f64::from(sample) / full_scale);
                reader.samples::<i32>().map(scaled).collect::<Result<_, _>>().map_err(fail)?
            }
        };
        let channels = usize::from(spec.channels.max(1));
        let mixed = samples.chunks_exact(channels).map(|all| all.iter().sum::<f64>() / channels as f64);
        Ok(Self { rate_hz: spec.sample_rate, samples: mixed.map(|sample| to_i16(sample * 32_768.0)).collect() })
    }

    /// Writes a WAV file of 16-bit samples.
    pub fn write_wav(&self, path: &Path) -> Result<(), String> {
        self.write_wav_of(1, path)
    }

    /// The same, with the sound in each of so many channels.
    pub fn write_wav_of(&self, channels: u16, path: &Path) -> Result<(), String> {
        let fail = |error: hound::Error| format!("{}: {error}", path.display());
        let spec = hound::WavSpec {
            channels,
            sample_rate: self.rate_hz,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(path, spec).map_err(fail)?;
        for sample in &self.samples {
            for _ in 0..channels {
                writer.write_sample(*sample).map_err(fail)?;
            }
        }
        writer.finalize().map_err(fail)
    }

    /// The same sound at another rate: a windowed sinc of 32 zero crossings, cut at 95 % of the lower band.
    pub fn resampled(&self, rate_hz: u32) -> Self {
        const CROSSINGS: f64 = 16.0;
        if rate_hz == self.rate_hz || self.rate_hz == 0 {
            return Self { rate_hz, samples: self.samples.clone() };
        }
        let common = gcd(rate_hz, self.rate_hz);
        let (up, down) = ((rate_hz / common) as usize, (self.rate_hz / common) as usize);
        let cutoff = 0.95 * (f64::from(rate_hz) / f64::from(self.rate_hz)).min(1.0);
        let reach = (CROSSINGS / cutoff).ceil() as isize;
        let kernel: Vec<Vec<f64>> = (0..up).map(|phase| phase_taps(phase as f64 / up as f64, cutoff, reach)).collect();
        let length = self.samples.len() * up / down;
        let sample = |index: usize| {
            let position = index * down;
            let (whole, phase) = ((position / up) as isize, position % up);
            let taps = kernel[phase].iter().zip(whole - reach + 1..=whole + reach);
            let sum: f64 =
                taps.filter_map(|(tap, at)| Some(tap * f64::from(*self.samples.get(usize::try_from(at).ok()?)?))).sum();
            to_i16(sum)
        };
        Self { rate_hz, samples: (0..length).map(sample).collect() }
    }

    /// A tone.
    pub fn tone(rate_hz: u32, seconds: f64, frequency_hz: f64, level_dbfs: f64) -> Self {
        let amplitude = 32_768.0 * 2f64.sqrt() * 10f64.powf(level_dbfs / 20.0);
        let sample =
            |index: usize| to_i16(amplitude * (2.0 * PI * frequency_hz * index as f64 / f64::from(rate_hz)).sin());
        Self { rate_hz, samples: (0..(f64::from(rate_hz) * seconds) as usize).map(sample).collect() }
    }

    /// Noise of one level, the same on every call.
    pub fn noise(rate_hz: u32, seconds: f64, level_dbfs: f64) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        // Evenly spread samples have a root mean square of their peak over the root of three.
        let peak = 32_768.0 * 3f64.sqrt() * 10f64.powf(level_dbfs / 20.0);
        let sample = |_| {
            // xorshift64*, good enough to sound like noise.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
            to_i16((word as f64 / (1u64 << 52) as f64 - 1.0) * peak)
        };
        Self { rate_hz, samples: (0..(f64::from(rate_hz) * seconds) as usize).map(sample).collect() }
    }

    /// A buzz with gliding pitch, syllables and breath, something like a voice: no stretch of it resembles another, so
    /// that a delay can be found by correlation. About −20 dBFS.
    pub fn warble(rate_hz: u32, seconds: f64) -> Self {
        let (mut phase, mut samples) = (0.0, Vec::new());
        let breath = Self::noise(rate_hz, seconds, -44.0);
        for index in 0..(f64::from(rate_hz) * seconds) as usize {
            let time = index as f64 / f64::from(rate_hz);
            let pitch = 140.0 + 40.0 * (2.0 * PI * 0.31 * time).sin() + 25.0 * (2.0 * PI * 0.83 * time * time).sin();
            phase += 2.0 * PI * pitch / f64::from(rate_hz);
            let syllable = 0.55 + 0.45 * (2.0 * PI * (3.1 + 0.17 * time) * time).sin();
            let buzz: f64 = (1..=20).map(|harmonic| (phase * f64::from(harmonic)).sin() / f64::from(harmonic)).sum();
            let breath = breath.samples.get(index).map_or(0.0, |sample| f64::from(*sample));
            samples.push(to_i16(5_000.0 * syllable * buzz + breath));
        }
        Self { rate_hz, samples }
    }
}

/// Level of one frequency in dBFS, 0 for a full-scale sine.
pub fn tone_dbfs(samples: &[i16], rate_hz: u32, frequency_hz: f64) -> f64 {
    let (mut cosine, mut sine) = (0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        let phase = n as f64 / f64::from(rate_hz) * frequency_hz * std::f64::consts::TAU;
        cosine += f64::from(sample) * phase.cos();
        sine += f64::from(sample) * phase.sin();
    }
    let amplitude = cosine.hypot(sine) * 2.0 / samples.len().max(1) as f64;
    20.0 * (amplitude.max(1e-3) / 32_768.0).log10()
}

/// The level of some sound: the root mean square against full scale, at least −96.
pub fn level_dbfs(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let mean_square = energy / samples.len().max(1) as f64;
    (10.0 * (mean_square / 32_768f64.powi(2)).log10()).max(-96.0)
}

fn phase_taps(fraction: f64, cutoff: f64, reach: isize) -> Vec<f64> {
    let tap = |offset: isize| {
        let distance = fraction - offset as f64;
        let window = 0.5 + 0.5 * (PI * distance / (reach as f64 + 1.0)).cos();
        let angle = PI * distance * cutoff;
        let sinc = if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle };
        cutoff * sinc * window
    };
    (1 - reach..=reach).map(tap).collect()
}

fn to_i16(sample: f64) -> i16 {
    // The cast saturates.
    sample.round() as i16
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_survives_a_change_of_rate_in_level_and_place() {
        let tone = Pcm::tone(8_000, 0.5, 440.0, -12.0);
        assert!((level_dbfs(&tone.samples) + 12.0).abs() < 0.1);
        let up = tone.resampled(48_000);
        assert_eq!(up.samples.len(), tone.samples.len() * 6);
        let expected = Pcm::tone(48_000, 0.5, 440.0, -12.0);
        let middle = 2_000..22_000;
        for (got, want) in up.samples[middle.clone()].iter().zip(&expected.samples[middle]) {
            assert!((i32::from(*got) - i32::from(*want)).abs() < 60, "{got} {want}");
        }
        let back = up.resampled(8_000);
        assert!((level_dbfs(&back.samples) + 12.0).abs() < 0.2);
    }

    #[test]
    fn what_the_lower_rate_cannot_carry_is_gone() {
        let high = Pcm::tone(48_000, 0.5, 6_000.0, -12.0).resampled(8_000);
        assert!(level_dbfs(&high.samples[200..3_800]) < -60.0);
    }

    #[test]
    fn a_wav_file_comes_back_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("lab-pcm-{}.wav", std::process::id()));
        let noise = Pcm::noise(16_000, 0.1, -30.0);
        assert!((level_dbfs(&noise.samples) + 30.0).abs() < 0.5);
        noise.write_wav(&path).unwrap();
        let back = Pcm::read_wav(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(back.unwrap(), noise);
        assert!(Pcm::read_wav(Path::new("/nowhere.wav")).unwrap_err().starts_with("/nowhere.wav: "));
    }
}
