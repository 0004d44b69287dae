//! A relay as the net thread needs it: which of a TURN server's channels is whose.
//!
//! Owns: taking the peers' datagrams out of ChannelData (RFC 8656 §12.6) and putting ours in. Does not own: the allocation
//! (`rtc::turn`, on the signalling thread), whose STUN messages pass by.

use std::net::SocketAddr;
use std::ops::Range;

use super::batch::BUFFER_BYTES;
use crate::wire::stun::{CHANNEL_HEADER_BYTES, ChannelData};

/// Relays of one socket: those of the servers that are asked at once.
const MAX_RELAYS: usize = 8;

#[derive(Debug)]
struct Relay {
    server: SocketAddr,
    channels: Vec<(u16, SocketAddr)>,
}

/// The relays of one socket, mostly none.
#[derive(Debug, Default)]
pub(super) struct Relays(Vec<Relay>);

impl Relays {
    /// News of a server's channels.
    pub(super) fn set(&mut self, server: SocketAddr, channels: Vec<(u16, SocketAddr)>) {
        if let Some(relay) = self.0.iter_mut().find(|relay| relay.server == server) {
            relay.channels = channels;
        } else if self.0.len() < MAX_RELAYS {
            self.0.push(Relay { server, channels });
        }
    }

    /// Whether a datagram comes from a server that may have a relay for us.
    pub(super) fn is_server(&self, from: SocketAddr) -> bool {
        self.0.iter().any(|relay| relay.server == from)
    }

    /// The peer whose datagram a server has passed on, and where in `bytes` it is.
    pub(super) fn unwrap(&self, from: SocketAddr, bytes: &[u8]) -> Option<(SocketAddr, Range<usize>)> {
        let relay = self.0.iter().find(|relay| relay.server == from)?;
        let data = ChannelData::parse(bytes)?;
        let (_, peer) = relay.channels.iter().find(|(channel, _)| *channel == data.channel)?;
        Some((*peer, CHANNEL_HEADER_BYTES..CHANNEL_HEADER_BYTES + data.payload.len()))
    }

    /// Whether a channel leads to this peer.
    pub(super) fn lead_to(&self, peer: SocketAddr) -> bool {
        self.channel_to(peer).is_some()
    }

    /// Has a datagram for a peer sent as the server wants it; false if no channel leads there or it is too long.
    pub(super) fn send(&self, peer: SocketAddr, bytes: &[u8], send: impl FnOnce(&[u8], SocketAddr) -> bool) -> bool {
        let Some((server, channel)) = self.channel_to(peer) else { return false };
        let mut wrapped = [0; BUFFER_BYTES];
        let (header, payload) = wrapped.split_at_mut(CHANNEL_HEADER_BYTES);
        let (Some(payload), Ok(len)) = (payload.get_mut(..bytes.len()), u16::try_from(bytes.len())) else {
            return false;
        };
        header.copy_from_slice(&ChannelData::header(channel, len));
        payload.copy_from_slice(bytes);
        send(&wrapped[..CHANNEL_HEADER_BYTES + bytes.len()], server)
    }

    fn channel_to(&self, peer: SocketAddr) -> Option<(SocketAddr, u16)> {
        self.0.iter().find_map(|relay| {
            let (channel, _) = relay.channels.iter().find(|(_, other)| *other == peer)?;
            Some((relay.server, *channel))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_nothing_else_does() {
        let [server, peer, other] = [1, 2, 3].map(|host| SocketAddr::from(([192, 0, 2, host], 3478)));
        let mut relays = Relays::default();
        relays.set(server, vec![(0x4001, peer)]);
        let mut sent = Vec::new();
        assert!(relays.send(peer, b"voice", |bytes, to| {
            sent.push((bytes.to_vec(), to));
            true
        }));
        let (bytes, to) = sent.remove(0);
        assert_eq!(to, server);
        assert_eq!(relays.unwrap(server, &bytes), Some((peer, 4..9)));
        assert_eq!(&bytes[4..9], b"voice");
        assert_eq!(relays.unwrap(other, &bytes), None, "from elsewhere");
        assert!(!relays.send(other, b"voice", |_, _| true) && !relays.send(peer, &[0; BUFFER_BYTES], |_, _| true));
        relays.set(server, vec![(0x4002, peer)]);
        assert_eq!(relays.unwrap(server, &bytes), None, "the channel of nobody");
    }
}
