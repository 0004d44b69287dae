//! `io::websocket`.

use std::net::{IpAddr, Ipv4Addr};

use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{self, Message};
use galene_sip::galene::Fault;
use galene_sip::io::tls::Tls;
use galene_sip::io::websocket::{Command, Incoming, MAX_COMMANDS, run};
use smol::channel::{Receiver, Sender, bounded};
use smol::future::FutureExt;
use url::Url;

use crate::server::{SelfSigned, read_request, respond, serve};

/// It is open, from where the server sees us.
const CONNECTED: Incoming = Incoming::Connected { local: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)) };

/// A connection to `url` and what `script` does with it; the words are tagged, as the driver's are.
fn with<F: Future<Output = ()>>(
    url: &str,
    tls: &Tls,
    script: impl FnOnce(Sender<Command>, Receiver<(u32, Incoming)>) -> F,
) {
    let (commands, to_do) = bounded(MAX_COMMANDS);
    let (words, told) = bounded(4);
    let connection = run(Url::parse(url).unwrap(), tls.clone(), to_do, words, |word| (7, word));
    smol::block_on(async {
        let script = script(commands, told);
        let both = async {
            connection.await;
            std::future::pending().await
        };
        both.or(script).await;
    });
}

async fn next(told: &Receiver<(u32, Incoming)>) -> Incoming {
    told.recv().await.expect("the connection ended without a last word").1
}

/// The one word of a connection that does not open.
fn fault(url: &str, tls: &Tls) -> Fault {
    let (given, mut found) = (std::sync::mpsc::channel(), None);
    with(url, tls, async |_commands, told| {
        let Incoming::Disconnected(fault) = next(&told).await else { panic!() };
        given.0.send(fault).unwrap();
        assert!(told.recv().await.is_err());
    });
    while let Ok(fault) = given.1.try_recv() {
        found = Some(fault);
    }
    found.unwrap()
}

fn echo(stream: Box<dyn crate::server::Stream>) {
    let Ok(mut socket) = tungstenite::accept(stream) else { return };
    while let Ok(message) = socket.read() {
        if message.is_text() {
            socket.send(Message::Ping("are you there".into())).unwrap();
            socket.send(Message::binary(vec![1, 2, 3])).unwrap();
            socket.send(message).unwrap();
        }
    }
}

#[test]
fn text_goes_both_ways_and_a_close_is_the_last_word() {
    let ours = SelfSigned::new(&["localhost"]);
    let (plain, encrypted) = (serve(None, echo), serve(Some(&ours), echo));
    let trusting = Tls::new(&[ours.certificate], false);
    for (url, tls) in [
        (format!("ws://127.0.0.1:{plain}/ws"), &trusting),
        (format!("wss://localhost:{encrypted}/ws"), &trusting),
        (format!("wss://127.0.0.1:{encrypted}/ws"), &Tls::new(&[], true)),
    ] {
        with(&url, tls, async |commands, told| {
            assert_eq!(next(&told).await, CONNECTED);
            let long = "ü".repeat(200_000);
            for text in ["{}", &long] {
                commands.send(Command::Text(text.into())).await.unwrap();
                assert_eq!(next(&told).await, Incoming::Text(text.into()));
            }
            commands.send(Command::Close).await.unwrap();
            assert!(matches!(next(&told).await, Incoming::Disconnected(_)));
            assert!(told.recv().await.is_err());
        });
    }
}

#[test]
fn what_was_sent_before_a_close_arrives_with_the_farewell() {
    let (seen, arrived) = std::sync::mpsc::channel();
    let port = serve(None, move |stream| {
        let mut socket = tungstenite::accept(stream).unwrap();
        // Unread words of the server are no reason to lose ours.
        socket.send(Message::text("x".repeat(100_000))).unwrap();
        while let Ok(message) = socket.read() {
            seen.send(message).unwrap();
        }
    });
    with(&format!("ws://127.0.0.1:{port}/"), &Tls::new(&[], false), async |commands, told| {
        assert_eq!(next(&told).await, CONNECTED);
        commands.send(Command::Text("leave".into())).await.unwrap();
        drop(commands);
        while !matches!(next(&told).await, Incoming::Disconnected(_)) {}
    });
    assert_eq!(arrived.recv().unwrap(), Message::text("leave"));
    assert!(matches!(arrived.recv().unwrap(), Message::Close(_)));
}

#[test]
fn the_servers_reason_for_closing_is_told() {
    let port = serve(None, |stream| {
        let mut socket = tungstenite::accept(stream).unwrap();
        let frame = CloseFrame { code: CloseCode::Protocol, reason: "spoofed client id".into() };
        socket.close(Some(frame)).unwrap();
        while socket.read().is_ok() {}
    });
    with(&format!("ws://127.0.0.1:{port}/"), &Tls::new(&[], false), async |_commands, told| {
        assert_eq!(next(&told).await, CONNECTED);
        let last = next(&told).await;
        let Incoming::Disconnected(Fault::Unreachable(text)) = last else { panic!("{last:?}") };
        assert_eq!(text, format!("127.0.0.1:{port} has closed the connection: spoofed client id"));
    });
}

#[test]
fn a_message_over_one_mebibyte_ends_the_connection() {
    let port = serve(None, |stream| {
        let mut socket = tungstenite::accept(stream).unwrap();
        let _ = socket.send(Message::text("x".repeat((1 << 20) + 1)));
        while socket.read().is_ok() {}
    });
    with(&format!("ws://127.0.0.1:{port}/"), &Tls::new(&[], false), async |_commands, told| {
        assert_eq!(next(&told).await, CONNECTED);
        assert!(matches!(next(&told).await, Incoming::Disconnected(Fault::Protocol(_))));
    });
}

#[test]
fn a_server_that_drops_the_connection_broke_it_off() {
    let port = serve(None, |stream| drop(tungstenite::accept(stream)));
    with(&format!("ws://127.0.0.1:{port}/"), &Tls::new(&[], false), async |_commands, told| {
        assert_eq!(next(&told).await, CONNECTED);
        let last = next(&told).await;
        assert!(
            matches!(&last, Incoming::Disconnected(Fault::Unreachable(text)) if text.contains("broke off")),
            "{last:?}"
        );
    });
}

#[test]
fn a_connection_that_does_not_open_says_why() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let web = serve(None, |mut stream| {
        let request = read_request(&mut stream);
        let status =
            if request.is_some_and(|(first, ..)| first.contains("/busy")) { "503 Busy" } else { "404 Not Found" };
        respond(&mut stream, status, "", "");
    });
    let unknown = serve(Some(&SelfSigned::new(&["localhost"])), echo);
    let tls = Tls::new(&[], false);
    let words = |url: String| fault(&url, &tls);
    assert!(matches!(words(format!("ws://127.0.0.1:{closed}/")), Fault::Unreachable(text) if text.contains("refuses")));
    assert!(matches!(words(format!("ws://127.0.0.1:{web}/")), Fault::Protocol(text) if text.contains("404")));
    assert!(matches!(words(format!("ws://127.0.0.1:{web}/busy")), Fault::Unreachable(text) if text.contains("503")));
    assert!(matches!(words(format!("wss://localhost:{unknown}/")), Fault::Tls(text) if text.contains("-insecure")));
    assert!(matches!(words(format!("wss://127.0.0.1:{web}/")), Fault::Tls(text) if text.contains("TLS")));
    assert!(matches!(words("ws://no-such-host.invalid/".into()), Fault::Unreachable(text) if text.contains("DNS")));
}

#[test]
fn a_connection_can_be_given_up_while_it_opens() {
    // Takes connections in the kernel alone: the upgrade is never answered.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", mute.local_addr().unwrap());
    with(&url, &Tls::new(&[], false), async |commands, told| {
        commands.send(Command::Close).await.unwrap();
        assert!(matches!(next(&told).await, Incoming::Disconnected(_)));
    });
}
