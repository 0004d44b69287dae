//! Our checks: when they are sent, again, and what their answers mean (RFC 8445 §6.1.4, §7.2; RFC 7675).

use crate::time::Instant;
use crate::wire::route::Route;
use crate::wire::stun::{Builder, Class, Message, RoleAttribute, TransactionId};

use super::pair::{Check, Pair, PairState};
use super::{Agent, Doubt, Output, PACING, Role, State};

impl Agent {
    /// The pair to check when the pacing allows it: a triggered one first, else the best that waits (RFC 8445
    /// §6.1.4.2). Once a pair is in use, only the peer's checks give reason for new ones.
    pub(super) fn next_to_check(&self) -> Option<usize> {
        if self.lite || self.remote.is_none() {
            return None;
        }
        match self.state {
            State::Idle | State::Failed => None,
            State::Selected(_) => self.triggered.front().copied(),
            State::Checking { .. } => self.triggered.front().copied().or_else(|| {
                let waiting =
                    self.pairs.iter().enumerate().filter(|(_, pair)| matches!(pair.state, PairState::Waiting));
                waiting.max_by_key(|(_, pair)| pair.priority(self.controls())).map(|(index, _)| index)
            }),
        }
    }

    pub(super) fn send_due_check(&mut self, now: Instant) {
        if now < self.next_check_at {
            return;
        }
        let Some(index) = self.next_to_check() else { return };
        self.triggered.retain(|triggered| *triggered != index);
        self.next_check_at = now + PACING;
        let nominating = self.controls() && self.wants_a_pair(now);
        let check = Check::new(now, self.new_transaction(), nominating);
        self.pairs[index].state = PairState::InProgress(check);
        self.send_check(index, check.id, nominating);
    }

    pub(super) fn retransmit_due_checks(&mut self, now: Instant) {
        for index in 0..self.pairs.len() {
            let PairState::InProgress(check) = &mut self.pairs[index].state else { continue };
            if now < check.next_at() {
                continue;
            }
            if check.retransmit(now) {
                let (id, nominating) = (check.id, check.nominating);
                self.send_check(index, id, nominating);
            } else {
                // With nothing better at hand it is tried again: a firewall may open late, and 7 losses in a row happen.
                let checking = matches!(self.state, State::Checking { .. });
                self.pairs[index].state = if checking { PairState::Waiting } else { PairState::Failed };
            }
        }
    }

    pub(super) fn send_consent_check(&mut self, now: Instant) {
        let id = self.new_transaction();
        let State::Selected(consent) = &mut self.state else { return };
        consent.on_sent(now, id);
        let remote = consent.remote;
        if let Some(index) = self.pairs.iter().position(|pair| pair.remote == remote) {
            // It nominates again: should a NAT have given us another address, the peer follows us there.
            self.send_check(index, id, self.controls());
        }
    }

    /// RFC 8445 §7.2.2.
    fn send_check(&mut self, index: usize, id: TransactionId, nominating: bool) {
        let Some(remote) = &self.remote else { return };
        let pair = &self.pairs[index];
        let role = match self.role {
            Role::Controlling => RoleAttribute::Controlling(self.tie_breaker),
            Role::Controlled => RoleAttribute::Controlled(self.tie_breaker),
        };
        let mut check = Builder::new(Class::Request, id)
            .username(&format!("{}:{}", remote.ufrag, self.local.ufrag))
            .priority(pair.reflexive_priority)
            .role(role);
        if nominating {
            check = check.use_candidate();
        }
        let bytes = check.finish(remote.password.as_bytes());
        self.outputs.push_back(Output::Transmit { to: pair.remote, bytes });
    }

    fn new_transaction(&mut self) -> TransactionId {
        let mut id = [0; 12];
        self.random.fill(&mut id[4..]);
        id[..4].copy_from_slice(&self.transaction_tag);
        TransactionId(id)
    }

    /// Queues a check of this pair as the next one (RFC 8445 §7.3.1.4).
    pub(super) fn trigger(&mut self, index: usize) {
        self.pairs[index].state = PairState::Waiting;
        if !self.triggered.contains(&index) {
            self.triggered.push_back(index);
        }
    }

    /// RFC 8445 §7.2.5: what the answer to a check of ours means.
    pub(super) fn handle_response(&mut self, now: Instant, from: Route, message: &Message<'_>) {
        let id = message.transaction_id;
        let checked = |pair: &Pair| matches!(pair.state, PairState::InProgress(check) if check.id == id);
        let index = self.pairs.iter().position(checked);
        let consented = matches!(&self.state, State::Selected(consent) if consent.expects(id));
        let expected_from =
            index.map(|index| self.pairs[index].remote).or_else(|| self.selected().filter(|_| consented));
        // The answer must come from where the question went (RFC 8445 §7.2.5.2.1).
        if expected_from != Some(from) {
            self.drops.unexpected += 1;
            return;
        }
        let authentic = self.remote.as_ref().is_some_and(|remote| message.verify(remote.password.as_bytes()));
        if !authentic {
            self.drops.unauthentic += 1;
            return;
        }
        if message.class == Class::Error {
            self.handle_refusal(index, message.error_code);
        } else if let Some(index) = index {
            self.on_success(now, index);
        } else if let State::Selected(consent) = &mut self.state {
            let has_moved = consent.on_answer(now, message.mapped_address, &mut self.random);
            let remote = consent.remote;
            if let Some(index) = self.pairs.iter().position(|pair| pair.remote == remote) {
                self.pairs[index].heard_at = Some(now);
            }
            // Where we control, each of our checks nominates, and takes the peer along.
            if has_moved && !self.controls() {
                self.doubt(now, Doubt::Moved);
            }
        }
    }

    fn handle_refusal(&mut self, index: Option<usize>, code: Option<u16>) {
        if code == Some(487) {
            // RFC 8445 §7.2.5.1: the other role, a new tie-breaker, and the check again.
            self.tie_breaker = self.random.next_u64();
            self.switch_role();
            if let Some(index) = index {
                self.trigger(index);
            }
        } else if let Some(index) = index {
            self.pairs[index].state = PairState::Failed;
        }
    }

    fn on_success(&mut self, now: Instant, index: usize) {
        let pair = &mut self.pairs[index];
        if let PairState::InProgress(check) = pair.state {
            pair.nominated |= check.nominating;
        }
        pair.state = PairState::Succeeded;
        pair.heard_at = Some(now);
        let is_peer_ahead = std::mem::take(&mut pair.is_peer_ahead);
        if pair.nominated {
            self.select(now, index);
        } else if is_peer_ahead && !self.controls() && self.selected().is_none() {
            self.remind(now, index);
        }
    }
}
