//! An encrypted telephone at the real net thread, with real sockets on loopback: what moves its latch, what goes out, new keys.
//!
//! It waits for packets and events, never for time: what does not come within ten seconds fails.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use galene_sip::io::clock::Clock;
use galene_sip::io::net::NetHandle;
use galene_sip::io::threads;
use galene_sip::media::control::*;
use galene_sip::wire::rtp::{DatagramKind, RtpHeader, SrtpKeys, SrtpMaterial, SrtpProfile};
use telephone::telephone;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

#[path = "common/telephone.rs"]
mod telephone;

const PATIENCE: Duration = Duration::from_secs(10);

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn rtp(sequence_number: u16) -> Vec<u8> {
    let timestamp = u32::from(sequence_number) * 160;
    let header = RtpHeader { marker: false, payload_type: 0, sequence_number, timestamp, ssrc: 14 };
    [&header.to_bytes()[..], &[0x90; 160]].concat()
}

fn material(byte: u8) -> SrtpMaterial {
    let profile = SrtpProfile::Aes128CmSha1_32;
    SrtpMaterial { profile, key: vec![byte; profile.key_bytes()], salt: vec![byte; profile.salt_bytes()] }
}

fn keys(byte: u8) -> SrtpKeys {
    SrtpKeys { local: material(byte), remote: material(byte + 1) }
}

/// The telephone's two contexts, of an implementation that is not ours.
fn contexts(keys: &SrtpKeys) -> (Context, Context) {
    let context = |material: &SrtpMaterial| {
        Context::new(&material.key, &material.salt, ProtectionProfile::Aes128CmHmacSha1_32, None, None).unwrap()
    };
    (context(&keys.remote), context(&keys.local))
}

fn event(net: &mut NetHandle) -> NetEvent {
    smol::block_on(async {
        loop {
            if let Some(event) = net.poll_event() {
                return event;
            }
            let timeout = async {
                smol::Timer::after(PATIENCE).await;
                panic!("nothing happened on the net thread");
            };
            smol::future::or(net.readable(), timeout).await.unwrap();
        }
    })
}

/// The next RTP packet that `ours` can decrypt; others, under other keys, are counted.
fn hear(phone: &UdpSocket, ours: &mut Context) -> usize {
    for others in 0.. {
        let mut buffer = [0; 2000];
        let len = phone.recv(&mut buffer).unwrap();
        if DatagramKind::of(&buffer[..len]) != DatagramKind::Rtp {
            continue;
        }
        if let Ok(plain) = ours.decrypt_rtp(&buffer[..len]) {
            assert_eq!((len, plain.len()), (176, 172));
            return others;
        }
        assert!(others < 200, "nothing that the telephone can decrypt");
    }
    unreachable!()
}

#[test]
fn only_authentic_packets_move_an_encrypted_telephone_and_new_keys_make_no_gap() {
    let (mut net, mut mix) = threads::start(Clock::start(), 1).unwrap();
    let (room, caller, leg) = (RoomKey(1), CallerKey(2), LegKey(3));
    mix.send(Command::OpenRoom(Box::new(Room::new(room)))).unwrap();
    let ((rtp_socket, gateway), (rtcp_socket, _)) = (socket(), socket());
    let ((phone, phone_address), (signalled, signalled_address)) = (socket(), socket());
    let rtp_at = Some(signalled_address);
    let remote = TelephoneRemote {
        rtp: rtp_at,
        rtcp: None,
        rtcp_mux: true,
        payload_type: 0,
        clock_rate_hz: 8000,
        signalling_host: None,
        has_claim: true,
        is_expected: true,
        asks_metrics: false,
    };
    let setup =
        TelephoneSetup { leg, room, caller, ssrc: 11, cname: "c".into(), remote, protection: Protection::Awaited };
    net.add_telephone(&setup, mix.mix_of(room).unwrap(), rtp_socket, Some(rtcp_socket)).unwrap();
    let setup = CallerSetup {
        key: caller,
        leg,
        telephone: telephone(TelephoneCodec::Pcmu, 20),
        ssrc: 11,
        first_sequence: 1,
        first_timestamp: 1,
        agc: true,
    };
    mix.send(Command::AddCaller { room, caller: Box::new(Caller::new(&setup).expect("libopus has memory")) }).unwrap();
    mix.send(Command::StartTelephone(caller)).unwrap();

    // Keys come, and with them the first packet: it goes to the signalled address, and none went before in the clear.
    net.send(NetCommand::SetTelephoneProtection { leg, protection: Protection::Srtp(keys(1)) });
    let (mut seals, mut opens) = contexts(&keys(1));
    assert_eq!(hear(&signalled, &mut opens), 0);

    // Plain and forged packets from the signalled address itself, which is believed at once otherwise, move nothing.
    for sequence in 0..5 {
        signalled.send_to(&rtp(sequence), gateway).unwrap();
        let mut forged = seals.encrypt_rtp(&rtp(1000 + sequence)).unwrap().to_vec();
        forged[20] ^= 1;
        signalled.send_to(&forged, gateway).unwrap();
    }
    for sequence in 10..14 {
        let sealed = seals.encrypt_rtp(&rtp(2000 + sequence)).unwrap();
        phone.send_to(&sealed, gateway).unwrap();
    }
    assert_eq!(event(&mut net), NetEvent::Latched { leg, remote: phone_address });
    hear(&phone, &mut opens);

    // New keys: what was under way under the old ones still counts, and what we send is under the new ones.
    net.send(NetCommand::SetTelephoneProtection { leg, protection: Protection::Srtp(keys(5)) });
    let (mut new_seals, mut new_opens) = contexts(&keys(5));
    hear(&phone, &mut new_opens);
    phone.send_to(&seals.encrypt_rtp(&rtp(2014)).unwrap(), gateway).unwrap();
    phone.send_to(&new_seals.encrypt_rtp(&rtp(2015)).unwrap(), gateway).unwrap();
    phone.send_to(&new_seals.encrypt_rtp(&rtp(2016)).unwrap(), gateway).unwrap();
    // Ten packets of ours later, at the pace of the ticks, all of these have been read.
    for _ in 0..10 {
        hear(&phone, &mut new_opens);
    }
    mix.send(Command::CloseRoom(room)).unwrap();
    net.send(NetCommand::Remove(leg));
    let stats = loop {
        if let NetEvent::Removed { stats, .. } = event(&mut net) {
            break stats;
        }
    };
    assert_eq!(stats.dropped.unauthentic, 10, "{stats:?}");
    // The first packet of the telephone's own address is believed, since it is authentic.
    assert_eq!((stats.received, stats.dropped.stranger, stats.dropped.malformed), (7, 0, 0), "{stats:?}");
    net.stop();
    mix.stop();
}
