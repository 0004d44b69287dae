//! What an Opus packet says of itself without being decoded (RFC 6716 §3.1, §3.2, §4.2.3).
//!
//! Owns: TOC byte, frame boundaries, the SILK voice and LBRR flags. Does not own: decoding.

use super::OpusError;

/// The most frames a packet can hold: 48 of 2.5 ms (RFC 6716 §3.2.5).
const MAX_FRAMES: usize = 48;

/// Which of the two coders made the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Linear prediction, up to 8 kHz of bandwidth.
    Silk,
    /// SILK below 8 kHz, CELT above.
    Hybrid,
    /// MDCT: it has no voice flag.
    Celt,
}

/// The outside of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The coder.
    pub mode: Mode,
    /// Two channels.
    pub stereo: bool,
    /// The length of each frame at 48 kHz: 120 to 2880.
    pub frame_ticks: u32,
    /// 1 to 48 frames.
    pub frames: u8,
    /// Whether SILK takes any of it for speech; `None` where no flag exists (CELT).
    pub voice: Option<bool>,
    /// Whether the first frame carries a copy of what came before it (LBRR).
    pub has_fec: bool,
}

/// A packet cut into its frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames<'a> {
    pub(super) mode: Mode,
    pub(super) stereo: bool,
    pub(super) frame_ticks: u32,
    frames: [&'a [u8]; MAX_FRAMES],
    count: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn parse(packet: &'a [u8]) -> Result<Self, OpusError> {
        let (&toc, rest) = packet.split_first().ok_or(OpusError::InvalidPacket)?;
        let config = toc >> 3;
        let (mode, frame_ticks) = match config {
            0..=11 => (Mode::Silk, [480, 960, 1920, 2880][usize::from(config & 3)]),
            12..=15 => (Mode::Hybrid, [480, 960][usize::from(config & 1)]),
            16.. => (Mode::Celt, [120, 240, 480, 960][usize::from(config & 3)]),
        };
        let mut frames: [&[u8]; MAX_FRAMES] = [&[]; MAX_FRAMES];
        let count = split(toc & 3, rest, &mut frames)?;
        if frame_ticks * count as u32 > 5760 {
            return Err(OpusError::InvalidPacket); // R5: at most 120 ms
        }
        Ok(Self { mode, stereo: toc & 0x04 != 0, frame_ticks, frames, count })
    }

    /// Each frame's bytes; none where the sender left it out.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.frames[..self.count].iter().copied()
    }
}

impl Info {
    /// Reads everything but the coded audio.
    ///
    /// # Errors
    /// [`OpusError::InvalidPacket`] where RFC 6716 §3.4 says so.
    pub fn parse(packet: &[u8]) -> Result<Self, OpusError> {
        let frames = Frames::parse(packet)?;
        let Frames { mode, stereo, frame_ticks, count, .. } = frames;
        let (voice, has_fec) = match mode {
            Mode::Celt => (None, false),
            Mode::Silk | Mode::Hybrid => {
                let silk_frames = (frame_ticks / 960).max(1);
                let mut first_bytes = frames.iter().filter_map(|frame| frame.first().copied());
                let voice = first_bytes.any(|byte| voice_flags(byte, silk_frames, stereo));
                let has_fec = frames.frames[0].first().is_some_and(|&byte| lbrr_flags(byte, silk_frames, stereo));
                (Some(voice), has_fec)
            }
        };
        Ok(Self { mode, stereo, frame_ticks, frames: count as u8, voice, has_fec })
    }

    /// The packet's length at 48 kHz: 120 to 5760.
    pub const fn duration_ticks(&self) -> u32 {
        self.frame_ticks * self.frames as u32
    }
}

/// The packet's length at 48 kHz, `None` if it is malformed.
pub fn duration_ticks(packet: &[u8]) -> Option<u32> {
    Info::parse(packet).ok().map(|info| info.duration_ticks())
}

/// Whether SILK takes any of the packet for speech; `None` for CELT and for what is malformed.
pub fn voice_flag(packet: &[u8]) -> Option<bool> {
    Info::parse(packet).ok().and_then(|info| info.voice)
}

/// Whether the packet is CELT's alone; false for an empty one.
pub fn is_celt(packet: &[u8]) -> bool {
    packet.first().is_some_and(|toc| toc >> 3 >= 16)
}

/// Whether the packet carries a copy of the frame before it.
pub fn has_fec(packet: &[u8]) -> bool {
    Info::parse(packet).is_ok_and(|info| info.has_fec)
}

/// The header bits of a SILK frame: per channel one voice flag a 20 ms frame, then one LBRR flag (RFC 6716 §4.2.3).
/// The only frame of a hybrid packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HybridFrame<'a> {
    pub(super) toc: u8,
    /// 10 or 20.
    pub(super) ms: u8,
    /// Behind the TOC byte, at least two.
    pub(super) bytes: &'a [u8],
}

/// The frame of a hybrid packet that has one (RFC 6716 §3.1: configurations 12 to 15, code 0) which holds sound.
pub(super) fn lone_hybrid_frame(packet: &[u8]) -> Option<HybridFrame<'_>> {
    let (&toc, bytes) = packet.split_first()?;
    let (configuration, code) = (toc >> 3, toc & 3);
    let is_one = (12..16).contains(&configuration) && code == 0 && (2..=super::MAX_FRAME_BYTES).contains(&bytes.len());
    is_one.then_some(HybridFrame { toc, ms: if configuration & 1 == 0 { 10 } else { 20 }, bytes })
}

fn voice_flags(byte: u8, silk_frames: u32, stereo: bool) -> bool {
    let mid = (0xff00u16 >> silk_frames) as u8;
    let side = if stereo { mid >> (silk_frames + 1) } else { 0 };
    byte & (mid | side) != 0
}

fn lbrr_flags(byte: u8, silk_frames: u32, stereo: bool) -> bool {
    let mid = 0x80u8 >> silk_frames;
    let side = if stereo { mid >> (silk_frames + 1) } else { 0 };
    byte & (mid | side) != 0
}

/// Finds the frames and returns their number (RFC 6716 §3.2).
fn split<'a>(code: u8, mut rest: &'a [u8], frames: &mut [&'a [u8]; MAX_FRAMES]) -> Result<usize, OpusError> {
    const BAD: OpusError = OpusError::InvalidPacket;
    match code {
        0 => {
            check_frame(rest.len())?;
            frames[0] = rest;
            Ok(1)
        }
        1 => {
            if !rest.len().is_multiple_of(2) {
                return Err(BAD);
            }
            let (first, second) = rest.split_at(rest.len() / 2);
            check_frame(first.len())?;
            (frames[0], frames[1]) = (first, second);
            Ok(2)
        }
        2 => {
            let first_len = take_length(&mut rest)?;
            let (first, second) = rest.split_at_checked(first_len).ok_or(BAD)?;
            check_frame(second.len())?;
            (frames[0], frames[1]) = (first, second);
            Ok(2)
        }
        _ => split_code_3(rest, frames),
    }
}

/// Code 3: a count, optional padding, frames of equal or told lengths (RFC 6716 §3.2.5).
fn split_code_3<'a>(mut rest: &'a [u8], frames: &mut [&'a [u8]; MAX_FRAMES]) -> Result<usize, OpusError> {
    const BAD: OpusError = OpusError::InvalidPacket;
    let (&count_byte, after) = rest.split_first().ok_or(BAD)?;
    rest = after;
    let count = usize::from(count_byte & 0x3f);
    if count == 0 || count > MAX_FRAMES {
        return Err(BAD);
    }
    if count_byte & 0x40 != 0 {
        let mut padding_bytes = 0;
        loop {
            let (&byte, after) = rest.split_first().ok_or(BAD)?;
            rest = after;
            padding_bytes += if byte == 255 { 254 } else { usize::from(byte) };
            if byte != 255 {
                break;
            }
        }
        rest = rest.get(..rest.len().checked_sub(padding_bytes).ok_or(BAD)?).ok_or(BAD)?;
    }
    if count_byte & 0x80 == 0 {
        if !rest.len().is_multiple_of(count) {
            return Err(BAD);
        }
        let frame_bytes = rest.len() / count;
        check_frame(frame_bytes)?;
        for frame in &mut frames[..count] {
            (*frame, rest) = rest.split_at_checked(frame_bytes).ok_or(BAD)?;
        }
        return Ok(count);
    }
    let mut lengths = [0; MAX_FRAMES];
    for length in &mut lengths[..count - 1] {
        *length = take_length(&mut rest)?;
    }
    let told: usize = lengths[..count - 1].iter().sum();
    lengths[count - 1] = rest.len().checked_sub(told).ok_or(BAD)?;
    check_frame(lengths[count - 1])?;
    for (frame, &length) in frames.iter_mut().zip(&lengths[..count]) {
        (*frame, rest) = rest.split_at_checked(length).ok_or(BAD)?;
    }
    Ok(count)
}

/// R2: no frame is longer than 1275 bytes.
fn check_frame(bytes: usize) -> Result<(), OpusError> {
    if bytes > super::MAX_FRAME_BYTES { Err(OpusError::InvalidPacket) } else { Ok(()) }
}

/// One or two bytes of length (RFC 6716 §3.2.1).
fn take_length(rest: &mut &[u8]) -> Result<usize, OpusError> {
    match **rest {
        [first @ 0..=251, ref after @ ..] => {
            *rest = after;
            Ok(usize::from(first))
        }
        [first, second, ref after @ ..] => {
            *rest = after;
            Ok(4 * usize::from(second) + usize::from(first))
        }
        _ => Err(OpusError::InvalidPacket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opusic_sys as ffi;
    use proptest::prelude::*;

    #[test]
    fn the_toc_tells_mode_length_and_channels() {
        let info = Info::parse(&[(1 << 3), 0x80]).unwrap(); // SILK narrowband, 20 ms
        assert_eq!((info.mode, info.frame_ticks, info.frames, info.voice), (Mode::Silk, 960, 1, Some(true)));
        let info = Info::parse(&[(31 << 3) | 4, 0]).unwrap(); // CELT fullband, 20 ms, stereo
        assert_eq!((info.mode, info.stereo, info.voice, info.has_fec), (Mode::Celt, true, None, false));
        let info = Info::parse(&[(3 << 3), 0b0001_0000]).unwrap(); // SILK 60 ms: three voice flags, then LBRR
        assert_eq!((info.frame_ticks, info.voice, info.has_fec), (2880, Some(false), true));
        let info = Info::parse(&[(1 << 3) | 4, 0b0010_0000]).unwrap(); // stereo: the side channel speaks
        assert_eq!((info.voice, info.has_fec), (Some(true), false));
        assert_eq!(Info::parse(&[]), Err(OpusError::InvalidPacket));
        assert_eq!(duration_ticks(&[(1 << 3) | 1, 5, 6]), Some(1920));
        assert_eq!(voice_flag(&[1 << 3]), Some(false));
    }

    proptest! {
        /// libopus is the oracle of what is well-formed, how long it is and whether it has LBRR.
        #[test]
        fn the_reading_agrees_with_libopus(packet in proptest::collection::vec(any::<u8>(), 1..300)) {
            let len = packet.len() as i32;
            // SAFETY: pointer and length of a live vector.
            let (samples, lbrr) = unsafe {
                let mut sizes = [0i16; 48];
                let parsed = ffi::opus_packet_parse(
                    packet.as_ptr(), len, std::ptr::null_mut(), std::ptr::null_mut(), sizes.as_mut_ptr(),
                    std::ptr::null_mut());
                let samples = ffi::opus_packet_get_nb_samples(packet.as_ptr(), len, 48_000);
                (if parsed < 0 { -1 } else { samples }, ffi::opus_packet_has_lbrr(packet.as_ptr(), len))
            };
            match Info::parse(&packet) {
                Ok(info) => {
                    prop_assert_eq!(info.duration_ticks() as i32, samples);
                    prop_assert_eq!(i32::from(info.has_fec), lbrr);
                }
                Err(_) => prop_assert!(samples < 0),
            }
        }
    }
}
