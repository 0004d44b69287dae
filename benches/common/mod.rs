//! A quick measurement beside criterion's thorough one: the ratios that this project promises come from one run of it.

#![allow(dead_code, reason = "each bench uses its own part of this")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use galene_sip::media::opus;

/// A bench program: its ratios first, then criterion's measurements.
pub(crate) fn run(print_ratios: impl FnOnce(), bench: impl FnOnce(&mut Criterion)) {
    // `cargo test --benches` runs each bench once to see that it works: no time for measurements.
    if std::env::args().any(|argument| argument == "--bench") {
        print_ratios();
    }
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}

/// The time of one call in nanoseconds: the fastest of eleven rounds of some 3 ms, so that other work on the machine counts
/// little.
pub(crate) fn nanoseconds<T>(mut call: impl FnMut() -> T) -> f64 {
    let mut calls = 1u32;
    loop {
        let elapsed = round(calls, &mut call);
        if elapsed > Duration::from_millis(3) {
            break;
        }
        calls = calls.saturating_mul(2);
    }
    let fastest = (0..11).map(|_| round(calls, &mut call)).min().unwrap_or_default();
    fastest.as_secs_f64() * 1e9 / f64::from(calls)
}

fn round<T>(calls: u32, call: &mut impl FnMut() -> T) -> Duration {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    start.elapsed()
}

/// Every 20 ms of 48 kHz speech as a packet.
pub(crate) fn frames(encoder: &mut opus::Encoder, pcm: &[i16]) -> Vec<Vec<u8>> {
    let encode = |frame: &[i16]| {
        let mut packet = vec![0; opus::MAX_FRAME_BYTES];
        let len = encoder.encode(frame, &mut packet).expect("20 ms");
        packet.truncate(len);
        packet
    };
    pcm.chunks(960).map(encode).collect()
}

/// Something like speech: a gliding harmonic tone in syllables of 260 ms over faint noise.
pub(crate) fn speech(samples: usize, sample_rate_hz: u32) -> Vec<i16> {
    let mut state = 1u32;
    let mut phase = 0.0f64;
    (0..samples)
        .map(|i| {
            let t = i as f64 / f64::from(sample_rate_hz);
            phase += (110.0 + 30.0 * (t * 5.0).sin()) / f64::from(sample_rate_hz) * std::f64::consts::TAU;
            let loudness = 4000.0 * (t * 12.0).sin().max(0.0);
            let voice: f64 = (1..15).map(|h| (phase * f64::from(h)).sin() / f64::from(h)).sum();
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (voice * loudness) as i16 + (state >> 27) as i16
        })
        .collect()
}
