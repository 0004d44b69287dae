//! The signalling thread's loop: one input or the earliest deadline, one `now`, one mutation, then every output is carried
//! out. SIP goes first; packets of the net thread (DTLS flights among them) are taken one a turn.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use futures_lite::{FutureExt, StreamExt};
use smol::channel::{Receiver, Sender, bounded};
use smol::{LocalExecutor, Timer};

use super::capture::Capture;
use super::clock::{Clock, has_slept_again};
use super::connections::{SipConnections, StreamWord};
use super::dns::Dns;
use super::http::Http;
use super::load::LoadMeter;
use super::mix::MixHandle;
use super::network_watch::{Change, NetworkWatch};
use super::resolve::{self, Located};
use super::sip::SipSockets;
use super::sockets::{MediaSockets, StreamEnd};
use super::tls::Tls;
use super::{trace, websocket};
use crate::galene::{Fault, client};
use crate::gateway::Gateway;
use crate::gateway::event::{Input, MemberKey, Output};
use crate::media::control::NetEvent;
use crate::sip::event::{self as sip_event, Target};
use crate::time::{Deadline, Instant, earliest};
use crate::wire::ice_uri::IceUri;

/// SIP datagrams that wait for their turn; more stay in the kernel.
const MAX_WAITING_SIP: usize = 64;

/// Words of Galene, resolvers and signals that wait for their turn; more make their senders wait.
const MAX_WAITING_WORDS: usize = 64;

/// How long BYE, un-REGISTER and the goodbyes to Galene may take at the end: a second, less what the process needs to go.
const STOP_WITHIN: Duration = Duration::from_millis(950);

/// Larger than any UDP payload.
const DATAGRAM_BYTES: usize = 65_536;

/// What SIP's sockets bring.
enum SipWord {
    Datagram { local: SocketAddr, remote: SocketAddr, bytes: Vec<u8> },
    Stream(StreamWord),
}

impl From<StreamWord> for SipWord {
    fn from(word: StreamWord) -> Self {
        Self::Stream(word)
    }
}

/// What the tasks beside the loop tell it.
enum Word {
    Response {
        member: MemberKey,
        request: client::RequestKey,
        result: Result<client::HttpResponse, Fault>,
    },
    WebSocket {
        member: MemberKey,
        incoming: websocket::Incoming,
    },
    Routes {
        target: Target,
        result: Result<Located, String>,
    },
    IceServer {
        uri: IceUri,
        addresses: Vec<SocketAddr>,
    },
    /// Addresses have gone or come.
    Network(Change),
    TurnStreamEnded(StreamEnd),
    /// SIGUSR1: somebody wants to know how the sound does.
    Report,
    /// SIGTERM.
    Drain,
    /// SIGINT.
    Stop,
}

/// Why the loop goes on.
enum Turn {
    Sip(SipWord),
    Word(Word),
    Media,
    Timeout,
}

/// The signalling thread.
pub(super) struct Driver {
    pub(super) clock: Clock,
    pub(super) executor: Rc<LocalExecutor<'static>>,
    pub(super) gateway: Gateway<MediaSockets>,
    pub(super) mix: MixHandle,
    pub(super) load: LoadMeter,
    pub(super) sip: SipSockets,
    pub(super) connections: SipConnections,
    pub(super) dns: Dns,
    /// `-sip-pcap`.
    pub(super) capture: Option<Capture>,
    /// True if the registrar is to be reached over IPv6.
    pub(super) ipv6: bool,
    pub(super) tls: Tls,
    pub(super) http: Http,
    /// For how long the machine had slept when it was last looked at.
    pub(super) slept: Duration,
    /// When all is over, whatever is left to say, once the end has begun.
    pub(super) stop_by: Option<Instant>,
    /// The gateway has nothing left to do.
    pub(super) stopped: bool,
}

impl Driver {
    /// Runs until SIGTERM or SIGINT has ended everything.
    pub(super) async fn run(mut self) {
        let (sip_in, sip_out) = bounded(MAX_WAITING_SIP);
        let (word_in, word_out) = bounded(MAX_WAITING_WORDS);
        self.spawn_receivers(&sip_in);
        self.connections.spawn_listeners(&self.executor, &sip_in);
        self.spawn_signals(word_in.clone());
        self.spawn_network_watch(word_in.clone());
        self.spawn_stream_ends(word_in.clone());
        let mut connections = Connections::default();
        while self.carry_out(&word_in, &sip_in, &mut connections) {
            let turn = self.next_turn(&sip_out, &word_out).await;
            let now = self.clock.now();
            match turn {
                Turn::Sip(SipWord::Datagram { local, remote, bytes }) => {
                    let input = sip_event::Input::Datagram { local, remote, bytes: &bytes };
                    self.gateway.handle_input(now, Input::Sip(input));
                }
                Turn::Sip(SipWord::Stream(word)) => {
                    let gateway = &mut self.gateway;
                    self.connections.take(word, |input| gateway.handle_input(now, Input::Sip(input)));
                }
                Turn::Word(word) => self.take_word(now, word, &mut connections),
                Turn::Media => self.take_media(now),
                Turn::Timeout => self.gateway.handle_timeout(now),
            }
            self.look_for_sleep(now);
            if self.gateway.is_stopping() {
                self.stop_by.get_or_insert(now + STOP_WITHIN);
            }
            // Where there are calls, there are turns enough; where there are none, nobody needs to know.
            if let Some(load) = self.load.look(now, self.mix.late_ticks()) {
                self.gateway.handle_input(now, Input::Load(load));
            }
        }
    }

    /// A laptop that was closed, or a virtual machine that was suspended, tells nobody when it goes on.
    fn look_for_sleep(&mut self, now: Instant) {
        let former = std::mem::replace(&mut self.slept, self.clock.slept());
        if has_slept_again(former, self.slept) {
            tracing::info!("this machine has slept for {} s", (self.slept - former).as_secs());
            self.gateway.handle_input(now, Input::Sip(sip_event::Input::Woken));
        }
    }

    async fn next_turn(&mut self, sip: &Receiver<SipWord>, words: &Receiver<Word>) -> Turn {
        if let Ok(datagram) = sip.try_recv() {
            return Turn::Sip(datagram);
        }
        let stop = self.stop_by.map(|at| Deadline::new(at, "last words to Galene"));
        let deadline = earliest([self.gateway.next_timeout(), stop]);
        if deadline.is_some_and(|deadline| deadline.at <= self.clock.now()) {
            return Turn::Timeout;
        }
        // The loop holds a sender of each channel, so neither is ever closed.
        let sip = async { sip.recv().await.map_or(Turn::Timeout, Turn::Sip) };
        let word = async { words.recv().await.map_or(Turn::Timeout, Turn::Word) };
        let timeout = async {
            match deadline {
                Some(deadline) => Timer::at(self.clock.std(deadline.at)).await,
                None => std::future::pending().await,
            };
            Turn::Timeout
        };
        let net = &self.gateway.sockets().net;
        let media = async {
            // An error means that the descriptor is gone with its thread; the timer still turns the loop.
            if net.readable().or(self.mix.readable()).await.is_err() {
                std::future::pending::<()>().await;
            }
            Turn::Media
        };
        sip.or(word).or(media).or(timeout).await
    }

    fn take_word(&mut self, now: Instant, word: Word, connections: &mut Connections) {
        match word {
            Word::Response { member, request, result } => {
                let input = client::Input::Response { request, result };
                self.gateway.handle_input(now, Input::Galene { member, input });
            }
            Word::WebSocket { member, incoming } => {
                let input = match &incoming {
                    websocket::Incoming::Connected { local } => {
                        if let Some(connection) = connections.table.get_mut(&member) {
                            connection.local = *local;
                        }
                        client::Input::Connected
                    }
                    websocket::Incoming::Text(text) => {
                        trace::galene(member.call, "from", text);
                        client::Input::Text(text)
                    }
                    websocket::Incoming::Disconnected(fault) => {
                        connections.open -= 1;
                        connections.table.remove(&member);
                        client::Input::Disconnected(fault.clone())
                    }
                };
                self.gateway.handle_input(now, Input::Galene { member, input });
            }
            Word::Routes { target, result } => {
                let input = match result {
                    Ok(Located { routes, lifetime }) => sip_event::Input::Resolved { target, routes, lifetime },
                    Err(error) => sip_event::Input::Unresolved { target, error },
                };
                self.gateway.handle_input(now, Input::Sip(input));
            }
            Word::IceServer { uri, addresses } => {
                self.gateway.handle_input(now, Input::IceServer { uri, addresses });
            }
            Word::TurnStreamEnded(end) => {
                self.gateway.sockets().forget_stream(end);
                let StreamEnd { leg, stand_in } = end;
                self.gateway.handle_input(now, Input::TurnStreamEnded { leg, stand_in });
            }
            Word::Network(change) => self.take_change(now, &change, connections),
            Word::Report => {
                tracing::info!("{}", self.mix.report());
                if let Some(status) = self.gateway.registration_status() {
                    tracing::info!("{status}");
                }
                self.gateway.ladders().iter().for_each(|ladder| tracing::info!("{ladder}"));
            }
            Word::Drain => self.gateway.handle_input(now, Input::Drain),
            Word::Stop => self.gateway.handle_input(now, Input::ShutDown),
        }
    }

    /// A WebSocket from an address that is gone is lost: nothing more comes by it, not even its end.
    fn take_change(&mut self, now: Instant, change: &Change, connections: &mut Connections) {
        tracing::debug!("the network has changed: {change:?}");
        let is_lost = |connection: &Connection| connection.local.is_some_and(|local| change.gone.contains(&local));
        let lost = connections.table.iter().filter(|(_, connection)| is_lost(connection)).map(|(member, _)| *member);
        for member in lost.collect::<Vec<_>>() {
            connections.table.remove(&member);
            let fault = Fault::Unreachable("our own address is gone: this machine's network has changed".into());
            let input = client::Input::Disconnected(fault);
            self.gateway.handle_input(now, Input::Galene { member, input });
        }
        self.gateway.handle_input(now, Input::Network { gone: &change.gone, has_new: change.has_new });
    }

    /// One event of the net thread and one of a mix thread.
    fn take_media(&mut self, now: Instant) {
        if let Some(event) = self.gateway.sockets().net.poll_event() {
            if let NetEvent::Removed { leg, .. } = &event {
                let leg = *leg;
                self.gateway.sockets().on_removed(now, leg);
            }
            self.gateway.handle_input(now, Input::Net(event));
        }
        if let Some(event) = self.mix.poll_event() {
            self.gateway.handle_input(now, Input::Mix(event));
        }
    }

    /// Carries out all outputs; false when the gateway has stopped and Galene has heard that our members leave.
    fn carry_out(&mut self, words: &Sender<Word>, sip: &Sender<SipWord>, connections: &mut Connections) -> bool {
        while let Some(output) = self.gateway.poll_output() {
            match output {
                Output::SendSip { local, remote, bytes } => {
                    self.sip.send(local, remote, &bytes);
                }
                Output::Passed(passed) => {
                    trace::sip(&passed);
                    if let Some(capture) = &mut self.capture {
                        capture.keep(self.clock.unix_time(), &passed);
                    }
                }
                Output::SipConnection(command) => self.connections.carry_out(command, &self.executor, sip),
                Output::Resolve(target) => self.resolve(words.clone(), target),
                Output::FindIceServer(uri) => self.find_ice_server(words.clone(), uri),
                Output::Galene { member, output } => self.carry_out_galene(words, connections, member, output),
                Output::Net(command) => self.gateway.sockets().net.send(command),
                Output::AddPeer(setup) => {
                    if let Some(mix) = self.mix.mix_of(setup.room) {
                        self.gateway.sockets().add_peer(setup, mix);
                    }
                }
                Output::AddTelephone(setup) => {
                    if let Some(mix) = self.mix.mix_of(setup.room) {
                        self.gateway.sockets().add_telephone(setup, mix);
                    }
                }
                Output::Close(leg) => {
                    let now = self.clock.now();
                    self.gateway.sockets().remove(now, leg);
                }
                Output::Mix(command) => {
                    if let Err(command) = self.mix.send(command) {
                        tracing::debug!("no mix thread takes {command:?}");
                    }
                }
                Output::Stopped => self.stopped = true,
            }
        }
        let is_over = (self.stopped && connections.open == 0) || self.stop_by.is_some_and(|by| by <= self.clock.now());
        !is_over
    }

    fn carry_out_galene(
        &self,
        words: &Sender<Word>,
        connections: &mut Connections,
        member: MemberKey,
        output: client::Output,
    ) {
        let words = words.clone();
        match output {
            client::Output::Get { request, url } => {
                let http = self.http.clone();
                let get = async move { (request, http.get(url).await) };
                self.spawn_request(words, member, get);
            }
            client::Output::Post { request, url, json } => {
                let http = self.http.clone();
                let post = async move { (request, http.post_json(url, json).await) };
                self.spawn_request(words, member, post);
            }
            client::Output::Connect { url } => {
                let (command_in, command_out) = bounded(websocket::MAX_COMMANDS);
                connections.table.insert(member, Connection { commands: command_in, local: None });
                connections.open += 1;
                let tls = self.tls.clone();
                let wrap = move |incoming| Word::WebSocket { member, incoming };
                self.executor.spawn(websocket::run(url, tls, command_out, words, wrap)).detach();
            }
            client::Output::Send(text) => {
                trace::galene(member.call, "to", &text);
                let commands = connections.table.get(&member).map(|connection| &connection.commands);
                if commands.is_some_and(|commands| commands.try_send(websocket::Command::Text(text)).is_err()) {
                    // Galene has taken nothing for hundreds of messages; without this one the membership is broken.
                    tracing::warn!("call {}: Galene does not take our messages", member.call.0);
                    connections.table.remove(&member);
                }
            }
            // Dropping the channel closes the connection once everything before is out.
            client::Output::Disconnect => drop(connections.table.remove(&member)),
            client::Output::Event(_) => {}
        }
    }

    fn spawn_request(
        &self,
        words: Sender<Word>,
        member: MemberKey,
        request: impl Future<Output = (client::RequestKey, Result<client::HttpResponse, Fault>)> + 'static,
    ) {
        let task = async move {
            let (request, result) = request.await;
            // The loop may be over; then nobody needs to know.
            let _ = words.send(Word::Response { member, request, result }).await;
        };
        self.executor.spawn(task).detach();
    }

    fn resolve(&self, words: Sender<Word>, target: Target) {
        let (dns, ipv6) = (self.dns.clone(), self.ipv6);
        let task = async move {
            let result = resolve::locate(&dns, &target, ipv6).await;
            let _ = words.send(Word::Routes { target, result }).await;
        };
        self.executor.spawn(task).detach();
    }

    fn find_ice_server(&self, words: Sender<Word>, uri: IceUri) {
        let dns = self.dns.clone();
        let task = async move {
            let found = resolve::locate_ice_server(&dns, &uri).await;
            let found = found.inspect_err(|error| tracing::warn!("the ICE server {uri} is not found: {error}"));
            let addresses = found.unwrap_or_default();
            let _ = words.send(Word::IceServer { uri, addresses }).await;
        };
        self.executor.spawn(task).detach();
    }

    fn spawn_stream_ends(&mut self, words: Sender<Word>) {
        let ends = self.gateway.sockets().stream_ends();
        let task = async move {
            while let Ok(end) = ends.recv().await {
                if words.send(Word::TurnStreamEnded(end)).await.is_err() {
                    break;
                }
            }
        };
        self.executor.spawn(task).detach();
    }

    fn spawn_receivers(&self, datagrams: &Sender<SipWord>) {
        for socket in self.sip.iter() {
            let (socket, datagrams) = (socket.clone(), datagrams.clone());
            let task = async move {
                let mut buffer = vec![0; DATAGRAM_BYTES];
                loop {
                    // An error is an ICMP message about an earlier datagram.
                    let Ok(received) = socket.receive(&mut buffer).await else { continue };
                    let bytes = buffer[..received.len].to_vec();
                    let datagram = SipWord::Datagram { local: received.local, remote: received.remote, bytes };
                    if datagrams.send(datagram).await.is_err() {
                        break;
                    }
                }
            };
            self.executor.spawn(task).detach();
        }
    }

    fn spawn_network_watch(&self, words: Sender<Word>) {
        let task = async move {
            let watching = async {
                let mut watch = NetworkWatch::start()?;
                loop {
                    let change = watch.next().await?;
                    if words.send(Word::Network(change)).await.is_err() {
                        return Ok::<_, std::io::Error>(());
                    }
                }
            };
            if let Err(error) = watching.await {
                // Then pings and time-outs have to do.
                tracing::debug!("changes of the network are not told by the system: {error}");
            }
        };
        self.executor.spawn(task).detach();
    }

    fn spawn_signals(&self, words: Sender<Word>) {
        match Signals::new([Signal::Term, Signal::Int, Signal::Usr1]) {
            Ok(mut signals) => {
                let task = async move {
                    while let Some(signal) = signals.next().await {
                        let word = match signal {
                            Ok(Signal::Usr1) => Word::Report,
                            Ok(Signal::Term) => Word::Drain,
                            _ => Word::Stop,
                        };
                        if words.send(word).await.is_err() {
                            break;
                        }
                    }
                };
                self.executor.spawn(task).detach();
            }
            Err(error) => tracing::warn!("cannot end cleanly on SIGTERM: {error}"),
        }
    }
}

/// The WebSockets of all members.
#[derive(Default)]
struct Connections {
    /// Those that may still be told something.
    table: BTreeMap<MemberKey, Connection>,
    /// Tasks that have not said their last word.
    open: usize,
}

struct Connection {
    commands: Sender<websocket::Command>,
    /// Our own address, once it is open.
    local: Option<IpAddr>,
}
