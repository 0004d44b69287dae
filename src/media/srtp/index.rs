//! Packet indices: the rollover counter's estimate and the replay window (RFC 3711 §3.3.1, §3.3.2, appendix A).

use super::SrtpError;

/// Packets that may arrive behind the newest: ten seconds of 20 ms packets, as many as pion allows.
const WINDOW_PACKETS: u64 = 512;
const WORDS: usize = WINDOW_PACKETS as usize / 64;

/// The 48-bit index that `sequence_number` most likely has when `highest` is the highest so far (RFC 3711 appendix A);
/// `None` where it would lie before the first or behind the last possible one.
pub(super) fn estimate_rtp_index(highest: u64, sequence_number: u16) -> Option<u64> {
    let ahead = i64::from(sequence_number.wrapping_sub(highest as u16).cast_signed());
    highest.checked_add_signed(ahead).filter(|&index| index < 1 << 48)
}

/// Which of the last [`WINDOW_PACKETS`] indices were accepted.
#[derive(Clone, Debug)]
pub(super) struct ReplayWindow {
    /// One above the highest accepted index; 0 before the first.
    end: u64,
    /// Bit `i % 512` stands for index `i` of the window.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    pub(super) const fn new() -> Self {
        Self { end: 0, seen: [0; WORDS] }
    }

    /// Whether `index` may be accepted.
    pub(super) fn check(&self, index: u64) -> Result<(), SrtpError> {
        if index >= self.end {
            return Ok(());
        }
        let (word, bit) = place(index);
        if self.end - index > WINDOW_PACKETS || self.seen[word] & bit != 0 {
            return Err(SrtpError::Replayed);
        }
        Ok(())
    }

    /// Notes an authentic packet that passed [`Self::check`].
    pub(super) fn accept(&mut self, index: u64) {
        if index >= self.end {
            if index - self.end >= WINDOW_PACKETS {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.end..index {
                    let (word, bit) = place(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.end = index + 1;
        }
        let (word, bit) = place(index);
        self.seen[word] |= bit;
    }
}

const fn place(index: u64) -> (usize, u64) {
    ((index / 64) as usize % WORDS, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn the_estimate_follows_a_wrap_both_ways() {
        assert_eq!(estimate_rtp_index(0x1_fffe, 0x0001), Some(0x2_0001));
        assert_eq!(estimate_rtp_index(0x2_0001, 0xfffe), Some(0x1_fffe));
        assert_eq!(estimate_rtp_index(5, 0xffff), None);
        assert_eq!(estimate_rtp_index((1 << 48) - 1, 0), None);
    }

    proptest! {
        /// The slow truth: a set of everything accepted.
        #[test]
        fn the_window_agrees_with_a_set(steps in proptest::collection::vec(-700i64..700, 1..300)) {
            let (mut window, mut accepted, mut highest, mut at) = (ReplayWindow::new(), HashSet::new(), None, 5000i64);
            for step in steps {
                at = (at + step).max(0);
                let index = at as u64;
                let too_old = highest.is_some_and(|highest: u64| highest >= index + WINDOW_PACKETS);
                let expected = !too_old && !accepted.contains(&index);
                prop_assert_eq!(window.check(index).is_ok(), expected);
                if expected {
                    window.accept(index);
                    accepted.insert(index);
                    highest = Some(highest.map_or(index, |highest| highest.max(index)));
                }
            }
        }
    }
}
