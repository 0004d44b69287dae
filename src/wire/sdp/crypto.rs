//! Keys in a description: `a=crypto:` (RFC 4568; the AEAD suites: RFC 7714 §14.3).
//!
//! What cannot be kept to is no value here, so that whoever chooses sees only what can be taken (RFC 4568 §5.1.2): unknown
//! suites, several keys, a master key identifier, parameters that change what is encrypted or how.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;

use crate::wire::rtp::{SrtpMaterial, SrtpProfile};

/// Telephones write it with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Packets under one master key at most (RFC 3711 §9.2); what a description says is no more.
const MAX_LIFETIME_PACKETS: u64 = 1 << 48;

/// The least window of replay protection that may be named (RFC 4568 §6.3.7); ours is larger than all that are seen.
const MIN_WINDOW_PACKETS: u64 = 64;

/// Every suite with its name, the strongest first.
const SUITES: [(&str, SrtpProfile); 4] = [
    ("AEAD_AES_256_GCM", SrtpProfile::AeadAes256Gcm),
    ("AEAD_AES_128_GCM", SrtpProfile::AeadAes128Gcm),
    ("AES_CM_128_HMAC_SHA1_80", SrtpProfile::Aes128CmSha1_80),
    ("AES_CM_128_HMAC_SHA1_32", SrtpProfile::Aes128CmSha1_32),
];

/// One way to encrypt, and the key with which its writer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crypto {
    /// By what an answer names the one that it takes; at most nine digits.
    pub tag: u32,
    /// Suite, key and salt.
    pub material: SrtpMaterial,
}

impl Crypto {
    /// All suites, the strongest first.
    pub fn suites() -> impl Iterator<Item = SrtpProfile> {
        SUITES.into_iter().map(|(_, profile)| profile)
    }

    /// Reads the value of `a=crypto:`; `None` if it is malformed or asks for what we do not do.
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let (tag, suite, keys) = (words.next()?, words.next()?, words.next()?);
        let (_, profile) = SUITES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(suite))?;
        let tag = digits(tag).filter(|_| tag.len() <= 9).and_then(|tag| u32::try_from(tag).ok())?;
        let material = parse_key(profile, keys)?;
        words.all(may_be_asked).then_some(Self { tag, material })
    }

    /// How strong it is: 0 is the strongest.
    pub fn rank(&self) -> usize {
        SUITES.iter().position(|(_, profile)| *profile == self.material.profile).unwrap_or(SUITES.len())
    }
}

impl fmt::Display for Crypto {
    /// As in `a=crypto:`, with the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SUITES.iter().find(|(_, profile)| *profile == self.material.profile).map_or("", |(name, _)| name);
        let key_and_salt = [&self.material.key[..], &self.material.salt].concat();
        write!(f, "{} {name} inline:{}", self.tag, BASE64_STANDARD.encode(key_and_salt))
    }
}

/// `inline:`, key and salt, `|` lifetime. A second key, or an identifier to choose between keys by, needs what we do not have.
fn parse_key(profile: SrtpProfile, text: &str) -> Option<SrtpMaterial> {
    let (method, info) = text.split_once(':')?;
    let mut parts = info.split('|');
    let bytes = BASE64.decode(parts.next().filter(|_| method.eq_ignore_ascii_case("inline"))?).ok()?;
    // Also refuses a master key identifier, which has a colon, and a second key behind `;`.
    let lifetime_is_good = parts.next().is_none_or(is_lifetime);
    if !lifetime_is_good || parts.next().is_some() || bytes.len() != profile.key_bytes() + profile.salt_bytes() {
        return None;
    }
    let (key, salt) = bytes.split_at(profile.key_bytes());
    Some(SrtpMaterial { profile, key: key.to_vec(), salt: salt.to_vec() })
}

/// `2^31` or `1048576`: a promise of the sender to change its key in time, which its receiver has nothing to do for.
fn is_lifetime(text: &str) -> bool {
    let packets = match text.strip_prefix("2^") {
        Some(power) => digits(power).and_then(|power| 1u64.checked_shl(u32::try_from(power).ok()?)),
        None => digits(text),
    };
    packets.is_some_and(|packets| (1..=MAX_LIFETIME_PACKETS).contains(&packets))
}

/// A session parameter that changes nothing for us (RFC 4568 §6.3): the key derivation rate 0 is the one without it, the
/// window is a hint, and what begins with `-` may be passed over.
fn may_be_asked(parameter: &str) -> bool {
    let value = |name: &str| {
        let (key, value) = parameter.split_once('=')?;
        digits(value).filter(|_| key.eq_ignore_ascii_case(name))
    };
    parameter.starts_with('-') || value("KDR") == Some(0) || value("WSH").is_some_and(|size| size >= MIN_WINDOW_PACKETS)
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of RFC 4568 §6.1.
    const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

    fn reads(suite: &str, key: &str, rest: &str) -> bool {
        Crypto::parse(&format!("1 {suite} inline:{key}{rest}")).is_some()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read_but_for_what_needs_more_than_one_key() {
        let crypto = Crypto::parse(&format!("1 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^20")).unwrap();
        assert_eq!((crypto.tag, crypto.material.profile), (1, SrtpProfile::Aes128CmSha1_32));
        assert_eq!(&crypto.material.key[..], b"wDfvg&T+)xG7@fb5");
        assert_eq!(&crypto.material.salt[..], b"jU,RaA}\\|p0%*#");
        let cm = "AES_CM_128_HMAC_SHA1_80";
        assert!(!reads(cm, KEY, "|2^20|1:4") && !reads(cm, KEY, "|1:4"));
        assert!(!reads(cm, KEY, &format!("|2^20;inline:{KEY}|2^20")));
        assert!(!reads("F8_128_HMAC_SHA1_80", KEY, ""));
    }

    #[test]
    fn a_parameter_that_changes_the_encryption_rules_its_line_out() {
        let reads = |rest: &str| reads("AES_CM_128_HMAC_SHA1_80", KEY, rest);
        for good in ["", "|2^48", "|1", "|2^31 WSH=1024", " KDR=0", " -NEW=1", " WSH=64 KDR=0"] {
            assert!(reads(good), "{good}");
        }
        for bad in ["|2^49", "|0", "|2^", "|", "|x", "|2^99999999999", " KDR=1", " WSH=63", " WSH", " NEW=1", "|1|"] {
            assert!(!reads(bad), "{bad}");
        }
        for bad in ["UNENCRYPTED_SRTP", "UNENCRYPTED_SRTCP", "UNAUTHENTICATED_SRTP", "FEC_ORDER=FEC_SRTP"] {
            assert!(!reads(&format!(" {bad}")), "{bad}");
        }
    }

    #[test]
    fn a_key_has_the_length_of_its_suite_with_or_without_padding() {
        let text = BASE64_STANDARD.encode([7; 28]);
        assert!(text.ends_with('=') && reads("AEAD_AES_128_GCM", &text, ""));
        assert!(reads("AEAD_AES_128_GCM", text.trim_end_matches('='), ""));
        assert!(!reads("AEAD_AES_256_GCM", &text, "") && !reads("AES_CM_128_HMAC_SHA1_80", &text, ""));
        assert!(!reads("AEAD_AES_128_GCM", "", "") && !reads("AEAD_AES_128_GCM", "?", ""));
        for bad in ["1234567890", "+1", "-1", "x", ""] {
            assert!(Crypto::parse(&format!("{bad} AES_CM_128_HMAC_SHA1_80 inline:{KEY}")).is_none(), "{bad}");
        }
        assert!(Crypto::parse(&format!("1 AES_CM_128_HMAC_SHA1_80 offline:{KEY}")).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(tag in 0..1_000_000_000u32, suite in 0usize..4, bytes in any::<[u8; 46]>()) {
            let profile = SUITES[suite].1;
            let (key, salt) = bytes.split_at(profile.key_bytes());
            let material = SrtpMaterial { profile, key: key.to_vec(), salt: salt[..profile.salt_bytes()].to_vec() };
            let crypto = Crypto { tag, material };
            prop_assert_eq!(Crypto::parse(&crypto.to_string()), Some(crypto.clone()));
            prop_assert_eq!(crypto.rank(), suite);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[ -~]{0,80}", rest in "[ -~]{0,30}") {
            let _ = Crypto::parse(&text);
            let _ = Crypto::parse(&format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}{rest}"));
        }
    }
}
