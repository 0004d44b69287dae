//! Targets that read bytes: reading must not panic whatever comes, and what was read must survive writing.
//!
//! Owns: one function for each parser. Does not own: what is done with the values (`machines`).

use galene_sip::galene::message::ServerMessage;
use galene_sip::rtc::candidate::Candidate;
use galene_sip::wire::ice_uri::IceUri;
use galene_sip::wire::sdp::{Codec, LocalAudio, LocalSession, PeerMedia, SessionDescription, bundle_groups};
use galene_sip::wire::sip::{
    Authentication, Frame, FrameError, Headers, Message, MessageStream, NameAddr, ParseError, Via,
};
use galene_sip::wire::uri::Uri;
use galene_sip::wire::{rtcp, rtp, stun};

/// A SIP datagram: parse, ask every accessor, write, parse again.
pub fn sip(bytes: &[u8]) {
    match Message::parse(bytes) {
        Ok(message) => {
            let headers = message.headers();
            assert!(headers.via().is_ok() && headers.from().is_ok() && headers.to().is_ok());
            assert!(headers.call_id().is_ok() && headers.cseq().is_ok());
            read_headers(headers);
            assert_eq!(Message::parse(&message.to_bytes()).as_ref(), Ok(&message));
            if let Message::Request(mut request) = message {
                assert!(request.uri.is_equivalent(&request.uri));
                let source = ([192, 0, 2, 1], 5070).into();
                request.headers.mark_source(source).expect("the Via of a parsed request is sound");
                assert!(Message::parse(&request.to_bytes()).is_ok());
            }
        }
        Err(ParseError { reply: Some(reply), .. }) => {
            read_headers(&reply.headers);
            assert!(reply.to_bytes().starts_with(b"SIP/2.0 "));
        }
        Err(ParseError { reply: None, .. }) => {}
    }
}

/// A stream of SIP messages: cut into frames, which must be the same whatever pieces it arrives in, and whose messages
/// end where the parser of datagrams says.
pub fn stream(bytes: &[u8]) {
    const MAX_BYTES: usize = 2048;
    let frames = |piece: usize| -> (Vec<Frame>, Option<FrameError>) {
        let (mut stream, mut frames) = (MessageStream::new(MAX_BYTES), Vec::new());
        for chunk in bytes.chunks(piece) {
            stream.push(chunk);
            loop {
                match stream.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    };
    let (whole, error) = frames(bytes.len().max(1));
    for piece in [1, 7] {
        let (pieces, error_in_pieces) = frames(piece);
        assert_eq!(pieces, whole);
        assert_eq!(error_in_pieces.is_some(), error.is_some());
    }
    for frame in &whole {
        if let Frame::Message(message) = frame {
            assert!(message.len() <= MAX_BYTES);
            if let Ok(parsed) = Message::parse(message) {
                assert!(message.ends_with(parsed.body()));
                // Nothing of the next message is taken for this one, and the other way round.
                let mut longer = message.clone();
                longer.extend_from_slice(b"BYE");
                assert_eq!(Message::parse(&longer).as_ref(), Ok(&parsed));
                assert!(Message::parse(&message[..message.len() - 1]).is_err());
            }
        }
    }
}

/// Typed values must come back from their own spelling.
fn read_headers(headers: &Headers) {
    for via in headers.vias().into_iter().flatten() {
        assert_eq!(Via::parse(&via.to_string()), Ok(via.clone()));
        let _ = (via.rport(), via.received(), via.maddr(), via.unique_branch());
    }
    let addresses = [headers.from(), headers.to()].into_iter().flatten();
    for address in addresses.chain(headers.routes().into_iter().flatten()) {
        assert_eq!(NameAddr::parse(&address.to_string()), Ok(address.clone()));
        assert_eq!(Uri::parse(&address.uri.to_string()).as_ref(), Ok(&address.uri));
        assert!(address.uri.is_equivalent(&address.uri));
        let _ = (address.uri.user(), address.tag());
    }
    let _ = (headers.contacts(), headers.record_routes(), headers.max_forwards(), headers.content_type());
    let _ = (headers.expires(), headers.min_expires(), headers.retry_after(), headers.seconds("Session-Expires"));
    for warning in headers.warnings() {
        let _ = warning.to_string();
    }
    for challenge in headers.www_authenticate().chain(headers.proxy_authenticate()).chain(headers.authorization()) {
        let again = Authentication::parse(&challenge.to_string());
        assert_eq!(again, Ok(challenge.clone()));
        let _ = (challenge.is_stale(), challenge.offers_qop("auth"), challenge.value("realm"));
    }
}

/// A session description: parse, answer, write, parse again; and the same bytes as those of a browser-like peer.
pub fn sdp(bytes: &[u8]) {
    let Ok(description) = SessionDescription::parse(bytes) else { return };
    let written = description.session.to_string();
    let again = SessionDescription::parse(written.as_bytes()).expect("what was read can be written");
    assert_eq!(again.media, description.media);
    let index = description.first_audio().map_or(0, |(index, _)| index);
    let local = LocalSession { id: 1, version: 1, address: [192, 0, 2, 1].into() };
    let answer = local.answer(&description, index, &LocalAudio::new(4000, vec![Codec::new(0, "PCMU", 8000)]));
    let answer = SessionDescription::parse(answer.as_bytes()).expect("our own answer can be read");
    assert_eq!(answer.media.len(), description.media.len());
    let _ = bundle_groups(&description.session).count();
    for media in PeerMedia::all(&description.session) {
        let _ = (media.mid(), media.ice_ufrag(), media.ice_pwd(), media.setup(), media.msid(), media.direction());
        let _ = (media.fingerprints().count(), media.ssrcs().count(), media.candidates().count());
    }
}

/// A STUN datagram: parse, and the checks that decide whether it goes on to the signalling thread. Then the same bytes as
/// a stream from a TURN server, whose frames must be the same whatever pieces they arrive in.
pub fn stun(bytes: &[u8]) {
    if let Ok(message) = stun::Message::parse(bytes) {
        assert!(bytes.len() >= 20);
        let _ = (message.verify(b"password"), message.unknown_attributes().len());
    }
    let filter =
        stun::Filter { ufrag: "ufrag".into(), password: "password".into(), transaction_tags: [[1, 2, 3, 4], [5; 4]] };
    let _ = filter.accepts(bytes);
    let _ = stun::ChannelData::parse(bytes);
    let frames = |piece: usize| -> (Vec<Vec<u8>>, Option<stun::FrameError>) {
        let (mut stream, mut frames) = (stun::FrameStream::new(), Vec::new());
        for chunk in bytes.chunks(piece) {
            stream.push(chunk);
            loop {
                match stream.next_frame() {
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    };
    let whole = frames(bytes.len().max(1));
    for piece in [1, 7] {
        assert_eq!(frames(piece), whole);
    }
    for frame in &whole.0 {
        assert!(frame.len() <= stun::MAX_FRAME_BYTES);
        // Each is what over UDP would be one datagram, of one kind or the other.
        assert_eq!(stun::ChannelData::parse(frame).is_some(), frame[0] >= 0x40);
    }
}

/// A datagram of a media port: as RTP and as RTCP.
pub fn rtp(bytes: &[u8]) {
    if let Ok(packet) = rtp::RtpPacket::parse(bytes) {
        assert!(packet.payload.len() + 12 <= bytes.len());
        let again = rtp::RtpHeader::parse(&packet.header.to_bytes()).expect("a header can be read back");
        assert_eq!(again, (packet.header, 12));
    }
    for packet in rtcp::packets(bytes).flatten() {
        match packet {
            rtcp::RtcpPacket::SenderReport { reports, .. } | rtcp::RtcpPacket::ReceiverReport { reports, .. } => {
                assert!(reports.iter().count() < 32);
            }
            rtcp::RtcpPacket::Bye(sources) => assert!(sources.iter().count() < 32),
            rtcp::RtcpPacket::GenericNack { lost, .. } => assert!(lost.iter().count() <= bytes.len() * 17),
            rtcp::RtcpPacket::ExtendedReport { blocks, .. } => {
                for block in blocks.iter() {
                    if let rtcp::ExtendedReport::Dlrr(items) = block {
                        assert!(items.iter().count() * 12 <= bytes.len());
                    }
                }
            }
            rtcp::RtcpPacket::SourceDescription { .. } | rtcp::RtcpPacket::Other { .. } => {}
        }
    }
}

/// A text message of Galene's WebSocket.
pub fn json(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = ServerMessage::parse(text);
    }
}

/// The URI of a STUN or TURN server, a SIP or telephone URI, and a candidate's line: what is read comes back from its own
/// spelling.
pub fn uri(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(uri) = IceUri::parse(text) {
        assert_eq!(IceUri::parse(&uri.to_string()), Ok(uri));
    }
    if let Ok(uri) = Uri::parse(text) {
        assert_eq!(Uri::parse(&uri.to_string()).as_ref(), Ok(&uri));
        assert!(uri.is_equivalent(&uri));
        let _ = (uri.user(), uri.host(), uri.phone_number());
    }
    if let Ok(candidate) = Candidate::parse(text) {
        assert!(candidate.address.port() != 0 && !candidate.address.ip().is_unspecified());
    }
}
