//! One peer connection and its socket in the net thread: what ICE and DTLS say goes there as commands.

use super::desk::{Desk, LegOwner};
use super::event::Sockets;
use super::refusal::CallFailure;
use crate::media::control::{LegKey, NetCommand, PeerRole, PeerSetup, RoomCodec, RoomKey};
use crate::rtc::dtls::DtlsError;
use crate::rtc::peer::{Event, Failure, Input, Output, Peer, PeerConfig};
use crate::time::Instant;

/// What the owner of a peer connection must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerNews {
    /// DTLS is done; SRTP flows.
    Connected,
    /// ICE or DTLS gave up.
    Failed(String),
}

/// A peer connection with its socket.
pub(super) struct PeerLeg {
    pub(super) leg: LegKey,
    pub(super) peer: Peer,
    /// Set by the description that decided the codec; DTLS ends only after it.
    pub(super) codec: Option<RoomCodec>,
}

impl PeerLeg {
    /// Opens a socket and a peer connection that is not known to the net thread yet.
    pub(super) fn open<S: Sockets>(now: Instant, desk: &mut Desk<S>, owner: LegOwner) -> Result<Self, CallFailure> {
        let leg = desk.new_leg(owner);
        let candidates = match desk.sockets.open_peer(now, leg) {
            Ok(candidates) => candidates,
            Err(error) => {
                desk.close_leg(leg);
                return Err(error.into());
            }
        };
        let config = PeerConfig { identity: desk.identity.clone(), candidates, ice_lite: desk.config.ice_lite };
        let peer = Peer::new(config, desk.random.fork());
        Ok(Self { leg, peer, codec: None })
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
        self.peer.handle_input(now, input);
    }

    /// Carries out what the peer connection wants until it has news.
    pub(super) fn poll<S: Sockets>(&mut self, desk: &mut Desk<S>) -> Option<PeerNews> {
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Transmit { to, bytes } => desk.net(NetCommand::SendTo { leg: self.leg, to, bytes }),
                Output::Event(Event::Selected { remote }) => {
                    desk.net(NetCommand::SetPeerRemote { leg: self.leg, remote });
                }
                Output::Event(Event::Connected { keys }) => {
                    let clock_rate_hz = self.codec.unwrap_or(RoomCodec::Opus).clock_rate_hz();
                    desk.net(NetCommand::SetPeerKeys { leg: self.leg, keys, clock_rate_hz });
                    return Some(PeerNews::Connected);
                }
                // The words about a stream that Galene has ended come by another way, and perhaps later. If none come,
                // consent runs out, and that is a failure.
                Output::Event(Event::Failed(Failure::Dtls(DtlsError::Closed))) => {
                    tracing::debug!("Galene closed the media path of socket {}", self.leg.0);
                }
                Output::Event(Event::Failed(reason)) => return Some(PeerNews::Failed(reason.to_string())),
            }
        }
        None
    }
}
