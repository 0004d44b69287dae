//! The mixes' handle for the signalling thread.
//!
//! The first mix works on the net thread: each hand-over from thread to thread costs as much as the coding of a frame, so a
//! machine with few rooms is spared them. Every other mix has a thread of its own.
//!
//! Owns: which mix has which room, commands there, events back, freeing what comes back. Does not own: what a room does
//! (`media`), building callers and streams (whoever sends the command).
//!
//! Invariant: what is handed over comes back, here, before its event is told; the handle hands out no more than the ring
//! back can hold.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, Thread};

use ringbuf::traits::{Consumer, Observer, Producer};
use ringbuf::{HeapCons, HeapProd};

use super::clock::Clock;
use super::priority::{MIX_PRIORITY, request_real_time};
use super::rings::{COMMAND_SLOTS, EVENT_SLOTS, TO_MIX_SLOTS, TO_NET_SLOTS, ToMix, ToNet, Tray, ring};
use super::wake::{Wake, Waker};
use crate::media::control::{CallerKey, Command, MAX_ROOMS_PER_MIX, MixEvent, MixIndex, Retired, RoomKey, StreamKey};
use health::MixHealth;
use thread::{MixThread, Outbox, WayOut, Wiring};

pub use health::MixReport;
pub(super) use thread::MixWork;

mod health;
mod thread;

/// Objects that one mix thread may hold at a time: 50 for each possible room on average; an entry is three words.
const MAX_HANDED_OUT: usize = 4096;

/// Where a mix works, as the net thread needs to know.
pub(super) enum Workplace {
    /// On a thread of its own: whom to wake, and the packets there and back.
    Own { thread: Thread, to_mix: HeapProd<ToMix>, from_mix: HeapCons<ToNet> },
    /// On the net thread itself.
    Net(Box<MixWork>),
}

/// One mix, seen from signalling.
struct Worker {
    commands: HeapProd<Command>,
    /// Commands that found the ring full, in order.
    backlog: VecDeque<Command>,
    events: HeapCons<MixEvent>,
    retired: HeapCons<Retired>,
    handed_out: usize,
    rooms: usize,
    health: Arc<MixHealth>,
    /// `None` for the one on the net thread.
    thread: Option<JoinHandle<()>>,
    net: Arc<Wake>,
}

/// Signalling's end of all mix threads. Dropping it stops them.
pub struct MixHandle {
    workers: Vec<Worker>,
    rooms: BTreeMap<RoomKey, MixIndex>,
    callers: BTreeMap<CallerKey, RoomKey>,
    streams: BTreeMap<StreamKey, RoomKey>,
    signalling: Waker,
    stop: Arc<AtomicBool>,
}

impl MixHandle {
    /// Makes `count` mixes (at least one, at most 256), which wake the net thread by `net`, and starts the threads of all
    /// but the first.
    pub(super) fn start(clock: Clock, count: usize, net: &Arc<Wake>) -> io::Result<(Self, Vec<Workplace>)> {
        let signalling = Waker::new()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut handle = Self {
            workers: Vec::new(),
            rooms: BTreeMap::new(),
            callers: BTreeMap::new(),
            streams: BTreeMap::new(),
            signalling,
            stop,
        };
        let mut workplaces = Vec::new();
        for number in 0..count.clamp(1, 256) {
            let (worker, workplace) = handle.start_worker(clock, number, net)?;
            handle.workers.push(worker);
            workplaces.push(workplace);
        }
        Ok((handle, workplaces))
    }

    fn start_worker(&self, clock: Clock, number: usize, net: &Arc<Wake>) -> io::Result<(Worker, Workplace)> {
        let (commands, thread_commands) = ring(COMMAND_SLOTS);
        let (thread_events, events) = ring(EVENT_SLOTS);
        let (thread_retired, retired) = ring(MAX_HANDED_OUT);
        let health = Arc::new(MixHealth::default());
        let work = |to_net| {
            MixWork::new(Wiring {
                clock,
                health: Arc::clone(&health),
                commands: thread_commands,
                outbox: Outbox {
                    to_net,
                    events: thread_events,
                    retired: thread_retired,
                    net: Arc::clone(net),
                    signalling: self.signalling.wake(),
                    has_packets: false,
                    has_events: false,
                },
            })
        };
        let (thread, workplace) = if number == 0 {
            (None, Workplace::Net(Box::new(work(WayOut::Tray(Tray::new())))))
        } else {
            let (to_mix, packets) = ring(TO_MIX_SLOTS);
            let (to_net, from_mix) = ring(TO_NET_SLOTS);
            let work = work(WayOut::Ring(to_net));
            let stop = Arc::clone(&self.stop);
            let thread = std::thread::Builder::new().name(format!("mix {number}")).spawn(move || {
                // The net thread warns for all if it is not granted.
                request_real_time(MIX_PRIORITY);
                MixThread { work, packets }.run(&stop);
            })?;
            let workplace = Workplace::Own { thread: thread.thread().clone(), to_mix, from_mix };
            (Some(thread), workplace)
        };
        let worker = Worker {
            commands,
            backlog: VecDeque::new(),
            events,
            retired,
            handed_out: 0,
            rooms: 0,
            health,
            thread,
            net: Arc::clone(net),
        };
        Ok((worker, workplace))
    }

    /// Ticks that could not take place, since the start.
    pub(super) fn late_ticks(&self) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.health.late_ticks_ever())).sum()
    }

    /// The thread that has this room.
    pub fn mix_of(&self, room: RoomKey) -> Option<MixIndex> {
        self.rooms.get(&room).copied()
    }

    /// Hands a command to the thread it concerns. A new room goes to the thread that has the fewest.
    ///
    /// # Errors
    /// The command, if it names nothing that is there, or if its thread is full: nothing has happened then.
    pub fn send(&mut self, command: Command) -> Result<(), Command> {
        let Some(MixIndex(index)) = self.thread_for(&command) else { return Err(command) };
        let worker = &mut self.workers[usize::from(index)];
        let objects = objects_in(&command);
        if worker.handed_out + objects > MAX_HANDED_OUT
            || matches!(&command, Command::OpenRoom(_)) && worker.rooms >= MAX_ROOMS_PER_MIX
        {
            return Err(command);
        }
        match &command {
            Command::OpenRoom(room) => {
                worker.rooms += 1;
                self.rooms.insert(room.key(), MixIndex(index));
            }
            Command::AddCaller { room, caller } => {
                self.callers.insert(caller.key(), *room);
            }
            Command::AddStream { room, stream } => {
                self.streams.insert(stream.key(), *room);
            }
            Command::CloseRoom(_)
            | Command::RemoveCaller(_)
            | Command::RemoveStream(_)
            | Command::SetTelephone { .. }
            | Command::StartTelephone(_)
            | Command::SetUp { .. }
            | Command::SetUpLoss { .. }
            | Command::SetDownLoss { .. }
            | Command::SetPresent { .. }
            | Command::SetWaiting { .. }
            | Command::SetMuted { .. } => {}
        }
        worker.handed_out += objects;
        worker.backlog.push_back(command);
        worker.flush();
        Ok(())
    }

    fn thread_for(&self, command: &Command) -> Option<MixIndex> {
        let of_caller = |caller: &CallerKey| self.mix_of(*self.callers.get(caller)?);
        match command {
            Command::OpenRoom(room) if self.rooms.contains_key(&room.key()) => None,
            Command::OpenRoom(_) => {
                let (index, _) = self.workers.iter().enumerate().min_by_key(|(_, worker)| worker.rooms)?;
                u8::try_from(index).ok().map(MixIndex)
            }
            Command::CloseRoom(room) => self.mix_of(*room),
            Command::AddCaller { room, caller } if !self.callers.contains_key(&caller.key()) => self.mix_of(*room),
            Command::AddStream { room, stream } if !self.streams.contains_key(&stream.key()) => self.mix_of(*room),
            Command::AddCaller { .. } | Command::AddStream { .. } => None,
            Command::RemoveStream(stream) => self.mix_of(*self.streams.get(stream)?),
            Command::RemoveCaller(caller)
            | Command::StartTelephone(caller)
            | Command::SetTelephone { caller, .. }
            | Command::SetUp { caller, .. }
            | Command::SetUpLoss { caller, .. }
            | Command::SetDownLoss { caller, .. }
            | Command::SetPresent { caller, .. }
            | Command::SetWaiting { caller, .. }
            | Command::SetMuted { caller, .. } => of_caller(caller),
        }
    }

    /// What has happened, thread by thread.
    pub fn poll_event(&mut self) -> Option<MixEvent> {
        for index in 0..self.workers.len() {
            let worker = &mut self.workers[index];
            worker.flush();
            if let Some(event) = worker.events.try_pop() {
                return Some(event);
            }
            while let Some(retired) = self.workers[index].retired.try_pop() {
                if let Some(event) = self.free(index, retired) {
                    return Some(event);
                }
            }
        }
        None
    }

    fn free(&mut self, index: usize, retired: Retired) -> Option<MixEvent> {
        let worker = &mut self.workers[index];
        worker.handed_out -= 1;
        match retired {
            Retired::Room(room) => {
                worker.rooms -= 1;
                self.rooms.remove(&room.key());
                Some(MixEvent::RoomClosed(room.key()))
            }
            Retired::Caller(caller) => {
                self.callers.remove(&caller.key());
                Some(MixEvent::CallerRemoved { caller: caller.key(), stats: caller.stats() })
            }
            Retired::Stream(stream) => {
                self.streams.remove(&stream.key());
                Some(MixEvent::StreamRemoved { stream: stream.key(), stats: stream.stats() })
            }
            Retired::Up(_) | Retired::Line(_) => None,
        }
    }

    /// Returns when [`Self::poll_event`] may have something.
    ///
    /// # Errors
    /// The reactor fails.
    pub async fn readable(&self) -> io::Result<()> {
        let has_work = || self.workers.iter().any(|worker| !worker.events.is_empty() || !worker.retired.is_empty());
        self.signalling.sleep_unless(has_work).await
    }

    /// How the mixes did since the last report.
    pub fn report(&self) -> MixReport {
        let mut report = MixReport::default();
        self.workers.iter().for_each(|worker| worker.health.take_into(&mut report));
        report
    }

    /// Ends all threads; what they still had is freed (by the net thread's end, what was there).
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Release);
        for worker in &mut self.workers {
            worker.wake();
            if let Some(thread) = worker.thread.take() {
                // A panic there has been printed by the panic hook; here remains nothing to do.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for MixHandle {
    fn drop(&mut self) {
        self.join();
    }
}

impl Worker {
    fn flush(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        while !self.commands.is_full() {
            let Some(command) = self.backlog.pop_front() else { break };
            // Not full: this thread alone fills it.
            let _ = self.commands.try_push(command);
        }
        self.wake();
    }

    fn wake(&self) {
        match &self.thread {
            Some(thread) => thread.thread().unpark(),
            None => self.net.wake(),
        }
    }
}

/// How many objects a command hands over.
fn objects_in(command: &Command) -> usize {
    match command {
        Command::OpenRoom(_) | Command::AddCaller { .. } | Command::AddStream { .. } => 1,
        Command::SetUp { up, .. } => usize::from(up.is_some()),
        Command::SetTelephone { line, .. } => usize::from(line.is_some()),
        Command::CloseRoom(_)
        | Command::RemoveCaller(_)
        | Command::RemoveStream(_)
        | Command::StartTelephone(_)
        | Command::SetUpLoss { .. }
        | Command::SetDownLoss { .. }
        | Command::SetPresent { .. }
        | Command::SetWaiting { .. }
        | Command::SetMuted { .. } => 0,
    }
}
