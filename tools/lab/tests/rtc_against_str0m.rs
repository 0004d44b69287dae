//! The gateway's peer connection against str0m's, both ways round, in virtual time: ICE and DTLS connect, and packets
//! protected with the keys that come out (by webrtc-srtp) arrive.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use galene_sip::random::Random;
use galene_sip::rtc::description::Codec;
use galene_sip::rtc::dtls::Identity;
use galene_sip::rtc::peer::{Event, Input, Output, Peer, PeerConfig};
use galene_sip::time::Instant;
use galene_sip::wire::rtp::{SrtpKeys, SrtpMaterial, SrtpProfile};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Rtc};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

const OURS: &str = "192.0.2.1:5000";
const THEIRS: &str = "192.0.2.2:6000";
const ONE_WAY: Duration = Duration::from_millis(5);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Our peer, str0m's, and the wire between.
struct World {
    zero: std::time::Instant,
    now: Instant,
    ours: Peer,
    theirs: Rtc,
    /// Arrival, whether it is for us, the bytes.
    flying: VecDeque<(Instant, bool, Vec<u8>)>,
    selected: u32,
    keys: Option<SrtpKeys>,
    /// SRTP that came for us.
    srtp: Vec<Vec<u8>>,
    /// Frames that str0m received.
    frames: Vec<Vec<u8>>,
}

impl World {
    fn new(ice_lite: bool) -> Self {
        let zero = std::time::Instant::now();
        let identity = Identity::generate(zero).unwrap();
        let config = PeerConfig { identity, candidates: vec![address(OURS)], ice_lite, gather_after: None };
        let mut theirs = Rtc::builder().build(zero);
        theirs.add_local_candidate(Candidate::host(address(THEIRS), "udp").unwrap());
        let ours = Peer::new(config, Random::for_test(1));
        let (flying, srtp, frames) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { zero, now: Instant::ZERO, ours, theirs, flying, selected: 0, keys: None, srtp, frames }
    }

    fn std_now(&self) -> std::time::Instant {
        self.zero + Duration::from_micros(self.now.as_us())
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
            self.now += Duration::from_millis(1);
        }
    }

    fn step(&mut self) {
        let now = self.std_now();
        self.theirs.handle_input(str0m::Input::Timeout(now)).unwrap();
        if self.ours.next_timeout().is_some_and(|deadline| deadline.at <= self.now) {
            self.ours.handle_timeout(self.now);
        }
        while self.flying.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, for_us, bytes)) = self.flying.pop_front() else { break };
            if for_us { self.receive(bytes) } else { self.deliver(&bytes) }
        }
        self.drain_theirs();
        while let Some(output) = self.ours.poll_output() {
            match output {
                Output::Transmit { to, bytes } => {
                    assert_eq!(to, address(THEIRS));
                    self.flying.push_back((self.now + ONE_WAY, false, bytes));
                }
                Output::Event(Event::Selected { .. }) => self.selected += 1,
                Output::Event(Event::Connected { keys }) => self.keys = Some(keys),
                Output::Event(event) => panic!("{event:?}"),
            }
        }
    }

    fn receive(&mut self, bytes: Vec<u8>) {
        let from = address(THEIRS);
        match bytes[0] {
            0..=3 => {
                assert!(self.ours.stun_filter().accepts(&bytes));
                self.ours.handle_input(self.now, Input::Stun { from: from.into(), bytes: &bytes });
            }
            20..=63 => self.ours.handle_input(self.now, Input::Dtls { from: from.into(), bytes: &bytes }),
            _ if !(192..=223).contains(&bytes[1]) => self.srtp.push(bytes),
            _ => {}
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        let receive = Receive::new(Protocol::Udp, address(OURS), address(THEIRS), bytes).unwrap();
        self.theirs.handle_input(str0m::Input::Receive(self.std_now(), receive)).unwrap();
        self.drain_theirs();
    }

    fn drain_theirs(&mut self) {
        loop {
            match self.theirs.poll_output().unwrap() {
                str0m::Output::Timeout(_) => break,
                str0m::Output::Transmit(transmit) => {
                    self.flying.push_back((self.now + ONE_WAY, true, transmit.contents.to_vec()));
                }
                str0m::Output::Event(str0m::Event::MediaData(data)) => self.frames.push(data.data.to_vec()),
                str0m::Output::Event(_) => {}
            }
        }
    }

    fn connect(&mut self) {
        let start = self.now;
        while self.keys.is_none() || !self.theirs.is_connected() {
            self.run(Duration::from_millis(1));
            let took = self.now.saturating_since(start);
            assert!(took < Duration::from_secs(2), "not connected: keys {}", self.keys.is_some());
        }
        println!("connected after {:?}", self.now.saturating_since(start));
    }

    /// Our voice is offered to str0m.
    fn negotiate_up(&mut self) {
        let offer = SdpOffer::from_sdp_string(&self.ours.offer(self.now)).unwrap();
        let answer = self.theirs.sdp_api().accept_offer(offer).unwrap();
        let negotiated = self.ours.handle_answer(self.now, &answer.to_sdp_string()).unwrap();
        assert_eq!((negotiated.preferred().codec, negotiated.preferred().number), (Codec::Opus, 111));
    }

    fn answer(&mut self, offer: &SdpOffer, pending: SdpPendingOffer) {
        let (answer, negotiated) = self.ours.handle_offer(self.now, &offer.to_sdp_string()).unwrap();
        assert_eq!(negotiated.preferred().codec, Codec::Opus);
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        self.theirs.sdp_api().accept_answer(pending, answer).unwrap();
    }

    /// A voice of str0m's is offered to us, beside a picture that we refuse.
    fn negotiate_down(&mut self) -> Mid {
        let mut api = self.theirs.sdp_api();
        let mid = api.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
        api.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        self.answer(&offer, pending);
        mid
    }

    fn restart_down(&mut self) {
        let mut api = self.theirs.sdp_api();
        api.ice_restart(true);
        let (offer, pending) = api.apply().unwrap();
        self.answer(&offer, pending);
    }

    /// Fifty packets of ours; all must arrive.
    fn speak_up(&mut self, first: u16) {
        let keys = self.keys.clone().unwrap();
        let mut srtp = srtp_context(&keys.local);
        self.frames.clear();
        let mut said: Vec<Vec<u8>> = Vec::new();
        for number in (first..).take(50) {
            let mut packet = vec![0x80, 111];
            packet.extend(number.to_be_bytes());
            packet.extend((u32::from(number) * 960).to_be_bytes());
            packet.extend(self.ours.voice().ssrc.to_be_bytes());
            let frame = vec![0x08, number as u8, 1, 2, 3];
            packet.extend(&frame);
            said.push(frame);
            self.flying.push_back((self.now + ONE_WAY, false, srtp.encrypt_rtp(&packet).unwrap().to_vec()));
            self.run(Duration::from_millis(20));
        }
        self.run(Duration::from_millis(500));
        assert_eq!(self.frames, said);
    }

    /// Fifty packets of str0m's.
    fn speak_down(&mut self, mid: Mid) {
        let keys = self.keys.clone().unwrap();
        let mut srtp = srtp_context(&keys.remote);
        self.srtp.clear();
        let mut said: Vec<Vec<u8>> = Vec::new();
        for number in 0..50u8 {
            let now = self.std_now();
            let writer = self.theirs.writer(mid).unwrap();
            let opus = writer.payload_params().find(|params| params.spec().codec.is_audio()).unwrap().pt();
            let frame = vec![0x08, number, 3, 2, 1];
            let time = MediaTime::new(u64::from(number) * 960, str0m::media::Frequency::FORTY_EIGHT_KHZ);
            writer.write(opus, now, time, frame.clone()).unwrap();
            said.push(frame);
            self.run(Duration::from_millis(20));
        }
        self.run(Duration::from_millis(500));
        let heard: Vec<Vec<u8>> = self.srtp.iter().map(|packet| payload(&srtp.decrypt_rtp(packet).unwrap())).collect();
        assert_eq!(heard, said);
    }
}

fn srtp_context(material: &SrtpMaterial) -> Context {
    let profile = match material.profile {
        SrtpProfile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpProfile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProfile::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        SrtpProfile::Aes128CmSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
    };
    Context::new(&material.key, &material.salt, profile, None, None).unwrap()
}

/// What stands behind the header and its extension.
fn payload(packet: &[u8]) -> Vec<u8> {
    let parsed = galene_sip::wire::rtp::RtpPacket::parse(packet).unwrap();
    parsed.payload.to_vec()
}

#[test]
fn our_voice_reaches_str0m() {
    let mut world = World::new(false);
    world.negotiate_up();
    world.connect();
    world.speak_up(1);
    world.run(Duration::from_secs(60));
    world.speak_up(100);
}

#[test]
fn our_voice_reaches_str0m_when_we_are_lite() {
    let mut world = World::new(true);
    world.negotiate_up();
    world.connect();
    world.speak_up(1);
}

#[test]
fn str0ms_voice_reaches_us_and_its_picture_is_refused() {
    for ice_lite in [false, true] {
        let mut world = World::new(ice_lite);
        let mid = world.negotiate_down();
        world.connect();
        world.speak_down(mid);
    }
}

#[test]
fn both_sides_may_restart_ice_in_mid_stream() {
    let mut down = World::new(false);
    let mid = down.negotiate_down();
    down.connect();
    down.restart_down();
    down.run(Duration::from_millis(500));
    assert_eq!(down.selected, 2);
    down.speak_down(mid);

    let mut up = World::new(false);
    up.negotiate_up();
    up.connect();
    up.negotiate_up();
    up.run(Duration::from_millis(500));
    assert_eq!(up.selected, 2);
    up.speak_up(1);
}
