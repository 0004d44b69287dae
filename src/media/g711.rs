//! G.711 µ-law and A-law (ITU-T G.711, as G.191 codes it): one byte a sample, 8 kHz.
//!
//! Owns: both laws both ways. Does not own: concealment (`plc`), payload types (`wire::sdp`).
//! Decoding is a table, encoding a few instructions: neither shows beside an Opus frame.

/// The byte that decodes to silence in µ-law.
pub const ULAW_SILENCE: u8 = 0xff;
/// The byte that decodes to (almost) silence in A-law.
pub const ALAW_SILENCE: u8 = 0xd5;

/// Which law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// PCMU, payload type 0.
    Mu,
    /// PCMA, payload type 8.
    A,
}

impl Law {
    /// The byte that decodes to silence.
    pub const fn silence(self) -> u8 {
        match self {
            Self::Mu => ULAW_SILENCE,
            Self::A => ALAW_SILENCE,
        }
    }

    /// Encodes as many samples as both slices hold; returns how many.
    pub fn encode(self, pcm: &[i16], out: &mut [u8]) -> usize {
        let encode_one = match self {
            Self::Mu => encode_ulaw,
            Self::A => encode_alaw,
        };
        for (byte, &sample) in out.iter_mut().zip(pcm) {
            *byte = encode_one(sample);
        }
        pcm.len().min(out.len())
    }

    /// Decodes as many samples as both slices hold; returns how many.
    pub fn decode(self, bytes: &[u8], out: &mut [i16]) -> usize {
        let table = match self {
            Self::Mu => &ULAW_TABLE,
            Self::A => &ALAW_TABLE,
        };
        for (sample, &byte) in out.iter_mut().zip(bytes) {
            *sample = table[usize::from(byte)];
        }
        bytes.len().min(out.len())
    }
}

/// One sample to µ-law.
pub const fn encode_ulaw(sample: i16) -> u8 {
    /// Lifts the smallest segment to a power of two.
    const BIAS: i32 = 0x84;
    /// The largest magnitude that the code can express.
    const CLIP: i32 = 0x7f7b;
    let sign = if sample < 0 { 0x80 } else { 0 };
    let mut magnitude = (sample as i32).abs();
    if magnitude > CLIP {
        magnitude = CLIP;
    }
    magnitude += BIAS;
    // The leading one of the biased magnitude lies between bits 7 and 14.
    let segment = 24 - magnitude.leading_zeros();
    let mantissa = (magnitude >> (segment + 3)) & 0x0f;
    !(sign | (segment << 4) as u8 | mantissa as u8)
}

/// One µ-law byte to a sample.
pub const fn decode_ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let segment = (byte >> 4) & 7;
    let magnitude = ((((byte & 0x0f) as i16) << 3) + 0x84) << segment;
    if byte & 0x80 != 0 { 0x84 - magnitude } else { magnitude - 0x84 }
}

/// One sample to A-law.
pub const fn encode_alaw(sample: i16) -> u8 {
    // A-law's lattice is symmetric about −½: −1 belongs to the smallest negative value.
    let (sign, magnitude) = if sample < 0 { (0x00, !sample as u16 >> 3) } else { (0x80, sample as u16 >> 3) };
    // 13 bits signed: a magnitude of 12 bits, of which the lowest is dropped in every segment.
    let code = if magnitude < 0x20 {
        magnitude >> 1
    } else {
        let exponent = 15 - magnitude.leading_zeros() as u16; // 5 to 11
        ((exponent - 4) << 4) | ((magnitude >> (exponent - 4)) & 0x0f)
    };
    (sign | code as u8) ^ 0x55
}

/// One A-law byte to a sample.
pub const fn decode_alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let segment = (byte >> 4) & 7;
    let mantissa = ((byte & 0x0f) as i16) << 4;
    let magnitude = if segment == 0 { mantissa + 8 } else { (mantissa + 0x108) << (segment - 1) };
    if byte & 0x80 != 0 { magnitude } else { -magnitude }
}

static ULAW_TABLE: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = decode_ulaw(byte as u8);
        byte += 1;
    }
    table
};

static ALAW_TABLE: [i16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = decode_alaw(byte as u8);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_of_the_recommendation() {
        assert_eq!((decode_ulaw(0xff), decode_ulaw(0x00), decode_ulaw(0x80)), (0, -32124, 32124));
        assert_eq!((encode_ulaw(0), encode_ulaw(i16::MAX), encode_ulaw(i16::MIN)), (0xff, 0x80, 0x00));
        assert_eq!(
            (decode_alaw(0xd5), decode_alaw(0x55), decode_alaw(0xaa), decode_alaw(0x2a)),
            (8, -8, 32256, -32256)
        );
        assert_eq!((encode_alaw(0), encode_alaw(i16::MAX), encode_alaw(i16::MIN)), (0xd5, 0xaa, 0x2a));
    }

    #[test]
    fn every_byte_survives_decoding_and_encoding() {
        for byte in 0..=255u8 {
            // µ-law has two zeros, which encode as one.
            let expected = if byte == 0x7f { 0xff } else { byte };
            assert_eq!(encode_ulaw(decode_ulaw(byte)), expected);
            assert_eq!(encode_alaw(decode_alaw(byte)), byte);
        }
    }

    /// Every sample lies in the quantising interval of its code (tables 1 and 2 of the recommendation: half a step about
    /// the value, the step doubling with each segment), keeps its sign, and larger samples never get smaller values.
    #[test]
    fn every_sample_lies_within_half_a_step_of_its_code() {
        for (law, encode_one, decode_one) in
            [(Law::Mu, encode_ulaw as fn(i16) -> u8, decode_ulaw as fn(u8) -> i16), (Law::A, encode_alaw, decode_alaw)]
        {
            let mut last = i16::MIN;
            for sample in i16::MIN..=i16::MAX {
                let byte = encode_one(sample);
                let value = decode_one(byte);
                let half_step = match law {
                    Law::Mu => 4 << (!byte >> 4 & 7),
                    Law::A => 8 << ((byte ^ 0x55) >> 4 & 7).saturating_sub(1),
                };
                let sample = i32::from(sample).clamp(-32635, 32635);
                assert!((i32::from(value) - sample).abs() <= half_step, "{law:?} {sample} became {value}");
                assert!(value >= last, "{law:?} {sample}");
                assert!(i32::from(value) * sample >= 0 || law == Law::A && sample.abs() < 8, "{law:?} {sample}");
                last = value;
            }
        }
    }

    #[test]
    fn slices_are_coded_up_to_the_shorter_one() {
        let mut bytes = [0; 3];
        assert_eq!(Law::Mu.encode(&[0; 5], &mut bytes), 3);
        assert_eq!(bytes, [ULAW_SILENCE; 3]);
        let mut pcm = [9; 2];
        assert_eq!(Law::A.decode(&[ALAW_SILENCE; 4], &mut pcm), 2);
        assert_eq!(pcm, [8; 2]);
    }
}
