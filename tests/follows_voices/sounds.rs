//! What rooms sound like besides speech, made by script: music, applause, alarms, noise. 48 kHz, full scale 1.

use std::f64::consts::TAU;

use galene_sip::random::Random;
use lab::speech::Reference;

pub(crate) const RATE_HZ: usize = 48_000;

/// A sound and what it is called in the table.
pub(crate) struct Sound {
    pub(crate) name: String,
    pub(crate) samples: Vec<f64>,
}

/// So much of the reference is enough: two voices.
const SPEECH_S: usize = 12;
/// Every microphone hears something.
const BACKGROUND_DBFS: f64 = -65.0;
/// Before anything is heard, long enough for every stream to be left alone.
const LEAD_S: f64 = 2.0;

/// All of them, each at several levels, each after two seconds of nothing but the microphone's noise.
pub(crate) fn all() -> Vec<Sound> {
    let mut sounds = Vec::new();
    let mut add = |name: &str, levels: &[f64], make: &dyn Fn() -> Vec<f64>| {
        for &level_dbfs in levels {
            let samples = levelled(make(), level_dbfs);
            sounds
                .push(Sound { name: format!("{name} {level_dbfs:.0}"), samples: in_a_room(&samples, BACKGROUND_DBFS) });
        }
    };
    add("speech", &[-26.0, -40.0, -46.0], &speech);
    add("noise", &[-20.0, -35.0], &|| bursts(6.0, 1.0, 1.0, white(1)));
    add("chords", &[-20.0, -32.0, -40.0], &chords);
    add("melody", &[-20.0, -32.0, -40.0], &melody);
    add("swelling chord", &[-25.0], &swell);
    add("applause", &[-20.0, -35.0], &applause);
    add("alarm", &[-15.0, -30.0, -40.0], &|| bursts(6.0, 0.2, 0.8, square(980.0)));
    add("alarm clock", &[-25.0, -40.0], &|| bursts(6.0, 0.06, 0.44, sine(2048.0)));
    add("ringing", &[-30.0], &|| bursts(10.0, 1.0, 4.0, sine(425.0)));
    sounds
}

fn speech() -> Vec<f64> {
    Reference::new()
        .at(RATE_HZ as u32)
        .iter()
        .take(SPEECH_S * RATE_HZ)
        .map(|&sample| f64::from(sample) / 32_768.0)
        .collect()
}

/// Three tones and their harmonics, struck anew every 1.6 s and dying away.
fn chords() -> Vec<f64> {
    const CHORDS: [[f64; 3]; 4] =
        [[261.6, 329.6, 392.0], [220.0, 261.6, 329.6], [174.6, 220.0, 261.6], [196.0, 246.9, 293.7]];
    struck(6.4, 1.6, 0.3, |index| CHORDS[index % 4].to_vec())
}

/// Single notes with rests between them.
fn melody() -> Vec<f64> {
    const NOTES: [f64; 7] = [440.0, 493.9, 554.4, 587.3, 659.3, 740.0, 830.6];
    struck(6.0, 0.75, 0.12, |index| vec![NOTES[index * 3 % 7]])
}

fn struck(seconds: f64, every_s: f64, decay_s: f64, tones: impl Fn(usize) -> Vec<f64>) -> Vec<f64> {
    series(seconds, |second| {
        let index = (second / every_s) as usize;
        let since = second - index as f64 * every_s;
        let sum: f64 = tones(index)
            .iter()
            .flat_map(|&tone| {
                (1..6).map(move |harmonic| (second * TAU * tone * f64::from(harmonic)).sin() / f64::from(harmonic))
            })
            .sum();
        sum * (-since / decay_s).exp() * (since / 0.005).min(1.0)
    })
}

/// From nothing to its full level in five seconds.
fn swell() -> Vec<f64> {
    series(6.0, |second| {
        let tones = [220.0, 277.2, 329.6].map(|tone| (second * TAU * tone).sin());
        tones.iter().sum::<f64>() * 10f64.powf((second / 5.0).min(1.0) * 2.5 - 2.5)
    })
}

/// Some hundred claps a second for two seconds, then two of quiet, twice.
fn applause() -> Vec<f64> {
    let mut random = Random::for_test(3);
    let mut samples = vec![0.0; 8 * RATE_HZ];
    for burst in 0..2 {
        for _ in 0..200 {
            let start = burst * 4 * RATE_HZ + random.below(2 * RATE_HZ as u32) as usize;
            let strength = 0.3 + f64::from(random.below(1000)) / 1000.0;
            for (n, sample) in samples[start..].iter_mut().take(RATE_HZ / 20).enumerate() {
                *sample += strength * uniform(&mut random) * (-(n as f64) / (0.006 * RATE_HZ as f64)).exp();
            }
        }
    }
    samples
}

/// `sound` for `on_s`, nothing for `off_s`, and so on.
fn bursts(seconds: f64, on_s: f64, off_s: f64, mut sound: impl FnMut(f64) -> f64) -> Vec<f64> {
    series(seconds, |second| {
        let value = sound(second);
        if second % (on_s + off_s) < on_s { value } else { 0.0 }
    })
}

fn sine(tone_hz: f64) -> impl FnMut(f64) -> f64 {
    move |second| (second * TAU * tone_hz).sin()
}

fn square(tone_hz: f64) -> impl FnMut(f64) -> f64 {
    move |second| (second * TAU * tone_hz).sin().signum()
}

fn white(seed: u64) -> impl FnMut(f64) -> f64 {
    let mut random = Random::for_test(seed);
    move |_| uniform(&mut random)
}

fn uniform(random: &mut Random) -> f64 {
    f64::from(random.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0
}

fn series(seconds: f64, mut value: impl FnMut(f64) -> f64) -> Vec<f64> {
    (0..(seconds * RATE_HZ as f64) as usize).map(|n| value(n as f64 / RATE_HZ as f64)).collect()
}

/// At the level given, where it sounds: pauses do not count.
fn levelled(samples: Vec<f64>, level_dbfs: f64) -> Vec<f64> {
    let powers: Vec<f64> = samples.chunks(960).map(|frame| frame.iter().map(|sample| sample * sample).sum()).collect();
    let loudest = powers.iter().copied().fold(0.0, f64::max);
    // 25 dB below the loudest 20 ms is a pause.
    let loud: Vec<f64> = powers.into_iter().filter(|&power| power > loudest / 316.0).collect();
    let rms = (loud.iter().sum::<f64>() / (loud.len() * 960) as f64).sqrt();
    let gain = 10f64.powf(level_dbfs / 20.0) / rms;
    samples.into_iter().map(|sample| sample * gain).collect()
}

/// After [`LEAD_S`], with white noise of that level throughout.
pub(crate) fn in_a_room(samples: &[f64], background_dbfs: f64) -> Vec<f64> {
    let (mut noise, amplitude) = (white(9), 10f64.powf(background_dbfs / 20.0) * 3f64.sqrt());
    let lead = vec![0.0; (LEAD_S * RATE_HZ as f64) as usize];
    lead.iter().chain(samples).map(|sample| sample + amplitude * noise(0.0)).collect()
}
