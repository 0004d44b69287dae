//! A caller's stream to Galene: frames in, RTP out.

use super::control::UpSetup;

/// The up stream.
#[derive(Debug)]
pub struct Up {
    setup: UpSetup,
}

impl Up {
    /// An up stream.
    pub fn new(setup: UpSetup) -> Self {
        Self { setup }
    }
}
