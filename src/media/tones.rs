//! Keys as tones in the sound (ITU-T Q.23, Q.24), for telephones that have not agreed on events.
//!
//! Owns: the sixteen pairs of tones at 8 kHz, by Goertzel's filters over windows of 12.75 ms, every 6.375 ms. Does not own:
//! events (`telephone_event`).
//!
//! A key is one tone of each group, and nothing else, that stay alike: two are louder than all the rest together, neither much
//! louder than the other nor than the windows before. Voices do that for one window, not for four in a row, which any tone of
//! 40 ms fills. Nothing is allocated.

use std::f32::consts::TAU;

use std::time::Duration;

use super::control::{KeyForm, KeyPress};
use crate::time::Instant;

const RATE_HZ: f32 = 8000.0;
/// The tones of Q.23 in the middle of a bin, or as near as eight tones can be.
const WINDOW_SAMPLES: usize = 102;
const HOP_SAMPLES: usize = WINDOW_SAMPLES / 2;
const LOW_HZ: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const HIGH_HZ: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
const KEYS: [[char; 4]; 4] = [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];

/// The softest pair: −36 dBm0 in all (Q.24 asks for −25 a tone and leaves the rest to us); 0 dBm0 is 3.14 dB below the
/// loudest sine.
const LEAST_MEAN_SQUARE: f32 = 65_000.0;
/// The two tones are so much of the whole: line noise of −15 dB and a tone 1.5 % beside its bin leave that.
const LEAST_SHARE: f32 = 0.72;
/// The most that either is above the other: 9 dB (networks ask for 4 to 10, Q.24 table A-1), noise on the softer one included.
const MOST_TWIST: f32 = 7.95;
/// A tone is so much above the others of its group: 6 dB.
const ABOVE_NEIGHBOURS: f32 = 4.0;
/// From one window to the next the level of a tone stays within 3 dB, noise included.
const MOST_CHANGE: f32 = 2.0;
/// So many windows that are alike are a key: 31.9 ms of tone, which fit into 40 wherever they begin.
const PRESS_WINDOWS: u8 = 4;
/// So many without are its end: an interruption of 10 ms is none, a pause of 40 ms always is (Q.24).
const RELEASE_WINDOWS: u8 = 4;
/// So long without a packet is an end too: who suppresses silence, as Asterisk does, sends nothing between two keys. No jitter
/// that is worth an answer makes such a gap of packets of 60 ms.
const LOST_AFTER: Duration = Duration::from_millis(150);

/// One telephone's.
#[derive(Clone, Debug)]
pub(super) struct Tones {
    /// Twice the cosine for each tone, the low group first.
    factors: [f32; 8],
    window: [f32; WINDOW_SAMPLES],
    filled: usize,
    last: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// No key.
    Nothing,
    /// A key may be pressed: seen in so many windows, in the latest at these levels.
    Seen { key: char, windows: u8, levels: [f32; 2] },
    /// A key is pressed, for so many windows, of which the latest ones were without it.
    Pressed { key: char, windows: u16, without: u8 },
}

/// What a window holds.
#[derive(Clone, Copy, Debug)]
struct Pair {
    key: char,
    levels: [f32; 2],
}

impl Tones {
    pub(super) fn new() -> Self {
        let mut factors = [0.0; 8];
        for (factor, hz) in factors.iter_mut().zip(LOW_HZ.iter().chain(&HIGH_HZ)) {
            *factor = 2.0 * (TAU * hz / RATE_HZ).cos();
        }
        Self { factors, window: [0.0; WINDOW_SAMPLES], filled: 0, last: Instant::ZERO, state: State::Nothing }
    }

    /// Listens to a piece of 8 kHz; gives the first key that is let go in it (a second one would need 80 ms).
    pub(super) fn hear(&mut self, now: Instant, pcm: &[i16]) -> Option<KeyPress> {
        self.last = now;
        let mut told = None;
        let mut rest = pcm;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(WINDOW_SAMPLES - self.filled));
            for (place, &sample) in self.window[self.filled..].iter_mut().zip(piece) {
                *place = f32::from(sample);
            }
            self.filled += piece.len();
            rest = later;
            if self.filled == WINDOW_SAMPLES {
                let pair = self.judge();
                let press = self.follow(pair);
                told = told.or(press);
                self.window.copy_within(HOP_SAMPLES.., 0);
                self.filled -= HOP_SAMPLES;
            }
        }
        told
    }

    /// Each tick: a key after which nothing came any more.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<KeyPress> {
        if matches!(self.state, State::Nothing) || now.saturating_since(self.last) < LOST_AFTER {
            return None;
        }
        self.filled = 0;
        match std::mem::replace(&mut self.state, State::Nothing) {
            State::Pressed { key, windows, without } => Some(press(key, windows.saturating_sub(u16::from(without)))),
            State::Nothing | State::Seen { .. } => None,
        }
    }

    fn judge(&self) -> Option<Pair> {
        let energy: f32 = self.window.iter().map(|sample| sample * sample).sum();
        if energy < LEAST_MEAN_SQUARE * WINDOW_SAMPLES as f32 {
            return None;
        }
        let powers = self.powers();
        let (low_group, high_group) = powers.split_at(4);
        let (low, high) = (loudest(low_group)?, loudest(high_group)?);
        let levels = [low_group[low], high_group[high]];
        // The power of a sine is its energy times half of the window.
        let share = (levels[0] + levels[1]) / (energy * WINDOW_SAMPLES as f32 / 2.0);
        let is_key = share >= LEAST_SHARE && levels[0] <= levels[1] * MOST_TWIST && levels[1] <= levels[0] * MOST_TWIST;
        is_key.then(|| Pair { key: KEYS[low][high], levels })
    }

    /// Goertzel: the square of each tone's amplitude, all eight side by side.
    fn powers(&self) -> [f32; 8] {
        let (mut last, mut before) = ([0.0; 8], [0.0; 8]);
        for &sample in &self.window {
            for tone in 0..8 {
                let next = self.factors[tone] * last[tone] - before[tone] + sample;
                (before[tone], last[tone]) = (last[tone], next);
            }
        }
        std::array::from_fn(|tone| {
            last[tone] * last[tone] + before[tone] * before[tone] - self.factors[tone] * last[tone] * before[tone]
        })
    }

    fn follow(&mut self, pair: Option<Pair>) -> Option<KeyPress> {
        self.state = match (self.state, pair) {
            (State::Pressed { key, windows, .. }, Some(pair)) if pair.key == key => {
                State::Pressed { key, windows: windows.saturating_add(1), without: 0 }
            }
            (State::Pressed { key, windows, without }, other) => {
                if without + 1 < RELEASE_WINDOWS {
                    State::Pressed { key, windows: windows.saturating_add(1), without: without + 1 }
                } else {
                    self.state = other.map_or(State::Nothing, seen);
                    return Some(press(key, windows.saturating_sub(u16::from(RELEASE_WINDOWS) - 1)));
                }
            }
            (State::Seen { key, windows, levels }, Some(pair)) if pair.key == key && is_alike(levels, pair.levels) => {
                if windows + 1 >= PRESS_WINDOWS {
                    State::Pressed { key, windows: u16::from(PRESS_WINDOWS), without: 0 }
                } else {
                    State::Seen { key, windows: windows + 1, levels: pair.levels }
                }
            }
            (State::Nothing | State::Seen { .. }, pair) => pair.map_or(State::Nothing, seen),
        };
        None
    }
}

/// A key that was in so many windows; the first one counts whole.
fn press(key: char, windows: u16) -> KeyPress {
    let samples = u32::from(windows.saturating_add(1)) * HOP_SAMPLES as u32;
    let duration_ms = u16::try_from(samples * 1000 / RATE_HZ as u32).unwrap_or(u16::MAX);
    KeyPress { key, form: KeyForm::Tone, duration_ms }
}

const fn seen(pair: Pair) -> State {
    State::Seen { key: pair.key, windows: 1, levels: pair.levels }
}

fn is_alike(before: [f32; 2], now: [f32; 2]) -> bool {
    before.iter().zip(now).all(|(before, now)| now <= before * MOST_CHANGE && *before <= now * MOST_CHANGE)
}

/// The tone of a group that is alone in it.
fn loudest(group: &[f32]) -> Option<usize> {
    let (loudest, power) = group.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    let is_alone = group.iter().enumerate().all(|(tone, other)| tone == loudest || other * ABOVE_NEIGHBOURS <= *power);
    is_alone.then_some(loudest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// The loudest sine (ITU-T G.711, to a tenth).
    const LOUDEST_DBM0: f32 = 3.1;

    /// The amplitude of a tone in dBm0.
    fn amplitude(dbm0: f32) -> f32 {
        10f32.powf((dbm0 - LOUDEST_DBM0) / 20.0) * 32_768.0
    }

    fn noise(random: &mut Random) -> f32 {
        // Twelve even ones are as good as normal, of variance 1.
        (0..12).map(|_| random.below(10_000) as f32 / 10_000.0).sum::<f32>() - 6.0
    }

    struct Dial {
        random: Random,
        low_dbm0: f32,
        high_dbm0: f32,
        /// Against both tones together.
        snr_db: f32,
        /// 1 is as it should be.
        pitch: f32,
    }

    impl Dial {
        fn new(low_dbm0: f32, high_dbm0: f32) -> Self {
            Self { random: Random::for_test(5), low_dbm0, high_dbm0, snr_db: 15.0, pitch: 1.0 }
        }

        fn dial(&mut self, keys: &str, tone_ms: usize, pause_ms: usize) -> Vec<i16> {
            let (low, high) = (amplitude(self.low_dbm0), amplitude(self.high_dbm0));
            let rms = ((low * low + high * high) / 2.0).sqrt() * 10f32.powf(-self.snr_db / 20.0);
            let mut pcm = Vec::new();
            // Windows begin anywhere in a tone.
            let lead = self.random.below(500) as usize;
            let mut add = |random: &mut Random, samples: usize, tone: &dyn Fn(f32) -> f32| {
                pcm.extend((0..samples).map(|n| (tone(n as f32 / RATE_HZ) + rms * noise(random)).round() as i16));
            };
            add(&mut self.random, lead, &|_| 0.0);
            for key in keys.chars() {
                let row = KEYS.iter().position(|row| row.contains(&key)).unwrap();
                let column = KEYS[row].iter().position(|other| *other == key).unwrap();
                let (a, b) = (LOW_HZ[row] * self.pitch * TAU, HIGH_HZ[column] * self.pitch * TAU);
                add(&mut self.random, tone_ms * 8, &|t| low * (a * t).sin() + high * (b * t).sin());
                let odd = self.random.below(30) as usize;
                add(&mut self.random, pause_ms * 8 + odd, &|_| 0.0);
            }
            add(&mut self.random, 800, &|_| 0.0);
            pcm
        }
    }

    const ALL: &str = "1234567890*#ABCD";
    const PIECE: Duration = Duration::from_millis(20);

    /// The presses in speech that comes in pieces of 20 ms, of which those that are silent do not come if `suppressed`.
    fn presses(pcm: &[i16], suppressed: bool) -> Vec<KeyPress> {
        let (mut tones, mut now, mut told) = (Tones::new(), Instant::ZERO, Vec::new());
        for piece in pcm.chunks(160) {
            if !suppressed || piece.iter().any(|sample| *sample != 0) {
                told.extend(tones.hear(now, piece));
            }
            told.extend(tones.handle_timeout(now));
            now += PIECE;
        }
        told
    }

    fn heard(pcm: &[i16]) -> String {
        presses(pcm, false).iter().map(|press| press.key).collect()
    }

    #[test]
    fn keys_between_which_nothing_is_sent_are_told_apart_and_the_last_one_is_told() {
        let mut dial = Dial { snr_db: 300.0, ..Dial::new(-15.0, -15.0) };
        let pcm = [dial.dial("1155#", 200, 220), vec![0; 4000]].concat();
        let told = presses(&pcm, true);
        assert_eq!(told.iter().map(|press| press.key).collect::<String>(), "1155#");
        assert!(told.iter().all(|press| press.duration_ms.abs_diff(200) <= 30), "{told:?}");
    }

    #[test]
    fn keys_of_40_ms_are_found_in_noise_with_twist_and_softly() {
        let (mut wanted, mut found) = (0, 0);
        for (low, high) in [(-30.0, -30.0), (-30.0, -24.0), (-24.0, -30.0), (-10.0, -10.0), (0.0, -6.0), (-33.0, -33.0)]
        {
            for round in 0..20 {
                let mut dial = Dial { random: Random::for_test(round), ..Dial::new(low, high) };
                let keys = heard(&dial.dial(ALL, 40, 40));
                wanted += ALL.len();
                found += keys.len();
                // All in their order, none twice, none another.
                let mut all = ALL.chars();
                assert!(keys.chars().all(|key| all.any(|other| other == key)), "{keys}");
            }
        }
        println!("{found} of {wanted}");
        assert!(found * 100 >= wanted * 99, "{found} of {wanted}");
    }

    #[test]
    fn keys_one_and_a_half_percent_beside_their_pitch_are_found_and_beside_by_four_are_not() {
        for (pitch, expected) in [(0.985, ALL), (1.015, ALL), (0.96, ""), (1.04, "")] {
            let mut dial = Dial { pitch, snr_db: 30.0, ..Dial::new(-15.0, -15.0) };
            assert_eq!(heard(&dial.dial(ALL, 60, 60)), expected, "{pitch}");
        }
    }

    #[test]
    fn a_tone_of_20_ms_and_one_alone_are_no_key_and_an_interruption_of_10_ms_is_no_second_one() {
        let mut dial = Dial { snr_db: 30.0, ..Dial::new(-15.0, -15.0) };
        assert_eq!(heard(&dial.dial(ALL, 20, 60)), "");
        assert_eq!(heard(&dial.dial("555", 60, 60)), "555");
        let mut pcm = dial.dial("9", 200, 60);
        let middle = pcm.len() / 2;
        pcm[middle..middle + 80].fill(0);
        assert_eq!(heard(&pcm), "9");
        let mut alone = Dial { snr_db: 30.0, ..Dial::new(-15.0, -60.0) };
        assert_eq!(heard(&alone.dial(ALL, 100, 60)), "");
    }

    #[test]
    fn the_length_is_told_within_20_ms() {
        for tone_ms in [50, 100, 500] {
            let pcm = Dial { snr_db: 30.0, ..Dial::new(-15.0, -15.0) }.dial("8", tone_ms, 60);
            let lengths: Vec<_> = presses(&pcm, false).iter().map(|press| usize::from(press.duration_ms)).collect();
            assert!(lengths.len() == 1 && lengths[0].abs_diff(tone_ms) <= 20, "{tone_ms}: {lengths:?}");
        }
    }
}
