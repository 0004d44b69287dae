//! Which address a telephone's packets really come from.
//!
//! Owns: the rule by which an RTP source is believed (symmetric RTP, RFC 4961; the cautions of RFC 7362 §4).
//! Does not own: the socket; whether a packet is authentic (`srtp`); whether an address could be the telephone's (`gateway`).
//!
//! SDP names an address, but behind a NAT packets come from another. Whoever else sends to our port must neither be heard nor
//! draw the sound to itself. So, as long as no source is latched:
//!
//! | packets from | are believed |
//! |---|---|
//! | the signalled address | at once |
//! | its host on another port, or the host that SIP comes from | after 2 consistent ones |
//! | elsewhere, if the signalled host cannot be where it says | after 4 |
//! | elsewhere, if it can | after 8, once it has sent nothing for 2 s |
//!
//! Consistent are packets of one source with one SSRC, the negotiated payload type and an ascending sequence. Nobody's silence
//! counts before the answer or on hold, since a telephone has no reason to send then. The latched source is frozen, until
//!
//! - a new SDP names another address: all begins anew;
//! - its stream goes on from another port of its host (a NAT has rebound): 8 packets, and 1 s of silence of the old port;
//! - it has sent nothing for 7 s, neither RTP nor RTCP: then the table holds again, the 2 s being two more. Sound goes
//!   on to it meanwhile, since silence may be all that it has to say; and if it speaks again after a stranger has
//!   taken its place, it gets that back after 4 packets, once.
//!
//! A packet that is authentic (SRTP) is the telephone's, wherever it comes from, and moves the latch at once, unless it is
//! older than what has come already: then it was overtaken on its former way.

use std::net::SocketAddr;
use std::time::Duration;

use super::control::TelephoneRemote;
use crate::time::Instant;
use candidates::Candidates;

mod candidates;
#[cfg(test)]
mod tests;

/// Consistent packets after which a source is believed that may well be the telephone's.
const LIKELY_PACKETS: u8 = 2;

/// The same for a source that nothing speaks for, but nobody has a better claim: 80 ms of speech.
const STRANGER_PACKETS: u8 = 4;

/// The same where somebody has a better claim, but is silent: 160 ms of speech.
const USURPER_PACKETS: u8 = 8;

/// So long the signalled host may be silent and keeps its claim: a slow telephone has opened its microphone by then.
const CLAIM: Duration = Duration::from_secs(2);

/// So long the latched port may be silent before its stream is believed to go on from another one: more than any outage of
/// a network that does not change addresses as well.
const REBINDING: Duration = Duration::from_secs(1);

/// So long the latched source may be silent before it may have moved elsewhere. With voice activity detection a telephone
/// sends RTCP alone, every 6.2 s at least (5 s times 1.5 / 1.218, RFC 3550 §6.3.1).
const GONE: Duration = Duration::from_secs(7);

/// An authentic packet from elsewhere is looked for once the latched source has been silent for so long, so that a flood of
/// forged ones costs nothing while the telephone speaks: more than 60 ms packets, two of which are lost.
const LOOK_AROUND: Duration = Duration::from_millis(200);

/// A packet that is farther behind than so many is not an overtaken one, but one of a new beginning (RFC 3550 A.1).
const MAX_LAG: u16 = 100;

/// What the judgement of a packet goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Where it comes from.
    pub source: SocketAddr,
    /// From its header.
    pub ssrc: u32,
    /// From its header.
    pub sequence: u16,
    /// From its header.
    pub payload_type: u8,
    /// SRTP has proven it to be the telephone's, under the keys in use.
    pub is_authentic: bool,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It comes from the telephone.
    Take,
    /// It comes from the telephone, whose address is known from this packet on.
    Latched,
    /// It does not, or not yet provably, come from the telephone.
    Drop,
}

/// Where the telephone is, and how far its stream has come.
#[derive(Clone, Copy, Debug)]
struct Latched {
    source: SocketAddr,
    ssrc: u32,
    sequence: u16,
    /// Whose place it took after a silence.
    former: Option<SocketAddr>,
}

/// The rule for one telephone leg.
#[derive(Debug)]
pub struct Latch {
    remote: TelephoneRemote,
    latched: Option<Latched>,
    candidates: Candidates,
    /// Since when whoever has the best claim, the latched source or else the signalled host, has sent nothing; `None` if
    /// nobody has begun to wait for it.
    silent_since: Option<Instant>,
}

impl Latch {
    /// Open, expecting packets from where `remote` says or from wherever the telephone's NAT puts it.
    pub fn new(remote: TelephoneRemote) -> Self {
        Self { remote, latched: None, candidates: Candidates::default(), silent_since: None }
    }

    /// A new SDP, or the answer. The latch opens again only if it names another address: a session refresh, a hold (`None`),
    /// or a new codec moves nobody.
    pub fn update(&mut self, remote: TelephoneRemote) {
        let signalled = remote.rtp.or(self.remote.rtp);
        if signalled != self.remote.rtp {
            self.latched = None;
            self.candidates.clear();
        }
        if signalled != self.remote.rtp || remote.is_expected != self.remote.is_expected {
            self.silent_since = None;
        }
        self.remote = TelephoneRemote { rtp: signalled, ..remote };
    }

    /// Whether packets of `source` may be the telephone's as far as is known: where nothing has latched, all may.
    pub fn may_come_from(&self, source: SocketAddr) -> bool {
        self.latched.is_none_or(|latched| latched.source == source)
    }

    /// Whether it is worth the work to find out if a packet of `source` is authentic.
    pub fn is_worth_a_try(&mut self, now: Instant, source: SocketAddr) -> bool {
        self.may_come_from(source) || self.silence(now) >= LOOK_AROUND
    }

    /// Whether `source` is on the telephone's host, as far as that is known.
    pub fn expects(&self, source: SocketAddr) -> bool {
        self.remote().is_some_and(|remote| remote.ip() == source.ip())
    }

    /// Whether another host than the signalled one has proven to be the telephone's.
    pub fn has_moved(&self) -> bool {
        let signalled = self.remote.rtp.map(|signalled| signalled.ip());
        self.latched.is_some_and(|latched| Some(latched.source.ip()) != signalled)
    }

    /// Where to send: the latched source, else what SDP says.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.latched.map(|latched| latched.source).or(self.remote.rtp)
    }

    /// The telephone's host sent something else than RTP: it is there.
    pub fn on_sign_of_life(&mut self, now: Instant, source: SocketAddr) {
        if self.expects(source) {
            self.silent_since = Some(now);
        }
    }

    /// Judges one packet.
    pub fn judge(&mut self, now: Instant, packet: &Evidence) -> Verdict {
        let silence = self.silence(now);
        let Some(latched) = self.latched.as_mut() else { return self.judge_open(now, silence, packet) };
        let lag = latched.sequence.wrapping_sub(packet.sequence);
        let is_overtaken = packet.ssrc == latched.ssrc && (1..=MAX_LAG).contains(&lag);
        if packet.source == latched.source {
            self.silent_since = Some(now);
            if !is_overtaken {
                (latched.ssrc, latched.sequence) = (packet.ssrc, packet.sequence);
            }
            return Verdict::Take;
        }
        if packet.is_authentic {
            return if is_overtaken { Verdict::Take } else { self.take(now, packet, None) };
        }
        let latched = *latched;
        if self.is_elsewhere(packet) {
            return Verdict::Drop;
        }
        let seen = self.candidates.observe(now, packet, self.is_likely(packet), (latched.ssrc, latched.sequence));
        let is_back = latched.former == Some(packet.source) && seen.consistent >= STRANGER_PACKETS;
        let is_rebound = packet.source.ip() == latched.source.ip()
            && seen.goes_on
            && seen.consistent >= USURPER_PACKETS
            && silence >= REBINDING;
        // The signalled host's own claim counts from then on, and so does the silence that ends it.
        let needed = || self.needed(silence.saturating_sub(GONE), true, packet);
        let is_gone = silence >= GONE && needed().is_some_and(|needed| seen.consistent >= needed);
        match (is_back || is_rebound, is_gone) {
            (true, _) => self.take(now, packet, None),
            (false, true) => self.take(now, packet, Some(latched.source)),
            (false, false) => Verdict::Drop,
        }
    }

    fn judge_open(&mut self, now: Instant, silence: Duration, packet: &Evidence) -> Verdict {
        if packet.is_authentic {
            return self.take(now, packet, None);
        }
        if self.expects(packet.source) {
            self.silent_since = Some(now);
        }
        if self.is_elsewhere(packet) {
            return Verdict::Drop;
        }
        // There is no stream that its own could go on.
        let seen = self.candidates.observe(now, packet, self.is_likely(packet), (packet.ssrc, packet.sequence));
        match self.needed(silence, self.remote.has_claim, packet) {
            Some(needed) if seen.consistent >= needed => self.take(now, packet, None),
            Some(_) | None => Verdict::Drop,
        }
    }

    /// From where its description says, a telephone may begin with a key or with comfort noise; from elsewhere that tells
    /// nothing.
    fn is_elsewhere(&self, packet: &Evidence) -> bool {
        self.remote.rtp != Some(packet.source) && packet.payload_type != self.remote.payload_type
    }

    /// How many consistent packets the source must have sent, where `has_claim` says whether it is somebody else's turn first,
    /// who has been silent for so long; `None` if no number is enough yet.
    fn needed(&self, silence: Duration, has_claim: bool, packet: &Evidence) -> Option<u8> {
        if self.remote.rtp == Some(packet.source) {
            Some(1)
        } else if self.is_likely(packet) {
            Some(LIKELY_PACKETS)
        } else if !has_claim {
            Some(STRANGER_PACKETS)
        } else {
            (silence >= CLAIM).then_some(USURPER_PACKETS)
        }
    }

    /// A NAT that SIP comes through is the one that RTP comes through.
    fn is_likely(&self, packet: &Evidence) -> bool {
        let host = packet.source.ip();
        self.remote.rtp.is_some_and(|signalled| signalled.ip() == host) || self.remote.signalling_host == Some(host)
    }

    /// How long whoever has the best claim has been silent though it should send.
    fn silence(&mut self, now: Instant) -> Duration {
        if !self.remote.is_expected {
            return Duration::ZERO;
        }
        now.saturating_since(*self.silent_since.get_or_insert(now))
    }

    fn take(&mut self, now: Instant, packet: &Evidence, former: Option<SocketAddr>) -> Verdict {
        let Evidence { source, ssrc, sequence, .. } = *packet;
        self.latched = Some(Latched { source, ssrc, sequence, former });
        self.candidates.clear();
        self.silent_since = Some(now);
        Verdict::Latched
    }
}
