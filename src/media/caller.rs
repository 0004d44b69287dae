//! One telephone in the mix: its speech up, the room's down.

use super::control::CallerSetup;

/// One telephone.
#[derive(Debug)]
pub struct Caller {
    setup: CallerSetup,
}

impl Caller {
    /// A caller that is silent until told to start.
    pub fn new(setup: CallerSetup) -> Self {
        Self { setup }
    }
}
