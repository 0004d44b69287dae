//! SIP's connections over TCP and TLS: opening, listening, bytes in and out.
//!
//! Owns: one task a connection and one a listener, each with bounded channels. Does not own: which connections there may be, how
//! long they may be silent, where messages end (`sip::connections`).

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::FutureExt;
use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::pki_types::ServerName;
use smol::channel::{Receiver, Sender, bounded};
use smol::{Async, LocalExecutor, Timer};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::fault;
use super::sip_tls::SipTls;
use crate::config::{SipAddress, SipTransports};
use crate::sip::event::{ConnectionCommand, ConnectionKey, Input};
use crate::wire::sip::Transport;

/// Messages that wait for one connection to take them. A peer that takes none for so long has lost its connection.
const MAX_WAITING_MESSAGES: usize = 64;
/// TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the other side may take to take one message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long bytes may stay unacknowledged before the system gives the connection up, as RFC 5626 has it for a pong.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the system asks whether a silent peer is still there.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);
/// The closing of a connection ends with the program, which has a second.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);
/// Without descriptors an accept fails at once, again and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that the system keeps for a listener.
const BACKLOG: i32 = 64;
const READ_BYTES: usize = 8192;

/// What a connection tells the driver.
#[derive(Debug)]
pub(super) enum StreamWord {
    Accepted {
        connection: ConnectionKey,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
        commands: Sender<Vec<u8>>,
    },
    Connected {
        connection: ConnectionKey,
        local: SocketAddr,
    },
    Bytes {
        connection: ConnectionKey,
        bytes: Vec<u8>,
    },
    Closed {
        connection: ConnectionKey,
        error: String,
    },
}

/// A stream, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// All connections and what opens new ones.
#[derive(Debug)]
pub(super) struct SipConnections {
    tls: SipTls,
    listeners: Vec<(Transport, Rc<Async<TcpListener>>)>,
    /// The far end of each, for the log, and where its messages go; dropping that closes it.
    open: BTreeMap<ConnectionKey, (SocketAddr, Sender<Vec<u8>>)>,
}

impl SipConnections {
    /// Binds the listeners that the flags ask for.
    ///
    /// # Errors
    /// One sentence that names the flag.
    pub(super) fn bind(transports: &SipTransports) -> Result<Self, String> {
        let tls = SipTls::load(transports)?;
        let mut listeners = Vec::new();
        let wanted = [(Transport::Tcp, &transports.tcp_address), (Transport::Tls, &transports.tls_address)];
        for (transport, address) in wanted {
            let Some(address) = address else { continue };
            let bound = listen(transport, address).map_err(|error| {
                let name = transport.parameter();
                format!(
                    "cannot listen for SIP over {transport}: {error}; choose another address with -sip-{name}-address"
                )
            })?;
            listeners.extend(bound.into_iter().map(|listener| (transport, Rc::new(listener))));
        }
        Ok(Self { tls, listeners, open: BTreeMap::new() })
    }

    /// Where the listeners are.
    pub(super) fn bound(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        let with_address = |(transport, listener): &(Transport, Rc<Async<TcpListener>>)| {
            listener.get_ref().local_addr().ok().map(|address| (*transport, address))
        };
        self.listeners.iter().filter_map(with_address)
    }

    /// Starts to accept.
    pub(super) fn spawn_listeners<T: From<StreamWord> + 'static>(
        &self,
        executor: &Rc<LocalExecutor<'static>>,
        words: &Sender<T>,
    ) {
        let last = Rc::new(std::cell::Cell::new(0));
        for (transport, listener) in &self.listeners {
            let task =
                accept(executor.clone(), *transport, listener.clone(), self.tls.clone(), words.clone(), last.clone());
            executor.spawn(task).detach();
        }
    }

    /// Does what the user agent wants.
    pub(super) fn carry_out<T: From<StreamWord> + 'static>(
        &mut self,
        command: ConnectionCommand,
        executor: &LocalExecutor<'static>,
        words: &Sender<T>,
    ) {
        match command {
            ConnectionCommand::Open { connection, remote, server_name } => {
                let (sender, receiver) = bounded(MAX_WAITING_MESSAGES);
                self.open.insert(connection, (remote, sender));
                let opening = open(connection, remote, server_name, self.tls.clone(), receiver, words.clone());
                executor.spawn(opening).detach();
            }
            ConnectionCommand::Write { connection, bytes } => {
                let Some((remote, sender)) = self.open.get(&connection) else { return };
                if sender.try_send(bytes).is_err() {
                    tracing::debug!("{remote} does not take our messages");
                    self.open.remove(&connection);
                }
            }
            ConnectionCommand::Close { connection } => drop(self.open.remove(&connection)),
        }
    }

    /// Notes what a connection tells, and gives it to the user agent.
    pub(super) fn take<R>(&mut self, word: StreamWord, give: impl FnOnce(Input<'_>) -> R) -> R {
        match word {
            StreamWord::Accepted { connection, transport, local, remote, commands } => {
                self.open.insert(connection, (remote, commands));
                give(Input::Accepted { connection, transport, local, remote })
            }
            StreamWord::Connected { connection, local } => give(Input::Connected { connection, local }),
            StreamWord::Bytes { connection, bytes } => give(Input::Bytes { connection, bytes: &bytes }),
            StreamWord::Closed { connection, error } => {
                self.open.remove(&connection);
                give(Input::Closed { connection, error })
            }
        }
    }
}

fn listen(transport: Transport, address: &SipAddress) -> io::Result<Vec<Async<TcpListener>>> {
    match *address {
        SipAddress::One(address) => Ok(vec![listen_at(address)?]),
        SipAddress::Any(Some(port)) => listen_everywhere(port),
        SipAddress::Any(None) => listen_everywhere(transport.default_port()).or_else(|_| listen_everywhere(0)),
    }
}

/// Every address of both families at one port. A machine without IPv6 does without it.
fn listen_everywhere(port: u16) -> io::Result<Vec<Async<TcpListener>>> {
    let v4 = listen_at((Ipv4Addr::UNSPECIFIED, port).into())?;
    let port = v4.get_ref().local_addr()?.port();
    let v6 = listen_at((Ipv6Addr::UNSPECIFIED, port).into());
    Ok([Ok(v4), v6].into_iter().flatten().collect())
}

fn listen_at(address: SocketAddr) -> io::Result<Async<TcpListener>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A connection of before may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Async::new(socket.into())
}

async fn accept<T: From<StreamWord> + 'static>(
    executor: Rc<LocalExecutor<'static>>,
    transport: Transport,
    listener: Rc<Async<TcpListener>>,
    tls: SipTls,
    words: Sender<T>,
    last: Rc<std::cell::Cell<u64>>,
) {
    let mut is_told = false;
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!("no connection over {transport} can be taken now: {}", fault::of_socket(&error));
                }
                Timer::after(ACCEPT_PAUSE).await;
                continue;
            }
        };
        is_told = false;
        let Ok(local) = stream.get_ref().local_addr() else { continue };
        prepare(&stream);
        last.set(last.get() + 1);
        let connection = ConnectionKey::Theirs(last.get());
        let (commands, receiver) = bounded(MAX_WAITING_MESSAGES);
        let accepted = StreamWord::Accepted { connection, transport, local, remote, commands };
        if words.send(accepted.into()).await.is_err() {
            return;
        }
        let (server, words) = (tls.server.clone().filter(|_| transport == Transport::Tls), words.clone());
        let serving = async move {
            let opened: Result<Box<dyn Stream>, String> = match server {
                None => Ok(Box::new(stream)),
                Some(server) => {
                    let handshake = async { TlsAcceptor::from(server).accept(stream).await.map_err(|e| e.to_string()) };
                    let given_up = async {
                        while receiver.recv().await.is_ok() {}
                        Err("closed here".to_owned())
                    };
                    handshake.or(given_up).await.map(|stream| Box::new(stream) as Box<dyn Stream>)
                }
            };
            let error = match opened {
                Ok(stream) => run(connection, stream, &receiver, &words).await,
                Err(error) => error,
            };
            let _ = words.send(StreamWord::Closed { connection, error }.into()).await;
        };
        executor.spawn(serving).detach();
    }
}

async fn open<T: From<StreamWord>>(
    connection: ConnectionKey,
    remote: SocketAddr,
    server_name: Option<String>,
    tls: SipTls,
    commands: Receiver<Vec<u8>>,
    words: Sender<T>,
) {
    let opening = connect(remote, server_name.as_deref(), &tls);
    let late = async {
        Timer::after(CONNECT_TIMEOUT).await;
        Err("no answer".to_owned())
    };
    let given_up = async {
        while commands.recv().await.is_ok() {}
        Err("closed here".to_owned())
    };
    let error = match opening.or(late).or(given_up).await {
        Err(error) => error,
        Ok((local, stream)) => {
            if words.send(StreamWord::Connected { connection, local }.into()).await.is_err() {
                return;
            }
            run(connection, stream, &commands, &words).await
        }
    };
    let _ = words.send(StreamWord::Closed { connection, error }.into()).await;
}

async fn connect(
    remote: SocketAddr,
    server_name: Option<&str>,
    tls: &SipTls,
) -> Result<(SocketAddr, Box<dyn Stream>), String> {
    let words = |error: io::Error| fault::of_sip(&error);
    let stream = Async::<TcpStream>::connect(remote).await.map_err(words)?;
    prepare(&stream);
    let local = stream.get_ref().local_addr().map_err(words)?;
    let Some(name) = server_name else { return Ok((local, Box::new(stream))) };
    let server = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())
        .map_err(|_| format!("{name} is no name that a certificate could bear"))?;
    let stream = TlsConnector::from(tls.client.clone()).connect(server, stream).await.map_err(words)?;
    Ok((local, Box::new(stream)))
}

fn prepare(stream: &Async<TcpStream>) {
    let socket = SockRef::from(stream.get_ref());
    let probes = TcpKeepalive::new().with_time(PROBE_INTERVAL).with_interval(PROBE_INTERVAL / 4);
    // A connection works without them too.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&probes);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT));
}

/// Carries bytes both ways until either side ends it; why it has ended.
async fn run<T: From<StreamWord>>(
    connection: ConnectionKey,
    stream: Box<dyn Stream>,
    commands: &Receiver<Vec<u8>>,
    words: &Sender<T>,
) -> String {
    let (mut reader, mut writer) = split(stream);
    let reading = async {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let bytes = match reader.read(&mut buffer).await {
                Ok(0) => return "closed by the other side".to_owned(),
                Ok(len) => buffer[..len].to_vec(),
                Err(error) => return fault::of_sip(&error),
            };
            if words.send(StreamWord::Bytes { connection, bytes }.into()).await.is_err() {
                return "the program ends".to_owned();
            }
        }
    };
    let writing = async {
        while let Ok(bytes) = commands.recv().await {
            let sending = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            let late = async {
                Timer::after(WRITE_TIMEOUT).await;
                Err(io::ErrorKind::TimedOut.into())
            };
            if let Err(error) = sending.or(late).await {
                return fault::of_sip(&error);
            }
        }
        "closed here".to_owned()
    };
    let why = reading.or(writing).await;
    let closing = async {
        let _ = writer.close().await;
    };
    let late = async {
        Timer::after(CLOSE_TIMEOUT).await;
    };
    closing.or(late).await;
    why
}
