//! How the C library hands out memory.
//!
//! glibc gives every thread that allocates a heap of its own ("arena"), each of which keeps what it once needed. Here one thread
//! allocates (signalling) and threads that live for one look-up or request; net and mix threads never do. One heap for all
//! keeps freed memory where the next call finds it, and costs nothing, since nobody waits for its lock.

/// One heap for all threads. To be called before the first of them starts.
pub(super) fn keep_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt(3) takes two integers and may be called at any time; no other thread runs yet.
        let granted = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
        debug_assert_eq!(granted, 1, "mallopt refuses M_ARENA_MAX");
    }
}
