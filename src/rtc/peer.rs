//! One peer connection: SDP on one side, a socket's datagrams on the other, an address and SRTP keys as the result.
//!
//! Owns: who offers and who answers, and how [`ice`] and [`dtls`] depend on each other. Does
//! not own: the socket, SRTP, RTCP, Galene's messages.
//! Up: [`Peer::offer`] → [`Peer::handle_answer`]. Down: [`Peer::handle_offer`]. Then datagrams and timeouts until
//! [`Event::Selected`] (where to send) and [`Event::Connected`] (how to protect it), in this order; both stay fed for
//! as long as the stream lives. A renegotiation is the same call again; new ICE credentials make it a restart, which
//! keeps DTLS and its keys.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::random::Random;
use crate::time::{Deadline, Instant, earliest};
use crate::wire::route::Route;
use crate::wire::rtp::SrtpKeys;
use crate::wire::stun::Filter;

use super::candidate::{Candidate, canonical};
use super::description::{DescriptionError, LocalDescription, Negotiated, RemoteDescription, Setup, Voice};
use super::dtls::{self, Dtls, DtlsError, DtlsRole, Identity};
use super::gathering::{self, Gathering, Server};
use super::ice::{self, Agent, RelayFamilies, Role};
use super::turn::Families;

/// What a peer connection starts from.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Our certificate, shared by all.
    pub identity: Arc<Identity>,
    /// Host candidates: addresses under which the bound socket can be reached, in the order of liking.
    pub candidates: Vec<SocketAddr>,
    /// Only answer checks; for a host that the peer can always reach.
    pub ice_lite: bool,
    /// After so long without a way, servers are asked for further candidates; `None`: there are no servers.
    pub gather_after: Option<Duration>,
}

/// A datagram from our socket, sorted by its first byte (RFC 7983), or the end of a way to a server.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// First byte 0 to 3.
    Stun {
        /// Whence.
        from: Route,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// First byte 20 to 63.
    Dtls {
        /// Whence.
        from: Route,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// The stream behind this server's stand-in has ended.
    Disconnected {
        /// The stand-in.
        server: SocketAddr,
    },
}

/// What the connection wants done or known.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram from our socket.
    Transmit {
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Something happened.
    Event(Event),
}

/// What the gateway should know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Media goes to this address from now on. Comes again when it changes, and after each ICE restart.
    Selected {
        /// Which, and which way.
        remote: Route,
    },
    /// There is no way yet: [`Peer::add_server`] with every server that is reached over UDP.
    WantsServers,
    /// There is no relay yet: [`Peer::add_server`] with those that are reached by a stream.
    WantsStreams,
    /// A server behind a stream has named another: [`Peer::add_server`] with that one.
    WantsAlternate {
        /// The stand-in of the one.
        instead_of: SocketAddr,
        /// The other, over the same transport.
        alternate: SocketAddr,
        /// What its certificate is to name, if not the same.
        domain: Option<String>,
    },
    /// The peer should be told of this candidate.
    Candidate {
        /// The value of `a=candidate`.
        line: String,
        /// The `a=mid` of the media section it is for.
        mid: Option<String>,
        /// Its place in the description.
        line_index: u16,
    },
    /// Which peers the relay's channels lead to; comes first with none, when a server is asked for a relay.
    Relay {
        /// Its server.
        server: SocketAddr,
        /// Number and peer.
        channels: Vec<(u16, SocketAddr)>,
    },
    /// The peer is who its description says, and these keys protect the media. Comes once, after
    /// [`Event::Selected`].
    Connected {
        /// Of both directions.
        keys: SrtpKeys,
    },
    /// The way in use is in doubt, and is used on: a renegotiation with new ICE credentials, of whichever side, looks for
    /// another before consent runs out.
    WantsRestart,
    /// No media can flow. After an ICE failure a renegotiation may heal it, after DTLS's only a new connection.
    Failed(Failure),
}

/// Which part failed, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No way to the peer (any more).
    #[error(transparent)]
    Ice(#[from] ice::Failure),
    /// No keys, or the peer has closed.
    #[error(transparent)]
    Dtls(#[from] DtlsError),
}

/// Why a description was refused; the connection is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It cannot be used at all.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// An answer, but we have offered nothing; or an offer while ours is open.
    #[error("a description out of turn")]
    OutOfTurn,
    /// `a=setup` leaves no one, or both, to begin.
    #[error("the peer's DTLS set-up does not fit ours")]
    Setup,
    /// DTLS would have to begin anew, which takes a new connection.
    #[error("the peer's certificate changed")]
    NewCertificate,
}

/// A relay is kept for so long after a way without it was found: the peer may yet choose another.
const RELAY_IDLE: Duration = Duration::from_secs(5);

/// Where offer and answer stand (RFC 3264, RFC 8829 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signalling {
    New,
    HaveLocalOffer,
    Stable,
}

/// DTLS datagrams that led to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// From an address that ICE has not validated.
    pub stranger: u32,
    /// Before the peer's description.
    pub early: u32,
}

/// One peer connection.
#[derive(Debug)]
pub struct Peer {
    config: PeerConfig,
    voice: Voice,
    session_id: u64,
    version: u64,
    signalling: Signalling,
    ice: Agent,
    /// From the first description of the peer's on.
    dtls: Option<Dtls>,
    /// Where DTLS goes: the selected address; until there is one, where the peer's came from.
    remote: Option<Route>,
    /// Keys of a handshake that was faster than the nomination.
    early_keys: Option<SrtpKeys>,
    has_selected: bool,
    /// When servers are asked, unless there is a way by then.
    gather_at: Option<Instant>,
    /// Their transactions begin with this.
    gathering_tag: [u8; 4],
    gathering: Option<Gathering>,
    /// When a relay that is not needed is given back.
    relay_idle_at: Option<Instant>,
    /// It has led nowhere: the server may have forgotten it, or know us by an address that we do not have any more.
    doubts_relay: bool,
    /// Of the audio: its `a=mid` and place in the description.
    section: (Option<String>, u16),
    drops: Drops,
    random: Random,
    outputs: VecDeque<Output>,
}

impl Peer {
    /// A connection that has said nothing yet.
    pub fn new(config: PeerConfig, mut random: Random) -> Self {
        let voice = Voice {
            ssrc: random.next_u32(),
            cname: random.token(16),
            stream_id: random.token(16),
            track_id: random.token(16),
        };
        Self {
            voice,
            session_id: random.next_u64() >> 2, // RFC 8829 §5.2.1: it must fit a signed 64-bit number.
            version: 0,
            signalling: Signalling::New,
            ice: Agent::new(Role::Controlling, config.ice_lite, &config.candidates, random.fork()),
            config,
            dtls: None,
            remote: None,
            early_keys: None,
            has_selected: false,
            gather_at: None,
            gathering_tag: random.next_u32().to_be_bytes(),
            gathering: None,
            relay_idle_at: None,
            doubts_relay: false,
            section: (Some("0".to_owned()), 0),
            drops: Drops::default(),
            random,
            outputs: VecDeque::new(),
        }
    }

    /// What our offer says of the voice: the engine sends, and reports, under these names.
    pub fn voice(&self) -> &Voice {
        &self.voice
    }

    /// Which STUN messages the net thread should pass on; changes with [`Peer::offer`] and [`Peer::handle_offer`].
    pub fn stun_filter(&self) -> Filter {
        self.ice.filter(self.gathering_tag)
    }

    /// True while an address of the peer's is selected: ICE has a way, whatever DTLS does.
    pub fn has_path(&self) -> bool {
        self.ice.selected().is_some()
    }

    /// STUN messages and candidates that led to nothing.
    pub fn ice_drops(&self) -> ice::Drops {
        self.ice.drops()
    }

    /// DTLS datagrams that led to nothing.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// An offer of our voice. Every one after the first asks for an ICE restart.
    pub fn offer(&mut self, now: Instant) -> String {
        if self.signalling != Signalling::New {
            self.restart(now);
        }
        self.ice.set_role(Role::Controlling);
        self.signalling = Signalling::HaveLocalOffer;
        let voice = self.voice.clone();
        self.describe(|local| local.offer(&voice))
    }

    /// The answer to our offer; tells what to send.
    ///
    /// # Errors
    /// The answer cannot be used; the connection waits for another.
    pub fn handle_answer(&mut self, now: Instant, sdp: &str) -> Result<Negotiated, PeerError> {
        if self.signalling != Signalling::HaveLocalOffer {
            return Err(PeerError::OutOfTurn);
        }
        let remote = RemoteDescription::parse(sdp)?;
        let role = match remote.setup {
            Setup::Active => DtlsRole::Server,
            Setup::Passive => DtlsRole::Client,
            Setup::ActPass => return Err(PeerError::Setup),
        };
        self.secure(now, role, &remote)?;
        self.signalling = Signalling::Stable;
        Ok(self.connect(now, remote))
    }

    /// An offer of the peer's voice, the first or a later one; gives our answer, and what may come.
    ///
    /// # Errors
    /// The offer cannot be used; the connection goes on as it was.
    pub fn handle_offer(&mut self, now: Instant, sdp: &str) -> Result<(String, Negotiated), PeerError> {
        if self.signalling == Signalling::HaveLocalOffer {
            return Err(PeerError::OutOfTurn);
        }
        let remote = RemoteDescription::parse(sdp)?;
        let established = self.dtls.as_ref().map(Dtls::role);
        let role = match (remote.setup, established) {
            (Setup::ActPass, Some(role)) => role, // RFC 8842 §5.5: no new association.
            (Setup::ActPass | Setup::Passive, _) => DtlsRole::Client,
            (Setup::Active, _) => DtlsRole::Server,
        };
        self.secure(now, role, &remote)?;
        self.ice.set_role(if remote.ice_lite { Role::Controlling } else { Role::Controlled });
        if self.ice.remote_credentials().is_some_and(|known| *known != remote.credentials) {
            self.restart(now);
        }
        self.signalling = Signalling::Stable;
        self.section = remote.section();
        let answer = self.describe(|local| local.answer(&remote, role));
        Ok((answer, self.connect(now, remote)))
    }

    /// A candidate of the peer's, as its `ice` message has it; one that we cannot use is ignored. An empty one ends
    /// the candidates, of which we make nothing: a check of the peer's may always show another.
    pub fn add_candidate(&mut self, now: Instant, line: &str) {
        match Candidate::parse(line) {
            Ok(candidate) => self.ice.add_candidate(now, candidate),
            Err(reason) if !line.is_empty() => tracing::debug!(%reason, "candidate ignored"),
            Err(_) => {}
        }
        self.settle(now);
    }

    /// A datagram came on our socket.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Stun { from, bytes } => self.handle_stun(now, from, bytes),
            Input::Disconnected { server } => {
                if let Some(gathering) = &mut self.gathering {
                    gathering.on_disconnected(now, server);
                }
            }
            Input::Dtls { from, bytes } => self.handle_dtls(now, from.with_peer(canonical(from.peer())), bytes),
        }
        self.settle(now);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ice.handle_timeout(now);
        if self.gather_at.take_if(|at| *at <= now).is_some() {
            self.gather(now);
        }
        if self.relay_idle_at.take_if(|at| *at <= now).is_some() {
            self.release(now);
            self.gathering = None;
        }
        if let Some(gathering) = &mut self.gathering {
            gathering.handle_timeout(now);
        }
        if let Some(dtls) = &mut self.dtls {
            dtls.handle_timeout(now);
        }
        self.settle(now);
    }

    /// When [`Peer::handle_timeout`] is wanted.
    pub fn next_timeout(&self) -> Option<Deadline> {
        let gather = self.gather_at.map(|at| Deadline::new(at, "gather candidates"));
        let gathering = self.gathering.as_ref().and_then(Gathering::next_timeout);
        let dtls = self.dtls.as_ref().and_then(Dtls::next_timeout);
        let idle = self.relay_idle_at.map(|at| Deadline::new(at, "give an idle relay back"));
        earliest([self.ice.next_timeout(), dtls, gather, gathering, idle])
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether servers are, or were just, asked for further candidates.
    pub const fn asks_servers(&self) -> bool {
        self.gathering.is_some()
    }

    /// A server for further candidates, as [`Event::WantsServers`] and [`Event::WantsStreams`] ask for them.
    pub fn add_server(&mut self, now: Instant, server: Server) {
        if let Some(gathering) = &mut self.gathering {
            gathering.add_server(now, server);
        }
        self.settle(now);
    }

    /// The connection is to be closed: relays are given back. Only [`Output::Transmit`] counts from now on.
    pub fn release(&mut self, now: Instant) {
        self.gather_at = None;
        if let Some(gathering) = &mut self.gathering {
            gathering.release(now);
        }
        self.settle(now);
    }

    /// ICE begins anew; a relay in doubt has to show that it is there.
    fn restart(&mut self, now: Instant) {
        if self.doubts_relay
            && let Some(gathering) = &mut self.gathering
        {
            gathering.prove(now);
        }
        self.ice.restart(now);
    }

    /// Further candidates are needed. What was found before the restart of ICE is told in the description already.
    fn gather(&mut self, now: Instant) {
        if !self.gathering.as_ref().is_some_and(Gathering::has_relay) {
            // For the peer it is only a hint (RFC 8839 §5.1); with relayed candidates alone our address is not told.
            let base = self.config.candidates.iter().find(|candidate| candidate.is_ipv4());
            let base = base.copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 9)));
            let families = match self.ice.remote_families() {
                RelayFamilies { v4: true, v6: false } => Families::V4,
                RelayFamilies { v4: false, v6: true } => Families::V6,
                // What is not known yet may come.
                RelayFamilies { v4: true, v6: true } | RelayFamilies { v4: false, v6: false } => Families::Both,
            };
            self.gathering = Some(Gathering::new(now, base, families, self.gathering_tag, self.random.fork()));
            self.outputs.push_back(Output::Event(Event::WantsServers));
        }
    }

    fn handle_stun(&mut self, now: Instant, from: Route, bytes: &[u8]) {
        match (&mut self.gathering, from) {
            (Some(gathering), Route::Direct(server)) if gathering.is_server(server) => {
                gathering.handle_input(now, server, bytes);
            }
            _ => self.ice.handle_input(now, from, bytes),
        }
    }

    fn transmit(&mut self, now: Instant, to: Route, bytes: Vec<u8>) {
        match (to, &mut self.gathering) {
            (Route::Direct(to), _) => self.outputs.push_back(Output::Transmit { to, bytes }),
            (Route::Relayed(peer), Some(gathering)) => gathering.send(now, peer, &bytes),
            (Route::Relayed(_), None) => {}
        }
    }

    fn handle_dtls(&mut self, now: Instant, from: Route, bytes: &[u8]) {
        let Some(dtls) = &mut self.dtls else {
            self.drops.early += 1;
            return;
        };
        // After a restart the peer goes on from where it was, until a new address is selected.
        if self.remote != Some(from) && !self.ice.is_validated(from) {
            self.drops.stranger += 1;
            return;
        }
        self.remote.get_or_insert(from);
        if matches!(bytes.first(), Some(20..=63)) {
            dtls.handle_input(now, bytes);
        }
    }

    /// Makes the DTLS connection, or sees that the one there is can stay.
    fn secure(&mut self, now: Instant, role: DtlsRole, remote: &RemoteDescription) -> Result<(), PeerError> {
        match &self.dtls {
            None => {
                self.dtls = Some(Dtls::new(now, &self.config.identity, role, remote.fingerprints.clone()));
                Ok(())
            }
            Some(dtls) if dtls.announced() != remote.fingerprints => Err(PeerError::NewCertificate),
            Some(dtls) if dtls.role() != role => Err(PeerError::Setup),
            Some(_) => Ok(()),
        }
    }

    fn connect(&mut self, now: Instant, remote: RemoteDescription) -> Negotiated {
        if self.ice.remote_credentials() != Some(&remote.credentials) {
            self.ice.start(now, remote.credentials);
            self.gather_at = self.config.gather_after.map(|after| now + after);
        }
        for candidate in remote.candidates {
            self.ice.add_candidate(now, candidate);
        }
        self.settle(now);
        remote.negotiated
    }

    fn describe(&mut self, write: impl FnOnce(LocalDescription<'_>) -> String) -> String {
        self.version += 1;
        write(LocalDescription {
            session_id: self.session_id,
            version: self.version,
            credentials: self.ice.credentials(),
            ice_lite: self.config.ice_lite,
            candidates: &self.config.candidates,
            server_candidates: self.gathering.as_ref().map_or(&[], Gathering::candidates),
            trickles: self.config.gather_after.is_some(),
            fingerprint: self.config.identity.fingerprint(),
        })
    }

    /// Moves what the parts put out to where it belongs.
    fn settle(&mut self, now: Instant) {
        self.settle_gathering(now);
        self.settle_ice(now);
        self.settle_dtls(now);
        self.settle_gathering(now);
    }

    fn settle_gathering(&mut self, now: Instant) {
        while let Some(output) = self.gathering.as_mut().and_then(Gathering::poll_output) {
            let event = match output {
                gathering::Output::Transmit { server, bytes } => {
                    self.outputs.push_back(Output::Transmit { to: server, bytes });
                    continue;
                }
                gathering::Output::Relay(families) => {
                    self.ice.set_relay(now, families);
                    self.settle_ice(now);
                    if families == RelayFamilies::default() && std::mem::take(&mut self.doubts_relay) {
                        self.gathering = None;
                        self.gather(now);
                    }
                    continue;
                }
                gathering::Output::Received { peer, bytes } => {
                    match bytes.first() {
                        Some(0..=3) => self.ice.handle_input(now, Route::Relayed(peer), &bytes),
                        Some(20..=63) => self.handle_dtls(now, Route::Relayed(peer), &bytes),
                        // Media of a peer whose channel is not bound yet.
                        Some(_) | None => {}
                    }
                    continue;
                }
                gathering::Output::Candidate(line) => {
                    let (mid, line_index) = self.section.clone();
                    Event::Candidate { line, mid, line_index }
                }
                gathering::Output::Channels { server, channels } => Event::Relay { server, channels },
                gathering::Output::WantsStreams => Event::WantsStreams,
                gathering::Output::WantsAlternate { instead_of, alternate, domain } => {
                    Event::WantsAlternate { instead_of, alternate, domain }
                }
            };
            self.outputs.push_back(Output::Event(event));
        }
    }

    fn settle_ice(&mut self, now: Instant) {
        while let Some(output) = self.ice.poll_output() {
            match output {
                ice::Output::Transmit { to, bytes } => self.transmit(now, to, bytes),
                ice::Output::Selected { remote } => {
                    self.remote = Some(remote);
                    self.has_selected = true;
                    self.gather_at = None;
                    let is_idle = self.gathering.is_some() && !remote.is_relayed();
                    self.relay_idle_at = is_idle.then(|| now + RELAY_IDLE);
                    self.outputs.push_back(Output::Event(Event::Selected { remote }));
                    if let Some(keys) = self.early_keys.take() {
                        self.outputs.push_back(Output::Event(Event::Connected { keys }));
                    }
                    if let Some(dtls) = &mut self.dtls {
                        dtls.start(now);
                    }
                }
                ice::Output::Doubtful(_) => {
                    self.doubts_relay |= self.remote.is_some_and(Route::is_relayed);
                    self.outputs.push_back(Output::Event(Event::WantsRestart));
                }
                ice::Output::Failed(failure) => {
                    self.doubts_relay = self.gathering.is_some();
                    self.outputs.push_back(Output::Event(Event::Failed(Failure::Ice(failure))));
                }
            }
        }
    }

    fn settle_dtls(&mut self, now: Instant) {
        while let Some(output) = self.dtls.as_mut().and_then(Dtls::poll_output) {
            match (output, self.remote) {
                (dtls::Output::Transmit(bytes), Some(to)) => self.transmit(now, to, bytes),
                // It speaks only when spoken to, or once an address is selected.
                (dtls::Output::Transmit(_), None) => {}
                (dtls::Output::Connected(keys), _) if self.has_selected => {
                    self.outputs.push_back(Output::Event(Event::Connected { keys }));
                }
                (dtls::Output::Connected(keys), _) => self.early_keys = Some(keys),
                (dtls::Output::Failed(error), _) => {
                    self.outputs.push_back(Output::Event(Event::Failed(Failure::Dtls(error))));
                }
            }
        }
    }
}
