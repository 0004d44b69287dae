//! Media sockets: bound here on the signalling thread, then handed to the net thread.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::rc::Rc;

use rustls::pki_types::ServerName;
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender, unbounded};
use socket2::{Domain, Protocol, Socket, Type};

use super::addresses::local_addresses;
use super::fault;
use super::net::NetHandle;
use super::ports::PortPool;
use super::sip::source_address;
use super::tls::Tls;
use super::turn_stream::TurnStream;
use crate::gateway::event::{SocketError, Sockets};
use crate::media::control::{LegKey, MixIndex, NetCommand, PeerSetup, TelephoneSetup};
use crate::time::Instant;

/// How many free ones the system is asked for before an even one with a free odd neighbour is given up.
const PAIR_ATTEMPTS: usize = 64;

/// Bytes the kernel may queue for one socket: 200 packets, more than any burst that still makes sense.
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

/// Bound, but not yet known to the net thread.
enum Pending {
    Peer(UdpSocket),
    Telephone(UdpSocket, UdpSocket),
}

/// Opens media sockets from the ranges of `-ice-ports` and `-rtp-ports`.
pub(super) struct MediaSockets {
    /// The net thread.
    pub(super) net: NetHandle,
    ice_ports: Option<PortPool>,
    rtp_ports: Option<PortPool>,
    /// Galene is on this machine, so loopback candidates make sense.
    loopback: bool,
    pending: BTreeMap<LegKey, Pending>,
    /// The ports of sockets towards Galene.
    peer_ports: BTreeMap<LegKey, u16>,
    /// To TURN servers, for these sockets.
    turn_streams: BTreeMap<LegKey, Vec<TurnStream>>,
    /// Which of these have ended, for the loop.
    stream_ends: (Sender<StreamEnd>, Receiver<StreamEnd>),
    executor: Rc<LocalExecutor<'static>>,
    tls: Tls,
    /// Ports taken from a pool.
    pooled: BTreeMap<LegKey, (Pool, u16)>,
}

/// A TURN stream has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamEnd {
    /// For whose socket it was.
    pub(super) leg: LegKey,
    /// What stood for the server.
    pub(super) stand_in: SocketAddr,
}

#[derive(Clone, Copy)]
enum Pool {
    Ice,
    Rtp,
}

impl MediaSockets {
    /// No socket is open yet.
    pub(super) fn new(
        net: NetHandle,
        ice_ports: Option<&RangeInclusive<u16>>,
        rtp_ports: Option<&RangeInclusive<u16>>,
        loopback: bool,
        executor: Rc<LocalExecutor<'static>>,
        tls: Tls,
    ) -> Self {
        Self {
            net,
            ice_ports: ice_ports.map(|range| PortPool::new(range, 1)),
            rtp_ports: rtp_ports.map(|range| PortPool::new(range, 2)),
            loopback,
            pending: BTreeMap::new(),
            peer_ports: BTreeMap::new(),
            turn_streams: BTreeMap::new(),
            stream_ends: unbounded(),
            executor,
            tls,
            pooled: BTreeMap::new(),
        }
    }

    /// The TURN streams that have ended of themselves, as they do.
    pub(super) fn stream_ends(&self) -> Receiver<StreamEnd> {
        self.stream_ends.1.clone()
    }

    /// Closes the stand-in of a stream that has ended.
    pub(super) fn forget_stream(&mut self, end: StreamEnd) {
        if let Some(streams) = self.turn_streams.get_mut(&end.leg) {
            streams.retain(|stream| stream.address() != end.stand_in);
        }
    }

    /// Hands an opened peer socket to the net thread; `mix` has its room.
    pub(super) fn add_peer(&mut self, setup: PeerSetup, mix: MixIndex) {
        let Some(Pending::Peer(socket)) = self.pending.remove(&setup.leg) else { return };
        if let Err(error) = self.net.add_peer(setup, mix, socket) {
            tracing::error!("a socket towards Galene cannot be used: {error}");
        }
    }

    /// Hands an opened telephone pair to the net thread; `mix` has its room.
    pub(super) fn add_telephone(&mut self, setup: TelephoneSetup, mix: MixIndex) {
        let Some(Pending::Telephone(rtp, rtcp)) = self.pending.remove(&setup.leg) else { return };
        if let Err(error) = self.net.add_telephone(&setup, mix, rtp, Some(rtcp)) {
            tracing::error!("a telephone's sockets cannot be used: {error}");
        }
    }

    /// Closes the sockets of `leg`, wherever they are by now.
    pub(super) fn remove(&mut self, now: Instant, leg: LegKey) {
        self.peer_ports.remove(&leg);
        if self.pending.remove(&leg).is_some() {
            self.on_removed(now, leg);
        } else {
            self.net.send(NetCommand::Remove(leg));
        }
    }

    /// The net thread has closed the sockets of `leg`: its port may rest.
    pub(super) fn on_removed(&mut self, now: Instant, leg: LegKey) {
        // Only now: the net thread's last words to the servers have passed.
        self.turn_streams.remove(&leg);
        let pool = match self.pooled.remove(&leg) {
            Some((Pool::Ice, port)) => self.ice_ports.as_mut().zip(Some(port)),
            Some((Pool::Rtp, port)) => self.rtp_ports.as_mut().zip(Some(port)),
            None => None,
        };
        if let Some((pool, port)) = pool {
            pool.release(now, port);
        }
    }
}

impl Sockets for MediaSockets {
    fn open_peer(&mut self, now: Instant, leg: LegKey) -> Result<Vec<SocketAddr>, SocketError> {
        // First, since a port that is taken is given back by who has got it alone.
        let addresses = local_addresses(self.loopback).map_err(system)?;
        let socket = match &mut self.ice_ports {
            None => bind_both_families(0).map_err(system)?,
            Some(pool) => {
                let (port, socket) = from_pool(now, pool, "-ice-ports", bind_both_families)?;
                self.pooled.insert(leg, (Pool::Ice, port));
                socket
            }
        };
        let bound = socket.local_addr().map_err(system)?;
        let addresses = addresses.into_iter().filter(|ip| ip.is_ipv4() || bound.is_ipv6());
        let candidates = addresses.map(|ip| SocketAddr::new(ip, bound.port())).collect();
        self.peer_ports.insert(leg, bound.port());
        self.pending.insert(leg, Pending::Peer(socket));
        Ok(candidates)
    }

    fn open_turn_stream(
        &mut self,
        leg: LegKey,
        server: SocketAddr,
        tls_name: Option<&str>,
    ) -> Result<SocketAddr, SocketError> {
        let port = self.peer_ports.get(&leg).copied().ok_or_else(|| SocketError::System("closed".into()))?;
        let name = tls_name.map(|name| ServerName::try_from(name.to_owned())).transpose();
        let name = name.map_err(|error| SocketError::System(error.to_string()))?;
        let tls = name.map(|name| (name, self.tls.clone()));
        let ends = self.stream_ends.0.clone();
        let ended = move |stand_in: SocketAddr, why: String| {
            tracing::warn!("TURN server {server} by TCP: {why}");
            // The loop may be over; then nobody needs to know.
            let _ = ends.try_send(StreamEnd { leg, stand_in });
        };
        let stream = TurnStream::open(&self.executor, server, tls, port, ended).map_err(system)?;
        let address = stream.address();
        self.turn_streams.entry(leg).or_default().push(stream);
        Ok(address)
    }

    fn move_telephone(&mut self, leg: LegKey, port: u16, remote: IpAddr) -> Result<SocketAddr, SocketError> {
        let ip = source_address(SocketAddr::new(remote, port)).map_err(system)?;
        let is_pooled = self.pooled.contains_key(&leg);
        let pair = bind_pair(ip, port).or_else(|error| if is_pooled { Err(error) } else { bind_free_pair(ip) });
        let (rtp, rtcp) = pair.map_err(system)?;
        let local = rtp.local_addr().map_err(system)?;
        self.net.move_telephone(leg, rtp, rtcp).map_err(system)?;
        Ok(local)
    }

    fn open_telephone(&mut self, now: Instant, leg: LegKey, ip: IpAddr) -> Result<SocketAddr, SocketError> {
        let (rtp, rtcp) = match &mut self.rtp_ports {
            None => bind_free_pair(ip).map_err(system)?,
            Some(pool) => {
                let (port, pair) = from_pool(now, pool, "-rtp-ports", |port| bind_pair(ip, port))?;
                self.pooled.insert(leg, (Pool::Rtp, port));
                pair
            }
        };
        let local = rtp.local_addr().map_err(system)?;
        self.pending.insert(leg, Pending::Telephone(rtp, rtcp));
        Ok(local)
    }
}

fn system(error: io::Error) -> SocketError {
    SocketError::System(fault::of_socket(&error))
}

/// Tries the pool's ports until one can be bound; ports that somebody else holds rest like released ones.
fn from_pool<T>(
    now: Instant,
    pool: &mut PortPool,
    flag: &'static str,
    bind: impl Fn(u16) -> io::Result<T>,
) -> Result<(u16, T), SocketError> {
    while let Some(port) = pool.take(now) {
        match bind(port) {
            Ok(socket) => return Ok((port, socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => pool.release(now, port),
            Err(error) => {
                pool.release(now, port);
                return Err(system(error));
            }
        }
    }
    Err(SocketError::NoPort(flag))
}

fn bind(address: SocketAddr, only_v6: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// One socket for IPv4 and IPv6, or for IPv4 alone on a machine without IPv6.
fn bind_both_families(port: u16) -> io::Result<UdpSocket> {
    bind((Ipv6Addr::UNSPECIFIED, port).into(), false).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, port).into(), false))
}

fn bind_pair(ip: IpAddr, port: u16) -> io::Result<(UdpSocket, UdpSocket)> {
    Ok((bind((ip, port).into(), true)?, bind((ip, port + 1).into(), true)?))
}

/// An even port for RTP and the next for RTCP (RFC 3550 §11), wherever the system has them.
fn bind_free_pair(ip: IpAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    for _ in 0..PAIR_ATTEMPTS {
        let first = bind((ip, 0).into(), true)?;
        let port = first.local_addr()?.port();
        if port % 2 == 1 {
            continue;
        }
        let Some(next) = port.checked_add(1) else { continue };
        match bind((ip, next).into(), true) {
            Ok(second) => return Ok((first, second)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no even UDP port with a free neighbour"))
}
