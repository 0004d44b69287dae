//! How a mix does: counters that it writes and signalling reads, without either waiting for the other.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// Four to an octave of µs: the last one begins at 114 ms, more than five ticks.
const BUCKETS: usize = 64;

/// What one standstill counts for at most where load is judged, as many ticks as may be missed in two seconds: a process that
/// was stopped, or a machine that was paused, has missed hundreds and is not busy. One that is comes late again and again.
const MOST_MISSED_AT_ONCE: u32 = 4;

/// One mix's counters since they were last taken.
#[derive(Debug)]
pub(super) struct MixHealth {
    late_ticks: AtomicU32,
    /// Those since the start, of each standstill not all.
    late_ticks_ever: AtomicU32,
    orphans: AtomicU32,
    longest_tick_us: AtomicU32,
    latest_begin_us: AtomicU32,
    /// How many ticks took so long.
    ticks: [AtomicU32; BUCKETS],
}

impl Default for MixHealth {
    fn default() -> Self {
        let zero = || AtomicU32::new(0);
        Self {
            late_ticks: zero(),
            late_ticks_ever: zero(),
            orphans: zero(),
            longest_tick_us: zero(),
            latest_begin_us: zero(),
            ticks: [const { AtomicU32::new(0) }; BUCKETS],
        }
    }
}

impl MixHealth {
    /// A tick that was due `begin_us` ago took `took_us`; `missed` before it could not take place.
    pub(super) fn tick(&self, begin_us: u32, took_us: u32, missed: u32) {
        self.ticks[bucket(took_us)].fetch_add(1, Ordering::Relaxed);
        self.late_ticks.fetch_add(missed, Ordering::Relaxed);
        self.late_ticks_ever.fetch_add(missed.min(MOST_MISSED_AT_ONCE), Ordering::Relaxed);
        self.longest_tick_us.fetch_max(took_us, Ordering::Relaxed);
        self.latest_begin_us.fetch_max(begin_us, Ordering::Relaxed);
    }

    /// Packets for whom there is nobody, since the mix began.
    pub(super) fn set_orphans(&self, orphans: u32) {
        self.orphans.store(orphans, Ordering::Relaxed);
    }

    /// Ticks that could not take place since the start, as load is judged by them.
    pub(super) fn late_ticks_ever(&self) -> u32 {
        self.late_ticks_ever.load(Ordering::Relaxed)
    }

    /// Adds what has been counted to a report, and begins anew.
    pub(super) fn take_into(&self, report: &mut MixReport) {
        for (sum, ticks) in report.ticks.iter_mut().zip(&self.ticks) {
            *sum += u64::from(ticks.swap(0, Ordering::Relaxed));
        }
        report.late_ticks += u64::from(self.late_ticks.swap(0, Ordering::Relaxed));
        report.longest_tick_us = report.longest_tick_us.max(self.longest_tick_us.swap(0, Ordering::Relaxed));
        report.latest_begin_us = report.latest_begin_us.max(self.latest_begin_us.swap(0, Ordering::Relaxed));
        report.orphans += u64::from(self.orphans.load(Ordering::Relaxed));
    }
}

/// How all mixes did since the last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MixReport {
    /// Ticks that could not take place.
    pub late_ticks: u64,
    /// The longest tick in µs, of 20 000.
    pub longest_tick_us: u32,
    /// The most µs by which a tick began after its time.
    pub latest_begin_us: u32,
    /// Packets for callers and streams that were gone, since the start.
    pub orphans: u64,
    ticks: [u64; BUCKETS],
}

impl Default for MixReport {
    fn default() -> Self {
        Self { late_ticks: 0, longest_tick_us: 0, latest_begin_us: 0, orphans: 0, ticks: [0; BUCKETS] }
    }
}

impl MixReport {
    /// Ticks that took place.
    pub fn ticks(&self) -> u64 {
        self.ticks.iter().sum()
    }

    /// What this share of all ticks (0 to 100 percent) took at most, in µs, at a resolution of a fifth.
    pub fn tick_us(&self, percent: u64) -> u32 {
        let wanted = (self.ticks() * percent).div_ceil(100);
        let mut sum = 0;
        let found = self.ticks.iter().position(|ticks| {
            sum += ticks;
            sum >= wanted
        });
        found.map_or(0, |bucket| lowest_us(bucket + 1)).min(self.longest_tick_us)
    }
}

/// One line for the log, which `tools/load` reads too.
impl fmt::Display for MixReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "mix: ticks={} late={} p50_us={} p99_us={} max_us={} latest_begin_us={} orphans={}",
            self.ticks(),
            self.late_ticks,
            self.tick_us(50),
            self.tick_us(99),
            self.longest_tick_us,
            self.latest_begin_us,
            self.orphans
        )
    }
}

fn bucket(us: u32) -> usize {
    let octave = us.max(1).ilog2();
    let bucket = if octave < 2 { us } else { (octave - 1) * 4 + (us >> (octave - 2)) % 4 };
    (bucket as usize).min(BUCKETS - 1)
}

/// The shortest time that belongs to a bucket.
const fn lowest_us(bucket: usize) -> u32 {
    if bucket < 4 { bucket as u32 } else { (4 + bucket as u32 % 4) << (bucket / 4 - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_its_bucket_and_each_is_a_quarter_octave_wide() {
        for number in 0..BUCKETS - 1 {
            assert_eq!(bucket(lowest_us(number)), number);
            assert_eq!(bucket(lowest_us(number + 1) - 1), number);
        }
        assert_eq!((bucket(u32::MAX), lowest_us(BUCKETS - 1)), (BUCKETS - 1, 114_688));
    }

    #[test]
    fn a_report_tells_the_median_the_slowest_and_what_was_late_and_then_begins_anew() {
        let health = MixHealth::default();
        for tick in 0..1000 {
            health.tick(3, if tick % 50 == 0 { 900 } else { 100 }, u32::from(tick == 7) * 2);
        }
        health.tick(40, 5_000, 0);
        health.set_orphans(3);
        let mut report = MixReport::default();
        health.take_into(&mut report);
        assert_eq!(
            report.to_string(),
            "mix: ticks=1001 late=2 p50_us=112 p99_us=1024 max_us=5000 latest_begin_us=40 orphans=3"
        );
        let mut report = MixReport::default();
        health.take_into(&mut report);
        assert_eq!((report.ticks(), report.late_ticks, report.tick_us(99)), (0, 0, 0));
    }

    #[test]
    fn a_standstill_is_no_load() {
        let health = MixHealth::default();
        health.tick(0, 100, 350);
        assert_eq!(health.late_ticks_ever(), MOST_MISSED_AT_ONCE);
        health.tick(0, 100, 1);
        let mut report = MixReport::default();
        health.take_into(&mut report);
        assert_eq!((health.late_ticks_ever(), report.late_ticks), (MOST_MISSED_AT_ONCE + 1, 351));
    }
}
