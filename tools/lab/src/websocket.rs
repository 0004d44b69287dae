//! A WebSocket that never blocks, carrying JSON messages. RFC: 6455.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use crate::transport::Transport;

/// The limit of Galene's protocol.
const LONGEST_MESSAGE_BYTES: usize = 1024 * 1024;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With a close frame: its code and reason.
    Closed(u16, String),
    /// Without one.
    Broken(String),
}

/// A server's answer to a client's opening handshake with this `Sec-WebSocket-Key` (§4.2.2).
pub(crate) fn upgrade(key: &str) -> Vec<u8> {
    let accept = derive_accept_key(key.as_bytes());
    let lines = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    format!("{lines}Sec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes()
}

pub(crate) struct Link {
    socket: WebSocket<Transport>,
    /// Something waits for room in the socket.
    blocked: bool,
}

impl Link {
    /// The server's end, after the upgrade; `rest` is what the client has sent already.
    pub(crate) fn server(stream: Transport, rest: Vec<u8>) -> Self {
        let socket = WebSocket::from_partially_read(stream, rest, Role::Server, Some(config()));
        Self { socket, blocked: false }
    }

    /// A client's end: does the opening handshake on a stream that blocks, and ends its blocking.
    pub(crate) fn client(url: &str, stream: Transport) -> Result<Self, String> {
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(config()))
            .map_err(|error| format!("{url}: {error}"))?;
        socket.get_ref().socket().set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok(Self { socket, blocked: false })
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The address that this end of the connection has.
    pub(crate) fn local_address(&self) -> std::io::Result<IpAddr> {
        self.socket.get_ref().socket().local_addr().map(|address| address.ip())
    }

    /// Takes all messages that are there.
    pub(crate) fn read(&mut self, messages: &mut Vec<String>) -> Result<(), Ending> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => messages.push(text.as_str().to_owned()),
                Ok(Message::Close(frame)) => {
                    let _ = self.socket.flush();
                    let ending = frame.map(|frame| Ending::Closed(frame.code.into(), frame.reason.as_str().to_owned()));
                    // Without a code the standard's stand-in for 'none' is used.
                    return Err(ending.unwrap_or(Ending::Closed(1005, String::new())));
                }
                // tungstenite answers pings by itself; binary messages mean nothing here.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_)) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.flush();
                    return Ok(());
                }
                Err(error) => return Err(Ending::Broken(error.to_string())),
            }
        }
    }

    /// Sends a message, or keeps it until there is room. A broken connection shows when it is read.
    pub(crate) fn send(&mut self, text: &str) {
        match self.socket.write(Message::text(text)) {
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
            Ok(()) | Err(_) => self.flush(),
        }
    }

    pub(crate) fn flush(&mut self) {
        self.blocked = matches!(self.socket.flush(), Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock);
    }

    /// Sends a close frame; the caller drops the connection after it.
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        let reason: String = reason.chars().take(30).collect();
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let _ = self.socket.close(Some(frame));
        let _ = self.socket.flush();
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(LONGEST_MESSAGE_BYTES)).max_frame_size(Some(LONGEST_MESSAGE_BYTES))
}
