//! The ciphers of the four profiles with their session keys (RFC 3711 §4, RFC 7714 §8 to §11).

use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipherCore};
use aes::{Aes128, Aes256};
use aes_gcm::aead::{AeadInOut, Nonce, Tag};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::{RTCP_ENCRYPTED, RTCP_HEADER_BYTES, RTCP_INDEX_BYTES, SrtpError};
use crate::wire::rtp::{SrtpMaterial, SrtpProfile};

/// HMAC-SHA1 cut to 80 bits, on RTCP in every profile (RFC 5764 §4.1.2, RFC 4568 §6.2.2).
const SHA1_80_TAG_BYTES: usize = 10;
/// HMAC-SHA1 cut to 32 bits, on RTP alone.
const SHA1_32_TAG_BYTES: usize = 4;
const GCM_TAG_BYTES: usize = 16;

/// Labels of the key derivation (RFC 3711 §4.3.2).
const LABEL_RTP_KEY: u8 = 0;
const LABEL_RTP_AUTHENTICATION: u8 = 1;
const LABEL_RTP_SALT: u8 = 2;
const LABEL_RTCP_KEY: u8 = 3;
const LABEL_RTCP_AUTHENTICATION: u8 = 4;
const LABEL_RTCP_SALT: u8 = 5;

/// The session keys of one direction.
pub(super) enum Suite {
    Gcm256 { rtp: Box<Gcm<Aes256Gcm>>, rtcp: Box<Gcm<Aes256Gcm>> },
    Gcm128 { rtp: Box<Gcm<Aes128Gcm>>, rtcp: Box<Gcm<Aes128Gcm>> },
    CmSha1 { rtp: Box<CounterMode>, rtcp: Box<CounterMode>, rtp_tag_bytes: usize },
}

impl std::fmt::Debug for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gcm256 { .. } => "Gcm256",
            Self::Gcm128 { .. } => "Gcm128",
            Self::CmSha1 { .. } => "CmSha1",
        })
    }
}

pub(super) struct Gcm<C> {
    cipher: C,
    salt: [u8; 12],
}

pub(super) struct CounterMode {
    cipher: Aes128,
    salt: [u8; 14],
    /// Keyed once; cloned for each packet.
    authentication: Hmac<Sha1>,
}

impl Suite {
    pub(super) fn new(material: &SrtpMaterial) -> Result<Self, SrtpError> {
        let (key, salt) = (&material.key[..], &material.salt[..]);
        let wrong = SrtpError::KeyLength { key: key.len(), salt: salt.len() };
        if key.len() != material.profile.key_bytes() || salt.len() != material.profile.salt_bytes() {
            return Err(wrong);
        }
        // The salt stands at the left of the derivation's input, 96 bits of it in the AEAD profiles (RFC 7714 §11).
        let mut padded_salt = [0; 14];
        padded_salt[..salt.len()].copy_from_slice(salt);
        match material.profile {
            SrtpProfile::AeadAes256Gcm => {
                let master = Aes256::new_from_slice(key).map_err(|_| wrong)?;
                let gcm = |key_label, salt_label| {
                    let cipher = Aes256Gcm::new(&derive::<_, 32>(&master, &padded_salt, key_label).into());
                    Box::new(Gcm { cipher, salt: derive(&master, &padded_salt, salt_label) })
                };
                Ok(Self::Gcm256 { rtp: gcm(LABEL_RTP_KEY, LABEL_RTP_SALT), rtcp: gcm(LABEL_RTCP_KEY, LABEL_RTCP_SALT) })
            }
            SrtpProfile::AeadAes128Gcm => {
                let master = Aes128::new_from_slice(key).map_err(|_| wrong)?;
                let gcm = |key_label, salt_label| {
                    let cipher = Aes128Gcm::new(&derive::<_, 16>(&master, &padded_salt, key_label).into());
                    Box::new(Gcm { cipher, salt: derive(&master, &padded_salt, salt_label) })
                };
                Ok(Self::Gcm128 { rtp: gcm(LABEL_RTP_KEY, LABEL_RTP_SALT), rtcp: gcm(LABEL_RTCP_KEY, LABEL_RTCP_SALT) })
            }
            SrtpProfile::Aes128CmSha1_80 | SrtpProfile::Aes128CmSha1_32 => {
                let master = Aes128::new_from_slice(key).map_err(|_| wrong)?;
                let mode = |key_label, authentication_label, salt_label| {
                    let authentication_key = derive::<_, 20>(&master, &padded_salt, authentication_label);
                    Ok(Box::new(CounterMode {
                        cipher: Aes128::new(&derive::<_, 16>(&master, &padded_salt, key_label).into()),
                        salt: derive(&master, &padded_salt, salt_label),
                        authentication: Hmac::new_from_slice(&authentication_key).map_err(|_| wrong)?,
                    }))
                };
                Ok(Self::CmSha1 {
                    rtp: mode(LABEL_RTP_KEY, LABEL_RTP_AUTHENTICATION, LABEL_RTP_SALT)?,
                    rtcp: mode(LABEL_RTCP_KEY, LABEL_RTCP_AUTHENTICATION, LABEL_RTCP_SALT)?,
                    rtp_tag_bytes: match material.profile {
                        SrtpProfile::Aes128CmSha1_32 => SHA1_32_TAG_BYTES,
                        SrtpProfile::AeadAes256Gcm | SrtpProfile::AeadAes128Gcm | SrtpProfile::Aes128CmSha1_80 => {
                            SHA1_80_TAG_BYTES
                        }
                    },
                })
            }
        }
    }

    pub(super) const fn rtp_tag_bytes(&self) -> usize {
        match self {
            Self::Gcm256 { .. } | Self::Gcm128 { .. } => GCM_TAG_BYTES,
            Self::CmSha1 { rtp_tag_bytes, .. } => *rtp_tag_bytes,
        }
    }

    pub(super) const fn rtcp_tag_bytes(&self) -> usize {
        match self {
            Self::Gcm256 { .. } | Self::Gcm128 { .. } => GCM_TAG_BYTES,
            Self::CmSha1 { .. } => SHA1_80_TAG_BYTES,
        }
    }

    /// Encrypts `packet[payload_start..]` up to the room for the tag, which it fills.
    pub(super) fn seal_rtp(&self, packet: &mut [u8], payload_start: usize, ssrc: u32, index: u64) {
        match self {
            Self::Gcm256 { rtp, .. } => rtp.seal_rtp(packet, payload_start, ssrc, index),
            Self::Gcm128 { rtp, .. } => rtp.seal_rtp(packet, payload_start, ssrc, index),
            Self::CmSha1 { rtp, rtp_tag_bytes, .. } => {
                let (plain, tag) = packet.split_at_mut(packet.len() - rtp_tag_bytes);
                rtp.apply_keystream(&mut plain[payload_start..], ssrc, index);
                let digest = rtp.digest(plain, rollover_counter(index));
                tag.copy_from_slice(&digest.finalize().into_bytes()[..*rtp_tag_bytes]);
            }
        }
    }

    /// The reverse of [`Self::seal_rtp`].
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        payload_start: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), SrtpError> {
        match self {
            Self::Gcm256 { rtp, .. } => rtp.open_rtp(packet, payload_start, ssrc, index),
            Self::Gcm128 { rtp, .. } => rtp.open_rtp(packet, payload_start, ssrc, index),
            Self::CmSha1 { rtp, rtp_tag_bytes, .. } => {
                let (cipher_text, tag) = packet.split_at_mut(packet.len() - rtp_tag_bytes);
                let digest = rtp.digest(cipher_text, rollover_counter(index));
                digest.verify_truncated_left(tag).map_err(|_| SrtpError::Forged)?;
                rtp.apply_keystream(&mut cipher_text[payload_start..], ssrc, index);
                Ok(())
            }
        }
    }

    /// Encrypts `packet[8..len]`, and fills the room behind it with tag and index in the profile's order.
    pub(super) fn seal_rtcp(&self, packet: &mut [u8], len: usize, ssrc: u32, index: u32) {
        let word = (RTCP_ENCRYPTED | index).to_be_bytes();
        match self {
            Self::Gcm256 { rtcp, .. } => rtcp.seal_rtcp(packet, len, ssrc, word),
            Self::Gcm128 { rtcp, .. } => rtcp.seal_rtcp(packet, len, ssrc, word),
            Self::CmSha1 { rtcp, .. } => {
                let (plain, trailer) = packet.split_at_mut(len);
                rtcp.apply_keystream(&mut plain[RTCP_HEADER_BYTES..], ssrc, u64::from(index));
                trailer[..RTCP_INDEX_BYTES].copy_from_slice(&word);
                let digest = rtcp.digest(plain, word).finalize().into_bytes();
                trailer[RTCP_INDEX_BYTES..].copy_from_slice(&digest[..SHA1_80_TAG_BYTES]);
            }
        }
    }

    /// The reverse of [`Self::seal_rtcp`].
    pub(super) fn open_rtcp(&self, packet: &mut [u8], len: usize, ssrc: u32, index: u32) -> Result<(), SrtpError> {
        let word = (RTCP_ENCRYPTED | index).to_be_bytes();
        match self {
            Self::Gcm256 { rtcp, .. } => rtcp.open_rtcp(packet, len, ssrc, word),
            Self::Gcm128 { rtcp, .. } => rtcp.open_rtcp(packet, len, ssrc, word),
            Self::CmSha1 { rtcp, .. } => {
                let (cipher_text, trailer) = packet.split_at_mut(len);
                let digest = rtcp.digest(cipher_text, word);
                digest.verify_truncated_left(&trailer[RTCP_INDEX_BYTES..]).map_err(|_| SrtpError::Forged)?;
                rtcp.apply_keystream(&mut cipher_text[RTCP_HEADER_BYTES..], ssrc, u64::from(index));
                Ok(())
            }
        }
    }

    /// The word of flag E and index: before the tag in RFC 3711, behind it in RFC 7714. The packet is long enough.
    pub(super) fn rtcp_index_word(&self, packet: &[u8]) -> u32 {
        let end = match self {
            Self::Gcm256 { .. } | Self::Gcm128 { .. } => packet.len(),
            Self::CmSha1 { .. } => packet.len() - SHA1_80_TAG_BYTES,
        };
        let mut word = [0; RTCP_INDEX_BYTES];
        word.copy_from_slice(&packet[end - RTCP_INDEX_BYTES..end]);
        u32::from_be_bytes(word)
    }
}

impl<C: AeadInOut<NonceSize = aes::cipher::consts::U12, TagSize = aes::cipher::consts::U16>> Gcm<C> {
    fn seal_rtp(&self, packet: &mut [u8], payload_start: usize, ssrc: u32, index: u64) {
        let (plain, tag) = packet.split_at_mut(packet.len() - GCM_TAG_BYTES);
        let (header, payload) = plain.split_at_mut(payload_start);
        self.seal(header, payload, tag, &rtp_nonce(&self.salt, ssrc, index));
    }

    fn open_rtp(&self, packet: &mut [u8], payload_start: usize, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        let (cipher_text, tag) = packet.split_at_mut(packet.len() - GCM_TAG_BYTES);
        let (header, payload) = cipher_text.split_at_mut(payload_start);
        self.open(header, payload, tag, &rtp_nonce(&self.salt, ssrc, index))
    }

    fn seal_rtcp(&self, packet: &mut [u8], len: usize, ssrc: u32, word: [u8; RTCP_INDEX_BYTES]) {
        let (plain, trailer) = packet.split_at_mut(len);
        let (header, payload) = plain.split_at_mut(RTCP_HEADER_BYTES);
        let (tag, index) = trailer.split_at_mut(GCM_TAG_BYTES);
        index.copy_from_slice(&word);
        self.seal(&rtcp_associated_data(header, word), payload, tag, &rtcp_nonce(&self.salt, ssrc, word));
    }

    fn open_rtcp(
        &self,
        packet: &mut [u8],
        len: usize,
        ssrc: u32,
        word: [u8; RTCP_INDEX_BYTES],
    ) -> Result<(), SrtpError> {
        let (cipher_text, trailer) = packet.split_at_mut(len);
        let (header, payload) = cipher_text.split_at_mut(RTCP_HEADER_BYTES);
        let associated = rtcp_associated_data(header, word);
        self.open(&associated, payload, &trailer[..GCM_TAG_BYTES], &rtcp_nonce(&self.salt, ssrc, word))
    }

    fn seal(&self, associated: &[u8], text: &mut [u8], tag: &mut [u8], nonce: &Nonce<C>) {
        let made = self
            .cipher
            .encrypt_inout_detached(nonce, associated, text.into())
            .expect("AES-GCM fails only beyond 2^36 bytes; a packet has less than 2^16");
        tag.copy_from_slice(&made);
    }

    fn open(&self, associated: &[u8], text: &mut [u8], tag: &[u8], nonce: &Nonce<C>) -> Result<(), SrtpError> {
        let tag: &Tag<C> = tag.try_into().map_err(|_| SrtpError::Malformed)?;
        self.cipher.decrypt_inout_detached(nonce, associated, text.into(), tag).map_err(|_| SrtpError::Forged)
    }
}

impl CounterMode {
    /// RFC 3711 §4.1.1; the same XOR encrypts and decrypts.
    fn apply_keystream(&self, text: &mut [u8], ssrc: u32, index: u64) {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        xor(&mut iv[4..8], &ssrc.to_be_bytes());
        xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
        let core = ctr::CtrCore::<_, ctr::flavors::Ctr128BE>::inner_iv_init(&self.cipher, &iv.into());
        core.apply_keystream_partial(text.into());
    }

    /// What is authenticated: the packet, then the rollover counter (SRTP) or the index word (SRTCP).
    fn digest(&self, packet: &[u8], then: [u8; 4]) -> Hmac<Sha1> {
        let mut digest = self.authentication.clone();
        digest.update(packet);
        digest.update(&then);
        digest
    }
}

const fn rollover_counter(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// RFC 7714 §8.1: two zero bytes, SSRC, rollover counter, sequence number, all XORed with the salt.
fn rtp_nonce<N: From<[u8; 12]>>(salt: &[u8; 12], ssrc: u32, index: u64) -> N {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[6..12], &index.to_be_bytes()[2..]);
    nonce.into()
}

/// RFC 7714 §9.1: two zero bytes, SSRC, two zero bytes, 31 bits of index, all XORed with the salt.
fn rtcp_nonce<N: From<[u8; 12]>>(salt: &[u8; 12], ssrc: u32, word: [u8; RTCP_INDEX_BYTES]) -> N {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[8..12], &(u32::from_be_bytes(word) & !RTCP_ENCRYPTED).to_be_bytes());
    nonce.into()
}

/// RFC 7714 §9.2: the clear header and the index word.
fn rtcp_associated_data(header: &[u8], word: [u8; RTCP_INDEX_BYTES]) -> [u8; RTCP_HEADER_BYTES + RTCP_INDEX_BYTES] {
    let mut data = [0; RTCP_HEADER_BYTES + RTCP_INDEX_BYTES];
    data[..RTCP_HEADER_BYTES].copy_from_slice(header);
    data[RTCP_HEADER_BYTES..].copy_from_slice(&word);
    data
}

fn xor(to: &mut [u8], with: &[u8]) {
    for (byte, other) in to.iter_mut().zip(with) {
        *byte ^= other;
    }
}

/// The key derivation with a rate of 0: AES in counter mode from (label ‖ 0) XOR salt (RFC 3711 §4.3.1, §4.3.3).
fn derive<C, const BYTES: usize>(master: &C, padded_salt: &[u8; 14], label: u8) -> [u8; BYTES]
where
    C: BlockCipherEncrypt + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>,
{
    let mut key = [0; BYTES];
    for (counter, part) in (0u16..).zip(key.chunks_mut(16)) {
        let mut block = [0; 16];
        block[..14].copy_from_slice(padded_salt);
        block[7] ^= label;
        block[14..].copy_from_slice(&counter.to_be_bytes());
        let mut block = block.into();
        master.encrypt_block(&mut block);
        part.copy_from_slice(&block[..part.len()]);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3711 appendix B.3.
    #[test]
    fn session_keys_are_derived_as_in_the_rfc() {
        let master = Aes128::new(&0xe1f9_7a0d_3e01_8be0_d64f_a32c_06de_4139u128.to_be_bytes().into());
        let mut salt = [0; 14];
        salt.copy_from_slice(&0x0ec6_75ad_498a_feeb_b696_0b3a_abe6u128.to_be_bytes()[2..]);
        let key: [u8; 16] = derive(&master, &salt, LABEL_RTP_KEY);
        assert_eq!(u128::from_be_bytes(key), 0xc61e_7a93_744f_39ee_1073_4afe_3ff7_a087);
        let session_salt: [u8; 14] = derive(&master, &salt, LABEL_RTP_SALT);
        assert_eq!(session_salt, 0x30cb_bc08_863d_8c85_d49d_b34a_9ae1u128.to_be_bytes()[2..]);
        let authentication: [u8; 20] = derive(&master, &salt, LABEL_RTP_AUTHENTICATION);
        assert_eq!(authentication[..16], 0xcebe_321f_6ff7_716b_6fd4_ab49_af25_6a15u128.to_be_bytes());
        assert_eq!(authentication[16..], [0x6d, 0x38, 0xba, 0xa4]);
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_ascii_whitespace().collect();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 3711 appendix B.2.
    #[test]
    fn the_keystream_of_counter_mode_is_that_of_the_rfc() {
        let mode = CounterMode {
            cipher: Aes128::new(&0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3cu128.to_be_bytes().into()),
            salt: bytes("F0F1F2F3 F4F5F6F7 F8F9FAFB FCFD").try_into().unwrap(),
            authentication: Hmac::new_from_slice(&[0; 20]).unwrap(),
        };
        let mut text = [0; 48];
        mode.apply_keystream(&mut text, 0, 0);
        let keystream =
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0";
        assert_eq!(text[..], bytes(keystream));
    }

    /// RFC 7714 §16.1.1 and §16.2.1.
    #[test]
    fn packets_are_sealed_as_in_the_rfc_of_the_aead_profiles() {
        const HEADER: &str = "8040f17b 8041f8d3 5501a0b2";
        const TEXT: &[u8] = b"Gallia est omnis divisa in partes tres";
        let salt = bytes("51756964 2070726f 2071756f").try_into().unwrap();
        let key: Vec<u8> = (0..32).collect();
        let seal = |gcm: &dyn Fn(&mut [u8])| {
            let mut packet = [&bytes(HEADER)[..], TEXT, &[0; GCM_TAG_BYTES]].concat();
            gcm(&mut packet);
            packet[12..].to_vec()
        };
        let gcm128 = Gcm { cipher: Aes128Gcm::new_from_slice(&key[..16]).unwrap(), salt };
        assert_eq!(
            seal(&|packet| gcm128.seal_rtp(packet, 12, 0x5501_a0b2, 0xf17b)),
            bytes(
                "f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 \
                 6a9152cf 765ee439 0cce"
            )
        );
        let gcm256 = Gcm { cipher: Aes256Gcm::new_from_slice(&key).unwrap(), salt };
        assert_eq!(
            seal(&|packet| gcm256.seal_rtp(packet, 12, 0x5501_a0b2, 0xf17b)),
            bytes(
                "32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff \
                 d6b0f9bb 7878d7a7 6c13"
            )
        );
    }
}
