//! The thread of one telephone: waits for its two sockets and its next deadline, and drives the call.
//!
//! Owns: sockets, the only clock of the telephone. Does not own: SIP and RTP themselves.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as CommandReceiver, Sender as EventSender};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::media::{Receiver, Sender};
use super::sdp::{Direction, RemoteDescription};
use super::signalling::{Call, CallSetup, Side, Signal};
use super::srtp::{Key, Srtp};
use super::{Codec, Event, Report, What};

/// How long a command may wait while nothing else happens.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// How long a telephone that is let go of waits for the answer to its BYE or CANCEL.
const LETTING_GO: Duration = Duration::from_secs(2);
/// How often the level is told.
const LEVEL_PERIOD: Duration = Duration::from_secs(1);

/// What the owner tells the thread.
#[derive(Debug)]
pub(super) enum Command {
    Speak {
        samples: Arc<[i16]>,
        repeats: bool,
    },
    SetDirection(Direction),
    HangUp,
    /// Hangs up, and ends soon even if the other side does not answer that.
    LetGo,
}

/// What the thread owns.
pub(super) struct Line {
    signalling: UdpSocket,
    media: UdpSocket,
    remote: SocketAddr,
    /// Ours goes to where theirs comes from.
    follows_voice: bool,
    events: EventSender<Event>,
    commands: CommandReceiver<Command>,
    invited_at: Instant,
    receiver: Receiver,
    voice: Option<Voice>,
    /// Our key, if everything is to be encrypted.
    key: Option<Key>,
    /// From the answer on.
    srtp: Option<Srtp>,
    /// Speech that waits for the answer.
    speech: Option<(Arc<[i16]>, bool)>,
    wants: Direction,
    answered_after: Option<Duration>,
    first_rtp_after: Option<Duration>,
    speaking_since: Option<Instant>,
    ends_at: Option<Instant>,
    end: Option<What>,
}

/// What exists from the answer on.
struct Voice {
    sender: Sender,
    codec: Codec,
    remote: SocketAddr,
    we_send: bool,
    answered_at: Instant,
    seconds: u32,
}

impl Line {
    pub(super) fn new(
        (signalling, media): (UdpSocket, UdpSocket),
        remote: SocketAddr,
        follows_voice: bool,
        events: EventSender<Event>,
        commands: CommandReceiver<Command>,
    ) -> io::Result<Self> {
        signalling.set_nonblocking(true)?;
        media.set_nonblocking(true)?;
        Ok(Self {
            signalling,
            media,
            remote,
            follows_voice,
            events,
            commands,
            invited_at: Instant::now(),
            receiver: Receiver::new(),
            voice: None,
            key: None,
            srtp: None,
            speech: None,
            wants: Direction::SendRecv,
            answered_after: None,
            first_rtp_after: None,
            speaking_since: None,
            ends_at: None,
            end: None,
        })
    }

    /// Runs until the call is over.
    pub(super) fn run(mut self, setup: CallSetup) -> Report {
        self.invited_at = Instant::now();
        self.tell(What::Invited { target: setup.target.clone() });
        let ptime_ms = setup.description.ptime_ms;
        self.key.clone_from(&setup.description.key);
        let mut call = Call::start(self.invited_at, setup);
        let mut buffer = vec![0; 65_536];
        loop {
            self.obey(&mut call);
            while let Some(signal) = call.poll_signal() {
                self.handle_signal(signal, ptime_ms);
            }
            if call.is_over() || self.ends_at.is_some_and(|at| Instant::now() >= at) {
                break;
            }
            self.send_voice();
            self.wait(&call);
            self.read(&mut call, &mut buffer);
            let now = Instant::now();
            if call.next_timeout().is_some_and(|at| now >= at) {
                call.handle_timeout(now);
            }
            self.tell_level(now);
        }
        Report {
            invited_at: self.invited_at,
            answered_after: self.answered_after,
            first_rtp_after: self.first_rtp_after,
            speaking_since: self.speaking_since,
            sent_packets: self.voice.map_or(0, |voice| voice.sender.packets),
            reception: self.receiver.reception,
            recording: self.receiver.recording,
            end: self.end.unwrap_or_else(|| What::Failed { why: "let go of before the call was over".to_owned() }),
        }
    }

    fn obey(&mut self, call: &mut Call) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Speak { samples, repeats } => {
                    self.speech = Some((samples, repeats));
                    self.begin_speech();
                }
                Command::SetDirection(direction) => {
                    self.wants = direction;
                    call.change(Instant::now(), direction);
                }
                Command::HangUp => call.hang_up(Instant::now()),
                Command::LetGo => {
                    call.hang_up(Instant::now());
                    self.ends_at.get_or_insert_with(|| Instant::now() + LETTING_GO);
                }
            }
        }
    }

    fn begin_speech(&mut self) {
        let Some(voice) = &mut self.voice else { return };
        if let Some((samples, repeats)) = self.speech.take() {
            let at = voice.sender.speak(samples, repeats);
            self.speaking_since = Some(at);
            self.tell_at(at, What::Speaking);
        }
    }

    fn handle_signal(&mut self, signal: Signal, ptime_ms: u32) {
        let after = self.invited_at.elapsed();
        match signal {
            // What cannot be sent is lost, as on any network; the repetition tries again.
            Signal::Send(bytes) => drop(self.signalling.send_to(&bytes, self.remote)),
            Signal::Trying => self.tell(What::Trying { after }),
            Signal::Ringing(status) => self.tell(What::Ringing { status, after }),
            Signal::Answered(remote) => {
                self.answered_after = Some(after);
                let now = Instant::now();
                let sender = Sender::new(now, remote.codec, ptime_ms);
                let RemoteDescription { address, codec, direction, key } = remote;
                self.srtp = self.key.as_ref().zip(key.as_ref()).map(|(ours, theirs)| Srtp::new(ours, theirs));
                let we_send = may_send(direction);
                self.voice = Some(Voice { sender, codec, remote: address, we_send, answered_at: now, seconds: 0 });
                self.tell(What::Answered { after, codec, remote: address });
                self.begin_speech();
            }
            Signal::Changed(remote) => self.change(&remote, Side::Us),
            Signal::ChangedByThem(remote) => self.change(&remote, Side::Them),
            Signal::ChangeRefused(status) => self.tell(What::ChangeRefused { status }),
            Signal::Refused { status, reason, warning, retry_after_s } => {
                self.finish(What::Refused { status, reason, warning, retry_after_s });
            }
            Signal::Ended { by, reason } => self.finish(What::Bye { by, reason }),
            Signal::Failed(why) => self.finish(What::Failed { why }),
        }
    }

    fn change(&mut self, remote: &RemoteDescription, by: Side) {
        let Some(voice) = &mut self.voice else { return };
        voice.remote = remote.address;
        voice.codec = remote.codec;
        voice.sender.set_codec(remote.codec);
        let we_want = matches!(self.wants, Direction::SendRecv | Direction::SendOnly) || by == Side::Them;
        voice.we_send = we_want && may_send(remote.direction);
        let they_send = matches!(remote.direction, Direction::SendRecv | Direction::SendOnly);
        let we_send = voice.we_send;
        self.tell(What::Changed { by, they_send, we_send });
    }

    fn send_voice(&mut self) {
        let Some(voice) = &mut self.voice else { return };
        while let Some(packet) = voice.sender.poll_packet(Instant::now()) {
            let packet = match (&self.key, &mut self.srtp) {
                (None, _) => Some(packet),
                (Some(_), srtp) => srtp.as_mut().and_then(|srtp| srtp.seal(&packet)),
            };
            if let Some(packet) = packet.filter(|_| voice.we_send) {
                let _ = self.media.send_to(&packet, voice.remote);
            }
        }
    }

    /// Until a socket has something or the next deadline.
    fn wait(&self, call: &Call) {
        let now = Instant::now();
        let mut until = now + LONGEST_WAIT;
        for at in [call.next_timeout(), self.voice.as_ref().map(|voice| voice.sender.next_at())].into_iter().flatten() {
            until = until.min(at);
        }
        let mut waited = [
            PollFd::new(self.signalling.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.media.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted or not: the loop looks at everything anyway.
        let _ = ppoll(&mut waited, Some(TimeSpec::from_duration(until.saturating_duration_since(now))), None);
    }

    fn read(&mut self, call: &mut Call, buffer: &mut [u8]) {
        while let Ok((length, _)) = self.signalling.recv_from(buffer) {
            call.handle_datagram(Instant::now(), &buffer[..length]);
        }
        while let Ok((length, from)) = self.media.recv_from(buffer) {
            let now = Instant::now();
            // RTP may overtake the 200; what the offer put first is then the best guess.
            let codec = self.voice.as_ref().map_or(Codec::Pcmu, |voice| voice.codec);
            let opened = self.srtp.as_mut().and_then(|srtp| srtp.open(&buffer[..length]));
            let packet = if self.key.is_none() { &buffer[..length] } else { opened.as_deref().unwrap_or_default() };
            let is_speech = self.receiver.handle_datagram(now, codec, packet);
            if let Some(voice) = self.voice.as_mut().filter(|_| is_speech && self.follows_voice) {
                voice.remote = from;
            }
            if is_speech && self.first_rtp_after.is_none() {
                let after = now - self.invited_at;
                self.first_rtp_after = Some(after);
                self.tell(What::FirstRtp { after, from });
            }
        }
    }

    fn tell_level(&mut self, now: Instant) {
        let Some(voice) = &mut self.voice else { return };
        if now >= voice.answered_at + LEVEL_PERIOD * (voice.seconds + 1) {
            voice.seconds += 1;
            let second = voice.seconds;
            let (dbfs, packets) = self.receiver.take_level();
            self.tell(What::Level { second, dbfs, packets });
        }
    }

    fn finish(&mut self, what: What) {
        self.end.get_or_insert_with(|| what.clone());
        self.tell(what);
    }

    fn tell(&self, what: What) {
        self.tell_at(Instant::now(), what);
    }

    fn tell_at(&self, at: Instant, what: What) {
        // An owner that no longer listens has let go of the telephone, which then ends by the command of its drop.
        let _ = self.events.send(Event { at, what });
    }
}

/// Whether we may send, given the direction that the other side wrote.
fn may_send(theirs: Direction) -> bool {
    matches!(theirs, Direction::SendRecv | Direction::RecvOnly)
}
