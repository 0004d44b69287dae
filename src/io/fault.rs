//! What goes wrong with a connection, in words that name the host and the remedy and no secret.
//!
//! Owns: the words, for HTTP and WebSocket alike. Does not own: what becomes of a caller then (`galene::refusal`).

use std::fs::File;
use std::io::{Error, ErrorKind};

use nix::libc::{EMFILE, ENFILE};
use rustls::CertificateError;

use crate::galene::Fault;

/// What an error of a socket means, or of TLS where one is inside.
pub(crate) fn of_io(host: &str, error: &Error) -> Fault {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return of_tls(host, tls);
    }
    if let Some(words) = of_this_machine(error) {
        return Fault::Exhausted(words.to_owned());
    }
    // The standard library has no kind for a failed look-up.
    if error.to_string().contains("lookup") {
        return of_lookup(host);
    }
    Fault::Unreachable(match error.kind() {
        ErrorKind::ConnectionRefused => format!("{host} refuses connections: does a server run there, on that port?"),
        ErrorKind::TimedOut => timed_out(host),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            format!("there is no way to {host}: check the network")
        }
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => broke_off(host),
        _ => format!("{host}: {error}"),
    })
}

/// A name that could not be looked up. The C library does not tell where it had no descriptor to ask by.
pub(crate) fn of_lookup(host: &str) -> Fault {
    match out_of_descriptors() {
        Some(words) => Fault::Exhausted(words.to_owned()),
        None => Fault::Unreachable(format!("the name {host} cannot be looked up: check the group's URL and DNS")),
    }
}

/// Whether the system would refuse this program a descriptor now.
pub(super) fn out_of_descriptors() -> Option<&'static str> {
    File::open("/dev/null").err().as_ref().and_then(of_this_machine)
}

/// What this machine itself lacks; `None` for what lies on the way or beyond.
fn of_this_machine(error: &Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        EMFILE => Some(
            "no file descriptors are left for this program: raise its limit (LimitNOFILE= in its systemd unit, or ulimit -n)",
        ),
        ENFILE => Some("no file descriptors are left on this machine: raise fs.file-max, or end what holds so many"),
        _ => None,
    }
}

/// What an error of a socket of our own means.
pub(crate) fn of_socket(error: &Error) -> String {
    of_this_machine(error).map_or_else(|| error.to_string(), str::to_owned)
}

/// What an error of a connection of SIP means; the sentence around it names the host.
pub(crate) fn of_sip(error: &Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(error)) => format!("its certificate {}", of_certificate(error)),
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS on that port".to_owned(),
        Some(error) => format!("TLS fails: {error}"),
        None => match error.kind() {
            ErrorKind::ConnectionRefused => "it refuses connections on that port".to_owned(),
            ErrorKind::TimedOut => "no answer".to_owned(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                "it broke off the connection".to_owned()
            }
            _ => of_socket(error),
        },
    }
}

fn of_certificate(error: &CertificateError) -> &'static str {
    use CertificateError as Certificate;
    match error {
        Certificate::Expired | Certificate::ExpiredContext { .. } => "has expired",
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
            "is not valid yet (is this machine's clock right?)"
        }
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => "is for another host name",
        Certificate::Revoked => "has been revoked",
        // webpki's, which rustls passes on wrapped up. What `openssl req -x509` makes by itself is such a one.
        Certificate::Other(why) if why.to_string().contains("CaUsedAsEndEntity") => {
            "is made to sign others, not for a server: make it anew with basicConstraints=CA:FALSE"
        }
        _ => "comes from nobody whom this system trusts",
    }
}

/// What an error of TLS means.
pub(crate) fn of_tls(host: &str, error: &rustls::Error) -> Fault {
    let what = match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::InvalidMessage(_) => {
            return Fault::Tls(format!(
                "{host} does not speak TLS on that port: check the port, and whether the group's URL begins with http://"
            ));
        }
        error => return Fault::Tls(format!("TLS with {host} fails: {error}")),
    };
    Fault::Tls(format!(
        "the certificate of {host} {what}: give the server a good one, or start the gateway with -insecure if this is a test"
    ))
}

pub(crate) fn timed_out(host: &str) -> String {
    format!("{host} does not answer: is it up, and does a firewall let us through?")
}

pub(crate) fn broke_off(host: &str) -> String {
    format!("{host} broke off the connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_error_names_the_flag() {
        for error in [CertificateError::Expired, CertificateError::NotValidForName, CertificateError::UnknownIssuer] {
            let error = Error::other(rustls::Error::InvalidCertificate(error));
            let Fault::Tls(text) = of_io("g.example", &error) else { panic!() };
            assert!(text.contains("g.example") && text.contains("-insecure"), "{text}");
        }
    }

    #[test]
    fn socket_errors_are_told_apart() {
        let of = |kind: ErrorKind| of_io("g.example", &Error::from(kind)).to_string();
        assert!(of(ErrorKind::ConnectionRefused).contains("refuses"));
        assert!(of(ErrorKind::TimedOut).contains("firewall"));
        assert!(of(ErrorKind::ConnectionReset).contains("broke off"));
        let lookup = Error::other("failed to lookup address information: Name or service not known");
        assert!(of_io("g.example", &lookup).to_string().contains("DNS"));
        let own = of_io("g.example", &Error::from_raw_os_error(EMFILE));
        assert!(matches!(&own, Fault::Exhausted(text) if text.contains("LimitNOFILE")), "{own}");
    }
}
