//! What the network is told of a frame: how far each band stands out from its noise, and how periodic the frame is.
//!
//! Owns: the noise floor of each band (the least of the last three seconds: minimum statistics, R. Martin 2001), the
//! scaling. Does not own: the spectrum (`spectrum`), the decision (`network`).
//! Nothing here depends on the absolute level, so a loud and a quiet line look alike.

use super::spectrum::{BANDS, FRAME_SAMPLES, Spectrum};

/// Numbers a frame: the bands, the mean of all of them, periodicity.
pub const FEATURES: usize = BANDS + 2;

/// Added to every band: what is below (about −75 dBFS in all) is as good as silence, and G.711's own noise.
const LEAST_POWER: f32 = 4e-9;
/// A new frame's share of the smoothed power that the floor is the least of: single frames of noise vary by 10 dB.
const SMOOTHING: f32 = 0.3;
/// The floor is the least of six half seconds, so a new steady sound is the floor after three.
const FLOOR_PARTS: usize = 6;
const FLOOR_PART_FRAMES: u32 = 25;
/// Natural logarithms of power over this make features of about 1: 13 dB.
const SCALE: f32 = 3.0;
const LARGEST: f32 = 3.0;

/// The features of one voice.
#[derive(Clone, Debug)]
pub struct Features {
    spectrum: Spectrum,
    smoothed: [f32; BANDS],
    /// The least smoothed power of each half second, the current one first.
    least: [[f32; BANDS]; FLOOR_PARTS],
    part_frames: u32,
}

impl Default for Features {
    fn default() -> Self {
        Self::new()
    }
}

impl Features {
    /// Before the first frame.
    pub fn new() -> Self {
        Self {
            spectrum: Spectrum::new(),
            smoothed: [0.0; BANDS],
            least: [[f32::MAX; BANDS]; FLOOR_PARTS],
            part_frames: 0,
        }
    }

    /// Those of the next frame.
    pub fn next(&mut self, frame: &[i16; FRAME_SAMPLES]) -> [f32; FEATURES] {
        let bands = self.spectrum.bands(frame).map(|power| power + LEAST_POWER);
        let floors = self.follow_floors(&bands);
        let (mut features, mut weights, mut sum) = ([0.0; FEATURES], [0.0; BANDS], 0.0);
        for band in 0..BANDS {
            let above = ln(bands[band] / floors[band]) / SCALE;
            features[band] = above.clamp(-1.0, LARGEST);
            sum += features[band];
            // What is noise all the time, such as hum, has no part in the pitch.
            weights[band] = (1.0 - floors[band] / bands[band]).max(0.0);
        }
        features[BANDS] = sum / BANDS as f32;
        features[BANDS + 1] = self.spectrum.periodicity(&weights);
        features
    }

    /// The next frame passes unseen, which is for what is no louder than the floors.
    pub fn skip(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        self.spectrum.skip(frame);
    }

    fn follow_floors(&mut self, bands: &[f32; BANDS]) -> [f32; BANDS] {
        if self.part_frames == FLOOR_PART_FRAMES {
            self.part_frames = 0;
            self.least.rotate_right(1);
            self.least[0] = [f32::MAX; BANDS];
        }
        let is_first = self.least[0][0] == f32::MAX && self.least[1][0] == f32::MAX;
        self.part_frames += 1;
        let share = if is_first { 1.0 } else { SMOOTHING };
        std::array::from_fn(|band| {
            self.smoothed[band] += share * (bands[band] - self.smoothed[band]);
            self.least[0][band] = self.least[0][band].min(self.smoothed[band]);
            self.least.iter().map(|part| part[band]).fold(f32::MAX, f32::min)
        })
    }
}

/// The natural logarithm of a positive normal number, within 0.01: the exponent, and a parabola for the mantissa.
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    let log2 = exponent as f32 + (mantissa - 1.0) * (1.346_607 - 0.346_607 * (mantissa - 1.0));
    log2 * std::f32::consts::LN_2
}
