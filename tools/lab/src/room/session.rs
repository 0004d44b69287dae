//! One client of the room server and its messages: handshake, joining, leaving, talk and actions.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::admission::{self, Credentials, Occupancy, Refusal};
use super::config::GroupConfig;
use super::event::{ClientName, RoomEventKind};
use super::server::{Deferred, Key, Server};
use super::streams::{Down, Up};
use super::web;
use crate::message::Message;

/// Galene lets a client that is not authorised wait so long for the answer.
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_millis(200);
/// WebSocket close codes (RFC 6455 §7.4.1).
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_PROTOCOL_ERROR: u16 = 1002;
const CLOSE_INTERNAL_ERROR: u16 = 1011;

pub(super) struct Client {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) permissions: Vec<String>,
    pub(super) data: Map<String, Value>,
    pub(super) group: Option<usize>,
    /// What it wants of streams, by label; the empty label is the default.
    pub(super) requested: HashMap<String, Vec<String>>,
    pub(super) up: BTreeMap<String, Up>,
    pub(super) down: BTreeMap<String, Down>,
    handshaken: bool,
    last_heard: Instant,
    ghost_until: Option<Instant>,
}

/// What ends a client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fatal {
    /// It broke the protocol.
    Protocol(String),
    /// It asked for what does not exist.
    User(String),
    /// Somebody or (with `None`) the server threw it out.
    Kick { by: Option<ClientName>, message: String },
    /// Anything else, which Galene keeps to itself.
    Internal(String),
}

impl Client {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            id: String::new(),
            username: String::new(),
            permissions: Vec::new(),
            data: Map::new(),
            group: None,
            requested: HashMap::new(),
            up: BTreeMap::new(),
            down: BTreeMap::new(),
            handshaken: false,
            last_heard: now,
            ghost_until: None,
        }
    }

    pub(super) fn may(&self, permission: &str) -> bool {
        self.permissions.iter().any(|held| held == permission)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        let pushes = self.up.values().flat_map(|up| up.pushes.iter().map(|push| push.due));
        pushes.chain(self.ghost_until).min()
    }

    pub(super) fn user_message(&self, kind: &str) -> Message {
        Message {
            id: self.id.clone(),
            username: Some(self.username.clone()),
            permissions: (kind != "delete").then(|| self.permissions.clone()),
            data: (kind != "delete" && !self.data.is_empty()).then(|| Value::Object(self.data.clone())),
            ..Message::of_kind("user", kind)
        }
    }
}

impl Server {
    pub(super) fn handle_texts(&mut self, key: Key, texts: Vec<String>) {
        for text in texts {
            let result = match serde_json::from_str::<Message>(&text) {
                Ok(message) => self.handle_message(key, message),
                Err(error) => Err(Fatal::Internal(format!("no message: {error}"))),
            };
            if let Err(fatal) = result {
                self.fail(key, fatal);
                return;
            }
            if !self.clients.contains_key(&key) {
                return;
            }
        }
    }

    fn handle_message(&mut self, key: Key, message: Message) -> Result<(), Fatal> {
        let now = self.now;
        let Some(client) = self.clients.get_mut(&key) else { return Ok(()) };
        client.last_heard = now;
        if !client.handshaken {
            return self.shake_hands(key, &message);
        }
        if !message.source.is_empty() && message.source != client.id {
            return Err(Fatal::Protocol("spoofed client id".into()));
        }
        if message.type_ != "join" && message.username.as_ref().is_some_and(|name| *name != client.username) {
            return Err(Fatal::Protocol("spoofed username".into()));
        }
        match message.type_.as_str() {
            "join" => self.join_or_leave(key, message),
            "request" => self.request(key, &message),
            "requestStream" => self.request_stream(key, &message),
            "offer" | "answer" | "renegotiate" | "close" | "abort" | "ice" if message.id.is_empty() => {
                Err(Fatal::Protocol("empty id".into()))
            }
            "offer" => {
                self.take_offer(key, &message);
                Ok(())
            }
            "answer" => self.take_answer(key, &message),
            "renegotiate" => {
                self.negotiate(key, &message.id, true, "");
                Ok(())
            }
            "close" => {
                self.close_up(key, &message.id, true);
                Ok(())
            }
            "abort" => {
                self.report(key, RoomEventKind::DownAborted { stream: message.id.clone() });
                self.close_down(key, &message.id, "");
                Ok(())
            }
            "ice" => self.take_candidate(key, &message),
            "chat" | "usermessage" => {
                self.talk(key, message);
                Ok(())
            }
            "groupaction" => self.group_action(key, &message),
            "useraction" => self.user_action(key, &message),
            "ping" => {
                self.send(key, &Message::new("pong"));
                Ok(())
            }
            "pong" => Ok(()),
            _ => Err(Fatal::Protocol("unexpected message".into())),
        }
    }

    fn shake_hands(&mut self, key: Key, message: &Message) -> Result<(), Fatal> {
        if message.type_ != "handshake" {
            return Err(Fatal::Protocol("you must handshake first".into()));
        }
        if let Some(client) = self.clients.get_mut(&key) {
            client.handshaken = true;
            client.id = message.id.clone();
        }
        self.send(key, &Message { version: vec!["2".into()], ..Message::new("handshake") });
        if !message.version.iter().any(|version| version == "2") {
            self.notify(key, "warning", "This client is using an unknown protocol version.");
        }
        Ok(())
    }

    fn join_or_leave(&mut self, key: Key, message: Message) -> Result<(), Fatal> {
        let Some(client) = self.clients.get_mut(&key) else { return Ok(()) };
        let inside = client.group.map(|group| self.groups[group].config.name.as_str());
        match message.kind.as_str() {
            // Galene 1.1 dies of it if news of another member waits for this client, who has no group then.
            "leave" => Err(Fatal::Protocol("'leave' may crash the server: close the connection instead".into())),
            "join" if inside.is_some() => Err(Fatal::Protocol("cannot join multiple groups".into())),
            "join" => {
                if let Some(Value::Object(data)) = message.data.clone() {
                    client.data = data;
                }
                self.join(key, &message);
                Ok(())
            }
            _ => Err(Fatal::Protocol("unknown kind".into())),
        }
    }

    fn join(&mut self, key: Key, message: &Message) {
        let credentials =
            Credentials { username: message.username.as_deref(), password: &message.password, token: &message.token };
        let admitted = self.admit(key, &message.group, &credentials);
        let Some(client) = self.clients.get_mut(&key) else { return };
        let group = match admitted {
            Ok((group, admission)) => {
                client.username = admission.username;
                client.permissions = admission.permissions;
                group
            }
            Err(refusal) => {
                let (error, text) = refusal.words();
                let answer = Message {
                    error: error.into(),
                    group: message.group.clone(),
                    username: Some(client.username.clone()),
                    value: Some(json!(text)),
                    ..Message::of_kind("joined", "fail")
                };
                let pause = if refusal == Refusal::NotAuthorised { WRONG_PASSWORD_PAUSE } else { Duration::ZERO };
                self.deferred.push(Deferred { due: self.now + pause, client: key, message: answer });
                return self.report(key, RoomEventKind::Refused(text.to_owned()));
            }
        };
        if let Some(url) = self.groups[group].config.redirect.clone() {
            let answer = Message {
                group: message.group.clone(),
                value: Some(json!(url)),
                ..Message::of_kind("joined", "redirect")
            };
            return self.send(key, &answer);
        }
        client.group = Some(group);
        self.welcome(key, group);
    }

    fn admit(
        &self,
        key: Key,
        name: &str,
        credentials: &Credentials<'_>,
    ) -> Result<(usize, admission::Admission), Refusal> {
        let group = self.groups.iter().position(|group| group.config.name == name);
        let group = group.ok_or_else(|| Refusal::Other("group does not exist".into()))?;
        let occupancy = Occupancy {
            locked: self.groups[group].locked.as_deref(),
            clients: self.members(group).count(),
            has_operator: self.members(group).any(|(_, client)| client.may("op")),
        };
        let admission = admission::admit(&self.groups[group].config, occupancy, credentials)?;
        let id = self.clients.get(&key).map_or("", |client| client.id.as_str());
        // Galene tells neither mistake to the client.
        if id.is_empty() || self.members(group).any(|(_, client)| client.id == id) {
            return Err(Refusal::Other("internal server error".into()));
        }
        Ok((group, admission))
    }

    fn welcome(&mut self, key: Key, group: usize) {
        let joined = self.joined_message(key, "join");
        self.send(key, &joined);
        for message in self.groups[group].history.clone() {
            self.send(key, &message);
        }
        let others: Vec<Key> = self.members(group).map(|(other, _)| other).filter(|other| *other != key).collect();
        let Some(client) = self.clients.get(&key) else { return };
        let (announcement, permissions) = (client.user_message("add"), client.permissions.clone());
        self.send(key, &announcement);
        for other in others {
            if let Some(message) = self.clients.get(&other).map(|other| other.user_message("add")) {
                self.send(key, &message);
            }
            self.send(other, &announcement);
        }
        self.report(key, RoomEventKind::Joined { permissions });
    }

    pub(super) fn joined_message(&self, key: Key, kind: &str) -> Message {
        let mut message = Message::of_kind("joined", kind);
        let Some(client) = self.clients.get(&key) else { return message };
        message.username = Some(client.username.clone());
        message.permissions = Some(client.permissions.clone());
        let mut configuration = json!({});
        if self.config.ice_servers.as_array().is_some_and(|servers| !servers.is_empty()) {
            configuration["iceServers"] = self.config.ice_servers.clone();
        }
        if self.config.relay_only {
            configuration["iceTransportPolicy"] = json!("relay");
        }
        message.rtc_configuration = Some(configuration);
        if let Some(group) = client.group {
            message.group = self.groups[group].config.name.clone();
            let occupancy =
                web::Occupancy { locked: self.groups[group].locked.is_some(), clients: self.members(group).count() };
            message.status = Some(web::private_status(&self.groups[group].config, &occupancy));
        }
        message
    }

    /// Those inside a group, ghosts among them.
    pub(super) fn members(&self, group: usize) -> impl Iterator<Item = (Key, &Client)> {
        let inside = move |(_, client): &(&Key, &Client)| client.group == Some(group);
        self.clients.iter().filter(inside).map(|(key, client)| (*key, client))
    }

    pub(super) fn broadcast(&mut self, group: usize, except: Option<Key>, message: &Message) {
        let text = message.to_text();
        let keys: Vec<Key> = self.members(group).map(|(key, _)| key).filter(|key| Some(*key) != except).collect();
        for key in keys {
            self.send_text(key, &text);
        }
    }

    /// Takes a client out of its group, which it may enter again.
    pub(super) fn leave_group(&mut self, key: Key) {
        let Some(client) = self.clients.get(&key) else { return };
        let Some(group) = client.group else { return };
        let (ups, downs): (Vec<_>, Vec<_>) =
            (client.up.keys().cloned().collect(), client.down.keys().cloned().collect());
        for stream in ups {
            self.close_up(key, &stream, true);
        }
        for stream in downs {
            self.delete_down(key, &stream);
        }
        self.report(key, RoomEventKind::Left);
        let Some(client) = self.clients.get_mut(&key) else { return };
        let goodbye = client.user_message("delete");
        client.group = None;
        client.permissions.clear();
        client.data.clear();
        client.requested.clear();
        let left = Message {
            group: self.groups[group].config.name.clone(),
            username: goodbye.username.clone(),
            ..Message::of_kind("joined", "leave")
        };
        self.send(key, &left);
        self.broadcast(group, Some(key), &goodbye);
        self.kick_the_unattended(group);
    }

    fn kick_the_unattended(&mut self, group: usize) {
        if !self.groups[group].config.autokick || self.members(group).any(|(_, client)| client.may("op")) {
            return;
        }
        let keys: Vec<Key> = self.members(group).map(|(key, _)| key).collect();
        for key in keys {
            self.fail(key, Fatal::Kick { by: None, message: "there are no operators in this group".into() });
        }
    }

    /// Ends a client's connection with a reason.
    pub(super) fn fail(&mut self, key: Key, fatal: Fatal) {
        let dest = self.clients.get(&key).map(|client| client.id.clone()).unwrap_or_default();
        match &fatal {
            Fatal::Protocol(text) => {
                self.notify(key, "error", text);
                self.report(key, RoomEventKind::ProtocolError(text.clone()));
            }
            Fatal::User(text) => {
                self.notify(key, "error", text);
                self.report(key, RoomEventKind::ProtocolError(text.clone()));
            }
            Fatal::Kick { by, message } => {
                let message = if message.is_empty() { "you have been kicked out" } else { message };
                let mut kicked = Message {
                    dest,
                    privileged: true,
                    value: Some(json!(message)),
                    ..Message::of_kind("usermessage", "kicked")
                };
                if let Some(by) = by {
                    kicked.id = by.id.clone();
                    kicked.username = Some(by.username.clone());
                }
                self.send(key, &kicked);
                self.report(key, RoomEventKind::Kicked(message.to_owned()));
            }
            Fatal::Internal(text) => self.report(key, RoomEventKind::ProtocolError(text.clone())),
        }
        let (code, reason) = match &fatal {
            Fatal::Protocol(text) => (CLOSE_PROTOCOL_ERROR, text.as_str()),
            Fatal::User(text) => (CLOSE_NORMAL, text.as_str()),
            Fatal::Kick { message, .. } => (CLOSE_NORMAL, message.as_str()),
            Fatal::Internal(_) => (CLOSE_INTERNAL_ERROR, ""),
        };
        self.close_connection(key, code, reason);
        self.forget_client(key);
    }

    fn forget_client(&mut self, key: Key) {
        self.leave_group(key);
        self.clients.remove(&key);
    }

    /// The connection of a client is gone: with a goodbye the client is too, without one it may linger.
    pub(super) fn lose_connection(&mut self, key: Key, clean: bool) {
        self.drop_connection(key);
        let joined = self.clients.get(&key).is_some_and(|client| client.group.is_some());
        match self.config.ghost.filter(|_| joined && !clean) {
            Some(lingering) => {
                self.report(key, RoomEventKind::Ghost);
                if let Some(client) = self.clients.get_mut(&key) {
                    client.ghost_until = Some(self.now + lingering);
                }
            }
            None => self.forget_client(key),
        }
    }

    pub(super) fn bury_ghosts(&mut self) {
        let now = self.now;
        let due = |client: &Client| client.ghost_until.is_some_and(|until| until <= now);
        let keys: Vec<Key> = self.clients.iter().filter(|(_, client)| due(client)).map(|(key, _)| *key).collect();
        for key in keys {
            self.forget_client(key);
        }
    }

    pub(super) fn check_liveness(&mut self) {
        let silences: Vec<(Key, Duration)> = self
            .clients
            .iter()
            .filter(|(key, _)| self.is_connected(**key))
            .map(|(key, client)| (*key, self.now.saturating_duration_since(client.last_heard)))
            .collect();
        for (key, silence) in silences {
            if silence > self.config.dead_after {
                self.fail(key, Fatal::Internal("client is dead".into()));
            } else if silence > self.config.ping_after {
                self.send(key, &Message::new("ping"));
            }
        }
    }

    /// A privileged usermessage of the server's own.
    pub(super) fn notify(&mut self, key: Key, kind: &str, text: &str) {
        let dest = self.clients.get(&key).map(|client| client.id.clone()).unwrap_or_default();
        let (privileged, value) = (true, Some(json!(text)));
        self.send(key, &Message { dest, privileged, value, ..Message::of_kind("usermessage", kind) });
    }

    pub(super) fn group_config(&self, key: Key) -> Option<(usize, &GroupConfig)> {
        let group = self.clients.get(&key)?.group?;
        Some((group, &self.groups[group].config))
    }
}
