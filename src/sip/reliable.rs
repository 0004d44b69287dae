//! Reliable provisional responses, the answering side (RFC 3262 §3).
//!
//! Owns: whether a caller wants them, RSeq, the repetition of one until its PRACK. At most one is under way at a time.
//! Does not own what they say (`call::early`).

use std::time::Duration;

use super::timer::{LIFETIME, T1};
use crate::random::Random;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{CSeq, Headers, Method, RAck};

/// The extension's name in Supported and Require.
pub(crate) const RELIABLE: &str = "100rel";

/// What a caller wants of provisional responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It does not know the extension.
    Never,
    /// They may be reliable: we make those so that carry a description.
    Allowed,
    /// All but 100 must be.
    Always,
}

impl Wanted {
    /// By an INVITE.
    pub(crate) fn of_request(headers: &Headers) -> Self {
        if headers.require().any(|extension| extension.eq_ignore_ascii_case(RELIABLE)) {
            Self::Always
        } else if headers.knows(RELIABLE) {
            Self::Allowed
        } else {
            Self::Never
        }
    }
}

/// The reliable provisional responses of one INVITE.
#[derive(Debug)]
pub(crate) struct Reliable {
    wanted: Wanted,
    last_rseq: Option<u32>,
    pending: Option<Pending>,
}

/// A response that waits for its PRACK.
#[derive(Debug)]
struct Pending {
    rack: RAck,
    has_description: bool,
    /// `None` once a final response is out: the PRACK still counts (RFC 3262 §3).
    resend: Option<Resend>,
}

#[derive(Debug)]
struct Resend {
    response: Vec<u8>,
    at: Instant,
    interval: Duration,
    give_up: Instant,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// This goes out again.
    Resend(Vec<u8>),
    /// No PRACK within 64·T1: the INVITE is to be refused.
    GiveUp,
}

impl Reliable {
    pub(crate) const fn new(wanted: Wanted) -> Self {
        Self { wanted, last_rseq: None, pending: None }
    }

    /// What the caller wants.
    pub(crate) const fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Whether a response waits for its PRACK, so that no further one may be sent.
    pub(crate) const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether one waits that carries a description, so that no 2xx may be sent.
    pub(crate) fn holds_back_2xx(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.has_description)
    }

    /// The RSeq of the next response: the first is random and leaves room above it.
    pub(crate) fn next_rseq(&mut self, random: &mut Random) -> u32 {
        let rseq = self.last_rseq.map_or_else(|| random.below((1 << 31) - 1) + 1, |last| last.wrapping_add(1).max(1));
        self.last_rseq = Some(rseq);
        rseq
    }

    /// The response of `rseq` to the INVITE of `cseq` has gone out.
    pub(crate) fn sent(&mut self, now: Instant, rseq: u32, cseq: u32, response: Vec<u8>, has_description: bool) {
        let resend = Resend { response, at: now + T1, interval: T1, give_up: now + LIFETIME };
        let rack = RAck { rseq, cseq: CSeq { number: cseq, method: Method::Invite } };
        self.pending = Some(Pending { rack, has_description, resend: Some(resend) });
    }

    /// Whether a PRACK with this RAck is for the response under way.
    pub(crate) fn matches(&self, rack: &RAck) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.rack == *rack)
    }

    /// Its PRACK is in.
    pub(crate) fn acknowledge(&mut self) {
        self.pending = None;
    }

    /// A final response is out: nothing is repeated any more.
    pub(crate) fn finish(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.resend = None;
        }
    }

    /// What is due. The interval doubles without end (RFC 3262 §3).
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        let Some(resend) = self.pending.as_mut().and_then(|pending| pending.resend.as_mut()) else {
            return Due::Nothing;
        };
        if now >= resend.give_up {
            return Due::GiveUp;
        }
        if now < resend.at {
            return Due::Nothing;
        }
        resend.interval *= 2;
        resend.at = now + resend.interval;
        Due::Resend(resend.response.clone())
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        let resend = self.pending.as_ref()?.resend.as_ref()?;
        earliest([
            Some(Deadline::new(resend.at, "reliable 1xx again")),
            Some(Deadline::new(resend.give_up, "no PRACK")),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_repeated_at_doubled_intervals_until_64_t1() {
        let mut reliable = Reliable::new(Wanted::Always);
        reliable.sent(Instant::ZERO, 7, 1, vec![1], true);
        let mut fired = Vec::new();
        for ms in 0..40_000 {
            match reliable.due(Instant::from_us(ms * 1000)) {
                Due::Nothing => {}
                Due::Resend(_) => fired.push(ms),
                Due::GiveUp => {
                    fired.push(ms);
                    break;
                }
            }
        }
        assert_eq!(fired, [500, 1500, 3500, 7500, 15_500, 31_500, 32_000]);
    }

    #[test]
    fn numbers_begin_anywhere_and_go_up_by_one() {
        let mut reliable = Reliable::new(Wanted::Always);
        let mut random = Random::for_test(1);
        let first = reliable.next_rseq(&mut random);
        assert!((1..1 << 31).contains(&first));
        assert_eq!(reliable.next_rseq(&mut random), first + 1);
    }

    #[test]
    fn after_the_final_response_nothing_is_repeated_but_the_prack_counts() {
        let mut reliable = Reliable::new(Wanted::Allowed);
        reliable.sent(Instant::ZERO, 7, 1, vec![1], false);
        assert!(!reliable.holds_back_2xx());
        reliable.finish();
        assert_eq!((reliable.due(Instant::from_us(99_000_000)), reliable.next_timeout()), (Due::Nothing, None));
        let rack = RAck { rseq: 7, cseq: CSeq { number: 1, method: Method::Invite } };
        assert!(reliable.matches(&rack) && !reliable.matches(&RAck { rseq: 8, ..rack }));
    }
}
