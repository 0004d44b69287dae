//! Why Galene does not let a caller in, in words that say what to do about it.
//!
//! Owns: the reasons. Does not own: the SIP status that a reason becomes (`gateway`).

use url::Url;

/// Something that went wrong below Galene's own protocol, as `io` reports it. The texts are for people: they name the
/// host, never a secret, and have no final full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Name lookup failed, connection refused, timed out, broken off, or answered with a 5xx status.
    #[error("{0}")]
    Unreachable(String),
    /// The server's certificate was not accepted, or TLS failed otherwise.
    #[error("{0}")]
    Tls(String),
    /// Something answered, but not as HTTP or a WebSocket should.
    #[error("{0}")]
    Protocol(String),
    /// This machine gives us no more sockets; Galene has no part in it.
    #[error("{0}")]
    Exhausted(String),
}

/// Why a client could not join its group. Every variant ends the client that reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The user name, the password or the token is wrong (Galene: `not authorised`; authorisation server: not 200 or
    /// 204). The one retry under another name has been made where the name was the caller's.
    NotAuthorised {
        /// The name that was asked for last.
        username: String,
        /// What was shown besides the name.
        shown: Shown,
    },
    /// The user name belongs to somebody whom the group's description lists (Galene: `duplicate-username`).
    DuplicateUsername {
        /// The name that was asked for last.
        username: String,
    },
    /// The group is there and does not let us in now: locked, not yet open, closed, no operator. Galene's own words.
    Locked(String),
    /// The group holds as many members as it may (`max-clients`).
    Full,
    /// The server has no such group.
    NoSuchGroup {
        /// Where it was looked for, without its query.
        location: String,
    },
    /// The group has moved to another server, to which the password must not be shown unasked.
    Moved(Url),
    /// Galene, or its authorisation server, cannot be reached, did not answer in time or broke off.
    Unreachable(String),
    /// The server's certificate was not accepted, or it does not speak TLS.
    Tls(String),
    /// The server does not speak Galene's protocol, or not this version of it.
    Protocol(String),
    /// This machine gives us no more sockets.
    Exhausted(String),
    /// We are in, but without the `present` permission nobody can hear the caller. The client does not judge this, it
    /// reports [`crate::galene::client::Joined::permissions`]; the gateway, which knows what the call is for, does.
    NoPresent,
}

/// The credentials that a refused client had shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Neither password nor token.
    Nothing,
    /// A password, to Galene or to the authorisation server.
    Password,
    /// The token of the group's URL.
    Token,
    /// A token that the authorisation server had just given.
    AuthServerToken,
}

impl Refusal {
    /// One plain sentence that says what is wrong and what to do about it, without secrets.
    pub fn explain(&self) -> String {
        match self {
            Self::NotAuthorised { username, shown: Shown::Nothing } => format!(
                "Galene wants a password for '{username}': give -password (or GALENE_PASSWORD), or a group URL with ?token="
            ),
            Self::NotAuthorised { username, shown: Shown::Password } => {
                format!("Galene does not accept this password for '{username}': check -password and -username")
            }
            Self::NotAuthorised { username, shown: Shown::Token } => format!(
                "Galene does not accept the token of the group's URL for '{username}': it may have expired or be for another group; make a new invitation link"
            ),
            Self::NotAuthorised { username, shown: Shown::AuthServerToken } => format!(
                "Galene does not accept the token that the group's authorisation server gave for '{username}': the group's authKeys and that server do not agree"
            ),
            Self::DuplicateUsername { username } => {
                format!("the name '{username}' belongs to a user of this group: choose another one with -username")
            }
            Self::Locked(text) => format!("the group lets nobody in now: {text}"),
            Self::Full => {
                "the group is full: raise max-clients in its description, or wait until somebody leaves".into()
            }
            Self::NoSuchGroup { location } => format!("there is no group at {location}: check the group's URL"),
            Self::Moved(url) => format!("the group has moved to {url}: start the gateway with that URL"),
            Self::Unreachable(text) => format!("Galene cannot be reached: {text}"),
            Self::Tls(text) => format!("no safe connection to Galene: {text}"),
            Self::Protocol(text) => format!("Galene's answer makes no sense: {text}"),
            Self::Exhausted(text) => format!("no connection to Galene: {text}"),
            Self::NoPresent => {
                "Galene lets us in but not speak: give this user the permission 'present' in the group's \
                                description, or use an invitation link that grants it"
                    .into()
            }
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreachable(text) => Self::Unreachable(text),
            Fault::Tls(text) => Self::Tls(text),
            Fault::Protocol(text) => Self::Protocol(text),
            Fault::Exhausted(text) => Self::Exhausted(text),
        }
    }
}

/// Host and port of a URL, for people: what a text may show of it without showing a secret.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or("?");
    url.port().map_or_else(|| host.into(), |port| format!("{host}:{port}"))
}
