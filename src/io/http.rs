//! HTTP requests to Galene and to authorisation servers.
//!
//! Owns: one GET or POST with its limits. Does not own: what is asked and what the answer means (`galene::client`).
//! The library blocks, so each request runs on one of smol's threads for blocking work, which end when idle.

use std::time::Duration;

use ureq::http::Response;
use ureq::{Agent, Body, ResponseExt};
use url::Url;

use super::blocking;
use super::fault;
use super::tls::Tls;
use crate::galene::refusal::host_of;
use crate::galene::{Fault, HttpResponse};

/// One request with all its redirects: less than the 10 s that joining may take, so that the reason is told.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(8);

/// The longest body that is read: a status has some 300 bytes, a token at most 4096.
pub const MAX_BODY_BYTES: u64 = 64 * 1024;

/// The most redirects of one GET.
const MAX_REDIRECTS: u32 = 5;

/// The way to HTTP servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http {
    agent: Agent,
}

impl Http {
    /// Requests over `tls`, or over plain TCP where a URL says so.
    pub fn new(tls: &Tls) -> Self {
        let config = Agent::config_builder()
            .tls_config(tls.http())
            .timeout_global(Some(HTTP_TIMEOUT))
            .timeout_resolve(Some(blocking::LOOK_UP_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(MAX_REDIRECTS)
            .max_redirects_will_error(false)
            // A kept connection is a file descriptor that outlives its call.
            .max_idle_connections(0)
            // The WebSocket beside it would go through no proxy either.
            .proxy(None)
            .user_agent(concat!("galene-sip/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.new_agent() }
    }

    /// Fetches `url`, following redirects. Any status is a response.
    ///
    /// # Errors
    /// If no whole response of at most [`MAX_BODY_BYTES`] comes within [`HTTP_TIMEOUT`].
    pub async fn get(&self, url: Url) -> Result<HttpResponse, Fault> {
        let agent = self.agent.clone();
        let host = host_of(&url);
        let response = blocking::run(move || read(&url, agent.get(url.as_str()).call())).await;
        response.unwrap_or_else(|error| Err(fault::of_io(&host, &error)))
    }

    /// Posts `json`, which may hold a password, to `url` and to nowhere else: a redirect is a response.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn post_json(&self, url: Url, json: String) -> Result<HttpResponse, Fault> {
        let agent = self.agent.clone();
        let host = host_of(&url);
        let response = blocking::run(move || {
            let request = agent.post(url.as_str()).config().max_redirects(0).build();
            read(&url, request.content_type("application/json").send(json))
        })
        .await;
        response.unwrap_or_else(|error| Err(fault::of_io(&host, &error)))
    }
}

fn read(url: &Url, response: Result<Response<Body>, ureq::Error>) -> Result<HttpResponse, Fault> {
    let host = host_of(url);
    let mut response = response.map_err(|error| fault_of(&host, error))?;
    let body = response.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_vec();
    let body = body.map_err(|error| fault_of(&host, error))?;
    let final_url = Url::parse(&response.get_uri().to_string()).unwrap_or_else(|_| url.clone());
    Ok(HttpResponse { status: response.status().as_u16(), final_url, body })
}

fn fault_of(host: &str, error: ureq::Error) -> Fault {
    match error {
        ureq::Error::Io(error) => fault::of_io(host, &error),
        ureq::Error::Rustls(error) => fault::of_tls(host, &error),
        ureq::Error::Timeout(ureq::Timeout::Resolve) => fault::of_lookup(host),
        ureq::Error::Timeout(_) => Fault::Unreachable(fault::timed_out(host)),
        ureq::Error::HostNotFound => fault::of_lookup(host),
        ureq::Error::ConnectionFailed => fault::of_io(host, &std::io::ErrorKind::ConnectionRefused.into()),
        ureq::Error::BodyExceedsLimit(limit) => Fault::Protocol(format!("{host} answers with more than {limit} bytes")),
        error => Fault::Protocol(format!("{host}: {error}")),
    }
}
