//! The wall clock is set while the program runs, by an hour either way and by years (by libfaketime, which moves it for this
//! process alone): the call and the registration know nothing of it. A machine that sleeps is `io::clock`'s and
//! `tests/sip/registration.rs`'s matter.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::gateway::Gateway;
use lab::program::{Folder, find_or_skip, free_udp_port};
use lab::registrar::{Registrar, RegistrarEventKind};

use crate::ground::{assert_both_ways, assert_unharmed, call, member};
use crate::real::{GROUP, PATIENCE, binary, room};

/// Steps, and what the log's stamps begin with afterwards where that is another year.
const STEPS: [(&str, Option<&str>); 5] =
    [("+3600s", None), ("-3600s", None), ("+20y", Some("204")), ("-20y", Some("200")), ("+0", None)];

/// The library is no program and lies where its package has it.
fn library() -> Option<PathBuf> {
    find_or_skip("faketime")?;
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut files = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    files.find(|file| file.is_file())
}

#[test]
fn steps_of_hours_and_years_are_not_noticed() {
    let Some(library) = library() else { return };
    let folder = Folder::new().unwrap();
    let file = folder.write("offset", "+0").unwrap();
    let room = room();
    let mut registrar = Registrar::start("room", "secret").unwrap();
    let (account, url) = (registrar.account().address_of_record(), room.group_url(GROUP));
    let address = SocketAddr::from(([127, 0, 0, 1], free_udp_port().unwrap()));
    let (preload, offset) =
        (format!("LD_PRELOAD={}", library.display()), format!("FAKETIME_TIMESTAMP_FILE={}", file.display()));
    let listen = address.to_string();
    let environment =
        [&preload, &offset, "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1"];
    let flags = ["-sip", &account, "-sip-password", "secret", "-sip-udp-address", &listen, "-debug", &url];
    let arguments = [&environment[..], &[binary().to_str().unwrap()], &flags].concat();
    let gateway = Gateway::launch(Path::new("env"), &arguments, address).unwrap();
    let log = || gateway.lines().join("\n");
    let contact = registrar.wait_registered(PATIENCE, |_| ()).unwrap_or_else(|why| panic!("{why}\n{}", log()));
    let mut member = member(&url);
    let telephone = call(&contact, "Ada", log);
    assert_both_ways(&telephone, "Ada", &mut member, log);
    let since = Instant::now();
    registrar.events.forget();
    for (step, year) in STEPS {
        std::fs::write(&file, step).unwrap();
        if let Some(year) = year {
            // The step has come when the log says so.
            gateway
                .wait_for_line(PATIENCE, |line| line.starts_with(year))
                .unwrap_or_else(|why| panic!("{step}: {why}"));
        } else {
            std::thread::sleep(Duration::from_millis(1500));
        }
        assert_both_ways(&telephone, "Ada", &mut member, log);
    }
    assert_unharmed(telephone, since);
    let events: Vec<RegistrarEventKind> = registrar.events.all().iter().map(|event| event.kind.clone()).collect();
    assert!(events.is_empty(), "{events:?}\n{}", log());
}
