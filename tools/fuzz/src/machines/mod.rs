//! Targets that take bytes for operations on a machine, in virtual time, beside a model that knows what must not happen.
//!
//! Owns: how bytes become operations, and how time passes. Does not own: the operations themselves and the models, one
//! file for each machine. A run ends with the bytes or after [`MAX_OPERATIONS`].

pub mod client;
pub mod endpoint;
pub mod ice;
pub mod jitter;
pub mod turn;

use std::time::Duration;

use galene_sip::time::{Deadline, Instant};

/// Longer runs find nothing that shorter ones do not, and are slow.
const MAX_OPERATIONS: usize = 300;
/// A machine may want to be woken so often at one instant; more is spinning.
const MAX_WAKES_AT_ONCE: u32 = 8;

/// Bytes as a source of choices; when they are used up every choice is the first one.
#[derive(Debug)]
pub(crate) struct Choices<'a> {
    bytes: &'a [u8],
    operations: usize,
}

impl<'a> Choices<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, operations: 0 }
    }

    /// The next operation; `None` at the end of the run.
    fn operation(&mut self) -> Option<u8> {
        self.operations += 1;
        if self.operations > MAX_OPERATIONS {
            return None;
        }
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `bound`, which is at most 256.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// One of those that there are by now.
    fn pick_some<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let index = self.below(all.len());
        all.get(index).cloned()
    }

    /// Raw bytes behind their length.
    fn raw(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.bytes.len());
        let (raw, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        raw
    }

    /// The same as text.
    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.raw()).into_owned()
    }

    /// From a blink to more than any timer of a call.
    fn duration(&mut self) -> Duration {
        const STEPS_MS: [u64; 12] = [0, 1, 20, 50, 250, 500, 1000, 4000, 10_000, 32_000, 240_000, 1_900_000];
        Duration::from_millis(self.pick(&STEPS_MS))
    }

    /// `bytes` with one of them changed.
    fn mutate(&mut self, bytes: &mut [u8]) {
        let at = usize::from(self.u16());
        if let Some(length) = std::num::NonZeroUsize::new(bytes.len()) {
            bytes[at % length] = self.byte();
        }
    }
}

/// Counts how often a machine is woken without time going on.
#[derive(Debug, Default)]
struct Wakes {
    at: Instant,
    count: u32,
}

impl Wakes {
    /// Woken at `now`, it has come to want `next`.
    fn check(&mut self, now: Instant, next: Option<Deadline>) {
        if now > self.at {
            (self.at, self.count) = (now, 0);
        }
        if next.is_some_and(|next| next.at <= now) {
            self.count += 1;
            assert!(self.count <= MAX_WAKES_AT_ONCE, "it spins: {next:?} at {now:?}");
        }
    }
}
