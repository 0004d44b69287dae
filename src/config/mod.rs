//! Every option of the command line: text to a checked [`Config`], or one sentence that names the flag and the remedy.
//!
//! Owns: names, defaults, validation. Does not own: what the options do.

mod arguments;
mod conceal;
mod flags;
mod transports;

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::wire::sip::Transport;
use crate::wire::uri::{SipUri, Uri};
pub use conceal::{Concealed, conceal};
pub use flags::{FLAGS, Flag, Value, help};
pub use transports::{SipAddress, SipTransports, TlsFiles};

/// Calls at once; a Raspberry Pi encodes about this many voices, and each holds two pairs of sockets.
pub const MAX_CALLS: usize = 64;
/// Longer than restarts and updates of a server take; a caller who hears tones for longer has hung up.
const DEFAULT_REJOIN_FOR: Duration = Duration::from_secs(300);
/// A day: beyond that a number is a slip.
const MAX_SECONDS: u64 = 86_400;

/// A password or token, which never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the wire alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The server that the account is registered by: the registrar, or the proxy before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrar {
    /// Host name or address literal.
    pub host: String,
    /// The port, if one was given.
    pub port: Option<u16>,
    /// `-sip-transport`, or what the address says; `None` leaves it to DNS.
    pub transport: Option<Transport>,
    /// The address begins with `sips:`.
    pub is_secure: bool,
    /// `-sip-proxy`, as it goes into the Route header; host and port above are then its own.
    pub proxy: Option<SipUri>,
    /// True to reach it over IPv6 (`-sip-register-network udp6`).
    pub ipv6: bool,
}

/// What a telephone can be spoken with in (`-sip-codecs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SipCodec {
    /// Opus (RFC 7587).
    Opus,
    /// G.722.
    G722,
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

impl SipCodec {
    /// All, the best first. Opus carries 16 kHz in half of G.722's rate, repairs losses, and needs no encoder upwards; then
    /// what sounds best; µ-law before A-law, since what speaks only one of them mostly speaks that.
    pub const ALL: [Self; 4] = [Self::Opus, Self::G722, Self::Pcmu, Self::Pcma];

    /// As the flag names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::G722 => "g722",
            Self::Pcmu => "pcmu",
            Self::Pcma => "pcma",
        }
    }
}

/// Whether telephones' voices are encrypted (`-sip-srtp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SrtpPolicy {
    /// Never.
    Off,
    /// Where the telephone offers it.
    #[default]
    Optional,
    /// Always: who offers none is turned away.
    Required,
}

/// What the program was asked to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// `-sip`: the address that is called.
    pub sip: SipUri,
    /// `-sip-registrar`, `-sip-register-network`; `None` is `-no-sip-register`.
    pub registrar: Option<Registrar>,
    /// `-sip-password`.
    pub sip_password: Option<Secret>,
    /// How SIP travels.
    pub sip_transports: SipTransports,
    /// `-sip-allow`.
    pub sip_allow: Vec<IpAddr>,
    /// `-sip-codecs`; `None` leaves the choice to the telephone.
    pub sip_codecs: Option<Vec<SipCodec>>,
    /// `-sip-srtp`.
    pub sip_srtp: SrtpPolicy,
    /// `-sip-srtp-keys-in-clear`.
    pub sip_srtp_keys_in_clear: bool,
    /// `-sip-guest-user` and `-sip-guest-password`: the name and the secret of everyone else who may call.
    pub guests: Option<(String, Secret)>,
    /// `-sip-gruu`.
    pub sip_gruu: bool,
    /// `-sip-pcap`.
    pub sip_pcap: Option<PathBuf>,
    /// `-username`.
    pub username: Option<String>,
    /// `-password`.
    pub password: Option<Secret>,
    /// `-insecure`.
    pub insecure: bool,
    /// `-debug`.
    pub debug: bool,
    /// The group's URL without its query.
    pub group_url: Url,
    /// The URL's `token`.
    pub token: Option<Secret>,
    /// `-rtp-ports`.
    pub rtp_ports: Option<RangeInclusive<u16>>,
    /// `-ice-ports`.
    pub ice_ports: Option<RangeInclusive<u16>>,
    /// `-ice-lite`.
    pub ice_lite: bool,
    /// `-sip-refer-anywhere`.
    pub sip_refer_anywhere: bool,
    /// `-no-agc`.
    pub no_agc: bool,
    /// `-max-calls`.
    pub max_calls: usize,
    /// `-max-calls-per-caller`.
    pub max_calls_per_caller: usize,
    /// `-public-address`.
    pub public_address: Option<IpAddr>,
    /// `-drain-for`.
    pub drain_for: Duration,
    /// `-rejoin-for`.
    pub rejoin_for: Duration,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// `-help`.
    Help,
    /// Run the gateway.
    Run(Box<Config>),
}

/// A mistake on the command line, in one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    fn unknown(name: &str) -> Self {
        let distance = |flag: &&Flag| strsim::levenshtein(flag.name, name);
        Self(match FLAGS.iter().min_by_key(distance).filter(|nearest| distance(nearest) <= 3) {
            Some(nearest) => format!("there is no flag -{name}: did you mean -{}? (-help lists all)", nearest.name),
            None => format!("there is no flag -{name}: -help lists all"),
        })
    }

    fn flag(name: &str, value: &str, remedy: &str) -> Self {
        Self(format!("-{name} {value}: {remedy}"))
    }
}

/// Reads the arguments (without the program's name) and the environment's `GALENE_SIP_PASSWORD`,
/// `GALENE_SIP_GUEST_PASSWORD` and `GALENE_PASSWORD`.
///
/// # Errors
/// One sentence that names the flag and says what to write instead.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Request, UsageError> {
    let mut flags = Flags(pico_args::Arguments::from_vec(arguments::normalise(arguments)?));
    if flags.bool("help", "--help")? {
        return Ok(Request::Help);
    }
    let secret =
        |flag: Option<String>, name: &str| flag.or_else(|| environment(name)).filter(|s| !s.is_empty()).map(Secret);
    let sip = flags.one("--sip")?.unwrap_or_else(|| "sip:6002@localhost".into());
    let sip = parse_sip(&sip)?;
    let no_register = flags.bool("no-sip-register", "--no-sip-register")?;
    let ipv6 = match flags.one("--sip-register-network")?.as_deref() {
        None | Some("udp4") => false,
        Some("udp6") => true,
        Some(other) => return Err(UsageError::flag("sip-register-network", other, "write udp4 or udp6")),
    };
    let transport = transports::parse_transport(&mut flags)?;
    let proxy = transports::parse_proxy(&mut flags)?;
    let registrar = match flags.one("--sip-registrar")? {
        Some(text) => parse_registrar(&text)?,
        None => sip.clone(),
    };
    let server = proxy.as_ref().unwrap_or(&registrar);
    // A secure account wants every hop secure.
    let server = SipUri { is_secure: server.is_secure || sip.is_secure, ..server.clone() };
    let transport = transports::transport_to(transport, &server)?;
    let registrar = Registrar {
        host: server.host.to_string(),
        port: server.port,
        transport,
        is_secure: server.is_secure,
        proxy,
        ipv6,
    };
    let max_calls = parse_calls("max-calls", flags.one("--max-calls")?)?.unwrap_or(MAX_CALLS);
    let per_caller = parse_calls("max-calls-per-caller", flags.one("--max-calls-per-caller")?)?;
    let mut config = Config {
        sip,
        registrar: (!no_register).then_some(registrar),
        sip_password: secret(flags.one("--sip-password")?, "GALENE_SIP_PASSWORD"),
        sip_transports: transports::parse_transports(&mut flags, transport)?,
        sip_allow: flags.many("--sip-allow")?.iter().map(|text| parse_allow(text)).collect::<Result<_, _>>()?,
        sip_codecs: flags.one("--sip-codecs")?.map(|text| parse_codecs(&text)).transpose()?,
        sip_srtp: flags.one("--sip-srtp")?.map_or_else(|| Ok(SrtpPolicy::default()), |text| parse_srtp(&text))?,
        sip_srtp_keys_in_clear: flags.bool("sip-srtp-keys-in-clear", "--sip-srtp-keys-in-clear")?,
        guests: parse_guests(
            flags.one("--sip-guest-user")?,
            secret(flags.one("--sip-guest-password")?, "GALENE_SIP_GUEST_PASSWORD"),
        )?,
        sip_gruu: flags.bool("sip-gruu", "--sip-gruu")?,
        sip_pcap: flags.one("--sip-pcap")?.filter(|path| !path.is_empty()).map(PathBuf::from),
        username: flags.one("--username")?.filter(|name| !name.is_empty()),
        password: secret(flags.one("--password")?, "GALENE_PASSWORD"),
        insecure: flags.bool("insecure", "--insecure")?,
        debug: flags.bool("debug", "--debug")?,
        rtp_ports: parse_ports("rtp-ports", flags.one("--rtp-ports")?)?,
        ice_ports: parse_ports("ice-ports", flags.one("--ice-ports")?)?,
        ice_lite: flags.bool("ice-lite", "--ice-lite")?,
        sip_refer_anywhere: flags.bool("sip-refer-anywhere", "--sip-refer-anywhere")?,
        no_agc: flags.bool("no-agc", "--no-agc")?,
        max_calls,
        max_calls_per_caller: per_caller.unwrap_or(max_calls),
        public_address: flags.one("--public-address")?.map(|text| parse_public_address(&text)).transpose()?,
        drain_for: parse_seconds("drain-for", flags.one("--drain-for")?)?.unwrap_or(Duration::ZERO),
        rejoin_for: parse_seconds("rejoin-for", flags.one("--rejoin-for")?)?.unwrap_or(DEFAULT_REJOIN_FOR),
        group_url: Url::parse("https://invalid/").expect("a constant URL parses"),
        token: None,
    };
    (config.group_url, config.token) = flags.group()?;
    config.token = config.token.or_else(|| secret(None, conceal::TOKEN));
    Ok(Request::Run(Box::new(config)))
}

/// The normalised arguments, taken out one by one.
struct Flags(pico_args::Arguments);

impl Flags {
    fn one(&mut self, key: &'static str) -> Result<Option<String>, UsageError> {
        self.0.opt_value_from_str(key).map_err(|error| UsageError(format!("{}: {error}", &key[1..])))
    }

    fn many(&mut self, key: &'static str) -> Result<Vec<String>, UsageError> {
        self.0.values_from_str(key).map_err(|error| UsageError(format!("{}: {error}", &key[1..])))
    }

    /// Go's booleans: 1, t, T, true, TRUE, True and the same for false.
    fn bool(&mut self, name: &str, key: &'static str) -> Result<bool, UsageError> {
        match self.one(key)?.as_deref() {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(other) => Err(UsageError::flag(name, other, "write true or false")),
        }
    }

    /// The one free argument: the group's URL and its token.
    fn group(self) -> Result<(Url, Option<Secret>), UsageError> {
        let free = self.0.finish();
        let text = match free.as_slice() {
            [one] => one.to_string_lossy().into_owned(),
            [] => return Err(UsageError("the group's URL is missing: add it as the last argument, for example https://galene.example.org:8443/group/NAME/".into())),
            [_, second, ..] => {
                return Err(UsageError(format!("one group URL is expected, but {second:?} follows it: put flags before the URL and quote it")));
            }
        };
        parse_group(&text)
    }
}

fn parse_group(text: &str) -> Result<(Url, Option<Secret>), UsageError> {
    // The text may hold a token, so an error shows what stands before the query only.
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    let remedy = "write it as the browser shows it, https://HOST:PORT/group/NAME/";
    let mut url = Url::parse(text).map_err(|_| UsageError(format!("the group URL {shown} is not a URL: {remedy}")))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err(UsageError(format!("the group URL {shown} does not begin with https: {remedy}")));
    }
    let in_group = url.path_segments().and_then(|mut s| s.next().map(|first| first == "group")).unwrap_or(false);
    if !in_group || url.path().trim_end_matches('/') == "/group" {
        return Err(UsageError(format!("the group URL {shown} names no group: {remedy}")));
    }
    let token = url
        .query_pairs()
        .find(|(key, value)| key == "token" && !value.is_empty())
        .map(|(_, value)| Secret(value.into_owned()));
    url.set_query(None);
    url.set_fragment(None);
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok((url, token))
}

fn parse_sip(text: &str) -> Result<SipUri, UsageError> {
    let wrong = || UsageError::flag("sip", text, "write it as your provider gave it, sip:USER@HOST");
    let uri = sip_uri(text).ok_or_else(wrong)?;
    if uri.user().is_none_or(|user| user.is_empty()) { Err(wrong()) } else { Ok(uri) }
}

fn parse_registrar(text: &str) -> Result<SipUri, UsageError> {
    sip_uri(text).ok_or_else(|| UsageError::flag("sip-registrar", text, "write HOST or HOST:PORT"))
}

/// A SIP URI, whose scheme may be left out.
fn sip_uri(text: &str) -> Option<SipUri> {
    let has_scheme = text.starts_with("sip:") || text.starts_with("sips:");
    let text = if has_scheme { text.to_owned() } else { format!("sip:{text}") };
    Uri::parse(&text).ok()?.as_sip().cloned()
}

fn parse_allow(text: &str) -> Result<IpAddr, UsageError> {
    text.parse().map_err(|_| UsageError::flag("sip-allow", text, "write one IP address, such as 192.0.2.7"))
}

fn parse_public_address(text: &str) -> Result<IpAddr, UsageError> {
    text.parse().map_err(|_| {
        UsageError::flag("public-address", text, "write the router's IP address on the Internet, such as 192.0.2.7")
    })
}

fn parse_codecs(text: &str) -> Result<Vec<SipCodec>, UsageError> {
    let wrong = || UsageError::flag("sip-codecs", text, "write some of opus,g722,pcmu,pcma, each once, the best first");
    let mut codecs = Vec::new();
    for name in text.split(',').map(str::trim) {
        let codec = SipCodec::ALL.into_iter().find(|codec| codec.as_str().eq_ignore_ascii_case(name));
        let codec = codec.filter(|codec| !codecs.contains(codec)).ok_or_else(wrong)?;
        codecs.push(codec);
    }
    Ok(codecs)
}

fn parse_srtp(text: &str) -> Result<SrtpPolicy, UsageError> {
    match text {
        "off" => Ok(SrtpPolicy::Off),
        "optional" => Ok(SrtpPolicy::Optional),
        "required" => Ok(SrtpPolicy::Required),
        _ => Err(UsageError::flag("sip-srtp", text, "write off, optional or required")),
    }
}

fn parse_guests(user: Option<String>, password: Option<Secret>) -> Result<Option<(String, Secret)>, UsageError> {
    match (user.filter(|user| !user.is_empty()), password) {
        (Some(user), Some(password)) => Ok(Some((user, password))),
        (None, None) => Ok(None),
        (Some(user), None) => Err(UsageError(format!(
            "-sip-guest-user {user} needs a password: add -sip-guest-password PASSWORD or set GALENE_SIP_GUEST_PASSWORD"
        ))),
        (None, Some(_)) => Err(UsageError("-sip-guest-password needs a name: add -sip-guest-user NAME".into())),
    }
}

fn parse_calls(name: &str, text: Option<String>) -> Result<Option<usize>, UsageError> {
    let Some(text) = text else { return Ok(None) };
    let calls = text.parse().ok().filter(|calls| (1..=MAX_CALLS).contains(calls));
    calls.map(Some).ok_or_else(|| UsageError::flag(name, &text, &format!("write a number from 1 to {MAX_CALLS}")))
}

fn parse_seconds(name: &str, text: Option<String>) -> Result<Option<Duration>, UsageError> {
    let Some(text) = text else { return Ok(None) };
    let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_SECONDS);
    let seconds = seconds.ok_or_else(|| UsageError::flag(name, &text, "write seconds, 0 to 86400"))?;
    Ok(Some(Duration::from_secs(seconds)))
}

fn parse_ports(name: &str, text: Option<String>) -> Result<Option<RangeInclusive<u16>>, UsageError> {
    let Some(text) = text else { return Ok(None) };
    let ports =
        text.split_once('-').and_then(|(low, high)| Some((low.trim().parse().ok()?, high.trim().parse().ok()?)));
    match ports {
        Some((low, high)) if 0 < low && low < high => Ok(Some(low..=high)),
        _ => Err(UsageError::flag(name, &text, "write LO-HI, such as 20000-20999")),
    }
}

#[cfg(test)]
mod tests;
