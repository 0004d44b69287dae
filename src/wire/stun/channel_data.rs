//! ChannelData (RFC 8656 §12.4): a peer's datagram behind four bytes instead of an indication's 36.
//!
//! Owns: the four bytes. Does not own: which channel is whose (`rtc::turn`).

use std::ops::RangeInclusive;

/// Length of the header in bytes.
pub const CHANNEL_HEADER_BYTES: usize = 4;
/// The numbers that a channel may have (RFC 8656 §12); RFC 5766 had more, but let the client choose.
pub const CHANNELS: RangeInclusive<u16> = 0x4000..=0x4fff;
/// Padding never has more: it fills up to the next multiple of four.
const MAX_PADDING_BYTES: usize = 3;

/// One datagram to or from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// One of [`CHANNELS`].
    pub channel: u16,
    /// What the peer sent or gets, without padding.
    pub payload: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Reads one datagram, with or without padding (RFC 8656 §12.5); `None` if it is anything else.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk()?;
        let (channel, len) = read_header(*header)?;
        let payload = rest.get(..len)?;
        (rest.len() - len <= MAX_PADDING_BYTES).then_some(Self { channel, payload })
    }

    /// The header of a datagram with so many bytes of payload, which UDP keeps below 64 KiB.
    pub fn header(channel: u16, payload_bytes: u16) -> [u8; CHANNEL_HEADER_BYTES] {
        debug_assert!(CHANNELS.contains(&channel));
        let ([c0, c1], [l0, l1]) = (channel.to_be_bytes(), payload_bytes.to_be_bytes());
        [c0, c1, l0, l1]
    }
}

/// Channel and length of the payload; `None` if it is no ChannelData.
pub(super) fn read_header([c0, c1, l0, l1]: [u8; CHANNEL_HEADER_BYTES]) -> Option<(u16, usize)> {
    let channel = u16::from_be_bytes([c0, c1]);
    CHANNELS.contains(&channel).then(|| (channel, usize::from(u16::from_be_bytes([l0, l1]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_with_and_without_padding() {
        let mut bytes = ChannelData::header(0x4001, 3).to_vec();
        bytes.extend(b"abc");
        let expected = Some(ChannelData { channel: 0x4001, payload: b"abc" });
        assert_eq!(ChannelData::parse(&bytes), expected);
        bytes.push(0);
        assert_eq!(ChannelData::parse(&bytes), expected);
        assert_eq!(ChannelData::parse(&[0x4f, 0xff, 0, 0]), Some(ChannelData { channel: 0x4fff, payload: b"" }));
    }

    #[test]
    fn what_is_too_short_too_long_or_no_channel_is_none() {
        for bytes in [
            &[][..],
            &[0x40, 0, 0],
            &[0x40, 0, 0, 2, 1],
            &[0x40, 0, 0, 0, 1, 2, 3, 4],
            &[0x50, 0, 0, 0],
            &[0x3f, 0xff, 0, 0],
            &[0x80, 0, 0, 0],
        ] {
            assert_eq!(ChannelData::parse(bytes), None, "{bytes:?}");
        }
    }
}
