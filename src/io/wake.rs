//! Waking a thread that sleeps, and only then.
//!
//! Owns: an eventfd and the flag that says "I am about to sleep". The net thread waits for it in its epoll set, the
//! signalling thread by `async_io`. (A mix thread needs no descriptor: `Thread::unpark` is the same idea on a futex.)
//!
//! Invariant: the sleeper arms, *then* looks into its rings, *then* sleeps; the waker pushes, *then* looks at the flag.
//! Sequentially consistent fences between the two steps of each side make it impossible that both miss each other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use async_io::Async;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// One sleeper, any number of wakers.
#[derive(Debug)]
pub(crate) struct Wake {
    event: EventFd,
    armed: AtomicBool,
}

impl Wake {
    /// Nobody sleeps yet.
    pub(crate) fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { event, armed: AtomicBool::new(false) })
    }

    /// The waker's half, after its push. A system call only if the other side sleeps.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::SeqCst) {
            // It fails only if 2⁶⁴ wakes are unread, and then the descriptor is readable anyway.
            let _ = self.event.write(1);
        }
    }

    /// The sleeper's first half: what is pushed from now on wakes. Look into the rings after it.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The sleeper's second half, once awake for whatever reason: pushes need not wake from now on.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }

    /// Whenever the descriptor is readable. It may become so after [`Self::disarm`], when a waker had taken the flag before.
    pub(crate) fn clear(&self) {
        // It fails only if there is nothing to clear.
        let _ = self.event.read();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// The signalling thread as a sleeper: [`Wake`] registered with the reactor.
#[derive(Debug)]
pub(crate) struct Waker {
    wake: Arc<Wake>,
    reactor: Async<OwnedFd>,
}

impl Waker {
    /// Registers a new wake.
    pub(crate) fn new() -> io::Result<Self> {
        let wake = Arc::new(Wake::new()?);
        let reactor = Async::new_nonblocking(wake.as_fd().try_clone_to_owned()?)?;
        Ok(Self { wake, reactor })
    }

    /// For the threads that wake.
    pub(crate) fn wake(&self) -> Arc<Wake> {
        Arc::clone(&self.wake)
    }

    /// Sleeps until woken, unless `has_work` says that there is no need.
    pub(crate) async fn sleep_unless(&self, has_work: impl Fn() -> bool) -> io::Result<()> {
        self.wake.arm();
        if !has_work() {
            self.reactor.readable().await?;
            self.wake.clear();
        }
        self.wake.disarm();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn readable(wake: &Wake, timeout_ms: u16) -> bool {
        poll(&mut [PollFd::new(wake.as_fd(), PollFlags::POLLIN)], PollTimeout::from(timeout_ms)).unwrap() == 1
    }

    #[test]
    fn only_an_armed_sleeper_is_woken_and_once() {
        let wake = Wake::new().unwrap();
        wake.wake();
        assert!(!readable(&wake, 0));
        wake.arm();
        wake.wake();
        wake.wake();
        assert!(readable(&wake, 0));
        wake.disarm();
        wake.clear();
        assert!(!readable(&wake, 0));
    }

    #[test]
    fn no_push_is_ever_slept_through() {
        use std::sync::atomic::AtomicU32;
        let wake = Arc::new(Wake::new().unwrap());
        let pushed = Arc::new(AtomicU32::new(0));
        let producer = {
            let (wake, pushed) = (Arc::clone(&wake), Arc::clone(&pushed));
            std::thread::spawn(move || {
                for _ in 0..20_000 {
                    pushed.fetch_add(1, Ordering::Release);
                    wake.wake();
                }
            })
        };
        let mut seen = 0;
        while seen < 20_000 {
            wake.arm();
            if pushed.load(Ordering::Acquire) == seen {
                assert!(readable(&wake, 10_000), "slept through a push");
                wake.clear();
            }
            wake.disarm();
            seen = pushed.load(Ordering::Acquire);
        }
        producer.join().unwrap();
    }
}
