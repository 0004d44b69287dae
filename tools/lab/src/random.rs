//! Random words for tags, branches and names.

/// A new word of 16 characters.
pub(crate) fn token() -> String {
    format!("{:016x}", random_u64())
}

/// Random bits.
pub(crate) fn random_u64() -> u64 {
    // Every system that this crate builds on has a source of them that cannot fail once it has started.
    getrandom::u64().unwrap_or_default()
}
