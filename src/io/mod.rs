//! The only sockets, clocks and threads.

pub mod clock;
pub mod ports;
pub mod udp;
