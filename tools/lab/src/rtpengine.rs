//! rtpengine, a real media relay as SIP providers have them, on free ports.
//!
//! Owns: its options, and when it is ready. Does not own: which calls it relays: Kamailio tells it, over its ng protocol.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::program::{Folder, Program, free_udp_port};

/// How often a starting rtpengine is asked whether it is there, and how long each answer may take.
const START_QUESTIONS: usize = 200;
const ANSWER_PATIENCE: Duration = Duration::from_millis(50);

/// A running rtpengine.
#[derive(Debug)]
pub struct Rtpengine {
    /// The process and what it says.
    pub program: Program,
    control: SocketAddr,
    _folder: Folder,
}

impl Rtpengine {
    /// Starts it to relay at `ip`, an address of this machine or of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// In words, with its last lines when it does not come up.
    pub fn start_at(ip: Ipv4Addr, binary: &Path) -> Result<Self, String> {
        let folder = Folder::new().map_err(words)?;
        let control = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port().map_err(words)?));
        let mut command = Command::new(binary);
        // Neither the system's configuration nor the kernel's module, of which there is one for all namespaces.
        command.args(["--config-file=none", "--table=-1", "--foreground", "--log-stderr", "--log-level=6"]);
        command.args([&format!("--interface={ip}"), &format!("--listen-ng={control}")]);
        command.args(["--port-min=30000", "--port-max=30999", "--num-threads=2"]);
        command.arg(format!("--pidfile={}", folder.path().join("pid").display()));
        let program = Program::start(&mut command).map_err(words)?;
        for _ in 0..START_QUESTIONS {
            if answers(control).map_err(words)? {
                return Ok(Self { program, control, _folder: folder });
            }
        }
        Err(format!("rtpengine does not answer: {}", program.lines().join("\n  ")))
    }

    /// Where it takes orders.
    pub fn control(&self) -> SocketAddr {
        self.control
    }
}

/// Whether a ping of the ng protocol is answered in time.
fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(ANSWER_PATIENCE))?;
    socket.send_to(b"lab d7:command4:pinge", address)?;
    let is_answered = socket.recv(&mut [0; 100]).is_ok();
    if !is_answered {
        // Where nobody listens yet, a refusal comes at once.
        std::thread::sleep(ANSWER_PATIENCE / 5);
    }
    Ok(is_answered)
}

fn words(error: std::io::Error) -> String {
    error.to_string()
}
