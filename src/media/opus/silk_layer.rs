//! The SILK layer of hybrid packets alone (RFC 6716 §2.1.2: SILK below 8 kHz, CELT above).
//!
//! At 16 kHz nothing of the CELT layer can be heard, and yet libopus decodes it: half of a hybrid packet's cost, and hybrid is
//! what browsers send. libopus' interface has no word for leaving it out, so this calls the same inner function
//! that `opus_decode` calls, with the same state, which makes the sound the same.
//!
//! Owns: those inner parts of libopus, as far as they are needed. They belong to one release, which Cargo.toml pins exactly;
//! [`SilkLayer::of`] looks at the decoder before it trusts what it knows of it, and where that does not fit there is none.
//! Does not own: which packets may be decoded so (`Decoder`).

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use opusic_sys as ffi;

/// A hybrid frame at 16 kHz, the highest rate at which the CELT layer is not heard: 20 ms.
const MAX_SAMPLES: usize = 320;

/// `struct OpusDecoder` as far as the first field that is reset (`src/opus_decoder.c`).
#[repr(C)]
struct DecoderHead {
    celt_offset: c_int,
    silk_offset: c_int,
    channels: c_int,
    sample_rate_hz: i32,
    control: SilkControl,
}

/// `silk_DecControlStruct` (`silk/control.h`).
#[repr(C)]
struct SilkControl {
    output_channels: i32,
    coded_channels: i32,
    output_rate_hz: i32,
    coded_rate_hz: i32,
    frame_ms: c_int,
    pitch_lag: c_int,
    deep_concealment: c_int,
}

/// `struct ec_ctx` (`celt/entcode.h`): a range decoder.
#[repr(C)]
struct RangeDecoder {
    buffer: *const u8,
    storage: u32,
    end_offset: u32,
    end_window: u32,
    end_bits: c_int,
    bits: c_int,
    offset: u32,
    range: u32,
    value: u32,
    scale: u32,
    remainder: c_int,
    error: c_int,
}

unsafe extern "C" {
    fn ec_dec_init(decoder: *mut RangeDecoder, buffer: *const u8, bytes: u32);

    /// One frame; `lost` is 0 for one that is here, `is_first` 1 for the first of a packet. Returns 0 if all is well.
    fn silk_Decode(
        state: *mut c_void,
        control: *mut SilkControl,
        lost: c_int,
        is_first: c_int,
        bits: *mut RangeDecoder,
        out: *mut f32,
        samples: *mut i32,
        architecture: c_int,
    ) -> c_int;
}

/// Kernels for any processor of this kind: the faster ones are for encoders.
const ANY_ARCHITECTURE: c_int = 0;

/// The SILK decoder inside a mono decoder.
#[derive(Debug)]
pub(super) struct SilkLayer {
    head: NonNull<DecoderHead>,
    silk: NonNull<c_void>,
}

impl SilkLayer {
    /// That of a decoder to `sample_rate_hz`; `None` where the CELT layer is heard, or the decoder is not the one we know.
    ///
    /// # Safety
    /// `decoder` comes from `opus_decoder_create`, and is alive as long as the result is used.
    pub(super) unsafe fn of(decoder: NonNull<ffi::OpusDecoder>, sample_rate_hz: u32) -> Option<Self> {
        let rate = sample_rate_hz.cast_signed();
        let head = decoder.cast::<DecoderHead>();
        // SAFETY: a decoder is many thousand bytes long and aligned for pointers.
        let seen = unsafe { head.as_ref() };
        let is_known = seen.channels == 1
            && seen.sample_rate_hz == rate
            && seen.control.output_channels == 1
            && seen.control.output_rate_hz == rate
            && size_of::<DecoderHead>() < usize::try_from(seen.silk_offset).ok()?
            && seen.silk_offset < seen.celt_offset;
        if !is_known || rate > 16_000 {
            return None;
        }
        // SAFETY: the offset lies within the decoder, between its head and its CELT part.
        let silk = unsafe { decoder.cast::<u8>().add(usize::try_from(seen.silk_offset).ok()?).cast() };
        Some(Self { head, silk })
    }

    /// Decodes the one frame of a hybrid packet that lasts `frame_ms`; the packet before was of the same kind, and decoded
    /// by libopus or by this. Returns the number of samples, or `None` if SILK cannot make sense of it.
    ///
    /// # Safety
    /// The decoder is alive, and nobody else uses it meanwhile.
    pub(super) unsafe fn decode(&mut self, frame: &[u8], frame_ms: u8, out: &mut [i16]) -> Option<usize> {
        let mut bits = MaybeUninit::<RangeDecoder>::uninit();
        let (mut sound, mut samples) = ([0_f32; MAX_SAMPLES], 0_i32);
        let bytes = u32::try_from(frame.len()).ok()?;
        // SAFETY: `bits` is initialised from a live slice before it is read; `head` and `silk` are parts of a live decoder
        // that is ours alone; a hybrid frame is 10 or 20 ms, for which `sound` has room at the rates of `of`.
        let failed = unsafe {
            (*self.head.as_ptr()).control.frame_ms = c_int::from(frame_ms);
            ec_dec_init(bits.as_mut_ptr(), frame.as_ptr(), bytes);
            let control = &raw mut (*self.head.as_ptr()).control;
            let (bits, out) = (bits.as_mut_ptr(), sound.as_mut_ptr());
            silk_Decode(self.silk.as_ptr(), control, 0, 1, bits, out, &raw mut samples, ANY_ARCHITECTURE)
        };
        let samples = usize::try_from(samples).ok().filter(|&samples| failed == 0 && samples <= MAX_SAMPLES)?;
        for (out, sample) in out.get_mut(..samples)?.iter_mut().zip(sound) {
            // Whole numbers of 16 bits, divided by 32768.
            *out = (sample * 32_768.0) as i16;
        }
        Some(samples)
    }
}
