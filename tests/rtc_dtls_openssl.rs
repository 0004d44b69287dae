//! Our DTLS against the `openssl` command, both roles and all profiles, over real sockets: the keys must be equal.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use galene_sip::rtc::dtls::{Dtls, DtlsRole, Identity, Output};
use galene_sip::rtc::fingerprint::{Fingerprint, FingerprintHash};
use galene_sip::rtc::telephone_dtls::TelephoneDtls;
use galene_sip::time::{Deadline, Instant};
use galene_sip::wire::rtp::{SrtpKeys, SrtpProfile};

const PROFILES: [(&str, SrtpProfile); 3] = [
    ("SRTP_AEAD_AES_256_GCM", SrtpProfile::AeadAes256Gcm),
    ("SRTP_AEAD_AES_128_GCM", SrtpProfile::AeadAes128Gcm),
    ("SRTP_AES128_CM_SHA1_80", SrtpProfile::Aes128CmSha1_80),
];

/// What a telephone may use too.
const SHORT_TAG: (&str, SrtpProfile) = ("SRTP_AES128_CM_SHA1_32", SrtpProfile::Aes128CmSha1_32);

/// One of our two ends: for a room, for a telephone.
trait Ours {
    fn handle_input(&mut self, now: Instant, bytes: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn next_timeout(&self) -> Option<Deadline>;
    fn poll_output(&mut self) -> Option<Output>;
}

macro_rules! ours {
    ($end:ty) => {
        impl Ours for $end {
            fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
                self.handle_input(now, bytes);
            }
            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }
            fn next_timeout(&self) -> Option<Deadline> {
                self.next_timeout()
            }
            fn poll_output(&mut self) -> Option<Output> {
                self.poll_output()
            }
        }
    };
}
ours!(Dtls);
ours!(TelephoneDtls);

/// A directory of this test alone, gone at its end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const EC: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

/// The foreign program, ended with its test.
struct Openssl {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without the program the test is skipped, except where it has to be there.
fn is_missing() -> bool {
    let is_missing = Command::new("openssl").arg("version").output().is_err();
    assert!(!is_missing || std::env::var_os("CI").is_none(), "CI needs the openssl command");
    if is_missing {
        println!("skipped: no openssl command");
    }
    is_missing
}

fn openssl(directory: &Path, arguments: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A directory with the program's certificate and key, and the certificate in DER.
fn scratch(name: &str, key: &str) -> (Scratch, Vec<u8>) {
    let path = std::env::temp_dir().join(format!("galene-sip-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    let new = format!("req -x509 -newkey {key} -nodes -days 2 -subj /CN=test");
    openssl(&path, &format!("{new} -keyout key.pem -out cert.pem"));
    let der = openssl(&path, "x509 -in cert.pem -outform DER");
    (Scratch(path), der)
}

fn spawn(directory: &Path, arguments: &str, profile: (&str, SrtpProfile)) -> Openssl {
    let (name, profile) = profile;
    let bytes = 2 * (profile.key_bytes() + profile.salt_bytes());
    let export = format!("-use_srtp {name} -keymatexport EXTRACTOR-dtls_srtp -keymatexportlen {bytes}");
    let all = format!("{arguments} -dtls1_2 -cert cert.pem -key key.pem {export}");
    let mut child = Command::new("openssl")
        .args(all.split(' '))
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    Openssl { child, lines }
}

/// Runs the handshake; gives our keys and the program's keying material.
fn handshake(
    openssl: &Openssl,
    socket: &UdpSocket,
    mut remote: Option<SocketAddr>,
    dtls: &mut dyn Ours,
    zero: std::time::Instant,
) -> (SrtpKeys, Vec<u8>) {
    let now = || Instant::from_us(zero.elapsed().as_micros() as u64);
    let (mut keys, mut exported) = (None, None);
    let mut buffer = [0; 2048];
    while zero.elapsed() < Duration::from_secs(20) {
        while let Some(output) = dtls.poll_output() {
            match output {
                Output::Transmit(bytes) => drop(socket.send_to(&bytes, remote.unwrap()).unwrap()),
                Output::Connected(ours) => keys = Some(ours),
                Output::Failed(error) => panic!("{error}"),
            }
        }
        for line in openssl.lines.try_iter() {
            if let Some((_, hex)) = line.split_once("Keying material: ") {
                let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                exported = Some((0..hex.len() / 2).map(|index| byte(2 * index)).collect::<Vec<u8>>());
            }
        }
        if let (Some(keys), Some(exported)) = (&keys, &exported) {
            return (keys.clone(), exported.clone());
        }
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            remote = Some(from);
            dtls.handle_input(now(), &buffer[..len]);
        }
        if dtls.next_timeout().is_some_and(|deadline| deadline.at <= now()) {
            dtls.handle_timeout(now());
        }
    }
    panic!("no handshake in 20 s: ours {}, theirs {}", keys.is_some(), exported.is_some());
}

/// Client key, server key, client salt, server salt, as RFC 5764 §4.2 orders them.
fn in_order(client: &galene_sip::wire::rtp::SrtpMaterial, server: &galene_sip::wire::rtp::SrtpMaterial) -> Vec<u8> {
    [&client.key[..], &server.key, &client.salt, &server.salt].concat()
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    socket
}

fn identity() -> (Arc<Identity>, std::time::Instant) {
    let zero = std::time::Instant::now();
    (Identity::generate(zero).unwrap(), zero)
}

type Begin = fn(&Arc<Identity>, DtlsRole, Vec<Fingerprint>) -> Box<dyn Ours>;

fn for_a_room(identity: &Arc<Identity>, role: DtlsRole, announced: Vec<Fingerprint>) -> Box<dyn Ours> {
    let mut dtls = Dtls::new(Instant::ZERO, identity, role, announced);
    dtls.start(Instant::ZERO);
    Box::new(dtls)
}

fn for_a_telephone(identity: &Arc<Identity>, role: DtlsRole, announced: Vec<Fingerprint>) -> Box<dyn Ours> {
    Box::new(TelephoneDtls::begin(Instant::ZERO, identity, role, announced))
}

fn as_client(name: &str, key: &str, profiles: &[(&str, SrtpProfile)], begin: Begin) {
    if is_missing() {
        return;
    }
    let (directory, certificate) = scratch(name, key);
    for profile in profiles {
        let free = socket().local_addr().unwrap();
        let server = spawn(&directory.0, &format!("s_server -accept {free} -verify 1 -naccept 1"), *profile);
        let ready = server.lines.iter().any(|line| line.starts_with("ACCEPT"));
        assert!(ready, "openssl s_server did not start");
        let (identity, zero) = identity();
        // Every hash that a description may use, in turn.
        let hashes = [FingerprintHash::Sha1, FingerprintHash::Sha384, FingerprintHash::Sha512, FingerprintHash::Sha256];
        let announced = vec![Fingerprint::of(hashes[profile.1 as usize], &certificate)];
        let mut dtls = begin(&identity, DtlsRole::Client, announced);
        let (keys, exported) = handshake(&server, &socket(), Some(free), &mut *dtls, zero);
        assert_eq!(keys.local.profile, profile.1);
        assert_eq!(in_order(&keys.local, &keys.remote), exported);
    }
}

fn as_server(name: &str, key: &str, profiles: &[(&str, SrtpProfile)], begin: Begin) {
    if is_missing() {
        return;
    }
    let (directory, certificate) = scratch(name, key);
    for profile in profiles {
        let socket = socket();
        let (identity, zero) = identity();
        let announced = vec![Fingerprint::of(FingerprintHash::Sha256, &certificate)];
        let mut dtls = begin(&identity, DtlsRole::Server, announced);
        let client = spawn(&directory.0, &format!("s_client -connect {}", socket.local_addr().unwrap()), *profile);
        let (keys, exported) = handshake(&client, &socket, None, &mut *dtls, zero);
        assert_eq!(keys.local.profile, profile.1);
        assert_eq!(in_order(&keys.remote, &keys.local), exported);
    }
}

#[test]
fn as_client_of_openssl_we_get_the_same_keys() {
    as_client("client", EC, &PROFILES, for_a_room);
}

#[test]
fn as_server_of_openssl_we_get_the_same_keys() {
    as_server("server", EC, &PROFILES, for_a_room);
}

#[test]
fn a_telephone_may_have_a_certificate_of_either_kind_in_either_role() {
    let profiles = [&PROFILES[..], &[SHORT_TAG]].concat();
    for (name, key) in [("ec", EC), ("rsa", "rsa:2048"), ("large", "rsa:4096")] {
        as_client(&format!("{name}-client"), key, &profiles, for_a_telephone);
        as_server(&format!("{name}-server"), key, &profiles, for_a_telephone);
    }
}
