use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::wire::uri::Host;

/// What a desk telephone sends: two audio lines, one of them encrypted, and video.
const OFFER: &str = "v=0\r\n\
    o=- 3747 3747 IN IP4 192.168.1.5\r\n\
    s=call\r\n\
    c=IN IP4 192.168.1.5\r\n\
    t=3149328700 0\r\n\
    a=sendonly\r\n\
    m=audio 4000 RTP/SAVP 0\r\n\
    a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR|2^20\r\n\
    m=video 4002 RTP/AVP 97 98\r\n\
    c=IN IP4 192.168.1.6\r\n\
    m=audio 4004 RTP/AVP 9 8 0 101 111 18 96 8 300 x\r\n\
    c=IN IP6 2001:db8::5\r\n\
    a=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-16\r\n\
    a=rtpmap:111 OPUS/48000/2\r\n\
    a=fmtp:111 maxplaybackrate=16000; UseInbandFEC = 1\r\n\
    a=ptime:30\r\n\
    a=maxptime:60.0\r\n\
    a=rtcp:5005 IN IP4 192.168.1.7\r\n\
    a=recvonly\r\n\
    m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n";

fn parse(text: &str) -> SessionDescription {
    SessionDescription::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn one_line(session: &str, media: &str) -> AudioDescription {
    let text = format!("v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\n{session}t=0 0\r\nm=audio 4000 RTP/AVP 0\r\n{media}");
    parse(&text).audio_lines().next().unwrap().1.clone()
}

#[test]
fn the_first_audio_line_in_the_clear_is_found_with_its_place() {
    let offer = parse(OFFER);
    assert_eq!(offer.media.len(), 4);
    let (index, audio) = offer.first_audio().unwrap();
    assert_eq!((index, audio.port, audio.rtcp_port_or_default()), (2, 4004, 5005));
    assert_eq!(audio.address(), Some("2001:db8::5".parse().unwrap()));
    assert_eq!(audio.rtcp_host, Some(Host::V4("192.168.1.7".parse().unwrap())));
    assert_eq!((audio.ptime_ms, audio.maxptime_ms, audio.direction), (Some(30), Some(60), Direction::RecvOnly));
    let (_, encrypted) = offer.audio_lines().next().unwrap();
    assert_eq!((encrypted.crypto.len(), encrypted.direction), (1, Direction::SendOnly));
    assert_eq!(encrypted.address(), Some("192.168.1.5".parse().unwrap()));
}

#[test]
fn extended_reports_are_asked_for_by_the_line_or_else_by_the_session() {
    let asked = |session: &str, media: &str| one_line(session, media).extended_reports.voip_metrics;
    assert!(asked("", "a=rtcp-xr:voip-metrics\r\n") && asked("a=rtcp-xr:voip-metrics\r\n", ""));
    assert!(!asked("", "") && !asked("a=rtcp-xr:voip-metrics\r\n", "a=rtcp-xr:stat-summary\r\n"));
    assert!(!asked("a=rtcp-xr:voip-metrics\r\n", "a=rtcp-xr\r\n"), "a line that names nothing wants nothing");
}

#[test]
fn formats_keep_their_order_and_static_ones_need_no_map() {
    let offer = parse(OFFER);
    let (_, audio) = offer.first_audio().unwrap();
    let codecs: Vec<_> = audio.codecs.iter().map(ToString::to_string).collect();
    // 96 is explained by nobody, the second 8 is one too many, 300 and x are no payload types.
    assert_eq!(
        codecs,
        ["9 G722/8000", "8 PCMA/8000", "0 PCMU/8000", "101 telephone-event/8000", "111 OPUS/48000/2", "18 G729/8000"]
    );
    let opus = audio.find("opus", 48_000).unwrap();
    assert_eq!((opus.payload_type, opus.channels), (111, 2));
    assert_eq!((opus.parameter("useinbandfec"), opus.parameter("stereo")), (Some("1"), None));
    assert!(audio.codecs[3].is_telephone_event() && audio.codecs[3].fmtp.as_deref() == Some("0-16"));
    assert!(one_line("c=IN IP4 h\r\n", "a=rtpmap:0 CN/8000\r\n").codecs[0].is_comfort_noise(), "a map beats the table");
    assert!(
        one_line("", "a=rtpmap:0 X/0\r\na=rtpmap:0 X\r\n").find("PCMU", 8000).is_some(),
        "broken maps do not count"
    );
}

#[test]
fn names_and_old_style_hold_are_understood() {
    assert_eq!(one_line("c=IN IP4 media.example.com\r\n", "").host, Some(Host::Name("media.example.com".into())));
    let held = one_line("c=IN IP4 192.0.2.1\r\n", "c=IN IP4 0.0.0.0\r\n");
    assert_eq!((held.host, held.direction), (None, Direction::SendOnly));
    let held = one_line("c=IN IP6 ::\r\na=recvonly\r\n", "");
    assert_eq!((held.host, held.direction), (None, Direction::Inactive));
    assert_eq!(one_line("", "").host, None);
    assert_eq!(one_line("c=IN IP4 224.2.1.1/127\r\n", "").address(), Some("224.2.1.1".parse().unwrap()));
}

#[test]
fn the_media_line_overrides_the_session() {
    assert_eq!(one_line("", "").direction, Direction::SendRecv);
    assert_eq!(one_line("a=inactive\r\n", "").direction, Direction::Inactive);
    assert_eq!(one_line("a=inactive\r\n", "a=sendrecv\r\n").direction, Direction::SendRecv);
    assert_eq!(one_line("a=ptime:40\r\n", "").ptime_ms, Some(40));
    assert_eq!(one_line("", "a=ptime:0\r\n").ptime_ms, None);
}

#[test]
fn directions_are_mirrored() {
    for (direction, mirrored) in [
        (Direction::SendRecv, Direction::SendRecv),
        (Direction::SendOnly, Direction::RecvOnly),
        (Direction::RecvOnly, Direction::SendOnly),
        (Direction::Inactive, Direction::Inactive),
    ] {
        assert_eq!(direction.reversed(), mirrored);
    }
}

#[test]
fn rtcp_is_on_the_next_port_unless_said_otherwise() {
    assert_eq!(one_line("", "").rtcp_port_or_default(), 4001);
    let mut line = one_line("", "a=rtcp:x\r\na=rtcp-mux\r\n");
    assert!(line.has_rtcp_mux);
    line.port = u16::MAX;
    assert_eq!(line.rtcp_port_or_default(), 0);
}

#[test]
fn lines_that_do_not_concern_audio_may_be_broken() {
    let broken = "v=0\r\no=Desk Phone 1 x IN IP4\r\ns=caf\u{e9}\r\nb=AS: 64\r\nt=now\r\nc=IN IP4 192.0.2.1\r\n\
        m=audio 4000 RTP/AVP 8\r\nb=\r\na=sendonly\r\n";
    let description = parse(broken);
    let (_, audio) = description.first_audio().unwrap();
    assert_eq!((audio.address(), audio.direction), (Some("192.0.2.1".parse().unwrap()), Direction::SendOnly));
    for bad in ["", "v=1\r\n", "x", "v=0\r\nm=audio x RTP/AVP 0\r\n", "v=0\r\nm=audio 70000 RTP/AVP 0\r\n"] {
        assert!(matches!(SessionDescription::parse(bad.as_bytes()), Err(SdpError::Syntax(_))), "{bad}");
    }
}

fn local(version: u64) -> LocalSession {
    LocalSession { id: 7, version, address: "192.0.2.1".parse().unwrap() }
}

#[test]
fn an_offer_is_written_as_telephones_expect_it() {
    let mut audio = LocalAudio::new(
        4000,
        vec![Codec::new(0, "PCMU", 8_000), Codec::new(101, "telephone-event", 8_000).with_fmtp("0-15")],
    );
    audio.ptime_ms = Some(20);
    assert_eq!(
        local(1).offer(&audio),
        "v=0\r\no=- 7 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    );
    let read = parse(&local(1).offer(&audio));
    let (_, line) = read.first_audio().unwrap();
    assert_eq!(line.codecs, audio.codecs);
}

#[test]
fn an_answer_has_a_line_for_each_line_of_the_offer() {
    let offer = parse(OFFER);
    let (index, theirs) = offer.first_audio().unwrap();
    let mut audio = LocalAudio::new(5000, vec![theirs.codecs[1].clone()]);
    audio.direction = theirs.direction.reversed();
    let answer = local(2).answer(&offer, index, &audio);
    let lines: Vec<_> = answer.split("\r\n").filter(|line| line.starts_with("m=") || line.starts_with("t=")).collect();
    assert_eq!(
        lines,
        [
            "t=3149328700 0",
            "m=audio 0 RTP/SAVP 0",
            "m=video 0 RTP/AVP 97",
            "m=audio 5000 RTP/AVP 8",
            "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
        ]
    );
    let again = parse(&answer);
    assert_eq!(again.first_audio().unwrap().1.direction, Direction::SendOnly);
    assert_eq!(parse(&local(3).offer_again(&again, index, &audio)).media.len(), 4);
}

#[test]
fn an_address_of_version_six_is_written_as_such() {
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    let offer = LocalSession { address, ..local(1) }.offer(&LocalAudio::new(4000, vec![Codec::new(8, "PCMA", 8_000)]));
    assert!(offer.contains("c=IN IP6 2001:db8::1\r\n"));
    assert_eq!(parse(&offer).first_audio().unwrap().1.address(), Some(address));
}

#[test]
fn limits_hold() {
    let head = "v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nt=0 0\r\n";
    let too_large = |text: String| matches!(SessionDescription::parse(text.as_bytes()), Err(SdpError::TooLarge(_)));
    assert!(too_large(format!("{head}{}", "a=x\r\n".repeat(MAX_LINES))));
    assert!(too_large(format!("{head}{}", "m=a 0 b c\r\n".repeat(MAX_MEDIA + 1))));
    assert!(too_large(format!("{head}s={}", "x".repeat(MAX_SDP_BYTES))));
    let formats: Vec<_> = (0..2000).map(|number| (number % 128).to_string()).collect();
    let many = parse(&format!("{head}m=audio 1 RTP/AVP {}\r\n", formats.join(" ")));
    assert!(many.first_audio().unwrap().1.codecs.len() <= MAX_FORMATS);
}

/// The audio part of what pion writes, and a session-level fingerprint as other stacks write it.
const PEER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
    a=group:BUNDLE 0 1\r\na=msid-semantic:WMS *\r\na=ice-lite\r\na=ice-options:trickle ice2\r\n\
    a=fingerprint:SHA-256 AB:cd:01\r\na=setup:actpass\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111 9\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abc\r\na=ice-pwd:def\r\n\
    a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
    a=ssrc:4294967295 cname:x y\r\na=ssrc:4294967296 cname:x\r\na=ssrc:1 lone\r\na=msid:stream track\r\n\
    a=candidate:1 1 udp 2130706431 192.0.2.1 40000 typ host\r\na=end-of-candidates\r\na=sendonly\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=setup:bogus\r\n\
    a=fingerprint:sha-256 zz\r\na=fingerprint:sha-1 0A:0B\r\n";

#[test]
fn what_a_browser_says_is_at_hand_with_the_sessions_part() {
    let session = parse_session(PEER.as_bytes()).unwrap();
    let lines: Vec<_> = PeerMedia::all(&session).collect();
    let audio = lines[0];
    assert!(audio.is_audio() && !lines[1].is_audio());
    assert_eq!((audio.mid(), audio.ice_ufrag(), audio.ice_pwd()), (Some("0"), Some("abc"), Some("def")));
    assert!(audio.is_ice_lite() && audio.has_ice_option("trickle") && audio.has_rtcp_mux());
    assert!(audio.has_end_of_candidates() && !lines[1].has_end_of_candidates());
    assert_eq!(audio.setup(), Some(Setup::ActPass));
    assert_eq!(lines[1].setup(), None);
    let fingerprints: Vec<_> = audio.fingerprints().map(|print| print.to_string()).collect();
    assert_eq!(fingerprints, ["sha-256 AB:CD:01"]);
    assert_eq!(lines[1].fingerprints().map(|print| print.digest).collect::<Vec<_>>(), [[10, 11]]);
    assert_eq!(audio.candidates().collect::<Vec<_>>(), ["1 1 udp 2130706431 192.0.2.1 40000 typ host"]);
    assert_eq!((audio.msid(), audio.direction()), (Some("stream track"), Direction::SendOnly));
    let ssrcs: Vec<_> = audio.ssrcs().collect();
    assert_eq!(
        ssrcs,
        [
            SsrcAttribute { ssrc: u32::MAX, name: "cname", value: Some("x y") },
            SsrcAttribute { ssrc: 1, name: "lone", value: None }
        ]
    );
    assert_eq!(audio.codecs().len(), 2);
    assert_eq!(bundle_groups(&session).collect::<Vec<_>>(), [["0", "1"]]);
}

#[test]
fn fingerprints_are_hex_pairs_and_nothing_else() {
    for bad in ["", "sha-256", "sha-256 ", "sha-256 A:B", "sha-256 +1:02", "sha-256 AB:", "sha-256 ABCD"] {
        assert_eq!(Fingerprint::parse(bad), None, "{bad}");
    }
    let long = format!("sha-512 {}", ["AB"; 65].join(":"));
    assert_eq!(Fingerprint::parse(&long), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn mutated_descriptions_never_panic_and_mean_the_same_when_written_back(
        is_peer in any::<bool>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 0..3_u8, any::<u8>()), 0..6),
    ) {
        let mut bytes = if is_peer { PEER } else { OFFER }.as_bytes().to_vec();
        for (at, kind, byte) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        if let Ok(description) = SessionDescription::parse(&bytes) {
            let again = parse(&description.session.to_string());
            prop_assert_eq!(&again.media, &description.media);
            let audio = LocalAudio::new(4000, vec![Codec::new(0, "PCMU", 8_000)]);
            prop_assert_eq!(parse(&local(1).answer(&description, 0, &audio)).media.len(), description.media.len());
            for media in PeerMedia::all(&description.session) {
                let _ = (media.fingerprints().count(), media.ssrcs().count(), media.candidates().count());
            }
        }
    }
}
