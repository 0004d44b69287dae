//! What was seen every ten seconds, and what all of it says.

use std::fmt;
use std::path::Path;

/// How many samples of a session its memory is not judged by: caches fill for as long.
const SETTLING_SAMPLES: usize = 30;
/// What a call may leave behind, in bytes, before it counts as growth.
const MAX_BYTES_A_CALL: f64 = 1024.0;

/// One look at the gateway; a line of comma-separated values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) session: u32,
    pub(super) seconds: u64,
    pub(super) calls: usize,
    pub(super) placed: u64,
    pub(super) failed: usize,
    pub(super) resident_kib: u64,
    pub(super) descriptors: usize,
    pub(super) threads: usize,
    pub(super) late_ticks: u64,
    /// Of the calls that ended since the last one.
    pub(super) mos: Option<f64>,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, seconds, calls, placed, failed, resident_kib, descriptors, threads, late_ticks, mos } =
            self;
        let mos = mos.map_or(String::new(), |mos| format!("{mos:.2}"));
        write!(
            f,
            "{session},{seconds},{calls},{placed},{failed},{resident_kib},{descriptors},{threads},{late_ticks},{mos}"
        )
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        let [session, seconds, calls, placed, failed, resident, descriptors, threads, late, mos] = *fields else {
            return None;
        };
        Some(Self {
            session: session.parse().ok()?,
            seconds: seconds.parse().ok()?,
            calls: calls.parse().ok()?,
            placed: placed.parse().ok()?,
            failed: failed.parse().ok()?,
            resident_kib: resident.parse().ok()?,
            descriptors: descriptors.parse().ok()?,
            threads: threads.parse().ok()?,
            late_ticks: late.parse().ok()?,
            mos: mos.parse().ok(),
        })
    }

    /// Those of former sessions; none if there is no file yet.
    pub(super) fn read_all(file: &Path) -> Result<Vec<Self>, String> {
        match std::fs::read_to_string(file) {
            // A line that was cut off by the end of a session is none.
            Ok(text) => Ok(text.lines().filter_map(Self::parse).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(format!("{}: {error}", file.display())),
        }
    }
}

/// What all sessions together say.
#[derive(Debug)]
pub(super) struct Verdict {
    hours: f64,
    placed: u64,
    failures: Vec<String>,
    /// By a straight line through the later samples of each session, the worst of them.
    bytes_a_call: Option<f64>,
    idle: (usize, usize),
    at_the_end: (usize, usize),
    late_ticks: u64,
    mos: Option<f64>,
}

impl Verdict {
    /// `idle` and `at_the_end`: descriptors and threads without calls, before and after this session.
    pub(super) fn of(
        samples: &[Sample],
        failures: &[String],
        idle: (usize, usize),
        at_the_end: (usize, usize),
    ) -> Self {
        let sessions: Vec<&[Sample]> = samples.chunk_by(|one, next| one.session == next.session).collect();
        let last_of = |session: &&[Sample]| session.last().cloned();
        let ends: Vec<Sample> = sessions.iter().filter_map(last_of).collect();
        let figures: Vec<f64> = samples.iter().filter_map(|sample| sample.mos).collect();
        let growths = sessions.iter().filter_map(|session| bytes_a_call(session));
        Self {
            hours: ends.iter().map(|end| end.seconds as f64 / 3600.0).sum(),
            placed: ends.iter().map(|end| end.placed).sum(),
            failures: failures.to_vec(),
            bytes_a_call: growths.reduce(f64::max),
            idle,
            at_the_end,
            late_ticks: ends.iter().map(|end| end.late_ticks).sum(),
            mos: (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / figures.len() as f64),
        }
    }

    /// Nothing failed and nothing grew.
    pub(super) fn is_well(&self) -> bool {
        self.failures.is_empty()
            && self.idle == self.at_the_end
            && self.bytes_a_call.is_none_or(|bytes| bytes <= MAX_BYTES_A_CALL)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let growth = self
            .bytes_a_call
            .map_or_else(|| "too short to tell".to_owned(), |bytes| format!("{bytes:.0} bytes a call"));
        let mos = self.mos.map_or_else(|| "none".to_owned(), |mos| format!("{mos:.2}"));
        write!(
            f,
            "{}: {:.2} h in all, {} calls, {} failed this time, memory {growth}, descriptors and threads {:?} before and \
             {:?} after, {} late ticks, MOS {mos}",
            if self.is_well() { "well" } else { "NOT WELL" },
            self.hours,
            self.placed,
            self.failures.len(),
            self.idle,
            self.at_the_end,
            self.late_ticks
        )?;
        self.failures.iter().take(10).try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// How much memory grows with each call: the slope of the line with the least squares.
fn bytes_a_call(session: &[Sample]) -> Option<f64> {
    let later = session.get(SETTLING_SAMPLES..).filter(|later| later.len() >= SETTLING_SAMPLES)?;
    let count = later.len() as f64;
    let mean = |value: fn(&Sample) -> f64| later.iter().map(value).sum::<f64>() / count;
    let (placed, bytes) =
        (|sample: &Sample| sample.placed as f64, |sample: &Sample| sample.resident_kib as f64 * 1024.0);
    let (mean_placed, mean_bytes) = (mean(placed), mean(bytes));
    let spread = |sample: &Sample| placed(sample) - mean_placed;
    let variance: f64 = later.iter().map(|sample| spread(sample).powi(2)).sum();
    let covariance: f64 = later.iter().map(|sample| spread(sample) * (bytes(sample) - mean_bytes)).sum();
    (variance > 0.0).then(|| covariance / variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, kib_a_call: u64) -> Sample {
        Sample {
            session: 1,
            seconds: at * 10,
            calls: 44,
            placed: at * 7,
            failed: 0,
            resident_kib: 20_000 + at * 7 * kib_a_call,
            descriptors: 200,
            threads: 2,
            late_ticks: 0,
            mos: at.is_multiple_of(2).then_some(4.25),
        }
    }

    #[test]
    fn a_sample_survives_being_written() {
        for at in [1, 2] {
            assert_eq!(Sample::parse(&sample(at, 0).to_string()), Some(sample(at, 0)));
        }
        assert_eq!(Sample::parse("1,2,3"), None);
    }

    #[test]
    fn growth_failures_and_descriptors_are_not_well() {
        let samples = |kib| (0..100).map(|at| sample(at, kib)).collect::<Vec<_>>();
        let verdict = |kib, failures: &[String], after| Verdict::of(&samples(kib), failures, (12, 2), after);
        assert!(verdict(0, &[], (12, 2)).is_well());
        assert!(verdict(1, &[], (12, 2)).is_well());
        assert!(!verdict(2, &[], (12, 2)).is_well());
        assert!(!verdict(0, &[], (13, 2)).is_well());
        assert!(!verdict(0, &["one".to_owned()], (12, 2)).is_well());
        assert!(verdict(2, &[], (12, 2)).to_string().contains("2048 bytes a call"));
    }
}
