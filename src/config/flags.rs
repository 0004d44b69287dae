//! The table of flags: name, value, default and help text side by side.
//!
//! Those of the original program have its names, defaults and meaning.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, or `=true` and `=false`.
    Bool,
    /// One value; the last one given counts. The text names it in the help.
    One(&'static str),
    /// One value each time; the flag may be repeated.
    Many(&'static str),
}

/// One flag of the command line.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// What it takes.
    pub value: Value,
    /// What holds when it is not given, empty if that needs no word.
    pub default: &'static str,
    /// One or two sentences for `-help` and the manual.
    pub help: &'static str,
}

const fn flag(name: &'static str, value: Value, default: &'static str, help: &'static str) -> Flag {
    Flag { name, value, default, help }
}

use Value::{Bool, Many, One};

/// Every flag, in the order in which `-help` shows them.
pub const FLAGS: &[Flag] = &[
    flag("sip", One("ADDRESS"), "sip:6002@localhost", "SIP address of the account that is called"),
    flag("no-sip-register", Bool, "", "do not register; take every call that arrives"),
    flag("sip-registrar", One("HOST"), "the host of -sip", "SIP registrar, HOST or HOST:PORT or sip:HOST"),
    flag("sip-register-network", One("NETWORK"), "udp4", "network to reach the registrar by, udp4 or udp6"),
    flag("sip-password", One("PASSWORD"), "", "SIP password (better: environment GALENE_SIP_PASSWORD)"),
    flag(
        "sip-udp-address",
        One("ADDRESS"),
        ":",
        "local address for SIP over UDP, HOST:PORT; no port: 5060, or any free one if that is taken",
    ),
    flag(
        "sip-transport",
        One("TRANSPORT"),
        "by DNS, else udp",
        "how the registrar is reached: udp, tcp or tls (also as sips:USER@HOST or USER@HOST;transport=tcp in -sip)",
    ),
    flag(
        "sip-proxy",
        One("HOST"),
        "",
        "proxy between us and the registrar, HOST or HOST:PORT or sip:HOST;transport=tcp",
    ),
    flag(
        "sip-tcp-address",
        One("ADDRESS"),
        ": with -sip-transport tcp, else no listener",
        "local address for SIP over TCP",
    ),
    flag(
        "sip-tls-address",
        One("ADDRESS"),
        ": with -sip-transport tls and a certificate, else no listener",
        "local address for SIP over TLS; no port: 5061",
    ),
    flag("sip-tls-certificate", One("FILE"), "", "our certificate and its chain, PEM; shown also to servers that ask"),
    flag("sip-tls-key", One("FILE"), "", "the key of that certificate, PEM"),
    flag("sip-tls-ca", One("FILE"), "the system's", "authorities that SIP servers' certificates must come from, PEM"),
    flag("sip-dns", One("ADDRESS"), "the system's", "name server that is asked for SIP servers, IP-ADDRESS:PORT"),
    flag("username", One("NAME"), "the caller's name", "user name in the Galene group, the same for every caller"),
    flag("password", One("PASSWORD"), "", "password of the Galene group (better: environment GALENE_PASSWORD)"),
    flag("insecure", Bool, "", "do not check Galene's certificate"),
    flag("debug", Bool, "", "log every message"),
    flag(
        "sip-gruu",
        Bool,
        "",
        "give callers a URI of the registrar's for this call instead of our address, if it makes one (RFC 5627)",
    ),
    flag(
        "sip-pcap",
        One("FILE"),
        "",
        "write every SIP message to a new capture file for Wireshark, 64 MB at most; digests and keys are masked",
    ),
    flag("help", Bool, "", "show this text"),
    flag(
        "rtp-ports",
        One("LO-HI"),
        "any free ones",
        "local UDP ports for telephones' voices, two a call; a used port rests for 60 s",
    ),
    flag(
        "ice-ports",
        One("LO-HI"),
        "any free ones",
        "local UDP ports towards Galene: callers + 2 × voices in the room are needed; a used port rests for 60 s",
    ),
    flag("ice-lite", Bool, "", "let Galene do the connectivity checks: for a host that Galene can always reach"),
    flag(
        "public-address",
        One("ADDRESS"),
        "what the registrar sees",
        "our router's IP address, for telephones beyond it that call without the registrar; the router must send \
         -sip-udp-address and -rtp-ports on to us",
    ),
    flag(
        "drain-for",
        One("SECONDS"),
        "0",
        "how long calls may go on after SIGTERM, while no more are taken; a second one, or SIGINT, ends them at once",
    ),
    flag("max-calls", One("N"), "64", "calls at once, 1 to 64; further ones are refused with 503"),
    flag(
        "max-calls-per-caller",
        One("N"),
        "as many as there may be",
        "calls at once from one SIP address; further ones are refused with 486",
    ),
    flag(
        "rejoin-for",
        One("SECONDS"),
        "300",
        "how long a caller stays on the line while Galene is away or does not let it back in; 0: not at all",
    ),
    flag("no-agc", Bool, "", "leave every caller's loudness as it is, instead of slowly bringing quiet telephones up"),
    flag(
        "sip-codecs",
        One("LIST"),
        "the telephone's choice of all",
        "what telephones are spoken with in, the best first, of opus,g722,pcmu,pcma",
    ),
    flag(
        "sip-srtp",
        One("WHEN"),
        "optional",
        "encrypt telephones' voices, off, optional (where the telephone offers it) or required (others are turned away)",
    ),
    flag(
        "sip-srtp-keys-in-clear",
        Bool,
        "",
        "take and tell keys also where the signalling is not encrypted: whoever can read it can then hear",
    ),
    flag("sip-allow", Many("ADDRESS"), "", "IP address that may call without being the registrar; may be repeated"),
    flag(
        "sip-refer-anywhere",
        Bool,
        "",
        "let telephones transfer their calls (REFER) to any address, not only within the registrar's domain",
    ),
    flag("sip-guest-user", One("NAME"), "", "name by which others may call who know the password below (digest)"),
    flag(
        "sip-guest-password",
        One("PASSWORD"),
        "",
        "password of such callers (better: environment GALENE_SIP_GUEST_PASSWORD)",
    ),
];

/// The text that `-help` prints.
pub fn help() -> String {
    let mut text = String::from(
        "Usage: galene-sip [flags] GROUP-URL\n\n\
         Lets telephones into a Galene group, for example\n  \
         galene-sip -sip sip:user@sip.example.com -sip-password 1234 'https://galene.example.org:8443/group/NAME/?token=XXXX'\n\n",
    );
    for flag in FLAGS {
        let value = match flag.value {
            Bool => String::new(),
            One(value) | Many(value) => format!(" {value}"),
        };
        text += &format!("  -{}{value}\n        {}", flag.name, flag.help);
        if !flag.default.is_empty() {
            text += &format!(" (default: {})", flag.default);
        }
        text.push('\n');
    }
    text
}
