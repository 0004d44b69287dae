//! Other programs under test or as judges: started, listened to, measured by /proc, and ended with whoever started them.
//!
//! Owns: the process, its lines, free ports, and what a test does when a program is not installed.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::random::token;

/// How often a process is asked whether it has ended.
const EXIT_POLL: Duration = Duration::from_millis(5);

/// How long a program that is let go of may take to end by itself.
const DROP_PATIENCE: Duration = Duration::from_secs(2);

/// A running program whose output is kept.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        // Lines are whole or absent; a reader that panicked leaves nothing half done.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Program {
    /// Starts it with its output collected and no input.
    ///
    /// # Errors
    /// As the system has them.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        Self::launch(command.stdin(Stdio::null())).map(|(program, _)| program)
    }

    /// Starts it with its output collected, to be told what to do line by line.
    ///
    /// # Errors
    /// As the system has them.
    pub fn start_with_input(command: &mut Command) -> io::Result<(Self, ChildStdin)> {
        let (program, input) = Self::launch(command.stdin(Stdio::piped()))?;
        Ok((program, input.expect("a child with a pipe as its input has the pipe")))
    }

    fn launch(command: &mut Command) -> io::Result<(Self, Option<ChildStdin>)> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = Arc::new(Output::default());
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, Arc::clone(&output));
        }
        if let Some(stderr) = child.stderr.take() {
            collect(stderr, Arc::clone(&output));
        }
        let input = child.stdin.take();
        Ok((Self { name, child, output }, input))
    }

    /// Everything that it wrote so far, both outputs as they came.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().clone()
    }

    /// Waits for a line for which `is_wanted` holds, among those written before too.
    ///
    /// # Errors
    /// What it wrote instead, when the line does not come in time.
    pub fn wait_for_line(&self, patience: Duration, is_wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let until = Instant::now() + patience;
        let mut lines = self.output.lock();
        let mut seen = 0;
        loop {
            if let Some(line) = lines[seen..].iter().find(|line| is_wanted(line)) {
                return Ok(line.clone());
            }
            seen = lines.len();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
                return Err(format!("{} did not say so within {patience:?}; its last lines:\n  {last}", self.name));
            }
            lines = self.output.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        // Once it was waited for, its number may belong to another process.
        if !self.is_running() {
            return;
        }
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // A process that is gone already has what the signal was for.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What it wrote last, when it does not end in time.
    pub fn wait_exit(&mut self, patience: Duration) -> Result<ExitStatus, String> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Err(error) => return Err(error.to_string()),
                Ok(None) if Instant::now() >= until => {
                    let lines = self.lines();
                    let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
                    return Err(format!("{} did not end within {patience:?}; its last lines:\n  {last}", self.name));
                }
                Ok(None) => thread::sleep(EXIT_POLL),
            }
        }
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its file descriptors, by /proc.
    pub fn open_files(&self) -> usize {
        self.count_entries("fd")
    }

    /// Its threads, by /proc.
    pub fn threads(&self) -> usize {
        self.count_entries("task")
    }

    /// The names of its threads, by /proc.
    pub fn thread_names(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten();
        let names = tasks.filter_map(Result::ok).map(|task| std::fs::read_to_string(task.path().join("comm")));
        names.filter_map(Result::ok).map(|name| name.trim().to_owned()).collect()
    }

    /// Its resident memory in KiB, by /proc.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    fn count_entries(&self, folder: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{folder}", self.child.id())).map_or(0, Iterator::count)
    }
}

impl Drop for Program {
    /// Asks it to end first, so that a program with children of its own takes them along.
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = self.wait_exit(DROP_PATIENCE);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stream: impl Read + Send + 'static, output: Arc<Output>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            output.lock().push(String::from_utf8_lossy(&line).trim_end().to_owned());
            output.changed.notify_all();
            line.clear();
        }
    });
}

/// A folder of its own for one test or demo, removed at the end.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Made below the system's folder for temporary files.
    ///
    /// # Errors
    /// As the system has them.
    pub fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("galene-sip-lab-{}", token()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it and tells where.
    ///
    /// # Errors
    /// As the system has them.
    pub fn write(&self, name: &str, content: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A UDP port of 127.0.0.1 that nobody uses now.
///
/// # Errors
/// As the system has them.
pub fn free_udp_port() -> io::Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A TCP port of 127.0.0.1 that nobody uses now.
///
/// # Errors
/// As the system has them.
pub fn free_tcp_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Where a program is, searched as a shell would, and where Debian keeps servers.
pub fn find(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|folder| folder.join(program.as_ref())).find(|file| file.is_file())
}

/// Where a program is that a test needs. Without it the test says so and passes at home; with `CI` set it fails,
/// since there nobody reads what was skipped.
///
/// # Panics
/// When the program is missing and `CI` is set.
pub fn find_or_skip(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Says that a test is skipped and why.
///
/// # Panics
/// When `CI` is set.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "cannot be skipped when CI is set: {why}");
    println!("skipped: {why}");
}

/// Says that a test judges by less than it should, such as without PESQ, and why.
///
/// # Panics
/// When `CI` is set.
pub fn make_do(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "cannot be done without when CI is set: {why}");
    println!("making do: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_heard_measured_and_ended() {
        let mut program =
            Program::start(Command::new("sh").args(["-c", "echo one; echo two >&2; exec sleep 60"])).unwrap();
        let patience = Duration::from_secs(10);
        assert_eq!(program.wait_for_line(patience, |line| line == "two").unwrap(), "two");
        assert_eq!(program.wait_for_line(patience, |line| line.starts_with('o')).unwrap(), "one");
        assert!(program.wait_for_line(Duration::from_millis(20), |line| line == "three").unwrap_err().contains("two"));
        assert!(program.threads() == 1 && program.open_files() >= 3 && program.resident_kib() > 0);
        assert!(program.is_running());
        program.signal(Signal::SIGTERM);
        assert_eq!(program.wait_exit(patience).unwrap().code(), None);
        assert!(!program.is_running());
    }
}
