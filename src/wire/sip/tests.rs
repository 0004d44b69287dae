use super::*;

fn invite() -> Request {
    let text = "INVITE sip:bob@example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1;rport, SIP/2.0/UDP proxy\r\n\
        v: SIP/2.0/TCP third\r\n\
        Record-Route: <sip:p1;lr>,<sip:p2;lr>\r\n\
        f: \"A, B\" <sip:alice@example.com>;tag=1\r\n\
        t: <sip:bob@example.com>\r\n\
        i: abc\r\n\
        CSeq: 1 INVITE\r\n\
        Timestamp: 54\r\n\
        m: <sip:alice@10.0.0.1:5070>\r\n\
        Content-Type: Application/SDP;x=y\r\n\
        l: 4\r\n\r\nv=0\r\n";
    parse_request(text.as_bytes())
}

fn parse_request(bytes: &[u8]) -> Request {
    match Message::parse(bytes) {
        Ok(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_response_takes_over_what_the_rfc_says() {
    let trying = Response::to_request(&invite(), 100, "");
    assert_eq!(trying.reason, "Trying");
    assert!(trying.headers.has("Timestamp") && !trying.headers.has("Record-Route"));
    let mut ok = Response::to_request(&invite(), 200, "").with("Contact", "<sip:me@h>");
    ok.set_to_tag("xyz");
    ok.set_to_tag("again");
    let bytes = ok.with_body("application/sdp", "v=0\r\n").to_bytes();
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        "SIP/2.0 200 OK\r\n\
        Via: SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1;rport, SIP/2.0/UDP proxy\r\n\
        Via: SIP/2.0/TCP third\r\n\
        From: \"A, B\" <sip:alice@example.com>;tag=1\r\n\
        To: <sip:bob@example.com>;tag=xyz\r\n\
        Call-ID: abc\r\n\
        CSeq: 1 INVITE\r\n\
        Record-Route: <sip:p1;lr>,<sip:p2;lr>\r\n\
        Contact: <sip:me@h>\r\n\
        Content-Type: application/sdp\r\n\
        Content-Length: 5\r\n\r\nv=0\r\n"
    );
}

#[test]
fn the_source_is_marked_in_the_top_via_alone() {
    let mut request = invite();
    request.headers.mark_source("192.0.2.9:61000".parse().unwrap()).unwrap();
    let vias: Vec<_> = request.headers.vias().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(
        vias,
        [
            "SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK1;rport=61000;received=192.0.2.9",
            "SIP/2.0/UDP proxy",
            "SIP/2.0/TCP third"
        ]
    );
    assert_eq!(parse_request(&request.to_bytes()), request);
}

#[test]
fn a_body_is_trimmed_to_its_length_and_its_type_is_read() {
    let request = invite();
    assert_eq!(request.body, b"v=0\r");
    assert_eq!(request.headers.content_type().as_deref(), Some("application/sdp"));
    assert!(!request.headers.has("Content-Length"), "framing is no header");
}

#[test]
fn no_value_can_bring_a_header_of_its_own() {
    let request = invite().with("Subject", "x\r\nEvil: 1");
    assert_eq!(parse_request(&request.to_bytes()).headers.get("Subject"), Some("x  Evil: 1"));
    let response = Response::to_request(&request, 400, "a\r\nEvil: 1");
    assert!(!String::from_utf8(response.to_bytes()).unwrap().contains("\nEvil"));
}

#[test]
fn latin1_names_are_read_and_written_back_as_they_came() {
    let mut bytes = invite().to_bytes();
    let at = bytes.windows(4).position(|window| window == b"A, B").unwrap();
    bytes[at] = 0xe9;
    let request = parse_request(&bytes);
    assert_eq!(request.headers.from().unwrap().display_name.as_deref(), Some("é, B"));
    assert!(request.to_bytes().contains(&0xe9));
    assert_eq!(parse_request(&request.to_bytes()), request);
}

#[test]
fn keep_alives_are_told_from_messages() {
    assert!(is_keep_alive(b"") && is_keep_alive(b"\r\n\r\n") && is_keep_alive(b"\0\0\0\0"));
    assert!(!is_keep_alive(b"\r\nINVITE"));
    assert_eq!(Message::parse(b"\r\n\r\n").unwrap_err().reply, None);
    let mut late = b"\r\n\r\n".to_vec();
    late.extend(invite().to_bytes());
    assert_eq!(parse_request(&late), invite());
}

#[test]
fn an_ack_or_a_response_gets_no_reply_whatever_is_wrong_with_it() {
    for bytes in [
        &b"ACK sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nCSeq: 1 ACK\r\n\r\n"[..],
        b"SIP/2.0 999 X\r\nVia: SIP/2.0/UDP h\r\nCSeq: 1 INVITE\r\n\r\n",
        b"INVITE sip:a@b SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n",
    ] {
        assert_eq!(Message::parse(bytes).unwrap_err().reply, None);
    }
}

#[test]
fn limits_hold() {
    let many = |name: &str, value: &str, count: usize| {
        let mut request = invite();
        (0..count).for_each(|_| request.headers.push(name, value));
        Message::parse(&request.to_bytes()).map_err(|error| error.status)
    };
    assert!(many("X", "y", MAX_HEADERS - 12).is_ok());
    assert_eq!(many("X", "y", MAX_HEADERS), Err(400));
    assert_eq!(many("Via", "SIP/2.0/UDP h", MAX_VIAS), Err(400));
    assert_eq!(many("Route", "<sip:h>", MAX_ADDRESSES + 1), Err(400));
    let mut large = invite().to_bytes();
    large.resize(MAX_MESSAGE_BYTES + 1, b'x');
    let error = Message::parse(&large).unwrap_err();
    assert_eq!((error.status, error.reply.map(|reply| reply.status)), (513, Some(513)));
}

#[test]
fn truncated_heads_are_refused_and_still_answered() {
    let bytes = invite().to_bytes();
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let error = Message::parse(&bytes[..head + 2]).unwrap_err();
    assert_eq!((error.status, error.reason.as_str()), (400, "No empty line after the headers"));
    assert!(error.reply.is_some());
}

#[test]
fn typed_values_are_read() {
    let mut headers = Headers::new();
    headers.push("expires", "3600");
    headers.push("Min-Expires", "x");
    headers.push("Retry-After", "120 (in a \r\n meeting);duration=9");
    headers.push("x", "90;refresher=uac");
    headers.push("Warning", r#"301 h:5060 "no, \"really\"", 399 - "b""#);
    headers.push("k", "timer, , 100rel");
    headers.push("Contact", "*");
    assert_eq!((headers.expires(), headers.min_expires()), (Some(3600), None));
    assert_eq!((headers.retry_after(), headers.seconds("Session-Expires")), (Some(120), Some(90)));
    let warnings: Vec<_> = headers.warnings().collect();
    assert_eq!((warnings[0].text.as_str(), warnings[1].agent.as_str()), ("no, \"really\"", "-"));
    assert_eq!(warnings[0].to_string(), r#"301 h:5060 "no, \"really\"""#);
    assert_eq!(headers.supported().collect::<Vec<_>>(), ["timer", "100rel"]);
    assert_eq!(headers.contacts(), Ok(Contacts::All));
    headers.push("m", "<sip:a@b>");
    assert!(headers.contacts().is_err());
}

#[test]
fn set_leaves_one_value_in_the_place_of_the_first() {
    let mut headers = Headers::new();
    for (name, value) in [("X-A", "1"), ("X-B", "2"), ("x-a", "3"), ("X-C", "4")] {
        headers.push(name, value);
    }
    headers.set("x-a", "5");
    headers.set("X-D", "6");
    headers.push_front("X-E", "7");
    let all: Vec<_> = headers.iter().map(|header| format!("{}{}", header.name(), header.value())).collect();
    assert_eq!(all, ["X-E7", "x-a5", "X-B2", "X-C4", "X-D6"]);
}
