//! Which address a telephone's packets really come from.
//!
//! Owns: the rule by which an RTP source is believed (symmetric RTP, RFC 4961; the cautions of RFC 7362 §4).
//! Does not own: the socket.
//!
//! SDP names an address, but behind a NAT packets come from another. So the first source that sends a few consistent packets
//! is taken, one on the signalled host sooner than a stranger, and then frozen until a re-INVITE: a later stranger can
//! neither be heard nor draw the sound to itself.

use std::net::SocketAddr;

/// Consistent packets after which a source on another host than the signalled one is believed: 80 ms of speech.
const STRANGER_PACKETS: u8 = 4;

/// The same for the signalled host on another port than the signalled one.
const OTHER_PORT_PACKETS: u8 = 2;

/// Sources watched at once; a flood of further ones replaces the least convincing.
const MAX_CANDIDATES: usize = 4;

/// A step in the sequence numbers that still counts as advancing: one second of 20 ms packets lost.
const MAX_ADVANCE: u16 = 50;

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It comes from the telephone.
    Take,
    /// It comes from the telephone, whose address is known from this packet on.
    Latched,
    /// It does not, or not yet provably, come from the telephone.
    Drop,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: SocketAddr,
    ssrc: u32,
    sequence: u16,
    consistent: u8,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open { candidates: [Option<Candidate>; MAX_CANDIDATES] },
    Latched { source: SocketAddr },
}

const OPEN: State = State::Open { candidates: [None; MAX_CANDIDATES] };

/// The rule for one telephone leg.
#[derive(Debug)]
pub(crate) struct Latch {
    signalled: Option<SocketAddr>,
    payload_type: u8,
    state: State,
}

impl Latch {
    /// Open, expecting `payload_type` from `signalled` or from wherever the telephone's NAT puts it.
    pub(crate) fn new(signalled: Option<SocketAddr>, payload_type: u8) -> Self {
        Self { signalled, payload_type, state: OPEN }
    }

    /// A new SDP. The latch opens again only if it names another address: a session refresh, a hold (`None`), or a new
    /// codec moves nobody.
    pub(crate) fn update(&mut self, signalled: Option<SocketAddr>, payload_type: u8) {
        self.payload_type = payload_type;
        if signalled.is_some() && signalled != self.signalled {
            self.signalled = signalled;
            self.state = OPEN;
        }
    }

    /// Whether packets of `source` may still be the telephone's, so that it is worth the work to find out.
    pub(crate) fn may_come_from(&self, source: SocketAddr) -> bool {
        match self.state {
            State::Open { .. } => true,
            State::Latched { source: latched } => latched == source,
        }
    }

    /// Whether `source` is on the telephone's host, as far as that is known.
    pub(crate) fn expects(&self, source: SocketAddr) -> bool {
        self.remote().is_some_and(|remote| remote.ip() == source.ip())
    }

    /// Where to send: the latched source, else what SDP says.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        match self.state {
            State::Open { .. } => self.signalled,
            State::Latched { source } => Some(source),
        }
    }

    /// Judges one packet by its source and RTP header.
    pub(crate) fn judge(&mut self, source: SocketAddr, ssrc: u32, sequence: u16, payload_type: u8) -> Verdict {
        let candidates = match &mut self.state {
            State::Latched { source: latched } if *latched == source => return Verdict::Take,
            State::Latched { .. } => return Verdict::Drop,
            State::Open { candidates } => candidates,
        };
        // From where its description says, a telephone may begin with a key or with comfort noise.
        if self.signalled != Some(source) && payload_type != self.payload_type {
            return Verdict::Drop;
        }
        let needed = match self.signalled {
            Some(signalled) if signalled == source => 1,
            Some(signalled) if signalled.ip() == source.ip() => OTHER_PORT_PACKETS,
            Some(_) | None => STRANGER_PACKETS,
        };
        if observe(candidates, source, ssrc, sequence) < needed {
            return Verdict::Drop;
        }
        self.state = State::Latched { source };
        Verdict::Latched
    }
}

/// How many consistent packets `source` has sent, this one included.
fn observe(candidates: &mut [Option<Candidate>; MAX_CANDIDATES], source: SocketAddr, ssrc: u32, sequence: u16) -> u8 {
    let first = Candidate { source, ssrc, sequence, consistent: 1 };
    for candidate in candidates.iter_mut().flatten() {
        if candidate.source == source {
            let step = sequence.wrapping_sub(candidate.sequence);
            let advances = candidate.ssrc == ssrc && (1..=MAX_ADVANCE).contains(&step);
            let consistent = if advances { candidate.consistent.saturating_add(1) } else { 1 };
            *candidate = Candidate { consistent, ..first };
            return consistent;
        }
    }
    let weakest = candidates.iter_mut().min_by_key(|slot| slot.as_ref().map_or(0, |candidate| candidate.consistent));
    if let Some(slot) = weakest {
        *slot = Some(first);
    }
    first.consistent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], port))
    }

    #[test]
    fn the_signalled_address_is_believed_at_once() {
        let mut latch = Latch::new(Some(address(1, 4000)), 0);
        assert_eq!(latch.judge(address(1, 4000), 7, 100, 0), Verdict::Latched);
        assert_eq!(latch.judge(address(1, 4000), 9, 5, 8), Verdict::Take);
        assert_eq!(latch.judge(address(2, 4000), 7, 101, 0), Verdict::Drop);
    }

    #[test]
    fn a_telephone_may_begin_with_a_key_where_it_is_expected_but_a_stranger_may_not() {
        let mut latch = Latch::new(Some(address(1, 4000)), 0);
        for sequence in 0..10 {
            assert_eq!(latch.judge(address(9, 777), 7, sequence, 101), Verdict::Drop);
        }
        assert_eq!(latch.judge(address(1, 4000), 7, 100, 101), Verdict::Latched);
        assert_eq!(latch.judge(address(1, 4000), 7, 101, 0), Verdict::Take);
    }

    #[test]
    fn a_telephone_behind_nat_is_believed_after_four_consistent_packets() {
        let mut latch = Latch::new(Some(address(1, 4000)), 0);
        assert_eq!(latch.remote(), Some(address(1, 4000)));
        for sequence in [65534, 65535, 0] {
            assert_eq!(latch.judge(address(9, 777), 7, sequence, 0), Verdict::Drop);
        }
        assert_eq!(latch.judge(address(9, 777), 7, 1, 0), Verdict::Latched);
        assert_eq!(latch.remote(), Some(address(9, 777)));
    }

    #[test]
    fn the_signalled_host_overtakes_a_stranger_who_began_first() {
        let mut latch = Latch::new(Some(address(1, 4000)), 0);
        for sequence in 1..4 {
            assert_eq!(latch.judge(address(9, 777), 7, sequence, 0), Verdict::Drop);
        }
        assert_eq!(latch.judge(address(1, 5000), 8, 1, 0), Verdict::Drop);
        assert_eq!(latch.judge(address(1, 5000), 8, 2, 0), Verdict::Latched);
    }

    #[test]
    fn random_packets_never_latch() {
        let mut latch = Latch::new(None, 0);
        for packet in 0..10_000_u32 {
            let random = packet.wrapping_mul(2_654_435_761);
            assert_eq!(latch.judge(address(9, 777), random, (random >> 7) as u16, 0), Verdict::Drop, "packet {packet}");
        }
    }

    #[test]
    fn a_wrong_payload_type_or_a_frozen_sequence_does_not_count() {
        let mut latch = Latch::new(None, 0);
        for sequence in 0..10 {
            assert_eq!(latch.judge(address(9, 777), 7, sequence, 13), Verdict::Drop);
            assert_eq!(latch.judge(address(9, 777), 7, 4, 0), Verdict::Drop);
        }
    }

    #[test]
    fn only_a_new_signalled_address_opens_the_latch_again() {
        let mut latch = Latch::new(Some(address(1, 4000)), 0);
        latch.judge(address(1, 4000), 7, 1, 0);
        latch.update(None, 0);
        latch.update(Some(address(1, 4000)), 8);
        assert_eq!(latch.judge(address(1, 4000), 7, 2, 8), Verdict::Take);
        latch.update(Some(address(2, 4000)), 8);
        assert_eq!(latch.remote(), Some(address(2, 4000)));
        assert_eq!(latch.judge(address(1, 4000), 7, 3, 8), Verdict::Drop);
        assert_eq!(latch.judge(address(2, 4000), 7, 3, 8), Verdict::Latched);
    }
}
