//! What the stages around the mix cost: SRTP against webrtc-srtp, the codecs, resampling, voice activity.

mod common;

use std::hint::black_box;

use common::{frames, nanoseconds, speech};
use criterion::{Criterion, Throughput};
use galene_sip::media::g711::Law;
use galene_sip::media::opus::glance::Glance;
use galene_sip::media::resample::{Down16To8, Up8To16};
use galene_sip::media::srtp::{MAX_RTP_OVERHEAD_BYTES, Receiver, Sender};
use galene_sip::media::vad::Vad;
use galene_sip::media::{g722, opus, plc};
use galene_sip::wire::rtp::{RtpHeader, SrtpMaterial, SrtpProfile};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

const PROFILES: [(SrtpProfile, ProtectionProfile); 3] = [
    (SrtpProfile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm),
    (SrtpProfile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (SrtpProfile::Aes128CmSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
];
/// 20 ms of Opus at 32 kbit/s.
const PAYLOAD_BYTES: usize = 80;

fn material(profile: SrtpProfile) -> SrtpMaterial {
    SrtpMaterial { profile, key: vec![1; profile.key_bytes()], salt: vec![2; profile.salt_bytes()] }
}

fn packet(sequence_number: u16) -> [u8; 12 + PAYLOAD_BYTES + MAX_RTP_OVERHEAD_BYTES] {
    let header = RtpHeader { marker: false, payload_type: 111, sequence_number, timestamp: 0, ssrc: 1 };
    let mut packet = [7; 12 + PAYLOAD_BYTES + MAX_RTP_OVERHEAD_BYTES];
    packet[..12].copy_from_slice(&header.to_bytes());
    packet
}

const PLAIN_BYTES: usize = 12 + PAYLOAD_BYTES;

/// Enough packets to measure reading, which takes each of them only once: (ns to protect, ns to unprotect).
fn own_ns(profile: SrtpProfile) -> (f64, f64) {
    let mut sender = Sender::new(&material(profile)).expect("the lengths are the profile's");
    let mut sequence_number = 0u16;
    let protect = nanoseconds(|| {
        sequence_number = sequence_number.wrapping_add(1);
        let mut packet = packet(sequence_number);
        sender.protect_rtp(&mut packet, PLAIN_BYTES)
    });
    let mut sender = Sender::new(&material(profile)).expect("the lengths are the profile's");
    let protected: Vec<_> = (0..20_000)
        .map(|number| {
            let mut packet = packet(number);
            let len = sender.protect_rtp(&mut packet, PLAIN_BYTES).expect("numbers rise");
            (packet, len)
        })
        .collect();
    let unprotect = fastest_pass(|| {
        let mut receiver = Receiver::new(&material(profile)).expect("the lengths are the profile's");
        let mut packets = protected.clone();
        move || {
            packets.iter_mut().for_each(|(packet, len)| {
                black_box(receiver.unprotect_rtp(&mut packet[..*len]).expect("authentic"));
            })
        }
    });
    (protect, unprotect / 20_000.0)
}

fn rival_ns(profile: SrtpProfile, rival: ProtectionProfile) -> (f64, f64) {
    let SrtpMaterial { key, salt, .. } = material(profile);
    let context = || {
        let replay = webrtc_srtp::option::srtp_replay_protection(512);
        Context::new(&key, &salt, rival, Some(replay), None).expect("the lengths are the profile's")
    };
    let mut sender = context();
    let mut sequence_number = 0u16;
    let protect = nanoseconds(|| {
        sequence_number = sequence_number.wrapping_add(1);
        sender.encrypt_rtp(&packet(sequence_number)[..PLAIN_BYTES])
    });
    let mut sender = context();
    let protected: Vec<_> =
        (0..20_000).map(|number| sender.encrypt_rtp(&packet(number)[..PLAIN_BYTES]).expect("numbers rise")).collect();
    let unprotect = fastest_pass(|| {
        let mut receiver = context();
        let protected = &protected;
        move || {
            protected.iter().for_each(|packet| {
                black_box(receiver.decrypt_rtp(packet).expect("authentic"));
            })
        }
    });
    (protect, unprotect / 20_000.0)
}

/// The fastest of seven passes in nanoseconds, each prepared outside the measurement.
fn fastest_pass<F: FnOnce()>(mut prepare: impl FnMut() -> F) -> f64 {
    (0..7)
        .map(|_| {
            let pass = prepare();
            let start = std::time::Instant::now();
            pass();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
        .as_secs_f64()
        * 1e9
}

fn print_ratios() {
    println!("SRTP, {PAYLOAD_BYTES} bytes of payload, own against webrtc-srtp:");
    for (profile, rival) in PROFILES {
        let ((protect, unprotect), (rival_protect, rival_unprotect)) = (own_ns(profile), rival_ns(profile, rival));
        println!(
            "  {profile:?}: protect {protect:.0} ns ({:.1} x faster), unprotect {unprotect:.0} ns ({:.1} x faster)",
            rival_protect / protect,
            rival_unprotect / unprotect
        );
    }
    println!("what leaving Opus undecoded saves (32 kbit/s, hybrid):");
    let [whole, silk_layer, glance] = opus_costs();
    println!(
        "  at 48 kHz {:.1} us, at 16 kHz {:.1} (its SILK layer alone): {:.1} x faster",
        whole / 1e3,
        silk_layer / 1e3,
        whole / silk_layer
    );
    println!("  a glance {glance:.0} ns: {:.0} x faster than decoding", silk_layer / glance);
    println!("codecs and filters, a frame of 20 ms:");
    for (name, ns) in stage_costs() {
        println!("  {name:<42} {:>8.2} us", ns / 1000.0);
    }
}

/// Nanoseconds a packet: all of it, what of it is heard at 16 kHz, and a look at it.
fn opus_costs() -> [f64; 3] {
    let packets = member_packets();
    let mut number = 0;
    let mut next = || {
        number = (number + 1) % packets.len();
        number
    };
    let mut out = [0; 5760];
    let [whole, silk_layer] = [48_000, 16_000].map(|rate_hz| {
        let mut decoder = opus::Decoder::new(rate_hz).expect("a rate of Opus");
        nanoseconds(|| decoder.decode(Some(&packets[next()]), false, &mut out))
    });
    [whole, silk_layer, nanoseconds(|| Glance::at(black_box(&packets[next()])))]
}

/// Each stage on running speech.
fn stage_costs() -> Vec<(&'static str, f64)> {
    let (narrow, wide) = (speech(8000 * 4, 8000), speech(16_000 * 4, 16_000));
    let mut costs = Vec::new();
    let mut at = 0;
    let mut next = |frame: usize| {
        at = (at + frame) % (8000 * 3);
        at
    };
    let mut packet = [0; opus::MAX_FRAME_BYTES];
    let mut encoder = opus::Encoder::new(8000, 0, 32_000).expect("a rate of Opus");
    costs.push(("Opus encode 8 kHz, complexity 0, 32 kbit/s", {
        nanoseconds(|| {
            let from = next(160);
            encoder.encode(&narrow[from..from + 160], &mut packet)
        })
    }));
    let (packets, mut decoder) = (member_packets(), opus::Decoder::new(16_000).expect("a rate of Opus"));
    let mut out = [0; 1920];
    let mut number = 0;
    costs.push(("Opus decode to 16 kHz, 32 kbit/s", {
        nanoseconds(|| {
            number = (number + 1) % packets.len();
            decoder.decode(Some(&packets[number]), false, &mut out)
        })
    }));
    let mut info = 0;
    costs.push((
        "Opus packet inspected",
        nanoseconds(|| {
            info = (info + 1) % packets.len();
            opus::packet::Info::parse(black_box(&packets[info]))
        }),
    ));
    let mut bytes = [0; 320];
    costs.push(("G.711 µ-law encode", nanoseconds(|| Law::Mu.encode(black_box(&narrow[800..960]), &mut bytes))));
    costs.push(("G.711 A-law encode", nanoseconds(|| Law::A.encode(black_box(&narrow[800..960]), &mut bytes))));
    costs.push(("G.711 decode", nanoseconds(|| Law::Mu.decode(black_box(&bytes[..160]), &mut out))));
    let mut g722_encoder = g722::Encoder::new();
    costs.push((
        "G.722 encode",
        nanoseconds(|| {
            let from = next(320);
            g722_encoder.encode(&wide[from..from + 320], &mut bytes)
        }),
    ));
    let mut g722_decoder = g722::Decoder::new();
    costs.push(("G.722 decode", nanoseconds(|| g722_decoder.decode(black_box(&bytes[..160]), &mut out))));
    let (mut down, mut up) = (Down16To8::new(), Up8To16::new());
    costs.push(("16 to 8 kHz", nanoseconds(|| down.process(black_box(&wide[..320]), &mut out))));
    costs.push(("8 to 16 kHz", nanoseconds(|| up.process(black_box(&narrow[..160]), &mut out))));
    let frame: [i16; 160] = narrow[800..960].try_into().expect("20 ms");
    let mut vad = Vad::new();
    costs.push(("voice activity, 8 kHz", nanoseconds(|| vad.process(black_box(&frame)))));
    let mut concealer = plc::Concealer::new(8000);
    costs.push((
        "telephone packet concealed, and the next one",
        nanoseconds(|| {
            concealer.conceal(&mut out[..160]);
            out[160..320].copy_from_slice(&narrow[800..960]);
            concealer.good(&mut out[160..320]);
        }),
    ));
    costs
}

/// What a member's browser sends: 48 kHz, 32 kbit/s, with FEC.
fn member_packets() -> Vec<Vec<u8>> {
    let mut encoder = opus::Encoder::new(48_000, 9, 32_000).expect("a rate of Opus");
    encoder.set_fec(true, 5).expect("a plain setting");
    frames(&mut encoder, &speech(48_000 * 2, 48_000))
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Bytes(PAYLOAD_BYTES as u64));
    for (profile, _) in PROFILES {
        let mut sender = Sender::new(&material(profile)).expect("the lengths are the profile's");
        let mut sequence_number = 0u16;
        group.bench_function(format!("SRTP protect {profile:?}"), |bencher| {
            bencher.iter(|| {
                sequence_number = sequence_number.wrapping_add(1);
                let mut packet = packet(sequence_number);
                sender.protect_rtp(&mut packet, PLAIN_BYTES)
            });
        });
    }
    group.finish();
}

fn main() {
    common::run(print_ratios, bench);
}
