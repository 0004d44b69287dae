//! What happens in a room with a browser and telephones: who speaks when, and how it was heard.
//!
//! Owns: the order of things, recordings, measurement. Does not own: the verdict.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::chromium::Chromium;
use super::page::Page;
use super::report::{MICROPHONE, PageReport, Rate, concealed_percent, sent_rate};
use crate::gateway::Gateway;
use crate::pcm::{Pcm, level_dbfs};
use crate::quality::{self, Quality, RATE_HZ};
use crate::room::RoomServer;
use crate::speech::{REFERENCE_RATE_HZ, Reference};
use crate::telephone::{Telephone, TelephoneSetup};
use crate::trial::{self, Heard};

/// The group in which all of it happens.
pub(super) const GROUP: &str = "browser";
/// The browser's name in it.
const BROWSER: &str = "Browser";
/// A browser that has never run on a busy machine needs most of it for its first window.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the microphone hears before the speech: until then the room is to be at rest.
const LEAD: Duration = Duration::from_secs(4);
/// From the moment when a voice is connected until it speaks: jitter buffers have settled by then.
const SETTLING: Duration = Duration::from_millis(800);
/// What is still under way when the last word was said.
const TAIL: Duration = Duration::from_secs(1);
/// How long the browser is listened to while it is silent, and again while it is muted.
const QUIET: Duration = Duration::from_secs(4);
/// How much the browser says where it is only to be heard.
const FEW_WORDS_S: f64 = 8.0;

/// Where rounds take place.
pub(super) struct Place<'a> {
    pub(super) room: &'a RoomServer,
    pub(super) gateway: &'a Gateway,
    pub(super) chromium: &'a Path,
    /// Where recordings go.
    pub(super) folder: &'a Path,
}

/// How a browser that leaves the microphone's sound alone and one telephone heard each other while both spoke.
#[derive(Debug)]
pub(super) struct Conversation {
    /// From the browser to the telephone.
    pub(super) up: Heard,
    /// From the telephone to the browser.
    pub(super) down: Heard,
    /// What the browser made up of the telephone's speech, in percent.
    pub(super) concealed_percent: Option<f64>,
    /// What the browser sent while it spoke.
    pub(super) speaking: Option<Rate>,
    /// While its microphone heard nothing at all.
    pub(super) silent: Option<Rate>,
    /// While it was muted.
    pub(super) muted: Option<Rate>,
}

/// How one was heard by another.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) speaker: &'static str,
    pub(super) listener: &'static str,
    pub(super) level_dbfs: f64,
    pub(super) quality: Quality,
}

/// A browser in the room.
struct Visitor {
    // Before its page, or its last words would be complaints.
    chromium: Chromium,
    page: Page,
    /// When its microphone was opened.
    microphone_at: Instant,
}

impl Visitor {
    /// Comes in and publishes a microphone that hears [`LEAD`] of nothing and then this.
    fn enter(place: &Place<'_>, speech: &Reference, is_processed: bool) -> Result<Self, String> {
        let lead = (LEAD.as_secs_f64() * f64::from(REFERENCE_RATE_HZ)) as usize;
        let mut samples = vec![0; lead];
        samples.extend(speech.at(REFERENCE_RATE_HZ));
        let file = place.folder.join("microphone.wav");
        Pcm { rate_hz: REFERENCE_RATE_HZ, samples }.write_wav(&file)?;
        let file = file.canonicalize().map_err(|error| format!("{}: {error}", file.display()))?;
        let page = Page::serve()?;
        let url = page.url(place.room.address(), GROUP, BROWSER, is_processed);
        let chromium = Chromium::open(place.chromium, &url, &file)?;
        let mut visitor = Self { chromium, page, microphone_at: Instant::now() };
        let opened = visitor
            .wait("it opens the microphone", |report| *report == PageReport::Microphone { processed: is_processed })?;
        visitor.microphone_at = opened;
        visitor.wait_connected(MICROPHONE)?;
        Ok(visitor)
    }

    fn wait_connected(&mut self, name: &str) -> Result<Instant, String> {
        self.wait(&format!("the stream of '{name}' is connected"), |report| {
            matches!(report, PageReport::Connection { source, state }
                if state == "connected" && source.starts_with(name) && source.is_empty() == name.is_empty())
        })
    }

    fn wait(&mut self, what: &str, is_wanted: impl Fn(&PageReport) -> bool) -> Result<Instant, String> {
        let is_news = |report: &PageReport| is_wanted(report) || matches!(report, PageReport::Failed { .. });
        match self.page.reports.wait_for(PATIENCE, |(_, report)| is_news(report)) {
            Some((_, PageReport::Failed { why })) => Err(format!("the browser's page: {why}")),
            Some((at, _)) => Ok(at),
            None => {
                let last = self.chromium.last_lines();
                Err(format!("the browser: not within {PATIENCE:?}: {what}; its last lines:\n  {last}"))
            }
        }
    }
}

/// Both speak at once.
pub(super) fn converse(place: &Place<'_>, speech: &Reference) -> Result<Conversation, String> {
    const CALLER: &str = "Telephone";
    let said = speech.at(RATE_HZ);
    let said_file = place.folder.join("said.wav");
    Pcm { rate_hz: RATE_HZ, samples: said.clone() }.write_wav(&said_file)?;
    let length = Duration::from_secs_f64(speech.seconds());

    let telephone = call(place, CALLER)?;
    let mut visitor = Visitor::enter(place, speech, false)?;
    let connected = visitor.wait_connected(CALLER)?;
    sleep_until(connected + SETTLING);
    telephone.speak(said.clone().into(), false);
    let telephone_end = Instant::now() + length + TAIL;
    let speech_at = visitor.microphone_at + LEAD;
    let speech_end = speech_at + length;
    let silent_at = speech_end.max(telephone_end) + TAIL;
    sleep_until(silent_at + QUIET);
    visitor.page.mute();
    let muted_at = Instant::now() + TAIL;
    sleep_until(muted_at + QUIET);

    let heard = visitor.page.heard();
    let report = telephone.finish();
    let telephone_at = report.speaking_since.ok_or("the call ended before the telephone spoke")?;
    let enough = said.len() + RATE_HZ as usize;
    let judge = |mut samples: Vec<i16>, name: &str| {
        samples.truncate(enough);
        trial::judge(&said, samples, &said_file, place.folder.join(name))
    };
    let up = judge(report.recording.render(speech_at), "heard-on-the-telephone.wav")?;
    let down = judge(heard.sound(CALLER, telephone_at, RATE_HZ), "heard-in-the-browser.wav")?;
    let rate = |begin, end| sent_rate(&heard.counts_between(begin, end));
    let caller = heard.recordings.keys().find(|name| name.starts_with(CALLER)).cloned().unwrap_or_default();
    Ok(Conversation {
        concealed_percent: concealed_percent(&heard.counts_between(telephone_at, telephone_end), &caller),
        speaking: rate(speech_at, speech_end),
        silent: rate(silent_at, silent_at + QUIET),
        muted: rate(muted_at, muted_at + QUIET),
        up,
        down,
    })
}

/// A browser that works on its microphone's sound as it does by default, and two telephones: first it speaks and both
/// telephones listen, then they speak at once and it listens.
pub(super) fn gather(place: &Place<'_>, speech: &Reference) -> Result<Vec<Voice>, String> {
    const CALLERS: [&str; 2] = ["Ada's telephone", "Bob's telephone"];
    let said = speech.at(RATE_HZ);
    let (ada, bob) = said.split_at(said.len() / 2);
    let words = speech.clone().beginning(FEW_WORDS_S);

    let telephones = [call(place, CALLERS[0])?, call(place, CALLERS[1])?];
    let mut visitor = Visitor::enter(place, &words, true)?;
    for caller in CALLERS {
        visitor.wait_connected(caller)?;
    }
    let speech_at = visitor.microphone_at + LEAD;
    sleep_until(speech_at + Duration::from_secs_f64(words.seconds()) + TAIL);
    for (telephone, words) in telephones.iter().zip([ada, bob]) {
        telephone.speak(words.into(), false);
    }
    let length = Duration::from_secs_f64(bob.len() as f64 / f64::from(RATE_HZ));
    sleep_until(Instant::now() + length + TAIL);

    let heard = visitor.page.heard();
    let words = words.at(RATE_HZ);
    let mut voices = Vec::new();
    for ((telephone, caller), own) in telephones.into_iter().zip(CALLERS).zip([ada, bob]) {
        let report = telephone.finish();
        let speaking_since = report.speaking_since.ok_or("a call ended before its telephone spoke")?;
        voices.push(Voice::measure(BROWSER, caller, &words, report.recording.render(speech_at)));
        voices.push(Voice::measure(caller, BROWSER, own, heard.sound(caller, speaking_since, RATE_HZ)));
    }
    Ok(voices)
}

impl Voice {
    fn measure(speaker: &'static str, listener: &'static str, said: &[i16], mut heard: Vec<i16>) -> Self {
        heard.truncate(said.len() + RATE_HZ as usize / 2);
        Self { speaker, listener, level_dbfs: level_dbfs(&heard), quality: quality::measure(said, &heard) }
    }
}

fn call(place: &Place<'_>, name: &str) -> Result<Telephone, String> {
    let setup = TelephoneSetup::new(&place.gateway.uri()).from(&format!("\"{name}\" <sip:100@127.0.0.1>"));
    let telephone = Telephone::call(setup).map_err(|error| error.to_string())?;
    telephone.wait_answered(PATIENCE).map_err(|why| format!("{name}: {why}"))?;
    Ok(telephone)
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
