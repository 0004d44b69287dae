//! What happens to a request: matching (RFC 3261 §17.2.3), admission, inspection (§8.2), then its call.
//!
//! Owns: which refusal a request gets and whether it is worth a transaction. Does not own: the states of the call that
//! it reaches (`call`).

use sha2::{Digest as _, Sha256};

use super::Endpoint;
use crate::sip::call::{Call, OpenInvite};
use crate::sip::dialog::Dialog;
use crate::sip::digest::hexadecimal;
use crate::sip::event::{CallKey, Caller, Event, Path, StrangerGot};
use crate::sip::guests::Verdict;
use crate::sip::info::{self, InfoKey};
use crate::sip::reply::{ACCEPT, ALLOW, Refusal, SUPPORTED, is_supported};
use crate::sip::transaction::server_invite::InviteServer;
use crate::sip::transaction::{Origin, ServerKey, ServerTransaction};
use crate::time::Instant;
use crate::wire::address::is_private;
use crate::wire::sip::{Headers, Method, Request, Response, Transport};
use crate::wire::uri::{Host, SipUri, Uri};

impl Endpoint {
    /// A request whose top Via is marked already.
    pub(super) fn handle_request(&mut self, now: Instant, path: Path, request: Request) {
        // A parsed request has all that a key is made of.
        let Some(key) = server_key(&request) else { return };
        if request.method == Method::Ack {
            return self.handle_ack(now, &key, &request);
        }
        if self.is_our_own(&request.headers) {
            return self.refuse_statelessly(path, &request, &Refusal::new(482));
        }
        match self.layer.servers.find(&key) {
            Some(ServerTransaction::Invite(invite)) => return invite.handle_resent(&mut self.layer.out),
            Some(ServerTransaction::Other(other)) => return other.handle_resent(&mut self.layer.out),
            None => {}
        }
        if request.method == Method::Cancel {
            return self.handle_cancel(now, path, key, &request);
        }
        let is_in_dialog = request.headers.to().is_ok_and(|to| to.tag().is_some());
        if is_in_dialog {
            self.handle_in_dialog(now, path, key, request);
        } else {
            self.handle_out_of_dialog(now, path, key, request);
        }
    }

    fn handle_ack(&mut self, now: Instant, key: &ServerKey, ack: &Request) {
        if let Some(invite) = self.layer.servers.find_invite(key) {
            invite.handle_ack(now);
        }
        // An ACK for a 2xx has a branch of its own, but some telephones take the INVITE's.
        if let Some(call) = self.find_call(&ack.headers)
            && let Some(call) = self.calls.get_mut(&call)
        {
            call.handle_ack(now, ack, &mut self.layer);
        }
    }

    fn handle_cancel(&mut self, now: Instant, path: Path, key: ServerKey, cancel: &Request) {
        let invite_key = ServerKey { method: Method::Invite.to_string(), ..key.clone() };
        let Some(invite) = self.layer.servers.find_invite(&invite_key) else {
            return self.refuse_statelessly(path, cancel, &Refusal::new(481));
        };
        let is_proceeding = invite.is_proceeding();
        let call = self.calls.values_mut().find(|call| call.has_invite(&invite_key));
        let mut response = Response::to_request(cancel, 200, "");
        // RFC 3261 §9.2: the tag that the INVITE was, or is to be, answered with.
        match &call {
            Some(call) => response.set_to_tag(call.local_tag()),
            None => response.set_to_tag(&stateless_tag(&self.secret, &cancel.headers)),
        }
        if let Some(call) = call.filter(|_| is_proceeding) {
            call.handle_cancel(now, &mut self.layer);
        }
        self.respond(now, path, key, None, response);
    }

    fn handle_in_dialog(&mut self, now: Instant, path: Path, key: ServerKey, request: Request) {
        let Some(call_key) = self.find_call(&request.headers) else {
            return self.refuse_statelessly(path, &request, &Refusal::new(481));
        };
        if let Err(refusal) = inspect_extensions(&request) {
            return self.refuse(now, path, key, &request, &refusal);
        }
        self.admit(path);
        let Some(call) = self.calls.get_mut(&call_key) else { return };
        let number = request.headers.cseq().map_or(0, |cseq| cseq.number);
        if call.dialog().accept_cseq(number).is_err() {
            let refusal = Refusal::try_again("CSeq is lower than before", &mut self.layer.random);
            return self.refuse(now, path, key, &request, &refusal);
        }
        match &request.method {
            // The gateway has done with it and is told nothing more.
            Method::Prack | Method::Update | Method::Info if call.is_released() => {
                self.refuse(now, path, key, &request, &Refusal::new(481));
            }
            Method::Bye => {
                self.respond(now, path, key, None, Response::to_request(&request, 200, ""));
                let is_transferring = self.transfers.values().any(|transfer| transfer.of == call_key);
                if let Some(call) = self.calls.get_mut(&call_key)
                    && !(is_transferring && call.leave_to_transfer(&mut self.layer))
                {
                    call.handle_bye(now, &mut self.layer);
                }
            }
            Method::Refer => self.handle_refer(now, path, key, call_key, &request),
            Method::Invite => self.handle_reinvite(now, path, key, call_key, request),
            Method::Prack | Method::Update => {
                let layer = &mut self.layer;
                let handled = if request.method == Method::Prack {
                    call.handle_prack(now, key.clone(), request.clone(), path, layer)
                } else {
                    call.handle_update(now, key.clone(), request.clone(), path, layer)
                };
                if let Err(refusal) = handled {
                    self.refuse(now, path, key, &request, &refusal);
                }
            }
            Method::Options => self.tell_capabilities(path, &request),
            Method::Info => self.handle_info(now, path, key, call_key, &request),
            other => {
                let refusal = refuse_method(other);
                self.refuse(now, path, key, &request, &refusal);
            }
        }
    }

    fn handle_info(&mut self, now: Instant, path: Path, key: ServerKey, call: CallKey, request: &Request) {
        match info::key(&request.headers, &request.body) {
            Ok(pressed) => {
                self.respond(now, path, key, None, Response::to_request(request, 200, ""));
                if let Some(InfoKey { key, duration_ms }) = pressed {
                    self.layer.out.event(Event::Key { call, key, duration_ms });
                }
            }
            Err(refusal) => self.refuse(now, path, key, request, &refusal),
        }
    }

    fn handle_reinvite(&mut self, now: Instant, path: Path, key: ServerKey, call_key: CallKey, request: Request) {
        if self.layer.servers.is_full() {
            self.counters.overflows += 1;
            let refusal = Refusal::try_again("The gateway is full", &mut self.layer.random);
            return self.refuse_statelessly(path, &request, &refusal);
        }
        let Some(call) = self.calls.get_mut(&call_key) else { return };
        match call.handle_reinvite(key.clone(), request.clone(), path, &mut self.layer) {
            Ok(()) => self.begin_invite(now, path, key, None, &request),
            Err(refusal) => self.refuse(now, path, key, &request, &refusal),
        }
    }

    fn handle_out_of_dialog(&mut self, now: Instant, path: Path, key: ServerKey, request: Request) {
        if !self.is_admitted(&request.uri, path)
            && let Err(refusal) = self.take_guest(now, path, &request)
        {
            self.counters.strangers += 1;
            return self.refuse_statelessly(path, &request, &refusal);
        }
        match self.inspect(path, &key, &request) {
            // Nobody may fill the table with what leads nowhere: the same request again gets the same answer anyway.
            Err(refusal) if request.method != Method::Invite || self.layer.servers.is_crowded() => {
                self.refuse_statelessly(path, &request, &refusal);
            }
            Err(refusal) => self.refuse(now, path, key, &request, &refusal),
            Ok(()) if request.method == Method::Options => self.tell_capabilities(path, &request),
            Ok(()) => self.handle_invite(now, path, key, request),
        }
    }

    /// A stranger may come in who proves to know the guests' password. Methods that lead nowhere are not worth a question.
    fn take_guest(&mut self, now: Instant, path: Path, request: &Request) -> Result<(), Refusal> {
        let asks = matches!(request.method, Method::Invite | Method::Options);
        let address = path.remote.ip();
        let (got, refusal) = match self.guests.as_mut().filter(|_| asks) {
            None => (StrangerGot::Refused, Refusal::new(403)),
            Some(guests) => match guests.judge(now, address, request) {
                Verdict::Welcome => return Ok(()),
                Verdict::Challenge { is_stale } => (StrangerGot::Asked, guests.challenge(now, address, is_stale)),
                Verdict::Wrong => (StrangerGot::Mistaken, guests.challenge(now, address, false)),
                Verdict::Locked => (StrangerGot::Locked, Refusal::new(403)),
            },
        };
        // Whoever asks what we can do wants nothing of us, unless he guesses.
        let is_told = matches!(request.method, Method::Invite | Method::Register)
            || matches!(got, StrangerGot::Mistaken | StrangerGot::Locked);
        if is_told {
            self.report_stranger(now, path.remote, got);
        }
        Err(refusal)
    }

    fn handle_invite(&mut self, now: Instant, path: Path, key: ServerKey, request: Request) {
        let tag = self.layer.random.token(16);
        // A parsed request has readable headers, so only a missing Contact stands against a dialog.
        let Ok(Some(dialog)) = Dialog::from_invite(&request, &tag, path) else {
            return self.refuse(now, path, key, &request, &Refusal::because(400, "Missing Contact"));
        };
        let Some(caller) = caller(&request.headers) else { return };
        let opened = self.replaced(&request.headers).and_then(|replaces| {
            OpenInvite::new(key.clone(), request.clone(), path).map(|(invite, offer)| (invite, offer, replaces))
        });
        let (invite, offer, replaces) = match opened {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse(now, path, key, &request, &refusal),
        };
        self.admit(path);
        self.begin_invite(now, path, key, origin(&request.headers), &request);
        dialog.look_up(&mut self.layer.out);
        self.last_call += 1;
        let call_key = CallKey(self.last_call);
        let contact = self.contact(&request.uri, path);
        let call = Call::new(now, call_key, dialog, format!("<{contact}>"), own_address(path), invite);
        self.calls.insert(call_key, call);
        let local = path.local.unwrap_or(path.remote);
        // What lies behind the next hop is its affair: so it is with every telephone.
        let is_confidential = path.transport == Transport::Tls;
        let remote = path.remote;
        let event = Event::Invite { call: call_key, caller, offer, replaces, local, remote, is_confidential };
        self.layer.out.event(event);
    }

    /// The call that an INVITE takes the place of (RFC 3891 §3). Who sends it has been admitted, and knows tags that only
    /// the two ends of that call and the proxies between them have seen.
    fn replaced(&self, headers: &Headers) -> Result<Option<CallKey>, Refusal> {
        let replaces = headers.replaces().map_err(|error| Refusal::because(400, &error.to_string()))?;
        let Some(replaces) = replaces else { return Ok(None) };
        if headers.has("Join") {
            return Err(Refusal::because(400, "Replaces and Join"));
        }
        // Without a tag there stands a 0.
        let from_tag = |call: &Call| {
            let is_of = |tag: &str| call.is_of(&replaces.call_id, &replaces.to_tag, tag);
            is_of(&replaces.from_tag) || (replaces.from_tag == "0" && is_of(""))
        };
        let found = self.calls.iter().find(|(_, call)| from_tag(call)).ok_or_else(|| Refusal::new(481))?;
        found.1.may_be_replaced(replaces.is_early_only)?;
        Ok(Some(*found.0))
    }

    /// Keeps an INVITE and says so: 100.
    fn begin_invite(&mut self, now: Instant, path: Path, key: ServerKey, origin: Option<Origin>, request: &Request) {
        self.layer.servers.insert(key.clone(), ServerTransaction::Invite(InviteServer::new(path)), origin);
        self.layer.respond_invite(now, &key, Response::to_request(request, 100, ""));
    }

    /// The order of RFC 3261 §8.2: method, Request-URI, merged requests, extensions; then whether there is room.
    fn inspect(&self, path: Path, key: &ServerKey, request: &Request) -> Result<(), Refusal> {
        match &request.method {
            Method::Invite | Method::Options => {}
            // RFC 3515 lets anyone ask; we call nobody for a stranger.
            Method::Refer => return Err(Refusal::because(403, "REFER only inside a call")),
            // RFC 3261 §15.1.2, RFC 6086 §4.2.2: there is no such call.
            Method::Bye | Method::Prack | Method::Update | Method::Info => return Err(Refusal::new(481)),
            other => return Err(refuse_method(other)),
        }
        match &request.uri {
            Uri::Sip(uri) if !uri.is_secure || path.transport == Transport::Tls => {}
            Uri::Tel(_) => {}
            Uri::Sip(_) | Uri::Other(_) => return Err(Refusal::new(416)),
        }
        // RFC 4475 §3.3.11: a request that is for us is answered whatever is left. One that would have to go on, since
        // it names someone else, has come too far.
        if request.headers.max_forwards() == Ok(Some(0)) && !self.names_us(&request.uri) {
            return Err(Refusal::new(483));
        }
        if origin(&request.headers).is_some_and(|origin| self.layer.servers.has_merged(key, &origin)) {
            return Err(Refusal::because(482, "Merged Request"));
        }
        inspect_extensions(request)?;
        if !accepts_sdp(&request.headers) {
            return Err(Refusal::new(406));
        }
        self.overload().map_or(Ok(()), Err)
    }

    /// The connection of a request that belongs to a call is no stranger's.
    fn admit(&mut self, path: Path) {
        if let Some(connection) = path.connection {
            self.layer.out.connections.admit(connection);
        }
    }

    /// Whether a request has come by us before: we have sent it ourselves, so it goes round in a circle (RFC 3261 §16.3).
    fn is_our_own(&self, headers: &Headers) -> bool {
        let vias = headers.vias().unwrap_or_default();
        vias.iter().filter_map(|via| via.branch()).any(|branch| self.layer.has_sent(&branch))
    }

    /// Whether a request may come in without a password: it carries what only the registrar has from us, or comes by our own connection to
    /// the registrar or from a known address.
    fn is_admitted(&self, uri: &Uri, path: Path) -> bool {
        let address = path.remote.ip().to_canonical();
        let is_known = match &self.registration {
            None => self.guests.is_none(),
            Some(registration) => {
                uri.user().as_deref() == Some(self.token.as_str())
                    || registration.is_flow(path.connection)
                    || registration.is_registrar(address)
            }
        };
        is_known || self.config.allow.iter().any(|allowed| allowed.to_canonical() == address)
    }

    fn names_us(&self, uri: &Uri) -> bool {
        let name = |uri: &Uri| uri.phone_number().or_else(|| uri.user().map(std::borrow::Cow::into_owned));
        let named = name(uri);
        named.as_deref() == Some(self.token.as_str()) || named == name(&self.config.account.uri)
    }

    /// 200 to OPTIONS (RFC 3261 §11.2), without state.
    fn tell_capabilities(&mut self, path: Path, request: &Request) {
        let mut response = Response::to_request(request, 200, "")
            .with("Allow", ALLOW)
            .with("Accept", ACCEPT)
            .with("Accept-Encoding", "identity")
            .with("Supported", SUPPORTED);
        response.set_to_tag(&self.stateless_tag(&request.headers));
        let bytes = self.layer.encode(response);
        self.layer.out.send(path, bytes);
    }

    /// The call whose dialog these headers name.
    fn find_call(&self, headers: &Headers) -> Option<CallKey> {
        let (to, from) = (headers.to().ok()?, headers.from().ok()?);
        let (local_tag, remote_tag) = (to.tag()?, from.tag().unwrap_or_default());
        let call_id = headers.call_id().ok()?;
        self.calls.iter().find(|(_, call)| call.is_of(call_id, &local_tag, &remote_tag)).map(|(key, _)| *key)
    }

    /// Our Contact in a dialog that an INVITE for `uri` begins: what the registrar has made for those who come by it.
    pub(super) fn contact(&self, uri: &Uri, path: Path) -> SipUri {
        let is_secure = uri.as_sip().is_some_and(|uri| uri.is_secure);
        let gruu = self.registration.as_ref().and_then(|registration| {
            let is_by_it = registration.is_registrar(path.remote.ip()) || registration.is_flow(path.connection);
            registration.gruu().filter(|gruu| is_by_it && gruu.is_secure == is_secure)
        });
        if let Some(gruu) = gruu {
            return gruu.clone();
        }
        let (host, port) = self.contact_address(uri, path);
        let mut contact = SipUri::new(self.config.account.uri.user().as_deref(), host, Some(port));
        contact.is_secure = is_secure;
        if path.transport.is_reliable() {
            contact.parameters.push("transport", Some(path.transport.parameter().to_owned()));
        }
        contact
    }

    /// Our address in a dialog's Contact: the public one for those who reach us by it.
    fn contact_address(&self, uri: &Uri, path: Path) -> (Host, u16) {
        let public = self.registration.as_ref().and_then(|registration| {
            let public = registration.public()?;
            let is_by_public = uri.host().and_then(Host::address) == Some(public.ip());
            (is_by_public || registration.is_registrar(path.remote.ip())).then_some(public)
        });
        if let Some(public) = public {
            return (public.ip().into(), public.port());
        }
        let (host, port) = own_address(path);
        let is_within = host.address().is_none_or(|local| !is_private(local)) || is_private(path.remote.ip());
        match self.config.public_address {
            // Its router sends the same port on to us.
            Some(public) if !is_within => (public.into(), port),
            Some(_) | None => (host, port),
        }
    }

    /// Sends a final response, and keeps it for a resent request while there is room.
    pub(super) fn respond(
        &mut self,
        now: Instant,
        path: Path,
        key: ServerKey,
        origin: Option<Origin>,
        response: Response,
    ) {
        if !self.layer.respond(now, path, key, origin, response) {
            self.counters.overflows += 1;
        }
    }

    /// Refuses a request; an INVITE gets a transaction, so that the refusal is repeated until its ACK.
    pub(super) fn refuse(&mut self, now: Instant, path: Path, key: ServerKey, request: &Request, refusal: &Refusal) {
        let response = refusal.to_response(request, &self.stateless_tag(&request.headers));
        if request.method != Method::Invite || self.layer.servers.is_full() {
            return self.respond(now, path, key, origin(&request.headers), response);
        }
        let invite = ServerTransaction::Invite(InviteServer::new(path));
        self.layer.servers.insert(key.clone(), invite, origin(&request.headers));
        self.layer.respond_invite(now, &key, response);
    }

    /// Refuses a request and forgets it: the same request again gets the same answer (RFC 3261 §8.2.7).
    pub(super) fn refuse_statelessly(&mut self, path: Path, request: &Request, refusal: &Refusal) {
        if request.method == Method::Ack {
            return;
        }
        let response = refusal.to_response(request, &self.stateless_tag(&request.headers));
        let bytes = self.layer.encode(response);
        self.layer.out.send(path, bytes);
    }

    /// A To tag that needs no memory.
    pub(super) fn stateless_tag(&self, headers: &Headers) -> String {
        stateless_tag(&self.secret, headers)
    }
}

/// Our address as the peer of `path` reached it. (Requests come with it always.)
pub(super) fn own_address(path: Path) -> (Host, u16) {
    let local = path.local.unwrap_or(path.remote);
    (local.ip().to_canonical().into(), local.port())
}

fn stateless_tag(secret: &str, headers: &Headers) -> String {
    let part = |name| headers.get(name).unwrap_or_default();
    let text = format!("{secret}\n{}\n{}\n{}", part("Call-ID"), part("From"), part("CSeq"));
    hexadecimal(&Sha256::digest(text)[..8])
}

/// Extensions that a request depends on and that we do not know (RFC 3261 §8.2.2.3).
fn inspect_extensions(request: &Request) -> Result<(), Refusal> {
    let unknown: Vec<_> = request.headers.require().filter(|extension| !is_supported(extension)).collect();
    if unknown.is_empty() { Ok(()) } else { Err(Refusal::new(420).with("Unsupported", unknown.join(", "))) }
}

/// Whether the answer may be a session description (RFC 3261 §20.1; RFC 4475 §3.3.15). An empty Accept takes nothing,
/// a missing one takes SDP.
fn accepts_sdp(headers: &Headers) -> bool {
    let takes = |range: &str| {
        let range = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        matches!(range.as_str(), "application/sdp" | "application/*" | "*/*" | "*")
    };
    !headers.has("Accept") || headers.values("Accept").any(takes)
}

/// 405 for what exists, 501 for what we never heard of (RFC 3261 §8.2.1, §21.5.2).
fn refuse_method(method: &Method) -> Refusal {
    let status = if matches!(method, Method::Other(_)) { 501 } else { 405 };
    Refusal::new(status).with("Allow", ALLOW)
}

fn origin(headers: &Headers) -> Option<Origin> {
    Some(Origin {
        from_tag: headers.from().ok()?.tag()?.into_owned(),
        call_id: headers.call_id().ok()?.to_owned(),
        cseq: headers.cseq().ok()?.number,
    })
}

/// RFC 3261 §17.2.3. Before that RFC a request was identified by all of its own headers.
fn server_key(request: &Request) -> Option<ServerKey> {
    let headers = &request.headers;
    let via = headers.via().ok()?;
    let branch = match via.unique_branch() {
        Some(branch) => branch.into_owned(),
        None => {
            let from = headers.from().ok()?;
            let (call_id, number) = (headers.call_id().ok()?, headers.cseq().ok()?.number);
            format!("{} {} {number} {call_id} {via}", request.uri, from.tag().unwrap_or_default())
        }
    };
    let method = if request.method == Method::Ack { Method::Invite } else { request.method.clone() };
    let sent_by = format!("{}:{}", via.host, via.port_or_default()).to_ascii_lowercase();
    Some(ServerKey { branch, sent_by, method: method.to_string() })
}

/// Who calls, by From alone.
fn caller(headers: &Headers) -> Option<Caller> {
    let from = headers.from().ok()?;
    Some(Caller {
        user: from.uri.phone_number().or_else(|| from.uri.user().map(std::borrow::Cow::into_owned)),
        host: from.uri.host().map(ToString::to_string),
        uri: from.uri.to_string(),
        display_name: from.display_name,
    })
}
