//! HTTP and WebSocket against small servers on loopback, plain and over TLS.

mod http;
mod server;
mod websocket;
