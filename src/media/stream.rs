//! One room voice.

use super::control::StreamSetup;

/// One room voice.
#[derive(Debug)]
pub struct Stream {
    setup: StreamSetup,
}

impl Stream {
    /// An empty stream.
    pub fn new(setup: StreamSetup) -> Self {
        Self { setup }
    }
}
