//! A member of a Galene group: messages, joining, roster, streams.
//!
//! Owns: Galene's protocol, version "2", as its `galene-protocol.md` tells it and its server speaks it. Does not own:
//! sockets (`io::http`, `io::websocket`), what an SDP says (`rtc`), who listens for whom and what becomes of a call
//! (`gateway`).
//!
//! Read in this order: [`client`] (the machine and its words), [`message`] (what goes over the WebSocket), then
//! [`status`], [`name`] and [`refusal`].

pub mod client;
pub mod message;
pub mod name;
pub mod refusal;
pub mod status;

pub use client::{Client, ClientConfig, Credentials, Event, HttpResponse, Input, Output, RequestKey};
pub use message::{Candidate, IceServer, Permissions, RtcConfiguration};
pub use name::WantedName;
pub use refusal::{Fault, Refusal};
pub use status::GroupStatus;
