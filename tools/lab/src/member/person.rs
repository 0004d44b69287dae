//! One member's side of Galene's protocol.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde_json::{Value, json};

use super::crowd::{Key, Loop};
use super::event::MemberEventKind;
use super::recording::{HeardPacket, Recording};
use super::{MemberCommand, MemberConfig};
use crate::clock;
use crate::http;
use crate::message::{Message, random_id};
use crate::opus::Decoder;
use crate::pcm;
use crate::peer::{Packet, PeerEvent, first_mid, split_candidates};
use crate::websocket::Link;

/// Candidates of streams that are not offered yet; more than a stream ever has.
const MOST_EARLY_CANDIDATES: usize = 64;

pub(super) struct Person {
    pub(super) id: String,
    username: String,
    pub(super) link: Option<(Key, Link)>,
    joined: bool,
    pub(super) up: Option<Up>,
    pub(super) down: HashMap<String, Down>,
    pub(super) recordings: Vec<Recording>,
    /// Names of those in the room, by id.
    roster: BTreeMap<String, String>,
    early_candidates: Vec<(String, String)>,
}

pub(super) struct Up {
    pub(super) stream: String,
    pub(super) peer: Key,
    pub(super) offered_at: Instant,
}

pub(super) struct Down {
    pub(super) peer: Key,
    /// Where in `recordings` it is.
    recording: usize,
    /// Its sound since the last level was told.
    recent: Option<(Decoder, Vec<i16>)>,
}

/// What is known of a group before its WebSocket is opened.
pub(super) struct Entrance {
    pub(super) endpoint: String,
    group: String,
    location: String,
    auth_server: Option<String>,
    token: String,
}

impl Entrance {
    /// Asks the server about the group.
    pub(super) fn find(config: &MemberConfig) -> Result<Self, String> {
        let (page, query) = config.url.split_once('?').unwrap_or((&config.url, ""));
        let token = query.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default();
        let status_url = format!("{}/.status", page.trim_end_matches('/'));
        let response = http::get(&status_url, config.insecure)?;
        if response.status != 200 {
            return Err(format!("{status_url}: status {}", response.status));
        }
        let status: Value = serde_json::from_slice(&response.body).map_err(|error| format!("{status_url}: {error}"))?;
        let text = |name: &str| status[name].as_str().map(str::to_owned);
        let missing = |name: &str| format!("{status_url}: no {name}");
        Ok(Self {
            endpoint: text("endpoint").ok_or_else(|| missing("endpoint"))?,
            group: text("name").ok_or_else(|| missing("name"))?,
            location: text("location").unwrap_or_default(),
            auth_server: text("authServer").filter(|url| !url.is_empty()),
            token: token.to_owned(),
        })
    }

    /// The `join` message of a member: with a token from the URL or the authorisation server, else with the password.
    pub(super) fn join_message(&self, config: &MemberConfig, username: &str) -> Result<Message, String> {
        let mut token = self.token.clone();
        if let Some(url) = self.auth_server.as_ref().filter(|_| token.is_empty()) {
            let body = json!({"location": self.location, "username": username, "password": config.password});
            let response = http::post_json(url, &body.to_string(), config.insecure)?;
            match response.status {
                200 => token = String::from_utf8_lossy(&response.body).trim().to_owned(),
                204 => {}
                _ => return Err("not authorised".to_owned()),
            }
        }
        let password = if token.is_empty() { config.password.clone() } else { String::new() };
        let (group, username) = (self.group.clone(), Some(username.to_owned()));
        Ok(Message { group, username, password, token, ..Message::of_kind("join", "join") })
    }
}

impl Person {
    pub(super) fn new() -> Self {
        Self {
            id: random_id(),
            username: String::new(),
            link: None,
            joined: false,
            up: None,
            down: HashMap::new(),
            recordings: Vec::new(),
            roster: BTreeMap::new(),
            early_candidates: Vec::new(),
        }
    }

    /// An id of somebody who is named by id or by username; what nobody has stays as it is.
    fn resolve(&self, name: &str) -> String {
        let known = self.roster.iter().find(|(id, username)| *id == name || *username == name);
        known.map_or_else(|| name.to_owned(), |(id, _)| id.clone())
    }
}

impl Loop {
    pub(super) fn handle_text(&mut self, member: usize, text: &str) {
        // A real server may say what this client does not know.
        let Ok(message) = serde_json::from_str::<Message>(text) else { return };
        match message.type_.as_str() {
            "joined" => self.take_joined(member, message),
            "user" => self.take_user(member, message),
            "offer" => self.take_offer(member, &message),
            "answer" => self.take_answer(member, &message),
            "ice" => self.take_candidate(member, &message),
            "close" => self.close_down(member, &message.id),
            "abort" => self.lose_up(member, &message.id),
            "renegotiate" => self.offer_up(member, true, String::new()),
            "ping" => self.send(member, &Message::new("pong")),
            "chat" | "chathistory" => {
                let (username, value) = (message.username.unwrap_or_default(), message.value.unwrap_or_default());
                self.report(member, MemberEventKind::Chat { username, value });
            }
            "usermessage" => self.report(
                member,
                MemberEventKind::UserMessage {
                    kind: message.kind,
                    value: message.value.unwrap_or_default(),
                    privileged: message.privileged,
                    username: message.username,
                },
            ),
            _ => {}
        }
    }

    fn take_joined(&mut self, member: usize, message: Message) {
        let permissions = message.permissions.unwrap_or_default();
        let (publishes, listens) = (self.publishes(), self.config.listen);
        let person = &mut self.people[member];
        match message.kind.as_str() {
            "join" => {
                person.joined = true;
                person.username = message.username.unwrap_or_default();
                let (id, username) = (person.id.clone(), person.username.clone());
                let may_speak = permissions.iter().any(|permission| permission == "present");
                self.report(member, MemberEventKind::Joined { id, username, permissions });
                if listens {
                    let request = Some(json!({"": ["audio"]}));
                    self.send(member, &Message { request, ..Message::new("request") });
                }
                if publishes && may_speak {
                    self.offer_up(member, false, String::new());
                }
            }
            "fail" => {
                let text = message.value.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
                self.report(member, MemberEventKind::Refused(text));
                self.disconnect(member, "refused", true);
            }
            "change" => self.report(member, MemberEventKind::Permissions(permissions)),
            _ => {
                person.joined = false;
            }
        }
    }

    fn take_user(&mut self, member: usize, message: Message) {
        let username = message.username.unwrap_or_default();
        let roster = &mut self.people[member].roster;
        if message.kind == "delete" {
            roster.remove(&message.id);
        } else {
            roster.insert(message.id.clone(), username.clone());
        }
        let (kind, id, data) = (message.kind, message.id, message.data.unwrap_or_default());
        self.report(member, MemberEventKind::User { kind, id, username, data });
    }

    /// Offers the own stream, perhaps in the place of another, or the same stream again with an ICE restart.
    pub(super) fn offer_up(&mut self, member: usize, restart: bool, replace: String) {
        let known = self.people[member].up.as_ref().map(|up| (up.stream.clone(), up.peer));
        let (stream, peer) = match known {
            Some(known) if restart => known,
            Some(_) => return,
            None if restart => return,
            None => {
                let stream = random_id();
                let Some(peer) = self.add_peer(member, &stream, true) else { return };
                self.people[member].up = Some(Up { stream: stream.clone(), peer, offered_at: self.now });
                (stream, peer)
            }
        };
        let offer = self.peers.get_mut(&peer).map(|entry| entry.peer.offer(&stream, restart));
        if let Some(Ok(sdp)) = offer {
            self.describe(member, Message { label: "camera".into(), sdp, replace, ..Message::about("offer", &stream) });
        }
    }

    /// Offers a new stream in the place of the own one, as a browser does that changes its microphone.
    fn replace_up(&mut self, member: usize) {
        if let Some(up) = self.people[member].up.take() {
            self.remove_peer(up.peer);
            self.offer_up(member, false, up.stream);
        }
    }

    fn take_answer(&mut self, member: usize, message: &Message) {
        let Some(up) = self.people[member].up.as_ref().filter(|up| up.stream == message.id) else { return };
        let (peer, now) = (up.peer, self.now);
        let accepted = self.peers.get_mut(&peer).map(|entry| entry.peer.accept_answer(&message.sdp, now));
        if let Some(Err(_)) = accepted {
            self.lose_up(member, &message.id);
        }
    }

    fn take_offer(&mut self, member: usize, message: &Message) {
        let stream = message.id.as_str();
        if !message.replace.is_empty() {
            self.close_down(member, &message.replace);
        }
        let username = message.username.clone().unwrap_or_default();
        let peer = match self.people[member].down.get(stream) {
            Some(down) => down.peer,
            None => {
                let Some(peer) = self.add_peer(member, stream, false) else { return };
                let recording = Recording {
                    stream: message.id.clone(),
                    source: message.source.clone(),
                    username: username.clone(),
                    label: message.label.clone(),
                    offered_us: clock::now_us(),
                    ..Recording::default()
                };
                let recent = self.config.levels_every.and_then(|_| Decoder::new().ok()).map(|new| (new, Vec::new()));
                let person = &mut self.people[member];
                person.recordings.push(recording);
                let down = Down { peer, recording: person.recordings.len() - 1, recent };
                person.down.insert(stream.to_owned(), down);
                let (label, replace) = (message.label.clone(), message.replace.clone());
                let (stream, source) = (stream.to_owned(), message.source.clone());
                self.report(member, MemberEventKind::Offered { stream, source, username, label, replace });
                peer
            }
        };
        let now = self.now;
        let answer = self.peers.get_mut(&peer).map(|entry| entry.peer.accept_offer(&message.sdp, now));
        match answer {
            Some(Ok(sdp)) => {
                self.describe(member, Message { sdp, ..Message::about("answer", stream) });
                let early = &mut self.people[member].early_candidates;
                let (ours, others) = std::mem::take(early).into_iter().partition(|(id, _)| id == stream);
                *early = others;
                let candidates: Vec<(String, String)> = ours;
                if let Some(entry) = self.peers.get_mut(&peer) {
                    candidates.iter().for_each(|(_, candidate)| entry.peer.add_candidate(candidate));
                }
            }
            Some(Err(_)) => self.send(member, &Message::about("abort", stream)),
            None => {}
        }
    }

    fn describe(&mut self, member: usize, mut message: Message) {
        let (sdp, candidates) = split_candidates(&message.sdp);
        if !self.config.trickle {
            return self.send(member, &message);
        }
        message.sdp = sdp;
        self.send(member, &message);
        for candidate in candidates {
            self.send(member, &Message::ice(&message.id, first_mid(&message.sdp), &candidate));
        }
    }

    fn take_candidate(&mut self, member: usize, message: &Message) {
        let Some(candidate) = message.candidate.as_ref().filter(|candidate| !candidate.candidate.is_empty()) else {
            return;
        };
        let person = &mut self.people[member];
        let up = person.up.as_ref().filter(|up| up.stream == message.id).map(|up| up.peer);
        let peer = up.or_else(|| person.down.get(&message.id).map(|down| down.peer));
        match peer.and_then(|peer| self.peers.get_mut(&peer)) {
            Some(entry) => entry.peer.add_candidate(&candidate.candidate),
            None if person.early_candidates.len() < MOST_EARLY_CANDIDATES => {
                person.early_candidates.push((message.id.clone(), candidate.candidate.clone()));
            }
            None => {}
        }
    }

    fn close_down(&mut self, member: usize, stream: &str) {
        let person = &mut self.people[member];
        let Some(down) = person.down.remove(stream) else { return };
        if let Some(recording) = person.recordings.get_mut(down.recording) {
            recording.closed_us = clock::now_us();
        }
        self.remove_peer(down.peer);
        self.report(member, MemberEventKind::Closed { stream: stream.to_owned() });
    }

    fn lose_up(&mut self, member: usize, stream: &str) {
        if self.people[member].up.as_ref().is_some_and(|up| up.stream == stream) {
            self.close_up(member);
            self.report(member, MemberEventKind::UpAborted);
        }
    }

    fn close_up(&mut self, member: usize) {
        if let Some(up) = self.people[member].up.take() {
            self.send(member, &Message::about("close", &up.stream));
            self.remove_peer(up.peer);
        }
    }

    /// Ends a member's connection, with a goodbye or as if the network had died.
    pub(super) fn disconnect(&mut self, member: usize, reason: &str, goodbye: bool) {
        let Some(link) = self.take_link(member) else { return };
        let person = &mut self.people[member];
        person.joined = false;
        let mut peers: Vec<Key> = person.down.drain().map(|(_, down)| down.peer).collect();
        peers.extend(person.up.take().map(|up| up.peer));
        for recording in &mut person.recordings {
            if recording.closed_us == 0 {
                recording.closed_us = clock::now_us();
            }
        }
        for peer in peers {
            if goodbye {
                self.remove_peer(peer);
            } else {
                self.forget_peer(peer);
            }
        }
        if goodbye {
            let mut link = link;
            link.close(1000, "");
        }
        self.report(member, MemberEventKind::Disconnected(reason.to_owned()));
    }

    pub(super) fn handle_peer_event(&mut self, member: usize, stream: &str, is_up: bool, event: PeerEvent) {
        match event {
            PeerEvent::Connected if is_up => {
                self.begin_to_speak(member);
                self.report(member, MemberEventKind::UpConnected);
            }
            PeerEvent::Connected => {
                if let Some(recording) = self.recording(member, stream) {
                    recording.connected_us = clock::now_us();
                    let (stream, username) = (stream.to_owned(), recording.username.clone());
                    self.report(member, MemberEventKind::Connected { stream, username });
                }
            }
            PeerEvent::Packet(packet) if !is_up => self.hear(member, stream, packet),
            PeerEvent::IceFailed if !is_up => self.send(member, &Message::about("renegotiate", stream)),
            // The server asks for a restart of what it is sent, and tells of the end of streams by messages.
            PeerEvent::IceFailed | PeerEvent::Closed | PeerEvent::Packet(_) | PeerEvent::Nack(_) => {}
        }
    }

    fn recording(&mut self, member: usize, stream: &str) -> Option<&mut Recording> {
        let person = &mut self.people[member];
        let down = person.down.get(stream)?;
        person.recordings.get_mut(down.recording)
    }

    fn hear(&mut self, member: usize, stream: &str, packet: Packet) {
        let person = &mut self.people[member];
        let Some(down) = person.down.get_mut(stream) else { return };
        let Some(recording) = person.recordings.get_mut(down.recording) else { return };
        if let Some((decoder, samples)) = &mut down.recent {
            samples.extend(decoder.decode(&packet.payload));
        }
        let is_first = recording.packets.is_empty();
        let Packet { payload_type, sequence, timestamp, marker, payload } = packet;
        let at_us = clock::now_us();
        recording.packets.push(HeardPacket { at_us, payload_type, sequence, timestamp, marker, payload });
        if is_first {
            let (stream, username) = (stream.to_owned(), recording.username.clone());
            self.report(member, MemberEventKind::FirstPacket { stream, username });
        }
    }

    pub(super) fn tell_levels(&mut self) {
        let mut events = Vec::new();
        for (member, person) in self.people.iter_mut().enumerate() {
            for (stream, down) in &mut person.down {
                let Some((_, samples)) = down.recent.as_mut().filter(|(_, samples)| !samples.is_empty()) else {
                    continue;
                };
                let dbfs = pcm::level_dbfs(samples);
                samples.clear();
                let username = person.recordings.get(down.recording).map(|recording| recording.username.clone());
                let (stream, username) = (stream.clone(), username.unwrap_or_default());
                events.push((member, MemberEventKind::Level { stream, username, dbfs }));
            }
        }
        for (member, kind) in events {
            self.report(member, kind);
        }
    }

    pub(super) fn obey(&mut self, member: usize, command: MemberCommand) {
        let Some(person) = self.people.get(member) else { return };
        let (source, username) = (person.id.clone(), Some(person.username.clone()));
        let own = |type_: &str, kind: &str| Message { source, username, ..Message::of_kind(type_, kind) };
        match command {
            MemberCommand::Speak { at_us } => self.speak_at(member, at_us),
            MemberCommand::Chat(text) => {
                let message = Message { value: Some(json!(text)), ..own("chat", "") };
                self.send(member, &message);
            }
            MemberCommand::Action { kind, dest, value } => {
                let dest = person.resolve(&dest);
                self.send(member, &Message { dest, value: Some(value), ..own("useraction", &kind) });
            }
            MemberCommand::UserMessage { kind, dest, value } => {
                let dest = person.resolve(&dest);
                self.send(member, &Message { dest, value: Some(value), ..own("usermessage", &kind) });
            }
            MemberCommand::Send(value) => self.send_text(member, &value.to_string()),
            MemberCommand::Unpublish => self.close_up(member),
            MemberCommand::Publish => self.offer_up(member, false, String::new()),
            MemberCommand::Replace => self.replace_up(member),
            MemberCommand::Leave => self.disconnect(member, "left", true),
            MemberCommand::Vanish => self.disconnect(member, "vanished", false),
        }
    }
}
