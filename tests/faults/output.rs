//! The log has nowhere to go: a reader that has stopped reading (as a stuck journald), one that is gone, a full disk, no
//! output at all. Calls know nothing of it.

use std::fs::OpenOptions;
use std::io::{PipeReader, Read, pipe};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lab::gateway::answers;
use lab::program::{Folder, Signal, free_udp_port};
use lab::room::RoomServer;
use lab::telephone::What;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::ground::{assert_unharmed, call, wait_ready};
use crate::real::{GROUP, PATIENCE, binary, eventually, names, room};

/// What a pipe holds at least: much less than `-debug` says of one call.
const PIPE_BYTES: i32 = 4096;
/// The end of the process, its last lines included that nobody takes.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// The program with its output where the test wants it. Killed at the end.
struct Mute {
    child: Child,
    address: SocketAddr,
    room: RoomServer,
}

impl Mute {
    /// `output` is both its outputs.
    fn start(output: Stdio, more: &[&str]) -> Self {
        Self::run(Command::new(binary()).stdout(Stdio::null()).stderr(output), more)
    }

    fn run(command: &mut Command, more: &[&str]) -> Self {
        let room = room();
        let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
        let arguments = ["-no-sip-register", "-sip-udp-address", &address.to_string(), "-debug"];
        let command = command.args(arguments).args(more).arg(room.group_url(GROUP));
        let child = command.env_remove("GALENE_SIP_PASSWORD").env_remove("GALENE_PASSWORD").spawn().unwrap();
        wait_ready(address);
        Self { child, address, room }
    }

    /// Several calls, one after the other beside one that lasts, and none of them suffers.
    fn assert_carries_calls(&self) {
        let target = format!("sip:6002@{}", self.address);
        let lasting = call(&target, "Ada", String::new);
        let since = Instant::now();
        for _ in 0..3 {
            let brief = call(&target, "Ben", String::new);
            // The first packet may have come before the answer, and be past already; a second with sound is as good.
            let has_sound = |what: &What| matches!(what, What::FirstRtp { .. } | What::Level { packets: 1.., .. });
            brief.wait_for(PATIENCE, has_sound).unwrap();
            drop(brief);
            eventually("the second caller is out", || names(&self.room) == ["Ada"]);
        }
        lasting.wait_for(PATIENCE, |what| matches!(what, What::Level { .. })).unwrap();
        assert_unharmed(lasting, since);
        assert!(answers(self.address).unwrap());
    }

    fn end(mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end within {ENDS_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe that holds little.
fn narrow_pipe() -> (PipeReader, Stdio) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).unwrap();
    (reader, writer.into())
}

#[test]
fn a_reader_that_does_not_read_delays_nothing_and_learns_what_it_has_missed() {
    let (mut reader, writer) = narrow_pipe();
    let gateway = Mute::start(writer, &[]);
    gateway.assert_carries_calls();
    // More than what waits for the reader: each question and its answer are some 1.5 kB of log.
    let until = Instant::now() + Duration::from_secs(10);
    for _ in 0..2_500 {
        assert!(answers(gateway.address).unwrap() && Instant::now() < until);
    }
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        log
    });
    assert!(gateway.end().success());
    let log = log.join().unwrap();
    assert!(log.contains("lines of the log are missing here: its reader was too slow"), "{} bytes", log.len());
}

#[test]
fn who_never_reads_does_not_keep_the_program_from_ending() {
    let (_reader, writer) = narrow_pipe();
    let gateway = Mute::start(writer, &[]);
    gateway.assert_carries_calls();
    assert!(gateway.end().success());
}

#[test]
fn a_reader_that_is_gone_is_no_harm() {
    let (reader, writer) = narrow_pipe();
    drop(reader);
    let gateway = Mute::start(writer, &[]);
    gateway.assert_carries_calls();
    assert!(gateway.end().success());
}

#[test]
fn a_full_disk_is_no_harm() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let gateway = Mute::start(full.into(), &[]);
    gateway.assert_carries_calls();
    assert!(gateway.end().success());
}

#[test]
fn no_output_at_all_is_no_harm() {
    let shell = ["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"];
    let gateway = Mute::run(Command::new("sh").args(shell).arg(binary()), &[]);
    gateway.assert_carries_calls();
    assert!(gateway.end().success());
}

#[test]
fn a_capture_that_the_disk_does_not_take_delays_neither_calls_nor_the_end() {
    let folder = Folder::new().unwrap();
    let path = folder.path().join("calls.pcap");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    // Opened and never read: it takes a pipe's worth and no more.
    let _reader = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path).unwrap();
    let gateway = Mute::start(Stdio::null(), &["-sip-pcap", path.to_str().unwrap()]);
    for _ in 0..400 {
        assert!(answers(gateway.address).unwrap());
    }
    gateway.assert_carries_calls();
    assert!(gateway.end().success());
}

#[test]
fn help_that_nobody_wants_to_read_and_errors_that_nobody_can_are_no_panic() {
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let code = |command: &mut Command| command.status().unwrap().code();
    assert_eq!(code(Command::new(binary()).arg("-help").stdout(writer)), Some(0));
    assert_eq!(code(Command::new(binary()).arg("-help").stdout(full()).stderr(full())), Some(1));
    assert_eq!(code(Command::new(binary()).arg("-no-such-flag").stderr(full())), Some(2));
}
