//! linphone, a real softphone with a SIP stack, codecs and SRTP of its own, in calls through the gateway.

mod real;

use std::time::Duration;

use lab::baresip::Baresip;
use lab::linphone::{Linphone, LinphoneCodec};
use lab::member::{Crowd, MemberConfig, MemberEventKind, Speech};
use lab::opus;
use lab::pcm::{Pcm, level_dbfs};
use lab::program::{Folder, Signal, find_or_skip, free_tcp_port};
use lab::room::{GroupConfig, RoomEventKind};
use lab::telephone::RATE_HZ;
use real::{AUDIBLE_DBFS, GROUP, PATIENCE, TlsListener, World, alone, eventually};

/// A member who speaks all the time and tells of everybody's loudness.
fn chatterbox(world: &World) -> Crowd {
    let config = MemberConfig {
        insecure: true,
        speech: Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0))),
        levels_every: Some(Duration::from_millis(200)),
        ..MemberConfig::new(&world.room.group_url(GROUP), "Member")
    };
    let mut member = Crowd::one(config).unwrap();
    member.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::SpeechBegins).expect("the member speaks");
    member
}

#[test]
fn linphone_is_heard_and_hears_in_every_codec_encrypted_over_tls_and_tcp_and_in_the_clear() {
    let Some(binary) = find_or_skip("linphonec") else { return };
    let _alone = alone();
    let tls = TlsListener::new();
    let tcp = format!("127.0.0.1:{}", free_tcp_port().unwrap());
    let mut flags = tls.flags().to_vec();
    flags.extend(["-sip-tcp-address", &tcp]);
    let mut world = World::with(GroupConfig::open(GROUP), &flags);
    let mut member = chatterbox(&world);
    let speech = Pcm::warble(RATE_HZ, 30.0);
    let calls = [
        ("Opus", LinphoneCodec::Opus, true, format!("sip:6002@{};transport=tls", tls.address())),
        ("Wide", LinphoneCodec::G722, false, format!("sip:6002@{tcp};transport=tcp")),
        ("Law", LinphoneCodec::Pcma, false, world.gateway.uri()),
    ];
    let mut linphones: Vec<Linphone> = calls
        .iter()
        .map(|(name, codec, is_encrypted, uri)| {
            Linphone::call(&binary, name, *codec, *is_encrypted, &speech, uri).unwrap()
        })
        .collect();
    for (name, ..) in &calls {
        world.room_says(name, |kind| matches!(kind, RoomEventKind::Published { .. }));
        let is_heard = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Level { username, dbfs, .. } if username == name && *dbfs > AUDIBLE_DBFS);
        assert!(member.events.wait_for(PATIENCE, |event| is_heard(&event.kind)).is_some(), "{name} is not heard");
        member.events.forget();
    }
    let lines = world.gateway.lines();
    let is_answered = |name: &str, how: &str| {
        lines.iter().any(|line| line.contains(name) && line.contains(": answered after") && line.contains(how))
    };
    assert!(is_answered("Opus", ", encrypted (") && is_answered("Wide", " ms") && is_answered("Law", " ms"));
    std::thread::sleep(Duration::from_secs(1));
    linphones.iter_mut().for_each(|linphone| linphone.command("terminate").unwrap());
    eventually("only the member is left", || world.names() == ["Member"]);
    for (mut linphone, (name, ..)) in linphones.into_iter().zip(&calls) {
        linphone.command("quit").unwrap();
        linphone.program.wait_exit(PATIENCE).unwrap();
        let heard = linphone.recording().unwrap();
        let level = level_dbfs(&heard.samples);
        assert!(level > AUDIBLE_DBFS, "{name} hears {level} dBFS");
    }
}

#[test]
fn linphone_presses_a_key_holds_resumes_and_transfers_to_baresip() {
    let (Some(binary), Some(baresip)) = (find_or_skip("linphonec"), find_or_skip("baresip")) else { return };
    let _alone = alone();
    let mut world = World::new();
    let folder = Folder::new().unwrap();
    let (speech, said) = (Pcm::warble(RATE_HZ, 30.0), folder.path().join("said.wav"));
    speech.write_wav(&said).unwrap();
    let mut carol = Baresip::start(&baresip, &said, None).unwrap();
    let uri = world.gateway.uri();
    let mut linphone = Linphone::call(&binary, "Ada", LinphoneCodec::Pcma, false, &speech, &uri).unwrap();
    world.room_says("Ada", |kind| matches!(kind, RoomEventKind::Published { .. }));
    let says = |world: &World, what: &str| {
        eventually(what, || world.gateway.lines().iter().any(|line| line.contains(what)));
    };
    // A key as RFC 4733 has it.
    linphone.command("7").unwrap();
    says(&world, "(Event)");
    linphone.command("pause").unwrap();
    says(&world, "a=recvonly");
    linphone.program.wait_for_line(PATIENCE, |line| line.contains("is now paused")).unwrap();
    linphone.command("resume 1").unwrap();
    eventually("both ways again", || {
        let lines = linphone.program.lines();
        lines.iter().filter(|line| line.contains("Media streams established")).count() == 2
    });
    let lines = world.gateway.lines();
    let last = |what: &str| lines.iter().rposition(|line| line.contains(what));
    assert!(last("a=sendrecv") > last("a=recvonly"));
    linphone.command(&format!("transfer 1 {}", carol.uri())).unwrap();
    says(&world, "SIP/2.0 202");
    says(&world, ": transferred");
    linphone.command("quit").unwrap();
    linphone.program.wait_exit(PATIENCE).unwrap();
    assert_eq!(world.names(), ["Ada"]);
    carol.program.signal(Signal::SIGTERM);
    carol.program.wait_exit(PATIENCE).unwrap();
    eventually("the room is empty", || world.names().is_empty());
}
