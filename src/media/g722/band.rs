//! One band's adaptive quantiser scale and predictor (G.722 §3.4 to §3.6; blocks LOGSCL to PREDIC), the same for both
//! bands and both directions but for the scale's constants.

/// How a band's scale follows its codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The multiplier's logarithm for each code (WL after RL42, WH after RH2).
    steps: &'static [i32],
    /// The highest logarithmic scale.
    highest: i32,
    /// Shift between the logarithm's integer part and the scale.
    shift: i32,
    /// At reset.
    initial: i32,
}

pub(super) const LOW_SCALE: Scale = Scale {
    steps: &[-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60],
    highest: 18_432,
    shift: 8,
    initial: 32,
};

pub(super) const HIGH_SCALE: Scale = Scale { steps: &[798, -214, 798, -214], highest: 22_528, shift: 10, initial: 8 };

/// The mantissa of the scale's exponential (ILB): 2048 · 2^(i/32).
const MANTISSAS: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896, 2960, 3025,
    3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

/// A band's state. Index 0 of the delay lines is the current sample, as in the recommendation.
#[derive(Clone, Debug)]
pub(super) struct Band {
    /// The prediction of the next sample (S).
    pub(super) estimate: i32,
    /// The quantiser's scale (DET).
    pub(super) scale: i32,
    /// Its logarithm (NB).
    log_scale: i32,
    /// The zero section's part of the prediction (SZ).
    zero_estimate: i32,
    /// Partially reconstructed samples (P), reconstructed ones (R), quantised differences (D).
    partial: [i32; 3],
    reconstructed: [i32; 3],
    differences: [i32; 7],
    /// Coefficients of the pole section (A) and of the zero section (B); index 0 is unused.
    poles: [i32; 3],
    zeros: [i32; 7],
}

impl Band {
    pub(super) const fn new(scale: Scale) -> Self {
        Self {
            estimate: 0,
            scale: scale.initial,
            log_scale: 0,
            zero_estimate: 0,
            partial: [0; 3],
            reconstructed: [0; 3],
            differences: [0; 7],
            poles: [0; 3],
            zeros: [0; 7],
        }
    }

    /// Takes in one code and its unscaled value.
    pub(super) fn adapt(&mut self, value: i32, code: usize, scale: &Scale) {
        let difference = (self.scale * value) >> 15;
        self.log_scale = (((self.log_scale * 127) >> 7) + scale.steps[code]).clamp(0, scale.highest);
        let mantissa = MANTISSAS[(self.log_scale >> 6 & 31) as usize];
        let shift = scale.shift - (self.log_scale >> 11);
        self.scale = if shift < 0 { mantissa << -shift } else { mantissa >> shift } << 2;
        self.predict(difference);
    }

    /// Blocks RECONS to PREDIC.
    fn predict(&mut self, difference: i32) {
        self.differences[0] = difference;
        self.reconstructed[0] = saturate(self.estimate + difference);
        self.partial[0] = saturate(self.zero_estimate + difference);
        let poles = self.next_poles();
        let zeros = self.next_zeros();
        (self.poles, self.zeros) = (poles, zeros);
        self.differences.copy_within(0..6, 1);
        self.reconstructed.copy_within(0..2, 1);
        self.partial.copy_within(0..2, 1);
        // FILTEP, FILTEZ, PREDIC
        let pole_part = |i: usize| (self.poles[i] * saturate(2 * self.reconstructed[i])) >> 15;
        let zero_part = |i: usize| (self.zeros[i] * saturate(2 * self.differences[i])) >> 15;
        self.zero_estimate = saturate((1..7).map(zero_part).sum());
        self.estimate = saturate(saturate(pole_part(1) + pole_part(2)) + self.zero_estimate);
    }

    /// Blocks UPPOL2 and UPPOL1.
    fn next_poles(&self) -> [i32; 3] {
        let same_sign = |i: usize| (self.partial[0] < 0) == (self.partial[i] < 0);
        let first = saturate(4 * self.poles[1]);
        let first = if same_sign(1) { (-first).min(32_767) } else { first };
        let second = if same_sign(2) { 128 } else { -128 } + (first >> 7) + ((self.poles[2] * 32_512) >> 15);
        let second = second.clamp(-12_288, 12_288);
        let first = saturate(if same_sign(1) { 192 } else { -192 } + ((self.poles[1] * 32_640) >> 15));
        let bound = saturate(15_360 - second);
        [0, first.clamp(-bound, bound), second]
    }

    /// Block UPZERO.
    fn next_zeros(&self) -> [i32; 7] {
        let difference = self.differences[0];
        let gain = if difference == 0 { 0 } else { 128 };
        let mut zeros = [0; 7];
        for (next, (zero, past)) in zeros.iter_mut().zip(self.zeros.iter().zip(&self.differences)).skip(1) {
            let step = if (*past < 0) == (difference < 0) { gain } else { -gain };
            *next = saturate(step + ((zero * 32_640) >> 15));
        }
        zeros
    }
}

/// To 16 bits.
pub(super) fn saturate(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}
