//! baresip, a real softphone with codecs of its own (spandsp's G.722, libopus), in wideband calls through the gateway.

mod real;

use std::time::Duration;

use lab::baresip::{Baresip, BaresipCodec};
use lab::clock;
use lab::member::{Crowd, MemberCommand, MemberConfig, MemberEventKind, Speech};
use lab::pcm::Pcm;
use lab::program::{Folder, Signal, find_or_skip, make_do};
use lab::quality::{self, RATE_HZ};
use lab::speech::{REFERENCE_RATE_HZ, Reference};
use real::{PATIENCE, Place, alone};

const WIDE_RATE_HZ: u32 = 16_000;

/// What baresip says first: nothing, until the room carries it.
const LEAD: Duration = Duration::from_secs(3);

/// A call in which both sides speak, judged in wide band against these least values up and down.
fn judge(codec: BaresipCodec, least: (f64, f64)) {
    let Some(binary) = find_or_skip("baresip") else { return };
    let _alone = alone();
    let place = Place::new();
    let folder = Folder::new().unwrap();
    let reference = Reference::new();
    let file = |name: &str, pcm: &Pcm| {
        let path = folder.path().join(name);
        pcm.write_wav(&path).unwrap();
        path
    };
    let said = Pcm { rate_hz: WIDE_RATE_HZ, samples: reference.at(WIDE_RATE_HZ) };
    let said_file = file("said.wav", &said);
    let lead = vec![0; LEAD.as_secs() as usize * codec.rate_hz() as usize];
    let spoken = Pcm { rate_hz: codec.rate_hz(), samples: [lead, reference.at(codec.rate_hz())].concat() };
    let spoken_file = folder.path().join("spoken.wav");
    spoken.write_wav_of(codec.channels(), &spoken_file).unwrap();

    let config = MemberConfig {
        insecure: true,
        speech: Some(Speech::once(Pcm { rate_hz: REFERENCE_RATE_HZ, samples: reference.at(REFERENCE_RATE_HZ) })),
        speak_after: Duration::from_secs(86_400),
        ..MemberConfig::new(place.url(), "Member")
    };
    let mut member = Crowd::one(config).unwrap();
    member.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::UpConnected).expect("the member is in");
    let mut baresip = Baresip::speaking(&binary, codec, &spoken_file, Some(&place.gateway.uri())).unwrap();
    let hears_baresip =
        |kind: &MemberEventKind| matches!(kind, MemberEventKind::Connected { username, .. } if username == "baresip");
    let connected = member.events.wait_for(PATIENCE, |event| hears_baresip(&event.kind));
    assert!(connected.is_some(), "baresip is not in the room: {:#?}", baresip.program.lines());
    std::thread::sleep(Duration::from_millis(500));
    member.command(0, MemberCommand::Speak { at_us: clock::now_us() });
    std::thread::sleep(LEAD + Duration::from_secs_f64(reference.seconds() + 1.0));
    let recordings = member.recordings(0);
    baresip.program.signal(Signal::SIGTERM);
    baresip.program.wait_exit(PATIENCE).unwrap();

    let down_file = baresip.recording().expect("baresip records every call");
    let down = Pcm::read_wav(&down_file).unwrap();
    let recording = recordings.iter().find(|recording| recording.username == "baresip").expect("the member records");
    let up = recording.sound(recording.packets[0].at_us).resampled(WIDE_RATE_HZ);
    let up = from_the_first_word(&said, &up);
    for (way, heard, least) in [("up", up, least.0), ("down", down, least.1)] {
        let narrow = |pcm: &Pcm| pcm.resampled(RATE_HZ).samples;
        let quality = quality::measure(&narrow(&said), &narrow(&heard));
        println!("{codec:?} {way}: {quality}");
        assert!(quality.is_recognised() && quality.missing_frames * 50 <= quality.speech_frames, "{way}: {quality}");
        match quality::perceived(&said_file, &file("heard.wav", &heard)) {
            Ok(perceived) => {
                println!("{codec:?} {way}: {perceived:?}");
                assert!(perceived.pesq_wb.is_some_and(|pesq| pesq >= least), "{way}: {perceived:?}");
            }
            Err(why) => make_do(&format!("judged without PESQ: {why}")),
        }
    }
}

/// The recording without what is left of the lead.
fn from_the_first_word(said: &Pcm, heard: &Pcm) -> Pcm {
    let narrow = |pcm: &Pcm| pcm.resampled(RATE_HZ).samples;
    let lag_ms = quality::measure(&narrow(said), &narrow(heard)).delay_ms.max(0.0);
    let first = (lag_ms * f64::from(heard.rate_hz) / 1000.0) as usize;
    let samples = heard.samples[first..].iter().copied().take(said.samples.len()).collect();
    Pcm { rate_hz: heard.rate_hz, samples }
}

#[test]
fn baresip_speaks_g722_in_wide_band_both_ways() {
    judge(BaresipCodec::G722, (3.8, 3.3));
}

#[test]
fn baresip_speaks_opus_in_wide_band_both_ways() {
    judge(BaresipCodec::Opus, (4.2, 3.3));
}
