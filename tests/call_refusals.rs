//! Callers whom the room does not let in: each hears the right status, and the log has one line that says what to do.

mod real;

use lab::gateway::Gateway;
use lab::program::free_tcp_port;
use lab::room::{GroupConfig, Permissions, TokenConfig, WildcardConfig};
use lab::telephone::{Telephone, TelephoneSetup, What};
use real::{GROUP, PATIENCE, World, alone, binary, from};

/// The status of the refusal, and what its Warning says.
fn refusal(telephone: &Telephone) -> (u16, String) {
    let event = telephone
        .wait_for(PATIENCE, |what| matches!(what, What::Refused { .. } | What::Answered { .. }))
        .expect("a call is answered or refused");
    match event.what {
        What::Refused { status, warning, .. } => (status, warning.unwrap_or_default()),
        other => panic!("not refused: {other:?}"),
    }
}

/// Calls as Ada into a group and expects a refusal; the line must be logged once, as a warning.
fn assert_refused(group: GroupConfig, flags: &[&str], status: u16, remedy: &str) {
    let world = World::with(group, flags);
    let telephone = world.call(&from("Ada"));
    let (got, warning) = refusal(&telephone);
    assert_eq!(got, status, "{warning}\n{}", world.gateway.lines().join("\n"));
    assert!(warning.contains(remedy), "'{warning}' does not name {remedy}");
    world.gateway.wait_for_line(PATIENCE, |line| line.contains(remedy)).unwrap();
    real::eventually("nobody is left in the room", || world.names().is_empty());
}

fn protected() -> GroupConfig {
    let wildcard = WildcardConfig { password: Some("open".to_owned()), permissions: Permissions::PRESENT.to_vec() };
    GroupConfig { wildcard: Some(wildcard), ..GroupConfig::closed(GROUP) }
}

#[test]
fn a_wrong_password_names_the_flag() {
    let _alone = alone();
    assert_refused(protected(), &["-password", "shut"], 403, "-password");
}

#[test]
fn a_missing_password_names_the_flag() {
    let _alone = alone();
    assert_refused(protected(), &[], 403, "-password");
}

#[test]
fn a_locked_group_gives_its_reason() {
    let _alone = alone();
    let group = GroupConfig { locked: Some("we begin at nine".to_owned()), ..GroupConfig::open(GROUP) };
    assert_refused(group, &[], 480, "we begin at nine");
}

#[test]
fn a_full_group_is_busy() {
    let _alone = alone();
    assert_refused(GroupConfig { max_clients: Some(0), ..GroupConfig::open(GROUP) }, &[], 486, "max-clients");
}

#[test]
fn a_group_that_lets_us_listen_only_names_the_permission() {
    let _alone = alone();
    let wildcard = WildcardConfig { password: None, permissions: Permissions::MESSAGE.to_vec() };
    assert_refused(GroupConfig { wildcard: Some(wildcard), ..GroupConfig::closed(GROUP) }, &[], 403, "present");
}

#[test]
fn a_group_that_does_not_exist_is_named() {
    let _alone = alone();
    assert_refused(GroupConfig::open("another"), &[], 404, "/group/test");
}

#[test]
fn a_galene_that_is_down_is_unreachable() {
    let _alone = alone();
    let port = free_tcp_port().unwrap();
    let url = format!("http://127.0.0.1:{port}/group/test/");
    let gateway = Gateway::start(binary(), &url, &[]).unwrap();
    let telephone = Telephone::call(TelephoneSetup::new(&gateway.uri())).unwrap();
    let (status, warning) = refusal(&telephone);
    assert_eq!(status, 480, "{warning}");
    assert!(warning.contains("127.0.0.1"), "{warning}");
    gateway.wait_for_line(PATIENCE, |line| line.contains("reached")).unwrap();
}

#[test]
fn a_password_opens_and_so_does_a_token() {
    let _alone = alone();
    let mut world = World::with(protected(), &["-password", "open"]);
    world.call(&from("Ada")).wait_answered(PATIENCE).unwrap();
    world.room_says("Ada", |kind| matches!(kind, lab::room::RoomEventKind::UpConnected { .. }));
    drop(world);

    let token = TokenConfig { token: "t0ken".to_owned(), username: None, permissions: Permissions::PRESENT.to_vec() };
    let group = GroupConfig { tokens: vec![token], ..GroupConfig::closed(GROUP) };
    let room = lab::room::RoomServer::start(lab::room::RoomConfig::new(vec![group])).unwrap();
    let url = format!("{}?token=t0ken", room.group_url(GROUP));
    let gateway = Gateway::start(binary(), &url, &[]).unwrap();
    let telephone = Telephone::call(TelephoneSetup::new(&gateway.uri()).from(&from("Ada"))).unwrap();
    telephone.wait_answered(PATIENCE).unwrap();
    assert!(!gateway.lines().iter().any(|line| line.contains("t0ken")), "a token is told in the log");
}

#[test]
fn of_half_as_many_calls_more_than_there_may_be_the_surplus_gets_503_and_the_others_keep_every_packet() {
    let _alone = alone();
    let world = World::with(GroupConfig::open(GROUP), &["-max-calls", "8"]);
    let calls: Vec<Telephone> = (0..12).map(|_| world.call(&from("Ada"))).collect();
    let mut admitted = Vec::new();
    for telephone in calls {
        let is_decided = |what: &What| matches!(what, What::Answered { .. } | What::Refused { .. });
        match telephone.wait_for(PATIENCE, is_decided).unwrap().what {
            What::Answered { .. } => admitted.push(telephone),
            What::Refused { status, retry_after_s, .. } => assert_eq!((status, retry_after_s), (503, Some(60))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(admitted.len(), 8);
    std::thread::sleep(std::time::Duration::from_secs(3));
    // The line that was not there before is answered at once when another becomes free.
    drop(admitted.pop().map(Telephone::finish));
    real::eventually("a line is free", || world.names().len() == 7);
    world.call(&from("Ada")).wait_answered(PATIENCE).unwrap();
    for telephone in admitted {
        let reception = telephone.finish().reception;
        assert!(reception.packets > 140 && reception.lost == 0, "{reception:?}");
    }
}
