//! Where the net thread's packets go: to the mix threads and to signalling.

use std::sync::Arc;

use ringbuf::HeapProd;
use ringbuf::traits::{Consumer, Observer};

use crate::io::clock::Clock;
use crate::io::mix::{MixWork, Workplace};
use crate::io::rings::{Target, ToMix, ToNet, push_or_drop};
use crate::io::wake::Wake;
use crate::media::control::{MixIndex, NetEvent, StreamKey};
use crate::time::Instant;

/// All ways out of the net thread, beside its sockets.
pub(super) struct Outlets {
    pub(super) clock: Clock,
    pub(super) mixes: Vec<Workplace>,
    pub(super) events: HeapProd<NetEvent>,
    pub(super) signalling: Arc<Wake>,
    /// Signalling has been told something and not been woken for it.
    pub(super) owes_wake: bool,
}

impl Outlets {
    /// Hands an RTP packet to a mix; false if its ring is full. A telephone's packet wakes it at once, a room voice's
    /// waits in its jitter buffer for the tick anyway.
    pub(super) fn pass_to_mix(&mut self, mix: MixIndex, target: Target, arrival: Instant, packet: &[u8]) -> bool {
        match self.mixes.get_mut(usize::from(mix.0)) {
            Some(Workplace::Net(work)) => {
                work.handle_packet(target, arrival, packet);
                true
            }
            Some(Workplace::Own { thread, to_mix, .. }) => {
                let pushed = push_or_drop(to_mix, ToMix::new(target, arrival, packet));
                if let Target::Caller(_) = target {
                    thread.unpark();
                }
                pushed
            }
            None => false,
        }
    }

    /// Whether a room voice has been played ahead of the next tick, so that nothing need be read for it. Only a mix of this
    /// thread is asked.
    pub(super) fn is_ahead(&self, mix: MixIndex, stream: StreamKey) -> bool {
        match self.mixes.get(usize::from(mix.0)) {
            Some(Workplace::Net(work)) => work.is_ahead(stream),
            Some(Workplace::Own { .. }) | None => false,
        }
    }

    /// Gives every packet that the mixes have made to `send`.
    pub(super) fn for_each_made(&mut self, mut send: impl FnMut(&mut ToNet)) {
        for mix in &mut self.mixes {
            match mix {
                Workplace::Net(work) => work.tray().into_iter().flat_map(|tray| tray.take()).for_each(&mut send),
                Workplace::Own { from_mix, .. } => {
                    while let Some(slot) = from_mix.first_mut() {
                        send(slot);
                        from_mix.skip(1);
                    }
                }
            }
        }
    }

    /// The mix that has its turns on this thread.
    pub(super) fn local_mix(&self) -> Option<&MixWork> {
        self.mixes.iter().find_map(|mix| match mix {
            Workplace::Net(work) => Some(work.as_ref()),
            Workplace::Own { .. } => None,
        })
    }

    /// Likewise.
    pub(super) fn local_mix_mut(&mut self) -> Option<&mut MixWork> {
        self.mixes.iter_mut().find_map(|mix| match mix {
            Workplace::Net(work) => Some(work.as_mut()),
            Workplace::Own { .. } => None,
        })
    }

    /// A mix has something for this thread.
    pub(super) fn has_work(&self) -> bool {
        self.mixes.iter().any(|mix| match mix {
            Workplace::Net(work) => work.has_work(),
            Workplace::Own { from_mix, .. } => !from_mix.is_empty(),
        })
    }

    /// Whether a mix has a thread of its own.
    pub(super) fn is_elsewhere(&self, mix: MixIndex) -> bool {
        matches!(self.mixes.get(usize::from(mix.0)), Some(Workplace::Own { .. }))
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
