//! What mixing costs per participant, and what SIMD makes of it.

mod common;

use std::hint::black_box;

use common::{nanoseconds, speech};
use criterion::{BenchmarkId, Criterion, Throughput};
use galene_sip::media::mixer::{BUS_FRAME_SAMPLES, Bus, BusFrame, Limiter, SILENCE};
use galene_sip::media::opus;
use galene_sip::media::simd::{Kernels, SCALAR, available, kernels};
use wide::{i16x8, i32x8};

const PARTICIPANTS: [usize; 4] = [1, 8, 32, 128];

fn voices(count: usize) -> Vec<BusFrame> {
    let pcm = speech(BUS_FRAME_SAMPLES * (count + 7), 16_000);
    // Quiet enough that the limiter of a room of 128 has no work: it is measured by itself.
    (0..count).map(|voice| std::array::from_fn(|i| pcm[voice * BUS_FRAME_SAMPLES + i] / 128)).collect()
}

/// One tick of a room in which everyone speaks and everyone listens.
fn mix(bus: &mut Bus, voices: &[BusFrame], limiters: &mut [Limiter], out: &mut BusFrame) {
    bus.clear();
    for voice in voices {
        bus.add(voice);
    }
    for (voice, limiter) in voices.iter().zip(limiters) {
        bus.minus(voice, limiter, out);
        black_box(&out);
    }
}

fn mix_ns(kernels: &'static Kernels, count: usize) -> f64 {
    let (voices, mut limiters) = (voices(count), vec![Limiter::new(); count]);
    let (mut bus, mut out) = (Bus::with_kernels(kernels), SILENCE);
    nanoseconds(|| mix(&mut bus, &voices, &mut limiters, &mut out)) / count as f64
}

fn encode_ns() -> f64 {
    let mut encoder = opus::Encoder::new(8000, 0, 32_000).expect("8 kHz is a rate of Opus");
    let pcm = speech(8000 * 4, 8000);
    let (mut packet, mut at) = ([0; opus::MAX_FRAME_BYTES], 0);
    nanoseconds(|| {
        at = (at + 160) % pcm.len();
        encoder.encode(&pcm[at..at + 160], &mut packet)
    })
}

fn print_ratios() {
    println!("mixing, per participant and tick of 20 ms (sum, own voice out, limiter), kernels {}:", kernels().name);
    let encode_ns = encode_ns();
    for count in PARTICIPANTS {
        let ns = mix_ns(kernels(), count);
        println!(
            "  {count:>3} participants: {ns:>6.1} ns each = {:.2} % of one Opus encode; scalar: ratio {:.2} x",
            100.0 * ns / encode_ns,
            mix_ns(&SCALAR, count) / ns
        );
    }
    println!("SIMD against scalar kernels, {BUS_FRAME_SAMPLES} samples:");
    let (voice, mut total, mut out) = (voices(1)[0], [0i32; BUS_FRAME_SAMPLES], SILENCE);
    // A telephone's frame through one phase of its filter.
    let (line, taps, mut filtered) = ([0.5f32; 186], [0.5f32; 26], [0.0f32; 160]);
    let mut costs = |kernels: &Kernels| {
        [
            nanoseconds(|| (kernels.add)(black_box(&mut total), black_box(&voice))),
            nanoseconds(|| (kernels.subtract)(black_box(&mut total), black_box(&voice))),
            nanoseconds(|| (kernels.mix_minus)(black_box(&total), black_box(&voice), black_box(&mut out))),
            nanoseconds(|| (kernels.energy)(black_box(&voice))),
            nanoseconds(|| (kernels.filter)(black_box(&line), black_box(&taps), &mut filtered)),
        ]
    };
    let scalar = costs(&SCALAR);
    for kernels in available() {
        let ratios = costs(kernels);
        print!("  {:<6}", kernels.name);
        for (name, (scalar, ns)) in
            ["add", "subtract", "mix-minus", "energy", "filter"].iter().zip(scalar.iter().zip(ratios))
        {
            print!("  {name} {ns:.0} ns ({:.1} x)", scalar / ns);
        }
        println!();
    }
    print_sum_against_wide();
}

/// The sum of a room of 32 as everyone would write it with a crate of portable vectors.
fn wide_sum(total: &mut [i32; BUS_FRAME_SAMPLES], voice: &BusFrame) {
    for (sums, samples) in total.as_chunks_mut::<8>().0.iter_mut().zip(voice.as_chunks::<8>().0) {
        *sums = (i32x8::from(*sums) + i32x8::from_i16x8(i16x8::from(*samples))).to_array();
    }
}

fn print_sum_against_wide() {
    let voices = voices(32);
    let (mut own, mut rival) = ([0i32; BUS_FRAME_SAMPLES], [0i32; BUS_FRAME_SAMPLES]);
    let own_ns = nanoseconds(|| voices.iter().for_each(|voice| (kernels().add)(black_box(&mut own), voice)));
    let rival_ns = nanoseconds(|| voices.iter().for_each(|voice| wide_sum(black_box(&mut rival), voice)));
    println!(
        "the sum of 32 voices: {own_ns:.0} ns, with the crate wide {rival_ns:.0} ns: ratio {:.2} x",
        own_ns / rival_ns
    );
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mix");
    for count in PARTICIPANTS {
        let (voices, mut limiters) = (voices(count), vec![Limiter::new(); count]);
        let (mut bus, mut out) = (Bus::new(), SILENCE);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("participants", count), |bencher| {
            bencher.iter(|| mix(&mut bus, &voices, &mut limiters, &mut out));
        });
    }
    let loud: BusFrame = std::array::from_fn(|i| if i / 40 % 2 == 0 { 30_000 } else { -30_000 });
    group.bench_function("limiter at work", |bencher| {
        let (mut bus, mut limiter, mut out) = (Bus::new(), Limiter::new(), SILENCE);
        bus.add(&loud);
        bus.add(&loud);
        bencher.iter(|| bus.minus(black_box(&SILENCE), &mut limiter, &mut out));
    });
    group.finish();
}

fn main() {
    common::run(print_ratios, bench);
}
