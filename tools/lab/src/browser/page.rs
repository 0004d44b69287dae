//! The page that the browser shows, served on 127.0.0.1, and the WebSocket by which it reports.
//!
//! Owns: three documents, a thread for each connection, what was heard and counted so far. Does not own: the browser.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::report::{Counts, PageReport, samples};
use crate::event_log::EventLog;
use crate::http::{Request, response};
use crate::recording::Recording;
use crate::transport::Transport;
use crate::websocket::{Link, upgrade};

/// The rate of what the page records.
pub(super) const RATE_HZ: u32 = 48_000;
const PAGE: &str = include_str!("page.html");
const MEMBER: &str = include_str!("member.js");
const RECORDER: &str = include_str!("recorder.js");
/// How long a read waits, after which commands and the end are looked for.
const TURN: Duration = Duration::from_millis(20);

/// What the page has reported up to now.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// What was heard of each source.
    pub(super) recordings: BTreeMap<String, Recording>,
    /// The browser's counters and when they came.
    pub(super) counts: Vec<(Instant, Counts)>,
}

impl Heard {
    /// The counters of a time.
    pub(super) fn counts_between(&self, begin: Instant, end: Instant) -> Vec<Counts> {
        let within = self.counts.iter().filter(|(at, _)| (begin..=end).contains(at));
        within.map(|(_, counts)| counts.clone()).collect()
    }

    /// What was heard of the source whose name begins so, from a moment on, at that rate.
    pub(super) fn sound(&self, source: &str, origin: Instant, rate_hz: u32) -> Vec<i16> {
        let found = self.recordings.iter().find(|(name, _)| name.starts_with(source));
        let samples = found.map(|(_, recording)| recording.render(origin)).unwrap_or_default();
        crate::pcm::Pcm { rate_hz: RATE_HZ, samples }.resampled(rate_hz).samples
    }

    fn add(&mut self, at: Instant, source: String, frame: u64, samples: Vec<i16>) {
        // A block is handed on when its last sample is there.
        let length = Duration::from_secs_f64(samples.len() as f64 / f64::from(RATE_HZ));
        let recording = self.recordings.entry(source).or_insert_with(|| Recording::new(RATE_HZ));
        recording.add(at.checked_sub(length).unwrap_or(at), 0, frame as u32, samples);
    }
}

/// A page that is served. Nobody serves it any more when it is dropped.
pub(super) struct Page {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    /// What it reports, sounds and counters apart.
    pub(super) reports: EventLog<(Instant, PageReport)>,
}

struct Shared {
    ended: AtomicBool,
    commands: Mutex<Vec<&'static str>>,
    heard: Mutex<Heard>,
}

impl Page {
    /// Serves it on a free port.
    pub(super) fn serve() -> Result<Self, String> {
        let words = |error: std::io::Error| format!("the page cannot be served: {error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(words)?;
        let address = listener.local_addr().map_err(words)?;
        let (sender, reports) = channel();
        let shared = Shared { ended: AtomicBool::new(false), commands: Mutex::default(), heard: Mutex::default() };
        let shared = Arc::new(shared);
        let accepting = thread::Builder::new().name("page".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared, &sender)
        });
        Ok(Self { address, shared, accepting: Some(accepting.map_err(words)?), reports: EventLog::new(reports) })
    }

    /// Its URL, for a room's group and a member of that name.
    pub(super) fn url(&self, room: SocketAddr, group: &str, username: &str, is_processed: bool) -> String {
        let processing = if is_processed { "on" } else { "off" };
        let page = self.address;
        format!("http://{page}/?endpoint=ws://{room}/ws&group={group}&username={username}&processing={processing}")
    }

    /// Mutes the microphone as people do: it goes on sending, silence.
    pub(super) fn mute(&self) {
        lock(&self.shared.commands).push("mute");
    }

    /// What was heard and counted up to now.
    pub(super) fn heard(&self) -> Heard {
        lock(&self.shared.heard).clone()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Being called is what ends the wait for a call.
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.accepting.take()
        {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is one push.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Browsers open connections ahead of need and send nothing on them, so that each has a thread to itself.
fn accept(listener: &TcpListener, shared: &Arc<Shared>, reports: &Sender<(Instant, PageReport)>) {
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        let (Ok(stream), shared, reports) = (stream, Arc::clone(shared), reports.clone()) else { continue };
        // A connection without a thread is one that fails, which the browser shows by reporting nothing.
        let _ = thread::Builder::new().name("page-connection".to_owned()).spawn(move || {
            // Whatever breaks a connection, what the page has reported until then is kept.
            let _ = serve(stream, &shared, &reports);
        });
    }
}

fn serve(mut stream: TcpStream, shared: &Shared, reports: &Sender<(Instant, PageReport)>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TURN))?;
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    let request = loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if shared.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        match Request::parse(&bytes) {
            Ok(None) => {}
            Ok(Some(request)) => break request,
            Err(why) => return stream.write_all(&response("400 Bad Request", &[], why)),
        }
    };
    match (document(&request), request.header("sec-websocket-key")) {
        (Some(document), _) => stream.write_all(&document),
        (None, None) => stream.write_all(&response("404 Not Found", &[], "not found\n")),
        (None, Some(key)) => {
            stream.write_all(&upgrade(key))?;
            listen(Link::server(Transport::Plain(stream), request.rest), shared, reports);
            Ok(())
        }
    }
}

/// The document that is asked for.
fn document(request: &Request) -> Option<Vec<u8>> {
    let (kind, text) = match request.target.split('?').next()? {
        "/" => ("text/html", PAGE),
        "/member.js" => ("text/javascript", MEMBER),
        "/recorder.js" => ("text/javascript", RECORDER),
        _ => return None,
    };
    Some(response("200 OK", &[("Content-Type", kind), ("Cache-Control", "no-store")], text))
}

/// Takes what the page reports, and tells it what it shall do, until one of the two is gone.
fn listen(mut link: Link, shared: &Shared, reports: &Sender<(Instant, PageReport)>) {
    let mut messages = Vec::new();
    while !shared.ended.load(Ordering::Relaxed) {
        let read = link.read(&mut messages);
        let now = Instant::now();
        for message in messages.drain(..) {
            match PageReport::parse(&message).unwrap_or_else(|why| PageReport::Failed { why }) {
                PageReport::Sound { source, frame, samples: encoded } => {
                    lock(&shared.heard).add(now, source, frame, samples(&encoded));
                }
                PageReport::Counts(counts) => lock(&shared.heard).counts.push((now, counts)),
                report => drop(reports.send((now, report))),
            }
        }
        if read.is_err() {
            return;
        }
        for command in std::mem::take(&mut *lock(&shared.commands)) {
            link.send(command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(page: &Page, target: &str) -> String {
        let mut stream = TcpStream::connect(page.address).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn the_page_and_its_scripts_are_served() {
        let page = Page::serve().unwrap();
        assert!(ask(&page, "/?group=x").contains("/member.js"));
        assert!(ask(&page, "/member.js").contains("text/javascript"));
        assert!(ask(&page, "/other").starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn what_is_reported_is_kept_by_source() {
        let mut page = Page::serve().unwrap();
        let (mut socket, _) = tungstenite::connect(format!("ws://{}/lab", page.address)).unwrap();
        let mut say = |text: &str| socket.send(tungstenite::Message::text(text)).unwrap();
        say(r#"{"kind":"sound","source":"Ada (2)","frame":0,"samples":"AQACAAMA"}"#);
        say(r#"{"kind":"sound","source":"Bob","frame":0,"samples":"CQA="}"#);
        say(r#"{"kind":"joined"}"#);
        let joined = page.reports.wait_for(Duration::from_secs(10), |(_, report)| *report == PageReport::Joined);
        let before = joined.unwrap().0.checked_sub(Duration::from_secs(1)).unwrap();
        let loud = |samples: Vec<i16>| samples.into_iter().filter(|sample| *sample != 0).collect::<Vec<_>>();
        assert_eq!(loud(page.heard().sound("Ada", before, RATE_HZ)), [1, 2, 3]);
        assert_eq!(loud(page.heard().sound("Bob", before, RATE_HZ)), [9]);
        assert!(page.heard().sound("Eve", before, RATE_HZ).is_empty());
        page.mute();
        assert_eq!(socket.read().unwrap().into_text().unwrap().as_str(), "mute");
    }
}
