//! What a call sounded like, estimated from numbers: the E-model (ITU-T G.107).
//!
//! Owns: the rating R from delay and loss, and the mean opinion score (MOS) that it stands for. Does not own: measuring.
//!
//! All that is not measured has G.107's default, so that a flawless connection has R = 93.2. Echo is not counted: telephones that
//! speak RTP cancel their own. The scale is the narrow-band one for every codec: G.722 and Opus are rated as G.711 is, whose
//! values of ITU-T G.113 they are not below, and get nothing for their bandwidth.

use std::time::Duration;

/// R of a connection whose every parameter is G.107's default.
const DEFAULT_RATING: f64 = 93.2;

/// G.711's equipment impairment factor without loss, `Ie` (G.113 appendix I).
const EQUIPMENT: f64 = 0.0;

/// Its robustness against lost packets that are concealed, `Bpl` (G.113 appendix I).
const LOSS_ROBUSTNESS: f64 = 25.1;

/// What is known of one direction of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VoicePath {
    /// From mouth to ear, `Ta`.
    pub delay: Duration,
    /// Packets that were not there when they were to be played, of a hundred, `Ppl`.
    pub loss_percent: f64,
    /// How many are lost in a row, divided by how many would be if each were lost by itself, `BurstR`; below 1 it is 1.
    pub burst_ratio: f64,
}

impl VoicePath {
    /// The mean opinion score from 1 (bad) to 4.5.
    pub fn mos(&self) -> f64 {
        mos(self.rating())
    }

    /// The transmission rating factor R.
    pub fn rating(&self) -> f64 {
        DEFAULT_RATING - delay_impairment(self.delay) - self.effective_equipment_impairment()
    }

    /// `Ie,eff` (G.107 §7.4).
    fn effective_equipment_impairment(&self) -> f64 {
        let loss = self.loss_percent.clamp(0.0, 100.0);
        EQUIPMENT + (95.0 - EQUIPMENT) * loss / (loss / self.burst_ratio.max(1.0) + LOSS_ROBUSTNESS)
    }
}

/// `Idd`: what delay costs a conversation, nothing up to 100 ms (G.107 §7.3).
fn delay_impairment(delay: Duration) -> f64 {
    let delay_ms = delay.as_secs_f64() * 1000.0;
    if delay_ms <= 100.0 {
        return 0.0;
    }
    let x = (delay_ms / 100.0).log2();
    let sixth_root = |x: f64| (1.0 + x.powi(6)).powf(1.0 / 6.0);
    25.0 * (sixth_root(x) - 3.0 * sixth_root(x / 3.0) + 2.0)
}

/// G.107 annex B.
fn mos(rating: f64) -> f64 {
    if rating >= 100.0 {
        return 4.5;
    }
    let rating = rating.max(0.0);
    // The cubic dips below its own lowest score where R is below 6.5.
    (7e-6 * rating * (rating - 60.0)).mul_add(100.0 - rating, 0.035_f64.mul_add(rating, 1.0)).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() <= within, "{found} is not {expected}");
    }

    #[test]
    fn the_scores_of_g_107_annex_b_come_out() {
        for (rating, score) in
            [(93.2, 4.41), (90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58), (0.0, 1.0)]
        {
            // The table rounds now up, now down.
            close(mos(rating), score, 0.01);
        }
        assert_eq!((mos(-20.0), mos(3.0), mos(120.0)), (1.0, 1.0, 4.5));
    }

    #[test]
    fn a_flawless_call_has_the_default_rating() {
        close(VoicePath::default().rating(), 93.2, 1e-9);
        close(VoicePath::default().mos(), 4.41, 0.005);
    }

    #[test]
    fn delay_costs_nothing_at_first_and_much_in_the_end() {
        let impairment = |ms| delay_impairment(Duration::from_millis(ms));
        assert_eq!((impairment(0), impairment(100)), (0.0, 0.0));
        // By hand: X = 1 and X = 2.
        close(impairment(200), 25.0 * (2_f64.powf(1.0 / 6.0) - 3.0 * (730.0_f64 / 729.0).powf(1.0 / 6.0) + 2.0), 1e-9);
        close(impairment(400), 24.06, 0.02);
    }

    #[test]
    fn loss_costs_by_half_at_the_codecs_robustness_and_bursts_cost_more() {
        let path = |loss_percent, burst_ratio| VoicePath { loss_percent, burst_ratio, ..VoicePath::default() };
        close(path(25.1, 1.0).rating(), 93.2 - 47.5, 1e-9);
        close(path(2.0, 1.0).rating(), 93.2 - 95.0 * 2.0 / 27.1, 1e-9);
        assert!(path(5.0, 2.0).mos() < path(5.0, 1.0).mos() && path(5.0, 1.0).mos() < path(0.0, 1.0).mos());
        close(path(5.0, 0.3).rating(), path(5.0, 1.0).rating(), 1e-9);
    }
}
