use super::*;
use crate::telephone::g711::Codec;

fn setup(offers: bool) -> CallSetup {
    CallSetup {
        target: "sip:6002@127.0.0.1:5060".to_owned(),
        from: "\"Ada\" <sip:100@127.0.0.1>".to_owned(),
        local: "127.0.0.1:5061".parse().unwrap(),
        description: LocalDescription {
            session: 1,
            version: 1,
            address: "127.0.0.1".parse().unwrap(),
            port: 4000,
            codecs: vec![Codec::Pcmu],
            direction: Direction::SendRecv,
            ptime_ms: 20,
            key: None,
        },
        offers,
    }
}

fn sent(call: &mut Call) -> Vec<Message> {
    std::iter::from_fn(|| call.poll_signal())
        .filter_map(|signal| if let Signal::Send(bytes) = signal { Message::parse(&bytes) } else { None })
        .collect()
}

fn response(request: &Message, status: &str, body: &str) -> Vec<u8> {
    let get = |name| request.header(name).unwrap();
    format!(
        "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {};tag=them\r\nCall-ID: {}\r\nCSeq: {}\r\n\
         Record-Route: <sip:one;lr>, <sip:two;lr>\r\nContact: <sip:gateway@127.0.0.1:9>\r\n\r\n{body}",
        get("Via"),
        get("From"),
        get("To"),
        get("Call-ID"),
        get("CSeq")
    )
    .into_bytes()
}

const ANSWER: &str = "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 7000 RTP/AVP 0\r\n";

#[test]
fn an_answer_is_acknowledged_along_the_route_and_bye_follows_it() {
    let now = Instant::now();
    let mut call = Call::start(now, setup(true));
    let invite = sent(&mut call).remove(0);
    call.handle_datagram(now, &response(&invite, "180 Ringing", ""));
    call.handle_datagram(now, &response(&invite, "200 OK", ANSWER));
    assert!(matches!(call.poll_signal(), Some(Signal::Ringing(180))));
    let ack = sent(&mut call).remove(0);
    assert_eq!(ack.start_line, "ACK sip:gateway@127.0.0.1:9 SIP/2.0");
    assert_eq!(ack.headers_named("Route").collect::<Vec<_>>(), ["<sip:two;lr>", "<sip:one;lr>"]);
    assert!(ack.body.is_empty());
    call.handle_datagram(now, &response(&invite, "200 OK", ANSWER));
    assert_eq!(sent(&mut call), [ack]);
    call.hang_up(now);
    let bye = sent(&mut call).remove(0);
    assert_eq!(bye.cseq(), Some((2, "BYE")));
    call.handle_datagram(now, &response(&bye, "200 OK", ""));
    assert!(call.is_over());
}

#[test]
fn without_an_offer_the_answer_goes_into_the_ack() {
    let now = Instant::now();
    let mut call = Call::start(now, setup(false));
    let invite = sent(&mut call).remove(0);
    assert!(invite.body.is_empty());
    call.handle_datagram(now, &response(&invite, "200 OK", ANSWER));
    let ack = sent(&mut call).remove(0);
    assert!(RemoteDescription::parse(&ack.body).is_ok());
}

#[test]
fn cancel_repeats_branch_and_number_and_the_refusal_is_acknowledged() {
    let now = Instant::now();
    let mut call = Call::start(now, setup(true));
    let invite = sent(&mut call).remove(0);
    call.handle_datagram(now, &response(&invite, "100 Trying", ""));
    call.hang_up(now);
    let cancel = sent(&mut call).remove(0);
    assert_eq!((cancel.branch(), cancel.cseq()), (invite.branch(), Some((1, "CANCEL"))));
    call.handle_datagram(now, &response(&cancel, "200 OK", ""));
    call.handle_datagram(now, &response(&invite, "487 Request Terminated", ""));
    let ack = sent(&mut call).remove(0);
    assert_eq!((ack.branch(), ack.method()), (invite.branch(), Some("ACK")));
    assert!(call.is_over());
}

#[test]
fn an_unanswered_invite_is_repeated_and_given_up() {
    let start = Instant::now();
    let mut call = Call::start(start, setup(true));
    let mut invites = 0;
    while let Some(at) = call.next_timeout() {
        call.handle_timeout(at);
        invites += sent(&mut call).len();
    }
    assert!(call.is_over());
    assert_eq!(invites, 7);
}

#[test]
fn bye_and_reinvite_from_the_other_side_are_answered_again_when_repeated() {
    let now = Instant::now();
    let mut call = Call::start(now, setup(true));
    let invite = sent(&mut call).remove(0);
    call.handle_datagram(now, &response(&invite, "200 OK", ANSWER));
    sent(&mut call);
    let request = |method: &str, cseq: u32, body: &str| {
        let call_id = invite.header("Call-ID").unwrap();
        format!(
            "{method} sip:lab@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx{cseq}\r\nFrom: <sip:g>;tag=them\r\nTo: <sip:a>;tag=us\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\r\n{body}"
        )
    };
    let hold = format!("{ANSWER}a=sendonly\r\n");
    call.handle_datagram(now, request("INVITE", 1, &hold).as_bytes());
    let first = sent(&mut call);
    assert!(std::str::from_utf8(&first[0].body).unwrap().contains("a=recvonly"));
    call.handle_datagram(now, request("INVITE", 1, &hold).as_bytes());
    assert_eq!(sent(&mut call), first);
    call.handle_datagram(now, request("BYE", 2, "").as_bytes());
    assert_eq!(sent(&mut call)[0].status().unwrap().0, 200);
    assert!(call.is_over());
}
