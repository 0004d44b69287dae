//! Callers who prove that they know the guests' password: digest authentication, the server's side (RFC 3261 §22.4,
//! RFC 7616 §3.3, RFC 8760 §2.3).
//!
//! Owns: the challenge, the proof, the bounds on replayed and on guessed answers. Does not own: who is challenged at all
//! (`endpoint`). Nothing is kept for a stranger: a nonce says itself when and for whom it was made, and only who has
//! answered one rightly, or wrongly from an address that is really his, gets a line in a short table.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::digest::{Algorithm, Credentials, Digest, Quality, hexadecimal};
use super::reply::Refusal;
use crate::random::Random;
use crate::time::Instant;
use crate::wire::sip::{Authentication, Request};
use crate::wire::uri::quote;

/// How old a nonce may be. A telephone whose nonce is older is asked again with `stale`, and nobody notices.
const NONCE_LIFETIME: Duration = Duration::from_secs(60);
/// Nonces in use at once whose counts are remembered. When there are more, the oldest one and all before it are stale.
const MAX_NONCES: usize = 64;
/// Wrong answers from one address before it gets none but 403, a person's mistyping included.
const MAX_FAILURES: u32 = 5;
/// For how long: 60 guesses an hour find no password of eight letters in a lifetime.
const LOCK: Duration = Duration::from_secs(300);
/// Addresses whose wrong answers are counted.
const MAX_GUESSERS: usize = 64;
/// Bytes of a nonce's seal.
const SEAL_BYTES: usize = 16;
/// What we ask for, best first (RFC 8760 §2.3); many telephones know MD5 alone.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];

/// The door for guests.
pub(crate) struct Guests {
    credentials: Credentials,
    realm: String,
    /// The key of the nonces' seals.
    secret: [u8; 32],
    used: VecDeque<Used>,
    /// Nonces up to this moment are stale whatever their age: their counts have been forgotten.
    forgotten: Option<Instant>,
    guessers: VecDeque<Guesser>,
}

impl std::fmt::Debug for Guests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guests").field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// A nonce that was answered rightly.
#[derive(Debug)]
struct Used {
    nonce: String,
    made: Instant,
    /// The highest count so far.
    count: u32,
}

/// An address that has answered wrongly.
#[derive(Debug)]
struct Guesser {
    address: IpAddr,
    failures: u32,
    last: Instant,
}

/// What a request deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It proves that its sender knows the password.
    Welcome,
    /// It has no proof yet, or an old one (`is_stale`).
    Challenge { is_stale: bool },
    /// Its proof is wrong.
    Wrong,
    /// Its address has guessed too often.
    Locked,
}

impl Guests {
    /// Guests with these credentials; `realm` is shown to them.
    pub(crate) fn new(credentials: Credentials, realm: String, random: &mut Random) -> Self {
        let mut secret = [0; 32];
        random.fill(&mut secret);
        let (used, guessers) = (VecDeque::new(), VecDeque::new());
        Self { credentials, realm, secret, used, forgotten: None, guessers }
    }

    /// Judges a request that came from `address`.
    pub(crate) fn judge(&mut self, now: Instant, address: IpAddr, request: &Request) -> Verdict {
        let address = address.to_canonical();
        self.guessers.retain(|guesser| now < guesser.last + LOCK);
        let failures = |guesser: &Guesser| guesser.address == address && guesser.failures >= MAX_FAILURES;
        if self.guessers.iter().any(failures) {
            return Verdict::Locked;
        }
        // There may be answers for proxies on the way among them.
        let mine = |one: &Authentication| one.is_digest() && one.value("realm").as_deref() == Some(self.realm.as_str());
        let Some(answer) = request.headers.authorization().find(mine) else {
            return Verdict::Challenge { is_stale: false };
        };
        let Some(nonce) = answer.value("nonce").map(|nonce| nonce.into_owned()) else {
            return Verdict::Challenge { is_stale: false };
        };
        // One of another address or of an earlier run of ours: what is said about it proves nothing, right or wrong.
        let Some(made) = self.open(&nonce, address) else { return Verdict::Challenge { is_stale: true } };
        let Some(count) = self.proven_count(&answer, &nonce, request) else {
            self.note_failure(now, address);
            return Verdict::Wrong;
        };
        let is_old = now >= made + NONCE_LIFETIME || self.forgotten.is_some_and(|until| made <= until);
        if is_old || !self.count_up(&nonce, made, count) {
            return Verdict::Challenge { is_stale: true };
        }
        self.guessers.retain(|guesser| guesser.address != address);
        Verdict::Welcome
    }

    /// The 401.
    pub(crate) fn challenge(&self, now: Instant, address: IpAddr, is_stale: bool) -> Refusal {
        let nonce = self.seal(now, address.to_canonical());
        let stale = if is_stale { ", stale=true" } else { "" };
        ALGORITHMS.into_iter().fold(Refusal::new(401), |refusal, algorithm| {
            let (realm, name) = (quote(&self.realm), algorithm.name());
            let value = format!("Digest realm={realm}, nonce=\"{nonce}\", algorithm={name}, qop=\"auth\"{stale}");
            refusal.with("WWW-Authenticate", value)
        })
    }

    /// A nonce made now for `address`: the moment, and a seal that only we can make.
    fn seal(&self, now: Instant, address: IpAddr) -> String {
        let moment = format!("{:016x}", now.as_us());
        let seal = self.mac(&moment, address).finalize().into_bytes();
        format!("{moment}{}", hexadecimal(&seal[..SEAL_BYTES]))
    }

    /// When a nonce was made, if it was made by us for `address`.
    fn open(&self, nonce: &str, address: IpAddr) -> Option<Instant> {
        let (moment, seal) = nonce.split_at_checked(16)?;
        let mut bytes = [0; SEAL_BYTES];
        if seal.len() != 2 * SEAL_BYTES || !seal.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&seal[2 * index..2 * index + 2], 16).ok()?;
        }
        self.mac(moment, address).verify_truncated_left(&bytes).ok()?;
        u64::from_str_radix(moment, 16).ok().map(Instant::from_us)
    }

    fn mac(&self, moment: &str, address: IpAddr) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.chain_update(moment).chain_update(address.to_string())
    }

    /// The nonce count of an answer that is right. The URI in it may differ from the request's: proxies rewrite that one
    /// (RFC 3261 §22.4).
    fn proven_count(&self, answer: &Authentication, nonce: &str, request: &Request) -> Option<u32> {
        let algorithm = match answer.value("algorithm") {
            Some(name) => ALGORITHMS.into_iter().find(|one| one.name().eq_ignore_ascii_case(&name))?,
            None => Algorithm::Md5,
        };
        let (count, client_nonce, uri) = (answer.value("nc")?, answer.value("cnonce")?, answer.value("uri")?);
        if !answer.offers_qop(Quality::Auth.name()) || count.len() != 8 {
            return None;
        }
        let digest = Digest {
            algorithm,
            realm: &self.realm,
            nonce,
            quality: Some(Quality::Auth),
            count: &count,
            client_nonce: &client_nonce,
            method: request.method.as_str(),
            uri: &uri,
            body: &[],
        };
        let is_right = answer.value("username")? == self.credentials.username.as_str()
            && is_equal(&digest.response(&self.credentials), &answer.value("response")?.to_ascii_lowercase());
        u32::from_str_radix(&count, 16).ok().filter(|_| is_right)
    }

    /// Notes the count of an answer; false if it has been used already.
    fn count_up(&mut self, nonce: &str, made: Instant, count: u32) -> bool {
        if let Some(used) = self.used.iter_mut().find(|used| used.nonce == nonce) {
            let is_new = count > used.count;
            used.count = used.count.max(count);
            return is_new;
        }
        if self.used.len() == MAX_NONCES
            && let Some(oldest) = self.used.iter().map(|used| used.made).min()
        {
            self.forgotten = self.forgotten.max(Some(oldest));
            self.used.retain(|used| used.made > oldest);
        }
        self.used.push_back(Used { nonce: nonce.to_owned(), made, count });
        self.forgotten.is_none_or(|until| made > until)
    }

    fn note_failure(&mut self, now: Instant, address: IpAddr) {
        if let Some(guesser) = self.guessers.iter_mut().find(|guesser| guesser.address == address) {
            guesser.failures += 1;
            guesser.last = now;
            return;
        }
        if self.guessers.len() == MAX_GUESSERS {
            self.guessers.pop_front();
        }
        self.guessers.push_back(Guesser { address, failures: 1, last: now });
    }
}

/// Compares in a time that does not tell where the difference is.
fn is_equal(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::auth::{Authorizer, Challenge};
    use crate::wire::sip::{Headers, Method};
    use crate::wire::uri::Uri;

    const HERE: &str = "192.0.2.7";

    fn credentials(password: &str) -> Credentials {
        Credentials { username: "guest".into(), password: password.into() }
    }

    fn guests() -> Guests {
        Guests::new(credentials("right"), "example.com".into(), &mut Random::for_test(1))
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::from_us(seconds * 1_000_000)
    }

    fn invite(authorization: Option<&str>) -> Request {
        let mut request = Request::new(Method::Invite, Uri::parse("sip:6002@10.0.0.2").unwrap());
        if let Some(value) = authorization {
            request.headers.push("Authorization", value);
        }
        request
    }

    /// What answers the challenges of `guests`, from `kept` on, with the strongest algorithm.
    fn authorizer(guests: &Guests, now: Instant, kept: impl Fn(&str) -> bool) -> Authorizer {
        let refusal = guests.challenge(now, HERE.parse().unwrap(), false);
        let response = refusal.to_response(&invite(None), "t");
        let mut headers = Headers::new();
        for value in response.headers.lines("WWW-Authenticate").map(|line| line.value()).filter(|one| kept(one)) {
            headers.push("WWW-Authenticate", value);
        }
        Authorizer::new(Challenge::choose(&headers, false).unwrap(), &mut Random::for_test(2))
    }

    fn answer(authorizer: &mut Authorizer, password: &str) -> Request {
        invite(Some(&authorizer.authorize(&credentials(password), "INVITE", "sip:6002@10.0.0.2", &[])))
    }

    fn judge(guests: &mut Guests, at: Instant, request: &Request) -> Verdict {
        guests.judge(at, HERE.parse().unwrap(), request)
    }

    #[test]
    fn the_password_is_welcome_in_both_algorithms_and_each_count_once() {
        for algorithm in ["SHA-256", "MD5"] {
            let mut guests = guests();
            let mut authorizer = authorizer(&guests, seconds(1), |value| value.contains(algorithm));
            let first = answer(&mut authorizer, "right");
            let second = answer(&mut authorizer, "right");
            assert_eq!(judge(&mut guests, seconds(2), &first), Verdict::Welcome);
            assert_eq!(judge(&mut guests, seconds(2), &first), Verdict::Challenge { is_stale: true });
            assert_eq!(judge(&mut guests, seconds(3), &second), Verdict::Welcome);
            assert_eq!(judge(&mut guests, seconds(3), &first), Verdict::Challenge { is_stale: true });
        }
    }

    #[test]
    fn a_nonce_is_good_for_a_minute_and_for_one_address() {
        let mut guests = guests();
        let mut authorizer = authorizer(&guests, seconds(1), |_| true);
        let request = answer(&mut authorizer, "right");
        let elsewhere = guests.judge(seconds(2), "192.0.2.8".parse().unwrap(), &request);
        assert_eq!(elsewhere, Verdict::Challenge { is_stale: true });
        assert_eq!(judge(&mut guests, seconds(61), &request), Verdict::Challenge { is_stale: true });
        assert_eq!(judge(&mut guests, seconds(60), &request), Verdict::Welcome);
    }

    #[test]
    fn wrong_answers_lock_an_address_for_minutes_but_forged_ones_do_not() {
        let mut guests = guests();
        assert_eq!(judge(&mut guests, seconds(1), &invite(None)), Verdict::Challenge { is_stale: false });
        for _ in 0..MAX_FAILURES {
            let mut authorizer = authorizer(&guests, seconds(1), |_| true);
            let request = answer(&mut authorizer, "wrong");
            // Whoever forges a source address cannot read what that address was asked.
            let elsewhere = guests.judge(seconds(1), "192.0.2.8".parse().unwrap(), &request);
            assert_eq!(elsewhere, Verdict::Challenge { is_stale: true });
            assert_eq!(judge(&mut guests, seconds(1), &request), Verdict::Wrong);
        }
        let mut authorizer = authorizer(&guests, seconds(299), |_| true);
        let right = answer(&mut authorizer, "right");
        assert_eq!(judge(&mut guests, seconds(300), &right), Verdict::Locked);
        assert_eq!(judge(&mut guests, seconds(301), &right), Verdict::Welcome);
        assert_eq!(guests.guessers.len(), 0);
    }

    #[test]
    fn what_a_crowd_makes_us_forget_is_stale_and_not_open_to_replay() {
        let mut guests = guests();
        let requests: Vec<_> = (0..=MAX_NONCES as u64)
            .map(|n| {
                let at = Instant::from_us(1_000_000 + n);
                let mut authorizer = authorizer(&guests, at, |_| true);
                let request = answer(&mut authorizer, "right");
                assert_eq!(judge(&mut guests, at, &request), Verdict::Welcome);
                request
            })
            .collect();
        assert_eq!(guests.used.len(), MAX_NONCES);
        for request in &requests {
            assert_eq!(judge(&mut guests, seconds(2), request), Verdict::Challenge { is_stale: true });
        }
    }

    #[test]
    fn answers_that_leave_something_out_are_wrong() {
        let guests = guests();
        let mut authorizer = authorizer(&guests, seconds(1), |_| true);
        let whole = authorizer.authorize(&credentials("right"), "INVITE", "sip:6002@10.0.0.2", &[]);
        for name in ["username", "realm", "nonce", "uri", "response", "algorithm", "qop", "nc", "cnonce"] {
            let mut broken = Authentication::parse(&whole).unwrap();
            broken.parameters.remove(name);
            let verdict = judge(&mut self::guests(), seconds(2), &invite(Some(&broken.to_string())));
            // Without these two it is no answer to us.
            let is_none = ["realm", "nonce"].contains(&name);
            let expected = if is_none { Verdict::Challenge { is_stale: false } } else { Verdict::Wrong };
            assert_eq!(verdict, expected, "without {name}");
        }
        assert!(!format!("{guests:?}").contains("right"));
    }
}
