//! What passes between telephones of different codecs, and what goes up as it came.

use galene_sip::media::control::*;
use lab::speech::Reference;

use super::world::{SPEECH, WIDE_RATE_HZ, World, loudness, up_leg, whistle};

const FRAME_SAMPLES: usize = 320;

fn telephone(codec: TelephoneCodec) -> Telephone {
    Telephone::new(codec, SPEECH)
}

fn last_half_second(pcm: &[i16], rate_hz: u32) -> &[i16] {
    &pcm[pcm.len() - rate_hz as usize / 2..]
}

#[test]
fn a_high_whistle_reaches_the_wideband_telephones_not_its_own_ear_and_leaves_no_alias_in_g711() {
    let hz = 6000.0;
    let mut world = World::new();
    let mut whistler = world.add(1, telephone(TelephoneCodec::G722));
    let listeners = [TelephoneCodec::G722, TelephoneCodec::Opus, TelephoneCodec::Pcmu];
    for (number, codec) in (2..).zip(listeners) {
        world.add(number, telephone(codec));
    }
    for turn in 0..100 {
        world.turn(&mut whistler, &whistle(hz, WIDE_RATE_HZ, turn * FRAME_SAMPLES, FRAME_SAMPLES));
    }
    for (number, codec) in (2..).zip(listeners) {
        let heard = world.heard_by(number, codec);
        let heard = last_half_second(&heard, codec.sound_rate_hz());
        match codec {
            TelephoneCodec::Pcmu => assert!(loudness(heard, 8000.0 - hz, 8000) < 0.01, "{codec:?}"),
            // The upper band of G.722 has 2 bits.
            _ => {
                let loudness = loudness(heard, hz, WIDE_RATE_HZ);
                assert!((0.5..1.2).contains(&loudness), "{codec:?}: {loudness}");
            }
        }
    }
    let own = world.heard_by(1, TelephoneCodec::G722);
    assert!(loudness(last_half_second(&own, WIDE_RATE_HZ), hz, WIDE_RATE_HZ) < 0.01);
}

#[test]
fn every_packet_time_has_timestamps_of_the_codecs_own_clock() {
    for (codec, clock_rate_hz) in [(TelephoneCodec::G722, 8000), (TelephoneCodec::Opus, 48_000)] {
        // Opus has no frames of 30 ms.
        let opus_30 = if codec == TelephoneCodec::Opus { 20 } else { 30 };
        for (ptime_ms, sent_ms) in [(10, 10), (20, 20), (30, opus_30), (40, 40), (60, 60)] {
            let mut world = World::new();
            world.add(1, Telephone { ptime_ms, ..telephone(codec) });
            (0..12).for_each(|_| world.tick());
            let down = world.down(1);
            assert_eq!(down.len(), 240 / sent_ms as usize, "{codec:?} {ptime_ms} ms");
            for pair in down.windows(2) {
                let step = pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp);
                assert_eq!(step, clock_rate_hz / 1000 * sent_ms, "{codec:?} {ptime_ms} ms");
                assert_eq!(pair[1].0.sequence_number, pair[0].0.sequence_number.wrapping_add(1));
            }
            if codec == TelephoneCodec::G722 {
                assert!(down.iter().all(|(_, bytes)| *bytes == 8 * sent_ms as usize));
            }
        }
    }
}

#[test]
fn opus_goes_up_byte_by_byte_until_the_caller_is_muted_and_the_stream_has_no_seam() {
    let said = Reference::new().at(WIDE_RATE_HZ);
    let mut world = World::new();
    let mut phone = world.add(1, telephone(TelephoneCodec::Opus));
    let mut packets = Vec::new();
    for (turn, piece) in said.chunks_exact(FRAME_SAMPLES).take(300).enumerate() {
        if matches!(turn, 150 | 200) {
            world.command(Command::SetMuted { caller: phone.key, muted: turn == 150 });
        }
        let packet = phone.packet(piece);
        world.hear(&phone, &packet);
        packets.push(packet[12..].to_vec());
        world.tick();
    }
    let up = world.up(1);
    let forwarded = |from: usize, to: usize| {
        packets[from..to].iter().filter(|packet| up.iter().any(|(_, payload)| payload == packet)).count()
    };
    // A pause is left out (`dtx`); all that is sent is the telephone's own.
    assert!(forwarded(30, 150) >= 100, "{}", forwarded(30, 150));
    assert!(forwarded(151, 200) <= 2, "{}", forwarded(151, 200));
    assert!(forwarded(201, 300) >= 80, "{}", forwarded(201, 300));
    for pair in up.windows(2) {
        assert_eq!(pair[1].0.sequence_number, pair[0].0.sequence_number.wrapping_add(1));
        assert!(pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp).is_multiple_of(960));
        assert_eq!((pair[0].0.payload_type, pair[0].0.ssrc), (111, 1));
    }
}

#[test]
fn an_opus_packet_that_is_lost_on_its_way_here_is_a_loss_in_the_room_too_and_made_up_for_the_neighbours() {
    let mut world = World::new();
    let mut phone = world.add(1, telephone(TelephoneCodec::Opus));
    world.add(2, telephone(TelephoneCodec::G722));
    for turn in 0..100 {
        let packet = phone.packet(&whistle(700.0, WIDE_RATE_HZ, turn * FRAME_SAMPLES, FRAME_SAMPLES));
        if turn != 80 {
            world.hear(&phone, &packet);
        }
        world.tick();
    }
    let gaps: Vec<_> = world
        .up(1)
        .windows(2)
        .map(|pair| {
            let sequence = pair[1].0.sequence_number.wrapping_sub(pair[0].0.sequence_number);
            (sequence, pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp))
        })
        .filter(|step| *step != (1, 960))
        .collect();
    assert_eq!(gaps, [(2, 1920)]);
    let heard = world.heard_by(2, TelephoneCodec::G722);
    let pieces = last_half_second(&heard, WIDE_RATE_HZ).chunks_exact(FRAME_SAMPLES);
    let loudness: Vec<_> = pieces.map(|piece| loudness(piece, 700.0, WIDE_RATE_HZ)).collect();
    // It is waited for while the queue makes sound up, in another phase: these pieces cancel themselves in part.
    assert!(loudness.iter().filter(|piece| **piece < 0.8).count() <= 4, "{loudness:?}");
    assert!(loudness.iter().all(|piece| *piece > 0.1), "{loudness:?}");
}

#[test]
fn a_quiet_opus_telephone_is_brought_up_hence_coded_anew() {
    let said: Vec<i16> = Reference::new().at(WIDE_RATE_HZ).iter().map(|sample| sample / 8).collect();
    let mut world = World::new();
    let mut phone = world.add(1, telephone(TelephoneCodec::Opus));
    let mut packets = Vec::new();
    for piece in said.chunks_exact(FRAME_SAMPLES) {
        let packet = phone.packet(piece);
        world.hear(&phone, &packet);
        packets.push(packet[12..].to_vec());
        world.tick();
    }
    let up = world.up(1);
    let latest = &packets[packets.len() - 300..];
    let forwarded = latest.iter().filter(|packet| packet.len() > 10 && up.iter().any(|(_, up)| up == packet)).count();
    assert!(forwarded < 30, "{forwarded}");
}

#[test]
fn another_codec_in_mid_call_leaves_no_seam_in_the_stream_and_gives_the_former_line_back() {
    let mut world = World::new();
    let mut phone = world.add(1, telephone(TelephoneCodec::Pcmu));
    for turn in 0..50 {
        world.turn(&mut phone, &whistle(700.0, 8000, turn * 160, 160));
    }
    let changed = telephone(TelephoneCodec::G722);
    let line = Some(Box::new(Line::new(&changed).unwrap()));
    world.command(Command::SetTelephone { caller: phone.key, telephone: changed, line });
    world.set_up(1, TelephoneCodec::G722, RoomCodec::Opus);
    assert_eq!(world.outbox.lines, 1);
    let mut phone = World::phone(1, TelephoneCodec::G722);
    for turn in 0..50 {
        world.turn(&mut phone, &whistle(5000.0, WIDE_RATE_HZ, turn * FRAME_SAMPLES, FRAME_SAMPLES));
    }
    let up = world.up(1);
    for pair in up.windows(2) {
        assert_eq!(pair[1].0.sequence_number, pair[0].0.sequence_number.wrapping_add(1));
        assert_eq!(pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp), 960);
    }
    let heard = world.heard_above(1);
    assert!(loudness(last_half_second(&heard, WIDE_RATE_HZ), 5000.0, WIDE_RATE_HZ) > 0.7);
    let down = world.down(1);
    assert!(down.windows(2).all(|pair| pair[1].0.sequence_number == pair[0].0.sequence_number.wrapping_add(1)));
}

#[test]
fn groups_without_opus_get_their_own_codec_from_wideband_telephones() {
    for (codec, clock_step, bytes) in [(RoomCodec::G722, 160, 160), (RoomCodec::Pcmu, 160, 160)] {
        for telephone_codec in [TelephoneCodec::G722, TelephoneCodec::Opus] {
            let mut world = World::new();
            let mut phone = world.add(1, telephone(telephone_codec));
            world.set_up(1, telephone_codec, codec);
            world.outbox.packets.clear();
            for turn in 0..20 {
                world.turn(&mut phone, &whistle(700.0, WIDE_RATE_HZ, turn * FRAME_SAMPLES, FRAME_SAMPLES));
            }
            let sent: Vec<_> = world.outbox.packets.iter().filter(|packet| packet.1 == up_leg(1)).collect();
            assert_eq!(sent.len(), 20, "{codec:?} {telephone_codec:?}");
            assert!(sent.iter().all(|packet| packet.3.len() == bytes));
            assert!(sent.windows(2).all(|pair| pair[1].2.timestamp.wrapping_sub(pair[0].2.timestamp) == clock_step));
        }
    }
}
