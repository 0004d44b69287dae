//! What offer and answer settle of DTLS with a telephone, and whether an association goes on (RFC 5763 §5 and §6.6, RFC 8842).
//!
//! Does not own: the handshake (`association`), the choice of the line (`encryption`).

use super::refusal::CallFailure;
use crate::rtc::dtls::DtlsRole;
use crate::rtc::fingerprint::{Fingerprint, FingerprintHash};
use crate::wire::address::is_private;
use crate::wire::sdp::{AudioDescription, Setup};
use crate::wire::uri::Host;

/// What a telephone's line says of DTLS, as far as we can go along with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DtlsPeer {
    fingerprints: Vec<Fingerprint>,
    /// Who begins, in the telephone's words.
    setup: Setup,
    tls_id: Option<String>,
    /// Where it receives; `None` while it holds in the old way, with a null address.
    transport: Option<(Host, u16)>,
}

impl DtlsPeer {
    /// `None` if the line is not about DTLS. `unsaid` is who begins where the line does not say (RFC 4145 §4).
    ///
    /// # Errors
    /// The certificate is named by no hash that is safe, or no handshake is wanted.
    pub(super) fn read(audio: &AudioDescription, unsaid: Setup) -> Option<Result<Self, CallFailure>> {
        let dtls = audio.dtls.as_ref()?;
        let setup = dtls.setup.unwrap_or(unsaid);
        // Of SHA-1 a second certificate may be found, and then the first proves nothing.
        let fingerprints: Vec<_> = (dtls.fingerprints.iter())
            .filter_map(|fingerprint| Fingerprint::parse(&fingerprint.to_string()))
            .filter(|fingerprint| fingerprint.hash > FingerprintHash::Sha1)
            .collect();
        if fingerprints.is_empty() {
            return Some(Err(CallFailure::WeakFingerprint));
        }
        if setup == Setup::HoldConn {
            return Some(Err(CallFailure::BadDescription("a=setup:holdconn leaves nobody to begin DTLS".into())));
        }
        let transport = audio.host.clone().map(|host| (host, audio.port));
        Some(Ok(Self { fingerprints, setup, tls_id: dtls.tls_id.clone(), transport }))
    }

    /// Whether it names its associations.
    pub(super) const fn has_tls_id(&self) -> bool {
        self.tls_id.is_some()
    }

    /// Who we are in a new association. The offerer leaves it to us with `actpass`, and we begin, which saves half a round
    /// trip (RFC 5763 §5); but what we sent to a private address might not arrive, whereas from there it can reach us.
    fn role(&self) -> DtlsRole {
        let is_hidden = || (self.transport.as_ref()).and_then(|(host, _)| host.address()).is_some_and(is_private);
        match self.setup {
            Setup::Active => DtlsRole::Server,
            Setup::ActPass if is_hidden() => DtlsRole::Server,
            Setup::ActPass | Setup::Passive | Setup::HoldConn => DtlsRole::Client,
        }
    }

    /// An answer must decide.
    pub(super) const fn is_undecided(&self) -> bool {
        matches!(self.setup, Setup::ActPass)
    }
}

/// One association, from the description that asks for it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DtlsTerms {
    /// Our part.
    pub(super) role: DtlsRole,
    /// The telephone's certificate.
    pub(super) fingerprints: Vec<Fingerprint>,
    /// Our name for it, drawn anew for each.
    pub(super) tls_id: String,
    their_tls_id: Option<String>,
    transport: Option<(Host, u16)>,
}

impl DtlsTerms {
    /// A new association; `tls_id` is its name here.
    pub(super) fn new(peer: DtlsPeer, tls_id: String) -> Self {
        let role = peer.role();
        let DtlsPeer { fingerprints, tls_id: their_tls_id, transport, .. } = peer;
        Self { role, fingerprints, tls_id, their_tls_id, transport }
    }

    /// Whether the telephone goes on with this association: the same certificate, the same parts, the same name (RFC 8842
    /// §4), and where it gives no name, the same address (RFC 5763 §6.6).
    pub(super) fn goes_on(&self, peer: &DtlsPeer) -> bool {
        let is_there = peer.has_tls_id() || peer.transport.is_none() || self.transport.is_none();
        self.fingerprints == peer.fingerprints
            && self.their_tls_id == peer.tls_id
            && (peer.is_undecided() || self.role == peer.role())
            && (is_there || self.transport == peer.transport)
    }

    /// The telephone goes on with it, perhaps elsewhere.
    pub(super) fn go_on(&mut self, peer: DtlsPeer) {
        self.transport = peer.transport.or_else(|| self.transport.take());
    }

    /// Whether both are the same association.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.tls_id == other.tls_id
    }

    /// Our part as a description says it.
    pub(super) const fn setup(&self) -> Setup {
        match self.role {
            DtlsRole::Client => Setup::Active,
            DtlsRole::Server => Setup::Passive,
        }
    }
}
