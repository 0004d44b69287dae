//! When two URIs mean the same (RFC 3261 §19.1.4, RFC 3966 §4).

use super::{Parameters, SipUri, Uri, unescape_bytes};

/// Parameters that make a difference even where only one side has them.
const NEVER_IGNORED: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];

pub(super) fn uris(a: &Uri, b: &Uri) -> bool {
    match (a, b) {
        (Uri::Sip(a), Uri::Sip(b)) => sip_uris(a, b),
        (Uri::Tel(a), Uri::Tel(b)) => {
            digits(&a.number) == digits(&b.number)
                && a.parameters.len() == b.parameters.len()
                && a.parameters.iter().all(|p| b.parameters.has(&p.name))
                && shared_parameters_match(&a.parameters, &b.parameters)
        }
        (Uri::Other(a), Uri::Other(b)) => a.scheme.eq_ignore_ascii_case(&b.scheme) && a.rest == b.rest,
        (Uri::Sip(_) | Uri::Tel(_) | Uri::Other(_), _) => false,
    }
}

pub(super) fn sip_uris(a: &SipUri, b: &SipUri) -> bool {
    a.is_secure == b.is_secure
        && same_part(a.raw_user.as_deref(), b.raw_user.as_deref())
        && same_part(a.raw_password.as_deref(), b.raw_password.as_deref())
        && a.host == b.host
        && a.port == b.port
        && NEVER_IGNORED.iter().all(|name| a.parameters.has(name) == b.parameters.has(name))
        && shared_parameters_match(&a.parameters, &b.parameters)
        && same_headers(&a.headers, &b.headers)
}

/// User and password are compared with regard to case, whatever of them is escaped.
fn same_part(a: Option<&str>, b: Option<&str>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b || unescape_bytes(a) == unescape_bytes(b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Of several parameters with one name, which no URI should have, the first counts on either side.
fn shared_parameters_match(a: &Parameters, b: &Parameters) -> bool {
    a.iter().all(|parameter| {
        !b.has(&parameter.name)
            || match (a.raw(&parameter.name), b.raw(&parameter.name)) {
                (Some(x), Some(y)) => unescape_bytes(x).eq_ignore_ascii_case(&unescape_bytes(y)),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
    })
}

/// Headers are never ignored, and come in any order.
fn same_headers(a: &[(String, String)], b: &[(String, String)]) -> bool {
    let within = |(name, value): &(String, String), list: &[(String, String)]| {
        list.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && unescape_bytes(v) == unescape_bytes(value))
    };
    a.len() == b.len() && a.iter().all(|header| within(header, b)) && b.iter().all(|header| within(header, a))
}

/// The number without visual separators.
fn digits(number: &str) -> String {
    number.chars().filter(|c| !"-.()".contains(*c)).map(|c| c.to_ascii_lowercase()).collect()
}
