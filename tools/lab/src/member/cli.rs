//! `lab member`: members of a room from the command line, their events as JSON lines on standard output.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Census, Crowd, MemberConfig, MemberEventKind, Speech};
use crate::clock;
use crate::options::Options;
use crate::opus::RATE_HZ;
use crate::pcm::Pcm;

/// The text of `lab member --help`.
pub const USAGE: &str = "\
lab member URL [options]
  --name NAME            the name in the room (default: member)
  --password PASSWORD    the password
  --insecure             connect to https without looking at the certificate
  --count N              so many members, numbered (default: 1)
  --speakers N           so many of them speak, the others send a quiet noise (default: all)
  --speak FILE.wav       what is said; silence without it
  --tone HZ              a tone is said
  --speak-after SECONDS  from the connection of the stream on (default: 0.5)
  --repeat               say it again and again
  --mute                 publish nothing
  --deaf                 listen to nothing
  --record FOLDER        write what the first member hears, a WAV file a stream, all from the same moment on
  --levels SECONDS       tell the levels of what is heard so often
  --media-address A      the address of media (default: that of the connection to the server)
  --trickle              tell candidates by messages of their own alone
  --seconds N            leave after so long (default: 10)
";

struct Run {
    config: MemberConfig,
    count: usize,
    record: Option<PathBuf>,
    length: Duration,
}

/// Joins, speaks, listens and leaves; the exit code is 0 if all came in.
///
/// # Errors
///
/// One sentence, when an option is wrong or a file cannot be read or written.
pub fn run(arguments: &[String]) -> Result<i32, String> {
    let mut options = Options::new(arguments);
    if options.switch("--help") {
        print!("{USAGE}");
        return Ok(0);
    }
    let Run { config, count, record, length } = parse(options)?;
    let from_us = clock::now_us();
    say(&serde_json::json!({"event": "recording-begins", "at_us": from_us}).to_string());
    let mut crowd = Crowd::join(config, count)?;
    let deadline = Instant::now() + length;
    let (mut joined, mut ended) = (0, 0);
    while Instant::now() < deadline && ended < count {
        let Some(event) = crowd.events.next(Duration::from_millis(100)) else { continue };
        match event.kind {
            MemberEventKind::Joined { .. } => joined += 1,
            MemberEventKind::Disconnected(_) => ended += 1,
            _ => {}
        }
        say(&event.to_json());
        crowd.events.forget_seen();
    }
    for recording in crowd.recordings(0) {
        let (figures, census) = (recording.statistics(), Census::of(&recording));
        let mut line = serde_json::json!({
            "event": "heard", "stream": recording.stream, "username": recording.username,
            "packets": figures.packets, "lost": figures.lost,
            "longest_gap_us": figures.longest_gap_us, "jitter_us": figures.jitter_us,
            "silk": census.silk, "hybrid": census.hybrid, "celt": census.celt, "stereo": census.stereo,
            "voiced": census.voiced, "pauses": census.pauses, "gaps": census.gaps,
            "shortest": census.bytes.0, "longest": census.bytes.1, "bits_per_second": census.bits_per_second.round(),
        });
        if let Some(folder) = &record {
            line["file"] = serde_json::json!(recording.write(folder, from_us)?);
        }
        say(&line.to_string());
    }
    Ok(i32::from(joined < count))
}

fn say(line: &str) {
    // Whoever closed the pipe wants no more lines; the members stay.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn parse(mut options: Options) -> Result<Run, String> {
    let mut config = MemberConfig::new("", "member");
    config.username = options.value("--name")?.unwrap_or(config.username);
    config.password = options.value("--password")?.unwrap_or_default();
    config.insecure = options.switch("--insecure");
    config.speakers = options.value("--speakers")?.unwrap_or(config.speakers);
    config.speak_after = options.seconds("--speak-after")?.unwrap_or(config.speak_after);
    config.listen = !options.switch("--deaf");
    config.levels_every = options.seconds("--levels")?;
    config.media_address = options.value("--media-address")?;
    config.trickle = options.switch("--trickle");
    let sound = match (options.value::<PathBuf>("--speak")?, options.value::<f64>("--tone")?) {
        (Some(path), _) => Some(Pcm::read_wav(&path)?),
        (None, Some(frequency_hz)) => Some(Pcm::tone(RATE_HZ, 10.0, frequency_hz, -20.0)),
        (None, None) => None,
    };
    let looped = options.switch("--repeat");
    config.speech = match sound {
        _ if options.switch("--mute") => None,
        Some(sound) if looped => Some(Speech::looped(sound)),
        Some(sound) => Some(Speech::once(sound)),
        None => Some(Speech::silence()),
    };
    let count = options.value("--count")?.unwrap_or(1);
    let record = options.value("--record")?;
    let length = options.seconds("--seconds")?.unwrap_or(Duration::from_secs(10));
    let mut rest = options.rest()?.into_iter();
    match (rest.next(), rest.next()) {
        (Some(url), None) => config.url = url,
        (None, _) => return Err("the group's URL is missing".to_owned()),
        (Some(_), Some(surplus)) => return Err(format!("{surplus}: one URL is enough")),
    }
    Ok(Run { config, count, record, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Run, String> {
        parse(Options::new(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()))
    }

    #[test]
    fn options_shape_the_member() {
        let run = parse_line("http://h/group/x/?token=t --tone 440 --repeat --count 3 --speakers 1 --deaf").unwrap();
        assert_eq!((run.count, run.config.speakers, run.config.listen), (3, 1, false));
        assert!(run.config.speech.is_some_and(|speech| speech.looped));
        assert!(parse_line("http://h/ --mute").unwrap().config.speech.is_none());
    }

    #[test]
    fn a_wrong_option_is_named() {
        let words = |line| parse_line(line).err().unwrap();
        assert_eq!(words("--mute"), "the group's URL is missing");
        assert_eq!(words("http://a http://b"), "http://b: one URL is enough");
        assert!(words("http://a --speak /nowhere.wav").starts_with("/nowhere.wav: "));
    }
}
