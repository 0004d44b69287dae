//! The latch in virtual time: telephones behind NATs, and people who would like to be heard instead.

use super::*;

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

/// Its telephone's SSRC.
const PHONE: u32 = 7;

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

fn signalled() -> SocketAddr {
    address(1, 4000)
}

fn stranger() -> SocketAddr {
    address(9, 777)
}

/// The signalled host may send, and is not where SIP comes from.
fn remote(rtp: Option<SocketAddr>) -> TelephoneRemote {
    TelephoneRemote {
        rtp,
        rtcp: None,
        rtcp_mux: false,
        payload_type: 0,
        clock_rate_hz: 8000,
        signalling_host: None,
        has_claim: rtp.is_some(),
        is_expected: true,
        asks_metrics: false,
    }
}

fn with_claim() -> Latch {
    Latch::new(remote(Some(signalled())))
}

/// As with a private address in SDP that came from a public one.
fn without_claim() -> Latch {
    Latch::new(TelephoneRemote { has_claim: false, ..remote(Some(signalled())) })
}

fn packet(source: SocketAddr, ssrc: u32, sequence: u16) -> Evidence {
    Evidence { source, ssrc, sequence, payload_type: 0, is_authentic: false }
}

fn at(us: u64) -> Instant {
    Instant::from_us(10 * SECOND + us)
}

/// A source that sends every 20 ms.
struct Talker {
    source: SocketAddr,
    ssrc: u32,
    sequence: u16,
}

impl Talker {
    const fn new(source: SocketAddr, ssrc: u32) -> Self {
        Self { source, ssrc, sequence: 65_500 }
    }

    fn talk(&mut self, latch: &mut Latch, us: u64) -> Verdict {
        self.sequence = self.sequence.wrapping_add(1);
        latch.judge(at(us), &packet(self.source, self.ssrc, self.sequence))
    }

    /// Talks from `from_us` to `to_us`; when it was believed first.
    fn talk_for(&mut self, latch: &mut Latch, from_us: u64, to_us: u64) -> Option<u64> {
        let mut believed = None;
        for us in (from_us..to_us).step_by(20_000) {
            if self.talk(latch, us) != Verdict::Drop {
                believed = believed.or(Some(us));
            }
        }
        believed
    }
}

#[test]
fn the_signalled_address_is_believed_at_once() {
    let mut latch = with_claim();
    assert_eq!(latch.judge(at(0), &packet(signalled(), 7, 100)), Verdict::Latched);
    assert_eq!(latch.judge(at(1), &Evidence { payload_type: 8, ..packet(signalled(), 9, 5) }), Verdict::Take);
    assert_eq!(latch.judge(at(2), &packet(address(2, 4000), 7, 101)), Verdict::Drop);
}

#[test]
fn a_telephone_may_begin_with_a_key_where_it_is_expected_but_a_stranger_may_not() {
    let mut latch = without_claim();
    let key = |source, sequence| Evidence { payload_type: 101, ..packet(source, 7, sequence) };
    for sequence in 0..10 {
        assert_eq!(latch.judge(at(0), &key(stranger(), sequence)), Verdict::Drop);
    }
    assert_eq!(latch.judge(at(0), &key(signalled(), 100)), Verdict::Latched);
    assert_eq!(latch.judge(at(0), &packet(signalled(), 7, 101)), Verdict::Take);
}

#[test]
fn a_telephone_whose_address_cannot_send_is_believed_after_four_consistent_packets() {
    for mut latch in [without_claim(), Latch::new(remote(None))] {
        let mut phone = Talker::new(stranger(), PHONE);
        assert_eq!(phone.talk_for(&mut latch, 0, SECOND), Some(60 * MS));
        assert_eq!(latch.remote(), Some(stranger()));
    }
}

#[test]
fn where_the_signalled_host_can_send_it_has_two_seconds_before_a_stranger_is_believed() {
    let mut latch = with_claim();
    let mut phone = Talker::new(stranger(), PHONE);
    assert_eq!(phone.talk_for(&mut latch, 0, 3 * SECOND), Some(2 * SECOND));
    assert!(latch.has_moved());
    // Eight packets are needed also if they begin after that.
    let mut latch = with_claim();
    assert_eq!(latch.judge(at(0), &packet(address(8, 1), 1, 1)), Verdict::Drop);
    assert_eq!(Talker::new(stranger(), PHONE).talk_for(&mut latch, 5 * SECOND, 6 * SECOND), Some(5140 * MS));
}

#[test]
fn the_host_that_sip_comes_from_needs_no_more_than_two_packets() {
    let mut latch = Latch::new(TelephoneRemote { signalling_host: Some(stranger().ip()), ..remote(Some(signalled())) });
    assert_eq!(Talker::new(stranger(), PHONE).talk_for(&mut latch, 0, SECOND), Some(20 * MS));
}

#[test]
fn the_signalled_host_overtakes_a_stranger_who_began_first() {
    let mut latch = with_claim();
    assert_eq!(Talker::new(stranger(), 66).talk_for(&mut latch, 0, 1900 * MS), None);
    assert_eq!(Talker::new(address(1, 5000), PHONE).talk_for(&mut latch, 1900 * MS, 2 * SECOND), Some(1920 * MS));
    assert_eq!(Talker::new(stranger(), 66).talk_for(&mut latch, 2 * SECOND, 8 * SECOND), None);
}

#[test]
fn a_sign_of_life_of_the_signalled_host_keeps_its_claim() {
    let mut latch = with_claim();
    let mut attacker = Talker::new(stranger(), 66);
    for second in 0..20 {
        latch.on_sign_of_life(at(second * SECOND), address(1, 4001));
        latch.on_sign_of_life(at(second * SECOND), stranger());
        assert_eq!(attacker.talk_for(&mut latch, second * SECOND, (second + 1) * SECOND), None);
    }
}

#[test]
fn before_the_answer_and_on_hold_nobodys_silence_counts() {
    let ringing = TelephoneRemote { is_expected: false, ..remote(Some(signalled())) };
    let mut latch = Latch::new(ringing);
    let mut attacker = Talker::new(stranger(), 66);
    assert_eq!(attacker.talk_for(&mut latch, 0, 20 * SECOND), None);
    latch.update(remote(Some(signalled())));
    assert_eq!(attacker.talk_for(&mut latch, 20 * SECOND, 21 * SECOND), None);
    assert_eq!(latch.judge(at(21 * SECOND), &packet(signalled(), PHONE, 1)), Verdict::Latched);
    // An hour on hold, and a moment to resume.
    latch.update(ringing);
    assert_eq!(attacker.talk_for(&mut latch, 22 * SECOND, 3600 * SECOND), None);
    latch.update(remote(Some(signalled())));
    assert_eq!(attacker.talk_for(&mut latch, 3600 * SECOND, 3606 * SECOND), None);
    assert_eq!(latch.judge(at(3606 * SECOND), &packet(signalled(), PHONE, 2)), Verdict::Take);
}

#[test]
fn a_stranger_who_knocks_all_through_the_call_is_never_heard_while_the_telephone_speaks() {
    let mut latch = without_claim();
    let (mut phone, mut attacker) = (Talker::new(address(5, 5), PHONE), Talker::new(stranger(), 66));
    for us in (0..60 * SECOND).step_by(20_000) {
        let expected = [Verdict::Drop, Verdict::Latched, Verdict::Take];
        assert_eq!(phone.talk(&mut latch, us), expected[usize::from(us >= 60 * MS) + usize::from(us > 60 * MS)]);
        // He begins together with the telephone's third packet.
        if us >= 40 * MS {
            assert_eq!(attacker.talk(&mut latch, us + 1), Verdict::Drop);
        }
        assert_ne!(latch.remote(), Some(stranger()));
    }
}

/// Random packets from random sources, so many for each one of the telephone; when that is believed.
fn spray(latch: &mut Latch, phone: SocketAddr, per_phone_packet: u64) -> Option<u64> {
    let mut talker = Talker::new(phone, PHONE);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut believed = None;
    for us in (0..20 * SECOND).step_by(20_000) {
        let before_phone = random % per_phone_packet;
        for nth in 0..per_phone_packet {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Nobody can time his packets better than his network delivers them.
            let us = us + (20_000 * nth + random % 20_000) / per_phone_packet;
            let source = SocketAddr::from(([203, 0, 113, random as u8], (random >> 8) as u16));
            let evidence = packet(source, (random >> 24) as u32, (random >> 48) as u16);
            assert_eq!(latch.judge(at(us), &evidence), Verdict::Drop, "{evidence:?}");
            let us = us + 20_000 / per_phone_packet / 2;
            if nth == before_phone && talker.talk(latch, us) != Verdict::Drop {
                believed = believed.or(Some(us));
            }
        }
    }
    believed
}

#[test]
fn a_sprayer_with_random_packets_is_never_believed_and_cannot_keep_the_telephone_out_for_long() {
    assert!(spray(&mut with_claim(), signalled(), 200).is_some_and(|us| us < 20 * MS));
    assert!(spray(&mut with_claim(), address(1, 5000), 200).is_some_and(|us| us < 40 * MS));
    // 10 000 packets a second from everywhere: it takes a while to find a place among the candidates.
    for (mut latch, at_least) in [(without_claim(), 60 * MS), (with_claim(), 2 * SECOND)] {
        let believed = spray(&mut latch, stranger(), 200);
        assert!(believed.is_some_and(|us| (at_least..6 * SECOND).contains(&us)), "{believed:?}");
        assert_eq!(latch.remote(), Some(stranger()));
    }
}

#[test]
fn random_packets_of_one_source_never_latch() {
    for mut latch in [without_claim(), Latch::new(remote(None))] {
        for step in 0..10_000_u32 {
            let random = step.wrapping_mul(2_654_435_761);
            let evidence = packet(stranger(), random, (random >> 7) as u16);
            assert_eq!(latch.judge(at(u64::from(step) * MS), &evidence), Verdict::Drop, "packet {step}");
        }
    }
}

#[test]
fn a_wrong_payload_type_or_a_frozen_sequence_does_not_count() {
    let mut latch = Latch::new(remote(None));
    for sequence in 0..10 {
        let noise = Evidence { payload_type: 13, ..packet(stranger(), 7, sequence) };
        assert_eq!(latch.judge(at(0), &noise), Verdict::Drop);
        assert_eq!(latch.judge(at(0), &packet(stranger(), 7, 4)), Verdict::Drop);
    }
}

#[test]
fn a_new_signalled_address_opens_the_latch_again_and_another_description_does_not() {
    let mut latch = with_claim();
    latch.judge(at(0), &packet(signalled(), 7, 1));
    latch.update(remote(None));
    latch.update(TelephoneRemote { payload_type: 8, ..remote(Some(signalled())) });
    let alaw = |source, sequence| Evidence { payload_type: 8, ..packet(source, 7, sequence) };
    assert_eq!(latch.judge(at(1), &alaw(signalled(), 2)), Verdict::Take);
    latch.update(TelephoneRemote { payload_type: 8, ..remote(Some(address(2, 4000))) });
    assert_eq!(latch.remote(), Some(address(2, 4000)));
    assert_eq!(latch.judge(at(2), &alaw(signalled(), 3)), Verdict::Drop);
    assert_eq!(latch.judge(at(3), &alaw(address(2, 4000), 3)), Verdict::Latched);
}

#[test]
fn a_nat_that_rebinds_in_mid_call_costs_a_second() {
    let mut latch = without_claim();
    let mut phone = Talker::new(stranger(), PHONE);
    phone.talk_for(&mut latch, 0, 10 * SECOND);
    phone.source.set_port(778);
    // Its last packet from the old port came at 9.98 s.
    assert_eq!(phone.talk_for(&mut latch, 10 * SECOND, 12 * SECOND), Some(10_980 * MS));
    assert_eq!(latch.remote(), Some(address(9, 778)));
    // Somebody else behind the same NAT does not know how the stream goes on.
    assert_eq!(Talker::new(address(9, 900), 66).talk_for(&mut latch, 12 * SECOND, 18 * SECOND), None);
}

#[test]
fn a_stream_that_goes_on_from_another_host_has_to_wait_like_any_stranger() {
    let mut latch = without_claim();
    let mut phone = Talker::new(address(5, 5), PHONE);
    phone.talk_for(&mut latch, 0, 10 * SECOND);
    phone.source = stranger();
    assert_eq!(phone.talk_for(&mut latch, 10 * SECOND, 25 * SECOND), Some(18_980 * MS));
}

#[test]
fn after_silence_the_signalled_host_is_believed_at_once_again_and_sound_goes_to_the_latched_source_meanwhile() {
    let mut latch = without_claim();
    Talker::new(stranger(), PHONE).talk_for(&mut latch, 0, SECOND);
    assert_eq!(latch.judge(at(7900 * MS), &packet(signalled(), 8, 1)), Verdict::Drop);
    assert_eq!(latch.remote(), Some(stranger()));
    assert_eq!(latch.judge(at(7980 * MS), &packet(signalled(), 8, 2)), Verdict::Latched);
    assert_eq!(latch.remote(), Some(signalled()));
}

#[test]
fn rtcp_of_a_telephone_that_is_muted_keeps_everybody_else_out() {
    let mut latch = without_claim();
    Talker::new(stranger(), PHONE).talk_for(&mut latch, 0, SECOND);
    let mut attacker = Talker::new(address(8, 8), 66);
    for second in (1..600).step_by(6) {
        latch.on_sign_of_life(at(second * SECOND), address(9, 778));
        assert_eq!(attacker.talk_for(&mut latch, second * SECOND, (second + 6) * SECOND), None);
    }
}

#[test]
fn who_lost_its_place_by_being_silent_gets_it_back_once() {
    let mut latch = with_claim();
    let (mut phone, mut attacker) = (Talker::new(signalled(), PHONE), Talker::new(stranger(), 66));
    phone.talk_for(&mut latch, 0, SECOND);
    assert_eq!(attacker.talk_for(&mut latch, SECOND, 12 * SECOND), Some(9980 * MS));
    assert_eq!(phone.talk_for(&mut latch, 12 * SECOND, 13 * SECOND), Some(12_060 * MS));
    // And the other one does not.
    for us in (13 * SECOND..30 * SECOND).step_by(20_000) {
        assert_eq!((phone.talk(&mut latch, us), attacker.talk(&mut latch, us)), (Verdict::Take, Verdict::Drop));
    }
}

#[test]
fn an_authentic_packet_moves_the_latch_at_once_unless_it_was_overtaken() {
    let authentic = |source, sequence| Evidence { is_authentic: true, payload_type: 13, ..packet(source, 7, sequence) };
    let mut latch = with_claim();
    assert_eq!(latch.judge(at(0), &authentic(stranger(), 100)), Verdict::Latched);
    assert_eq!(latch.judge(at(1), &authentic(address(8, 8), 103)), Verdict::Latched);
    assert_eq!(latch.judge(at(2), &authentic(stranger(), 101)), Verdict::Take);
    assert_eq!(latch.remote(), Some(address(8, 8)));
    assert_eq!(latch.judge(at(3), &authentic(stranger(), 104)), Verdict::Latched);
}

#[test]
fn a_flood_of_encrypted_packets_costs_nothing_while_the_telephone_speaks() {
    let mut latch = with_claim();
    assert!(latch.is_worth_a_try(at(0), stranger()));
    latch.judge(at(0), &packet(signalled(), 7, 1));
    assert!(latch.is_worth_a_try(at(0), signalled()) && !latch.is_worth_a_try(at(199 * MS), stranger()));
    assert!(latch.is_worth_a_try(at(200 * MS), stranger()));
}
