//! DTLS 1.2 with the SRTP extension towards a telephone, by rtc-dtls: its certificate may be RSA, as that of FreeSWITCH,
//! linphone and baresip is, and dimpl, which serves the rooms, has ECDSA only.
//!
//! Owns: the pace of repetitions, the check of the telephone's certificate (RFC 8122), the keys that come out. Does not own:
//! addresses, the limit of the whole handshake (`gateway::association`).
//! rtc-dtls 0.21 stops its own timer when a message comes that does not end a flight, such as a repeated hello, and then
//! repeats nothing any more. So flights are repeated here, byte for byte: of what has arrived the telephone drops the copies.
//! Our last one it repeats itself, when the telephone repeats its own.
//! An error is final if rtc-dtls sends an alert with it; else somebody has sent junk, which anybody may.

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

/// First repetition of a flight; the pause doubles from there, and begins anew with each flight.
const FIRST_REPETITION: Duration = Duration::from_millis(300);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The first byte of an alert (RFC 5246 §6.2.1).
const ALERT: u8 = 21;
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
    /// What we sent last, until it is answered.
    flight: Vec<Vec<u8>>,
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
            flight: Vec::new(),
            outputs: VecDeque::new(),
        };
        if role == DtlsRole::Client {
            let std_now = connection.identity.std_instant(now);
            let begun = connection.endpoint.connect(std_now, PEER, Arc::clone(&identity.telephone.client), None);
            connection.transmit(now, begun.err());
        }
        connection
    }

    /// A datagram whose first byte is 20 to 63.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        if self.state == State::Failed {
            return;
        }
        let std_now = self.identity.std_instant(now);
        let events = match self.endpoint.read(std_now, PEER, None, bytes.into()) {
            Ok(events) => events,
            Err(Error::ErrAlertFatalOrClose) => return self.fail(DtlsError::Refused),
            Err(error) => return self.transmit(now, Some(error)),
        };
        // First the flight that ends the handshake, then the news of it.
        self.transmit(now, None);
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => self.on_complete(),
                EndpointEvent::PeerClosed => self.fail(DtlsError::Closed),
                // Data, of which there is none.
                _ => {}
            }
        }
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Handshake { repeats_at: Some(at), pause } if at <= now => {
                let pause = (pause * 2).min(LONGEST_PAUSE);
                self.state = State::Handshake { repeats_at: Some(now + pause), pause };
                self.outputs.extend(self.flight.iter().cloned().map(Output::Transmit));
            }
            State::Handshake { .. } | State::Connected | State::Failed => {}
        }
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

    /// What there is to send is a new flight, for whose answer we wait anew, or the alert that ends all.
    fn transmit(&mut self, now: Instant, error: Option<Error>) {
        let flight: Vec<_> =
            std::iter::from_fn(|| self.endpoint.poll_transmit()).map(|datagram| datagram.message.to_vec()).collect();
        let is_alert = flight.iter().any(|datagram| datagram.first() == Some(&ALERT));
        self.outputs.extend(flight.iter().cloned().map(Output::Transmit));
        match (&mut self.state, error) {
            (State::Handshake { .. }, Some(error)) if is_alert => self.fail(DtlsError::Library(error.to_string())),
            (State::Handshake { repeats_at, pause }, _) if !flight.is_empty() => {
                (*repeats_at, *pause) = (Some(now + FIRST_REPETITION), FIRST_REPETITION);
                self.flight = flight;
            }
            _ => {}
        }
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
                self.flight = Vec::new();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::rtc::dtls::Dtls;
    use crate::wire::rtp::SrtpKeys;

    const HALF_WAY: Duration = Duration::from_millis(20);

    /// Takes what an end wants done: its datagrams that arrive, and its keys.
    fn drain(
        output: impl FnMut() -> Option<Output>,
        mut arrives: impl FnMut() -> bool,
        mut carry: impl FnMut(Vec<u8>),
        keys: &mut Option<SrtpKeys>,
    ) {
        for output in std::iter::from_fn(output) {
            match output {
                Output::Transmit(bytes) if arrives() => carry(bytes),
                Output::Transmit(_) => {}
                Output::Connected(theirs) => *keys = Some(theirs),
                Output::Failed(error) => panic!("{error}"),
            }
        }
    }

    /// The telephone is dimpl's; each datagram takes 20 ms and `arrives` with or without luck. Gives when both had keys.
    fn handshake(role: DtlsRole, mut arrives: impl FnMut() -> bool) -> Option<Duration> {
        let [ours, theirs] = [(); 2].map(|()| Identity::generate(std::time::Instant::now()).unwrap());
        let announced = |identity: &Identity| vec![identity.fingerprint().clone()];
        let mut now = Instant::ZERO;
        let mut us = TelephoneDtls::begin(now, &ours, role, announced(&theirs));
        let their_role = if role == DtlsRole::Client { DtlsRole::Server } else { DtlsRole::Client };
        let mut telephone = Dtls::new(now, &theirs, their_role, announced(&ours));
        telephone.start(now);
        let [mut to_us, mut to_them]: [VecDeque<(Instant, Vec<u8>)>; 2] = Default::default();
        let (mut our_keys, mut their_keys) = (None, None);
        while now.saturating_since(Instant::ZERO) < Duration::from_secs(10) {
            let there = now + HALF_WAY;
            drain(|| us.poll_output(), &mut arrives, |bytes| to_them.push_back((there, bytes)), &mut our_keys);
            drain(|| telephone.poll_output(), &mut arrives, |bytes| to_us.push_back((there, bytes)), &mut their_keys);
            if let (Some(ours), Some(theirs)) = (&our_keys, &their_keys) {
                assert_eq!((&ours.local, &ours.remote), (&theirs.remote, &theirs.local));
                return Some(now.saturating_since(Instant::ZERO));
            }
            while let Some((_, bytes)) = to_us.pop_front_if(|(at, _)| *at <= now) {
                us.handle_input(now, &bytes);
            }
            while let Some((_, bytes)) = to_them.pop_front_if(|(at, _)| *at <= now) {
                telephone.handle_input(now, &bytes);
            }
            us.handle_timeout(now);
            if telephone.next_timeout().is_some_and(|deadline| deadline.at <= now) {
                telephone.handle_timeout(now);
            }
            now += Duration::from_millis(5);
        }
        None
    }

    #[test]
    fn without_loss_it_takes_the_three_round_trips_of_a_handshake_with_a_cookie() {
        for role in [DtlsRole::Client, DtlsRole::Server] {
            let took = handshake(role, || true).unwrap();
            assert!((Duration::from_millis(80)..=Duration::from_millis(150)).contains(&took), "{role:?}: {took:?}");
        }
    }

    #[test]
    fn a_fifth_of_the_datagrams_may_be_lost() {
        for seed in 0..40 {
            let mut random = Random::for_test(seed);
            for role in [DtlsRole::Client, DtlsRole::Server] {
                let took = handshake(role, || random.below(5) != 0);
                assert!(took.is_some(), "{role:?}, seed {seed}");
            }
        }
    }
}
