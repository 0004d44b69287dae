//! One member of one group: joining, roster, streams' messages, pings, leaving. A pure machine.
//!
//! Owns: the whole way in (status → authorisation server → WebSocket → handshake → join), which messages are believed,
//! and when the server counts as dead. Does not own: connections, which are asked for by [`Output`] and reported by
//! [`Input`]; peer connections, whose SDP and candidates pass through unread; what becomes of the caller.
//!
//! ```text
//! Joining ─┬─ joined ─▶ Member ─┬─▶ Closed
//!          └─ Refused ──────────┴─ Kicked, Disconnected, leave
//! ```

mod joining;
mod keepalive;
mod member;
mod roster;
mod words;

use std::collections::VecDeque;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::message::{Candidate, ClientMessage, Permissions, Requested, ServerMessage};
use super::refusal::Refusal;
use crate::random::Random;
use crate::time::{Deadline, Instant};
pub use joining::JOIN_TIMEOUT;
use joining::Joining;
pub use keepalive::{DEAD_AFTER, PING_AFTER};
use member::Member;
pub use roster::{MAX_MEMBERS, Roster};
pub use words::{ClientConfig, Credentials, Event, HttpResponse, Input, Joined, Output, RequestKey};

/// The version of Galene's protocol that we speak.
const PROTOCOL_VERSION: &str = "2";

/// What was received and not obeyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Messages that are no message.
    pub garbled: u64,
    /// User messages that ask for what only operators and the server may.
    pub forged: u64,
    /// Messages of types that we do not know, or out of place.
    pub unknown: u64,
}

/// One member of one group.
#[derive(Debug)]
pub struct Client {
    link: Link,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Joining(Box<Joining>),
    Member(Box<Member>),
    Closed,
}

/// What every phase needs: who we are and the way out.
#[derive(Debug)]
struct Link {
    id: String,
    random: Random,
    output: VecDeque<Output>,
    requests: u64,
    /// A WebSocket was asked for and is not known to be gone.
    has_socket: bool,
    ignored: Ignored,
}

impl Link {
    fn send(&mut self, message: &ClientMessage<'_>) {
        self.output.push_back(Output::Send(message.to_text()));
    }

    fn event(&mut self, event: Event) {
        self.output.push_back(Output::Event(event));
    }

    fn new_request(&mut self) -> RequestKey {
        self.requests += 1;
        RequestKey(self.requests)
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.has_socket) {
            self.output.push_back(Output::Disconnect);
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Phase {
        self.event(Event::Refused(refusal));
        self.disconnect();
        Phase::Closed
    }

    fn end(&mut self, reason: String) -> Phase {
        self.event(Event::Disconnected { reason });
        self.disconnect();
        Phase::Closed
    }

    fn forged(&mut self, kind: &str, username: Option<&str>) {
        self.ignored.forged += 1;
        if self.ignored.forged == 1 {
            let username = username.unwrap_or("somebody without a name");
            tracing::warn!(
                "galene: ignored a '{kind}' from {username:?}, who is no operator; further ones are only counted"
            );
        }
    }
}

impl Client {
    /// Starts to join.
    pub fn new(config: ClientConfig, mut random: Random, now: Instant) -> Self {
        let id = new_id(&mut random);
        let mut link =
            Link { id, random, output: VecDeque::new(), requests: 0, has_socket: false, ignored: Ignored::default() };
        let phase = Joining::start(config, &mut link, now);
        Self { link, phase }
    }

    /// Our client id, from the start: 8 random bytes.
    pub fn id(&self) -> &str {
        &self.link.id
    }

    /// A new stream id: 8 random bytes.
    pub fn new_stream_id(&mut self) -> String {
        new_id(&mut self.link.random)
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        let message = match input {
            Input::Response { request, result } => {
                return self.step(|phase, link| match phase {
                    Phase::Joining(joining) => joining.on_response(link, request, result),
                    Phase::Member(_) | Phase::Closed => phase,
                });
            }
            Input::Connected => {
                return self.step(|phase, link| match phase {
                    Phase::Joining(joining) => joining.on_connected(link),
                    Phase::Member(_) | Phase::Closed => phase,
                });
            }
            Input::Disconnected(fault) => {
                if !std::mem::take(&mut self.link.has_socket) {
                    return;
                }
                return self.step(|phase, link| match phase {
                    Phase::Joining(joining) => joining.on_disconnected(link, fault),
                    Phase::Member(_) => link.end(fault.to_string()),
                    Phase::Closed => phase,
                });
            }
            Input::Text(text) => match ServerMessage::parse(text) {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!("galene: ignored a message: {error}");
                    self.link.ignored.garbled += 1;
                    return;
                }
            },
        };
        self.step(|phase, link| match phase {
            Phase::Joining(joining) => joining.on_message(link, now, message),
            Phase::Member(member) => member.on_message(link, now, message),
            Phase::Closed => phase,
        });
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.step(|phase, link| match phase {
            Phase::Joining(joining) => joining.on_timeout(link, now),
            Phase::Member(member) => member.on_timeout(link, now),
            Phase::Closed => phase,
        });
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn next_timeout(&self) -> Option<Deadline> {
        match &self.phase {
            Phase::Joining(joining) => Some(joining.next_timeout()),
            Phase::Member(member) => Some(member.next_timeout()),
            Phase::Closed => None,
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.link.output.pop_front()
    }

    /// True from the last event or [`Self::leave`] on; outputs may still wait to be polled.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Who is in the group, ourselves included; empty unless joined.
    pub fn roster(&self) -> &Roster {
        match &self.phase {
            Phase::Member(member) => member.roster(),
            Phase::Joining(_) | Phase::Closed => Roster::EMPTY,
        }
    }

    /// What we may do now; nothing unless joined.
    pub fn permissions(&self) -> Permissions {
        match &self.phase {
            Phase::Member(member) => member.permissions(),
            Phase::Joining(_) | Phase::Closed => Permissions::default(),
        }
    }

    /// What was received and not obeyed.
    pub fn ignored(&self) -> Ignored {
        self.link.ignored
    }

    /// Asks for the audio of every stream. Like all that follow, it does nothing unless joined: Galene ends the
    /// connection of a client that asks for streams before that.
    pub fn request_audio(&mut self, now: Instant) {
        self.send(now, &ClientMessage::Request { request: Requested { any_label: &["audio"] } });
    }

    /// Asks for no stream any more: the server closes all down streams.
    pub fn request_nothing(&mut self, now: Instant) {
        self.send(now, &ClientMessage::Request { request: Requested { any_label: &[] } });
    }

    /// Offers an up stream, or renegotiates it if the id is in use.
    pub fn send_offer(&mut self, now: Instant, id: &str, label: &str, sdp: &str) {
        self.send(now, &ClientMessage::Offer { id, label, sdp });
    }

    /// Answers a down stream's offer.
    pub fn send_answer(&mut self, now: Instant, id: &str, sdp: &str) {
        self.send(now, &ClientMessage::Answer { id, sdp });
    }

    /// Trickles one of our candidates.
    pub fn send_candidate(&mut self, now: Instant, id: &str, candidate: &Candidate) {
        self.send(now, &ClientMessage::Ice { id, candidate });
    }

    /// Asks for a new offer with an ICE restart of a down stream.
    pub fn renegotiate(&mut self, now: Instant, id: &str) {
        self.send(now, &ClientMessage::Renegotiate { id });
    }

    /// Refuses or ends a down stream; a `close` follows from the server.
    pub fn abort(&mut self, now: Instant, id: &str) {
        self.send(now, &ClientMessage::Abort { id });
    }

    /// Ends an up stream.
    pub fn close(&mut self, now: Instant, id: &str) {
        self.send(now, &ClientMessage::Close { id });
    }

    /// Leaves the group, or gives up joining. No event follows, perhaps an [`Output::Disconnect`].
    ///
    /// The end of the connection is the whole goodbye: Galene 1.1 crashes if it has news of a member for a client that has
    /// just sent `leave` and is still connected.
    pub fn leave(&mut self) {
        self.step(|_, link| {
            link.disconnect();
            Phase::Closed
        });
    }

    fn send(&mut self, now: Instant, message: &ClientMessage<'_>) {
        if let Phase::Member(member) = &mut self.phase {
            member.send(&mut self.link, now, message);
        }
    }

    /// A phase is consumed by what happens to it, so that an old one cannot be touched after the transition.
    fn step(&mut self, transition: impl FnOnce(Phase, &mut Link) -> Phase) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        self.phase = transition(phase, &mut self.link);
    }
}

/// Eight random bytes in URL-safe base64.
fn new_id(random: &mut Random) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random.next_u64().to_be_bytes())
}
