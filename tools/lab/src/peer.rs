//! One peer connection for one audio stream, on str0m: ICE, DTLS, SRTP and the description of it all.
//!
//! Owns: the connection's state, its remote candidates and what it sends on its socket. Does not own: reading from the
//! socket (several connections may share one), nor which stream this is. RTP passes unaltered but for its SSRC.
//!
//! What makes it a judge: as the controlling side it waits before it nominates, by the kind of the remote candidate,
//! as pion does.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::config::{DtlsCert, DtlsVersion};
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{ExtensionMap, RawPacket, RtpWrite};
use str0m::{Candidate, CandidateKind, Event, IceConnectionState, Input, Output, Rtc, RtcConfig};

use crate::room::{AudioCodec, NominationWaits};

/// A certificate for all peer connections of one server or crowd.
#[derive(Clone)]
pub(crate) struct Identity(DtlsCert);

impl Identity {
    pub(crate) fn generate() -> Option<Self> {
        str0m::crypto::from_feature_flags().dtls_provider.generate_certificate().map(Self)
    }

    /// The certificate and its key, in DER: good for a TLS server as well.
    pub(crate) fn der(&self) -> (Vec<u8>, Vec<u8>) {
        (self.0.certificate.clone(), self.0.private_key.clone())
    }
}

/// What a connection does besides its machinery.
#[derive(Clone, Debug)]
pub(crate) enum PeerEvent {
    /// ICE and DTLS are complete.
    Connected,
    /// A packet came, decrypted.
    Packet(Packet),
    /// The other side asks for these sequence numbers again.
    Nack(Vec<u16>),
    /// ICE has lost the other side.
    IceFailed,
    /// The other side has closed, or the connection is beyond repair.
    Closed,
}

/// An RTP packet without its SSRC.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: Arc<[u8]>,
}

pub(crate) struct PeerConfig<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) codecs: &'a [AudioCodec],
    /// How to wait before nominating; `None` waits for nothing.
    pub(crate) waits: Option<NominationWaits>,
}

pub(crate) struct Peer {
    rtc: Rtc,
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    pending: Option<SdpPendingOffer>,
    mid: Option<Mid>,
    /// Candidates that came before the description that they belong to.
    early_candidates: Vec<String>,
    described: bool,
    next_timeout: Instant,
    connected: bool,
    alive: bool,
    outgoing: SequenceExtender,
    waits: Option<NominationWaits>,
    /// When ICE started, and the kind of each remote candidate as it was first known.
    started: Option<Instant>,
    remote_kinds: HashMap<SocketAddr, CandidateKind>,
    /// Nominations that wait for their time.
    held: VecDeque<Transmit>,
    /// Datagrams that came before the answer to an offer of ours; pion leaves them in the socket until then.
    early_datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

impl Peer {
    pub(crate) fn new(config: &PeerConfig<'_>, now: Instant) -> Result<Self, String> {
        let local = config.socket.local_addr().map_err(|error| error.to_string())?;
        let mut builder = RtcConfig::new()
            .set_dtls_cert(config.identity.0.clone())
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_rtp_mode(true)
            .enable_raw_packets(true)
            .set_extension_map(ExtensionMap::empty())
            .set_rtcp_report_interval_audio(Duration::from_secs(1))
            .clear_codecs();
        for codec in config.codecs {
            builder = match codec {
                AudioCodec::Opus => builder.enable_opus(true, false),
                AudioCodec::G722 => builder.enable_g722(true, false),
                AudioCodec::Pcmu => builder.enable_pcmu(true, false),
                AudioCodec::Pcma => builder.enable_pcma(true, false),
            };
        }
        let mut rtc = builder.build(now);
        let host = Candidate::host(local, "udp").map_err(|error| error.to_string())?;
        rtc.add_local_candidate(host);
        Ok(Self {
            rtc,
            socket: Arc::clone(&config.socket),
            local,
            pending: None,
            mid: None,
            early_candidates: Vec::new(),
            described: false,
            next_timeout: now,
            connected: false,
            alive: true,
            outgoing: SequenceExtender::default(),
            waits: config.waits,
            started: None,
            remote_kinds: HashMap::new(),
            held: VecDeque::new(),
            early_datagrams: Vec::new(),
        })
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(crate) fn local_ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    pub(crate) fn next_timeout(&self) -> Instant {
        let held = self.held.iter().filter_map(|transmit| self.nomination_due(transmit)).min();
        held.map_or(self.next_timeout, |due| due.min(self.next_timeout))
    }

    /// Offers one audio stream to send, or (with `restart`) what was agreed with new ICE credentials.
    pub(crate) fn offer(&mut self, stream: &str, restart: bool) -> Result<String, String> {
        let mut api = self.rtc.sdp_api();
        if self.mid.is_none() {
            let (stream, track) = (Some(stream.to_owned()), Some(format!("{stream}-audio")));
            self.mid = Some(api.add_media(MediaKind::Audio, Direction::SendOnly, stream, track, None));
        }
        if restart {
            api.ice_restart(true);
            self.remote_kinds.clear();
            self.held.clear();
            self.started = None;
        }
        let (offer, pending) = api.apply().ok_or("nothing to offer")?;
        self.pending = Some(pending);
        Ok(strip_feedback(&offer.to_sdp_string()))
    }

    /// Whether an offer of ours has no answer yet.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.pending.is_some()
    }

    pub(crate) fn accept_answer(&mut self, sdp: &str, now: Instant) -> Result<(), String> {
        let pending = self.pending.take().ok_or("an answer without an offer")?;
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(|error| error.to_string())?;
        self.note_candidates(sdp);
        self.rtc.sdp_api().accept_answer(pending, answer).map_err(|error| error.to_string())?;
        self.begin(now);
        Ok(())
    }

    /// Answers an offer. To `actpass` this side is active, as browsers and pion are, but passive to an ICE-lite peer.
    pub(crate) fn accept_offer(&mut self, sdp: &str, now: Instant) -> Result<String, String> {
        let active = !sdp.lines().any(|line| line.trim() == "a=ice-lite");
        let sdp = if active { sdp.replace("a=setup:actpass", "a=setup:passive") } else { sdp.to_owned() };
        let offer = SdpOffer::from_sdp_string(&sdp).map_err(|error| error.to_string())?;
        self.note_candidates(&sdp);
        let answer = self.rtc.sdp_api().accept_offer(offer).map_err(|error| error.to_string())?;
        self.begin(now);
        Ok(strip_feedback(&answer.to_sdp_string()))
    }

    fn begin(&mut self, now: Instant) {
        self.described = true;
        self.started.get_or_insert(now);
        for candidate in std::mem::take(&mut self.early_candidates) {
            self.add_candidate(&candidate);
        }
        self.next_timeout = now;
    }

    /// Takes a candidate of the other side; one that makes no sense (a name, TCP) is passed over, as it may well be.
    pub(crate) fn add_candidate(&mut self, text: &str) {
        if !self.described {
            self.early_candidates.push(text.to_owned());
            return;
        }
        let Ok(candidate) = Candidate::from_sdp_string(text) else { return };
        self.note_candidate(&candidate);
        self.rtc.add_remote_candidate(candidate);
    }

    fn note_candidate(&mut self, candidate: &Candidate) {
        let for_good = self.waits.is_some_and(|waits| waits.peer_reflexive_for_good);
        let known = self.remote_kinds.entry(candidate.addr()).or_insert_with(|| candidate.kind());
        if *known == CandidateKind::PeerReflexive && !for_good {
            *known = candidate.kind();
        }
    }

    fn note_candidates(&mut self, sdp: &str) {
        for line in sdp.lines() {
            let Some(text) = line.trim().strip_prefix("a=") else { continue };
            if let Ok(candidate) = Candidate::from_sdp_string(text) {
                self.note_candidate(&candidate);
            }
        }
    }

    /// Takes a datagram that came for this connection. What it causes is drained at once: str0m keeps one packet alone.
    pub(crate) fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], events: &mut Vec<PeerEvent>) {
        if !self.described {
            if self.early_datagrams.len() < MOST_EARLY_DATAGRAMS {
                self.early_datagrams.push((from, bytes.to_vec()));
            }
            return;
        }
        if is_stun_request(bytes) {
            self.remote_kinds.entry(from).or_insert(CandidateKind::PeerReflexive);
        }
        // Noise is dropped: the network may bring anything.
        let Ok(receive) = Receive::new(Protocol::Udp, from, self.local, bytes) else { return };
        let input = Input::Receive(now, receive);
        if self.rtc.accepts(&input) && self.rtc.handle_input(input).is_err() {
            self.alive = false;
        }
        self.drain(now, events);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.rtc.handle_input(Input::Timeout(now)).is_err() {
            self.alive = false;
        }
    }

    /// Sends a packet with the SSRC of this connection.
    pub(crate) fn send(&mut self, now: Instant, packet: &Packet) {
        let Some(mid) = self.mid.filter(|_| self.connected) else { return };
        let Some(sequence) = self.outgoing.extend(packet.sequence) else { return };
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return };
        let payload_type = Pt::new_with_value(packet.payload_type);
        let write = RtpWrite::new(payload_type, sequence.into(), packet.timestamp, now, Arc::clone(&packet.payload));
        stream.write_rtp(write.marker(packet.marker));
        self.handle_timeout(now);
    }

    /// Sends what is to be sent and collects what has happened.
    pub(crate) fn drain(&mut self, now: Instant, events: &mut Vec<PeerEvent>) {
        if self.described {
            for (from, bytes) in std::mem::take(&mut self.early_datagrams) {
                self.receive(now, from, &bytes, events);
            }
        }
        for transmit in std::mem::take(&mut self.held) {
            self.transmit_when_due(transmit, now);
        }
        while self.alive {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) if at <= now => {
                    // str0m asks to be called at once, for instance to stamp packets that were just written.
                    self.handle_timeout(now);
                    match self.rtc.poll_output() {
                        Ok(Output::Timeout(at)) => {
                            self.next_timeout = at.max(now + Duration::from_micros(200));
                            break;
                        }
                        Ok(output) => self.take(output, now, events),
                        Err(_) => self.alive = false,
                    }
                }
                Ok(Output::Timeout(at)) => {
                    self.next_timeout = at;
                    break;
                }
                Ok(output) => self.take(output, now, events),
                Err(_) => self.alive = false,
            }
        }
        if !self.alive {
            self.next_timeout = now + Duration::from_secs(3600);
            events.push(PeerEvent::Closed);
        }
    }

    fn take(&mut self, output: Output, now: Instant, events: &mut Vec<PeerEvent>) {
        match output {
            Output::Transmit(transmit) => self.transmit_when_due(transmit, now),
            Output::Event(Event::Connected) => {
                self.connected = true;
                events.push(PeerEvent::Connected);
            }
            Output::Event(Event::RtpPacket(packet)) => events.push(PeerEvent::Packet(Packet {
                payload_type: *packet.header.payload_type,
                sequence: packet.header.sequence_number,
                timestamp: packet.header.timestamp,
                marker: packet.header.marker,
                payload: packet.payload,
            })),
            Output::Event(Event::RawPacket(raw)) => {
                if let RawPacket::RtcpRx(Rtcp::Nack(nack)) = *raw {
                    let lost = nack.reports.iter().flat_map(|entry| nacked(entry.pid, entry.blp)).collect();
                    events.push(PeerEvent::Nack(lost));
                }
            }
            Output::Event(Event::IceConnectionStateChange(IceConnectionState::Disconnected)) => {
                events.push(PeerEvent::IceFailed);
            }
            Output::Event(Event::Closed) => self.alive = false,
            Output::Event(_) | Output::Timeout(_) => {}
        }
    }

    fn transmit_when_due(&mut self, transmit: Transmit, now: Instant) {
        match self.nomination_due(&transmit).filter(|due| *due > now) {
            Some(_) => self.held.push_back(transmit),
            None => self.transmit(&transmit),
        }
    }

    /// When a nomination may leave, if it is one.
    fn nomination_due(&self, transmit: &Transmit) -> Option<Instant> {
        let waits = self.waits.as_ref()?;
        if !is_nomination(&transmit.contents) {
            return None;
        }
        let wait = match self.remote_kinds.get(&transmit.destination) {
            Some(CandidateKind::Host) => waits.host,
            Some(CandidateKind::ServerReflexive) => waits.server_reflexive,
            Some(CandidateKind::PeerReflexive) | None => waits.peer_reflexive,
            Some(CandidateKind::Relayed) => waits.relayed,
        };
        self.started.map(|started| started + wait)
    }

    fn transmit(&self, transmit: &Transmit) {
        // A full socket buffer or an unreachable port is loss, which every protocol above expects.
        let _ = self.socket.send_to(&transmit.contents, transmit.destination);
    }

    /// Says goodbye to the other side.
    pub(crate) fn close(&mut self, now: Instant) {
        if self.alive && self.rtc.close().is_ok() {
            self.drain(now, &mut Vec::new());
        }
        self.alive = false;
    }
}

/// Counts 16-bit sequence numbers on beyond their wrap, from the first one's cycle, which is cycle zero for every
/// listener whenever it comes in.
#[derive(Default)]
struct SequenceExtender {
    highest: Option<u64>,
}

impl SequenceExtender {
    /// The extended number; `None` for one from before the first packet's cycle, which SRTP could not express.
    fn extend(&mut self, sequence: u16) -> Option<u64> {
        let Some(highest) = self.highest else {
            self.highest = Some(sequence.into());
            return self.highest;
        };
        // The difference as a signed 16-bit number: the nearest way round.
        let step = sequence.wrapping_sub(highest as u16) as i16;
        let extended = highest.checked_add_signed(step.into())?;
        self.highest = Some(highest.max(extended));
        Some(extended)
    }
}

/// The sequence numbers of one NACK entry (RFC 4585 §6.2.1).
fn nacked(first: u16, bitmap: u16) -> impl Iterator<Item = u16> {
    let later = (0..16u16).filter(move |bit| bitmap & (1 << bit) != 0).map(move |bit| first.wrapping_add(bit + 1));
    std::iter::once(first).chain(later)
}

/// Galene's audio has neither feedback nor header extensions; str0m names some with everything.
fn strip_feedback(sdp: &str) -> String {
    let unknown = |line: &&str| line.starts_with("a=rtcp-fb:") || line.starts_with("a=extmap");
    sdp.split_inclusive('\n').filter(|line| !unknown(line)).collect()
}

/// The name of the first media section.
pub(crate) fn first_mid(sdp: &str) -> &str {
    sdp.lines().find_map(|line| line.trim().strip_prefix("a=mid:")).unwrap_or("0")
}

/// Takes the candidates out of a description, to be told by `ice` messages instead.
pub(crate) fn split_candidates(sdp: &str) -> (String, Vec<String>) {
    let is_candidate = |line: &&str| line.starts_with("a=candidate:") || line.starts_with("a=end-of-candidates");
    let kept = sdp.split_inclusive('\n').filter(|line| !is_candidate(line)).collect();
    let candidates = sdp
        .lines()
        .filter(|line| line.starts_with("a=candidate:"))
        .filter_map(|line| line.strip_prefix("a="))
        .map(str::to_owned)
        .collect();
    (kept, candidates)
}

/// More than a client sends until its answer has come the other way.
const MOST_EARLY_DATAGRAMS: usize = 32;
const STUN_HEADER_BYTES: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0, 1];
const USE_CANDIDATE: u16 = 0x0025;
const USERNAME: u16 = 0x0006;

fn is_stun_request(bytes: &[u8]) -> bool {
    bytes.len() >= STUN_HEADER_BYTES && bytes[..2] == BINDING_REQUEST
}

/// The attributes of a STUN message (RFC 8489 §14): type and value.
fn stun_attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes.get(STUN_HEADER_BYTES..).unwrap_or_default();
    std::iter::from_fn(move || {
        let kind = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
        let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        let value = rest.get(4..4 + length)?;
        rest = rest.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn is_nomination(bytes: &[u8]) -> bool {
    is_stun_request(bytes) && stun_attributes(bytes).any(|(kind, _)| kind == USE_CANDIDATE)
}

/// The ufrag of the addressee in a connectivity check (RFC 8445 §7.2.2: USERNAME is `theirs:ours`).
pub(crate) fn addressed_ufrag(bytes: &[u8]) -> Option<&str> {
    let (_, username) = stun_attributes(bytes).find(|(kind, _)| is_stun_request(bytes) && *kind == USERNAME)?;
    std::str::from_utf8(username).ok()?.split(':').next()
}

#[cfg(test)]
mod tests;
