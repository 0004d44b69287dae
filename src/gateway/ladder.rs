//! A ladder for every call: who said what to whom and when, one line a message, to be read when something went wrong.
//!
//! Owns: the ladders of calls in progress and of the last ones, which message belongs to which call. Does not own: how a
//! message reads as a line (`line`), when a ladder is shown.

mod line;

use std::collections::{BTreeMap, VecDeque};

use crate::sip::event::{CallKey, Direction, Passed};
use crate::time::Instant;
use line::SipLine;
pub(super) use line::kind_of_galene;

/// Ladders of past calls that are kept: yesterday's trouble is rarely more calls ago.
const MAX_PAST: usize = 16;
/// Lines from a call's beginning, where most trouble is; set-up takes about 15.
const MAX_FIRST: usize = 40;
/// The latest lines of a call that had more, such as one of hours with its refreshes.
const MAX_LAST: usize = 24;
/// Messages that belong to no call yet: an INVITE and its 100 wait here until the call has a key, with a guest's first try
/// and its 401 before them. A stranger's are gone with the next ones.
const MAX_LOOSE: usize = 8;

/// All ladders.
#[derive(Debug, Default)]
pub(super) struct Ladders {
    open: BTreeMap<CallKey, Ladder>,
    past: VecDeque<Ladder>,
    loose: VecDeque<(Instant, SipLine)>,
}

/// One call's.
#[derive(Debug)]
struct Ladder {
    title: String,
    call_id: String,
    began: Instant,
    first: Vec<String>,
    last: VecDeque<String>,
    left_out: u32,
}

/// Which way something went between us and Galene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToGalene,
    FromGalene,
}

impl Ladders {
    /// A SIP message has passed.
    pub(super) fn on_passed(&mut self, now: Instant, passed: &Passed) {
        let Some(line) = SipLine::of(passed) else { return };
        let is_of = |ladder: &&mut Ladder| ladder.call_id == line.call_id;
        if let Some(ladder) = self.open.values_mut().rev().find(is_of) {
            return ladder.push(now, &line.text);
        }
        // A caller who was refused may try again under the same Call-ID: that is another call.
        let is_anew = line.is_first || self.loose.iter().any(|(_, loose)| loose.call_id == line.call_id);
        match self.past.iter_mut().rev().find(is_of).filter(|_| !is_anew) {
            Some(ladder) => ladder.push(now, &line.text),
            None => {
                if self.loose.len() == MAX_LOOSE {
                    self.loose.pop_front();
                }
                self.loose.push_back((now, line));
            }
        }
    }

    /// The INVITE that was received last has begun a call.
    pub(super) fn begin(&mut self, now: Instant, call: CallKey, title: &str) {
        let is_invite = |(_, line): &&(Instant, SipLine)| line.direction == Direction::Received;
        let call_id = self.loose.iter().rev().find(is_invite).map(|(_, line)| line.call_id.clone()).unwrap_or_default();
        let is_of = |(_, line): &&(Instant, SipLine)| line.call_id == call_id;
        let began = self.loose.iter().find(is_of).map_or(now, |(at, _)| *at);
        let mut ladder =
            Ladder { title: title.to_owned(), call_id, began, first: Vec::new(), last: VecDeque::new(), left_out: 0 };
        for (at, line) in std::mem::take(&mut self.loose) {
            if line.call_id == ladder.call_id {
                ladder.push(at, &line.text);
            }
        }
        self.open.insert(call, ladder);
    }

    /// Something went between a call's member and Galene.
    pub(super) fn note(&mut self, now: Instant, call: CallKey, way: Way, text: &str) {
        if let Some(ladder) = self.open.get_mut(&call) {
            ladder.push(now, &line::of_galene(way, text));
        }
    }

    /// The calls whose ladders still grow.
    pub(super) fn open(&self) -> impl Iterator<Item = CallKey> {
        self.open.keys().copied()
    }

    /// A call is over; its ladder.
    pub(super) fn close(&mut self, call: CallKey) -> Option<String> {
        let ladder = self.open.remove(&call)?;
        let text = ladder.to_string();
        if self.past.len() == MAX_PAST {
            self.past.pop_front();
        }
        self.past.push_back(ladder);
        Some(text)
    }

    /// Every ladder that is kept, the oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = String> {
        self.past.iter().chain(self.open.values()).map(ToString::to_string)
    }
}

impl Ladder {
    fn push(&mut self, now: Instant, text: &str) {
        let line = format!("{:>8}  {text}", now.saturating_since(self.began).as_millis());
        if self.first.len() < MAX_FIRST {
            return self.first.push(line);
        }
        if self.last.len() == MAX_LAST {
            self.last.pop_front();
            self.left_out = self.left_out.saturating_add(1);
        }
        self.last.push_back(line);
    }
}

impl std::fmt::Display for Ladder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: Call-ID {}\n      ms  {}", self.title, line::clean(&self.call_id), line::HEAD)?;
        self.first.iter().try_for_each(|line| write!(f, "\n{line}"))?;
        if self.left_out > 0 {
            write!(f, "\n          … {} lines left out …", self.left_out)?;
        }
        self.last.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sip::Transport;

    fn passed(direction: Direction, call_id: &str, first: &str, cseq: &str) -> Passed {
        let text = format!(
            "{first}\r\nVia: SIP/2.0/UDP 10.0.0.7;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        let remote = "10.0.0.7:5062".parse().unwrap();
        Passed { direction, transport: Transport::Udp, local: None, remote, bytes: text.into_bytes() }
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_us(ms * 1000)
    }

    fn invited(ladders: &mut Ladders, call_id: &str, call: u64, at: Instant) {
        ladders.on_passed(at, &passed(Direction::Received, call_id, "INVITE sip:c@d SIP/2.0", "1 INVITE"));
        ladders.on_passed(at, &passed(Direction::Sent, call_id, "SIP/2.0 100 Trying", "1 INVITE"));
        ladders.begin(at, CallKey(call), "call (Ada)");
    }

    #[test]
    fn a_call_reads_as_a_ladder_with_galene_beside_the_telephone() {
        let mut ladders = Ladders::default();
        ladders.on_passed(ms(1), &passed(Direction::Received, "stranger", "INVITE sip:c@d SIP/2.0", "1 INVITE"));
        invited(&mut ladders, "x", 1, ms(5));
        ladders.note(ms(30), CallKey(1), Way::ToGalene, "join");
        ladders.note(ms(42), CallKey(1), Way::FromGalene, "joined club as 'Ada'");
        ladders.on_passed(ms(1005), &passed(Direction::Received, "x", "BYE sip:c@d SIP/2.0", "2 BYE"));
        let expected = [
            "call (Ada): Call-ID x",
            "      ms  telephone    Galene",
            "       0  ──▶ INVITE (1), UDP 10.0.0.7:5062",
            "       0  ◀── 100 Trying (1 INVITE), UDP 10.0.0.7:5062",
            "      25               ──▶ join",
            "      37               ◀── joined club as 'Ada'",
            "    1000  ──▶ BYE (2), UDP 10.0.0.7:5062",
        ];
        assert_eq!(ladders.close(CallKey(1)).unwrap().lines().collect::<Vec<_>>(), expected);
        assert_eq!(ladders.close(CallKey(1)), None);
        // What still comes is kept with the past call.
        ladders.on_passed(ms(1006), &passed(Direction::Sent, "x", "SIP/2.0 200 OK", "2 BYE"));
        assert!(ladders.all().next().unwrap().ends_with("    1001  ◀── 200 OK (2 BYE), UDP 10.0.0.7:5062"));
    }

    #[test]
    fn another_try_under_the_same_call_id_is_a_ladder_of_its_own() {
        let mut ladders = Ladders::default();
        ladders.on_passed(ms(1), &passed(Direction::Received, "x", "INVITE sip:c@d SIP/2.0", "1 INVITE"));
        ladders.on_passed(ms(1), &passed(Direction::Sent, "x", "SIP/2.0 401 Unauthorized", "1 INVITE"));
        invited(&mut ladders, "x", 1, ms(9));
        let first = ladders.close(CallKey(1)).unwrap();
        assert!(first.contains("       0  ◀── 401") && first.contains("       8  ◀── 100"), "{first}");
        invited(&mut ladders, "x", 2, ms(20));
        let second = ladders.close(CallKey(2)).unwrap();
        assert_eq!(second.lines().count(), 4, "{second}");
        assert_eq!(ladders.all().next().unwrap(), first);
    }

    #[test]
    fn long_calls_keep_their_beginning_and_their_end_and_old_calls_go() {
        let mut ladders = Ladders::default();
        invited(&mut ladders, "long", 1, ms(0));
        for n in 0..1000 {
            ladders.note(ms(n), CallKey(1), Way::FromGalene, &format!("word {n}"));
        }
        let text = ladders.close(CallKey(1)).unwrap();
        assert_eq!(text.lines().count(), 2 + MAX_FIRST + 1 + MAX_LAST);
        assert!(text.contains("… 938 lines left out …") && text.ends_with("word 999"), "{text}");
        for call in 2..100 {
            invited(&mut ladders, &format!("call-{call}"), call, ms(call));
            ladders.close(CallKey(call));
        }
        assert_eq!(ladders.all().count(), MAX_PAST);
        for n in 0..100 {
            ladders.on_passed(ms(n), &passed(Direction::Received, "no-call", "OPTIONS sip:c@d SIP/2.0", "1 OPTIONS"));
        }
        assert_eq!(ladders.loose.len(), MAX_LOOSE);
    }
}
