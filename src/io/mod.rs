//! The only sockets, clocks, threads and async.
//!
//! [`run()`] starts the three kinds of thread: net and mix, and on the calling one the signalling loop (`driver`).

mod addresses;
mod blocking;
mod capture;
pub mod clock;
mod connections;
mod dns;
mod driver;
mod fault;
pub mod http;
mod load;
mod log;
mod memory;
pub mod mix;
pub mod net;
mod network_watch;
mod ports;
mod priority;
mod resolve;
mod rings;
mod run;
mod sip;
mod sip_tls;
mod sockets;
pub mod threads;
pub mod tls;
mod trace;
pub mod turn_stream;
mod udp;
mod wake;
pub mod websocket;

pub use run::run;
