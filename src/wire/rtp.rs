//! RTP packets (RFC 3550 §5) and what tells them from their neighbours on one port (RFC 7983, RFC 5761).
//!
//! Owns: the header read and written, the payload found, sequence arithmetic, and the plain data of SRTP keys, which
//! travel from the DTLS machine to the media stages. Does not own: encryption (`media::srtp`), any state.

use thiserror::Error;

/// Bytes of the header without contributing sources or extension (RFC 3550 §5.1).
pub const HEADER_BYTES: usize = 12;

/// The only version of RTP.
const VERSION: u8 = 2;

/// Why bytes are no RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtpError {
    /// Fewer bytes than the header, its contributing sources or its extension need.
    #[error("the packet ends within its header")]
    Truncated,
    /// The version is not 2.
    #[error("RTP version {0}")]
    Version(u8),
    /// The padding is longer than the payload, or empty (RFC 3550 §5.1: the count includes itself).
    #[error("padding of {0} bytes")]
    Padding(u8),
}

/// What a datagram on a media port is, by its first bytes (RFC 7983 §7, RFC 5761 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// First byte 0 to 3.
    Stun,
    /// First byte 20 to 63.
    Dtls,
    /// First byte 128 to 191, payload type outside 64 to 95. May still be malformed.
    Rtp,
    /// First byte 128 to 191, second byte 192 to 223. May still be malformed.
    Rtcp,
    /// Anything else: to be dropped and counted.
    Unknown,
}

impl DatagramKind {
    /// Sorts `bytes` without reading further than the second byte.
    pub fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0..=3, ..] => Self::Stun,
            [20..=63, ..] => Self::Dtls,
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, _, ..] => Self::Rtp,
            _ => Self::Unknown,
        }
    }
}

/// The fixed header's fields that carry meaning for us; contributing sources and extensions are skipped over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// First packet of a talk spurt, for audio (RFC 3551 §4.1).
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    /// Counts packets, wraps at 2¹⁶.
    pub sequence_number: u16,
    /// In units of the payload's clock rate, wraps at 2³².
    pub timestamp: u32,
    /// Who sends.
    pub ssrc: u32,
}

impl RtpHeader {
    /// The twelve bytes on the wire: no padding, no extension, no contributing source.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = VERSION << 6;
        bytes[1] = (u8::from(self.marker) << 7) | (self.payload_type & 0x7f);
        bytes[2..4].copy_from_slice(&self.sequence_number.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes
    }

    /// Writes the header to the start of `out` and returns its length, or `None` where `out` is shorter.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        out.get_mut(..HEADER_BYTES)?.copy_from_slice(&self.to_bytes());
        Some(HEADER_BYTES)
    }

    /// Reads the fixed header and finds where the payload begins; the payload may be encrypted.
    ///
    /// # Errors
    /// [`RtpError::Truncated`] or [`RtpError::Version`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), RtpError> {
        let Some(fixed) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(RtpError::Truncated);
        };
        if fixed[0] >> 6 != VERSION {
            return Err(RtpError::Version(fixed[0] >> 6));
        }
        let mut payload_start = HEADER_BYTES + 4 * usize::from(fixed[0] & 0x0f);
        if fixed[0] & 0x10 != 0 {
            let Some(&[_, _, high, low]) = bytes.get(payload_start..payload_start + 4) else {
                return Err(RtpError::Truncated);
            };
            payload_start += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
        }
        if payload_start > bytes.len() {
            return Err(RtpError::Truncated);
        }
        let header = Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            sequence_number: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        };
        Ok((header, payload_start))
    }
}

/// A packet in the clear: the header's fields and the payload without its padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPacket<'a> {
    /// The fixed header's fields.
    pub header: RtpHeader,
    /// May be empty.
    pub payload: &'a [u8],
}

impl<'a> RtpPacket<'a> {
    /// Reads a plain (or decrypted) packet.
    ///
    /// # Errors
    /// Any [`RtpError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpError> {
        let (header, payload_start) = RtpHeader::parse(bytes)?;
        let mut payload = &bytes[payload_start..];
        if bytes[0] & 0x20 != 0 {
            let padding_bytes = payload.last().copied().unwrap_or(0);
            if padding_bytes == 0 || usize::from(padding_bytes) > payload.len() {
                return Err(RtpError::Padding(padding_bytes));
            }
            payload = &payload[..payload.len() - usize::from(padding_bytes)];
        }
        Ok(Self { header, payload })
    }
}

/// How far sequence number `to` lies ahead of `from`, negative if it lies behind: the shorter way round.
pub const fn sequence_distance(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

/// How far timestamp `to` lies ahead of `from`, negative if it lies behind: the shorter way round.
pub const fn timestamp_distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

/// A protection profile of DTLS-SRTP (RFC 5764 §4.1.2, RFC 7714 §14.2) or a crypto suite of SDP (RFC 4568 §6.2, RFC 7714
/// §14.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtpProfile {
    /// SRTP_AEAD_AES_256_GCM.
    AeadAes256Gcm,
    /// SRTP_AEAD_AES_128_GCM.
    AeadAes128Gcm,
    /// SRTP_AES128_CM_HMAC_SHA1_80.
    Aes128CmSha1_80,
    /// SRTP_AES128_CM_HMAC_SHA1_32: as the one before, with a shorter tag on RTP; RTCP has the long one (RFC 4568 §6.2.2).
    Aes128CmSha1_32,
}

impl SrtpProfile {
    /// Bytes of the master key.
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 16,
        }
    }

    /// Bytes of the master salt.
    pub const fn salt_bytes(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 | Self::Aes128CmSha1_32 => 14,
        }
    }
}

/// The master key and salt of one direction.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtpMaterial {
    /// Which lengths the two have.
    pub profile: SrtpProfile,
    /// [`SrtpProfile::key_bytes`] bytes.
    pub key: Vec<u8>,
    /// [`SrtpProfile::salt_bytes`] bytes.
    pub salt: Vec<u8>,
}

impl std::fmt::Debug for SrtpMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys stay out of every log.
        f.debug_struct("SrtpMaterial").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The keys of both directions, as one DTLS handshake made them or two descriptions brought them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrtpKeys {
    /// Protects what we send.
    pub local: SrtpMaterial,
    /// Protects what the peer sends.
    pub remote: SrtpMaterial,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: RtpHeader =
        RtpHeader { marker: true, payload_type: 111, sequence_number: 0xfffe, timestamp: 0x8000_0001, ssrc: 7 };

    #[test]
    fn a_written_header_reads_back() {
        let mut bytes = [0xff; 20];
        assert_eq!(HEADER.write(&mut bytes), Some(12));
        let packet = RtpPacket::parse(&bytes).unwrap();
        assert_eq!((packet.header, packet.payload), (HEADER, &[0xff; 8][..]));
        assert_eq!(HEADER.write(&mut [0; 11]), None);
    }

    #[test]
    fn sources_extension_and_padding_are_not_payload() {
        let mut bytes = HEADER.to_bytes().to_vec();
        bytes[0] |= 0x20 | 0x10 | 2;
        bytes.extend([0; 8]); // two contributing sources
        bytes.extend([0xbe, 0xde, 0, 1, 9, 9, 9, 9]); // one word of extension
        bytes.extend([1, 2, 3, 0, 0, 3]);
        assert_eq!(RtpPacket::parse(&bytes).unwrap().payload, [1, 2, 3]);
        *bytes.last_mut().unwrap() = 7;
        assert_eq!(RtpPacket::parse(&bytes), Err(RtpError::Padding(7)));
        *bytes.last_mut().unwrap() = 0;
        assert_eq!(RtpPacket::parse(&bytes), Err(RtpError::Padding(0)));
        assert_eq!(RtpPacket::parse(&bytes[..23]), Err(RtpError::Truncated));
        assert_eq!(RtpPacket::parse(&bytes[..27]), Err(RtpError::Truncated));
        assert_eq!(RtpPacket::parse(&[0x40; 12]), Err(RtpError::Version(1)));
    }

    #[test]
    fn a_datagram_is_sorted_by_its_first_two_bytes() {
        assert_eq!(DatagramKind::of(&[0, 1]), DatagramKind::Stun);
        assert_eq!(DatagramKind::of(&[22, 254]), DatagramKind::Dtls);
        assert_eq!(DatagramKind::of(&[0x80, 0x80 | 111]), DatagramKind::Rtp);
        assert_eq!(DatagramKind::of(&[0x80, 200]), DatagramKind::Rtcp);
        assert_eq!(DatagramKind::of(&[0x40, 0]), DatagramKind::Unknown);
        assert_eq!(DatagramKind::of(&[]), DatagramKind::Unknown);
    }

    #[test]
    fn distances_take_the_shorter_way_round() {
        assert_eq!(sequence_distance(0xffff, 1), 2);
        assert_eq!(sequence_distance(1, 0xffff), -2);
        assert_eq!(timestamp_distance(u32::MAX, 159), 160);
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        let material = SrtpMaterial { profile: SrtpProfile::AeadAes128Gcm, key: vec![0xaa; 16], salt: vec![0xbb; 12] };
        let text = format!("{material:?}");
        assert!(!text.contains("170") && !text.contains("187") && text.contains("AeadAes128Gcm"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = RtpPacket::parse(&bytes);
            let _ = DatagramKind::of(&bytes);
        }
    }
}
