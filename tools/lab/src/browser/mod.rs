//! `lab browser`: a real Chromium and telephones in one room, each heard by the others, with a judgement at the end.
//!
//! Owns: what is good enough. The browser shows a page of our own (`member.js`), a client of Galene's protocol; `page` serves it
//! and takes its reports (`report`), `chromium` starts the browser, `round` tells who speaks when.

mod chromium;
mod page;
mod report;
mod round;

use std::path::{Path, PathBuf};

use crate::gateway::Gateway;
use crate::options::Options;
use crate::quality::Quality;
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
const WORST_UP_PESQ: f64 = 3.5;
const WORST_DOWN_PESQ: f64 = 3.5;
/// Without PESQ: frames of speech that may be missing, in percent.
const MOST_MISSING_PERCENT: usize = 5;
/// The same where the browser suppresses noise, and may take some of the speech along.
const MOST_SUPPRESSED_PERCENT: usize = 50;
/// Speech has −26 dBFS when it is said, and a browser may make it louder or quieter; between that and this lies no noise.
const QUIETEST_DBFS: f64 = -45.0;

/// Lets them hear each other; the exit code is 0 if they did, 1 if not, and 77 without Chromium.
///
/// # Errors
/// In words, when an option is wrong.
pub fn run(arguments: &[String]) -> Result<i32, String> {
    let mut options = Options::new(arguments);
    let gateway: PathBuf = options.value("--gateway")?.ok_or_else(|| format!("--gateway is missing\n{USAGE}"))?;
    let folder: PathBuf = options.value("--recordings")?.unwrap_or_else(|| "out/browser".into());
    if let Some(surplus) = options.rest()?.first() {
        return Err(format!("'{surplus}' is not known\n{USAGE}"));
    }
    let Some(chromium) = Chromium::find() else {
        eprintln!("skipped: needs Chromium (apt-get install chromium)");
        return Ok(SKIPPED);
    };
    let faults = both_rounds(&gateway, &chromium, &folder).unwrap_or_else(|why| vec![why]);
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    println!("browser and telephones {} each other", if faults.is_empty() { "heard" } else { "did NOT all hear" });
    Ok(i32::from(!faults.is_empty()))
}

/// What was wrong.
fn both_rounds(gateway: &Path, chromium: &Path, folder: &Path) -> Result<Vec<String>, String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let room = RoomServer::start(RoomConfig::new(vec![GroupConfig::open(GROUP)]))?;
    let gateway = Gateway::start(gateway, &room.group_url(GROUP), &[])?;
    let place = Place { room: &room, gateway: &gateway, chromium, folder };
    let reference = Reference::new();
    println!("{}, speech of {:.1} s by {}", Chromium::version(chromium), reference.seconds(), reference.made_by);

    let conversation = round::converse(&place, &reference)?;
    tell(&conversation);
    let mut faults = conversation_faults(&conversation);
    println!("with echo cancellation, noise suppression and gain control, and two telephones:");
    let voices = round::gather(&place, &reference)?;
    for Voice { speaker, listener, level_dbfs, quality } in &voices {
        let Quality { gain_db, missing_frames, speech_frames, .. } = quality;
        println!(
            "{speaker} → {listener}: {level_dbfs:.1} dBFS ({gain_db:+.1} dB), {missing_frames} of {speech_frames} frames of \
             speech missing"
        );
    }
    faults.extend(voices.iter().filter_map(voice_fault));
    Ok(faults)
}

fn tell(conversation: &Conversation) {
    let Conversation { up, down, concealed_percent, speaking, silent, muted } = conversation;
    println!("browser → telephone: {}, {}", pesq(up), up.quality);
    let made_up = concealed_percent.map_or("unknown".to_owned(), |percent| format!("{percent:.2} %"));
    println!(
        "telephone → browser: {}, {:.0} ms, {made_up} made up, {}",
        pesq(down),
        down.quality.delay_ms,
        down.quality
    );
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
        Some(rate) => format!("{:.1} packets/s ({:.1} kbit/s)", rate.packets_a_second, rate.kbit_a_second),
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

/// What is wrong with one direction. Likeness is not asked for: a browser changes the pace of speech to fill or empty its jitter
/// buffer, and speech that was moved by some milliseconds in its midst is unlike itself to all but those who listen.
fn heard_fault(direction: &str, heard: &Heard, worst_pesq: f64) -> Option<String> {
    match &heard.perceived {
        Ok(perceived) if perceived.pesq_nb >= worst_pesq => None,
        Ok(perceived) => Some(format!("{direction}: PESQ {:.2} is below {worst_pesq}", perceived.pesq_nb)),
        Err(_) => missing_fault(direction, &heard.quality, MOST_MISSING_PERCENT),
    }
}

/// What is wrong with a voice that need only be heard.
fn voice_fault(voice: &Voice) -> Option<String> {
    let direction = format!("{} → {}", voice.speaker, voice.listener);
    if voice.level_dbfs < QUIETEST_DBFS {
        return Some(format!("{direction}: {:.1} dBFS is no speech", voice.level_dbfs));
    }
    missing_fault(&direction, &voice.quality, MOST_SUPPRESSED_PERCENT)
}

fn missing_fault(direction: &str, quality: &Quality, most_percent: usize) -> Option<String> {
    let Quality { missing_frames, speech_frames, .. } = *quality;
    let is_heard = speech_frames > 0 && missing_frames * 100 <= speech_frames * most_percent;
    (!is_heard).then(|| format!("{direction}: {missing_frames} of {speech_frames} frames of speech are missing"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::Perceived;

    fn quality(missing_frames: usize) -> Quality {
        Quality {
            delay_ms: 0.0,
            correlation: 0.2,
            gain_db: 0.0,
            speech_frames: 100,
            missing_frames,
            segmental_snr_db: 0.0,
        }
    }

    fn heard(pesq: Option<f64>, missing_frames: usize) -> Heard {
        let perceived = pesq.map(|pesq_nb| Perceived { pesq_nb, pesq_wb: None, stoi: None });
        let perceived = perceived.ok_or_else(|| "no Python".to_owned());
        Heard { file: PathBuf::new(), quality: quality(missing_frames), perceived }
    }

    #[test]
    fn a_direction_is_judged_by_pesq_and_without_it_by_what_is_missing() {
        assert_eq!(heard_fault("up", &heard(Some(4.0), 90), 3.5), None);
        assert_eq!(heard_fault("up", &heard(Some(1.2), 0), 3.5).as_deref(), Some("up: PESQ 1.20 is below 3.5"));
        assert_eq!(heard_fault("up", &heard(None, 5), 3.5), None);
        let missing = heard_fault("up", &heard(None, 6), 3.5);
        assert_eq!(missing.as_deref(), Some("up: 6 of 100 frames of speech are missing"));
    }

    #[test]
    fn a_voice_is_heard_if_it_is_loud_and_mostly_there() {
        let voice = |level_dbfs, missing| {
            voice_fault(&Voice { speaker: "Ada", listener: "Bob", level_dbfs, quality: quality(missing) })
        };
        assert_eq!(voice(-30.0, 10), None);
        assert!(voice(-60.0, 0).is_some_and(|why| why == "Ada → Bob: -60.0 dBFS is no speech"));
        assert!(voice(-30.0, 60).is_some());
        let unheard = Voice { speaker: "Ada", listener: "Bob", level_dbfs: -30.0, quality: quality(0) };
        assert!(voice_fault(&Voice { quality: Quality { speech_frames: 0, ..quality(0) }, ..unheard }).is_some());
    }

    #[test]
    fn nothing_sent_is_a_fault_of_its_own() {
        let mut conversation = Conversation {
            up: heard(Some(4.2), 0),
            down: heard(Some(4.2), 0),
            concealed_percent: None,
            speaking: Some(Rate { packets_a_second: 50.0, kbit_a_second: 31.0 }),
            silent: None,
            muted: None,
        };
        assert_eq!(conversation_faults(&conversation), Vec::<String>::new());
        conversation.speaking = None;
        conversation.down = heard(Some(1.0), 0);
        assert_eq!(conversation_faults(&conversation).len(), 2);
    }

    #[test]
    fn a_wrong_command_line_is_refused_in_words() {
        assert!(run(&[]).is_err_and(|why| why.starts_with("--gateway is missing")));
        let surplus = ["--gateway", "x", "y"].map(str::to_owned);
        assert!(run(&surplus).is_err_and(|why| why.starts_with("'y' is not known")));
    }
}
