//! NEON, which every aarch64 has: eight samples at a time.

use std::arch::aarch64::*;

use super::{Kernels, scalar};

pub(super) static NEON: Kernels = Kernels {
    name: "neon",
    // SAFETY: NEON is part of aarch64.
    add: |total, input| unsafe { add(total, input) },
    // SAFETY: as above.
    subtract: |total, input| unsafe { subtract(total, input) },
    // SAFETY: as above.
    mix_minus: |total, own, out| unsafe { mix_minus(total, own, out) },
    // SAFETY: as above.
    energy: |input| unsafe { energy(input) },
    // NEON being part of every aarch64, the compiler makes as good kernels of the scalar loops.
    filter: scalar::filter,
    add_rows: scalar::add_rows,
};

#[target_feature(enable = "neon")]
fn load_i32(from: &[i32; 8]) -> (int32x4_t, int32x4_t) {
    // SAFETY: 32 readable bytes.
    unsafe { (vld1q_s32(from.as_ptr()), vld1q_s32(from.as_ptr().add(4))) }
}

#[target_feature(enable = "neon")]
fn store_i32(to: &mut [i32; 8], low: int32x4_t, high: int32x4_t) {
    // SAFETY: 32 writable bytes.
    unsafe {
        vst1q_s32(to.as_mut_ptr(), low);
        vst1q_s32(to.as_mut_ptr().add(4), high);
    }
}

#[target_feature(enable = "neon")]
fn load_i16(from: &[i16; 8]) -> int16x8_t {
    // SAFETY: 16 readable bytes.
    unsafe { vld1q_s16(from.as_ptr()) }
}

#[target_feature(enable = "neon")]
fn add(total: &mut [i32], input: &[i16]) {
    let len = total.len().min(input.len());
    let (total_blocks, total_rest) = total[..len].as_chunks_mut::<8>();
    let (input_blocks, input_rest) = input[..len].as_chunks::<8>();
    for (total, input) in total_blocks.iter_mut().zip(input_blocks) {
        let ((low, high), samples) = (load_i32(total), load_i16(input));
        store_i32(total, vaddw_s16(low, vget_low_s16(samples)), vaddw_high_s16(high, samples));
    }
    scalar::add(total_rest, input_rest);
}

#[target_feature(enable = "neon")]
fn subtract(total: &mut [i32], input: &[i16]) {
    let len = total.len().min(input.len());
    let (total_blocks, total_rest) = total[..len].as_chunks_mut::<8>();
    let (input_blocks, input_rest) = input[..len].as_chunks::<8>();
    for (total, input) in total_blocks.iter_mut().zip(input_blocks) {
        let ((low, high), samples) = (load_i32(total), load_i16(input));
        store_i32(total, vsubw_s16(low, vget_low_s16(samples)), vsubw_high_s16(high, samples));
    }
    scalar::subtract(total_rest, input_rest);
}

#[target_feature(enable = "neon")]
fn mix_minus(total: &[i32], own: &[i16], out: &mut [i16]) -> u32 {
    let len = total.len().min(own.len()).min(out.len());
    let (total_blocks, total_rest) = total[..len].as_chunks::<8>();
    let (own_blocks, own_rest) = own[..len].as_chunks::<8>();
    let (out_blocks, out_rest) = out[..len].as_chunks_mut::<8>();
    let mut peak = vdupq_n_u32(0);
    for ((total, own), out) in total_blocks.iter().zip(own_blocks).zip(out_blocks) {
        let ((low, high), own) = (load_i32(total), load_i16(own));
        let (low, high) = (vsubw_s16(low, vget_low_s16(own)), vsubw_high_s16(high, own));
        // The magnitude of i32::MIN wraps to itself, which is right when read as unsigned.
        let (low_abs, high_abs) = (vreinterpretq_u32_s32(vabsq_s32(low)), vreinterpretq_u32_s32(vabsq_s32(high)));
        peak = vmaxq_u32(peak, vmaxq_u32(low_abs, high_abs));
        // SAFETY: 16 writable bytes.
        unsafe { vst1q_s16(out.as_mut_ptr(), vqmovn_high_s32(vqmovn_s32(low), high)) };
    }
    vmaxvq_u32(peak).max(scalar::mix_minus(total_rest, own_rest, out_rest))
}

#[target_feature(enable = "neon")]
fn energy(input: &[i16]) -> u64 {
    let (blocks, rest) = input.as_chunks::<8>();
    let mut sum = vdupq_n_u64(0);
    for block in blocks {
        let samples = load_i16(block);
        let low = vmull_s16(vget_low_s16(samples), vget_low_s16(samples));
        let high = vmull_high_s16(samples, samples);
        // Squares are at most 2³⁰: two of them fit an unsigned lane.
        let squares = vaddq_u32(vreinterpretq_u32_s32(low), vreinterpretq_u32_s32(high));
        sum = vpadalq_u32(sum, squares);
    }
    vaddvq_u64(sum) + scalar::energy(rest)
}
