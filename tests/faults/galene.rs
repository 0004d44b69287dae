//! A Galene that is slow, silent, or not a Galene at all. Whatever it does, the caller has an answer within 10 s, the line in
//! the log says what is wrong, and nothing is left of the call.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::gateway::{Gateway, answers};
use lab::member::Crowd;
use lab::room::{GroupConfig, RoomConfig, RoomServer};
use lab::telephone::{Telephone, TelephoneSetup};

use crate::ground::{assert_both_ways, assert_unharmed, call, member, refusal};
use crate::real::{GROUP, PATIENCE, binary, eventually, from, names};
use crate::wire::Wire;

/// The limit of joining, and what the answer takes on its way.
const ANSWERED_WITHIN: Duration = Duration::from_millis(10_500);
/// A key that no client has sent gives another one than this.
const WRONG_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How far it goes before it says nothing more.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Takes the connection and never says a word, neither TLS nor HTTP.
    Silent { tls: bool },
    /// One byte of its answer in half a second.
    Drips,
    /// Closes at once.
    HangsUp,
    /// Answers HTTP with this status and body.
    Says(u16, &'static str),
    /// Gives a good status of the group, and to the WebSocket's opening nothing.
    NoUpgrade,
    /// The same, with an opening that is no WebSocket's.
    WrongUpgrade,
}

/// A server on loopback that has this manner; it ends when it is dropped.
struct Stub {
    address: SocketAddr,
    has_ended: Arc<AtomicBool>,
}

impl Stub {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, has_ended) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&has_ended);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                thread::spawn(move || {
                    // Who hangs up on us has had enough.
                    let _ = serve(stream.unwrap(), address, manner);
                });
            }
        });
        Self { address, has_ended }
    }

    fn url(&self, manner: Manner) -> String {
        let scheme = if matches!(manner, Manner::Silent { tls: true }) { "https" } else { "http" };
        format!("{scheme}://{}/group/{GROUP}/", self.address)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        // It looks up only when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, address: SocketAddr, manner: Manner) -> std::io::Result<()> {
    let respond = |status: u16, body: &str| {
        format!("HTTP/1.1 {status} It Is So\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    };
    let group =
        format!(r#"{{"name":"{GROUP}","location":"http://{address}/group/{GROUP}/","endpoint":"ws://{address}/ws"}}"#);
    let mut request = [0; 8192];
    if matches!(manner, Manner::HangsUp) {
        return Ok(());
    }
    let length = stream.read(&mut request)?;
    let is_upgrade = request[..length].starts_with(b"GET /ws");
    match manner {
        Manner::HangsUp => {}
        Manner::Silent { .. } => wait_closed(&mut stream),
        Manner::Drips => {
            for byte in respond(200, &group).bytes() {
                stream.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(500));
            }
        }
        Manner::Says(status, body) => stream.write_all(respond(status, body).as_bytes())?,
        Manner::NoUpgrade if is_upgrade => wait_closed(&mut stream),
        Manner::WrongUpgrade if is_upgrade => {
            let upgrade = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {WRONG_ACCEPT}\r\n\r\n"
            );
            stream.write_all(upgrade.as_bytes())?;
            wait_closed(&mut stream);
        }
        Manner::NoUpgrade | Manner::WrongUpgrade => stream.write_all(respond(200, &group).as_bytes())?,
    }
    Ok(())
}

/// Says nothing until the other side has gone.
fn wait_closed(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

/// The caller's status and the words for it; the log has the same line, and nothing is left.
fn assert_refused(manner: Manner, words: &str) {
    let stub = Stub::start(manner);
    let gateway = Gateway::start(binary(), &stub.url(manner), &[]).unwrap();
    let is_idle = || !gateway.thread_names().iter().any(|name| name == "blocking");
    let telephone = Telephone::call(TelephoneSetup::new(&gateway.uri()).from(&from("Ada"))).unwrap();
    let began = Instant::now();
    let (status, warning) = refusal(&telephone, ANSWERED_WITHIN)
        .unwrap_or_else(|why| panic!("{manner:?}: {why}\n{}", gateway.lines().join("\n")));
    println!("{manner:?}: {status} after {:.1} s: {warning}", began.elapsed().as_secs_f64());
    assert_eq!(status, 480, "{manner:?}: {warning}");
    assert!(warning.contains(words), "{manner:?}: {warning}");
    gateway.wait_for_line(PATIENCE, |line| line.contains(" WARN call 1") && line.contains(words)).unwrap();
    assert!(answers(gateway.address()).unwrap());
    eventually("nothing waits for it any more", is_idle);
}

/// A room behind a wire that can go dead, a gateway that calls into it by that, and a call with a member in the room.
struct Wired {
    wire: Wire,
    gateway: Gateway,
    member: Crowd,
    telephone: Telephone,
    /// No judge: it is right that it throws a dead client out.
    room: RoomServer,
}

impl Wired {
    fn new() -> Self {
        // A real server looks every 10 s and has 45 s of patience.
        let (dead_after, liveness_tick) = (Duration::from_secs(4), Duration::from_millis(500));
        let config = RoomConfig { dead_after, liveness_tick, ..RoomConfig::new(vec![GroupConfig::open(GROUP)]) };
        let room = RoomServer::start(RoomConfig { ping_after: Duration::from_secs(2), ..config }).unwrap();
        let wire = Wire::to(room.address());
        let gateway = Gateway::start(binary(), &format!("http://{}/group/{GROUP}/", wire.address), &[]).unwrap();
        let mut member = member(&room.group_url(GROUP));
        let log = || gateway.lines().join("\n");
        let telephone = call(&gateway.uri(), "Ada", log);
        assert_both_ways(&telephone, "Ada", &mut member, log);
        Self { wire, gateway, member, telephone, room }
    }

    /// The caller is in the room once, and both ways are heard, from now on.
    fn assert_back(mut self, since: Instant) {
        let lines = self.gateway.lines();
        let back: Vec<&String> = lines.iter().filter(|line| line.contains("back in test")).collect();
        assert_eq!(back.len(), 1, "{back:?}");
        assert_both_ways(&self.telephone, "Ada", &mut self.member, || lines.join("\n"));
        eventually("no ghost is left", || names(&self.room).iter().filter(|name| *name == "Ada").count() == 1);
        assert_unharmed(self.telephone, since);
    }
}

#[test]
fn a_connection_that_goes_dead_without_a_word_is_replaced_within_seven_seconds() {
    let world = Wired::new();
    world.wire.cut();
    let cut = Instant::now();
    let back = world.gateway.wait_for_line(PATIENCE, |line| line.contains("back in test"));
    back.unwrap_or_else(|why| panic!("{why}"));
    println!("back {:.1} s after the connection went dead", cut.elapsed().as_secs_f64());
    assert!(cut.elapsed() < Duration::from_secs(7));
    world.assert_back(cut);
}

#[test]
fn one_that_takes_connections_and_says_nothing_is_waited_for() {
    let world = Wired::new();
    world.wire.cut_for_good();
    let cut = Instant::now();
    let told = world.gateway.wait_for_line(PATIENCE, |line| line.contains("the caller stays on the line"));
    let told = told.unwrap_or_else(|why| panic!("{why}"));
    assert!(told.contains("the server or the way to it is down"), "{told}");
    thread::sleep(Duration::from_secs(3));
    // What was opened meanwhile stays dead.
    world.wire.cut();
    let mended = Instant::now();
    let back = world.gateway.wait_for_line(PATIENCE, |line| line.contains("back in test"));
    back.unwrap_or_else(|why| panic!("{why}"));
    println!("back {:.1} s after Galene began to speak again", mended.elapsed().as_secs_f64());
    assert!(mended.elapsed() < Duration::from_secs(5));
    world.assert_back(cut);
}

#[test]
fn one_that_never_answers_tls_http_or_the_web_socket_or_drips() {
    let silent = [Manner::Silent { tls: false }, Manner::Silent { tls: true }, Manner::Drips, Manner::NoUpgrade];
    thread::scope(|scope| {
        for manner in silent {
            scope.spawn(move || assert_refused(manner, "does not answer"));
        }
    });
}

#[test]
fn one_that_hangs_up_answers_500_gives_html_or_json_of_another_kind_or_opens_no_web_socket() {
    assert_refused(Manner::HangsUp, "broke off");
    assert_refused(Manner::Says(500, "oh"), "HTTP status 500");
    assert_refused(Manner::Says(200, "<!DOCTYPE html><title>It works!</title>"), "no status of a group");
    assert_refused(Manner::Says(200, r#"{"name":7}"#), "no status of a group");
    assert_refused(Manner::WrongUpgrade, "Key mismatch");
}
