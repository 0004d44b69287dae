//! SRTP and SRTCP (RFC 3711; RFC 7714 for the AEAD profiles): one direction of one DTLS association, or of what two
//! descriptions with keys agreed on.
//!
//! Owns: key derivation, encryption in place, authentication, the rollover counter and the replay window of each
//! source. Does not own: the handshake (`rtc`), sockets, RTP's meaning.
//! Nothing is allocated after `new`; no state is made for a source before a packet of it is authentic.

use std::time::Duration;

use thiserror::Error;

use crate::wire::rtp::{RtpHeader, SrtpMaterial};
use cipher::Suite;
use index::{ReplayWindow, estimate_rtp_index};

mod cipher;
mod index;

/// The most that protection adds to an RTP packet: the tag of AES-GCM.
pub const MAX_RTP_OVERHEAD_BYTES: usize = 16;

/// The most that protection adds to an RTCP packet: the tag of AES-GCM and the index.
pub const MAX_RTCP_OVERHEAD_BYTES: usize = 20;

/// Sources that one direction can carry. A stream of Galene has one, plus one each time it is replaced within the same
/// association; a limit keeps the memory fixed, and forgetting a source instead would open it to replay.
pub const MAX_SOURCES: usize = 16;

/// Sources that a telephone may have in one call: a PBX changes them at every hold, transfer and announcement.
pub const TELEPHONE_SOURCES: usize = 64;

/// The sequence number turns around once in this time at most: 2¹⁶ packets of 10 ms.
const TURN: Duration = Duration::from_millis(655_360);

/// Turns of the sequence number that are looked for at once, three hours of 10 ms packets, six of 20 ms: each costs a
/// check of the tag for every packet that is not authentic.
const MAX_TURNS: u128 = 16;

/// RTCP's header as far as the sender's SSRC, which stays in the clear (RFC 3711 §3.4).
const RTCP_HEADER_BYTES: usize = 8;

/// The flag E and 31 bits of index behind an SRTCP packet.
const RTCP_INDEX_BYTES: usize = 4;
const RTCP_ENCRYPTED: u32 = 1 << 31;

/// Why a packet was neither protected nor unprotected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SrtpError {
    /// The master key or salt has the wrong length for its profile.
    #[error("a master key of {key} and a salt of {salt} bytes do not fit the profile")]
    KeyLength {
        /// Bytes of the key.
        key: usize,
        /// Bytes of the salt.
        salt: usize,
    },
    /// No RTP or RTCP packet, or too short for its tag.
    #[error("a malformed packet")]
    Malformed,
    /// The buffer has no room for the tag.
    #[error("no room for the tag")]
    NoRoom,
    /// The tag is wrong: forged, damaged or made with another key.
    #[error("authentication failed")]
    Forged,
    /// The packet was accepted before, or is too old to know.
    #[error("a replayed packet")]
    Replayed,
    /// An SRTCP packet whose flag E says that it is in the clear, which no profile of ours allows.
    #[error("an SRTCP packet in the clear")]
    NotEncrypted,
    /// More sources than there is room for, such as [`MAX_SOURCES`].
    #[error("too many sources")]
    TooManySources,
    /// To be sent: the sequence number is not above the last one of this source. Encrypting two packets under one index
    /// would give both away (RFC 3711 §9.1).
    #[error("a sequence number that was already used")]
    IndexUsed,
}

/// What is remembered of one source.
#[derive(Clone, Debug)]
struct Source {
    ssrc: u32,
    /// Whether an RTP packet was seen; before that `rtp_index` means nothing.
    has_rtp: bool,
    /// The highest 48-bit index so far: rollover counter and sequence number.
    rtp_index: u64,
    rtp_window: ReplayWindow,
    /// The next SRTCP index to send.
    rtcp_next: u32,
    rtcp_window: ReplayWindow,
}

impl Source {
    const fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            has_rtp: false,
            rtp_index: 0,
            rtp_window: ReplayWindow::new(),
            rtcp_next: 0,
            rtcp_window: ReplayWindow::new(),
        }
    }
}

/// A fixed table of sources.
#[derive(Debug)]
struct Sources {
    known: Box<[Source]>,
    used: usize,
}

impl Sources {
    fn new(limit: usize) -> Self {
        Self { known: vec![Source::new(0); limit].into_boxed_slice(), used: 0 }
    }

    fn find(&self, ssrc: u32) -> Option<&Source> {
        self.known[..self.used].iter().find(|source| source.ssrc == ssrc)
    }

    /// Call only once a packet of `ssrc` is known to be authentic.
    fn find_or_add(&mut self, ssrc: u32) -> Result<&mut Source, SrtpError> {
        let at = match self.known[..self.used].iter().position(|source| source.ssrc == ssrc) {
            Some(at) => at,
            None if self.used == self.known.len() => return Err(SrtpError::TooManySources),
            None => {
                self.known[self.used] = Source::new(ssrc);
                self.used += 1;
                self.used - 1
            }
        };
        Ok(&mut self.known[at])
    }
}

/// Protects what we send.
#[derive(Debug)]
pub struct Sender {
    suite: Suite,
    sources: Sources,
}

impl Sender {
    /// Derives the session keys.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`].
    pub fn new(material: &SrtpMaterial) -> Result<Self, SrtpError> {
        Ok(Self { suite: Suite::new(material)?, sources: Sources::new(MAX_SOURCES) })
    }

    /// Protects the RTP packet in `buf[..len]` in place; returns its new length. `buf` must have
    /// [`MAX_RTP_OVERHEAD_BYTES`] bytes of room behind it. Sequence numbers of a source must rise.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::NoRoom`], [`SrtpError::IndexUsed`], [`SrtpError::TooManySources`];
    /// the packet is then untouched.
    pub fn protect_rtp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let (header, payload_start) =
            RtpHeader::parse(buf.get(..len).ok_or(SrtpError::NoRoom)?).map_err(|_| SrtpError::Malformed)?;
        let protected_len = len + self.suite.rtp_tag_bytes();
        let packet = buf.get_mut(..protected_len).ok_or(SrtpError::NoRoom)?;
        let source = self.sources.find_or_add(header.ssrc)?;
        let index = if source.has_rtp {
            let ahead = header.sequence_number.wrapping_sub(source.rtp_index as u16);
            if ahead == 0 || ahead >= 1 << 15 {
                return Err(SrtpError::IndexUsed);
            }
            source.rtp_index + u64::from(ahead)
        } else {
            u64::from(header.sequence_number)
        };
        (source.has_rtp, source.rtp_index) = (true, index);
        self.suite.seal_rtp(packet, payload_start, header.ssrc, index);
        Ok(protected_len)
    }

    /// Protects the compound RTCP packet in `buf[..len]` in place; returns its new length. `buf` must have
    /// [`MAX_RTCP_OVERHEAD_BYTES`] bytes of room behind it.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::NoRoom`], [`SrtpError::IndexUsed`] after 2³¹ packets,
    /// [`SrtpError::TooManySources`]; the packet is then untouched.
    pub fn protect_rtcp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let ssrc = rtcp_ssrc(buf.get(..len).ok_or(SrtpError::NoRoom)?)?;
        let protected_len = len + self.suite.rtcp_tag_bytes() + RTCP_INDEX_BYTES;
        let packet = buf.get_mut(..protected_len).ok_or(SrtpError::NoRoom)?;
        let source = self.sources.find_or_add(ssrc)?;
        let index = source.rtcp_next;
        if index >= RTCP_ENCRYPTED {
            return Err(SrtpError::IndexUsed);
        }
        source.rtcp_next = index + 1;
        self.suite.seal_rtcp(packet, len, ssrc, index);
        Ok(protected_len)
    }
}

/// Unprotects what the peer sends.
#[derive(Debug)]
pub struct Receiver {
    suite: Suite,
    sources: Sources,
}

impl Receiver {
    /// Derives the session keys.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`].
    pub fn new(material: &SrtpMaterial) -> Result<Self, SrtpError> {
        Self::for_sources(material, MAX_SOURCES)
    }

    /// The same with another limit to the sources.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`].
    pub fn for_sources(material: &SrtpMaterial, limit: usize) -> Result<Self, SrtpError> {
        Ok(Self { suite: Suite::new(material)?, sources: Sources::new(limit) })
    }

    /// Checks and decrypts an SRTP packet in place; returns the plain packet's length.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::Replayed`], [`SrtpError::Forged`], [`SrtpError::TooManySources`]; the
    /// packet is as it was, except after the last of them.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let (header, payload_start) = self.rtp_layout(packet)?;
        let index = match self.sources.find(header.ssrc).filter(|source| source.has_rtp) {
            Some(source) => {
                let index = estimate_rtp_index(source.rtp_index, header.sequence_number).ok_or(SrtpError::Replayed)?;
                source.rtp_window.check(index)?;
                index
            }
            None => u64::from(header.sequence_number),
        };
        self.accept_rtp(packet, payload_start, header.ssrc, index)
    }

    /// After a silence in which packets may have been sent that never came: as [`Self::unprotect_rtp`], but tries the
    /// rollover counters that the sequence number can have reached in `silence`, since RFC 3711 §3.3.1 guesses right over
    /// half a turn of it alone: eleven minutes of 20 ms packets. To be called when that one has failed.
    ///
    /// # Errors
    /// As [`Self::unprotect_rtp`].
    pub fn unprotect_rtp_after(&mut self, silence: Duration, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let (header, payload_start) = self.rtp_layout(packet)?;
        let source = self.sources.find(header.ssrc).filter(|source| source.has_rtp).ok_or(SrtpError::Forged)?;
        let highest = source.rtp_index;
        let turns = (silence.as_millis() / TURN.as_millis()).min(MAX_TURNS) as u64 + 1;
        for turn in 0..=turns {
            let rollover_counter = (highest >> 16) + turn;
            let index = rollover_counter << 16 | u64::from(header.sequence_number);
            if index > highest && rollover_counter <= u64::from(u32::MAX) {
                match self.accept_rtp(packet, payload_start, header.ssrc, index) {
                    Err(SrtpError::Forged) => {}
                    done => return done,
                }
            }
        }
        Err(SrtpError::Forged)
    }

    /// The header, and where the payload starts, of a packet that has room for its tag.
    fn rtp_layout(&self, packet: &[u8]) -> Result<(RtpHeader, usize), SrtpError> {
        let (header, payload_start) = RtpHeader::parse(packet).map_err(|_| SrtpError::Malformed)?;
        let has_room = packet.len().checked_sub(self.suite.rtp_tag_bytes()).is_some_and(|len| len >= payload_start);
        if has_room { Ok((header, payload_start)) } else { Err(SrtpError::Malformed) }
    }

    fn accept_rtp(
        &mut self,
        packet: &mut [u8],
        payload_start: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, SrtpError> {
        self.suite.open_rtp(packet, payload_start, ssrc, index)?;
        let source = self.sources.find_or_add(ssrc)?;
        source.rtp_window.accept(index);
        source.rtp_index = if source.has_rtp { source.rtp_index.max(index) } else { index };
        source.has_rtp = true;
        Ok(packet.len() - self.suite.rtp_tag_bytes())
    }

    /// Checks and decrypts an SRTCP packet in place; returns the plain compound packet's length.
    ///
    /// # Errors
    /// As [`Self::unprotect_rtp`], and [`SrtpError::NotEncrypted`].
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = rtcp_ssrc(packet)?;
        let overhead_bytes = self.suite.rtcp_tag_bytes() + RTCP_INDEX_BYTES;
        let plain_len = packet.len().checked_sub(overhead_bytes).ok_or(SrtpError::Malformed)?;
        if plain_len < RTCP_HEADER_BYTES {
            return Err(SrtpError::Malformed);
        }
        let word = self.suite.rtcp_index_word(packet);
        if word & RTCP_ENCRYPTED == 0 {
            return Err(SrtpError::NotEncrypted);
        }
        let index = word & !RTCP_ENCRYPTED;
        if let Some(source) = self.sources.find(ssrc) {
            source.rtcp_window.check(u64::from(index))?;
        }
        self.suite.open_rtcp(packet, plain_len, ssrc, index)?;
        self.sources.find_or_add(ssrc)?.rtcp_window.accept(u64::from(index));
        Ok(plain_len)
    }
}

/// The sender of the compound's first packet.
fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpError> {
    match packet {
        [first, _, _, _, a, b, c, d, ..] if first >> 6 == 2 => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(SrtpError::Malformed),
    }
}

#[cfg(test)]
mod tests;
