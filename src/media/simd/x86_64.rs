//! AVX2: eight sums at a time. There are no SSE2 kernels: the compiler makes as good ones of the scalar loops, SSE2 being
//! part of every x86-64 (measured: hand-written ones took 1.1 to 1.7 times as long but for the energy).

use std::arch::x86_64::*;

use super::{Kernels, scalar};

/// The kernels, where the machine has AVX2.
pub(super) fn available() -> Option<&'static Kernels> {
    static AVX2: Kernels = Kernels {
        name: "avx2",
        // SAFETY: these kernels are handed out only below, after AVX2 was detected.
        add: |total, input| unsafe { add(total, input) },
        // SAFETY: as above.
        subtract: |total, input| unsafe { subtract(total, input) },
        // SAFETY: as above.
        mix_minus: |total, own, out| unsafe { mix_minus(total, own, out) },
        // SAFETY: as above.
        energy: |input| unsafe { energy(input) },
        // SAFETY: as above.
        filter: |line, taps, out| unsafe { filter(line, taps, out) },
        // SAFETY: as above.
        add_rows: |sums, rows, factors| unsafe { add_rows(sums, rows, factors) },
    };
    is_x86_feature_detected!("avx2").then_some(&AVX2)
}

#[target_feature(enable = "avx2")]
fn load_i32(from: &[i32; 8]) -> __m256i {
    // SAFETY: 32 readable bytes, alignment is not required.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn store_i32(to: &mut [i32; 8], lanes: __m256i) {
    // SAFETY: 32 writable bytes, alignment is not required.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), lanes) }
}

/// Eight samples with their signs extended.
#[target_feature(enable = "avx2")]
fn load_i16(from: &[i16; 8]) -> __m256i {
    // SAFETY: 16 readable bytes, alignment is not required.
    _mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
fn add(total: &mut [i32], input: &[i16]) {
    let len = total.len().min(input.len());
    let (total_blocks, total_rest) = total[..len].as_chunks_mut::<8>();
    let (input_blocks, input_rest) = input[..len].as_chunks::<8>();
    for (total, input) in total_blocks.iter_mut().zip(input_blocks) {
        store_i32(total, _mm256_add_epi32(load_i32(total), load_i16(input)));
    }
    scalar::add(total_rest, input_rest);
}

#[target_feature(enable = "avx2")]
fn subtract(total: &mut [i32], input: &[i16]) {
    let len = total.len().min(input.len());
    let (total_blocks, total_rest) = total[..len].as_chunks_mut::<8>();
    let (input_blocks, input_rest) = input[..len].as_chunks::<8>();
    for (total, input) in total_blocks.iter_mut().zip(input_blocks) {
        store_i32(total, _mm256_sub_epi32(load_i32(total), load_i16(input)));
    }
    scalar::subtract(total_rest, input_rest);
}

#[target_feature(enable = "avx2")]
fn mix_minus(total: &[i32], own: &[i16], out: &mut [i16]) -> u32 {
    let len = total.len().min(own.len()).min(out.len());
    let (total_blocks, total_rest) = total[..len].as_chunks::<8>();
    let (own_blocks, own_rest) = own[..len].as_chunks::<8>();
    let (out_blocks, out_rest) = out[..len].as_chunks_mut::<8>();
    let mut peak = _mm256_setzero_si256();
    for ((total, own), out) in total_blocks.iter().zip(own_blocks).zip(out_blocks) {
        let rest = _mm256_sub_epi32(load_i32(total), load_i16(own));
        // The magnitude of i32::MIN wraps to itself, which is right when read as unsigned.
        peak = _mm256_max_epu32(peak, _mm256_abs_epi32(rest));
        let (low, high) = (_mm256_castsi256_si128(rest), _mm256_extracti128_si256::<1>(rest));
        // SAFETY: 16 writable bytes, alignment is not required.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm_packs_epi32(low, high)) }
    }
    let mut peaks = [0; 8];
    store_i32(&mut peaks, peak);
    let rest_peak = scalar::mix_minus(total_rest, own_rest, out_rest);
    peaks.iter().fold(rest_peak, |peak, lane| peak.max(lane.cast_unsigned()))
}

#[target_feature(enable = "avx2")]
fn energy(input: &[i16]) -> u64 {
    let (blocks, rest) = input.as_chunks::<16>();
    let low_halves = _mm256_set1_epi64x(0xffff_ffff);
    let mut sum = _mm256_setzero_si256();
    for block in blocks {
        // SAFETY: 32 readable bytes, alignment is not required.
        let samples = unsafe { _mm256_loadu_si256(block.as_ptr().cast()) };
        // Each lane: the squares of two neighbours, at most 2³¹, hence unsigned.
        let squares = _mm256_madd_epi16(samples, samples);
        let pairs = _mm256_add_epi64(_mm256_and_si256(squares, low_halves), _mm256_srli_epi64::<32>(squares));
        sum = _mm256_add_epi64(sum, pairs);
    }
    let mut sums = [0u64; 4];
    // SAFETY: 32 writable bytes, alignment is not required.
    unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), sum) }
    sums.iter().sum::<u64>() + scalar::energy(rest)
}

/// Multiplied and added apart: a fused step would round once less than the scalar loop.
#[target_feature(enable = "avx2")]
fn filter(line: &[f32], taps: &[f32], out: &mut [f32]) {
    scalar::filter(line, taps, out);
}

/// As above.
#[target_feature(enable = "avx2")]
fn add_rows(sums: &mut [f32], rows: &[f32], factors: &[f32]) {
    scalar::add_rows(sums, rows, factors);
}
