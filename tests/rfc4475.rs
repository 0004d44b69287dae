//! The torture messages of RFC 4475, each with what this program makes of it and why.
//!
//! Messages that the RFC calls valid must be read, and written back to an equal value; invalid ones must get the right
//! status. Where the RFC leaves the choice between repairing and refusing, the table says which was taken. `test.dat`
//! comes from an older collection and is not in the RFC. Mutations of all of them feed the property tests at the end.

use std::fs;
use std::path::PathBuf;

use galene_sip::wire::sip::{Contacts, Headers, Message, Method, ParseError, Request};
use proptest::prelude::*;

/// What the parser is to say.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// A request; what its meaning deserves (415, 416, 420 …) is decided above.
    Request,
    /// A response.
    Response,
    /// Not a message: this status for its sender.
    Refused(u16),
    /// Not a message and no one to answer.
    Dropped,
}

use Outcome::{Dropped, Refused, Request as Req, Response as Resp};

const TABLE: [(&str, Outcome); 50] = [
    // §3.1.1 Valid messages.
    ("wsinv", Req),      // A short tortuous INVITE.
    ("intmeth", Req),    // Wide range of valid characters.
    ("esc01", Req),      // Escapes are taken away only where they mean something.
    ("escnull", Req),    // %00 is a character of a user part.
    ("esc02", Req),      // % in a method is a character, not an escape.
    ("lwsdisp", Req),    // No blank between display name and <.
    ("longreq", Req),    // Long values, 34 Vias.
    ("dblreq", Req),     // Octets after the message are ignored in a datagram.
    ("semiuri", Req),    // Semicolons in a user part.
    ("transports", Req), // Transports that nobody knows.
    ("mpart01", Req),    // A binary multipart body.
    ("unreason", Resp),  // A reason phrase in UTF-8.
    ("noreason", Resp),  // An empty reason phrase.
    // §3.1.2 Invalid messages.
    ("badinv01", Refused(400)),   // Extraneous separators in Via.
    ("clerr", Refused(400)),      // Content-Length larger than the message.
    ("ncl", Refused(400)),        // Negative Content-Length.
    ("scalar02", Refused(400)),   // CSeq above 2^31, Max-Forwards above 255.
    ("scalarlg", Dropped),        // The same in a response.
    ("quotbal", Refused(400)),    // Unterminated quoted string in To.
    ("ltgtruri", Refused(400)),   // <> around the Request-URI; could be repaired, is not.
    ("lwsruri", Refused(400)),    // Blanks within the Request-URI.
    ("lwsstart", Refused(400)),   // Two blanks in the Request-Line; could be repaired, is not.
    ("trws", Refused(400)),       // Blanks at the end of the Request-Line; could be repaired, is not.
    ("escruri", Refused(400)),    // Headers in the Request-URI; could be ignored, are not.
    ("baddate", Req),             // A time zone other than GMT: no one here reads Date.
    ("regbadct", Refused(400)),   // A Contact that needed <>.
    ("badaspec", Req),            // Blanks within <>: nothing else can be meant.
    ("baddn", Refused(400)),      // A comma in a display name without quotes.
    ("badvers", Refused(505)),    // SIP/7.0.
    ("mismatch01", Refused(400)), // The method is not that of CSeq.
    ("mismatch02", Refused(400)), // The same with an unknown method.
    ("bigcode", Dropped),         // A status that overflows.
    // §3.2 Transaction layer semantics.
    ("badbranch", Req), // A branch of nothing but the cookie: matched as RFC 2543 did.
    // §3.3 Application layer semantics.
    ("insuf", Refused(400)),   // Missing From, To, Call-ID.
    ("unkscm", Req),           // Unknown scheme in the Request-URI: 416 above.
    ("novelsc", Req),          // Known scheme that is not ours: 416 above.
    ("unksm2", Req),           // Unknown schemes in other headers.
    ("bext01", Req),           // Require: 420 above.
    ("invut", Req),            // Unknown body: 415 above.
    ("regaut01", Req),         // Unknown authorisation scheme.
    ("multi01", Refused(400)), // Several values of what must be single.
    ("mcl01", Refused(400)),   // Two Content-Lengths.
    ("bcast", Resp),           // A broadcast address in the second Via: not ours, dropped above.
    ("zeromf", Req),           // Max-Forwards 0: fine for the one it is for.
    ("cparam01", Req),         // An unknown Contact parameter …
    ("cparam02", Req),         // … and an unknown parameter of a Contact's URI.
    ("regescrt", Req),         // Headers within the URI of a Contact.
    ("sdp01", Req),            // Accept without SDP: 406 above.
    // §3.4 Backward compatibility.
    ("inv2543", Req), // No branch, no tag, no Max-Forwards, no Content-Length.
    // Not in the RFC.
    ("test", Refused(400)), // No version, no Via, no CSeq, a line without colon.
];

fn bytes(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/rfc4475").join(format!("{name}.dat"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn outcome(result: &Result<Message, ParseError>) -> Outcome {
    match result {
        Ok(Message::Request(_)) => Req,
        Ok(Message::Response(_)) => Resp,
        Err(ParseError { status, reply: Some(_), .. }) => Refused(*status),
        Err(ParseError { reply: None, .. }) => Dropped,
    }
}

fn request(name: &str) -> Request {
    match Message::parse(&bytes(name)) {
        Ok(Message::Request(request)) => request,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn every_message_has_its_outcome() {
    let mut wrong = Vec::new();
    for (name, expected) in TABLE {
        let result = Message::parse(&bytes(name));
        // `test.dat` has no Via: its status is right, but there is no response to build.
        let actual = match (&result, name) {
            (Err(error), "test") => Refused(error.status),
            _ => outcome(&result),
        };
        if actual != expected {
            wrong.push(format!("{name}: {actual:?}, not {expected:?}: {:?}", result.err()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_covers_every_file() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/rfc4475");
    let count = fs::read_dir(directory).unwrap().filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "dat"))
    });
    assert_eq!(count.count(), TABLE.len());
}

#[test]
fn what_was_read_is_written_back_to_an_equal_value() {
    for (name, _) in TABLE {
        if let Ok(message) = Message::parse(&bytes(name)) {
            assert_eq!(Message::parse(&message.to_bytes()).as_ref(), Ok(&message), "{name}");
        }
    }
}

#[test]
fn refusals_carry_over_what_identifies_the_request() {
    for (name, expected) in TABLE {
        let Err(ParseError { reply: Some(reply), .. }) = Message::parse(&bytes(name)) else { continue };
        assert_eq!(Refused(reply.status), expected);
        let original = String::from_utf8_lossy(&bytes(name)).into_owned();
        for header in ["Via", "CSeq"] {
            assert!(reply.headers.get(header).is_some_and(|value| original.contains(value)), "{name}: {header}");
        }
    }
}

#[test]
fn the_tortuous_invite_is_understood_in_every_part() {
    let request = request("wsinv");
    let headers = &request.headers;
    assert_eq!(request.method, Method::Invite);
    assert_eq!(headers.to().unwrap().tag().as_deref(), Some("1918181833n"));
    let from = headers.from().unwrap();
    assert_eq!(from.display_name.as_deref(), Some("J Rosenberg \\\""));
    assert_eq!(from.tag().as_deref(), Some("98asjd8"));
    assert_eq!(headers.max_forwards(), Ok(Some(68)));
    assert_eq!(headers.cseq().unwrap().number, 9);
    assert_eq!(headers.get("Subject"), Some(""));
    assert_eq!(headers.get("NewFangledHeader"), Some("newfangled value continued newfangled value"));
    let vias = headers.vias().unwrap();
    let seen: Vec<_> = vias.iter().map(ToString::to_string).collect();
    assert_eq!(
        seen,
        [
            "SIP/2.0/UDP 192.0.2.2;branch=390skdjuw",
            "SIP/2.0/TCP spindle.example.com;branch=z9hG4bK9ikj8",
            "SIP/2.0/UDP 192.168.255.111;branch=z9hG4bK30239",
        ]
    );
    let contacts = headers.contacts().unwrap();
    let contact = contacts.first().unwrap();
    assert_eq!(contact.display_name.as_deref(), Some("Quoted string \"\""));
    assert_eq!(contact.parameters.value("newparam").as_deref(), Some("newvalue"));
    assert_eq!(contact.parameters.raw("q"), Some("0.33"));
    assert!(headers.routes().unwrap()[0].uri.as_sip().unwrap().is_loose_router());
    assert_eq!(request.body.len(), 150);
}

#[test]
fn unusual_characters_and_escapes_are_understood() {
    let odd = request("intmeth");
    assert_eq!(odd.method.as_str(), "!interesting-Method0123456789_*+`.%indeed'~");
    assert_eq!(odd.headers.to().unwrap().display_name.as_deref(), Some("BEL:\u{7} NUL:\u{0} DEL:\u{7f}"));
    assert_eq!(odd.headers.from().unwrap().parameters.value("fromParam''~+*_!.-%").as_deref(), Some("работающий"));
    assert_eq!(odd.headers.call_id(), Ok("intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"));

    let escaped = request("esc01");
    assert_eq!(escaped.uri.user().as_deref(), Some("sips:user@example.com"));
    assert_eq!(escaped.headers.from().unwrap().uri.user().as_deref(), Some("I have spaces"));
    assert_eq!(escaped.headers.contacts().unwrap().first().unwrap().uri.user().as_deref(), Some("caller"));

    let method = request("esc02");
    assert_eq!(method.method, Method::Other("RE%47IST%45R".to_owned()));
    assert_eq!(method.headers.to().unwrap().display_name.as_deref(), Some("%Z%45"));
    let Contacts::List(contacts) = method.headers.contacts().unwrap() else { panic!("not a list") };
    assert_eq!(contacts.len(), 2, "C%6Fntact is another header");

    assert_eq!(request("semiuri").uri.user().as_deref(), Some("user;par=u@example.net"));
    assert_eq!(request("escnull").headers.to().unwrap().uri.user().as_deref(), Some("null-\u{0}-null"));
    assert_eq!(request("semiuri").headers.values("Accept").count(), 6);
}

#[test]
fn bodies_end_where_their_length_says() {
    assert!(request("dblreq").body.is_empty());
    let multipart = request("mpart01");
    assert!(multipart.body.starts_with(b"--7a9cbec02ceef655\r\n") && multipart.body.len() == 553);
    assert_eq!(multipart.headers.content_type().as_deref(), Some("multipart/mixed"));
    assert!(request("inv2543").body.starts_with(b"v=0\r\n"));
    assert_eq!(request("longreq").headers.vias().unwrap().len(), 34);
}

/// Everything an accessor could trip over. The results do not matter.
fn read_all(headers: &Headers) {
    let _ = (headers.vias(), headers.via(), headers.from(), headers.to(), headers.call_id(), headers.cseq());
    let _ = (headers.contacts(), headers.routes(), headers.record_routes(), headers.max_forwards());
    let _ = (headers.expires(), headers.min_expires(), headers.retry_after(), headers.content_type());
    let _ = (headers.require().count(), headers.supported().count(), headers.warnings().count());
    let _ = (headers.www_authenticate().count(), headers.authorization().count());
}

fn torture() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(TABLE.to_vec()).prop_map(|(name, _)| bytes(name))
}

/// Bytes that mean something to a SIP parser, and one that means nothing to UTF-8.
const SHARP: &[u8] = b"\r\n\t \"\\<>,;:=@%?&/[]()*\0\xff9aZ";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_messages_never_panic_and_what_is_read_survives_writing(
        message in torture(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 0..4_u8, 0..SHARP.len()), 0..8),
    ) {
        let mut message = message;
        for (at, kind, sharp) in changes {
            if message.is_empty() {
                break;
            }
            let at = at.index(message.len());
            match kind {
                0 => message[at] = SHARP[sharp],
                1 => message.insert(at, SHARP[sharp]),
                2 => drop(message.remove(at)),
                _ => message.truncate(at),
            }
        }
        match Message::parse(&message) {
            Ok(parsed) => {
                read_all(parsed.headers());
                prop_assert_eq!(Message::parse(&parsed.to_bytes()), Ok(parsed));
            }
            Err(ParseError { reply: Some(reply), .. }) => {
                read_all(&reply.headers);
                prop_assert!(!reply.to_bytes().is_empty());
            }
            Err(ParseError { reply: None, .. }) => {}
        }
    }

    #[test]
    fn two_messages_spliced_never_panic(
        (one, at) in (torture(), 0..1000_usize),
        (other, from) in (torture(), 0..1000_usize),
    ) {
        let mut message = one[..at.min(one.len())].to_vec();
        message.extend_from_slice(&other[from.min(other.len())..]);
        if let Ok(parsed) = Message::parse(&message) {
            prop_assert_eq!(Message::parse(&parsed.to_bytes()), Ok(parsed));
        }
    }
}
