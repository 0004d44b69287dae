//! What the registrar's 200 says of bindings (RFC 3261 §10.2.4): which one is ours, for how long, and which ones an earlier
//! run of ours has left behind.

use crate::wire::sip::{Contacts, NameAddr, Response};
use crate::wire::uri::{SipUri, Uri};

/// Left-behind bindings that are removed after one 200; more wait for the next.
const MAX_REMOVED: usize = 4;
/// Letters and digits in the user part of every Contact of ours.
const TOKEN_LETTERS: usize = 24;

/// For how long the registrar keeps `contact`; `None` if it does not say. `token` is the Contact's user part, by which it is
/// known even if the registrar has rewritten the rest.
pub(super) fn granted_expires_s(response: &Response, contact: &SipUri, token: &str) -> Option<u32> {
    let contacts = match response.headers.contacts() {
        Ok(Contacts::List(contacts)) => contacts,
        Ok(Contacts::All) | Err(_) => return None,
    };
    let expires = ours(&contacts, contact, token)
        .and_then(|one| one.parameters.value("expires"))
        .and_then(|value| value.parse().ok());
    expires.or_else(|| response.headers.expires())
}

/// A URI by which `contact` can be reached from anywhere (RFC 5627 §5.1), if the registrar has made one: the public one, else
/// the temporary one.
pub(super) fn gruu(response: &Response, contact: &SipUri, token: &str) -> Option<SipUri> {
    let Ok(Contacts::List(contacts)) = response.headers.contacts() else { return None };
    let ours = ours(&contacts, contact, token)?;
    let uri = ours.parameters.value("pub-gruu").or_else(|| ours.parameters.value("temp-gruu"))?;
    Uri::parse(&uri).ok()?.as_sip().cloned()
}

fn ours<'a>(contacts: &'a [NameAddr], contact: &SipUri, token: &str) -> Option<&'a NameAddr> {
    let is_equal = |one: &&NameAddr| one.uri.as_sip().is_some_and(|uri| uri.is_equivalent(contact));
    let is_ours = |one: &&NameAddr| one.uri.user().as_deref() == Some(token);
    contacts.iter().find(is_equal).or_else(|| contacts.iter().find(is_ours))
}

/// Bindings that only an earlier run of ours can have made: of the same instance, or, where the registrar keeps no
/// instances, of the same host and port with a user part such as ours. Everything else belongs to other telephones.
pub(super) fn left_behind(response: &Response, contact: &SipUri, instance: Option<&str>) -> Vec<SipUri> {
    let Ok(Contacts::List(contacts)) = response.headers.contacts() else { return Vec::new() };
    let is_left = |one: &NameAddr, uri: &SipUri| {
        if uri.user() == contact.user() {
            return false;
        }
        match one.parameters.value("+sip.instance") {
            Some(id) => instance.is_some_and(|instance| id == format!("<{instance}>")),
            None => {
                let is_token = |user: &str| {
                    user.len() == TOKEN_LETTERS && user.bytes().all(|letter| letter.is_ascii_alphanumeric())
                };
                (&uri.host, uri.port_or_default()) == (&contact.host, contact.port_or_default())
                    && uri.user().is_some_and(|user| is_token(&user))
            }
        }
    };
    let left = contacts.iter().filter_map(|one| one.uri.as_sip().filter(|uri| is_left(one, uri)).cloned());
    left.take(MAX_REMOVED).collect()
}
