//! The gateway's end of a peer connection: the product's own, with what its gateway and its net thread do about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::rtc::dtls::Identity;
use galene_sip::rtc::gathering::Server;
use galene_sip::rtc::peer::{Event, Failure, Input, Output, Peer, PeerConfig};
use galene_sip::time::Instant;
use galene_sip::wire::route::Route;
use galene_sip::wire::rtp::SrtpKeys;
use galene_sip::wire::stun::{ChannelData, Class, Message};

/// DTLS that comes before its sender is selected; as many as the net thread keeps.
const MAX_HELD: usize = 8;

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) peer: Peer,
    /// Those that are reached over UDP.
    servers: Vec<Server>,
    /// A connection to the TURN server that is reached by TCP is wanted.
    pub(crate) wants_stream: bool,
    pub(crate) route: Option<Route>,
    relay: Option<(SocketAddr, Vec<(u16, SocketAddr)>)>,
    /// Where ICE has sent to.
    known: Vec<SocketAddr>,
    held: Vec<(Route, Vec<u8>)>,
    pub(crate) keys: Option<SrtpKeys>,
    pub(crate) failure: Option<Failure>,
    /// The way in use is in doubt.
    pub(crate) wants_restart: bool,
}

impl Gateway {
    pub(crate) fn new(
        host: SocketAddr,
        identity: Arc<Identity>,
        gather_after: Option<Duration>,
        servers: Vec<Server>,
        random: Random,
    ) -> Self {
        let config = PeerConfig { identity, candidates: vec![host], ice_lite: false, gather_after };
        let peer = Peer::new(config, random);
        let (known, held) = (Vec::new(), Vec::new());
        let wants_stream = false;
        Self {
            peer,
            servers,
            wants_stream,
            route: None,
            relay: None,
            known,
            held,
            keys: None,
            failure: None,
            wants_restart: false,
        }
    }

    /// Tells whether it is media that is taken.
    pub(crate) fn handle_input(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        let channel = ChannelData::parse(bytes).and_then(|data| {
            let (_, channels) = self.relay.as_ref().filter(|(server, _)| *server == from)?;
            let (_, peer) = channels.iter().find(|(channel, _)| *channel == data.channel)?;
            Some((Route::Relayed(*peer), data.payload))
        });
        let (from, bytes) = channel.unwrap_or((Route::Direct(from), bytes));
        let is_known = match from {
            Route::Direct(address) => self.known.contains(&address),
            Route::Relayed(_) => true,
        };
        match bytes.first() {
            Some(0..=3) if self.passes(from, bytes) => self.peer.handle_input(now, Input::Stun { from, bytes }),
            Some(20..=63) if self.route == Some(from) => self.peer.handle_input(now, Input::Dtls { from, bytes }),
            Some(20..=63) if is_known && self.held.len() < MAX_HELD => self.held.push((from, bytes.to_vec())),
            Some(128..) => return self.keys.is_some() && is_known,
            Some(_) | None => {}
        }
        false
    }

    fn passes(&self, from: Route, bytes: &[u8]) -> bool {
        let is_server = self.relay.as_ref().is_some_and(|(server, _)| Route::Direct(*server) == from);
        let is_indication = || Message::parse(bytes).is_ok_and(|message| message.class == Class::Indication);
        self.peer.stun_filter().accepts(bytes) || (is_server && is_indication())
    }

    /// What is to be sent, and the candidates that Galene is to know.
    pub(crate) fn poll(&mut self, now: Instant) -> (Vec<(SocketAddr, Vec<u8>)>, Vec<String>) {
        let (mut datagrams, mut candidates) = (Vec::new(), Vec::new());
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Transmit { to, bytes } => {
                    if !self.known.contains(&to) {
                        self.known.push(to);
                    }
                    datagrams.push((to, bytes));
                }
                Output::Event(Event::Selected { remote }) => {
                    self.route = Some(remote);
                    for (from, bytes) in std::mem::take(&mut self.held) {
                        if from == remote {
                            self.peer.handle_input(now, Input::Dtls { from, bytes: &bytes });
                        }
                    }
                }
                Output::Event(Event::WantsServers) => {
                    self.servers.clone().into_iter().for_each(|server| self.peer.add_server(now, server));
                    if self.servers.iter().all(|server| server.credentials.is_none()) {
                        self.wants_stream = true;
                    }
                }
                Output::Event(Event::WantsAlternate { .. }) => unreachable!("no server of these names another"),
                Output::Event(Event::WantsStreams) => self.wants_stream = true,
                Output::Event(Event::Candidate { line, .. }) => candidates.push(format!("candidate:{line}")),
                Output::Event(Event::Relay { server, channels }) => self.relay = Some((server, channels)),
                Output::Event(Event::Connected { keys }) => self.keys = Some(keys),
                Output::Event(Event::WantsRestart) => self.wants_restart = true,
                Output::Event(Event::Failed(failure)) => self.failure = Some(failure),
            }
        }
        (datagrams, candidates)
    }

    /// A packet of the voice on its way, if there is one.
    pub(crate) fn send_media(&self, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        self.keys.as_ref()?;
        match self.route? {
            Route::Direct(to) => Some((to, bytes.to_vec())),
            Route::Relayed(peer) => {
                let (server, channels) = self.relay.as_ref()?;
                let (channel, _) = channels.iter().find(|(_, bound)| *bound == peer)?;
                Some((*server, [&ChannelData::header(*channel, bytes.len() as u16)[..], bytes].concat()))
            }
        }
    }
}
