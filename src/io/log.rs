//! The log: lines on standard error, written by a thread of its own, so that neither a full disk nor a reader that has
//! stopped reading delays a call.
//!
//! Owns: the lines that wait, and what is said of those that are lost. Does not own: what is logged, and how it looks.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for their reader: a second and more of `-debug` in a storm of calls.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// How long the last lines may take at the end: the program is gone within a second or so, whoever does not read.
const FLUSH_WITHIN: Duration = Duration::from_millis(300);

/// Where lines are put. All clones lead to one thread.
#[derive(Clone, Debug)]
pub(super) struct Log(Arc<Shared>);

/// Ends the log when it is dropped, after the last line if somebody reads it.
#[derive(Debug)]
pub(super) struct LogEnd(Log);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines that found no place since the last one that did.
    lost: u64,
    /// No more lines will come.
    is_over: bool,
    /// All that came is out.
    is_done: bool,
}

impl Log {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system grants none.
    pub(super) fn start(to: impl Write + Send + 'static) -> io::Result<(Self, LogEnd)> {
        let log = Self(Arc::default());
        let writer = log.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || writer.run(to))?;
        Ok((log.clone(), LogEnd(log)))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Lines are whole or absent; a thread that panicked leaves nothing half done.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes + line.len() > MAX_WAITING_BYTES {
            waiting.lost += 1;
            return;
        }
        if let Some(note) = waiting.take_note() {
            waiting.push(note);
        }
        waiting.push(line.to_vec());
        self.0.changed.notify_all();
    }

    fn run(&self, mut to: impl Write) {
        let mut unwritten = 0;
        loop {
            let mut waiting = self.lock();
            if let Some(line) = waiting.pop() {
                drop(waiting);
                write(&mut to, &line, &mut unwritten);
            } else if waiting.is_over {
                waiting.is_done = true;
                return self.0.changed.notify_all();
            } else {
                drop(self.0.changed.wait(waiting));
            }
        }
    }
}

/// Writes a line, after a word about those before it that could not be written: the disk may have room again.
fn write(to: &mut impl Write, line: &[u8], unwritten: &mut u64) {
    let is_told = *unwritten == 0 || to.write_all(&missing(*unwritten, "they could not be written")).is_ok();
    if is_told {
        *unwritten = 0;
    }
    if !is_told || to.write_all(line).is_err() {
        *unwritten += 1;
    }
}

/// The first line end ends a line of which a part was written.
fn missing(lines: u64, why: &str) -> Vec<u8> {
    format!("\ngalene-sip: {lines} lines of the log are missing here: {why}\n").into_bytes()
}

impl Waiting {
    fn push(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let Some(line) = self.lines.pop_front() else { return self.take_note() };
        self.bytes -= line.len();
        Some(line)
    }

    /// What is to be said where lines were lost.
    fn take_note(&mut self) -> Option<Vec<u8>> {
        let lost = std::mem::take(&mut self.lost);
        (lost > 0).then(|| missing(lost, "its reader was too slow"))
    }
}

impl Drop for LogEnd {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.is_over = true;
        self.0.0.changed.notify_all();
        // Whoever has not read until now is not waited for.
        let until_done = self.0.0.changed.wait_timeout_while(waiting, FLUSH_WITHIN, |waiting| !waiting.is_done);
        drop(until_done);
    }
}

impl Write for Log {
    /// One call is one line or several whole ones.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A disk that tells what it is given, and takes it or not as it is told.
    struct Disk {
        given: Sender<String>,
        takes: Receiver<bool>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.given.send(String::from_utf8_lossy(bytes).trim().to_owned()).unwrap();
            if self.takes.recv().unwrap_or(true) { Ok(bytes.len()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn disk() -> (Disk, Receiver<String>, Sender<bool>) {
        let ((given, was_given), (take, takes)) = (channel(), channel());
        (Disk { given, takes }, was_given, take)
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_nobody_waits() {
        let (disk, was_given, take) = disk();
        let (log, end) = Log::start(disk).unwrap();
        let line = vec![b'x'; 1000];
        log.put(b"first\n");
        assert_eq!(was_given.recv().unwrap(), "first");
        // It has the first line in its hands, and the rest waits.
        let kept = MAX_WAITING_BYTES / line.len();
        for _ in 0..kept + 7 {
            log.put(&line);
        }
        drop(take);
        assert!((0..kept).all(|_| was_given.recv().unwrap().starts_with('x')));
        log.put(b"again\n");
        assert_eq!(
            was_given.recv().unwrap(),
            "galene-sip: 7 lines of the log are missing here: its reader was too slow"
        );
        assert_eq!(was_given.recv().unwrap(), "again");
        drop(end);
    }

    #[test]
    fn a_full_disk_costs_lines_which_are_counted_when_it_has_room_again() {
        let (disk, was_given, take) = disk();
        let (log, end) = Log::start(disk).unwrap();
        for takes in [false, false, true, true] {
            take.send(takes).unwrap();
        }
        for line in ["one\n", "two\n", "three\n"] {
            log.put(line.as_bytes());
        }
        drop(take);
        drop(end);
        let given: Vec<String> = was_given.iter().collect();
        let missing =
            |lines| format!("galene-sip: {lines} lines of the log are missing here: they could not be written");
        assert_eq!(given, ["one".to_owned(), missing(1), missing(2), "three".to_owned()]);
    }

    #[test]
    fn the_end_does_not_wait_for_who_does_not_read() {
        let (disk, was_given, _take) = disk();
        let (log, end) = Log::start(disk).unwrap();
        log.put(b"stuck\n");
        assert_eq!(was_given.recv().unwrap(), "stuck");
        drop(end);
        assert!(!log.lock().is_done);
    }
}
