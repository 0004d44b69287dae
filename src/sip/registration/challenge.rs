//! The registrar's questions: which ones get an answer.
//!
//! Owns: no second try with a password that is wrong, no digest for a stranger's realm, none weaker than the last one that
//! was good enough (RFC 8760 §2.4: whoever stands between us could else ask for one that can be broken).

use super::failure::Failure;
use super::{Attempt, MAX_CHALLENGES, Registration};
use crate::random::Random;
use crate::sip::auth::{Authorizer, Challenge};
use crate::wire::sip::Response;

impl Registration {
    /// Prepares the answer to a 401 or 407.
    pub(super) fn take_challenge(
        &mut self,
        attempt: &mut Attempt,
        response: &Response,
        random: &mut Random,
    ) -> Result<(), Failure> {
        let is_proxy = response.status == 407;
        let kind = usize::from(is_proxy);
        let challenge = Challenge::choose(&response.headers, is_proxy).ok_or(Failure::UnknownChallenge)?;
        if self.account.credentials.is_none() {
            return Err(Failure::NoPassword);
        }
        if self.redirect.is_elsewhere() && !self.is_home(&challenge.realm) {
            return Err(Failure::ForeignRealm(challenge.realm));
        }
        if challenge.algorithm.strength() < self.strengths[kind] {
            return Err(Failure::Weaker);
        }
        if attempt.is_fresh[kind] && !challenge.is_stale {
            return Err(Failure::WrongPassword);
        }
        attempt.challenges += 1;
        if attempt.challenges > MAX_CHALLENGES {
            return Err(Failure::Endless);
        }
        attempt.is_fresh[kind] = true;
        if !self.redirect.is_elsewhere() {
            self.realms[kind] = Some(challenge.realm.clone());
        }
        self.authorizers[kind] = Some(Authorizer::new(challenge, random));
        Ok(())
    }

    /// The answers were good enough: nothing weaker will be given from now on.
    pub(super) fn keep_strengths(&mut self) {
        for (strength, authorizer) in self.strengths.iter_mut().zip(&self.authorizers) {
            let used = authorizer.as_ref().map_or(0, |authorizer| authorizer.challenge().algorithm.strength());
            *strength = used.max(*strength);
        }
    }

    /// Whether our own registrar asks for this realm: it has done so, or, where it has never asked, it is our domain.
    fn is_home(&self, realm: &str) -> bool {
        let mut known = self.realms.iter().flatten().peekable();
        if known.peek().is_none() {
            let host = self.account.uri.host().map(ToString::to_string).unwrap_or_default();
            return realm.eq_ignore_ascii_case(&host);
        }
        known.any(|known| known == realm)
    }
}
