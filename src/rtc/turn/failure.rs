//! Why there is no relay, in words for whoever runs the gateway.

use std::net::SocketAddr;

use crate::rtc::candidate::canonical;
use crate::wire::stun::Message;

/// Why there is no allocation, or none any longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer to the first request within 10 s.
    #[error(
        "the TURN server does not answer: are its address and port right, and does the firewall let us through to it?"
    )]
    NoAnswer,
    /// 401 to a request with credentials.
    #[error("the TURN server does not accept the user name and password: are they right, and not expired?")]
    Credentials,
    /// 401 without realm or nonce, a nonce that never does, or a success without an address.
    #[error("the TURN server's answers make no sense: is it a TURN server at all?")]
    Unintelligible,
    /// 300: another server is to be used.
    #[error("the TURN server sends us to another one{}: name that instead", in_words(*server))]
    Alternate {
        /// The other one, if it was named.
        server: Option<SocketAddr>,
        /// What its certificate is to name, if not the same as this one's.
        domain: Option<String>,
    },
    /// 403.
    #[error("the TURN server forbids us relaying: its operator must allow it")]
    Forbidden,
    /// 437: it knows an allocation for our address and port already.
    #[error("the TURN server still has another relay for our port: it ends by itself within 10 minutes")]
    Mismatch,
    /// 440.
    #[error("the TURN server has no relay addresses of this version of IP")]
    Family,
    /// 441.
    #[error("the TURN server has a relay for our port under another user name: it ends by itself within 10 minutes")]
    WrongUser,
    /// 442.
    #[error("the TURN server does not relay UDP")]
    Transport,
    /// 486.
    #[error("the user has as many relays as the TURN server allows: its quota must be raised for more calls")]
    Quota,
    /// 508.
    #[error("the TURN server has no relay ports left: its port range must be widened for more calls")]
    Capacity,
    /// Any other refusal.
    #[error("the TURN server refuses with code {0}")]
    Refused(u16),
    /// 437 in mid-life: it was restarted, or our address has changed.
    #[error("the TURN server has forgotten our relay: was it restarted, or has our address changed?")]
    Lost,
    /// The connection that it was reached by has ended.
    #[error("the connection to the TURN server has ended")]
    Disconnected,
    /// No refresh was answered until the lifetime was over.
    #[error("the TURN server has not answered until our relay expired")]
    Expired,
}

impl Failure {
    /// What a refusal of an Allocate or Refresh request means (RFC 8656 §7.4, §19).
    pub(super) fn of(code: u16, message: &Message<'_>) -> Self {
        match code {
            300 => Self::Alternate {
                server: message.alternate_server.map(canonical),
                domain: message.alternate_domain.map(str::to_owned),
            },
            401 => Self::Credentials,
            403 => Self::Forbidden,
            437 => Self::Mismatch,
            438 => Self::Unintelligible,
            440 => Self::Family,
            441 => Self::WrongUser,
            442 => Self::Transport,
            486 => Self::Quota,
            508 => Self::Capacity,
            code => Self::Refused(code),
        }
    }
}

fn in_words(server: Option<SocketAddr>) -> String {
    server.map_or_else(String::new, |server| format!(", {server}"))
}
