//! What the SIP side tells the gateway: new calls, new offers, hang-ups, the state of the registration.

use std::net::IpAddr;
use std::time::Duration;

use super::Gateway;
use super::call::Call;
use super::desk::LegOwner;
use super::encryption::Encryption;
use super::event::{MemberKey, Output, Sockets};
use super::formats::Formats;
use super::refusal::CallFailure;
use super::telephone::TelephoneLeg;
use crate::galene::name::WantedName;
use crate::media::control::{CallerKey, KeyForm, KeyPress};
use crate::sip::event::{self as sip, CallKey, Caller, EndReason, Event, StrangerGot};
use crate::time::Instant;

/// The way that an INVITE came.
#[derive(Clone, Copy)]
struct CallPath {
    local: IpAddr,
    remote: IpAddr,
    /// Nobody between reads it.
    is_confidential: bool,
}

impl<S: Sockets> Gateway<S> {
    /// Handles all that the SIP endpoint has to say; true if there was anything.
    pub(super) fn drain_sip(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(output) = self.desk.sip.poll_output() {
            any = true;
            match output {
                sip::Output::Send { local, remote, bytes } => {
                    self.desk.outputs.push_back(Output::SendSip { local, remote, bytes });
                }
                sip::Output::Connection(command) => self.desk.outputs.push_back(Output::SipConnection(command)),
                sip::Output::Resolve(target) => self.desk.outputs.push_back(Output::Resolve(target)),
                sip::Output::Passed(passed) => {
                    self.ladders.on_passed(now, &passed);
                    self.desk.outputs.push_back(Output::Passed(passed));
                }
                sip::Output::Event(event) => self.on_sip(now, event),
            }
        }
        any
    }

    fn on_sip(&mut self, now: Instant, event: Event) {
        match event {
            Event::Invite { call, caller, offer, replaces, local, remote, is_confidential } => {
                let title = title(call, &caller);
                tracing::info!("{title}: calls from {remote}");
                self.ladders.begin(now, call, &title);
                let path = CallPath { local: local.ip(), remote: remote.ip(), is_confidential };
                let taken = match replaces {
                    Some(former) => self.on_replacement(now, call, former, offer.as_deref(), path),
                    None => self.on_invite(now, call, &caller, title.clone(), offer.as_deref(), path),
                };
                if let Err(failure) = taken {
                    tracing::warn!("{title}: {}", failure.explain());
                    self.desk.sip.reject(now, call, &failure.rejection());
                }
            }
            Event::Offer { call, sdp } => self.on_reinvite(now, call, sdp.as_deref()),
            Event::Answer { call, sdp } => self.on_delayed_answer(now, call, &sdp),
            Event::Transfer { call, target } => self.on_transfer(now, call, &target),
            Event::Parted { call } => {
                if let Some(call) = self.calls.get(&call) {
                    call.silence_telephone(&mut self.desk);
                }
            }
            Event::Transferred { call, sdp } => self.on_transferred(now, call, &sdp),
            Event::TransferFailed { call, status } => {
                if let Some(call) = self.calls.get_mut(&call) {
                    call.next_telephone = None;
                    tracing::info!("{}: the transfer failed with {status}", call.title);
                }
            }
            Event::Key { call, key, duration_ms } => {
                if let Some(call) = self.calls.get(&call) {
                    call.on_key(&KeyPress { key, form: KeyForm::Info, duration_ms });
                }
            }
            Event::Acknowledged { call } => tracing::debug!("call {}: acknowledged", call.0),
            Event::Ended { call, why } => {
                if let Some(ended) = self.calls.get(&call) {
                    tracing::info!("{}: {}", ended.title, in_words(why));
                }
                self.forget_call(now, call);
            }
            Event::Registered { expires_s, public } => {
                self.desk.registration_failure = None;
                let before = self.desk.registered.replace(public);
                if before != Some(public) {
                    let public = public.map_or_else(String::new, |public| format!("; our public address is {public}"));
                    tracing::info!("registered for {expires_s} s{public}");
                }
                self.move_stranded(now);
            }
            Event::RegistrationFailed { text, retry_in } => {
                self.desk.registered = None;
                self.tell_failed_registration(&text, retry_in);
            }
            Event::Unregistered => tracing::info!("unregistered"),
            Event::Stranger { remote, got } => tell_of_stranger(remote.ip().to_canonical(), got),
        }
    }

    /// The same failure is told once; its repetitions, every 20 s for perhaps a night, show with `-debug` alone.
    fn tell_failed_registration(&mut self, text: &str, retry_in: Duration) {
        let text = text.trim_end_matches('.');
        let retry_in_s = retry_in.as_secs() + 1;
        if self.desk.registration_failure.as_deref() == Some(text) {
            tracing::debug!("not registered: {text} (next attempt within {retry_in_s} s)");
        } else {
            tracing::error!("not registered: {text} (next attempt within {retry_in_s} s, and so on)");
            self.desk.registration_failure = Some(text.to_owned());
        }
    }

    fn on_invite(
        &mut self,
        now: Instant,
        key: CallKey,
        caller: &Caller,
        title: String,
        offer: Option<&[u8]>,
        path: CallPath,
    ) -> Result<(), CallFailure> {
        if self.stop_by.is_some() || self.drain_until.is_some() {
            return Err(CallFailure::ShuttingDown);
        }
        let of_this_caller = self.calls.values().filter(|call| call.uri == caller.uri).count();
        self.admission.admit(self.calls.len(), of_this_caller)?;
        let telephone = self.open_telephone(now, key, offer, path)?;
        let desk = &mut self.desk;
        let name = match &desk.config.username {
            Some(name) => WantedName::fixed(name),
            None => WantedName::of_caller(caller.display_name.as_deref(), caller.user.as_deref()),
        };
        let member = desk.new_member(now, MemberKey { call: key, nth: 0 }, name.clone(), None);
        desk.own_ids.insert(member.client.id().to_owned(), None);
        desk.sip.ring(now, key);
        let key_in_mix = CallerKey(desk.new_key());
        self.calls.insert(key, Call::new(now, key_in_mix, (title, caller.uri.clone()), (member, name), telephone));
        Ok(())
    }

    /// Settles the telephone's codec and binds its sockets at the address that was called.
    fn open_telephone(
        &mut self,
        now: Instant,
        key: CallKey,
        offer: Option<&[u8]>,
        path: CallPath,
    ) -> Result<TelephoneLeg, CallFailure> {
        let desk = &mut self.desk;
        let leg = desk.new_leg(LegOwner::Telephone(key));
        let formats = Formats::new(desk.config.codecs.as_deref());
        let may_tell_keys = desk.may_tell_keys(path.is_confidential);
        let encryption = Encryption::new(
            desk.config.srtp,
            may_tell_keys,
            desk.identity.fingerprint().to_string(),
            desk.random.fork(),
        );
        let opened = desk.sockets.open_telephone(now, leg, path.local).map_err(CallFailure::from).and_then(|local| {
            let address = desk.address_for(path.local, path.remote);
            let mut telephone =
                TelephoneLeg::new(leg, local, (address, path.remote), (formats, encryption), &mut desk.random);
            match offer {
                Some(offer) => telephone.answer(offer)?,
                None => telephone.offer(),
            }
            Ok(telephone)
        });
        if opened.is_err() {
            desk.close_leg(leg);
        }
        opened
    }

    /// Another telephone takes a call over (RFC 3891): the caller's membership and its place in the mix stay.
    fn on_replacement(
        &mut self,
        now: Instant,
        key: CallKey,
        former: CallKey,
        offer: Option<&[u8]>,
        path: CallPath,
    ) -> Result<(), CallFailure> {
        let address = self.desk.address_for(path.local, path.remote);
        let may_tell_keys = self.desk.may_tell_keys(path.is_confidential);
        let call = self.calls.get_mut(&former).ok_or(CallFailure::NoSuchCall)?;
        // The sockets are bound to the address that was called first.
        if call.telephone.local_ip() != path.local {
            return Err(CallFailure::NoSuchCall);
        }
        call.telephone.change_hands((address, path.remote), may_tell_keys, offer)?;
        let sdp = call.telephone.local_description().to_owned();
        self.desk.sip.take_over(now, key, former, sdp);
        tracing::info!("{}: taken over by call {} from {}", call.title, key.0, path.remote);
        // The dialog is the former call's from now on.
        if let Err(failure) = call.apply_telephone(now, &mut self.desk) {
            self.end_call(now, former, &failure);
        }
        Ok(())
    }

    /// A re-INVITE: a bad one is refused and the call goes on as it was (RFC 3261 §14.2).
    fn on_reinvite(&mut self, now: Instant, key: CallKey, sdp: Option<&[u8]>) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let settled = match sdp {
            Some(offer) => call.telephone.answer(offer),
            None => {
                call.telephone.offer();
                Ok(())
            }
        };
        match settled {
            Ok(()) => {
                let description = call.telephone.local_description().to_owned();
                self.desk.sip.accept_offer(now, key, description);
                tracing::debug!("{}: {:?}", call.title, call.telephone.settings().telephone);
                if let Err(failure) = call.apply_telephone(now, &mut self.desk) {
                    self.end_call(now, key, &failure);
                }
            }
            Err(failure) => {
                tracing::info!("{}: a change of the call is refused: {}", call.title, failure.explain());
                self.desk.sip.refuse_offer(now, key, &failure.rejection());
            }
        }
    }

    /// The telephone hands its caller on (REFER): another one is offered the same end of ours.
    fn on_transfer(&mut self, now: Instant, key: CallKey, target: &str) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        tracing::info!("{}: is transferred to {target}", call.title);
        // Which way the call to the target goes is not known before it goes.
        let next = call.telephone.for_another(self.desk.may_tell_keys(false));
        self.desk.sip.place(now, key, next.local_description().to_owned());
        call.next_telephone = Some(next);
    }

    /// The target has answered: it is the caller's telephone from now on; membership and place in the mix stay.
    fn on_transferred(&mut self, now: Instant, key: CallKey, sdp: &[u8]) {
        let Some(call) = self.calls.get_mut(&key) else { return self.desk.sip.hang_up(now, key, "") };
        let Some(mut next) = call.next_telephone.take() else { return };
        let applied = next.take_answer(sdp).and_then(|()| {
            call.telephone = next;
            call.apply_telephone(now, &mut self.desk)
        });
        match applied {
            Ok(()) => tracing::info!("{}: transferred", call.title),
            Err(failure) => self.end_call(now, key, &failure),
        }
    }

    fn on_delayed_answer(&mut self, now: Instant, key: CallKey, sdp: &[u8]) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let applied = call.telephone.take_answer(sdp).and_then(|()| call.apply_telephone(now, &mut self.desk));
        if let Err(failure) = applied {
            self.end_call(now, key, &failure);
        }
    }
}

/// `stranger ADDRESS refused: ` at the beginning of a line is a promise to fail2ban: tools/fail2ban/filter.d/galene-sip.conf
/// and README.md tell of it. Nothing that a stranger has written may stand in it.
fn tell_of_stranger(ip: IpAddr, got: StrangerGot) {
    let remedy = "if it is your provider's address, add -sip-allow";
    match got {
        StrangerGot::Asked => tracing::info!("stranger {ip} was asked for the guests' password: {remedy} {ip}"),
        StrangerGot::Refused => {
            tracing::warn!("stranger {ip} refused: neither the registrar nor let in by a flag: {remedy} {ip}");
        }
        StrangerGot::Mistaken => tracing::warn!("stranger {ip} refused: a wrong answer for the guests' password"),
        StrangerGot::Locked => tracing::warn!("stranger {ip} refused: too many wrong answers, locked out"),
    }
}

/// How log lines name a call.
fn title(call: CallKey, caller: &Caller) -> String {
    let user = caller.user.as_deref().unwrap_or("unknown number");
    let shown: String = match &caller.display_name {
        Some(name) => format!("{name} <{user}>"),
        None => user.to_owned(),
    };
    let shown: String = shown.chars().filter(|c| !c.is_control()).take(80).collect();
    format!("call {} ({shown})", call.0)
}

const fn in_words(why: EndReason) -> &'static str {
    match why {
        EndReason::Bye => "the caller hung up",
        EndReason::Cancelled => "the caller gave up before the answer",
        EndReason::NoAck => "the telephone never acknowledged the answer: check that packets reach it",
        EndReason::NoAnswer => "the telephone never answered our offer",
        EndReason::NoPrack => "the telephone never acknowledged a provisional response: check that packets reach it",
        EndReason::Silent => {
            "the telephone has vanished: no media came from it, and it does not know the call or does not answer"
        }
        EndReason::Lapsed => "the telephone has vanished: it did not refresh the session, or denied the call",
        EndReason::ShutDown => "ended by our shutting down",
    }
}
