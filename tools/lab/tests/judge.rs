//! The room server judges as the real one does: each test is one thing that a client can tell.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use lab::member::{Crowd, MemberCommand, MemberConfig, MemberEventKind, Speech};
use lab::pcm::Pcm;
use lab::room::{
    AudioCodec, AuthRule, AuthVerdict, Candidates, ClientName, GroupConfig, Impairment, Permissions, RoomCommand,
    RoomConfig, RoomEventKind, RoomServer,
};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(10);

fn open_room(shape: impl FnOnce(&mut RoomConfig)) -> RoomServer {
    let mut config = RoomConfig::new(vec![GroupConfig::open("test")]);
    shape(&mut config);
    RoomServer::start(config).unwrap()
}

fn member(room: &RoomServer, name: &str, shape: impl FnOnce(&mut MemberConfig)) -> Crowd {
    let mut config = MemberConfig::new(&room.group_url("test"), name);
    shape(&mut config);
    Crowd::one(config).unwrap()
}

/// Waits until a member hears somebody; says how long that took from the offer on.
fn hears(listener: &mut Crowd, name: &str) -> Duration {
    let is = |kind: &MemberEventKind| matches!(kind, MemberEventKind::FirstPacket { username, .. } if username == name);
    let first = listener.events.wait_for(PATIENCE, |event| is(&event.kind)).expect("something is heard");
    let recordings = listener.recordings(0);
    let recording = recordings.iter().rev().find(|recording| recording.username == name).unwrap();
    Duration::from_micros(first.at_us - recording.offered_us)
}

fn refusal(crowd: &mut Crowd) -> String {
    let refused = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Refused(_));
    match crowd.events.wait_for(PATIENCE, |event| refused(&event.kind)).unwrap().kind {
        MemberEventKind::Refused(reason) => reason,
        _ => unreachable!("waited for a refusal"),
    }
}

fn joins(crowd: &mut Crowd) {
    let joined = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Joined { .. });
    crowd.events.wait_for(PATIENCE, |event| joined(&event.kind)).expect("somebody is in");
}

#[test]
fn whoever_asked_for_nothing_hears_a_close_and_a_listener_an_offer_200_ms_after_the_first_packet() {
    let mut room = open_room(|_| {});
    let mut deaf = member(&room, "deaf", |config| {
        config.listen = false;
        config.speech = None;
    });
    joins(&mut deaf);
    let mut listener = member(&room, "listener", |config| config.speech = None);
    joins(&mut listener);
    let speaker = member(&room, "speaker", |_| {});
    hears(&mut listener, "speaker");
    let at = |room: &mut RoomServer, client: &str, matches: fn(&RoomEventKind) -> bool| {
        let event = room.events.wait_for(PATIENCE, |event| event.client.username == client && matches(&event.kind));
        event.expect("it happens").at_us
    };
    let first = at(&mut room, "speaker", |kind| matches!(kind, RoomEventKind::UpFirstPacket { .. }));
    let shown = at(&mut room, "speaker", |kind| matches!(kind, RoomEventKind::Published { .. }));
    assert!(shown - first < 230_000, "{}", shown - first);
    let close = at(&mut room, "deaf", |kind| matches!(kind, RoomEventKind::DownClosed { .. }));
    let offer = at(&mut room, "listener", |kind| matches!(kind, RoomEventKind::DownOffered { .. }));
    assert!(close >= shown && offer >= shown);
    drop(speaker);
    listener
        .events
        .wait_for(PATIENCE, |event| matches!(event.kind, MemberEventKind::Closed { .. }))
        .expect("the end is told");
}

#[test]
fn a_stream_passes_whatever_the_way_of_telling_candidates_and_whatever_the_transport() {
    let shapes: [fn(&mut RoomConfig); 4] = [
        |config| config.candidates = Candidates::InDescription,
        |config| config.candidates = Candidates::BeforeDescription,
        |config| config.one_port = true,
        |config| config.tls = true,
    ];
    for shape in shapes {
        let room = open_room(shape);
        let mut listener = member(&room, "listener", |config| config.insecure = true);
        let _speaker = member(&room, "speaker", |config| config.insecure = true);
        let took = hears(&mut listener, "speaker");
        assert!(took < Duration::from_millis(500), "{took:?}");
        drop(listener);
    }
}

#[test]
fn a_certificate_is_not_trusted_unasked() {
    let room = open_room(|config| config.tls = true);
    assert!(refusal(&mut member(&room, "careful", |_| {})).contains("insecurely"));
}

#[test]
fn doors_are_kept() {
    let mut group = GroupConfig::closed("test").user("jane", "secret", Permissions::OP);
    let rule = |username: &str, verdict| AuthRule { username: username.into(), password: "pw".into(), verdict };
    group.auth = Some(vec![
        rule("token", AuthVerdict::Token(vec!["present"])),
        rule("jane", AuthVerdict::UsePassword),
        rule("nobody", AuthVerdict::Refuse),
    ]);
    group.max_clients = Some(1);
    let room = RoomServer::start(RoomConfig::new(vec![group])).unwrap();
    let enter = |name: &str, password: &str| member(&room, name, |config| config.password = password.into());
    assert_eq!(refusal(&mut enter("nobody", "pw")), "not authorised");
    // The authorisation server has no opinion, so the group's own passwords decide.
    assert_eq!(refusal(&mut enter("jane", "pw")), "not authorised");
    let mut inside = enter("token", "pw");
    joins(&mut inside);
    assert_eq!(refusal(&mut enter("token", "pw")), "too many users");
    room.command(RoomCommand::Lock { group: "test".into(), message: Some("closed for today".into()) });
    assert_eq!(refusal(&mut enter("token", "pw")), "closed for today");
    let other = MemberConfig::new(&room.group_url("none"), "x");
    assert!(refusal(&mut Crowd::one(other).unwrap()).ends_with("/group/none/.status: status 404"));
}

#[test]
fn a_kick_names_who_kicks_unless_it_is_the_server() {
    let mut config = RoomConfig::new(vec![GroupConfig::open("test").user("op", "pw", Permissions::OP)]);
    config.publish_delay = Duration::from_millis(50);
    let room = RoomServer::start(config).unwrap();
    let kicked = |crowd: &mut Crowd| {
        let is = |kind: &MemberEventKind| matches!(kind, MemberEventKind::UserMessage { kind, .. } if kind == "kicked");
        crowd.events.wait_for(PATIENCE, |event| is(&event.kind)).expect("the kick is told").kind
    };
    let mut op = member(&room, "op", |config| config.password = "pw".into());
    joins(&mut op);
    for by_person in [true, false] {
        let mut victim = member(&room, "victim", |_| {});
        joins(&mut victim);
        let user_is_known = |kind: &MemberEventKind| matches!(kind, MemberEventKind::User { username, kind, .. } if username == "victim" && kind == "add");
        op.events.wait_for(PATIENCE, |event| user_is_known(&event.kind)).unwrap();
        op.events.forget();
        if by_person {
            let (kind, dest, value) = ("kick".into(), "victim".into(), json!("enough"));
            op.command(0, MemberCommand::Action { kind, dest, value });
        } else {
            room.command(RoomCommand::ShutDown { message: "server is shutting down".into() });
        }
        let expected_name = by_person.then(|| "op".to_owned());
        match kicked(&mut victim) {
            MemberEventKind::UserMessage { privileged, username, .. } => {
                assert!(privileged);
                assert_eq!(username, expected_name);
            }
            other => panic!("{other:?}"),
        }
        victim
            .events
            .wait_for(PATIENCE, |event| matches!(event.kind, MemberEventKind::Disconnected(_)))
            .expect("the connection is closed");
    }
}

#[test]
fn a_forged_message_is_forwarded_without_privilege_and_a_false_sender_is_cut_off() {
    let mut room = open_room(|_| {});
    let mut victim = member(&room, "victim", |_| {});
    joins(&mut victim);
    let mut forger = member(&room, "forger", |_| {});
    joins(&mut forger);
    forger.events.wait_for(
        PATIENCE,
        |event| matches!(&event.kind, MemberEventKind::User { username, .. } if username == "victim"),
    );
    let (kind, dest, value) = ("kicked".to_owned(), "victim".into(), json!("go away"));
    forger.command(0, MemberCommand::UserMessage { kind, dest, value });
    let is = |kind: &MemberEventKind| {
        matches!(kind, MemberEventKind::UserMessage { kind, privileged: false, username: Some(name), .. }
            if kind == "kicked" && name == "forger")
    };
    victim.events.wait_for(PATIENCE, |event| is(&event.kind)).expect("it is forwarded");
    forger.command(0, MemberCommand::Send(json!({"type": "chat", "source": "somebody", "value": "x"})));
    let error = RoomEventKind::ProtocolError("spoofed client id".into());
    room.events.wait_for(PATIENCE, |event| event.kind == error).expect("it is a protocol error");
    forger
        .events
        .wait_for(
            PATIENCE,
            |event| matches!(&event.kind, MemberEventKind::Disconnected(reason) if reason.contains("1002")),
        )
        .expect("the forger is cut off");
}

#[test]
fn a_ghost_lingers_with_its_streams() {
    let mut room = open_room(|config| config.ghost = Some(Duration::from_millis(700)));
    let mut listener = member(&room, "listener", |_| {});
    let victim = member(&room, "victim", |_| {});
    hears(&mut listener, "victim");
    victim.command(0, MemberCommand::Vanish);
    let happens = |room: &mut RoomServer, kind: RoomEventKind| {
        let event = room.events.wait_for(PATIENCE, |event| event.kind == kind && event.client.username == "victim");
        event.expect("it happens").at_us
    };
    let ghost = happens(&mut room, RoomEventKind::Ghost);
    let inside = room.snapshot();
    assert!(inside.clients.iter().any(|client| client.name.username == "victim" && client.up.len() == 1));
    let left = happens(&mut room, RoomEventKind::Left);
    assert!((700_000..1_200_000).contains(&(left - ghost)), "{}", left - ghost);
    assert_eq!(room.snapshot().clients.len(), 1);
}

#[test]
fn silence_is_asked_about_and_then_ended() {
    let mut room = open_room(|config| {
        config.ping_after = Duration::from_millis(100);
        config.dead_after = Duration::from_millis(400);
        config.liveness_tick = Duration::from_millis(50);
    });
    let mut living = member(&room, "living", |_| {});
    joins(&mut living);
    let stream = TcpStream::connect(room.address()).unwrap();
    let (mut silent, _) = tungstenite::client(format!("ws://{}/ws", room.address()), stream).unwrap();
    silent.send(r#"{"type":"handshake","version":["2"],"id":"silent"}"#.into()).unwrap();
    let mut pings = 0;
    while let Ok(message) = silent.read() {
        pings += usize::from(message.into_text().is_ok_and(|text| text.as_str() == r#"{"type":"ping"}"#));
    }
    assert!(pings > 2, "{pings} pings");
    // The member has answered each ping, so nothing has happened to it.
    assert!(!room.events.all().iter().any(|event| matches!(event.kind, RoomEventKind::Left)));
}

#[test]
fn a_group_without_opus_refuses_it_on_port_0() {
    let mut room = open_room(|config| config.groups[0].codecs = vec![AudioCodec::Pcmu]);
    let mut member = member(&room, "modern", |_| {});
    member
        .events
        .wait_for(PATIENCE, |event| event.kind == MemberEventKind::UpAborted)
        .expect("the member gives its stream up");
    room.events
        .wait_for(PATIENCE, |event| matches!(event.kind, RoomEventKind::UpClosed { .. }))
        .expect("and closes it");
}

#[test]
fn losing_the_right_to_speak_ends_the_own_stream_alone() {
    let room = open_room(|_| {});
    let mut silenced = member(&room, "silenced", |_| {});
    let mut other = member(&room, "other", |_| {});
    hears(&mut other, "silenced");
    hears(&mut silenced, "other");
    room.command(RoomCommand::SetPermissions { client: "silenced".into(), permissions: vec!["message".into()] });
    silenced.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::UpAborted).unwrap();
    other.events.wait_for(PATIENCE, |event| matches!(event.kind, MemberEventKind::Closed { .. })).unwrap();
    let snapshot = room.snapshot();
    let client = snapshot.clients.iter().find(|client| client.name.username == "silenced").unwrap();
    assert_eq!((client.up.len(), client.down.len()), (0, 1));
}

#[test]
fn an_ice_restart_in_either_direction_leaves_the_stream_alive() {
    let room = open_room(|_| {});
    let mut listener = member(&room, "listener", |_| {});
    let _speaker = member(&room, "speaker", |_| {});
    hears(&mut listener, "speaker");
    room.command(RoomCommand::RestartIce { client: "listener".into() });
    room.command(RoomCommand::AskRenegotiation { client: "speaker".into() });
    std::thread::sleep(Duration::from_millis(700));
    let before = listener.recordings(0)[0].packets.len();
    std::thread::sleep(Duration::from_millis(400));
    let recordings = listener.recordings(0);
    assert_eq!(recordings.len(), 1);
    assert!(recordings[0].packets.len() > before + 10);
    assert!(recordings[0].statistics().lost < 30);
}

#[test]
fn loss_on_the_way_down_is_as_ordered() {
    let room = open_room(|config| {
        config.down_impairment = Impairment { loss_per_mille: 100, jitter: Duration::from_millis(40), seed: 1 };
    });
    let mut listener = member(&room, "listener", |_| {});
    let _speaker = member(&room, "speaker", |_| {});
    hears(&mut listener, "speaker");
    std::thread::sleep(Duration::from_secs(3));
    let figures = listener.recordings(0)[0].statistics();
    assert!((4..30).contains(&figures.lost), "{figures:?}");
    assert!((20_000..60_000).contains(&figures.jitter_us), "{figures:?}");
}

#[test]
fn raised_hands_and_chat_reach_the_others_and_later_comers() {
    let room = open_room(|_| {});
    let mut alice = member(&room, "alice", |_| {});
    joins(&mut alice);
    alice.command(0, MemberCommand::Chat("hello".into()));
    alice.events.wait_for(PATIENCE, |event| matches!(event.kind, MemberEventKind::Chat { .. })).unwrap();
    let (kind, dest, value) = ("setdata".to_owned(), "alice".into(), json!({"raisehand": true}));
    alice.command(0, MemberCommand::Action { kind, dest, value });
    let mut bob = member(&room, "bob", |_| {});
    let said = MemberEventKind::Chat { username: "alice".into(), value: json!("hello") };
    bob.events.wait_for(PATIENCE, |event| event.kind == said).expect("the history is told");
    let raised = |kind: &MemberEventKind| {
        matches!(kind, MemberEventKind::User { username, data, .. }
            if username == "alice" && data["raisehand"] == json!(true))
    };
    bob.events.wait_for(PATIENCE, |event| raised(&event.kind)).expect("the hand is seen");
}

#[test]
fn the_server_waits_before_it_nominates_by_the_kind_of_the_candidate() {
    let room = open_room(|config| config.nomination_waits.host = Duration::from_millis(600));
    let mut listener = member(&room, "listener", |config| config.trickle = true);
    let _speaker = member(&room, "speaker", |_| {});
    let took = hears(&mut listener, "speaker");
    assert!(took >= Duration::from_millis(600), "{took:?}");
}

#[test]
fn thirty_members_publish_and_one_hears_them_all() {
    let room = open_room(|_| {});
    let mut config = MemberConfig::new(&room.group_url("test"), "member");
    config.listen = false;
    config.speakers = 2;
    config.speech = Some(Speech::looped(Pcm::warble(48_000, 1.0)));
    let started = Instant::now();
    let _crowd = Crowd::join(config, 30).unwrap();
    while room.snapshot().clients.iter().flat_map(|client| &client.up).filter(|up| up.packets > 0).count() < 30 {
        assert!(started.elapsed() < PATIENCE, "thirty streams take too long");
        std::thread::sleep(Duration::from_millis(20));
    }
    let listener = member(&room, "listener", |config| config.speech = None);
    let heard =
        |listener: &Crowd| listener.recordings(0).iter().filter(|recording| recording.packets.len() > 5).count();
    while heard(&listener) < 30 {
        assert!(started.elapsed() < 2 * PATIENCE, "only {} are heard", heard(&listener));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_is_named_by_id_and_username() {
    let mut room = open_room(|_| {});
    let mut one = member(&room, "one", |_| {});
    joins(&mut one);
    let joined = room.events.wait_for(PATIENCE, |event| matches!(event.kind, RoomEventKind::Joined { .. })).unwrap();
    let by = Some(ClientName { id: "x".into(), username: "y".into() });
    room.command(RoomCommand::Kick { client: joined.client.id, by, message: String::new() });
    let kicked = RoomEventKind::Kicked("you have been kicked out".into());
    room.events.wait_for(PATIENCE, |event| event.kind == kicked).expect("the kick is told");
}
