//! Voice activity of one voice, frame by frame: who speaks, and how loudly.
//!
//! Owns: the level, a noise floor that follows the room, the decision with its hangover. Does not own: Opus' own voice
//! flag (`opus::packet`), what follows from the decision (`room`).
//! Method: speech stands out from the quietest moments of the last two seconds, and most of it is voiced, hence stronger
//! at low frequencies than white noise. A steady sound becomes the floor itself after two seconds.

use super::simd::{Kernels, kernels};

/// No level is reported below.
pub const SILENCE_DBFS: f32 = -96.0;

/// What counts as speech is at least so loud.
const QUIETEST_SPEECH_DBFS: f32 = -50.0;
/// Voiced sound stands out from the floor by so much.
const VOICED_ABOVE_FLOOR_DB: f32 = 7.0;
/// Any sound at all that stands out by so much is taken for speech if it lasts two frames (or follows speech).
const ANY_ABOVE_FLOOR_DB: f32 = 14.0;
/// The correlation of neighbouring samples above which a sound is voiced: white noise has 0, vowels have 0.6 to 0.95.
const VOICED_CORRELATION: f32 = 0.35;
/// The floor lies between these: below is nothing, above no one could speak up.
const LOWEST_FLOOR_DBFS: f32 = -70.0;
const HIGHEST_FLOOR_DBFS: f32 = -30.0;
/// The floor is the quietest of four half seconds.
const FLOOR_PARTS: usize = 4;
const FLOOR_PART_MS: u32 = 500;
/// Speech goes on for so long after its last loud frame: word endings and short pauses belong to it.
const HANGOVER_MS: u32 = 240;
/// After a sound of less than 60 ms (a click) only so long.
const SHORT_HANGOVER_MS: u32 = 60;
const SHORT_MS: u32 = 60;

/// What one frame is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Someone speaks.
    pub is_voice: bool,
    /// The frame's power against a full-scale square wave: [`SILENCE_DBFS`] to 0.
    pub level_dbfs: f32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Vad {
    sample_rate_hz: u32,
    kernels: &'static Kernels,
    /// The quietest level of each half second, the current one first.
    floors_dbfs: [f32; FLOOR_PARTS],
    floor_part_ms: u32,
    /// The current stretch of loud frames.
    loud_ms: u32,
    hangover_ms: u32,
}

impl Vad {
    /// For 8 or 16 kHz (or any other rate).
    pub fn new(sample_rate_hz: u32) -> Self {
        Self {
            sample_rate_hz,
            kernels: kernels(),
            floors_dbfs: [f32::MAX; FLOOR_PARTS],
            floor_part_ms: 0,
            loud_ms: 0,
            hangover_ms: 0,
        }
    }

    /// Judges the next frame, of 10 to 60 ms, 20 ms as a rule. An empty frame is silence.
    pub fn process(&mut self, frame: &[i16]) -> Verdict {
        let frame_ms = (frame.len() as u32).saturating_mul(1000) / self.sample_rate_hz.max(1);
        let energy = (self.kernels.energy)(frame);
        let level_dbfs = level_dbfs(energy, frame.len());
        let floor_dbfs = self.follow_floor(level_dbfs, frame_ms);
        let above_db = level_dbfs - floor_dbfs;
        let is_loud = level_dbfs > QUIETEST_SPEECH_DBFS
            && (above_db > ANY_ABOVE_FLOOR_DB && (self.loud_ms > 0 || self.hangover_ms > 0)
                || above_db > VOICED_ABOVE_FLOOR_DB && correlation(frame, energy) > VOICED_CORRELATION);
        if is_loud {
            self.loud_ms = self.loud_ms.saturating_add(frame_ms);
            let hangover_ms = if self.loud_ms > SHORT_MS { HANGOVER_MS } else { SHORT_HANGOVER_MS };
            self.hangover_ms = self.hangover_ms.max(hangover_ms);
        } else {
            // A loud frame that is not voiced opens the door for a second one.
            let is_candidate = level_dbfs > QUIETEST_SPEECH_DBFS && above_db > ANY_ABOVE_FLOOR_DB;
            self.loud_ms = u32::from(is_candidate);
            self.hangover_ms = self.hangover_ms.saturating_sub(frame_ms);
        }
        Verdict { is_voice: is_loud || self.hangover_ms > 0, level_dbfs }
    }

    /// Takes the frame into the floor and returns it.
    fn follow_floor(&mut self, level_dbfs: f32, frame_ms: u32) -> f32 {
        self.floors_dbfs[0] = self.floors_dbfs[0].min(level_dbfs);
        self.floor_part_ms += frame_ms;
        let quietest = self.floors_dbfs.iter().copied().fold(f32::MAX, f32::min);
        if self.floor_part_ms >= FLOOR_PART_MS {
            self.floor_part_ms = 0;
            self.floors_dbfs.rotate_right(1);
            self.floors_dbfs[0] = f32::MAX;
        }
        // A call may begin in the middle of a word: until two seconds are known a loud start is no floor.
        let highest =
            if self.floors_dbfs[FLOOR_PARTS - 1] == f32::MAX { QUIETEST_SPEECH_DBFS } else { HIGHEST_FLOOR_DBFS };
        quietest.clamp(LOWEST_FLOOR_DBFS, highest)
    }
}

/// The mean power of `samples` samples in dB of full scale.
pub fn level_dbfs(energy: u64, samples: usize) -> f32 {
    if energy == 0 || samples == 0 {
        return SILENCE_DBFS;
    }
    let power = energy as f32 / samples as f32 / (32_768.0 * 32_768.0);
    (10.0 * power.log10()).clamp(SILENCE_DBFS, 0.0)
}

/// The correlation of each sample with its neighbour: −1 to 1.
fn correlation(frame: &[i16], energy: u64) -> f32 {
    if energy == 0 {
        return 0.0;
    }
    let products: i64 = frame.windows(2).map(|pair| i64::from(i32::from(pair[0]) * i32::from(pair[1]))).sum();
    products as f32 / energy as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const RATE: usize = 8000;
    const FRAME: usize = 160;

    fn noise(random: &mut Random, samples: usize, amplitude: i32) -> Vec<i16> {
        (0..samples)
            .map(|_| (random.below(2 * amplitude.cast_unsigned() + 1).cast_signed() - amplitude) as i16)
            .collect()
    }

    /// Syllables of 160 ms, a harmonic tone of 120 Hz under a formant-like slope, with pauses of 60 ms.
    fn speech(samples: usize, amplitude: f64) -> Vec<i16> {
        (0..samples)
            .map(|i| {
                let (phase, syllable) = (i as f64 / RATE as f64, i % (RATE * 22 / 100));
                if syllable > RATE * 16 / 100 {
                    return 0;
                }
                let tone: f64 = (1..12)
                    .map(|h| (phase * 120.0 * f64::from(h) * std::f64::consts::TAU).sin() / f64::from(h * h).sqrt())
                    .sum();
                (tone * amplitude / 2.0) as i16
            })
            .collect()
    }

    fn voiced_frames(vad: &mut Vad, pcm: &[i16]) -> usize {
        pcm.chunks(FRAME).filter(|frame| vad.process(frame).is_voice).count()
    }

    fn add(a: &[i16], b: &[i16]) -> Vec<i16> {
        a.iter().zip(b).map(|(a, b)| a.saturating_add(*b)).collect()
    }

    #[test]
    fn speech_in_quiet_and_in_noise_is_found_from_its_first_frame_on() {
        let mut random = Random::for_test(1);
        for noise_amplitude in [0, 30, 300] {
            let mut vad = Vad::new(RATE as u32);
            voiced_frames(&mut vad, &noise(&mut random, RATE * 2, noise_amplitude));
            let pcm = add(&speech(RATE * 5, 5000.0), &noise(&mut random, RATE * 5, noise_amplitude));
            assert!(vad.process(&pcm[..FRAME]).is_voice);
            let voiced = voiced_frames(&mut vad, &pcm[FRAME..]);
            assert!(voiced >= 245, "{voiced} of 249 with noise {noise_amplitude}");
        }
    }

    #[test]
    fn steady_noise_is_no_speech_at_any_level() {
        let mut random = Random::for_test(2);
        for amplitude in [0, 5, 50, 500, 3000] {
            let mut vad = Vad::new(RATE as u32);
            voiced_frames(&mut vad, &noise(&mut random, RATE * 2 + RATE / 2, amplitude));
            let voiced = voiced_frames(&mut vad, &noise(&mut random, RATE * 20, amplitude));
            assert_eq!(voiced, 0, "amplitude {amplitude}");
        }
    }

    #[test]
    fn speech_ends_a_quarter_of_a_second_after_its_last_sound() {
        let mut vad = Vad::new(RATE as u32);
        voiced_frames(&mut vad, &vec![0; RATE]);
        voiced_frames(&mut vad, &speech(RATE * 16 / 100, 5000.0));
        let after = voiced_frames(&mut vad, &vec![0; RATE]);
        assert!((10..=13).contains(&after), "{after}");
    }

    #[test]
    fn a_click_and_a_hum_below_speech_level_are_no_speech() {
        let mut vad = Vad::new(RATE as u32);
        voiced_frames(&mut vad, &vec![0; RATE * 2]);
        let mut click = vec![0; FRAME];
        click[80] = 20_000;
        assert!(!vad.process(&click).is_voice);
        let hum: Vec<i16> = (0..RATE * 2).map(|i| (40.0 * (i as f64 * 0.04).sin()) as i16).collect();
        assert_eq!(voiced_frames(&mut vad, &hum), 0);
    }

    #[test]
    fn levels_are_those_of_full_scale() {
        let mut vad = Vad::new(16_000);
        assert_eq!(vad.process(&[i16::MIN; 320]).level_dbfs, 0.0);
        assert!((vad.process(&[3277; 320]).level_dbfs + 20.0).abs() < 0.01);
        assert_eq!(vad.process(&[0; 320]), Verdict { is_voice: true, level_dbfs: SILENCE_DBFS });
        assert_eq!(vad.process(&[]).level_dbfs, SILENCE_DBFS);
    }
}
