//! The laboratory: what stands around the gateway when it is tested or shown.

pub mod baresip;
pub mod gateway;
pub mod kamailio;
pub mod program;
pub mod quality;
pub mod recording;
pub mod speech;
pub mod telephone;
pub mod voice;
pub mod wav;

use std::hash::{BuildHasher, RandomState};

/// A new random word, for tags, branches and names.
pub fn token() -> String {
    format!("{:016x}", random_u64())
}

/// Random bits from the standard library's hash keys: enough for a laboratory, and one dependency less.
pub fn random_u64() -> u64 {
    RandomState::new().hash_one(0u8)
}
