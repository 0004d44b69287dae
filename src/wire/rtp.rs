//! RTP packets (RFC 3550 §5).

/// Protection profiles of DTLS-SRTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtpProfile {
    /// RFC 7714.
    AeadAes256Gcm,
    /// RFC 7714.
    AeadAes128Gcm,
    /// RFC 3711.
    Aes128CmSha1_80,
}

/// One direction's master key and salt.
#[derive(Clone, Debug)]
pub struct SrtpMaterial {
    /// Profile.
    pub profile: SrtpProfile,
    /// Master key.
    pub key: Vec<u8>,
    /// Master salt.
    pub salt: Vec<u8>,
}

/// Both directions.
#[derive(Clone, Debug)]
pub struct SrtpKeys {
    /// What we send with.
    pub local: SrtpMaterial,
    /// What the peer sends with.
    pub remote: SrtpMaterial,
}
