//! The net thread's handle for the signalling thread.
//!
//! Owns: building legs (sockets, ciphers, RTCP sessions) before they are handed over, and freeing them when they come back;
//! orders there, events back. Does not own: what the thread does with them (`thread`), which ports to bind (`gateway`).
//!
//! Invariant: every leg handed over comes back exactly once, as [`NetEvent::Removed`]; its sockets are closed by then.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ringbuf::traits::{Consumer, Observer, Producer};
use ringbuf::{HeapCons, HeapProd};

use super::clock::Clock;
use super::memory::{give_back_memory, use_huge_pages};
use super::mix::Workplace;
use super::priority::{NET_PRIORITY, request_real_time};
use super::rings::{COMMAND_SLOTS, EVENT_SLOTS, ring};
use super::wake::{Wake, Waker};
use crate::media::control::{LegKey, MixIndex, NetCommand, NetEvent, PeerRole, PeerSetup, TelephoneSetup};
use crate::media::rtcp_session::{RtcpConfig, RtcpSession};
use dtls_gate::DtlsGate;
use dtls_pending::DtlsPending;
use leg::{Leg, LegKind, MAX_LEGS};
use outlets::Outlets;
use peer_socket::{PeerSocket, Secured};
use socket::Socket;
use telephone_cipher::{Ciphers, TelephoneCipher};
use telephone_socket::TelephoneSocket;
use thread::{NetThread, Order, Wiring};

mod batch;
mod cadence;
mod dtls_gate;
mod dtls_pending;
mod leg;
mod outlets;
mod peer_socket;
mod pulse;
mod rate;
mod relay;
mod silence;
mod socket;
mod telephone_cipher;
mod telephone_socket;
mod thread;

/// What is still needed of a peer connection's set-up when its keys come.
struct PeerInfo {
    ssrc: u32,
    cname: String,
}

/// Signalling's end of the net thread. Dropping it stops the thread.
pub struct NetHandle {
    clock: Clock,
    orders: HeapProd<Order>,
    /// Orders that found the ring full, in order.
    backlog: VecDeque<Order>,
    events: HeapCons<NetEvent>,
    retired: HeapCons<Box<Leg>>,
    peers: BTreeMap<LegKey, PeerInfo>,
    /// DTLS datagrams between each socket and [`NetHandle::poll_event`].
    dtls_pending: BTreeMap<LegKey, DtlsPending>,
    legs: usize,
    /// The last leg has gone, and what the legs needed has not been given back yet.
    was_last: bool,
    wake: Arc<Wake>,
    signalling: Waker,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NetHandle {
    /// Starts the thread. `net_wake` is what the mix threads wake it with.
    pub(super) fn start(clock: Clock, net_wake: Arc<Wake>, mixes: Vec<Workplace>) -> io::Result<Self> {
        let (orders, thread_orders) = ring(COMMAND_SLOTS);
        let (thread_events, events) = ring(EVENT_SLOTS);
        let (thread_retired, retired) = ring(MAX_LEGS);
        let signalling = Waker::new()?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = NetThread::new(Wiring {
            wake: Arc::clone(&net_wake),
            stop: Arc::clone(&stop),
            orders: thread_orders,
            retired: thread_retired,
            out: Outlets { clock, mixes, events: thread_events, signalling: signalling.wake(), owes_wake: false },
        })?;
        let thread = std::thread::Builder::new().name("net".into()).spawn(move || {
            if !request_real_time(NET_PRIORITY) {
                tracing::warn!(
                    "no real-time priority for the sound threads: under load, sound may stutter \
                     (grant CAP_SYS_NICE or an rtprio limit of 11)"
                );
            }
            thread.run();
        })?;
        Ok(Self {
            clock,
            orders,
            backlog: VecDeque::new(),
            events,
            retired,
            peers: BTreeMap::new(),
            dtls_pending: BTreeMap::new(),
            legs: 0,
            was_last: false,
            wake: net_wake,
            signalling,
            stop,
            thread: Some(thread),
        })
    }

    /// Hands over the bound socket of a peer connection; `mix` is where its room lives.
    ///
    /// # Errors
    /// The socket cannot be used, or the net thread has as many as it takes.
    pub fn add_peer(&mut self, setup: PeerSetup, mix: MixIndex, socket: UdpSocket) -> io::Result<()> {
        let ssrc = match setup.role {
            PeerRole::Up { ssrc, .. } | PeerRole::Down { ssrc, .. } => ssrc,
        };
        let key = setup.leg;
        let (info, pending) = (PeerInfo { ssrc, cname: setup.cname.clone() }, DtlsPending::default());
        let peer = PeerSocket::new(setup, mix, Socket::new(socket)?, pending.clone());
        self.add(key, LegKind::Peer(peer), pending)?;
        self.peers.insert(key, info);
        Ok(())
    }

    /// Hands over the bound sockets of a telephone; without an RTCP socket, RTCP shares RTP's.
    ///
    /// # Errors
    /// A socket cannot be used, or the net thread has as many as it takes.
    pub fn add_telephone(
        &mut self,
        setup: &TelephoneSetup,
        mix: MixIndex,
        rtp: UdpSocket,
        rtcp: Option<UdpSocket>,
    ) -> io::Result<()> {
        let session = self.rtcp_session(setup.ssrc, setup.cname.clone(), setup.remote.clock_rate_hz);
        let rtcp = rtcp.map(Socket::new).transpose()?;
        let cipher = TelephoneCipher::new(Ciphers::new(&setup.protection));
        let pending = DtlsPending::default();
        let dtls = DtlsGate::new(pending.clone());
        let telephone = TelephoneSocket::new(setup, mix, (Socket::new(rtp)?, rtcp), session, (cipher, dtls));
        self.add(setup.leg, LegKind::Telephone(telephone), pending)
    }

    /// Hands over another pair for a telephone, whose own is closed then.
    ///
    /// # Errors
    /// A socket cannot be used.
    pub(super) fn move_telephone(&mut self, leg: LegKey, rtp: UdpSocket, rtcp: UdpSocket) -> io::Result<()> {
        let sockets = Box::new((Socket::new(rtp)?, Socket::new(rtcp)?));
        self.order(Order::Move { leg, sockets });
        Ok(())
    }

    fn add(&mut self, key: LegKey, kind: LegKind, pending: DtlsPending) -> io::Result<()> {
        if self.legs >= MAX_LEGS {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many media sockets"));
        }
        use_huge_pages();
        self.legs += 1;
        self.dtls_pending.insert(key, pending);
        self.order(Order::Add(Box::new(Leg::new(key, kind))));
        Ok(())
    }

    /// Asks for something. What names a leg that is gone has no effect.
    pub fn send(&mut self, command: NetCommand) {
        let order = match command {
            NetCommand::SetPeerKeys { leg, keys, clock_rate_hz } => {
                let Some(info) = self.peers.get(&leg) else { return };
                let session = self.rtcp_session(info.ssrc, info.cname.clone(), clock_rate_hz);
                match Secured::new(&keys, session) {
                    Ok(secured) => Order::Secure { leg, secured: Box::new(secured) },
                    // Keys of a wrong length cannot come out of DTLS; without keys the leg stays mute, counted unready.
                    Err(_) => return,
                }
            }
            NetCommand::SetTelephoneProtection { leg, protection } => {
                Order::Protect { leg, ciphers: Ciphers::new(&protection) }
            }
            other => Order::Command(other),
        };
        self.order(order);
    }

    fn rtcp_session(&self, ssrc: u32, cname: String, clock_rate_hz: u32) -> RtcpSession {
        let config = RtcpConfig {
            ssrc,
            cname,
            send_clock_rate_hz: clock_rate_hz,
            receive_clock_rate_hz: clock_rate_hz,
            anchor: self.clock.anchor(),
        };
        RtcpSession::new(config, self.clock.now())
    }

    fn order(&mut self, order: Order) {
        self.backlog.push_back(order);
        self.flush();
    }

    fn flush(&mut self) {
        while !self.backlog.is_empty() && !self.orders.is_full() {
            if let Some(order) = self.backlog.pop_front() {
                // Not full: this thread alone fills it.
                let _ = self.orders.try_push(order);
            }
        }
        self.wake.wake();
    }

    /// What has happened, oldest first within its kind.
    pub fn poll_event(&mut self) -> Option<NetEvent> {
        if !self.backlog.is_empty() {
            self.flush();
        }
        if let Some(event) = self.events.try_pop() {
            if let NetEvent::Dtls { leg, .. } = &event
                && let Some(pending) = self.dtls_pending.get(leg)
            {
                pending.taken();
            }
            return Some(event);
        }
        let Some(leg) = self.retired.try_pop() else {
            if std::mem::take(&mut self.was_last) {
                give_back_memory();
            }
            return None;
        };
        self.legs -= 1;
        self.was_last = self.legs == 0;
        self.peers.remove(&leg.key);
        self.dtls_pending.remove(&leg.key);
        Some(NetEvent::Removed { leg: leg.key, stats: leg.stats() })
    }

    /// Returns when [`Self::poll_event`] may have something.
    pub async fn readable(&self) -> io::Result<()> {
        self.signalling.sleep_unless(|| !self.events.is_empty() || !self.retired.is_empty()).await
    }

    /// Says RTCP BYE to everyone, ends the thread and closes all sockets.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by the panic hook; here remains nothing to do.
            let _ = thread.join();
        }
    }
}

impl Drop for NetHandle {
    fn drop(&mut self) {
        self.join();
    }
}
