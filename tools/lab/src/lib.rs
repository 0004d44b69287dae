//! The laboratory: what stands around the gateway when it is tested or shown.
//!
//! - [`room`]: an embedded room server that speaks Galene's protocol, on a WebRTC stack of its own (str0m), strict
//!   where the real server is strict and with knobs for what goes wrong in practice;
//! - [`member`]: people in a room, who speak and record, in this room server or in a real Galene.
//!
//! All of it runs in threads of the calling process (tests start a room on a free loopback port and watch its events)
//! and by hand (`lab room`, `lab member`). One clock serves everything: [`clock`].

pub mod clock;
pub mod event_log;
pub mod member;
pub mod message;
pub mod opus;
pub mod pcm;
pub mod room;

mod http;
mod options;
mod peer;
mod poll;
mod transport;
mod websocket;
