//! baresip, a real softphone, calls through the gateway; its own recording is judged.

mod real;

use std::time::Duration;

use lab::baresip::{Baresip, BaresipCodec};
use lab::clock;
use lab::member::{Crowd, MemberCommand, MemberConfig, MemberEventKind, Speech};
use lab::pcm::Pcm;
use lab::program::{Folder, Signal, find_or_skip, make_do};
use lab::quality;
use lab::speech::{REFERENCE_RATE_HZ, Reference};
use lab::telephone::RATE_HZ;
use real::{PATIENCE, Place, alone, assert_once, eventually};

#[test]
fn baresip_and_a_member_understand_each_other() {
    understand_each_other(&[], None);
}

#[test]
fn baresip_that_insists_on_srtp_and_a_member_understand_each_other() {
    understand_each_other(&["-sip-srtp", "required", "-sip-srtp-keys-in-clear"], Some("srtp-mand"));
}

#[test]
fn baresip_that_would_like_srtp_and_a_member_understand_each_other() {
    understand_each_other(&["-sip-srtp-keys-in-clear"], Some("srtp"));
}

#[test]
fn baresip_is_refused_where_it_does_not_fit_the_policy() {
    let Some(binary) = find_or_skip("baresip") else { return };
    let _alone = alone();
    let folder = Folder::new().unwrap();
    let said_file = folder.path().join("said.wav");
    Pcm { rate_hz: RATE_HZ, samples: vec![0; 8000] }.write_wav(&said_file).unwrap();
    for (flags, encryption, reason) in [
        (&["-sip-srtp", "off"][..], Some("srtp-mand"), "which is off here"),
        (&["-sip-srtp", "required"], None, "which is required here"),
        (&[], Some("srtp-mand"), "could be read on the way"),
    ] {
        let place = Place::with(flags);
        let mut baresip =
            Baresip::speaking(&binary, BaresipCodec::G711, &said_file, Some(&place.gateway.uri()), encryption).unwrap();
        eventually("baresip hears of the refusal", || {
            baresip.program.lines().iter().any(|line| line.contains("488"))
                && place.gateway.lines().iter().any(|line| line.contains(reason))
        });
        baresip.program.signal(Signal::SIGTERM);
        baresip.program.wait_exit(PATIENCE).unwrap();
    }
}

/// On a busy machine baresip's own buffer can run dry.
fn understand_each_other(flags: &[&str], encryption: Option<&str>) {
    assert_once("baresip hears the member", || {
        let is_heard = call_is_heard(flags, encryption);
        is_heard.then_some(()).ok_or_else(|| "it does not, as said above".to_owned())
    });
}

/// One call, judged both ways; with an encryption of baresip's the gateway must say that it is encrypted. What the member
/// hears must be well in each; whether what baresip hears is. True without the program, which is said.
fn call_is_heard(flags: &[&str], encryption: Option<&str>) -> bool {
    let Some(binary) = find_or_skip("baresip") else { return true };
    let _alone = alone();
    let place = Place::with(flags);
    let folder = Folder::new().unwrap();
    let reference = Reference::new();
    let said = Pcm { rate_hz: RATE_HZ, samples: reference.at(RATE_HZ) };
    let said_file = folder.path().join("said.wav");
    said.write_wav(&said_file).unwrap();

    let config = MemberConfig {
        insecure: true,
        speech: Some(Speech::once(Pcm { rate_hz: REFERENCE_RATE_HZ, samples: reference.at(REFERENCE_RATE_HZ) })),
        speak_after: Duration::from_secs(86_400),
        ..MemberConfig::new(place.url(), "Member")
    };
    let mut member = Crowd::one(config).unwrap();
    member.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::UpConnected).expect("the member is in");
    let mut baresip =
        Baresip::speaking(&binary, BaresipCodec::G711, &said_file, Some(&place.gateway.uri()), encryption).unwrap();
    let hears_baresip =
        |kind: &MemberEventKind| matches!(kind, MemberEventKind::Connected { username, .. } if username == "baresip");
    let connected = member.events.wait_for(PATIENCE, |event| hears_baresip(&event.kind));
    assert!(connected.is_some(), "baresip is not in the room: {:#?}", baresip.program.lines());
    let lines = place.gateway.lines();
    let answered = lines.iter().find(|line| line.contains(": answered after"));
    println!("{answered:?}");
    assert_eq!(answered.is_some_and(|line| line.contains(", encrypted (")), encryption.is_some(), "{answered:?}");
    // It speaks from the answer on, again and again: the member says everything once meanwhile.
    std::thread::sleep(Duration::from_millis(500));
    member.command(0, MemberCommand::Speak { at_us: clock::now_us() });
    std::thread::sleep(Duration::from_secs_f64(reference.seconds() + 1.0));
    let recordings = member.recordings(0);
    baresip.program.signal(Signal::SIGTERM);
    baresip.program.wait_exit(PATIENCE).unwrap();

    let down_file = baresip.recording().expect("baresip records every call");
    let down = quality::measure(&said.samples, &Pcm::read_wav(&down_file).unwrap().resampled(RATE_HZ).samples);
    println!("room → baresip: {down}");
    let mut is_heard = down.is_recognised() && down.missing_frames * 50 <= down.speech_frames;
    match quality::perceived(&said_file, &down_file) {
        Ok(perceived) => {
            println!("room → baresip: {perceived:?}");
            is_heard &= perceived.pesq_nb >= 3.2;
        }
        Err(why) => make_do(&format!("judged without PESQ: {why}")),
    }

    let recording = recordings.iter().find(|recording| recording.username == "baresip").expect("the member records");
    let heard = recording.sound(recording.packets[0].at_us).resampled(RATE_HZ);
    // baresip began to speak before the room carried it, so its first seconds are not in the recording.
    let later = &said.samples[5 * RATE_HZ as usize..15 * RATE_HZ as usize];
    let up = quality::measure(later, &heard.samples);
    println!("baresip → room: {up}");
    assert!(up.is_recognised() && up.missing_frames * 50 <= up.speech_frames, "{up}");
    is_heard
}
