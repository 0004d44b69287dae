//! How SIP travels: transports, listeners, certificates, the proxy.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Flags, UsageError, sip_uri};
use crate::wire::sip::Transport;
use crate::wire::uri::SipUri;

/// Where SIP listens (`-sip-udp-address`, `-sip-tcp-address`, `-sip-tls-address`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SipAddress {
    /// Every local address, IPv4 and IPv6, at this port; `None` is the transport's own, or any free one if that is
    /// taken.
    Any(Option<u16>),
    /// One address; port 0 is any free one.
    One(SocketAddr),
}

/// A certificate with its chain, and its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `-sip-tls-certificate`.
    pub certificate: PathBuf,
    /// `-sip-tls-key`.
    pub key: PathBuf,
}

/// What the flags say of SIP's transports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SipTransports {
    /// `-sip-udp-address`.
    pub udp_address: SipAddress,
    /// `-sip-tcp-address`; `None` is no listener.
    pub tcp_address: Option<SipAddress>,
    /// `-sip-tls-address`; `None` is no listener.
    pub tls_address: Option<SipAddress>,
    /// `-sip-tls-certificate` and `-sip-tls-key`: for the listener, and shown to servers that ask for one.
    pub tls_files: Option<TlsFiles>,
    /// `-sip-tls-ca`: who signs the servers' certificates, instead of the system's authorities.
    pub tls_ca: Option<PathBuf>,
    /// `-sip-dns`: the name server that is asked for SIP servers, instead of the system's.
    pub dns: Option<SocketAddr>,
}

/// `-sip-transport`.
pub(super) fn parse_transport(flags: &mut Flags) -> Result<Option<Transport>, UsageError> {
    let Some(text) = flags.one("--sip-transport")? else { return Ok(None) };
    let transport = Transport::from_parameter(&text);
    transport.map(Some).ok_or_else(|| UsageError::flag("sip-transport", &text, "write udp, tcp or tls"))
}

/// The transport that a server is reached by: the flag's, else the URI's, else TLS for `sips:`, else whatever DNS says.
pub(super) fn transport_to(flag: Option<Transport>, uri: &SipUri) -> Result<Option<Transport>, UsageError> {
    let wrong = |what: &str| Err(UsageError(format!("{uri} asks for {what}")));
    let of_uri = match uri.parameters.value("transport") {
        Some(text) => match Transport::from_parameter(&text) {
            Some(transport) => Some(transport),
            None => return wrong(&format!("the transport {text}: there are udp, tcp and tls")),
        },
        None => None,
    };
    match flag.or(of_uri) {
        Some(Transport::Udp) if uri.is_secure => wrong("TLS, which there is not over UDP: write sip: instead of sips:"),
        Some(Transport::Tcp) if uri.is_secure && flag.is_some() => {
            wrong("TLS: write -sip-transport tls, or sip: instead of sips:")
        }
        _ if uri.is_secure => Ok(Some(Transport::Tls)),
        other => Ok(other),
    }
}

/// `-sip-proxy`.
pub(super) fn parse_proxy(flags: &mut Flags) -> Result<Option<SipUri>, UsageError> {
    let Some(text) = flags.one("--sip-proxy")? else { return Ok(None) };
    let wrong = || UsageError::flag("sip-proxy", &text, "write HOST, HOST:PORT or sip:HOST;transport=tcp");
    let mut uri = sip_uri(&text).ok_or_else(wrong)?;
    uri.raw_user = None;
    if !uri.is_loose_router() {
        uri.parameters.push("lr", None);
    }
    Ok(Some(uri))
}

/// The listeners and the certificate. `used` is the transport that the registrar is known to be reached by: there a
/// listener stands without being asked for.
pub(super) fn parse_transports(flags: &mut Flags, used: Option<Transport>) -> Result<SipTransports, UsageError> {
    let udp_address = flags.one("--sip-udp-address")?;
    let tcp_address = flags.one("--sip-tcp-address")?;
    let tls_address = flags.one("--sip-tls-address")?;
    let certificate = flags.one("--sip-tls-certificate")?.map(PathBuf::from);
    let key = flags.one("--sip-tls-key")?.map(PathBuf::from);
    let tls_files = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) => return Err(UsageError("-sip-tls-certificate needs its key: add -sip-tls-key FILE".into())),
        (None, Some(_)) => {
            return Err(UsageError("-sip-tls-key needs its certificate: add -sip-tls-certificate FILE".into()));
        }
    };
    if tls_address.is_some() && tls_files.is_none() {
        let text = "-sip-tls-address needs a certificate: add -sip-tls-certificate FILE and -sip-tls-key FILE";
        return Err(UsageError(text.into()));
    }
    let default = |is_used: bool| is_used.then(|| ":".to_owned());
    let tcp_address = tcp_address.or_else(|| default(used == Some(Transport::Tcp)));
    let tls_address = tls_address.or_else(|| default(used == Some(Transport::Tls) && tls_files.is_some()));
    let address = |name: &'static str, transport: Transport| move |text: String| parse_address(name, transport, &text);
    Ok(SipTransports {
        udp_address: parse_address("sip-udp-address", Transport::Udp, udp_address.as_deref().unwrap_or(":"))?,
        tcp_address: tcp_address.map(address("sip-tcp-address", Transport::Tcp)).transpose()?,
        tls_address: tls_address.map(address("sip-tls-address", Transport::Tls)).transpose()?,
        tls_files,
        tls_ca: flags.one("--sip-tls-ca")?.map(PathBuf::from),
        dns: parse_dns(flags.one("--sip-dns")?)?,
    })
}

fn parse_dns(text: Option<String>) -> Result<Option<SocketAddr>, UsageError> {
    let Some(text) = text else { return Ok(None) };
    let with_port = text.parse().ok();
    let address = with_port.or_else(|| text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
    address.map(Some).ok_or_else(|| UsageError::flag("sip-dns", &text, "write IP-ADDRESS or IP-ADDRESS:PORT"))
}

fn parse_address(flag: &str, transport: Transport, text: &str) -> Result<SipAddress, UsageError> {
    let wrong = || UsageError::flag(flag, text, "write IP-ADDRESS:PORT, or :PORT for every address");
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(SipAddress::One(address));
    }
    if let Ok(ip) = text.trim_end_matches(':').trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SipAddress::One(SocketAddr::new(ip, transport.default_port())));
    }
    match text.strip_prefix(':').ok_or_else(wrong)? {
        "" => Ok(SipAddress::Any(None)),
        port => port.parse().map(|port| SipAddress::Any(Some(port))).map_err(|_| wrong()),
    }
}
