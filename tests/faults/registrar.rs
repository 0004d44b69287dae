//! A registrar that answers nonsense to the running program for some seconds (for ten minutes of virtual time, and with more
//! kinds of it, in `tests/sip/nonsense.rs`): it neither spins nor dies, and is registered when the registrar makes sense.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::gateway::answers;

use crate::real::{GROUP, register, room};

/// For how long it makes no sense: two pauses after failures.
const NONSENSE: Duration = Duration::from_millis(2500);
/// Of those three attempts, each with up to five challenges.
const MOST_ASKED: usize = 16;
/// The pause that may have begun, or the next copy of a REGISTER that was not answered, both up to 8 s.
const AGAIN_WITHIN: Duration = Duration::from_secs(12);

/// What it answers to its nth REGISTER.
type Nonsense = fn(usize, &str) -> Vec<Vec<u8>>;

const KINDS: [(&str, Nonsense); 8] = [
    ("bytes", |nth, _| vec![(0..1400).map(|index| (index * nth * 7 % 256) as u8).collect()]),
    ("numbers beyond all bounds", |_, request| {
        vec![response(request, "99999999999999999999 Yes", "", "").into_bytes(), b"SIP/2.0 200".to_vec()]
    }),
    ("a body of 60 kB, twice", |_, request| {
        let large = response(request, "200 OK", "Expires: 0\r\n", &"x".repeat(60_000)).into_bytes();
        vec![large.clone(), large]
    }),
    ("a thousand headers", |_, request| {
        vec![response(request, "500 No", &"Contact: <sip:a@b>;expires=99999999999\r\n".repeat(1000), "").into_bytes()]
    }),
    ("an answer to something else", |_, request| {
        let other =
            response(request, "200 OK", "", "").replace(" REGISTER\r\n", " BYE\r\n").replace("Call-ID: ", "Call-ID: x");
        vec![other.into_bytes()]
    }),
    ("stale nonces without end", |nth, request| {
        let challenge = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"n{nth}\", qop=\"auth\", stale=true\r\n");
        vec![response(request, "401 Again", &challenge, "").into_bytes()]
    }),
    ("423 without a word", |_, request| vec![response(request, "423 Too Brief", "", "").into_bytes()]),
    ("302 to itself", |_, request| {
        vec![response(request, "302 There", "Contact: <sip:127.0.0.1>\r\n", "").into_bytes()]
    }),
];

fn response(request: &str, status: &str, extra: &str, body: &str) -> String {
    let is_copied =
        |line: &&str| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name));
    let copied: String = request.lines().filter(is_copied).map(|line| format!("{line}\r\n")).collect();
    format!("SIP/2.0 {status}\r\n{copied}{extra}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A registrar that goes out of its mind; it ends when it is dropped.
struct Mad {
    address: SocketAddr,
    is_sane: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    has_ended: Arc<AtomicBool>,
}

impl Mad {
    fn start(nonsense: Nonsense) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mad = Self {
            address: socket.local_addr().unwrap(),
            is_sane: Arc::default(),
            asked: Arc::default(),
            has_ended: Arc::default(),
        };
        let (is_sane, asked, has_ended) = (mad.is_sane.clone(), mad.asked.clone(), mad.has_ended.clone());
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while !has_ended.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if !request.starts_with("REGISTER ") {
                    continue;
                }
                let nth = asked.fetch_add(1, Ordering::SeqCst) + 1;
                let answers = if is_sane.load(Ordering::SeqCst) {
                    vec![response(&request, "200 OK", "Expires: 600\r\n", "").into_bytes()]
                } else {
                    nonsense(nth, &request)
                };
                for answer in answers {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        mad
    }
}

impl Drop for Mad {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
    }
}

#[test]
fn nonsense_neither_spins_nor_kills_and_we_are_registered_when_it_ends() {
    let room = room();
    let registrars: Vec<_> = KINDS.iter().map(|(name, nonsense)| (*name, Mad::start(*nonsense))).collect();
    let start = |mad: &Mad| register(&format!("sip:room@{}", mad.address), "secret", &[], &room.group_url(GROUP));
    let mut all: Vec<_> = registrars.into_iter().map(|(name, mad)| (name, start(&mad), mad)).collect();
    thread::sleep(NONSENSE);
    let is_registered = |line: &str| line.contains("registered for ");
    for (name, gateway, mad) in &mut all {
        let asked = mad.asked.load(Ordering::SeqCst);
        assert!((1..=MOST_ASKED).contains(&asked), "{name}: {asked} REGISTERs in {NONSENSE:?}");
        assert!(!gateway.lines().iter().any(|line| is_registered(line)), "{name}\n{}", gateway.lines().join("\n"));
        assert!(gateway.is_running() && answers(gateway.address()).unwrap(), "{name}");
        mad.is_sane.store(true, Ordering::SeqCst);
    }
    let sane = Instant::now();
    for (name, gateway, mad) in &all {
        let left = AGAIN_WITHIN.saturating_sub(sane.elapsed());
        gateway.wait_for_line(left, is_registered).unwrap_or_else(|why| panic!("{name}: {why}"));
        let asked = mad.asked.load(Ordering::SeqCst);
        println!("{name}: registered within {:.1} s, {asked} REGISTERs in all", sane.elapsed().as_secs_f64());
    }
}
