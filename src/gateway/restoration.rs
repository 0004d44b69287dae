//! A caller whose membership of the group is lost through no person's will stays on the line until another one is had.
//!
//! Owns: when it is tried again and until when, what is told to the mix meanwhile. Does not own: joining (`galene`), the
//! room's other members. A kick by a person ends the call and never comes here.
//!
//! Of several callers one asks for the group while it cannot be found; once it is there, all come back at once.

use std::time::Duration;

use super::Gateway;
use super::event::{MemberKey, Sockets};
use super::ladder::Way;
use super::refusal::CallFailure;
use crate::galene::client::Joined;
use crate::galene::refusal::Refusal;
use crate::media::control::Command;
use crate::sip::event::CallKey;
use crate::time::{Deadline, Instant, doubled};

/// Between the beginnings of two tries at first; it doubles up to the longest. A server that is restarted is back within
/// seconds, and its callers shall be within five of that.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// A server that has not even told of its group by then is asked anew: the question may have been lost on a dead way, where
/// TCP waits ever longer before it repeats it.
const STATUS_WITHIN: Duration = Duration::from_secs(4);

/// Who may not ask yet since another one does looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The search for another membership.
#[derive(Debug)]
pub(super) struct Restoration {
    lost_at: Instant,
    give_up_at: Instant,
    /// When the latest try began, or the membership was lost.
    tried_at: Instant,
    /// `None` while a try is under way.
    try_at: Option<Instant>,
    tries: u32,
    /// The server has told of the group.
    is_found: bool,
}

impl Restoration {
    fn begin(now: Instant, within: Duration) -> Self {
        Self { lost_at: now, give_up_at: now + within, tried_at: now, try_at: Some(now), tries: 0, is_found: false }
    }

    /// A try begins.
    fn begin_try(&mut self, now: Instant) {
        (self.tried_at, self.try_at, self.is_found) = (now, None, false);
        self.tries += 1;
    }

    /// The try has failed; false if it was the last one.
    fn fail(&mut self, now: Instant) -> bool {
        let pause = doubled(FIRST_PAUSE, self.tries.saturating_sub(1), MAX_PAUSE);
        self.try_at = Some(now.max(self.tried_at + pause));
        now < self.give_up_at
    }

    /// What made the tries fail may be over.
    fn hasten(&mut self, now: Instant) {
        self.tries = 0;
        if let Some(at) = &mut self.try_at {
            *at = (*at).min(now.max(self.tried_at + FIRST_PAUSE));
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.try_at.is_some_and(|at| at <= now)
    }

    /// It waits for the server's first word.
    const fn asks(&self) -> bool {
        self.try_at.is_none() && !self.is_found
    }

    pub(super) fn next_timeout(&self) -> Option<Deadline> {
        self.try_at.map(|at| Deadline::new(at, "join the group again"))
    }
}

impl<S: Sockets> Gateway<S> {
    /// The membership of a call is lost, or another try to get it back has failed.
    pub(super) fn lose_membership(&mut self, now: Instant, key: CallKey, failure: CallFailure) {
        let patience = self.desk.config.rejoin_for;
        let Some(call) = self.calls.get_mut(&key) else { return };
        if !call.answered || patience.is_zero() {
            return self.end_call(now, key, &failure);
        }
        match &mut call.restoration {
            // After a kick the end of the connection is no news.
            Some(restoration) if restoration.try_at.is_some() => {}
            Some(restoration) => {
                if !restoration.fail(now) {
                    return self.end_call(now, key, &failure);
                }
                tracing::debug!("{}: not back in the room yet: {}", call.title, failure.explain());
            }
            None => {
                tracing::warn!(
                    "{}: {}; the caller stays on the line, and for {} s the room is tried again",
                    call.title,
                    failure.explain(),
                    patience.as_secs()
                );
                call.restoration = Some(Restoration::begin(now, patience));
                self.desk.mix(Command::SetWaiting { caller: call.caller, waiting: true });
                call.unpublish(now, &mut self.desk);
                self.desk.keep_ghost(now, call.member.client.id());
                let room = call.room.as_ref().map(|(name, _)| name.clone());
                if let Some((name, room)) = room.and_then(|name| Some((name.clone(), self.rooms.get_mut(&name)?)))
                    && room.listens() == Some(key)
                {
                    room.lose_listener(now, &mut self.desk);
                    self.appoint_listener(now, &name);
                }
            }
        }
    }

    /// Begins the tries that are due.
    pub(super) fn rejoin(&mut self, now: Instant) {
        let mut somebody_asks =
            self.calls.values().any(|call| call.restoration.as_ref().is_some_and(Restoration::asks));
        for call in self.calls.values_mut() {
            let Some(restoration) = call.restoration.as_mut().filter(|restoration| restoration.is_due(now)) else {
                continue;
            };
            if somebody_asks && !restoration.is_found {
                restoration.try_at = Some(now + LOOK_AGAIN);
                continue;
            }
            somebody_asks = true;
            restoration.begin_try(now);
            let member = MemberKey { nth: call.member.key.nth + 1, ..call.member.key };
            call.member = self.desk.new_member(now, member, call.name.clone(), Some(STATUS_WITHIN));
            self.desk.own_ids.insert(call.member.client.id().to_owned(), None);
        }
    }

    /// This machine's network has an address or a way that it had not: whoever waits for the next try waits no longer.
    pub(super) fn hasten_rejoin(&mut self, now: Instant) {
        let restorations = self.calls.values_mut().filter_map(|call| call.restoration.as_mut());
        restorations.for_each(|restoration| restoration.hasten(now));
    }

    /// The server has told of the group: whoever waits for it need not any longer.
    pub(super) fn on_group_found(&mut self, now: Instant, key: CallKey) {
        for call in self.calls.values_mut() {
            match &mut call.restoration {
                Some(restoration) if call.key == key => restoration.is_found = true,
                Some(restoration @ Restoration { try_at: Some(_), is_found: false, .. }) => {
                    (restoration.try_at, restoration.is_found) = (Some(now), true);
                }
                Some(_) | None => {}
            }
        }
    }

    /// A call has another membership.
    pub(super) fn on_rejoined(&mut self, now: Instant, key: CallKey, joined: &Joined) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Some((name, room_key)) = call.room.clone() else { return };
        if joined.group != name {
            let refusal = Refusal::Protocol(format!("the group {name} has become {}", joined.group));
            call.member.client.leave();
            return self.lose_membership(now, key, CallFailure::Galene(refusal));
        }
        let Some(restoration) = call.restoration.take() else { return };
        let away_s = now.saturating_since(restoration.lost_at).as_secs_f32();
        tracing::info!("{}: back in {name} after {away_s:.1} s", call.title);
        self.ladders.note(now, key, Way::FromGalene, "back in the room");
        self.desk.mix(Command::SetWaiting { caller: call.caller, waiting: false });
        // Without the permission the caller goes on listening, as if it had just been taken away.
        let published = if joined.permissions.present { call.publish(now, &mut self.desk, room_key) } else { Ok(()) };
        match published {
            Ok(()) => self.appoint_listener(now, &name),
            Err(failure) => self.end_call(now, key, &failure),
        }
    }
}
