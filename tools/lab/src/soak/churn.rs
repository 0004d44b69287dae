//! Who calls when, and what goes wrong meanwhile.
//!
//! Owns: the telephones, the members, the faults, all by one seed. Does not own: what is measured (`samples`).

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::GROUP;
use crate::gateway::Gateway;
use crate::member::{Crowd, MemberConfig, Speech};
use crate::opus;
use crate::pcm::Pcm;
use crate::room::{Impairment, RoomCommand, RoomServer};
use crate::telephone::{RATE_HZ, Side, Telephone, TelephoneSetup, What};

/// How long a call lasts, at random between these.
const CALL_S: (u64, u64) = (20, 120);
/// Calls that may be begun a second: what a provider lets through.
const BETWEEN_CALLS: Duration = Duration::from_millis(200);
/// An answer that takes longer is a failure.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Something goes wrong so often, and what passes by itself has passed after half of it.
const FAULT_EVERY: Duration = Duration::from_secs(30);
/// Packets that a telephone must get, of those that the length of its call makes.
const LEAST_PACKETS: f64 = 0.95;

struct Caller {
    name: String,
    telephone: Telephone,
    began: Instant,
    answered: Option<Instant>,
    hang_up_at: Instant,
}

/// Everybody who is there.
pub(super) struct Churn<'a> {
    room: &'a RoomServer,
    uri: String,
    crowd: Crowd,
    callers: Vec<Caller>,
    wanted: usize,
    placed: u64,
    failures: Vec<String>,
    next_call: Instant,
    next_fault: Instant,
    /// Until then packets are lost on the way down.
    impaired_until: Option<Instant>,
    faults: u64,
    state: u64,
    /// Lines of the gateway's log that have been read.
    read_lines: usize,
}

impl<'a> Churn<'a> {
    /// Members join; nobody calls yet.
    pub(super) fn new(
        room: &'a RoomServer,
        gateway: &Gateway,
        wanted: usize,
        members: usize,
        seed: u64,
    ) -> Result<Self, String> {
        let speech = Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0)));
        let config =
            MemberConfig { speech, speakers: 1, listen: false, ..MemberConfig::new(&room.group_url(GROUP), "Member") };
        let crowd = Crowd::join(config, members.max(1))?;
        let now = Instant::now();
        Ok(Self {
            room,
            uri: gateway.uri(),
            crowd,
            callers: Vec::new(),
            wanted,
            placed: 0,
            failures: Vec::new(),
            next_call: now,
            next_fault: now + FAULT_EVERY,
            impaired_until: None,
            faults: 0,
            state: seed | 1,
            read_lines: 0,
        })
    }

    /// One call of five seconds.
    pub(super) fn warm_up(&self) -> Result<(), String> {
        let telephone = Telephone::call(TelephoneSetup::new(&self.uri)).map_err(|error| error.to_string())?;
        telephone.wait_answered(ANSWER_WITHIN)?;
        std::thread::sleep(Duration::from_secs(5));
        drop(telephone.finish());
        Ok(())
    }

    /// Calls that are up or being put through.
    pub(super) fn calls(&self) -> usize {
        self.callers.len()
    }

    /// Calls begun so far.
    pub(super) const fn placed(&self) -> u64 {
        self.placed
    }

    /// What went wrong with calls that should have gone well.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Begins, ends and looks after calls, and lets something go wrong when it is time.
    pub(super) fn turn(&mut self, gateway: &Gateway) {
        let now = Instant::now();
        self.crowd.events.forget();
        if now >= self.next_call && self.callers.len() < self.wanted {
            self.next_call = now + BETWEEN_CALLS;
            self.begin(now);
        }
        for at in (0..self.callers.len()).rev() {
            if let Some(failure) = self.look_at(now, at) {
                self.failures.push(failure);
                self.callers.remove(at);
            } else if now >= self.callers[at].hang_up_at {
                let caller = self.callers.remove(at);
                self.end(caller);
            }
        }
        if now >= self.next_fault {
            self.next_fault = now + FAULT_EVERY;
            self.fail_something(gateway);
        }
        if self.impaired_until.take_if(|until| *until <= now).is_some() {
            self.room.command(RoomCommand::Impair(Impairment::default()));
        }
    }

    fn begin(&mut self, now: Instant) {
        self.placed += 1;
        let name = format!("Caller{}", self.placed);
        let setup = TelephoneSetup::new(&self.uri).from(&format!("\"{name}\" <sip:{}@127.0.0.1>", self.placed));
        let length_s = CALL_S.0 + self.random(CALL_S.1 - CALL_S.0);
        match Telephone::call(setup) {
            Ok(telephone) => {
                if self.random(5) == 0 {
                    telephone.speak(Pcm::warble(RATE_HZ, 5.0).samples.into(), true);
                }
                let hang_up_at = now + Duration::from_secs(length_s);
                self.callers.push(Caller { name, telephone, began: now, answered: None, hang_up_at });
            }
            Err(error) => self.failures.push(format!("{name}: {error}")),
        }
    }

    /// What a call should not have done, if it has.
    fn look_at(&mut self, now: Instant, at: usize) -> Option<String> {
        let caller = &mut self.callers[at];
        while let Some(event) = caller.telephone.next_event(Duration::ZERO) {
            match event.what {
                What::Answered { .. } => caller.answered = Some(now),
                What::Refused { .. } | What::Bye { by: Side::Them, .. } => {
                    return Some(format!("{}: {:?}", caller.name, event.what));
                }
                _ => {}
            }
        }
        let is_late = caller.answered.is_none() && now > caller.began + ANSWER_WITHIN;
        is_late.then(|| format!("{}: not answered within {ANSWER_WITHIN:?}", caller.name))
    }

    fn end(&mut self, caller: Caller) {
        let talked = caller.answered.map_or(Duration::ZERO, |at| at.elapsed());
        let report = caller.telephone.finish();
        let least = (talked.as_secs_f64() * 50.0 * LEAST_PACKETS) as u64;
        if report.reception.packets < least {
            let packets = report.reception.packets;
            self.failures.push(format!("{}: {packets} packets in {talked:?}", caller.name));
        }
    }

    /// Everybody hangs up.
    pub(super) fn end_all(&mut self) {
        for caller in std::mem::take(&mut self.callers) {
            self.end(caller);
        }
    }

    /// One of the things that happen in practice, in turn.
    fn fail_something(&mut self, gateway: &Gateway) {
        let count = self.callers.len().max(1) as u64;
        let victim = self.random(count) as usize;
        let client = self.callers.get(victim).map(|caller| caller.name.clone()).unwrap_or_default();
        self.faults += 1;
        match self.faults % 6 {
            0 => self.room.command(RoomCommand::Cut { client }),
            1 => {
                let impairment =
                    Impairment { loss_per_mille: 50, jitter: Duration::from_millis(20), seed: self.faults };
                self.room.command(RoomCommand::Impair(impairment));
                self.impaired_until = Some(Instant::now() + FAULT_EVERY / 2);
            }
            2 => self.room.command(RoomCommand::RestartIce { client }),
            3 => self.room.command(RoomCommand::AskRenegotiation { client }),
            4 => self.room.command(RoomCommand::Kick { client, by: None, message: "server is shutting down".into() }),
            _ => spray(gateway),
        }
    }

    /// The mean of the MOS figures in what the gateway has said since it was last asked.
    pub(super) fn take_mos(&mut self, gateway: &Gateway) -> Option<f64> {
        let lines = gateway.lines();
        let new = lines.get(self.read_lines..).unwrap_or_default();
        self.read_lines = lines.len();
        let figures = new.iter().flat_map(|line| line.split("MOS about ").skip(1));
        let figures: Vec<f64> = figures.filter_map(|rest| rest.get(..3)?.parse().ok()).collect();
        (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / figures.len() as f64)
    }

    /// 0 to `below` − 1 (xorshift: what matters is that the seed repeats it).
    const fn random(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % if below == 0 { 1 } else { below }
    }
}

/// A stranger's junk at the SIP port.
fn spray(gateway: &Gateway) {
    let Ok(socket) = UdpSocket::bind("127.0.0.9:0") else { return };
    for n in 0..500_usize {
        // What the kernel drops is dropped.
        let _ = socket.send_to(&vec![n as u8; n], gateway.address());
    }
}
