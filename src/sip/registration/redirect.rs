//! A registrar that sends us on to another one (RFC 3261 §8.1.3.4, §21.3).
//!
//! Owns: where to, each host once. The other one stays ours until it fails; then the configured one is asked again.

use super::Registration;
use super::failure::Failure;
use crate::sip::event::Target;
use crate::sip::layer::TransactionLayer;
use crate::time::Instant;
use crate::wire::sip::{Contacts, Response};
use crate::wire::uri::SipUri;

/// Hosts that one attempt may be sent on to.
const MAX_FOLLOWED: usize = 4;

/// Where a registrar has sent us.
#[derive(Debug, Default)]
pub(super) struct Redirect {
    to: Option<(Target, SipUri)>,
    followed: Vec<String>,
}

impl Redirect {
    /// Whether the configured registrar is not the one that is spoken to.
    pub(super) const fn is_elsewhere(&self) -> bool {
        self.to.is_some()
    }

    /// The Request-URI there.
    pub(super) fn uri(&self) -> Option<&SipUri> {
        self.to.as_ref().map(|(_, uri)| uri)
    }

    /// A REGISTER was granted: what comes later is another attempt.
    pub(super) fn settle(&mut self) {
        self.followed.clear();
    }
}

impl Registration {
    /// The server that is spoken to. A proxy of ours stays between us and wherever we are sent.
    pub(super) fn target(&self) -> &Target {
        let elsewhere = self.redirect.to.as_ref().filter(|_| self.registrar.proxy.is_none());
        elsewhere.map_or(&self.registrar.target, |(target, _)| target)
    }

    /// A 301 or 302: the same with the host that it names, without any digest made for the one before.
    pub(super) fn follow(&mut self, now: Instant, response: &Response, layer: &mut TransactionLayer) {
        let Some((target, uri)) = self.redirection(response) else {
            return self.fail(now, Failure::from_response(response), layer);
        };
        self.drop_failed(layer);
        self.authorizers = [None, None];
        self.redirect.followed.push(target.host.to_ascii_lowercase());
        self.redirect.to = Some((target, uri));
        self.has_failed = true;
        self.resolve(now, layer);
    }

    /// Where a response sends us, if we go there.
    fn redirection(&self, response: &Response) -> Option<(Target, SipUri)> {
        let Ok(Contacts::List(contacts)) = response.headers.contacts() else { return None };
        let is_secure = self.account.uri.as_sip().is_some_and(|uri| uri.is_secure) || self.registrar.target.is_secure;
        contacts.iter().find_map(|contact| {
            let uri = contact.uri.as_sip()?;
            let target = Target::of(uri)?;
            let host = target.host.to_ascii_lowercase();
            let is_new =
                host != self.registrar.target.host.to_ascii_lowercase() && !self.redirect.followed.contains(&host);
            let is_allowed = is_new && self.redirect.followed.len() < MAX_FOLLOWED && (uri.is_secure || !is_secure);
            let domain = SipUri { is_secure: uri.is_secure, ..SipUri::new(None, uri.host.clone(), uri.port) };
            is_allowed.then_some((target, domain))
        })
    }
}
