//! baresip, a real softphone, as caller or as the one who is called; its recording is the judgement.
//!
//! Owns: its configuration in a folder of its own, and finding its recording.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Folder, Program, free_tcp_port, free_udp_port};

/// What it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaresipCodec {
    /// Either law.
    G711,
    /// G.722 by spandsp.
    G722,
    /// Opus, of two channels as baresip has it.
    Opus,
}

impl BaresipCodec {
    /// Of its sound.
    pub const fn rate_hz(self) -> u32 {
        match self {
            Self::G711 => 8000,
            Self::G722 => 16_000,
            Self::Opus => 48_000,
        }
    }

    /// Of its sound.
    pub const fn channels(self) -> u16 {
        match self {
            Self::G711 | Self::G722 => 1,
            Self::Opus => 2,
        }
    }

    const fn account(self) -> &'static str {
        match self {
            Self::G711 => ";audio_codecs=PCMU/8000/1,PCMA/8000/1",
            Self::G722 => ";audio_codecs=G722/16000/1",
            Self::Opus => ";audio_codecs=opus/48000/2",
        }
    }
}

/// A running baresip.
#[derive(Debug)]
pub struct Baresip {
    /// The process and what it says.
    pub program: Program,
    folder: Folder,
    port: u16,
    control_port: u16,
}

impl Baresip {
    /// Starts it: it answers every call, says what is in `speech` (a WAV of 8 kHz), and records what it hears.
    /// With `dial` it calls that URI at once.
    ///
    /// # Errors
    /// As the system has them.
    pub fn start(binary: &Path, speech: &Path, dial: Option<&str>) -> io::Result<Self> {
        Self::speaking(binary, BaresipCodec::G711, speech, dial, None)
    }

    /// The same in one codec, with a WAV of its rate, and with a media encryption of baresip's own list, such as `srtp`
    /// (RTP/AVP with keys), `srtp-mand` (RTP/SAVP) or `dtls_srtp` (its certificate is RSA).
    ///
    /// # Errors
    /// As the system has them.
    pub fn speaking(
        binary: &Path,
        codec: BaresipCodec,
        speech: &Path,
        dial: Option<&str>,
        encryption: Option<&str>,
    ) -> io::Result<Self> {
        let folder = Folder::new()?;
        let (port, control_port) = (free_udp_port()?, free_tcp_port()?);
        let modules = ["/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules", "/usr/lib64/baresip/modules"];
        let modules = modules.into_iter().find(|path| Path::new(path).is_dir()).unwrap_or("/usr/lib/baresip/modules");
        folder.write("config", &config(codec, port, control_port, modules, speech, folder.path()))?;
        let encryption = encryption.map_or_else(String::new, |name| format!(";mediaenc={name}"));
        let (codecs, answers) = (codec.account(), "regint=0;answermode=auto");
        folder.write("accounts", &format!("<sip:baresip@127.0.0.1:{port}>;{answers}{codecs}{encryption}\n"))?;
        let mut command = Command::new(binary);
        command.arg("-f").arg(folder.path());
        if let Some(uri) = dial {
            command.args(["-e", &format!("/dial {uri}")]);
        }
        Ok(Self { program: Program::start(&mut command)?, folder, port, control_port })
    }

    /// The URI at which it is called.
    pub fn uri(&self) -> String {
        format!("sip:baresip@{}", self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Has it do something, as if typed into its menu: `hold`, `resume`, `transfer sip:…`.
    ///
    /// # Errors
    /// As the system has them.
    pub fn command(&self, line: &str) -> io::Result<()> {
        let (command, parameters) = line.split_once(' ').unwrap_or((line, ""));
        let json = format!("{{\"command\":\"{command}\",\"params\":\"{parameters}\",\"token\":\"lab\"}}");
        // Netstrings, as its ctrl_tcp module speaks them.
        TcpStream::connect(("127.0.0.1", self.control_port))?.write_all(format!("{}:{json},", json.len()).as_bytes())
    }

    /// What it heard in its last call, once that call is over.
    pub fn recording(&self) -> Option<PathBuf> {
        let files = std::fs::read_dir(self.folder.path()).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        let mut found: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with("-dec.wav")).collect();
        found.sort();
        found.pop()
    }
}

fn config(codec: BaresipCodec, port: u16, control_port: u16, modules: &str, speech: &Path, folder: &Path) -> String {
    let (speech, folder, rate_hz) = (speech.display(), folder.display(), codec.rate_hz());
    let channels = codec.channels();
    // Three packets before it plays: with one, G.722 (seen) runs dry every 3 s in some calls, as its player's phase has it.
    format!(
        "sip_listen 127.0.0.1:{port}\nnet_interface 127.0.0.1\ncall_local_timeout 30\ncall_max_calls 8\n\
         audio_player aubridge,sink\naudio_source aufile,{speech}\naudio_alert aubridge,alert\n\
         ausrc_srate {rate_hz}\nauplay_srate {rate_hz}\nausrc_channels {channels}\nauplay_channels {channels}\naudio_buffer 60-160\n\
         module_path {modules}\nmodule g711.so\nmodule g722.so\nmodule opus.so\nmodule srtp.so\nmodule dtls_srtp.so\nmodule aufile.so\nmodule aubridge.so\nmodule sndfile.so\n\
         module_tmp account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\nctrl_tcp_listen 127.0.0.1:{control_port}\n\
         snd_path {folder}\n"
    )
}
