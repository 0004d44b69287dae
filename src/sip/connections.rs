//! The connections of SIP over TCP and TLS (RFC 3261 §18, RFC 5626 §3.5.1): which there are, which one a message takes,
//! how many strangers may hold and for how long.
//!
//! Owns: opening, reuse, framing, keep-alives of the other side, every limit. Does not own: sockets and TLS (`io`), the
//! keep-alive of the registrar's connection (`registration`), what messages say.
//! A connection that others opened is a *stranger's* until a request on it is admitted. Strangers share few places, and
//! the one silent for longest makes room for the next: so no number of them keeps a telephone out for long.
//! What a peer's Via says of aliases is not believed (RFC 5923 §7 wants it proven): a connection serves requests to
//! its own far end alone, and those of the dialogs that came by it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::event::{ConnectionCommand, ConnectionKey, Output, Path};
use crate::time::{Deadline, Instant, earliest};
use crate::wire::sip::{Frame, FrameError, MessageStream, Transport};

/// Connections of strangers at once. Each may hold one incomplete message of 16 kB.
pub(crate) const MAX_STRANGERS: usize = 32;
/// Of these, so many from one address: telephones behind one NAT.
pub(crate) const MAX_STRANGERS_PER_ADDRESS: usize = 8;
/// Connections that others opened and that are no strangers' any more: one a call. More stay strangers'.
const MAX_KNOWN: usize = 512;
/// Connections that we opened: one a call whose own is gone, and the registrar's.
const MAX_OURS: usize = 512;
/// Messages that wait for a connection to open.
const MAX_WAITING: usize = 16;
/// How long a stranger may be silent: TLS takes two round trips, and a request comes at once.
pub(crate) const STRANGER_SILENCE: Duration = Duration::from_secs(20);
/// How long one whose request was admitted may be silent: calls are quiet for hours, and `io` asks the system to find out
/// about peers that are gone.
const KNOWN_SILENCE: Duration = Duration::from_secs(7200);
/// How long one that we opened for a request may be silent.
const OUR_SILENCE: Duration = Duration::from_secs(120);
/// From a message's first byte to its last: 16 kB take 4 s at 32 kbit/s.
pub(crate) const MESSAGE_TIME: Duration = Duration::from_secs(10);
/// What answers a ping.
const PONG: &[u8] = b"\r\n";

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    table: BTreeMap<ConnectionKey, Connection>,
    last: u64,
}

#[derive(Debug)]
struct Connection {
    transport: Transport,
    remote: SocketAddr,
    /// `None` while it opens.
    local: Option<SocketAddr>,
    /// What was to be sent before it was open.
    waiting: Vec<Vec<u8>>,
    stream: MessageStream,
    /// When a message that has begun must be complete.
    complete_by: Option<Instant>,
    heard: Instant,
    standing: Standing,
    /// The name in the certificate of a connection that we opened.
    server_name: Option<String>,
}

/// What a connection is to us, and so how long it may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Stranger,
    Known,
    Ours,
    /// Somebody here looks after it.
    Kept,
}

/// What a connection has brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Brought {
    Message(Vec<u8>),
    Pong,
    /// The end of what can be understood: the head of the last message, if it can be answered, and with which status.
    /// Afterwards the connection is to be closed.
    Broken {
        head: Option<Vec<u8>>,
        status: u16,
    },
}

impl Connections {
    /// Sends along `path`: over its connection, over another one to the same place, or over a new one.
    pub(crate) fn send(
        &mut self,
        path: Path,
        bytes: Vec<u8>,
        server_name: Option<&str>,
        out: &mut VecDeque<Output>,
    ) -> Option<ConnectionKey> {
        let existing = path.connection.filter(|key| self.table.contains_key(key));
        let key = existing.or_else(|| self.find(path, server_name));
        let key = match key {
            Some(key) => key,
            // Nobody could prove to be the peer of an encrypted connection without a name.
            None if path.transport == Transport::Tls && server_name.is_none() => return None,
            None => self.open(path.transport, path.remote, server_name, Standing::Ours, out)?,
        };
        let connection = self.table.get_mut(&key)?;
        if connection.local.is_some() {
            out.push_back(Output::Connection(ConnectionCommand::Write { connection: key, bytes }));
        } else if connection.waiting.len() < MAX_WAITING {
            connection.waiting.push(bytes);
        }
        Some(key)
    }

    /// Opens a connection that the caller looks after.
    pub(crate) fn open_kept(
        &mut self,
        transport: Transport,
        remote: SocketAddr,
        server_name: &str,
        out: &mut VecDeque<Output>,
    ) -> Option<ConnectionKey> {
        self.open(transport, remote, Some(server_name), Standing::Kept, out)
    }

    fn open(
        &mut self,
        transport: Transport,
        remote: SocketAddr,
        server_name: Option<&str>,
        standing: Standing,
        out: &mut VecDeque<Output>,
    ) -> Option<ConnectionKey> {
        if self.count(|_, one| one.standing == Standing::Ours) >= MAX_OURS {
            return None;
        }
        self.last += 1;
        let key = ConnectionKey::Ours(self.last);
        let server_name = server_name.filter(|_| transport == Transport::Tls).map(str::to_owned);
        let command = ConnectionCommand::Open { connection: key, remote, server_name: server_name.clone() };
        out.push_back(Output::Connection(command));
        let connection = Connection { server_name, ..Connection::new(transport, remote, Instant::ZERO, standing) };
        self.table.insert(key, connection);
        Some(key)
    }

    /// A connection that leads to where `path` does. One that others opened leads to its own source port alone.
    fn find(&self, path: Path, server_name: Option<&str>) -> Option<ConnectionKey> {
        // The registrar has proven who it is, whatever its Record-Route calls it.
        let is_proven = |one: &Connection| {
            one.standing == Standing::Kept || server_name.is_some() && one.server_name.as_deref() == server_name
        };
        let leads_there = |one: &Connection| {
            let is_there = one.transport == path.transport && one.remote == path.remote;
            is_there && (one.transport == Transport::Tcp || is_proven(one))
        };
        self.table.iter().find(|(_, one)| leads_there(one)).map(|(key, _)| *key)
    }

    /// Whether it is there, opening or open, and what it carries.
    pub(crate) fn transport(&self, key: ConnectionKey) -> Option<Transport> {
        self.table.get(&key).map(|one| one.transport)
    }

    /// The way of what a connection has brought.
    pub(crate) fn path(&self, key: ConnectionKey) -> Option<Path> {
        let one = self.table.get(&key)?;
        Some(Path { transport: one.transport, local: one.local, remote: one.remote, connection: Some(key) })
    }

    /// Somebody else has opened a connection.
    pub(crate) fn handle_accepted(&mut self, now: Instant, key: ConnectionKey, path: Path, out: &mut VecDeque<Output>) {
        let host = path.remote.ip().to_canonical();
        let is_of_host = |one: &Connection| one.remote.ip().to_canonical() == host;
        if self.count(|_, one| one.standing == Standing::Stranger && is_of_host(one)) >= MAX_STRANGERS_PER_ADDRESS {
            self.close_silent_stranger(Some(host), out);
        } else if self.count(|_, one| one.standing == Standing::Stranger) >= MAX_STRANGERS {
            self.close_silent_stranger(None, out);
        }
        let connection = Connection::new(path.transport, path.remote, now, Standing::Stranger);
        self.table.insert(key, Connection { local: path.local, ..connection });
    }

    fn close_silent_stranger(&mut self, host: Option<IpAddr>, out: &mut VecDeque<Output>) {
        let is_candidate = |one: &Connection| {
            one.standing == Standing::Stranger && host.is_none_or(|host| one.remote.ip().to_canonical() == host)
        };
        let strangers = self.table.iter().filter(|(_, one)| is_candidate(one));
        if let Some(key) = strangers.min_by_key(|(key, one)| (one.heard, **key)).map(|(key, _)| *key) {
            self.close(key, out);
        }
    }

    /// A connection of ours is open.
    pub(crate) fn handle_connected(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        local: SocketAddr,
        out: &mut VecDeque<Output>,
    ) {
        let Some(connection) = self.table.get_mut(&key) else { return };
        connection.local = Some(local);
        connection.heard = now;
        for bytes in connection.waiting.drain(..) {
            out.push_back(Output::Connection(ConnectionCommand::Write { connection: key, bytes }));
        }
    }

    /// Takes bytes that have arrived; [`Self::next`] tells what they mean.
    pub(crate) fn handle_bytes(&mut self, key: ConnectionKey, bytes: &[u8]) {
        if let Some(connection) = self.table.get_mut(&key) {
            connection.stream.push(bytes);
        }
    }

    /// What came next. Pings are answered here.
    pub(crate) fn next(&mut self, now: Instant, key: ConnectionKey, out: &mut VecDeque<Output>) -> Option<Brought> {
        let connection = self.table.get_mut(&key)?;
        loop {
            match connection.stream.next_frame() {
                Ok(Some(Frame::Message(bytes))) => {
                    connection.heard = now;
                    connection.complete_by = None;
                    return Some(Brought::Message(bytes));
                }
                // Who has opened a connection is who pings (RFC 5626 §4.4.1): here two pongs have come, one after the other.
                Ok(Some(Frame::Ping)) if matches!(key, ConnectionKey::Ours(_)) => return Some(Brought::Pong),
                Ok(Some(Frame::Ping)) => {
                    if connection.standing != Standing::Stranger {
                        connection.heard = now;
                    }
                    let bytes = PONG.to_vec();
                    out.push_back(Output::Connection(ConnectionCommand::Write { connection: key, bytes }));
                }
                Ok(Some(Frame::Pong)) => return Some(Brought::Pong),
                Ok(None) => {
                    let has_begun = connection.stream.is_within_message();
                    let by = connection.complete_by.unwrap_or(now + MESSAGE_TIME);
                    connection.complete_by = has_begun.then_some(by);
                    return None;
                }
                Err(FrameError::TooLong { head, .. }) => return Some(Brought::Broken { head, status: 513 }),
                Err(FrameError::NoLength { head }) => return Some(Brought::Broken { head: Some(head), status: 400 }),
            }
        }
    }

    /// A request on it was admitted: it is no stranger's any more.
    pub(crate) fn admit(&mut self, key: ConnectionKey) {
        let is_room = self.count(|_, one| one.standing == Standing::Known) < MAX_KNOWN;
        if let Some(connection) = self.table.get_mut(&key)
            && connection.standing == Standing::Stranger
            && is_room
        {
            connection.standing = Standing::Known;
        }
    }

    /// Closes a connection; what was written before still goes out.
    pub(crate) fn close(&mut self, key: ConnectionKey, out: &mut VecDeque<Output>) {
        if self.table.remove(&key).is_some() {
            out.push_back(Output::Connection(ConnectionCommand::Close { connection: key }));
        }
    }

    /// Closes what has one of these addresses as its own end, and tells which.
    pub(crate) fn lose(&mut self, gone: &[IpAddr], out: &mut VecDeque<Output>) -> Vec<ConnectionKey> {
        let is_lost = |one: &Connection| one.local.is_some_and(|local| gone.contains(&local.ip().to_canonical()));
        let lost: Vec<_> = self.table.iter().filter(|(_, one)| is_lost(one)).map(|(key, _)| *key).collect();
        for key in &lost {
            self.close(*key, out);
        }
        lost
    }

    /// A connection has ended, or could not be opened.
    pub(crate) fn handle_closed(&mut self, key: ConnectionKey) {
        self.table.remove(&key);
    }

    /// Closes what was silent or slow for too long; which of them we had opened.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Output>) -> Vec<ConnectionKey> {
        let is_due = |one: &Connection| one.deadline().is_some_and(|deadline| deadline.at <= now);
        let due: Vec<_> = self.table.iter().filter(|(_, one)| is_due(one)).map(|(key, _)| *key).collect();
        for key in &due {
            self.close(*key, out);
        }
        due
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        earliest(self.table.values().map(Connection::deadline))
    }

    fn count(&self, holds: impl Fn(&ConnectionKey, &Connection) -> bool) -> usize {
        self.table.iter().filter(|(key, one)| holds(key, one)).count()
    }
}

impl Connection {
    fn new(transport: Transport, remote: SocketAddr, now: Instant, standing: Standing) -> Self {
        Self {
            transport,
            remote,
            local: None,
            waiting: Vec::new(),
            stream: MessageStream::new(super::endpoint::MAX_MESSAGE_BYTES),
            complete_by: None,
            heard: now,
            standing,
            server_name: None,
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        let silence = match self.standing {
            Standing::Stranger => Some(STRANGER_SILENCE),
            Standing::Known => Some(KNOWN_SILENCE),
            // `io` gives up an attempt to open; until then there is no time to count from.
            Standing::Ours => self.local.map(|_| OUR_SILENCE),
            Standing::Kept => None,
        };
        earliest([
            silence.map(|silence| Deadline::new(self.heard + silence, "silent connection")),
            self.complete_by.map(|at| Deadline::new(at, "slow message")),
        ])
    }
}
