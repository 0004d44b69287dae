//! The program as a process: exit codes, and what other users of the machine can see of it.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lab::gateway::Gateway;
use lab::program::{Signal, free_udp_port};

const URL: &str = "https://127.0.0.1:1/group/club/";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galene-sip"));
    for name in ["GALENE_SIP_PASSWORD", "GALENE_PASSWORD", "GALENE_TOKEN"] {
        command.env_remove(name);
    }
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_flag_is_one_line_and_exit_code_2() {
    let output = program().args(["-sip-register-network", "tcp", URL]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output), "galene-sip: -sip-register-network tcp: write udp4 or udp6\n");
}

#[test]
fn help_goes_to_standard_output_with_exit_code_0() {
    let output = program().arg("-help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("-sip-udp-address"));
}

#[test]
fn a_port_that_is_taken_is_one_line_and_exit_code_1() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = program().args(["-no-sip-register", "-sip-udp-address", &address, URL]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let last = text(&output).lines().last().unwrap().to_owned();
    assert!(last.starts_with("galene-sip: ") && last.contains("-sip-udp-address"), "{last}");
}

#[test]
fn secrets_do_not_stay_on_the_command_line() {
    let arguments =
        ["-no-sip-register", "-sip-udp-address", "127.0.0.1:0", "-password", "hush1", "-sip-password=hush2"];
    let mut child = program().args(arguments).arg(format!("{URL}?token=hush3")).stderr(Stdio::piped()).spawn().unwrap();
    // The first line of the log comes after the secrets have moved.
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut log, &mut first).unwrap();
    let shown = fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(shown.contains(URL) && !shown.contains("hush"), "{shown}");
    assert!(first.contains("SIP at") && !first.contains("hush"), "{first}");
}

#[test]
fn a_capture_has_every_message_by_the_time_the_program_ends() {
    let file = std::env::temp_dir().join(format!("galene-sip-process-{}.pcap", std::process::id()));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
    let (listen, path) = (address.to_string(), file.to_string_lossy().into_owned());
    let arguments = ["-no-sip-register", "-sip-udp-address", &listen, "-sip-pcap", &path, URL];
    let mut gateway = Gateway::launch(Path::new(env!("CARGO_BIN_EXE_galene-sip")), &arguments, address).unwrap();
    // It is asked by OPTIONS whether it is there.
    gateway.wait_ready().unwrap();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_exit(Duration::from_secs(5)).unwrap().code(), Some(0));
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(bytes.starts_with(&[0xd4, 0xc3, 0xb2, 0xa1]) && has("OPTIONS sip:") && has("SIP/2.0 200 OK"));
}
