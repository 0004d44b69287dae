//! Two peer connections with each other, over real sockets on loopback: the only IO that str0m is given here.

use super::*;
use std::io::ErrorKind;

struct End {
    peer: Peer,
    socket: Arc<UdpSocket>,
    events: Vec<PeerEvent>,
}

impl End {
    fn new(identity: &Identity, waits: Option<NominationWaits>, codecs: &[AudioCodec]) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.set_nonblocking(true).unwrap();
        let config = PeerConfig { identity, socket: Arc::clone(&socket), codecs, waits };
        let peer = Peer::new(&config, Instant::now()).unwrap();
        Self { peer, socket, events: Vec::new() }
    }

    fn step(&mut self) {
        let now = Instant::now();
        let mut buffer = [0; 2000];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => self.peer.receive(now, from, &buffer[..length], &mut self.events),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        if self.peer.next_timeout() <= now {
            self.peer.handle_timeout(now);
        }
        self.peer.drain(now, &mut self.events);
    }

    fn packets(&self) -> Vec<Packet> {
        let packet = |event: &PeerEvent| match event {
            PeerEvent::Packet(packet) => Some(packet.clone()),
            _ => None,
        };
        self.events.iter().filter_map(packet).collect()
    }
}

/// Steps both ends until `done`, or fails after five seconds.
fn run(left: &mut End, right: &mut End, mut done: impl FnMut(&mut End, &mut End) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done(left, right) {
        assert!(Instant::now() < deadline, "nothing came of it within five seconds");
        left.step();
        right.step();
        std::thread::yield_now();
    }
}

fn packet(sequence: u16, payload_type: u8) -> Packet {
    let payload = Arc::from(sequence.to_be_bytes().as_slice());
    Packet { payload_type, sequence, timestamp: u32::from(sequence) * 960, marker: sequence == 65_535, payload }
}

#[test]
fn packets_pass_unaltered_across_the_wrap_of_their_sequence_numbers() {
    let identity = Identity::generate().unwrap();
    let mut sender = End::new(&identity, None, &[AudioCodec::Opus]);
    let mut receiver = End::new(&identity, None, &[AudioCodec::Opus]);
    let offer = sender.peer.offer("stream", false).unwrap();
    assert!(offer.contains("a=setup:actpass") && offer.contains("a=ssrc:") && offer.contains("a=msid:stream "));
    assert!(!offer.contains("extmap") && !offer.contains("rtcp-fb"), "{offer}");
    let answer = receiver.peer.accept_offer(&offer, Instant::now()).unwrap();
    assert!(answer.contains("a=setup:active"), "{answer}");
    sender.peer.accept_answer(&answer, Instant::now()).unwrap();
    run(&mut sender, &mut receiver, |sender, receiver| sender.peer.is_connected() && receiver.peer.is_connected());
    let sent = [65_533, 65_535, 0, 1];
    for sequence in sent {
        sender.peer.send(Instant::now(), &packet(sequence, 111));
    }
    run(&mut sender, &mut receiver, |_, receiver| receiver.packets().len() == sent.len());
    for (received, sequence) in receiver.packets().iter().zip(sent) {
        let original = packet(sequence, 111);
        assert_eq!(
            (received.sequence, received.timestamp, received.marker),
            (sequence, original.timestamp, original.marker)
        );
        assert_eq!(received.payload, original.payload);
    }
    // A packet sent again, as after a NACK, passes if it had not come.
    sender.peer.send(Instant::now(), &packet(65_534, 111));
    run(&mut sender, &mut receiver, |_, receiver| receiver.packets().len() == sent.len() + 1);
}

#[test]
fn a_peer_that_never_tells_its_candidate_waits_for_its_nomination() {
    let identity = Identity::generate().unwrap();
    let wait = Duration::from_millis(300);
    let waits = NominationWaits { peer_reflexive: wait, ..NominationWaits::default() };
    let mut sender = End::new(&identity, Some(waits), &[AudioCodec::Opus]);
    let mut receiver = End::new(&identity, None, &[AudioCodec::Opus]);
    let offer = sender.peer.offer("stream", false).unwrap();
    let answer = receiver.peer.accept_offer(&offer, Instant::now()).unwrap();
    let (answer, candidates) = split_candidates(&answer);
    assert_eq!(candidates.len(), 1);
    let start = Instant::now();
    sender.peer.accept_answer(&answer, start).unwrap();
    run(&mut sender, &mut receiver, |sender, receiver| sender.peer.is_connected() && receiver.peer.is_connected());
    assert!(start.elapsed() >= wait, "nominated after {:?}", start.elapsed());
}

#[test]
fn a_check_that_overtakes_its_answer_or_its_candidate_costs_nothing() {
    let identity = Identity::generate().unwrap();
    for told_in_answer in [true, false] {
        let mut sender = End::new(&identity, Some(NominationWaits::default()), &[AudioCodec::Opus]);
        let mut receiver = End::new(&identity, None, &[AudioCodec::Opus]);
        let offer = sender.peer.offer("stream", false).unwrap();
        let answer = receiver.peer.accept_offer(&offer, Instant::now()).unwrap();
        let (bare, candidates) = split_candidates(&answer);
        let pause = Instant::now() + Duration::from_millis(50);
        run(&mut sender, &mut receiver, |_, _| Instant::now() > pause);
        let start = Instant::now();
        sender.peer.accept_answer(if told_in_answer { &answer } else { &bare }, start).unwrap();
        let pause = Instant::now() + Duration::from_millis(50);
        run(&mut sender, &mut receiver, |_, _| Instant::now() > pause);
        if !told_in_answer {
            sender.peer.add_candidate(&candidates[0]);
        }
        run(&mut sender, &mut receiver, |sender, receiver| sender.peer.is_connected() && receiver.peer.is_connected());
        assert!(start.elapsed() < Duration::from_millis(500), "nominated after {:?}", start.elapsed());
    }
}

#[test]
fn a_group_without_opus_agrees_on_g711() {
    let identity = Identity::generate().unwrap();
    let mut sender = End::new(&identity, None, &[AudioCodec::Opus, AudioCodec::Pcma]);
    let mut receiver = End::new(&identity, None, &[AudioCodec::Pcma]);
    let offer = sender.peer.offer("stream", false).unwrap();
    let answer = receiver.peer.accept_offer(&offer, Instant::now()).unwrap();
    assert!(answer.contains(" UDP/TLS/RTP/SAVPF 8\r\n"), "{answer}");
    sender.peer.accept_answer(&answer, Instant::now()).unwrap();
    run(&mut sender, &mut receiver, |sender, receiver| sender.peer.is_connected() && receiver.peer.is_connected());
    sender.peer.send(Instant::now(), &packet(1, 8));
    run(&mut sender, &mut receiver, |_, receiver| receiver.packets().len() == 1);
}

#[test]
fn an_ice_restart_reconnects() {
    let identity = Identity::generate().unwrap();
    let mut sender = End::new(&identity, None, &[AudioCodec::Opus]);
    let mut receiver = End::new(&identity, None, &[AudioCodec::Opus]);
    let offer = sender.peer.offer("stream", false).unwrap();
    let answer = receiver.peer.accept_offer(&offer, Instant::now()).unwrap();
    sender.peer.accept_answer(&answer, Instant::now()).unwrap();
    run(&mut sender, &mut receiver, |sender, receiver| sender.peer.is_connected() && receiver.peer.is_connected());
    let offer = sender.peer.offer("stream", true).unwrap();
    let answer = receiver.peer.accept_offer(&offer, Instant::now()).unwrap();
    sender.peer.accept_answer(&answer, Instant::now()).unwrap();
    let mut sequence = 0;
    run(&mut sender, &mut receiver, |sender, receiver| {
        sequence += 1;
        sender.peer.send(Instant::now(), &packet(sequence, 111));
        !receiver.packets().is_empty()
    });
}

#[test]
fn a_nack_names_its_packets() {
    assert_eq!(nacked(65_535, 0b101).collect::<Vec<_>>(), [65_535, 0, 2]);
}

#[test]
fn a_packet_of_the_cycle_before_the_first_cannot_be_expressed() {
    let mut extender = SequenceExtender::default();
    assert_eq!(extender.extend(2), Some(2));
    assert_eq!(extender.extend(65_535), None);
    assert_eq!(extender.extend(1), Some(1));
    assert_eq!(extender.extend(3), Some(3));
}
