//! The kernels of mixing: add, subtract, mix-minus, energy, a filter and sums of rows, for the widest registers the machine has.
//!
//! Owns: the kernels and the choice between them, made once. Does not own: what they are used for (`mixer`, `vad`, `resample`).
//! Invariant: every kernel is bit-identical to [`SCALAR`], on any length and alignment (property tests below).
//! Where slices differ in length, all kernels work on the shortest.

use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// One set of kernels.
#[derive(Debug)]
pub struct Kernels {
    /// For logs and benches.
    pub name: &'static str,
    /// `total[i] += input[i]`, wrapping: 2¹⁵ full-scale inputs would be needed for that.
    pub add: fn(total: &mut [i32], input: &[i16]),
    /// `total[i] -= input[i]`, wrapping.
    pub subtract: fn(total: &mut [i32], input: &[i16]),
    /// `out[i] = total[i] − own[i]` clamped to 16 bits, the difference wrapping; returns the largest magnitude before clamping.
    pub mix_minus: fn(total: &[i32], own: &[i16], out: &mut [i16]) -> u32,
    /// The sum of squares.
    pub energy: fn(input: &[i16]) -> u64,
    /// `out[i] += line[i]·taps[0] + line[i + 1]·taps[1] + …`, each product rounded and added in this order, for as many `out`
    /// as `line` has all samples for.
    pub filter: fn(line: &[f32], taps: &[f32], out: &mut [f32]),
    /// `sums[i] += rows[0][i]·factors[0] + rows[1][i]·factors[1] + …`, each product rounded and added in this order; the rows
    /// lie behind each other, each as long as `sums`.
    pub add_rows: fn(sums: &mut [f32], rows: &[f32], factors: &[f32]),
}

/// The plain loops: what every other kernel must equal.
pub static SCALAR: Kernels = Kernels {
    name: "scalar",
    add: scalar::add,
    subtract: scalar::subtract,
    mix_minus: scalar::mix_minus,
    energy: scalar::energy,
    filter: scalar::filter,
    add_rows: scalar::add_rows,
};

/// The best kernels this machine can run, found at the first call.
pub fn kernels() -> &'static Kernels {
    static BEST: OnceLock<&'static Kernels> = OnceLock::new();
    BEST.get_or_init(|| available()[0])
}

/// All kernels this machine can run, the best first, [`SCALAR`] last.
pub fn available() -> Vec<&'static Kernels> {
    let mut available = Vec::new();
    #[cfg(target_arch = "x86_64")]
    available.extend(x86_64::available());
    #[cfg(target_arch = "aarch64")]
    available.push(&neon::NEON);
    available.push(&SCALAR);
    available
}

/// One sample at a time. The vector kernels end with these for what does not fill a register.
mod scalar {
    pub(super) fn add(total: &mut [i32], input: &[i16]) {
        for (sum, &sample) in total.iter_mut().zip(input) {
            *sum = sum.wrapping_add(i32::from(sample));
        }
    }

    pub(super) fn subtract(total: &mut [i32], input: &[i16]) {
        for (sum, &sample) in total.iter_mut().zip(input) {
            *sum = sum.wrapping_sub(i32::from(sample));
        }
    }

    pub(super) fn mix_minus(total: &[i32], own: &[i16], out: &mut [i16]) -> u32 {
        let mut peak = 0;
        for ((out, &sum), &own) in out.iter_mut().zip(total).zip(own) {
            let rest = sum.wrapping_sub(i32::from(own));
            peak = peak.max(rest.unsigned_abs());
            *out = rest.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        }
        peak
    }

    pub(super) fn energy(input: &[i16]) -> u64 {
        input.iter().map(|&sample| u64::from(i32::from(sample).pow(2).cast_unsigned())).sum()
    }

    /// Sums that are made side by side: in four registers of AVX2, eight of SSE2 or NEON.
    const BLOCK: usize = 32;

    /// The compiler makes vectors of this by itself, as wide as it may where it is inlined.
    #[inline(always)]
    pub(super) fn filter(line: &[f32], taps: &[f32], out: &mut [f32]) {
        let len = out.len().min((line.len() + 1).saturating_sub(taps.len()));
        let (blocks, rest) = out[..len].as_chunks_mut::<BLOCK>();
        let mut start = 0;
        for block in blocks {
            let mut sums = *block;
            for (tap, &factor) in taps.iter().enumerate() {
                let Some(window) = line[start + tap..].first_chunk::<BLOCK>() else { break };
                for (sum, sample) in sums.iter_mut().zip(window) {
                    *sum += sample * factor;
                }
            }
            *block = sums;
            start += BLOCK;
        }
        for (position, sum) in rest.iter_mut().enumerate() {
            for (sample, factor) in line[start + position..].iter().zip(taps) {
                *sum += sample * factor;
            }
        }
    }

    /// As above.
    #[inline(always)]
    pub(super) fn add_rows(sums: &mut [f32], rows: &[f32], factors: &[f32]) {
        let len = sums.len();
        if len == 0 {
            return;
        }
        let rows = || rows.chunks_exact(len).zip(factors);
        let (blocks, rest) = sums.as_chunks_mut::<BLOCK>();
        let mut start = 0;
        for block in blocks {
            let mut sums = *block;
            for (row, &factor) in rows() {
                let Some(part) = row[start..].first_chunk::<BLOCK>() else { break };
                for (sum, element) in sums.iter_mut().zip(part) {
                    *sum += element * factor;
                }
            }
            *block = sums;
            start += BLOCK;
        }
        for (row, factor) in rows() {
            for (sum, element) in rest.iter_mut().zip(&row[start..]) {
                *sum += element * factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Samples with the extremes over-represented.
    fn sample() -> impl Strategy<Value = i16> {
        prop_oneof![4 => any::<i16>(), 1 => Just(i16::MIN), 1 => Just(i16::MAX), 1 => Just(0)]
    }

    fn sum() -> impl Strategy<Value = i32> {
        prop_oneof![4 => -200_000..200_000, 1 => any::<i32>(), 1 => Just(i32::MIN), 1 => Just(i32::MAX)]
    }

    proptest! {
        /// Lengths that fill no register and starts that no alignment fits; slices of unequal length.
        #[test]
        fn every_kernel_equals_the_scalar_one(
            totals in proptest::collection::vec(sum(), 0..150),
            inputs in proptest::collection::vec(sample(), 0..150),
            (skip_total, skip_input) in (0usize..9, 0usize..17),
        ) {
            let totals = totals.get(skip_total..).unwrap_or_default();
            let inputs = inputs.get(skip_input..).unwrap_or_default();
            for kernels in available() {
                let (mut expected, mut got) = (totals.to_vec(), totals.to_vec());
                (SCALAR.add)(&mut expected, inputs);
                (kernels.add)(&mut got, inputs);
                prop_assert_eq!(&got, &expected, "{} add", kernels.name);
                (SCALAR.subtract)(&mut expected, inputs);
                (SCALAR.subtract)(&mut expected, inputs);
                (kernels.subtract)(&mut got, inputs);
                (kernels.subtract)(&mut got, inputs);
                prop_assert_eq!(&got, &expected, "{} subtract", kernels.name);
                let (mut expected, mut got) = (vec![7; inputs.len()], vec![7; inputs.len()]);
                let expected_peak = (SCALAR.mix_minus)(totals, inputs, &mut expected);
                let peak = (kernels.mix_minus)(totals, inputs, &mut got);
                prop_assert_eq!((peak, &got), (expected_peak, &expected), "{} mix_minus", kernels.name);
                prop_assert_eq!((kernels.energy)(inputs), (SCALAR.energy)(inputs), "{} energy", kernels.name);
            }
        }
    }

    fn bits(samples: &[f32]) -> Vec<u32> {
        samples.iter().map(|sample| sample.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn every_filter_equals_the_scalar_one_to_the_last_bit(
            line in proptest::collection::vec(-40_000.0f32..40_000.0, 0..250),
            taps in proptest::collection::vec(-1.0f32..1.0, 0..60),
            out in proptest::collection::vec(-40_000.0f32..40_000.0, 0..200),
        ) {
            let mut plain = out.clone();
            let fed = (line.len() + 1).saturating_sub(taps.len());
            for (position, sum) in plain.iter_mut().enumerate().take(fed) {
                for (tap, factor) in taps.iter().enumerate() {
                    *sum += line[position + tap] * factor;
                }
            }
            for kernels in available() {
                let mut got = out.clone();
                (kernels.filter)(&line, &taps, &mut got);
                prop_assert_eq!(bits(&got), bits(&plain), "{} filter", kernels.name);
            }
        }
    }

    proptest! {
        #[test]
        fn every_sum_of_rows_equals_the_scalar_one_to_the_last_bit(
            rows in proptest::collection::vec(-4.0f32..4.0, 0..700),
            factors in proptest::collection::vec(-3.0f32..3.0, 0..20),
            sums in proptest::collection::vec(-4.0f32..4.0, 0..110),
        ) {
            let mut plain = sums.clone();
            for (row, factor) in rows.chunks_exact(sums.len().max(1)).zip(&factors) {
                for (sum, element) in plain.iter_mut().zip(row) {
                    *sum += element * factor;
                }
            }
            for kernels in available() {
                let mut got = sums.clone();
                (kernels.add_rows)(&mut got, &rows, &factors);
                prop_assert_eq!(bits(&got), bits(&plain), "{} add_rows", kernels.name);
            }
        }
    }

    #[test]
    fn the_extremes_of_a_whole_frame_do_not_overflow() {
        for kernels in available() {
            assert_eq!((kernels.energy)(&[i16::MIN; 960]), 960 << 30, "{}", kernels.name);
            let mut out = [0; 960];
            assert_eq!((kernels.mix_minus)(&[i32::MIN; 960], &[0; 960], &mut out), 1 << 31, "{}", kernels.name);
            assert_eq!(out, [i16::MIN; 960]);
        }
    }

    #[test]
    fn the_choice_is_the_first_available_and_scalar_is_always_there() {
        assert_eq!(kernels().name, available()[0].name);
        assert_eq!(available().last().unwrap().name, "scalar");
    }
}
