//! What a telephone tells of its call, for tests and as JSON lines.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Codec, Side};

/// Something that happened, with its time.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What can happen to a telephone that calls. Durations count from the INVITE.
#[derive(Debug, Clone)]
pub enum What {
    /// The INVITE was sent.
    Invited {
        /// The URI that is called.
        target: String,
    },
    /// 100 came.
    Trying {
        /// From the INVITE on.
        after: Duration,
    },
    /// 180 or 183 came.
    Ringing {
        /// The status code.
        status: u16,
        /// From the INVITE on.
        after: Duration,
    },
    /// 2xx came.
    Answered {
        /// From the INVITE on.
        after: Duration,
        /// What is spoken.
        codec: Codec,
        /// Where our RTP goes.
        remote: SocketAddr,
    },
    /// The first RTP packet came.
    FirstRtp {
        /// From the INVITE on.
        after: Duration,
        /// Who sent it.
        from: SocketAddr,
    },
    /// What was heard in the last second.
    Level {
        /// Seconds since the answer.
        second: u32,
        /// Mean level.
        dbfs: f64,
        /// Packets of that second.
        packets: u32,
    },
    /// Speech began with the packet sent at that time.
    Speaking,
    /// A re-INVITE went through: ours or theirs.
    Changed {
        /// Who sent it.
        by: Side,
        /// Whether the other side sends now.
        they_send: bool,
        /// Whether we may send now.
        we_send: bool,
    },
    /// Our re-INVITE was refused; the call goes on.
    ChangeRefused {
        /// Status code.
        status: u16,
    },
    /// The call was refused.
    Refused {
        /// Status code.
        status: u16,
        /// Reason phrase.
        reason: String,
        /// The text of a Warning header.
        warning: Option<String>,
        /// Retry-After in seconds.
        retry_after_s: Option<u32>,
    },
    /// The call ended by BYE.
    Bye {
        /// Who sent it.
        by: Side,
        /// The text of a Reason header in it.
        reason: Option<String>,
    },
    /// The call ended because the other side did not do its part.
    Failed {
        /// In words.
        why: String,
    },
}

impl Event {
    /// One line of JSON, its time in ms after `start`.
    pub fn to_json(&self, start: Instant) -> Value {
        let mut value = self.what.to_json();
        value["at_ms"] = ms(self.at.saturating_duration_since(start));
        value
    }
}

impl What {
    fn to_json(&self) -> Value {
        match self {
            Self::Invited { target } => json!({"event": "invited", "target": target}),
            Self::Trying { after } => json!({"event": "trying", "after_ms": ms(*after)}),
            Self::Ringing { status, after } => json!({"event": "ringing", "status": status, "after_ms": ms(*after)}),
            Self::Answered { after, codec, remote } => {
                json!({"event": "answered", "after_ms": ms(*after), "codec": codec.name(), "remote": remote.to_string()})
            }
            Self::FirstRtp { after, from } => {
                json!({"event": "first_rtp", "after_ms": ms(*after), "from": from.to_string()})
            }
            Self::Level { second, dbfs, packets } => {
                json!({"event": "level", "second": second, "dbfs": (dbfs * 10.0).round() / 10.0, "packets": packets})
            }
            Self::Speaking => json!({"event": "speaking"}),
            Self::Changed { by, they_send, we_send } => {
                json!({"event": "changed", "by": by.name(), "they_send": they_send, "we_send": we_send})
            }
            Self::ChangeRefused { status } => json!({"event": "change_refused", "status": status}),
            Self::Refused { status, reason, warning, retry_after_s } => json!({
                "event": "refused", "status": status, "reason": reason, "warning": warning, "retry_after_s": retry_after_s
            }),
            Self::Bye { by, reason } => json!({"event": "bye", "by": by.name(), "reason": reason}),
            Self::Failed { why } => json!({"event": "failed", "why": why}),
        }
    }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Them => "them",
        }
    }
}

fn ms(duration: Duration) -> Value {
    json!((duration.as_secs_f64() * 10_000.0).round() / 10.0)
}
