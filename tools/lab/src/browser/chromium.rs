//! A Chromium without a window, whose microphone plays a file.
//!
//! Owns: its flags, its profile, its end. Does not own: what the page does.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Folder, Program, find};

/// Debian's name of it.
const PROGRAM: &str = "chromium";

/// A running browser, which ends with its owner, as its profile does.
pub(super) struct Chromium {
    program: Program,
    // After the program: whoever still writes into a folder keeps it from being removed.
    _profile: Folder,
}

impl Chromium {
    /// Where it is, if it is installed.
    pub(super) fn find() -> Option<PathBuf> {
        find(PROGRAM)
    }

    /// Its version in its own words, such as `Chromium 156.0.8078.108`.
    pub(super) fn version(binary: &Path) -> String {
        let output = Command::new(binary).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&output);
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Opens a URL; whenever the page opens the microphone, it hears that file from its beginning, and silence after its end.
    pub(super) fn open(binary: &Path, url: &str, microphone: &Path) -> Result<Self, String> {
        let profile = Folder::new().map_err(|error| format!("no profile for the browser: {error}"))?;
        let mut command = Command::new(binary);
        command.args(flags(profile.path(), microphone, is_root())).arg(url);
        // What it keeps outside the profile goes there too.
        for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env(variable, profile.path());
        }
        let program = Program::start(&mut command).map_err(|error| format!("{}: {error}", binary.display()))?;
        Ok(Self { program, _profile: profile })
    }

    /// What it wrote last.
    pub(super) fn last_lines(&self) -> String {
        let lines = self.program.lines();
        lines[lines.len().saturating_sub(10)..].join("\n  ")
    }
}

/// Whether this process is root's: its entry in /proc belongs to whom it acts for.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

fn flags(profile: &Path, microphone: &Path, is_root: bool) -> Vec<String> {
    let mut flags = vec![
        "--headless=new".to_owned(),
        format!("--user-data-dir={}", profile.display()),
        // Nobody is there to allow the microphone or to click before sound may be played.
        "--use-fake-ui-for-media-stream".to_owned(),
        "--use-fake-device-for-media-stream".to_owned(),
        format!("--use-file-for-fake-audio-capture={}%noloop", microphone.display()),
        "--autoplay-policy=no-user-gesture-required".to_owned(),
        // The room's media are on 127.0.0.1, where WebRTC does not look otherwise.
        "--allow-loopback-in-peer-connection".to_owned(),
        "--disable-features=WebRtcHideLocalIpsWithMdns".to_owned(),
        // A page that nobody sees is slowed down.
        "--disable-background-timer-throttling".to_owned(),
        "--disable-renderer-backgrounding".to_owned(),
        "--disable-backgrounding-occluded-windows".to_owned(),
        // What a container may lack, and what a test does not want to meet.
        "--disable-dev-shm-usage".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-background-networking".to_owned(),
        "--disable-component-update".to_owned(),
        "--disable-breakpad".to_owned(),
        "--disable-extensions".to_owned(),
        "--disable-sync".to_owned(),
        "--no-first-run".to_owned(),
        "--no-default-browser-check".to_owned(),
    ];
    if is_root {
        // Its sandbox refuses to be built by root.
        flags.push("--no-sandbox".to_owned());
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_is_given_up_by_root_alone() {
        let has = |is_root| {
            let flags = flags(Path::new("/p"), Path::new("/m.wav"), is_root);
            assert!(flags.contains(&"--use-file-for-fake-audio-capture=/m.wav%noloop".to_owned()));
            flags.contains(&"--no-sandbox".to_owned())
        };
        assert!(has(true) && !has(false));
    }
}
