//! `lab telephone`: one call from the command line, its events as JSON lines on standard output.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Codec, Direction, RATE_HZ, Telephone, TelephoneSetup, What};
use crate::pcm::Pcm;

/// The text of `lab telephone -help`.
pub const USAGE: &str = "\
lab telephone sip:6002@HOST[:PORT] [options]
  --from 'NAME <sip:NUMBER@HOST>'  who calls
  --speak FILE.wav                 what is said (any rate, 16 bits); silence without it
  --speak-after SECONDS            from the answer on (default 0)
  --repeat                         say it again and again
  --record FILE.wav                what is heard, from the INVITE on
  --seconds N                      hang up N seconds after the answer (default 10)
  --codec pcmu|pcma                the only codec offered (default: both)
  --ptime MS                       packet length, 10 to 60 (default 20)
  --late-offer                     an INVITE without SDP; the answer goes into the ACK
  --claim ADDRESS                  the address to write into c=, right or wrong
  --hold-after SECONDS             hold for two seconds, then resume
";

struct Options {
    setup: TelephoneSetup,
    speak: Option<PathBuf>,
    speak_after: Duration,
    repeats: bool,
    record: Option<PathBuf>,
    length: Duration,
    hold_after: Option<Duration>,
}

/// Makes the call; the exit code is 0 if it was answered.
///
/// # Errors
/// One sentence, when an option is wrong or a file or socket cannot be had.
pub fn run(arguments: &[String]) -> Result<i32, String> {
    let options = parse(arguments)?;
    let speech: Option<Arc<[i16]>> = match &options.speak {
        Some(path) => Some(Pcm::read_wav(path)?.resampled(RATE_HZ).samples.into()),
        None => None,
    };
    let start = Instant::now();
    let telephone = Telephone::call(options.setup).map_err(|error| error.to_string())?;
    // Times after the answer at which something is done, in order of time.
    let mut plan = vec![(options.length, Step::HangUp)];
    plan.extend(speech.map(|samples| (options.speak_after, Step::Speak(samples))));
    for (after, direction) in [(0, Direction::SendOnly), (2, Direction::SendRecv)] {
        plan.extend(options.hold_after.map(|at| (at + Duration::from_secs(after), Step::Direct(direction))));
    }
    plan.sort_by_key(|(after, _)| *after);
    let mut plan = plan.into_iter().peekable();
    let mut answered_at = None;
    loop {
        while let Some((_, step)) =
            plan.next_if(|(after, _)| answered_at.is_some_and(|at: Instant| at.elapsed() >= *after))
        {
            match step {
                Step::Speak(samples) => telephone.speak(samples, options.repeats),
                Step::Direct(direction) => telephone.set_direction(direction),
                Step::HangUp => telephone.hang_up(),
            }
        }
        let Some(event) = telephone.next_event(Duration::from_millis(20)) else {
            if telephone.is_over() {
                break;
            }
            continue;
        };
        if matches!(event.what, What::Answered { .. }) {
            answered_at = Some(event.at);
        }
        // Whoever closed the pipe wants no more lines; the call still ends as planned.
        let _ = writeln!(std::io::stdout(), "{}", event.to_json(start));
    }
    let report = telephone.finish();
    if let Some(path) = &options.record {
        report.recording.write_wav(path, report.invited_at)?;
    }
    Ok(i32::from(report.answered_after.is_none()))
}

enum Step {
    Speak(Arc<[i16]>),
    Direct(Direction),
    HangUp,
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        setup: TelephoneSetup::new(""),
        speak: None,
        speak_after: Duration::ZERO,
        repeats: false,
        record: None,
        length: Duration::from_secs(10),
        hold_after: None,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().cloned().ok_or_else(|| format!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--from" => options.setup.from = value()?,
            "--speak" => options.speak = Some(value()?.into()),
            "--speak-after" => options.speak_after = seconds(argument, &value()?)?,
            "--repeat" => options.repeats = true,
            "--record" => options.record = Some(value()?.into()),
            "--seconds" => options.length = seconds(argument, &value()?)?,
            "--hold-after" => options.hold_after = Some(seconds(argument, &value()?)?),
            "--late-offer" => options.setup.offers = false,
            "--claim" => {
                let text = value()?;
                let address = text.parse().map_err(|_| format!("--claim takes an IP address, not '{text}'"))?;
                options.setup.claimed_address = Some(address);
            }
            "--ptime" => {
                let text = value()?;
                options.setup.ptime_ms = text
                    .parse()
                    .ok()
                    .filter(|ms| (10..=60).contains(ms))
                    .ok_or_else(|| format!("--ptime takes 10 to 60 ms, not '{text}'"))?;
            }
            "--codec" => {
                options.setup.codecs = match value()?.as_str() {
                    "pcmu" => vec![Codec::Pcmu],
                    "pcma" => vec![Codec::Pcma],
                    other => return Err(format!("--codec takes pcmu or pcma, not '{other}'")),
                }
            }
            target if target.starts_with("sip:") => options.setup.target = target.to_owned(),
            other => return Err(format!("'{other}' is not known\n{USAGE}")),
        }
    }
    if options.setup.target.is_empty() {
        return Err(format!("whom to call is missing\n{USAGE}"));
    }
    Ok(options)
}

fn seconds(option: &str, text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{option} takes seconds, not '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_option_is_named() {
        let parsed = |line: &str| parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).map(|_| ());
        assert!(parsed("sip:1@127.0.0.1 --codec pcma --ptime 30 --seconds 1.5 --late-offer").is_ok());
        assert!(parsed("sip:1@127.0.0.1 --ptime 5").unwrap_err().contains("--ptime"));
        assert!(parsed("sip:1@127.0.0.1 --seconds -1").unwrap_err().contains("--seconds"));
        assert!(parsed("--seconds 1").unwrap_err().contains("whom to call"));
        assert!(parsed("sip:1@127.0.0.1 --record").unwrap_err().contains("--record"));
    }
}
