//! What is said to a [`super::Client`] and what it says.

use std::fmt;
use std::time::Duration;

use url::Url;

use crate::galene::message::{Candidate, Chat, Offer, Permissions, RtcConfiguration};
use crate::galene::name::WantedName;
use crate::galene::refusal::{Fault, Refusal};
use crate::galene::status::GroupStatus;

/// Who joins where.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The group's URL, with or without a query; its `token` counts if [`Credentials::token`] is `None`.
    pub group_url: Url,
    /// The user name and what to do if it is taken.
    pub name: WantedName,
    /// What to show.
    pub credentials: Credentials,
    /// How long the server may take to tell of the group; as long as joining may take in all if `None`.
    pub status_within: Option<Duration>,
}

/// What is shown to Galene. A token wins over a password. Never in a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// `-password`.
    pub password: Option<String>,
    /// The group URL's token.
    pub token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = |secret: &Option<String>| secret.as_ref().map(|_| "***");
        f.debug_struct("Credentials")
            .field("password", &given(&self.password))
            .field("token", &given(&self.token))
            .finish()
    }
}

/// Names one HTTP request of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(pub u64);

/// An HTTP response with any status.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status, 100 to 599.
    pub status: u16,
    /// Where it came from after redirects.
    pub final_url: Url,
    /// The body, already limited by `io::http`.
    pub body: Vec<u8>,
}

impl fmt::Debug for HttpResponse {
    /// Without the body, which may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .field("final_url", &self.final_url.as_str())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// What happened to the client's connections.
#[derive(Debug)]
pub enum Input<'a> {
    /// An [`Output::Get`] or [`Output::Post`] is done.
    Response {
        /// The request.
        request: RequestKey,
        /// What came of it.
        result: Result<HttpResponse, Fault>,
    },
    /// The WebSocket is open.
    Connected,
    /// A text message came over the WebSocket.
    Text(&'a str),
    /// The WebSocket could not be opened, or is closed.
    Disconnected(Fault),
}

/// What is to be done.
pub enum Output {
    /// Fetch `url`, following redirects.
    Get {
        /// To be given back with the response.
        request: RequestKey,
        /// Without secrets.
        url: Url,
    },
    /// Post `json` to `url`, following no redirect.
    Post {
        /// To be given back with the response.
        request: RequestKey,
        /// The authorisation server.
        url: Url,
        /// Holds the password.
        json: String,
    },
    /// Open a WebSocket.
    Connect {
        /// `ws:` or `wss:`.
        url: Url,
    },
    /// Send a text over the WebSocket. May hold a secret.
    Send(String),
    /// Close the WebSocket once what was sent is out, or give up opening it. The last output.
    Disconnect,
    /// Tell the gateway.
    Event(Event),
}

impl fmt::Debug for Output {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get { request, url } => write!(f, "Get({}, {url})", request.0),
            Self::Post { request, url, .. } => write!(f, "Post({}, {url})", request.0),
            Self::Connect { url } => write!(f, "Connect({url})"),
            Self::Send(text) => write!(f, "Send({} bytes)", text.len()),
            Self::Disconnect => f.write_str("Disconnect"),
            Self::Event(event) => write!(f, "Event({event:?})"),
        }
    }
}

/// What the gateway wants to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The group was found.
    GroupIs(Box<GroupStatus>),
    /// We are a member.
    Joined(Box<Joined>),
    /// We do not become one. The last event.
    Refused(Refusal),
    /// Permissions or ICE servers were replaced. Without `present` the server closes our up streams.
    Changed {
        /// What we may do now.
        permissions: Permissions,
        /// What new peer connections are to use.
        rtc: RtcConfiguration,
    },
    /// A down stream is offered, or renegotiated if the id is known.
    Offer(Box<Offer>),
    /// Our up stream is answered.
    Answer {
        /// The stream.
        id: String,
        /// The answer.
        sdp: String,
    },
    /// A candidate for any stream, perhaps before the offer or answer that it belongs to.
    Candidate {
        /// The stream.
        id: String,
        /// The candidate.
        candidate: Candidate,
    },
    /// The server wants a new offer with an ICE restart for our up stream.
    Renegotiate {
        /// The stream.
        id: String,
    },
    /// Our up stream is refused or taken off the air: answer with [`super::Client::close`].
    Abort {
        /// The stream.
        id: String,
    },
    /// A down stream has ended; an unknown id is normal.
    Close {
        /// The stream.
        id: String,
    },
    /// We are thrown out; [`Event::Disconnected`] follows at once, whether or not the server closes the connection.
    Kicked {
        /// The server itself did it (it shuts down, the last operator left), nobody in the room.
        by_server: bool,
        /// The reason given.
        message: String,
    },
    /// An operator asks us to mute ourselves: nobody else will.
    Mute,
    /// A member came, or was there before us. Our own id comes too.
    UserAdded {
        /// Client id.
        id: String,
        /// Name, perhaps empty.
        username: String,
    },
    /// A member's name or permissions changed.
    UserChanged {
        /// Client id.
        id: String,
        /// Name, perhaps empty.
        username: String,
    },
    /// A member left.
    UserDeleted {
        /// Client id.
        id: String,
        /// Name, perhaps empty.
        username: String,
    },
    /// Somebody wrote.
    Chat(Box<Chat>),
    /// A privileged `info`, `warning` or `error`, on one line.
    Notice(String),
    /// The connection is gone after we had joined. The last event.
    Disconnected {
        /// One plain line.
        reason: String,
    },
}

/// A membership as it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// Our client id.
    pub id: String,
    /// The name that the server gave us, which a token may have fixed.
    pub username: String,
    /// The group's name.
    pub group: String,
    /// What we may do.
    pub permissions: Permissions,
    /// ICE servers and policy.
    pub rtc: RtcConfiguration,
}
