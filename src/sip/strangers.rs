//! Callers that are not let in: how often to speak of them.
//!
//! Owns: the bounds on their lines in the log. Does not own: the words (`gateway`), who is a stranger (`endpoint`).
//! What was refused shows again as long as it goes on, so that fail2ban can count it; still one address that tries all night,
//! or a thousand forged ones, neither fill a disk nor a table.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::event::StrangerGot;
use crate::time::Instant;

/// Addresses that had a line of late; more than there can be lines in [`PAUSE`].
const MAX_KNOWN: usize = 64;
/// Between two lines about refusals of one address. Five of them are a guesser's first minute.
const PAUSE: Duration = Duration::from_secs(10);
/// Lines at most within [`WINDOW`], whatever addresses are forged: 9 MB a day.
const MAX_LINES: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);

/// Who has been spoken of.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// When each was refused last with a line, the latest at the end.
    refused: VecDeque<(IpAddr, Instant)>,
    /// Who was asked for a password: that is no offence, and each is told once.
    asked: VecDeque<IpAddr>,
    window_start: Option<Instant>,
    lines: u32,
}

impl Strangers {
    /// Whether what `address` got deserves a line.
    pub(crate) fn is_news(&mut self, now: Instant, address: IpAddr, got: StrangerGot) -> bool {
        let is_known = match got {
            StrangerGot::Asked => self.asked.contains(&address),
            StrangerGot::Refused | StrangerGot::Mistaken | StrangerGot::Locked => {
                self.refused.iter().any(|&(known, last)| known == address && now < last + PAUSE)
            }
        };
        if is_known || !self.has_line_left(now) {
            return false;
        }
        if got == StrangerGot::Asked {
            self.asked.truncate(MAX_KNOWN - 1);
            self.asked.push_front(address);
        } else {
            self.refused.retain(|&(known, _)| known != address);
            if self.refused.len() == MAX_KNOWN {
                self.refused.pop_front();
            }
            self.refused.push_back((address, now));
        }
        true
    }

    fn has_line_left(&mut self, now: Instant) -> bool {
        if self.window_start.is_none_or(|start| now >= start + WINDOW) {
            self.window_start = Some(now);
            self.lines = 0;
        }
        let is_left = self.lines < MAX_LINES;
        self.lines += u32::from(is_left);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn address(n: u8) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, n))
    }

    const fn seconds(seconds: u64) -> Instant {
        Instant::from_us(seconds * 1_000_000)
    }

    #[test]
    fn a_refused_address_is_news_every_ten_seconds_and_one_that_is_asked_once() {
        let mut strangers = Strangers::default();
        let mut news = |at, got| strangers.is_news(seconds(at), address(1), got);
        assert!(news(0, StrangerGot::Asked));
        assert!(news(0, StrangerGot::Mistaken), "who was asked and guesses wrongly has a line for that");
        assert!(!news(9, StrangerGot::Locked));
        assert!(news(10, StrangerGot::Locked));
        assert!(!news(19, StrangerGot::Refused));
        assert!(news(20, StrangerGot::Refused));
        assert!(!news(3600, StrangerGot::Asked));
    }

    #[test]
    fn a_flood_of_addresses_is_sixty_lines_a_minute() {
        let mut strangers = Strangers::default();
        let mut news = |at: u64, range: std::ops::Range<u8>| {
            range.filter(|&n| strangers.is_news(seconds(at), address(n), StrangerGot::Refused)).count()
        };
        assert_eq!(news(0, 0..250), 60);
        assert_eq!(news(59, 0..250), 0);
        assert_eq!(news(60, 0..250), 60);
        assert!(strangers.refused.len() <= MAX_KNOWN);
    }
}
