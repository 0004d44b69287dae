//! When a clean voice is active, and its level then, by ITU-T P.56 method B.
//!
//! The envelope is |x| smoothed twice with 30 ms; speech is active where it lies above a threshold, and for 200 ms after
//! that; the threshold is the one that lies 15.9 dB below the active level it leads to.

/// P.56: time constant, hangover, margin.
const TIME_CONSTANT_S: f64 = 0.03;
const HANGOVER_S: f64 = 0.2;
const MARGIN_DB: f64 = 15.9;

/// What P.56 says of a voice.
#[derive(Clone, Debug)]
pub struct Active {
    /// The mean level of its active parts, full scale being 1.
    pub level_db: f64,
    /// Sample by sample: active, hangover included.
    pub with_hangover: Vec<bool>,
    /// Sample by sample: above the threshold at this moment.
    pub exact: Vec<bool>,
}

impl Active {
    /// Of samples whose full scale is 1.
    pub fn of(samples: &[f64], rate_hz: u32) -> Self {
        let envelope = envelope(samples, rate_hz);
        let energy: f64 = samples.iter().map(|sample| sample * sample).sum();
        let hangover = (HANGOVER_S * f64::from(rate_hz)) as usize;
        // The margin falls steadily as the threshold rises: halve the interval.
        let (mut low, mut high) = (-100.0, 0.0);
        for _ in 0..20 {
            let middle = 0.5 * (low + high);
            let active = active(&envelope, amplitude(middle), hangover).iter().filter(|active| **active).count();
            let level = 10.0 * (energy / active.max(1) as f64).max(1e-12).log10();
            if active > 0 && level - middle > MARGIN_DB { low = middle } else { high = middle }
        }
        let threshold = amplitude(low);
        let with_hangover = active(&envelope, threshold, hangover);
        let count = with_hangover.iter().filter(|active| **active).count();
        Self {
            level_db: 10.0 * (energy / count.max(1) as f64).max(1e-12).log10(),
            with_hangover,
            exact: active(&envelope, threshold, 0),
        }
    }
}

/// The amplitude at that level.
pub(super) fn amplitude(level_db: f64) -> f64 {
    10f64.powf(level_db / 20.0)
}

fn envelope(samples: &[f64], rate_hz: u32) -> Vec<f64> {
    let keep = (-1.0 / (TIME_CONSTANT_S * f64::from(rate_hz))).exp();
    let (mut once, mut twice) = (0.0, 0.0);
    let smoothed = samples.iter().map(|sample| {
        once = keep * once + (1.0 - keep) * sample.abs();
        twice = keep * twice + (1.0 - keep) * once;
        twice
    });
    smoothed.collect()
}

fn active(envelope: &[f64], threshold: f64, hangover: usize) -> Vec<bool> {
    let mut left = 0;
    let is_active = |value: &f64| {
        let above = *value >= threshold;
        left = if above { hangover + 1 } else { left.saturating_sub(1) };
        left > 0
    };
    envelope.iter().map(is_active).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_of_half_the_time_is_active_for_that_and_the_hangover() {
        let tone = |n: usize| if n < 8000 { 0.1 * (n as f64 * 0.8).sin() } else { 0.0 };
        let samples: Vec<f64> = (0..16_000).map(tone).collect();
        let active = Active::of(&samples, 8000);
        let ends = active.with_hangover.iter().rposition(|active| *active).unwrap();
        let exact_end = active.exact.iter().rposition(|active| *active).unwrap();
        assert_eq!(ends - exact_end, 1600);
        // The envelope takes some 100 ms to fall by the margin.
        assert!((8000..9600).contains(&exact_end), "{exact_end}");
        assert!((active.level_db + 23.0 + 1.2).abs() < 0.5, "{}", active.level_db);
    }

    #[test]
    fn silence_is_never_active() {
        assert!(!Active::of(&[0.0; 8000], 8000).with_hangover.contains(&true));
    }
}
