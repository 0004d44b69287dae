//! The two codecs of a telephone, written apart from the gateway's.
//!
//! RFC: 3551 §4.5.14; ITU-T G.711. Encoding searches the decoder's own table, so that it is right by construction.

use std::sync::LazyLock;

/// PCMU or PCMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// µ-law, payload type 0.
    Pcmu,
    /// A-law, payload type 8.
    Pcma,
}

impl Codec {
    /// The codec of a static payload type.
    pub fn from_payload_type(payload_type: u8) -> Option<Self> {
        match payload_type {
            0 => Some(Self::Pcmu),
            8 => Some(Self::Pcma),
            _ => None,
        }
    }

    /// The static payload type.
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// The encoding name of SDP.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// One byte to one linear sample.
    pub fn decode(self, byte: u8) -> i16 {
        let table = match self {
            Self::Pcmu => &TABLES.pcmu,
            Self::Pcma => &TABLES.pcma,
        };
        table.decode[usize::from(byte)]
    }

    /// One linear sample to the byte whose value is nearest.
    pub fn encode(self, sample: i16) -> u8 {
        let table = match self {
            Self::Pcmu => &TABLES.pcmu,
            Self::Pcma => &TABLES.pcma,
        };
        table.encode[(i32::from(sample) + 32768) as usize]
    }
}

struct Table {
    decode: [i16; 256],
    /// The nearest byte for each of the 65 536 samples, from the most negative on.
    encode: Vec<u8>,
}

struct Tables {
    pcmu: Table,
    pcma: Table,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables { pcmu: table(expand_mu), pcma: table(expand_a) });

fn table(expand: fn(u8) -> i16) -> Table {
    let mut decode = [0; 256];
    let mut ordered: Vec<(i16, u8)> = Vec::with_capacity(256);
    for byte in 0..=255u8 {
        decode[usize::from(byte)] = expand(byte);
        ordered.push((expand(byte), byte));
    }
    ordered.sort();
    let mut encode = Vec::with_capacity(65536);
    let mut nearest = 0;
    for sample in i16::MIN..=i16::MAX {
        let distance = |index: usize| (i32::from(ordered[index].0) - i32::from(sample)).abs();
        while nearest + 1 < ordered.len() && distance(nearest + 1) <= distance(nearest) {
            nearest += 1;
        }
        encode.push(ordered[nearest].1);
    }
    Table { decode, encode }
}

fn expand_mu(byte: u8) -> i16 {
    let bits = i32::from(!byte);
    let magnitude = ((((bits & 0x0f) << 3) + 0x84) << ((bits >> 4) & 7)) - 0x84;
    (if bits & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

fn expand_a(byte: u8) -> i16 {
    let bits = i32::from(byte ^ 0x55);
    let (exponent, mantissa) = ((bits >> 4) & 7, bits & 0x0f);
    let magnitude = if exponent == 0 { (mantissa << 4) + 8 } else { ((mantissa << 4) + 0x108) << (exponent - 1) };
    (if bits & 0x80 == 0 { -magnitude } else { magnitude }) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_of_both_laws() {
        assert_eq!(Codec::Pcmu.decode(0xff), 0);
        assert_eq!(Codec::Pcmu.decode(0x00), -32124);
        assert_eq!(Codec::Pcmu.decode(0x80), 32124);
        assert_eq!(Codec::Pcma.decode(0xd5), 8);
        assert_eq!(Codec::Pcma.decode(0x2a), -32256);
    }

    #[test]
    fn a_sample_that_a_law_can_say_comes_back_and_others_come_near() {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            for byte in 0..=255 {
                let value = codec.decode(byte);
                assert_eq!(codec.decode(codec.encode(value)), value);
            }
            for sample in (-32768..=32767i32).step_by(7) {
                let back = i32::from(codec.decode(codec.encode(sample as i16)));
                assert!((back - sample).abs() <= 16 + sample.abs() / 16, "{codec:?} {sample} {back}");
            }
        }
    }
}
