//! An embedded room server that speaks Galene's protocol.
mod config;
mod event;

pub use config::*;
pub use event::*;
