//! A telephone's SRTP with keys in the descriptions (RFC 4568), in one suite, by webrtc-srtp: nothing of it is the gateway's own.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use crate::random::random_u64;

const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";
const KEY_BYTES: usize = 16;
const SALT_BYTES: usize = 14;

/// A master key and its salt.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key([u8; KEY_BYTES + SALT_BYTES]);

impl Key {
    pub(super) fn random() -> Self {
        Self(std::array::from_fn(|_| random_u64() as u8))
    }

    /// The line that tells it.
    pub(super) fn attribute(&self) -> String {
        format!("a=crypto:1 {SUITE} inline:{}\r\n", BASE64_STANDARD.encode(self.0))
    }

    /// Reads such a line.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.strip_prefix("a=crypto:1 ")?.split_once(SUITE)?;
        let text = rest.trim().strip_prefix("inline:")?.split('|').next()?;
        Some(Self(BASE64_STANDARD.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Both directions of one call.
pub(super) struct Srtp {
    ours: Context,
    theirs: Context,
}

impl Srtp {
    pub(super) fn new(ours: &Key, theirs: &Key) -> Self {
        let context = |key: &Key| {
            let (key, salt) = key.0.split_at(KEY_BYTES);
            let profile = ProtectionProfile::Aes128CmHmacSha1_80;
            Context::new(key, salt, profile, None, None).expect("the lengths are the suite's")
        };
        Self { ours: context(ours), theirs: context(theirs) }
    }

    /// The packet as it is sent.
    pub(super) fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.ours.encrypt_rtp(packet).ok().map(|sealed| sealed.to_vec())
    }

    /// The packet that was sent, if it is authentic.
    pub(super) fn open(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.theirs.decrypt_rtp(datagram).ok().map(|packet| packet.to_vec())
    }
}
