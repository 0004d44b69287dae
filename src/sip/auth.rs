//! Digest access authentication, the client's side (RFC 3261 §22, RFC 2617, RFC 7616, RFC 8760).
//!
//! Owns: the choice among several challenges, the answer, the nonce count, the client nonce. Does not own: the decision
//! whether to try again (`registration`), the digest's formula (`digest`).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::digest::Digest;
pub use super::digest::{Algorithm, Credentials, Quality};
use crate::random::Random;
use crate::wire::sip::{Authentication, Headers, Request, Response};
use crate::wire::uri::quote;

/// What a 401 or 407 asks for, reduced to what can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The protection domain, shown to people as well.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// To be returned as it came.
    pub opaque: Option<String>,
    /// The hash asked for.
    pub algorithm: Algorithm,
    /// Whether the challenge named its algorithm: some old registrars dislike the parameter otherwise.
    pub names_algorithm: bool,
    /// What the answer has to protect: `auth` where it is offered; without `qop` the older form of RFC 2069 is used.
    pub quality: Option<Quality>,
    /// The last answer was right but its nonce too old.
    pub is_stale: bool,
    /// The challenge came in a 407 and is answered by `Proxy-Authorization`.
    pub is_proxy: bool,
}

impl Challenge {
    /// The strongest challenge in a 401 (or 407, `is_proxy`) that can be answered, of equals the first. RFC 8760 §2.4
    /// leaves the choice to the server's order; but what stands on top may be what someone between us has put there.
    pub fn choose(headers: &Headers, is_proxy: bool) -> Option<Self> {
        let challenges: Vec<Authentication> =
            if is_proxy { headers.proxy_authenticate().collect() } else { headers.www_authenticate().collect() };
        let answerable = challenges.iter().filter_map(|challenge| Self::read(challenge, is_proxy));
        // Of equals `max_by_key` takes the last one.
        answerable.rev().max_by_key(|challenge| challenge.algorithm.strength())
    }

    fn read(challenge: &Authentication, is_proxy: bool) -> Option<Self> {
        let algorithm = challenge.value("algorithm");
        let quality = [Quality::Auth, Quality::AuthInt].into_iter().find(|one| challenge.offers_qop(one.name()));
        if !challenge.is_digest() || (quality.is_none() && challenge.parameters.has("qop")) {
            return None;
        }
        Some(Self {
            realm: challenge.value("realm")?.into_owned(),
            nonce: challenge.value("nonce")?.into_owned(),
            opaque: challenge.value("opaque").map(Cow::into_owned),
            algorithm: algorithm.as_deref().map_or(Some(Algorithm::Md5), Algorithm::from_name)?,
            names_algorithm: algorithm.is_some(),
            quality,
            is_stale: challenge.is_stale(),
            is_proxy,
        })
    }
}

/// The answers to one challenge: every request counts its nonce up (RFC 7616 §3.4).
#[derive(Clone, Debug)]
pub struct Authorizer {
    challenge: Challenge,
    client_nonce: String,
    nonce_count: u32,
}

impl Authorizer {
    /// Will answer `challenge`.
    pub fn new(challenge: Challenge, random: &mut Random) -> Self {
        Self { challenge, client_nonce: random.token(16), nonce_count: 0 }
    }

    /// The challenge that is answered.
    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// The header that carries the answer.
    pub const fn header_name(&self) -> &'static str {
        if self.challenge.is_proxy { "Proxy-Authorization" } else { "Authorization" }
    }

    /// The header's value for the next request of `method` to `uri` with this body.
    pub fn authorize(&mut self, credentials: &Credentials, method: &str, uri: &str, body: &[u8]) -> String {
        self.nonce_count = self.nonce_count.saturating_add(1);
        let challenge = &self.challenge;
        let count = format!("{:08x}", self.nonce_count);
        let digest = Digest {
            algorithm: challenge.algorithm,
            realm: &challenge.realm,
            nonce: &challenge.nonce,
            quality: challenge.quality,
            count: &count,
            client_nonce: &self.client_nonce,
            method,
            uri,
            body,
        };
        let mut value = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{}\"",
            quote(&credentials.username),
            quote(&challenge.realm),
            quote(&challenge.nonce),
            quote(uri),
            digest.response(credentials),
        );
        // Writing to a String cannot fail.
        if challenge.names_algorithm {
            let _ = write!(value, ", algorithm={}", challenge.algorithm.name());
        }
        if let Some(quality) = challenge.quality {
            let _ = write!(value, ", qop={}, nc={count}", quality.name());
        }
        if challenge.quality.is_some() || challenge.algorithm.is_session() {
            let _ = write!(value, ", cnonce={}", quote(&self.client_nonce));
        }
        if let Some(opaque) = &challenge.opaque {
            let _ = write!(value, ", opaque={}", quote(opaque));
        }
        value
    }
}

/// Adds to `request` our credentials for the challenge of `response`, if `credentials` gives any for its realm at `next_hop`.
pub(crate) fn authorize<'c>(
    response: &Response,
    next_hop: IpAddr,
    request: &mut Request,
    credentials: impl Fn(&str, IpAddr) -> Option<&'c Credentials>,
    random: &mut Random,
) -> bool {
    let Some(challenge) = Challenge::choose(&response.headers, response.status == 407) else { return false };
    let Some(credentials) = credentials(&challenge.realm, next_hop) else { return false };
    let mut authorizer = Authorizer::new(challenge, random);
    let value = authorizer.authorize(credentials, request.method.as_str(), &request.uri.to_string(), &request.body);
    request.headers.push(authorizer.header_name(), value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(algorithm: Algorithm, realm: &str, nonce: &str, offers_auth: bool) -> Challenge {
        Challenge {
            realm: realm.into(),
            nonce: nonce.into(),
            opaque: Some("5ccc069c403ebaf9f0171e9517f40e41".into()),
            algorithm,
            names_algorithm: true,
            quality: offers_auth.then_some(Quality::Auth),
            is_stale: false,
            is_proxy: false,
        }
    }

    fn authorizer(challenge: Challenge, client_nonce: &str) -> Authorizer {
        Authorizer { challenge, client_nonce: client_nonce.into(), nonce_count: 0 }
    }

    fn mufasa(password: &str) -> Credentials {
        Credentials { username: "Mufasa".into(), password: password.into() }
    }

    #[test]
    fn the_example_of_rfc_2617_gives_its_response() {
        let challenge = challenge(Algorithm::Md5, "testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093", true);
        let value =
            authorizer(challenge, "0a4f113b").authorize(&mufasa("Circle Of Life"), "GET", "/dir/index.html", b"");
        assert_eq!(
            value,
            "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
             uri=\"/dir/index.html\", response=\"6629fae49393a05397450978507c4ef1\", algorithm=MD5, qop=auth, \
             nc=00000001, cnonce=\"0a4f113b\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""
        );
    }

    #[test]
    fn the_examples_of_rfc_7616_give_their_responses() {
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let client_nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (algorithm, response) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let challenge = challenge(algorithm, "http-auth@example.org", nonce, true);
            let value =
                authorizer(challenge, client_nonce).authorize(&mufasa("Circle of Life"), "GET", "/dir/index.html", b"");
            assert!(value.contains(&format!("response=\"{response}\"")), "{value}");
        }
    }

    #[test]
    fn without_qop_the_form_of_rfc_2069_is_used() {
        // Errata 749 of RFC 2069 §2.4: 1949323746fe6a43ef61f9606e7febea.
        let challenge = challenge(Algorithm::Md5, "testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093", false);
        let value = authorizer(challenge, "unused").authorize(&mufasa("CircleOfLife"), "GET", "/dir/index.html", b"");
        assert!(value.contains("response=\"1949323746fe6a43ef61f9606e7febea\""), "{value}");
        assert!(!value.contains("cnonce") && !value.contains("nc="), "{value}");
    }

    #[test]
    fn the_nonce_count_grows_with_each_request_and_changes_the_response() {
        let mut authorizer = authorizer(challenge(Algorithm::Md5, "r", "n", true), "c");
        let first = authorizer.authorize(&mufasa("x"), "REGISTER", "sip:h", b"");
        let second = authorizer.authorize(&mufasa("x"), "REGISTER", "sip:h", b"");
        assert!(first.contains("nc=00000001") && second.contains("nc=00000002"));
        assert_ne!(first.split("response").nth(1), second.split("response").nth(1));
    }

    #[test]
    fn the_session_variant_hashes_the_nonces_into_the_secret_and_sends_the_client_nonce() {
        let mut authorizer = authorizer(challenge(Algorithm::Md5Session, "r", "n", false), "c");
        let value = authorizer.authorize(&mufasa("x"), "REGISTER", "sip:h", b"");
        let md5 = |text: &str| Algorithm::Md5.hash(text);
        let secret = md5(&format!("{}:n:c", md5("Mufasa:r:x")));
        assert!(value.contains(&md5(&format!("{secret}:n:{}", md5("REGISTER:sip:h")))), "{value}");
        assert!(value.contains("cnonce=\"c\""), "{value}");
    }

    #[test]
    fn the_strongest_challenge_that_can_be_answered_is_chosen() {
        let mut headers = Headers::new();
        headers.push("WWW-Authenticate", "Basic realm=\"b\"");
        headers.push("WWW-Authenticate", "Digest realm=\"x\", nonce=\"1\", algorithm=SHA-3");
        headers.push("WWW-Authenticate", "Digest realm=\"x\", nonce=\"2\", qop=\"secret\"");
        assert_eq!(Challenge::choose(&headers, false), None);
        headers.push("WWW-Authenticate", "Digest realm=\"x\", nonce=\"3\", qop=\"auth-int\"");
        let chosen = Challenge::choose(&headers, false).unwrap();
        assert_eq!((chosen.nonce.as_str(), chosen.quality), ("3", Some(Quality::AuthInt)));
        headers.push("WWW-Authenticate", "Digest realm=\"x\", nonce=\"4\", qop=\"auth-int,auth\", algorithm=SHA-256");
        headers.push("WWW-Authenticate", "Digest realm=\"x\", nonce=\"5\", algorithm=SHA-256, stale=true");
        let chosen = Challenge::choose(&headers, false).unwrap();
        let expected = ("4", Algorithm::Sha256, Some(Quality::Auth));
        assert_eq!((chosen.nonce.as_str(), chosen.algorithm, chosen.quality), expected);
        headers.push("WWW-Authenticate", "Digest realm=\"x\", nonce=\"6\", algorithm=SHA-512-256");
        assert_eq!(Challenge::choose(&headers, false).unwrap().algorithm, Algorithm::Sha512_256);
        assert_eq!(Challenge::choose(&headers, true), None);
    }
}
