//! RFC 5769 vectors, round trips, and anything for bytes.

use std::net::SocketAddr;

use md5::{Digest, Md5};
use proptest::prelude::*;

use super::*;

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn sample_request() -> Vec<u8> {
    hex("00 01 00 58 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae 80 22 00 10 53 54 55 4e 20 74 65 73 74 20 63 6c
         69 65 6e 74 00 24 00 04 6e 00 01 ff 80 29 00 08 93 2f f9 b1 51 26 3b 36 00 06 00 09 65 76 74 6a 3a 68 36 76
         59 20 20 20 00 08 00 14 9a ea a7 0c bf d8 cb 56 78 1e f2 b5 b2 d3 f2 49 c1 b5 71 a2 80 28 00 04 e5 7a 3b cf")
}

fn id(byte: u8) -> TransactionId {
    TransactionId([byte; 12])
}

#[test]
fn the_sample_request_of_rfc_5769_is_read_and_verified() {
    let bytes = sample_request();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class, message.method), (Class::Request, BINDING));
    assert_eq!(message.username, Some("evtj:h6vY"));
    assert_eq!(message.priority, Some(0x6e00_01ff));
    assert_eq!(message.role, Some(RoleAttribute::Controlled(0x932f_f9b1_5126_3b36)));
    assert!(message.has_fingerprint && !message.use_candidate && message.unknown_attributes().is_empty());
    assert!(message.verify(PASSWORD) && !message.verify(b"another"));
    let filter = |ufrag: &str, password: &str| Filter {
        ufrag: ufrag.into(),
        password: password.into(),
        transaction_tags: [[0xb7, 0xe7, 0xa7, 0x01], [0; 4]],
    };
    assert!(filter("evtj", "VOkJxbRl1RmTxUk/WvJxBt").accepts(&bytes));
    assert!(!filter("evt", "VOkJxbRl1RmTxUk/WvJxBt").accepts(&bytes));
    assert!(!filter("evtj", "").accepts(&bytes));
}

#[test]
fn the_sample_ipv4_response_of_rfc_5769_is_read_and_verified() {
    let bytes = hex(
        "01 01 00 3c 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae 80 22 00 0b 74 65 73 74 20 76 65 63 74 6f 72 20
         00 20 00 08 00 01 a1 47 e1 12 a6 43 00 08 00 14 2b 91 f5 99 fd 9e 90 c3 8c 74 89 f9 2a f9 ba 53 f0 6b e7 d7
         80 28 00 04 c0 7d 4c 96",
    );
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.class, Class::Success);
    assert_eq!(message.mapped_address, Some("192.0.2.1:32853".parse().unwrap()));
    assert!(message.has_fingerprint && message.verify(PASSWORD));
}

#[test]
fn the_sample_ipv6_response_of_rfc_5769_is_read_and_verified() {
    let bytes = hex(
        "01 01 00 48 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae 80 22 00 0b 74 65 73 74 20 76 65 63 74 6f 72 20
         00 20 00 14 00 02 a1 47 01 13 a9 fa a5 d3 f1 79 bc 25 f4 b5 be d2 b9 d9 00 08 00 14 a3 82 95 4e 4b e6 7b f1
         17 84 c9 7c 82 92 c2 75 bf e3 ed 41 80 28 00 04 c8 fb 0b 4c",
    );
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.mapped_address, Some("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap()));
    assert!(message.has_fingerprint && message.verify(PASSWORD));
}

#[test]
fn the_sample_long_term_request_of_rfc_5769_is_verified() {
    let bytes = hex(
        "00 01 00 60 21 12 a4 42 78 ad 34 33 c6 ad 72 c0 29 da 41 2e 00 06 00 12 e3 83 9e e3 83 88 e3 83 aa e3 83 83
         e3 82 af e3 82 b9 00 00 00 15 00 1c 66 2f 2f 34 39 39 6b 39 35 34 64 36 4f 4c 33 34 6f 4c 39 46 53 54 76 79
         36 34 73 41 00 14 00 0b 65 78 61 6d 70 6c 65 2e 6f 72 67 00 00 08 00 14 f6 70 24 65 6d d6 4a 3e 02 b8 e0 71
         2e 85 c9 a2 8c a8 96 66",
    );
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.username, Some("マトリックス"));
    assert!(message.verify(&Md5::digest("マトリックス:example.org:TheMatrIX")) && !message.has_fingerprint);
    assert_eq!((message.realm, message.nonce), (Some("example.org"), Some(&b"f//499k954d6OL34oL9FSTvy64sA"[..])));
    assert!(message.verify(&long_term_key("マトリックス", "example.org", "TheMatrIX")));
}

#[test]
fn what_is_written_is_read_back() {
    for address in ["192.0.2.7:4000", "[2001:db8::9]:65535"].map(|text| text.parse::<SocketAddr>().unwrap()) {
        let bytes = Builder::new(Class::Success, id(7)).xor_mapped_address(address).finish(b"secret");
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class, message.mapped_address), (Class::Success, Some(address)));
        assert!(message.has_fingerprint && message.verify(b"secret"));
    }
    let bytes = Builder::new(Class::Request, id(8))
        .username("us:them")
        .priority(5)
        .use_candidate()
        .role(RoleAttribute::Controlling(9))
        .finish(b"k");
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.username, message.priority), (Some("us:them"), Some(5)));
    assert_eq!((message.use_candidate, message.role), (true, Some(RoleAttribute::Controlling(9))));
    let bytes = Builder::new(Class::Error, id(9)).error_code(487, "Role Conflict").finish(b"k");
    assert_eq!(Message::parse(&bytes).unwrap().error_code, Some(487));
}

#[test]
fn what_turn_writes_is_read_back() {
    let (v4, v6) = ("192.0.2.7:4000".parse().unwrap(), "[2001:db8::9]:65535".parse().unwrap());
    let bytes = Builder::of(ALLOCATE, Class::Request, id(1))
        .requested_transport_udp()
        .requested_family(AddressFamily::V6)
        .additional_family_v6()
        .lifetime_s(777)
        .realm("lab")
        .nonce(b"\xff\x00n")
        .finish_plain();
    assert_eq!(bytes[..2], [0x00, 0x03]);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class, message.method, message.has_fingerprint), (Class::Request, ALLOCATE, true));
    assert_eq!((message.requested_transport, message.requested_family), (Some(17), Some(AddressFamily::V6)));
    assert_eq!(message.additional_family, Some(AddressFamily::V6));
    assert_eq!((message.lifetime_s, message.realm, message.nonce), (Some(777), Some("lab"), Some(&b"\xff\x00n"[..])));
    assert!(message.unknown_attributes().is_empty() && !message.verify(b""));

    let bytes = Builder::of(CHANNEL_BIND, Class::Error, id(2))
        .channel(0x4001)
        .xor_peer_address(v4)
        .xor_relayed_address(v6)
        .xor_relayed_address(v4)
        .alternate_server(v6)
        .alternate_domain("turn.test")
        .data(b"hello")
        .finish_unsigned();
    assert_eq!(bytes[..2], [0x01, 0x19]);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class, message.method, message.channel), (Class::Error, CHANNEL_BIND, Some(0x4001)));
    assert_eq!((message.peer_address, message.relayed_address), (Some(v4), Some(v6)));
    assert_eq!((message.further_relayed_address, message.alternate_domain), (Some(v4), Some("turn.test")));
    assert_eq!((message.alternate_server, message.data), (Some(v6), Some(&b"hello"[..])));
}

#[test]
fn every_method_and_class_comes_back() {
    for method in 0..=0x0fff {
        for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
            let bytes = Builder::of(method, class, id(1)).finish_unsigned();
            let message = Message::parse(&bytes).unwrap();
            assert_eq!((message.method, message.class), (method, class));
        }
    }
}

#[test]
fn an_unknown_required_attribute_is_named_and_an_optional_one_ignored() {
    let mut bytes = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    bytes.extend([1; 12]);
    bytes.extend([0x7f, 0x01, 0, 0]);
    bytes.extend([0xc0, 0x57, 0, 4, 1, 2, 3, 4]);
    assert_eq!(Message::parse(&bytes).unwrap().unknown_attributes(), [0x7f01]);
}

#[test]
fn attributes_behind_the_integrity_do_not_count() {
    let signed = Builder::new(Class::Request, id(1)).username("a:b").finish(b"k");
    let mut bytes = signed[..signed.len() - 8].to_vec();
    bytes.extend([0x00, 0x25, 0, 0]); // USE-CANDIDATE, added by someone else
    let len = (bytes.len() - HEADER_BYTES) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify(b"k") && !message.use_candidate);
}

#[test]
fn the_filter_takes_our_checks_and_our_responses_only() {
    let filter = Filter { ufrag: "us".into(), password: "secret".into(), transaction_tags: [[7; 4], [8; 4]] };
    let check = |name: &str, key: &[u8]| Builder::new(Class::Request, id(1)).username(name).finish(key);
    assert!(filter.accepts(&check("us:them", b"secret")));
    assert!(!filter.accepts(&check("us:them", b"guess")));
    assert!(!filter.accepts(&check("they:them", b"secret")));
    assert!(filter.accepts(&Builder::new(Class::Success, id(7)).finish(b"theirs")));
    assert!(!filter.accepts(&Builder::new(Class::Success, id(6)).finish(b"theirs")));
    assert!(!filter.accepts(&[0x80; 60]));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::parse(&bytes);
    }

    #[test]
    fn no_attributes_make_it_panic(body in proptest::collection::vec(0u8..64, 0..40usize)) {
        let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(&body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let len = (bytes.len() - HEADER_BYTES) as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        if let Ok(message) = Message::parse(&bytes) {
            message.verify(b"key");
        }
    }

    #[test]
    fn a_flipped_bit_before_the_fingerprint_is_always_noticed(at in 0usize..100, bit in 0u8..8) {
        let mut bytes = sample_request();
        bytes[at] ^= 1 << bit;
        prop_assert!(Message::parse(&bytes).is_err());
    }
}
