//! Why an attempt to register failed, in plain words, and how long to wait before the next one.

use std::net::SocketAddr;
use std::time::Duration;

use crate::random::Random;
use crate::sip::event::Account;
use crate::time::doubled;
use crate::wire::sip::Response;

/// The longest pause after a failure that may pass by itself.
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// The first pause after credentials were refused: registrars lock out who tries wrong ones quickly.
const FIRST_REFUSAL_PAUSE: Duration = Duration::from_secs(300);
/// The longest pause after refused credentials: a password that was corrected at the registrar works within the hour.
const MAX_REFUSAL_PAUSE: Duration = Duration::from_secs(3600);
/// The longest wait that a registrar can ask for: it may not have meant what it said, and once an hour burdens nobody.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Why it failed.
#[derive(Debug)]
pub(super) enum Failure {
    Unresolved(String),
    /// No connection, or none any more.
    Unconnected(String),
    NoAnswer,
    NoPassword,
    WrongPassword,
    UnknownChallenge,
    /// Every answer to a challenge is met with the next one.
    Endless,
    /// Another registrar, to which ours has sent us, asks for a password of its own.
    ForeignRealm(String),
    /// A weaker digest than it took before is asked for.
    Weaker,
    /// A 200 that grants nothing.
    NotKept,
    /// Any other response.
    Refused {
        status: u16,
        reason: String,
        retry_after_s: Option<u32>,
    },
}

impl Failure {
    pub(super) fn from_response(response: &Response) -> Self {
        let printable = response.reason.chars().filter(|character| !character.is_control());
        Self::Refused {
            status: response.status,
            reason: printable.take(80).collect(),
            retry_after_s: response.headers.retry_after(),
        }
    }

    /// Whether credentials, not circumstances, are the matter.
    fn is_refusal(&self) -> bool {
        match self {
            Self::NoPassword | Self::WrongPassword | Self::UnknownChallenge | Self::ForeignRealm(_) | Self::Weaker => {
                true
            }
            Self::Refused { status, .. } => matches!(status, 401 | 403 | 407),
            Self::Unresolved(_) | Self::Unconnected(_) | Self::NoAnswer | Self::Endless | Self::NotKept => false,
        }
    }

    /// Whether the same address of the registrar is worth the next attempt.
    pub(super) fn leaves_route(&self) -> bool {
        match self {
            Self::NoPassword
            | Self::WrongPassword
            | Self::UnknownChallenge
            | Self::ForeignRealm(_)
            | Self::Weaker
            | Self::Endless
            | Self::NotKept => true,
            Self::Refused { status, .. } => *status < 500,
            Self::Unresolved(_) | Self::Unconnected(_) | Self::NoAnswer => false,
        }
    }

    /// One plain line with the remedy.
    pub(super) fn text(&self, registrar: &str, account: &Account, address: Option<SocketAddr>) -> String {
        let uri = &account.uri;
        match self {
            Self::Unresolved(error) => {
                format!("The registrar {registrar} cannot be found ({error}): check -sip-registrar or -sip.")
            }
            Self::Unconnected(error) => {
                let at = address.map(|address| format!(" at {address}")).unwrap_or_default();
                format!(
                    "No connection to the registrar {registrar}{at} ({error}): check -sip-registrar and -sip-transport, \
                     and that the firewall lets TCP through."
                )
            }
            Self::NoAnswer => {
                let at = address.map(|address| format!(" at {address}")).unwrap_or_default();
                format!(
                    "No answer from the registrar {registrar}{at}: check -sip-registrar, and that the firewall lets \
                     UDP through."
                )
            }
            Self::NoPassword => format!(
                "The registrar {registrar} wants a password for {uri}: give it with -sip-password or \
                 GALENE_SIP_PASSWORD."
            ),
            Self::WrongPassword => {
                format!("The registrar {registrar} refuses the password for {uri}: check -sip and -sip-password.")
            }
            Self::UnknownChallenge => format!(
                "The registrar {registrar} asks for a kind of authentication other than Digest with MD5, SHA-256 or \
                 SHA-512-256: ask the provider for it."
            ),
            Self::Endless => format!(
                "The registrar {registrar} asks for the password of {uri} again and again, as if each answer were too old: \
                 ask the provider why."
            ),
            Self::ForeignRealm(realm) => format!(
                "The registrar sends us on to {registrar}, which asks for a password for '{}' and gets none: if it is \
                 your provider's, name it with -sip-registrar.",
                realm.chars().filter(|character| !character.is_control()).take(80).collect::<String>()
            ),
            Self::Weaker => format!(
                "The registrar {registrar} asks for a weaker digest than before, as somebody between us would who wants \
                 to guess the password: if the provider has changed it, start again."
            ),
            Self::NotKept => {
                format!("The registrar {registrar} says yes but keeps no address for {uri}: ask the provider why.")
            }
            Self::Refused { status: 404, reason, .. } => {
                format!("The registrar {registrar} does not know {uri} (404 {reason}): check -sip.")
            }
            Self::Refused { status: status @ 403, reason, .. } => format!(
                "The registrar {registrar} refuses {uri} ({status} {reason}): check -sip and -sip-password, or ask \
                 the provider."
            ),
            Self::Refused { status, reason, .. } => {
                format!("The registrar {registrar} refuses {uri} ({status} {reason}): it is tried again.")
            }
        }
    }
}

/// The pauses between attempts: 1, 2, 4 … at most 20 s; 5 minutes and doubled after refused credentials.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    failures: u32,
    refusals: u32,
}

impl Pauses {
    /// The pause after one more failure. Up to a fifth is left out at random, so that clients do not come in step.
    pub(super) fn after(&mut self, failure: &Failure, random: &mut Random) -> Duration {
        let full = if failure.is_refusal() {
            self.refusals = self.refusals.saturating_add(1);
            doubled(FIRST_REFUSAL_PAUSE, self.refusals - 1, MAX_REFUSAL_PAUSE)
        } else {
            self.failures = self.failures.saturating_add(1);
            doubled(Duration::from_secs(1), self.failures - 1, MAX_PAUSE)
        };
        let pause = full - full / 5 * random.below(1000) / 1000;
        match failure {
            Failure::Refused { retry_after_s: Some(seconds), .. } => {
                Duration::from_secs(u64::from(*seconds)).min(MAX_RETRY_AFTER).max(pause)
            }
            Failure::Refused { retry_after_s: None, .. }
            | Failure::Unresolved(_)
            | Failure::Unconnected(_)
            | Failure::NoAnswer
            | Failure::NoPassword
            | Failure::WrongPassword
            | Failure::UnknownChallenge
            | Failure::Endless
            | Failure::ForeignRealm(_)
            | Failure::Weaker
            | Failure::NotKept => pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses_s(failures: usize, failure: &Failure) -> Vec<f64> {
        let (mut pauses, mut random) = (Pauses::default(), Random::for_test(3));
        (0..failures).map(|_| pauses.after(failure, &mut random).as_secs_f64()).collect()
    }

    fn are_within(pauses: &[f64], full: &[f64]) -> bool {
        pauses.iter().zip(full).all(|(pause, full)| (0.8 * full..=*full).contains(pause))
    }

    #[test]
    fn pauses_double_up_to_twenty_seconds_with_jitter() {
        let pauses = pauses_s(7, &Failure::NoAnswer);
        assert!(are_within(&pauses, &[1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]), "{pauses:?}");
        assert_ne!(pauses[5], pauses[6]);
    }

    #[test]
    fn refused_credentials_wait_for_minutes() {
        let pauses = pauses_s(6, &Failure::WrongPassword);
        assert!(are_within(&pauses, &[300.0, 600.0, 1200.0, 2400.0, 3600.0, 3600.0]), "{pauses:?}");
    }

    #[test]
    fn retry_after_is_obeyed_within_reason() {
        let busy = |seconds| Failure::Refused { status: 503, reason: String::new(), retry_after_s: Some(seconds) };
        assert_eq!(pauses_s(1, &busy(120)), [120.0]);
        assert_eq!(pauses_s(1, &busy(u32::MAX)), [3600.0]);
        assert!(pauses_s(1, &busy(0))[0] >= 0.8);
    }
}
