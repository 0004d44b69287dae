//! Keys in descriptions, from the telephone's offer to what the net thread is told.

use super::world::{OFFER, World};
use super::{body, seconds};
use crate::config::SrtpPolicy;
use crate::media::control::Protection;
use crate::wire::rtp::SrtpKeys;
use crate::wire::sdp::Crypto;

const KEY: &str = "1 AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR";
const NEW_KEY: &str = "1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^31";

fn offer(transport: &str, key: &str, more: &str) -> String {
    format!("{}a=crypto:{key}\r\n{more}", OFFER.replace("RTP/AVP", transport))
}

/// The keys in our last description.
fn our_keys(world: &World) -> Vec<Crypto> {
    let lines = body(world.sip.last().unwrap()).lines();
    lines.filter_map(|line| Crypto::parse(line.strip_prefix("a=crypto:")?)).collect()
}

/// An answered call that began with `offer`.
fn answered(world: &mut World, offer: &str) {
    world.request("ada", "INVITE", 1, Some(offer));
    world.run(seconds(1));
    assert_eq!(world.statuses("ada"), [180, 200]);
}

fn agreed(world: &World) -> SrtpKeys {
    let Some(Protection::Srtp(keys)) = world.protections.last() else { panic!("{:?}", world.protections) };
    keys.clone()
}

#[test]
fn a_telephone_that_tells_its_key_gets_ours_and_new_ones_when_it_changes_it() {
    let mut world = World::with_srtp(SrtpPolicy::Optional, true);
    answered(&mut world, &offer("RTP/SAVP", KEY, ""));
    let ours = our_keys(&world);
    let first = agreed(&world);
    assert_eq!((ours.len(), &ours[0].material), (1, &first.local));
    assert_eq!(Some(&first.remote), Crypto::parse(KEY).map(|crypto| crypto.material).as_ref());
    world.request("ada", "ACK", 1, None);

    // Hold, for less than a session timer lets pass, and resume under the same key: nobody starts anew.
    world.request("ada", "INVITE", 2, Some(&offer("RTP/SAVP", KEY, "a=sendonly\r\n")));
    world.request("ada", "ACK", 2, None);
    world.run(seconds(600));
    world.request("ada", "INVITE", 3, Some(&offer("RTP/SAVP", KEY, "")));
    assert_eq!((our_keys(&world)[0].material.clone(), world.protections.len()), (first.local.clone(), 1));
    world.request("ada", "ACK", 3, None);

    world.request("ada", "INVITE", 4, Some(&offer("RTP/SAVP", NEW_KEY, "")));
    let second = agreed(&world);
    assert!(second.local != first.local && second.remote != first.remote);
    assert_eq!((&our_keys(&world)[0].material, world.protections.len()), (&second.local, 2));
    world.request("ada", "ACK", 4, None);

    // Back to plain RTP, which is only optional.
    world.request("ada", "INVITE", 5, Some(OFFER));
    assert_eq!(world.protections.last(), Some(&Protection::Plain));
}

#[test]
fn a_telephone_without_an_offer_may_choose_to_be_encrypted() {
    let mut world = World::with_srtp(SrtpPolicy::Optional, true);
    world.request("ada", "INVITE", 1, None);
    world.run(seconds(1));
    let ours = our_keys(&world);
    assert_eq!((ours.len(), &world.protections[..]), (4, &[Protection::Awaited][..]));
    assert!(body(world.sip.last().unwrap()).contains(" RTP/AVP "));
    let answer = offer("RTP/AVP", &KEY.replacen('1', "3", 1), "");
    world.request("ada", "ACK", 1, Some(&answer));
    assert_eq!(agreed(&world).local, ours[2].material);
}

#[test]
fn who_does_not_fit_the_policy_is_refused_with_the_reason_in_words() {
    let secret = offer("RTP/SAVP", KEY, "");
    for (policy, keys_in_clear, offer, words) in [
        (SrtpPolicy::Off, true, &secret[..], "which is off here"),
        (SrtpPolicy::Optional, false, &secret, "-sip-srtp-keys-in-clear"),
        (SrtpPolicy::Required, true, OFFER, "required here"),
    ] {
        let mut world = World::with_srtp(policy, keys_in_clear);
        world.request("ada", "INVITE", 1, Some(offer));
        world.run(seconds(1));
        assert_eq!(world.statuses("ada"), [488], "{policy:?}");
        let refusal = world.sip.iter().find(|text| text.starts_with("SIP/2.0 488")).unwrap();
        assert!(refusal.contains(words), "{refusal}");
        assert!(world.gateway.sockets().open.is_empty());
    }
}

#[test]
fn a_plain_call_over_udp_is_what_it_was() {
    let mut world = World::new();
    answered(&mut world, &offer("RTP/AVP", KEY, ""));
    assert!(our_keys(&world).is_empty());
    assert_eq!(world.protections, [Protection::Plain]);
}
