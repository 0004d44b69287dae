//! Messages that are broken, enormous or lies.
//!
//! Owns: fourteen attacks at the open gateway's SIP port. What each message deserves is known elsewhere (`tests/rfc4475.rs`,
//! `tests/sip`); here it must do no harm to the program.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use lab::room::{ClientName, RoomCommand};

use crate::caller::{Caller, receive};
use crate::ground::{Ground, OFFER, connect, message, paced, request, stranger, unique};
use crate::real::{PATIENCE, eventually, names};

/// All files of RFC 4475, over UDP and each on a connection of its own.
pub(crate) fn torture(ground: &mut Ground) {
    use std::io::Write;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rfc4475");
    let files: Vec<Vec<u8>> = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dat"))
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(files.len() >= 49);
    let socket = stranger(2);
    for file in &files {
        socket.send_to(file, ground.open.udp()).unwrap();
        // It may be closed before all is written.
        let _ = connect(2, ground.open.tcp).write_all(file);
    }
    // Some of them are calls that nobody will end but we.
    end_calls(ground, &socket);
}

/// Sends variations of an INVITE with `change` at every header, each with `value` in place of what stands there.
fn at_every_header(ground: &Ground, values: &[Vec<u8>]) {
    let socket = stranger(3);
    for value in values {
        let template =
            request("INVITE", &unique(), &socket, ground.open.udp(), "Supported: x\r\nExpires: 9\r\n", OFFER);
        let text = String::from_utf8(template).unwrap();
        let lines: Vec<&str> = text.split_inclusive("\r\n").collect();
        for changed in 0..lines.len() {
            let mut bytes = Vec::new();
            for (index, line) in lines.iter().enumerate() {
                // In the first line it stands for the Request-URI, in the others for what follows the name.
                let start = line.find([':', ' ', '=']).filter(|_| index == changed);
                match start {
                    Some(at) => bytes.extend([&line.as_bytes()[..=at], value, b"\r\n"].concat()),
                    None => bytes.extend(line.as_bytes()),
                }
            }
            // Longer ones cannot be datagrams.
            bytes.truncate(65_000);
            socket.send_to(&bytes, ground.open.udp()).unwrap();
            paced(changed);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    end_calls(ground, &socket);
}

/// Ends calls that broken INVITEs have begun after all: the answers tell their tags.
fn end_calls(ground: &Ground, socket: &UdpSocket) {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = vec![0; 65_536];
    let mut ended = 0;
    let until = Instant::now() + PATIENCE;
    loop {
        let Ok(length) = socket.recv(&mut buffer) else {
            // Some are answered late, when the room has taken their callers in.
            if ground.open.is_idle() || Instant::now() > until {
                return;
            }
            continue;
        };
        let answer = &buffer[..length];
        // Bytes, since what is no text comes back as it was.
        let lines: Vec<&[u8]> = answer.split(|&byte| byte == b'\n').collect();
        let is_up = answer.starts_with(b"SIP/2.0 200") && lines.iter().any(|line| line.ends_with(b" INVITE\r"));
        if is_up {
            let of_dialog =
                |line: &&&[u8]| [&b"From:"[..], b"To:", b"Call-ID:"].iter().any(|name| line.starts_with(name));
            let dialog: Vec<u8> = lines.iter().filter(of_dialog).flat_map(|line| [*line, b"\n"].concat()).collect();
            for (method, number) in [("ACK", "1"), ("BYE", "2147483647")] {
                let (to, local) = (ground.open.udp(), socket.local_addr().unwrap());
                let head = format!(
                    "{method} sip:6002@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{}\r\nCSeq: {number} {method}\r\n\
                     Max-Forwards: 70\r\nContent-Length: 0\r\n",
                    unique()
                );
                socket.send_to(&[head.as_bytes(), &dialog, b"\r\n"].concat(), to).unwrap();
            }
        }
        ended += 1;
        assert!(ended < 5000, "it answers for ever");
    }
}

/// PROTOS c07: fields of every length up to what a datagram takes.
pub(crate) fn overlong_fields(ground: &mut Ground) {
    let values: Vec<Vec<u8>> = [127, 255, 1024, 4096, 16_000, 60_000].map(|length| vec![b'a'; length]).into();
    at_every_header(ground, &values);
}

/// PROTOS c07: what C programs stumble over.
pub(crate) fn formats_and_bytes(ground: &mut Ground) {
    let values: [&[u8]; 9] = [
        b"%s%s%s%n%n%x",
        b"%0",
        b"\0\0\0",
        b"\xff\xfe\xc0\xaf",
        b"\xe2\x28\xa1<sip:\x80@\x80>",
        b"\"\"\"\"<<<<>>>>",
        b"",
        b"../../../../etc/passwd",
        b"<sip:[::::::::::::::::]:99999;;;;=;=>;tag=;tag",
    ];
    at_every_header(ground, &values.map(<[u8]>::to_vec));
}

/// Numbers that fit nowhere.
pub(crate) fn numbers(ground: &mut Ground) {
    let values =
        ["-1", "0", "4294967296 INVITE", "18446744073709551616 INVITE", "99999999999999999999999999", "1e9", "0x7f"];
    at_every_header(ground, &values.map(|value| value.as_bytes().to_vec()));
}

/// What grows with the square of its length in a careless parser.
pub(crate) fn nesting_and_repetition(ground: &mut Ground) {
    let socket = stranger(4);
    let repeated = [
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa\r\n".repeat(1000),
        format!("X: {}\r\n", ";a=b".repeat(14_000)),
        format!("Contact: <sip:a@b{}>\r\n", ";p=v".repeat(14_000)),
        format!("Record-Route: {}<sip:a>\r\n", "<sip:a;lr>,".repeat(4000)),
        format!("Subject: {}\r\n", "(".repeat(50_000)),
        format!("Subject: {}\r\n", "\"\\".repeat(25_000)),
        "From: <sip:x@y>;tag=z\r\n".repeat(1500),
        "Call-ID: a\r\n".repeat(3000),
        "Require: a,b,c,d\r\n".repeat(3000),
        "Authorization: Digest a=\"b\",c=d\r\n".repeat(1800),
        " folded\r\n".repeat(6000),
        format!("Replaces: {};to-tag=a;from-tag=b\r\n", "c".repeat(50_000)),
    ];
    for more in repeated {
        let bytes = request("INVITE", &unique(), &socket, ground.open.udp(), &more, OFFER);
        socket.send_to(&bytes[..bytes.len().min(65_000)], ground.open.udp()).unwrap();
    }
    end_calls(ground, &socket);
}

/// The largest datagrams there are.
pub(crate) fn largest_datagrams(ground: &mut Ground) {
    let socket = stranger(5);
    for index in 0..200 {
        let body = ["a", "\0", "\r\n", "m=audio 1 RTP/AVP 0\r\n"][index % 4].repeat(65_000 / [1, 1, 2, 21][index % 4]);
        let bytes = request("INVITE", &unique(), &socket, ground.open.udp(), "", &body);
        socket.send_to(&bytes[..bytes.len().min(65_507)], ground.open.udp()).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    end_calls(ground, &socket);
}

/// Two readings of one message.
pub(crate) fn smuggling(ground: &mut Ground) {
    let socket = stranger(6);
    let inner = String::from_utf8(message("OPTIONS", &socket, ground.open.udp(), "X-Smuggled: 1\r\n")).unwrap();
    let tricks = [
        "Content-Length: 5\r\n".to_owned(),
        "Content-Length: 0\r\nContent-Length: 400\r\n".to_owned(),
        "l: 3\r\nContent-Length: 7\r\n".to_owned(),
        "X: a\rVia: SIP/2.0/UDP 192.0.2.9\r\n".to_owned(),
        "X: a\nBYE sip:x SIP/2.0\r\n".to_owned(),
        "X: a\r\n\r\nVia: b\r\n".to_owned(),
        "X:\r\n folded\r\n\tmore: of it\r\n".to_owned(),
        "X: %0d%0aVia: b\r\n".to_owned(),
        "Content-Length : 9999\r\n".to_owned(),
        format!("X: y\r\n\r\n{inner}"),
    ];
    for trick in &tricks {
        let bytes = [&message("OPTIONS", &socket, ground.open.udp(), trick)[..], inner.as_bytes()].concat();
        socket.send_to(&bytes, ground.open.udp()).unwrap();
        // What is hidden in a datagram behind another message is not a message.
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut buffer = vec![0; 65_536];
        let answers = std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count();
        assert!(answers <= 1, "{answers} answers to one datagram with {trick:?}");
    }
}

/// Answers to what nobody has asked.
pub(crate) fn stray_responses(ground: &mut Ground) {
    let socket = stranger(7);
    for index in 0..2000 {
        let status = [100, 180, 200, 302, 401, 407, 503, 699][index % 8];
        let cseq = ["INVITE", "REGISTER", "BYE", "OPTIONS"][index / 8 % 4];
        let text = String::from_utf8(message(cseq, &socket, ground.open.udp(), "")).unwrap();
        let headers = text.split_once("\r\n").unwrap().1;
        let response = format!("SIP/2.0 {status} So\r\n{headers}");
        socket.send_to(response.as_bytes(), ground.open.udp()).unwrap();
        paced(index);
    }
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(socket.recv(&mut [0; 100]).is_err(), "a response is never answered");
}

/// Requests of dialogs that there are not.
pub(crate) fn requests_of_no_dialog(ground: &mut Ground) {
    let socket = stranger(8);
    let methods = ["CANCEL", "BYE", "ACK", "REFER", "UPDATE", "PRACK", "INFO", "NOTIFY", "SUBSCRIBE", "MESSAGE", "FLY"];
    for index in 0..1100 {
        let method = methods[index % methods.len()];
        let text = String::from_utf8(message(method, &socket, ground.open.udp(), "Refer-To: <sip:x@y>\r\n")).unwrap();
        let text = if index % 2 == 0 { text.replace("\r\nCall-ID", ";tag=guess\r\nCall-ID") } else { text };
        socket.send_to(text.as_bytes(), ground.open.udp()).unwrap();
        paced(index);
    }
    let is_yes = |text: &str| text.starts_with("SIP/2.0 2");
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(receive(&socket, is_yes), None, "none of them can be done");
}

/// Somebody knows a call's Call-ID and guesses the tags.
pub(crate) fn guessed_dialogs(ground: &mut Ground) {
    let mut victim = Caller::call(ground.open.udp(), 1, "Victim");
    let attacker = stranger(9);
    for index in 0..500 {
        let method = ["BYE", "INVITE", "UPDATE", "REFER", "CANCEL", "ACK", "INFO"][index % 7];
        let guess = format!("{index:08x}");
        let request = victim.request(method, "", (&guess, &unique()));
        attacker.send_to(request.as_bytes(), ground.open.udp()).unwrap();
        paced(index);
    }
    assert_eq!(victim.status_of("OPTIONS", ""), 200, "the call goes on");
}

/// INVITEs that would take a foreign call over.
pub(crate) fn foreign_replaces(ground: &mut Ground) {
    let mut victim = Caller::call(ground.open.udp(), 1, "Victim");
    let attacker = stranger(10);
    for index in 0..200 {
        let tags = [("a", "b"), ("0", "0"), ("", ""), ("%00", "*")][index % 4];
        let replaces = format!("Replaces: {};to-tag={};from-tag={}\r\n", victim.call_id, tags.0, tags.1);
        let invite = request("INVITE", &unique(), &attacker, ground.open.udp(), &replaces, OFFER);
        attacker.send_to(&invite, ground.open.udp()).unwrap();
        paced(index);
        let status = receive(&attacker, |text| !text.starts_with("SIP/2.0 1")).unwrap();
        assert!(status.starts_with("SIP/2.0 4"), "{status}");
    }
    assert_eq!(victim.status_of("OPTIONS", ""), 200, "the call goes on");
}

/// A caller who wants to be connected to expensive numbers, or to have our password's digest sent elsewhere.
pub(crate) fn toll_fraud(ground: &mut Ground) {
    let mut caller = Caller::call(ground.open.udp(), 1, "Fraud");
    let targets = [
        "sip:+2521234567@toll.example.com",
        "sip:x@127.0.0.99:5060",
        "tel:+2521234567",
        "sips:x@y.example",
        "mailto:x@y",
    ];
    for target in targets {
        let status = caller.status_of("REFER", &format!("Refer-To: <{target}>\r\n"));
        assert!((400..700).contains(&status), "REFER to {target} got {status}");
    }
    assert_eq!(caller.status_of("OPTIONS", ""), 200, "the call goes on");
}

/// Our BYE is challenged and led astray: no digest may go anywhere.
pub(crate) fn digest_leaks(ground: &mut Ground) {
    for (index, answer) in
        ["401 Unauthorized", "407 Proxy Authentication Required", "302 Moved"].into_iter().enumerate()
    {
        let name = format!("Leak {index}");
        let elsewhere = stranger(11);
        let caller = Caller::call(ground.open.udp(), 1, &name);
        eventually("the caller is in the room", || names(&ground.room).contains(&name));
        let operator = ClientName { id: "op".to_owned(), username: "op".to_owned() };
        ground.room.command(RoomCommand::Kick { client: name.clone(), by: Some(operator), message: "out".to_owned() });
        let bye = receive(&caller.socket, |text| text.starts_with("BYE ")).expect("a BYE");
        let headers: String = bye.split_once("\r\n").unwrap().1.replace("Content-Length", "X");
        let challenge = "Digest realm=\"127.0.0.1\", nonce=\"n\", algorithm=MD5, qop=\"auth\"";
        let head = headers.split("\r\n\r\n").next().unwrap();
        let response = format!(
            "SIP/2.0 {answer}\r\n{head}\r\nContact: <sip:x@{}>\r\nWWW-Authenticate: {challenge}\r\n\
             Proxy-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n",
            elsewhere.local_addr().unwrap()
        );
        caller.socket.send_to(response.as_bytes(), ground.open.udp()).unwrap();
        for socket in [&caller.socket, &elsewhere] {
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let leak = receive(socket, |text| text.contains("uthorization") || text.starts_with("BYE") && text != bye);
            assert_eq!(leak, None, "an answer to {answer}");
        }
    }
}

/// Session descriptions that are none, or far too much of one.
pub(crate) fn sdp_bombs(ground: &mut Ground) {
    let socket = stranger(12);
    let line = |text: &str, times: usize| format!("{OFFER}{}", text.repeat(times));
    let bombs = [
        line("a=x\r\n", 3000),
        line("m=audio 9 RTP/AVP 0\r\n", 700),
        line("a=rtpmap:0 PCMU/8000\r\n", 600),
        line("a=candidate:1 1 UDP 1 127.0.0.1 9 typ host\r\n", 300),
        line("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\n", 300),
        format!("{OFFER}a=ptime:99999999999999\r\na=maxptime:-1\r\n"),
        OFFER.replace("audio 9", "audio 4294967295"),
        OFFER.replace("RTP/AVP 0", &format!("RTP/AVP {}", "0 ".repeat(7000))),
        OFFER.replace("127.0.0.1", "999.999.999.999"),
        OFFER.replace("127.0.0.1", "224.0.0.1"),
        OFFER.replace("127.0.0.1", "255.255.255.255"),
        OFFER.replace("v=0", "v=18446744073709551616"),
        "\0".repeat(10_000),
        "v=0".to_owned(),
    ];
    for bomb in bombs {
        let invite = request("INVITE", &unique(), &socket, ground.open.udp(), "", &bomb);
        socket.send_to(&invite, ground.open.udp()).unwrap();
    }
    // Ten thousand lines of a message that is too long.
    let invite = request("INVITE", &unique(), &socket, ground.open.udp(), "", &line("a=x\r\n", 10_000));
    socket.send_to(&invite, ground.open.udp()).unwrap();
    end_calls(ground, &socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
}
