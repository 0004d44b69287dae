//! One call in which a member of the room and a telephone say the same to each other, judged.
//!
//! Owns: the order of things (join, call, wait until both can hear, speak, measure). Does not own: the room server and
//! the gateway, which are there already; printing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::clock;
use crate::member::{Crowd, MemberCommand, MemberConfig, MemberEvent, MemberEventKind, Speech};
use crate::pcm::Pcm;
use crate::quality::{self, Perceived, Quality};
use crate::speech::{REFERENCE_RATE_HZ, Reference};
use crate::telephone::{Event, RATE_HZ, Report, Telephone, TelephoneSetup, What};

/// Longer than any step takes that works, a slow real server included.
const PATIENCE: Duration = Duration::from_secs(15);
/// From the moment when both are connected until they speak: jitter buffers have settled by then.
const SETTLING: Duration = Duration::from_millis(800);
/// What is still under way when the last word was said.
const TAIL: Duration = Duration::from_millis(500);
/// How often both sides are looked at.
const TICK: Duration = Duration::from_millis(20);

/// Who calls whom.
#[derive(Debug, Clone)]
pub struct TrialSetup {
    /// The group's URL.
    pub group_url: String,
    /// The gateway's SIP URI.
    pub gateway_uri: String,
    /// The member's name in the room.
    pub member: String,
    /// The telephone's display name.
    pub caller: String,
    /// The group's password, empty for none.
    pub password: String,
    /// Whether the member takes any certificate.
    pub insecure: bool,
    /// Whether the telephone offers SRTP, and nothing else.
    pub is_encrypted: bool,
    /// Where the recordings go.
    pub folder: PathBuf,
}

/// What a trial tells while it runs.
#[derive(Debug, Clone)]
pub enum Progress {
    /// The telephone.
    Telephone(Event),
    /// The member.
    Member(MemberEvent),
}

/// How one direction went.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The recording, beginning when the speech began.
    pub file: PathBuf,
    /// By the built-in measure.
    pub quality: Quality,
    /// PESQ and STOI, or why there are none.
    pub perceived: Result<Perceived, String>,
}

/// How the call went.
#[derive(Debug)]
pub struct Outcome {
    /// What both said.
    pub said: PathBuf,
    /// From the telephone to the room.
    pub up: Heard,
    /// From the room to the telephone.
    pub down: Heard,
    /// The telephone's own account.
    pub telephone: Report,
}

/// Joins, calls, speaks and measures.
///
/// # Errors
/// In words, when it does not come to speaking.
pub fn run(setup: &TrialSetup, reference: &Reference, tell: impl FnMut(Progress)) -> Result<Outcome, String> {
    run_settled(setup, reference, SETTLING, tell)
}

/// The same, where it takes so long until the room is at rest: a member who enters a large one has many streams to connect.
///
/// # Errors
/// As [`run`].
pub fn run_settled(
    setup: &TrialSetup,
    reference: &Reference,
    settling: Duration,
    mut tell: impl FnMut(Progress),
) -> Result<Outcome, String> {
    std::fs::create_dir_all(&setup.folder).map_err(|error| format!("{}: {error}", setup.folder.display()))?;
    let said = reference.at(RATE_HZ);
    let said_file = setup.folder.join("said.wav");
    Pcm { rate_hz: RATE_HZ, samples: said.clone() }.write_wav(&said_file)?;

    let mut member = join(setup, reference)?;
    wait_member(&mut member, None, &mut tell, "the member's stream is connected", |kind| {
        *kind == MemberEventKind::UpConnected
    })?;
    let from = format!("\"{}\" <sip:100@127.0.0.1>", setup.caller);
    let telephone = TelephoneSetup { is_encrypted: setup.is_encrypted, ..TelephoneSetup::new(&setup.gateway_uri) };
    let telephone = Telephone::call(telephone.from(&from)).map_err(|error| error.to_string())?;
    wait_for_telephone(&telephone, &mut tell)?;
    wait_member(
        &mut member,
        Some(&telephone),
        &mut tell,
        "the room carries the caller's voice",
        |kind| matches!(kind, MemberEventKind::Connected { username, .. } if username.starts_with(&setup.caller)),
    )?;
    watch(&mut member, &telephone, &mut tell, settling);

    member.command(0, MemberCommand::Speak { at_us: clock::now_us() });
    telephone.speak(said.clone().into(), false);
    let length = Duration::from_secs_f64(reference.seconds()) + TAIL;
    watch(&mut member, &telephone, &mut tell, length);

    let began = member.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::SpeechBegins);
    let member_spoke_us = began.ok_or("the member never spoke")?.at_us;
    let recordings = member.recordings(0);
    let mut rest = Vec::new();
    let report = telephone.finish_telling(|event| rest.push(event));
    rest.into_iter().for_each(|event| tell(Progress::Telephone(event)));
    let telephone_spoke = report.speaking_since.ok_or("the call ended before the telephone spoke")?;

    let is_caller = |name: &str| name.starts_with(&setup.caller);
    let recording = recordings.iter().rfind(|recording| is_caller(&recording.username));
    let up =
        recording.map(|recording| recording.sound(clock::at(telephone_spoke))).unwrap_or_default().resampled(RATE_HZ);
    let down = report.recording.render(clock::instant(member_spoke_us));
    let up = judge(&said, up.samples, &said_file, setup.folder.join("heard-in-the-room.wav"))?;
    let down = judge(&said, down, &said_file, setup.folder.join("heard-on-the-telephone.wav"))?;
    Ok(Outcome { said: said_file, up, down, telephone: report })
}

fn join(setup: &TrialSetup, reference: &Reference) -> Result<Crowd, String> {
    let sound = Pcm { rate_hz: REFERENCE_RATE_HZ, samples: reference.at(REFERENCE_RATE_HZ) };
    let config = MemberConfig {
        password: setup.password.clone(),
        insecure: setup.insecure,
        speech: Some(Speech::once(sound)),
        // It speaks when it is told to.
        speak_after: Duration::from_secs(86_400),
        levels_every: Some(Duration::from_secs(1)),
        ..MemberConfig::new(&setup.group_url, &setup.member)
    };
    Crowd::one(config)
}

fn wait_member(
    member: &mut Crowd,
    telephone: Option<&Telephone>,
    tell: &mut impl FnMut(Progress),
    what: &str,
    is_wanted: impl Fn(&MemberEventKind) -> bool,
) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        while let Some(event) = telephone.and_then(|telephone| telephone.next_event(Duration::ZERO)) {
            tell(Progress::Telephone(event));
        }
        if Instant::now() > until {
            return Err(format!("not within {PATIENCE:?}: {what}"));
        }
        let Some(event) = member.events.next(TICK) else { continue };
        tell(Progress::Member(event.clone()));
        if is_wanted(&event.kind) {
            return Ok(());
        }
        if let MemberEventKind::Refused(why) | MemberEventKind::Disconnected(why) = event.kind {
            return Err(format!("the member is not in the room: {why}"));
        }
    }
}

fn wait_for_telephone(telephone: &Telephone, tell: &mut impl FnMut(Progress)) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let event =
            telephone.next_event(left).ok_or_else(|| format!("the call was not answered within {PATIENCE:?}"))?;
        tell(Progress::Telephone(event.clone()));
        match event.what {
            What::Answered { .. } => return Ok(()),
            What::Refused { status, reason, warning, .. } => {
                return Err(format!("the call was refused: {status} {reason} {}", warning.unwrap_or_default()));
            }
            What::Failed { why } => return Err(format!("the call failed: {why}")),
            _ => (),
        }
    }
}

/// Tells of both for a while.
fn watch(member: &mut Crowd, telephone: &Telephone, tell: &mut impl FnMut(Progress), length: Duration) {
    let until = Instant::now() + length;
    while Instant::now() < until {
        while let Some(event) = member.events.next(Duration::ZERO) {
            tell(Progress::Member(event));
        }
        if let Some(event) = telephone.next_event(TICK) {
            tell(Progress::Telephone(event));
        }
    }
}

/// Measures what was heard, and keeps it in that file.
pub(crate) fn judge(said: &[i16], heard: Vec<i16>, said_file: &Path, file: PathBuf) -> Result<Heard, String> {
    let quality = quality::measure(said, &heard);
    Pcm { rate_hz: RATE_HZ, samples: heard }.write_wav(&file)?;
    let perceived = quality::perceived(said_file, &file);
    Ok(Heard { file, quality, perceived })
}
