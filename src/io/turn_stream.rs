//! TURN over TCP and TLS (RFC 8656 §3.1): the server's stand-in on 127.0.0.1, to which everything else speaks UDP.
//!
//! Owns: the connection to the server, one socket, and a task that passes each datagram of the peer connection's socket on
//! as a frame of the stream, and each frame back as a datagram. Does not own: the allocation (`rtc::turn`).
//! It stands for UDP: what cannot be passed on at once waits in the socket's small buffer, and what that cannot hold is
//! lost, as a late voice is of no use.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use futures_lite::FutureExt;
use futures_lite::future::yield_now;
use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use futures_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use smol::channel::{Receiver, Sender, bounded};
use smol::{Async, LocalExecutor, Timer};
use socket2::SockRef;

use super::fault;
use super::tls::Tls;
use crate::wire::stun::{CHANNEL_HEADER_BYTES, ChannelData, FrameStream, Message};

/// TCP and TLS together: less than the 8 s after which an allocation gives up, so that the reason is told.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may take to take one frame: by then ICE has noticed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long bytes may stay unacknowledged before the system gives the connection up.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(10);
/// The last word, which gives the relay back, and the closing: the program ends within a second.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);
/// The longest datagram that is passed on; media, DTLS and STUN stay below 1500.
const MAX_DATAGRAM_BYTES: usize = 4096;
/// What waits in the system on the way to the server, both in the socket and in the stream: about a second of voice each, as
/// the system counts.
const WAITING_BYTES: usize = 32 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// A stream to the server, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A connection to a TURN server and its stand-in. Dropping it passes on what was sent before, and closes both.
#[derive(Debug)]
pub struct TurnStream {
    address: SocketAddr,
    _held: Sender<Infallible>,
}

impl TurnStream {
    /// Binds the stand-in and begins to connect to `server`, with TLS if a name for its certificate is given. Datagrams from
    /// `peer_port` of 127.0.0.1 alone are passed on, and the server's go there. `ended` is told the
    /// stand-in's address and why it has ended, unless it was dropped.
    ///
    /// # Errors
    /// The system's, when there is no socket to be had.
    pub fn open(
        executor: &LocalExecutor<'static>,
        server: SocketAddr,
        tls: Option<(ServerName<'static>, Tls)>,
        peer_port: u16,
        ended: impl FnOnce(SocketAddr, String) + 'static,
    ) -> io::Result<Self> {
        let socket = Async::<UdpSocket>::bind((Ipv4Addr::LOCALHOST, 0))?;
        // Too much waiting costs time only.
        let _ = SockRef::from(socket.get_ref()).set_recv_buffer_size(WAITING_BYTES);
        let address = socket.get_ref().local_addr()?;
        let stand_in = StandIn { socket, peer: (Ipv4Addr::LOCALHOST, peer_port).into() };
        let (held, dropped) = bounded(1);
        let task = async move {
            let late = async {
                Timer::after(CONNECT_TIMEOUT).await;
                Err("no answer".to_owned())
            };
            let given_up = async {
                wait_dropped(&dropped).await;
                Err(String::new())
            };
            let why = match connect(server, tls).or(late).or(given_up).await {
                Ok(stream) => carry(stream, &stand_in, &dropped).await,
                Err(why) => why,
            };
            if !dropped.is_closed() {
                ended(address, why);
            }
        };
        executor.spawn(task).detach();
        Ok(Self { address, _held: held })
    }

    /// The stand-in: what is a TURN server over UDP to everyone else.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn wait_dropped(dropped: &Receiver<Infallible>) {
    while dropped.recv().await.is_ok() {}
}

async fn connect(server: SocketAddr, tls: Option<(ServerName<'static>, Tls)>) -> Result<Box<dyn Stream>, String> {
    let words = |error: io::Error| fault::of_sip(&error);
    let stream = Async::<TcpStream>::connect(server).await.map_err(words)?;
    let socket = SockRef::from(stream.get_ref());
    // A connection works without them too.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_send_buffer_size(WAITING_BYTES);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT));
    let Some((name, tls)) = tls else { return Ok(Box::new(stream)) };
    let stream = TlsConnector::from(tls.websocket()).connect(name, stream).await.map_err(words)?;
    Ok(Box::new(stream))
}

/// Carries frames both ways until either side ends it; why it has ended.
async fn carry(stream: Box<dyn Stream>, stand_in: &StandIn, dropped: &Receiver<Infallible>) -> String {
    let (mut reader, mut writer) = split(stream);
    let mut datagram = [0; MAX_DATAGRAM_BYTES];
    let is_within_frame = Cell::new(false);
    let reading = async {
        let (mut frames, mut buffer) = (FrameStream::new(), vec![0; READ_BYTES]);
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return "it closed the connection".to_owned(),
                Ok(len) => frames.push(&buffer[..len]),
                Err(error) => return fault::of_sip(&error),
            }
            loop {
                match frames.next_frame() {
                    Ok(Some(frame)) => stand_in.give(frame),
                    Ok(None) => break,
                    Err(_) => return "it does not speak TURN on that port".to_owned(),
                }
            }
            yield_now().await; // A flood must not keep the executor.
        }
    };
    let writing = async {
        loop {
            let frame = match stand_in.next(&mut datagram).await {
                Ok(frame) => frame,
                Err(error) => return error.to_string(),
            };
            is_within_frame.set(true);
            if let Err(error) = write(&mut writer, frame).await {
                return fault::of_sip(&error);
            }
            is_within_frame.set(false);
            yield_now().await;
        }
    };
    let let_go = async {
        wait_dropped(dropped).await;
        String::new()
    };
    let why = reading.or(writing).or(let_go).await;
    let closing = async {
        // The last word of an allocation gives the relay back; it may have been said just before we were dropped.
        while dropped.is_closed() && !is_within_frame.get() {
            let Some(frame) = stand_in.next_at_hand(&mut datagram) else { break };
            if write(&mut writer, frame).await.is_err() {
                break;
            }
        }
        let _ = writer.close().await;
    };
    let late = async {
        Timer::after(CLOSE_TIMEOUT).await;
    };
    closing.or(late).await;
    why
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let writing = async {
        writer.write_all(frame).await?;
        writer.flush().await
    };
    let late = async {
        Timer::after(WRITE_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    writing.or(late).await
}

/// The end towards the peer connection.
struct StandIn {
    socket: Async<UdpSocket>,
    peer: SocketAddr,
}

impl StandIn {
    /// Gives a frame of the server's to the peer connection, or nobody.
    fn give(&self, frame: &[u8]) {
        // Directly: waiting for room would hold up the stream.
        let _ = self.socket.get_ref().send_to(frame, self.peer);
    }

    /// The next datagram of the peer connection's, as a frame.
    async fn next<'a>(&self, buffer: &'a mut [u8; MAX_DATAGRAM_BYTES]) -> io::Result<&'a [u8]> {
        loop {
            let (len, from) = self.socket.recv_from(buffer).await?;
            if let Some(frame_bytes) = self.to_frame(buffer, len, from) {
                return Ok(&buffer[..frame_bytes]);
            }
            yield_now().await;
        }
    }

    /// The same if it is there already.
    fn next_at_hand<'a>(&self, buffer: &'a mut [u8; MAX_DATAGRAM_BYTES]) -> Option<&'a [u8]> {
        loop {
            let (len, from) = self.socket.get_ref().recv_from(buffer).ok()?;
            if let Some(frame_bytes) = self.to_frame(buffer, len, from) {
                return Some(&buffer[..frame_bytes]);
            }
        }
    }

    /// Makes a datagram a frame, which for ChannelData ends with padding (RFC 8656 §12.5); gives its length. What is none
    /// would end the stream, and what others send is not ours to pass on.
    fn to_frame(&self, buffer: &mut [u8; MAX_DATAGRAM_BYTES], len: usize, from: SocketAddr) -> Option<usize> {
        if from != self.peer {
            return None;
        }
        let bytes = &buffer[..len];
        if let Some(data) = ChannelData::parse(bytes) {
            let unpadded = CHANNEL_HEADER_BYTES + data.payload.len();
            let padded = unpadded.next_multiple_of(4);
            buffer.get_mut(unpadded..padded)?.fill(0);
            return Some(padded);
        }
        Message::parse(bytes).is_ok().then_some(len)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::wire::stun::{ALLOCATE, Builder, Class, TransactionId};

    struct World {
        executor: LocalExecutor<'static>,
        server: Async<TcpListener>,
        /// The peer connection's.
        socket: Async<UdpSocket>,
        ended: (Sender<String>, Receiver<String>),
    }

    impl World {
        fn new() -> Self {
            let server = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let socket = Async::<UdpSocket>::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            Self { executor: LocalExecutor::new(), server, socket, ended: bounded(1) }
        }

        fn open(&self, server: SocketAddr) -> TurnStream {
            let port = self.socket.get_ref().local_addr().unwrap().port();
            let ended = self.ended.0.clone();
            let told = move |_, why| drop(ended.try_send(why));
            TurnStream::open(&self.executor, server, None, port, told).unwrap()
        }

        fn run(&self, test: impl Future<Output = ()>) {
            let late = async {
                Timer::after(Duration::from_secs(10)).await;
                panic!("nothing happens any more");
            };
            smol::block_on(self.executor.run(test.or(late)));
        }

        fn server_address(&self) -> SocketAddr {
            self.server.get_ref().local_addr().unwrap()
        }
    }

    fn message() -> Vec<u8> {
        Builder::of(ALLOCATE, Class::Request, TransactionId([5; 12])).finish_plain()
    }

    fn channel_data(payload: &[u8]) -> Vec<u8> {
        [&ChannelData::header(0x4000, payload.len() as u16), payload].concat()
    }

    #[test]
    fn datagrams_become_padded_frames_and_frames_datagrams() {
        let world = World::new();
        let stream = world.open(world.server_address());
        world.run(async {
            let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            stranger.send_to(&message(), stream.address()).unwrap();
            for datagram in [message(), b"junk".to_vec(), channel_data(b"12345"), channel_data(b"")] {
                world.socket.send_to(&datagram, stream.address()).await.unwrap();
            }
            let (mut server, _) = world.server.accept().await.unwrap();
            let expected = [message(), channel_data(b"12345"), vec![0; 3], channel_data(b"")].concat();
            let mut got = vec![0; expected.len()];
            server.read_exact(&mut got).await.unwrap();
            assert_eq!(got, expected);
            for piece in expected.chunks(7) {
                server.write_all(piece).await.unwrap();
            }
            for datagram in [message(), channel_data(b"12345"), channel_data(b"")] {
                let mut buffer = [0; 100];
                let (len, from) = world.socket.recv_from(&mut buffer).await.unwrap();
                assert_eq!((&buffer[..len], from), (&datagram[..], stream.address()));
            }
        });
    }

    #[test]
    fn the_last_word_passes_when_it_is_dropped() {
        let world = World::new();
        let stream = world.open(world.server_address());
        world.run(async {
            let (mut server, _) = world.server.accept().await.unwrap();
            // Once the first is through, the connection is there.
            world.socket.send_to(&message(), stream.address()).await.unwrap();
            server.read_exact(&mut vec![0; message().len()]).await.unwrap();
            world.socket.send_to(&channel_data(b"bye!"), stream.address()).await.unwrap();
            drop(stream);
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, channel_data(b"bye!"));
            assert!(world.ended.1.is_empty());
        });
    }

    #[test]
    fn what_a_slow_server_does_not_take_is_lost_in_whole_datagrams() {
        const SENT: usize = 3000;
        let world = World::new();
        let stream = world.open(world.server_address());
        world.run(async {
            let (mut server, _) = world.server.accept().await.unwrap();
            let datagram = channel_data(&[7; 1201]);
            for _ in 0..SENT {
                world.socket.send_to(&datagram, stream.address()).await.unwrap();
                yield_now().await;
            }
            drop(stream);
            let (mut all, mut frames, mut count) = (Vec::new(), FrameStream::new(), 0);
            server.read_to_end(&mut all).await.unwrap();
            frames.push(&all);
            while let Some(frame) = frames.next_frame().unwrap() {
                assert_eq!(frame, datagram);
                count += 1;
            }
            assert!((1..SENT).contains(&count), "{count} frames");
        });
    }

    #[test]
    fn its_end_is_told_in_words() {
        let world = World::new();
        world.run(async {
            for (answer, words) in [(&b"SSH-2.0"[..], "does not speak TURN"), (b"", "closed the connection")] {
                let _stream = world.open(world.server_address());
                let (mut server, _) = world.server.accept().await.unwrap();
                server.write_all(answer).await.unwrap();
                drop(server);
                let why = world.ended.1.recv().await.unwrap();
                assert!(why.contains(words), "{why}");
            }
            let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
            let _stream = world.open(nobody);
            assert!(world.ended.1.recv().await.unwrap().contains("refuses"));
        });
    }
}
