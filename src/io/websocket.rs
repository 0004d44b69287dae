//! A WebSocket (RFC 6455) to Galene, over TLS or plain TCP.
//!
//! Owns: one connection from the look-up of its host to its end, as a future that speaks through bounded channels.
//! Does not own: the messages (`galene::message`); whether the server is alive (`galene::client` pings by messages of
//! its own, which pass proxies that swallow WebSocket pings).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_tungstenite::tungstenite::error::CapacityError;
use async_tungstenite::tungstenite::protocol::WebSocketConfig;
use async_tungstenite::tungstenite::{self, Message};
use async_tungstenite::{WebSocketReceiver, WebSocketSender, client_async_with_config};
use futures_lite::{AsyncRead, AsyncWrite, FutureExt, StreamExt};
use futures_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::net::TcpStream;
use url::Url;

use super::blocking;
use super::fault;
use super::tls::Tls;
use crate::galene::Fault;
use crate::galene::message::MAX_MESSAGE_BYTES;
use crate::galene::refusal::host_of;

/// How many commands may wait: more than a client sends in one turn with 200 room voices.
pub const MAX_COMMANDS: usize = 512;

/// Look-up, TCP, TLS and upgrade together: less than the 10 s that joining may take, so that the reason is told.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// One of a host's addresses, before the next is tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(2500);

/// A message that is not taken within this time will not be: Galene itself gives its own writes half a second.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the other side may take to say goodbye: the whole program ends within a second.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// What the connection is to do.
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a text message, which may hold a secret.
    Text(String),
    /// Close the connection once all before this is out. So does dropping the channel.
    Close,
}

/// What the connection tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// It is open.
    Connected {
        /// Our own address in it, if the system tells.
        local: Option<IpAddr>,
    },
    /// A text message.
    Text(String),
    /// It is closed, or could not be opened. The last word, and always said.
    Disconnected(Fault),
}

/// A stream to a server, encrypted or not.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

type Reader = WebSocketReceiver<Box<dyn Transport>>;
type Writer = WebSocketSender<Box<dyn Transport>>;

/// Runs one connection to its end. Whatever it has to tell goes to `incoming`, wrapped so that one channel can serve
/// many connections; a full channel stops the reading, and so the server. When `commands` takes nothing any more, the
/// connection has ended and [`Incoming::Disconnected`] is on its way: what was to be sent can be dropped.
pub async fn run<T>(
    url: Url,
    tls: Tls,
    commands: Receiver<Command>,
    incoming: Sender<T>,
    wrap: impl Fn(Incoming) -> T,
) {
    let tell = async |word| incoming.send(wrap(word)).await.is_ok();
    let fault = match open(&url, &tls, &commands).await {
        Err(fault) => fault,
        Ok((local, mut writer, mut reader)) => {
            tell(Incoming::Connected { local }).await;
            let host = host_of(&url);
            let reading = async {
                loop {
                    let text = match read(&host, &mut reader).await {
                        Ok(text) => text,
                        Err(fault) => break fault,
                    };
                    if !tell(Incoming::Text(text)).await {
                        break closed_here(); // Nobody listens any more.
                    }
                }
            };
            let writing = async {
                match write(&host, &mut writer, &commands).await {
                    Err(fault) => fault,
                    Ok(()) => closed_here(),
                }
            };
            let fault = reading.or(writing).await;
            say_goodbye(&mut writer, &mut reader).await;
            fault
        }
    };
    tell(Incoming::Disconnected(fault)).await;
}

/// Opens the connection, unless it is given up first.
async fn open(url: &Url, tls: &Tls, commands: &Receiver<Command>) -> Result<(Option<IpAddr>, Writer, Reader), Fault> {
    let host = host_of(url);
    let opening = async {
        let (local, stream) = connect(url, tls).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let opened = client_async_with_config(url.as_str(), stream, Some(config)).await;
        let opened = opened.map(|(socket, _)| socket.split()).map_err(|error| fault_of(&host, &error));
        opened.map(|(writer, reader)| (local, writer, reader))
    };
    let late = async {
        Timer::after(CONNECT_TIMEOUT).await;
        Err(Fault::Unreachable(fault::timed_out(&host)))
    };
    let given_up = async {
        while let Ok(Command::Text(_)) = commands.recv().await {}
        Err(closed_here())
    };
    opening.or(late).or(given_up).await
}

async fn connect(url: &Url, tls: &Tls) -> Result<(Option<IpAddr>, Box<dyn Transport>), Fault> {
    let host = host_of(url);
    let (Some(name), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return Err(Fault::Protocol(format!("{url} names no host")));
    };
    let addresses = match &name {
        url::Host::Ipv4(address) => vec![SocketAddr::from((*address, port))],
        url::Host::Ipv6(address) => vec![SocketAddr::from((*address, port))],
        url::Host::Domain(name) => {
            let late = async {
                Timer::after(blocking::LOOK_UP_TIMEOUT).await;
                Err(io::ErrorKind::TimedOut.into())
            };
            let found = blocking::resolve((*name).to_owned(), port).or(late).await;
            found.map_err(|_| fault::of_lookup(&host))?
        }
    };
    let stream = connect_tcp(&addresses).await.map_err(|error| fault::of_io(&host, &error))?;
    let local = stream.local_addr().ok().map(|local| local.ip().to_canonical());
    if url.scheme() != "wss" {
        return Ok((local, Box::new(stream)));
    }
    let server = match name {
        url::Host::Ipv4(address) => ServerName::from(IpAddr::V4(address)),
        url::Host::Ipv6(address) => ServerName::from(IpAddr::V6(address)),
        url::Host::Domain(name) => ServerName::try_from(name.to_owned())
            .map_err(|_| Fault::Protocol(format!("{host} is no name that a certificate could bear")))?,
    };
    let stream = TlsConnector::from(tls.websocket()).connect(server, stream).await;
    Ok((local, Box::new(stream.map_err(|error| fault::of_io(&host, &error))?)))
}

async fn connect_tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::other("lookup gave no address");
    for address in addresses {
        let late = async {
            Timer::after(ADDRESS_TIMEOUT).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        match TcpStream::connect(*address).or(late).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The next text message. Galene sends no binary ones, and the library answers pings.
async fn read(host: &str, reader: &mut Reader) -> Result<String, Fault> {
    loop {
        return match reader.next().await {
            Some(Ok(Message::Text(text))) => Ok(text.as_str().into()),
            Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(frame))) => Err(closed_there(host, frame.map(|frame| frame.reason.as_str().into()))),
            Some(Err(error)) => Err(fault_of(host, &error)),
            None => Err(closed_there(host, None)),
        };
    }
}

/// Sends what is commanded, until the connection is to be closed.
async fn write(host: &str, writer: &mut Writer, commands: &Receiver<Command>) -> Result<(), Fault> {
    while let Ok(Command::Text(text)) = commands.recv().await {
        let sending = async { writer.send(Message::text(text)).await.map_err(|error| fault_of(host, &error)) };
        let late = async {
            Timer::after(SEND_TIMEOUT).await;
            Err(Fault::Unreachable(format!("{host} does not take what we send")))
        };
        sending.or(late).await?;
    }
    Ok(())
}

/// The closing handshake (RFC 6455 §7), as far as the other side takes part in it: what it has sent meanwhile must be
/// read, or the system resets the connection and our last messages with it.
async fn say_goodbye(writer: &mut Writer, reader: &mut Reader) {
    let goodbye = async {
        if writer.close(None).await.is_ok() {
            while let Some(Ok(_)) = reader.next().await {}
        }
    };
    let late = async {
        Timer::after(CLOSE_TIMEOUT).await;
    };
    goodbye.or(late).await;
}

fn closed_here() -> Fault {
    Fault::Unreachable("we have closed the connection".into())
}

fn closed_there(host: &str, reason: Option<String>) -> Fault {
    let reason = reason.unwrap_or_default().replace(char::is_control, " ");
    Fault::Unreachable(match reason.trim() {
        "" => format!("{host} has closed the connection"),
        reason => format!("{host} has closed the connection: {reason}"),
    })
}

fn fault_of(host: &str, error: &tungstenite::Error) -> Fault {
    use tungstenite::error::ProtocolError;
    match error {
        tungstenite::Error::Io(error) => fault::of_io(host, error),
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::HandshakeIncomplete,
        ) => Fault::Unreachable(fault::broke_off(host)),
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Fault::Protocol(format!("{host} sent a message of more than {MAX_MESSAGE_BYTES} bytes"))
        }
        tungstenite::Error::Http(response) => {
            let status = response.status().as_u16();
            let text = format!("{host} answers with HTTP status {status} instead of opening a WebSocket");
            if status >= 500 { Fault::Unreachable(text) } else { Fault::Protocol(text) }
        }
        error => Fault::Protocol(format!("{host}: {error}")),
    }
}
