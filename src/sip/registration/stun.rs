//! Keep-alive by STUN (RFC 5626 §4.4.2) for a registrar that keeps flows: its answer shows that it lives, and whether the
//! NAT between us has given us another address.
//!
//! Owns: the question, its repetition, the answer. Does not own: when to ask (`watch`).

use std::net::SocketAddr;
use std::time::Duration;

use super::{Registration, State};
use crate::random::Random;
use crate::sip::event::Path;
use crate::sip::layer::TransactionLayer;
use crate::sip::timer::Resend;
use crate::time::Instant;
use crate::wire::sip::Response;
use crate::wire::stun::{Builder, Class, Message, TransactionId};

/// Between keep-alives over UDP where the registrar does not say: 24 to 29 s (RFC 5626 §4.4).
const DEFAULT_TIMER: Duration = Duration::from_secs(29);
/// What a registrar may ask for: less would be a flood, and more than a NAT's patience is of no use.
const TIMER_S: std::ops::RangeInclusive<u32> = 10..=600;

/// What is kept of a flow over UDP that the registrar has taken on.
#[derive(Debug)]
pub(super) struct StunFlow {
    /// From one question to the next, at most.
    timer: Duration,
    question: Option<Question>,
    /// Our address as it was answered last.
    mapped: Option<SocketAddr>,
}

#[derive(Debug)]
struct Question {
    id: TransactionId,
    path: Path,
    bytes: Vec<u8>,
    resend: Resend,
}

impl StunFlow {
    /// What a 200 says: only a registrar that requires `outbound` has taken the flow on (RFC 5626 §6).
    pub(super) fn of(response: &Response, former: Option<Self>) -> Option<Self> {
        if !response.headers.require().any(|extension| extension.eq_ignore_ascii_case("outbound")) {
            return None;
        }
        let seconds = response.headers.seconds("Flow-Timer").filter(|seconds| TIMER_S.contains(seconds));
        let timer = seconds.map_or(DEFAULT_TIMER, |seconds| Duration::from_secs(seconds.into()));
        Some(Self { timer, question: None, mapped: former.and_then(|former| former.mapped) })
    }

    /// The next pause: four fifths of the timer at least, so that a crowd does not ask in step.
    pub(super) fn interval(&self, random: &mut Random) -> Duration {
        self.timer - self.timer / 5 * random.below(1000) / 1000
    }

    /// When the question is repeated.
    pub(super) fn next_timeout(&self) -> Option<crate::time::Deadline> {
        self.question.as_ref().map(|question| question.resend.deadline())
    }

    /// No answer is waited for any longer.
    pub(super) fn give_up(&mut self) {
        self.question = None;
    }

    /// Asks along `path`.
    pub(super) fn ask(&mut self, now: Instant, path: Path, layer: &mut TransactionLayer) {
        let mut id = [0; 12];
        layer.random.fill(&mut id);
        let id = TransactionId(id);
        let bytes = Builder::new(Class::Request, id).finish_unsigned();
        layer.out.send(path, bytes.clone());
        self.question = Some(Question { id, path, bytes, resend: Resend::start(now, "STUN again") });
    }

    /// Repeats the question if it is time.
    pub(super) fn handle_timeout(&mut self, now: Instant, layer: &mut TransactionLayer) {
        if let Some(question) = &mut self.question
            && question.resend.fired(now)
        {
            layer.out.send(question.path, question.bytes.clone());
        }
    }
}

impl Registration {
    /// Takes a datagram that may be the answer; false if it is not. A forger does not know our question.
    pub(crate) fn handle_stun(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        bytes: &[u8],
        layer: &mut TransactionLayer,
    ) -> bool {
        let Some(flow) = &mut self.stun else { return false };
        let Ok(message) = Message::parse(bytes) else { return false };
        let is_answer =
            |question: &mut Question| message.transaction_id == question.id && question.path.remote == remote;
        let Some(question) = flow.question.take_if(is_answer) else { return false };
        let mapped = message.mapped_address;
        let has_moved = mapped.is_some() && flow.mapped.is_some() && mapped != flow.mapped;
        flow.mapped = mapped.or(flow.mapped);
        let was_away = self.watch.handle_answer(now);
        if has_moved {
            self.public = mapped.filter(|mapped| Some(*mapped) != question.path.local);
        }
        if let State::Registered { .. } = self.state
            && (has_moved || was_away)
        {
            self.register(now, layer);
        }
        true
    }
}
