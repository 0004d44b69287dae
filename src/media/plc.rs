//! Concealment of lost telephone packets: the last pitch periods go on and fade (after ITU-T G.711 appendix I).
//!
//! Owns: the past 48 ms, the pitch, the seams. Does not own: Opus' own concealment (`opus`), which packets are lost
//! (`reorder`). Unlike the appendix it adds no delay: the seam to what was already sent is made by a short fading offset.
//! Where the packet behind the hole is known already, its first pitch period goes on backwards, and the two meet where they
//! are most alike.

/// The past that is kept: the longest period, thrice, and what is compared with it.
const HISTORY_MS: usize = 50;
const MAX_RATE_HZ: u32 = 16_000;
const MAX_HISTORY: usize = HISTORY_MS * MAX_RATE_HZ as usize / 1000;
/// Pitch from 66 to 200 Hz: shorter periods are found as their multiples.
const MIN_PERIOD_MS: usize = 5;
const MAX_PERIOD_MS: usize = 15;
/// What is compared to find the period.
const MATCH_MS: usize = 20;
/// Full level for so long, then down to nothing in a straight line.
const HOLD_MS: usize = 10;
const SILENT_AFTER_MS: usize = 60;
/// Every so often one more period is taken in, up to three: a single one would buzz.
const PERIOD_ADDED_MS: usize = 10;
const MAX_PERIODS: usize = 3;
/// What goes on forwards and backwards is blended within so much.
const MEETING_MS: usize = 5;
/// A hole is filled from both sides up to this length.
const MAX_BRIDGED: usize = 120 * MAX_RATE_HZ as usize / 1000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Concealer {
    samples_per_ms: usize,
    /// The newest sample last.
    history: [i16; MAX_HISTORY],
    /// Samples made up since the last good frame; 0 while all is well.
    concealed: usize,
    period: usize,
    /// How many periods are repeated, and where in them.
    periods: usize,
    position: usize,
    /// From the last true sample to where the repetition begins: faded out over the first millisecond or two.
    seam: f32,
}

impl Concealer {
    /// For 8 or 16 kHz; other rates are taken for the nearer of the two.
    pub const fn new(sample_rate_hz: u32) -> Self {
        Self {
            samples_per_ms: if sample_rate_hz > 12_000 { 16 } else { 8 },
            history: [0; MAX_HISTORY],
            concealed: 0,
            period: 0,
            periods: 1,
            position: 0,
            seam: 0.0,
        }
    }

    /// Takes a frame that arrived; its beginning is blended with what was made up, if anything was.
    pub fn good(&mut self, frame: &mut [i16]) {
        if self.concealed > 0 {
            // 4 ms, and 4 more for each 10 ms lost, at most 10.
            let lost_ms = self.concealed / self.samples_per_ms;
            let overlap = ((4 + lost_ms / 10 * 4).min(10) * self.samples_per_ms).min(frame.len());
            for (position, sample) in frame[..overlap].iter_mut().enumerate() {
                let share = (position + 1) as f32 / (overlap + 1) as f32;
                let made_up = self.next_sample();
                *sample = (made_up + (f32::from(*sample) - made_up) * share) as i16;
            }
            self.concealed = 0;
        }
        self.remember(frame);
    }

    /// Makes up `out.len()` samples.
    pub fn conceal(&mut self, out: &mut [i16]) {
        if self.concealed == 0 {
            self.start();
        }
        for out in out {
            *out = self.next_sample() as i16;
        }
    }

    /// Makes up `out.len()` samples which `next` follows.
    pub fn conceal_before(&mut self, next: &[i16], out: &mut [i16]) {
        self.conceal(out);
        let meeting = MEETING_MS * self.samples_per_ms;
        if out.len() < meeting || out.len() > MAX_BRIDGED || next.len() < 2 * MIN_PERIOD_MS * self.samples_per_ms {
            return;
        }
        let mut backwards = [0; MAX_BRIDGED];
        let backwards = &mut backwards[..out.len()];
        self.lead_to(next, backwards);
        let place = most_alike(out, backwards, meeting);
        for (position, (out, &backwards)) in out.iter_mut().zip(&*backwards).enumerate().skip(place) {
            let share = ((position - place + 1) as f32 / (meeting + 1) as f32).min(1.0);
            *out = (f32::from(*out) + (f32::from(backwards) - f32::from(*out)) * share) as i16;
        }
        // All is as if it had come.
        self.concealed = 0;
        self.remember(out);
    }

    /// Fills `out` with the first period of `next`, repeated up to its beginning.
    fn lead_to(&self, next: &[i16], out: &mut [i16]) {
        let period = self.first_period(next);
        let (hold, silent_after) = (HOLD_MS * self.samples_per_ms, SILENT_AFTER_MS * self.samples_per_ms);
        let seam_samples = 2 * self.samples_per_ms;
        let seam = f32::from(next[0]) - f32::from(next[period]);
        for (before, out) in out.iter_mut().rev().enumerate() {
            let mut sample = f32::from(next[period - 1 - before % period]);
            if before < seam_samples {
                sample += seam * (1.0 - (before + 1) as f32 / (seam_samples + 1) as f32);
            }
            let fade = before.saturating_sub(hold) as f32 / (silent_after - hold) as f32;
            *out = (sample * (1.0 - fade.min(1.0))) as i16;
        }
    }

    /// The period with which `next` begins: the lag at which it resembles itself most.
    fn first_period(&self, next: &[i16]) -> usize {
        let shortest = MIN_PERIOD_MS * self.samples_per_ms;
        let longest = (MAX_PERIOD_MS * self.samples_per_ms).min(next.len() - shortest);
        let window = (next.len() - longest).min(MATCH_MS * self.samples_per_ms);
        let likeness = |lag: &usize| likeness(&next[..window], &next[*lag..*lag + window]);
        (shortest..=longest).max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or(shortest)
    }

    fn remember(&mut self, frame: &[i16]) {
        let kept = frame.len().min(MAX_HISTORY);
        self.history.copy_within(kept.., 0);
        self.history[MAX_HISTORY - kept..].copy_from_slice(&frame[frame.len() - kept..]);
    }

    fn start(&mut self) {
        self.period = self.find_period();
        (self.periods, self.position) = (1, 0);
        let last = f32::from(self.history[MAX_HISTORY - 1]);
        self.seam = last - f32::from(self.history[MAX_HISTORY - 1 - self.period]);
    }

    /// The lag at which the last 20 ms resemble the past most.
    fn find_period(&self) -> usize {
        let window = MATCH_MS * self.samples_per_ms;
        let (past, recent) = self.history.split_at(MAX_HISTORY - window);
        let mut best = (0.0, MAX_PERIOD_MS * self.samples_per_ms);
        for lag in MIN_PERIOD_MS * self.samples_per_ms..=MAX_PERIOD_MS * self.samples_per_ms {
            let start = past.len() - lag;
            let earlier = &self.history[start..start + window];
            let (mut product, mut energy) = (0i64, 1i64);
            for (&a, &b) in recent.iter().zip(earlier) {
                product += i64::from(i32::from(a) * i32::from(b));
                energy += i64::from(i32::from(b) * i32::from(b));
            }
            let likeness = product as f32 / (energy as f32).sqrt();
            if likeness > best.0 {
                best = (likeness, lag);
            }
        }
        best.1
    }

    fn next_sample(&mut self) -> f32 {
        let silent_after = SILENT_AFTER_MS * self.samples_per_ms;
        if self.concealed >= silent_after {
            self.concealed += 1;
            return 0.0;
        }
        let mut sample = self.repeated(self.periods, self.position);
        let wanted = (1 + self.concealed / (PERIOD_ADDED_MS * self.samples_per_ms)).min(MAX_PERIODS);
        self.position += 1;
        if self.position == self.periods * self.period {
            // The seam of the repetition is the place to make it longer.
            (self.position, self.periods) = (0, wanted);
        }
        let seam_samples = 2 * self.samples_per_ms;
        if self.concealed < seam_samples {
            sample += self.seam * (1.0 - (self.concealed + 1) as f32 / (seam_samples + 1) as f32);
        }
        let hold = HOLD_MS * self.samples_per_ms;
        let fade = self.concealed.saturating_sub(hold) as f32 / (silent_after - hold) as f32;
        self.concealed += 1;
        (sample * (1.0 - fade)).clamp(f32::from(i16::MIN), f32::from(i16::MAX))
    }

    /// Sample `position` of the last `periods` periods, whose last quarter period blends into what came before their
    /// beginning, so that they can be repeated (also as more or fewer periods) without a click.
    fn repeated(&self, periods: usize, position: usize) -> f32 {
        let cycle = periods * self.period;
        let sample = f32::from(self.history[MAX_HISTORY - cycle + position]);
        let quarter = self.period / 4;
        let blend_from = cycle - quarter;
        if position < blend_from {
            return sample;
        }
        // What precedes the beginning of the last period: a period that sounds much like any other one.
        let before = f32::from(self.history[MAX_HISTORY - self.period - cycle.saturating_sub(position)]);
        let share = (position - blend_from + 1) as f32 / (quarter + 1) as f32;
        sample + (before - sample) * share
    }
}

/// The place in two sounds, within 10 ms of their middle at the most, from which on `window` samples are most alike.
fn most_alike(a: &[i16], b: &[i16], window: usize) -> usize {
    let middle = (a.len() - window) / 2;
    let reach = middle.min(2 * window);
    let likeness = |at: &usize| likeness(&a[*at..*at + window], &b[*at..*at + window]);
    (middle - reach..=middle + reach).max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or(middle)
}

/// Correlation, 0 for silence.
fn likeness(a: &[i16], b: &[i16]) -> f32 {
    let (mut product, mut energy_a, mut energy_b) = (0i64, 1i64, 1i64);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (i64::from(a), i64::from(b));
        (product, energy_a, energy_b) = (product + a * b, energy_a + a * a, energy_b + b * b);
    }
    product as f32 / (energy_a as f32 * energy_b as f32).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn voiced(samples: usize, frequency_hz: f64) -> Vec<i16> {
        (0..samples)
            .map(|i| {
                let phase = i as f64 / 8000.0 * frequency_hz * std::f64::consts::TAU;
                (4000.0 * phase.sin() + 2000.0 * (2.0 * phase).sin() + 1000.0 * (5.0 * phase).sin()) as i16
            })
            .collect()
    }

    fn rms(pcm: &[i16]) -> f64 {
        (pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / pcm.len() as f64).sqrt()
    }

    #[test]
    fn a_lost_frame_of_a_vowel_is_hardly_missed() {
        for frequency in [80.0, 123.0, 187.0] {
            let original = voiced(3200, frequency);
            let mut concealer = Concealer::new(8000);
            let mut heard = original.clone();
            for (number, frame) in heard.chunks_mut(160).enumerate() {
                if number == 10 { concealer.conceal(frame) } else { concealer.good(frame) }
            }
            let error: Vec<i16> = heard.iter().zip(&original).map(|(a, b)| a - b).collect();
            let ratio = rms(&error[1600..1760]) / rms(&original[1600..1760]);
            assert!(ratio < 0.45, "{frequency} Hz: {ratio}");
            let largest_step = |pcm: &[i16]| pcm.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max();
            assert!(largest_step(&heard).unwrap() < largest_step(&original).unwrap() * 3 / 2, "{frequency} Hz clicks");
        }
    }

    #[test]
    fn with_the_next_frame_known_a_gliding_vowel_is_missed_even_less_and_that_frame_stays_as_it_is() {
        // From 110 to 150 Hz within 400 ms: what went before is soon out of step.
        let original: Vec<i16> = (0..3200)
            .map(|i| {
                let seconds = f64::from(i) / 8000.0;
                let phase = (110.0 * seconds + 50.0 * seconds * seconds) * std::f64::consts::TAU;
                (4000.0 * phase.sin() + 2000.0 * (2.0 * phase).sin() + 1000.0 * (5.0 * phase).sin()) as i16
            })
            .collect();
        let error_with = |next_is_known: bool| {
            let mut concealer = Concealer::new(8000);
            let mut heard = original.clone();
            for number in 0..20 {
                let (frame, rest) = heard[number * 160..].split_at_mut(160);
                match number {
                    10 if next_is_known => concealer.conceal_before(&rest[..160], frame),
                    10 => concealer.conceal(frame),
                    _ => concealer.good(frame),
                }
            }
            if next_is_known {
                assert_eq!(heard[1760..], original[1760..]);
            }
            let error: Vec<i16> = heard.iter().zip(&original).map(|(a, b)| a - b).collect();
            rms(&error[1600..1840])
        };
        let (one_sided, two_sided) = (error_with(false), error_with(true));
        assert!(two_sided < 0.7 * one_sided, "{two_sided} {one_sided}");
    }

    #[test]
    fn a_long_loss_fades_to_silence_within_60_ms_and_recovers() {
        let mut concealer = Concealer::new(8000);
        let mut frame = voiced(800, 123.0);
        concealer.good(&mut frame);
        let mut out = [1; 1600];
        concealer.conceal(&mut out);
        assert!(rms(&out[..80]) > 2500.0 && rms(&out[320..480]) < 1500.0);
        assert_eq!(out[480..], [0; 1120]);
        let mut frame = voiced(160, 123.0);
        let original = frame.clone();
        concealer.good(&mut frame);
        assert_eq!(frame[80..], original[80..]);
        assert!(frame[0].abs() < 100);
    }

    #[test]
    fn without_loss_nothing_is_changed_and_silence_stays_silent() {
        let mut concealer = Concealer::new(16_000);
        let original = voiced(960, 100.0);
        let mut frame = original.clone();
        concealer.good(&mut frame);
        assert_eq!(frame, original);
        let mut concealer = Concealer::new(16_000);
        let mut out = [1; 320];
        concealer.conceal(&mut out);
        assert_eq!(out, [0; 320]);
    }

    proptest! {
        #[test]
        fn any_sound_and_any_lengths_are_survived(
            pcm in proptest::collection::vec(any::<i16>(), 0..2000),
            steps in proptest::collection::vec((any::<bool>(), 0usize..700), 1..20),
            wide in any::<bool>()
        ) {
            let mut concealer = Concealer::new(if wide { 16_000 } else { 8000 });
            for (is_good, samples) in steps {
                let mut frame = pcm.get(..samples).unwrap_or(&pcm).to_vec();
                match (is_good, samples % 2) {
                    (true, _) => concealer.good(&mut frame),
                    (false, 0) => concealer.conceal(&mut frame),
                    (false, _) => concealer.conceal_before(&pcm[..pcm.len().min(160)], &mut frame),
                }
            }
        }
    }
}
