//! Whatever comes, in whatever order: no panic, no state that stays, every call ends.

use galene_sip::random::Random;
use galene_sip::sip::event::{CallKey, Event, Rejection};

use crate::peer::{ANSWER, OFFER, PHONE, Phone, Sent, World};

/// Changes, doubles or cuts a few bytes.
fn mutate(random: &mut Random, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() as u32) as usize;
        match random.below(4) {
            0 => bytes[at] = random.next_u32() as u8,
            1 => bytes.insert(at, b"\r\n<>;,=\" "[random.below(9) as usize]),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at + 1),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn request(random: &mut Random, phone: &mut Phone) -> String {
    let methods = ["INVITE", "INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "INFO", "FLY"];
    let method = methods[random.below(8) as usize];
    let extra = ["", "", "Require: x\r\n", "Expires: 1\r\n", "Max-Forwards: 0\r\n"][random.below(5) as usize];
    phone.request(method, extra, if random.below(2) == 0 { OFFER } else { "" })
}

/// What a gateway might do, however senseless.
fn wish(random: &mut Random, world: &mut World, call: CallKey) {
    let rejection = Rejection { status: random.below(800) as u16, ..Rejection::default() };
    let kind = random.below(6);
    world.act(|endpoint, now| match kind {
        0 => endpoint.ring(now, call),
        1 => endpoint.answer(now, call, ANSWER.into()),
        2 => endpoint.reject(now, call, &rejection),
        3 => endpoint.accept_offer(now, call, ANSWER.into()),
        4 => endpoint.refuse_offer(now, call, &rejection),
        _ => endpoint.hang_up(now, call, "so"),
    });
}

#[test]
fn random_requests_wishes_and_pauses_leave_nothing_behind() {
    for seed in 0..60 {
        let mut random = Random::for_test(seed);
        let (mut world, mut phone) = (World::open(), Phone::new());
        let (mut calls, mut ended, mut asked): (Vec<CallKey>, Vec<CallKey>, Vec<Sent>) = (vec![], vec![], vec![]);
        for _ in 0..200 {
            match random.below(8) {
                0 => world.pass(u64::from(random.below(10_000))),
                1 | 2 => {
                    if let Some(&call) = calls.last() {
                        wish(&mut random, &mut world, call);
                    }
                }
                3 => {
                    if let Some(bye) = asked.pop() {
                        let response = Phone::response(&bye, [100, 200, 407, 481][random.below(4) as usize], "");
                        let response = mutate(&mut random, &response);
                        world.receive(PHONE, &response);
                    }
                }
                4 => phone = Phone { call_id: random.token(4), branch: random.next_u32() / 2, ..Phone::new() },
                _ => {
                    let text = request(&mut random, &mut phone);
                    let text = if random.below(3) == 0 { mutate(&mut random, &text) } else { text };
                    world.receive(PHONE, &text);
                }
            }
            // What came broken comes back broken in the refusal.
            for one in world.sent() {
                if one.bytes.starts_with(b"SIP/2.0 4") || one.bytes.starts_with(b"SIP/2.0 5") {
                    continue;
                }
                if one.what() == "BYE" {
                    asked.push(one);
                } else if one.what() == "200 INVITE" {
                    phone.listen(&one);
                }
            }
            for event in world.events() {
                match event {
                    Event::Invite { call, .. } => calls.push(call),
                    Event::Ended { call, .. } => {
                        assert!(!ended.contains(&call), "ended twice");
                        ended.push(call);
                    }
                    Event::Offer { call, .. } | Event::Answer { call, .. } | Event::Acknowledged { call } => {
                        assert!(calls.contains(&call) && !ended.contains(&call));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        for &call in &calls {
            world.act(|endpoint, now| endpoint.hang_up(now, call, ""));
        }
        world.pass(70_000);
        assert_eq!(world.endpoint.calls(), 0, "seed {seed}");
        assert_eq!(world.endpoint.next_timeout(), None, "seed {seed}");
    }
}
