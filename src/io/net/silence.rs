//! How long a telephone that is expected to send has sent nothing, neither RTP nor RTCP.

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

#[cfg(test)]
mod tests {
    use super::*;

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
