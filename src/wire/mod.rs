//! Bytes to values and back: stateless, total, fuzzed. Bad input is a typed error, never a panic.

pub mod address;
pub mod ice_uri;
pub mod pcap;
pub mod route;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
pub mod sip;
pub mod stun;
pub mod uri;
