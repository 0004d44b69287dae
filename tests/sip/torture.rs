//! The messages of RFC 4475, answered: what an endpoint makes of what the parser lets through.

use std::path::Path;

use crate::peer::{PHONE, World};

/// What each message gets, sent to an agent that takes every call and is not the `user` that most of them ask for.
/// Those that the parser refuses are in `tests/rfc4475.rs`.
const TABLE: [(&str, &str); 22] = [
    ("wsinv", "481 Call/Transaction Does Not Exist"), // Its To has a tag.
    ("intmeth", "501 Not Implemented"),
    ("esc01", "100 Trying"),
    ("escnull", "405 Method Not Allowed"),
    ("esc02", "501 Not Implemented"),
    ("lwsdisp", "200 OK"),
    ("longreq", "100 Trying"),
    ("dblreq", "405 Method Not Allowed"),
    ("semiuri", "200 OK"),
    ("transports", "200 OK"),
    ("mpart01", "405 Method Not Allowed"),
    ("unreason", ""), // Responses that no one waits for.
    ("noreason", ""),
    ("badbranch", "200 OK"), // A branch of the bare cookie: matched as before RFC 3261.
    ("unkscm", "416 Unsupported URI Scheme"),
    ("novelsc", "416 Unsupported URI Scheme"),
    ("bext01", "420 Bad Extension"),
    ("invut", "415 Unsupported Media Type"),
    ("regaut01", "405 Method Not Allowed"),
    ("zeromf", "483 Too Many Hops"), // It names someone else.
    ("sdp01", "406 Not Acceptable"),
    ("inv2543", "100 Trying"), // No tag, no branch, no Contact.
];

fn said(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/rfc4475/{name}.dat"));
    let mut world = World::open();
    world.receive_bytes(PHONE, &std::fs::read(path).unwrap());
    let first = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
    let lines: Vec<_> = world.sent().into_iter().map(|one| first(one.bytes)).collect();
    lines.join(" | ").replace("SIP/2.0 ", "")
}

#[test]
fn every_message_gets_what_it_deserves() {
    for (name, answer) in TABLE {
        assert_eq!(said(name), answer, "{name}");
    }
}
