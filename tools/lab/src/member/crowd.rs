//! The members' loop: their sockets, their voices and what is due when.

use std::collections::{BTreeMap, HashMap};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use super::event::{MemberEvent, MemberEventKind};
use super::person::{Entrance, Person};
use super::recording::Recording;
use super::voice::{FRAME, Voice};
use super::{MemberCommand, MemberConfig, Speech};
use crate::clock;
use crate::http;
use crate::message::Message;
use crate::pcm::Pcm;
use crate::peer::{Identity, Peer, PeerConfig, PeerEvent};
use crate::poll::{Poll, Waker};
use crate::room::AudioCodec;
use crate::websocket::{Ending, Link};

/// A number for everything that has a socket.
pub(super) type Key = u64;

/// One turn takes so many datagrams from one socket before the others have their turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// Without anything due the loop still looks around so often.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A machine that stood still for longer skips frames instead of sending them all at once.
const LONGEST_BACKLOG: Duration = Duration::from_millis(200);
/// What members say who say nothing: the noise of a room.
const ROOM_NOISE_DBFS: f64 = -60.0;
/// So often a member tells the server that it lives; a server throws out who is silent for 45 s.
const PING_EVERY: Duration = Duration::from_secs(15);

/// What reaches the loop from outside.
pub(super) enum Control {
    Command { member: usize, command: MemberCommand },
    Recordings { member: usize, sender: Sender<Vec<Recording>> },
    Stop,
}

pub(super) struct PeerEntry {
    pub(super) peer: Peer,
    member: usize,
    stream: String,
    is_up: bool,
    socket: Arc<UdpSocket>,
}

enum Source {
    Link(usize),
    Peer,
}

pub(super) struct Loop {
    pub(super) config: MemberConfig,
    pub(super) people: Vec<Person>,
    pub(super) peers: BTreeMap<Key, PeerEntry>,
    pub(super) now: Instant,
    identity: Identity,
    /// What is said and, if not all say it, the noise of the others.
    voices: Vec<Voice>,
    next_frame: Instant,
    next_ping: Instant,
    next_levels: Option<Instant>,
    sources: HashMap<Key, Source>,
    next_key: Key,
    poll: Poll,
    commands: Receiver<Control>,
    reports: Sender<MemberEvent>,
}

impl Loop {
    pub(super) fn new(
        config: MemberConfig,
        count: usize,
        commands: Receiver<Control>,
        reports: Sender<MemberEvent>,
    ) -> Result<Self, String> {
        let seed = u32::try_from(clock::now_us() & 0x7fff_ffff).unwrap_or(0);
        let mut voices = Vec::new();
        if let Some(speech) = &config.speech {
            voices.push(Voice::new(speech, config.encoder, seed)?);
            if config.speakers < count {
                let noise = Speech::looped(Pcm::noise(crate::opus::RATE_HZ, 5.0, ROOM_NOISE_DBFS));
                voices.push(Voice::new(&noise, config.encoder, seed.wrapping_mul(31))?);
            }
        }
        let now = Instant::now();
        Ok(Self {
            people: (0..count).map(|_| Person::new()).collect(),
            peers: BTreeMap::new(),
            now,
            identity: Identity::generate().ok_or("no certificate can be made")?,
            voices,
            next_frame: now,
            next_ping: now + PING_EVERY,
            next_levels: config.levels_every.map(|every| now + every),
            sources: HashMap::new(),
            next_key: 0,
            poll: Poll::new().map_err(|error| error.to_string())?,
            commands,
            reports,
            config,
        })
    }

    pub(super) fn waker(&self) -> Waker {
        self.poll.waker()
    }

    pub(super) fn publishes(&self) -> bool {
        self.config.speech.is_some()
    }

    /// Joins, and runs until told to stop.
    pub(super) fn run(&mut self) {
        self.join_all();
        self.next_frame = Instant::now();
        let mut ready = Vec::new();
        loop {
            let wait = self.next_due().saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            if self.poll.wait(wait, &mut ready).is_err() {
                return;
            }
            self.now = Instant::now();
            for key in &ready {
                match self.sources.get(key) {
                    Some(Source::Link(member)) => self.read_link(*member),
                    Some(Source::Peer) => self.read_peer(*key),
                    // It went away within this very turn.
                    None => {}
                }
            }
            loop {
                match self.commands.try_recv() {
                    Ok(Control::Command { member, command }) => self.obey(member, command),
                    Ok(Control::Recordings { member, sender }) => {
                        let recordings = self.people.get(member).map(|person| person.recordings.clone());
                        drop(sender.send(recordings.unwrap_or_default()));
                    }
                    Ok(Control::Stop) | Err(TryRecvError::Disconnected) => return self.leave_all(),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.handle_due();
        }
    }

    fn join_all(&mut self) {
        let entrance = Entrance::find(&self.config);
        for member in 0..self.people.len() {
            let joined = match &entrance {
                Ok(entrance) => self.join(member, entrance),
                Err(reason) => Err(reason.clone()),
            };
            if let Err(reason) = joined {
                self.report(member, MemberEventKind::Refused(reason));
            }
        }
    }

    fn join(&mut self, member: usize, entrance: &Entrance) -> Result<(), String> {
        let number = if member == 0 { String::new() } else { format!(" {}", member + 1) };
        let username = format!("{}{number}", self.config.username);
        let join = entrance.join_message(&self.config, &username)?;
        let uri = entrance.endpoint.parse().map_err(|error| format!("{}: {error}", entrance.endpoint))?;
        let stream = http::connect(&uri, self.config.insecure)?;
        let link = Link::client(&entrance.endpoint, stream)?;
        let key = self.new_key(Source::Link(member));
        self.poll.add(&link, key).map_err(|error| error.to_string())?;
        let handshake =
            Message { version: vec!["2".into()], id: self.people[member].id.clone(), ..Message::new("handshake") };
        self.people[member].link = Some((key, link));
        self.send(member, &handshake);
        self.send(member, &join);
        Ok(())
    }

    fn leave_all(&mut self) {
        for member in 0..self.people.len() {
            self.disconnect(member, "left", true);
        }
    }

    fn next_due(&self) -> Instant {
        let peers = self.peers.values().map(|entry| entry.peer.next_timeout());
        let frame = self.speaks().then_some(self.next_frame);
        peers.chain(frame).chain(self.next_levels).min().unwrap_or(self.next_ping).min(self.next_ping)
    }

    /// Whether anybody has a stream to send on.
    fn speaks(&self) -> bool {
        self.people.iter().any(|person| person.up.is_some())
    }

    fn handle_due(&mut self) {
        let now = self.now;
        let due: Vec<Key> =
            self.peers.iter().filter(|(_, entry)| entry.peer.next_timeout() <= now).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(entry) = self.peers.get_mut(&key) {
                entry.peer.handle_timeout(now);
            }
            self.drain_peer(key);
        }
        if now.saturating_duration_since(self.next_frame) > LONGEST_BACKLOG {
            self.next_frame = now;
        }
        while self.speaks() && self.next_frame <= now {
            let scheduled = self.next_frame;
            self.next_frame += FRAME;
            self.speak(scheduled);
        }
        if self.next_ping <= now {
            self.next_ping = now + PING_EVERY;
            for member in 0..self.people.len() {
                self.send(member, &Message::new("ping"));
            }
        }
        if let (Some(every), Some(due)) = (self.config.levels_every, self.next_levels)
            && due <= now
        {
            self.next_levels = Some(due + every);
            self.tell_levels();
        }
    }

    /// Sends a frame of each voice on the streams of those who have it. Speech begins and ends by the schedule, from
    /// which a busy machine sends this frame or that one late.
    fn speak(&mut self, scheduled: Instant) {
        let late_us = u64::try_from(scheduled.elapsed().as_micros()).unwrap_or(0);
        let at_us = clock::now_us().saturating_sub(late_us);
        let frames: Vec<_> = self.voices.iter_mut().map(|voice| voice.next_frame(clock::now_us())).collect();
        for member in 0..self.people.len() {
            let (Some(frame), Some(up)) = (frames.get(self.voice_of(member)), &self.people[member].up) else {
                continue;
            };
            if self.now.duration_since(up.offered_at) < self.config.first_packet_after {
                continue;
            }
            let key = up.peer;
            let Some(entry) = self.peers.get_mut(&key).filter(|entry| entry.peer.is_connected()) else { continue };
            entry.peer.send(self.now, &frame.packet);
            self.drain_peer(key);
            if self.voice_of(member) == 0 {
                if frame.begins {
                    self.report_at(at_us, member, MemberEventKind::SpeechBegins);
                }
                if frame.ends {
                    self.report_at(at_us, member, MemberEventKind::SpeechEnds);
                }
            }
        }
    }

    fn voice_of(&self, member: usize) -> usize {
        usize::from(member >= self.config.speakers)
    }

    /// The first stream that is connected lets a voice begin after the time that it was given.
    pub(super) fn begin_to_speak(&mut self, member: usize) {
        let index = self.voice_of(member);
        let after_us = u64::try_from(self.config.speak_after.as_micros()).unwrap_or(0);
        if let Some(voice) = self.voices.get_mut(index).filter(|voice| !voice.has_begun()) {
            voice.begin_at(clock::now_us() + after_us);
        }
    }

    pub(super) fn speak_at(&mut self, member: usize, at_us: u64) {
        let index = self.voice_of(member);
        if let Some(voice) = self.voices.get_mut(index) {
            voice.begin_at(at_us);
        }
    }

    fn new_key(&mut self, source: Source) -> Key {
        self.next_key += 1;
        self.sources.insert(self.next_key, source);
        self.next_key
    }

    fn read_link(&mut self, member: usize) {
        let Some((key, link)) = &mut self.people[member].link else { return };
        let was_blocked = link.is_blocked();
        let mut texts = Vec::new();
        let ending = link.read(&mut texts).err();
        if was_blocked && !link.is_blocked() {
            let _ = self.poll.watch_output(&*link, *key, false);
        }
        for text in texts {
            self.handle_text(member, &text);
        }
        match ending {
            Some(Ending::Closed(code, reason)) => self.disconnect(member, &format!("closed: {code} {reason}"), true),
            Some(Ending::Broken(reason)) => self.disconnect(member, &reason, true),
            None => {}
        }
    }

    pub(super) fn send(&mut self, member: usize, message: &Message) {
        self.send_text(member, &message.to_text());
    }

    pub(super) fn send_text(&mut self, member: usize, text: &str) {
        if let Some((key, link)) = &mut self.people[member].link {
            link.send(text);
            if link.is_blocked() {
                let _ = self.poll.watch_output(&*link, *key, true);
            }
        }
    }

    pub(super) fn take_link(&mut self, member: usize) -> Option<Link> {
        let (key, link) = self.people[member].link.take()?;
        self.poll.remove(&link);
        self.sources.remove(&key);
        Some(link)
    }

    /// A peer connection on a socket of its own; `None`, and the member hears of it, if there is none to be had.
    pub(super) fn add_peer(&mut self, member: usize, stream: &str, is_up: bool) -> Option<Key> {
        match self.try_add_peer(member, stream, is_up) {
            Ok(key) => Some(key),
            Err(reason) => {
                self.disconnect(member, &reason, true);
                None
            }
        }
    }

    fn try_add_peer(&mut self, member: usize, stream: &str, is_up: bool) -> Result<Key, String> {
        let words = |error: std::io::Error| error.to_string();
        let (_, link) = self.people[member].link.as_ref().ok_or("not connected")?;
        let own_address = || link.local_address().map_err(words);
        let address = self.config.media_address.map_or_else(own_address, Ok)?;
        let socket = UdpSocket::bind((address, 0)).map_err(words)?;
        socket.set_nonblocking(true).map_err(words)?;
        let socket = Arc::new(socket);
        let codecs: &[AudioCodec] = if is_up { &[AudioCodec::Opus] } else { &AudioCodec::ALL };
        let config = PeerConfig { identity: &self.identity, socket: Arc::clone(&socket), codecs, waits: None };
        let peer = Peer::new(&config, self.now)?;
        let key = self.new_key(Source::Peer);
        self.poll.add(&*socket, key).map_err(words)?;
        self.peers.insert(key, PeerEntry { peer, member, stream: stream.to_owned(), is_up, socket });
        Ok(key)
    }

    pub(super) fn remove_peer(&mut self, key: Key) {
        if let Some(entry) = self.peers.get_mut(&key) {
            entry.peer.close(self.now);
        }
        self.forget_peer(key);
    }

    /// Ends a connection without telling the other side.
    pub(super) fn forget_peer(&mut self, key: Key) {
        if let Some(entry) = self.peers.remove(&key) {
            self.poll.remove(&*entry.socket);
        }
        self.sources.remove(&key);
    }

    fn read_peer(&mut self, key: Key) {
        let mut buffer = [0; 2048];
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(entry) = self.peers.get_mut(&key) else { return };
            let Ok((length, from)) = entry.socket.recv_from(&mut buffer) else { return };
            let mut events = Vec::new();
            entry.peer.receive(self.now, from, &buffer[..length], &mut events);
            self.handle_events(key, events);
        }
    }

    fn drain_peer(&mut self, key: Key) {
        let mut events = Vec::new();
        if let Some(entry) = self.peers.get_mut(&key) {
            entry.peer.drain(self.now, &mut events);
        }
        self.handle_events(key, events);
    }

    fn handle_events(&mut self, key: Key, events: Vec<PeerEvent>) {
        for event in events {
            let Some(entry) = self.peers.get(&key) else { return };
            let (member, stream, is_up) = (entry.member, entry.stream.clone(), entry.is_up);
            self.handle_peer_event(member, &stream, is_up, event);
        }
    }

    pub(super) fn report(&self, member: usize, kind: MemberEventKind) {
        self.report_at(clock::now_us(), member, kind);
    }

    fn report_at(&self, at_us: u64, member: usize, kind: MemberEventKind) {
        // Nobody needs to listen.
        let _ = self.reports.send(MemberEvent { at_us, member, kind });
    }
}
