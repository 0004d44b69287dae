//! One room: the voices and telephones that hear each other.

use super::control::RoomKey;

/// A room.
#[derive(Debug)]
pub struct Room {
    key: RoomKey,
}

impl Room {
    /// An empty room with space for everything.
    pub fn new(key: RoomKey) -> Self {
        Self { key }
    }
}
