//! Extended reports through the real media threads (RFC 3611): a telephone that asks is told what became of its packets, gets
//! an answer to its reference time, and what it says itself is in the counters at the end.
//!
//! The gateway's own packets are the clock, one in 20 ms. What does not come within ten seconds fails.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use galene_sip::io::clock::Clock;
use galene_sip::io::threads;
use galene_sip::media::control::*;
use galene_sip::time::NtpTime;
use galene_sip::wire::rtcp::{Dlrr, ExtendedReport, RtcpPacket, VoipMetrics, Writer, packets};
use galene_sip::wire::rtp::{DatagramKind, RtpHeader};

const PATIENCE: Duration = Duration::from_secs(10);
/// What the telephone sends with, and what the gateway does.
const THEIRS: u32 = 14;
const OURS: u32 = 11;
/// Packets of the telephone, of which these two never come.
const SENT: u16 = 120;
const LOST: [u16; 2] = [30, 31];

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What one compound says beyond SR or RR.
#[derive(Debug, Default)]
struct Told {
    metrics: Option<VoipMetrics>,
    dlrr: Option<Dlrr>,
    is_goodbye: bool,
}

fn next_report(socket: &UdpSocket) -> Told {
    let mut buffer = [0; 1500];
    let len = socket.recv(&mut buffer).expect("a report comes");
    let mut told = Told::default();
    for (at, packet) in packets(&buffer[..len]).map(Result::unwrap).enumerate() {
        match packet {
            RtcpPacket::ExtendedReport { ssrc: OURS, blocks } => {
                // RFC 3550 §6.1: a report and the CNAME come first.
                assert!(at >= 2);
                for block in blocks.iter() {
                    match block {
                        ExtendedReport::VoipMetrics(metrics) => told.metrics = Some(metrics),
                        ExtendedReport::Dlrr(items) => told.dlrr = items.iter().next(),
                        ExtendedReport::ReferenceTime(_) | ExtendedReport::Other { .. } => panic!("{block:?}"),
                    }
                }
            }
            RtcpPacket::Bye(sources) => told.is_goodbye = sources.iter().eq([OURS]),
            _ => {}
        }
    }
    told
}

#[test]
fn a_telephone_that_asks_gets_voip_metrics_and_what_it_says_of_us_is_kept() {
    let (mut net, mut mix) = threads::start(Clock::start(), 1).unwrap();
    let (room, caller, leg) = (RoomKey(1), CallerKey(2), LegKey(3));
    mix.send(Command::OpenRoom(Box::new(Room::new(room)))).unwrap();
    let ((phone, phone_rtp), (phone_rtcp, phone_rtcp_address)) = (socket(), socket());
    let ((rtp, gateway_rtp), (rtcp, gateway_rtcp)) = (socket(), socket());
    let remote = TelephoneRemote {
        rtp: Some(phone_rtp),
        rtcp: Some(phone_rtcp_address),
        rtcp_mux: false,
        payload_type: 0,
        clock_rate_hz: 8000,
        signalling_host: None,
        has_claim: true,
        is_expected: true,
        asks_metrics: true,
    };
    let protection = Protection::Plain;
    let setup = TelephoneSetup { leg, room, caller, ssrc: OURS, cname: "c".into(), remote, protection };
    net.add_telephone(&setup, mix.mix_of(room).unwrap(), rtp, Some(rtcp)).unwrap();
    let telephone = Telephone { asks_metrics: true, ..Telephone::new(TelephoneCodec::Pcmu, 0) };
    let setup =
        CallerSetup { key: caller, leg, telephone, ssrc: OURS, first_sequence: 1, first_timestamp: 1, agc: true };
    mix.send(Command::AddCaller { room, caller: Box::new(Caller::new(&setup).unwrap()) }).unwrap();
    mix.send(Command::StartTelephone(caller)).unwrap();

    let said = VoipMetrics { ssrc: OURS, loss_rate: 3, listening_mos_x10: 41, ..VoipMetrics::UNKNOWN };
    for number in 0..SENT {
        let mut buffer = [0; 1500];
        let len = phone.recv(&mut buffer).expect("the gateway speaks all the time");
        assert_eq!(DatagramKind::of(&buffer[..len]), DatagramKind::Rtp);
        let header = RtpHeader {
            marker: false,
            payload_type: 0,
            sequence_number: number,
            timestamp: u32::from(number) * 160,
            ssrc: THEIRS,
        };
        if !LOST.contains(&number) {
            phone.send_to(&[&header.to_bytes()[..], &[0x90; 160]].concat(), gateway_rtp).unwrap();
        }
        if number == 10 {
            let mut compound = [0; 200];
            let mut writer = Writer::new(&mut compound);
            writer.receiver_report(THEIRS, &[]);
            writer.reference_time(THEIRS, NtpTime(0x0000_1234_5678_0000));
            writer.extended_report(THEIRS, None, Some(&said));
            let len = writer.finish().unwrap();
            phone_rtcp.send_to(&compound[..len], gateway_rtcp).unwrap();
        }
    }
    net.send(NetCommand::Remove(leg));
    let mut reports = Vec::new();
    while !reports.last().is_some_and(|told: &Told| told.is_goodbye) {
        reports.push(next_report(&phone_rtcp));
    }
    let answers: Vec<_> = reports.iter().filter_map(|told| told.dlrr).collect();
    assert_eq!(
        answers.iter().map(|dlrr| (dlrr.ssrc, dlrr.last_reference_time)).collect::<Vec<_>>(),
        [(THEIRS, 0x1234_5678)]
    );
    assert!(answers[0].delay < 65_536 * 10, "{answers:?}");

    let last = reports.last().and_then(|told| told.metrics).expect("the goodbye has metrics");
    // Of the 52 to 120 packets that the mix had last told of.
    assert!(last.ssrc == THEIRS && (4..=9).contains(&last.loss_rate) && last.discard_rate == 0, "{last:?}");
    assert_eq!((last.burst_density, last.burst_duration_ms, last.gap_density), (255, 40, 0), "{last:?}");
    assert!((500..=1200).contains(&last.gap_duration_ms), "{last:?}");
    // Nobody has answered a sender report, so there is no round trip.
    assert_eq!((last.round_trip_ms, last.r_factor), (0, 127));
    assert!((25..=43).contains(&last.listening_mos_x10), "{last:?}");
    assert!(reports.iter().filter(|told| told.metrics.is_some()).count() <= 2, "not with every report");

    let stats = smol::block_on(async {
        loop {
            if let Some(NetEvent::Removed { stats, .. }) = net.poll_event() {
                return stats;
            }
            net.readable().await.unwrap();
        }
    });
    assert_eq!(stats.heard_there, Some(said));
    net.stop();
    mix.stop();
}
