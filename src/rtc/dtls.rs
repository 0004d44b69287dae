//! DTLS 1.2 with the SRTP extension (RFC 6347, RFC 5764, RFC 7714), by dimpl.
//!
//! Owns: our certificate, the peer certificate's fingerprint check (RFC 8122), the keys that come out. Does not own:
//! addresses; who calls feeds only what came from an address that ICE has validated.
//! After [`Output::Connected`] feeding and polling must go on: our last flight may have been lost, and is repeated
//! when the peer repeats its own.
//! dimpl's contract, on which this file rests: poll to `Timeout` after every call; the clock goes first; an error is
//! final but leaves an alert to be sent; a client says nothing before its first `handle_timeout`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::fingerprint::{Fingerprint, FingerprintHash, is_announced};
use super::telephone_dtls;
use crate::time::{Deadline, Instant};
use crate::wire::rtp::{SrtpKeys, SrtpMaterial, SrtpProfile};

/// First repetition of a flight; with 1 s, dimpl's default, each lost datagram would cost the caller a second.
const FLIGHT_START_RTO: Duration = Duration::from_millis(200);
/// Repetitions of a flight: 0.2, 0.6, 1.4 … 25.4 s; the handshake's own limit ends it before the last.
const FLIGHT_RETRIES: usize = 8;
/// The whole handshake; ICE gives up after as long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// A UDP payload that no path fragments in practice (RFC 9147 §4.4); dimpl sends no more than 1150.
const DATAGRAM_BYTES: usize = 2048;
/// dimpl says "idle" by a deadline ten years ahead.
const IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Our certificate and the settings that all connections share. Its key is drawn from the system's entropy by the
/// cryptographic library, not from a [`crate::random::Random`]; so is that of every handshake.
pub struct Identity {
    config: Arc<dimpl::Config>,
    certificate: dimpl::DtlsCertificate,
    fingerprint: Fingerprint,
    zero: std::time::Instant,
    /// For who may show an RSA certificate.
    pub(super) telephone: telephone_dtls::Settings,
}

impl Identity {
    /// A new self-signed certificate (ECDSA P-256). `zero` is the system's clock at [`Instant::ZERO`]: dimpl speaks
    /// of time in the standard library's instants, and only `io` may read one.
    ///
    /// # Errors
    /// The cryptographic library refuses to work.
    pub fn generate(zero: std::time::Instant) -> Result<Arc<Self>, DtlsError> {
        Self::new(zero, None)
    }

    /// One for a test in virtual time: its handshakes repeat their flights at the same moments in every run, which
    /// otherwise differ by up to a quarter.
    ///
    /// # Errors
    /// The cryptographic library refuses to work.
    pub fn for_test(zero: std::time::Instant, seed: u64) -> Result<Arc<Self>, DtlsError> {
        Self::new(zero, Some(seed))
    }

    fn new(zero: std::time::Instant, seed: Option<u64>) -> Result<Arc<Self>, DtlsError> {
        let unusable = |error: &dyn std::fmt::Display| DtlsError::Library(error.to_string());
        let certificate = dimpl::certificate::generate_self_signed_certificate().map_err(|error| unusable(&error))?;
        let config = dimpl::Config::builder()
            .flight_start_rto(FLIGHT_START_RTO)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            // ICE has proven the peer's address already; a cookie would cost a round trip more, and its loss a second.
            .use_server_cookie(false);
        // Of keys and signatures it decides nothing.
        let config = match seed {
            Some(seed) => config.dangerously_set_rng_seed(seed),
            None => config,
        };
        let config = config.build().map_err(|error| unusable(&error))?;
        let fingerprint = Fingerprint::of(FingerprintHash::Sha256, &certificate.certificate);
        let telephone = telephone_dtls::Settings::new(&certificate.certificate, &certificate.private_key)?;
        Ok(Arc::new(Self { config: Arc::new(config), certificate, fingerprint, zero, telephone }))
    }

    /// In the standard library's terms.
    pub(super) fn std_instant(&self, now: Instant) -> std::time::Instant {
        self.zero + Duration::from_micros(now.as_us())
    }

    /// For our descriptions.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Why there are no keys. Always final.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DtlsError {
    /// The certificate is not the one that the description announced.
    #[error("the peer's certificate is not the one it announced")]
    Fingerprint,
    /// The peer ended the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer sent an alert.
    #[error("the peer refused the handshake")]
    Refused,
    /// The peer agreed on no SRTP profile, or the keys have the wrong length.
    #[error("no SRTP profile was agreed on")]
    NoProfile,
    /// What dimpl says: no answer in time, a fatal alert, a protocol violation.
    #[error("DTLS: {0}")]
    Library(String),
}

/// Who sends the ClientHello (RFC 5763 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// `a=setup:active`
    Client,
    /// `a=setup:passive`
    Server,
}

/// What the connection wants done or known.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram to the peer.
    Transmit(Vec<u8>),
    /// The handshake is done and the certificate right.
    Connected(SrtpKeys),
    /// It is over.
    Failed(DtlsError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A client that has not been told to start.
    Silent,
    Handshake {
        certificate_is_right: bool,
    },
    Connected,
    Failed,
}

/// One DTLS connection.
pub struct Dtls {
    inner: dimpl::Dtls,
    identity: Arc<Identity>,
    role: DtlsRole,
    announced: Vec<Fingerprint>,
    state: State,
    wakes_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dtls").field("role", &self.role).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Dtls {
    /// A connection with a peer that announced these fingerprints; a client waits for [`Dtls::start`].
    pub fn new(now: Instant, identity: &Arc<Identity>, role: DtlsRole, announced: Vec<Fingerprint>) -> Self {
        let (config, certificate) = (Arc::clone(&identity.config), identity.certificate.clone());
        let mut inner = dimpl::Dtls::new_12(config, certificate, identity.std_instant(now));
        inner.set_active(role == DtlsRole::Client);
        let state = match role {
            DtlsRole::Client => State::Silent,
            DtlsRole::Server => State::Handshake { certificate_is_right: false },
        };
        let identity = Arc::clone(identity);
        Self { inner, identity, role, announced, state, wakes_at: None, outputs: VecDeque::new() }
    }

    /// Our part in the handshake.
    pub fn role(&self) -> DtlsRole {
        self.role
    }

    /// The fingerprints that the peer announced.
    pub fn announced(&self) -> &[Fingerprint] {
        &self.announced
    }

    /// There is a way to the peer: a client sends its hello.
    pub fn start(&mut self, now: Instant) {
        if self.state == State::Silent {
            self.state = State::Handshake { certificate_is_right: false };
            self.handle_timeout(now);
        }
    }

    /// A datagram whose first byte is 20 to 63 came from a validated address.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        if matches!(self.state, State::Silent | State::Failed) {
            return;
        }
        // dimpl's clock first, or its deadlines would count from the last call.
        self.handle_timeout(now);
        let result = self.inner.handle_packet(bytes);
        self.settle(result);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, State::Silent | State::Failed) {
            return;
        }
        let result = self.inner.handle_timeout(self.identity.std_instant(now));
        self.settle(result);
    }

    /// When [`Dtls::handle_timeout`] is wanted.
    pub fn next_timeout(&self) -> Option<Deadline> {
        self.wakes_at.map(|at| Deadline::new(at, "DTLS flight"))
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes everything out of dimpl, then its verdict into account.
    fn settle(&mut self, result: Result<(), dimpl::Error>) {
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            match self.inner.poll_output(&mut buffer) {
                dimpl::Output::Packet(bytes) => self.outputs.push_back(Output::Transmit(bytes.to_vec())),
                dimpl::Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                dimpl::Output::Timeout(at) => {
                    let from_zero = at.saturating_duration_since(self.identity.zero);
                    // Rounded up: at the full microsecond before, dimpl would not see its deadline as past.
                    let at = Instant::from_us(u64::try_from(from_zero.as_micros()).unwrap_or(u64::MAX)) + MICROSECOND;
                    self.wakes_at = (from_zero < IDLE).then_some(at);
                    break;
                }
                dimpl::Output::PeerCert(certificate) => {
                    if is_announced(certificate, &self.announced) {
                        self.state = State::Handshake { certificate_is_right: true };
                    } else {
                        return self.fail(DtlsError::Fingerprint);
                    }
                }
                dimpl::Output::KeyingMaterial(material, profile) => {
                    match profile_of(profile).and_then(|profile| srtp_keys(&material, profile, self.role)) {
                        Some(keys) => self.on_keys(keys),
                        None => return self.fail(DtlsError::NoProfile),
                    }
                }
                dimpl::Output::CloseNotify => return self.fail(DtlsError::Closed),
                // `Connected` comes with the keys, for which we wait; of data channels there are none.
                _ => {}
            }
            if self.state == State::Failed {
                return;
            }
        }
        if let Err(error) = result {
            self.fail(DtlsError::Library(error.to_string()));
        }
    }

    fn on_keys(&mut self, keys: SrtpKeys) {
        match self.state {
            State::Handshake { certificate_is_right: true } => {
                self.state = State::Connected;
                self.outputs.push_back(Output::Connected(keys));
            }
            // Without a certificate no one has proven anything.
            State::Handshake { certificate_is_right: false } => self.fail(DtlsError::Fingerprint),
            State::Silent | State::Connected | State::Failed => {}
        }
    }

    fn fail(&mut self, error: DtlsError) {
        if self.state != State::Failed {
            self.state = State::Failed;
            self.wakes_at = None;
            self.outputs.push_back(Output::Failed(error));
        }
    }
}

fn profile_of(profile: dimpl::SrtpProfile) -> Option<SrtpProfile> {
    match profile {
        dimpl::SrtpProfile::AEAD_AES_256_GCM => Some(SrtpProfile::AeadAes256Gcm),
        dimpl::SrtpProfile::AEAD_AES_128_GCM => Some(SrtpProfile::AeadAes128Gcm),
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => Some(SrtpProfile::Aes128CmSha1_80),
        _ => None,
    }
}

/// What the exporter gives: client key, server key, client salt, server salt (RFC 5764 §4.2). `None` if it is not as long.
pub(super) fn srtp_keys(material: &[u8], profile: SrtpProfile, role: DtlsRole) -> Option<SrtpKeys> {
    let (client_key, rest) = material.split_at_checked(profile.key_bytes())?;
    let (server_key, rest) = rest.split_at_checked(profile.key_bytes())?;
    let (client_salt, server_salt) = rest.split_at_checked(profile.salt_bytes())?;
    if server_salt.len() != profile.salt_bytes() {
        return None;
    }
    let client = SrtpMaterial { profile, key: client_key.to_vec(), salt: client_salt.to_vec() };
    let server = SrtpMaterial { profile, key: server_key.to_vec(), salt: server_salt.to_vec() };
    Some(match role {
        DtlsRole::Client => SrtpKeys { local: client, remote: server },
        DtlsRole::Server => SrtpKeys { local: server, remote: client },
    })
}

const MICROSECOND: Duration = Duration::from_micros(1);
