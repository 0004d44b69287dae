//! What clients say to each other and do to each other: chat, usermessages, and the actions of operators.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::admission;
use super::event::{ClientName, RoomEventKind};
use super::server::{Key, Server};
use super::session::Fatal;
use crate::message::{Message, random_id};

/// So many chat messages are shown to somebody who comes later.
const HISTORY_MESSAGES: usize = 50;

impl Server {
    fn member_by_id(&self, group: usize, id: &str) -> Option<Key> {
        self.members(group).find(|(_, client)| client.id == id).map(|(key, _)| key)
    }

    pub(super) fn talk(&mut self, key: Key, message: Message) {
        let Some(client) = self.clients.get(&key) else { return };
        let Some(group) = client.group else { return self.notify(key, "error", "join a group first") };
        let required = if message.kind == "caption" && message.type_ == "chat" { "caption" } else { "message" };
        if !client.may(required) {
            return self.notify(key, "error", "not authorised");
        }
        let (is_chat, value) = (message.type_ == "chat", message.value.clone().unwrap_or_default());
        let event = if is_chat {
            RoomEventKind::Chat(value)
        } else {
            RoomEventKind::UserMessage { kind: message.kind.clone(), value, dest: message.dest.clone() }
        };
        let mut forwarded = Message { privileged: client.may("op"), time: timestamp(SystemTime::now()), ..message };
        self.report(key, event);
        if !forwarded.dest.is_empty() {
            return match self.member_by_id(group, &forwarded.dest) {
                Some(dest) => self.send(dest, &forwarded),
                None => self.notify(key, "error", "user unknown"),
            };
        }
        if is_chat {
            if forwarded.id.is_empty() {
                forwarded.id = random_id();
            }
            let history = &mut self.groups[group].history;
            history.push(Message { type_: "chathistory".into(), noecho: false, ..forwarded.clone() });
            let surplus = history.len().saturating_sub(HISTORY_MESSAGES);
            history.drain(..surplus);
        }
        let except = forwarded.noecho.then_some(key);
        self.broadcast(group, except, &forwarded);
    }

    pub(super) fn group_action(&mut self, key: Key, message: &Message) -> Result<(), Fatal> {
        let Some(client) = self.clients.get(&key) else { return Ok(()) };
        let Some(group) = client.group else {
            self.notify(key, "error", "join a group first");
            return Ok(());
        };
        if !matches!(message.kind.as_str(), "lock" | "unlock" | "clearchat") {
            return Err(Fatal::User("unknown group action".into()));
        }
        if !client.may("op") {
            self.notify(key, "error", "not authorised");
            return Ok(());
        }
        if message.kind == "clearchat" {
            self.groups[group].history.clear();
            let cleared = Message { privileged: true, ..Message::of_kind("usermessage", "clearchat") };
            self.broadcast(group, None, &cleared);
        } else {
            let text = message.value.as_ref().and_then(Value::as_str).unwrap_or_default();
            self.lock(group, (message.kind == "lock").then(|| text.to_owned()));
        }
        Ok(())
    }

    pub(super) fn lock(&mut self, group: usize, message: Option<String>) {
        self.groups[group].locked = message;
        let keys: Vec<Key> = self.members(group).map(|(key, _)| key).collect();
        for key in keys {
            let change = self.joined_message(key, "change");
            self.send(key, &change);
        }
    }

    pub(super) fn user_action(&mut self, key: Key, message: &Message) -> Result<(), Fatal> {
        let Some(client) = self.clients.get_mut(&key) else { return Ok(()) };
        let Some(group) = client.group else {
            self.notify(key, "error", "join a group first");
            return Ok(());
        };
        if message.kind == "setdata" {
            return self.set_data(key, group, message);
        }
        let (is_operator, mut permissions) = (client.may("op"), Vec::new());
        if message.kind != "kick" && !admission::change_permission(&message.kind, &mut permissions) {
            return Err(Fatal::User("unknown user action".into()));
        }
        if !is_operator {
            self.notify(key, "error", "not authorised");
            return Ok(());
        }
        let Some(target) = self.member_by_id(group, &message.dest) else {
            self.notify(key, "error", "no such user");
            return Ok(());
        };
        if message.kind == "kick" {
            let text = message.value.as_ref().and_then(Value::as_str).unwrap_or_default();
            let username = message.username.clone().unwrap_or_default();
            let by = Some(ClientName { id: message.source.clone(), username });
            self.fail(target, Fatal::Kick { by, message: text.to_owned() });
        } else if let Some(client) = self.clients.get(&target) {
            let mut permissions = client.permissions.clone();
            admission::change_permission(&message.kind, &mut permissions);
            self.set_permissions(target, permissions);
        }
        Ok(())
    }

    fn set_data(&mut self, key: Key, group: usize, message: &Message) -> Result<(), Fatal> {
        let Some(client) = self.clients.get_mut(&key) else { return Ok(()) };
        let Some(Value::Object(values)) = message.value.clone().filter(|_| message.dest == client.id) else {
            let text = if message.dest == client.id { "Bad value in setdata" } else { "not authorised" };
            self.notify(key, "error", text);
            return Ok(());
        };
        for (name, value) in values {
            match value {
                Value::Null => drop(client.data.remove(&name)),
                value => drop(client.data.insert(name, value)),
            }
        }
        let (change, data) = (client.user_message("change"), Value::Object(client.data.clone()));
        self.report(key, RoomEventKind::Data(data));
        self.broadcast(group, None, &change);
        Ok(())
    }

    /// Changes what a client may do; without `present` its streams end.
    pub(super) fn set_permissions(&mut self, key: Key, permissions: Vec<String>) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        client.permissions = permissions;
        let Some(group) = client.group else { return };
        let (silenced, change) = (!client.may("present"), client.user_message("change"));
        let streams: Vec<String> = client.up.keys().cloned().collect();
        let joined = self.joined_message(key, "change");
        self.send(key, &joined);
        if silenced {
            for stream in streams {
                self.close_up(key, &stream, true);
                self.refuse_up(key, &stream, "permission denied");
            }
        }
        self.broadcast(group, None, &change);
    }
}

/// RFC 3339, in UTC.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The civil calendar from a count of days, in eras of 400 years that begin on the first of March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_time_is_written_as_people_read_it() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(at(1_795_305_600), "2026-11-22T00:00:00Z");
    }
}
