//! People in a room: clients of Galene's protocol that speak and record, in [`crate::room`] or in a real Galene.
//!
//! A [`Crowd`] is one thread with one or many members who share what they say; [`Crowd::join`] starts it. What they
//! hear is kept packet by packet with the time of its arrival, so that a [`Recording`] can be put on the one clock
//! afterwards: sample 0 of a sound is *spoken* when its packet leaves and *heard* when its packet arrives.
//!
//! - `crowd`: the loop and its sockets; `person`: one member's side of the protocol; `voice`: what is said;
//! - `recording`: what was heard; `census`: in what kinds of packets; [`cli`]: by hand.

mod census;
pub mod cli;
mod crowd;
mod event;
mod person;
mod recording;
mod voice;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::event_log::EventLog;
use crate::opus::EncoderConfig;
use crate::pcm::Pcm;
use crate::poll::Waker;
pub use census::Census;
use crowd::{Control, Loop};
pub use event::{MemberEvent, MemberEventKind};
pub use recording::{HeardPacket, Recording, Statistics};

/// Who joins, and what they do.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// The group's URL, perhaps with `?token=…`.
    pub url: String,
    /// The name; members of a crowd beyond the first have their number behind it.
    pub username: String,
    /// The password, empty for none.
    pub password: String,
    /// Connects to `https` without looking at its certificate, which is the only way that it does.
    pub insecure: bool,
    /// What is said; `None` publishes nothing.
    pub speech: Option<Speech>,
    /// How many of a crowd say it; the others publish a quiet noise.
    pub speakers: usize,
    /// When the speech begins: so long after the first member's stream is connected. Silence is sent until then.
    pub speak_after: Duration,
    /// Not even silence is sent until so long after the stream was offered, as by a browser whose ICE takes its time.
    pub first_packet_after: Duration,
    /// How it is coded.
    pub encoder: EncoderConfig,
    /// Asks for the audio of everybody else, and records it.
    pub listen: bool,
    /// The address in media candidates; `None` takes the one that the connection to the server has.
    pub media_address: Option<IpAddr>,
    /// Tells its own candidates by `ice` messages alone, as a browser does.
    pub trickle: bool,
    /// How often the level of each stream that is heard is told.
    pub levels_every: Option<Duration>,
}

impl MemberConfig {
    /// A member who listens and publishes silence.
    pub fn new(url: &str, username: &str) -> Self {
        Self {
            url: url.into(),
            username: username.into(),
            password: String::new(),
            insecure: false,
            speech: Some(Speech::silence()),
            speakers: usize::MAX,
            speak_after: Duration::from_millis(500),
            first_packet_after: Duration::ZERO,
            encoder: EncoderConfig::default(),
            listen: true,
            media_address: None,
            trickle: false,
            levels_every: None,
        }
    }
}

/// Something to say.
#[derive(Clone, Debug)]
pub struct Speech {
    /// The sound.
    pub sound: Arc<Pcm>,
    /// Again and again, or once with silence after it.
    pub looped: bool,
}

impl Speech {
    /// Nothing, which is published all the same.
    pub fn silence() -> Self {
        Self::once(Pcm { rate_hz: crate::opus::RATE_HZ, samples: Vec::new() })
    }

    /// A sound, said once.
    pub fn once(sound: Pcm) -> Self {
        Self { sound: Arc::new(sound), looped: false }
    }

    /// A sound, said again and again.
    pub fn looped(sound: Pcm) -> Self {
        Self { sound: Arc::new(sound), looped: true }
    }
}

/// What members can be told to do. People are named by id or by username.
#[derive(Clone, Debug)]
pub enum MemberCommand {
    /// Begins the speech, from its start, at this time of [`crate::clock`] or at once if that is past.
    Speak {
        /// When.
        at_us: u64,
    },
    /// Chats with all.
    Chat(String),
    /// Acts upon somebody as an operator does: `kick`, `unpresent` …, or upon oneself: `setdata`.
    Action {
        /// What.
        kind: String,
        /// Upon whom.
        dest: String,
        /// With what.
        value: Value,
    },
    /// Sends a usermessage, `mute` for instance, which the server vouches for or not.
    UserMessage {
        /// Its kind.
        kind: String,
        /// To whom, empty for all.
        dest: String,
        /// Its value.
        value: Value,
    },
    /// Sends any message as it is.
    Send(Value),
    /// Ends the own stream.
    Unpublish,
    /// Publishes again.
    Publish,
    /// Publishes a new stream in the place of the own one.
    Replace,
    /// Leaves with a goodbye.
    Leave,
    /// Is gone without one.
    Vanish,
}

/// Members who share a thread and a voice. They leave when this is dropped.
pub struct Crowd {
    control: Sender<Control>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    /// What has happened to all of them.
    pub events: EventLog<MemberEvent>,
}

impl Crowd {
    /// Sends `count` members into a room. That they are in is told by events.
    ///
    /// # Errors
    ///
    /// In words, if the system has no thread or no epoll left.
    pub fn join(config: MemberConfig, count: usize) -> Result<Self, String> {
        let (control, commands) = channel();
        let (reports, events) = channel();
        let mut members = Loop::new(config, count, commands, reports)?;
        let waker = members.waker();
        let thread = std::thread::Builder::new().name("members".into()).spawn(move || members.run());
        let thread = Some(thread.map_err(|error| error.to_string())?);
        Ok(Self { control, waker, thread, events: EventLog::new(events) })
    }

    /// Sends one member into a room.
    ///
    /// # Errors
    ///
    /// As [`Crowd::join`].
    pub fn one(config: MemberConfig) -> Result<Self, String> {
        Self::join(config, 1)
    }

    /// Tells a member, by its number from 0, to do something.
    pub fn command(&self, member: usize, command: MemberCommand) {
        self.tell(Control::Command { member, command });
    }

    /// What a member has heard so far, a recording for each stream.
    pub fn recordings(&self, member: usize) -> Vec<Recording> {
        let (sender, receiver) = channel();
        self.tell(Control::Recordings { member, sender });
        receiver.recv_timeout(Duration::from_secs(5)).unwrap_or_default()
    }

    /// Writes what a member has heard as a WAV file a stream into a folder, all of them beginning at `from_us`, and
    /// says which.
    ///
    /// # Errors
    ///
    /// In words, if a file cannot be written.
    pub fn write_recordings(&self, member: usize, folder: &Path, from_us: u64) -> Result<Vec<PathBuf>, String> {
        self.recordings(member).iter().map(|recording| recording.write(folder, from_us)).collect()
    }

    fn tell(&self, control: Control) {
        // Members who have left do nothing any more.
        let _ = self.control.send(control);
        self.waker.wake();
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tell(Control::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
