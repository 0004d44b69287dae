//! Callers that are not let in: how often to speak of them.
//!
//! Nothing is kept for a stranger but an address in a short list, so that one who tries all night makes one line.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use crate::time::Instant;

/// Addresses that have had their line. A scanner with more of them runs into [`MAX_LINES`].
const MAX_KNOWN: usize = 64;
/// Lines at most within [`WINDOW`], whatever addresses are forged.
const MAX_LINES: u32 = 6;
const WINDOW: Duration = Duration::from_secs(60);

/// Who has been spoken of.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    known: VecDeque<IpAddr>,
    window_start: Option<Instant>,
    lines: u32,
}

impl Strangers {
    /// Whether a refused call from `address` deserves a line.
    pub(crate) fn is_news(&mut self, now: Instant, address: IpAddr) -> bool {
        if self.known.contains(&address) {
            return false;
        }
        if self.window_start.is_none_or(|start| now >= start + WINDOW) {
            self.window_start = Some(now);
            self.lines = 0;
        }
        if self.lines == MAX_LINES {
            return false;
        }
        self.lines += 1;
        if self.known.len() == MAX_KNOWN {
            self.known.pop_front();
        }
        self.known.push_back(address);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_news_once_and_a_flood_is_a_few_lines_a_minute() {
        let mut strangers = Strangers::default();
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        assert!(strangers.is_news(Instant::ZERO, address(1)));
        assert!(!strangers.is_news(Instant::from_us(3_600_000_000), address(1)));
        let news = |strangers: &mut Strangers, at: Instant, range: std::ops::Range<u8>| {
            range.filter(|&n| strangers.is_news(at, address(n))).count()
        };
        assert_eq!(news(&mut strangers, Instant::from_us(59_000_000), 10..250), 5);
        assert_eq!(news(&mut strangers, Instant::from_us(61_000_000), 100..250), 6);
    }
}
