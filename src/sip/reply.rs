//! Responses as a user agent server makes them (RFC 3261 §8.2).

use super::event::Rejection;
use crate::random::Random;
use crate::wire::sip::{Request, Response, Warning};

/// The methods that this user agent answers.
pub(crate) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, REFER, INFO";
/// The bodies that it understands.
pub(crate) const ACCEPT: &str = "application/sdp";
/// The extensions that it knows: reliable provisional responses (RFC 3262), REFER without NOTIFY (RFC 4488), edge proxies
/// in a registration (RFC 3327), one dialog in the place of another (RFC 3891), session timers (RFC 4028).
pub(crate) const SUPPORTED: &str = "100rel, norefersub, path, replaces, timer";

/// Whether an extension is one that we know.
pub(crate) fn is_supported(extension: &str) -> bool {
    SUPPORTED.split(", ").any(|known| known.eq_ignore_ascii_case(extension))
}

/// A refusal: a status with the headers that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: u16,
    reason: String,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    /// With the usual reason phrase.
    pub(crate) fn new(status: u16) -> Self {
        Self { status, reason: String::new(), headers: Vec::new() }
    }

    /// With a reason of its own.
    pub(crate) fn because(status: u16, reason: &str) -> Self {
        Self { status, reason: reason.to_owned(), headers: Vec::new() }
    }

    /// With a header more.
    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// 500 for a request that must be tried again: after 0 to 10 s (RFC 3261 §14.2).
    pub(crate) fn try_again(reason: &str, random: &mut Random) -> Self {
        Self::because(500, reason).with("Retry-After", random.below(11))
    }

    /// The response to `request`. `tag` becomes the To tag if there is none.
    pub(crate) fn to_response(&self, request: &Request, tag: &str) -> Response {
        let mut response = Response::to_request(request, self.status, &self.reason);
        response.set_to_tag(tag);
        for (name, value) in &self.headers {
            response.headers.push(name, value.clone());
        }
        response
    }
}

impl From<&Rejection> for Refusal {
    fn from(rejection: &Rejection) -> Self {
        let status = if (400..700).contains(&rejection.status) { rejection.status } else { 500 };
        let mut refusal = Self::because(status, &rejection.reason);
        if let Some(text) = &rejection.warning {
            let warning = Warning { code: 399, agent: "galene-sip".to_owned(), text: text.clone() };
            refusal = refusal.with("Warning", warning);
        }
        if let Some(seconds) = rejection.retry_after_s {
            refusal = refusal.with("Retry-After", seconds);
        }
        refusal
    }
}
