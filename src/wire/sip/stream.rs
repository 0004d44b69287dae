//! Messages out of a stream of bytes (RFC 3261 §7.5, §18.3; keep-alives: RFC 5626 §3.5.1).
//!
//! Owns: where one message ends and the next begins, which Content-Length alone decides.
//! Does not own: how long the bytes may take to come, and what a message says.
//! The head is read by the parser of datagrams itself, so that both always agree on where the body begins.

use super::parse::{MissingOrBad, declared_length};

/// What a stream consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// One message, whole.
    Message(Vec<u8>),
    /// A double line end: the other side wants to hear a single one.
    Ping,
    /// A single line end: the answer to our double one. It comes also before each [`Frame::Ping`], whose first half
    /// it could be.
    Pong,
}

/// Why no later byte of the stream can be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message above the limit.
    #[error("a message of more than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
        /// The message's head, if it is complete.
        head: Option<Vec<u8>>,
    },
    /// No length, or one that is no number: where the message ends is not known.
    #[error("a message without a usable Content-Length")]
    NoLength {
        /// The message's head.
        head: Vec<u8>,
    },
}

/// Cuts a stream into messages. It holds no more than one message and what was pushed last.
#[derive(Debug)]
pub struct MessageStream {
    max_message_bytes: usize,
    buffer: Vec<u8>,
    /// So many bytes at the front were searched for the end of a head already.
    searched: usize,
    /// A line end came, and nothing since.
    is_half_ping: bool,
}

impl MessageStream {
    /// An empty stream, in which no message has more than `max_message_bytes`.
    pub const fn new(max_message_bytes: usize) -> Self {
        Self { max_message_bytes, buffer: Vec::new(), searched: 0, is_half_ping: false }
    }

    /// Adds what has arrived. Take all frames out before more is added.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a message has begun and not ended.
    pub fn is_within_message(&self) -> bool {
        self.buffer.iter().any(|byte| !is_line_end(*byte))
    }

    /// The next frame, if it is complete.
    ///
    /// # Errors
    /// The rest of the stream cannot be understood.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(frame) = self.take_line_ends() {
            return Ok(Some(frame));
        }
        if self.buffer.first().is_none_or(|byte| is_line_end(*byte)) {
            return Ok(None);
        }
        self.is_half_ping = false;
        let limit = self.max_message_bytes;
        let Some(head_bytes) = self.find_head() else {
            return if self.buffer.len() > limit { Err(FrameError::TooLong { limit, head: None }) } else { Ok(None) };
        };
        let head = || self.buffer[..head_bytes].to_vec();
        let body_bytes = declared_length(&self.buffer[..head_bytes])
            .map_err(|MissingOrBad| FrameError::NoLength { head: head() })?;
        let message_bytes = head_bytes.saturating_add(body_bytes);
        if message_bytes > limit {
            return Err(FrameError::TooLong { limit, head: Some(head()) });
        }
        if self.buffer.len() < message_bytes {
            return Ok(None);
        }
        self.searched = 0;
        Ok(Some(Frame::Message(self.buffer.drain(..message_bytes).collect())))
    }

    /// Line ends between messages. A CR whose LF is still to come stays.
    fn take_line_ends(&mut self) -> Option<Frame> {
        loop {
            match self.buffer.as_slice() {
                [b'\r', b'\n', ..] => {
                    self.buffer.drain(..2);
                    self.is_half_ping = !self.is_half_ping;
                    return Some(if self.is_half_ping { Frame::Pong } else { Frame::Ping });
                }
                [b'\n', ..] | [b'\r', _, ..] => drop(self.buffer.remove(0)),
                _ => return None,
            }
        }
    }

    /// The length of the head with its empty line.
    fn find_head(&mut self) -> Option<usize> {
        let buffer = &self.buffer;
        // An empty line that began before has at most three bytes in front: LF, CR, LF.
        let from = self.searched.saturating_sub(3);
        let end = (from..buffer.len()).filter(|&at| buffer[at] == b'\n').find_map(|at| match buffer[at + 1..] {
            [b'\n', ..] => Some(at + 2),
            [b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        });
        self.searched = end.map_or(buffer.len(), |_| 0);
        end
    }
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "OPTIONS sip:h SIP/2.0\r\nContent-Length: 3\r\n\r\nabc";
    const TWO: &str = "BYE sip:h SIP/2.0\r\nl : 0\r\n\r\n";

    fn frames(chunks: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
        let mut stream = MessageStream::new(100);
        let mut frames = Vec::new();
        for chunk in chunks {
            stream.push(chunk);
            while let Some(frame) = stream.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn message(text: &str) -> Frame {
        Frame::Message(text.as_bytes().to_vec())
    }

    #[test]
    fn messages_are_cut_by_their_length_wherever_the_packets_end() {
        let all = format!("\r\n\r\n{ONE}{TWO}\r\n{TWO}");
        let expected = vec![Frame::Pong, Frame::Ping, message(ONE), message(TWO), Frame::Pong, message(TWO)];
        assert_eq!(frames(&[all.as_bytes()]).unwrap(), expected);
        for size in 1..all.len() {
            let chunks: Vec<_> = all.as_bytes().chunks(size).collect();
            assert_eq!(frames(&chunks).unwrap(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_message_without_a_length_ends_the_stream_with_its_head() {
        for head in ["BYE sip:h SIP/2.0\r\nTo: x\r\n\r\n", "BYE sip:h SIP/2.0\r\nl: -1\r\n\r\n"] {
            assert_eq!(frames(&[head.as_bytes()]), Err(FrameError::NoLength { head: head.into() }));
        }
        let two_lengths = "BYE sip:h SIP/2.0\r\nl: 1\r\nContent-Length: 2\r\n\r\n";
        assert!(matches!(frames(&[two_lengths.as_bytes()]), Err(FrameError::NoLength { .. })));
    }

    #[test]
    fn a_message_above_the_limit_is_known_before_it_is_there() {
        let head = "BYE sip:h SIP/2.0\r\nl: 99999999999999999999\r\n\r\n";
        assert!(matches!(frames(&[head.as_bytes()]), Err(FrameError::NoLength { .. } | FrameError::TooLong { .. })));
        let head = "BYE sip:h SIP/2.0\r\nl: 98\r\n\r\n";
        assert_eq!(
            frames(&[head.as_bytes()]),
            Err(FrameError::TooLong { limit: 100, head: Some(head.as_bytes().to_vec()) })
        );
        assert_eq!(frames(&[&[b'x'; 101]]), Err(FrameError::TooLong { limit: 100, head: None }));
    }

    #[test]
    fn line_ends_alone_are_no_message_that_has_begun() {
        let mut stream = MessageStream::new(100);
        stream.push(b"\r");
        assert_eq!((stream.next_frame(), stream.is_within_message()), (Ok(None), false));
        stream.push(b"\nB");
        assert_eq!(stream.next_frame(), Ok(Some(Frame::Pong)));
        assert_eq!((stream.next_frame(), stream.is_within_message()), (Ok(None), true));
    }
}
