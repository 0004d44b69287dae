//! What the net thread does to each packet of an encrypted telephone, good or forged: not one call of the allocator.

mod common {
    pub(crate) mod alloc;
}

use std::time::Duration;

use common::alloc::{Counting, calls};
use galene_sip::media::srtp::{Receiver, Sender, TELEPHONE_SOURCES};
use galene_sip::wire::rtp::{RtpHeader, SrtpMaterial, SrtpProfile};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PROFILES: [SrtpProfile; 4] = [
    SrtpProfile::AeadAes256Gcm,
    SrtpProfile::AeadAes128Gcm,
    SrtpProfile::Aes128CmSha1_80,
    SrtpProfile::Aes128CmSha1_32,
];

/// A packet of 20 ms of G.711 at the start of a buffer with room for a tag.
fn rtp(ssrc: u32, sequence_number: u16) -> ([u8; 200], usize) {
    let header = RtpHeader { marker: false, payload_type: 0, sequence_number, timestamp: 0, ssrc };
    let mut buffer = [7; 200];
    let len = header.write(&mut buffer).unwrap() + 160;
    (buffer, len)
}

/// A receiver report without blocks.
fn rtcp() -> ([u8; 40], usize) {
    let mut buffer = [0; 40];
    buffer[..8].copy_from_slice(&[0x80, 201, 0, 1, 0, 0, 0, 1]);
    (buffer, 8)
}

#[test]
fn no_packet_of_an_encrypted_telephone_makes_the_net_thread_allocate() {
    for profile in PROFILES {
        let material = SrtpMaterial { profile, key: vec![1; profile.key_bytes()], salt: vec![2; profile.salt_bytes()] };
        let mut sender = Sender::new(&material).unwrap();
        let mut receiver = Receiver::for_sources(&material, TELEPHONE_SOURCES).unwrap();
        let before = calls();
        let mut opened = 0;
        for number in 0..1000_u16 {
            let (mut packet, len) = rtp(u32::from(number / 100), number);
            let len = sender.protect_rtp(&mut packet, len).unwrap();
            let mut forged = packet;
            forged[len - 1] ^= 1;
            assert!(receiver.unprotect_rtp(&mut forged[..len]).is_err());
            assert!(receiver.unprotect_rtp_after(Duration::from_secs(7200), &mut forged[..len]).is_err());
            opened += u32::from(receiver.unprotect_rtp(&mut packet[..len]).is_ok());
            let (mut packet, len) = rtcp();
            let len = sender.protect_rtcp(&mut packet, len).unwrap();
            opened += u32::from(receiver.unprotect_rtcp(&mut packet[..len]).is_ok());
        }
        assert_eq!((calls() - before, opened), (0, 2000), "{profile:?}");
    }
}
