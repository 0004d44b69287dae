//! `lab soak`: calls that come and go for hours while things go wrong, and whether the gateway grows.
//!
//! - `churn`: who calls when, and what goes wrong; `samples`: what was seen, and what it says; `picture`: that as SVG.
//!
//! Owns: the command line, the run, the verdict. A run appends its samples to those of former ones, so that hours may be
//! had in pieces.

mod churn;
mod picture;
mod samples;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::Gateway;
use crate::load::{MixLine, kib};
use crate::options::Options;
use crate::room::{GroupConfig, RoomConfig, RoomServer};
use churn::Churn;
use samples::{Sample, Verdict};

/// The text for a wrong command line.
pub const USAGE: &str = "\
lab soak --gateway target/release/galene-sip --folder target/soak [options]
  --calls N      telephones at once (default 44: 70 % of the 64 that one gateway takes)
  --members M    members of the room who publish, one of whom speaks (default 4)
  --seconds S    how long (default 7200)
  --seed N       of who calls when and what goes wrong (default 1)
";

/// The group of the soak.
const GROUP: &str = "soak";
/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Between two turns of the loop.
const TURN: Duration = Duration::from_millis(20);
/// The gateway remembers a call for 32 s after its end (RFC 3261 §17.2.2), and its ports rest.
const LINGER: Duration = Duration::from_secs(36);

/// Soaks, and says how it went; the exit code is 0 if nothing failed and nothing grew.
///
/// # Errors
/// One sentence, when an option is wrong or the soak does not come about.
pub fn run(arguments: &[String]) -> Result<i32, String> {
    let mut options = Options::new(arguments);
    let binary: PathBuf = options.value("--gateway")?.ok_or_else(|| format!("--gateway is missing\n{USAGE}"))?;
    let folder: PathBuf = options.value("--folder")?.ok_or_else(|| format!("--folder is missing\n{USAGE}"))?;
    let calls = options.value("--calls")?.unwrap_or(44);
    let members = options.value("--members")?.unwrap_or(4);
    let length = options.seconds("--seconds")?.unwrap_or(Duration::from_secs(7200));
    let seed = options.value("--seed")?.unwrap_or(1);
    if let Some(unknown) = options.rest()?.first() {
        return Err(format!("'{unknown}' is not known\n{USAGE}"));
    }
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (samples, picture) = (folder.join("samples.csv"), folder.join("soak.svg"));
    let former = Sample::read_all(&samples)?;
    let session = former.last().map_or(1, |sample| sample.session + 1);

    let room = RoomServer::start(RoomConfig::new(vec![GroupConfig::open(GROUP)]))?;
    let mut gateway = crate::load::start_gateway(&binary, &room.group_url(GROUP))?;
    let mut churn = Churn::new(&room, &gateway, calls, members, seed)?;
    // One call that warms everything up, and what is there then.
    churn.warm_up()?;
    thread::sleep(LINGER);
    let idle = (gateway.open_files(), gateway.threads());
    println!(
        "session {session}: {calls} telephones for {:.0} s; idle: {idle:?} descriptors and threads",
        length.as_secs_f64()
    );

    let mut file = OpenOptions::new().create(true).append(true).open(&samples).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let (mut next_sample, mut late) = (started + SAMPLE_EVERY, 0);
    while started.elapsed() < length {
        churn.turn(&gateway);
        if Instant::now() >= next_sample {
            next_sample += SAMPLE_EVERY;
            late += MixLine::ask(&mut gateway)?.late;
            let sample = sample(session, started, &gateway, &mut churn, late);
            writeln!(file, "{sample}").map_err(|error| error.to_string())?;
            println!("{sample}");
        }
        if !gateway.is_running() {
            return Err(format!("the gateway has ended: {}", gateway.lines().join("\n")));
        }
        thread::sleep(TURN);
    }
    churn.end_all();
    thread::sleep(LINGER);
    let at_the_end = (gateway.open_files(), gateway.threads());

    let all = Sample::read_all(&samples)?;
    std::fs::write(&picture, picture::svg(&all)).map_err(|error| format!("{}: {error}", picture.display()))?;
    let verdict = Verdict::of(&all, churn.failures(), idle, at_the_end);
    let report = folder.join("report.txt");
    let mut file = OpenOptions::new().create(true).append(true).open(&report).map_err(|error| error.to_string())?;
    writeln!(file, "session {session}: {verdict}").map_err(|error| error.to_string())?;
    println!("{verdict}\nsamples: {}\npicture: {}\nreport: {}", samples.display(), picture.display(), report.display());
    Ok(i32::from(!verdict.is_well()))
}

fn sample(session: u32, started: Instant, gateway: &Gateway, churn: &mut Churn<'_>, late: u64) -> Sample {
    Sample {
        session,
        seconds: started.elapsed().as_secs(),
        calls: churn.calls(),
        placed: churn.placed(),
        failed: churn.failures().len(),
        resident_kib: kib(&gateway.id().to_string(), "VmRSS"),
        descriptors: gateway.open_files(),
        threads: gateway.threads(),
        late_ticks: late,
        mos: churn.take_mos(gateway),
    }
}
