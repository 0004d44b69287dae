//! The loop of the net thread.
//!
//! It waits in one epoll set: its wake (packets of a mix thread, commands), the pulse, and the sockets that are read at once:
//! of telephones whose callers speak, and of all that still shake hands. All others are paced (`cadence`): read
//! just before the mixes' tick. A mix that works on this thread has its turn after the sockets.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use ringbuf::traits::{Consumer, Observer};
use ringbuf::{HeapCons, HeapProd};

use super::batch::{BUFFER_BYTES, Batch, CALL_DATAGRAMS, Present};
use super::cadence::{Cadence, Pace};
use super::leg::{Leg, LegKind, Legs};
use super::outlets::Outlets;
use super::peer_socket::Secured;
use super::pulse::Pulse;
use super::socket::Socket;
use super::telephone_cipher::Ciphers;
use crate::io::rings::{Made, push_or_drop};
use crate::io::wake::Wake;
use crate::media::control::{DtlsSource, LegKey, NetCommand, TelephoneRemote};
use crate::rtc::ice::CONSENT_BEAT;
use crate::time::Instant;
use crate::wire::stun::Filter;

/// Between two searches for legs whose RTCP report is due, and between two wakes of signalling for what can wait: ICE's
/// consent, where seconds count. Its own consent checks fall on the same beats.
const REPORT_SCAN_US: u64 = CONSENT_BEAT.as_micros() as u64;

/// Calls that read a paced socket in one look; the rest waits for the next. They take 12 800 datagrams a second: whoever sends
/// more than are read fills the kernel's queue, and what he crowds out there is the voice.
const CALLS_A_LOOK: usize = 64;

/// Commands carried out before sockets have their turn.
const COMMANDS_A_TURN: usize = 32;

/// Sockets reported by one wait; the rest follows with the next.
const EVENTS_A_TURN: usize = 64;

const WAKE_TOKEN: u64 = u64::MAX;
const PULSE_TOKEN: u64 = u64::MAX - 1;
/// Set in the token of a telephone's RTCP socket.
const RTCP_BIT: u64 = 1 << 32;

/// What signalling hands over: commands, with everything that costs an allocation already made.
#[derive(Debug)]
pub(super) enum Order {
    Add(Box<Leg>),
    Secure {
        leg: LegKey,
        secured: Box<Secured>,
    },
    Protect {
        leg: LegKey,
        ciphers: Ciphers,
    },
    /// Other sockets for a telephone.
    Move {
        leg: LegKey,
        sockets: Box<(Socket, Socket)>,
    },
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
    cadence: Cadence,
    batch: Batch,
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
            cadence: Cadence::default(),
            batch: Batch::new(),
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
                self.read_reported(event.data());
            }
            if !self.cadence.is_idle() && now >= self.next_look {
                let look = std::mem::replace(&mut self.next_look, self.cadence.next_look(now));
                self.read_paced(look, &mut buffer);
            }
            if let Some(mix) = self.out.local_mix_mut() {
                // What is left is work that `has_work` sees.
                mix.turn();
                self.send_packets(now);
            }
            if now >= self.next_report_scan {
                self.next_report_scan = Instant::from_us((now.as_us() / REPORT_SCAN_US + 1) * REPORT_SCAN_US);
                let out = &mut self.out;
                self.legs.iter_mut().for_each(|leg| leg.report_if_due(now, &mut buffer, out));
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
        let has_ticks = self.out.local_mix().is_some_and(|mix| mix.has_ticks());
        if has_ticks || !self.cadence.is_idle() { self.cadence.period_us() } else { 0 }
    }

    /// Until the earliest thing that the pulse does not wake for in time.
    fn timeout(&self) -> EpollTimeout {
        let turn = self.out.local_mix().and_then(|mix| mix.next_turn());
        let report = (!self.legs.is_empty()).then_some(self.next_report_scan);
        let look = (!self.cadence.is_idle()).then_some(self.next_look);
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
            match (legs.find(leg), slot.made()) {
                (Some(leg), Made::Packet(len, bytes)) => leg.send_rtp(now, bytes, len),
                (Some(leg), Made::Heard(heard)) => leg.hear(heard),
                (None, Made::Packet(..) | Made::Heard(_)) => *orphans += 1,
            }
        });
    }

    fn carry_out_orders(&mut self, now: Instant, buffer: &mut [u8]) {
        for _ in 0..COMMANDS_A_TURN {
            match self.orders.try_pop() {
                Some(Order::Add(leg)) => self.add(leg),
                Some(Order::Secure { leg, secured }) => self.secure(leg, secured),
                Some(Order::Protect { leg, ciphers }) => self.protect(now, leg, ciphers),
                Some(Order::Move { leg, sockets }) => self.move_telephone(leg, *sockets),
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
            NetCommand::SetPeerRelay { leg, server, channels } => {
                if let Some(LegKind::Peer(peer)) = self.legs.find(leg).map(|leg| &mut leg.kind) {
                    peer.set_relay(server, channels);
                }
            }
            // The handle makes `Order::Secure` and `Order::Protect` of them, so that deriving keys costs nothing here.
            NetCommand::SetPeerKeys { .. } | NetCommand::SetTelephoneProtection { .. } => {}
            NetCommand::SendTo { leg, to, bytes } => match self.legs.find(leg).map(|leg| &mut leg.kind) {
                Some(LegKind::Peer(peer)) => peer.send_to(to, &bytes),
                Some(LegKind::Telephone(telephone)) => telephone.send_to(to, &bytes),
                None => {}
            },
            NetCommand::ExpectTelephoneDtls { leg, source } => self.expect_dtls(leg, source),
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
            None => self.apply_pace(key),
        }
    }

    /// The former sockets are closed here: an address is not lost often enough for that to matter.
    fn move_telephone(&mut self, key: LegKey, sockets: (Socket, Socket)) {
        let Some(leg) = self.legs.find(key) else { return };
        let LegKind::Telephone(telephone) = &mut leg.kind else { return };
        drop(telephone.replace_sockets(sockets));
        let token = u64::from(key.0);
        // Should the kernel not have room for them in the set, the telephone is not heard, and its silence is noticed.
        if leg.pace == Pace::AtOnce {
            let _ = self.eager.add(leg.socket(), EpollEvent::new(EpollFlags::EPOLLIN, token));
        }
        if let Some(rtcp) = leg.rtcp_socket() {
            let _ = self.eager.add(rtcp, EpollEvent::new(EpollFlags::EPOLLIN, token | RTCP_BIT));
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
        self.apply_pace(key);
    }

    fn protect(&mut self, now: Instant, key: LegKey, ciphers: Ciphers) {
        if let Some(LegKind::Telephone(telephone)) = self.legs.find(key).map(|leg| &mut leg.kind) {
            telephone.protect(now, ciphers);
            self.apply_pace(key);
        }
    }

    fn expect_dtls(&mut self, key: LegKey, source: Option<DtlsSource>) {
        if let Some(LegKind::Telephone(telephone)) = self.legs.find(key).map(|leg| &mut leg.kind) {
            telephone.expect_dtls(source);
            self.apply_pace(key);
        }
    }

    fn set_telephone_talking(&mut self, key: LegKey, talking: bool) {
        let Some(leg) = self.legs.find(key) else { return };
        if leg.talks == talking || matches!(leg.kind, LegKind::Peer(_)) {
            return;
        }
        leg.talks = talking;
        self.count_talker(talking);
        self.apply_pace(key);
    }

    fn count_talker(&mut self, began: bool) {
        if self.cadence.count_talker(began) {
            for at in 0..self.legs.len() {
                self.apply_pace(self.legs.at(at).key);
            }
        }
    }

    /// A leg's RTP socket is to be reported, or paced, as it should by now.
    fn apply_pace(&mut self, key: LegKey) {
        let Some(leg) = self.legs.find(key) else { return };
        let pace = self.cadence.pace_of(leg);
        if pace == leg.pace {
            return;
        }
        let is_ahead = self.out.is_elsewhere(leg.mix());
        if pace == Pace::AtOnce {
            // Should the kernel not have room for it in the set, it stays paced.
            if self.eager.add(leg.socket(), EpollEvent::new(EpollFlags::EPOLLIN, u64::from(key.0))).is_err() {
                return;
            }
        } else if leg.pace == Pace::AtOnce {
            // Fails only for a socket that is not in the set, which is what is wanted.
            let _ = self.eager.delete(leg.socket());
        }
        self.cadence.remove(leg, is_ahead);
        leg.pace = pace;
        self.cadence.add(leg, is_ahead);
        self.next_look = self.next_look.min(self.cadence.next_look(self.out.clock.now()));
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
        if leg.pace == Pace::AtOnce {
            let _ = self.eager.delete(leg.socket());
        }
        self.cadence.remove(&leg, self.out.is_elsewhere(leg.mix()));
        if let Some(rtcp) = leg.rtcp_socket() {
            let _ = self.eager.delete(rtcp);
        }
        if leg.talks {
            self.count_talker(false);
        }
        self.retire(leg);
    }

    fn retire(&mut self, leg: Box<Leg>) {
        // The ring holds as many as the handle ever hands out; should it be full all the same, the leg ends here.
        push_or_drop(&mut self.retired, leg);
        self.out.signalling.wake();
    }

    /// The look that was due at `look`.
    fn read_paced(&mut self, look: Instant, buffer: &mut [u8]) {
        let present = Present::of(&self.out.clock);
        let (mut next, mut calls) = (0, 0);
        while next < self.legs.len() {
            self.batch.clear();
            (next, calls) = self.gather(next, calls, look);
            self.handle_batch(present);
        }
        if self.cadence.is_for_tick(look) {
            // Now, since what the answer misses is a whole look: it would be heard a tick later.
            let now = self.out.clock.now();
            for at in 0..self.legs.len() {
                if !is_ahead(&self.legs, &self.out, at) {
                    self.legs.at_mut(at).request_lost(now, buffer);
                }
            }
        }
    }

    /// Reads the paced legs from this one on, for which so many calls have been made already, until all have had their turn
    /// or the batch is full; returns the same for the next batch.
    fn gather(&mut self, first: usize, mut calls: usize, look: Instant) -> (usize, usize) {
        for at in first..self.legs.len() {
            if is_ahead(&self.legs, &self.out, at) {
                continue;
            }
            let leg = self.legs.at(at);
            let is_due = self.cadence.is_due(leg.pace, look);
            while is_due && calls < CALLS_A_LOOK {
                if self.batch.is_full() {
                    return (at, calls);
                }
                calls += 1;
                if self.batch.receive(at, leg.socket().as_fd()) < CALL_DATAGRAMS {
                    break;
                }
            }
            calls = 0;
        }
        (self.legs.len(), 0)
    }

    /// Everything in the batch, which came on the legs' RTP sockets.
    fn handle_batch(&mut self, present: Present) {
        for index in 0..self.batch.len() {
            let leg = self.legs.at_mut(self.batch.owner(index));
            let bound = leg.socket().bound();
            if let Some((datagram, bytes)) = self.batch.datagram(index, present, bound) {
                leg.handle_datagram(&datagram, bytes, &mut self.out);
            }
        }
    }

    /// A batch of what the epoll set has reported; it reports what is left.
    fn read_reported(&mut self, token: u64) {
        match token {
            WAKE_TOKEN => return self.wake.clear(),
            // What it wakes for is seen by the time.
            PULSE_TOKEN => return self.pulse.clear(),
            _ => {}
        }
        let Some(at) = self.legs.position_of(LegKey(token as u32)) else { return };
        self.batch.clear();
        let present = Present::of(&self.out.clock);
        if token & RTCP_BIT == 0 {
            self.batch.receive(at, self.legs.at(at).socket().as_fd());
            self.handle_batch(present);
        } else if let Some(socket) = self.legs.at(at).rtcp_socket() {
            let bound = socket.bound();
            for index in 0..self.batch.receive(at, socket.as_fd()) {
                if let Some((datagram, bytes)) = self.batch.datagram(index, present, bound) {
                    self.legs.at_mut(at).handle_rtcp(&datagram, bytes, &mut self.out);
                }
            }
        }
    }
}

/// A leg that brings a voice for which nothing need be read now. Its socket is none that is reported.
fn is_ahead(legs: &Legs, out: &Outlets, at: usize) -> bool {
    legs.voice_at(at).is_some_and(|(mix, stream)| out.is_ahead(mix, stream))
}

fn watch(epoll: &Epoll, leg: &Leg) -> nix::Result<()> {
    let token = u64::from(leg.key.0);
    epoll.add(leg.socket(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
    match leg.rtcp_socket() {
        Some(rtcp) => epoll.add(rtcp, EpollEvent::new(EpollFlags::EPOLLIN, token | RTCP_BIT)),
        None => Ok(()),
    }
}
