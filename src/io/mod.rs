//! The only sockets, clocks and threads.

pub mod addresses;
pub mod clock;
pub mod ports;
mod priority;
mod rings;
pub mod sip;
pub mod udp;
mod wake;
