//! `lab browser`: a real Chromium and telephones in one room, each heard by the others, with a judgement at the end.
//!
//! Owns: what is good enough. The browser shows a page of our own (`member.js`), a client of Galene's protocol; `page` serves it
//! and takes its reports (`report`), `chromium` starts the browser, `round` tells who speaks when.

mod chromium;
mod page;
mod report;
mod round;

use std::path::PathBuf;

use crate::gateway::Gateway;
use crate::options::Options;
use crate::room::{GroupConfig, RoomConfig, RoomServer};
use crate::speech::Reference;
use crate::trial::Heard;
use chromium::Chromium;
use report::Rate;
use round::{Conversation, GROUP, Place, Voice};

/// The text for a wrong command line.
pub const USAGE: &str = "\
lab browser --gateway target/debug/galene-sip [options]
  --recordings FOLDER  where the recordings go (default out/browser)
";

/// The exit code of what was skipped.
const SKIPPED: i32 = 77;
/// PESQ of the browser's voice on the telephone, and of the telephone's in the browser.
const WORST_UP_PESQ: f64 = 3.0;
const WORST_DOWN_PESQ: f64 = 3.0;
/// Without PESQ: frames of speech that may be missing, in percent.
const MOST_MISSING_PERCENT: usize = 5;
/// Speech has −26 dBFS when it is said, and a browser may make it louder or quieter; between that and this lies no noise.
const QUIETEST_DBFS: f64 = -45.0;

/// Lets them hear each other; the exit code is 0 if they did, 1 if not, and 77 without Chromium.
///
/// # Errors
/// In words, when an option is wrong or it does not come to speaking.
pub fn run(arguments: &[String]) -> Result<i32, String> {
    let mut options = Options::new(arguments);
    let gateway: PathBuf = options.value("--gateway")?.ok_or_else(|| format!("--gateway is missing\n{USAGE}"))?;
    let folder: PathBuf = options.value("--recordings")?.unwrap_or_else(|| "out/browser".into());
    if let Some(surplus) = options.rest()?.first() {
        return Err(format!("'{surplus}' is not known\n{USAGE}"));
    }
    let Some(binary) = Chromium::find() else {
        eprintln!("skipped: needs Chromium (apt-get install chromium)");
        return Ok(SKIPPED);
    };
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let room = RoomServer::start(RoomConfig::new(vec![GroupConfig::open(GROUP)]))?;
    let gateway = Gateway::start(&gateway, &room.group_url(GROUP), &[])?;
    let place = Place { room: &room, gateway: &gateway, chromium: &binary, folder: &folder };
    let reference = Reference::new();
    println!("{}, speech of {:.1} s by {}", Chromium::version(&binary), reference.seconds(), reference.made_by);

    let conversation = round::converse(&place, &reference)?;
    tell(&conversation);
    let mut faults = conversation_faults(&conversation);
    println!("with echo cancellation, noise suppression and gain control, and two telephones:");
    let voices = round::gather(&place, &reference)?;
    for voice in &voices {
        let Voice { speaker, listener, level_dbfs, quality } = voice;
        println!("{speaker} → {listener}: {level_dbfs:.1} dBFS, {quality}");
    }
    faults.extend(voices.iter().filter_map(voice_fault));
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    println!("browser and telephones {} each other", if faults.is_empty() { "heard" } else { "did NOT all hear" });
    Ok(i32::from(!faults.is_empty()))
}

fn tell(conversation: &Conversation) {
    let Conversation { up, down, up_delay_ms, concealed_percent, speaking, silent, muted } = conversation;
    println!("browser → telephone: {}, {:.0} ms after the page's microphone, {}", pesq(up), up_delay_ms, up.quality);
    let made_up = concealed_percent.map_or("unknown".to_owned(), |percent| format!("{percent:.2} %"));
    println!("telephone → browser: {}, {:.0} ms, {made_up} made up, {}", pesq(down), down.quality.delay_ms, down.quality);
    println!("the browser sends: {}, silent {}, muted {}", rate(speaking), rate(silent), rate(muted));
}

fn pesq(heard: &Heard) -> String {
    match &heard.perceived {
        Ok(perceived) => format!("PESQ {:.2}", perceived.pesq_nb),
        Err(why) => format!("no PESQ ({why})"),
    }
}

fn rate(rate: &Option<Rate>) -> String {
    match rate {
        Some(rate) => format!("{:.1} packets/s of {:.1} kbit/s", rate.packets_a_second, rate.kbit_a_second),
        None => "nothing".to_owned(),
    }
}

/// What is wrong with a conversation.
fn conversation_faults(conversation: &Conversation) -> Vec<String> {
    let up = heard_fault("browser → telephone", &conversation.up, WORST_UP_PESQ);
    let down = heard_fault("telephone → browser", &conversation.down, WORST_DOWN_PESQ);
    let silence = conversation.speaking.is_none().then(|| "the browser's counters show nothing sent".to_owned());
    up.into_iter().chain(down).chain(silence).collect()
}

fn heard_fault(direction: &str, heard: &Heard, worst_pesq: f64) -> Option<String> {
    let quality = &heard.quality;
    if !quality.is_recognised() {
        return Some(format!("{direction}: nothing was heard of what was said"));
    }
    match &heard.perceived {
        Ok(perceived) if perceived.pesq_nb >= worst_pesq => None,
        Ok(perceived) => Some(format!("{direction}: PESQ {:.2} is below {worst_pesq}", perceived.pesq_nb)),
        Err(_) if quality.missing_frames * 100 <= quality.speech_frames * MOST_MISSING_PERCENT => None,
        Err(_) => {
            Some(format!("{direction}: {} of {} frames missing", quality.missing_frames, quality.speech_frames))
        }
    }
}

fn voice_fault(voice: &Voice) -> Option<String> {
    let is_heard = voice.level_dbfs >= QUIETEST_DBFS;
    (!is_heard).then(|| format!("{} → {}: {:.1} dBFS is no speech", voice.speaker, voice.listener, voice.level_dbfs))
}
