//! The gateway's program registers with the laboratory's registrar, which every machine has.

mod real;

use std::time::Duration;

use lab::gateway::Gateway;
use lab::program::Signal;
use lab::registrar::{Account, Registrar, RegistrarEventKind};
use lab::room::{GroupConfig, RoomConfig, RoomServer};
use lab::telephone::{Telephone, TelephoneSetup, What};
use real::{GROUP, PATIENCE, alone, binary, from};

/// Unregistering has to be done within this after a signal.
const QUICK: Duration = Duration::from_secs(1);

fn room() -> RoomServer {
    RoomServer::start(RoomConfig::new(vec![GroupConfig::open(GROUP)])).unwrap()
}

/// From an address that is not the registrar's and is admitted by nothing but the Contact.
fn setup(target: &str, name: &str) -> TelephoneSetup {
    TelephoneSetup { local: Some([127, 0, 0, 2].into()), ..TelephoneSetup::new(target).from(&from(name)) }
}

#[test]
fn the_contact_that_was_registered_is_the_key_to_the_room_until_a_signal_unregisters_it() {
    let _alone = alone();
    let room = room();
    let mut registrar = Registrar::start("room", "a \"good\\ pass").unwrap();
    let mut gateway = Gateway::start_registering(binary(), &room.group_url(GROUP), registrar.account(), &[]).unwrap();
    let mut kinds = Vec::new();
    let contact = registrar
        .wait_registered(PATIENCE, |event| kinds.push(event.kind.clone()))
        .unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert_eq!(kinds[0], RegistrarEventKind::Challenged);
    assert!(contact.contains(&gateway.address().to_string()), "{contact}");

    let telephone = Telephone::call(setup(&contact, "Ada")).unwrap();
    telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{why}\n{}", gateway.lines().join("\n")));
    assert!(room.snapshot().clients.iter().any(|client| client.name.username.starts_with("Ada")));
    let stranger = Telephone::call(setup(&gateway.uri(), "Eve")).unwrap();
    stranger.wait_for(PATIENCE, |what| matches!(what, What::Refused { status: 403, .. })).unwrap();

    gateway.signal(Signal::SIGINT);
    assert!(registrar.wait_unregistered(QUICK, &contact).is_some(), "{}", gateway.lines().join("\n"));
    assert_eq!(gateway.wait_exit(2 * QUICK).unwrap().code(), Some(0));
}

#[test]
fn a_wrong_password_is_refused_and_told() {
    let _alone = alone();
    let room = room();
    let mut registrar = Registrar::start("room", "right").unwrap();
    let account = Account { password: "wrong".to_owned(), ..registrar.account().clone() };
    let gateway = Gateway::start_registering(binary(), &room.group_url(GROUP), &account, &[]).unwrap();
    registrar.wait_registered(PATIENCE, |_| ()).unwrap_err();
    gateway.wait_for_line(PATIENCE, |line| line.contains("-sip-password")).unwrap();
}
