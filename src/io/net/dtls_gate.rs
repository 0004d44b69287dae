//! Which DTLS datagrams of a telephone's RTP port signalling gets to see (RFC 5764 §5.1.2).
//!
//! Owns: the source that the handshake keeps to. Does not own: how many datagrams may wait (`dtls_pending`), the handshake
//! (`rtc::telephone_dtls`).
//! One source is taken for each association, and one stranger at most is remembered, so that a flood makes no state.

use std::net::SocketAddr;

use super::batch::Datagram;
use super::dtls_pending::{DtlsPending, Stopped};
use super::outlets::Outlets;
use crate::media::control::{DtlsSource, LegKey, NetEvent};
use crate::media::latch::Latch;

/// ClientHellos after which a source on another host than the signalled one is believed: the second one comes after a
/// second without an answer.
const STRANGER_HELLOS: u8 = 2;

/// What was done with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    ToSignalling,
    /// None is expected.
    Unexpected,
    /// From a source that is not, or not yet, believed.
    Stranger,
    /// Signalling has enough to read.
    Stopped(Stopped),
}

/// The way of one telephone's DTLS.
#[derive(Debug)]
pub(super) struct DtlsGate {
    expected: Option<DtlsSource>,
    /// The source that was taken.
    source: Option<SocketAddr>,
    stranger: Option<(SocketAddr, u8)>,
    pending: DtlsPending,
}

impl DtlsGate {
    /// None is expected; `pending` is shared with the handle that delivers the datagrams.
    pub(super) const fn new(pending: DtlsPending) -> Self {
        Self { expected: None, source: None, stranger: None, pending }
    }

    /// A new association, or none any more.
    pub(super) const fn expect(&mut self, expected: Option<DtlsSource>) {
        self.expected = expected;
        self.source = None;
        self.stranger = None;
    }

    /// Whether the telephone's keys come by DTLS.
    pub(super) const fn is_expected(&self) -> bool {
        self.expected.is_some()
    }

    pub(super) fn pass(
        &mut self,
        leg: LegKey,
        datagram: &Datagram,
        bytes: &[u8],
        (latch, signalled): (&Latch, Option<SocketAddr>),
        out: &mut Outlets,
    ) -> Passed {
        let Datagram { from, arrival, .. } = *datagram;
        let Some(expected) = self.expected else { return Passed::Unexpected };
        if !self.believes(expected, from, bytes, latch, signalled) {
            return Passed::Stranger;
        }
        let datagram = NetEvent::Dtls { leg, from: from.into(), arrival, bytes: bytes.to_vec() };
        self.pending.pass(datagram, out).map_or_else(Passed::Stopped, |()| Passed::ToSignalling)
    }

    fn believes(
        &mut self,
        expected: DtlsSource,
        from: SocketAddr,
        bytes: &[u8],
        latch: &Latch,
        signalled: Option<SocketAddr>,
    ) -> bool {
        if let Some(source) = self.source {
            return source == from;
        }
        let is_believed = match expected {
            DtlsSource::Signalled => signalled == Some(from),
            // Where RTP has latched, everything else of the telephone's comes from there too.
            DtlsSource::Anywhere if !is_client_hello(bytes) || !latch.may_come_from(from) => false,
            DtlsSource::Anywhere => latch.expects(from) || self.insists(from),
        };
        if is_believed {
            self.source = Some(from);
        }
        is_believed
    }

    fn insists(&mut self, from: SocketAddr) -> bool {
        let hellos = match self.stranger {
            Some((stranger, hellos)) if stranger == from => hellos.saturating_add(1),
            Some(_) | None => 1,
        };
        self.stranger = Some((from, hellos));
        hellos >= STRANGER_HELLOS
    }
}

/// A handshake record of epoch 0 whose first message is a ClientHello (RFC 6347 §4.1, §4.2.2).
fn is_client_hello(bytes: &[u8]) -> bool {
    matches!(bytes, [22, 254, _, 0, 0, _, _, _, _, _, _, _, _, 1, ..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::control::TelephoneRemote;

    fn address(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], port))
    }

    fn hello() -> Vec<u8> {
        [&[22, 254, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 1][..], &[0; 60]].concat()
    }

    fn gate(expected: DtlsSource) -> DtlsGate {
        let mut gate = DtlsGate::new(DtlsPending::default());
        gate.expect(Some(expected));
        gate
    }

    /// A telephone that says it is at host 1, port 4000.
    fn believes(gate: &mut DtlsGate, from: SocketAddr, bytes: &[u8]) -> bool {
        let signalled = Some(address(1, 4000));
        let remote = TelephoneRemote {
            rtp: signalled,
            rtcp: None,
            rtcp_mux: true,
            payload_type: 0,
            clock_rate_hz: 8000,
            signalling_host: None,
            has_claim: true,
            is_expected: true,
            asks_metrics: false,
        };
        gate.believes(gate.expected.unwrap(), from, bytes, &Latch::new(remote), signalled)
    }

    #[test]
    fn who_is_begun_with_answers_from_where_its_description_says() {
        let mut gate = gate(DtlsSource::Signalled);
        assert!(!believes(&mut gate, address(1, 4001), &hello()) && !believes(&mut gate, address(2, 4000), &hello()));
        assert!(believes(&mut gate, address(1, 4000), &[22, 254, 253]));
    }

    #[test]
    fn who_begins_may_come_from_elsewhere_if_it_insists_and_then_nobody_else_may() {
        let mut gate = gate(DtlsSource::Anywhere);
        assert!(!believes(&mut gate, address(1, 4000), &[22, 254, 253, 0]), "no hello");
        assert!(!believes(&mut gate, address(7, 1), &hello()) && !believes(&mut gate, address(8, 1), &hello()));
        assert!(!believes(&mut gate, address(7, 1), &hello()), "one stranger is remembered, and that is the last");
        assert!(believes(&mut gate, address(7, 1), &hello()) && believes(&mut gate, address(7, 1), &[20]));
        assert!(!believes(&mut gate, address(1, 4000), &hello()));
        gate.expect(Some(DtlsSource::Anywhere));
        assert!(believes(&mut gate, address(1, 4002), &hello()), "another port of the telephone's host");
    }
}
