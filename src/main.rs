//! Flags to configuration to `io::run`. Exit codes: 0 after a clean stop, 1 if it cannot start, 2 for a wrong flag.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use galene_sip::config::{self, Request};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    hide_secrets(&arguments);
    match config::parse(arguments, |name| std::env::var(name).ok()) {
        Ok(Request::Help) => match io::stdout().write_all(config::help().as_bytes()) {
            // `| head` has read enough.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(&error, 1),
            Ok(()) | Err(_) => ExitCode::SUCCESS,
        },
        Ok(Request::Run(config)) => match galene_sip::io::run(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => fail(&error, 2),
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    say(&format!("galene-sip: {error}"));
    ExitCode::from(code)
}

/// A line on standard error, if anybody takes it: `eprintln!` would panic on a full disk.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Starts the program again, in the same process, without passwords and tokens on its command line. Should that fail,
/// they stay visible and the program runs all the same.
fn hide_secrets(arguments: &[OsString]) {
    if let Some(concealed) = config::conceal(arguments)
        && let Ok(program) = std::env::current_exe()
    {
        let environment = concealed.environment;
        let error = Command::new(program).arg0("galene-sip").args(concealed.arguments).envs(environment).exec();
        say(&format!("galene-sip: passwords stay visible in the process list: {error}"));
    }
}
