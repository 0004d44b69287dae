//! The packets that wait in a jitter buffer, by number.
//!
//! A packet takes the lowest slot that is free, so a voice that comes in order uses the same one or two all the time, and they
//! stay in the processor's cache.

use super::{Arrival, MAX_PAYLOAD_BYTES};
use crate::wire::rtp::sequence_distance;

/// Packets held: 640 ms of 20 ms packets, 320 ms of 10 ms ones, more than the longest delay.
pub(super) const SLOTS: usize = 32;

/// One packet.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) sequence_number: u16,
    pub(super) timestamp: u32,
    /// The timestamp on the line of `Lateness`.
    pub(super) media_us: i64,
    pub(super) duration_ticks: u32,
    pub(super) has_fec: bool,
    len: usize,
    payload: [u8; MAX_PAYLOAD_BYTES],
}

impl Slot {
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload[..self.len]
    }
}

/// A slot that holds a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotIndex(u8);

/// See the module. No two packets are more than [`SLOTS`] numbers apart: whoever keeps them makes room first.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Slot; SLOTS]>,
    /// One bit a slot.
    full: u32,
    /// By number, modulo [`SLOTS`]: where that packet is.
    places: [Option<SlotIndex>; SLOTS],
}

impl Slots {
    pub(super) fn new() -> Self {
        let empty = || Slot {
            sequence_number: 0,
            timestamp: 0,
            media_us: 0,
            duration_ticks: 0,
            has_fec: false,
            len: 0,
            payload: [0; MAX_PAYLOAD_BYTES],
        };
        Self { slots: Box::new(std::array::from_fn(|_| empty())), full: 0, places: [None; SLOTS] }
    }

    pub(super) fn get(&self, index: SlotIndex) -> &Slot {
        &self.slots[usize::from(index.0)]
    }

    /// Where the packet of this number is, if it is here.
    pub(super) fn find(&self, sequence_number: u16) -> Option<SlotIndex> {
        self.places[place(sequence_number)].filter(|&index| self.get(index).sequence_number == sequence_number)
    }

    /// The first packet from `next` on.
    pub(super) fn first_from(&self, next: u16) -> Option<SlotIndex> {
        (0..SLOTS as u16).find_map(|ahead| self.places[place(next.wrapping_add(ahead))])
    }

    /// Keeps a packet whose payload fits, instead of one of the same place if there is one.
    pub(super) fn keep(&mut self, packet: &Arrival<'_>, media_us: i64) {
        let at = place(packet.sequence_number);
        // A place without a packet means that fewer than all slots are full.
        let lowest_free = SlotIndex((self.full.trailing_ones() as usize % SLOTS) as u8);
        let index = *self.places[at].get_or_insert(lowest_free);
        self.full |= 1 << index.0;
        let slot = &mut self.slots[usize::from(index.0)];
        (slot.sequence_number, slot.timestamp, slot.media_us) = (packet.sequence_number, packet.timestamp, media_us);
        slot.duration_ticks = packet.duration_ticks;
        (slot.has_fec, slot.len) = (packet.has_fec, packet.payload.len());
        slot.payload[..packet.payload.len()].copy_from_slice(packet.payload);
    }

    /// Frees a slot; its packet stays readable until the next one is kept.
    pub(super) fn free(&mut self, index: SlotIndex) -> &Slot {
        let slot = &self.slots[usize::from(index.0)];
        self.full &= !(1 << index.0);
        self.places[place(slot.sequence_number)] = None;
        slot
    }

    /// Frees what comes before `next`.
    pub(super) fn free_before(&mut self, next: u16) {
        for at in 0..SLOTS {
            if let Some(index) = self.places[at]
                && sequence_distance(next, self.get(index).sequence_number) < 0
            {
                self.free(index);
            }
        }
    }

    /// Frees every slot.
    pub(super) fn free_all(&mut self) {
        (self.full, self.places) = (0, [None; SLOTS]);
    }
}

const fn place(sequence_number: u16) -> usize {
    sequence_number as usize % SLOTS
}
