//! The decision: a small recurrent network that has heard what speech is.
//!
//! Owns: its arithmetic (a gated recurrent unit after Cho et al. 2014 with the reset gate behind the product, one output).
//! Does not own: what it is told (`features`), its learning (`tools/lab/examples/train_vad.rs`, which wrote `weights`).

use std::sync::OnceLock;

use super::features::FEATURES;
use super::weights;
use crate::media::simd::kernels;

/// Units of the memory.
pub const UNITS: usize = 32;
/// Update gates, reset gates and candidates side by side, so that one product serves all three.
pub const ROW: usize = 3 * UNITS;
/// A row a feature, one of constants, one a unit of the former state.
pub const ROWS: usize = FEATURES + 1 + UNITS;
/// All of it: the rows, the output's weights and its constant.
pub const WEIGHTS: usize = ROWS * ROW + UNITS + 1;
/// Weights are stored in so many parts of 1: within ±4, a thousandth of what decides.
pub const PARTS: f32 = 32.0;

/// The network of one voice: its memory, and the weights that all share.
#[derive(Clone, Debug)]
pub(super) struct Network {
    weights: &'static [f32; WEIGHTS],
    state: [f32; UNITS],
}

impl Network {
    pub(super) fn new() -> Self {
        static SHARED: OnceLock<[f32; WEIGHTS]> = OnceLock::new();
        let weights = SHARED.get_or_init(|| weights::TRAINED.map(|weight| f32::from(weight) / PARTS));
        Self { weights, state: [0.0; UNITS] }
    }

    /// The next frame: above 0 it is rather speech than not (the logarithm of the odds).
    pub(super) fn next(&mut self, features: &[f32; FEATURES]) -> f32 {
        let (rows, rest) = self.weights.as_chunks::<ROW>();
        let (mut input, mut former) = (rows[FEATURES], [0.0; ROW]);
        (kernels().add_rows)(&mut input, rows[..FEATURES].as_flattened(), features);
        (kernels().add_rows)(&mut former, rows[FEATURES + 1..ROWS].as_flattened(), &self.state);
        for (unit, state) in self.state.iter_mut().enumerate() {
            let update = sigmoid(input[unit] + former[unit]);
            let reset = sigmoid(input[UNITS + unit] + former[UNITS + unit]);
            let candidate = tanh(input[2 * UNITS + unit] + reset * former[2 * UNITS + unit]);
            *state = candidate + update * (*state - candidate);
        }
        // A loop of its own: the one above is made of vectors, which this order of additions does not allow.
        self.state.iter().zip(rest).fold(rest[UNITS], |output, (state, weight)| output + state * weight)
    }
}

/// Padé's approximation, exact enough (0.024) and smooth where it meets ±1: the network has learned with this very one.
pub fn tanh(x: f32) -> f32 {
    let x = x.clamp(-3.0, 3.0);
    x * (27.0 + x * x) / (27.0 + 9.0 * x * x)
}

/// The logistic function by [`tanh`].
pub fn sigmoid(x: f32) -> f32 {
    0.5 + 0.5 * tanh(0.5 * x)
}
