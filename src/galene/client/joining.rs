//! The first phase: from the group's URL to `joined`.
//!
//! ```text
//! Status ─▶ [Authorising ─▶] Connecting ─▶ Greeting ─▶ Asking ─▶ member
//!   ╰─redirect─╯     ╰────────── another name ────────────╯
//! ```
//!
//! Invariants: a password goes to Galene only if there is no token, neither in the group's URL nor from the
//! authorisation server; nothing secret goes where TLS ends that the group's URL began, nor to another host.

use std::fmt;
use std::time::Duration;

use serde_json::json;
use url::Url;

use super::member::Member;
use super::{
    ClientConfig, Credentials, Event, HttpResponse, Joined, Link, Output, PROTOCOL_VERSION, Phase, RequestKey,
};
use crate::galene::message::{ClientMessage, JoinedKind, JoinedMessage, ServerMessage, UserMessage};
use crate::galene::name::WantedName;
use crate::galene::refusal::{Fault, Refusal, Shown, host_of};
use crate::galene::status::{GroupStatus, Status, group_location, status_url, token_of};
use crate::time::{Deadline, Instant};

/// From the first request to `joined`: longer than this a caller does not wait for an answer in good faith.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a group may say that it is elsewhere: once is use, more is a loop.
const MAX_REDIRECTS: u32 = 3;

/// The longest token that an authorisation server may give.
const MAX_TOKEN_BYTES: usize = 4096;

/// On the way into a group.
#[derive(Debug)]
pub(super) struct Joining {
    applicant: Applicant,
    /// When the group must have been found.
    status_by: Instant,
    deadline: Instant,
    redirects: u32,
    /// What the server complained of last: it says so before it closes a connection.
    complaint: Option<String>,
    step: Step,
}

/// Who asks where.
#[derive(Debug)]
struct Applicant {
    /// The group's URL, without query.
    location: Url,
    name: WantedName,
    credentials: Credentials,
}

#[derive(Debug)]
enum Step {
    /// The status is being fetched.
    Status { request: RequestKey },
    /// The authorisation server is being asked; if this is for another name, the WebSocket is open already.
    Authorising { request: RequestKey, group: Box<GroupStatus> },
    /// The WebSocket is being opened.
    Connecting { group: Box<GroupStatus>, pass: Pass },
    /// We have sent our handshake.
    Greeting { group: Box<GroupStatus>, pass: Pass },
    /// We have sent `join`.
    Asking { group: Box<GroupStatus>, pass: Pass },
}

/// What is shown to Galene with the name.
enum Pass {
    Nothing,
    Password,
    Token,
    AuthServerToken(String),
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().fmt(f)
    }
}

impl Pass {
    fn shown(&self) -> Shown {
        match self {
            Self::Nothing => Shown::Nothing,
            Self::Password => Shown::Password,
            Self::Token => Shown::Token,
            Self::AuthServerToken(_) => Shown::AuthServerToken,
        }
    }
}

impl Joining {
    pub(super) fn start(config: ClientConfig, link: &mut Link, now: Instant) -> Phase {
        let ClientConfig { group_url, name, mut credentials, status_within } = config;
        if !matches!(group_url.scheme(), "http" | "https") || !group_url.has_host() {
            return link.refuse(Refusal::Protocol("the group's URL must begin with https:// or http://".into()));
        }
        credentials.token = credentials.token.or_else(|| token_of(&group_url));
        let location = group_location(&group_url);
        let step = ask_for_status(link, &location);
        let deadline = now + JOIN_TIMEOUT;
        let status_by = now + status_within.unwrap_or(JOIN_TIMEOUT).min(JOIN_TIMEOUT);
        let applicant = Applicant { location, name, credentials };
        Phase::Joining(Box::new(Self { applicant, status_by, deadline, redirects: 0, complaint: None, step }))
    }

    pub(super) fn next_timeout(&self) -> Deadline {
        Deadline::new(self.give_up_at(), "Galene join")
    }

    pub(super) fn on_timeout(self: Box<Self>, link: &mut Link, now: Instant) -> Phase {
        if now < self.give_up_at() {
            return Phase::Joining(self);
        }
        let (who, what) = match &self.step {
            Step::Status { .. } => (&self.applicant.location, "has not answered"),
            Step::Authorising { group, .. } => (
                group.auth_server.as_ref().unwrap_or(&self.applicant.location),
                "(the authorisation server) has not answered",
            ),
            Step::Connecting { group, .. } => (&group.endpoint, "has not opened a WebSocket"),
            Step::Greeting { group, .. } => (&group.endpoint, "has not answered our greeting"),
            Step::Asking { group, .. } => (&group.endpoint, "has not let us into the group"),
        };
        let text = format!(
            "{} {what} within {} s",
            host_of(who),
            (JOIN_TIMEOUT - self.deadline.saturating_since(self.give_up_at())).as_secs()
        );
        link.refuse(Refusal::Unreachable(text))
    }

    fn give_up_at(&self) -> Instant {
        if matches!(self.step, Step::Status { .. }) { self.status_by } else { self.deadline }
    }

    pub(super) fn on_response(
        self: Box<Self>,
        link: &mut Link,
        request: RequestKey,
        result: Result<HttpResponse, Fault>,
    ) -> Phase {
        match &self.step {
            Step::Status { request: asked } if *asked == request => match result {
                Ok(response) => self.on_status(link, &response),
                Err(fault) => link.refuse(fault.into()),
            },
            Step::Authorising { request: asked, .. } if *asked == request => match result {
                Ok(response) => self.on_authorised(link, &response),
                // The words of `io` take everybody for Galene.
                Err(fault @ (Fault::Unreachable(_) | Fault::Protocol(_))) => link.refuse(Refusal::Unreachable(
                    format!("the group's authorisation server (authServer in its description) fails: {fault}"),
                )),
                Err(fault @ (Fault::Tls(_) | Fault::Exhausted(_))) => link.refuse(fault.into()),
            },
            Step::Status { .. }
            | Step::Authorising { .. }
            | Step::Connecting { .. }
            | Step::Greeting { .. }
            | Step::Asking { .. } => Phase::Joining(self),
        }
    }

    fn on_status(mut self: Box<Self>, link: &mut Link, response: &HttpResponse) -> Phase {
        let at = &response.final_url;
        match response.status {
            200 => {}
            404 => return link.refuse(Refusal::NoSuchGroup { location: self.applicant.location.into() }),
            status @ 500.. => {
                return link.refuse(Refusal::Unreachable(format!("{} answers with HTTP status {status}", host_of(at))));
            }
            status => {
                let is_plain = self.applicant.location.scheme() == "http";
                let hint = if is_plain { ", and should it not begin with https://" } else { "" };
                let text =
                    format!("{} answers with HTTP status {status}: is that the URL of a group{hint}?", host_of(at));
                return link.refuse(Refusal::Protocol(text));
            }
        }
        if let Some(text) = ends_tls(&self.applicant.location, at) {
            return link.refuse(Refusal::Protocol(text));
        }
        let group = match Status::parse(&response.body, at) {
            Ok(Status::Here(group)) => group,
            Ok(Status::Redirect(url)) => return self.on_redirect(link, &url),
            Err(error) => {
                let text = format!(
                    "{} gives no status of a group ({error}): its URL is like https://host:8443/group/NAME/",
                    host_of(at)
                );
                return link.refuse(Refusal::Protocol(text));
            }
        };
        let secret_goes_to = [Some(&group.endpoint), group.auth_server.as_ref()];
        if let Some(text) = secret_goes_to.into_iter().flatten().find_map(|url| ends_tls(&self.applicant.location, url))
        {
            return link.refuse(Refusal::Protocol(text));
        }
        link.event(Event::GroupIs(group.clone()));
        self.step = self.applicant.authorise(link, group);
        Phase::Joining(self)
    }

    fn on_redirect(mut self: Box<Self>, link: &mut Link, url: &Url) -> Phase {
        self.redirects += 1;
        let location = group_location(url);
        let is_near = location.host() == self.applicant.location.host()
            && ends_tls(&self.applicant.location, &location).is_none();
        if !is_near || self.redirects > MAX_REDIRECTS {
            return link.refuse(Refusal::Moved(location));
        }
        // A token is for one group.
        self.applicant.credentials.token = token_of(url);
        self.step = ask_for_status(link, &location);
        self.applicant.location = location;
        Phase::Joining(self)
    }

    fn on_authorised(mut self: Box<Self>, link: &mut Link, response: &HttpResponse) -> Phase {
        let Step::Authorising { group, .. } = self.step else { return Phase::Joining(self) };
        let has_password = self.applicant.credentials.password.is_some();
        let pass = match response.status {
            200 => match token_in(&response.body) {
                Some(token) => Pass::AuthServerToken(token),
                None => {
                    let text = format!("the authorisation server {} gives no token", host_of(&response.final_url));
                    return link.refuse(Refusal::Protocol(text));
                }
            },
            204 if has_password => Pass::Password,
            204 => Pass::Nothing,
            401 | 403 => {
                if self.applicant.name.fall_back() {
                    self.step = self.applicant.authorise(link, group);
                    return Phase::Joining(self);
                }
                let shown = if has_password { Shown::Password } else { Shown::Nothing };
                return link.refuse(Refusal::NotAuthorised { username: self.applicant.name.as_str().into(), shown });
            }
            status => {
                let server = host_of(&response.final_url);
                let text = format!("the authorisation server {server} answers with HTTP status {status}");
                return link.refuse(if status >= 500 { Refusal::Unreachable(text) } else { Refusal::Protocol(text) });
            }
        };
        self.step = self.applicant.go(link, group, pass);
        Phase::Joining(self)
    }

    pub(super) fn on_connected(mut self: Box<Self>, link: &mut Link) -> Phase {
        self.step = match self.step {
            Step::Connecting { group, pass } => {
                let id = link.id.clone();
                link.send(&ClientMessage::Handshake { version: [PROTOCOL_VERSION], id: &id });
                Step::Greeting { group, pass }
            }
            step => step,
        };
        Phase::Joining(self)
    }

    pub(super) fn on_disconnected(self: Box<Self>, link: &mut Link, fault: Fault) -> Phase {
        link.refuse(self.complaint.map_or_else(|| fault.into(), Refusal::Protocol))
    }

    pub(super) fn on_message(self: Box<Self>, link: &mut Link, now: Instant, message: ServerMessage) -> Phase {
        match message {
            ServerMessage::Handshake { versions } => return self.on_handshake(link, &versions),
            ServerMessage::Joined(joined) => return self.on_joined(link, now, *joined),
            ServerMessage::UserMessage(message) => return self.on_user_message(link, *message),
            ServerMessage::Ping => link.send(&ClientMessage::Pong),
            ServerMessage::Pong => {}
            ServerMessage::User { .. }
            | ServerMessage::Offer(_)
            | ServerMessage::Answer { .. }
            | ServerMessage::Ice { .. }
            | ServerMessage::Renegotiate { .. }
            | ServerMessage::Close { .. }
            | ServerMessage::Abort { .. }
            | ServerMessage::Chat(_)
            | ServerMessage::Unknown => link.ignored.unknown += 1,
        }
        Phase::Joining(self)
    }

    fn on_handshake(mut self: Box<Self>, link: &mut Link, versions: &[String]) -> Phase {
        let Step::Greeting { group, pass } = self.step else {
            link.ignored.unknown += 1;
            return Phase::Joining(self);
        };
        if !versions.iter().any(|version| version == PROTOCOL_VERSION) {
            let (server, theirs) = (host_of(&group.endpoint), versions.join(", "));
            let text =
                format!("{server} speaks version '{theirs}' of Galene's protocol, we speak '{PROTOCOL_VERSION}'");
            return link.refuse(Refusal::Protocol(text));
        }
        self.step = self.applicant.ask(link, group, pass);
        Phase::Joining(self)
    }

    fn on_joined(mut self: Box<Self>, link: &mut Link, now: Instant, joined: JoinedMessage) -> Phase {
        let Step::Asking { group, pass } = self.step else {
            link.ignored.unknown += 1;
            return Phase::Joining(self);
        };
        match joined.kind {
            JoinedKind::Join => {
                let joined = Joined {
                    id: link.id.clone(),
                    username: joined.username.unwrap_or_else(|| self.applicant.name.as_str().into()),
                    group: if joined.group.is_empty() { group.name } else { joined.group },
                    permissions: joined.permissions,
                    rtc: joined.rtc,
                };
                Member::start(joined, link, now)
            }
            JoinedKind::Fail => {
                let refusal = why_refused(joined, &self.applicant.location, &self.applicant.name, pass.shown());
                let is_about_the_name = match &refusal {
                    Refusal::DuplicateUsername { .. } | Refusal::NotAuthorised { .. } => {
                        self.applicant.name.fall_back()
                    }
                    _ => false,
                };
                if !is_about_the_name {
                    return link.refuse(refusal);
                }
                // A token of the authorisation server names the user whom it is for: it takes a new one.
                self.step = self.applicant.authorise(link, group);
                Phase::Joining(self)
            }
            JoinedKind::Redirect => {
                let to = joined.value.as_deref().and_then(|to| self.applicant.location.join(to).ok());
                link.refuse(to.map_or_else(
                    || Refusal::Protocol("the group says that it is elsewhere, but not where".into()),
                    |to| Refusal::Moved(group_location(&to)),
                ))
            }
            JoinedKind::Change | JoinedKind::Leave | JoinedKind::Unknown => {
                link.ignored.unknown += 1;
                self.step = Step::Asking { group, pass };
                Phase::Joining(self)
            }
        }
    }

    /// Believes what [`super::member`] believes.
    fn on_user_message(mut self: Box<Self>, link: &mut Link, message: UserMessage) -> Phase {
        let text = message.value.unwrap_or_default();
        match (message.kind.as_str(), message.privileged) {
            ("kicked", true) => return link.refuse(Refusal::Locked(text)),
            ("error", true) => self.complaint = Some(text),
            ("warning" | "info", true) => link.event(Event::Notice(text)),
            (kind @ ("kicked" | "error" | "warning" | "info"), false) => link.forged(kind, message.username.as_deref()),
            _ => link.ignored.unknown += 1,
        }
        Phase::Joining(self)
    }
}

impl Applicant {
    /// Finds out what to show to Galene, and goes there.
    fn authorise(&self, link: &mut Link, group: Box<GroupStatus>) -> Step {
        if self.credentials.token.is_some() {
            return self.go(link, group, Pass::Token);
        }
        let Some(auth_server) = &group.auth_server else {
            let pass = if self.credentials.password.is_some() { Pass::Password } else { Pass::Nothing };
            return self.go(link, group, pass);
        };
        let request = link.new_request();
        let password = self.credentials.password.as_deref().unwrap_or_default();
        let body = json!({"location": group.location.as_str(), "username": self.name.as_str(), "password": password});
        link.output.push_back(Output::Post { request, url: auth_server.clone(), json: body.to_string() });
        Step::Authorising { request, group }
    }

    /// Opens the WebSocket, or asks again over an open one.
    fn go(&self, link: &mut Link, group: Box<GroupStatus>, pass: Pass) -> Step {
        if link.has_socket {
            return self.ask(link, group, pass);
        }
        link.has_socket = true;
        link.output.push_back(Output::Connect { url: group.endpoint.clone() });
        Step::Connecting { group, pass }
    }

    fn ask(&self, link: &mut Link, group: Box<GroupStatus>, pass: Pass) -> Step {
        let Credentials { password, token } = &self.credentials;
        let (password, token) = match &pass {
            Pass::Nothing => (None, None),
            Pass::Password => (password.as_deref(), None),
            Pass::Token => (None, token.as_deref()),
            Pass::AuthServerToken(token) => (None, Some(token.as_str())),
        };
        let (name, username) = (group.name.as_str(), self.name.as_str());
        link.send(&ClientMessage::Join { kind: "join", group: name, username, password, token });
        Step::Asking { group, pass }
    }
}

fn ask_for_status(link: &mut Link, location: &Url) -> Step {
    let request = link.new_request();
    link.output.push_back(Output::Get { request, url: status_url(location) });
    Step::Status { request }
}

/// The sentences are Galene's; what is none of them is the text of a group that is locked or not open.
fn why_refused(joined: JoinedMessage, location: &Url, name: &WantedName, shown: Shown) -> Refusal {
    let username = || name.as_str().into();
    let text = joined.value.unwrap_or_default();
    match (joined.error.as_deref(), text.as_str()) {
        (Some("duplicate-username"), _) => Refusal::DuplicateUsername { username: username() },
        (Some("need-username"), _) | (_, "not authorised") => Refusal::NotAuthorised { username: username(), shown },
        (_, "too many users") => Refusal::Full,
        (_, "group does not exist" | "illegal group name") => {
            Refusal::NoSuchGroup { location: location.as_str().into() }
        }
        (_, "internal server error") => {
            Refusal::Unreachable("it reports an internal server error; its own log says which".into())
        }
        (_, "") => Refusal::Locked("no reason given".into()),
        _ => Refusal::Locked(text),
    }
}

/// A token is one word of visible ASCII; a page that says so is none.
fn token_in(body: &[u8]) -> Option<String> {
    let token = std::str::from_utf8(body).ok()?.trim();
    let is_word = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    (is_word && token.len() <= MAX_TOKEN_BYTES).then(|| token.into())
}

/// A sentence if `to` gives up the encryption that `from` has.
fn ends_tls(from: &Url, to: &Url) -> Option<String> {
    let is_downgrade = from.scheme() == "https" && !matches!(to.scheme(), "https" | "wss");
    let at = host_of(to);
    is_downgrade.then(|| {
        format!(
            "{} leads to {}://{at}, which is not encrypted: check proxyURL in Galene's config.json",
            host_of(from),
            to.scheme()
        )
    })
}
