//! The room server's loop: its sockets, who holds which, and what is due when.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use super::config::{GroupConfig, RoomConfig};
use super::event::{ClientName, RoomCommand, RoomEvent, RoomEventKind, RoomSnapshot};
use super::media::{Delayed, Dice};
use super::session::Client;
use super::web::{self, Reply};
use crate::clock;
use crate::http::{Request, response};
use crate::message::Message;
use crate::peer::{Identity, Peer, PeerEvent, addressed_ufrag};
use crate::poll::{Poll, Waker};
use crate::transport::{self, Transport};
use crate::websocket::{Ending, Link};

/// One turn takes so many datagrams from one socket before the others have their turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// Without anything due the loop still looks around so often.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A number for everything that has a socket; a client's is its connection's.
pub(super) type Key = u64;

/// What reaches the loop from outside.
pub(super) enum Control {
    Command(RoomCommand),
    Snapshot(Sender<RoomSnapshot>),
    Stop,
}

/// A group while the server runs.
pub(super) struct Group {
    pub(super) config: GroupConfig,
    pub(super) locked: Option<String>,
    pub(super) history: Vec<Message>,
}

/// A peer connection and whose it is.
pub(super) struct PeerEntry {
    pub(super) peer: Peer,
    pub(super) client: Key,
    pub(super) stream: String,
    pub(super) is_up: bool,
    /// Its own socket, unless all share one.
    socket: Option<Arc<UdpSocket>>,
}

enum Connection {
    Http { stream: Transport, buffer: Vec<u8> },
    Web(Box<Link>),
}

enum Source {
    Listener,
    SharedSocket,
    Connection,
    Peer,
}

/// A message that waits, as the answer to a wrong password does.
pub(super) struct Deferred {
    pub(super) due: Instant,
    pub(super) client: Key,
    pub(super) message: Message,
}

pub(super) struct Server {
    pub(super) config: RoomConfig,
    pub(super) groups: Vec<Group>,
    pub(super) clients: BTreeMap<Key, Client>,
    pub(super) peers: BTreeMap<Key, PeerEntry>,
    pub(super) deferred: Vec<Deferred>,
    pub(super) delayed: BinaryHeap<Delayed>,
    pub(super) dice: Dice,
    pub(super) identity: Identity,
    pub(super) now: Instant,
    connections: HashMap<Key, Connection>,
    sources: HashMap<Key, Source>,
    next_key: Key,
    poll: Poll,
    listener: Option<TcpListener>,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared_socket: Option<Arc<UdpSocket>>,
    by_source: HashMap<SocketAddr, Key>,
    next_liveness: Instant,
    commands: Receiver<Control>,
    reports: Sender<RoomEvent>,
}

impl Server {
    pub(super) fn new(
        config: RoomConfig,
        commands: Receiver<Control>,
        reports: Sender<RoomEvent>,
    ) -> Result<Self, String> {
        let words = |error: std::io::Error| format!("{}: {error}", config.listen);
        let listener = TcpListener::bind(config.listen).map_err(words)?;
        listener.set_nonblocking(true).map_err(words)?;
        let address = listener.local_addr().map_err(words)?;
        let poll = Poll::new().map_err(words)?;
        let identity = Identity::generate().ok_or("no certificate can be made")?;
        let tls = config.tls.then(|| transport::tls_server_config(identity.der())).transpose()?;
        let groups = config.groups.iter().cloned();
        let groups =
            groups.map(|config| Group { locked: config.locked.clone(), history: Vec::new(), config }).collect();
        let now = Instant::now();
        let mut server = Self {
            next_liveness: now + config.liveness_tick,
            dice: Dice::new(config.down_impairment),
            config,
            groups,
            clients: BTreeMap::new(),
            peers: BTreeMap::new(),
            deferred: Vec::new(),
            delayed: BinaryHeap::new(),
            identity,
            now,
            connections: HashMap::new(),
            sources: HashMap::new(),
            next_key: 0,
            poll,
            listener: None,
            address,
            tls,
            shared_socket: None,
            by_source: HashMap::new(),
            commands,
            reports,
        };
        let key = server.new_key(Source::Listener);
        server.poll.add(&listener, key).map_err(|error| error.to_string())?;
        server.listener = Some(listener);
        if server.config.one_port {
            let socket = server.bind_media_socket()?;
            let key = server.new_key(Source::SharedSocket);
            server.poll.add(&*socket, key).map_err(|error| error.to_string())?;
            server.shared_socket = Some(socket);
        }
        Ok(server)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn waker(&self) -> Waker {
        self.poll.waker()
    }

    /// Runs until it is told to stop or nobody is left to tell it.
    pub(super) fn run(&mut self) {
        let mut ready = Vec::new();
        loop {
            let wait = self.next_due().saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
            if self.poll.wait(wait, &mut ready).is_err() {
                return;
            }
            self.now = Instant::now();
            for key in &ready {
                self.handle_ready(*key);
            }
            loop {
                match self.commands.try_recv() {
                    Ok(Control::Command(command)) => self.obey(command),
                    Ok(Control::Snapshot(sender)) => drop(sender.send(self.snapshot())),
                    Ok(Control::Stop) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                }
            }
            self.handle_due();
        }
    }

    fn next_due(&self) -> Instant {
        let peers = self.peers.values().map(|entry| entry.peer.next_timeout());
        let pushes = self.clients.values().filter_map(Client::next_due);
        let deferred = self.deferred.iter().map(|deferred| deferred.due);
        let delayed = self.delayed.peek().map(|delayed| delayed.due);
        peers.chain(pushes).chain(deferred).chain(delayed).min().unwrap_or(self.next_liveness).min(self.next_liveness)
    }

    fn handle_due(&mut self) {
        let now = self.now;
        let due: Vec<Key> =
            self.peers.iter().filter(|(_, entry)| entry.peer.next_timeout() <= now).map(|(key, _)| *key).collect();
        for key in due {
            let mut events = Vec::new();
            if let Some(entry) = self.peers.get_mut(&key) {
                entry.peer.handle_timeout(now);
                entry.peer.drain(now, &mut events);
            }
            self.handle_peer_events(key, events);
        }
        self.push_due();
        self.send_delayed();
        let (due, later) = std::mem::take(&mut self.deferred).into_iter().partition(|deferred| deferred.due <= now);
        self.deferred = later;
        for Deferred { client, message, .. } in due {
            self.send(client, &message);
        }
        if self.next_liveness <= now {
            self.next_liveness = now + self.config.liveness_tick;
            self.check_liveness();
        }
        self.bury_ghosts();
    }

    fn new_key(&mut self, source: Source) -> Key {
        self.next_key += 1;
        self.sources.insert(self.next_key, source);
        self.next_key
    }

    fn handle_ready(&mut self, key: Key) {
        match self.sources.get(&key) {
            Some(Source::Listener) => self.accept(),
            Some(Source::SharedSocket) => self.read_shared_socket(),
            Some(Source::Connection) => self.read_connection(key),
            Some(Source::Peer) => self.read_peer(key),
            // It went away within this very turn.
            None => {}
        }
    }

    fn accept(&mut self) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(TcpListener::accept) {
            let plain = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_ok();
            let stream = match &self.tls {
                Some(config) => transport::tls_server(stream, config).ok(),
                None => Some(Transport::Plain(stream)),
            };
            let Some(stream) = stream.filter(|_| plain) else { continue };
            let key = self.new_key(Source::Connection);
            if self.poll.add(&stream, key).is_ok() {
                self.connections.insert(key, Connection::Http { stream, buffer: Vec::new() });
            }
        }
    }

    fn read_connection(&mut self, key: Key) {
        match self.connections.get_mut(&key) {
            Some(Connection::Http { stream, buffer }) => {
                let open = read_available(stream, buffer);
                match Request::parse(buffer) {
                    Ok(Some(request)) => self.answer_request(key, request),
                    Ok(None) if open => {}
                    Ok(None) | Err(_) => self.drop_connection(key),
                }
            }
            Some(Connection::Web(link)) => {
                let was_blocked = link.is_blocked();
                let mut texts = Vec::new();
                let ending = link.read(&mut texts).err();
                if was_blocked && !link.is_blocked() {
                    let _ = self.poll.watch_output(&**link, key, false);
                }
                self.handle_texts(key, texts);
                if let Some(ending) = ending {
                    let clean = matches!(ending, Ending::Closed(..));
                    self.lose_connection(key, clean);
                }
            }
            None => {}
        }
    }

    fn answer_request(&mut self, key: Key, mut request: Request) {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let configs: Vec<&GroupConfig> = self.groups.iter().map(|group| &group.config).collect();
        let reply = web::reply(&request, scheme, &configs);
        let Some(Connection::Http { mut stream, .. }) = self.connections.remove(&key) else { return };
        match reply {
            Reply::Document(bytes) => self.finish(key, stream, &bytes),
            Reply::Token { group, token } => {
                let bytes = response("200 OK", &[("Content-Type", "application/jwt")], &token.token);
                self.groups[group].config.tokens.push(token);
                self.finish(key, stream, &bytes);
            }
            Reply::Upgrade(bytes) => {
                if stream.write_all(&bytes).and_then(|()| stream.flush()).is_err() {
                    self.forget_source(key);
                    return;
                }
                let link = Link::server(stream, std::mem::take(&mut request.rest));
                self.connections.insert(key, Connection::Web(Box::new(link)));
                self.clients.insert(key, Client::new(self.now));
                self.read_connection(key);
            }
        }
    }

    /// Sends a document, which fits into any socket's buffer, and closes.
    fn finish(&mut self, key: Key, mut stream: Transport, bytes: &[u8]) {
        let _ = stream.write_all(bytes).and_then(|()| stream.flush());
        let _ = stream.socket().shutdown(std::net::Shutdown::Write);
        self.poll.remove(&stream);
        self.forget_source(key);
    }

    fn forget_source(&mut self, key: Key) {
        self.sources.remove(&key);
    }

    pub(super) fn drop_connection(&mut self, key: Key) {
        match self.connections.remove(&key) {
            Some(Connection::Http { stream, .. }) => self.poll.remove(&stream),
            Some(Connection::Web(link)) => self.poll.remove(&*link),
            None => {}
        }
        self.forget_source(key);
    }

    /// Says why and closes a client's connection.
    pub(super) fn close_connection(&mut self, key: Key, code: u16, reason: &str) {
        if let Some(Connection::Web(link)) = self.connections.get_mut(&key) {
            link.close(code, reason);
        }
        self.drop_connection(key);
    }

    pub(super) fn send(&mut self, key: Key, message: &Message) {
        self.send_text(key, &message.to_text());
    }

    pub(super) fn send_text(&mut self, key: Key, text: &str) {
        // A ghost has no connection.
        if let Some(Connection::Web(link)) = self.connections.get_mut(&key) {
            link.send(text);
            if link.is_blocked() {
                let _ = self.poll.watch_output(&**link, key, true);
            }
        }
    }

    pub(super) fn is_connected(&self, key: Key) -> bool {
        self.connections.contains_key(&key)
    }

    pub(super) fn open_connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn stop_listening(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.poll.remove(&listener);
        }
    }

    fn bind_media_socket(&self) -> Result<Arc<UdpSocket>, String> {
        let words = |error: std::io::Error| format!("{}: {error}", self.config.media_address);
        let socket = UdpSocket::bind((self.config.media_address, 0)).map_err(words)?;
        socket.set_nonblocking(true).map_err(words)?;
        Ok(Arc::new(socket))
    }

    /// A socket for a new peer connection: its own, or the one that all share.
    pub(super) fn media_socket(&self) -> Result<Arc<UdpSocket>, String> {
        self.shared_socket.as_ref().map_or_else(|| self.bind_media_socket(), |shared| Ok(Arc::clone(shared)))
    }

    pub(super) fn add_peer(
        &mut self,
        peer: Peer,
        socket: Arc<UdpSocket>,
        client: Key,
        stream: &str,
        is_up: bool,
    ) -> Result<Key, String> {
        let key = self.new_key(Source::Peer);
        let socket = self.shared_socket.is_none().then_some(socket);
        if let Some(socket) = &socket {
            self.poll.add(&**socket, key).map_err(|error| error.to_string())?;
        }
        self.peers.insert(key, PeerEntry { peer, client, stream: stream.to_owned(), is_up, socket });
        Ok(key)
    }

    pub(super) fn remove_peer(&mut self, key: Key) {
        if let Some(mut entry) = self.peers.remove(&key) {
            entry.peer.close(self.now);
            if let Some(socket) = entry.socket {
                self.poll.remove(&*socket);
            }
        }
        self.by_source.retain(|_, peer| *peer != key);
        self.forget_source(key);
    }

    fn read_peer(&mut self, key: Key) {
        let mut buffer = [0; 2048];
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(entry) = self.peers.get_mut(&key) else { return };
            let Some(Ok((length, from))) = entry.socket.as_ref().map(|socket| socket.recv_from(&mut buffer)) else {
                return;
            };
            let mut events = Vec::new();
            entry.peer.receive(self.now, from, &buffer[..length], &mut events);
            self.handle_peer_events(key, events);
        }
    }

    /// Reads the socket that all connections share: by source address first, by ufrag if that is unknown.
    fn read_shared_socket(&mut self) {
        let mut buffer = [0; 2048];
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(Ok((length, from))) = self.shared_socket.as_ref().map(|socket| socket.recv_from(&mut buffer))
            else {
                return;
            };
            let bytes = &buffer[..length];
            let key = self.by_source.get(&from).copied().or_else(|| self.peer_by_ufrag(bytes));
            let Some(key) = key else { continue };
            self.by_source.insert(from, key);
            let mut events = Vec::new();
            if let Some(entry) = self.peers.get_mut(&key) {
                entry.peer.receive(self.now, from, bytes, &mut events);
            }
            self.handle_peer_events(key, events);
        }
    }

    fn peer_by_ufrag(&mut self, bytes: &[u8]) -> Option<Key> {
        let ufrag = addressed_ufrag(bytes)?;
        self.peers.iter_mut().find_map(|(key, entry)| (entry.peer.local_ufrag() == ufrag).then_some(*key))
    }

    fn handle_peer_events(&mut self, key: Key, events: Vec<PeerEvent>) {
        for event in events {
            self.handle_peer_event(key, event);
        }
    }

    /// Reports what happened to a client.
    pub(super) fn report(&self, client: Key, kind: RoomEventKind) {
        let about = self.clients.get(&client);
        let name = about.map_or_else(ClientName::default, |client| ClientName {
            id: client.id.clone(),
            username: client.username.clone(),
        });
        let group = about.and_then(|client| client.group).map(|group| self.groups[group].config.name.clone());
        let event = RoomEvent { at_us: clock::now_us(), group: group.unwrap_or_default(), client: name, kind };
        // Nobody needs to listen.
        let _ = self.reports.send(event);
    }
}

/// Reads what is there; false at the end of the stream.
fn read_available(stream: &mut Transport, buffer: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(length) => buffer.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}
