//! All rooms of one mix thread.
//!
//! Owns: the tables of rooms, callers and streams; carrying out [`Command`]s; giving packets to whom they are for; the tick.
//! Does not own: threads and rings (`io::mix`), clocks, what a room does (`room`).
//!
//! Invariants: nothing is allocated, freed, locked or logged here; what was handed over is given back through
//! [`Sink::retire`], and every table has its space from the start. So the engine runs in a test as in its thread.

use super::control::{
    CallerKey, Command, Heard, LegKey, MAX_CALLERS, MAX_ROOMS_PER_MIX, MAX_STREAMS, MixEvent, Retired, Room, RoomKey,
    StreamKey, Telephone,
};
use crate::time::{Deadline, Instant};

/// Where the engine's output goes: rings in the mix thread, vectors in a test.
pub trait Sink {
    /// An RTP packet for a socket; false if it had to be dropped.
    fn packet(&mut self, leg: LegKey, packet: &[u8]) -> bool;
    /// For the extended reports of a telephone's socket; whoever cares for sound alone leaves it out.
    fn heard(&mut self, _: LegKey, _: &Heard) {}
    /// Something that signalling may want to know.
    fn event(&mut self, event: MixEvent);
    /// Something that signalling must free.
    fn retire(&mut self, retired: Retired);
}

/// Which room a key lives in, in the order of keys: they only ever increase, so that insertion is at the end.
#[derive(Debug)]
struct Directory<K>(Vec<(K, RoomKey)>);

impl<K: Copy + Ord> Directory<K> {
    fn new(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    fn find(&self, key: K) -> Option<RoomKey> {
        let at = self.0.binary_search_by_key(&key, |entry| entry.0).ok()?;
        Some(self.0[at].1)
    }

    /// False if the key is taken or the table full.
    fn insert(&mut self, key: K, room: RoomKey) -> bool {
        match self.0.binary_search_by_key(&key, |entry| entry.0) {
            Err(at) if self.0.len() < self.0.capacity() => {
                self.0.insert(at, (key, room));
                true
            }
            Err(_) | Ok(_) => false,
        }
    }

    fn remove(&mut self, key: K) {
        if let Ok(at) = self.0.binary_search_by_key(&key, |entry| entry.0) {
            self.0.remove(at);
        }
    }

    fn remove_room(&mut self, room: RoomKey) {
        self.0.retain(|entry| entry.1 != room);
    }
}

/// All rooms of one mix thread.
#[derive(Debug)]
pub struct Engine {
    // Boxed: a room comes and goes as signalling allocated it.
    rooms: Vec<Box<Room>>,
    callers: Directory<CallerKey>,
    streams: Directory<StreamKey>,
    /// Packets for callers and streams that are gone or never were.
    orphans: u64,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// Without rooms, but with space for all.
    pub fn new() -> Self {
        Self {
            rooms: Vec::with_capacity(MAX_ROOMS_PER_MIX),
            callers: Directory::new(MAX_ROOMS_PER_MIX * MAX_CALLERS),
            streams: Directory::new(MAX_ROOMS_PER_MIX * MAX_STREAMS),
            orphans: 0,
        }
    }

    /// No room, hence nothing to tick for.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Packets for callers and streams that are gone or never were.
    pub fn orphans(&self) -> u64 {
        self.orphans
    }

    /// Carries out what signalling asks.
    pub fn handle_command(&mut self, command: Command, sink: &mut impl Sink) {
        match command {
            Command::OpenRoom(room) => self.open_room(room, sink),
            Command::CloseRoom(key) => self.close_room(key, sink),
            Command::AddCaller { room: key, caller } => {
                let name = caller.key();
                match room_mut(&mut self.rooms, key) {
                    Some(room) if room.has_space_for_caller() && self.callers.insert(name, key) => {
                        room.add_caller(caller)
                    }
                    Some(_) | None => refuse(Retired::Caller(caller), "no such room, or full", sink),
                }
            }
            Command::AddStream { room: key, stream } => {
                let name = stream.key();
                match room_mut(&mut self.rooms, key) {
                    Some(room) if room.has_space_for_stream() && self.streams.insert(name, key) => {
                        room.add_stream(stream)
                    }
                    Some(_) | None => refuse(Retired::Stream(stream), "no such room, or full", sink),
                }
            }
            Command::RemoveCaller(key) => {
                if let Some(caller) = self.room_of_caller(key).and_then(|room| room.remove_caller(key)) {
                    self.callers.remove(key);
                    retire_caller(caller, sink);
                }
            }
            Command::RemoveStream(key) => {
                if let Some(stream) = self.room_of_stream(key).and_then(|room| room.remove_stream(key)) {
                    self.streams.remove(key);
                    sink.retire(Retired::Stream(stream));
                }
            }
            Command::SetTelephone { caller, telephone, line } => self.set_telephone(caller, telephone, line, sink),
            Command::StartTelephone(caller) => {
                if let Some(room) = self.room_of_caller(caller) {
                    room.with_caller(caller, super::caller::Caller::start);
                }
            }
            Command::SetUp { caller, up } => self.set_up(caller, up, sink),
            Command::SetUpLoss { caller, percent } => {
                if let Some(room) = self.room_of_caller(caller) {
                    room.with_caller(caller, |caller| caller.set_up_loss(percent));
                }
            }
            Command::SetDownLoss { caller, percent } => {
                if let Some(room) = self.room_of_caller(caller) {
                    room.with_caller(caller, |caller| caller.set_down_loss(percent));
                }
            }
            Command::SetPresent { caller, present } => {
                if let Some(room) = self.room_of_caller(caller) {
                    room.with_caller(caller, |caller| caller.set_present(present));
                }
            }
            Command::SetWaiting { caller, waiting } => {
                if let Some(room) = self.room_of_caller(caller) {
                    room.with_caller(caller, |caller| caller.set_waiting(waiting));
                }
            }
            Command::SetMuted { caller, muted } => {
                if let Some(room) = self.room_of_caller(caller) {
                    room.with_caller(caller, |caller| caller.set_muted(muted));
                }
            }
        }
    }

    fn open_room(&mut self, room: Box<Room>, sink: &mut impl Sink) {
        match self.rooms.binary_search_by_key(&room.key(), |room| room.key()) {
            Err(at) if self.rooms.len() < MAX_ROOMS_PER_MIX => self.rooms.insert(at, room),
            Err(_) | Ok(_) => refuse(Retired::Room(room), "no space for another room", sink),
        }
    }

    fn close_room(&mut self, key: RoomKey, sink: &mut impl Sink) {
        let Some(at) = room_at(&self.rooms, key) else { return };
        let mut room = self.rooms.remove(at);
        while let Some(caller) = room.pop_caller() {
            retire_caller(caller, sink);
        }
        while let Some(stream) = room.pop_stream() {
            sink.retire(Retired::Stream(stream));
        }
        self.callers.remove_room(key);
        self.streams.remove_room(key);
        sink.retire(Retired::Room(room));
    }

    fn set_telephone(
        &mut self,
        key: CallerKey,
        telephone: Telephone,
        line: Option<Box<super::line::Line>>,
        sink: &mut impl Sink,
    ) {
        let Some(caller) = self.room_of_caller(key).and_then(|room| room.caller_mut(key)) else {
            if let Some(line) = line {
                refuse(Retired::Line(line), "no such caller", sink);
            }
            return;
        };
        if let Some(former) = caller.set_telephone(telephone, line) {
            sink.retire(Retired::Line(former));
        }
    }

    fn set_up(&mut self, key: CallerKey, up: Option<Box<super::up::Up>>, sink: &mut impl Sink) {
        let Some(caller) = self.room_of_caller(key).and_then(|room| room.caller_mut(key)) else {
            if let Some(up) = up {
                refuse(Retired::Up(up), "no such caller", sink);
            }
            return;
        };
        if let Some(former) = caller.set_up(up) {
            sink.retire(Retired::Up(former));
        }
    }

    /// A telephone's RTP packet, as it arrived: decoded, encoded and sent up at once.
    pub fn handle_telephone_packet(
        &mut self,
        arrival: Instant,
        caller: CallerKey,
        packet: &[u8],
        sink: &mut impl Sink,
    ) {
        match self.room_of_caller(caller).and_then(|room| room.caller_mut(caller)) {
            Some(caller) => caller.handle_packet(arrival, packet, sink),
            None => self.orphans += 1,
        }
    }

    /// A room voice's RTP packet, decrypted: it waits in its jitter buffer.
    pub fn handle_stream_packet(&mut self, arrival: Instant, stream: StreamKey, packet: &[u8]) {
        match self.room_of_stream(stream).and_then(|room| room.stream_mut(stream)) {
            Some(stream) => stream.handle_packet(arrival, packet),
            None => self.orphans += 1,
        }
    }

    /// Whether a room voice has been played ahead of the next tick: what has come for it meanwhile can wait.
    pub fn is_ahead(&self, stream: StreamKey) -> bool {
        let room = self.streams.find(stream).and_then(|key| room_at(&self.rooms, key));
        room.is_some_and(|at| self.rooms[at].is_ahead(stream))
    }

    /// Every 20 ms; `missed` ticks did not take place since the last one: what they would have played is skipped.
    pub fn tick(&mut self, now: Instant, missed: u32, sink: &mut impl Sink) {
        for room in &mut self.rooms {
            room.tick(now, missed, sink);
        }
    }

    /// A hole in a telephone's packets has been waited for long enough.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut impl Sink) {
        for room in &mut self.rooms {
            room.handle_timeout(now, sink);
        }
    }

    /// The earliest hole's end; ticks are the thread's own matter.
    pub fn next_timeout(&self) -> Option<Deadline> {
        crate::time::earliest(self.rooms.iter().map(|room| room.next_timeout()))
    }

    fn room_of_caller(&mut self, key: CallerKey) -> Option<&mut Room> {
        room_mut(&mut self.rooms, self.callers.find(key)?)
    }

    fn room_of_stream(&mut self, key: StreamKey) -> Option<&mut Room> {
        room_mut(&mut self.rooms, self.streams.find(key)?)
    }
}

fn room_at(rooms: &[Box<Room>], key: RoomKey) -> Option<usize> {
    rooms.binary_search_by_key(&key, |room| room.key()).ok()
}

fn room_mut(rooms: &mut [Box<Room>], key: RoomKey) -> Option<&mut Room> {
    let at = room_at(rooms, key)?;
    Some(&mut rooms[at])
}

fn refuse(retired: Retired, why: &'static str, sink: &mut impl Sink) {
    sink.event(MixEvent::Refused(why));
    sink.retire(retired);
}

fn retire_caller(mut caller: Box<super::caller::Caller>, sink: &mut impl Sink) {
    if let Some(up) = caller.set_up(None) {
        sink.retire(Retired::Up(up));
    }
    sink.retire(Retired::Caller(caller));
}

#[cfg(test)]
mod tests;
