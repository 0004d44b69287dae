//! STUN messages and ChannelData out of a stream of bytes (RFC 8489 §6.2.2, RFC 8656 §12.5).
//!
//! Owns: where one ends and the next begins. Does not own: how long the bytes may take to come, and what they say.
//! Nothing in a stream tells where to begin anew: after junk there is no next frame.

use super::channel_data::{CHANNEL_HEADER_BYTES, read_header};
use super::{HEADER_BYTES, MAGIC_COOKIE};

/// The longest frame: a STUN message whose length of 16 bits is a multiple of four. A peer of the relay may send
/// datagrams of any size, so all must be read, if only to be dropped.
pub const MAX_FRAME_BYTES: usize = HEADER_BYTES + 0xfffc;

/// Why no later byte of the stream can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Neither STUN nor a channel begins like this.
    #[error("neither STUN nor ChannelData")]
    Junk,
}

/// Cuts a stream into frames. It holds no more than one frame and what was pushed last.
#[derive(Debug, Default)]
pub struct FrameStream {
    buffer: Vec<u8>,
    /// So many bytes at the front were given out already.
    taken: usize,
}

/// A frame's length in the stream, and without padding.
#[derive(Clone, Copy)]
struct Length {
    in_stream: usize,
    frame: usize,
}

impl FrameStream {
    /// An empty stream.
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), taken: 0 }
    }

    /// Adds what has arrived. Take all frames out before more is added.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if it is complete: what over UDP would be one datagram, without padding.
    ///
    /// # Errors
    /// The rest of the stream cannot be understood.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let Some(length) = length_of(rest)? else { return Ok(None) };
        if rest.len() < length.in_stream {
            return Ok(None);
        }
        self.taken += length.in_stream;
        Ok(Some(&rest[..length.frame]))
    }
}

/// How long the frame is that begins here, as soon as that can be told.
fn length_of(bytes: &[u8]) -> Result<Option<Length>, FrameError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    match first {
        0x00..=0x3f => {
            let Some(&[_, _, l0, l1, ref cookie @ ..]) = bytes.first_chunk::<8>() else { return Ok(None) };
            let len = usize::from(u16::from_be_bytes([l0, l1]));
            if len % 4 != 0 || *cookie != MAGIC_COOKIE.to_be_bytes() {
                return Err(FrameError::Junk);
            }
            Ok(Some(Length { in_stream: HEADER_BYTES + len, frame: HEADER_BYTES + len }))
        }
        0x40..=0x4f => {
            let Some(header) = bytes.first_chunk() else { return Ok(None) };
            let (_, len) = read_header(*header).ok_or(FrameError::Junk)?;
            let frame = CHANNEL_HEADER_BYTES + len;
            Ok(Some(Length { in_stream: frame.next_multiple_of(4), frame }))
        }
        _ => Err(FrameError::Junk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stun::{Builder, ChannelData, Class, TransactionId};

    fn frames(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Option<FrameError>) {
        let (mut stream, mut frames) = (FrameStream::new(), Vec::new());
        for chunk in chunks {
            stream.push(chunk);
            loop {
                match stream.next_frame() {
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    #[test]
    fn frames_are_cut_by_their_length_wherever_the_packets_end() {
        let message = Builder::new(Class::Request, TransactionId([1; 12])).username("abc").finish(b"k");
        let data = |payload: &[u8]| {
            let mut bytes = ChannelData::header(0x4000, payload.len() as u16).to_vec();
            bytes.extend(payload);
            bytes
        };
        let expected = [message.clone(), data(b"12345"), data(b""), message, data(&[7; 2000])];
        let mut all = Vec::new();
        for frame in &expected {
            all.extend(frame);
            all.resize(all.len().next_multiple_of(4), 0);
        }
        for size in 1..all.len() {
            let chunks: Vec<_> = all.chunks(size).collect();
            assert_eq!(frames(&chunks), (expected.to_vec(), None), "in pieces of {size}");
        }
        all.push(0x80);
        assert_eq!(frames(&[&all]), (expected.to_vec(), Some(FrameError::Junk)));
    }

    #[test]
    fn junk_is_known_at_once() {
        let odd_length = [0, 1, 0, 2, 0x21, 0x12, 0xa4, 0x42];
        for junk in [&[0x80][..], b"\x16\x03\x01\x02\x00\x01\x00\x01", b"SSH", &odd_length] {
            assert_eq!(frames(&[junk]), (Vec::new(), Some(FrameError::Junk)), "{junk:?}");
        }
    }
}
