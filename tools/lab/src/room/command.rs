//! What tests and people make a running room server do, and how it shows itself to them.

use serde_json::Value;

use super::event::{ClientName, ClientSnapshot, RoomCommand, RoomSnapshot, StreamSnapshot};
use super::server::{Key, Server};
use super::session::{Client, Fatal};
use super::streams::Stats;
use crate::message::Message;

impl Server {
    pub(super) fn obey(&mut self, command: RoomCommand) {
        match command {
            RoomCommand::Kick { client, by, message } => {
                for key in self.named(&client) {
                    self.fail(key, Fatal::Kick { by: by.clone(), message: message.clone() });
                }
            }
            RoomCommand::ShutDown { message } => {
                self.stop_listening();
                let keys: Vec<Key> = self.clients.keys().copied().collect();
                for key in keys {
                    self.fail(key, Fatal::Kick { by: None, message: message.clone() });
                }
            }
            RoomCommand::Send { client, message } => {
                for key in self.named(&client) {
                    self.send_text(key, &message.to_string());
                }
            }
            RoomCommand::SetPermissions { client, permissions } => {
                for key in self.named(&client) {
                    self.set_permissions(key, permissions.clone());
                }
            }
            RoomCommand::Lock { group, message } => {
                if let Some(group) = self.groups.iter().position(|known| known.config.name == group) {
                    self.lock(group, message);
                }
            }
            RoomCommand::RestartIce { client } => {
                for (key, stream) in self.streams_of(&client, |client| client.down.keys().cloned().collect()) {
                    self.negotiate(key, &stream, true, "");
                }
            }
            RoomCommand::AskRenegotiation { client } => {
                for (key, stream) in self.streams_of(&client, |client| client.up.keys().cloned().collect()) {
                    self.send(key, &Message::about("renegotiate", &stream));
                }
            }
            RoomCommand::AbortUp { client } => {
                for (key, stream) in self.streams_of(&client, |client| client.up.keys().cloned().collect()) {
                    self.close_up(key, &stream, true);
                    self.refuse_up(key, &stream, "not authorised");
                }
            }
            RoomCommand::Cut { client } => {
                for key in self.named(&client) {
                    self.lose_connection(key, false);
                }
            }
            RoomCommand::Impair(impairment) => self.impair(impairment),
        }
    }

    /// The clients of this id or name.
    fn named(&self, name: &str) -> Vec<Key> {
        let is = |client: &Client| client.id == name || client.username == name;
        self.clients.iter().filter(|(_, client)| is(client)).map(|(key, _)| *key).collect()
    }

    fn streams_of(&self, name: &str, ids: impl Fn(&Client) -> Vec<String>) -> Vec<(Key, String)> {
        let of = |key: Key| self.clients.get(&key).map(&ids).unwrap_or_default();
        self.named(name).into_iter().flat_map(|key| of(key).into_iter().map(move |stream| (key, stream))).collect()
    }

    pub(super) fn snapshot(&self) -> RoomSnapshot {
        let inside = self.clients.values().filter(|client| client.group.is_some());
        RoomSnapshot {
            clients: inside.map(|client| self.client_snapshot(client)).collect(),
            connections: self.open_connections(),
            peers: self.peers.len(),
        }
    }

    fn client_snapshot(&self, client: &Client) -> ClientSnapshot {
        let group = client.group.map(|group| self.groups[group].config.name.clone());
        let up = client.up.iter().map(|(id, up)| {
            let stats = up.track.as_ref().map(|track| track.stats).unwrap_or_default();
            self.stream_snapshot(id, up.peer, stats)
        });
        let down = client.down.iter().map(|(id, down)| self.stream_snapshot(id, down.peer, down.stats));
        ClientSnapshot {
            group: group.unwrap_or_default(),
            name: ClientName { id: client.id.clone(), username: client.username.clone() },
            permissions: client.permissions.clone(),
            data: Value::Object(client.data.clone()),
            up: up.collect(),
            down: down.collect(),
        }
    }

    fn stream_snapshot(&self, id: &str, peer: Key, stats: Stats) -> StreamSnapshot {
        StreamSnapshot {
            id: id.to_owned(),
            connected: self.peers.get(&peer).is_some_and(|entry| entry.peer.is_connected()),
            packets: stats.packets,
            longest_gap: stats.longest_gap,
            last_packet_us: stats.last_us,
        }
    }
}
