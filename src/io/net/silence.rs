//! Silence both ways: how long a telephone that is expected to send has sent nothing, neither RTP nor RTCP, and how long
//! it has been sent nothing, so that a NAT may forget where its RTP comes from.

use std::time::Duration;

use crate::time::Instant;

/// Signalling hears of a silence of so long, and again each time that it has lasted so much longer. Longer than any pause
/// between the reports of a telephone that only listens.
const SILENT: Duration = Duration::from_secs(20);

/// One telephone's silence.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Since it was heard, or its silence told last; `None` until it is waited for.
    since: Option<Instant>,
}

impl Silence {
    /// A packet of the telephone's came.
    pub(super) const fn on_heard(&mut self, at: Instant) {
        self.since = Some(at);
    }

    /// Whether there is news for signalling. Nobody waits for a telephone that is not expected to send: on hold.
    pub(super) fn is_news(&mut self, now: Instant, is_expected: bool) -> bool {
        if !is_expected {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let is_news = now.saturating_since(since) >= SILENT;
        if is_news {
            self.since = Some(now);
        }
        is_news
    }
}

/// RFC 6263 §5 recommends 15 s: NATs forget after 30 s and more.
const KEEP_BINDING: Duration = Duration::from_secs(15);

/// When a telephone was sent something on RTP's port.
#[derive(Debug, Default)]
pub(super) struct Binding {
    /// `None` before the first packet: there is nothing to be kept yet.
    sent_at: Option<Instant>,
}

impl Binding {
    /// A packet has gone out.
    pub(super) const fn on_sent(&mut self, at: Instant) {
        self.sent_at = Some(at);
    }

    /// Whether a keep-alive is to go out now; it counts as sent.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.sent_at.is_some_and(|at| now.saturating_since(at) >= KEEP_BINDING);
        if is_due {
            self.sent_at = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_kept_every_15_s_in_which_nothing_else_is_sent() {
        let at = |s: u64| Instant::from_us(s * 1_000_000);
        let mut binding = Binding::default();
        let due: Vec<u64> = (0..100)
            .filter(|second| {
                if (10..=20).contains(second) || *second == 60 {
                    binding.on_sent(at(*second));
                }
                binding.is_due(at(*second))
            })
            .collect();
        assert_eq!(due, [35, 50, 75, 90]);
    }

    #[test]
    fn a_silence_is_told_every_20_s_and_never_on_hold() {
        let at = |s: u64| Instant::from_us(s * 1_000_000);
        let mut silence = Silence::default();
        let mut told = Vec::new();
        for second in 0..100 {
            if second == 15 {
                silence.on_heard(at(15));
            }
            let is_on_hold = (60..70).contains(&second);
            if silence.is_news(at(second), !is_on_hold) {
                told.push(second);
            }
        }
        assert_eq!(told, [35, 55, 90]);
    }
}
