//! What members tell.

use serde_json::{Value, json};

/// One thing that happened to a member, with its time.
#[derive(Clone, Debug)]
pub struct MemberEvent {
    /// When, see [`crate::clock`].
    pub at_us: u64,
    /// The member's number, from 0.
    pub member: usize,
    /// What.
    pub kind: MemberEventKind,
}

/// The things that happen to a member.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberEventKind {
    /// It is in the room, under this name.
    Joined {
        /// Its own id.
        id: String,
        /// The name that it was given.
        username: String,
        /// What it may do.
        permissions: Vec<String>,
    },
    /// It was not let in, or could not reach the server.
    Refused(String),
    /// What it may do has changed.
    Permissions(Vec<String>),
    /// Somebody came, changed or left.
    User {
        /// `add`, `change` or `delete`.
        kind: String,
        /// Who.
        id: String,
        /// Its name.
        username: String,
        /// Its data, such as a raised hand.
        data: Value,
    },
    /// Its own stream is connected.
    UpConnected,
    /// Its own stream was refused or ended by the server.
    UpAborted,
    /// The first sample of the speech leaves.
    SpeechBegins,
    /// The last sample of the speech has left.
    SpeechEnds,
    /// A stream was offered to it.
    Offered {
        /// The stream.
        stream: String,
        /// Its publisher's id.
        source: String,
        /// Its publisher's name.
        username: String,
        /// Its label.
        label: String,
        /// The stream that it replaces, mostly none.
        replace: String,
    },
    /// A stream that it hears is connected.
    Connected {
        /// The stream.
        stream: String,
        /// Its publisher's name.
        username: String,
    },
    /// The first packet of a stream arrived.
    FirstPacket {
        /// The stream.
        stream: String,
        /// Its publisher's name.
        username: String,
    },
    /// How loud a stream was of late.
    Level {
        /// The stream.
        stream: String,
        /// Its publisher's name.
        username: String,
        /// The level.
        dbfs: f64,
    },
    /// A stream is over.
    Closed {
        /// The stream.
        stream: String,
    },
    /// Somebody said something.
    Chat {
        /// Who, by name.
        username: String,
        /// What.
        value: Value,
    },
    /// A usermessage came.
    UserMessage {
        /// Its kind.
        kind: String,
        /// Its value.
        value: Value,
        /// Whether the server vouches for it.
        privileged: bool,
        /// Who sent it, by name; the server itself sends none.
        username: Option<String>,
    },
    /// The connection is over.
    Disconnected(String),
}

impl MemberEvent {
    /// One line of JSON.
    pub fn to_json(&self) -> String {
        let (name, rest) = self.kind.describe();
        let mut object = json!({"at_us": self.at_us, "member": self.member, "event": name});
        if let (Some(map), Value::Object(rest)) = (object.as_object_mut(), rest) {
            map.extend(rest);
        }
        object.to_string()
    }
}

impl MemberEventKind {
    /// The event's name and its own fields.
    fn describe(&self) -> (&'static str, Value) {
        match self {
            Self::Joined { id, username, permissions } => {
                ("joined", json!({"id": id, "username": username, "permissions": permissions}))
            }
            Self::Refused(reason) => ("refused", json!({"reason": reason})),
            Self::Permissions(permissions) => ("permissions", json!({"permissions": permissions})),
            Self::User { kind, id, username, data } => {
                ("user", json!({"kind": kind, "id": id, "username": username, "data": data}))
            }
            Self::UpConnected => ("up-connected", json!({})),
            Self::UpAborted => ("up-aborted", json!({})),
            Self::SpeechBegins => ("speech-begins", json!({})),
            Self::SpeechEnds => ("speech-ends", json!({})),
            Self::Offered { stream, source, username, label, replace } => (
                "offered",
                json!({
                    "stream": stream, "source": source, "username": username, "label": label, "replace": replace
                }),
            ),
            Self::Connected { stream, username } => ("connected", json!({"stream": stream, "username": username})),
            Self::FirstPacket { stream, username } => ("first-packet", json!({"stream": stream, "username": username})),
            Self::Level { stream, username, dbfs } => {
                ("level", json!({"stream": stream, "username": username, "dbfs": (dbfs * 10.0).round() / 10.0}))
            }
            Self::Closed { stream } => ("closed", json!({"stream": stream})),
            Self::Chat { username, value } => ("chat", json!({"username": username, "value": value})),
            Self::UserMessage { kind, value, privileged, username } => {
                ("usermessage", json!({"kind": kind, "value": value, "privileged": privileged, "username": username}))
            }
            Self::Disconnected(reason) => ("disconnected", json!({"reason": reason})),
        }
    }
}
