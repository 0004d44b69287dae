//! What the mixing thread runs, and the stages it is made of.

mod caller;
pub mod control;
mod decoders;
mod down;
pub mod engine;
pub mod g711;
pub mod g722;
pub mod jitter;
pub(crate) mod latch;
mod lateness;
mod local_queue;
pub mod mixer;
pub mod opus;
mod pace;
pub mod plc;
pub mod reorder;
pub mod resample;
mod room;
pub mod rtcp_session;
pub mod simd;
pub mod srtp;
mod stream;
mod talking;
mod time_scale;
mod up;
pub mod vad;
