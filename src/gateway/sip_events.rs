//! What the SIP side tells the gateway: new calls, new offers, hang-ups, the state of the registration.

use std::net::IpAddr;
use std::time::Duration;

use super::call::Call;
use super::desk::LegOwner;
use super::event::{Output, Sockets};
use super::refusal::CallFailure;
use super::telephone::TelephoneLeg;
use super::{Gateway, MAX_CALLS};
use crate::galene::name::WantedName;
use crate::media::control::CallerKey;
use crate::sip::event::{self as sip, CallKey, Caller, EndReason, Event};
use crate::time::Instant;

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
            Event::Invite { call, caller, offer, local, remote } => {
                let title = title(call, &caller);
                tracing::info!("{title}: calls from {remote}");
                self.ladders.begin(now, call, &title);
                let path = (local.ip(), remote.ip());
                if let Err(failure) = self.on_invite(now, call, &caller, title.clone(), offer.as_deref(), path) {
                    tracing::warn!("{title}: {}", failure.explain());
                    self.desk.sip.reject(now, call, &failure.rejection());
                }
            }
            Event::Offer { call, sdp } => self.on_reinvite(now, call, sdp.as_deref()),
            Event::Answer { call, sdp } => self.on_delayed_answer(now, call, &sdp),
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
            }
            Event::RegistrationFailed { text, retry_in } => {
                self.desk.registered = None;
                self.tell_failed_registration(&text, retry_in);
            }
            Event::Unregistered => tracing::info!("unregistered"),
            Event::Stranger { remote, is_asked } => {
                let ip = remote.ip();
                let what = if is_asked { "asked for the guests' password" } else { "refused" };
                tracing::warn!(
                    "{what}: a call from {ip}, which is not the registrar: if it is your provider's, add -sip-allow {ip}"
                );
            }
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
        path: (IpAddr, IpAddr),
    ) -> Result<(), CallFailure> {
        if self.stop_by.is_some() {
            return Err(CallFailure::ShuttingDown);
        }
        if self.calls.len() >= MAX_CALLS {
            return Err(CallFailure::GatewayFull);
        }
        let telephone = self.open_telephone(now, key, offer, path)?;
        let desk = &mut self.desk;
        let name = match &desk.config.username {
            Some(name) => WantedName::fixed(name),
            None => WantedName::of_caller(caller.display_name.as_deref(), caller.user.as_deref()),
        };
        let client = desk.new_client(now, name);
        desk.own_ids.insert(client.id().to_owned(), None);
        desk.sip.ring(now, key);
        let caller = CallerKey(desk.new_key());
        self.calls.insert(key, Call::new(now, key, caller, title, client, telephone));
        Ok(())
    }

    /// Settles the telephone's codec and binds its sockets at the address that was called.
    fn open_telephone(
        &mut self,
        now: Instant,
        key: CallKey,
        offer: Option<&[u8]>,
        (ip, caller): (IpAddr, IpAddr),
    ) -> Result<TelephoneLeg, CallFailure> {
        let desk = &mut self.desk;
        let leg = desk.new_leg(LegOwner::Telephone(key));
        let opened = desk.sockets.open_telephone(now, leg, ip).map_err(CallFailure::from).and_then(|local| {
            let mut telephone = TelephoneLeg::new(leg, local, desk.address_for(ip, caller), &mut desk.random);
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
                call.apply_telephone(&mut self.desk);
                tracing::debug!("{}: {:?}", call.title, call.telephone.settings().telephone);
            }
            Err(failure) => {
                tracing::info!("{}: a change of the call is refused: {}", call.title, failure.explain());
                self.desk.sip.refuse_offer(now, key, &failure.rejection());
            }
        }
    }

    fn on_delayed_answer(&mut self, now: Instant, key: CallKey, sdp: &[u8]) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        match call.telephone.take_answer(sdp) {
            Ok(()) => call.apply_telephone(&mut self.desk),
            Err(failure) => self.end_call(now, key, &failure),
        }
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
        EndReason::ShutDown => "ended by our shutting down",
    }
}
