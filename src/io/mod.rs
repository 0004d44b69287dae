//! The only sockets, clocks and threads.

pub mod addresses;
pub mod clock;
pub mod ports;
pub mod sip;
pub mod udp;
