//! The loop of the net thread.
//!
//! It waits in one epoll set: its wake (packets of a mix thread, commands), the pulse, the sockets of telephones whose
//! callers speak and every peer connection that still shakes hands. Connected peers and silent telephones sit in a second
//! set that is looked at just before the mixes' tick (with many peers also half-way between two): being woken costs more
//! than all that is done with a packet.
//! Both sets report what is left, so a socket is read once each time it is reported: no call that finds nothing.
//! A mix that works on this thread has its turn after the sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use ringbuf::traits::{Consumer, Observer};
use ringbuf::{HeapCons, HeapProd};

use super::leg::{Leg, LegKind, Legs};
use super::outlets::Outlets;
use super::peer_socket::Secured;
use super::pulse::Pulse;
use crate::io::rings::push_or_drop;
use crate::io::wake::Wake;
use crate::media::control::{LegKey, NetCommand, TICK, TelephoneRemote};
use crate::time::Instant;
use crate::wire::stun::Filter;

/// Between two looks at the connected peers and the silent telephones: a tick. Nothing of the peers' is heard earlier, and
/// of a telephone only the first packet of what it says after a pause comes later by so much at most.
const CADENCE_US: u64 = TICK.as_micros() as u64;

/// How long before the tick of a mix on another thread the look begins: what 100 packets need to be decrypted, and epoll's
/// rounding to a millisecond.
const LOOK_AHEAD_US: u64 = 2_000;

/// With more peers than this, half of their packets are read half-way between two ticks.
const MANY_PEERS: usize = 128;

/// Between two searches for legs whose RTCP report is due.
const REPORT_SCAN: Duration = Duration::from_millis(100);

/// Datagrams read of each connected peer in one look; the rest waits for the next.
const ROUNDS_A_LOOK: usize = 16;

/// Commands carried out before sockets have their turn.
const COMMANDS_A_TURN: usize = 32;

/// Sockets reported by one wait; the rest follows with the next.
const EVENTS_A_TURN: usize = 64;

/// Larger than any datagram that is taken.
const BUFFER_BYTES: usize = 2048;

const WAKE_TOKEN: u64 = u64::MAX;
const PULSE_TOKEN: u64 = u64::MAX - 1;
/// Set in the token of a telephone's RTCP socket.
const RTCP_BIT: u64 = 1 << 32;

/// What signalling hands over: commands, with everything that costs an allocation already made.
#[derive(Debug)]
pub(super) enum Order {
    Add(Box<Leg>),
    Secure { leg: LegKey, secured: Box<Secured> },
    Command(NetCommand),
}

/// What the net thread works with.
pub(super) struct NetThread {
    pub(super) wake: Arc<Wake>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) orders: HeapCons<Order>,
    pub(super) retired: HeapProd<Box<Leg>>,
    pub(super) out: Outlets,
    legs: Legs,
    eager: Epoll,
    paced: Epoll,
    paced_legs: PacedLegs,
    pulse: Pulse,
    next_look: Instant,
    next_report_scan: Instant,
    /// Packets for legs that are gone.
    orphans: u64,
}

/// The ends of the rings, and who is to be woken.
pub(super) struct Wiring {
    pub(super) wake: Arc<Wake>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) orders: HeapCons<Order>,
    pub(super) retired: HeapProd<Box<Leg>>,
    pub(super) out: Outlets,
}

impl NetThread {
    pub(super) fn new(wiring: Wiring) -> std::io::Result<Self> {
        let eager = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let paced = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let pulse = Pulse::new()?;
        eager.add(&*wiring.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE_TOKEN))?;
        eager.add(&pulse, EpollEvent::new(EpollFlags::EPOLLIN, PULSE_TOKEN))?;
        let Wiring { wake, stop, orders, retired, out } = wiring;
        Ok(Self {
            wake,
            stop,
            orders,
            retired,
            out,
            legs: Legs::new(),
            eager,
            paced,
            paced_legs: PacedLegs::default(),
            pulse,
            next_look: Instant::ZERO,
            next_report_scan: Instant::ZERO,
            orphans: 0,
        })
    }

    /// Until told to stop; then every far end hears an RTCP BYE.
    pub(super) fn run(mut self) {
        let mut buffer = [0; BUFFER_BYTES];
        let mut events = [EpollEvent::empty(); EVENTS_A_TURN];
        while !self.stop.load(Ordering::Acquire) {
            let ready = self.wait(&mut events);
            let now = self.out.clock.now();
            self.pulse.set_period(now, self.pulse_period_us());
            self.send_packets(now);
            self.carry_out_orders(now, &mut buffer);
            for event in &events[..ready] {
                self.read(event.data(), &mut buffer);
            }
            if self.paced_legs.total() > 0 && now >= self.next_look {
                self.next_look = self.paced_legs.next_look(now);
                self.read_paced(&mut events, &mut buffer);
            }
            if let Some(mix) = self.out.local_mix_mut() {
                // What is left is work that `has_work` sees.
                mix.turn();
                self.send_packets(now);
            }
            if now >= self.next_report_scan {
                self.next_report_scan = now + REPORT_SCAN;
                self.legs.iter_mut().for_each(|leg| leg.report_if_due(now, &mut buffer));
                self.out.wake_signalling();
            }
        }
        let now = self.out.clock.now();
        self.legs.iter_mut().for_each(|leg| leg.say_bye(now, &mut buffer));
    }

    /// Sleeps unless there is work; returns how many sockets have something.
    fn wait(&self, events: &mut [EpollEvent]) -> usize {
        self.wake.arm();
        let timeout = if self.has_work() { EpollTimeout::ZERO } else { self.timeout() };
        let ready = self.eager.wait(events, timeout).unwrap_or(0);
        self.wake.disarm();
        ready
    }

    fn has_work(&self) -> bool {
        self.stop.load(Ordering::Acquire) || !self.orders.is_empty() || self.out.has_work()
    }

    fn pulse_period_us(&self) -> u64 {
        let has_tick = self.out.local_mix().is_some_and(|mix| mix.next_turn().is_some());
        match self.paced_legs.total() {
            0 if !has_tick => 0,
            0 => CADENCE_US,
            _ => self.paced_legs.cadence_us(),
        }
    }

    /// Until the earliest thing that the pulse does not wake for in time.
    fn timeout(&self) -> EpollTimeout {
        let turn = self.out.local_mix().and_then(|mix| mix.next_turn());
        let report = (!self.legs.is_empty()).then_some(self.next_report_scan);
        let look = (self.paced_legs.total() > 0).then_some(self.next_look);
        let now = self.out.clock.now();
        let next = match ([turn, report, look].into_iter().flatten().min(), self.pulse.next(now)) {
            (None, _) => return EpollTimeout::NONE,
            (Some(next), Some(pulse)) if pulse <= next => return EpollTimeout::NONE,
            (Some(next), _) => next,
        };
        let wait_us = next.as_us().saturating_sub(now.as_us());
        // Rounded up: waking before the time is a turn for nothing.
        EpollTimeout::from(u16::try_from(wait_us.div_ceil(1000)).unwrap_or(u16::MAX))
    }

    /// Everything that the mix threads made, encrypted inside the ring.
    fn send_packets(&mut self, now: Instant) {
        let (legs, orphans) = (&mut self.legs, &mut self.orphans);
        self.out.for_each_made(|slot| {
            let leg = slot.leg;
            let (len, bytes) = slot.parts();
            match legs.find(leg) {
                Some(leg) => leg.send_rtp(now, bytes, len),
                None => *orphans += 1,
            }
        });
    }

    fn carry_out_orders(&mut self, now: Instant, buffer: &mut [u8]) {
        for _ in 0..COMMANDS_A_TURN {
            match self.orders.try_pop() {
                Some(Order::Add(leg)) => self.add(leg),
                Some(Order::Secure { leg, secured }) => self.secure(leg, secured),
                Some(Order::Command(command)) => self.carry_out(command, now, buffer),
                None => break,
            }
        }
    }

    fn carry_out(&mut self, command: NetCommand, now: Instant, buffer: &mut [u8]) {
        match command {
            NetCommand::SetPeerStunFilter { leg, stun_filter } => self.set_stun_filter(leg, stun_filter),
            NetCommand::SetPeerRemote { leg, remote } => {
                if let Some(LegKind::Peer(peer)) = self.legs.find(leg).map(|leg| &mut leg.kind) {
                    peer.set_remote(remote, &mut self.out);
                }
            }
            // The handle makes `Order::Secure` of it, so that deriving keys costs nothing here.
            NetCommand::SetPeerKeys { .. } => {}
            NetCommand::SendTo { leg, to, bytes } => {
                if let Some(LegKind::Peer(peer)) = self.legs.find(leg).map(|leg| &mut leg.kind) {
                    peer.send_to(to, &bytes);
                }
            }
            NetCommand::UpdateTelephone { leg, remote } => self.update_telephone(leg, remote),
            NetCommand::SetTelephoneTalking { leg, talking } => self.set_telephone_talking(leg, talking),
            NetCommand::Remove(leg) => self.remove(leg, now, buffer),
        }
    }

    fn add(&mut self, leg: Box<Leg>) {
        let key = leg.key;
        let added = watch(&self.eager, &leg).is_ok();
        let refused = if added { self.legs.insert(leg).err() } else { Some(leg) };
        match refused {
            Some(leg) => self.retire(leg),
            None => self.set_telephone_talking(key, false),
        }
    }

    fn set_stun_filter(&mut self, leg: LegKey, stun_filter: Filter) {
        if let Some(LegKind::Peer(peer)) = self.legs.find(leg).map(|leg| &mut leg.kind) {
            peer.set_stun_filter(stun_filter);
        }
    }

    fn secure(&mut self, key: LegKey, secured: Box<Secured>) {
        let Some(leg) = self.legs.find(key) else { return };
        let LegKind::Peer(peer) = &mut leg.kind else { return };
        peer.secure(secured);
        self.set_eager(key, false);
    }

    fn set_telephone_talking(&mut self, key: LegKey, talking: bool) {
        if self.legs.find(key).is_some_and(|leg| matches!(leg.kind, LegKind::Telephone(_))) {
            self.set_eager(key, talking);
        }
    }

    /// Moves a leg's RTP socket from one set to the other.
    fn set_eager(&mut self, key: LegKey, eager: bool) {
        let Some(leg) = self.legs.find(key) else { return };
        if leg.eager == eager {
            return;
        }
        let (from, to) = if eager { (&self.paced, &self.eager) } else { (&self.eager, &self.paced) };
        // Should the kernel not have room for it in the other set, it stays where it is.
        if to.add(leg.socket(), EpollEvent::new(EpollFlags::EPOLLIN, u64::from(key.0))).is_err() {
            return;
        }
        let _ = from.delete(leg.socket());
        if eager {
            self.paced_legs.remove(leg, &self.out);
        } else {
            self.paced_legs.add(leg, &self.out);
        }
        leg.eager = eager;
        self.next_look = self.next_look.min(self.paced_legs.next_look(self.out.clock.now()));
    }

    fn update_telephone(&mut self, leg: LegKey, remote: TelephoneRemote) {
        if let Some(LegKind::Telephone(telephone)) = self.legs.find(leg).map(|leg| &mut leg.kind) {
            telephone.update(remote);
        }
    }

    fn remove(&mut self, key: LegKey, now: Instant, buffer: &mut [u8]) {
        let Some(mut leg) = self.legs.remove(key) else { return };
        leg.say_bye(now, buffer);
        // A closed socket leaves its epoll set by itself, but this one is closed by another thread, later.
        // Fails only for a socket that is not in the set, which is what is wanted.
        if leg.eager {
            let _ = self.eager.delete(leg.socket());
        } else {
            self.paced_legs.remove(&leg, &self.out);
            let _ = self.paced.delete(leg.socket());
        }
        if let Some(rtcp) = leg.rtcp_socket() {
            let _ = self.eager.delete(rtcp);
        }
        self.retire(leg);
    }

    fn retire(&mut self, leg: Box<Leg>) {
        // The ring holds as many as the handle ever hands out; should it be full all the same, the leg ends here.
        push_or_drop(&mut self.retired, leg);
        self.out.signalling.wake();
    }

    fn read_paced(&mut self, events: &mut [EpollEvent], buffer: &mut [u8]) {
        // The set reports its sockets in turn, so each round takes one datagram of each.
        for _ in 0..ROUNDS_A_LOOK * self.paced_legs.total().div_ceil(EVENTS_A_TURN) {
            let ready = self.paced.wait(events, EpollTimeout::ZERO).unwrap_or(0);
            for event in &events[..ready] {
                self.read(event.data(), buffer);
            }
            if ready == 0 {
                break;
            }
        }
        // Now, since what the answer misses is a whole look: it would be heard a tick later.
        let now = self.out.clock.now();
        self.legs.iter_mut().for_each(|leg| leg.request_lost(now, buffer));
    }

    /// One datagram.
    fn read(&mut self, token: u64, buffer: &mut [u8]) {
        match token {
            WAKE_TOKEN => return self.wake.clear(),
            // What it wakes for is seen by the time.
            PULSE_TOKEN => return self.pulse.clear(),
            _ => {}
        }
        let Some(leg) = self.legs.find(LegKey(token as u32)) else { return };
        let (clock, out) = (self.out.clock, &mut self.out);
        match &mut leg.kind {
            LegKind::Peer(peer) => {
                if let Some(datagram) = peer.socket_mut().receive(&clock, buffer) {
                    peer.handle_datagram(&datagram, &mut buffer[..datagram.len], out);
                }
            }
            LegKind::Telephone(telephone) if token & RTCP_BIT != 0 => {
                if let Some(datagram) = telephone.rtcp_socket_mut().and_then(|socket| socket.receive(&clock, buffer)) {
                    telephone.handle_rtcp(&datagram, &buffer[..datagram.len], out);
                }
            }
            LegKind::Telephone(telephone) => {
                if let Some(datagram) = telephone.rtp_socket_mut().receive(&clock, buffer) {
                    telephone.handle_datagram(&datagram, &buffer[..datagram.len], out);
                }
            }
        }
    }
}

/// The legs of the second set, by what decides when they are looked at.
#[derive(Clone, Copy, Debug, Default)]
struct PacedLegs {
    peers: usize,
    telephones: usize,
    /// Of both, the ones whose mix is on another thread.
    ahead: usize,
}

impl PacedLegs {
    const fn total(self) -> usize {
        self.peers + self.telephones
    }

    fn add(&mut self, leg: &Leg, out: &Outlets) {
        *self.of_kind(leg) += 1;
        self.ahead += usize::from(out.is_elsewhere(leg.mix()));
    }

    fn remove(&mut self, leg: &Leg, out: &Outlets) {
        *self.of_kind(leg) -= 1;
        self.ahead -= usize::from(out.is_elsewhere(leg.mix()));
    }

    const fn of_kind(&mut self, leg: &Leg) -> &mut usize {
        match leg.kind {
            LegKind::Peer(_) => &mut self.peers,
            LegKind::Telephone(_) => &mut self.telephones,
        }
    }

    const fn cadence_us(self) -> u64 {
        if self.peers > MANY_PEERS { CADENCE_US / 2 } else { CADENCE_US }
    }

    /// The first look after `now`: at a tick (or half-way to it), or ahead of it.
    fn next_look(self, now: Instant) -> Instant {
        let ahead_us = if self.ahead > 0 { LOOK_AHEAD_US } else { 0 };
        let since_phase = (now.as_us() + ahead_us) % self.cadence_us();
        now + Duration::from_micros(self.cadence_us() - since_phase)
    }
}

fn watch(epoll: &Epoll, leg: &Leg) -> nix::Result<()> {
    let token = u64::from(leg.key.0);
    epoll.add(leg.socket(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
    match leg.rtcp_socket() {
        Some(rtcp) => epoll.add(rtcp, EpollEvent::new(EpollFlags::EPOLLIN, token | RTCP_BIT)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(paced: PacedLegs) -> [u64; 5] {
        [0, 7_999, 8_000, 12_345, 18_000].map(|us| paced.next_look(Instant::from_us(us)).as_us())
    }

    #[test]
    fn peers_are_looked_at_by_each_tick_two_ms_earlier_for_other_threads() {
        assert_eq!(looks(PacedLegs { peers: 1, telephones: 0, ahead: 0 }), [20_000; 5]);
        let ahead = PacedLegs { peers: 1, telephones: 0, ahead: 1 };
        assert_eq!(looks(ahead), [18_000, 18_000, 18_000, 18_000, 38_000]);
    }

    #[test]
    fn many_peers_are_looked_at_twice_as_often() {
        let twice = [8_000, 8_000, 18_000, 18_000, 28_000];
        assert_eq!(looks(PacedLegs { peers: 200, telephones: 0, ahead: 1 }), twice);
        assert_eq!(looks(PacedLegs { peers: 1, telephones: 100, ahead: 0 }), [20_000; 5]);
    }
}
