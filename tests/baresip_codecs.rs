//! baresip, a real softphone with codecs of its own (spandsp's G.722, libopus), calls over TLS with SRTP whose keys are in the
//! SDP (SDES), in each codec, and over UDP with keys by DTLS (its certificate is RSA), and what is heard is judged.

mod real;

use std::time::Duration;

use lab::baresip::{Baresip, BaresipCodec};
use lab::clock;
use lab::member::{Crowd, MemberCommand, MemberConfig, MemberEventKind, Speech};
use lab::opus::EncoderConfig;
use lab::pcm::Pcm;
use lab::program::{Folder, Signal, find_or_skip, make_do};
use lab::quality;
use lab::speech::{REFERENCE_RATE_HZ, Reference};
use real::{PATIENCE, Place, TlsListener, alone, assert_once};

const WIDE_RATE_HZ: u32 = 16_000;
/// Silence before baresip's first word, in seconds: the room carries it by then.
const LEAD_S: usize = 3;
/// What PESQ needs at least (ITU-T P.862.3).
const SHORT_S: f64 = 8.0;

/// From where the telephone's keys come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keys {
    Sdes,
    Dtls,
}

impl Keys {
    /// As baresip calls it.
    const fn media_encryption(self) -> &'static str {
        match self {
            Self::Sdes => "srtp-mand",
            Self::Dtls => "dtls_srtp",
        }
    }

    /// What the gateway says once there are keys.
    const fn said(self) -> &'static str {
        match self {
            Self::Sdes => ", encrypted (",
            Self::Dtls => ": encrypted by DTLS (",
        }
    }
}

/// A call in which both sides speak; what baresip hears also bears the marks of its own buffer, which a busy machine makes run dry
/// (`telephone_codecs` judges the way down without it). PESQ of what is heard up and down, in wide band but for G.711. `None` without the
/// programs for it, which is said.
fn call(codec: BaresipCodec, keys: Keys) -> Option<(f64, f64)> {
    let binary = find_or_skip("baresip")?;
    let _alone = alone();
    let folder = Folder::new().unwrap();
    let tls = TlsListener::new();
    let place = Place::with(&[&tls.flags()[..], &["-sip-srtp", "required"]].concat());
    let uri = match keys {
        Keys::Sdes => format!("sip:6002@{};transport=tls", tls.address()),
        Keys::Dtls => format!("sip:6002@{}", place.gateway.address()),
    };
    let judged_rate_hz = codec.rate_hz().min(WIDE_RATE_HZ);
    let reference = Reference::new().in_band_of(judged_rate_hz);
    // The whole of it for what is spoken in wide band; the telephones of the laboratory have spoken all of it in G.711.
    let seconds = if codec == BaresipCodec::G711 { SHORT_S } else { reference.seconds() };
    let speech = |rate_hz: u32| {
        let mut samples = reference.at(rate_hz);
        samples.truncate((seconds * f64::from(rate_hz)) as usize);
        samples
    };
    let file = |name: &str, pcm: &Pcm| {
        let path = folder.path().join(name);
        pcm.write_wav(&path).unwrap();
        path
    };
    let lead = vec![0; LEAD_S * codec.rate_hz() as usize];
    let spoken = Pcm { rate_hz: codec.rate_hz(), samples: [lead, speech(codec.rate_hz())].concat() };
    let spoken_file = folder.path().join("spoken.wav");
    spoken.write_wav_of(codec.channels(), &spoken_file).unwrap();

    let config = MemberConfig {
        insecure: true,
        speech: Some(Speech::once(Pcm { rate_hz: REFERENCE_RATE_HZ, samples: speech(REFERENCE_RATE_HZ) })),
        speak_after: Duration::from_secs(86_400),
        // The member's own coder shall not be what is judged.
        encoder: EncoderConfig { bitrate_bps: 96_000, fec: false, ..EncoderConfig::default() },
        ..MemberConfig::new(place.url(), "Member")
    };
    let mut member = Crowd::one(config).unwrap();
    member.events.wait_for(PATIENCE, |event| event.kind == MemberEventKind::UpConnected).expect("the member is in");
    let mut baresip =
        Baresip::speaking(&binary, codec, &spoken_file, Some(&uri), Some(keys.media_encryption())).unwrap();
    let hears_baresip =
        |kind: &MemberEventKind| matches!(kind, MemberEventKind::Connected { username, .. } if username == "baresip");
    let connected = member.events.wait_for(PATIENCE, |event| hears_baresip(&event.kind));
    assert!(connected.is_some(), "baresip is not in the room: {:#?}", baresip.program.lines());
    let lines = place.gateway.lines();
    let has = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(has(keys.said()) && has("SIP/2.0/TLS") == (keys == Keys::Sdes), "{lines:#?}");
    std::thread::sleep(Duration::from_millis(500));
    member.command(0, MemberCommand::Speak { at_us: clock::now_us() });
    std::thread::sleep(Duration::from_secs_f64(LEAD_S as f64 + seconds + 1.0));
    let recordings = member.recordings(0);
    baresip.program.signal(Signal::SIGTERM);
    baresip.program.wait_exit(PATIENCE).unwrap();

    let said = Pcm { rate_hz: judged_rate_hz, samples: speech(judged_rate_hz) };
    let said_file = file("said.wav", &said);
    let recording = recordings.iter().find(|recording| recording.username == "baresip").expect("the member records");
    let up = recording.sound(recording.packets[0].at_us);
    let down = Pcm::read_wav(&baresip.recording().expect("baresip records every call")).unwrap();
    let judge = |way: &str, heard: &Pcm| {
        let Some(heard) = aligned(&said, &heard.resampled(judged_rate_hz)) else { return Ok(0.0) };
        let perceived = quality::perceived(&said_file, &file("heard.wav", &heard));
        println!("{codec:?} with keys by {keys:?}, {way}: {perceived:?}");
        perceived
            .map(|perceived| perceived.pesq_wb.filter(|_| codec != BaresipCodec::G711).unwrap_or(perceived.pesq_nb))
    };
    match (judge("up", &up), judge("down", &down)) {
        (Ok(up), Ok(down)) => Some((up, down)),
        (Err(why), _) | (_, Err(why)) => {
            make_do(&format!("no PESQ: {why}"));
            None
        }
    }
}

/// The recording from where the speech begins; `None`, which is said, if more than a little of that is missing.
fn aligned(said: &Pcm, heard: &Pcm) -> Option<Pcm> {
    let narrow = |pcm: &Pcm| pcm.resampled(quality::RATE_HZ).samples;
    let quality = quality::measure(&narrow(said), &narrow(heard));
    if !quality.is_recognised() || quality.missing_frames * 50 > quality.speech_frames {
        println!("it is not the same: {quality}");
        return None;
    }
    let first = (quality.delay_ms.max(0.0) * f64::from(heard.rate_hz) / 1000.0) as usize;
    let samples = heard.samples[first..].iter().copied().take(said.samples.len()).collect();
    Some(Pcm { rate_hz: heard.rate_hz, samples })
}

/// How well both ways are heard, in a call in which no busy machine has made baresip's own buffer run dry.
fn assert_heard(codec: BaresipCodec, keys: Keys, least_up: f64, least_down: f64) {
    assert_once(&format!("at least {least_up} up and {least_down} down"), || match call(codec, keys) {
        Some((up, down)) if up < least_up || down < least_down => Err(format!("{up} and {down}")),
        Some(_) | None => Ok(()),
    });
}

#[test]
fn baresip_speaks_g711_both_ways() {
    assert_heard(BaresipCodec::G711, Keys::Sdes, 4.2, 4.2);
}

#[test]
fn baresip_speaks_g722_in_wide_band_both_ways() {
    assert_heard(BaresipCodec::G722, Keys::Sdes, 3.9, 3.7);
}

#[test]
fn baresip_speaks_opus_in_wide_band_both_ways() {
    assert_heard(BaresipCodec::Opus, Keys::Sdes, 4.2, 4.2);
}

#[test]
fn baresip_makes_its_keys_by_dtls() {
    assert_heard(BaresipCodec::G711, Keys::Dtls, 4.2, 4.2);
}
