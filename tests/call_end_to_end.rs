//! Telephones of the laboratory and members of the room hear each other through the gateway's program.
//!
//! With `GALENE_URL` the tests that need no hand on the room run against that Galene group.

mod real;

use std::f64::consts::PI;
use std::sync::Arc;
use std::time::Duration;

use lab::clock;
use lab::member::{Crowd, MemberCommand, MemberConfig, MemberEventKind, Speech};
use lab::opus;
use lab::pcm::{Pcm, level_dbfs};
use lab::program::Folder;
use lab::room::{GroupConfig, Impairment, RoomConfig, RoomEventKind};
use lab::speech::Reference;
use lab::telephone::{Codec, RATE_HZ, Report, Telephone, TelephoneSetup, What};
use lab::trial::{self, Heard, TrialSetup};
use real::{AUDIBLE_DBFS, GROUP, PATIENCE, Place, World, alone, assert_once, eventually, from};

/// The budgets of the clean path, with room for a busy machine of two cores.
const UP_DELAY_MS: f64 = 30.0;
const DOWN_DELAY_MS: f64 = 70.0;

/// Whether all was heard that well, or else what was wrong.
fn judge(heard: &Heard, longest_delay_ms: f64, least_pesq: f64) -> Result<(), String> {
    let quality = &heard.quality;
    let found = format!("{}: delay {:.1} ms, {quality}, {:?}", heard.file.display(), quality.delay_ms, heard.perceived);
    println!("{found}");
    let is_perceived = match &heard.perceived {
        Ok(perceived) => perceived.pesq_nb >= least_pesq,
        Err(why) => {
            lab::program::make_do(&format!("judged without PESQ: {why}"));
            true
        }
    };
    let is_good = is_perceived
        && quality.is_recognised()
        && quality.missing_frames * 100 <= quality.speech_frames
        && (0.0..=longest_delay_ms).contains(&quality.delay_ms);
    is_good.then_some(()).ok_or(found)
}

#[test]
fn a_member_and_a_telephone_understand_each_other() {
    let _alone = alone();
    understand_each_other(&Place::new(), false);
}

#[test]
fn a_member_and_an_encrypted_telephone_understand_each_other() {
    let _alone = alone();
    understand_each_other(&Place::with(&["-sip-srtp", "required", "-sip-srtp-keys-in-clear"]), true);
}

fn understand_each_other(place: &Place, is_encrypted: bool) {
    let folder = Folder::new().unwrap();
    let setup = TrialSetup {
        group_url: place.url().to_owned(),
        gateway_uri: place.gateway.uri(),
        member: "Member".to_owned(),
        caller: "Telephone".to_owned(),
        password: String::new(),
        insecure: true,
        is_encrypted,
        folder: folder.path().to_owned(),
    };
    assert_once("both ways", || {
        let outcome = trial::run(&setup, &Reference::new(), |_| ());
        let outcome = outcome.unwrap_or_else(|why| panic!("{why}\n{}", place.gateway.lines().join("\n")));
        assert_clean(&outcome.telephone);
        assert!(outcome.telephone.answered_after.unwrap() < Duration::from_millis(500));
        judge(&outcome.up, UP_DELAY_MS, 4.1)?;
        judge(&outcome.down, DOWN_DELAY_MS, 3.5)
    });
    let is_told = |line: &String| line.contains("from the telephone ") && line.contains(" 0.0 % lost, 0.0 % late, ");
    eventually("the call is summed up in the log", || place.gateway.lines().iter().any(is_told));
}

/// What any telephone may expect of the stream that it gets.
fn assert_clean(report: &Report) {
    let reception = &report.reception;
    assert_eq!((reception.sources, reception.timestamp_jumps), (1, 0), "{reception:?}");
    assert_eq!((reception.lost, reception.reordered, reception.other_payload_types), (0, 0, 0), "{reception:?}");
    assert!(reception.longest_gap < Duration::from_millis(200), "{reception:?}");
}

/// A tone of 8 kHz that only one telephone sings.
fn song(index: usize) -> (f64, Arc<[i16]>) {
    let hz = 400.0 + 310.0 * index as f64;
    (hz, Pcm::tone(RATE_HZ, 1.0, hz, -26.0).samples.into())
}

/// The level of one frequency in dBFS (Goertzel).
fn level_at(samples: &[i16], hz: f64) -> f64 {
    let step = 2.0 * PI * hz / f64::from(RATE_HZ);
    let (mut real, mut imaginary) = (0.0, 0.0);
    for (index, &sample) in samples.iter().enumerate() {
        real += f64::from(sample) * (step * index as f64).cos();
        imaginary += f64::from(sample) * (step * index as f64).sin();
    }
    let amplitude = 2.0 * (real * real + imaginary * imaginary).sqrt() / samples.len().max(1) as f64;
    20.0 * (amplitude / 32768.0 / 2f64.sqrt()).max(1e-6).log10()
}

#[test]
fn eight_telephones_in_one_room_hear_each_other_and_not_themselves() {
    let _alone = alone();
    let place = Place::new();
    let telephones: Vec<Telephone> = (0..8).map(|index| place.call(&from(&format!("Phone {index}")))).collect();
    for (index, telephone) in telephones.iter().enumerate() {
        telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("telephone {index}: {why}"));
        telephone.speak(song(index).1, true);
    }
    std::thread::sleep(Duration::from_secs(2));
    let listened_from = std::time::Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let reports: Vec<Report> = telephones.into_iter().map(Telephone::finish).collect();
    for (listener, report) in reports.iter().enumerate() {
        let heard = report.recording.render(listened_from);
        let heard = &heard[..usize::try_from(RATE_HZ).unwrap()];
        for singer in 0..8 {
            let level = level_at(heard, song(singer).0);
            let is_heard = level > -36.0;
            assert_eq!(is_heard, singer != listener, "{listener} hears {singer} at {level:.1} dBFS");
        }
    }
}

#[test]
fn with_thirty_members_publishing_the_call_is_answered_in_half_a_second() {
    let _alone = alone();
    let place = Place::new();
    let config = MemberConfig {
        insecure: true,
        listen: false,
        speakers: 1,
        speech: Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 3.0))),
        ..MemberConfig::new(place.url(), "member")
    };
    let mut members = Crowd::join(config, 30).unwrap();
    eventually("thirty members publish", || {
        members.events.all().iter().filter(|event| event.kind == MemberEventKind::UpConnected).count() == 30
    });
    std::thread::sleep(Duration::from_millis(500));
    let telephone = place.call(&from("Ada"));
    let answered_after = telephone.wait_answered(PATIENCE).unwrap();
    println!("answered after {answered_after:?} with 30 members");
    assert!(answered_after < Duration::from_millis(500), "{answered_after:?}");
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
}

/// One member who speaks all the time and listens to everybody.
fn chatterbox(place: &Place) -> Crowd {
    let config = MemberConfig {
        insecure: true,
        speech: Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0))),
        levels_every: Some(Duration::from_millis(200)),
        ..MemberConfig::new(place.url(), "Member")
    };
    let mut member = Crowd::one(config).unwrap();
    member.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::SpeechBegins).expect("the member speaks");
    member
}

#[test]
fn twenty_calls_in_a_row_have_sound_both_ways() {
    let _alone = alone();
    let place = Place::new();
    let mut member = chatterbox(&place);
    let warble: Arc<[i16]> = Pcm::warble(RATE_HZ, 5.0).samples.into();
    for call in 0..20 {
        let name = format!("Caller {call}");
        let telephone = place.call(&from(&name));
        telephone.speak(Arc::clone(&warble), true);
        telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("call {call}: {why}"));
        telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap_or_else(|why| panic!("call {call}: {why}"));
        let is_heard = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Level { username, dbfs, .. } if *username == name && *dbfs > AUDIBLE_DBFS);
        let heard = member.events.wait_for(PATIENCE, |event| is_heard(&event.kind));
        assert!(heard.is_some(), "call {call} is not heard in the room");
        assert_clean(&telephone.finish());
        member.events.forget();
    }
}

#[test]
fn what_telephones_do_differently_is_understood() {
    type Change = fn(&mut TelephoneSetup);
    let _alone = alone();
    let place = Place::new();
    let mut member = chatterbox(&place);
    let warble: Arc<[i16]> = Pcm::warble(RATE_HZ, 5.0).samples.into();
    let changes: [(&str, Change); 5] = [
        ("a late offer", |setup| setup.offers = false),
        ("a private address", |setup| setup.claimed_address = Some([10, 1, 2, 3].into())),
        ("PCMA alone", |setup| setup.codecs = vec![Codec::Pcma]),
        ("packets of 60 ms", |setup| setup.ptime_ms = 60),
        ("packets of 10 ms", |setup| setup.ptime_ms = 10),
    ];
    for (name, change) in changes {
        let mut setup = place.setup(&from(name));
        change(&mut setup);
        let telephone = Telephone::call(setup).unwrap();
        telephone.speak(Arc::clone(&warble), true);
        telephone.wait_answered(PATIENCE).unwrap_or_else(|why| panic!("{name}: {why}"));
        telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap_or_else(|why| panic!("{name}: {why}"));
        let is_heard = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Level { username, dbfs, .. } if username == name && *dbfs > AUDIBLE_DBFS);
        let heard = member.events.wait_for(PATIENCE, |event| is_heard(&event.kind));
        assert!(heard.is_some(), "{name} is not heard in the room");
    }
}

#[test]
fn a_telephone_in_silence_is_published_and_hears_a_stream_without_gaps() {
    let _alone = alone();
    let mut world = World::new();
    let telephone = world.call(&from("Ada"));
    telephone.wait_answered(PATIENCE).unwrap();
    world.room_says("Ada", |kind| matches!(kind, RoomEventKind::Published { .. }));
    std::thread::sleep(Duration::from_secs(2));
    let report = telephone.finish();
    assert!(report.reception.packets >= 95, "{:?}", report.reception);
    assert!(report.first_rtp_after.unwrap() < Duration::from_millis(250), "{:?}", report.first_rtp_after);
    assert_clean(&report);
    assert!(level_dbfs(&report.recording.render(report.invited_at)) < -70.0);
}

#[test]
fn a_member_who_begins_to_speak_later_is_heard_by_a_waiting_telephone() {
    let _alone = alone();
    let place = Place::new();
    let telephone = place.call(&from("Ada"));
    telephone.wait_answered(PATIENCE).unwrap();
    let config = MemberConfig {
        insecure: true,
        speech: Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0))),
        speak_after: Duration::from_secs(86_400),
        ..MemberConfig::new(place.url(), "Member")
    };
    let mut member = Crowd::one(config).unwrap();
    member.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::UpConnected).expect("the member is in");
    member.command(0, MemberCommand::Speak { at_us: clock::now_us() });
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    drop(member);
    let report = telephone.finish();
    assert_clean(&report);
}

#[test]
fn what_the_room_loses_on_its_way_is_asked_for_again_and_comes() {
    let _alone = alone();
    let mut config = RoomConfig::new(vec![GroupConfig::open(GROUP)]);
    config.down_impairment = Impairment { loss_per_mille: 100, jitter: Duration::ZERO, seed: 7 };
    let mut world = World::in_room(config, &["-debug"]);
    let config = MemberConfig {
        insecure: true,
        speech: Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0))),
        ..MemberConfig::new(&world.room.group_url(GROUP), "Member")
    };
    let _member = Crowd::one(config).unwrap();
    let telephone = world.call(&from("Ada"));
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    for _ in 0..10 {
        world.room_says("Ada", |kind| matches!(kind, RoomEventKind::Nack { asked, resent, .. } if asked == resent));
        world.room.events.forget();
    }
    drop(telephone);
    let recovered = |line: &str| -> Option<u32> {
        line.split_once("recovered: ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    eventually("the socket's statistics tell of ten packets", || {
        let lines = world.gateway.lines();
        // Of ten answers one is lost too.
        lines.iter().filter(|line| line.contains("closed: LegStats")).filter_map(|line| recovered(line)).any(|n| n >= 7)
    });
}

#[test]
fn a_member_who_replaces_its_stream_is_heard_in_the_new_one() {
    let _alone = alone();
    let place = Place::new();
    let member = chatterbox(&place);
    let telephone = place.call(&from("Ada"));
    telephone.wait_answered(PATIENCE).unwrap();
    telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    member.command(0, MemberCommand::Unpublish);
    telephone.wait_for(PATIENCE, |what| matches!(what, What::Level { dbfs, .. } if *dbfs < -70.0)).unwrap();
    for command in [MemberCommand::Publish, MemberCommand::Replace] {
        member.command(0, command);
        member.command(0, MemberCommand::Speak { at_us: clock::now_us() });
        // What the old stream left behind counts for the second in which it ended.
        telephone.wait_for(PATIENCE, |what| matches!(what, What::Level { .. })).unwrap();
        telephone.wait_for(PATIENCE, |what| matches!(what, What::Level { .. })).unwrap();
        telephone.wait_heard(PATIENCE, AUDIBLE_DBFS).unwrap();
    }
    assert_clean(&telephone.finish());
    assert!(!place.gateway.lines().iter().any(|line| line.contains("WARN")), "{:#?}", place.gateway.lines());
}
