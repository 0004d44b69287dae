//! baresip, a real softphone, as caller or as the one who is called; its recording is the judgement.
//!
//! Owns: its configuration in a folder of its own, and finding its recording.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Folder, Program, free_tcp_port, free_udp_port};

/// A running baresip.
#[derive(Debug)]
pub struct Baresip {
    /// The process and what it says.
    pub program: Program,
    folder: Folder,
    port: u16,
}

impl Baresip {
    /// Starts it: it answers every call, says what is in `speech` (a WAV of 8 kHz), and records what it hears.
    /// With `dial` it calls that URI at once.
    ///
    /// # Errors
    /// As the system has them.
    pub fn start(binary: &Path, speech: &Path, dial: Option<&str>) -> io::Result<Self> {
        Self::start_encrypted(binary, speech, dial, None)
    }

    /// The same with a media encryption of its own list, such as `srtp` (RTP/AVP with keys) or `srtp-mand` (RTP/SAVP).
    ///
    /// # Errors
    /// As the system has them.
    pub fn start_encrypted(
        binary: &Path,
        speech: &Path,
        dial: Option<&str>,
        encryption: Option<&str>,
    ) -> io::Result<Self> {
        let folder = Folder::new()?;
        let port = free_udp_port()?;
        let modules = ["/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules", "/usr/lib64/baresip/modules"];
        let modules = modules.into_iter().find(|path| Path::new(path).is_dir()).unwrap_or("/usr/lib/baresip/modules");
        folder.write("config", &config(port, free_tcp_port()?, modules, speech, folder.path()))?;
        let encryption = encryption.map_or_else(String::new, |name| format!(";mediaenc={name}"));
        let account = format!("<sip:baresip@127.0.0.1:{port}>;regint=0;answermode=auto{encryption}\n");
        folder.write("accounts", &account)?;
        let mut command = Command::new(binary);
        command.arg("-f").arg(folder.path());
        if let Some(uri) = dial {
            command.args(["-e", &format!("/dial {uri}")]);
        }
        Ok(Self { program: Program::start(&mut command)?, folder, port })
    }

    /// The URI at which it is called.
    pub fn uri(&self) -> String {
        format!("sip:baresip@{}", self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What it heard in its last call, once that call is over.
    pub fn recording(&self) -> Option<PathBuf> {
        let files = std::fs::read_dir(self.folder.path()).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        let mut found: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with("-dec.wav")).collect();
        found.sort();
        found.pop()
    }
}

fn config(port: u16, control_port: u16, modules: &str, speech: &Path, folder: &Path) -> String {
    let (speech, folder) = (speech.display(), folder.display());
    format!(
        "sip_listen 127.0.0.1:{port}\nnet_interface 127.0.0.1\ncall_local_timeout 30\ncall_max_calls 8\n\
         audio_player aubridge,sink\naudio_source aufile,{speech}\naudio_alert aubridge,alert\n\
         ausrc_srate 8000\nauplay_srate 8000\nausrc_channels 1\nauplay_channels 1\naudio_buffer 20-160\n\
         module_path {modules}\nmodule g711.so\nmodule srtp.so\nmodule aufile.so\nmodule aubridge.so\nmodule sndfile.so\n\
         module_tmp account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\nctrl_tcp_listen 127.0.0.1:{control_port}\n\
         snd_path {folder}\n"
    )
}
