//! One conference: the room, the gateway, members and telephones, and what it cost while all of them were there.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::usage::{Snapshot, Usage, kib};
use crate::gateway::Gateway;
use crate::member::{Crowd, MemberConfig, MemberEventKind, Speech};
use crate::pcm::Pcm;
use crate::program::{Folder, Signal, free_udp_port};
use crate::room::{GroupConfig, RoomConfig, RoomServer};
use crate::speech::{REFERENCE_RATE_HZ, Reference};
use crate::telephone::{RATE_HZ, Telephone, TelephoneSetup};
use crate::trial::{self, Outcome, TrialSetup};

const GROUP: &str = "load";
/// Longer than any step takes that works.
const PATIENCE: Duration = Duration::from_secs(30);
/// From the last answer until it is measured: the streams are there, the jitter buffers have settled.
const SETTLING: Duration = Duration::from_secs(3);
/// From the sampled member's entrance until it is judged: it connects a stream of everybody there.
const SAMPLE_SETTLING: Duration = Duration::from_secs(6);
/// Between two calls: what a registrar would let through, too.
const BETWEEN_CALLS: Duration = Duration::from_millis(50);
/// Between two speakers, so that they do not say the same at the same time.
const BETWEEN_SPEAKERS: Duration = Duration::from_millis(37);

/// What is to be measured.
#[derive(Clone, Debug)]
pub(super) struct Conference {
    pub(super) gateway: PathBuf,
    pub(super) calls: usize,
    pub(super) members: usize,
    pub(super) members_speaking: usize,
    pub(super) telephones_speaking: usize,
    pub(super) length: Duration,
    /// Whether one more call is judged.
    pub(super) quality: bool,
}

/// What was measured.
pub(super) struct Figures {
    pub(super) gateway: Usage,
    pub(super) laboratory: Usage,
    /// Resident before the first call, and at the end; of the latter what is no file and not shared.
    pub(super) idle_kib: u64,
    pub(super) resident_kib: u64,
    pub(super) own_kib: u64,
    pub(super) mix: MixLine,
    pub(super) slowest_answer: Duration,
    pub(super) sample: Option<Outcome>,
}

/// What the gateway says of its mixes upon SIGUSR1, since it was last asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MixLine {
    pub(super) ticks: u64,
    pub(crate) late: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
    pub(super) latest_begin_us: u64,
}

impl MixLine {
    fn parse(line: &str) -> Option<Self> {
        let words = line.split_once("mix: ")?.1;
        let number = |name: &str| {
            words
                .split(' ')
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .and_then(|text| text.parse().ok())
        };
        Some(Self {
            ticks: number("ticks")?,
            late: number("late")?,
            p50_us: number("p50_us")?,
            p99_us: number("p99_us")?,
            max_us: number("max_us")?,
            latest_begin_us: number("latest_begin_us")?,
        })
    }

    /// Asks the gateway.
    pub(crate) fn ask(gateway: &mut Gateway) -> Result<Self, String> {
        let said = |gateway: &Gateway| gateway.lines().iter().filter_map(|line| Self::parse(line)).collect::<Vec<_>>();
        let before = said(gateway).len();
        gateway.signal(Signal::SIGUSR1);
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = said(gateway).into_iter().nth(before) {
                return Ok(line);
            }
            if Instant::now() > until || !gateway.is_running() {
                return Err(format!(
                    "the gateway does not answer SIGUSR1; it said:\n  {}",
                    gateway.lines().join("\n  ")
                ));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Conference {
    /// Lets it take place.
    pub(super) fn run(&self, reference: &Reference) -> Result<Figures, String> {
        let room = RoomServer::start(RoomConfig::new(vec![GroupConfig::open(GROUP)]))?;
        let group_url = room.group_url(GROUP);
        let mut gateway = start_gateway(&self.gateway, &group_url)?;
        let process = gateway.id().to_string();
        let idle_kib = kib(&process, "VmRSS");
        let _crowd = self.gather(&group_url, reference)?;
        let (telephones, slowest_answer) = self.call(&gateway)?;
        let said: Arc<[i16]> = reference.at(RATE_HZ).into();
        for telephone in telephones.iter().take(self.telephones_speaking) {
            telephone.speak(Arc::clone(&said), true);
            thread::sleep(BETWEEN_SPEAKERS);
        }
        thread::sleep(SETTLING);

        MixLine::ask(&mut gateway)?;
        let (before, laboratory_before) = (Snapshot::of(&process), Snapshot::of("self"));
        thread::sleep(self.length);
        let usage = before.until(&Snapshot::of(&process));
        let laboratory = laboratory_before.until(&Snapshot::of("self"));
        let mix = MixLine::ask(&mut gateway)?;
        let (resident_kib, own_kib) = (kib(&process, "VmRSS"), kib(&process, "RssAnon"));
        if let Some(over) = telephones.iter().find(|telephone| telephone.is_over()) {
            let end = over.next_event(Duration::ZERO);
            return Err(format!("a call ended before its time: {end:?}"));
        }
        let sample = if self.quality { Some(sample(&group_url, &gateway.uri(), reference)?) } else { None };
        Ok(Figures { gateway: usage, laboratory, idle_kib, resident_kib, own_kib, mix, slowest_answer, sample })
    }

    /// All members, once the last one's stream is up.
    fn gather(&self, group_url: &str, reference: &Reference) -> Result<Option<Crowd>, String> {
        if self.members == 0 {
            return Ok(None);
        }
        let sound = Pcm { rate_hz: REFERENCE_RATE_HZ, samples: reference.at(REFERENCE_RATE_HZ) };
        let config = MemberConfig {
            speech: Some(Speech::looped(sound)),
            speakers: self.members_speaking,
            listen: false,
            ..MemberConfig::new(group_url, "Member")
        };
        let mut crowd = Crowd::join(config, self.members)?;
        let until = Instant::now() + PATIENCE;
        let mut connected = 0;
        while connected < self.members {
            let left = until.saturating_duration_since(Instant::now());
            let event = crowd.events.next(left).ok_or_else(|| {
                format!("only {connected} of {} members were connected within {PATIENCE:?}", self.members)
            })?;
            connected += usize::from(event.kind == MemberEventKind::UpConnected);
        }
        Ok(Some(crowd))
    }

    /// All telephones, once the last one is answered; how long the slowest answer took.
    fn call(&self, gateway: &Gateway) -> Result<(Vec<Telephone>, Duration), String> {
        let mut telephones = Vec::new();
        let mut slowest = Duration::ZERO;
        for number in 1..=self.calls {
            let from = format!("\"Load {number}\" <sip:{number}@127.0.0.1>");
            let setup = TelephoneSetup::new(&gateway.uri()).from(&from);
            let telephone = Telephone::call(setup).map_err(|error| error.to_string())?;
            slowest = slowest.max(telephone.wait_answered(PATIENCE)?);
            telephones.push(telephone);
            thread::sleep(BETWEEN_CALLS);
        }
        Ok((telephones, slowest))
    }
}

/// A gateway without `-debug`, which would be measured too.
pub(crate) fn start_gateway(binary: &Path, group_url: &str) -> Result<Gateway, String> {
    let port = free_udp_port().map_err(|error| error.to_string())?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = address.to_string();
    let arguments = ["-sip", "sip:6002@127.0.0.1", "-no-sip-register", "-sip-udp-address", &listen, group_url];
    let mut gateway = Gateway::launch(binary, &arguments, address)?;
    gateway.wait_ready()?;
    Ok(gateway)
}

/// One more call, in which both sides speak.
fn sample(group_url: &str, gateway_uri: &str, reference: &Reference) -> Result<Outcome, String> {
    let folder = Folder::new().map_err(|error| error.to_string())?;
    let setup = TrialSetup {
        group_url: group_url.to_owned(),
        gateway_uri: gateway_uri.to_owned(),
        member: "Sample".to_owned(),
        caller: "Sampler".to_owned(),
        password: String::new(),
        insecure: false,
        is_encrypted: false,
        folder: folder.path().to_owned(),
    };
    trial::run_settled(&setup, reference, SAMPLE_SETTLING, |_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_line_is_understood_behind_whatever_the_log_puts_before_it() {
        let line =
            "2026-01-01  INFO mix: ticks=500 late=1 p50_us=96 p99_us=160 max_us=183 latest_begin_us=1040 orphans=0";
        let expected = MixLine { ticks: 500, late: 1, p50_us: 96, p99_us: 160, max_us: 183, latest_begin_us: 1040 };
        assert_eq!(MixLine::parse(line), Some(expected));
        assert_eq!(MixLine::parse("mix: ticks=500"), None);
        assert_eq!(MixLine::parse("call 1: answered"), None);
    }
}
