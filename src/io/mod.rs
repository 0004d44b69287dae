//! The only sockets, clocks and threads.

pub mod fault;
pub mod http;
pub mod tls;
pub mod websocket;
