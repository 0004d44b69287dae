//! One peer connection and its socket in the net thread: what ICE and DTLS say goes there as commands.

use std::net::SocketAddr;

use super::desk::{Desk, LegOwner};
use super::event::Sockets;
use super::ice_servers::StreamServer;
use super::refusal::CallFailure;
use crate::galene::message::Candidate;
use crate::media::control::{LegKey, NetCommand, PeerRole, PeerSetup, RoomCodec, RoomKey};
use crate::rtc::dtls::DtlsError;
use crate::rtc::gathering::Server;
use crate::rtc::peer::{Event, Failure, Input, Output, Peer, PeerConfig};
use crate::time::Instant;

/// What the owner of a peer connection must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerNews {
    /// DTLS is done; SRTP flows.
    Connected,
    /// Galene is to be told of another candidate of ours.
    Candidate(Candidate),
    /// Media may not get through: Galene and we should begin ICE anew.
    Doubtful,
    /// ICE or DTLS gave up.
    Failed(Failure),
}

/// A peer connection with its socket.
pub(super) struct PeerLeg {
    pub(super) leg: LegKey,
    pub(super) peer: Peer,
    /// Set by the description that decided the codec; DTLS ends only after it.
    pub(super) codec: Option<RoomCodec>,
    /// Relays that are reached by streams, and their stand-ins.
    streams: Vec<(SocketAddr, StreamServer)>,
}

impl PeerLeg {
    /// Opens a socket and a peer connection that is not known to the net thread yet.
    pub(super) fn open<S: Sockets>(now: Instant, desk: &mut Desk<S>, owner: LegOwner) -> Result<Self, CallFailure> {
        let leg = desk.new_leg(owner);
        let mut candidates = match desk.sockets.open_peer(now, leg) {
            Ok(candidates) => candidates,
            Err(error) => {
                desk.close_leg(leg);
                return Err(error.into());
            }
        };
        if desk.ice_servers.relay_only() {
            candidates.clear();
        }
        let ice_lite = desk.config.ice_lite;
        let gather_after = desk.ice_servers.gather_after(&candidates).filter(|_| !ice_lite);
        let config = PeerConfig { identity: desk.identity.clone(), candidates, ice_lite, gather_after };
        let peer = Peer::new(config, desk.random.fork());
        Ok(Self { leg, peer, codec: None, streams: Vec::new() })
    }

    /// Hands the socket to the net thread.
    pub(super) fn add_to_net<S: Sockets>(&self, desk: &mut Desk<S>, room: RoomKey, role: PeerRole) {
        let cname = self.peer.voice().cname.clone();
        let setup = PeerSetup { leg: self.leg, room, role, cname, stun_filter: self.peer.stun_filter() };
        desk.outputs.push_back(super::event::Output::AddPeer(setup));
    }

    /// Our ICE credentials changed: the net thread's filter must know.
    pub(super) fn renew_credentials<S: Sockets>(&self, desk: &mut Desk<S>) {
        desk.net(NetCommand::SetPeerStunFilter { leg: self.leg, stun_filter: self.peer.stun_filter() });
    }

    pub(super) fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        if let Input::Disconnected { server } = input {
            self.streams.retain(|(stand_in, _)| *stand_in != server);
        }
        self.peer.handle_input(now, input);
    }

    /// Closes the socket; relays are given back before.
    pub(super) fn close<S: Sockets>(mut self, now: Instant, desk: &mut Desk<S>) {
        self.peer.release(now);
        while let Some(output) = self.peer.poll_output() {
            if let Output::Transmit { to, bytes } = output {
                desk.net(NetCommand::SendTo { leg: self.leg, to, bytes });
            }
        }
        desk.close_leg(self.leg);
    }

    /// Carries out what the peer connection wants until it has news.
    pub(super) fn poll<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) -> Option<PeerNews> {
        let leg = self.leg;
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Transmit { to, bytes } => desk.net(NetCommand::SendTo { leg, to, bytes }),
                Output::Event(Event::Selected { remote }) => {
                    tracing::debug!("socket {}: the way to Galene is {remote}", leg.0);
                    if self.peer.asks_servers() {
                        desk.ice_servers.note_need();
                    }
                    desk.net(NetCommand::SetPeerRemote { leg, remote });
                }
                Output::Event(Event::WantsServers) => {
                    self.add_servers(now, desk);
                    if !desk.ice_servers.over_udp().any(|server| server.credentials.is_some()) {
                        self.add_streams(now, desk);
                    }
                }
                Output::Event(Event::WantsStreams) => self.add_streams(now, desk),
                Output::Event(Event::WantsAlternate { instead_of, alternate, domain }) => {
                    self.add_alternate(now, desk, instead_of, (alternate, domain));
                }
                Output::Event(Event::Relay { server, channels }) => {
                    desk.net(NetCommand::SetPeerRelay { leg, server, channels });
                }
                Output::Event(Event::Candidate { line, mid, line_index }) => {
                    let candidate = format!("candidate:{line}");
                    let candidate = Candidate { candidate, sdp_mid: mid, sdp_m_line_index: Some(line_index) };
                    return Some(PeerNews::Candidate(candidate));
                }
                Output::Event(Event::Connected { keys }) => {
                    let clock_rate_hz = self.codec.unwrap_or(RoomCodec::Opus).clock_rate_hz();
                    desk.net(NetCommand::SetPeerKeys { leg, keys, clock_rate_hz });
                    return Some(PeerNews::Connected);
                }
                Output::Event(Event::WantsRestart) => {
                    tracing::debug!("socket {}: the way to Galene is in doubt", leg.0);
                    return Some(PeerNews::Doubtful);
                }
                // The words about a stream that Galene has ended come by another way, and perhaps later. If none come,
                // consent runs out, and that is a failure.
                Output::Event(Event::Failed(Failure::Dtls(DtlsError::Closed))) => {
                    tracing::debug!("Galene closed the media path of socket {}", leg.0);
                }
                Output::Event(Event::Failed(failure)) => return Some(PeerNews::Failed(failure)),
            }
        }
        None
    }

    /// Asks the servers whose addresses are known, if there is no way without them.
    pub(super) fn add_servers<S: Sockets>(&mut self, now: Instant, desk: &Desk<S>) {
        if self.peer.asks_servers() && !self.peer.has_path() {
            desk.ice_servers.over_udp().for_each(|server| self.peer.add_server(now, server));
        }
    }

    fn add_streams<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>) {
        for stream in desk.ice_servers.over_streams().collect::<Vec<_>>() {
            self.add_stream(now, desk, stream, false);
        }
    }

    /// One of them names another (RFC 8489 §10), of the same version of IP and over the same transport.
    fn add_alternate<S: Sockets>(
        &mut self,
        now: Instant,
        desk: &mut Desk<S>,
        instead_of: SocketAddr,
        (address, domain): (SocketAddr, Option<String>),
    ) {
        let is_of = |(stand_in, _): &&(SocketAddr, StreamServer)| *stand_in == instead_of;
        let Some((_, former)) = self.streams.iter().find(is_of) else { return };
        let StreamServer { address: from, tls_name, credentials } = former.clone();
        if from.is_ipv4() == address.is_ipv4() && from != address {
            let tls_name = tls_name.map(|name| domain.unwrap_or(name));
            self.add_stream(now, desk, StreamServer { address, tls_name, credentials }, true);
        }
    }

    fn add_stream<S: Sockets>(&mut self, now: Instant, desk: &mut Desk<S>, stream: StreamServer, is_alternate: bool) {
        match desk.sockets.open_turn_stream(self.leg, stream.address, stream.tls_name.as_deref()) {
            Ok(address) => {
                let credentials = Some(stream.credentials.clone());
                self.streams.push((address, stream));
                self.peer.add_server(now, Server { address, credentials, is_reliable: true, is_alternate });
            }
            Err(error) => tracing::warn!("{}", CallFailure::from(error).explain()),
        }
    }
}
