//! Where the net thread's packets go: to the mix threads and to signalling.

use std::sync::Arc;
use std::thread::Thread;

use ringbuf::HeapProd;

use crate::io::clock::Clock;
use crate::io::rings::{Target, ToMix, push_or_drop};
use crate::io::wake::Wake;
use crate::media::control::{MixIndex, NetEvent};
use crate::time::Instant;

/// The way to one mix thread.
pub(super) struct MixLink {
    pub(super) ring: HeapProd<ToMix>,
    /// `None` where it works on this thread: its turn comes anyway.
    pub(super) thread: Option<Thread>,
}

/// All ways out of the net thread, beside its sockets.
pub(super) struct Outlets {
    pub(super) clock: Clock,
    pub(super) mixes: Vec<MixLink>,
    pub(super) events: HeapProd<NetEvent>,
    pub(super) signalling: Arc<Wake>,
    /// Signalling has been told something and not been woken for it.
    pub(super) owes_wake: bool,
}

impl Outlets {
    /// Hands an RTP packet to a mix thread; false if its ring is full. A telephone's packet wakes it at once, a room
    /// voice's waits in its jitter buffer for the tick anyway.
    pub(super) fn pass_to_mix(&mut self, mix: MixIndex, target: Target, arrival: Instant, packet: &[u8]) -> bool {
        let Some(link) = self.mixes.get_mut(usize::from(mix.0)) else { return false };
        let pushed = push_or_drop(&mut link.ring, ToMix::new(target, arrival, packet));
        match target {
            Target::Caller(_) => link.thread.iter().for_each(Thread::unpark),
            Target::Stream(_) => {}
        }
        pushed
    }

    /// Whether a mix has a thread of its own.
    pub(super) fn is_elsewhere(&self, mix: MixIndex) -> bool {
        self.mixes.get(usize::from(mix.0)).is_some_and(|link| link.thread.is_some())
    }

    /// Tells signalling; false if its ring is full.
    pub(super) fn tell(&mut self, event: NetEvent) -> bool {
        let pushed = self.tell_soon(event);
        self.wake_signalling();
        pushed
    }

    /// Tells signalling whenever it is awake, by the next [`Self::wake_signalling`] at the latest; false if its ring is full.
    pub(super) fn tell_soon(&mut self, event: NetEvent) -> bool {
        self.owes_wake = true;
        push_or_drop(&mut self.events, event)
    }

    /// Makes sure that signalling learns what it has been told.
    pub(super) fn wake_signalling(&mut self) {
        if std::mem::take(&mut self.owes_wake) {
            self.signalling.wake();
        }
    }
}
