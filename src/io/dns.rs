//! Questions to the name servers (RFC 1035): over UDP, over TCP where the answer does not fit.
//!
//! Owns: which servers there are (`/etc/resolv.conf`, or `-sip-dns`), repetition, what is taken for an answer, `/etc/hosts`. Does not
//! own: what to ask (`resolve`). Nothing is kept: the servers that `/etc/resolv.conf` names keep answers themselves, and
//! who asks keeps to their lifetimes.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::FutureExt;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use smol::{Async, Timer};

use crate::random::Random;

/// Servers that are asked, as the C library does it.
const MAX_SERVERS: usize = 3;
/// How long one server may take, before the next one is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often all servers are asked.
const ROUNDS: usize = 2;
/// An answer over UDP without extensions has 512 bytes at most, but some servers do not care.
const DATAGRAM_BYTES: usize = 4096;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DnsError {
    /// No server has answered, or none could.
    Silence,
    /// There is no such name.
    NoName,
}

/// What was asked for, perhaps nothing, and for how long it is true.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) records: Vec<RData>,
    pub(super) lifetime: Duration,
}

/// The name servers.
#[derive(Clone, Debug)]
pub(super) struct Dns {
    servers: Vec<SocketAddr>,
    /// The servers are those of a flag: nothing else counts.
    pub(super) is_chosen: bool,
    random: Rc<RefCell<Random>>,
}

impl Dns {
    /// The server of the flag, or those of the system, read anew with each question since a laptop changes its network.
    pub(super) fn new(chosen: Option<SocketAddr>, random: Random) -> Self {
        let is_chosen = chosen.is_some();
        Self { servers: chosen.into_iter().collect(), is_chosen, random: Rc::new(RefCell::new(random)) }
    }

    /// A number below `bound`.
    pub(super) fn below(&self, bound: u32) -> u32 {
        self.random.borrow_mut().below(bound)
    }

    /// Asks for the records of `kind` that `name` has.
    ///
    /// # Errors
    /// There is no such name, or no server answers.
    pub(super) async fn ask(&self, name: &str, kind: RecordType) -> Result<Answer, DnsError> {
        let mut name = Name::from_ascii(name).map_err(|_| DnsError::NoName)?;
        name.set_fqdn(true);
        let servers = if self.is_chosen { self.servers.clone() } else { system_servers() };
        for server in std::iter::repeat_n(&servers, ROUNDS).flatten() {
            let id = self.random.borrow_mut().next_u32() as u16;
            let asked = async { exchange(*server, id, &name, kind).await.ok() };
            let late = async {
                Timer::after(ANSWER_WITHIN).await;
                None
            };
            let Some(message) = asked.or(late).await else { continue };
            match message.metadata.response_code {
                ResponseCode::NoError => return Ok(answer(&message, kind)),
                ResponseCode::NXDomain => return Err(DnsError::NoName),
                // This server cannot tell; another one may.
                _ => {}
            }
        }
        Err(DnsError::Silence)
    }
}

fn answer(message: &Message, kind: RecordType) -> Answer {
    let of_kind = message.answers.iter().filter(|record| record.data.record_type() == kind);
    // Also the aliases on the way hold only for so long.
    let lifetime_s = message.answers.iter().map(|record| record.ttl).min().unwrap_or(0);
    Answer {
        records: of_kind.map(|record| record.data.clone()).collect(),
        lifetime: Duration::from_secs(lifetime_s.into()),
    }
}

/// One question to one server.
async fn exchange(server: SocketAddr, id: u16, name: &Name, kind: RecordType) -> io::Result<Message> {
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Async::<UdpSocket>::bind(any)?;
    // From now on the system drops what comes from anywhere else.
    socket.get_ref().connect(server)?;
    socket.send(&bytes).await?;
    let mut buffer = [0; DATAGRAM_BYTES];
    loop {
        let len = socket.recv(&mut buffer).await?;
        let Some(message) = parse(&buffer[..len], id, name, kind) else { continue };
        if !message.metadata.truncation {
            return Ok(message);
        }
        return exchange_by_tcp(server, &bytes).await.and_then(|bytes| {
            parse(&bytes, id, name, kind).ok_or_else(|| io::Error::other("no answer to the question"))
        });
    }
}

async fn exchange_by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = Async::<TcpStream>::connect(server).await?;
    let len = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(question).await?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let mut bytes = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The answer to just this question; anything else is noise or forged.
fn parse(bytes: &[u8], id: u16, name: &Name, kind: RecordType) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let is_ours = |query: &Query| query.name == *name && query.query_type == kind;
    let is_answer = message.metadata.id == id
        && message.metadata.message_type == MessageType::Response
        && message.queries.first().is_some_and(is_ours);
    is_answer.then_some(message)
}

fn system_servers() -> Vec<SocketAddr> {
    servers_in(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// The `nameserver` lines of resolv.conf(5); without one there is a server on this machine.
fn servers_in(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    let mut servers: Vec<_> = addresses.take(MAX_SERVERS).map(|ip| SocketAddr::new(ip, 53)).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    servers
}

/// What `/etc/hosts` says of `name`, which goes before all name servers.
pub(super) fn hosts(name: &str) -> Vec<IpAddr> {
    hosts_in(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), name)
}

fn hosts_in(text: &str, name: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    };
    text.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_hosts_are_read_as_the_system_does() {
        let text = "# x\nnameserver 192.0.2.53\nsearch a b\nnameserver 2001:db8::53 # y\nnameserver nonsense\n";
        assert_eq!(
            servers_in(text),
            ["192.0.2.53:53", "[2001:db8::53]:53"].map(|text| text.parse::<SocketAddr>().unwrap())
        );
        assert_eq!(servers_in(""), ["127.0.0.1:53".parse::<SocketAddr>().unwrap()]);
        let text = "127.0.0.1 localhost\n192.0.2.7 pbx.example PBX # the PBX\n2001:db8::7 pbx\n";
        assert_eq!(hosts_in(text, "pbx"), ["192.0.2.7", "2001:db8::7"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert!(hosts_in(text, "the").is_empty());
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let name = Name::from_ascii("a.example.").unwrap();
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name.clone(), RecordType::A));
        let bytes = message.to_vec().unwrap();
        assert!(parse(&bytes, 7, &name, RecordType::A).is_some());
        assert!(parse(&bytes, 8, &name, RecordType::A).is_none());
        assert!(parse(&bytes, 7, &name, RecordType::AAAA).is_none());
        assert!(parse(&bytes, 7, &Name::from_ascii("b.example.").unwrap(), RecordType::A).is_none());
        assert!(parse(&bytes[..10], 7, &name, RecordType::A).is_none());
    }
}
