//! The room's bus: one sum of all voices, and what each listener hears of it.
//!
//! Owns: the 32-bit sum, total − own, the limiter. Does not own: who takes part (`room`), decoding, resampling.
//! Invariants: the sum is exact and independent of order; what never exceeds [`CEILING`] passes bit for bit.

use super::simd::{Kernels, kernels};

/// The bus's rate: what telephones can carry, and what Opus decodes to directly.
pub const BUS_RATE_HZ: u32 = 16_000;

/// One tick of 20 ms on the bus.
pub const BUS_FRAME_SAMPLES: usize = 320;

/// One tick of one voice.
pub type BusFrame = [i16; BUS_FRAME_SAMPLES];

/// No voice.
pub const SILENCE: BusFrame = [0; BUS_FRAME_SAMPLES];

/// The loudest sample the limiter lets through: 0.2 dB below full scale, since the filter behind it overshoots a little.
pub const CEILING: u32 = 32_000;

/// The limiter moves its gain once in 2 ms: shorter than a period of the deepest voice, long enough to make no clicks.
const SEGMENT_SAMPLES: usize = 32;
const SEGMENTS: usize = BUS_FRAME_SAMPLES / SEGMENT_SAMPLES;

/// Back to full gain at 10 dB a second, but only after a second without a peak that needed the present gain (within 1 dB):
/// syllables of two voices coincide more often, so the gain stands still while a loud conversation goes on.
const RELEASE_PER_SEGMENT: f32 = 1.002_305;
const HOLD_SEGMENTS: u16 = 500;
const NEARLY: f32 = 1.122;

/// The sum of one tick.
#[derive(Clone, Debug)]
pub struct Bus {
    total: [i32; BUS_FRAME_SAMPLES],
    voices: u32,
    kernels: &'static Kernels,
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus {
    /// An empty bus that uses the best kernels of this machine.
    pub fn new() -> Self {
        Self::with_kernels(kernels())
    }

    /// An empty bus that uses these kernels (for benches and tests).
    pub const fn with_kernels(kernels: &'static Kernels) -> Self {
        Self { total: [0; BUS_FRAME_SAMPLES], voices: 0, kernels }
    }

    /// Begins a tick.
    pub const fn clear(&mut self) {
        self.total = [0; BUS_FRAME_SAMPLES];
        self.voices = 0;
    }

    /// Adds one voice.
    pub fn add(&mut self, voice: &BusFrame) {
        (self.kernels.add)(&mut self.total, voice);
        self.voices += 1;
    }

    /// Takes a voice out again that was added in this tick (its caller was muted in between).
    pub fn remove(&mut self, voice: &BusFrame) {
        (self.kernels.subtract)(&mut self.total, voice);
        self.voices = self.voices.saturating_sub(1);
    }

    /// Voices in the sum.
    pub const fn voices(&self) -> u32 {
        self.voices
    }

    /// What a listener hears: everything but `own`, which must have been added (or be [`SILENCE`]).
    pub fn minus(&self, own: &BusFrame, limiter: &mut Limiter, out: &mut BusFrame) {
        let peak = (self.kernels.mix_minus)(&self.total, own, out);
        if peak > CEILING || limiter.is_active() {
            limiter.apply(&self.total, own, out);
        }
    }
}

/// One listener's limiter: it turns down what is too loud and lets go slowly. It looks ahead within the frame, hence adds
/// no delay.
#[derive(Clone, Debug)]
pub struct Limiter {
    /// 0 to 1; exactly 1 at rest.
    gain: f32,
    /// Until it may let go.
    hold_segments: u16,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

impl Limiter {
    /// At rest.
    pub const fn new() -> Self {
        Self { gain: 1.0, hold_segments: 0 }
    }

    /// Whether it turns anything down at present.
    pub fn is_active(&self) -> bool {
        self.gain < 1.0
    }

    fn apply(&mut self, total: &[i32; BUS_FRAME_SAMPLES], own: &BusFrame, out: &mut BusFrame) {
        let mut rest = [0i32; BUS_FRAME_SAMPLES];
        for ((rest, &sum), &own) in rest.iter_mut().zip(total).zip(own) {
            *rest = sum.wrapping_sub(i32::from(own));
        }
        // What each segment may have at most; the last one knows no successor.
        let mut allowed = [1.0f32; SEGMENTS + 1];
        for (allowed, segment) in allowed.iter_mut().zip(rest.chunks(SEGMENT_SAMPLES)) {
            let peak = segment.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
            *allowed = if peak > CEILING { CEILING as f32 / peak as f32 } else { 1.0 };
        }
        allowed[SEGMENTS] = allowed[SEGMENTS - 1];
        // An onset in the very first segment could not be foreseen: step down there, a straight line everywhere else.
        self.gain = self.gain.min(allowed[0]);
        let segments = rest.chunks(SEGMENT_SAMPLES).zip(out.chunks_mut(SEGMENT_SAMPLES));
        for ((segment, out), pair) in segments.zip(allowed.windows(2)) {
            let allowed = pair[0].min(pair[1]);
            let needed = allowed < (self.gain * NEARLY).min(1.0);
            self.hold_segments = if needed { HOLD_SEGMENTS } else { self.hold_segments.saturating_sub(1) };
            let release = if self.hold_segments == 0 { RELEASE_PER_SEGMENT } else { 1.0 };
            let target = (self.gain * release).min(1.0).min(allowed);
            let step = (target - self.gain) / SEGMENT_SAMPLES as f32;
            for (position, (out, &sample)) in out.iter_mut().zip(segment).enumerate() {
                // The conversion saturates.
                *out = (sample as f32 * (self.gain + step * position as f32)) as i16;
            }
            self.gain = target;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(seed: i32, amplitude: i32) -> BusFrame {
        std::array::from_fn(|i| ((seed * 7919 + i as i32 * 104_729).wrapping_mul(48_271) >> 8) as i16)
            .map(|s: i16| (i32::from(s) * amplitude / 32_768) as i16)
    }

    #[test]
    fn a_listener_hears_all_but_himself_exactly() {
        let voices = [frame(1, 6000), frame(2, 6000), frame(3, 6000)];
        let (mut bus, mut out) = (Bus::new(), SILENCE);
        for voice in &voices {
            bus.add(voice);
        }
        bus.minus(&voices[1], &mut Limiter::new(), &mut out);
        let expected: BusFrame = std::array::from_fn(|i| voices[0][i] + voices[2][i]);
        assert_eq!((out, bus.voices()), (expected, 3));
        bus.remove(&voices[0]);
        bus.minus(&voices[1], &mut Limiter::new(), &mut out);
        assert_eq!((out, bus.voices()), (voices[2], 2));
        bus.clear();
        bus.minus(&SILENCE, &mut Limiter::new(), &mut out);
        assert_eq!(out, SILENCE);
    }

    #[test]
    fn what_is_too_loud_is_turned_down_not_clipped_and_released_within_two_seconds() {
        let tone = |tick: usize, amplitude: f32| -> BusFrame {
            std::array::from_fn(|i| (((tick * 320 + i) as f32 * 0.1).sin() * amplitude) as i16)
        };
        let (mut limiter, mut out) = (Limiter::new(), SILENCE);
        for tick in 0..50 {
            let mut bus = Bus::new();
            for _ in 0..4 {
                bus.add(&tone(tick, 20_000.0));
            }
            bus.minus(&SILENCE, &mut limiter, &mut out);
            let peak = out.iter().map(|s| s.unsigned_abs()).max().unwrap();
            assert!(u32::from(peak) <= CEILING && peak > 30_000, "{peak}");
            // A sine at a steady gain: no sample is far from the line through its neighbours.
            let bend = out.windows(3).map(|w| (i32::from(w[0]) - 2 * i32::from(w[1]) + i32::from(w[2])).abs()).max();
            assert!(tick == 0 || bend.unwrap() < 500, "{bend:?} in tick {tick}");
        }
        assert!(limiter.is_active());
        for tick in 50..150 {
            let mut bus = Bus::new();
            bus.add(&tone(tick, 10_000.0));
            bus.minus(&SILENCE, &mut limiter, &mut out);
        }
        assert!(!limiter.is_active());
        assert_eq!(out, tone(149, 10_000.0));
    }

    /// What a listener hears of two voices, and the limiter's gain at the end of each frame.
    fn heard(ticks: usize, voices: [&dyn Fn(usize) -> f32; 2]) -> (Vec<i16>, Vec<f32>) {
        let (mut limiter, mut out, mut pcm, mut gains) = (Limiter::new(), SILENCE, Vec::new(), Vec::new());
        for tick in 0..ticks {
            let mut bus = Bus::new();
            for voice in voices {
                bus.add(&std::array::from_fn(|i| voice(tick * BUS_FRAME_SAMPLES + i) as i16));
            }
            bus.minus(&SILENCE, &mut limiter, &mut out);
            pcm.extend(out);
            gains.push(limiter.gain);
        }
        (pcm, gains)
    }

    /// The power of that tone within `pcm`, and what is left without it.
    fn without_tone(pcm: &[f64], radians: f64) -> Vec<f64> {
        let (mut cosine, mut sine) = (0.0, 0.0);
        for (n, sample) in pcm.iter().enumerate() {
            cosine += sample * (radians * n as f64).cos();
            sine += sample * (radians * n as f64).sin();
        }
        let scale = 2.0 / pcm.len() as f64;
        let (cosine, sine) = (cosine * scale, sine * scale);
        let tone = |n: usize| cosine * (radians * n as f64).cos() + sine * (radians * n as f64).sin();
        pcm.iter().enumerate().map(|(n, sample)| sample - tone(n)).collect()
    }

    #[test]
    fn two_tones_that_would_clip_come_out_with_less_than_a_hundredth_of_distortion() {
        // 400 and 950 Hz: whole periods fit into each second.
        let radians = |hz: f64| std::f64::consts::TAU * hz / 16_000.0;
        let tone = |hz: f64| move |n: usize| ((radians(hz) * n as f64).sin() * 24_000.0) as f32;
        let (pcm, _) = heard(100, [&tone(400.0), &tone(950.0)]);
        let second: Vec<f64> = pcm[16_000..].iter().map(|sample| f64::from(*sample)).collect();
        let power = |samples: &[f64]| samples.iter().map(|sample| sample * sample).sum::<f64>();
        let rest = without_tone(&without_tone(&second, radians(400.0)), radians(950.0));
        let distortion = (power(&rest) / power(&second)).sqrt();
        assert!(distortion < 0.01, "{distortion}");
        // Clipping alone would be far from that.
        let clipped: Vec<f64> =
            (0..16_000).map(|n| f64::from((tone(400.0)(n) + tone(950.0)(n)).clamp(-32_000.0, 32_000.0))).collect();
        let rest = without_tone(&without_tone(&clipped, radians(400.0)), radians(950.0));
        assert!((power(&rest) / power(&clipped)).sqrt() > 0.05);
    }

    #[test]
    fn the_gain_stands_still_while_two_loud_voices_talk_and_comes_back_at_10_db_a_second() {
        // Syllables: 3 and 4 a second, silent in between.
        let voice = |hz: f32, syllables_hz: f32| {
            move |n: usize| {
                let seconds = n as f32 / 16_000.0;
                let loudness = (seconds * syllables_hz * std::f32::consts::TAU).sin().max(0.0);
                (seconds * hz * std::f32::consts::TAU).sin() * loudness * if n < 80_000 { 30_000.0 } else { 1_000.0 }
            }
        };
        let (_, gains) = heard(350, [&voice(180.0, 3.0), &voice(310.0, 4.0)]);
        let db: Vec<f32> = gains.iter().map(|gain| 20.0 * gain.log10()).collect();
        let talk = &db[50..250];
        let (least, most) = talk.iter().fold((0.0f32, -99.0f32), |(low, high), db| (low.min(*db), high.max(*db)));
        assert!(least < -4.0 && most - least < 1.1, "{least} to {most}");
        let steepest = db.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f32::max);
        assert!((0.15..0.21).contains(&steepest) && db[349] == 0.0, "{steepest} dB a frame");
    }

    proptest! {
        #[test]
        fn no_sum_exceeds_the_ceiling_or_changes_with_the_order(
            seeds in proptest::collection::vec((0i32..1000, 0i32..32_768), 1..40)
        ) {
            let (mut forth, mut back) = (Bus::new(), Bus::with_kernels(&crate::media::simd::SCALAR));
            for &(seed, amplitude) in &seeds {
                forth.add(&frame(seed, amplitude));
            }
            for &(seed, amplitude) in seeds.iter().rev() {
                back.add(&frame(seed, amplitude));
            }
            let own = frame(seeds[0].0, seeds[0].1);
            let (mut out, mut out_back) = (SILENCE, SILENCE);
            let (mut limiter, mut limiter_back) = (Limiter::new(), Limiter::new());
            for _ in 0..2 {
                forth.minus(&own, &mut limiter, &mut out);
                back.minus(&own, &mut limiter_back, &mut out_back);
                prop_assert!(out.iter().all(|s| u32::from(s.unsigned_abs()) <= CEILING));
                prop_assert_eq!(out, out_back);
            }
        }
    }
}
