//! How busy the media threads are, as Linux accounts for them; elsewhere nothing is known. Busy is who works or would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::gateway::Load;
use crate::time::Instant;

/// Between two looks: long enough for a mean that one burst does not move.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks at the accounts now and then.
#[derive(Debug)]
pub(super) struct LoadMeter {
    /// The accounts of the net thread and the mix threads, and what they said last, in nanoseconds.
    threads: Vec<(PathBuf, u64)>,
    missed_ticks: u64,
    looked_at: Instant,
}

impl LoadMeter {
    /// Begins to count now.
    pub(super) const fn new(now: Instant) -> Self {
        Self { threads: Vec::new(), missed_ticks: 0, looked_at: now }
    }

    /// How they did since the last look, if that is some time ago; `missed_ticks` is counted since the start.
    pub(super) fn look(&mut self, now: Instant, missed_ticks: u64) -> Option<Load> {
        let elapsed = now.saturating_since(self.looked_at);
        if elapsed < LOOK_EVERY {
            return None;
        }
        if self.threads.is_empty() {
            // Not before: threads give themselves their names when they have begun to run.
            self.threads = media_threads();
        }
        let mut busiest_ns = 0;
        for (account, former_ns) in &mut self.threads {
            let wanted_ns = wanted_ns(account).unwrap_or(*former_ns);
            busiest_ns = busiest_ns.max(wanted_ns.saturating_sub(*former_ns));
            *former_ns = wanted_ns;
        }
        let missed = missed_ticks.saturating_sub(self.missed_ticks);
        (self.looked_at, self.missed_ticks) = (now, missed_ticks);
        let (elapsed_ns, elapsed_ms) = (elapsed.as_nanos().max(1) as u64, elapsed.as_millis().max(1) as u64);
        Some(Load {
            busiest_percent: (busiest_ns.saturating_mul(100) / elapsed_ns) as u32,
            missed_ticks_a_second: (missed * 1000 / elapsed_ms) as u32,
        })
    }
}

/// The accounts of this process's media threads, and what they say now.
fn media_threads() -> Vec<(PathBuf, u64)> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|task| task.path());
    let is_media = |task: &PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "net" || name.starts_with("mix "))
    };
    let accounts = tasks.filter(is_media).map(|task| task.join("schedstat"));
    accounts.filter_map(|account| Some((account.clone(), wanted_ns(&account)?))).collect()
}

/// For how long the thread had something to do: the first two figures, nanoseconds on a processor and in wait of one (Linux,
/// Documentation/scheduler/sched-stats.rst). Where others have the processor, or a quota is used up, only the second grows.
fn wanted_ns(account: &Path) -> Option<u64> {
    let text = fs::read_to_string(account).ok()?;
    let mut figures = text.split_whitespace().map(|figure| figure.parse::<u64>().ok());
    Some(figures.next()?? + figures.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_without_a_pause_is_busy_and_missed_ticks_count_by_the_second() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("mix 9".into()).spawn(move || {
            ready.send(()).unwrap();
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                std::hint::spin_loop();
            }
        });
        is_ready.recv().unwrap();
        let mut meter = LoadMeter::new(Instant::ZERO);
        let seconds = |s: u64| Instant::from_us(s * 1_000_000);
        assert_eq!(meter.look(seconds(1), 0), None);
        assert_eq!(meter.look(seconds(2), 10), Some(Load { busiest_percent: 0, missed_ticks_a_second: 5 }));
        assert!(!meter.threads.is_empty());
        // The thread runs by the real clock, so it is waited for; a hundredth of two seconds is soon over.
        while meter.look(seconds(4), 10).is_some_and(|load| load.busiest_percent == 0) {
            meter.looked_at = seconds(2);
            meter.threads.iter_mut().for_each(|(_, former_ns)| *former_ns = 0);
        }
        drop(stop);
        thread.unwrap().join().unwrap();
    }
}
