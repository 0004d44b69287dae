//! A voice-like signal made of nothing but arithmetic: glottal pulses and noise through moving formants.
//!
//! Owns: one 'sentence' of syllables with melody, vowels and consonants, the same for the same seed. It says
//! nothing, but codecs, voice activity detection and PESQ take it for speech. Does not own: its level.

use std::f64::consts::PI;

/// First three formants of vowels, in Hz.
const VOWELS: [[f64; 3]; 8] = [
    [730.0, 1090.0, 2440.0],
    [270.0, 2290.0, 3010.0],
    [300.0, 870.0, 2240.0],
    [530.0, 1840.0, 2480.0],
    [570.0, 840.0, 2410.0],
    [660.0, 1720.0, 2410.0],
    [490.0, 1350.0, 1690.0],
    [440.0, 1020.0, 2240.0],
];
/// Bandwidths of the three formants, in Hz.
const BANDWIDTHS: [f64; 3] = [80.0, 110.0, 160.0];
/// Syllables in one sentence.
const SYLLABLES: usize = 14;

/// Small deterministic noise (xorshift), so that the reference is the same on every machine.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// The same seed, the same noise.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Even in 0 .. 1.
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Bell-shaped, deviation 1.
    pub fn gauss(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Even in `low` .. `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
}

/// A resonator of two poles.
#[derive(Default, Clone, Copy)]
struct Formant {
    before: f64,
    earlier: f64,
}

impl Formant {
    fn filter(&mut self, input: f64, hz: f64, bandwidth_hz: f64, rate_hz: f64) -> f64 {
        let radius = (-PI * bandwidth_hz / rate_hz).exp();
        let feedback = 2.0 * radius * (2.0 * PI * hz / rate_hz).cos();
        let gain = 1.0 - feedback + radius * radius;
        let output = gain * input + feedback * self.before - radius * radius * self.earlier;
        (self.earlier, self.before) = (self.before, output);
        output
    }
}

/// A few seconds of speech-like sound.
pub fn sentence(rate_hz: u32, seed: u64) -> Vec<f64> {
    let rate = f64::from(rate_hz);
    let mut noise = Noise::new(seed);
    let pitch_hz = noise.between(95.0, 210.0);
    let mut formants = [Formant::default(); 3];
    let mut hiss = Formant::default();
    let (mut place, mut phase, mut last) = (VOWELS[7], 0.0, 0.0);
    let mut output = Vec::new();
    for syllable in 0..SYLLABLES {
        let vowel = VOWELS[(noise.unit() * VOWELS.len() as f64) as usize % VOWELS.len()];
        let consonant_s = noise.between(0.04, 0.11);
        let vowel_s = noise.between(0.09, 0.22);
        let hiss_hz = noise.between(1800.0, 3600.0);
        // Some consonants are voiced, some hiss, some are a closure with a burst.
        let (voiced, hissing) = (noise.unit() < 0.4, noise.unit() < 0.6);
        let fall = 1.1 - 0.25 * syllable as f64 / SYLLABLES as f64;
        let accent = noise.between(0.92, 1.15);
        let samples = ((consonant_s + vowel_s) * rate) as usize;
        for index in 0..samples {
            let at_s = index as f64 / rate;
            let in_vowel = at_s - consonant_s;
            let opening =
                if in_vowel < 0.0 { 0.0 } else { (in_vowel / 0.02).min(1.0) * ((vowel_s - in_vowel) / 0.04).min(1.0) };
            let voicing = if in_vowel < 0.0 && voiced { 0.25 } else { opening };
            let burst = in_vowel < 0.0 && (hissing || in_vowel > -0.015);
            let frication = if burst { (at_s / 0.01).min(1.0) * 0.35 } else { 0.02 * opening };
            for (now, goal) in place.iter_mut().zip(vowel) {
                *now += (goal - *now) / (0.03 * rate);
            }
            phase += pitch_hz * fall * accent * (1.0 + 0.02 * (2.0 * PI * 5.0 * at_s).sin()) / rate;
            phase -= phase.floor();
            let mut sound = voicing * pulse(phase) + 0.02 * voicing * noise.gauss();
            for ((formant, hz), bandwidth_hz) in formants.iter_mut().zip(place).zip(BANDWIDTHS) {
                sound = formant.filter(sound, hz, bandwidth_hz, rate);
            }
            let fricative = hiss.filter(noise.gauss() * frication, hiss_hz, 900.0, rate);
            // Lips radiate the change of the flow.
            output.push((sound - last) * rate / 8000.0 + 0.3 * fricative);
            last = sound;
        }
        if syllable % 5 == 4 {
            output.extend(vec![0.0; (noise.between(0.08, 0.2) * rate) as usize]);
        }
    }
    output
}

/// Flow through the glottis over one period: slow opening, fast closing, closed.
fn pulse(phase: f64) -> f64 {
    match phase {
        phase if phase < 0.4 => 0.5 - 0.5 * (PI * phase / 0.4).cos(),
        phase if phase < 0.56 => (PI * (phase - 0.4) / 0.32).cos(),
        _ => 0.0,
    }
}
