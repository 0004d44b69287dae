//! Kamailio as a registrar with digest authentication, a real one, on free ports of 127.0.0.1, over UDP, TCP and TLS.
//!
//! Owns: its configuration, and what it says of bindings. It also passes calls on to whoever registered.

mod provider;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::gateway;
use crate::program::{Folder, Program, free_tcp_port, free_udp_port};

/// The account that it knows.
pub const USER: &str = "6002";
/// Its password.
pub const PASSWORD: &str = "s3cret pass";
/// How often a starting Kamailio is asked whether it is there; each question takes up to 50 ms.
const START_QUESTIONS: usize = 200;

/// A running Kamailio.
#[derive(Debug)]
pub struct Kamailio {
    /// The process and what it says.
    pub program: Program,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    _folder: Folder,
}

/// A certificate and its key, both as PEM.
#[derive(Clone, Debug)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// Who must have signed the certificates of its clients; without it none is asked for.
    pub clients_ca: Option<String>,
}

impl Kamailio {
    /// Starts it over UDP and TCP and waits until it answers.
    ///
    /// # Errors
    /// In words, with its last lines when it does not come up.
    pub fn start(binary: &Path) -> Result<Self, String> {
        Self::start_at(binary, SocketAddr::from(([127, 0, 0, 1], free_udp_port().map_err(words)?)), None)
    }

    /// The same at an address of the caller's choice, and with `tls` also over TLS on a port of its own.
    ///
    /// # Errors
    /// In words, with its last lines when it does not come up.
    pub fn start_at(binary: &Path, address: SocketAddr, tls: Option<&Pem>) -> Result<Self, String> {
        Self::launch(binary, address, tls, "MD5")
    }

    /// The same with SHA-256 in the place of MD5.
    ///
    /// # Errors
    /// In words, with its last lines when it does not come up.
    pub fn start_with_sha_256(binary: &Path) -> Result<Self, String> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().map_err(words)?));
        Self::launch(binary, address, None, "SHA-256")
    }

    fn launch(binary: &Path, address: SocketAddr, tls: Option<&Pem>, algorithm: &str) -> Result<Self, String> {
        let folder = Folder::new().map_err(words)?;
        let modules = modules().ok_or("Kamailio's modules are not where Debian has them")?;
        let mut tls_address = None;
        let mut tls_lines = String::new();
        if let Some(tls) = tls {
            let listen = SocketAddr::new(address.ip(), free_tcp_port().map_err(words)?);
            tls_address = Some(listen);
            tls_lines = write_tls(&folder, listen, tls).map_err(words)?;
        }
        let config = config(address, &tls_lines, &modules, algorithm);
        Self::run(binary, folder, address, tls_address, &config)
    }

    /// Starts it as a proxy before a registrar, over UDP and TCP: it adds itself as a Path (RFC 3327) to what registers by
    /// way of it.
    ///
    /// # Errors
    /// In words, with its last lines when it does not come up.
    pub fn start_edge(binary: &Path) -> Result<Self, String> {
        let folder = Folder::new().map_err(words)?;
        let modules = modules().ok_or("Kamailio's modules are not where Debian has them")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().map_err(words)?));
        Self::run(binary, folder, address, None, &edge_config(address, &modules))
    }

    /// Starts it as a provider's registrar and proxy for clients behind NATs, at an address of this machine or of the
    /// namespace that the calling thread is in; with a relay (rtpengine's control address) it has all media pass by there.
    ///
    /// # Errors
    /// In words, with its last lines when it does not come up.
    pub fn start_provider(binary: &Path, ip: Ipv4Addr, relay: Option<SocketAddr>) -> Result<Self, String> {
        let folder = Folder::new().map_err(words)?;
        let modules = modules().ok_or("Kamailio's modules are not where Debian has them")?;
        let address = SocketAddr::from((ip, free_udp_port().map_err(words)?));
        Self::run(binary, folder, address, None, &provider::config(address, &modules, relay))
    }

    fn run(
        binary: &Path,
        folder: Folder,
        address: SocketAddr,
        tls_address: Option<SocketAddr>,
        config: &str,
    ) -> Result<Self, String> {
        let file = folder.write("kamailio.cfg", config).map_err(words)?;
        let mut command = Command::new(binary);
        command.args(["-DD", "-E", "-m", "16", "-M", "4", "-Y"]).arg(folder.path()).arg("-f").arg(file);
        let program = Program::start(&mut command).map_err(words)?;
        for _ in 0..START_QUESTIONS {
            if gateway::answers(address).map_err(words)? {
                return Ok(Self { program, address, tls_address, _folder: folder });
            }
        }
        Err(format!("Kamailio does not answer: {}", program.lines().join("\n  ")))
    }

    /// Where it listens, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens over TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Whether this system's Kamailio can speak TLS.
    pub fn has_tls() -> bool {
        modules().is_some_and(|modules| modules.join("tls.so").is_file())
    }

    /// Waits until somebody has registered; what the binding says: the user and the Contact value.
    ///
    /// # Errors
    /// Its last lines, when nobody does.
    pub fn wait_bound(&self, patience: Duration) -> Result<String, String> {
        let line = self.program.wait_for_line(patience, |line| line.contains("lab: bound "))?;
        Ok(line.split_once("lab: bound ").map(|(_, rest)| rest.to_owned()).unwrap_or_default())
    }

    /// Waits until the last binding was removed.
    ///
    /// # Errors
    /// Its last lines, when that does not happen.
    pub fn wait_unbound(&self, patience: Duration) -> Result<(), String> {
        self.program.wait_for_line(patience, |line| line.contains("lab: unbound ")).map(drop)
    }
}

fn words(error: std::io::Error) -> String {
    error.to_string()
}

/// The lines of the configuration about TLS, and the files that they name.
fn write_tls(folder: &Folder, listen: SocketAddr, tls: &Pem) -> std::io::Result<String> {
    let certificate = folder.write("certificate.pem", &tls.certificate)?;
    let key = folder.write("key.pem", &tls.key)?;
    let clients = match &tls.clients_ca {
        None => String::new(),
        Some(ca) => {
            let ca = folder.write("clients-ca.pem", ca)?;
            format!(
                "modparam(\"tls\", \"ca_list\", \"{}\")\nmodparam(\"tls\", \"verify_certificate\", 1)\n\
                 modparam(\"tls\", \"require_certificate\", 1)\n",
                ca.display()
            )
        }
    };
    Ok(format!(
        "enable_tls=yes\nlisten=tls:{listen}\nloadmodule \"tls.so\"\nmodparam(\"tls\", \"tls_method\", \"TLSv1.2+\")\n\
         modparam(\"tls\", \"certificate\", \"{}\")\nmodparam(\"tls\", \"private_key\", \"{}\")\n{clients}",
        certificate.display(),
        key.display()
    ))
}

fn modules() -> Option<PathBuf> {
    let fixed = ["/usr/lib64/kamailio/modules", "/usr/lib/kamailio/modules", "/usr/local/lib64/kamailio/modules"];
    let multiarch = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let found = multiarch.map(|entry| entry.path().join("kamailio/modules"));
    fixed.into_iter().map(PathBuf::from).chain(found).find(|path| path.join("registrar.so").is_file())
}

/// What every configuration begins with: where it listens, where its modules are, and which it loads beside those of any proxy.
fn head(address: SocketAddr, modules: &Path, further: &[&str]) -> String {
    const OF_PROXIES: [&str; 9] = ["kex", "pv", "tm", "sl", "rr", "maxfwd", "siputils", "textops", "xlog"];
    let loaded: String =
        OF_PROXIES.iter().chain(further).map(|module| format!("loadmodule \"{module}.so\"\n")).collect();
    format!(
        r#"#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=1
tcp_children=1
tcp_connection_lifetime=3600
listen=udp:{address}
listen=tcp:{address}
mpath="{modules}/"
{loaded}"#,
        modules = modules.display()
    )
}

/// What a registrar loads, and how it is set.
const OF_REGISTRARS: [&str; 3] = ["usrloc", "registrar", "auth"];
const REGISTRAR: &str = r#"
modparam("auth", "nonce_count", 1)
modparam("auth", "qop", "auth")
modparam("registrar", "use_path", 1)
modparam("registrar", "min_expires", 5)
modparam("registrar", "default_expires", 60)
modparam("registrar", "max_expires", 60)
modparam("usrloc", "db_mode", 0)
"#;

fn config(address: SocketAddr, tls_lines: &str, modules: &Path, algorithm: &str) -> String {
    format!(
        r#"{head}{tls_lines}{REGISTRAR}modparam("auth", "algorithm", "{algorithm}")

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK") && t_check_trans()) {{ t_relay(); exit; }}
        if (!is_method("ACK")) {{ sl_send_reply("481", "No Such Dialog"); }}
        exit;
    }}
    if (is_method("CANCEL")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
    if (is_method("REGISTER")) {{
        if ($tU!="{USER}" || !pv_www_authenticate("$td", "{PASSWORD}", "0")) {{ www_challenge("$td", "1"); exit; }}
        if (!save("location")) {{ exit; }}
        if (registered("location", "$tu")) {{ xlog("L_ALERT", "lab: bound $tU $ct\n"); }}
        else {{ xlog("L_ALERT", "lab: unbound $tU\n"); }}
        exit;
    }}
    if (is_method("INVITE")) {{ record_route(); }}
    if (!lookup("location")) {{ sl_send_reply("404", "Nobody Registered"); exit; }}
    if (!t_relay()) {{ sl_reply_error(); }}
}}
"#,
        head = head(address, modules, &OF_REGISTRARS)
    )
}

fn edge_config(address: SocketAddr, modules: &Path) -> String {
    format!(
        r#"{head}
modparam("path", "use_received", 1)

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (is_method("CANCEL")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
    if (is_method("OPTIONS") && !loose_route()) {{ sl_send_reply("200", "OK"); exit; }}
    if (is_method("REGISTER")) {{
        if (!is_present_hf("Route")) {{ sl_send_reply("403", "No Route"); exit; }}
        loose_route();
        add_path_received();
        t_relay();
        exit;
    }}
    loose_route();
    if (is_method("INVITE") && !has_totag()) {{ record_route(); }}
    t_relay();
}}
"#,
        head = head(address, modules, &["path"])
    )
}
