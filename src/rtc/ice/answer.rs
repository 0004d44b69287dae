//! The peer's checks: answered where they came from, and what they teach us (RFC 8445 §7.3).

use std::time::Duration;

use crate::time::Instant;
use crate::wire::route::Route;
use crate::wire::stun::{Builder, Class, Message, RoleAttribute};

use super::consent::Consent;
use super::pair::PairState;
use super::{Agent, Role, State};
use crate::rtc::candidate::{CandidateKind, priority};

/// A check that was sent less than this ago is not repeated because the peer checks us: its answer is on its way.
const JUST_SENT: Duration = Duration::from_millis(50);

/// How a conflict of roles ends for us, RFC 8445 §7.3.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conflict {
    None,
    /// The peer has to give way: 487.
    PeerSwitches,
    WeSwitch,
}

impl Agent {
    pub(super) fn handle_request(&mut self, now: Instant, from: Route, message: &Message<'_>) {
        let for_us =
            message.username.and_then(|name| name.split_once(':')).is_some_and(|(us, _)| us == self.local.ufrag);
        // With relayed candidates alone our own address is not to be known.
        let is_open = from.is_relayed() || !self.candidates.is_empty();
        if !for_us || !is_open || !message.verify(self.local.password.as_bytes()) {
            // An error response would only tell a stranger that we are here.
            self.drops.unauthentic += 1;
            return;
        }
        let response = |class| Builder::new(class, message.transaction_id);
        if !message.unknown_attributes().is_empty() {
            let refusal = response(Class::Error)
                .error_code(420, "Unknown Attribute")
                .unknown_attributes(message.unknown_attributes());
            self.respond(from, refusal);
            return;
        }
        match self.conflict(message.role) {
            Conflict::None => {}
            Conflict::PeerSwitches => {
                self.respond(from, response(Class::Error).error_code(487, "Role Conflict"));
                return;
            }
            Conflict::WeSwitch => self.switch_role(),
        }
        self.respond(from, response(Class::Success).xor_mapped_address(from.peer()));
        self.learn(now, from, message);
    }

    fn respond(&mut self, to: Route, response: Builder) {
        let bytes = response.finish(self.local.password.as_bytes());
        self.outputs.push_back(super::Output::Transmit { to, bytes });
    }

    fn conflict(&self, peer: Option<RoleAttribute>) -> Conflict {
        match (self.role, peer) {
            // A lite agent stays controlled whatever the peer says; if both are lite there is no check to come.
            (_, _) if self.lite => Conflict::None,
            (Role::Controlling, Some(RoleAttribute::Controlling(theirs))) if self.tie_breaker >= theirs => {
                Conflict::PeerSwitches
            }
            (Role::Controlling, Some(RoleAttribute::Controlling(_))) => Conflict::WeSwitch,
            (Role::Controlled, Some(RoleAttribute::Controlled(theirs))) if self.tie_breaker >= theirs => {
                Conflict::WeSwitch
            }
            (Role::Controlled, Some(RoleAttribute::Controlled(_))) => Conflict::PeerSwitches,
            (Role::Controlling, Some(RoleAttribute::Controlled(_)))
            | (Role::Controlled, Some(RoleAttribute::Controlling(_)))
            | (_, None) => Conflict::None,
        }
    }

    /// A pair for the source, a check of our own, and the nomination (RFC 8445 §7.3.1.3 to §7.3.1.5).
    fn learn(&mut self, now: Instant, from: Route, message: &Message<'_>) {
        let reflexive = message.priority.unwrap_or_else(|| priority(CandidateKind::PeerReflexive, 0));
        let Some(index) = self.find_or_add(from, reflexive) else { return };
        self.pairs[index].heard_at = Some(now);
        let controls = self.controls();
        let (selected, replaces_silent) = (self.selected(), controls && self.wants_a_pair(now));
        let pair = &mut self.pairs[index];
        if message.use_candidate && !controls {
            pair.nominated = true;
        }
        if self.lite {
            if let State::Selected(consent) = &mut self.state
                && consent.remote == from
            {
                *consent = Consent::lite(now, from);
            }
            pair.state = PairState::Succeeded; // RFC 8445 §7.3.2: the peer has checked for both.
        }
        if matches!(self.state, State::Failed) {
            return;
        }
        match &mut pair.state {
            PairState::Succeeded if pair.nominated => self.select(now, index),
            PairState::Succeeded if replaces_silent => self.trigger(index),
            PairState::Succeeded if !controls && !self.lite && selected.is_none() => self.remind(now, index),
            PairState::Succeeded => {}
            PairState::InProgress(check) => {
                pair.is_peer_ahead = true;
                // Not a new transaction: an answer that is late still counts.
                if now.saturating_since(check.sent_at) >= JUST_SENT {
                    check.hurry(now);
                    self.retransmit_due_checks(now);
                }
            }
            PairState::Waiting | PairState::Failed => self.trigger(index),
        }
    }

    /// A check more, at once, where the peer has to nominate: the answer to its own check has made the pair succeed at
    /// its end, and pion nominates such a pair when our next check comes, else at its next tick (up to 200 ms later).
    pub(super) fn remind(&mut self, now: Instant, index: usize) {
        self.trigger(index);
        self.next_check_at = now;
    }
}
