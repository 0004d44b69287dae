//! The only sockets, clocks and threads.

pub mod clock;
pub mod mix;
pub mod net;
mod priority;
mod rings;
pub mod threads;
mod wake;
