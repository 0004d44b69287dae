//! How wideband telephones sound, and what they cost.

use std::path::Path;

use galene_sip::media::control::{Telephone, TelephoneCodec};
use lab::opus::{Encoder, EncoderConfig};
use lab::pcm::Pcm;
use lab::program::{Folder, make_do};
use lab::quality::perceived;
use lab::speech::{REFERENCE_RATE_HZ, Reference};
use nix::time::{ClockId, clock_gettime};

use super::world::{SPEECH, WIDE_RATE_HZ, World};

const FRAME_SAMPLES: usize = 320;

fn assert_pesq(what: &str, said: &[i16], heard: Vec<i16>, least: f64) {
    let folder = Folder::new().unwrap();
    let write = |name: &str, samples: Vec<i16>| {
        let path = folder.path().join(name);
        Pcm { rate_hz: WIDE_RATE_HZ, samples }.write_wav(&path).unwrap();
        path
    };
    let judged = |said: &Path, heard: &Path| perceived(said, heard);
    match judged(&write("said.wav", said.to_vec()), &write("heard.wav", heard)) {
        Ok(judged) => {
            println!("{what}: {judged:?}");
            assert!(judged.pesq_wb.is_some_and(|pesq| pesq >= least), "{what}: {judged:?}");
        }
        Err(why) => make_do(&format!("{what}: no PESQ: {why}")),
    }
}

/// Of this thread, so that other work on the machine does not count.
fn processor_us() -> f64 {
    let spent = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock");
    spent.tv_sec() as f64 * 1e6 + spent.tv_nsec() as f64 / 1e3
}

#[test]
fn a_wideband_telephone_is_heard_in_wide_band_by_the_room() {
    let said = Reference::new().at(WIDE_RATE_HZ);
    for (codec, least) in [(TelephoneCodec::G722, 3.85), (TelephoneCodec::Opus, 4.2)] {
        let mut world = World::new();
        let mut phone = world.add(1, Telephone::new(codec, SPEECH));
        let mut speaking_us = 0.0;
        for piece in said.chunks_exact(FRAME_SAMPLES) {
            let packet = phone.packet(piece);
            let before_us = processor_us();
            world.hear(&phone, &packet);
            speaking_us += processor_us() - before_us;
            world.tick();
        }
        // 200 µs are 1 % of a core; the test's profile takes more than the release.
        let packet_us = speaking_us / (said.len() / FRAME_SAMPLES) as f64;
        println!("{codec:?}: {packet_us:.0} µs a packet up, pauses included, in this profile");
        assert_pesq(&format!("{codec:?} up"), &said, world.heard_above(1), least);
    }
}

#[test]
fn a_wideband_telephone_hears_the_room_in_wide_band() {
    let reference = Reference::new().in_band_of(WIDE_RATE_HZ);
    let (said, sung) = (reference.at(WIDE_RATE_HZ), reference.at(REFERENCE_RATE_HZ));
    for (codec, least) in [(TelephoneCodec::G722, 3.8), (TelephoneCodec::Opus, 4.2)] {
        let mut world = World::new();
        world.add(1, Telephone::new(codec, SPEECH));
        world.add_voice();
        // The member's own coder shall not be what is judged.
        let config = EncoderConfig { bitrate_bps: 96_000, fec: false, ..EncoderConfig::default() };
        let mut encoder = Encoder::new(config).unwrap();
        for (number, piece) in sung.chunks_exact(lab::opus::FRAME_SAMPLES).enumerate() {
            world.hear_voice(number as u16, &encoder.encode(piece));
            world.tick();
        }
        for _ in 0..10 {
            world.tick();
        }
        assert_pesq(&format!("{codec:?} down"), &said, world.heard_by(1, codec), least);
    }
}

#[test]
fn two_wideband_telephones_hear_each_other_in_wide_band() {
    let said = Reference::new().at(WIDE_RATE_HZ);
    for (speaker, listener, least) in
        [(TelephoneCodec::G722, TelephoneCodec::Opus, 3.8), (TelephoneCodec::Opus, TelephoneCodec::G722, 3.6)]
    {
        let mut world = World::new();
        let mut phone = world.add(1, Telephone::new(speaker, SPEECH));
        world.add(2, Telephone::new(listener, SPEECH));
        for piece in said.chunks_exact(FRAME_SAMPLES) {
            world.turn(&mut phone, piece);
        }
        (0..10).for_each(|_| world.tick());
        assert_pesq(&format!("{speaker:?} to {listener:?}"), &said, world.heard_by(2, listener), least);
    }
}
