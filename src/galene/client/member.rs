//! The second phase: from `joined` to the end.
//!
//! Galene vouches for nothing in a user message but `privileged`: any member that may write can send one of any kind,
//! even without `source` and `username`. So all kinds are believed with `privileged` alone, which the server sets on
//! its own ones as well; among those, a kick that names nobody is the server's.

use super::keepalive::{Due, KeepAlive};
use super::roster::Roster;
use super::{Event, Joined, Link, Phase};
use crate::galene::message::{
    ClientMessage, JoinedKind, JoinedMessage, Permissions, ServerMessage, UserKind, UserMessage,
};
use crate::time::{Deadline, Instant};

/// A member of its group.
#[derive(Debug)]
pub(super) struct Member {
    group: String,
    permissions: Permissions,
    roster: Roster,
    keep_alive: KeepAlive,
}

impl Member {
    pub(super) fn start(joined: Joined, link: &mut Link, now: Instant) -> Phase {
        let group = joined.group.clone();
        let permissions = joined.permissions;
        link.event(Event::Joined(Box::new(joined)));
        Phase::Member(Box::new(Self { group, permissions, roster: Roster::default(), keep_alive: KeepAlive::new(now) }))
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(super) fn permissions(&self) -> Permissions {
        self.permissions
    }

    pub(super) fn send(&mut self, link: &mut Link, now: Instant, message: &ClientMessage<'_>) {
        self.keep_alive.on_sent(now);
        link.send(message);
    }

    pub(super) fn on_message(mut self: Box<Self>, link: &mut Link, now: Instant, message: ServerMessage) -> Phase {
        self.keep_alive.on_received(now);
        match message {
            ServerMessage::Joined(joined) => return self.on_joined(link, *joined),
            ServerMessage::UserMessage(message) => return self.on_user_message(link, *message),
            ServerMessage::User { kind, id, username, .. } => self.on_user(link, kind, id, username),
            ServerMessage::Offer(offer) => link.event(Event::Offer(offer)),
            ServerMessage::Answer { id, sdp } => link.event(Event::Answer { id, sdp }),
            ServerMessage::Ice { id, candidate } => link.event(Event::Candidate { id, candidate }),
            ServerMessage::Renegotiate { id } => link.event(Event::Renegotiate { id }),
            ServerMessage::Close { id } => link.event(Event::Close { id }),
            ServerMessage::Abort { id } => link.event(Event::Abort { id }),
            ServerMessage::Chat(chat) => link.event(Event::Chat(chat)),
            ServerMessage::Ping => self.send(link, now, &ClientMessage::Pong),
            ServerMessage::Pong => {}
            ServerMessage::Handshake { .. } | ServerMessage::Unknown => link.ignored.unknown += 1,
        }
        Phase::Member(self)
    }

    pub(super) fn on_timeout(mut self: Box<Self>, link: &mut Link, now: Instant) -> Phase {
        match self.keep_alive.on_timeout(now) {
            Due::Nothing => {}
            Due::Ping => link.send(&ClientMessage::Ping),
            Due::Dead => {
                return link.end("Galene has not answered our pings: the server or the way to it is down".into());
            }
        }
        Phase::Member(self)
    }

    pub(super) fn next_timeout(&self) -> Deadline {
        self.keep_alive.next_timeout()
    }

    fn on_joined(mut self: Box<Self>, link: &mut Link, joined: JoinedMessage) -> Phase {
        match joined.kind {
            JoinedKind::Change if joined.group.is_empty() || joined.group == self.group => {
                self.permissions = joined.permissions;
                link.event(Event::Changed { permissions: joined.permissions, rtc: joined.rtc });
            }
            JoinedKind::Leave => return link.end("Galene took us out of the group".into()),
            JoinedKind::Join | JoinedKind::Fail | JoinedKind::Change | JoinedKind::Redirect | JoinedKind::Unknown => {
                link.ignored.unknown += 1
            }
        }
        Phase::Member(self)
    }

    fn on_user(&mut self, link: &mut Link, kind: UserKind, id: String, username: String) {
        link.event(match kind {
            UserKind::Delete => {
                self.roster.remove(&id);
                Event::UserDeleted { id, username }
            }
            UserKind::Add | UserKind::Change => match self.roster.set(&id, &username) || kind == UserKind::Change {
                true => Event::UserChanged { id, username },
                false => Event::UserAdded { id, username },
            },
        });
    }

    fn on_user_message(self: Box<Self>, link: &mut Link, message: UserMessage) -> Phase {
        let kind = message.kind.as_str();
        match (kind, message.privileged) {
            ("kicked", true) => {
                let text = message.value.clone().unwrap_or_else(|| "you have been kicked out".into());
                let by_server = message.is_from_server();
                link.event(Event::Kicked { by_server, message: text.clone() });
                return link.end(format!("thrown out by {}: {text}", if by_server { "Galene" } else { "an operator" }));
            }
            ("mute", true) => link.event(Event::Mute),
            ("info" | "warning" | "error", true) => link.event(Event::Notice(message.value.unwrap_or_default())),
            ("kicked" | "mute" | "info" | "warning" | "error" | "clearchat", false) => {
                link.forged(kind, message.username.as_deref());
            }
            _ => link.ignored.unknown += 1,
        }
        Phase::Member(self)
    }
}
