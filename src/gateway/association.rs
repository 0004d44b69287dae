//! The DTLS association with one telephone: the handshake on its RTP port, its keys, its time limit (RFC 5764).
//!
//! Owns: where its datagrams go. Does not own: which may come (`io::net`), what is agreed on (`dtls_terms`).
//! It stays fed for as long as it is in use: the telephone may repeat its last flight until ours has come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::dtls_terms::DtlsTerms;
use super::event::Sockets;
use super::refusal::CallFailure;
use crate::media::control::{LegKey, NetCommand, Protection};
use crate::rtc::dtls::{DtlsError, Identity, Output};
use crate::rtc::telephone_dtls::TelephoneDtls;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::rtp::{SrtpKeys, SrtpProfile};

/// From our description to the keys; nobody listens to nothing for longer.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum State {
    Handshake {
        ends_at: Instant,
    },
    /// There are keys.
    Secured(SrtpKeys),
    /// The call is about to end.
    Failed,
}

/// One association.
#[derive(Debug)]
pub(super) struct Association {
    leg: LegKey,
    terms: DtlsTerms,
    dtls: TelephoneDtls,
    /// Where it goes: to where the telephone's comes from, as soon as that is known, else to where its description says.
    remote: Option<SocketAddr>,
    signalled: Option<SocketAddr>,
    state: State,
}

impl Association {
    /// Begins the handshake, if that is our part.
    pub(super) fn begin(
        now: Instant,
        identity: &Arc<Identity>,
        leg: LegKey,
        terms: DtlsTerms,
        signalled: Option<SocketAddr>,
    ) -> Self {
        let dtls = TelephoneDtls::begin(now, identity, terms.role, terms.fingerprints.clone());
        let state = State::Handshake { ends_at: now + HANDSHAKE_WITHIN };
        Self { leg, terms, dtls, remote: signalled, signalled, state }
    }

    /// Whether it is the one that is agreed on.
    pub(super) fn is_of(&self, terms: &DtlsTerms) -> bool {
        self.terms.is_same(terms)
    }

    /// A new description says this of the address; a hold in the old way says none.
    pub(super) fn move_to(&mut self, signalled: Option<SocketAddr>) {
        if signalled.is_some() && signalled != self.signalled {
            (self.signalled, self.remote) = (signalled, signalled);
        }
    }

    /// What the telephone's packets are wrapped in.
    pub(super) fn protection(&self) -> Protection {
        match &self.state {
            State::Secured(keys) => Protection::Srtp(keys.clone()),
            State::Handshake { .. } | State::Failed => Protection::Awaited,
        }
    }

    /// A datagram that the net thread let through.
    pub(super) fn handle_input(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        self.remote = Some(from);
        self.dtls.handle_input(now, bytes);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.dtls.handle_timeout(now);
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        let limit = match self.state {
            State::Handshake { ends_at } => Some(Deadline::new(ends_at, "DTLS handshake with a telephone")),
            State::Secured(_) | State::Failed => None,
        };
        earliest([self.dtls.next_timeout(), limit])
    }

    /// Sends what there is to send until there is news: keys, or none for ever.
    pub(super) fn poll<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
    ) -> Option<Result<SrtpProfile, CallFailure>> {
        while let Some(output) = self.dtls.poll_output() {
            match (output, &self.state) {
                (Output::Transmit(bytes), _) => {
                    if let Some(to) = self.remote {
                        desk.net(NetCommand::SendTo { leg: self.leg, to, bytes });
                    }
                }
                (Output::Connected(keys), _) => {
                    let profile = keys.local.profile;
                    self.state = State::Secured(keys);
                    return Some(Ok(profile));
                }
                // Its certificate is proven and the keys are good: that it closes DTLS before the call is no harm.
                (Output::Failed(error), State::Secured(_)) => tracing::debug!("a telephone's DTLS is over: {error}"),
                (Output::Failed(error), State::Handshake { .. } | State::Failed) => {
                    self.state = State::Failed;
                    return Some(Err(error.into()));
                }
            }
        }
        match self.state {
            State::Handshake { ends_at } if ends_at <= now => {
                self.state = State::Failed;
                Some(Err(CallFailure::DtlsLate(HANDSHAKE_WITHIN.as_secs())))
            }
            State::Handshake { .. } | State::Secured(_) | State::Failed => None,
        }
    }
}

impl From<DtlsError> for CallFailure {
    fn from(error: DtlsError) -> Self {
        match error {
            DtlsError::Fingerprint => Self::WrongCertificate,
            DtlsError::Closed | DtlsError::Refused | DtlsError::NoProfile | DtlsError::Library(_) => {
                Self::Dtls(error.to_string())
            }
        }
    }
}
