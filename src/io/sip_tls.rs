//! TLS for SIP: whom to trust, and who we are.
//!
//! Owns: reading `-sip-tls-certificate`, `-sip-tls-key` and `-sip-tls-ca`. A server's name and the dates of its certificate are always
//! checked: `-insecure` is about Galene alone.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::SipTransports;

/// Both ends of TLS.
#[derive(Clone, Debug)]
pub(super) struct SipTls {
    /// For connections that we open.
    pub(super) client: Arc<ClientConfig>,
    /// For those that come in, if we have a certificate.
    pub(super) server: Option<Arc<ServerConfig>>,
}

impl SipTls {
    /// Reads the files that the flags name, and the system's authorities unless one of them takes their place.
    ///
    /// # Errors
    /// One sentence that names the flag and the file.
    pub(super) fn load(transports: &SipTransports) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_root_certificates(roots(transports.tls_ca.as_deref())?);
        let Some(files) = &transports.tls_files else {
            return Ok(Self { client: Arc::new(builder.with_no_client_auth()), server: None });
        };
        let chain = certificates("sip-tls-certificate", &files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| format!("-sip-tls-key {}: no key can be read from it: {error}", files.key.display()))?;
        let unfit = |error: rustls::Error| {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            format!("-sip-tls-certificate {certificate} and -sip-tls-key {key} do not go together: {error}")
        };
        let client = builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(unfit)?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unfit)?;
        Ok(Self { client: Arc::new(client), server: Some(Arc::new(server)) })
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(ca) = ca else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        return Ok(roots);
    };
    for certificate in certificates("sip-tls-ca", ca)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("-sip-tls-ca {}: not an authority's certificate: {error}", ca.display()))?;
    }
    Ok(roots)
}

fn certificates(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong =
        |why: &dyn std::fmt::Display| format!("-{flag} {}: no certificate can be read from it: {why}", file.display());
    let found = CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
    if found.is_empty() { Err(wrong(&"it holds none")) } else { Ok(found) }
}
