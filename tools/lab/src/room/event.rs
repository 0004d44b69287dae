//! What a room server reports, what it can be told to do, and what it looks like at a moment.

use serde_json::{Value, json};
use std::time::Duration;

use super::config::AudioCodec;

/// One thing that happened, with its time.
#[derive(Clone, Debug)]
pub struct RoomEvent {
    /// When, see [`crate::clock`].
    pub at_us: u64,
    /// The group it happened in, empty if in none.
    pub group: String,
    /// The client that it is about, empty if about none.
    pub client: ClientName,
    /// What.
    pub kind: RoomEventKind,
}

/// A client's id and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientName {
    /// The id that it gave itself.
    pub id: String,
    /// The name that it has in the group.
    pub username: String,
}

/// The things that happen in a room.
#[derive(Clone, Debug, PartialEq)]
pub enum RoomEventKind {
    /// A client is in.
    Joined {
        /// What it may do.
        permissions: Vec<String>,
    },
    /// A client was not let in, for this reason.
    Refused(String),
    /// A client is out.
    Left,
    /// A client's connection broke, and its ghost lingers.
    Ghost,
    /// A client broke the protocol and was cut off.
    ProtocolError(String),
    /// A client offered a stream.
    UpOffered {
        /// The stream.
        stream: String,
        /// Its label.
        label: String,
    },
    /// ICE and DTLS of an up stream are complete.
    UpConnected {
        /// The stream.
        stream: String,
    },
    /// The first RTP packet of an up stream.
    UpFirstPacket {
        /// The stream.
        stream: String,
        /// What it carries.
        codec: AudioCodec,
    },
    /// A stream was shown to the others.
    Published {
        /// The stream.
        stream: String,
    },
    /// A client was refused a stream.
    UpRefused {
        /// The stream.
        stream: String,
        /// Why.
        reason: String,
    },
    /// An up stream is over.
    UpClosed {
        /// The stream.
        stream: String,
    },
    /// A client asked for streams.
    Requested(Value),
    /// A stream was offered to a client.
    DownOffered {
        /// The stream.
        stream: String,
    },
    /// A client answered an offer.
    DownAnswered {
        /// The stream.
        stream: String,
    },
    /// A client wants no more of a stream.
    DownAborted {
        /// The stream.
        stream: String,
    },
    /// ICE and DTLS of a down stream are complete: media flows.
    DownConnected {
        /// The stream.
        stream: String,
    },
    /// A client has no part in a stream any more (or never had one: clients that asked for nothing hear this too).
    DownClosed {
        /// The stream.
        stream: String,
    },
    /// A client asked for lost packets again.
    Nack {
        /// The stream.
        stream: String,
        /// How many packets it named.
        asked: usize,
        /// How many of them were still there.
        resent: usize,
    },
    /// A client set data of its own, such as a raised hand.
    Data(Value),
    /// A client said something.
    Chat(Value),
    /// A client sent a usermessage.
    UserMessage {
        /// Its kind.
        kind: String,
        /// Its value.
        value: Value,
        /// The client that it is for, empty for all.
        dest: String,
    },
    /// A client was thrown out.
    Kicked(String),
}

impl RoomEvent {
    /// One line of JSON.
    pub fn to_json(&self) -> String {
        let (name, rest) = self.kind.describe();
        let mut object = json!({"at_us": self.at_us, "event": name});
        if let Some(map) = object.as_object_mut() {
            for (key, value) in
                [("group", &self.group), ("client", &self.client.id), ("username", &self.client.username)]
            {
                if !value.is_empty() {
                    map.insert(key.into(), json!(value));
                }
            }
            if let Value::Object(rest) = rest {
                map.extend(rest);
            }
        }
        object.to_string()
    }
}

impl RoomEventKind {
    /// The event's name and its own fields.
    fn describe(&self) -> (&'static str, Value) {
        match self {
            Self::Joined { permissions } => ("joined", json!({"permissions": permissions})),
            Self::Refused(reason) => ("refused", json!({"reason": reason})),
            Self::Left => ("left", json!({})),
            Self::Ghost => ("ghost", json!({})),
            Self::ProtocolError(reason) => ("protocol-error", json!({"reason": reason})),
            Self::UpOffered { stream, label } => ("up-offered", json!({"stream": stream, "label": label})),
            Self::UpConnected { stream } => ("up-connected", json!({"stream": stream})),
            Self::UpFirstPacket { stream, codec } => {
                ("up-first-packet", json!({"stream": stream, "codec": codec.name()}))
            }
            Self::Published { stream } => ("published", json!({"stream": stream})),
            Self::UpRefused { stream, reason } => ("up-refused", json!({"stream": stream, "reason": reason})),
            Self::UpClosed { stream } => ("up-closed", json!({"stream": stream})),
            Self::Requested(request) => ("requested", json!({"request": request})),
            Self::DownOffered { stream } => ("down-offered", json!({"stream": stream})),
            Self::DownAnswered { stream } => ("down-answered", json!({"stream": stream})),
            Self::DownAborted { stream } => ("down-aborted", json!({"stream": stream})),
            Self::DownConnected { stream } => ("down-connected", json!({"stream": stream})),
            Self::DownClosed { stream } => ("down-closed", json!({"stream": stream})),
            Self::Nack { stream, asked, resent } => {
                ("nack", json!({"stream": stream, "asked": asked, "resent": resent}))
            }
            Self::Data(data) => ("data", json!({"data": data})),
            Self::Chat(value) => ("chat", json!({"value": value})),
            Self::UserMessage { kind, value, dest } => {
                ("usermessage", json!({"kind": kind, "value": value, "dest": dest}))
            }
            Self::Kicked(message) => ("kicked", json!({"message": message})),
        }
    }
}

/// What a test or a person tells a running server to do. Clients are named by id or by username.
#[derive(Clone, Debug)]
pub enum RoomCommand {
    /// Throws a client out, as a person (id and username of the kicker) or, with `None`, as the server itself.
    Kick {
        /// Whom.
        client: String,
        /// Who does it.
        by: Option<ClientName>,
        /// The message to show.
        message: String,
    },
    /// Throws everybody out as a server does that shuts down, and takes nobody new.
    ShutDown {
        /// The message to show.
        message: String,
    },
    /// Sends any message to a client as it is, such as a forged one.
    Send {
        /// To whom.
        client: String,
        /// The JSON object.
        message: Value,
    },
    /// Replaces a client's permissions.
    SetPermissions {
        /// Whose.
        client: String,
        /// By what.
        permissions: Vec<String>,
    },
    /// Locks a group (with a reason, which may be empty) or unlocks it.
    Lock {
        /// Which.
        group: String,
        /// Why, `None` to unlock.
        message: Option<String>,
    },
    /// Offers a client all its down streams again with an ICE restart.
    RestartIce {
        /// Whose.
        client: String,
    },
    /// Asks a client to offer its up streams again with an ICE restart.
    AskRenegotiation {
        /// Whose.
        client: String,
    },
    /// Ends a client's up streams with `abort`.
    AbortUp {
        /// Whose.
        client: String,
    },
    /// Closes the TCP connection of a client without a word.
    Cut {
        /// Whose.
        client: String,
    },
    /// From now on media to listeners suffers this.
    Impair(super::config::Impairment),
}

/// A server at one moment.
#[derive(Clone, Debug, Default)]
pub struct RoomSnapshot {
    /// All clients of all groups, ghosts among them.
    pub clients: Vec<ClientSnapshot>,
    /// TCP connections that are open, joined or not.
    pub connections: usize,
    /// Peer connections that exist.
    pub peers: usize,
}

/// A client at one moment.
#[derive(Clone, Debug)]
pub struct ClientSnapshot {
    /// Its group.
    pub group: String,
    /// Its id and name.
    pub name: ClientName,
    /// What it may do.
    pub permissions: Vec<String>,
    /// Its data, such as a raised hand.
    pub data: Value,
    /// What it publishes.
    pub up: Vec<StreamSnapshot>,
    /// What it is sent.
    pub down: Vec<StreamSnapshot>,
}

/// One direction of a stream at one moment.
#[derive(Clone, Debug)]
pub struct StreamSnapshot {
    /// Its id.
    pub id: String,
    /// Whether ICE and DTLS are complete.
    pub connected: bool,
    /// RTP packets so far.
    pub packets: u64,
    /// The longest time between two packets.
    pub longest_gap: Duration,
    /// Time of the last packet, 0 before the first.
    pub last_packet_us: u64,
}
