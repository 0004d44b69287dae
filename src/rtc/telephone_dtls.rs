//! DTLS 1.2 with the SRTP extension towards a telephone, by rtc-dtls: its certificate may be RSA, as that of FreeSWITCH,
//! linphone and baresip is, and dimpl, which serves the rooms, has ECDSA only.
//!
//! Owns: the pace of repetitions, the check of the telephone's certificate (RFC 8122), the keys that come out. Does not own:
//! addresses, the limit of the whole handshake (`gateway::association`).
//! rtc-dtls says nothing of a datagram that it cannot read, and of a handshake that is lost only when its timer fires: so an
//! error here is remembered, and is final only if the next repetition fails too. Anybody may send junk.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rtc_dtls::config::{ClientAuthType, ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::{SignatureScheme, default_provider};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;

use super::dtls::{DtlsError, DtlsRole, Identity, Output, srtp_keys};
use super::fingerprint::{Fingerprint, is_announced};
use crate::time::{Deadline, Instant};
use crate::wire::rtp::SrtpProfile;

/// First repetition of a flight; it doubles from there, and begins anew with each flight.
const FIRST_REPETITION: Duration = Duration::from_millis(300);
/// The longest wait for an answer: rtc-dtls repeats seven times, the last one 9.3 s after the flight.
const LAST_REPETITION: Duration = Duration::from_secs(2);
/// rtc-dtls' own pace, which must always be past when ours says that it is time.
const TICK: Duration = Duration::from_millis(1);
/// No path fragments so much (RFC 9147 §4.4).
const DATAGRAM_BYTES: usize = 1200;
/// RFC 5764 §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// rtc-dtls keeps its connections by address. There is only one here, and who sends is not its business.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// What all handshakes with telephones share.
#[derive(Debug)]
pub(super) struct Settings {
    client: Arc<HandshakeConfig>,
    server: Arc<HandshakeConfig>,
}

impl Settings {
    /// With our certificate in DER and its key in PKCS #8.
    ///
    /// # Errors
    /// The cryptographic library refuses to work.
    pub(super) fn new(certificate: &[u8], key: &[u8]) -> Result<Self, DtlsError> {
        let unusable = |error: &dyn std::fmt::Display| DtlsError::Library(error.to_string());
        let provider = default_provider().map_err(|error| unusable(&error))?;
        let key = provider.crypto().import_signing_key(SignatureScheme::EcdsaP256Sha256, key);
        let key = key.map_err(|error| unusable(&error))?;
        let certificate = Certificate::from_signing_key(vec![certificate.to_vec().into()], key);
        let config = |is_client| {
            ConfigBuilder::default()
                .with_crypto_provider(Arc::clone(&provider))
                .with_certificates(vec![certificate.clone()])
                .with_srtp_protection_profiles(PROFILES.iter().map(|(theirs, _)| *theirs).collect())
                // Who signed it proves nothing of a telephone; which it is, its description says. Both show one.
                .with_insecure_skip_verify(true)
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                .with_flight_interval(TICK)
                .with_mtu(DATAGRAM_BYTES)
                .build(is_client, Some(PEER))
                .map(Arc::new)
                .map_err(|error| unusable(&error))
        };
        Ok(Self { client: config(true)?, server: config(false)? })
    }
}

/// In our order.
const PROFILES: [(SrtpProtectionProfile, SrtpProfile); 4] = [
    (SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm, SrtpProfile::AeadAes256Gcm),
    (SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, SrtpProfile::AeadAes128Gcm),
    (SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80, SrtpProfile::Aes128CmSha1_80),
    (SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32, SrtpProfile::Aes128CmSha1_32),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshake { repeats_at: Option<Instant>, pause: Duration },
    Connected,
    Failed,
}

/// The DTLS connection with one telephone.
pub struct TelephoneDtls {
    endpoint: Endpoint,
    identity: Arc<Identity>,
    role: DtlsRole,
    announced: Vec<Fingerprint>,
    state: State,
    /// What may have ended the handshake.
    last_error: Option<Error>,
    outputs: VecDeque<Output>,
}

impl std::fmt::Debug for TelephoneDtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TelephoneDtls").field("role", &self.role).field("state", &self.state).finish_non_exhaustive()
    }
}

impl TelephoneDtls {
    /// A connection with a telephone that announced these fingerprints; a client says hello.
    pub fn begin(now: Instant, identity: &Arc<Identity>, role: DtlsRole, announced: Vec<Fingerprint>) -> Self {
        let server = (role == DtlsRole::Server).then(|| Arc::clone(&identity.telephone.server));
        let mut connection = Self {
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, server),
            identity: Arc::clone(identity),
            role,
            announced,
            state: State::Handshake { repeats_at: None, pause: FIRST_REPETITION },
            last_error: None,
            outputs: VecDeque::new(),
        };
        if role == DtlsRole::Client {
            let std_now = connection.identity.std_instant(now);
            let begun = connection.endpoint.connect(std_now, PEER, Arc::clone(&identity.telephone.client), None);
            connection.last_error = begun.err();
            connection.collect(now);
        }
        connection
    }

    /// A datagram whose first byte is 20 to 63.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        if self.state == State::Failed {
            return;
        }
        let std_now = self.identity.std_instant(now);
        match self.endpoint.read(std_now, PEER, None, bytes.into()) {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => self.on_complete(),
                        EndpointEvent::PeerClosed => self.fail(DtlsError::Closed),
                        // Data, of which there is none.
                        _ => {}
                    }
                }
            }
            Err(Error::ErrAlertFatalOrClose) => self.fail(DtlsError::Refused),
            Err(error) => self.last_error = Some(error),
        }
        self.collect(now);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let State::Handshake { repeats_at: Some(at), pause } = self.state else { return };
        if now < at {
            return;
        }
        let pause = (pause * 2).min(LAST_REPETITION);
        self.state = State::Handshake { repeats_at: Some(now + pause), pause };
        let std_now = self.identity.std_instant(now);
        if let Err(error) = self.endpoint.handle_timeout(PEER, std_now) {
            let why = self.last_error.take().unwrap_or(error);
            self.fail(DtlsError::Library(why.to_string()));
        }
        self.transmit();
    }

    /// When [`TelephoneDtls::handle_timeout`] is wanted.
    pub fn next_timeout(&self) -> Option<Deadline> {
        match self.state {
            State::Handshake { repeats_at, .. } => repeats_at.map(|at| Deadline::new(at, "DTLS flight to a telephone")),
            State::Connected | State::Failed => None,
        }
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What there is to send is a new flight, for whose answer we wait anew.
    fn collect(&mut self, now: Instant) {
        if let (true, State::Handshake { repeats_at, pause }) = (self.transmit(), &mut self.state) {
            (*repeats_at, *pause) = (Some(now + FIRST_REPETITION), FIRST_REPETITION);
        }
    }

    /// Whether there was anything.
    fn transmit(&mut self) -> bool {
        let datagrams = std::iter::from_fn(|| self.endpoint.poll_transmit());
        let before = self.outputs.len();
        self.outputs.extend(datagrams.map(|datagram| Output::Transmit(datagram.message.to_vec())));
        self.outputs.len() > before
    }

    /// The telephone has proven that it has the key of the certificate it has shown, and that nobody changed a byte.
    fn on_complete(&mut self) {
        let Some(state) = self.endpoint.get_connection_state(PEER) else { return };
        // The first is its own (RFC 5246 §7.4.2).
        if !state.peer_certificates.first().is_some_and(|certificate| is_announced(certificate, &self.announced)) {
            return self.fail(DtlsError::Fingerprint);
        }
        let profile = PROFILES.iter().find(|(theirs, _)| *theirs == state.srtp_protection_profile());
        let keys = profile.and_then(|(_, profile)| {
            let bytes = 2 * (profile.key_bytes() + profile.salt_bytes());
            let material = state.export_keying_material(EXPORTER_LABEL, &[], bytes).ok()?;
            srtp_keys(material.as_ref(), *profile, self.role)
        });
        match keys {
            Some(keys) => {
                self.state = State::Connected;
                self.outputs.push_back(Output::Connected(keys));
            }
            None => self.fail(DtlsError::NoProfile),
        }
    }

    fn fail(&mut self, error: DtlsError) {
        if self.state != State::Failed {
            self.state = State::Failed;
            self.outputs.push_back(Output::Failed(error));
        }
    }
}
