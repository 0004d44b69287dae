//! The digest itself (RFC 7616 §3.4.1, RFC 8760), the same for who answers a challenge (`auth`) and who makes one
//! (`guests`).
//!
//! Owns: the algorithms and the formula. Does not own: challenges, nonces, the header fields.

use std::fmt::Write as _;

use md5::{Digest as _, Md5};
use sha2::{Sha256, Sha512_256};

/// The hash of a challenge, the weakest first. The `-sess` variants bind the password's hash to one nonce pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// `MD5`, also meant where a challenge names none.
    Md5,
    /// `MD5-sess`.
    Md5Session,
    /// `SHA-256` (RFC 8760).
    Sha256,
    /// `SHA-256-sess` (RFC 8760).
    Sha256Session,
    /// `SHA-512-256` (RFC 8760).
    Sha512_256,
    /// `SHA-512-256-sess` (RFC 8760).
    Sha512_256Session,
}

impl Algorithm {
    const ALL: [Self; 6] =
        [Self::Md5, Self::Md5Session, Self::Sha256, Self::Sha256Session, Self::Sha512_256, Self::Sha512_256Session];

    /// The algorithm that `name` means, case ignored; `None` for one that is not known here.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// Its registered name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Session => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Session => "SHA-256-sess",
            Self::Sha512_256 => "SHA-512-256",
            Self::Sha512_256Session => "SHA-512-256-sess",
        }
    }

    /// Its rank among the hashes: whoever breaks a lower one does not break a higher one by it. With or without `-sess` it
    /// is the same.
    pub(crate) const fn strength(self) -> u8 {
        match self {
            Self::Md5 | Self::Md5Session => 0,
            Self::Sha256 | Self::Sha256Session => 1,
            Self::Sha512_256 | Self::Sha512_256Session => 2,
        }
    }

    /// The hash of `bytes` in lower-case hexadecimal digits.
    pub(crate) fn hash(self, bytes: impl AsRef<[u8]>) -> String {
        match self {
            Self::Md5 | Self::Md5Session => hexadecimal(&Md5::digest(bytes)),
            Self::Sha256 | Self::Sha256Session => hexadecimal(&Sha256::digest(bytes)),
            Self::Sha512_256 | Self::Sha512_256Session => hexadecimal(&Sha512_256::digest(bytes)),
        }
    }

    pub(crate) const fn is_session(self) -> bool {
        matches!(self, Self::Md5Session | Self::Sha256Session | Self::Sha512_256Session)
    }
}

/// What a digest protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// `auth`: method and URI.
    Auth,
    /// `auth-int`: the body too.
    AuthInt,
}

impl Quality {
    /// Its name in `qop`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }
}

/// Name and password of an account.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name for the digest.
    pub username: String,
    /// The secret; never logged.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// All that goes into a digest beside the credentials.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digest<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) realm: &'a str,
    pub(crate) nonce: &'a str,
    /// Without it the older form of RFC 2069 is meant.
    pub(crate) quality: Option<Quality>,
    /// The nonce count as it is written: eight hexadecimal digits.
    pub(crate) count: &'a str,
    pub(crate) client_nonce: &'a str,
    pub(crate) method: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) body: &'a [u8],
}

impl Digest<'_> {
    /// The value of `response`.
    pub(crate) fn response(&self, credentials: &Credentials) -> String {
        let Digest { algorithm, realm, nonce, quality, count, client_nonce, method, uri, body } = *self;
        let hash = |text: &str| algorithm.hash(text);
        let mut secret = hash(&format!("{}:{realm}:{}", credentials.username, credentials.password));
        if algorithm.is_session() {
            secret = hash(&format!("{secret}:{nonce}:{client_nonce}"));
        }
        let request = match quality {
            Some(Quality::AuthInt) => hash(&format!("{method}:{uri}:{}", algorithm.hash(body))),
            Some(Quality::Auth) | None => hash(&format!("{method}:{uri}")),
        };
        match quality {
            Some(quality) => hash(&format!("{secret}:{nonce}:{count}:{client_nonce}:{}:{request}", quality.name())),
            None => hash(&format!("{secret}:{nonce}:{request}")),
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7616_in_sha_512_256_hashes_as_the_standard_says() {
        // FIPS 180-4, SHA-512/256("abc").
        let abc = "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23";
        assert_eq!(Algorithm::Sha512_256.hash("abc"), abc);
    }

    #[test]
    fn every_name_is_read_in_any_case_and_longer_hashes_rank_higher() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(&algorithm.name().to_lowercase()), Some(algorithm));
        }
        assert_eq!(Algorithm::from_name("SHA-1"), None);
        assert!(Algorithm::ALL.windows(2).all(|pair| pair[0].strength() <= pair[1].strength()));
    }

    #[test]
    fn auth_int_covers_the_body() {
        let digest = |body| Digest {
            algorithm: Algorithm::Md5,
            realm: "r",
            nonce: "n",
            quality: Some(Quality::AuthInt),
            count: "00000001",
            client_nonce: "c",
            method: "REGISTER",
            uri: "sip:h",
            body,
        };
        let credentials = Credentials { username: "u".into(), password: "p".into() };
        let md5 = |text: &str| Algorithm::Md5.hash(text);
        let request = md5(&format!("REGISTER:sip:h:{}", md5("body")));
        let expected = md5(&format!("{}:n:00000001:c:auth-int:{request}", md5("u:r:p")));
        assert_eq!(digest(b"body").response(&credentials), expected);
        assert_ne!(digest(b"bodY").response(&credentials), expected);
    }

    #[test]
    fn the_password_is_not_shown() {
        let credentials = Credentials { username: "u".into(), password: "secret".into() };
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
