//! Real-time priority for the media threads.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// SCHED_FIFO priority of the mix threads: low in the range of 1 to 99, above everything that is not real-time.
pub(crate) const MIX_PRIORITY: u8 = 10;

/// The net thread interrupts a mix thread: a packet read late is a packet lost, a tick has 20 ms.
pub(crate) const NET_PRIORITY: u8 = MIX_PRIORITY + 1;

/// Asks for SCHED_FIFO for the calling thread; false if the system does not grant it.
pub(crate) fn request_real_time(priority: u8) -> bool {
    let Ok(value) = ThreadPriorityValue::try_from(priority) else { return false };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(value), policy).is_ok()
}
