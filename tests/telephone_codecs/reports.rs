//! What far ends report steers what they are sent: copies against losses, and a lower rate where much is lost; and what a
//! telephone may be told of its own voice.

use galene_sip::media::control::*;

use super::world::{SPEECH, WIDE_RATE_HZ, World, down_leg};
use lab::speech::Reference;

const FRAME_SAMPLES: usize = 320;

/// Whether a packet of the voice coder, mono and of one frame, has a copy of the one before (RFC 6716 §4.2.3, §4.2.4).
fn has_copy(payload: &[u8]) -> bool {
    payload.len() > 1 && payload[0] >> 3 < 16 && payload[1] & 0x40 != 0
}

/// Bytes a packet, and how many of a hundred packets have copies.
fn measure(packets: &[&[u8]]) -> (usize, usize) {
    let bytes: usize = packets.iter().map(|payload| payload.len()).sum();
    let copies = packets.iter().filter(|payload| has_copy(payload)).count();
    (bytes / packets.len(), copies * 100 / packets.len())
}

/// Four seconds of somebody's speech.
fn speak(world: &mut World, phone: &mut super::world::Phone, said: &[i16]) {
    said.chunks_exact(FRAME_SAMPLES).take(200).for_each(|piece| world.turn(phone, piece));
}

#[test]
fn an_opus_telephone_gets_copies_while_it_reports_loss_also_after_a_re_invite_and_less_where_much_is_lost() {
    let said = Reference::new().at(WIDE_RATE_HZ);
    let mut world = World::new();
    let mut speaker = world.add(1, Telephone::new(TelephoneCodec::G722, SPEECH));
    let opus = OpusWishes { fec: true, ..OpusWishes::NONE };
    let listener = Telephone { opus, ..Telephone::new(TelephoneCodec::Opus, SPEECH) };
    world.add(2, listener);
    let caller = CallerKey(2);
    let held = Telephone { sends: false, ..listener };
    let re_invite = |telephone| Command::SetTelephone { caller, telephone, line: None };
    let mut found = Vec::new();
    for commands in [
        vec![],
        vec![Command::SetDownLoss { caller, percent: 5 }],
        // Held and resumed; the loss stays what it was, so nothing is told again.
        vec![re_invite(held), re_invite(listener)],
        vec![Command::SetDownLoss { caller, percent: 20 }],
        vec![Command::SetDownLoss { caller, percent: 0 }],
    ] {
        commands.into_iter().for_each(|command| world.command(command));
        let before = world.payloads_down(2).len();
        speak(&mut world, &mut speaker, &said);
        found.push(measure(&world.payloads_down(2)[before..]));
    }
    let [clean, lossy, resumed, congested, mended] = found[..] else { panic!() };
    assert_eq!((clean.1, mended.1), (0, 0), "{found:?}");
    assert!(lossy.1 > 40 && resumed.1 > 40 && congested.1 > 40, "{found:?}");
    // 64 kbit/s of the music coder, 32 of the voice coder, 24 of it.
    assert!((140..180).contains(&clean.0) && (140..180).contains(&mended.0), "{found:?}");
    assert!(lossy.0.abs_diff(resumed.0) <= 4 && lossy.0 < 90 && congested.0 * 10 < lossy.0 * 9, "{found:?}");
}

#[test]
fn a_room_that_reports_loss_gets_copies_and_less_where_much_is_lost() {
    let said = Reference::new().at(WIDE_RATE_HZ);
    let mut world = World::new();
    let mut speaker = world.add(1, Telephone::new(TelephoneCodec::G722, SPEECH));
    let caller = CallerKey(1);
    let mut found = Vec::new();
    for percent in [0, 5, 20] {
        world.command(Command::SetUpLoss { caller, percent });
        let before = world.up(1).len();
        speak(&mut world, &mut speaker, &said);
        found.push(measure(&world.up(1)[before..].iter().map(|packet| packet.1).collect::<Vec<_>>()));
    }
    let [clean, lossy, congested] = found[..] else { panic!() };
    assert!(clean.1 == 0 && lossy.1 > 40 && congested.1 > 40, "{found:?}");
    assert!(congested.0 * 10 < lossy.0 * 9, "{found:?}");
}

#[test]
fn a_telephone_that_asks_is_told_each_second_what_became_of_its_packets_also_after_another_codec() {
    let said = Reference::new().at(WIDE_RATE_HZ);
    let mut world = World::new();
    let asking = |codec| Telephone { asks_metrics: true, ..Telephone::new(codec, SPEECH) };
    let mut phone = world.add(1, asking(TelephoneCodec::G722));
    world.add(2, Telephone::new(TelephoneCodec::G722, SPEECH));
    let mut late = Vec::new();
    for (turn, piece) in said.chunks_exact(FRAME_SAMPLES).take(100).enumerate() {
        let packet = phone.packet(piece);
        match turn {
            // Two neighbours and one alone; the second of them comes when it is too late, twice.
            20 | 50 => {}
            21 => late = packet,
            30 => [&late, &late, &packet].into_iter().for_each(|packet| world.hear(&phone, packet)),
            _ => world.hear(&phone, &packet),
        }
        world.tick();
    }
    let told = world.outbox.heard.clone();
    assert_eq!(told.iter().map(|(leg, _)| *leg).collect::<Vec<_>>(), [down_leg(1); 2], "nobody else has asked");
    let heard = told[1].1;
    assert_eq!((heard.ssrc, heard.codec, heard.packet_us, heard.sent_packet_ms), (1, TelephoneCodec::G722, 20_000, 20));
    let bursts = Periods { count: 1, packets: 2, missing: 2 };
    assert_eq!((heard.bursts.bursts, heard.bursts.missing(), heard.bursts.holes, heard.late), (bursts, 3, 2, 1));
    assert!((99..=100).contains(&heard.bursts.expected()), "{heard:?}");
    assert!(heard.talk_dbm0.is_some_and(|level| (-35..=-10).contains(&level)), "{heard:?}");

    let (caller, telephone) = (CallerKey(1), asking(TelephoneCodec::Pcmu));
    let line = Some(Box::new(Line::new(&telephone).expect("libopus has memory")));
    world.command(Command::SetTelephone { caller, telephone, line });
    let mut narrow = World::phone(1, TelephoneCodec::Pcmu);
    narrow.sequence = phone.sequence;
    for _ in 0..50 {
        world.turn(&mut narrow, &[0; 160]);
    }
    let heard = world.outbox.heard[2].1;
    assert_eq!((heard.codec, heard.bursts.missing()), (TelephoneCodec::Pcmu, 3));
    assert!((149..=150).contains(&heard.bursts.expected()), "{heard:?}");
}
