//! The laboratory: what stands around the gateway when it is tested or shown.
//!
//! - [`room`]: an embedded room server that speaks Galene's protocol, on a WebRTC stack of its own (str0m), strict
//!   where the real server is strict and with knobs for what goes wrong in practice;
//! - [`member`]: people in a room, who speak and record, in this room server or in a real Galene;
//! - [`telephone`]: telephones that call, speak and record; [`recording`]: what they heard, on the common clock;
//! - [`registrar`]: where the gateway registers, so that telephones know its Contact;
//! - [`gateway`], [`baresip`], [`linphone`], [`kamailio`], [`rtpengine`], [`coturn`]: other programs, each a [`program`] that ends with its owner;
//! - [`speech`]: something to say; [`quality`]: how it came through;
//! - [`noisy_speech`]: telephone calls in noise of which every moment of speech is known;
//! - [`trial`]: one call in which both sides speak, judged; [`demo`]: the same for people to watch;
//! - [`browser`]: a real Chromium and telephones in one room, judged;
//! - [`load`]: many telephones and members, and what they cost the gateway.
//!
//! All of it runs in threads of the calling process (tests start a room on a free loopback port and watch its events)
//! and by hand (`lab room`, `lab member`, `lab telephone`). One clock serves everything: [`clock`].

pub mod baresip;
pub mod browser;
pub mod clock;
pub mod coturn;
pub mod demo;
pub mod event_log;
pub mod gateway;
pub mod kamailio;
pub mod linphone;
pub mod load;
pub mod member;
pub mod message;
pub mod network;
pub mod noisy_speech;
pub mod opus;
pub mod pcm;
pub mod program;
pub mod quality;
pub mod recording;
pub mod registrar;
pub mod room;
pub mod rtpengine;
pub mod soak;
pub mod speech;
pub mod telephone;
pub mod trial;
pub mod voice;

mod http;
mod options;
mod peer;
mod poll;
mod random;
mod transport;
mod websocket;
