//! How the C library hands out memory.
//!
//! glibc gives every thread that allocates a heap of its own ("arena"), each of which keeps what it once needed. Here one thread
//! allocates (signalling) and threads that live for one look-up or request; the net thread only copies STUN and DTLS for it, and
//! the mixes' work takes nothing. One heap for all keeps freed memory where the next call finds it, and costs nothing, since
//! hardly anybody waits for its lock.
//!
//! From the first call on that heap is made of huge pages. A tick touches a little of a hundred objects, each on a page of its own;
//! what the processor then does to find those pages costs more than what is done with them, in a virtual machine above all. Before
//! the first call it would only take memory, and after the last one it is given back.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) use glibc::{give_back_memory, keep_one_heap, use_huge_pages};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::libc;

    /// The size of a huge page that is worth it: with pages of 16 kB one has 32 MB, more than the whole program.
    const HUGE_PAGE_BYTES: usize = 2 << 20;

    /// The heap grows by so much address space at a time, so that it is told of huge pages before it is touched.
    const GROWTH_BYTES: libc::c_int = 32 << 20;

    /// What is smaller comes from the heap and not from a mapping of its own: the net thread's buffers, the rings.
    const MAPPING_BYTES: libc::c_int = 1 << 20;

    /// Where the part of the heap begins that can have huge pages; 0: there are none.
    static FIRST: AtomicUsize = AtomicUsize::new(0);
    /// How far the system has been told.
    static TOLD_UP_TO: AtomicUsize = AtomicUsize::new(0);

    /// One heap for all threads. To be called before the first of them starts.
    pub(in crate::io) fn keep_one_heap() {
        // SAFETY: mallopt(3) takes two integers and may be called at any time; no other thread runs yet.
        let set = |option, value| unsafe { libc::mallopt(option, value) };
        let granted = set(libc::M_ARENA_MAX, 1);
        debug_assert_eq!(granted, 1, "mallopt refuses M_ARENA_MAX");
        if huge_page_bytes() != Some(HUGE_PAGE_BYTES) {
            return;
        }
        set(libc::M_TOP_PAD, GROWTH_BYTES);
        // Or else what it grows by would be given back with the next `free`.
        set(libc::M_TRIM_THRESHOLD, 2 * GROWTH_BYTES);
        set(libc::M_MMAP_THRESHOLD, MAPPING_BYTES);
        let end = heap_end();
        let first = end.next_multiple_of(HUGE_PAGE_BYTES);
        // SAFETY: the heap's end may be moved up at any time; glibc goes on behind what it did not ask for itself.
        if unsafe { libc::sbrk((first - end).cast_signed()) as usize } == end {
            FIRST.store(first, Ordering::Relaxed);
        }
    }

    /// To be called before memory for a call is taken; costs nothing unless the heap has grown. Where the system has no huge
    /// pages to give, everything is as it was.
    pub(in crate::io) fn use_huge_pages() {
        let (first, end) = (FIRST.load(Ordering::Relaxed), heap_end());
        let told_up_to = TOLD_UP_TO.swap(end, Ordering::Relaxed);
        if first == 0 || end <= first || told_up_to == end {
            return;
        }
        // SAFETY: advice about the process's own heap, which changes none of its bytes.
        let advise = |bytes, advice| unsafe { libc::madvise(first as *mut libc::c_void, bytes, advice) };
        advise(end - first, libc::MADV_HUGEPAGE);
        if told_up_to == 0 && end - first >= HUGE_PAGE_BYTES {
            // What has been in use since the start; since Linux 6.1.
            advise(HUGE_PAGE_BYTES, libc::MADV_COLLAPSE);
        }
    }

    /// To be called when nobody calls any more: what the calls needed goes back to the system.
    pub(in crate::io) fn give_back_memory() {
        TOLD_UP_TO.store(0, Ordering::Relaxed);
        // SAFETY: gives back whole pages that hold nothing; may be called at any time.
        unsafe { libc::malloc_trim(0) };
    }

    fn heap_end() -> usize {
        // SAFETY: 0 asks where the heap ends and changes nothing.
        unsafe { libc::sbrk(0) as usize }
    }

    fn huge_page_bytes() -> Option<usize> {
        std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?.trim().parse().ok()
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod other {
    /// Other C libraries have one heap anyway.
    pub(in crate::io) fn keep_one_heap() {}
    /// They do so by themselves, or never.
    pub(in crate::io) fn give_back_memory() {}
    /// Theirs is where they like.
    pub(in crate::io) fn use_huge_pages() {}
}
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) use other::{give_back_memory, keep_one_heap, use_huge_pages};
