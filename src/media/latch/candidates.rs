//! Sources that may turn out to be the telephone.
//!
//! Owns: how consistent each one's stream is, and which ones are remembered. Does not own: how much consistency it takes.
//!
//! A flood from ever new sources must not make us forget a telephone that has sent its first packet. So a newcomer gets
//! the place of one that has ceased to send, or of one that nothing speaks for if something speaks for it, or none.

use std::net::SocketAddr;
use std::time::Duration;

use super::Evidence;
use crate::time::Instant;

/// Sources watched at once. A flood refills them, but 160 places fall vacant a second, and a telephone soon meets one.
const MAX_CANDIDATES: usize = 16;

/// A step in the sequence numbers that still counts as advancing: one second of 20 ms packets lost.
const MAX_ADVANCE: u16 = 50;

/// Who has sent nothing for so long may be forgotten: a packet of 60 ms that is late.
const STALE: Duration = Duration::from_millis(100);

/// What is known of a source with its latest packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many consistent packets it has sent in a row, this one included.
    pub(super) consistent: u8,
    /// The first of them went on with the latched stream.
    pub(super) goes_on: bool,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: SocketAddr,
    ssrc: u32,
    sequence: u16,
    heard: Instant,
    is_likely: bool,
    seen: Seen,
}

/// The sources that are watched. The one allocation is made with the leg, on the signalling thread.
#[derive(Debug, Default)]
pub(super) struct Candidates(Box<[Option<Candidate>; MAX_CANDIDATES]>);

impl Candidates {
    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.0.fill(None);
    }

    /// Counts a packet; `stream` is SSRC and sequence number of what is latched.
    pub(super) fn observe(&mut self, now: Instant, packet: &Evidence, is_likely: bool, stream: (u32, u16)) -> Seen {
        let Evidence { source, ssrc, sequence, .. } = *packet;
        let first = Candidate {
            source,
            ssrc,
            sequence,
            heard: now,
            is_likely,
            seen: Seen { consistent: 1, goes_on: advances(stream, (ssrc, sequence)) },
        };
        if let Some(known) = self.0.iter_mut().flatten().find(|known| known.source == source) {
            let seen = if advances((known.ssrc, known.sequence), (ssrc, sequence)) {
                Seen { consistent: known.seen.consistent.saturating_add(1), ..known.seen }
            } else {
                first.seen
            };
            *known = Candidate { seen, ..first };
            return seen;
        }
        let place = self.0.iter_mut().find(|place| {
            place.is_none_or(|known| now.saturating_since(known.heard) >= STALE || (is_likely && !known.is_likely))
        });
        if let Some(place) = place {
            *place = Some(first);
        }
        first.seen
    }
}

fn advances((ssrc, sequence): (u32, u16), (next_ssrc, next_sequence): (u32, u16)) -> bool {
    ssrc == next_ssrc && (1..=MAX_ADVANCE).contains(&next_sequence.wrapping_sub(sequence))
}
