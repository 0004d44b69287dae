//! galene-sip lets telephones into the rooms of a Galene server.

pub mod config;
pub mod galene;
pub mod io;
pub mod media;
pub mod random;
pub mod rtc;
pub mod sip;
pub mod time;
pub mod wire;
