//! Packets in the room: from each publisher to its listeners, unaltered, kept for a while for those who lost some.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::config::Impairment;
use super::event::RoomEventKind;
use super::server::{Key, Server};
use super::session::Client;
use crate::clock;
use crate::peer::{Packet, PeerEvent};

/// A packet that is late on purpose. The earliest comes first out of a heap.
pub(super) struct Delayed {
    pub(super) due: Instant,
    listener: Key,
    stream: String,
    packet: Packet,
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Delayed {}

/// Decides about each packet: lost, or late by so much.
pub(super) struct Dice {
    impairment: Impairment,
    state: u64,
}

impl Dice {
    pub(super) fn new(impairment: Impairment) -> Self {
        Self { impairment, state: impairment.seed }
    }

    /// The delay of the next packet; `None` for a lost one.
    fn roll(&mut self) -> Option<Duration> {
        if u64::from(self.impairment.loss_per_mille) > self.next() % 1000 {
            return None;
        }
        let most_us = u64::try_from(self.impairment.jitter.as_micros()).unwrap_or(u64::MAX);
        Some(if most_us == 0 { Duration::ZERO } else { Duration::from_micros(self.next() % most_us) })
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Server {
    pub(super) fn handle_peer_event(&mut self, peer: Key, event: PeerEvent) {
        let Some(entry) = self.peers.get(&peer) else { return };
        let (key, stream, is_up) = (entry.client, entry.stream.clone(), entry.is_up);
        match event {
            PeerEvent::Connected if is_up => self.report(key, RoomEventKind::UpConnected { stream }),
            PeerEvent::Connected => self.report(key, RoomEventKind::DownConnected { stream }),
            PeerEvent::Packet(packet) if is_up => self.forward(key, &stream, packet),
            // A listener has nothing to send on a stream that it is sent.
            PeerEvent::Packet(_) => {}
            PeerEvent::Nack(_) if is_up => {}
            PeerEvent::Nack(lost) => self.resend(key, &stream, &lost),
            PeerEvent::IceFailed if is_up => {
                self.send(key, &crate::message::Message::about("renegotiate", &stream));
            }
            PeerEvent::IceFailed => self.negotiate(key, &stream, true, ""),
            // The client has closed the connection; its `close` or `abort` follows.
            PeerEvent::Closed => {}
        }
    }

    fn forward(&mut self, source: Key, stream: &str, mut packet: Packet) {
        let up = self.clients.get(&source).and_then(|client| client.up.get(stream));
        let codec = up.and_then(|up| up.codecs.get(&packet.payload_type)).copied();
        let (Some(up), Some(codec)) = (up, codec) else { return };
        if up.track.is_none() {
            self.open_track(source, stream, codec);
        }
        packet.payload_type = codec.payload_type();
        let most = self.config.cache_packets;
        let track = self.clients.get_mut(&source).and_then(|client| client.up.get_mut(stream)?.track.as_mut());
        if let Some(track) = track {
            track.stats.count(clock::now_us());
            track.cache.push_back(packet.clone());
            let surplus = track.cache.len().saturating_sub(most);
            track.cache.drain(..surplus);
        }
        let Some(delay) = self.dice.roll() else { return };
        let carries = |client: &Client| client.down.get(stream).is_some_and(|down| down.source == source);
        let listeners: Vec<Key> =
            self.clients.iter().filter(|(_, client)| carries(client)).map(|(key, _)| *key).collect();
        for listener in listeners {
            self.send_after(delay, listener, stream, &packet);
        }
    }

    fn resend(&mut self, listener: Key, stream: &str, lost: &[u16]) {
        let source = self.clients.get(&listener).and_then(|client| client.down.get(stream)).map(|down| down.source);
        let up = source.and_then(|source| self.clients.get(&source)?.up.get(stream));
        let cache = up.and_then(|up| up.track.as_ref()).map(|track| &track.cache);
        let found: Vec<Packet> = cache
            .map(|cache| cache.iter().filter(|packet| lost.contains(&packet.sequence)).cloned().collect())
            .unwrap_or_default();
        let (asked, resent) = (lost.len(), found.len());
        self.report(listener, RoomEventKind::Nack { stream: stream.to_owned(), asked, resent });
        for packet in found {
            if let Some(delay) = self.dice.roll() {
                self.send_after(delay, listener, stream, &packet);
            }
        }
    }

    fn send_after(&mut self, delay: Duration, listener: Key, stream: &str, packet: &Packet) {
        if delay.is_zero() {
            return self.send_packet(listener, stream, packet);
        }
        let (due, stream, packet) = (self.now + delay, stream.to_owned(), packet.clone());
        self.delayed.push(Delayed { due, listener, stream, packet });
    }

    pub(super) fn send_delayed(&mut self) {
        while self.delayed.peek().is_some_and(|delayed| delayed.due <= self.now) {
            let Some(Delayed { listener, stream, packet, .. }) = self.delayed.pop() else { return };
            self.send_packet(listener, &stream, &packet);
        }
    }

    fn send_packet(&mut self, listener: Key, stream: &str, packet: &Packet) {
        let Some(down) = self.clients.get_mut(&listener).and_then(|client| client.down.get_mut(stream)) else {
            return;
        };
        let Some(entry) = self.peers.get_mut(&down.peer).filter(|entry| entry.peer.is_connected()) else { return };
        down.stats.count(clock::now_us());
        entry.peer.send(self.now, packet);
        // Events wait for the next turn of this connection, which comes with its next packet or timeout.
        let (peer, mut events) = (down.peer, Vec::new());
        entry.peer.drain(self.now, &mut events);
        for event in events {
            self.handle_peer_event(peer, event);
        }
    }

    pub(super) fn impair(&mut self, impairment: Impairment) {
        self.dice = Dice::new(impairment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let impairment = Impairment { loss_per_mille: 100, jitter: Duration::from_millis(80), seed: 5 };
        let rolls = || {
            let mut dice = Dice::new(impairment);
            (0..10_000).map(|_| dice.roll()).collect::<Vec<_>>()
        };
        let first = rolls();
        assert_eq!(first, rolls());
        let lost = first.iter().filter(|delay| delay.is_none()).count();
        assert!((900..1_100).contains(&lost), "{lost}");
        let latest = first.iter().flatten().max().unwrap();
        assert!(*latest < Duration::from_millis(80) && *latest > Duration::from_millis(79));
    }

    #[test]
    fn without_impairment_every_packet_goes_at_once() {
        let mut dice = Dice::new(Impairment::default());
        assert!((0..100).all(|_| dice.roll() == Some(Duration::ZERO)));
    }
}
