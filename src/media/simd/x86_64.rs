//! SSE2, which every x86-64 has, and AVX2. One macro writes both: the algorithm is the same at 4 and at 8 lanes.

use std::arch::x86_64::*;

use super::{Kernels, scalar};

/// Eight-lane kernels, then the four-lane ones.
pub(super) fn available() -> impl Iterator<Item = &'static Kernels> {
    static SSE2: Kernels = Kernels {
        name: "sse2",
        // SAFETY: SSE2 is part of x86-64.
        add: |total, input| unsafe { sse2::add(total, input) },
        // SAFETY: as above.
        subtract: |total, input| unsafe { sse2::subtract(total, input) },
        // SAFETY: as above.
        mix_minus: |total, own, out| unsafe { sse2::mix_minus(total, own, out) },
        // SAFETY: as above.
        energy: |input| unsafe { sse2::energy(input) },
    };
    static AVX2: Kernels = Kernels {
        name: "avx2",
        // SAFETY: these kernels are handed out only below, after AVX2 was detected.
        add: |total, input| unsafe { avx2::add(total, input) },
        // SAFETY: as above.
        subtract: |total, input| unsafe { avx2::subtract(total, input) },
        // SAFETY: as above.
        mix_minus: |total, own, out| unsafe { avx2::mix_minus(total, own, out) },
        // SAFETY: as above.
        energy: |input| unsafe { avx2::energy(input) },
    };
    is_x86_feature_detected!("avx2").then_some(&AVX2).into_iter().chain([&SSE2])
}

/// The kernels over one instruction set's lane operations, which the invoking module defines.
macro_rules! kernels {
    ($feature:literal, $lanes:literal) => {
        #[target_feature(enable = $feature)]
        pub(super) fn add(total: &mut [i32], input: &[i16]) {
            let len = total.len().min(input.len());
            let (total_blocks, total_rest) = total[..len].as_chunks_mut::<$lanes>();
            let (input_blocks, input_rest) = input[..len].as_chunks::<$lanes>();
            for (total, input) in total_blocks.iter_mut().zip(input_blocks) {
                store_i32(total, add_i32(load_i32(total), load_i16(input)));
            }
            scalar::add(total_rest, input_rest);
        }

        #[target_feature(enable = $feature)]
        pub(super) fn subtract(total: &mut [i32], input: &[i16]) {
            let len = total.len().min(input.len());
            let (total_blocks, total_rest) = total[..len].as_chunks_mut::<$lanes>();
            let (input_blocks, input_rest) = input[..len].as_chunks::<$lanes>();
            for (total, input) in total_blocks.iter_mut().zip(input_blocks) {
                store_i32(total, subtract_i32(load_i32(total), load_i16(input)));
            }
            scalar::subtract(total_rest, input_rest);
        }

        #[target_feature(enable = $feature)]
        pub(super) fn mix_minus(total: &[i32], own: &[i16], out: &mut [i16]) -> u32 {
            let len = total.len().min(own.len()).min(out.len());
            let (total_blocks, total_rest) = total[..len].as_chunks::<$lanes>();
            let (own_blocks, own_rest) = own[..len].as_chunks::<$lanes>();
            let (out_blocks, out_rest) = out[..len].as_chunks_mut::<$lanes>();
            let mut peak = zero();
            for ((total, own), out) in total_blocks.iter().zip(own_blocks).zip(out_blocks) {
                let rest = subtract_i32(load_i32(total), load_i16(own));
                peak = max_u32(peak, abs_i32(rest));
                store_saturated(out, rest);
            }
            let mut peaks = [0i32; $lanes];
            store_i32(&mut peaks, peak);
            let rest_peak = scalar::mix_minus(total_rest, own_rest, out_rest);
            peaks.iter().fold(rest_peak, |peak, lane| peak.max(lane.cast_unsigned()))
        }

        #[target_feature(enable = $feature)]
        pub(super) fn energy(input: &[i16]) -> u64 {
            let (blocks, rest) = input.as_chunks::<{ 2 * $lanes }>();
            let mut sum = zero();
            for block in blocks {
                sum = add_u32_pairs_as_u64(sum, sum_of_squared_pairs(block));
            }
            let mut sums = [0i32; $lanes];
            store_i32(&mut sums, sum);
            let (pairs, _) = sums.as_chunks::<2>();
            let wide =
                |[low, high]: &[i32; 2]| (u64::from(high.cast_unsigned()) << 32) | u64::from(low.cast_unsigned());
            pairs.iter().map(wide).sum::<u64>() + scalar::energy(rest)
        }
    };
}

mod sse2 {
    use super::*;

    kernels!("sse2", 4);

    #[target_feature(enable = "sse2")]
    fn zero() -> __m128i {
        _mm_setzero_si128()
    }

    #[target_feature(enable = "sse2")]
    fn load_i32(from: &[i32; 4]) -> __m128i {
        // SAFETY: 16 readable bytes, alignment is not required.
        unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
    }

    #[target_feature(enable = "sse2")]
    fn store_i32(to: &mut [i32; 4], lanes: __m128i) {
        // SAFETY: 16 writable bytes, alignment is not required.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), lanes) }
    }

    /// Four samples with their signs extended: doubled into the upper halves, then shifted down.
    #[target_feature(enable = "sse2")]
    fn load_i16(from: &[i16; 4]) -> __m128i {
        // SAFETY: 8 readable bytes, alignment is not required.
        let samples = unsafe { _mm_loadl_epi64(from.as_ptr().cast()) };
        _mm_srai_epi32::<16>(_mm_unpacklo_epi16(samples, samples))
    }

    #[target_feature(enable = "sse2")]
    fn add_i32(a: __m128i, b: __m128i) -> __m128i {
        _mm_add_epi32(a, b)
    }

    #[target_feature(enable = "sse2")]
    fn subtract_i32(a: __m128i, b: __m128i) -> __m128i {
        _mm_sub_epi32(a, b)
    }

    #[target_feature(enable = "sse2")]
    fn abs_i32(a: __m128i) -> __m128i {
        let sign = _mm_srai_epi32::<31>(a);
        _mm_sub_epi32(_mm_xor_si128(a, sign), sign)
    }

    /// SSE2 compares signed lanes only: both sides are shifted by 2³¹ first.
    #[target_feature(enable = "sse2")]
    fn max_u32(a: __m128i, b: __m128i) -> __m128i {
        let shift = _mm_set1_epi32(i32::MIN);
        let a_wins = _mm_cmpgt_epi32(_mm_xor_si128(a, shift), _mm_xor_si128(b, shift));
        _mm_or_si128(_mm_and_si128(a_wins, a), _mm_andnot_si128(a_wins, b))
    }

    #[target_feature(enable = "sse2")]
    fn store_saturated(to: &mut [i16; 4], lanes: __m128i) {
        // SAFETY: 8 writable bytes, alignment is not required.
        unsafe { _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packs_epi32(lanes, lanes)) }
    }

    /// Each lane: the squares of two neighbours, at most 2³¹, hence unsigned.
    #[target_feature(enable = "sse2")]
    fn sum_of_squared_pairs(from: &[i16; 8]) -> __m128i {
        // SAFETY: 16 readable bytes, alignment is not required.
        let samples = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
        _mm_madd_epi16(samples, samples)
    }

    #[target_feature(enable = "sse2")]
    fn add_u32_pairs_as_u64(sum: __m128i, lanes: __m128i) -> __m128i {
        let low = _mm_and_si128(lanes, _mm_set1_epi64x(0xffff_ffff));
        _mm_add_epi64(sum, _mm_add_epi64(low, _mm_srli_epi64::<32>(lanes)))
    }
}

mod avx2 {
    use super::*;

    kernels!("avx2", 8);

    #[target_feature(enable = "avx2")]
    fn zero() -> __m256i {
        _mm256_setzero_si256()
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

    #[target_feature(enable = "avx2")]
    fn load_i16(from: &[i16; 8]) -> __m256i {
        // SAFETY: 16 readable bytes, alignment is not required.
        _mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
    }

    #[target_feature(enable = "avx2")]
    fn add_i32(a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(a, b)
    }

    #[target_feature(enable = "avx2")]
    fn subtract_i32(a: __m256i, b: __m256i) -> __m256i {
        _mm256_sub_epi32(a, b)
    }

    #[target_feature(enable = "avx2")]
    fn abs_i32(a: __m256i) -> __m256i {
        _mm256_abs_epi32(a)
    }

    #[target_feature(enable = "avx2")]
    fn max_u32(a: __m256i, b: __m256i) -> __m256i {
        _mm256_max_epu32(a, b)
    }

    #[target_feature(enable = "avx2")]
    fn store_saturated(to: &mut [i16; 8], lanes: __m256i) {
        let (low, high) = (_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
        // SAFETY: 16 writable bytes, alignment is not required.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_packs_epi32(low, high)) }
    }

    #[target_feature(enable = "avx2")]
    fn sum_of_squared_pairs(from: &[i16; 16]) -> __m256i {
        // SAFETY: 32 readable bytes, alignment is not required.
        let samples = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        _mm256_madd_epi16(samples, samples)
    }

    #[target_feature(enable = "avx2")]
    fn add_u32_pairs_as_u64(sum: __m256i, lanes: __m256i) -> __m256i {
        let low = _mm256_and_si256(lanes, _mm256_set1_epi64x(0xffff_ffff));
        _mm256_add_epi64(sum, _mm256_add_epi64(low, _mm256_srli_epi64::<32>(lanes)))
    }
}
