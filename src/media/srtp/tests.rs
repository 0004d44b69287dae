//! webrtc-srtp is the oracle, both ways and for all profiles.

use proptest::prelude::*;
use webrtc_srtp::context::Context;
use webrtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::random::Random;
use crate::wire::rtp::SrtpProfile;

const PROFILES: [(SrtpProfile, ProtectionProfile); 4] = [
    (SrtpProfile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm),
    (SrtpProfile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (SrtpProfile::Aes128CmSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
    (SrtpProfile::Aes128CmSha1_32, ProtectionProfile::Aes128CmHmacSha1_32),
];

fn material(profile: SrtpProfile) -> SrtpMaterial {
    let mut random = Random::for_test(7);
    let (mut key, mut salt) = (vec![0; profile.key_bytes()], vec![0; profile.salt_bytes()]);
    random.fill(&mut key);
    random.fill(&mut salt);
    SrtpMaterial { profile, key, salt }
}

fn oracle(material: &SrtpMaterial, profile: ProtectionProfile) -> Context {
    let (rtp, rtcp) = (srtp_replay_protection(512), srtcp_replay_protection(512));
    Context::new(&material.key, &material.salt, profile, Some(rtp), Some(rtcp)).unwrap()
}

fn rtp(ssrc: u32, sequence_number: u16, payload: &[u8]) -> Vec<u8> {
    let header = RtpHeader { marker: false, payload_type: 111, sequence_number, timestamp: 960, ssrc };
    let mut packet = header.to_bytes().to_vec();
    packet.extend_from_slice(payload);
    packet
}

/// A receiver report with a block.
fn rtcp(ssrc: u32, content: u8) -> Vec<u8> {
    let mut packet = vec![0x81, 201, 0, 7];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[content; 24]);
    packet
}

fn protect_rtp(sender: &mut Sender, plain: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buf = [plain, &[0; MAX_RTP_OVERHEAD_BYTES]].concat();
    let len = sender.protect_rtp(&mut buf, plain.len())?;
    buf.truncate(len);
    Ok(buf)
}

fn protect_rtcp(sender: &mut Sender, plain: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buf = [plain, &[0; MAX_RTCP_OVERHEAD_BYTES]].concat();
    let len = sender.protect_rtcp(&mut buf, plain.len())?;
    buf.truncate(len);
    Ok(buf)
}

#[test]
fn the_oracle_reads_what_we_send_over_two_wraps() {
    for (profile, oracle_profile) in PROFILES {
        let material = material(profile);
        let (mut sender, mut oracle) = (Sender::new(&material).unwrap(), oracle(&material, oracle_profile));
        let mut sequence_number = 65_000u16;
        for step in 0..4000u32 {
            let plain = rtp(5, sequence_number, &step.to_be_bytes());
            let protected = protect_rtp(&mut sender, &plain).unwrap();
            assert_ne!(protected[12..16], plain[12..16]);
            assert_eq!(oracle.decrypt_rtp(&protected).unwrap(), plain, "{profile:?} step {step}");
            sequence_number = sequence_number.wrapping_add(1 + (step % 61) as u16);
            if step % 50 == 0 {
                let plain = rtcp(5, step as u8);
                let protected = protect_rtcp(&mut sender, &plain).unwrap();
                assert_eq!(oracle.decrypt_rtcp(&protected).unwrap(), plain);
            }
        }
    }
}

#[test]
fn we_read_what_the_oracle_sends_over_a_wrap_out_of_order_and_only_once() {
    for (profile, oracle_profile) in PROFILES {
        let material = material(profile);
        let (mut oracle, mut receiver) = (oracle(&material, oracle_profile), Receiver::new(&material).unwrap());
        let mut packets: Vec<_> = (0..400u16)
            .map(|step| {
                let plain = rtp(9, 65_400u16.wrapping_add(step), &[step as u8; 50]);
                (oracle.encrypt_rtp(&plain).unwrap().to_vec(), plain)
            })
            .collect();
        for pair in packets.chunks_mut(3) {
            pair.reverse();
        }
        for (protected, plain) in &packets {
            let mut buf = protected.clone();
            let len = receiver.unprotect_rtp(&mut buf).unwrap();
            assert_eq!(&buf[..len], plain);
            let mut buf = protected.clone();
            assert_eq!(receiver.unprotect_rtp(&mut buf), Err(SrtpError::Replayed));
        }
        for content in 0..5 {
            let plain = rtcp(9, content);
            let protected = oracle.encrypt_rtcp(&plain).unwrap().to_vec();
            let mut buf = protected.clone();
            let len = receiver.unprotect_rtcp(&mut buf).unwrap();
            assert_eq!(&buf[..len], plain);
            let mut buf = protected.clone();
            assert_eq!(receiver.unprotect_rtcp(&mut buf), Err(SrtpError::Replayed));
        }
    }
}

#[test]
fn a_packet_older_than_the_window_is_refused() {
    let material = material(SrtpProfile::AeadAes128Gcm);
    let (mut sender, mut receiver) = (Sender::new(&material).unwrap(), Receiver::new(&material).unwrap());
    let packets: Vec<_> = (0..600).map(|number| protect_rtp(&mut sender, &rtp(1, number, b"x")).unwrap()).collect();
    receiver.unprotect_rtp(&mut packets[599].clone()).unwrap();
    assert_eq!(receiver.unprotect_rtp(&mut packets[87].clone()), Err(SrtpError::Replayed));
    receiver.unprotect_rtp(&mut packets[88].clone()).unwrap();
}

#[test]
fn a_silence_in_which_the_sequence_number_turned_around_does_not_end_the_hearing() {
    let material = material(SrtpProfile::Aes128CmSha1_80);
    let (mut sender, mut receiver) = (Sender::new(&material).unwrap(), Receiver::new(&material).unwrap());
    let protect = |sender: &mut Sender, number: u32| protect_rtp(sender, &rtp(1, number as u16, b"x")).unwrap();
    let first = protect(&mut sender, 60_000);
    assert!(receiver.unprotect_rtp(&mut first.clone()).is_ok());
    // Two hours of packets are lost on their way.
    for number in (60_000 + 30_000..420_000).step_by(30_000) {
        protect(&mut sender, number);
    }
    let later = protect(&mut sender, 420_000);
    assert!(receiver.unprotect_rtp(&mut later.clone()).is_err());
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    let too_short = Duration::from_secs(100);
    assert_eq!(receiver.unprotect_rtp_after(too_short, &mut later.clone()), Err(SrtpError::Forged));
    let mut forged = later.clone();
    forged[13] ^= 1;
    assert_eq!(receiver.unprotect_rtp_after(hours(2), &mut forged), Err(SrtpError::Forged));
    assert_eq!(receiver.unprotect_rtp_after(hours(2), &mut later.clone()), Ok(13));
    // From here on all is as ever, and what was heard before the silence is not heard again.
    assert!(receiver.unprotect_rtp(&mut protect(&mut sender, 420_001)).is_ok());
    for mut old in [first, later] {
        assert!(receiver.unprotect_rtp(&mut old.clone()).is_err());
        assert!(receiver.unprotect_rtp_after(hours(9), &mut old).is_err());
    }
}

#[test]
fn a_packet_that_is_not_authentic_is_left_as_it_was() {
    for (profile, _) in PROFILES {
        let mut sender = Sender::new(&material(profile)).unwrap();
        let other = SrtpMaterial { key: vec![9; profile.key_bytes()], ..material(profile) };
        let mut receiver = Receiver::new(&other).unwrap();
        let protected = protect_rtp(&mut sender, &rtp(1, 1, b"some payload")).unwrap();
        let mut packet = protected.clone();
        assert_eq!(receiver.unprotect_rtp(&mut packet), Err(SrtpError::Forged));
        assert_eq!(packet, protected, "{profile:?}");
    }
}

#[test]
fn every_flipped_bit_is_noticed_and_makes_no_state() {
    for (profile, _) in PROFILES {
        let material = material(profile);
        let (mut sender, mut receiver) = (Sender::new(&material).unwrap(), Receiver::new(&material).unwrap());
        let protected = protect_rtp(&mut sender, &rtp(1, 1, b"some payload")).unwrap();
        let protected_rtcp = protect_rtcp(&mut sender, &rtcp(1, 1)).unwrap();
        for bit in 0..protected.len() * 8 {
            let mut forged = protected.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.unprotect_rtp(&mut forged).is_err(), "{profile:?} bit {bit}");
        }
        for bit in 0..protected_rtcp.len() * 8 {
            let mut forged = protected_rtcp.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.unprotect_rtcp(&mut forged).is_err(), "{profile:?} RTCP bit {bit}");
        }
        assert_eq!(receiver.sources.used, 0);
        assert!(receiver.unprotect_rtp(&mut protected.clone()).is_ok());
        assert!(receiver.unprotect_rtcp(&mut protected_rtcp.clone()).is_ok());
        assert_eq!(receiver.sources.used, 1);
    }
}

#[test]
fn no_index_is_used_twice() {
    let mut sender = Sender::new(&material(SrtpProfile::AeadAes256Gcm)).unwrap();
    assert!(protect_rtp(&mut sender, &rtp(1, 65_535, b"")).is_ok());
    assert_eq!(protect_rtp(&mut sender, &rtp(1, 65_535, b"")), Err(SrtpError::IndexUsed));
    assert_eq!(protect_rtp(&mut sender, &rtp(1, 65_000, b"")), Err(SrtpError::IndexUsed));
    assert!(protect_rtp(&mut sender, &rtp(1, 0, b"")).is_ok());
    assert!(protect_rtp(&mut sender, &rtp(2, 65_535, b"")).is_ok());
}

#[test]
fn limits_are_errors() {
    let material = material(SrtpProfile::Aes128CmSha1_80);
    let (mut sender, mut receiver) = (Sender::new(&material).unwrap(), Receiver::new(&material).unwrap());
    let mut buf = [0x80; 40];
    assert_eq!(sender.protect_rtp(&mut buf, 31), Err(SrtpError::NoRoom));
    assert_eq!(sender.protect_rtp(&mut buf, 41), Err(SrtpError::NoRoom));
    assert_eq!(sender.protect_rtp(&mut buf, 5), Err(SrtpError::Malformed));
    assert_eq!(sender.protect_rtcp(&mut buf, 7), Err(SrtpError::Malformed));
    for ssrc in 0..MAX_SOURCES as u32 {
        assert!(protect_rtp(&mut sender, &rtp(ssrc, 1, b"")).is_ok());
    }
    assert_eq!(protect_rtp(&mut sender, &rtp(99, 1, b"")), Err(SrtpError::TooManySources));
    let mut clear = protect_rtcp(&mut sender, &rtcp(1, 1)).unwrap();
    let flag = clear.len() - 14;
    clear[flag] &= 0x7f;
    assert_eq!(receiver.unprotect_rtcp(&mut clear), Err(SrtpError::NotEncrypted));
    let short = SrtpMaterial { key: vec![0; 5], ..material };
    assert_eq!(Sender::new(&short).unwrap_err(), SrtpError::KeyLength { key: 5, salt: 14 });
}

proptest! {
    #[test]
    fn no_bytes_make_the_receiver_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), is_gcm in any::<bool>()) {
        let profile = if is_gcm { SrtpProfile::AeadAes256Gcm } else { SrtpProfile::Aes128CmSha1_80 };
        let mut receiver = Receiver::new(&material(profile)).unwrap();
        for first in [bytes.first().copied().unwrap_or(0), 0x80, 0x9f] {
            let mut packet = bytes.clone();
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            prop_assert!(receiver.unprotect_rtp(&mut packet.clone()).is_err());
            prop_assert!(receiver.unprotect_rtcp(&mut packet).is_err());
        }
    }
}
