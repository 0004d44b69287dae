//! What is done beside REGISTER while we are registered: the registrar's signs of life, and the bindings that earlier runs
//! of ours have left behind.

use std::time::Duration;

use super::watch::Due;
use super::{Attempt, MOVE_AGAIN, Registration, State};
use crate::random::Random;
use crate::sip::dialog::MAX_FORWARDS;
use crate::sip::event::Status;
use crate::sip::layer::{Outcome, Owner, TransactionLayer};
use crate::time::Instant;
use crate::wire::sip::{Method, NameAddr, Request};
use crate::wire::uri::SipUri;

/// Between two refreshes at least, whatever a registrar grants: one of a second would be asked twice in it.
const LEAST_REFRESH: Duration = Duration::from_secs(5);
/// What is believed of a lifetime: a registrar that grants years will not remember it for so long.
const MAX_GRANTED_S: u32 = 3600;

/// Bindings remembered as removed: a registrar that keeps one all the same is not asked again.
const MAX_REMOVED: usize = 16;

impl Registration {
    /// Runs the watch over a registrar that is reached by datagrams.
    pub(super) fn run_watch(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if let Some(stun) = &mut self.stun {
            stun.handle_timeout(now, layer);
        }
        match self.watch.handle_timeout(now) {
            Due::Nothing => {}
            Due::Ask => self.ask(now, layer),
            Due::GiveUp => self.give_up_question(layer),
            Due::Gone => {
                self.give_up_question(layer);
                if let State::Registered { .. } = self.state {
                    self.resolve(now, layer);
                }
            }
        }
    }

    /// REGISTER itself is under way.
    pub(super) fn stop_watch(&mut self, layer: &mut TransactionLayer) {
        self.watch.stop();
        self.give_up_question(layer);
    }

    fn give_up_question(&mut self, layer: &mut TransactionLayer) {
        layer.abandon(Owner::Watch);
        if let Some(stun) = &mut self.stun {
            stun.give_up();
        }
    }

    /// What became of our question. Whatever the registrar says, it lives; and where it sees us, calls are to come.
    pub(crate) fn handle_sign_of_life(&mut self, now: Instant, outcome: &Outcome<'_>, layer: &mut TransactionLayer) {
        let Outcome::Response(response) = outcome else { return };
        if response.is_provisional() {
            return;
        }
        let was_away = self.watch.handle_answer(now);
        let former = self.public;
        self.learn_public(response);
        let has_moved = self.public != former && self.moved.is_none_or(|moved| now >= moved + MOVE_AGAIN);
        if let State::Registered { .. } = self.state
            && (was_away || has_moved)
        {
            self.moved = if has_moved { Some(now) } else { self.moved };
            self.register(now, layer);
        }
    }

    /// This machine has slept for longer than anybody knows here: the binding may have run out, and its network be another one.
    pub(crate) fn handle_woken(&mut self, now: Instant, layer: &mut TransactionLayer) {
        match self.state {
            State::Registered { .. } | State::Removing { .. } | State::Waiting { .. } => {
                layer.abandon(Owner::Registration);
                self.resolve(now, layer);
            }
            State::Idle
            | State::Resolving { .. }
            | State::Connecting
            | State::Registering(_)
            | State::Unregistering(_)
            | State::Off => {}
        }
    }

    fn ask(&mut self, now: Instant, layer: &mut TransactionLayer) {
        let Some((path, own)) = self.servers.current().and_then(|route| self.way(route)) else { return };
        if let Some(stun) = &mut self.stun {
            return stun.ask(now, path, layer);
        }
        let uri = self.domain();
        let mut request = Request::new(Method::Options, uri.clone())
            .with("Max-Forwards", MAX_FORWARDS)
            .with("From", NameAddr::new(self.account.uri.clone()).with_tag(&layer.random.token(12)))
            .with("To", NameAddr::new(uri))
            .with("Call-ID", layer.random.token(24))
            .with("CSeq", "1 OPTIONS");
        if let Some(proxy) = &self.registrar.proxy {
            request.headers.push("Route", format!("<{proxy}>"));
        }
        layer.request(now, Owner::Watch, path, (own.ip().into(), own.port()), request);
    }

    /// Removes the next binding that an earlier run has left behind; after the last one all is as it should be.
    pub(super) fn remove_next(
        &mut self,
        now: Instant,
        mut left: Vec<SipUri>,
        refresh: Instant,
        layer: &mut TransactionLayer,
    ) {
        while let Some(contact) = left.pop() {
            if self.removed.contains(&contact) {
                continue;
            }
            if self.removed.len() == MAX_REMOVED {
                self.removed.pop_front();
            }
            self.removed.push_back(contact.clone());
            self.send_contacts(now, [format!("<{contact}>;expires=0")], 0, layer);
            self.state = State::Removing { attempt: Attempt::new(contact), left, refresh };
            return;
        }
        self.state = State::Registered { refresh };
    }

    /// Some registrars take one Contact at a time. What they refuse is not tried again: the old binding runs out.
    pub(super) fn forget_refused_removal(&mut self) {
        if let State::Waiting { .. } = self.state
            && !self.has_failed
            && self.binding.as_ref() != Some(&self.contact())
        {
            self.binding = None;
        }
    }

    /// How it stands.
    pub(crate) fn status(&self) -> Status {
        match (&self.state, &self.failure) {
            (State::Idle | State::Off, _) => Status::Off,
            (State::Registered { .. } | State::Removing { .. }, _) => Status::Registered { public: self.public },
            (_, Some(why)) => Status::Failed { why: why.clone() },
            (_, None) => Status::Trying,
        }
    }
}

/// When to refresh a lifetime of `granted_s`: early enough for one more attempt after a lost one, which takes 32 s to
/// notice. Up to a tenth earlier, so that a crowd restarted together spreads.
pub(super) fn refresh_after(granted_s: u32, random: &mut Random) -> Duration {
    let granted_s = granted_s.min(MAX_GRANTED_S);
    let part = if granted_s >= 240 { u64::from(granted_s) * 750 } else { u64::from(granted_s) * 500 };
    let earlier = part / 10 * u64::from(random.below(1000)) / 1000;
    Duration::from_millis(part - earlier).max(LEAST_REFRESH)
}
