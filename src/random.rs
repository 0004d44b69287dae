//! Randomness as an argument: tags, branches, ICE passwords and nonces all come from one seeded stream.
//!
//! `io::clock` seeds the first [`Random`] from the system; a test seeds its own and gets the same run every time.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A cryptographically strong stream of random values (ChaCha20).
#[derive(Debug)]
pub struct Random(ChaCha20Rng);

impl Random {
    /// A stream that depends on nothing but `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// A stream for a test.
    pub fn for_test(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    /// An independent stream for a new object.
    pub fn fork(&mut self) -> Self {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Self::from_seed(seed)
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Thirty-two random bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Sixty-four random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A value in `0..bound` (0 if `bound` is 0). Its bias, below 2⁻³² for the small bounds of this program, is harmless.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    /// `len` random letters and digits: 5.95 bits each.
    pub fn token(&mut self, len: usize) -> String {
        const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..len).map(|_| char::from(LETTERS[self.below(62) as usize])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_tokens_and_forks_differ() {
        let (mut a, mut b) = (Random::for_test(1), Random::for_test(1));
        assert_eq!(a.token(20), b.token(20));
        assert_ne!(a.fork().token(20), a.fork().token(20));
        assert!((0..1000).all(|_| a.below(7) < 7));
    }
}
