//! The jitter buffer of one room stream: packets in as they come, one decision out whenever the decoder needs sound.
//!
//! Owns: order, duplicates, the target delay from measured lateness, what to do about a hole, pauses (DTX), restarts.
//! Does not own: decoding and the 20 ms framing (`stream`), delay beyond the target or short of it (`pace` cuts the sound
//! itself; only what a break held up is thrown away here), the sums of loss for RTCP (`rtcp_session`).
//! Flow: [`JitterBuffer::push`] from the network, [`JitterBuffer::pull`] from the tick, as often as the decoder runs dry.
//! Invariants: nothing is allocated after `new`; what is heard never repeats; without packets the buffer falls silent after
//! [`MAX_CONCEALED_MS`].
//!
//! The source identifier plays no part: a stream that two listeners receive for a moment, or whose listener changes, keeps
//! its sequence numbers and goes on in the same buffer.

use super::lateness::Lateness;
use crate::time::Instant;
use crate::wire::rtp::sequence_distance;
use slots::{SLOTS, SlotIndex, Slots};
use stragglers::Stragglers;

mod slots;
mod stragglers;

/// The longest payload kept: what fits an Ethernet frame behind IPv4, UDP and RTP headers.
pub const MAX_PAYLOAD_BYTES: usize = 1460;

/// The target before anything is known of the network.
const INITIAL_TARGET_US: u64 = 20_000;
/// The target is never below: half a tick, so that a packet that is a little late makes no hole.
const MIN_TARGET_US: u64 = 10_000;
/// The target is never above: beyond that a conversation suffers more from delay than from loss.
const MAX_TARGET_US: u64 = 200_000;
/// Packets later than the target, in percent.
const LATE_PERCENT: u32 = 2;
/// The same where the next packet is waited for because it may repair the hole.
const LATE_PERCENT_FOR_FEC: u32 = 10;

/// Sound is made up for so long at one stretch.
pub const MAX_CONCEALED_MS: u32 = 200;
/// So much above the target is given back at once: it came in one burst after a break.
const BURST_EXCESS_US: i64 = 100_000;
/// An Opus packet of no more bytes holds no sound: the sender pauses after it (RFC 7587 §3.1.3).
const PAUSE_BYTES: usize = 2;
/// So many packets in a row from behind are a sender that has started anew, not stragglers.
const LATE_RUN_MEANS_RESTART: u8 = 5;
/// And so many that are from much farther behind than any straggler.
const FAR_LATE_RUN_MEANS_RESTART: u8 = 2;
/// A number that leads by more is a sender that has started anew: a minute of 20 ms packets.
const RESTART_DISTANCE: i16 = 3000;
/// Loss above about 1 % (in 1/65536, averaged over some 100 packets) makes it worth waiting for FEC.
const LOSSY: u32 = 655;
const LOSS_SHIFT: u32 = 7;

/// A packet as it came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// When the kernel had it.
    pub at: Instant,
    /// From the header.
    pub sequence_number: u16,
    /// From the header.
    pub timestamp: u32,
    /// How long it plays, in RTP clock units; for Opus see [`super::opus::packet::duration_ticks`].
    pub duration_ticks: u32,
    /// Whether it can repair the packet before it.
    pub has_fec: bool,
    /// At most [`MAX_PAYLOAD_BYTES`].
    pub payload: &'a [u8],
}

/// What became of a packet that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// To be played in its turn.
    Kept,
    /// Its turn is over.
    Late,
    /// It is here already.
    Duplicate,
    /// Longer than [`MAX_PAYLOAD_BYTES`], or it plays no time at all.
    Unusable,
}

/// What the decoder shall do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Playout<'a> {
    /// Decode this.
    Packet {
        /// The payload.
        payload: &'a [u8],
        /// How long it plays, in RTP clock units.
        duration_ticks: u32,
    },
    /// The packet before this one is lost: decode the copy of it that this one carries. It will be played in its turn.
    Fec {
        /// The payload of the packet behind the hole.
        next: &'a [u8],
        /// How long the hole is, in RTP clock units.
        duration_ticks: u32,
    },
    /// Make up so much sound.
    Conceal {
        /// In RTP clock units.
        duration_ticks: u32,
    },
    /// Nothing is to be heard in this tick.
    Empty,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitterStats {
    /// Packets kept.
    pub received: u64,
    /// Packets that came too late or from before a restart.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets of no use, see [`Pushed::Unusable`].
    pub unusable: u64,
    /// Holes repaired by the packet behind them.
    pub repaired: u64,
    /// Times that sound was made up.
    pub concealed: u64,
    /// Packets left out to catch up after a break.
    pub skipped: u64,
    /// Starts of a new sequence.
    pub restarts: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing plays; the next packet waits until the target delay is reached.
    Idle,
    /// Sound is running.
    Playing(Run),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Where the sound so far ends on the sender's clock.
    next_timestamp: u32,
    /// Sound made up since the last packet.
    made_up_ticks: u32,
    /// The part of it that stands for no packet yet: was one lost, or is it only late?
    unmatched_ticks: u32,
    /// The last packet announced a pause.
    pauses: bool,
}

/// See the module.
#[derive(Debug)]
pub struct JitterBuffer {
    clock_rate_hz: u32,
    slots: Slots,
    state: State,
    /// The number that comes next; `None` before the first packet.
    next_sequence: Option<u16>,
    /// How long the last packet was: the best guess for a lost one.
    last_duration_ticks: u32,
    /// The newest number so far.
    newest: u16,
    /// Which of the numbers up to the newest came: that one is the lowest bit.
    arrived: u32,
    lateness: Lateness,
    stragglers: Stragglers,
    target_us: u64,
    /// The share of lost packets in 1/65536.
    loss: u32,
    late_run: u8,
    last_late: u16,
    stats: JitterStats,
}

impl JitterBuffer {
    /// For a stream with this RTP clock (48 000 for Opus).
    pub fn new(clock_rate_hz: u32) -> Self {
        Self {
            clock_rate_hz,
            slots: Slots::new(),
            state: State::Idle,
            next_sequence: None,
            last_duration_ticks: clock_rate_hz / 50,
            newest: 0,
            arrived: 0,
            lateness: Lateness::new(clock_rate_hz),
            stragglers: Stragglers::new(),
            target_us: INITIAL_TARGET_US,
            loss: 0,
            late_run: 0,
            last_late: 0,
            stats: JitterStats::default(),
        }
    }

    /// What happened so far.
    pub const fn stats(&self) -> JitterStats {
        self.stats
    }

    /// The delay aimed at, beyond that of the fastest packets.
    pub const fn target_us(&self) -> u64 {
        self.target_us
    }

    /// How far behind the fastest possible play-out the next packet would be if it played `now`; `None` while none plays.
    pub fn delay_us(&self, now: Instant) -> Option<i64> {
        let State::Playing(run) = self.state else { return None };
        Some(self.lateness.delay_us(now, self.lateness.place_us(run.next_timestamp)))
    }

    /// How long a packet is, in RTP clock units.
    pub const fn packet_ticks(&self) -> u32 {
        self.last_duration_ticks
    }

    /// Takes a packet.
    pub fn push(&mut self, packet: &Arrival<'_>) -> Pushed {
        if packet.payload.len() > MAX_PAYLOAD_BYTES || packet.payload.is_empty() || packet.duration_ticks == 0 {
            self.stats.unusable += 1;
            return Pushed::Unusable;
        }
        let ahead = self.next_sequence.map_or(0, |next| sequence_distance(next, packet.sequence_number));
        self.note_order(packet);
        if ahead < 0 && !self.is_restart_from_behind(ahead, packet.sequence_number) {
            self.stats.late += 1;
            return Pushed::Late;
        }
        if self.slots.find(packet.sequence_number).is_some() {
            self.stats.duplicates += 1;
            return Pushed::Duplicate;
        }
        self.late_run = 0;
        let (media_us, continues) = self.lateness.observe(packet.at, packet.timestamp);
        if !continues || !(0..RESTART_DISTANCE).contains(&ahead) {
            self.restart_at(packet.sequence_number);
        } else if self.next_sequence.is_none() {
            self.next_sequence = Some(packet.sequence_number);
        } else if ahead >= SLOTS as i16 {
            // The oldest make room.
            self.advance_to(packet.sequence_number.wrapping_sub(SLOTS as u16 - 1));
        }
        self.slots.keep(packet, media_us);
        self.stats.received += 1;
        self.update_target(packet);
        Pushed::Kept
    }

    /// The packet that goes on where the sound ends, and how long it plays in RTP clock units, if it is here and
    /// [`Self::pull`] at `now` would bring it.
    pub fn next_in_run(&self, now: Instant) -> Option<(&[u8], u32)> {
        let (State::Playing(run), Some(next)) = (self.state, self.next_sequence) else { return None };
        let first = self.slots.find(next)?;
        let slot = self.slots.get(first);
        let goes_on = slot.timestamp == run.next_timestamp
            && !self.is_after_break(self.lateness.delay_us(now, slot.media_us), first);
        goes_on.then(|| (slot.payload(), slot.duration_ticks))
    }

    /// What the decoder shall do at `now` to get more sound. Ask again once the sound is used up; after
    /// [`Playout::Empty`] at the next tick.
    pub fn pull(&mut self, now: Instant) -> Playout<'_> {
        // Each turn of the loop takes a packet out, gives a lost one up, or starts: it ends.
        loop {
            let Some(next) = self.next_sequence else { return Playout::Empty };
            let Some(first) = self.slots.first_from(next) else { return self.run_dry() };
            let slot = self.slots.get(first);
            let delay_us = self.lateness.delay_us(now, slot.media_us);
            let is_due = delay_us >= self.target_us.cast_signed();
            let State::Playing(mut run) = self.state else {
                if !is_due {
                    return Playout::Empty;
                }
                self.next_sequence = Some(slot.sequence_number);
                self.state = State::Playing(Run {
                    next_timestamp: slot.timestamp,
                    // Until a packet has played there is nothing to make sound of.
                    made_up_ticks: self.max_made_up_ticks(),
                    unmatched_ticks: 0,
                    pauses: false,
                });
                continue;
            };
            let lost = slot.sequence_number.wrapping_sub(next);
            if lost > 0 {
                // Where the first lost one is given up, the one behind it is next to play.
                let given_up_us = i64::from(lost - 1) * self.duration_us(self.last_duration_ticks);
                let is_next_due = delay_us + given_up_us >= self.target_us.cast_signed();
                if self.may_still_come(delay_us, lost, first) {
                    run.unmatched_ticks += self.last_duration_ticks;
                    return self.conceal(run);
                }
                if run.unmatched_ticks < self.last_duration_ticks || !is_next_due {
                    return self.fill_hole(run, first, lost == 1);
                }
                // The sound made up while it was only missing stands for the lost packet.
                run.unmatched_ticks -= self.last_duration_ticks;
                self.give_up_one(run, next);
            } else if !is_due && slot.timestamp.wrapping_sub(run.next_timestamp).cast_signed() > 0 {
                // The sender had paused: this is a new start.
                self.state = State::Idle;
            } else if self.is_after_break(delay_us, first) {
                self.stats.skipped += 1;
                self.take_out(first, run);
            } else {
                return self.play(first, run);
            }
        }
    }

    /// Whether the first of so many missing packets is worth waiting for, which delays all that follows: it would be in
    /// time for the target, and the packet behind it cannot repair the hole.
    fn may_still_come(&self, delay_us: i64, lost: u16, first: SlotIndex) -> bool {
        let missing_delay_us = delay_us + i64::from(lost) * self.duration_us(self.last_duration_ticks);
        let is_repairable = lost == 1 && self.slots.get(first).has_fec;
        missing_delay_us < self.stragglers.wait_us().cast_signed() && !is_repairable
    }

    /// No packet is left.
    fn run_dry(&mut self) -> Playout<'_> {
        let State::Playing(mut run) = self.state else { return Playout::Empty };
        if run.pauses {
            self.state = State::Idle;
            return Playout::Empty;
        }
        run.unmatched_ticks += self.last_duration_ticks;
        self.conceal(run)
    }

    /// A packet is missing, and a later one is there.
    fn fill_hole(&mut self, run: Run, first: SlotIndex, is_last_lost: bool) -> Playout<'_> {
        let duration_ticks = self.last_duration_ticks;
        let next = self.slots.get(first).sequence_number;
        if is_last_lost && self.slots.get(first).has_fec {
            self.give_up_one(run, next.wrapping_sub(1));
            self.stats.repaired += 1;
            return Playout::Fec { next: self.slots.get(first).payload(), duration_ticks };
        }
        if let Some(missing) = self.next_sequence {
            self.give_up_one(run, missing);
        }
        let State::Playing(run) = self.state else { return Playout::Empty };
        self.conceal(run)
    }

    /// Makes sound up, unless too much of it was made up already.
    fn conceal(&mut self, mut run: Run) -> Playout<'_> {
        if run.made_up_ticks >= self.max_made_up_ticks() {
            self.state = State::Idle;
            return Playout::Empty;
        }
        run.made_up_ticks += self.last_duration_ticks;
        self.state = State::Playing(run);
        self.stats.concealed += 1;
        Playout::Conceal { duration_ticks: self.last_duration_ticks }
    }

    fn duration_us(&self, ticks: u32) -> i64 {
        i64::from(ticks) * 1_000_000 / i64::from(self.clock_rate_hz)
    }

    const fn max_made_up_ticks(&self) -> u32 {
        self.clock_rate_hz / 1000 * MAX_CONCEALED_MS
    }

    /// Packet `missing` will not be played any more.
    fn give_up_one(&mut self, mut run: Run, missing: u16) {
        run.next_timestamp = run.next_timestamp.wrapping_add(self.last_duration_ticks);
        self.state = State::Playing(run);
        self.next_sequence = Some(missing.wrapping_add(1));
        self.note_loss(true);
    }

    fn play(&mut self, first: SlotIndex, mut run: Run) -> Playout<'_> {
        self.note_loss(false);
        run.made_up_ticks = 0;
        self.take_out(first, run);
        let slot = self.slots.get(first);
        Playout::Packet { payload: slot.payload(), duration_ticks: slot.duration_ticks }
    }

    /// Frees the slot (its bytes stay until the next push) and moves on behind it.
    fn take_out(&mut self, first: SlotIndex, mut run: Run) {
        let slot = self.slots.free(first);
        self.next_sequence = Some(slot.sequence_number.wrapping_add(1));
        self.last_duration_ticks = slot.duration_ticks;
        run.next_timestamp = slot.timestamp.wrapping_add(slot.duration_ticks);
        (run.unmatched_ticks, run.pauses) = (0, slot.payload().len() <= PAUSE_BYTES);
        self.state = State::Playing(run);
    }

    /// Whether so much is left to play behind this packet that it came in one burst.
    fn is_after_break(&self, delay_us: i64, first: SlotIndex) -> bool {
        delay_us - self.target_us.cast_signed() - self.duration_us(self.slots.get(first).duration_ticks)
            >= BURST_EXCESS_US
    }

    /// Whether a packet came behind its successors: it was overtaken, or lost and asked for again.
    fn note_order(&mut self, packet: &Arrival<'_>) {
        let behind = sequence_distance(packet.sequence_number, self.newest);
        if self.next_sequence.is_some() && (0..SLOTS as i16).contains(&behind) {
            let bit = 1 << behind;
            // A second copy tells nothing: of two listeners' ways to one voice the slower need not be waited for.
            if self.arrived & bit == 0 {
                let lateness_us = self.lateness.delay_us(packet.at, self.lateness.place_us(packet.timestamp));
                self.stragglers.observe_straggler(lateness_us.max(0).cast_unsigned());
            }
            self.arrived |= bit;
        } else {
            let ahead = u32::from(behind.unsigned_abs());
            self.arrived = if behind < 0 { self.arrived.checked_shl(ahead).unwrap_or(0) } else { 0 } | 1;
            self.newest = packet.sequence_number;
            self.stragglers.observe_in_order(packet.at);
        }
    }

    /// Whether a packet from behind is one of several in a row.
    fn is_restart_from_behind(&mut self, ahead: i16, sequence_number: u16) -> bool {
        let follows = sequence_number == self.last_late.wrapping_add(1);
        self.late_run = if follows { self.late_run.saturating_add(1) } else { 1 };
        self.last_late = sequence_number;
        let is_far = ahead <= -RESTART_DISTANCE;
        self.late_run >= if is_far { FAR_LATE_RUN_MEANS_RESTART } else { LATE_RUN_MEANS_RESTART }
    }

    fn restart_at(&mut self, sequence_number: u16) {
        self.slots.free_all();
        self.state = State::Idle;
        self.next_sequence = Some(sequence_number);
        self.stats.restarts += 1;
    }

    /// Forgets what comes before `next`, which lies ahead.
    fn advance_to(&mut self, next: u16) {
        self.slots.free_before(next);
        self.next_sequence = Some(next);
    }

    fn update_target(&mut self, packet: &Arrival<'_>) {
        let mut target_us = self.lateness.quantile_us(LATE_PERCENT);
        if self.loss > LOSSY && packet.has_fec {
            let duration_us = u64::from(packet.duration_ticks) * 1_000_000 / u64::from(self.clock_rate_hz);
            target_us = target_us.max(self.lateness.quantile_us(LATE_PERCENT_FOR_FEC) + duration_us);
        }
        let least_us = if self.lateness.is_known() { MIN_TARGET_US } else { INITIAL_TARGET_US };
        let least_us = least_us.max(self.stragglers.wait_us());
        self.target_us = target_us.clamp(least_us, MAX_TARGET_US);
    }

    /// Averages the loss over some 128 packets.
    const fn note_loss(&mut self, is_lost: bool) {
        self.loss -= self.loss >> LOSS_SHIFT;
        if is_lost {
            self.loss += (1 << 16) >> LOSS_SHIFT;
        }
    }
}

#[cfg(test)]
mod tests;
