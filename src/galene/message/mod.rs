//! Galene's messages: JSON text ↔ values (`galene-protocol.md`, "Message syntax" and after).
//!
//! Owns: both directions, total: any text becomes a value or is refused with a reason. A field of the wrong type counts
//! as absent, since Galene forwards what members write. Does not own: what a message means, [`super::client`].

mod parse;

use std::fmt;

use serde::Serialize;

/// The longest message, both ways: Galene's own limit, 1 MiB.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The longest client or stream id that is looked at. Usual are 11 (8 random bytes); this leaves room for UUIDs and more.
pub const MAX_ID_BYTES: usize = 128;

/// The longest user name that is kept; a longer one is cut. Galene has no limit of its own.
pub const MAX_USERNAME_BYTES: usize = 256;

/// The longest text for people that is kept, of a notice or a chat message; a longer one is cut.
pub const MAX_TEXT_BYTES: usize = 4096;

/// A message from us to the server.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum ClientMessage<'a> {
    Handshake {
        version: [&'a str; 1],
        id: &'a str,
    },
    Join {
        kind: &'static str,
        group: &'a str,
        username: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a str>,
    },
    Request {
        request: Requested,
    },
    Offer {
        id: &'a str,
        label: &'a str,
        sdp: &'a str,
    },
    Answer {
        id: &'a str,
        sdp: &'a str,
    },
    Ice {
        id: &'a str,
        candidate: &'a Candidate,
    },
    Renegotiate {
        id: &'a str,
    },
    Abort {
        id: &'a str,
    },
    Close {
        id: &'a str,
    },
    Ping,
    Pong,
}

/// What is wanted of streams by label; the empty label stands for all that are not named. Empty, nothing is wanted.
#[derive(Debug, Serialize)]
pub(crate) struct Requested {
    #[serde(rename = "", skip_serializing_if = "<[&str]>::is_empty")]
    pub(crate) any_label: &'static [&'static str],
}

impl ClientMessage<'_> {
    /// The JSON text.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers with fixed keys always serialise")
    }
}

/// A message from the server to us.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMessage {
    /// `handshake`: the versions that the server speaks (it sends one).
    Handshake {
        /// Protocol versions.
        versions: Vec<String>,
    },
    /// `joined`.
    Joined(Box<JoinedMessage>),
    /// `user`.
    User {
        /// What happened to the member.
        kind: UserKind,
        /// The member's client id.
        id: String,
        /// The member's name, perhaps empty.
        username: String,
        /// What the member may do.
        permissions: Permissions,
    },
    /// `offer`.
    Offer(Box<Offer>),
    /// `answer`.
    Answer {
        /// The stream's id.
        id: String,
        /// The session description.
        sdp: String,
    },
    /// `ice`.
    Ice {
        /// The stream's id.
        id: String,
        /// The candidate.
        candidate: Candidate,
    },
    /// `renegotiate`: a new offer with an ICE restart is wanted for an up stream.
    Renegotiate {
        /// The stream's id.
        id: String,
    },
    /// `close`: a down stream has ended.
    Close {
        /// The stream's id.
        id: String,
    },
    /// `abort`: an up stream is not wanted.
    Abort {
        /// The stream's id.
        id: String,
    },
    /// `chat` and `chathistory`.
    Chat(Box<Chat>),
    /// `usermessage`.
    UserMessage(Box<UserMessage>),
    /// `ping`, to be answered with a pong.
    Ping,
    /// `pong`.
    Pong,
    /// A type or kind that we do not know, which is no error.
    Unknown,
}

/// What a `joined` message tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinedMessage {
    /// Its `kind`.
    pub kind: JoinedKind,
    /// Galene's stable word for an error, such as `duplicate-username`.
    pub error: Option<String>,
    /// The error's text, or where to go for [`JoinedKind::Redirect`].
    pub value: Option<String>,
    /// The group's name.
    pub group: String,
    /// The user name that the server gave us.
    pub username: Option<String>,
    /// What we may do.
    pub permissions: Permissions,
    /// ICE servers and policy.
    pub rtc: RtcConfiguration,
}

/// The `kind` of a `joined` message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinedKind {
    /// We are a member now.
    Join,
    /// We are not.
    Fail,
    /// Permissions or ICE servers have changed.
    Change,
    /// We are no member any more.
    Leave,
    /// The group is elsewhere.
    Redirect,
    /// A kind that we do not know.
    #[default]
    Unknown,
}

/// The `kind` of a `user` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserKind {
    /// A member came (or was there when we came).
    Add,
    /// Name, permissions or data changed.
    Change,
    /// A member left.
    Delete,
}

/// What a member may do, of what this program asks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// May publish streams.
    pub present: bool,
    /// May write chat and user messages.
    pub message: bool,
    /// Is an operator.
    pub op: bool,
}

/// How Galene wants its clients to do ICE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RtcConfiguration {
    /// STUN and TURN servers.
    pub ice_servers: Vec<IceServer>,
    /// `iceTransportPolicy` is `relay`: only relayed candidates may be used.
    pub relay_only: bool,
}

/// One entry of `iceServers`.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` URLs, unchecked.
    pub urls: Vec<String>,
    /// TURN user name.
    pub username: Option<String>,
    /// TURN password.
    pub credential: Option<String>,
}

impl fmt::Debug for IceServer {
    /// Without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// An ICE candidate as it trickles both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The `candidate:…` attribute; empty for the end of candidates.
    pub candidate: String,
    /// The media section's `a=mid`.
    #[serde(rename = "sdpMid", skip_serializing_if = "Option::is_none")]
    pub sdp_mid: Option<String>,
    /// The media section's index, from 0.
    #[serde(rename = "sdpMLineIndex", skip_serializing_if = "Option::is_none")]
    pub sdp_m_line_index: Option<u16>,
}

/// An offered down stream, or a renegotiation of one that is known by its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The stream's id, the same for every member.
    pub id: String,
    /// `camera`, `screenshare`, `video`, or anything else that the sender chose.
    pub label: String,
    /// The sender's client id.
    pub source: String,
    /// The sender's name.
    pub username: String,
    /// The session description.
    pub sdp: String,
    /// The id of a stream that this one replaces.
    pub replace: Option<String>,
}

/// A chat message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// The writer's client id; empty for the server.
    pub source: String,
    /// The writer's name.
    pub username: String,
    /// True if it was written to us alone.
    pub private: bool,
    /// True if it was written before we came.
    pub history: bool,
    /// True if the writer was an operator.
    pub privileged: bool,
    /// The text.
    pub text: String,
}

/// A user message, from the server or from any member that may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserMessage {
    /// What it asks for: `kicked`, `mute`, `error` and others.
    pub kind: String,
    /// Whoever acted: a kick has the person's client id in `id`, a forwarded message in `source`.
    pub from: Option<String>,
    /// The person's name.
    pub username: Option<String>,
    /// Vouched for by the server: from itself, or from an operator.
    pub privileged: bool,
    /// The text.
    pub value: Option<String>,
}

impl UserMessage {
    /// Whether nobody in the group is named. Only with `privileged` does that mean that the server itself speaks:
    /// members can leave their names out.
    pub(crate) fn is_from_server(&self) -> bool {
        self.from.is_none() && self.username.is_none()
    }
}

/// A text that is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("longer than 1 MiB")]
    TooLong,
    /// Not JSON.
    #[error("not JSON")]
    NotJson,
    /// JSON, but not an object with a `type`.
    #[error("without a type")]
    NoType,
    /// A message whose type needs an `id`, an SDP or a candidate that it lacks.
    #[error("{0} without what it is about")]
    Incomplete(&'static str),
}
