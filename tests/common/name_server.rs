//! A name server on loopback, over UDP and TCP, with the records of one test.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, NAPTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How long an answer holds: as it is set by who is about to move.
const LIFETIME_S: u32 = 5;
/// How often the end of the test is looked for.
const POLL: Duration = Duration::from_millis(20);

type Zone = Vec<(Name, RData)>;

/// Runs until it is dropped.
pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    questions: Arc<Mutex<Vec<String>>>,
    is_silent: Arc<AtomicBool>,
    has_ended: Arc<AtomicBool>,
}

impl NameServer {
    /// Knows `zone` and nothing else. Answers with SRV records are never given over UDP.
    pub(crate) fn start(zone: Zone) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), zone).unwrap()
    }

    /// The same at an address of one's own.
    ///
    /// # Errors
    /// As the system has them.
    pub(crate) fn start_at(address: SocketAddr, zone: Zone) -> io::Result<Self> {
        let udp = UdpSocket::bind(address)?;
        let address = udp.local_addr()?;
        let tcp = TcpListener::bind(address)?;
        udp.set_read_timeout(Some(POLL)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (questions, has_ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let zone = Arc::new(Mutex::new(zone));
        let is_silent = Arc::new(AtomicBool::new(false));
        let server = Self {
            address,
            zone: zone.clone(),
            questions: questions.clone(),
            is_silent: is_silent.clone(),
            has_ended: has_ended.clone(),
        };
        let of_tcp = (zone.clone(), has_ended.clone(), questions.clone());
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !has_ended.load(Ordering::Relaxed) {
                let Ok((len, from)) = udp.recv_from(&mut buffer) else { continue };
                let answer = answer(&zone.lock().unwrap(), &buffer[..len], true, &questions);
                if let Some(answer) = answer.filter(|_| !is_silent.load(Ordering::Relaxed)) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        thread::spawn(move || {
            let (zone, has_ended, questions) = of_tcp;
            while !has_ended.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else {
                    thread::sleep(POLL);
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut question = vec![0; u16::from_be_bytes(len).into()];
                stream.read_exact(&mut question).unwrap();
                let Some(answer) = answer(&zone.lock().unwrap(), &question, false, &questions) else { continue };
                stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        Ok(server)
    }

    /// From now on it answers nothing, as one that is down, or again.
    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it knows this instead.
    pub(crate) fn change(&self, zone: Zone) {
        *self.zone.lock().unwrap() = zone;
    }

    /// What it was asked, as `UDP SRV _sip._tcp.example.test.`
    pub(crate) fn questions(&self) -> Vec<String> {
        self.questions.lock().unwrap().clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

/// `None` to what is no question, such as what tests beside this one throw at the ports that others had before.
fn answer(zone: &Zone, bytes: &[u8], is_udp: bool, questions: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let question = Message::from_vec(bytes).ok()?;
    let query = question.queries.first()?.clone();
    let transport = if is_udp { "UDP" } else { "TCP" };
    questions.lock().unwrap().push(format!("{transport} {} {}", query.query_type, query.name));
    let mut message = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    message.add_query(query.clone());
    if !zone.iter().any(|(name, _)| *name == query.name) {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    let is_wanted = |(name, data): &&(Name, RData)| *name == query.name && data.record_type() == query.query_type;
    for (name, data) in zone.iter().filter(is_wanted) {
        message.add_answer(Record::from_rdata(name.clone(), LIFETIME_S, data.clone()));
    }
    if is_udp && query.query_type == RecordType::SRV && !message.answers.is_empty() {
        message.answers.clear();
        message.metadata.truncation = true;
    }
    Some(message.to_vec().unwrap())
}

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(crate) fn naptr(owner: &str, order: u16, services: &str, to: &str) -> (Name, RData) {
    let data = NAPTR::new(order, 10, b"s".as_slice().into(), services.as_bytes().into(), Box::default(), name(to));
    (name(owner), RData::NAPTR(data))
}

pub(crate) fn srv(owner: &str, priority: u16, port: u16, to: &str) -> (Name, RData) {
    (name(owner), RData::SRV(SRV::new(priority, 10, port, name(to))))
}

pub(crate) fn loopback(owner: &str) -> (Name, RData) {
    address(owner, Ipv4Addr::LOCALHOST)
}

pub(crate) fn address(owner: &str, address: Ipv4Addr) -> (Name, RData) {
    (name(owner), RData::A(A(address)))
}
