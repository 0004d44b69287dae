//! Waiting for many file descriptors at once, until a time that is exact to the microsecond.
//!
//! Owns: epoll, the timer and the waker. Does not own: the descriptors that it watches.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// Tokens at and above this one are the poll's own.
const RESERVED: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 1;
const WAKER: u64 = u64::MAX;
/// One turn of a loop takes up to so many ready descriptors; the rest are ready in the next.
const EVENTS_PER_TURN: usize = 256;

pub(crate) struct Poll {
    epoll: Epoll,
    timer: TimerFd,
    waker: Waker,
    /// Whether the timer may still fire from an earlier wait.
    armed: bool,
}

/// Ends a wait from another thread.
#[derive(Clone)]
pub(crate) struct Waker(Arc<EventFd>);

impl Waker {
    pub(crate) fn wake(&self) {
        // A full counter means that a wake-up is pending anyway.
        let _ = self.0.write(1);
    }
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        Ok(Self { epoll, timer, waker: Waker(Arc::new(wake)), armed: false })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Watches a descriptor for input.
    pub(crate) fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        assert!(token < RESERVED, "tokens are counted up from zero");
        Ok(self.epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Watches a descriptor for room to write too, or no longer.
    pub(crate) fn watch_output(&self, source: impl AsFd, token: u64, output: bool) -> io::Result<()> {
        let flags = if output { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        Ok(self.epoll.modify(source, &mut EpollEvent::new(flags, token))?)
    }

    pub(crate) fn remove(&self, source: impl AsFd) {
        // A descriptor that is no longer known is what was wanted.
        let _ = self.epoll.delete(source);
    }

    /// Waits until something is ready or `timeout` has passed; the ready tokens replace `ready`.
    pub(crate) fn wait(&mut self, timeout: Duration, ready: &mut Vec<u64>) -> io::Result<()> {
        ready.clear();
        let mut events = [EpollEvent::empty(); EVENTS_PER_TURN];
        let patience = if timeout.is_zero() {
            EpollTimeout::ZERO
        } else {
            self.timer.set(Expiration::OneShot(TimeSpec::from_duration(timeout)), TimerSetTimeFlags::empty())?;
            self.armed = true;
            EpollTimeout::NONE
        };
        let count = match self.epoll.wait(&mut events, patience) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            match event.data() {
                TIMER => {}
                WAKER => drop(self.waker.0.read()),
                token => ready.push(token),
            }
        }
        if self.armed {
            self.timer.unset()?;
            self.armed = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_datagram_a_wake_up_and_the_time_each_end_a_wait() {
        let mut poll = Poll::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        poll.add(&socket, 7).unwrap();
        let mut ready = vec![1];
        poll.wait(Duration::from_micros(300), &mut ready).unwrap();
        assert!(ready.is_empty());
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        poll.wait(Duration::from_secs(5), &mut ready).unwrap();
        assert_eq!(ready, [7]);
        socket.recv(&mut [0; 8]).unwrap();
        poll.waker().wake();
        poll.wait(Duration::from_secs(5), &mut ready).unwrap();
        assert!(ready.is_empty());
    }
}
