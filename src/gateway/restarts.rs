//! When a room voice without a media path is asked for anew.
//!
//! Galene's side gives a path up after seven checks without an answer (1.4 s) and notices it only 30 s later: an offer that
//! falls into a gap of the network leads nowhere, and its successor is up to us. The pauses grow, so that a way that is
//! closed for good (UDP that a firewall stops) costs little.

use std::time::Duration;

use crate::time::{Deadline, Instant, doubled};

/// From an offer until its path has to be there: many times what a slow link needs.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause: that of consent, after which the path counts as lost (RFC 7675).
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// One voice's offers that have not led to a path.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    look_at: Option<Instant>,
    /// Requests since there was a path.
    made: u32,
}

impl Restarts {
    /// An offer came, or has been asked for: a path is due.
    pub(super) fn expect_path(&mut self, now: Instant) {
        self.look_at = Some(now + doubled(FIRST_PAUSE, self.made, MAX_PAUSE));
    }

    /// True if an ICE restart is to be asked for now.
    pub(super) fn handle_timeout(&mut self, now: Instant, has_path: bool) -> bool {
        if self.look_at.take_if(|at| *at <= now).is_none() {
            return false;
        }
        if has_path {
            self.made = 0;
            return false;
        }
        self.made += 1;
        self.expect_path(now);
        true
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        self.look_at.map(|at| Deadline::new(at, "look for a voice's path"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voice_without_a_path_is_asked_for_ever_more_slowly() {
        let mut restarts = Restarts::default();
        restarts.expect_path(Instant::ZERO);
        let mut asked_after_s = Vec::new();
        while asked_after_s.len() < 5 {
            let at = restarts.next_timeout().unwrap().at;
            assert!(restarts.handle_timeout(at, false));
            // The offer that was asked for comes at once and changes nothing.
            restarts.expect_path(at);
            asked_after_s.push(at.saturating_since(Instant::ZERO).as_secs());
        }
        assert_eq!(asked_after_s, [5, 15, 35, 65, 95]);
    }

    #[test]
    fn a_voice_with_a_path_is_left_alone() {
        let mut restarts = Restarts::default();
        restarts.expect_path(Instant::ZERO);
        assert!(!restarts.handle_timeout(Instant::from_us(5_000_000), true));
        assert_eq!(restarts.next_timeout(), None);
    }
}
