//! Keys in an ongoing call, comfort noise, and an hour of speech without a key.

use std::process::Command as Process;

use galene_sip::media::control::*;
use lab::pcm::{Pcm, level_dbfs};
use lab::program::{Folder, find_or_skip};

use super::world::{EVENTS, SPEECH, WIDE_RATE_HZ, World, whistle};

fn keys(world: &World, form: KeyForm) -> String {
    let of_form = world.outbox.keys.iter().filter(|(_, press)| press.form == form);
    of_form.map(|(_, press)| press.key).collect()
}

/// Both tones of a key.
fn tone(low_hz: f32, high_hz: f32, samples: usize) -> Vec<i16> {
    let (low, high) = (whistle(low_hz, 8000, 0, samples), whistle(high_hz, 8000, 0, samples));
    low.iter().zip(high).map(|(a, b)| a / 2 + b / 2).collect()
}

#[test]
fn a_key_among_speech_is_told_once_and_leaves_the_speech_alone() {
    for (codec, clock_rate_hz) in
        [(TelephoneCodec::Pcmu, 8000), (TelephoneCodec::Opus, 48_000), (TelephoneCodec::Opus, 8000)]
    {
        let events = Some(EventFormat { payload_type: EVENTS, clock_rate_hz });
        let mut world = World::new();
        let mut phone = world.add(1, Telephone { events, ..Telephone::new(codec, SPEECH) });
        let (rate_hz, ticks) = (phone.rate_hz(), clock_rate_hz / 50);
        let speak = |world: &mut World, phone: &mut super::world::Phone| {
            for turn in 0..25 {
                let frame = rate_hz as usize / 50;
                world.turn(phone, &whistle(700.0, rate_hz, turn * frame, frame));
            }
        };
        speak(&mut world, &mut phone);
        for turn in 1..=7u32 {
            // 100 ms, its end thrice, each packet twice; speech pauses meanwhile.
            let flags = if turn >= 5 { 0x8a } else { 0x0a };
            let [high, low] = (turn.min(5) * ticks).to_be_bytes()[2..] else { unreachable!() };
            let packet = phone.packet_of(EVENTS, &[5, flags, high, low]);
            world.hear(&phone, &packet);
            world.hear(&phone, &packet);
            world.tick();
        }
        phone.timestamp += 7 * codec.clock_rate_hz() / 50;
        speak(&mut world, &mut phone);
        assert_eq!(keys(&world, KeyForm::Event), "5", "{codec:?} {clock_rate_hz}");
        assert_eq!(world.outbox.keys[0].1.duration_ms, 100);
        let up = world.up(1);
        let silent: u32 = up
            .windows(2)
            .map(|pair| pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp) - 960)
            .filter(|gap| *gap < 48_000)
            .sum();
        assert!((6 * 960..=8 * 960).contains(&silent), "{codec:?} {clock_rate_hz}: {silent}");
    }
}

#[test]
fn tones_are_looked_for_only_where_no_events_are_agreed_on() {
    for (events, expected) in [(None, "1"), (Some(EventFormat { payload_type: EVENTS, clock_rate_hz: 8000 }), "")] {
        let mut world = World::new();
        let mut phone = world.add(1, Telephone { events, ..Telephone::new(TelephoneCodec::Pcmu, SPEECH) });
        let dialled = [vec![0; 1600], tone(697.0, 1209.0, 800), vec![0; 1600]].concat();
        for piece in dialled.chunks_exact(160) {
            world.turn(&mut phone, piece);
        }
        assert_eq!(keys(&world, KeyForm::Tone), expected);
    }
}

#[test]
fn a_wideband_telephone_without_events_is_heard_dialling_too_also_when_muted() {
    let mut world = World::new();
    let mut phone = world.add(1, Telephone::new(TelephoneCodec::G722, SPEECH));
    world.command(Command::SetMuted { caller: phone.key, muted: true });
    let narrow = [vec![0; 1600], tone(941.0, 1477.0, 800), vec![0; 1600]].concat();
    let wide = Pcm { rate_hz: 8000, samples: narrow }.resampled(WIDE_RATE_HZ).samples;
    for piece in wide.chunks_exact(320) {
        world.turn(&mut phone, piece);
    }
    assert_eq!(keys(&world, KeyForm::Tone), "#");
}

#[test]
fn comfort_noise_is_noise_of_that_level_for_the_neighbours_and_next_to_nothing_in_the_room() {
    for (level, expected) in [(30u8, -30.0), (60, -90.0)] {
        let mut world = World::new();
        let mut phone = world.add(1, Telephone::new(TelephoneCodec::Pcmu, SPEECH));
        world.add(2, Telephone::new(TelephoneCodec::G722, SPEECH));
        for turn in 0..50 {
            world.turn(&mut phone, &whistle(700.0, 8000, turn * 160, 160));
        }
        // Taken for speech, it would be a click of one sample.
        let packet = phone.packet_of(COMFORT_NOISE, &[level]);
        world.hear(&phone, &packet);
        let before = world.up(1).len();
        (0..100).for_each(|_| world.tick());
        let heard = world.heard_by(2, TelephoneCodec::G722);
        let heard = level_dbfs(&heard[heard.len() - 16_000..]);
        // The bus's filter leaves half of the band.
        assert!(heard <= -60.0 && expected < -60.0 || (heard - expected).abs() < 4.5, "{level}: {heard}");
        let above = world.heard_above(1);
        let above = level_dbfs(&above[above.len() - 16_000..]);
        assert!((above + f64::from(level)).abs() < 8.0, "{level}: {above} above");
        let sent = world.up(1).len() - before;
        // What is as loud as speech is sent like speech.
        assert!(if level > 45 { sent < 40 } else { sent > 80 }, "{level}: {sent}");
        // Speech ends it.
        (0..5).for_each(|_| world.turn(&mut phone, &[0; 160]));
        (0..50).for_each(|_| world.tick());
        let heard = world.heard_by(2, TelephoneCodec::G722);
        assert!(level_dbfs(&heard[heard.len() - 8000..]) < -60.0);
    }
}

/// A quarter of an hour of each voice, of what the README says.
const MINUTES_A_VOICE: usize = 16;

#[test]
fn an_hour_of_speech_holds_no_key() {
    let Some(espeak) = find_or_skip("espeak-ng") else { return };
    let folder = Folder::new().unwrap();
    let text = include_str!("../../README.md");
    let mut minutes = 0.0;
    for voice in ["en-us+m3", "en-gb+f2", "de+f4", "fr+m7"] {
        let (input, output) = (folder.path().join("said.txt"), folder.path().join("said.wav"));
        std::fs::write(&input, text).unwrap();
        let mut command = Process::new(&espeak);
        let status = command.args(["-v", voice, "-s", "150", "-f"]).arg(&input).arg("-w").arg(&output).status();
        assert!(status.is_ok_and(|status| status.success()));
        // In pieces, as a resampler of a whole hour would take as much memory.
        let said = Pcm::read_wav(&output).unwrap();
        let mut world = World::new();
        let mut phone = world.add(1, Telephone::new(TelephoneCodec::Pcmu, SPEECH));
        world.command(Command::SetUp { caller: phone.key, up: None });
        let second = said.rate_hz as usize * 2;
        for piece in said.samples.chunks_exact(second).take(MINUTES_A_VOICE * 30) {
            let piece = Pcm { rate_hz: said.rate_hz, samples: piece.to_vec() }.resampled(8000);
            minutes += 2.0 / 60.0;
            for frame in piece.samples.chunks_exact(160) {
                world.turn(&mut phone, frame);
            }
            world.outbox.packets.clear();
        }
        assert_eq!(world.outbox.keys, [], "{voice}");
    }
    println!("{minutes:.0} minutes");
    assert!(minutes >= 60.0, "{minutes}");
}
