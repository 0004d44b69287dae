//! What a caller's membership of a Galene group tells the gateway.

use std::collections::BTreeMap;

use super::call::Call;
use super::event::{Output, Sockets};
use super::ladder::{Way, kind_of_galene};
use super::refusal::CallFailure;
use super::room::Room;
use super::{Gateway, PROBE};
use crate::galene::client::{self, Event, Joined};
use crate::galene::message::{Candidate, Offer, Permissions};
use crate::galene::refusal::Refusal;
use crate::media::control::{Command, Room as MixRoom, RoomKey};
use crate::sip::event::CallKey;
use crate::time::Instant;

impl<S: Sockets> Gateway<S> {
    /// Handles what the probe has to say; true if there was anything. It is over when the group has been found or not.
    pub(super) fn drain_probe(&mut self) -> bool {
        let Some(output) = self.probe.as_mut().and_then(|probe| probe.client.poll_output()) else { return false };
        match output {
            client::Output::Event(Event::GroupIs(status)) => {
                tracing::info!("Galene's group '{}' is there", status.name);
                self.probe = None;
            }
            client::Output::Event(Event::Refused(refusal)) => {
                tracing::warn!("calls cannot be answered now: {}", refusal.explain());
                self.probe = None;
            }
            client::Output::Event(_) => {}
            output => self.desk.outputs.push_back(Output::Galene { member: PROBE, output }),
        }
        true
    }

    pub(super) fn on_galene(&mut self, now: Instant, key: CallKey, output: client::Output) {
        match &output {
            client::Output::Event(event) => {
                if let Some(news) = in_brief(event) {
                    self.ladders.note(now, key, Way::FromGalene, &news);
                }
            }
            client::Output::Send(text) => {
                if let Some(kind) = kind_of_galene(text) {
                    self.ladders.note(now, key, Way::ToGalene, &kind);
                }
            }
            client::Output::Get { .. }
            | client::Output::Post { .. }
            | client::Output::Connect { .. }
            | client::Output::Disconnect => {}
        }
        match output {
            client::Output::Event(event) => self.on_galene_event(now, key, event),
            client::Output::Get { .. }
            | client::Output::Post { .. }
            | client::Output::Connect { .. }
            | client::Output::Send(_)
            | client::Output::Disconnect => {
                if let Some(member) = self.member(key).map(|member| member.key) {
                    self.desk.outputs.push_back(Output::Galene { member, output });
                }
            }
        }
    }

    fn on_galene_event(&mut self, now: Instant, key: CallKey, event: Event) {
        if !self.calls.contains_key(&key) {
            return self.on_leavers_event(now, key, event);
        }
        match event {
            Event::GroupIs(status) => {
                tracing::debug!("call {}: the group is {}", key.0, status.name);
                self.on_group_found(now, key);
            }
            Event::Joined(joined) => self.on_joined(now, key, &joined),
            Event::Refused(refusal) => self.lose_membership(now, key, CallFailure::Galene(refusal)),
            Event::Changed { permissions, rtc } => {
                self.desk.learn_ice_servers(&rtc);
                self.on_permissions(now, key, &permissions);
            }
            Event::Answer { id, sdp } => {
                let Some(call) = self.calls.get_mut(&key) else { return };
                if let Err(failure) = call.on_answer(now, &id, &sdp) {
                    self.end_call(now, key, &failure);
                }
            }
            Event::Renegotiate { id } => {
                if let Some(call) = self.calls.get_mut(&key) {
                    call.on_renegotiate(now, &mut self.desk, &id);
                }
            }
            Event::Abort { id } => self.on_abort(now, key, &id),
            Event::Kicked { by_server: false, message } => {
                self.end_call(now, key, &CallFailure::Kicked { by_server: false, message });
            }
            Event::Kicked { by_server: true, message } => {
                self.lose_membership(now, key, CallFailure::Kicked { by_server: true, message });
            }
            Event::Mute => self.on_mute(key),
            Event::UserDeleted { id, .. } => {
                if self.calls.values().all(|call| call.member.client.id() != id) {
                    self.desk.own_ids.remove(&id);
                }
            }
            Event::Notice(text) => tracing::info!("call {}: Galene says: {text}", key.0),
            Event::UserAdded { .. } | Event::UserChanged { .. } | Event::Chat(_) => {}
            Event::Disconnected { reason } => self.lose_membership(now, key, CallFailure::Disconnected(reason)),
            Event::Offer(offer) => self.on_offer(now, key, &offer),
            Event::Candidate { id, candidate } => self.on_candidate(now, key, &id, candidate),
            // The listener is told of our own callers' streams too, and asks for none of them.
            Event::Close { id } if self.desk.own_ids.contains_key(&id) => {}
            Event::Close { id } => {
                if let Some((_, room)) = listener(&mut self.calls, &mut self.rooms, key) {
                    room.on_close(now, &mut self.desk, key, &id);
                }
            }
        }
    }

    /// What a member is told whose caller has hung up, while it still receives for its room.
    fn on_leavers_event(&mut self, now: Instant, key: CallKey, event: Event) {
        let Some(room) = self.rooms.values_mut().find(|room| room.leavers().any(|leaver| leaver == key)) else {
            return;
        };
        match event {
            Event::Offer(offer) => room.on_offer_to_leaver(now, &mut self.desk, key, &offer),
            Event::Candidate { id, candidate } => room.on_candidate(now, key, &id, candidate),
            Event::Close { id } => room.on_close(now, &mut self.desk, key, &id),
            Event::Refused(_) | Event::Kicked { .. } | Event::Disconnected { .. } => {
                room.lose_leaver(now, &mut self.desk, key);
            }
            Event::GroupIs(_)
            | Event::Joined(_)
            | Event::Changed { .. }
            | Event::Answer { .. }
            | Event::Renegotiate { .. }
            | Event::Abort { .. }
            | Event::Mute
            | Event::UserAdded { .. }
            | Event::UserChanged { .. }
            | Event::UserDeleted { .. }
            | Event::Chat(_)
            | Event::Notice(_) => {}
        }
    }

    fn on_joined(&mut self, now: Instant, key: CallKey, joined: &Joined) {
        self.desk.learn_ice_servers(&joined.rtc);
        let Some(call) = self.calls.get_mut(&key) else { return };
        if call.restoration.is_some() {
            return self.on_rejoined(now, key, joined);
        }
        if !self.rooms.contains_key(&joined.group) {
            let room = RoomKey(self.desk.new_key());
            self.desk.mix(Command::OpenRoom(Box::new(MixRoom::new(room))));
            self.rooms.insert(joined.group.clone(), Room::new(room, joined.group.clone()));
        }
        let Some(room) = self.rooms.get_mut(&joined.group) else { return };
        if let Err(failure) = call.on_joined(now, &mut self.desk, room, joined) {
            self.end_call(now, key, &failure);
        }
    }

    /// `present` came or went: the caller goes on the air or off it, and goes on listening either way.
    fn on_permissions(&mut self, now: Instant, key: CallKey, permissions: &Permissions) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Some((_, room)) = call.room else { return };
        match (permissions.present, call.up.is_some()) {
            (false, true) if !call.answered => self.end_call(now, key, &CallFailure::Galene(Refusal::NoPresent)),
            (false, true) => {
                tracing::info!("{}: Galene took the permission to speak away", call.title);
                call.unpublish(now, &mut self.desk);
            }
            (true, false) => {
                tracing::info!("{}: Galene gave the permission to speak back", call.title);
                if let Err(failure) = call.publish(now, &mut self.desk, room) {
                    self.end_call(now, key, &failure);
                }
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Galene refused our up stream or took it off the air.
    fn on_abort(&mut self, now: Instant, key: CallKey, id: &str) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        if call.up.as_ref().is_none_or(|up| up.id != id) {
            return;
        }
        if call.answered {
            tracing::info!("{}: Galene took the caller off the air", call.title);
            call.unpublish(now, &mut self.desk);
        } else {
            self.end_call(now, key, &CallFailure::OfferAborted);
        }
    }

    fn on_mute(&mut self, key: CallKey) {
        let Some(call) = self.calls.get(&key) else { return };
        if call.room.is_some() {
            tracing::info!("{}: muted by an operator", call.title);
            self.desk.mix(Command::SetMuted { caller: call.caller, muted: true });
        }
    }

    fn on_offer(&mut self, now: Instant, key: CallKey, offer: &Offer) {
        match listener(&mut self.calls, &mut self.rooms, key) {
            Some((call, room)) => room.on_offer(now, &mut self.desk, &mut call.member.client, offer),
            None => {
                if let Some(call) = self.calls.get_mut(&key) {
                    call.member.client.abort(now, &offer.id);
                }
            }
        }
    }

    fn on_candidate(&mut self, now: Instant, key: CallKey, id: &str, candidate: Candidate) {
        let up = self.calls.get_mut(&key).and_then(|call| call.up.as_mut()).filter(|up| up.id == id);
        match up {
            Some(up) => up.link.peer.add_candidate(now, &candidate.candidate),
            None => {
                if let Some((_, room)) = listener(&mut self.calls, &mut self.rooms, key) {
                    room.on_candidate(now, key, id, candidate);
                }
            }
        }
    }
}

/// The call, if its client listens for a room, and the room: down streams count on the listener's connection alone.
fn listener<'a>(
    calls: &'a mut BTreeMap<CallKey, Call>,
    rooms: &'a mut BTreeMap<String, Room>,
    key: CallKey,
) -> Option<(&'a mut Call, &'a mut Room)> {
    let call = calls.get_mut(&key)?;
    let (name, _) = call.room.as_ref()?;
    let room = rooms.get_mut(name).filter(|room| room.listens() == Some(key))?;
    Some((call, room))
}

/// What a call's ladder says of the news from Galene; other members' comings and words are no part of the call.
fn in_brief(event: &Event) -> Option<String> {
    Some(match event {
        Event::Joined(joined) => format!("joined {} as '{}'", joined.group, joined.username),
        Event::Refused(refusal) => format!("refused: {}", refusal.explain()),
        Event::Changed { .. } => "permissions changed".to_owned(),
        Event::Answer { .. } => "answer".to_owned(),
        Event::Renegotiate { .. } => "renegotiate".to_owned(),
        Event::Abort { .. } => "abort".to_owned(),
        Event::Kicked { message, .. } => format!("kicked: {message}"),
        Event::Mute => "mute".to_owned(),
        Event::Disconnected { reason } => format!("disconnected: {reason}"),
        Event::Offer(offer) => format!("offer of {}", offer.username),
        Event::GroupIs(_)
        | Event::UserAdded { .. }
        | Event::UserChanged { .. }
        | Event::UserDeleted { .. }
        | Event::Chat(_)
        | Event::Notice(_)
        | Event::Candidate { .. }
        | Event::Close { .. } => return None,
    })
}
