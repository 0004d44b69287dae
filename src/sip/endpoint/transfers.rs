//! REFER inside a call (RFC 3515): the caller's telephone hands its caller on to another one, and we call that one.
//!
//! The caller's key stays the same, so that the gateway keeps its membership: when the target answers, the new dialog gets
//! the key, and the former one waits for the transferor's BYE under another. A transferor that hangs up first (a blind
//! transfer) leaves the call without a telephone until the target answers or the transfer fails.

use super::{Endpoint, MAX_CALLS};
use crate::sip::body::session_description;
use crate::sip::call::Call;
use crate::sip::dialog::Dialog;
use crate::sip::event::{CallKey, EndReason, Event, Path, Route, Target};
use crate::sip::layer::{Outcome, Owner};
use crate::sip::reply::Refusal;
use crate::sip::transaction::ServerKey;
use crate::sip::transfer::{Caller, State, TRANSFER_LIMIT, Transfer};
use crate::time::Instant;
use crate::wire::sip::{Method, NameAddr, Request, Response, reason_phrase};
use crate::wire::uri::Host;

impl Endpoint {
    /// Calls the target that [`Event::Transfer`] named, with this offer.
    pub fn place(&mut self, now: Instant, call: CallKey, sdp: Vec<u8>) {
        let is_offering = |transfer: &Transfer| transfer.of == call && matches!(transfer.state, State::Offering);
        let found = self.transfers.iter_mut().find(|(_, transfer)| is_offering(transfer));
        let Some((key, transfer)) = found else { return };
        let key = *key;
        let uri = &transfer.refer_to.target;
        let (host, target) = (uri.host.clone(), Target::of(uri));
        // Whoever is called in the registrar's domain is reached by the registrar.
        let known = self.registration.as_ref().and_then(|registration| registration.route());
        if let Some(route) = known.filter(|_| self.is_of_our_domain(&host)) {
            return self.send_transfer(now, key, route, sdp);
        }
        let Some(target) = target else { return self.fail_transfer(now, key, 503) };
        let Some(transfer) = self.transfers.get_mut(&key) else { return };
        transfer.resolve(now, target.clone(), sdp);
        self.layer.out.resolve(target);
    }

    /// The target that [`Event::Transfer`] named cannot be called; the transferor hears of this status.
    pub fn give_up_transfer(&mut self, now: Instant, call: CallKey, status: u16) {
        let found = self.transfers.iter().find(|(_, transfer)| transfer.of == call);
        if let Some(key) = found.map(|(key, _)| *key) {
            self.fail_transfer(now, key, status);
        }
    }

    pub(super) fn handle_refer(&mut self, now: Instant, path: Path, key: ServerKey, call: CallKey, refer: &Request) {
        let transfer = match self.transfer_of(call, refer) {
            Ok(transfer) => transfer,
            Err(refusal) => return self.refuse(now, path, key, refer, &refusal),
        };
        let mut response = Response::to_request(refer, 202, "");
        if transfer.subscription.is_none() {
            response.headers.push("Refer-Sub", "false");
        }
        self.respond(now, path, key, None, response);
        let target = transfer.refer_to.target.to_string();
        self.last_call += 1;
        let transfer_key = CallKey(self.last_call);
        self.transfers.insert(transfer_key, transfer);
        self.tell(now, transfer_key, 100);
        self.layer.out.event(Event::Transfer { call, target });
    }

    /// What a REFER asks for, if we do that.
    fn transfer_of(&mut self, key: CallKey, refer: &Request) -> Result<Transfer, Refusal> {
        let refer_to = refer.headers.refer_to().map_err(|error| Refusal::because(400, &error.to_string()))?;
        let call = self.calls.get_mut(&key).ok_or_else(|| Refusal::new(481))?;
        if self.transfers.values().any(|transfer| transfer.of == key) || !call.is_confirmed() {
            return Err(Refusal::because(491, "The call is not settled"));
        }
        let count = call.count_refer();
        let is_allowed = self.config.refer_anywhere || self.is_of_our_domain(&refer_to.target.host);
        if !is_allowed || refer_to.target.is_secure {
            return Err(Refusal::because(403, "REFER only within the registrar's domain"));
        }
        let number = refer.headers.cseq().map_or(0, |cseq| cseq.number);
        // RFC 3515 §2.4.6: the second and later ones are told apart.
        let event = if count == 1 { "refer".to_owned() } else { format!("refer;id={number}") };
        let subscription = (!refer.headers.declines_refer_subscription()).then_some(event);
        Ok(Transfer::new(key, refer, refer_to, subscription))
    }

    fn is_of_our_domain(&self, host: &Host) -> bool {
        let is_registrar = |registration: &crate::sip::registration::Registration| {
            registration.is_called(&host.to_string()) || host.address().is_some_and(|ip| registration.is_registrar(ip))
        };
        self.config.account.uri.host() == Some(host) || self.registration.as_ref().is_some_and(is_registrar)
    }

    /// A name was looked up.
    pub(super) fn resolve_transfers(&mut self, now: Instant, target: &Target, route: Option<Route>) {
        for key in self.transfers.keys().copied().collect::<Vec<_>>() {
            let Some(sdp) = self.transfers.get_mut(&key).and_then(|transfer| transfer.take_offer(target)) else {
                continue;
            };
            match route {
                Some(route) => self.send_transfer(now, key, route, sdp),
                // RFC 3263 §4.3 takes a name without address for a 503.
                None => self.fail_transfer(now, key, 503),
            }
        }
    }

    fn send_transfer(&mut self, now: Instant, key: CallKey, route: Route, sdp: Vec<u8>) {
        let Some(transfer) = self.transfers.get_mut(&key) else { return };
        let Some(call) = self.calls.get(&transfer.of) else {
            self.transfers.remove(&key);
            return;
        };
        let from = NameAddr::new(self.config.account.uri.clone()).with_tag(&self.layer.random.token(16));
        let call_id = self.layer.random.token(24);
        let registration = self.registration.as_ref();
        let by_registrar = registration.filter(|registration| registration.route() == Some(route));
        let service_route = by_registrar.map_or(&[][..], |registration| registration.service_route());
        let caller = Caller { from, contact: call.contact(), call_id: &call_id, service_route };
        let local = self.config.local.iter().find(|local| local.is_ipv4() == route.remote.is_ipv4());
        let local = local.copied().filter(|local| !local.ip().is_unspecified());
        let connection = registration.and_then(|registration| registration.connection_to(route));
        let path = Path { transport: route.transport, local, remote: route.remote, connection };
        let request = transfer.invite(now, &caller, path, sdp);
        self.layer.request(now, Owner::Transfer(key), path, call.sent_by(), request);
    }

    /// What became of an INVITE of ours to a target.
    pub(super) fn handle_transfer_outcome(&mut self, now: Instant, key: CallKey, outcome: &Outcome<'_>) {
        let Some(transfer) = self.transfers.get_mut(&key) else {
            if let Outcome::Response(response) = outcome {
                self.handle_late_answer(now, response);
            }
            return;
        };
        match (&mut transfer.state, outcome) {
            (State::Cancelling { is_sent, .. }, Outcome::Response(response)) if response.is_provisional() => {
                *is_sent = *is_sent || self.layer.cancel(now, Owner::Transfer(key));
            }
            (State::Cancelling { .. }, Outcome::Response(response)) => {
                let is_answer = response.is_success();
                self.transfers.remove(&key);
                if is_answer {
                    self.handle_late_answer(now, response);
                }
            }
            (State::Cancelling { .. }, Outcome::Timeout) => {
                self.transfers.remove(&key);
            }
            (_, Outcome::Response(response)) if response.is_provisional() => self.tell(now, key, response.status),
            (State::Calling(_), Outcome::Response(response)) if response.is_success() => {
                self.complete_transfer(now, key, response);
            }
            (State::Calling(_), Outcome::Response(response)) if matches!(response.status, 401 | 407) => {
                if !self.authorize_transfer(now, key, response) {
                    self.fail_transfer(now, key, response.status);
                }
            }
            (_, Outcome::Response(response)) => self.fail_transfer(now, key, response.status),
            (_, Outcome::Timeout) => self.fail_transfer(now, key, 408),
        }
    }

    /// The registrar's proxy challenges our call as it does any other.
    fn authorize_transfer(&mut self, now: Instant, key: CallKey, response: &Response) -> bool {
        let Some(registration) = &self.registration else { return false };
        let Some(transfer) = self.transfers.get_mut(&key) else { return false };
        let State::Calling(attempt) = &mut transfer.state else { return false };
        let Some(call) = self.calls.get(&transfer.of).filter(|_| !attempt.has_authorized) else { return false };
        let number = attempt.request.headers.cseq().map_or(1, |cseq| cseq.number) + 1;
        let mut request = attempt.request.clone();
        request.headers.set("CSeq", format!("{number} INVITE"));
        let hop = attempt.path.remote.ip();
        let credentials = |realm: &str, hop| registration.credentials_for(realm, hop);
        if !crate::sip::auth::authorize(response, hop, &mut request, credentials, &mut self.layer.random) {
            return false;
        }
        attempt.has_authorized = true;
        attempt.request = request.clone();
        self.layer.request(now, Owner::Transfer(key), attempt.path, call.sent_by(), request);
        true
    }

    /// The target has answered: the caller is there from now on.
    fn complete_transfer(&mut self, now: Instant, key: CallKey, response: &Response) {
        let Some(transfer) = self.transfers.get(&key) else { return };
        let (of, State::Calling(attempt)) = (transfer.of, &transfer.state) else { return };
        let Some(former) = self.calls.get(&of).filter(|former| !former.is_released()) else {
            self.transfers.remove(&key);
            return self.handle_late_answer(now, response);
        };
        let dialog = Dialog::from_answer(&attempt.request, response, attempt.path);
        let answer = session_description(&response.headers, &response.body);
        let (Some(dialog), Ok(Some(sdp))) = (dialog, answer) else {
            self.handle_late_answer(now, response);
            return self.fail_transfer(now, key, 502);
        };
        dialog.look_up(&mut self.layer.out);
        let (contact, sent_by) = (former.contact().to_owned(), former.sent_by());
        let description = attempt.request.body.clone();
        let mut taker = Call::of_answer(of, dialog, contact, sent_by, description);
        taker.acknowledge(now, response, &mut self.layer);
        self.tell(now, key, response.status);
        self.transfers.remove(&key);
        self.layer.exchange_calls(key, of);
        if let Some(mut former) = self.calls.insert(of, taker) {
            former.rename(key);
            former.part(now);
            self.calls.insert(key, former);
        }
        self.layer.out.event(Event::Transferred { call: of, sdp });
    }

    /// A 2xx that is not, or no longer, the one we wait for: a copy, that of another branch of a forked call, or of one that
    /// was cancelled (RFC 3261 §13.2.2.4). Each is acknowledged; the surplus ones are ended.
    fn handle_late_answer(&mut self, now: Instant, response: &Response) {
        let headers = &response.headers;
        let (Ok(from), Ok(to), Ok(call_id)) = (headers.from(), headers.to(), headers.call_id()) else { return };
        let (local_tag, remote_tag) = (from.tag().unwrap_or_default(), to.tag().unwrap_or_default());
        if let Some(call) = self.calls.values().find(|call| call.is_of(call_id, &local_tag, &remote_tag)) {
            return call.acknowledge_again(&mut self.layer);
        }
        // Whoever answers with ever new tags fills no table.
        if self.calls.len() >= MAX_CALLS {
            self.counters.overflows += 1;
            return;
        }
        let Some(sent_by) = headers.via().ok().map(|via| (via.host.clone(), via.port_or_default())) else { return };
        let Some(remote) = self.layer.path_of(response) else { return };
        let request = Request::new(Method::Invite, from.uri.clone());
        let Some(dialog) = Dialog::from_answer(&request, response, remote) else { return };
        self.last_call += 1;
        let key = CallKey(self.last_call);
        let mut surplus = Call::of_answer(key, dialog, String::new(), sent_by, Vec::new());
        surplus.acknowledge(now, response, &mut self.layer);
        surplus.hang_up(now, "", &mut self.layer);
        self.calls.insert(key, surplus);
    }

    fn fail_transfer(&mut self, now: Instant, key: CallKey, status: u16) {
        self.tell(now, key, status.max(300));
        let Some(transfer) = self.transfers.remove(&key) else { return };
        // A call may have ended at this very moment, and then nothing more is told of it.
        let Some(call) = self.calls.get_mut(&transfer.of).filter(|call| !call.is_released()) else { return };
        self.layer.out.event(Event::TransferFailed { call: transfer.of, status });
        call.lose_transfer(EndReason::Bye, &mut self.layer);
    }

    /// NOTIFY with the target's answer so far (RFC 3515 §2.4.5), each status once.
    fn tell(&mut self, now: Instant, key: CallKey, status: u16) {
        let Some(transfer) = self.transfers.get_mut(&key) else { return };
        let is_first = status == 100 && transfer.told == 100 && matches!(transfer.state, State::Offering);
        if transfer.told == status && !is_first {
            return;
        }
        transfer.told = status;
        let (Some(event), Some(call)) = (transfer.subscription.clone(), self.calls.get_mut(&transfer.of)) else {
            return;
        };
        let state = if status < 200 {
            format!("active;expires={}", TRANSFER_LIMIT.as_secs())
        } else {
            "terminated;reason=noresource".to_owned()
        };
        let fragment = format!("SIP/2.0 {status} {}\r\n", reason_phrase(status));
        call.notify(now, &event, &state, fragment, &mut self.layer);
    }

    /// The caller is gone: nobody is called for it any longer.
    pub(super) fn cancel_transfers(&mut self, now: Instant, call: CallKey) {
        let of_call = |(key, transfer): (&CallKey, &Transfer)| (transfer.of == call).then_some(*key);
        for key in self.transfers.iter().filter_map(of_call).collect::<Vec<_>>() {
            let Some(transfer) = self.transfers.remove(&key) else { continue };
            if let State::Calling(_) = transfer.state {
                let is_sent = self.layer.cancel(now, Owner::Transfer(key));
                self.transfers.insert(key, transfer.cancelled(now, is_sent));
            }
        }
    }

    /// Gives up what takes too long.
    pub(super) fn run_transfers(&mut self, now: Instant) {
        // Calls that have just ended, at the same moment perhaps, have no transfers any more that could fail.
        self.forget_orphans(now);
        let late = self.transfers.iter().filter(|(_, transfer)| transfer.is_late(now));
        for key in late.map(|(key, _)| *key).collect::<Vec<_>>() {
            let Some(transfer) = self.transfers.get(&key) else { continue };
            match &transfer.state {
                State::Cancelling { .. } => {
                    self.transfers.remove(&key);
                }
                State::Calling(_) => {
                    let of = transfer.of;
                    self.tell(now, key, 408);
                    self.cancel_transfers(now, of);
                    if let Some(call) = self.calls.get_mut(&of) {
                        self.layer.out.event(Event::TransferFailed { call: of, status: 408 });
                        call.lose_transfer(EndReason::Bye, &mut self.layer);
                    }
                }
                State::Offering | State::Resolving { .. } => self.fail_transfer(now, key, 408),
            }
        }
        self.forget_orphans(now);
    }

    /// Ends the transfers of calls that are over.
    pub(super) fn forget_orphans(&mut self, now: Instant) {
        let orphans = self
            .transfers
            .values()
            .map(|transfer| transfer.of)
            .filter(|of| *of != CallKey(0) && self.calls.get(of).is_none_or(Call::is_released));
        for of in orphans.collect::<Vec<_>>() {
            self.cancel_transfers(now, of);
        }
    }
}
