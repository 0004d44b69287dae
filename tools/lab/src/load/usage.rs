//! What a process costs: the time of its threads, to the nanosecond, and its memory. Source: proc(5).

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

/// The processor time of each thread of a process, at one moment.
pub(super) struct Snapshot {
    at: Instant,
    /// By thread: its name and nanoseconds.
    threads: BTreeMap<String, (String, u64)>,
}

impl Snapshot {
    /// Of a process, by its number or `self`.
    pub(super) fn of(process: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().filter_map(Result::ok);
        let thread = |task: fs::DirEntry| {
            // "time on the processor in ns, time spent waiting for it, turns"
            let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let ns = times.split(' ').next()?.parse().ok()?;
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            Some((task.file_name().to_string_lossy().into_owned(), (name.trim().to_owned(), ns)))
        };
        Self { at: Instant::now(), threads: tasks.filter_map(thread).collect() }
    }

    /// What has been spent since then.
    pub(super) fn until(&self, later: &Self) -> Usage {
        let seconds = later.at.saturating_duration_since(self.at).as_secs_f64();
        let mut percent_by_name = BTreeMap::new();
        for (thread, (name, ns)) in &later.threads {
            let before = self.threads.get(thread).map_or(0, |(_, ns)| *ns);
            let percent = ns.saturating_sub(before) as f64 / 1e9 / seconds.max(1e-9) * 100.0;
            *percent_by_name.entry(name.clone()).or_insert(0.0) += percent;
        }
        Usage { percent_by_name }
    }
}

/// Processor time in percent of one core.
pub(super) struct Usage {
    percent_by_name: BTreeMap<String, f64>,
}

impl Usage {
    /// Of all threads.
    pub(super) fn percent(&self) -> f64 {
        self.percent_by_name.values().sum()
    }

    /// Of the threads of each name.
    pub(super) fn threads(&self) -> impl Iterator<Item = (&str, f64)> {
        self.percent_by_name.iter().map(|(name, percent)| (name.as_str(), *percent))
    }
}

/// A line of /proc/PID/status in KiB: `VmRSS`, `RssAnon` …
pub(crate) fn kib(process: &str, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    found.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_this_thread_spends_is_found() {
        let before = Snapshot::of("self");
        let until = Instant::now() + std::time::Duration::from_millis(50);
        let mut sum = 0u64;
        while Instant::now() < until {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let usage = before.until(&Snapshot::of("self"));
        assert!(usage.percent() > 0.0 && usage.threads().count() > 0);
        assert!(kib("self", "VmRSS") > kib("self", "RssAnon") && kib("self", "RssAnon") > 0);
    }
}
