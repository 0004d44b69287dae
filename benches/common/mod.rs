//! A quick measurement beside criterion's thorough one: the ratios that this project promises come from one run of it.

#![allow(dead_code, unused_imports, reason = "each bench uses its own part of this")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use galene_sip::media::opus;

pub(crate) use speech::speech;

mod speech;

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
