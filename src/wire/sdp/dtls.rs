//! What an audio line says of DTLS: whose certificate, who begins, which association (RFC 5763 §5, RFC 8122, RFC 8842).

use sdp_types::{Attribute, Media, Session};

use super::peer::{Fingerprint, PeerMedia, Setup};

/// Fingerprints of one line that are looked at: one for each hash function that there is, and some to spare.
const MAX_FINGERPRINTS: usize = 8;

/// The longest `a=tls-id` (RFC 8842 §4).
const MAX_TLS_ID_BYTES: usize = 255;

/// What the writer of a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DtlsDescription {
    /// The hashes of its certificate.
    pub fingerprints: Vec<Fingerprint>,
    /// Who begins; `None` if nothing is said that can be read.
    pub setup: Option<Setup>,
    /// The association's name at the writer.
    pub tls_id: Option<String>,
}

impl DtlsDescription {
    /// `None` if the line's transport is not DTLS.
    pub(super) fn read(session: &Session, media: &Media) -> Option<Self> {
        if !is_dtls(&media.proto) {
            return None;
        }
        let line = PeerMedia::of(session, media);
        Some(Self {
            fingerprints: line.fingerprints().take(MAX_FINGERPRINTS).collect(),
            setup: line.setup(),
            tls_id: line.tls_id().filter(|id| id.len() <= MAX_TLS_ID_BYTES).map(str::to_owned),
        })
    }
}

/// What we say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDtls {
    /// Our certificate's, as `a=fingerprint:` has it.
    pub fingerprint: String,
    /// Who begins.
    pub setup: Setup,
    /// The association's name here.
    pub tls_id: Option<String>,
}

impl LocalDtls {
    pub(super) fn attributes(&self) -> impl Iterator<Item = Attribute> {
        let setup = Attribute::with_value("setup", self.setup.as_str());
        let tls_id = self.tls_id.as_ref().map(|id| Attribute::with_value("tls-id", id));
        [Attribute::with_value("fingerprint", &self.fingerprint), setup].into_iter().chain(tls_id)
    }
}

/// Whether the transport is SRTP with keys by DTLS (RFC 5764 §8).
pub(super) fn is_dtls(protocol: &str) -> bool {
    ["UDP/TLS/RTP/SAVP", "UDP/TLS/RTP/SAVPF"].iter().any(|known| known.eq_ignore_ascii_case(protocol))
}
