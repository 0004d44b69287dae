//! What the faults have in common: a call in progress, and how it is seen that it goes on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::gateway::answers;
use lab::member::{Crowd, MemberConfig, MemberEventKind, Speech};
use lab::opus;
use lab::pcm::Pcm;
use lab::telephone::{RATE_HZ, Telephone, TelephoneSetup, What};

use crate::real::{AUDIBLE_DBFS, PATIENCE, eventually, from};

/// What somebody on the line would call an interruption.
const GAP: Duration = Duration::from_millis(500);

/// A member of the room who speaks and tells whom it hears.
pub(crate) fn member(url: &str) -> Crowd {
    let speech = Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0)));
    let levels_every = Some(Duration::from_millis(100));
    let config = MemberConfig { speech, levels_every, insecure: true, ..MemberConfig::new(url, "Member") };
    let mut member = Crowd::one(config).unwrap();
    let speaks = member.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::SpeechBegins);
    assert!(speaks.is_some(), "the member does not speak");
    member
}

/// A call that is answered, in which the telephone speaks; `log` is what the gateway has said if it is not.
pub(crate) fn call(target: &str, name: &str, log: impl Fn() -> String) -> Telephone {
    let telephone = Telephone::call(TelephoneSetup::new(target).from(&from(name))).unwrap();
    telephone.speak(Pcm::warble(RATE_HZ, 5.0).samples.into(), true);
    telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{name}: {why}\n{}", log()));
    telephone
}

/// How a call ends that is not answered: the status and the text of its Warning.
pub(crate) fn refusal(telephone: &Telephone, patience: Duration) -> Result<(u16, String), String> {
    let event = telephone.wait_for(patience, |what| matches!(what, What::Refused { .. } | What::Answered { .. }))?;
    match event.what {
        What::Refused { status, warning, .. } => Ok((status, warning.unwrap_or_default())),
        other => Err(format!("not refused: {other:?}")),
    }
}

/// From now on the telephone hears somebody, and the member the telephone.
pub(crate) fn assert_both_ways(telephone: &Telephone, name: &str, member: &mut Crowd, log: impl Fn() -> String) {
    while telephone.next_event(Duration::ZERO).is_some() {}
    member.events.forget();
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap_or_else(|why| panic!("{name} hears nothing: {why}\n{}", log()));
    let is_heard = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Level { username, dbfs, .. } if username == name && *dbfs > AUDIBLE_DBFS);
    let heard = member.events.wait_for(PATIENCE, |event| is_heard(&event.kind));
    assert!(heard.is_some(), "{name} is not heard in the room\n{}", log());
}

/// The call, answered at `since`, has been sent a packet every 20 ms all the while.
pub(crate) fn assert_unharmed(telephone: Telephone, since: Instant) {
    let lasted = since.elapsed();
    assert!(lasted > GAP, "too brief a call to be judged: {lasted:?}");
    let reception = telephone.finish().reception;
    assert!(reception.longest_gap < GAP, "{reception:?}");
    assert!(reception.packets as f64 > lasted.as_secs_f64() * 50.0 * 0.95, "{lasted:?}: {reception:?}");
}

/// Waits until the gateway answers OPTIONS.
pub(crate) fn wait_ready(address: SocketAddr) {
    eventually("the gateway answers", || answers(address).unwrap());
}
