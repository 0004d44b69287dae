//! The only sockets, clocks and threads.

pub mod clock;
mod priority;
mod rings;
mod wake;
