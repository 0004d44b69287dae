//! What each fuzz target does with its bytes. Also compiled into `tests/corpus.rs`, which replays the committed seeds
//! without nightly or a fuzzer.
//!
//! [`parsers`] read them, [`machines`] take them for a sequence of operations.

pub mod machines;
pub mod parsers;

/// A target by its name, which is also that of its corpus.
pub type Target = fn(&[u8]);

/// All targets.
pub const TARGETS: [(&str, Target); 12] = [
    ("sip", parsers::sip),
    ("stream", parsers::stream),
    ("sdp", parsers::sdp),
    ("stun", parsers::stun),
    ("rtp", parsers::rtp),
    ("json", parsers::json),
    ("uri", parsers::uri),
    ("endpoint", machines::endpoint::run),
    ("client", machines::client::run),
    ("ice", machines::ice::run),
    ("turn", machines::turn::run),
    ("jitter", machines::jitter::run),
];
