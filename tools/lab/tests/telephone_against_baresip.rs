//! The laboratory's telephone calls a real softphone: speech both ways, hold, hanging up.

use std::time::Duration;

use lab::baresip::Baresip;
use lab::gateway;
use lab::pcm::Pcm;
use lab::program::{Folder, find_or_skip};
use lab::quality;
use lab::speech::Reference;
use lab::telephone::{Direction, RATE_HZ, Side, Telephone, TelephoneSetup, What};

const PATIENCE: Duration = Duration::from_secs(10);

fn wait_until_it_answers(baresip: &Baresip) {
    for _ in 0..200 {
        if gateway::answers(baresip.address()).unwrap() {
            return;
        }
    }
    panic!("baresip does not answer: {:?}", baresip.program.lines());
}

#[test]
fn speech_goes_both_ways() {
    let Some(binary) = find_or_skip("baresip") else { return };
    let folder = Folder::new().unwrap();
    let said = Reference::built_in().at(RATE_HZ);
    let file = folder.path().join("said.wav");
    Pcm { rate_hz: RATE_HZ, samples: said.clone() }.write_wav(&file).unwrap();
    let mut baresip = Baresip::start(&binary, &file, None).unwrap();
    wait_until_it_answers(&baresip);
    let telephone = Telephone::call(TelephoneSetup::new(&baresip.uri()).from("\"Ada\" <sip:100@127.0.0.1>")).unwrap();
    telephone.speak(said.clone().into(), false);
    telephone.wait_answered(PATIENCE).unwrap();
    std::thread::sleep(Duration::from_secs(6));
    telephone.set_direction(Direction::SendOnly);
    let held = telephone.wait_for(PATIENCE, |what| matches!(what, What::Changed { by: Side::Us, .. })).unwrap();
    assert!(matches!(held.what, What::Changed { they_send: false, we_send: true, .. }), "{held:?}");
    telephone.set_direction(Direction::SendRecv);
    let resumed = telephone.wait_for(PATIENCE, |what| matches!(what, What::Changed { by: Side::Us, .. })).unwrap();
    assert!(matches!(resumed.what, What::Changed { they_send: true, we_send: true, .. }), "{resumed:?}");
    let report = telephone.finish();
    assert!(matches!(report.end, What::Bye { by: Side::Us, .. }), "{:?}", report.end);
    assert!(report.sent_packets > 250 && report.reception.packets > 250, "{:?}", report.reception);
    let length = 5 * RATE_HZ as usize;
    let heard = report.recording.render(report.invited_at);
    let quality = quality::measure(&said[..length], &heard);
    assert!(quality.is_recognised() && quality.missing_frames * 20 < quality.speech_frames, "{quality:?}");
    baresip.program.signal(lab::program::Signal::SIGTERM);
    baresip.program.wait_exit(PATIENCE).unwrap();
    let recording = baresip.recording().expect("baresip records every call");
    let heard = Pcm::read_wav(&recording).unwrap().resampled(RATE_HZ).samples;
    let quality = quality::measure(&said[..length], &heard);
    assert!(quality.is_recognised() && quality.missing_frames * 20 < quality.speech_frames, "{quality:?}");
}

#[test]
fn a_refusal_is_told_with_its_status() {
    let Some(binary) = find_or_skip("baresip") else { return };
    let folder = Folder::new().unwrap();
    let file = folder.path().join("said.wav");
    Pcm { rate_hz: RATE_HZ, samples: vec![0; 8000] }.write_wav(&file).unwrap();
    let baresip = Baresip::start(&binary, &file, None).unwrap();
    wait_until_it_answers(&baresip);
    let target = format!("sip:nobody@{}", baresip.address());
    let telephone = Telephone::call(TelephoneSetup::new(&target)).unwrap();
    let event = telephone.wait_for(PATIENCE, |what| matches!(what, What::Refused { .. })).unwrap();
    assert!(matches!(event.what, What::Refused { status: 404, .. }), "{event:?}");
    assert!(matches!(telephone.finish().end, What::Refused { status: 404, .. }));
}
