//! `lab demo`: room, registrar, gateway, member and telephone, told as it happens, with a judgement at the end.
//!
//! Owns: the timeline and the verdict. Does not own: the call itself (`trial`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::clock;
use crate::gateway::Gateway;
use crate::member::MemberEventKind;
use crate::program::Signal;
use crate::random::token;
use crate::registrar::{Registrar, RegistrarEvent, RegistrarEventKind};
use crate::room::{GroupConfig, RoomConfig, RoomServer};
use crate::speech::Reference;
use crate::telephone::{Side, What};
use crate::trial::{self, Heard, Progress, TrialSetup};

/// The user part of the gateway's address of record.
const USER: &str = "room";
/// Registering takes two round trips, on this machine and after the program has started.
const REGISTER_PATIENCE: Duration = Duration::from_secs(10);
/// Unregistering takes as many.
const UNREGISTER_PATIENCE: Duration = Duration::from_secs(2);

/// The text for a wrong command line.
pub const USAGE: &str = "\
lab demo --gateway target/release/galene-sip [options] [URL]
  URL                  a group of a real Galene; without it a room is started here
  --password PASSWORD  the group's password, for the member and the gateway
  --insecure           do not check Galene's certificate
  --recordings FOLDER  where the recordings go (default out/demo)
";

struct Options {
    gateway: PathBuf,
    url: Option<String>,
    password: String,
    insecure: bool,
    folder: PathBuf,
}

/// Shows it; the exit code is 0 if speech was heard both ways.
///
/// # Errors
/// One sentence, when an option is wrong or it does not come to speaking.
pub fn run(arguments: &[String]) -> Result<i32, String> {
    let options = parse(arguments)?;
    let timeline = Timeline { start: Instant::now() };
    let reference = Reference::new();
    timeline.say(&format!("speech of {:.1} s by {}", reference.seconds(), reference.made_by));
    let room = match options.url {
        Some(_) => None,
        None => Some(RoomServer::start(RoomConfig::new(vec![GroupConfig::open("demo")]))?),
    };
    let group_url =
        room.as_ref().map_or_else(|| options.url.clone().unwrap_or_default(), |room| room.group_url("demo"));
    timeline.say(&format!("room {} {}", if room.is_some() { "up at" } else { "is" }, without_query(&group_url)));
    let mut flags = Vec::new();
    if !options.password.is_empty() {
        flags.extend(["-password", &options.password]);
    }
    if options.insecure {
        flags.push("-insecure");
    }
    let mut account = RegisteredGateway::start(&options.gateway, &group_url, &flags, &timeline)?;
    let setup = TrialSetup {
        group_url,
        gateway_uri: account.contact.clone(),
        member: "Member".to_owned(),
        caller: "Telephone".to_owned(),
        password: options.password,
        insecure: options.insecure,
        is_encrypted: false,
        folder: options.folder,
    };
    let outcome = trial::run(&setup, &reference, |progress| timeline.tell(&progress))
        .map_err(|why| with_last_lines(&why, &account.gateway))?;
    account.end(&timeline)?;
    let reception = &outcome.telephone.reception;
    println!(
        "\nthe telephone received {} packets, {} lost, longest gap {} ms",
        reception.packets,
        reception.lost,
        reception.longest_gap.as_millis()
    );
    let is_good = [judge("telephone → room", &outcome.up), judge("room → telephone", &outcome.down)] == [true, true];
    println!("\nsaid:                    {}", outcome.said.display());
    println!("heard in the room:       {}", outcome.up.file.display());
    println!("heard on the telephone:  {}", outcome.down.file.display());
    println!("\n{}", if is_good { "speech was heard both ways" } else { "speech was NOT heard both ways" });
    Ok(i32::from(!is_good))
}

/// A gateway that telephones reach by the Contact that it has registered.
struct RegisteredGateway {
    registrar: Registrar,
    gateway: Gateway,
    contact: String,
}

impl RegisteredGateway {
    fn start(binary: &Path, group_url: &str, flags: &[&str], timeline: &Timeline) -> Result<Self, String> {
        let mut registrar = Registrar::start(USER, &token()).map_err(|error| format!("no registrar: {error}"))?;
        timeline.say(&format!("registrar up for {}", registrar.account().address_of_record()));
        let start = Instant::now();
        let gateway = Gateway::start_registering(binary, group_url, registrar.account(), flags)?;
        let contact = registrar
            .wait_registered(REGISTER_PATIENCE, |event| timeline.tell_registrar(event, start))
            .map_err(|why| with_last_lines(&why, &gateway))?;
        timeline.say(&format!("gateway ready at {} ({} KiB resident)", gateway.address(), gateway.resident_kib()));
        Ok(Self { registrar, gateway, contact })
    }

    /// Ends the gateway as a service manager would.
    fn end(&mut self, timeline: &Timeline) -> Result<(), String> {
        let start = Instant::now();
        timeline.say_at(start, "gateway is told to end (SIGTERM)");
        self.gateway.signal(Signal::SIGTERM);
        let event = self
            .registrar
            .wait_unregistered(UNREGISTER_PATIENCE, &self.contact)
            .ok_or_else(|| with_last_lines("the gateway did not unregister", &self.gateway))?;
        timeline.tell_registrar(&event, start);
        let status = self.gateway.wait_exit(UNREGISTER_PATIENCE)?;
        timeline.say(&format!("gateway ended ({status})"));
        Ok(())
    }
}

fn with_last_lines(why: &str, gateway: &Gateway) -> String {
    let lines = gateway.lines();
    format!("{why}\nthe gateway said last:\n  {}", lines[lines.len().saturating_sub(20)..].join("\n  "))
}

/// What people want to know of the registrar's events.
fn registrar_text(kind: &RegistrarEventKind, after_ms: f64) -> String {
    match kind {
        RegistrarEventKind::Challenged => format!("gateway: challenged after {after_ms:.1} ms"),
        RegistrarEventKind::Registered { contact, expires_s } => {
            format!("gateway: registered after {after_ms:.1} ms for {expires_s} s, {contact}")
        }
        RegistrarEventKind::Unregistered { .. } => format!("gateway: unregistered after {after_ms:.1} ms"),
        RegistrarEventKind::Refused { why } => format!("gateway: registration refused, {why}"),
    }
}

/// Prints how one direction went, and tells whether speech was heard.
fn judge(direction: &str, heard: &Heard) -> bool {
    let quality = &heard.quality;
    if !quality.is_recognised() {
        println!("{direction}: nothing was heard of what was said ({quality})");
        return false;
    }
    print!("{direction}: delay {:.1} ms, ", quality.delay_ms);
    match &heard.perceived {
        Ok(perceived) => {
            print!("PESQ {:.2}, ", perceived.pesq_nb);
            if let Some(stoi) = perceived.stoi {
                print!("STOI {stoi:.3}, ");
            }
        }
        Err(why) => print!("no PESQ ({why}), instead: "),
    }
    println!("{quality}");
    true
}

struct Timeline {
    start: Instant,
}

impl Timeline {
    fn say(&self, text: &str) {
        self.say_at(Instant::now(), text);
    }

    fn say_at(&self, at: Instant, text: &str) {
        println!("{:8.3} s  {text}", at.saturating_duration_since(self.start).as_secs_f64());
    }

    fn tell_registrar(&self, event: &RegistrarEvent, since: Instant) {
        let after_ms = event.at.saturating_duration_since(since).as_secs_f64() * 1000.0;
        self.say_at(event.at, &registrar_text(&event.kind, after_ms));
    }

    fn tell(&self, progress: &Progress) {
        let (at, text) = match progress {
            Progress::Telephone(event) => (event.at, telephone_text(&event.what)),
            Progress::Member(event) => (clock::instant(event.at_us), member_text(&event.kind)),
        };
        if let Some(text) = text {
            self.say_at(at, &text);
        }
    }
}

/// What people want to know of a telephone's events.
fn telephone_text(what: &What) -> Option<String> {
    Some(match what {
        What::Invited { target } => format!("telephone calls {target}"),
        What::Trying { .. } => return None,
        What::Ringing { after, .. } => format!("telephone: ringing after {:.1} ms", after.as_secs_f64() * 1000.0),
        What::Answered { after, codec, .. } => {
            format!("telephone: answered after {:.1} ms, {}", after.as_secs_f64() * 1000.0, codec.name())
        }
        What::FirstRtp { after, .. } => {
            format!("telephone: first voice packet after {:.1} ms", after.as_secs_f64() * 1000.0)
        }
        What::Level { dbfs, packets, .. } => {
            format!("telephone hears {dbfs:6.1} dBFS  {packets:3} packets  {}", bar(*dbfs))
        }
        What::Speaking => "telephone speaks".to_owned(),
        What::Changed { .. } | What::ChangeRefused { .. } => return None,
        What::Refused { status, reason, .. } => format!("telephone: refused, {status} {reason}"),
        What::Bye { by: Side::Us, .. } => "telephone hangs up".to_owned(),
        What::Bye { by: Side::Them, .. } => "gateway hangs up".to_owned(),
        What::Failed { why } => format!("telephone: {why}"),
    })
}

/// What people want to know of a member's events.
fn member_text(kind: &MemberEventKind) -> Option<String> {
    Some(match kind {
        MemberEventKind::Joined { username, .. } => format!("member '{username}' is in the room"),
        MemberEventKind::Refused(why) => format!("member: refused, {why}"),
        MemberEventKind::User { kind, username, .. } => format!("room: {kind} user '{username}'"),
        MemberEventKind::UpConnected => "member: own voice connected".to_owned(),
        MemberEventKind::SpeechBegins => "member speaks".to_owned(),
        MemberEventKind::SpeechEnds => "member has spoken".to_owned(),
        MemberEventKind::Connected { username, .. } => format!("room connected: member hears '{username}'"),
        MemberEventKind::Level { username, dbfs, .. } => {
            format!("member hears    {dbfs:6.1} dBFS  of '{username}'  {}", bar(*dbfs))
        }
        MemberEventKind::Disconnected(why) => format!("member: disconnected, {why}"),
        MemberEventKind::Permissions(_)
        | MemberEventKind::UpAborted
        | MemberEventKind::Offered { .. }
        | MemberEventKind::FirstPacket { .. }
        | MemberEventKind::Closed { .. }
        | MemberEventKind::Chat { .. }
        | MemberEventKind::UserMessage { .. } => return None,
    })
}

/// A level to look at: one mark for 3 dB above −66 dBFS.
fn bar(dbfs: f64) -> String {
    "▌".repeat(((dbfs + 66.0) / 3.0).clamp(0.0, 22.0) as usize)
}

/// A URL without what may be a token.
fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(path, _)| path)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        gateway: PathBuf::new(),
        url: None,
        password: String::new(),
        insecure: false,
        folder: "out/demo".into(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().cloned().ok_or_else(|| format!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--gateway" => options.gateway = value()?.into(),
            "--password" => options.password = value()?,
            "--recordings" => options.folder = value()?.into(),
            "--insecure" => options.insecure = true,
            url if url.starts_with("http") && options.url.is_none() => options.url = Some(url.to_owned()),
            other => return Err(format!("'{other}' is not known\n{USAGE}")),
        }
    }
    if options.gateway.as_os_str().is_empty() {
        return Err(format!("--gateway is missing\n{USAGE}"));
    }
    Ok(options)
}
