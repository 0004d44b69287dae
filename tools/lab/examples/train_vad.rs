//! Teaches the gateway's voice activity detector what speech is, and prints the file of its weights.
//!
//! `cargo run --release -p lab --example train_vad > weights.rs`, then `mv weights.rs src/media/vad/` (some minutes; progress
//! on the error stream). It needs espeak-ng and Debian's asterisk-core-sounds-fr-wav, asterisk-core-sounds-ru-wav and
//! asterisk-prompt-it-menardi-wav; an argument names another folder of prompts than Debian's.
//!
//! It learns from voices, sentences, recordings and noise seeds that the judge (`tools/lab/tests/voice_activity.rs`) never
//! uses; fan and street noise it never hears at all. The method is plain: the product's own features, truth by ITU-T P.56,
//! cross-entropy, back-propagation through 3 s of time, Adam.

use std::ops::Range;
use std::path::PathBuf;

use galene_sip::media::g711::Law;
use galene_sip::media::vad::features::{FEATURES, Features};
use galene_sip::media::vad::network::{PARTS, ROW, ROWS, UNITS, WEIGHTS, sigmoid, tanh};
use lab::noisy_speech::{Call, FRAME_SAMPLES, Kind, Part, Scene, Talker, espeak_talkers, recorded_talkers};
use lab::voice::Noise;

const NOISES: [Option<Kind>; 9] = [
    Some(Kind::Babble),
    Some(Kind::Babble),
    Some(Kind::Babble),
    Some(Kind::Car),
    Some(Kind::Hum),
    Some(Kind::White),
    Some(Kind::Clicks),
    Some(Kind::Wind),
    None,
];
const SECONDS: f64 = 28.0;
/// Recorded voices are fewer; they are heard more often.
const TAKES_RECORDED: usize = 14;
const TAKES: usize = 4;
const STEP_FRAMES: usize = 150;
const BATCH: usize = 16;
const EPOCHS: usize = 32;
const RATE: f32 = 3e-3;
/// Stored weights are 8 bits of 1/[`PARTS`].
const LARGEST: f32 = 127.0 / PARTS;

/// One call as the network hears it.
struct Lesson {
    features: Vec<[f32; FEATURES]>,
    truth: Vec<bool>,
}

fn lesson(pcm: &[[i16; FRAME_SAMPLES]], truth: &[bool], law: Law) -> Lesson {
    let mut features = Features::new();
    let next = |frame: &[i16; FRAME_SAMPLES]| {
        let (mut bytes, mut coded) = ([0; FRAME_SAMPLES], [0; FRAME_SAMPLES]);
        law.encode(frame, &mut bytes);
        law.decode(&bytes, &mut coded);
        features.next(&coded)
    };
    Lesson { features: pcm.iter().map(next).collect(), truth: truth.to_vec() }
}

fn lessons(talkers: &[Talker], who: Range<usize>, takes: usize, random: &mut Noise) -> Vec<Lesson> {
    let mut lessons = Vec::new();
    for index in who {
        for take in 0..takes {
            for (number, noise) in NOISES.into_iter().enumerate() {
                let scene = Scene {
                    noise: noise.map(|kind| (kind, random.between(0.0, 22.0))),
                    level_dbfs: random.between(-42.0, -16.0),
                    seconds: SECONDS,
                    seed: 1_000_000 + (lessons.len() as u64) * 7 + (random.unit() * 1e9) as u64,
                };
                let call = Call::new(talkers, index, &scene);
                let law = if (take + number) % 2 == 0 { Law::Mu } else { Law::A };
                lessons.push(lesson(call.frames(), &call.truth, law));
            }
        }
    }
    lessons
}

/// Noises alone: long calls in which nobody speaks.
fn silence(talkers: &[Talker], random: &mut Noise) -> Vec<Lesson> {
    let others: Vec<&[f64]> = talkers.iter().flat_map(|talker| talker.utterances.iter().map(Vec::as_slice)).collect();
    let kinds = NOISES.into_iter().flatten().cycle().take(48);
    kinds
        .map(|kind| {
            let noise = kind.make((SECONDS * 8000.0) as usize, &others, random);
            let power = noise.iter().map(|sample| sample * sample).sum::<f64>() / noise.len() as f64;
            let scale = 32_768.0 * 10f64.powf(random.between(-60.0, -25.0) / 20.0) / power.sqrt();
            let pcm: Vec<i16> = noise.iter().map(|sample| (sample * scale) as i16).collect();
            let frames = pcm.as_chunks().0;
            lesson(frames, &vec![false; frames.len()], Law::Mu)
        })
        .collect()
}

/// What the way back needs of one frame's way forth.
#[derive(Clone)]
struct Trace {
    before: [f32; UNITS],
    after: [f32; UNITS],
    gates: [f32; ROW],
    /// The candidates' share of the former state, before the reset gate.
    former: [f32; UNITS],
}

/// The product's arithmetic, remembered.
fn forth(weights: &[f32], features: &[f32; FEATURES], state: &[f32; UNITS]) -> (Trace, f32) {
    let row = |row: usize| &weights[row * ROW..][..ROW];
    let (mut input, mut former) = ([0.0; ROW], [0.0; ROW]);
    input.copy_from_slice(row(FEATURES));
    let add = |sums: &mut [f32; ROW], row: &[f32], value: f32| {
        sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight * value);
    };
    features.iter().enumerate().for_each(|(at, value)| add(&mut input, row(at), *value));
    state.iter().enumerate().for_each(|(at, value)| add(&mut former, row(FEATURES + 1 + at), *value));
    let mut trace = Trace { before: *state, after: [0.0; UNITS], gates: [0.0; ROW], former: [0.0; UNITS] };
    let rest = &weights[ROWS * ROW..];
    let mut output = rest[UNITS];
    for unit in 0..UNITS {
        let (update, reset, candidate) = (unit, UNITS + unit, 2 * UNITS + unit);
        let z = input[update] + former[update];
        let r = input[reset] + former[reset];
        let n = input[candidate] + sigmoid(r) * former[candidate];
        (trace.gates[update], trace.gates[reset], trace.gates[candidate]) = (z, r, n);
        trace.former[unit] = former[candidate];
        trace.after[unit] = tanh(n) + sigmoid(z) * (state[unit] - tanh(n));
        output += trace.after[unit] * rest[unit];
    }
    (trace, output)
}

/// Adds one frame's gradient; `slope` is that of its output, `later` that of its state by all later frames, which becomes
/// that of its former state.
fn back(
    weights: &[f32],
    features: &[f32; FEATURES],
    trace: &Trace,
    slope: f32,
    later: &mut [f32; UNITS],
    sums: &mut [f32],
) {
    let rest = ROWS * ROW;
    sums[rest + UNITS] += slope;
    let (mut of_input, mut of_former, mut earlier) = ([0.0; ROW], [0.0; ROW], [0.0; UNITS]);
    for unit in 0..UNITS {
        let (update, reset, candidate) = (unit, UNITS + unit, 2 * UNITS + unit);
        sums[rest + unit] += slope * trace.after[unit];
        let of_state = later[unit] + slope * weights[rest + unit];
        let (z, r, n) = (trace.gates[update], trace.gates[reset], trace.gates[candidate]);
        let by_candidate = of_state * (1.0 - sigmoid(z)) * tanh_slope(n);
        let by_update = of_state * (trace.before[unit] - tanh(n)) * 0.25 * tanh_slope(0.5 * z);
        let by_reset = by_candidate * trace.former[unit] * 0.25 * tanh_slope(0.5 * r);
        (of_input[update], of_input[reset], of_input[candidate]) = (by_update, by_reset, by_candidate);
        (of_former[update], of_former[reset], of_former[candidate]) = (by_update, by_reset, by_candidate * sigmoid(r));
        earlier[unit] = of_state * sigmoid(z);
    }
    let add = |sums: &mut [f32], slopes: &[f32; ROW], value: f32| {
        sums.iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += slope * value);
    };
    for (at, value) in features.iter().chain([&1.0]).enumerate() {
        add(&mut sums[at * ROW..][..ROW], &of_input, *value);
    }
    for (at, value) in trace.before.iter().enumerate() {
        let row = (FEATURES + 1 + at) * ROW;
        add(&mut sums[row..][..ROW], &of_former, *value);
        earlier[at] += weights[row..][..ROW].iter().zip(&of_former).map(|(weight, slope)| weight * slope).sum::<f32>();
    }
    *later = earlier;
}

fn tanh_slope(x: f32) -> f32 {
    if x.abs() >= 3.0 {
        return 0.0;
    }
    let (square, below) = (x * x, 27.0 + 9.0 * x * x);
    ((27.0 + 3.0 * square) * below - x * (27.0 + square) * 18.0 * x) / (below * below)
}

/// Adam (Kingma and Ba 2015).
struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: i32,
}

impl Adam {
    fn step(&mut self, weights: &mut [f32], slopes: &[f32], rate: f32) {
        self.steps += 1;
        let (of_mean, of_square) = (1.0 - 0.9f32.powi(self.steps), 1.0 - 0.999f32.powi(self.steps));
        for (at, slope) in slopes.iter().enumerate() {
            self.mean[at] += 0.1 * (slope - self.mean[at]);
            self.square[at] += 0.001 * (slope * slope - self.square[at]);
            let step = rate * (self.mean[at] / of_mean) / ((self.square[at] / of_square).sqrt() + 1e-8);
            weights[at] = (weights[at] - step).clamp(-LARGEST, LARGEST);
        }
    }
}

/// One step of time of some lessons; the mean loss of a frame.
fn learn(weights: &mut [f32], lessons: &mut [(&Lesson, [f32; UNITS])], from: usize, adam: &mut Adam, rate: f32) -> f32 {
    let (mut sums, mut loss, mut frames) = (vec![0.0; WEIGHTS], 0.0, 0);
    for (lesson, state) in lessons.iter_mut() {
        let to = lesson.features.len().min(from + STEP_FRAMES);
        let Some(features) = lesson.features.get(from..to) else { continue };
        let mut traces = Vec::with_capacity(STEP_FRAMES);
        for (features, truth) in features.iter().zip(&lesson.truth[from..to]) {
            let (trace, output) = forth(weights, features, state);
            *state = trace.after;
            let likely = 1.0 / (1.0 + (-output).exp());
            loss -= if *truth { likely.max(1e-7).ln() } else { (1.0 - likely).max(1e-7).ln() };
            traces.push((trace, likely - if *truth { 1.0 } else { 0.0 }));
        }
        let mut later = [0.0; UNITS];
        for ((trace, slope), features) in traces.iter().zip(features).rev() {
            back(weights, features, trace, *slope, &mut later, &mut sums);
        }
        frames += features.len();
    }
    let scale = 1.0 / frames.max(1) as f32;
    sums.iter_mut().for_each(|sum| *sum *= scale);
    let norm = sums.iter().map(|slope| slope * slope).sum::<f32>().sqrt();
    if norm > 1.0 {
        sums.iter_mut().for_each(|sum| *sum /= norm);
    }
    adam.step(weights, &sums, rate);
    loss * scale
}

fn shuffle<T>(items: &mut [T], random: &mut Noise) {
    for at in (1..items.len()).rev() {
        items.swap(at, (random.unit() * (at + 1) as f64) as usize);
    }
}

fn main() {
    let mut random = Noise::new(20);
    let mut talkers = espeak_talkers(Part::Learn);
    let synthetic = talkers.len();
    talkers.extend(recorded_talkers(Part::Learn, std::env::args().nth(1).map(PathBuf::from).as_deref()));
    assert!(synthetic > 0 && talkers.len() > synthetic, "espeak-ng and Asterisk's prompts are needed");
    let mut lessons = [
        lessons(&talkers, 0..synthetic, TAKES, &mut random),
        lessons(&talkers, synthetic..talkers.len(), TAKES_RECORDED, &mut random),
        silence(&talkers, &mut random),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    eprintln!("{} lessons", lessons.len());
    let mut weights: Vec<f32> = (0..WEIGHTS).map(|_| 0.15 * random.gauss() as f32).collect();
    let mut adam = Adam { mean: vec![0.0; WEIGHTS], square: vec![0.0; WEIGHTS], steps: 0 };
    for epoch in 0..EPOCHS {
        shuffle(&mut lessons, &mut random);
        let rate = RATE * (1.0 - epoch as f32 / EPOCHS as f32).max(0.02);
        let (mut loss, mut steps) = (0.0, 0);
        for batch in lessons.chunks(BATCH) {
            let longest = batch.iter().map(|lesson| lesson.features.len()).max().unwrap_or(0);
            let mut batch: Vec<_> = batch.iter().map(|lesson| (lesson, [0.0; UNITS])).collect();
            for from in (0..longest).step_by(STEP_FRAMES) {
                loss += learn(&mut weights, &mut batch, from, &mut adam, rate);
                steps += 1;
            }
        }
        eprintln!("epoch {epoch}: loss {:.4} a frame", loss / steps as f32);
    }
    print(&weights);
}

/// The file, a line for each third of a row.
fn print(weights: &[f32]) {
    println!("//! What the network has learned. Written by `tools/lab/examples/train_vad.rs`; not to be edited.\n");
    println!("use super::network::WEIGHTS;\n");
    println!("/// In the order of `network`: rows of features, constants and state, then the output.");
    println!("#[rustfmt::skip]");
    println!("pub(super) const TRAINED: [i8; WEIGHTS] = [");
    for third in weights.chunks(UNITS) {
        let numbers: Vec<String> = third.iter().map(|weight| format!("{}", (weight * PARTS).round() as i8)).collect();
        println!("    {},", numbers.join(", "));
    }
    println!("];");
}
