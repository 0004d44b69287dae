//! The gateway's program registers with a real Kamailio over TCP and TLS, and is called by way of it.

mod real;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lab::gateway::Gateway;
use lab::kamailio::{Kamailio, PASSWORD, Pem, USER};
use lab::program::{Folder, Signal, find_or_skip, free_udp_port, skip};
use lab::telephone::{Telephone, TelephoneSetup, What};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use real::{GROUP, PATIENCE, alone, from, register, room};

/// Unregistering and BYE have to be done within this after a signal.
const QUICK: Duration = Duration::from_secs(1);

/// A telephone calls over UDP; Kamailio passes the call on by the gateway's own connection.
fn call_and_end(kamailio: &Kamailio, mut gateway: Gateway) {
    let setup = TelephoneSetup::new(&format!("sip:{USER}@{}", kamailio.address())).from(&from("Ada"));
    let telephone = Telephone::call(setup).unwrap();
    telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    gateway.signal(Signal::SIGTERM);
    let bye = telephone.wait_for(QUICK, |what| matches!(what, What::Bye { .. }));
    bye.unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert_eq!(gateway.wait_exit(2 * QUICK).unwrap().code(), Some(0));
}

#[test]
fn over_tcp_calls_come_in_by_the_connection_that_we_opened() {
    let Some(kamailio) = find_or_skip("kamailio") else { return };
    let _alone = alone();
    let room = room();
    let mut kamailio = Kamailio::start(&kamailio).unwrap();
    let account = format!("sip:{USER}@{};transport=tcp", kamailio.address());
    let gateway = register(&account, PASSWORD, &["-sip-tcp-address", "127.0.0.1:0"], &room.group_url(GROUP));
    let bound = kamailio.wait_bound(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert!(bound.contains(";transport=tcp"), "{bound}");
    call_and_end(&kamailio, gateway);
    kamailio.wait_unbound(PATIENCE).unwrap();
    assert!(kamailio.program.is_running());
}

/// An authority for one test.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: Folder,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // By default it would have the name of all certificates, and OpenSSL would take these for self-signed ones.
        params.distinguished_name.push(DnType::CommonName, "authority of one test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, folder: Folder::new().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.folder.write("ca.pem", &self.issuer.pem()).unwrap()
    }

    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pem {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pem { certificate, key: key.serialize_pem(), clients_ca: None }
    }
}

fn start_tls(binary: &std::path::Path, pem: &Pem) -> Kamailio {
    let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
    Kamailio::start_at(binary, address, Some(pem)).unwrap()
}

fn kamailio_with_tls() -> Option<PathBuf> {
    let binary = find_or_skip("kamailio")?;
    if !Kamailio::has_tls() {
        skip("Kamailio's tls module (kamailio-tls-modules) is not installed");
        return None;
    }
    Some(binary)
}

#[test]
fn over_tls_the_certificate_is_checked_and_ours_is_shown_and_calls_come_in() {
    let Some(binary) = kamailio_with_tls() else { return };
    let _alone = alone();
    let room = room();
    let authority = Authority::new();
    let pem = Pem { clients_ca: Some(authority.issuer.pem()), ..authority.sign("127.0.0.1", |_| ()) };
    let kamailio = start_tls(&binary, &pem);
    let ours = authority.sign("gateway.example", |_| ());
    let certificate = authority.folder.write("ours.pem", &ours.certificate).unwrap();
    let key = authority.folder.write("ours-key.pem", &ours.key).unwrap();
    let ca = authority.file();
    let account = format!("sip:{USER}@{};transport=tls", kamailio.tls_address().unwrap());
    let files = ["-sip-tls-ca", "-sip-tls-certificate", "-sip-tls-key"].into_iter().zip([&ca, &certificate, &key]);
    let mut flags: Vec<&str> = files.flat_map(|(flag, file)| [flag, file.to_str().unwrap()]).collect();
    flags.extend(["-sip-tls-address", "127.0.0.1:0"]);
    let gateway = register(&account, PASSWORD, &flags, &room.group_url(GROUP));
    let bound = kamailio.wait_bound(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert!(bound.contains(";transport=tls"), "{bound}");
    call_and_end(&kamailio, gateway);
    kamailio.wait_unbound(PATIENCE).unwrap();
}

#[test]
fn a_certificate_that_is_expired_for_another_name_or_from_a_stranger_gets_no_password() {
    let Some(binary) = kamailio_with_tls() else { return };
    let _alone = alone();
    let room = room();
    let authority = Authority::new();
    let stranger = Authority::new();
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    let ca = authority.file();
    for (pem, words) in [
        (authority.sign("127.0.0.1", expired), "has expired"),
        (authority.sign("sip.example.com", |_| ()), "is for another host name"),
        (stranger.sign("127.0.0.1", |_| ()), "comes from nobody whom"),
    ] {
        let kamailio = start_tls(&binary, &pem);
        let account = format!("sips:{USER}@{}", kamailio.tls_address().unwrap());
        let gateway = register(&account, PASSWORD, &["-sip-tls-ca", ca.to_str().unwrap()], &room.group_url(GROUP));
        gateway.wait_for_line(PATIENCE, |line| line.contains("not registered") && line.contains(words)).unwrap();
        assert!(!gateway.lines().iter().any(|line| line.contains("REGISTER sip")));
    }
}

#[test]
fn a_registration_by_way_of_a_proxy_leaves_a_path_that_calls_come_back_by() {
    let Some(binary) = find_or_skip("kamailio") else { return };
    let _alone = alone();
    let room = room();
    let registrar = Kamailio::start(&binary).unwrap();
    let edge = Kamailio::start_edge(&binary).unwrap();
    let (account, proxy) =
        (format!("sip:{USER}@{}", registrar.address()), format!("sip:{};transport=tcp", edge.address()));
    let gateway = register(&account, PASSWORD, &["-sip-proxy", &proxy], &room.group_url(GROUP));
    let bound = registrar.wait_bound(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert!(bound.contains(";transport=tcp"), "{bound}");
    call_and_end(&registrar, gateway);
    registrar.wait_unbound(PATIENCE).unwrap();
}
