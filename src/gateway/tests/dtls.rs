//! DTLS-SRTP with a telephone: from its offer over the handshake to what the net thread is told, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::world::{OFFER, World};
use super::{body, seconds};
use crate::config::SrtpPolicy;
use crate::gateway::event::Input;
use crate::media::control::{LegKey, NetEvent, Protection};
use crate::rtc::dtls::{Dtls, DtlsRole, Identity, Output};
use crate::rtc::fingerprint::Fingerprint;
use crate::wire::rtp::SrtpKeys;

const SETUP: [&str; 3] = ["actpass", "active", "passive"];

/// A telephone's end of DTLS.
struct Phone {
    identity: Arc<Identity>,
    dtls: Option<Dtls>,
    keys: Vec<SrtpKeys>,
    leg: LegKey,
}

impl Phone {
    fn new() -> Self {
        let identity = Identity::generate(std::time::Instant::now()).unwrap();
        Self { identity, dtls: None, keys: Vec::new(), leg: LegKey(0) }
    }

    fn offer(&self, setup: &str, more: &str) -> String {
        let fingerprint = self.identity.fingerprint();
        let offer = OFFER.replace("RTP/AVP", "UDP/TLS/RTP/SAVP");
        format!("{offer}a=fingerprint:{fingerprint}\r\na=setup:{setup}\r\na=rtcp-mux\r\n{more}")
    }

    /// A new association with who answered so.
    fn begin(&mut self, world: &World) {
        let answer = body(world.sip.last().unwrap());
        let value = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let role = if value("a=setup:").as_deref() == Some("active") { DtlsRole::Server } else { DtlsRole::Client };
        let theirs = Fingerprint::parse(&value("a=fingerprint:").unwrap()).unwrap();
        let mut dtls = Dtls::new(world.now, &self.identity, role, vec![theirs]);
        dtls.start(world.now);
        self.dtls = Some(dtls);
        let port: u32 = value("m=audio ").unwrap().split(' ').next().unwrap().parse().unwrap();
        self.leg = LegKey((port - 20_000) / 2);
    }

    /// Both ends exchange what they have until nobody has anything, in no time.
    fn exchange(&mut self, world: &mut World) {
        loop {
            let to_phone = std::mem::take(&mut world.telephone_dtls);
            let mut is_quiet = to_phone.is_empty();
            let dtls = self.dtls.as_mut().unwrap();
            for (_, bytes) in to_phone {
                dtls.handle_input(world.now, &bytes);
            }
            while let Some(output) = dtls.poll_output() {
                is_quiet = false;
                match output {
                    Output::Transmit(bytes) => tell(world, self.leg, bytes),
                    Output::Connected(keys) => self.keys.push(keys),
                    Output::Failed(_) => {}
                }
            }
            if is_quiet {
                return;
            }
        }
    }
}

/// What the net thread lets through of a telephone.
fn tell(world: &mut World, leg: LegKey, bytes: Vec<u8>) {
    let (from, arrival): (SocketAddr, _) = ("192.0.2.1:4000".parse().unwrap(), world.now);
    world.gateway.handle_input(world.now, Input::Net(NetEvent::Dtls { leg, from: from.into(), arrival, bytes }));
    world.run(Duration::ZERO);
}

fn answered(world: &mut World, offer: &str) {
    world.request("ada", "INVITE", 1, Some(offer));
    world.run(seconds(1));
    assert_eq!(world.statuses("ada"), [180, 200], "{:?}", world.sip.last());
}

/// A call whose handshake is done.
fn secured(setup: &str, policy: SrtpPolicy) -> (World, Phone) {
    let (mut world, mut phone) = (World::with_srtp(policy, false), Phone::new());
    answered(&mut world, &phone.offer(setup, ""));
    phone.begin(&world);
    phone.exchange(&mut world);
    world.request("ada", "ACK", 1, None);
    (world, phone)
}

fn in_use(world: &World) -> SrtpKeys {
    let Some(Protection::Srtp(keys)) = world.protections.last() else { panic!("{:?}", world.protections) };
    keys.clone()
}

#[test]
fn keys_come_by_a_handshake_whoever_begins_it_and_nothing_is_plain_before() {
    for (setup, ours) in SETUP.into_iter().zip(["active", "passive", "active"]) {
        let (world, phone) = secured(setup, SrtpPolicy::Required);
        let answer = world.sip.iter().find(|text| text.starts_with("SIP/2.0 200")).unwrap();
        assert!(answer.contains(" UDP/TLS/RTP/SAVP 0") && answer.contains("a=rtcp-mux"), "{answer}");
        assert!(answer.contains(&format!("a=setup:{ours}\r\n")) && answer.contains("a=fingerprint:sha-256 "));
        assert!(!answer.contains("a=crypto") && !answer.contains("a=tls-id"));
        assert_eq!((world.protections.len(), &world.protections[0]), (2, &Protection::Awaited), "{setup}");
        let keys = in_use(&world);
        assert_eq!((&keys.local, &keys.remote), (&phone.keys[0].remote, &phone.keys[0].local), "{setup}");
    }
}

#[test]
fn who_hides_behind_a_nat_is_let_begin() {
    for (host, ours) in [("192.168.1.20", "passive"), ("fd00::20", "passive"), ("192.0.2.1", "active")] {
        let (mut world, phone) = (World::new(), Phone::new());
        let family = if host.contains(':') { "IP6" } else { "IP4" };
        let there = format!("c=IN {family} {host}");
        answered(&mut world, &phone.offer("actpass", "").replace("c=IN IP4 192.0.2.1", &there));
        let answer = body(world.sip.last().unwrap());
        assert!(answer.contains(&format!("a=setup:{ours}\r\n")), "{host}: {answer}");
    }
}

#[test]
fn hold_and_resume_disturb_no_association_and_a_new_certificate_makes_a_new_one() {
    let (mut world, mut phone) = secured("actpass", SrtpPolicy::Optional);
    let first = in_use(&world);
    for (cseq, more) in [(2, "a=sendonly\r\n"), (3, ""), (4, "c=IN IP4 0.0.0.0\r\n")] {
        world.request("ada", "INVITE", cseq, Some(&phone.offer("actpass", more)));
        assert!(body(world.sip.last().unwrap()).contains("a=setup:active"), "{more}");
        world.request("ada", "ACK", cseq, None);
        world.run(seconds(30));
        assert_eq!((world.protections.len(), world.telephone_dtls.len()), (2, 0), "{more}");
    }
    // Another certificate: nothing goes under the old keys any more, and new ones come.
    phone.identity = Phone::new().identity;
    world.request("ada", "INVITE", 5, Some(&phone.offer("active", "a=tls-id:abcdefghijklmnopqrstuvwxyz\r\n")));
    let answer = body(world.sip.last().unwrap());
    assert!(answer.contains("a=setup:passive") && answer.contains("a=tls-id:"), "{answer}");
    assert_eq!(world.protections.last(), Some(&Protection::Awaited));
    phone.begin(&world);
    phone.exchange(&mut world);
    let second = in_use(&world);
    assert!(second.local != first.local && second.remote == phone.keys[1].local);
    // Asked for an offer, we offer the association that there is.
    world.request("ada", "ACK", 5, None);
    world.request("ada", "INVITE", 6, None);
    let offer = body(world.sip.last().unwrap());
    assert!(offer.contains(" UDP/TLS/RTP/SAVP ") && offer.contains("a=setup:actpass") && offer.contains("a=tls-id:"));
    let same = phone.offer("active", "a=tls-id:abcdefghijklmnopqrstuvwxyz\r\n");
    world.request("ada", "ACK", 6, Some(&same));
    world.run(seconds(20));
    assert_eq!((in_use(&world), world.statuses("ada").len()), (second, 7));
}

#[test]
fn a_changed_address_is_a_new_association_unless_its_name_says_otherwise() {
    for (name, moved) in [("", true), ("a=tls-id:abcdefghijklmnopqrstuvwxyz\r\n", false)] {
        let (mut world, mut phone) = (World::new(), Phone::new());
        answered(&mut world, &phone.offer("actpass", name));
        phone.begin(&world);
        phone.exchange(&mut world);
        world.request("ada", "ACK", 1, None);
        let elsewhere = phone.offer("actpass", name).replace("m=audio 4000", "m=audio 4400");
        world.request("ada", "INVITE", 2, Some(&elsewhere));
        assert_eq!(matches!(world.protections.last(), Some(Protection::Awaited)), moved, "{name}");
    }
}

#[test]
fn a_foreign_certificate_and_a_handshake_without_an_end_end_the_call_with_the_reason() {
    let (mut world, mut phone) = (World::new(), Phone::new());
    answered(&mut world, &Phone::new().offer("actpass", ""));
    phone.begin(&world);
    phone.exchange(&mut world);
    world.request("ada", "ACK", 1, None);
    world.run(seconds(1));
    let bye = |world: &World| world.sip.iter().find(|text| text.starts_with("BYE ")).cloned();
    assert!(
        bye(&world).is_some_and(|bye| bye.contains("is not the one that its description names")),
        "{:?}",
        bye(&world)
    );
    assert_eq!(world.protections, [Protection::Awaited]);

    let (mut world, phone) = (World::new(), Phone::new());
    answered(&mut world, &phone.offer("passive", ""));
    world.request("ada", "ACK", 1, None);
    world.run(seconds(8));
    assert!(bye(&world).is_none() && world.telephone_dtls.len() >= 5, "the hello is repeated");
    world.run(seconds(2));
    assert!(bye(&world).is_some_and(|bye| bye.contains("did not end within 10 s")), "{:?}", bye(&world));
    assert!(world.gateway.sockets().open.is_empty());
}

#[test]
fn junk_in_the_place_of_dtls_is_harmless_before_and_after() {
    let (mut world, mut phone) = (World::new(), Phone::new());
    answered(&mut world, &phone.offer("active", ""));
    phone.begin(&world);
    let junk = || [vec![20], vec![63; 1400], [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 1][..], &[9; 8]].concat()];
    junk().into_iter().for_each(|bytes| tell(&mut world, phone.leg, bytes));
    phone.exchange(&mut world);
    let keys = in_use(&world);
    junk().into_iter().for_each(|bytes| tell(&mut world, phone.leg, bytes));
    world.request("ada", "ACK", 1, None);
    world.run(seconds(15));
    assert_eq!((in_use(&world), world.statuses("ada")), (keys, vec![180, 200]));
}

#[test]
fn who_does_not_fit_is_refused_with_the_reason_in_words() {
    let phone = Phone::new();
    let good = phone.offer("actpass", "");
    let fingerprint = phone.identity.fingerprint().to_string();
    let weak = good.replace(&fingerprint, &format!("sha-1 {}", &fingerprint["sha-256 ".len()..][..59]));
    for (policy, offer, status, words) in [
        (SrtpPolicy::Off, &good, 488, "which is off here"),
        (SrtpPolicy::Optional, &weak, 488, "SHA-256"),
        (SrtpPolicy::Required, &weak, 488, "SHA-256"),
        (SrtpPolicy::Optional, &good.replace("actpass", "holdconn"), 400, "holdconn"),
    ] {
        let mut world = World::with_srtp(policy, false);
        world.request("ada", "INVITE", 1, Some(offer));
        assert_eq!(world.statuses("ada"), [status], "{offer}");
        assert!(world.sip.iter().any(|text| text.contains(words)), "{:?}", world.sip);
        assert!(world.gateway.sockets().open.is_empty());
    }
}

#[test]
fn who_sends_no_offer_is_offered_dtls_where_encryption_is_required_and_keys_must_not_be_told() {
    let (mut world, mut phone) = (World::with_srtp(SrtpPolicy::Required, false), Phone::new());
    world.request("ada", "INVITE", 1, None);
    world.run(seconds(1));
    let ours = body(world.sip.last().unwrap()).to_owned();
    assert!(ours.contains(" UDP/TLS/RTP/SAVP ") && ours.contains("a=setup:actpass"), "{ours}");
    phone.begin(&world);
    world.request("ada", "ACK", 1, Some(&phone.offer("active", "")));
    world.run(Duration::ZERO);
    phone.exchange(&mut world);
    assert_eq!(in_use(&world).local, phone.keys[0].remote);
}
