//! Which address others see: one Binding request to a STUN server (RFC 8489 §12, RFC 8445 §5.1.1.2).
//!
//! Owns: the question, its repetition, the answer. Does not own: the socket, which must be the one that media will use.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::random::Random;
use crate::rtc::candidate::canonical;
use crate::rtc::retransmission::Retransmission;
use crate::time::{Deadline, Instant};
use crate::wire::stun::{BINDING, Builder, Class, Message, TransactionId};

/// Why the address stays unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer within 10 s.
    #[error(
        "the STUN server does not answer: are its address and port right, and does the firewall let UDP through to it?"
    )]
    NoAnswer,
    /// It answers with an error.
    #[error("the STUN server refuses to tell our address (code {0})")]
    Refused(u16),
    /// It answers, but names no address.
    #[error("the STUN server's answer names no address")]
    NoAddress,
}

/// What the query wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the server.
    Transmit {
        /// What.
        bytes: Vec<u8>,
    },
    /// The address that others see. It is the last word.
    Mapped(SocketAddr),
    /// There is none to be known. It is the last word.
    Failed(Failure),
}

/// One question to one server.
#[derive(Debug)]
pub struct Query {
    /// What is waited for, until it is over.
    question: Option<(TransactionId, Retransmission)>,
    bytes: Vec<u8>,
    outputs: VecDeque<Output>,
}

impl Query {
    /// Asks over UDP. Its transaction begins with `transaction_tag`, by which the net thread knows the answer.
    pub fn new(now: Instant, transaction_tag: [u8; 4], random: &mut Random) -> Self {
        let mut id = [0; 12];
        random.fill(&mut id[4..]);
        id[..4].copy_from_slice(&transaction_tag);
        let id = TransactionId(id);
        let bytes = Builder::new(Class::Request, id).finish_plain();
        let outputs = VecDeque::from([Output::Transmit { bytes: bytes.clone() }]);
        Self { question: Some((id, Retransmission::new(now, false))), bytes, outputs }
    }

    /// A datagram came from the server.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        let Some((id, _)) = self.question else { return };
        let Ok(message) = Message::parse(bytes) else { return };
        if message.method != BINDING || message.transaction_id != id {
            return;
        }
        let output = match (message.class, message.mapped_address, message.error_code) {
            (Class::Request | Class::Indication, _, _) | (Class::Error, _, None) => return,
            (Class::Success, Some(address), _) => Output::Mapped(canonical(address)),
            (Class::Success, None, _) => Output::Failed(Failure::NoAddress),
            (Class::Error, _, Some(code)) => Output::Failed(Failure::Refused(code)),
        };
        self.end(output);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some((_, schedule)) = &mut self.question else { return };
        if now < schedule.next_at() {
            return;
        }
        if schedule.retransmit(now) {
            self.outputs.push_back(Output::Transmit { bytes: self.bytes.clone() });
        } else {
            self.end(Output::Failed(Failure::NoAnswer));
        }
    }

    /// When [`Query::handle_timeout`] is wanted.
    pub fn next_timeout(&self) -> Option<Deadline> {
        self.question.as_ref().map(|(_, schedule)| Deadline::new(schedule.next_at(), "STUN server asked again"))
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn end(&mut self, output: Output) {
        self.question = None;
        self.outputs.push_back(output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: [u8; 4] = [9, 8, 7, 6];

    /// A query and the transaction of its request.
    fn query() -> (Query, TransactionId) {
        let mut query = Query::new(Instant::ZERO, TAG, &mut Random::for_test(1));
        let Some(Output::Transmit { bytes }) = query.poll_output() else { panic!("nothing is sent") };
        let message = Message::parse(&bytes).unwrap();
        assert!(message.has_fingerprint && message.transaction_id.0.starts_with(&TAG));
        assert_eq!((message.class, message.method), (Class::Request, BINDING));
        (query, message.transaction_id)
    }

    #[test]
    fn the_answer_gives_the_address_and_ends_it() {
        let (mut query, id) = query();
        let address = "198.51.100.7:4567".parse().unwrap();
        query.handle_input(b"junk");
        query.handle_input(
            &Builder::new(Class::Success, TransactionId([0; 12])).xor_mapped_address(address).finish_plain(),
        );
        assert_eq!(query.poll_output(), None);
        query.handle_input(&Builder::new(Class::Success, id).xor_mapped_address(address).finish_unsigned());
        assert_eq!((query.poll_output(), query.next_timeout()), (Some(Output::Mapped(address)), None));
        query.handle_input(&Builder::new(Class::Success, id).xor_mapped_address(address).finish_unsigned());
        assert_eq!(query.poll_output(), None);
    }

    #[test]
    fn refusals_and_empty_answers_are_named() {
        for (builder, failure) in [
            (
                (|id| Builder::new(Class::Error, id).error_code(400, "Bad")) as fn(TransactionId) -> Builder,
                Failure::Refused(400),
            ),
            (|id| Builder::new(Class::Success, id), Failure::NoAddress),
        ] {
            let (mut query, id) = query();
            query.handle_input(&builder(id).finish_plain());
            assert_eq!((query.poll_output(), query.next_timeout()), (Some(Output::Failed(failure)), None));
        }
    }

    #[test]
    fn silence_is_asked_seven_times_and_given_up() {
        let (mut query, _) = query();
        let mut sent = 1;
        loop {
            let deadline = query.next_timeout().unwrap();
            query.handle_timeout(deadline.at - std::time::Duration::from_micros(1));
            assert_eq!(query.poll_output(), None);
            query.handle_timeout(deadline.at);
            match query.poll_output() {
                Some(Output::Transmit { .. }) => sent += 1,
                other => {
                    assert_eq!(other, Some(Output::Failed(Failure::NoAnswer)));
                    assert_eq!((sent, deadline.at), (7, Instant::from_us(9_750_000)));
                    return;
                }
            }
        }
    }
}
