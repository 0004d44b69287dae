//! Noises that stand around telephones, made by arithmetic from a seed.
//!
//! Owns: how each of them sounds. Does not own: its level (`noisy_speech`), the talkers of babble (`corpus`).

use std::f64::consts::TAU;
use std::fmt;

use super::RATE_HZ;
use crate::voice::Noise;

/// Talkers of a babble.
const BABBLERS: usize = 12;

/// What is heard behind the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Twelve others talk at once, at levels within 8 dB.
    Babble,
    /// A car: engine, road with slow swells, bumps.
    Car,
    /// A bad line: the mains' hum with its harmonics, and some hiss.
    Hum,
    /// White noise.
    White,
    /// A ventilator: noise that falls by 6 dB an octave, with the tone of its blades.
    Fan,
    /// A street: low noise in which cars swell up and go by.
    Street,
    /// Typing and clicks over a quiet room.
    Clicks,
    /// Gusts into the microphone: noise whose level and colour change within a second.
    Wind,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Babble => "babble",
            Self::Car => "car",
            Self::Hum => "line hum",
            Self::White => "white noise",
            Self::Fan => "fan",
            Self::Street => "street",
            Self::Clicks => "clicks",
            Self::Wind => "wind",
        })
    }
}

impl Kind {
    /// Does it come through the microphone, and so through the telephone's band filter?
    pub fn is_acoustic(self) -> bool {
        match self {
            Self::Hum | Self::White => false,
            Self::Babble | Self::Car | Self::Fan | Self::Street | Self::Clicks | Self::Wind => true,
        }
    }

    /// So many samples of it, at no particular level.
    pub fn make(self, samples: usize, others: &[&[f64]], noise: &mut Noise) -> Vec<f64> {
        match self {
            Self::Babble => babble(samples, others, noise),
            Self::Car => car(samples, noise),
            Self::Hum => hum(samples, noise),
            Self::White => (0..samples).map(|_| noise.gauss()).collect(),
            Self::Fan => fan(samples, noise),
            Self::Street => street(samples, noise),
            Self::Clicks => clicks(samples, noise),
            Self::Wind => wind(samples, noise),
        }
    }
}

/// Low-pass of one pole.
struct Smooth {
    keep: f64,
    value: f64,
}

impl Smooth {
    fn new(hz: f64) -> Self {
        Self { keep: (-TAU * hz / f64::from(RATE_HZ)).exp(), value: 0.0 }
    }

    fn next(&mut self, input: f64) -> f64 {
        self.value = self.keep * self.value + (1.0 - self.keep) * input;
        self.value
    }
}

fn seconds(index: usize) -> f64 {
    index as f64 / f64::from(RATE_HZ)
}

/// `others` are utterances, taken in random order by each talker, with short breaths between them.
fn babble(samples: usize, others: &[&[f64]], noise: &mut Noise) -> Vec<f64> {
    let mut sum = vec![0.0; samples];
    if others.is_empty() {
        return sum;
    }
    for _ in 0..BABBLERS {
        let gain = super::active::amplitude(noise.between(-4.0, 4.0));
        let mut at = 0;
        // Each is in the middle of something when the call begins.
        let mut skip = (noise.unit() * 16_000.0) as usize;
        while at < samples {
            let utterance = others[(noise.unit() * others.len() as f64) as usize % others.len()];
            let rest = utterance.get(skip.min(utterance.len())..).unwrap_or_default();
            for (sum, sample) in sum[at..].iter_mut().zip(rest) {
                *sum += gain * sample;
            }
            at += rest.len() + (noise.between(0.1, 0.6) * f64::from(RATE_HZ)) as usize;
            skip = 0;
        }
    }
    sum
}

fn car(samples: usize, noise: &mut Noise) -> Vec<f64> {
    let (mut road, mut wind, mut swell) = (Smooth::new(250.0), Smooth::new(1200.0), Smooth::new(0.4));
    let (mut turns_hz, mut phase, mut bump) = (noise.between(22.0, 50.0), 0.0, 0.0);
    let mut next_bump = noise.between(0.5, 3.0);
    let loudness: Vec<f64> = (1..=20).map(|h| noise.between(0.3, 1.0) / f64::from(h)).collect();
    let sample = |index: usize| {
        turns_hz = (turns_hz + 0.004 * noise.gauss()).clamp(18.0, 70.0);
        phase += TAU * turns_hz / f64::from(RATE_HZ);
        let engine: f64 = loudness.iter().zip(1..).map(|(gain, h)| gain * (phase * f64::from(h)).sin()).sum();
        if seconds(index) >= next_bump {
            (next_bump, bump) = (seconds(index) + noise.between(0.8, 4.0), noise.between(0.5, 2.0));
        }
        bump *= 0.9985;
        let level = (1.0 + 25.0 * swell.next(noise.gauss())).clamp(0.4, 2.0) + bump;
        0.15 * engine + level * (4.0 * road.next(noise.gauss()) + 0.6 * wind.next(noise.gauss()))
    };
    (0..samples).map(sample).collect()
}

fn hum(samples: usize, noise: &mut Noise) -> Vec<f64> {
    let mains_hz = if noise.unit() < 0.5 { 50.0 } else { 60.0 } + noise.between(-0.1, 0.1);
    let harmonics: Vec<(f64, f64)> = (1..=24)
        .map(|h| {
            let odd = if h % 2 == 1 { 1.0 } else { 0.4 };
            (odd * noise.between(0.2, 1.0) / f64::from(h).sqrt(), noise.between(0.0, TAU))
        })
        .collect();
    let sample = |index: usize| {
        let angle = TAU * mains_hz * seconds(index);
        let tone: f64 =
            harmonics.iter().zip(1..).map(|((gain, start), h)| gain * (angle * f64::from(h) + start).sin()).sum();
        tone + 0.2 * noise.gauss()
    };
    (0..samples).map(sample).collect()
}

fn fan(samples: usize, noise: &mut Noise) -> Vec<f64> {
    let (mut air, blades_hz) = (Smooth::new(120.0), noise.between(90.0, 400.0));
    let sample = |index: usize| {
        let tone = (TAU * blades_hz * seconds(index)).sin();
        8.0 * air.next(noise.gauss()) + 0.3 * noise.gauss() + 0.4 * tone
    };
    (0..samples).map(sample).collect()
}

fn street(samples: usize, noise: &mut Noise) -> Vec<f64> {
    let (mut low, mut tyres) = (Smooth::new(200.0), Smooth::new(1500.0));
    let (mut passes_at, mut width_s) = (noise.between(1.0, 4.0), noise.between(0.8, 2.0));
    let sample = |index: usize| {
        let distance = (seconds(index) - passes_at) / width_s;
        if distance > 2.0 {
            (passes_at, width_s) = (passes_at + noise.between(3.0, 8.0), noise.between(0.8, 2.0));
        }
        let pass = 3.0 * (-distance * distance).exp();
        (1.0 + pass) * (5.0 * low.next(noise.gauss()) + (0.3 + pass) * tyres.next(noise.gauss()))
    };
    (0..samples).map(sample).collect()
}

fn clicks(samples: usize, noise: &mut Noise) -> Vec<f64> {
    let (mut room, mut level, mut ring_hz) = (Smooth::new(600.0), 0.0, 1000.0);
    let mut next_click = noise.between(0.2, 1.0);
    let sample = |index: usize| {
        if seconds(index) >= next_click {
            // Keys come in bursts.
            let wait = if noise.unit() < 0.8 { noise.between(0.08, 0.3) } else { noise.between(0.5, 2.0) };
            (next_click, level, ring_hz) =
                (seconds(index) + wait, noise.between(2.0, 10.0), noise.between(400.0, 3000.0));
        }
        level *= 0.992;
        level * (noise.gauss() + (TAU * ring_hz * seconds(index)).sin()) + 0.3 * room.next(noise.gauss())
    };
    (0..samples).map(sample).collect()
}

fn wind(samples: usize, noise: &mut Noise) -> Vec<f64> {
    let (mut low, mut level_db, mut goal_db, mut tilt, mut goal_tilt) = (Smooth::new(300.0), 0.0, 0.0, 0.5, 0.5);
    let (mut pace, mut changes_at) = (1e-4, 0.0);
    let sample = |index: usize| {
        if seconds(index) >= changes_at {
            changes_at = seconds(index) + noise.between(0.1, 2.0);
            (goal_db, goal_tilt) = (noise.between(-12.0, 12.0), noise.unit());
            pace = 1.0 / (noise.between(0.02, 0.6) * f64::from(RATE_HZ));
        }
        level_db += pace * (goal_db - level_db);
        tilt += pace * (goal_tilt - tilt);
        let white = noise.gauss();
        super::active::amplitude(level_db) * (tilt * white + (1.0 - tilt) * 6.0 * low.next(white))
    };
    (0..samples).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_noise_sounds_and_is_the_same_for_the_same_seed() {
        let talk: Vec<f64> = (0..8000).map(|n| (n as f64 * 0.3).sin()).collect();
        for kind in [Kind::Babble, Kind::Car, Kind::Hum, Kind::White, Kind::Fan, Kind::Street, Kind::Clicks, Kind::Wind]
        {
            let make = |seed| kind.make(16_000, &[&talk], &mut Noise::new(seed));
            let (one, other) = (make(1), make(2));
            assert!(one == make(1) && one != other, "{kind}");
            assert!(one.iter().map(|sample| sample * sample).sum::<f64>() > 0.0, "{kind}");
        }
    }
}
