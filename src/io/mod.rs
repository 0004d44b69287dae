//! The only sockets, clocks, threads and async.
//!
//! [`run`] starts the three kinds of thread: net and mix, and on the calling one the signalling loop ([`driver`]).

mod addresses;
pub mod clock;
mod fault;
pub mod http;
mod ports;
mod priority;
mod rings;
mod sip;
pub mod tls;
mod udp;
mod wake;
pub mod websocket;
