//! The packet slots between the net thread and the mixes.
//!
//! Owns: the layout of one slot each way, the rings' capacities, and the tray of the mix that works on the net thread. A slot
//! is a fixed array inside the ring: pushing copies the packet once, the consumer works on it in place, nothing is allocated.
//! What is full drops, and the producer counts.

use ringbuf::traits::{Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

use crate::media::control::{CallerKey, Heard, LegKey, MAX_PACKET_BYTES, StreamKey};
use crate::time::Instant;

/// Slots from the net thread to one mix thread. 128 streams and 64 telephones bring 192 packets a tick if all of them
/// send; 512 hold more than two ticks of that, in 0.8 MB.
pub(crate) const TO_MIX_SLOTS: usize = 512;

/// Slots from one mix thread to the net thread: two packets a caller and tick (up and down) for 128 callers, and twice that.
pub(crate) const TO_NET_SLOTS: usize = 512;

/// Commands to one thread that may wait. A caller's whole life is about ten.
pub(crate) const COMMAND_SLOTS: usize = 1024;

/// Events of one thread that may wait for the signalling thread.
pub(crate) const EVENT_SLOTS: usize = 1024;

/// Whom a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A telephone's RTP.
    Caller(CallerKey),
    /// A room voice's RTP, decrypted.
    Stream(StreamKey),
}

/// A packet on its way to a mix thread.
pub(crate) struct ToMix {
    /// Whom it is for.
    pub(crate) target: Target,
    /// When the kernel had it.
    pub(crate) arrival: Instant,
    len: u16,
    bytes: [u8; MAX_PACKET_BYTES],
}

impl ToMix {
    /// A slot with a copy of `packet`, cut at the slot's size (which no valid packet reaches).
    pub(crate) fn new(target: Target, arrival: Instant, packet: &[u8]) -> Self {
        let (len, bytes) = filled(packet);
        Self { target, arrival, len, bytes }
    }

    /// The RTP packet.
    pub(crate) fn packet(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Something on its way to a socket, mostly a packet.
pub(crate) struct ToNet {
    /// Which socket.
    pub(crate) leg: LegKey,
    /// In place of a packet, what its extended reports are made of.
    heard: Option<Heard>,
    len: u16,
    bytes: [u8; MAX_PACKET_BYTES],
}

/// What a slot on its way to a socket holds.
pub(crate) enum Made<'a> {
    /// An RTP packet of so many bytes, and the whole slot, which leaves room for SRTP's tag.
    Packet(usize, &'a mut [u8]),
    /// For the socket's extended reports.
    Heard(Heard),
}

impl ToNet {
    /// A slot with a copy of `packet`, cut at the slot's size (which no packet of ours reaches).
    pub(crate) fn new(leg: LegKey, packet: &[u8]) -> Self {
        let (len, bytes) = filled(packet);
        Self { leg, heard: None, len, bytes }
    }

    /// A slot for the socket's extended reports.
    pub(crate) const fn heard(leg: LegKey, heard: Heard) -> Self {
        Self { leg, heard: Some(heard), len: 0, bytes: [0; MAX_PACKET_BYTES] }
    }

    /// What it holds.
    pub(crate) fn made(&mut self) -> Made<'_> {
        match self.heard {
            Some(heard) => Made::Heard(heard),
            None => Made::Packet(usize::from(self.len), &mut self.bytes),
        }
    }
}

/// Packets on their way to a socket from a mix of the same thread. Unlike a ring's, its slots are used from the first one
/// again each time, so that they stay in the processor's cache; and those that were never needed take no memory.
pub(crate) struct Tray {
    slots: Vec<ToNet>,
    used: usize,
}

impl Tray {
    /// Empty, with as much room as a ring.
    pub(crate) fn new() -> Self {
        Self { slots: Vec::with_capacity(TO_NET_SLOTS), used: 0 }
    }

    /// The next free slot, with whatever was in it.
    fn next_slot(&mut self) -> Option<&mut ToNet> {
        // The room for all of them is there from the start: pushing allocates nothing.
        if self.used == self.slots.len() && self.used < TO_NET_SLOTS {
            self.slots.push(ToNet { leg: LegKey(0), heard: None, len: 0, bytes: [0; MAX_PACKET_BYTES] });
        }
        let slot = self.slots.get_mut(self.used)?;
        self.used += 1;
        Some(slot)
    }

    /// Adds a packet; false if there is no room.
    pub(crate) fn put(&mut self, leg: LegKey, packet: &[u8]) -> bool {
        let Some(slot) = self.next_slot() else { return false };
        let len = packet.len().min(MAX_PACKET_BYTES);
        (slot.leg, slot.heard, slot.len) = (leg, None, len as u16);
        slot.bytes[..len].copy_from_slice(&packet[..len]);
        true
    }

    /// Adds something for extended reports, if there is room.
    pub(crate) fn put_heard(&mut self, leg: LegKey, heard: Heard) {
        if let Some(slot) = self.next_slot() {
            (slot.leg, slot.heard) = (leg, Some(heard));
        }
    }

    /// Everything that was put, oldest first; the tray is empty from now on.
    pub(crate) fn take(&mut self) -> &mut [ToNet] {
        let used = std::mem::take(&mut self.used);
        &mut self.slots[..used]
    }
}

fn filled(packet: &[u8]) -> (u16, [u8; MAX_PACKET_BYTES]) {
    let len = packet.len().min(MAX_PACKET_BYTES);
    let mut bytes = [0; MAX_PACKET_BYTES];
    bytes[..len].copy_from_slice(&packet[..len]);
    (len as u16, bytes)
}

/// Both ends of a new ring.
pub(crate) fn ring<T>(slots: usize) -> (HeapProd<T>, HeapCons<T>) {
    HeapRb::new(slots).split()
}

/// Pushes or drops; says which.
pub(crate) fn push_or_drop<T>(ring: &mut HeapProd<T>, item: T) -> bool {
    ring.try_push(item).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_tray_takes_no_more_until_it_is_emptied_and_never_grows() {
        let mut tray = Tray::new();
        let room = tray.slots.capacity();
        for round in 0..2 {
            let put = (0..TO_NET_SLOTS + 3).filter(|&n| tray.put(LegKey(n as u32), &[n as u8, round])).count();
            assert_eq!(put, TO_NET_SLOTS);
            let taken = tray.take();
            assert_eq!(taken.len(), TO_NET_SLOTS);
            for (n, slot) in taken.iter_mut().enumerate() {
                let Made::Packet(len, bytes) = slot.made() else { panic!() };
                assert_eq!(bytes[..len], [n as u8, round]);
            }
        }
        assert!(tray.take().is_empty() && tray.slots.capacity() == room);
    }
}
