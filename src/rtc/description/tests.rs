//! Descriptions as Galene (pion) writes them, and bad ones.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::rtc::dtls::DtlsRole;
use crate::rtc::fingerprint::{Fingerprint, FingerprintHash};
use crate::rtc::ice::Credentials;

/// Two lines of one stream; the candidates stand in the first, as pion has them.
const OFFER: &str = "v=0\r\n\
o=- 4215775240449105457 1700000000 IN IP4 0.0.0.0\r\n\
s=-\r\n\
t=0 0\r\n\
a=msid-semantic:WMS*\r\n\
a=fingerprint:sha-256 BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD\r\n\
a=group:BUNDLE 0 1\r\n\
m=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
c=IN IP4 0.0.0.0\r\n\
a=setup:actpass\r\n\
a=mid:0\r\n\
a=ice-ufrag:AbCdEfGhIjKlMnOp\r\n\
a=ice-pwd:AbCdEfGhIjKlMnOpQrStUvWxYz012345\r\n\
a=rtcp-mux\r\n\
a=rtpmap:96 VP8/90000\r\n\
a=candidate:1 1 udp 2130706431 192.0.2.4 40001 typ host\r\n\
a=candidate:1 2 udp 2130706431 192.0.2.4 40001 typ host\r\n\
a=candidate:2 1 udp 2130706431 4f3a9b.local 40001 typ host\r\n\
a=sendonly\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 100 112 9\r\n\
c=IN IP4 0.0.0.0\r\n\
a=setup:actpass\r\n\
a=mid:1\r\n\
a=ice-ufrag:AbCdEfGhIjKlMnOp\r\n\
a=ice-pwd:AbCdEfGhIjKlMnOpQrStUvWxYz012345\r\n\
a=rtcp-mux\r\n\
a=rtpmap:100 red/48000/2\r\n\
a=rtpmap:112 OPUS/48000/2\r\n\
a=fmtp:112 minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1\r\n\
a=sendonly\r\n\
m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n\
c=IN IP4 0.0.0.0\r\n\
a=mid:2\r\n";

fn local(text: &str, f: impl FnOnce(LocalDescription<'_>) -> String) -> String {
    let candidates: Vec<SocketAddr> = text.split(' ').map(|candidate| candidate.parse().unwrap()).collect();
    f(LocalDescription {
        session_id: 1,
        version: 2,
        credentials: &Credentials { ufrag: "usernameF".into(), password: "p".repeat(24) },
        ice_lite: false,
        candidates: &candidates,
        server_candidates: &[],
        trickles: false,
        fingerprint: &Fingerprint::of(FingerprintHash::Sha256, b"certificate"),
    })
}

fn voice() -> Voice {
    Voice { ssrc: 7, cname: "cname".into(), stream_id: "stream".into(), track_id: "track".into() }
}

#[test]
fn our_offer_says_what_galene_expects() {
    let offer = local("192.0.2.1:5000 [2001:db8::1]:5000", |local| local.offer(&voice()));
    let expected = "v=0\r\n\
o=- 1 2 IN IP4 127.0.0.1\r\n\
s=-\r\n\
t=0 0\r\n\
a=group:BUNDLE 0\r\n\
a=msid-semantic: WMS *\r\n\
m=audio 5000 UDP/TLS/RTP/SAVPF 111 9 0 8\r\n\
c=IN IP4 192.0.2.1\r\n\
a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host\r\n\
a=candidate:2 1 udp 2130706175 2001:db8::1 5000 typ host\r\n\
a=end-of-candidates\r\n\
a=ice-ufrag:usernameF\r\n\
a=ice-pwd:pppppppppppppppppppppppp\r\n\
a=ice-options:trickle\r\n\
a=setup:actpass\r\n\
a=mid:0\r\n\
a=sendonly\r\n\
a=rtcp-mux\r\n\
a=rtpmap:111 opus/48000/2\r\n\
a=fmtp:111 minptime=10;useinbandfec=1\r\n\
a=rtpmap:9 G722/8000\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=msid:stream track\r\n\
a=ssrc:7 cname:cname\r\n\
a=ssrc:7 msid:stream track\r\n";
    let (fingerprint, others): (Vec<&str>, Vec<&str>) = offer.lines().partition(|line| line.contains("fingerprint"));
    assert_eq!(others, expected.lines().collect::<Vec<_>>());
    assert_eq!(fingerprint.len(), 1);
    assert_eq!(RemoteDescription::parse(&offer).unwrap().candidates.len(), 2);
}

#[test]
fn an_offer_of_pion_is_read() {
    let offer = RemoteDescription::parse(OFFER).unwrap();
    assert_eq!(offer.credentials.ufrag, "AbCdEfGhIjKlMnOp");
    assert_eq!(offer.fingerprints.len(), 1);
    assert_eq!((offer.setup, offer.sends, offer.ice_lite), (Setup::ActPass, true, false));
    let addresses: Vec<String> = offer.candidates.iter().map(|candidate| candidate.address.to_string()).collect();
    assert_eq!(addresses, ["192.0.2.4:40001"]);
    let opus = PayloadType { number: 112, codec: Codec::Opus };
    let g722 = PayloadType { number: 9, codec: Codec::G722 };
    assert_eq!(offer.negotiated.payload_types, [opus, g722]);
    assert_eq!((offer.negotiated.preferred(), offer.negotiated.codec(9)), (opus, Some(Codec::G722)));
    assert_eq!(offer.negotiated.codec(100), None);
}

#[test]
fn our_answer_takes_the_audio_and_refuses_the_rest() {
    let offer = RemoteDescription::parse(OFFER).unwrap();
    let answer = local("192.0.2.1:5000", |local| local.answer(&offer, DtlsRole::Client));
    let lines: Vec<&str> = answer.lines().filter(|line| line.starts_with("m=")).collect();
    let expected = [
        "m=video 0 UDP/TLS/RTP/SAVPF 96",
        "m=audio 5000 UDP/TLS/RTP/SAVPF 112 9",
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
    ];
    assert_eq!(lines, expected);
    for wanted in [
        "a=group:BUNDLE 1",
        "a=setup:active",
        "a=mid:1",
        "a=recvonly",
        "a=rtpmap:112 opus/48000/2",
        "a=rtpmap:96 VP8/90000",
    ] {
        assert!(answer.lines().any(|line| line == wanted), "{wanted} is missing in\n{answer}");
    }
    let read = RemoteDescription::parse(&answer).unwrap();
    assert_eq!((read.setup, read.sends, read.negotiated), (Setup::Active, false, offer.negotiated));
    let paused = RemoteDescription::parse(&OFFER.replace("a=sendonly", "a=inactive")).unwrap();
    assert!(local("192.0.2.1:5000", |local| local.answer(&paused, DtlsRole::Server)).contains("a=inactive"));
}

#[test]
fn a_description_that_lacks_something_is_refused_in_words() {
    let refused = |from: &str, to: &str| RemoteDescription::parse(&OFFER.replace(from, to)).unwrap_err().to_string();
    assert_eq!(refused("m=audio 9", "m=audio 0"), "no audio line was offered or accepted");
    assert_eq!(refused("ice-pwd:AbCd", "x:"), "the session description lacks ice-pwd");
    assert_eq!(refused("ice-ufrag:AbCdEfGhIjKlMnOp", "ice-ufrag:a:cd"), "the session description lacks ice-ufrag");
    assert_eq!(refused("a=fingerprint:sha-256", "a=x:"), "the session description lacks a certificate fingerprint");
    assert_eq!(refused("a=rtcp-mux\r\n", ""), "the session description lacks rtcp-mux");
    assert_eq!(refused("setup:actpass", "setup:holdconn"), "the session description lacks a usable setup");
    let no_codec = "no common codec: the peer has red/48000/2, SPEEX/48000/2, we have Opus, G.722, PCMU and PCMA";
    let without_g722 = OFFER.replace(" 112 9", " 112").replace("OPUS", "SPEEX");
    assert_eq!(RemoteDescription::parse(&without_g722).unwrap_err().to_string(), no_codec);
    assert!(matches!(RemoteDescription::parse("nonsense"), Err(DescriptionError::Malformed(_))));
    let long = format!("{OFFER}{}", "a=x\r\n".repeat(20_000));
    assert!(matches!(RemoteDescription::parse(&long), Err(DescriptionError::Malformed(_))));
    let many = format!("{OFFER}{}", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(40));
    assert!(matches!(RemoteDescription::parse(&many), Err(DescriptionError::Malformed(_))));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(at in 0..OFFER.len(), len in 0usize..40, with in "[ -~\r\n]{0,20}") {
        let mut text = OFFER.to_owned();
        text.replace_range(at..(at + len).min(OFFER.len()), &with);
        if let Ok(offer) = RemoteDescription::parse(&text) {
            let answer = local("192.0.2.1:5000", |local| local.answer(&offer, DtlsRole::Client));
            prop_assert!(RemoteDescription::parse(&answer).is_ok(), "{}", answer);
        }
    }
}
