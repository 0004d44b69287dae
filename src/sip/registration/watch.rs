//! Whether a registrar over UDP still lives: OPTIONS (RFC 3261 §11), which every server answers in some way.
//!
//! Owns: when to ask, and what silence means. Does not own: registering again (`registration`). A registrar that restarts
//! forgets its bindings as a rule, and no telephone is told; what is seen from here is that for a while nothing answers.
//! Over TCP and TLS the connection itself tells (`flow`). A registrar that never answers is not asked for ever.

use std::time::Duration;

use crate::time::{Deadline, Instant};

/// From one question to the next.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long the answer may take, four copies of the question included: the last one goes out after 7.5 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// An answer that took longer has needed a second copy: the registrar may have been away for a moment.
const AT_ONCE: Duration = Duration::from_millis(1_500);
/// Questions without answer after which a registrar that has never answered is left alone.
const MAX_UNANSWERED: u32 = 2;

/// The watch over one registrar.
#[derive(Debug)]
pub(super) struct Watch {
    has_answered: bool,
    unanswered: u32,
    interval: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Off,
    Next(Instant),
    Asked { at: Instant },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Send OPTIONS.
    Ask,
    /// Nobody is there any more.
    Gone,
    /// The question is not worth waiting for.
    GiveUp,
}

impl Watch {
    pub(super) const fn new() -> Self {
        Self { has_answered: false, unanswered: 0, interval: INTERVAL, state: State::Off }
    }

    /// A REGISTER was granted. The registrar may have said itself at which `interval` it wants to be asked.
    pub(super) fn start(&mut self, now: Instant, interval: Option<Duration>) {
        self.interval = interval.unwrap_or(INTERVAL);
        self.go_on(now);
    }

    fn go_on(&mut self, now: Instant) {
        let is_mute = !self.has_answered && self.unanswered >= MAX_UNANSWERED;
        self.state = if is_mute { State::Off } else { State::Next(now + self.interval) };
    }

    /// REGISTER itself shows whether it lives.
    pub(super) fn stop(&mut self) {
        self.state = State::Off;
    }

    /// An answer of any kind has come; true if the registrar may have been away.
    pub(super) fn handle_answer(&mut self, now: Instant) -> bool {
        let State::Asked { at } = self.state else { return false };
        self.state = State::Next(at + self.interval);
        let was_away = self.has_answered && now.saturating_since(at) > AT_ONCE;
        self.has_answered = true;
        self.unanswered = 0;
        was_away
    }

    /// Runs what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Due {
        match self.state {
            State::Next(at) if now >= at => {
                self.state = State::Asked { at: now };
                Due::Ask
            }
            State::Asked { at } if now >= at + ANSWER_WITHIN => {
                self.unanswered = self.unanswered.saturating_add(1);
                self.go_on(now);
                if self.has_answered { Due::Gone } else { Due::GiveUp }
            }
            State::Off | State::Next(_) | State::Asked { .. } => Due::Nothing,
        }
    }

    /// The next deadline.
    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        match self.state {
            State::Off => None,
            State::Next(at) => Some(Deadline::new(at, "ask whether the registrar lives")),
            State::Asked { at } => Some(Deadline::new(at + ANSWER_WITHIN, "the registrar's sign of life")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Instant {
        Instant::from_us(seconds * 1_000_000)
    }

    #[test]
    fn one_that_answered_and_is_silent_is_gone_and_one_that_never_did_is_left_alone() {
        let mut watch = Watch::new();
        watch.start(seconds(0), None);
        assert_eq!((watch.handle_timeout(seconds(14)), watch.handle_timeout(seconds(15))), (Due::Nothing, Due::Ask));
        assert!(!watch.handle_answer(seconds(15)));
        assert_eq!(watch.handle_timeout(seconds(30)), Due::Ask);
        assert!(watch.handle_answer(seconds(32)), "an answer to a second copy is a doubt");
        assert_eq!((watch.handle_timeout(seconds(45)), watch.handle_timeout(seconds(55))), (Due::Ask, Due::Gone));
        let mut mute = Watch::new();
        mute.start(seconds(0), None);
        for at in [15, 40] {
            assert_eq!(mute.handle_timeout(seconds(at)), Due::Ask);
            assert_eq!(mute.handle_timeout(seconds(at + 10)), Due::GiveUp);
        }
        assert_eq!(mute.next_timeout(), None);
        mute.start(seconds(60), None);
        assert_eq!(mute.next_timeout(), None);
    }
}
