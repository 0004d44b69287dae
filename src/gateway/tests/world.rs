//! A small world around the gateway in virtual time: a telephone, a Galene server with real peer connections, sockets that
//! are only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Secret, SrtpPolicy};
use crate::galene::client;
use crate::gateway::desk::LegOwner;
use crate::gateway::event::{Input, MemberKey, Output, SocketError, Sockets};
use crate::gateway::{Gateway, GatewayConfig};
use crate::media::control::{Command, LegKey, NetCommand, NetEvent, PeerRole, Protection, StreamKey};
use crate::random::Random;
use crate::rtc::dtls::Identity;
use crate::rtc::peer::{self, Peer, PeerConfig};
use crate::sip::event::{Account, CallKey, EndpointConfig, Route};
use crate::time::Instant;
use crate::wire::sip::Transport;
use crate::wire::uri::Uri;

pub(super) const GATEWAY: &str = "192.0.2.9:5060";
const TELEPHONE: &str = "192.0.2.1:5060";

/// Sockets that exist in a table.
#[derive(Default)]
pub(super) struct CountedSockets {
    pub(super) open: BTreeSet<LegKey>,
    pub(super) peers: BTreeMap<LegKey, PeerRole>,
    pub(super) refuse: Option<&'static str>,
    /// Where telephones are moved to.
    pub(super) way_from: Option<IpAddr>,
}

impl Sockets for CountedSockets {
    fn open_peer(&mut self, _now: Instant, leg: LegKey) -> Result<Vec<SocketAddr>, SocketError> {
        self.open.insert(leg);
        Ok(vec![SocketAddr::new("192.0.2.9".parse().unwrap(), 30_000 + leg.0 as u16)])
    }

    fn open_turn_stream(&mut self, _: LegKey, _: SocketAddr, _: Option<&str>) -> Result<SocketAddr, SocketError> {
        Err(SocketError::System("not here".into()))
    }

    fn move_telephone(&mut self, _: LegKey, port: u16, _: IpAddr) -> Result<SocketAddr, SocketError> {
        let ip = self.way_from.ok_or_else(|| SocketError::System("no way".into()))?;
        Ok(SocketAddr::new(ip, port))
    }

    fn open_telephone(&mut self, _now: Instant, leg: LegKey, ip: IpAddr) -> Result<SocketAddr, SocketError> {
        if let Some(flag) = self.refuse {
            return Err(SocketError::NoPort(flag));
        }
        self.open.insert(leg);
        Ok(SocketAddr::new(ip, 20_000 + 2 * leg.0 as u16))
    }
}

/// Galene's end of one of our peer connections.
struct FarEnd {
    peer: Peer,
    address: SocketAddr,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) gateway: Gateway<CountedSockets>,
    identity: std::sync::Arc<Identity>,
    random: Random,
    /// By our leg.
    far_ends: BTreeMap<LegKey, FarEnd>,
    /// The leg of each stream id.
    legs: BTreeMap<String, LegKey>,
    /// Down streams offered to a call's member, whose answer has not come.
    offered: BTreeMap<(CallKey, String), (Peer, SocketAddr)>,
    /// What Galene answers to `join`.
    pub(super) joined: Value,
    /// How many memberships each call has begun, less one.
    members: BTreeMap<u64, u32>,
    /// Nobody answers at the server's address.
    pub(super) galene_is_away: bool,
    /// When the group's status was asked for.
    pub(super) asked_at: Vec<Instant>,
    /// Everything that has come out.
    pub(super) sip: Vec<String>,
    pub(super) galene: Vec<(CallKey, Value)>,
    pub(super) mix: Vec<String>,
    /// The encryption of the telephone's packets, each time that the net thread is told of it.
    pub(super) protections: Vec<Protection>,
    /// DTLS on its way to telephones.
    pub(super) telephone_dtls: Vec<(LegKey, Vec<u8>)>,
    pub(super) stopped: bool,
    /// The calls whose members have closed their connections.
    pub(super) gone: BTreeSet<u64>,
    /// What the group's status says, by the URL asked; a plain one if none.
    pub(super) status: BTreeMap<String, Value>,
    /// Down streams that carry no packet although they are connected.
    pub(super) mute_streams: BTreeSet<String>,
    /// Nothing of ours reaches the other end of a peer connection.
    pub(super) media_is_cut: bool,
    /// Of that, DTLS is lost alone, both ways.
    pub(super) dtls_is_cut: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_srtp(SrtpPolicy::Optional, false)
    }

    /// The same with another `-sip-srtp`, and `-sip-srtp-keys-in-clear` or not.
    pub(super) fn with_srtp(srtp: SrtpPolicy, srtp_keys_in_clear: bool) -> Self {
        let identity = Identity::generate(std::time::Instant::now()).unwrap();
        let config = GatewayConfig {
            group_url: "https://galene.test/group/club/".parse().unwrap(),
            token: Some(Secret::new("token")),
            username: None,
            password: None,
            ice_lite: false,
            agc: true,
            codecs: None,
            srtp,
            srtp_keys_in_clear,
            public_address: None,
            drain_for: Duration::from_secs(30),
            rejoin_for: Duration::from_secs(60),
            max_calls: 64,
            max_calls_per_caller: 2,
        };
        let sip = EndpointConfig {
            account: Account { uri: Uri::parse("sip:room@gateway.test").unwrap(), credentials: None },
            registrar: None,
            allow: Vec::new(),
            refer_anywhere: false,
            guests: None,
            instance: None,
            gruu: false,
            public_address: None,
            local: vec![GATEWAY.parse().unwrap()],
            user_agent: "test".into(),
        };
        let sockets = CountedSockets::default();
        let now = Instant::from_us(1_000_000);
        let gateway = Gateway::new(now, config, sip, sockets, Random::for_test(1), identity.clone());
        let permissions = json!(["present", "message"]);
        Self {
            now,
            gateway,
            identity,
            random: Random::for_test(2),
            far_ends: BTreeMap::new(),
            legs: BTreeMap::new(),
            offered: BTreeMap::new(),
            joined: json!({"kind": "join", "permissions": permissions}),
            members: BTreeMap::new(),
            galene_is_away: false,
            asked_at: Vec::new(),
            sip: Vec::new(),
            galene: Vec::new(),
            mix: Vec::new(),
            protections: Vec::new(),
            telephone_dtls: Vec::new(),
            stopped: false,
            gone: BTreeSet::new(),
            status: BTreeMap::new(),
            mute_streams: BTreeSet::new(),
            media_is_cut: false,
            dtls_is_cut: false,
        }
    }

    /// A telephone calls; its dialog is named by `name`.
    pub(super) fn invite(&mut self, name: &str) {
        self.request(name, "INVITE", 1, Some(OFFER));
    }

    pub(super) fn request(&mut self, name: &str, method: &str, cseq: u32, body: Option<&str>) {
        self.request_with(name, method, cseq, "", body);
    }

    /// The same from the address of another.
    pub(super) fn invite_as(&mut self, name: &str, user: &str) {
        self.send_request((name, user), "INVITE", 1, "", Some(OFFER));
    }

    /// A request with header lines of one's own.
    pub(super) fn request_with(&mut self, name: &str, method: &str, cseq: u32, extra: &str, body: Option<&str>) {
        self.send_request((name, name), method, cseq, extra, body);
    }

    fn send_request(&mut self, (name, user): (&str, &str), method: &str, cseq: u32, extra: &str, body: Option<&str>) {
        let to_tag = self.to_tag(name).map_or(String::new(), |tag| format!(";tag={tag}"));
        let body = body.unwrap_or_default();
        let content = if body.is_empty() { String::new() } else { "Content-Type: application/sdp\r\n".into() };
        let text = format!(
            "{method} sip:room@192.0.2.9 SIP/2.0\r\nVia: SIP/2.0/UDP {TELEPHONE};branch=z9hG4bK{name}{method}{cseq};rport\r\n\
             From: \"{name}\" <sip:{user}@telephone.test>;tag={name}\r\nTo: <sip:room@192.0.2.9>{to_tag}\r\n\
             Call-ID: {name}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\nContact: <sip:{name}@{TELEPHONE}>\r\n\
             {extra}{content}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (local, remote) = (GATEWAY.parse().unwrap(), TELEPHONE.parse().unwrap());
        let input = crate::sip::event::Input::Datagram { local, remote, bytes: text.as_bytes() };
        self.gateway.handle_input(self.now, Input::Sip(input));
        self.run(Duration::ZERO);
    }

    /// The telephone's response to a request of ours.
    pub(super) fn answer(&mut self, request: &str, status: u16, body: &str) {
        let copied = request
            .lines()
            .filter(|line| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name)));
        let copied: String = copied.map(|line| format!("{line}\r\n")).collect();
        let text = format!(
            "SIP/2.0 {status} Reason\r\n{copied}Contact: <sip:phone@{TELEPHONE}>\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (local, remote) = (GATEWAY.parse().unwrap(), TELEPHONE.parse().unwrap());
        let input = crate::sip::event::Input::Datagram { local, remote, bytes: text.as_bytes() };
        self.gateway.handle_input(self.now, Input::Sip(input));
        self.run(Duration::ZERO);
    }

    fn to_tag(&self, name: &str) -> Option<String> {
        let is_answer = |text: &&String| text.starts_with("SIP/2.0") && text.contains(&format!("Call-ID: {name}\r\n"));
        let answer = self.sip.iter().rev().find(is_answer)?;
        let to = answer.lines().find(|line| line.starts_with("To:"))?;
        Some(to.split_once("tag=")?.1.trim().to_owned())
    }

    /// The statuses that the telephone has been sent, 100 and repetitions left out.
    pub(super) fn statuses(&self, name: &str) -> Vec<u16> {
        let mine = self.sip.iter().filter(|text| text.contains(&format!("Call-ID: {name}\r\n")));
        let mut responses: Vec<(u16, &str)> = Vec::new();
        for text in mine {
            let status = text.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok());
            let cseq = text.lines().find(|line| line.starts_with("CSeq:")).unwrap_or_default();
            responses
                .extend(status.map(|status| (status, cseq)).filter(|new| new.0 != 100 && !responses.contains(new)));
        }
        responses.into_iter().map(|(status, _)| status).collect()
    }

    /// Galene lets one call's member in.
    pub(super) fn tell_joined(&mut self, call: u64, joined: &Value) {
        let mut joined = joined.clone();
        joined["type"] = "joined".into();
        joined["group"] = "club".into();
        self.tell(call, &joined);
    }

    /// A message of Galene's to the member of one call.
    pub(super) fn tell(&mut self, call: u64, message: &Value) {
        let text = message.to_string();
        let input = client::Input::Text(&text);
        self.gateway.handle_input(self.now, Input::Galene { member: self.member(call), input });
        self.run(Duration::ZERO);
    }

    /// The latest membership of a call.
    fn member(&self, call: u64) -> MemberKey {
        let nth = self.members.get(&call).copied().unwrap_or(0);
        MemberKey { call: CallKey(call), nth }
    }

    /// An operator throws a call's member out.
    pub(super) fn kick(&mut self, call: u64) {
        self.tell(
            call,
            &json!({"type": "usermessage", "kind": "kicked", "privileged": true, "source": "op", "username": "op", "value": "out"}),
        );
    }

    /// The connection of a call's member breaks.
    pub(super) fn disconnect(&mut self, call: u64) {
        let input = client::Input::Disconnected(crate::galene::Fault::Unreachable("gone".into()));
        self.gateway.handle_input(self.now, Input::Galene { member: self.member(call), input });
        self.run(Duration::ZERO);
    }

    /// Galene offers a stream of `source` to one call's member.
    pub(super) fn offer_stream(&mut self, call: u64, id: &str, source: &str) {
        let address = SocketAddr::new("192.0.2.5".parse().unwrap(), 40_000 + self.offered.len() as u16);
        let mut peer = self.new_peer(address);
        let sdp = peer.offer(self.now);
        self.offered.insert((CallKey(call), id.to_owned()), (peer, address));
        self.tell(
            call,
            &json!({"type": "offer", "id": id, "label": "camera", "source": source, "username": "member", "sdp": sdp}),
        );
    }

    fn new_peer(&mut self, address: SocketAddr) -> Peer {
        let config = PeerConfig {
            identity: self.identity.clone(),
            candidates: vec![address],
            ice_lite: false,
            gather_after: None,
        };
        Peer::new(config, self.random.fork())
    }

    /// The messages of one type that a call's member has sent.
    pub(super) fn sent(&self, call: u64, kind: &str) -> Vec<&Value> {
        let mine = self.galene.iter().filter(|(of, _)| *of == CallKey(call));
        mine.map(|(_, message)| message).filter(|message| message["type"] == kind).collect()
    }

    /// Lets `time` pass and everybody act.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while self.carry_out() {}
            let far = self.far_ends.values().filter_map(|far| far.peer.next_timeout());
            let next = far.chain(self.gateway.next_timeout()).map(|deadline| deadline.at).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            for far in self.far_ends.values_mut() {
                far.peer.handle_timeout(self.now);
            }
            self.gateway.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// Carries out what everybody has put out; false if there was nothing.
    fn carry_out(&mut self) -> bool {
        let mut any = false;
        let (all, dtls) = (self.media_is_cut, self.dtls_is_cut);
        let is_lost = |bytes: &[u8]| all || (dtls && bytes[0] >= 20);
        while let Some(output) = self.gateway.poll_output() {
            any = true;
            match output {
                Output::SendSip { bytes, .. } => self.sip.push(String::from_utf8(bytes).unwrap()),
                Output::Resolve(target) => {
                    let remote = SocketAddr::new("192.0.2.66".parse().unwrap(), target.port.unwrap_or(5060));
                    let local = "192.0.2.9".parse().unwrap();
                    let routes = vec![Route { transport: Transport::Udp, remote, local }];
                    let input =
                        crate::sip::event::Input::Resolved { target, routes, lifetime: Duration::from_secs(60) };
                    self.gateway.handle_input(self.now, Input::Sip(input));
                }
                Output::FindIceServer(name) => panic!("nobody told of {name}"),
                Output::Passed(_) => {}
                Output::SipConnection(_) => panic!("nothing here has a connection"),
                Output::Galene { member, output } => self.on_galene(member, output),
                Output::Net(NetCommand::SendTo { leg, bytes, .. }) => {
                    if let Some(far) = self.far_ends.get_mut(&leg).filter(|_| !is_lost(&bytes)) {
                        let from = SocketAddr::new("192.0.2.9".parse().unwrap(), 30_000 + leg.0 as u16);
                        far.peer.handle_input(self.now, peer_input(from, &bytes));
                    } else if !self.gateway.sockets().peers.contains_key(&leg) {
                        self.telephone_dtls.push((leg, bytes));
                    }
                }
                Output::Net(NetCommand::SetTelephoneProtection { protection, .. }) => self.protections.push(protection),
                Output::AddTelephone(setup) => self.protections.push(setup.protection),
                Output::Net(_) => {}
                Output::AddPeer(setup) => {
                    self.gateway.sockets().peers.insert(setup.leg, setup.role);
                }
                Output::Close(leg) => {
                    self.gateway.sockets().open.remove(&leg);
                    self.gateway.sockets().peers.remove(&leg);
                    self.far_ends.remove(&leg);
                }
                Output::Mix(command) => self.mix.push(in_short(&command)),
                Output::Stopped => self.stopped = true,
            }
        }
        for leg in self.far_ends.keys().copied().collect::<Vec<_>>() {
            while let Some(output) = self.far_ends.get_mut(&leg).and_then(|far| far.peer.poll_output()) {
                any = true;
                match output {
                    peer::Output::Transmit { bytes, .. } if !is_lost(&bytes) => {
                        let from = self.far_ends[&leg].address;
                        let (local, arrival, from) = (from, self.now, from.into());
                        let event = if bytes[0] < 4 {
                            NetEvent::Stun { leg, from, local, arrival, bytes }
                        } else {
                            NetEvent::Dtls { leg, from, arrival, bytes }
                        };
                        self.gateway.handle_input(self.now, Input::Net(event));
                    }
                    peer::Output::Event(peer::Event::Connected { .. }) => self.let_flow(leg),
                    peer::Output::Transmit { .. } | peer::Output::Event(_) => {}
                }
            }
        }
        any
    }

    /// The first packet of a down stream, as the net thread tells of it.
    fn let_flow(&mut self, leg: LegKey) {
        if let Some(LegOwner::Voice { stream, .. }) = self.gateway.desk.leg_owner(leg)
            && !self.mute_streams.contains(&stream)
        {
            self.gateway.handle_input(self.now, Input::Net(NetEvent::Flows { leg }));
        }
    }

    /// A member hears a stream: Galene offers it, and all goes well.
    pub(super) fn hears(&mut self, call: u64, stream: &str) {
        self.offer_stream(call, stream, "member1");
        self.run(Duration::from_millis(100));
    }

    /// What the sockets of peer connections are for, up streams left out.
    pub(super) fn down_streams(&mut self) -> Vec<StreamKey> {
        let of = |role: &PeerRole| match role {
            PeerRole::Down { stream, .. } => Some(*stream),
            PeerRole::Up { .. } => None,
        };
        self.gateway.sockets().peers.values().filter_map(of).collect()
    }

    /// How often a word was said to the mix.
    pub(super) fn count(&self, word: &str) -> usize {
        self.mix.iter().filter(|said| *said == word).count()
    }

    fn on_galene(&mut self, member: MemberKey, output: client::Output) {
        let call = member.call;
        self.members.insert(call.0, member.nth);
        let reply = match output {
            client::Output::Get { request, url } => {
                self.asked_at.push(self.now);
                if self.galene_is_away {
                    let result = Err(crate::galene::Fault::Unreachable("connection refused".into()));
                    let input = client::Input::Response { request, result };
                    return self.gateway.handle_input(self.now, Input::Galene { member, input });
                }
                let plain = json!({"name": "club", "location": "https://galene.test/group/club/", "endpoint": "wss://galene.test/ws"});
                let body = self.status.get(url.as_str()).unwrap_or(&plain).to_string().into_bytes();
                let result = Ok(client::HttpResponse { status: 200, final_url: url, body });
                self.gateway.handle_input(
                    self.now,
                    Input::Galene { member, input: client::Input::Response { request, result } },
                );
                return;
            }
            client::Output::Connect { .. } => {
                self.gateway.handle_input(self.now, Input::Galene { member, input: client::Input::Connected });
                return;
            }
            client::Output::Send(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                self.galene.push((call, message.clone()));
                self.reply(call, &message)
            }
            client::Output::Disconnect => {
                self.gone.insert(call.0);
                None
            }
            client::Output::Post { .. } | client::Output::Event(_) => None,
        };
        if let Some(reply) = reply {
            let text = reply.to_string();
            self.gateway.handle_input(self.now, Input::Galene { member, input: client::Input::Text(&text) });
        }
    }

    /// What Galene says to a message of ours.
    fn reply(&mut self, call: CallKey, message: &Value) -> Option<Value> {
        let id = message["id"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str()? {
            "ping" => Some(json!({"type": "pong"})),
            "handshake" => Some(json!({"type": "handshake", "version": ["2"]})),
            "join" if message["kind"] == "join" => {
                let mut joined = self.joined.clone();
                joined["type"] = "joined".into();
                joined["group"] = "club".into();
                joined["username"] = message["username"].clone();
                Some(joined)
            }
            "offer" => {
                let role_is_up = |role: &PeerRole| matches!(role, PeerRole::Up { .. });
                let peers = &self.gateway.sockets().peers;
                let leg = *peers.iter().rev().find(|(_, role)| role_is_up(role))?.0;
                let address = SocketAddr::new("192.0.2.5".parse().unwrap(), 41_000 + leg.0 as u16);
                let mut peer = self.new_peer(address);
                let (sdp, _) = peer.handle_offer(self.now, message["sdp"].as_str()?).unwrap();
                self.far_ends.insert(leg, FarEnd { peer, address });
                self.legs.insert(id.clone(), leg);
                Some(json!({"type": "answer", "id": id, "sdp": sdp}))
            }
            "answer" => {
                let (mut peer, address) = self.offered.remove(&(call, id))?;
                peer.handle_answer(self.now, message["sdp"].as_str()?).unwrap();
                let leg = *self.gateway.sockets().peers.keys().next_back()?;
                self.far_ends.insert(leg, FarEnd { peer, address });
                None
            }
            _ => None,
        }
    }
}

pub(super) const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\n";

fn peer_input(from: SocketAddr, bytes: &[u8]) -> peer::Input<'_> {
    let from = from.into();
    if bytes[0] < 4 { peer::Input::Stun { from, bytes } } else { peer::Input::Dtls { from, bytes } }
}

/// A command's name, and its argument where it is yes or no.
fn in_short(command: &Command) -> String {
    let flag = match command {
        Command::SetPresent { present, .. } => format!(" {present}"),
        Command::SetMuted { muted, .. } => format!(" {muted}"),
        Command::SetWaiting { waiting, .. } => format!(" {waiting}"),
        Command::SetTelephone { telephone, .. } => format!(" {}", telephone.receives),
        Command::SetUp { up, .. } => format!(" {}", up.is_some()),
        _ => String::new(),
    };
    let name = format!("{command:?}");
    let name: String = name.chars().take_while(char::is_ascii_alphabetic).collect();
    format!("{name}{flag}")
}
