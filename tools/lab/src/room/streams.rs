//! Streams in the room: who offers what, who asked for what, and what each is told about it.
//!
//! A stream of a client is an up stream, carried by one peer connection; each listener has a down stream of the same
//! id, carried by another. RFC: 8829 for the descriptions, within Galene's protocol.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::config::{AudioCodec, Candidates};
use super::event::RoomEventKind;
use super::server::{Key, Server};
use super::session::Fatal;
use crate::message::Message;
use crate::peer::{Packet, Peer, PeerConfig, first_mid, split_candidates};

/// A stream that a client publishes.
pub(super) struct Up {
    pub(super) peer: Key,
    pub(super) label: String,
    /// The stream that this one takes the place of, until the others were told.
    replace: String,
    /// The codec of each payload type in its description.
    pub(super) codecs: HashMap<u8, AudioCodec>,
    /// The format parameters of Opus as the publisher gives them.
    opus_parameters: Option<String>,
    /// What it carries, from its first packet on.
    pub(super) track: Option<Track>,
    /// When to show it to the others, and whether that was done since the last change.
    pub(super) pushes: Vec<Push>,
    pushed: bool,
}

/// A plan to show a stream to the others.
pub(super) struct Push {
    pub(super) due: Instant,
    /// Those who were there when it was made.
    listeners: Vec<Key>,
}

/// An up stream's sound.
pub(super) struct Track {
    pub(super) codec: AudioCodec,
    pub(super) cache: VecDeque<Packet>,
    pub(super) stats: Stats,
}

/// A stream that a client is sent.
pub(super) struct Down {
    pub(super) peer: Key,
    /// Whose stream it is.
    pub(super) source: Key,
    /// What `requestStream` asked for.
    requested: Option<Vec<String>>,
    /// What to do after the answer that is awaited.
    again: Again,
    pub(super) stats: Stats,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    No,
    Restart,
}

/// Packets of one direction.
#[derive(Clone, Copy, Default)]
pub(super) struct Stats {
    pub(super) packets: u64,
    pub(super) last_us: u64,
    pub(super) longest_gap: Duration,
}

impl Stats {
    pub(super) fn count(&mut self, now_us: u64) {
        if self.packets > 0 {
            self.longest_gap = self.longest_gap.max(Duration::from_micros(now_us.saturating_sub(self.last_us)));
        }
        self.packets += 1;
        self.last_us = now_us;
    }
}

impl Server {
    /// A client offers a stream, or an old one anew.
    pub(super) fn take_offer(&mut self, key: Key, message: &Message) {
        let Some(client) = self.clients.get(&key) else { return };
        if !client.may("present") {
            if !message.replace.is_empty() {
                self.close_up(key, &message.replace, true);
            }
            return self.refuse_up(key, &message.id, "not authorised");
        }
        if client.down.contains_key(&message.id) {
            return self.refuse_up(key, &message.id, "adding duplicate connection");
        }
        self.report(key, RoomEventKind::UpOffered { stream: message.id.clone(), label: message.label.clone() });
        if let Err(reason) = self.answer_offer(key, message) {
            self.close_up(key, &message.id, false);
            self.refuse_up(key, &message.id, &reason);
        }
    }

    fn answer_offer(&mut self, key: Key, message: &Message) -> Result<(), String> {
        let (_, group) = self.group_config(key).ok_or("join a group first")?;
        let codecs = group.codecs.clone();
        let described = described_codecs(&message.sdp);
        let known = self.clients.get(&key).and_then(|client| client.up.get(&message.id)).map(|up| up.peer);
        let peer = match known {
            Some(peer) => peer,
            None => self.add_up(key, message, &codecs, described.clone())?,
        };
        if !message.replace.is_empty() {
            if let Some(up) = self.clients.get_mut(&key).and_then(|client| client.up.get_mut(&message.id)) {
                up.replace = message.replace.clone();
            }
            self.close_up(key, &message.replace, false);
        }
        let now = self.now;
        let entry = self.peers.get_mut(&peer).ok_or("the connection is gone")?;
        let answer = if described.values().any(|codec| codecs.contains(codec)) {
            entry.peer.accept_offer(&message.sdp, now)?
        } else {
            lacks(&message.sdp).map_or_else(|| Ok(REFUSING_ANSWER.to_owned()), Err)?
        };
        self.describe(key, Message { sdp: answer, ..Message::about("answer", &message.id) });
        Ok(())
    }

    fn add_up(
        &mut self,
        key: Key,
        message: &Message,
        codecs: &[AudioCodec],
        described: HashMap<u8, AudioCodec>,
    ) -> Result<Key, String> {
        let socket = self.media_socket()?;
        let identity = self.identity.clone();
        let config = PeerConfig { identity: &identity, socket: socket.clone(), codecs, waits: None };
        let peer = Peer::new(&config, self.now)?;
        let peer = self.add_peer(peer, socket, key, &message.id, true)?;
        let up = Up {
            peer,
            label: message.label.clone(),
            replace: String::new(),
            codecs: described,
            opus_parameters: opus_parameters(&message.sdp),
            track: None,
            pushes: vec![self.plan_push(key)],
            pushed: false,
        };
        if let Some(client) = self.clients.get_mut(&key) {
            client.up.insert(message.id.clone(), up);
        }
        Ok(peer)
    }

    /// The first packet of an up stream: there is something to show.
    pub(super) fn open_track(&mut self, key: Key, stream: &str, codec: AudioCodec) {
        let push = self.plan_push(key);
        let Some(up) = self.clients.get_mut(&key).and_then(|client| client.up.get_mut(stream)) else { return };
        up.track = Some(Track { codec, cache: VecDeque::new(), stats: Stats::default() });
        up.pushed = false;
        up.pushes.push(push);
        self.report(key, RoomEventKind::UpFirstPacket { stream: stream.to_owned(), codec });
    }

    fn plan_push(&self, key: Key) -> Push {
        Push { due: self.now + self.config.publish_delay, listeners: self.others(key) }
    }

    /// Shows the streams whose time has come to the others: first, if nothing has come in, by a `close`.
    pub(super) fn push_due(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for (key, client) in &mut self.clients {
            for (id, up) in &mut client.up {
                let Some(index) = up.pushes.iter().position(|push| push.due <= now) else { continue };
                let push = up.pushes.remove(index);
                if !up.pushed {
                    up.pushed = true;
                    let replace = std::mem::take(&mut up.replace);
                    due.push((*key, id.clone(), replace, up.track.is_some(), push.listeners));
                }
            }
        }
        for (key, stream, replace, has_track, planned) in due {
            if has_track {
                self.report(key, RoomEventKind::Published { stream: stream.clone() });
            }
            let mut listeners = self.others(key);
            if self.config.overlooks_newcomers {
                listeners.retain(|listener| planned.contains(listener));
            }
            for listener in listeners {
                self.push(listener, &stream, Some(key), &replace);
            }
        }
    }

    fn others(&self, key: Key) -> Vec<Key> {
        let Some(group) = self.clients.get(&key).and_then(|client| client.group) else { return Vec::new() };
        self.members(group).map(|(other, _)| other).filter(|other| *other != key).collect()
    }

    /// Tells a listener of a stream (or, with no source, of its end): by an offer if it wants it, else by a `close`.
    fn push(&mut self, listener: Key, stream: &str, source: Option<Key>, replace: &str) {
        let wanted = source.is_some_and(|source| self.wants(listener, source, stream, replace));
        if !replace.is_empty() {
            self.delete_down(listener, replace);
        }
        let Some(source) = source.filter(|_| wanted) else {
            self.close_down(listener, stream, "");
            if !replace.is_empty() {
                self.close_down(listener, replace, "");
            }
            return;
        };
        let known = self.clients.get(&listener).is_some_and(|client| client.down.contains_key(stream));
        if known {
            if !replace.is_empty() {
                self.close_down(listener, replace, "");
            }
            return;
        }
        match self.add_down(listener, stream, source) {
            Ok(()) => self.negotiate(listener, stream, false, replace),
            Err(reason) => self.close_down(listener, stream, &reason),
        }
    }

    fn wants(&self, listener: Key, source: Key, stream: &str, replace: &str) -> bool {
        let Some(client) = self.clients.get(&listener) else { return false };
        let Some(up) = self.clients.get(&source).and_then(|client| client.up.get(stream)) else { return false };
        let old = client.down.get(if replace.is_empty() { stream } else { replace });
        let requested = old
            .and_then(|down| down.requested.as_ref())
            .or_else(|| client.requested.get(&up.label))
            .or_else(|| client.requested.get(""));
        up.track.is_some() && requested.is_some_and(|wishes| wishes.iter().any(|wish| wish == "audio"))
    }

    fn add_down(&mut self, listener: Key, stream: &str, source: Key) -> Result<(), String> {
        let track = self.clients.get(&source).and_then(|client| client.up.get(stream)?.track.as_ref());
        let codec = track.ok_or("there is no such stream")?.codec;
        let socket = self.media_socket()?;
        let identity = self.identity.clone();
        let waits = Some(self.config.nomination_waits);
        let config = PeerConfig { identity: &identity, socket: socket.clone(), codecs: &[codec], waits };
        let peer = Peer::new(&config, self.now)?;
        let peer = self.add_peer(peer, socket, listener, stream, false)?;
        let down = Down { peer, source, requested: None, again: Again::No, stats: Stats::default() };
        if let Some(client) = self.clients.get_mut(&listener) {
            client.down.insert(stream.to_owned(), down);
        }
        Ok(())
    }

    /// Offers a down stream, at once or after the answer that is still awaited.
    pub(super) fn negotiate(&mut self, listener: Key, stream: &str, restart: bool, replace: &str) {
        let Some(down) = self.clients.get_mut(&listener).and_then(|client| client.down.get_mut(stream)) else {
            return;
        };
        let (source, peer) = (down.source, down.peer);
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.peer.awaits_answer() {
            if restart {
                down.again = Again::Restart;
            }
            return;
        }
        down.again = Again::No;
        let offer = match entry.peer.offer(stream, restart) {
            Ok(offer) => offer,
            Err(reason) => return self.close_down(listener, stream, &reason),
        };
        let Some(from) = self.clients.get(&source) else { return };
        let message = Message {
            label: from.up.get(stream).map(|up| up.label.clone()).unwrap_or_default(),
            replace: replace.to_owned(),
            source: from.id.clone(),
            username: Some(from.username.clone()),
            sdp: with_parameters(&offer, from.up.get(stream).and_then(|up| up.opus_parameters.as_deref())),
            ..Message::about("offer", stream)
        };
        self.report(listener, RoomEventKind::DownOffered { stream: stream.to_owned() });
        self.describe(listener, message);
    }

    /// Sends an offer or answer with its candidates where the configuration wants them.
    fn describe(&mut self, key: Key, mut message: Message) {
        message.sdp = as_pion_writes(&message.sdp);
        let (sdp, candidates) = split_candidates(&message.sdp);
        let (id, mid) = (message.id.clone(), first_mid(&sdp).to_owned());
        let tell = |server: &mut Self| {
            for candidate in &candidates {
                server.send(key, &Message::ice(&id, &mid, candidate));
            }
        };
        match self.config.candidates {
            Candidates::InDescription => self.send(key, &message),
            Candidates::AfterDescription => {
                message.sdp = sdp;
                self.send(key, &message);
                tell(self);
            }
            Candidates::BeforeDescription => {
                message.sdp = sdp;
                tell(self);
                self.send(key, &message);
            }
        }
    }

    pub(super) fn take_answer(&mut self, key: Key, message: &Message) -> Result<(), Fatal> {
        let down = self.clients.get(&key).and_then(|client| client.down.get(&message.id));
        let Some(peer) = down.map(|down| down.peer) else {
            self.close_down(key, &message.id, "");
            return Ok(());
        };
        let now = self.now;
        let accepted = self.peers.get_mut(&peer).map(|entry| entry.peer.accept_answer(&message.sdp, now));
        if let Some(Err(reason)) = accepted {
            self.close_down(key, &message.id, &reason);
            return Ok(());
        }
        self.report(key, RoomEventKind::DownAnswered { stream: message.id.clone() });
        let down = self.clients.get(&key).and_then(|client| client.down.get(&message.id));
        if down.is_some_and(|down| down.again == Again::Restart) {
            self.negotiate(key, &message.id, true, "");
        }
        Ok(())
    }

    pub(super) fn take_candidate(&mut self, key: Key, message: &Message) -> Result<(), Fatal> {
        let candidate = message.candidate.as_ref().ok_or_else(|| Fatal::Protocol("null candidate".into()))?;
        let Some(client) = self.clients.get(&key) else { return Ok(()) };
        let up = client.up.get(&message.id).map(|up| up.peer);
        let peer = up.or_else(|| client.down.get(&message.id).map(|down| down.peer));
        // Galene logs a candidate for a stream that it does not know, and no more.
        if let Some(entry) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
            entry.peer.add_candidate(&candidate.candidate);
        }
        Ok(())
    }

    pub(super) fn request(&mut self, key: Key, message: &Message) -> Result<(), Fatal> {
        let bad = || Fatal::Internal("bad type in request".into());
        let wishes: HashMap<String, Vec<String>> = match message.request.clone() {
            None | Some(Value::Null) => HashMap::new(),
            Some(value) => serde_json::from_value(value).map_err(|_| bad())?,
        };
        let Some(client) = self.clients.get_mut(&key) else { return Ok(()) };
        if client.group.is_none() {
            return Err(Fatal::Internal("attempted to request with no group joined".into()));
        }
        client.requested = wishes;
        self.report(key, RoomEventKind::Requested(message.request.clone().unwrap_or_default()));
        for source in self.others(key) {
            let streams: Vec<String> =
                self.clients.get(&source).map(|client| client.up.keys().cloned().collect()).unwrap_or_default();
            for stream in streams {
                self.push(key, &stream, Some(source), "");
            }
        }
        Ok(())
    }

    pub(super) fn request_stream(&mut self, key: Key, message: &Message) -> Result<(), Fatal> {
        let Some(client) = self.clients.get_mut(&key) else { return Ok(()) };
        let Some(down) = client.down.get_mut(&message.id) else {
            return Err(Fatal::Internal("unknown id".into()));
        };
        let wishes = message.request.clone().unwrap_or_default();
        let wishes = serde_json::from_value(wishes).map_err(|_| Fatal::Internal("bad type".into()))?;
        down.requested = Some(wishes);
        let source = down.source;
        self.push(key, &message.id, Some(source), "");
        Ok(())
    }

    /// Ends an up stream; with `push` the others hear of it.
    pub(super) fn close_up(&mut self, key: Key, stream: &str, push: bool) {
        let Some(up) = self.clients.get_mut(&key).and_then(|client| client.up.remove(stream)) else { return };
        self.report(key, RoomEventKind::UpClosed { stream: stream.to_owned() });
        self.remove_peer(up.peer);
        if push {
            for listener in self.others(key) {
                self.push(listener, stream, None, &up.replace);
            }
        }
    }

    pub(super) fn refuse_up(&mut self, key: Key, stream: &str, reason: &str) {
        self.report(key, RoomEventKind::UpRefused { stream: stream.to_owned(), reason: reason.to_owned() });
        self.send(key, &Message::about("abort", stream));
        self.notify(key, "error", reason);
    }

    /// Ends a down stream, if there is one, and says so in any case.
    pub(super) fn close_down(&mut self, key: Key, stream: &str, reason: &str) {
        self.delete_down(key, stream);
        self.send(key, &Message::about("close", stream));
        self.report(key, RoomEventKind::DownClosed { stream: stream.to_owned() });
        if !reason.is_empty() {
            self.notify(key, "error", reason);
        }
    }

    pub(super) fn delete_down(&mut self, key: Key, stream: &str) {
        if let Some(down) = self.clients.get_mut(&key).and_then(|client| client.down.remove(stream)) {
            self.remove_peer(down.peer);
        }
    }
}

/// The audio codecs that a description names, by payload type. The static types need no name (RFC 3551 §6).
fn described_codecs(sdp: &str) -> HashMap<u8, AudioCodec> {
    let mut codecs = HashMap::new();
    for line in sdp.lines().map(str::trim) {
        if let Some(formats) = line.strip_prefix("m=audio ") {
            let types = formats.split(' ').skip(2).filter_map(|word| word.parse::<u8>().ok());
            for payload_type in types {
                let codec = AudioCodec::ALL.into_iter().find(|codec| codec.payload_type() == payload_type);
                if let Some(codec) = codec.filter(|codec| *codec != AudioCodec::Opus) {
                    codecs.insert(payload_type, codec);
                }
            }
        }
        let Some((payload_type, encoding)) = line.strip_prefix("a=rtpmap:").and_then(|map| map.split_once(' ')) else {
            continue;
        };
        let name = encoding.split('/').next().unwrap_or_default();
        let codec = AudioCodec::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name));
        if let (Ok(payload_type), Some(codec)) = (payload_type.parse(), codec) {
            codecs.insert(payload_type, codec);
        }
    }
    codecs
}

/// What a description lacks that pion asks of every one, whatever its codecs are.
fn lacks(sdp: &str) -> Option<String> {
    if !sdp.starts_with("v=0") {
        return Some("sdp: invalid syntax".into());
    }
    let missing = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:"].into_iter().find(|line| !sdp.contains(line))?;
    Some(format!("SetRemoteDescription called with no {}", missing.trim_start_matches("a=").trim_end_matches(':')))
}

/// pion's answer when there is no codec in common: the section is there, on port 0 (RFC 3264 §6), and that is all.
const REFUSING_ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
                               m=audio 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\n";

/// The format parameters of Opus in a description.
fn opus_parameters(sdp: &str) -> Option<String> {
    let payload_type = sdp.lines().find_map(|line| {
        let (payload_type, encoding) = line.trim().strip_prefix("a=rtpmap:")?.split_once(' ')?;
        encoding.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("opus/")).then_some(payload_type)
    })?;
    let prefix = format!("a=fmtp:{payload_type} ");
    sdp.lines().find_map(|line| line.trim().strip_prefix(&prefix)).map(str::to_owned)
}

/// A description with the publisher's format parameters of Opus in place of the own ones, as pion passes them on.
fn with_parameters(sdp: &str, parameters: Option<&str>) -> String {
    let Some(parameters) = parameters else { return sdp.to_owned() };
    let own = |line: &str| line.starts_with("a=fmtp:111 ");
    let line = |line| if own(line) { format!("a=fmtp:111 {parameters}\r\n") } else { str::to_owned(line) };
    sdp.split_inclusive('\n').map(line).collect()
}

/// A description in pion's shape: the fingerprint stands for the whole session, and nothing says `trickle`.
fn as_pion_writes(sdp: &str) -> String {
    let is_fingerprint = |line: &&str| line.starts_with("a=fingerprint:");
    let fingerprint = sdp.split_inclusive('\n').find(is_fingerprint).unwrap_or_default();
    let mut written = String::new();
    for line in sdp.split_inclusive('\n') {
        match line.trim_end() {
            line if line.starts_with("a=fingerprint:") || line == "a=ice-options:trickle" => {}
            "t=0 0" => written.extend([line, "a=msid-semantic:WMS *\r\n", fingerprint]),
            session if session.starts_with("a=msid-semantic") => {}
            "a=rtcp-mux" => written.extend([line, "a=rtcp-rsize\r\n"]),
            _ => written.push_str(line),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_known_by_their_name_or_by_their_static_payload_type() {
        let sdp = "m=audio 9 UDP/TLS/RTP/SAVPF 96 8 0 13\r\na=rtpmap:96 OPUS/48000/2\r\na=rtpmap:0 PCMU/8000\r\n";
        let codecs = described_codecs(sdp);
        assert_eq!(codecs.get(&96), Some(&AudioCodec::Opus));
        assert_eq!(codecs.get(&8), Some(&AudioCodec::Pcma));
        assert_eq!(codecs.get(&0), Some(&AudioCodec::Pcmu));
        assert_eq!(codecs.get(&13), None);
        assert!(described_codecs("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n").is_empty());
    }

    #[test]
    fn descriptions_look_like_pions() {
        let sdp = "v=0\r\nt=0 0\r\na=msid-semantic: WMS x\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
                   a=ice-options:trickle\r\na=fingerprint:sha-256 AB\r\na=rtcp-mux\r\na=fmtp:111 minptime=10\r\n";
        let written = with_parameters(&as_pion_writes(sdp), Some("stereo=1"));
        assert_eq!(
            written,
            "v=0\r\nt=0 0\r\na=msid-semantic:WMS *\r\na=fingerprint:sha-256 AB\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=fmtp:111 stereo=1\r\n"
        );
        let offer = "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n";
        assert_eq!(opus_parameters(offer).as_deref(), Some("useinbandfec=1"));
    }

    #[test]
    fn the_longest_gap_is_between_packets_alone() {
        let mut stats = Stats::default();
        for at_us in [1_000_000, 1_020_000, 1_100_000, 1_110_000] {
            stats.count(at_us);
        }
        assert_eq!((stats.packets, stats.longest_gap), (4, Duration::from_millis(80)));
    }
}
