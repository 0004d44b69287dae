//! The events of a running part, as a test waits for them.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Everything that a part has reported, kept, so that what happened before one looks is not missed.
pub struct EventLog<T> {
    receiver: Receiver<T>,
    seen: Vec<T>,
}

impl<T: Clone> EventLog<T> {
    pub(crate) fn new(receiver: Receiver<T>) -> Self {
        Self { receiver, seen: Vec::new() }
    }

    /// The first event, of those already seen or of those to come within `patience`, that `matches`.
    pub fn wait_for(&mut self, patience: Duration, matches: impl Fn(&T) -> bool) -> Option<T> {
        if let Some(event) = self.seen.iter().find(|event| matches(event)) {
            return Some(event.clone());
        }
        let deadline = Instant::now() + patience;
        loop {
            let event = self.next(deadline.saturating_duration_since(Instant::now()))?;
            if matches(&event) {
                return Some(event);
            }
        }
    }

    /// The next event that has not been seen, if one comes within `patience`.
    pub fn next(&mut self, patience: Duration) -> Option<T> {
        match self.receiver.recv_timeout(patience) {
            Ok(event) => {
                self.seen.push(event.clone());
                Some(event)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// All events until now.
    pub fn all(&mut self) -> &[T] {
        self.seen.extend(self.receiver.try_iter());
        &self.seen
    }

    /// Forgets the events until now: what is waited for next has to happen after this.
    pub fn forget(&mut self) {
        self.all();
        self.seen.clear();
    }

    /// Forgets the events that were seen, and leaves those that were not.
    pub fn forget_seen(&mut self) {
        self.seen.clear();
    }
}
