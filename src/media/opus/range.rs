//! Opus' range decoder (RFC 6716 §4.1), as far as the first symbols of a frame need it.
//!
//! Owns: symbols out of bytes. Does not own: what they mean (`glance`). Reading beyond the end gives zeros, as the RFC has
//! it, so no input is an error.

/// Below this the decoder takes another byte in.
const LEAST_RANGE: u32 = 1 << 23;

/// See the module.
#[derive(Debug)]
pub(super) struct RangeDecoder<'a> {
    rest: std::slice::Iter<'a, u8>,
    /// Of the last byte taken in, whose lowest bit is still to be used.
    byte: u32,
    range: u32,
    value: u32,
}

impl<'a> RangeDecoder<'a> {
    pub(super) fn new(frame: &'a [u8]) -> Self {
        let mut rest = frame.iter();
        let byte = u32::from(rest.next().copied().unwrap_or(0));
        let mut decoder = Self { rest, byte, range: 128, value: 127 - (byte >> 1) };
        decoder.normalise();
        decoder
    }

    /// A bit that is 1 in one of 2^`log_odds` cases (§4.1.3.1).
    pub(super) fn bit(&mut self, log_odds: u32) -> bool {
        let share = self.range >> log_odds;
        let is_set = self.value < share;
        if is_set {
            self.range = share;
        } else {
            self.value -= share;
            self.range -= share;
        }
        self.normalise();
        is_set
    }

    /// A symbol whose probabilities, in 1/256, sum up to 1 (§4.1.2).
    pub(super) fn symbol(&mut self, odds: &[u8]) -> usize {
        let unit = self.range >> 8;
        let from_above = 255 - (self.value / unit).min(255);
        let mut low = 0;
        for (symbol, &odds) in odds.iter().enumerate() {
            let high = low + u32::from(odds);
            if from_above < high {
                self.value -= unit * (256 - high);
                self.range = if low > 0 { unit * u32::from(odds) } else { self.range - unit * (256 - high) };
                self.normalise();
                return symbol;
            }
            low = high;
        }
        // Unreachable: `from_above` is below 256, which all odds sum up to.
        odds.len().saturating_sub(1)
    }

    fn normalise(&mut self) {
        while self.range <= LEAST_RANGE {
            let next = u32::from(self.rest.next().copied().unwrap_or(0));
            let eight_bits = (self.byte << 7 | next >> 1) & 0xff;
            self.byte = next;
            self.range <<= 8;
            self.value = ((self.value << 8) + (255 - eight_bits)) & 0x7fff_ffff;
        }
    }
}
