//! What the mixing thread runs, and the stages it is made of.

pub mod g711;
pub mod g722;
pub mod jitter;
pub mod mixer;
pub mod opus;
pub mod plc;
pub mod reorder;
pub mod resample;
pub mod rtcp_session;
pub mod simd;
pub mod srtp;
pub mod vad;
