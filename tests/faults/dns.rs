//! DNS is down, for the registrar's name and for Galene's, at the start and in mid-life: what is in progress goes on, the log
//! says in plain words what is wrong, and all comes right by itself when there is an answer again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::gateway::Gateway;
use lab::program::{Folder, find_or_skip, free_udp_port};
use lab::registrar::Registrar;
use lab::room::RoomCommand;
use lab::telephone::{Telephone, TelephoneSetup, What};

use crate::ground::{assert_both_ways, assert_unharmed, call, member, refusal};
use crate::name_server::{NameServer, loopback, srv};
use crate::real::{AUDIBLE_DBFS, GROUP, Judge, PATIENCE, binary, eventually, from, names, register, room};

/// The account's password.
const PASSWORD: &str = "right";
/// From the answer of the name server to a registration: the rest of the question's round, and the pause after the first failure.
const REGISTERED_WITHIN: Duration = Duration::from_secs(10);
/// From the answer of the name server to the room: a question that was asked in vain is given up after 4 s, and the
/// pause is 3 s at most.
const BACK_WITHIN: Duration = Duration::from_secs(8);

#[test]
fn a_registrar_whose_name_cannot_be_looked_up_is_found_when_there_is_an_answer() {
    let room = room();
    let mut registrar = Registrar::start("room", PASSWORD).unwrap();
    let port = registrar.account().registrar.port();
    let zone = || vec![srv("_sip._udp.example.test.", 1, port, "host.test."), loopback("host.test.")];
    let names = NameServer::start(zone());
    names.set_silent(true);
    let server = names.address().to_string();
    let gateway = register("sip:room@example.test", PASSWORD, &["-sip-dns", &server], &room.group_url(GROUP));
    let told = gateway.wait_for_line(2 * PATIENCE, |line| line.contains("cannot be looked up"));
    let told = told.unwrap_or_else(|why| panic!("{why}"));
    assert!(told.contains("the server of -sip-dns does not answer") && told.contains("not registered"), "{told}");
    names.set_silent(false);
    let answers = Instant::now();
    let registered = registrar.wait_registered(REGISTERED_WITHIN, |_| ());
    registered.unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    println!("registered {:.1} s after the name server's return", answers.elapsed().as_secs_f64());
}

/// A gateway whose system asks a name server of the test's: in a mount namespace of its own, where root may have one.
struct Resolving {
    names: NameServer,
    gateway: Gateway,
    room: Judge,
    _folder: Folder,
}

/// What Galene's name stands for.
const GALENE: &str = "galene.test";

impl Resolving {
    fn start(is_silent: bool) -> Option<Self> {
        let unshare = find_or_skip("unshare")?;
        let own = ["-m", "--propagation", "private"];
        let granted = Command::new(&unshare).args(own).arg("true").stderr(Stdio::null()).status();
        if !granted.is_ok_and(|status| status.success()) {
            println!("skipped: mount namespaces are not to be had here");
            return None;
        }
        // resolv.conf knows no ports, so it is port 53 of an address that nobody else has.
        let host = Ipv4Addr::new(127, 53, 53, (free_udp_port().unwrap() % 250 + 1) as u8);
        let names = match NameServer::start_at((host, 53).into(), vec![loopback(&format!("{GALENE}."))]) {
            Ok(names) => names,
            Err(error) => {
                println!("skipped: no name server at {host}: {error}");
                return None;
            }
        };
        names.set_silent(is_silent);
        let folder = Folder::new().unwrap();
        let file = folder.write("resolv.conf", &format!("nameserver {host}\n")).unwrap();
        let room = Judge::start(lab::room::RoomConfig::new(vec![lab::room::GroupConfig::open(GROUP)]));
        let url = room.group_url(GROUP).replace("127.0.0.1", GALENE);
        let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
        let listen = address.to_string();
        let within = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let mut arguments = own.to_vec();
        arguments.extend(["sh", "-c", within, file.to_str().unwrap(), binary().to_str().unwrap()]);
        arguments.extend(["-no-sip-register", "-sip-udp-address", &listen, "-debug", &url]);
        let mut gateway = Gateway::launch(Path::new(&unshare), &arguments, address).unwrap();
        gateway.wait_ready().unwrap();
        Some(Self { names, gateway, room, _folder: folder })
    }

    fn log(&self) -> String {
        self.gateway.lines().join("\n")
    }
}

#[test]
fn a_galene_whose_name_cannot_be_looked_up_at_the_start_is_told_and_reached_with_the_next_call() {
    let Some(world) = Resolving::start(true) else { return };
    let telephone = Telephone::call(TelephoneSetup::new(&world.gateway.uri()).from(&from("Ada"))).unwrap();
    let began = Instant::now();
    let (status, warning) = refusal(&telephone, PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", world.log()));
    println!("{status} after {:.1} s: {warning}", began.elapsed().as_secs_f64());
    assert!(status == 480 && warning.contains(GALENE) && warning.contains("cannot be looked up"), "{status} {warning}");
    let at_start = |line: &str| line.contains("calls cannot be answered now") && line.contains("cannot be looked up");
    world.gateway.wait_for_line(PATIENCE, at_start).unwrap_or_else(|why| panic!("{why}"));
    world.names.set_silent(false);
    let telephone = call(&world.gateway.uri(), "Ada", || world.log());
    assert_eq!(names(&world.room), ["Ada"]);
    drop(telephone);
}

#[test]
fn a_call_goes_on_without_dns_and_is_back_in_the_room_soon_after_its_return() {
    let Some(world) = Resolving::start(false) else { return };
    let log = || world.log();
    let mut member = member(&world.room.group_url(GROUP));
    let telephone = call(&world.gateway.uri(), "Ada", log);
    let since = Instant::now();
    world.names.set_silent(true);
    assert_both_ways(&telephone, "Ada", &mut member, log);
    // Only now is it asked for the name again.
    world.room.command(RoomCommand::Cut { client: "Ada".to_owned() });
    eventually("the caller has lost the room", || names(&world.room) == ["Member"]);
    let told = world.gateway.wait_for_line(PATIENCE, |line| line.contains("the caller stays on the line"));
    told.unwrap_or_else(|why| panic!("{why}"));
    std::thread::sleep(Duration::from_secs(3));
    world.names.set_silent(false);
    let answers = Instant::now();
    let back = world.gateway.wait_for_line(BACK_WITHIN, |line| line.contains("back in test"));
    back.unwrap_or_else(|why| panic!("{why}"));
    println!("back {:.1} s after the name server's return", answers.elapsed().as_secs_f64());
    while telephone.next_event(Duration::ZERO).is_some_and(|event| !matches!(event.what, What::Bye { .. })) {}
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    assert_unharmed(telephone, since);
}
