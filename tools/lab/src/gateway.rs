//! The gateway under test: the real program, in a process of its own.
//!
//! Owns: its command line, knowing when it is ready (it answers OPTIONS), the URI at which to call it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::program::{Program, free_udp_port};
use crate::random::token;
use crate::registrar::Account;

/// How long the program may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer to OPTIONS is waited for before it is asked again.
const PROBE_PATIENCE: Duration = Duration::from_millis(50);

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    program: Program,
    address: SocketAddr,
}

impl Gateway {
    /// Starts it without a registrar on a free port of 127.0.0.1 and waits until it answers.
    ///
    /// # Errors
    /// In words, with its last lines when it does not come up.
    pub fn start(binary: &Path, group_url: &str, more: &[&str]) -> Result<Self, String> {
        Self::start_at(Ipv4Addr::LOCALHOST, binary, group_url, more)
    }

    /// The same at another address of this machine, or of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(ip: Ipv4Addr, binary: &Path, group_url: &str, more: &[&str]) -> Result<Self, String> {
        let address = SocketAddr::from((ip, free_udp_port().map_err(words)?));
        let listen = address.to_string();
        let mut arguments =
            vec!["-sip", "sip:6002@127.0.0.1", "-no-sip-register", "-sip-udp-address", &listen, "-debug"];
        arguments.extend(more);
        arguments.push(group_url);
        let mut gateway = Self::launch(binary, &arguments, address)?;
        gateway.wait_ready()?;
        Ok(gateway)
    }

    /// Starts it on a free port of 127.0.0.1 with an account to register. Returns at once: the registrar tells when it
    /// has registered, and with that it is ready.
    ///
    /// # Errors
    /// In words, when the program cannot be started.
    pub fn start_registering(binary: &Path, group_url: &str, account: &Account, more: &[&str]) -> Result<Self, String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port().map_err(words)?));
        let (listen, record) = (address.to_string(), account.address_of_record());
        let mut arguments = vec!["-sip", &record, "-sip-udp-address", &listen, "-debug"];
        arguments.extend(more);
        arguments.push(group_url);
        Self::spawn(binary, &arguments, Some(&account.password), address)
    }

    /// Starts it with exactly these arguments; `address` is where it then listens. Returns at once.
    ///
    /// # Errors
    /// In words, when the program cannot be started.
    pub fn launch(binary: &Path, arguments: &[&str], address: SocketAddr) -> Result<Self, String> {
        Self::spawn(binary, arguments, None, address)
    }

    fn spawn(
        binary: &Path,
        arguments: &[&str],
        sip_password: Option<&str>,
        address: SocketAddr,
    ) -> Result<Self, String> {
        let mut command = Command::new(binary);
        command.args(arguments).env_remove("GALENE_SIP_PASSWORD").env_remove("GALENE_PASSWORD");
        if let Some(password) = sip_password {
            command.env("GALENE_SIP_PASSWORD", password);
        }
        let program = Program::start(&mut command).map_err(|error| format!("{}: {error}", binary.display()))?;
        Ok(Self { program, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URI at which a telephone calls it. One that has registered takes calls to its Contact instead, and these
    /// from the registrar's address only.
    pub fn uri(&self) -> String {
        format!("sip:6002@{}", self.address)
    }

    /// Waits until it answers OPTIONS.
    ///
    /// # Errors
    /// Its last lines, when it ends or stays silent.
    pub fn wait_ready(&mut self) -> Result<(), String> {
        let until = Instant::now() + START_PATIENCE;
        while Instant::now() < until && self.program.is_running() {
            if answers(self.address).map_err(words)? {
                return Ok(());
            }
        }
        let lines = self.program.lines();
        Err(format!("the gateway does not answer at {}; it said:\n  {}", self.address, lines.join("\n  ")))
    }
}

impl Deref for Gateway {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

/// Whether a SIP server answers OPTIONS at that address, with whatever status.
///
/// # Errors
/// As the system has them.
pub fn answers(address: SocketAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(PROBE_PATIENCE))?;
    let (local, word) = (socket.local_addr()?, token());
    let request = format!(
        "OPTIONS sip:6002@{address} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{word};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:lab@{local}>;tag={word}\r\nTo: <sip:6002@{address}>\r\nCall-ID: {word}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    );
    socket.send_to(request.as_bytes(), address)?;
    let mut buffer = [0; 4096];
    // Refused: nobody listens yet, so the pause that the answer would have taken is still due.
    let answered = socket.recv_from(&mut buffer).is_ok_and(|(length, _)| buffer[..length].starts_with(b"SIP/2.0 "));
    if !answered {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(answered)
}

fn words(error: io::Error) -> String {
    error.to_string()
}
