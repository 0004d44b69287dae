//! The real media threads with real sockets on loopback: a telephone, Galene's two ends, and what is left afterwards.
//!
//! One test, since it counts the descriptors and threads of the whole process. It waits for packets and events, never for
//! time: what does not come within ten seconds fails.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use galene_sip::io::clock::Clock;
use galene_sip::io::mix::MixHandle;
use galene_sip::io::net::NetHandle;
use galene_sip::io::threads;
use galene_sip::media::control::*;
use galene_sip::media::opus;
use galene_sip::media::srtp;
use galene_sip::wire::rtcp::{self, RtcpPacket};
use galene_sip::wire::rtp::{DatagramKind, RtpHeader, RtpPacket, SrtpKeys, SrtpMaterial, SrtpProfile};
use galene_sip::wire::stun;
use telephone::telephone;

#[path = "common/telephone.rs"]
mod telephone;

const PATIENCE: Duration = Duration::from_secs(10);

/// The packet of a room voice that comes only when it is asked for again.
const LOST: u16 = 5;

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

fn material(byte: u8) -> SrtpMaterial {
    SrtpMaterial { profile: SrtpProfile::AeadAes128Gcm, key: vec![byte; 16], salt: vec![byte; 12] }
}

fn rtp(payload_type: u8, sequence_number: u16, step: u32, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let timestamp = u32::from(sequence_number) * step;
    let header = RtpHeader { marker: false, payload_type, sequence_number, timestamp, ssrc };
    [&header.to_bytes()[..], payload].concat()
}

/// One of Galene's ends of a peer connection, after the handshakes that this test leaves out.
struct Galene {
    socket: UdpSocket,
    gateway: SocketAddr,
    receiver: srtp::Receiver,
    sender: srtp::Sender,
}

impl Galene {
    /// The next packet of a kind, in the clear.
    fn receive(&mut self, kind: DatagramKind) -> Vec<u8> {
        loop {
            let mut buffer = [0; 2000];
            let (len, _) = self.socket.recv_from(&mut buffer).unwrap();
            let mut packet = buffer[..len].to_vec();
            let found = DatagramKind::of(&packet);
            let len = match found {
                DatagramKind::Rtp => self.receiver.unprotect_rtp(&mut packet).unwrap(),
                DatagramKind::Rtcp => self.receiver.unprotect_rtcp(&mut packet).unwrap(),
                DatagramKind::Stun | DatagramKind::Dtls | DatagramKind::Unknown => len,
            };
            packet.truncate(len);
            if found == kind {
                return packet;
            }
        }
    }

    /// Encrypted, to be sent at any time: the indexes of SRTP must rise as packets are sealed.
    fn seal_rtp(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = [0; 1500];
        buffer[..packet.len()].copy_from_slice(packet);
        let len = self.sender.protect_rtp(&mut buffer, packet.len()).unwrap();
        buffer[..len].to_vec()
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.gateway).unwrap();
    }

    /// The next request for lost packets: of which source, and which.
    fn receive_request(&mut self) -> (u32, Vec<u16>) {
        loop {
            let compound = self.receive(DatagramKind::Rtcp);
            for packet in rtcp::packets(&compound) {
                if let RtcpPacket::GenericNack { media_ssrc, lost, .. } = packet.unwrap() {
                    return (media_ssrc, lost.iter().collect());
                }
            }
        }
    }
}

struct World {
    net: NetHandle,
    mix: MixHandle,
    next_key: u32,
}

impl World {
    fn key(&mut self) -> u32 {
        self.next_key += 1;
        self.next_key
    }

    fn net_event(&mut self) -> NetEvent {
        smol::block_on(async {
            loop {
                if let Some(event) = self.net.poll_event() {
                    return event;
                }
                let timeout = async {
                    smol::Timer::after(PATIENCE).await;
                    panic!("nothing happened on the net thread");
                };
                smol::future::or(self.net.readable(), timeout).await.unwrap();
            }
        })
    }

    fn mix_event(&mut self) -> MixEvent {
        smol::block_on(async {
            loop {
                if let Some(event) = self.mix.poll_event() {
                    return event;
                }
                let timeout = async {
                    smol::Timer::after(PATIENCE).await;
                    panic!("nothing happened on the mix threads");
                };
                smol::future::or(self.mix.readable(), timeout).await.unwrap();
            }
        })
    }

    fn mix(&mut self, command: Command) {
        self.mix.send(command).unwrap();
    }

    /// A peer connection through its STUN and DTLS as the net thread sees them, up to its keys.
    fn connect(&mut self, room: RoomKey, leg: LegKey, role: PeerRole) -> Galene {
        let (galene, galene_address) = socket();
        let (ours, gateway) = socket();
        let stun_filter =
            stun::Filter { ufrag: "ours".into(), password: "p".repeat(22), transaction_tags: [[1; 4], [2; 4]] };
        let setup = PeerSetup { leg, room, role, cname: "c".into(), stun_filter };
        self.net.add_peer(setup, self.mix.mix_of(room).unwrap(), ours).unwrap();

        // A check for somebody else is dropped, ours comes through.
        let check = |user: &str| {
            let id = stun::TransactionId([7; 12]);
            stun::Builder::new(stun::Class::Request, id).username(user).finish("p".repeat(22).as_bytes())
        };
        galene.send_to(&check("theirs:x"), gateway).unwrap();
        galene.send_to(&check("ours:x"), gateway).unwrap();
        let event = self.net_event();
        assert!(matches!(&event, NetEvent::Stun { leg: on, from, local, bytes, .. }
            if *on == leg && *from == galene_address.into() && *local == gateway && *bytes == check("ours:x")));

        // The peer's hello overtakes the news that ICE is done: it is kept, a stranger's is not.
        self.net.send(NetCommand::SendTo { leg, to: galene_address, bytes: vec![0, 1, 2] });
        let mut buffer = [0; 100];
        assert_eq!(galene.recv(&mut buffer).unwrap(), 3);
        let (stranger, _) = socket();
        stranger.send_to(&[22, 66], gateway).unwrap();
        galene.send_to(&[22, 1], gateway).unwrap();
        galene.send_to(&check("ours:y"), gateway).unwrap();
        assert!(matches!(self.net_event(), NetEvent::Stun { .. }));
        self.net.send(NetCommand::SetPeerRemote { leg, remote: galene_address.into() });
        assert!(matches!(self.net_event(), NetEvent::Dtls { from, bytes, .. }
            if from == galene_address.into() && bytes == [22, 1]));

        let keys = SrtpKeys { local: material(1), remote: material(2) };
        self.net.send(NetCommand::SetPeerKeys { leg, keys, clock_rate_hz: 48_000 });
        let (receiver, sender) = (srtp::Receiver::new(&material(1)).unwrap(), srtp::Sender::new(&material(2)).unwrap());
        Galene { socket: galene, gateway, receiver, sender }
    }

    /// Waits until all these legs are closed.
    fn remove_legs(&mut self, legs: &[LegKey]) -> Vec<LegStats> {
        for leg in legs {
            self.net.send(NetCommand::Remove(*leg));
        }
        let mut stats = Vec::new();
        while stats.len() < legs.len() {
            match self.net_event() {
                NetEvent::Removed { leg, stats: leg_stats } => {
                    assert!(legs.contains(&leg));
                    stats.push(leg_stats);
                }
                NetEvent::Stun { .. }
                | NetEvent::Dtls { .. }
                | NetEvent::Latched { .. }
                | NetEvent::Flows { .. }
                | NetEvent::Silent { .. }
                | NetEvent::LossReported { .. } => {}
            }
        }
        stats
    }
}

fn one_call(world: &mut World) {
    let (room, caller, stream) = (RoomKey(world.key()), CallerKey(world.key()), StreamKey(world.key()));
    let (down_leg, up_leg, telephone_leg) = (LegKey(world.key()), LegKey(world.key()), LegKey(world.key()));
    world.mix(Command::OpenRoom(Box::new(Room::new(room))));

    // The telephone: SDP names an address where it is not, as behind a NAT.
    let (phone, phone_address) = socket();
    let (rtp_socket, gateway_rtp) = socket();
    let (rtcp_socket, _) = socket();
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], 9));
    let remote = TelephoneRemote {
        rtp: Some(elsewhere),
        rtcp: Some(SocketAddr::new(elsewhere.ip(), 10)),
        rtcp_mux: false,
        payload_type: 0,
        clock_rate_hz: 8000,
        signalling_host: None,
        has_claim: false,
        is_expected: true,
        asks_metrics: false,
    };
    let protection = Protection::Plain;
    let setup = TelephoneSetup { leg: telephone_leg, room, caller, ssrc: 11, cname: "c".into(), remote, protection };
    let index = world.mix.mix_of(room).unwrap();
    world.net.add_telephone(&setup, index, rtp_socket, Some(rtcp_socket)).unwrap();
    let telephone = telephone(TelephoneCodec::Pcmu, 20);
    let setup = CallerSetup {
        key: caller,
        leg: telephone_leg,
        telephone,
        ssrc: 11,
        first_sequence: 1,
        first_timestamp: 1,
        agc: true,
    };
    world.mix(Command::AddCaller { room, caller: Box::new(Caller::new(&setup).expect("libopus has memory")) });

    let mut up_galene = world.connect(room, up_leg, PeerRole::Up { caller, ssrc: 12 });
    let setup = UpSetup {
        leg: up_leg,
        telephone: TelephoneCodec::Pcmu,
        codec: RoomCodec::Opus,
        payload_type: 111,
        ssrc: 12,
        first_sequence: 1,
        first_timestamp: 1,
    };
    world.mix(Command::SetUp { caller, up: Some(Box::new(Up::new(&setup).unwrap())) });
    world.mix(Command::StartTelephone(caller));

    // Silence goes up before the telephone has sent anything.
    let packet = up_galene.receive(DatagramKind::Rtp);
    assert_eq!(RtpPacket::parse(&packet).unwrap().header.ssrc, 12);

    let mut down_galene = world.connect(room, down_leg, PeerRole::Down { stream, ssrc: 13 });
    let setup = StreamSetup { key: stream, codecs: vec![(111, RoomCodec::Opus)], always_decode: false };
    world.mix(Command::AddStream { room, stream: Box::new(Stream::new(setup).unwrap()) });

    // Four packets tell where the telephone is; from then on it gets what the room says, a packet for a packet.
    for sequence in 0..5 {
        phone.send_to(&rtp(0, sequence, 160, 14, &[0xff; 160]), gateway_rtp).unwrap();
    }
    assert_eq!(world.net_event(), NetEvent::Latched { leg: telephone_leg, remote: phone_address });
    let mut encoder = opus::Encoder::new(48_000, 0, 32_000).unwrap();
    // Meanwhile somebody else sends a stream as good as the telephone's, and louder.
    let (attacker, _) = socket();
    // And somebody on the host that SDP names tells of loss.
    let liar = UdpSocket::bind((elsewhere.ip(), 0)).unwrap();
    let mut report = [0; 100];
    let mut writer = rtcp::Writer::new(&mut report);
    writer.receiver_report(66, &[rtcp::ReportBlock { ssrc: 11, fraction_lost: 255, ..Default::default() }]);
    let report_bytes = writer.finish().unwrap();
    let (mut heard, mut held_back, mut attacks) = (false, Vec::new(), 0);
    for sequence in 0..500_u16 {
        let pcm: Vec<i16> = (0..960).map(|n| if (n / 50) % 2 == 0 { 8000 } else { -8000 }).collect();
        let mut payload = [0; 1275];
        let len = encoder.encode(&pcm, &mut payload).unwrap();
        let packet = down_galene.seal_rtp(&rtp(111, sequence, 960, 15, &payload[..len]));
        if sequence == LOST {
            held_back = packet;
        } else {
            down_galene.send(&packet);
        }
        if sequence == LOST + 1 {
            assert_eq!(down_galene.receive_request(), (15, vec![LOST]));
            down_galene.send(&held_back);
        }
        let mut buffer = [0; 2000];
        let (len, from) = phone.recv_from(&mut buffer).unwrap();
        assert_eq!(from, gateway_rtp);
        let packet = RtpPacket::parse(&buffer[..len]).unwrap();
        assert_eq!((packet.header.payload_type, packet.payload.len()), (0, 160));
        attacker.send_to(&rtp(0, sequence, 160, 66, &[0x80; 160]), gateway_rtp).unwrap();
        attacks += 1;
        liar.send_to(&report[..report_bytes], gateway_rtp).unwrap();
        phone.send_to(&rtp(0, 5 + sequence, 160, 14, &[0x90; 160]), gateway_rtp).unwrap();
        heard |= packet.payload.iter().any(|&byte| galene_sip::media::g711::decode_ulaw(byte).unsigned_abs() > 4000);
        if heard && sequence > 10 {
            break;
        }
    }
    assert!(heard, "the telephone never heard the room");
    assert_eq!(world.net_event(), NetEvent::Flows { leg: down_leg });

    world.mix(Command::RemoveStream(stream));
    world.mix(Command::CloseRoom(room));
    let mut closed = Vec::new();
    while closed.last() != Some(&MixEvent::RoomClosed(room)) {
        closed.push(world.mix_event());
    }
    assert!(closed.iter().any(|event| matches!(event, MixEvent::CallerRemoved { stats, .. }
        if (6..=2 + attacks).contains(&stats.received) && stats.sent_up > 5 && stats.ring_full == 0)));
    assert!(closed.iter().any(|event| matches!(event, MixEvent::StreamRemoved { stats, .. } if stats.decoded > 5)));

    let stats = world.remove_legs(&[telephone_leg, up_leg, down_leg]);
    // Three of the telephone's own before it was believed; of the attacker's, some may still have been under way.
    assert!((5..=3 + 2 * attacks).contains(&stats[0].dropped.stranger), "{:?} of {attacks}", stats[0]);
    assert_eq!((stats[0].rtcp_received, stats[0].reported_loss_percent, stats[0].reported), (0, 0, None));
    attacker.set_nonblocking(true).unwrap();
    assert!(attacker.recv(&mut [0; 2000]).is_err(), "he got something of the call");
    assert_eq!((stats[1].dropped.foreign_stun, stats[1].dropped.stranger), (1, 1));
    assert_eq!((stats[2].dropped.unauthentic, stats[2].recovered), (0, 1));
    assert!(stats[2].asked_again >= 1 && stats[2].round_trip.is_some(), "{:?}", stats[2]);
    assert!(stats.iter().all(|stats| stats.dropped.ring_full == 0));
    // Galene hears a goodbye.
    let bye = up_galene.receive(DatagramKind::Rtcp);
    assert!(bye.chunks(4).any(|word| word[1] == 203), "no RTCP BYE in {bye:?}");
}

#[test]
fn calls_work_end_to_end_and_leave_no_descriptor_and_no_thread() {
    // The reactor's own descriptors and thread come with its first use and stay.
    smol::block_on(smol::Timer::after(Duration::from_millis(1)));
    let (descriptors, tasks) = (entries("/proc/self/fd"), entries("/proc/self/task"));
    for _ in 0..2 {
        let (net, mix) = threads::start(Clock::start(), 2).unwrap();
        let mut world = World { net, mix, next_key: 0 };
        // One of the two mixes works on the net thread.
        assert_eq!(entries("/proc/self/task"), tasks + 2);
        let while_running = entries("/proc/self/fd");
        for _ in 0..5 {
            one_call(&mut world);
            assert_eq!(entries("/proc/self/fd"), while_running);
        }
        assert_eq!(world.mix.poll_event(), None);
        world.net.stop();
        world.mix.stop();
    }
    assert_eq!((entries("/proc/self/fd"), entries("/proc/self/task")), (descriptors, tasks));
}
