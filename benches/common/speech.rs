//! Something to say, without a file.

/// Something like speech: a gliding harmonic tone in syllables of 260 ms over faint noise.
pub(crate) fn speech(samples: usize, sample_rate_hz: u32) -> Vec<i16> {
    let mut state = 1u32;
    let mut phase = 0.0f64;
    (0..samples)
        .map(|i| {
            let t = i as f64 / f64::from(sample_rate_hz);
            phase += (110.0 + 30.0 * (t * 5.0).sin()) / f64::from(sample_rate_hz) * std::f64::consts::TAU;
            let loudness = 4000.0 * (t * 12.0).sin().max(0.0);
            let voice: f64 = (1..15).map(|h| (phase * f64::from(h)).sin() / f64::from(h)).sum();
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (voice * loudness) as i16 + (state >> 27) as i16
        })
        .collect()
}
