//! A certificate's fingerprint as descriptions name it (RFC 8122 §5).

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// A hash that may name a certificate, the strongest last (RFC 8122 §5, without MD5 and MD2, which it forbids).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FingerprintHash {
    /// `sha-1`
    Sha1,
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
}

impl FingerprintHash {
    const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A certificate's hash as a description names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// By which function.
    pub hash: FingerprintHash,
    digest: Vec<u8>,
}

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(hash: FingerprintHash, certificate: &[u8]) -> Self {
        let digest = match hash {
            FingerprintHash::Sha1 => Sha1::digest(certificate).to_vec(),
            FingerprintHash::Sha256 => Sha256::digest(certificate).to_vec(),
            FingerprintHash::Sha384 => Sha384::digest(certificate).to_vec(),
            FingerprintHash::Sha512 => Sha512::digest(certificate).to_vec(),
        };
        Self { hash, digest }
    }

    /// Reads the value of `a=fingerprint`; `None` if the hash is not one of ours or the digest is malformed.
    pub fn parse(value: &str) -> Option<Self> {
        let (name, digest) = value.trim().split_once(' ')?;
        let hash = FingerprintHash::ALL.into_iter().find(|hash| hash.name().eq_ignore_ascii_case(name))?;
        let byte = |text: &str| (text.len() == 2).then(|| u8::from_str_radix(text, 16).ok()).flatten();
        let digest: Vec<u8> = digest.trim().split(':').map(byte).collect::<Option<_>>()?;
        (digest.len() == hash.bytes()).then_some(Self { hash, digest })
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.hash.name())?;
        for (index, byte) in self.digest.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

/// Whether the certificate is the one that was announced. Of several fingerprints those by the strongest hash count
/// (RFC 8122 §5.1: one that matches is enough).
pub fn is_announced(certificate: &[u8], announced: &[Fingerprint]) -> bool {
    let Some(hash) = announced.iter().map(|fingerprint| fingerprint.hash).max() else { return false };
    announced.contains(&Fingerprint::of(hash, certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_written_as_it_is_read() {
        let fingerprint = Fingerprint::of(FingerprintHash::Sha256, b"abc");
        let text = fingerprint.to_string();
        assert!(text.starts_with("sha-256 BA:78:16:BF:8F:01:CF:EA:"));
        assert_eq!(Fingerprint::parse(&text), Some(fingerprint.clone()));
        assert_eq!(Fingerprint::parse(&text.to_lowercase()), Some(fingerprint));
        for bad in ["", "sha-256", "sha-256 AA:BB", "md5 AA", "sha-256 zz", "sha-256 +1:02"] {
            assert_eq!(Fingerprint::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_strongest_hash_decides() {
        let right = |hash| Fingerprint::of(hash, b"certificate");
        let wrong = Fingerprint::of(FingerprintHash::Sha512, b"another");
        assert!(is_announced(b"certificate", &[right(FingerprintHash::Sha1)]));
        assert!(is_announced(
            b"certificate",
            &[right(FingerprintHash::Sha384), wrong.clone(), right(FingerprintHash::Sha512)]
        ));
        assert!(!is_announced(b"certificate", &[right(FingerprintHash::Sha256), wrong]));
        assert!(!is_announced(b"certificate", &[]));
    }
}
