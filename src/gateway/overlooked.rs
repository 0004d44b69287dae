//! Streams that Galene forgot to offer.
//!
//! A listener that asks while somebody's new stream has not carried its first packet yet gets a `close` of that stream,
//! and never an offer: the server looks for listeners once, when the stream begins. A repeated request mends it and
//! touches nothing else. A `close` alone is no proof (every new stream begins with one), so the repetitions are few.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::{Deadline, Instant};

/// Streams begin to flow within 200 ms of their first packet; the first repetition comes after that.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// 0.5, 1, 2, 4, 8 s: what has not been offered by then has no audio for us.
const MAX_REPETITIONS: u32 = 5;

/// A voice that had to be refused since the system gave no socket is asked for again after this.
const WITHOUT_SOCKET_PAUSE: Duration = Duration::from_secs(5);

/// Streams remembered; more than a room's voices.
const MAX_STREAMS: usize = 256;

/// What was closed without ever having been offered.
#[derive(Debug, Default)]
pub(super) struct Overlooked {
    /// How often each has been closed.
    closed: BTreeMap<String, u32>,
    repeat_at: Option<Instant>,
    /// The same where we had no socket for one.
    without_socket_at: Option<Instant>,
}

impl Overlooked {
    /// A stream that we do not know was closed.
    pub(super) fn on_close(&mut self, now: Instant, id: &str) {
        if self.closed.len() >= MAX_STREAMS && !self.closed.contains_key(id) {
            return;
        }
        let times = self.closed.entry(id.to_owned()).or_default();
        if *times < MAX_REPETITIONS {
            let at = now + FIRST_PAUSE * 2_u32.pow(*times);
            self.repeat_at = Some(self.repeat_at.map_or(at, |earlier| earlier.min(at)));
            *times += 1;
        }
    }

    /// It was offered after all, or is one that we refuse.
    pub(super) fn on_offer(&mut self, id: &str) {
        self.closed.remove(id);
        if self.closed.is_empty() {
            self.repeat_at = None;
        }
    }

    /// A stream was refused for want of a socket; perhaps there will be one.
    pub(super) fn on_no_socket(&mut self, now: Instant) {
        self.without_socket_at.get_or_insert(now + WITHOUT_SOCKET_PAUSE);
    }

    /// True if the request is to be repeated now.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_due = |at: &mut Instant| *at <= now;
        // Both, since one request serves both.
        self.repeat_at.take_if(is_due).is_some() | self.without_socket_at.take_if(is_due).is_some()
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        let next = self.repeat_at.into_iter().chain(self.without_socket_at).min();
        next.map(|at| Deadline::new(at, "repeat the request for overlooked streams"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlooked_stream_is_asked_for_again_until_it_is_offered() {
        let mut overlooked = Overlooked::default();
        overlooked.on_close(Instant::ZERO, "a");
        assert!(!overlooked.handle_timeout(Instant::from_us(499_999)));
        assert!(overlooked.handle_timeout(Instant::from_us(500_000)));
        overlooked.on_close(Instant::from_us(500_000), "a");
        assert_eq!(overlooked.next_timeout().unwrap().at, Instant::from_us(1_500_000));
        overlooked.on_offer("a");
        assert_eq!(overlooked.next_timeout(), None);
    }

    #[test]
    fn a_stream_for_which_there_was_no_socket_is_asked_for_until_there_is_one() {
        let mut overlooked = Overlooked::default();
        overlooked.on_no_socket(Instant::ZERO);
        overlooked.on_offer("another");
        let at = overlooked.next_timeout().unwrap().at;
        assert_eq!(at, Instant::ZERO + WITHOUT_SOCKET_PAUSE);
        assert!(overlooked.handle_timeout(at) && overlooked.next_timeout().is_none());
        overlooked.on_no_socket(at);
        assert!(overlooked.handle_timeout(at + WITHOUT_SOCKET_PAUSE));
    }

    #[test]
    fn a_stream_without_audio_is_asked_for_five_times_only() {
        let mut overlooked = Overlooked::default();
        let mut repetitions = 0;
        overlooked.on_close(Instant::ZERO, "video");
        while let Some(deadline) = overlooked.next_timeout() {
            assert!(overlooked.handle_timeout(deadline.at));
            overlooked.on_close(deadline.at, "video");
            repetitions += 1;
        }
        assert_eq!(repetitions, MAX_REPETITIONS);
    }
}
