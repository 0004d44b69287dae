//! linphonec, a real softphone (liblinphone), as caller; it is told what to do by its own commands.
//!
//! Owns: its configuration in a folder of its own, its commands, finding its recording.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};

use crate::pcm::Pcm;
use crate::program::{Folder, Program, free_tcp_port, free_udp_port};

/// The only codec that it offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinphoneCodec {
    /// A-law.
    Pcma,
    /// G.722 of its own.
    G722,
    /// Opus by the system's libopus.
    Opus,
}

/// All that it knows and would offer: name, clock and channels.
const CODECS: [(&str, u32, u8); 7] = [
    ("opus", 48_000, 2),
    ("speex", 16_000, 1),
    ("speex", 8000, 1),
    ("PCMU", 8000, 1),
    ("PCMA", 8000, 1),
    ("G722", 8000, 1),
    ("G729", 8000, 1),
];

/// A running linphonec.
#[derive(Debug)]
pub struct Linphone {
    /// The process and what it says.
    pub program: Program,
    input: ChildStdin,
    recording: PathBuf,
    _folder: Folder,
}

impl Linphone {
    /// Starts it and has it call; it says `speech`, and records what it hears. With `is_encrypted` it offers SRTP with keys
    /// in the SDP, and nothing else. It looks at no certificate.
    ///
    /// # Errors
    /// As the system has them.
    pub fn call(
        binary: &Path,
        name: &str,
        codec: LinphoneCodec,
        is_encrypted: bool,
        speech: &Pcm,
        uri: &str,
    ) -> io::Result<Self> {
        let folder = Folder::new()?;
        // Without its data base it does not even listen, and it makes the file but not the folder.
        std::fs::create_dir_all(folder.path().join(".local/share/linphone"))?;
        let settings = folder.write("linphonerc", &settings(name, codec, is_encrypted)?)?;
        let (said, recording) = (folder.path().join("said.wav"), folder.path().join("heard.wav"));
        speech.write_wav(&said).map_err(io::Error::other)?;
        let mut command = Command::new(binary);
        command.arg("-c").arg(settings).env("HOME", folder.path()).current_dir(folder.path());
        let (program, input) = Program::start_with_input(&mut command)?;
        let mut linphone = Self { program, input, recording, _folder: folder };
        linphone.command("soundcard use files")?;
        linphone.command(&format!("play {}", said.display()))?;
        linphone.command(&format!("record {}", linphone.recording.display()))?;
        linphone.command(&format!("call {uri}"))?;
        Ok(linphone)
    }

    /// Has it do something, as if typed: `pause`, `resume 1`, `transfer 1 sip:…`, `terminate`, `quit`, or keys of a telephone.
    ///
    /// # Errors
    /// As the system has them.
    pub fn command(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.input, "{line}")?;
        self.input.flush()
    }

    /// What it heard, once it has quit.
    ///
    /// # Errors
    /// When it recorded nothing.
    pub fn recording(&self) -> io::Result<Pcm> {
        // A WAV of 16-bit mono, whose own account of its length is too long by the header.
        let bytes = std::fs::read(&self.recording)?;
        let Some((header, data)) = bytes.split_first_chunk::<44>() else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the recording has not even a header"));
        };
        let rate_hz = u32::from_le_bytes([header[24], header[25], header[26], header[27]]);
        let samples = data.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])).collect();
        Ok(Pcm { rate_hz, samples })
    }
}

fn settings(name: &str, codec: LinphoneCodec, is_encrypted: bool) -> io::Result<String> {
    let wanted = match codec {
        LinphoneCodec::Pcma => "PCMA",
        LinphoneCodec::G722 => "G722",
        LinphoneCodec::Opus => "opus",
    };
    let codec = |(index, (name, clock_hz, channels)): (usize, &(&str, u32, u8))| {
        let enabled = u8::from(*name == wanted);
        format!("[audio_codec_{index}]\nmime={name}\nrate={clock_hz}\nchannels={channels}\nenabled={enabled}\n")
    };
    let codecs: String = CODECS.iter().enumerate().map(codec).collect();
    let encryption = if is_encrypted { "srtp" } else { "none" };
    let (udp_port, tcp_port, rtp_port) = (free_udp_port()?, free_tcp_port()?, free_udp_port()?);
    Ok(format!(
        "[sip]\ncontact=\"{name}\" <sip:linphone@127.0.0.1>\nsip_port={udp_port}\nsip_tcp_port={tcp_port}\nsip_tls_port=-1\n\
         use_ipv6=0\nguess_hostname=0\nverify_server_certs=0\nverify_server_cn=0\n\
         media_encryption={encryption}\nmedia_encryption_mandatory={}\n\
         [rtp]\naudio_rtp_port={rtp_port}\n[sound]\nechocancellation=0\n{codecs}",
        u8::from(is_encrypted)
    ))
}
