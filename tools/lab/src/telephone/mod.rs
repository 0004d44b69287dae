//! A telephone that calls: a minimal SIP user agent and its voice, one thread a telephone.
//!
//! Owns: sockets, the thread, the events of one call. Shares no line with the gateway, so that the two can disagree.
//! Does not own: registration; a telephone of the laboratory calls an address. RFC: 3261, 3264, 3550, 3551.

pub mod cli;
pub mod event;
pub mod g711;
mod line;
mod media;
pub(crate) mod message;
mod sdp;
mod signalling;
mod srtp;

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use event::{Event, What};
pub use g711::Codec;
pub use media::{RATE_HZ, Reception, level_dbfs};
pub use sdp::Direction;
pub use signalling::Side;

use crate::random::random_u64;
use crate::recording::Recording;
use line::{Command, Line};
use sdp::LocalDescription;
use signalling::CallSetup;
use srtp::Key;

/// The port of SIP where a URI names none.
const SIP_PORT: u16 = 5060;

/// What a telephone is told before it calls.
#[derive(Debug, Clone)]
pub struct TelephoneSetup {
    /// Whom to call, and where the INVITE goes: `sip:6002@127.0.0.1:5060`.
    pub target: String,
    /// Where the INVITE goes if not to the host of `target`, as to a proxy.
    pub proxy: Option<SocketAddr>,
    /// The address to call from, if not the one that the system would choose.
    pub local: Option<IpAddr>,
    /// The From header without tag: `Ada <sip:100@example.org>`.
    pub from: String,
    /// Codecs by preference.
    pub codecs: Vec<Codec>,
    /// Packet length, 10 to 60 ms.
    pub ptime_ms: u32,
    /// Whether the INVITE carries an offer.
    pub offers: bool,
    /// Whether it offers SRTP, and nothing else.
    pub is_encrypted: bool,
    /// The address to write into c= instead of the true one, as telephones behind a NAT do.
    pub claimed_address: Option<IpAddr>,
    /// Whether its voice goes to where the other side's comes from (symmetric RTP) instead of where that side's description says.
    pub follows_voice: bool,
}

impl TelephoneSetup {
    /// An ordinary telephone that calls `target`.
    pub fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            proxy: None,
            local: None,
            from: "Lab <sip:100@127.0.0.1>".to_owned(),
            codecs: vec![Codec::Pcmu, Codec::Pcma],
            ptime_ms: 20,
            offers: true,
            is_encrypted: false,
            claimed_address: None,
            follows_voice: false,
        }
    }

    /// The same with another From header.
    pub fn from(self, from: &str) -> Self {
        Self { from: from.to_owned(), ..self }
    }
}

/// How a call went.
#[derive(Debug)]
pub struct Report {
    /// When the INVITE was sent.
    pub invited_at: Instant,
    /// From INVITE to 2xx.
    pub answered_after: Option<Duration>,
    /// From INVITE to the first RTP packet.
    pub first_rtp_after: Option<Duration>,
    /// When the first sample of the speech last begun was sent.
    pub speaking_since: Option<Instant>,
    /// RTP packets sent.
    pub sent_packets: u64,
    /// What arrived, in numbers.
    pub reception: Reception,
    /// What arrived, to listen to.
    pub recording: Recording,
    /// The last event: how the call ended.
    pub end: What,
}

impl Report {
    /// Level in dBFS of what arrived in all.
    pub fn level_dbfs(&self) -> f64 {
        let samples = self.recording.render(self.invited_at);
        level_dbfs(samples.iter().map(|&sample| f64::from(sample).powi(2)).sum(), samples.len() as u64)
    }
}

/// A telephone in a call.
#[derive(Debug)]
pub struct Telephone {
    events: Receiver<Event>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<Report>>,
}

impl Telephone {
    /// Sends the INVITE; what follows comes as events.
    ///
    /// # Errors
    /// When the target cannot be understood or resolved, or no socket can be had.
    pub fn call(setup: TelephoneSetup) -> io::Result<Self> {
        let remote = match setup.proxy {
            Some(address) => address,
            None => address_of(&setup.target)?,
        };
        let signalling = match setup.local {
            Some(address) => UdpSocket::bind((address, 0))?,
            None => bound_towards(remote)?,
        };
        let local = signalling.local_addr()?;
        let media = UdpSocket::bind((local.ip(), 0))?;
        let description = LocalDescription {
            session: random_u64() >> 2,
            version: 1,
            address: setup.claimed_address.unwrap_or_else(|| local.ip()),
            port: media.local_addr()?.port(),
            codecs: setup.codecs,
            direction: Direction::SendRecv,
            ptime_ms: setup.ptime_ms.clamp(10, 60),
            key: setup.is_encrypted.then(Key::random),
        };
        let call = CallSetup { target: setup.target, from: setup.from, local, description, offers: setup.offers };
        let (event_sender, events) = mpsc::channel();
        let (commands, command_receiver) = mpsc::channel();
        let line = Line::new((signalling, media), remote, setup.follows_voice, event_sender, command_receiver)?;
        let thread = thread::Builder::new().name("telephone".to_owned()).spawn(move || line.run(call))?;
        Ok(Self { events, commands, thread: Some(thread) })
    }

    /// The next event; `None` when none came in time or the call is over.
    pub fn next_event(&self, patience: Duration) -> Option<Event> {
        self.events.recv_timeout(patience).ok()
    }

    /// True when the call has ended and nothing more will come.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Passes over events until one is wanted.
    ///
    /// # Errors
    /// In words, when the call is over before that or it does not come in time.
    pub fn wait_for(&self, patience: Duration, mut is_wanted: impl FnMut(&What) -> bool) -> Result<Event, String> {
        let until = Instant::now() + patience;
        let mut last = None;
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) if is_wanted(&event.what) => return Ok(event),
                Ok(event) => last = Some(event.what),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("not within {} ms; last came {last:?}", patience.as_millis()));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(format!("the call is over; last came {last:?}")),
            }
        }
    }

    /// Waits for the answer: how long it took from the INVITE.
    ///
    /// # Errors
    /// In words, when the call was refused or is not answered in time.
    pub fn wait_answered(&self, patience: Duration) -> Result<Duration, String> {
        let event = self.wait_for(patience, |what| matches!(what, What::Answered { .. } | What::Refused { .. }))?;
        match event.what {
            What::Answered { after, .. } => Ok(after),
            other => Err(format!("{other:?}")),
        }
    }

    /// Waits for a second in which something louder than `threshold_dbfs` was heard.
    ///
    /// # Errors
    /// In words, when it stays silent.
    pub fn wait_heard(&self, patience: Duration, threshold_dbfs: f64) -> Result<f64, String> {
        let mut heard = f64::NEG_INFINITY;
        self.wait_for(patience, |what| {
            if let What::Level { dbfs, .. } = what {
                heard = *dbfs;
            }
            heard > threshold_dbfs
        })
        .map(|_| heard)
    }

    /// Speaks samples of 8 kHz from the answer on, or from now on if answered already; silence until then.
    pub fn speak(&self, samples: Arc<[i16]>, repeats: bool) {
        self.command(Command::Speak { samples, repeats });
    }

    /// Sends a re-INVITE with another direction: `SendOnly` holds, `SendRecv` resumes.
    pub fn set_direction(&self, direction: Direction) {
        self.command(Command::SetDirection(direction));
    }

    /// CANCEL before the answer, BYE after it.
    pub fn hang_up(&self) {
        self.command(Command::HangUp);
    }

    /// Hangs up if that has not happened and tells how the call went, within two seconds.
    pub fn finish(self) -> Report {
        self.finish_telling(|_| ())
    }

    /// The same, with the events that are still to come.
    pub fn finish_telling(mut self, mut tell: impl FnMut(Event)) -> Report {
        self.command(Command::LetGo);
        while let Ok(event) = self.events.recv() {
            tell(event);
        }
        let thread = self.thread.take().expect("only this and drop take the thread, and both end the telephone");
        thread.join().expect("a telephone's thread ends by returning")
    }

    fn command(&self, command: Command) {
        // A telephone whose call is over has no thread that listens, and nothing left to be told.
        let _ = self.commands.send(command);
    }
}

impl Drop for Telephone {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.command(Command::LetGo);
            let _ = thread.join();
        }
    }
}

/// The address in a SIP URI.
fn address_of(uri: &str) -> io::Result<SocketAddr> {
    let unusable =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("'{uri}' is no address like sip:6002@host:5060"));
    let rest = uri.strip_prefix("sip:").ok_or_else(unusable)?;
    let rest = rest.split(['?', ';']).next().unwrap_or(rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, SIP_PORT));
    }
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let port = if port.is_empty() { SIP_PORT } else { port.parse().map_err(|_| unusable())? };
    (name, port).to_socket_addrs()?.next().ok_or_else(unusable)
}

/// A socket on the local address from which `remote` is reached.
fn bound_towards(remote: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = UdpSocket::bind(any)?;
    probe.connect(remote)?;
    UdpSocket::bind((probe.local_addr()?.ip(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_uris() {
        assert_eq!(address_of("sip:6002@127.0.0.1").unwrap(), "127.0.0.1:5060".parse().unwrap());
        assert_eq!(address_of("sip:6002@127.0.0.1:99;transport=udp").unwrap(), "127.0.0.1:99".parse().unwrap());
        assert_eq!(address_of("sip:[::1]:99").unwrap(), "[::1]:99".parse().unwrap());
        assert_eq!(address_of("sip:x@[::1]").unwrap(), "[::1]:5060".parse().unwrap());
        assert!(address_of("tel:1").is_err());
    }
}
