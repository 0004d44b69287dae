//! coturn as a TURN server, a real one, mostly on free ports of 127.0.0.1, over UDP, TCP and TLS.
//!
//! Owns: its options, and when it is ready. It knows one account, and relays to loopback peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{Folder, Program, free_tcp_port};

/// The account that it knows.
pub const USER: &str = "lab-user";
/// Its password.
pub const PASSWORD: &str = "lab password";
/// How often a starting coturn is asked whether it is there, and how long each answer may take.
const START_QUESTIONS: usize = 200;
const ANSWER_PATIENCE: Duration = Duration::from_millis(50);

/// What a room tells its members of servers at these URLs, in the form of `iceServers`.
pub fn ice_servers(urls: &[&str]) -> Value {
    json!([{"urls": urls, "username": USER, "credential": PASSWORD}])
}

/// A running coturn.
#[derive(Debug)]
pub struct Coturn {
    /// The process and what it says.
    pub program: Program,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    _folder: Folder,
}

impl Coturn {
    /// Starts it with `options` besides those that it needs, and with TLS if there is a certificate and its key, both as
    /// PEM.
    ///
    /// # Errors
    /// In words, with its last lines when it does not come up.
    pub fn start(binary: &Path, tls: Option<(&str, &str)>, options: &[&str]) -> Result<Self, String> {
        Self::start_at(Ipv4Addr::LOCALHOST, binary, tls, options)
    }

    /// The same at another address of this machine, or of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(
        ip: impl Into<IpAddr>,
        binary: &Path,
        tls: Option<(&str, &str)>,
        options: &[&str],
    ) -> Result<Self, String> {
        // It listens at one port over UDP and TCP. Nearly always both are free if one is.
        let address = SocketAddr::from((ip.into(), free_tcp_port().map_err(words)?));
        Self::start_on(address, binary, tls, options)
    }

    /// The same at a port that has been chosen.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(
        address: SocketAddr,
        binary: &Path,
        tls: Option<(&str, &str)>,
        options: &[&str],
    ) -> Result<Self, String> {
        let ip = address.ip();
        let folder = Folder::new().map_err(words)?;
        let mut command = Command::new(binary);
        // An empty file, else the system's configuration would count.
        command.arg("-c").arg(folder.write("turnserver.conf", "").map_err(words)?);
        command.args(["--no-cli", "--lt-cred-mech", "--realm", "lab", "--allow-loopback-peers", "--no-dtls"]);
        command.args(["--user", &format!("{USER}:{PASSWORD}"), "--verbose", "--log-file", "stdout"]);
        command.args(["--listening-ip", &ip.to_string(), "--relay-ip", &ip.to_string()]);
        command.args(["--listening-port", &address.port().to_string()]);
        command.arg("--pidfile").arg(folder.path().join("pid"));
        command.arg("--userdb").arg(folder.path().join("users"));
        let mut tls_address = None;
        match tls {
            None => drop(command.arg("--no-tls")),
            Some((certificate, key)) => {
                let port = free_tcp_port().map_err(words)?;
                tls_address = Some(SocketAddr::from((ip, port)));
                command.args(["--tls-listening-port", &port.to_string()]);
                command.arg("--cert").arg(folder.write("certificate.pem", certificate).map_err(words)?);
                command.arg("--pkey").arg(folder.write("key.pem", key).map_err(words)?);
            }
        }
        command.args(options).current_dir(folder.path());
        let program = Program::start(&mut command).map_err(words)?;
        // It opens its TCP and TLS ports first.
        for _ in 0..START_QUESTIONS {
            if answers(address).map_err(words)? {
                return Ok(Self { program, address, tls_address, _folder: folder });
            }
        }
        Err(format!("coturn does not answer: {}", program.lines().join("\n  ")))
    }

    /// Where it listens, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens over TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }
}

/// Whether a STUN Binding request is answered in time.
fn answers(address: SocketAddr) -> std::io::Result<bool> {
    const BINDING_REQUEST: [u8; 20] = *b"\x00\x01\x00\x00\x21\x12\xa4\x42are-you-here";
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(ANSWER_PATIENCE))?;
    socket.send_to(&BINDING_REQUEST, address)?;
    let mut answer = [0; 100];
    let is_answered = socket.recv(&mut answer).is_ok();
    if !is_answered {
        // Where nobody listens yet, a refusal comes at once.
        std::thread::sleep(ANSWER_PATIENCE / 5);
    }
    Ok(is_answered)
}

fn words(error: std::io::Error) -> String {
    error.to_string()
}
