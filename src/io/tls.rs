//! TLS to Galene: whom to trust, once for HTTP and WebSocket.
//!
//! Owns: the trusted certificates (the system's, or Mozilla's where the system has none) and `-insecure`.
//! Does not own: the words for what goes wrong (`fault`).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Whom to trust.
#[derive(Clone, Debug)]
pub struct Tls {
    websocket: Arc<ClientConfig>,
    http: TlsConfig,
}

impl Tls {
    /// Reads the system's certificates, which takes some 10 ms: once, at the start. With `insecure`, any certificate is
    /// taken.
    pub fn load(insecure: bool) -> Self {
        let certificates = if insecure { Vec::new() } else { rustls_native_certs::load_native_certs().certs };
        Self::new(&certificates, insecure)
    }

    /// Trusts `certificates`; none at all stand for Mozilla's list.
    pub fn new(certificates: &[CertificateDer<'static>], insecure: bool) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (roots, http_roots) = trusted(certificates);
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3");
        let websocket = if insecure {
            let anyone = Arc::new(Anyone { provider: provider.clone() });
            builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth()
        } else {
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        let http = TlsConfig::builder()
            .root_certs(http_roots)
            .disable_verification(insecure)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        Self { websocket: Arc::new(websocket), http }
    }

    pub(super) fn websocket(&self) -> Arc<ClientConfig> {
        self.websocket.clone()
    }

    pub(super) fn http(&self) -> TlsConfig {
        self.http.clone()
    }
}

fn trusted(certificates: &[CertificateDer<'static>]) -> (RootCertStore, RootCerts) {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if usable == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return (roots, RootCerts::WebPki);
    }
    let http = certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    (roots, RootCerts::Specific(Arc::new(http)))
}

/// Takes any certificate, but still only from who holds its key: `-insecure`.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
