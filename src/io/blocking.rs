//! Work that blocks (name look-ups, HTTP), each piece on a thread of its own that ends with it.
//!
//! The pool behind `smol::unblock` keeps every thread it ever needed; a gateway that once had ten calls in a second would
//! keep ten threads for good.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use smol::channel::bounded;
use smol::lock::Semaphore;

/// At once; more wait. A look-up or request takes some milliseconds, or its time-out where nothing answers.
static PLACES: Semaphore = Semaphore::new(8);

/// A look-up on the way to Galene, of the 8 s that a request or a connection may take: what is left tells that DNS is at fault
/// and not the host.
pub(super) const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(7);

/// Runs `work` and gives what it gives.
///
/// # Errors
/// The system grants no thread, or `work` panicked.
pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let _place = PLACES.acquire().await;
    let (done_in, done_out) = bounded(1);
    let body = move || {
        // Nobody waits any more if the caller has gone.
        let _ = done_in.try_send(work());
    };
    std::thread::Builder::new().name("blocking".into()).spawn(body)?;
    done_out.recv().await.map_err(|_| io::Error::other("a blocking task failed"))
}

/// Asks the system's resolver.
///
/// # Errors
/// There is no such name, or no answer.
pub(super) async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    run(move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_pieces_than_places_all_get_done() {
        let executor = smol::LocalExecutor::new();
        let tasks: Vec<_> = (0..40).map(|number| executor.spawn(run(move || number * 2))).collect();
        let sum = smol::block_on(executor.run(async {
            let mut sum = 0;
            for task in tasks {
                sum += task.await.unwrap();
            }
            sum
        }));
        assert_eq!(sum, (0..40).map(|number| number * 2).sum::<i32>());
    }
}
