//! Starting the media threads and tying them together.

use std::io;
use std::sync::Arc;

use super::clock::Clock;
use super::mix::MixHandle;
use super::net::NetHandle;
use super::wake::Wake;

/// One mix for each core but one, which is left to everything else; at least one.
pub fn default_mix_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

/// Starts the net thread, which has the first mix, and threads for the others of `mix_threads` (at least one).
///
/// # Errors
/// The system grants no thread, eventfd or epoll descriptor.
pub fn start(clock: Clock, mix_threads: usize) -> io::Result<(NetHandle, MixHandle)> {
    let net_wake = Arc::new(Wake::new()?);
    let (mix, sides) = MixHandle::start(clock, mix_threads, &net_wake)?;
    let net = NetHandle::start(clock, net_wake, sides)?;
    Ok((net, mix))
}
