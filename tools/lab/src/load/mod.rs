//! `lab load`: many telephones in a room of many members, through the real program, and what that costs it.
//!
//! - `run`: one such conference, measured; `usage`: what a process costs, by /proc;
//! - `floor`: what libopus alone would cost; `picture`: cost against participants, as SVG.
//!
//! Owns: the command line, the table. Everything runs on one machine, so the room, the members and the telephones take their
//! share of it, which is told too: where both together come near the machine's cores, late ticks are the machine's.

mod floor;
mod picture;
mod run;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use crate::options::Options;
use crate::speech::Reference;
use floor::Floor;
use run::{Conference, Figures};
pub(crate) use run::{MixLine, start_gateway};
pub(crate) use usage::kib;

/// The text for a wrong command line.
pub const USAGE: &str = "\
lab load --gateway target/release/galene-sip [options]
  --calls N                telephones (default 4)
  --members M              members of the room who publish (default 8)
  --speaking K             of these speak (default 1); the others send a quiet noise
  --telephones-speaking T  of the telephones speak (default 0); the others send silence
  --seconds S              how long it is measured (default 10)
  --quality                then one more call is judged while all that goes on (its way down only if nobody else speaks)
  --sweep FILE.svg         instead: 1 to 48 telephones who all speak among as many members, of whom two do, as a picture
";

/// The telephones and members of a sweep: as many of the one as of the other.
const SWEEP: [usize; 7] = [1, 4, 8, 16, 24, 32, 48];
/// Members who speak in a sweep.
const SWEEP_SPEAKING: usize = 2;

/// Measures and prints; the exit code is 0 if no tick was lost.
///
/// # Errors
/// One sentence, when an option is wrong or the conference does not come about.
pub fn run(arguments: &[String]) -> Result<i32, String> {
    let mut options = Options::new(arguments);
    let gateway: PathBuf = options.value("--gateway")?.ok_or_else(|| format!("--gateway is missing\n{USAGE}"))?;
    let sweep: Option<PathBuf> = options.value("--sweep")?;
    let conference = Conference {
        gateway,
        calls: options.value("--calls")?.unwrap_or(4),
        members: options.value("--members")?.unwrap_or(8),
        members_speaking: options.value("--speaking")?.unwrap_or(1),
        telephones_speaking: options.value("--telephones-speaking")?.unwrap_or(0),
        length: options.seconds("--seconds")?.unwrap_or(Duration::from_secs(10)),
        quality: options.switch("--quality"),
    };
    if let Some(unknown) = options.rest()?.first() {
        return Err(format!("'{unknown}' is not known\n{USAGE}"));
    }
    let reference = Reference::new();
    let floor = Floor::measure(&reference)?;
    let Some(file) = sweep else {
        let figures = conference.run(&reference)?;
        print(&conference, &figures, floor.percent(conference.telephones_speaking, conference.members_speaking));
        return Ok(i32::from(figures.mix.late > 0));
    };
    let mut points = Vec::new();
    println!("telephones = members     gateway    libopus alone    late ticks    resident");
    for count in SWEEP {
        let conference = Conference {
            calls: count,
            members: count,
            members_speaking: SWEEP_SPEAKING.min(count),
            telephones_speaking: count,
            quality: false,
            ..conference.clone()
        };
        let figures = conference.run(&reference)?;
        let floor = floor.percent(count, conference.members_speaking);
        println!(
            "{count:>20} {:>10.2} % {floor:>14.2} % {:>13} {:>8.1} MB",
            figures.gateway.percent(),
            figures.mix.late,
            megabytes(figures.resident_kib)
        );
        points.push(picture::Point { participants: 2 * count, gateway: figures.gateway.percent(), floor });
    }
    std::fs::write(&file, picture::svg(&points)).map_err(|error| format!("{}: {error}", file.display()))?;
    println!("picture: {}", file.display());
    Ok(0)
}

fn print(conference: &Conference, figures: &Figures, floor: f64) {
    let Conference { calls, members, members_speaking, telephones_speaking, length, .. } = conference;
    println!(
        "{calls} telephones ({telephones_speaking} speak), {members} members ({members_speaking} speak), {:.0} s",
        length.as_secs_f64()
    );
    println!("gateway:   {:.2} % of a core; the speakers' libopus calls alone {floor:.2} %", figures.gateway.percent());
    for (thread, percent) in figures.gateway.threads() {
        println!("           {percent:.2} % {thread}");
    }
    println!("generator: {:.0} % of a core (room, members, telephones)", figures.laboratory.percent());
    println!(
        "memory:    {:.1} MB resident ({:.1} MB of them its own), {:.1} MB before the first call",
        megabytes(figures.resident_kib),
        megabytes(figures.own_kib),
        megabytes(figures.idle_kib)
    );
    let mix = &figures.mix;
    println!(
        "ticks:     {}, late {}; one takes {} us (median), {} (99 of 100), {} at most; begun at most {} us late",
        mix.ticks, mix.late, mix.p50_us, mix.p99_us, mix.max_us, mix.latest_begin_us
    );
    println!("answered:  after {:.0} ms at most", figures.slowest_answer.as_secs_f64() * 1000.0);
    if let Some(outcome) = &figures.sample {
        let is_quiet = members_speaking + telephones_speaking == 0;
        let down = is_quiet.then_some(("down", &outcome.down));
        for (direction, heard) in std::iter::once(("up", &outcome.up)).chain(down) {
            let delay_ms = heard.quality.delay_ms;
            match &heard.perceived {
                Ok(perceived) => {
                    println!("one call:  {direction}: delay {delay_ms:.1} ms, PESQ {:.2}", perceived.pesq_nb)
                }
                Err(why) => {
                    println!("one call:  {direction}: delay {delay_ms:.1} ms, {}, no PESQ ({why})", heard.quality)
                }
            }
        }
    }
}

fn megabytes(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}
