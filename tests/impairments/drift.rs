//! An hour of a tone whose sender's clock is not the gateway's: the delay stays where it is, and nothing clicks.
//!
//! The tone falls silent for a moment every ten seconds, which shows the delay.

use std::f64::consts::TAU;
use std::thread;
use std::time::Duration;

use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::time::Instant;
use galene_sip::wire::rtp::{HEADER_BYTES, RtpHeader};
use lab::telephone::Codec;

use crate::path::{LISTENER_LEG, SPEAKER, STREAM, TICK_MS, Way, engine, room_voice};

/// No period is a whole number of samples.
const TONE_HZ: f64 = 417.0;
const AMPLITUDE: f64 = 8000.0;
const RATE_HZ: f64 = 8000.0;
const PACKET_SAMPLES: usize = 160;
const PACKET_US: f64 = 20_000.0;
const BEGIN_US: f64 = 1_000_000.0;
/// Every so often the tone falls silent for so long, with soft edges.
const SILENCE_EVERY_SAMPLES: usize = 80_000;
const SILENCE_SAMPLES: usize = 800;
const EDGE_SAMPLES: usize = 80;
/// Around a silence the error of prediction means nothing.
const AROUND_SAMPLES: usize = 600;

/// One sample of the sender's.
fn tone(n: usize) -> f64 {
    let place = n % SILENCE_EVERY_SAMPLES;
    // The silence ends with the ten seconds.
    let from_edge = (SILENCE_EVERY_SAMPLES - SILENCE_SAMPLES).saturating_sub(place).min(place);
    let level = (from_edge as f64 / EDGE_SAMPLES as f64).min(1.0);
    (n as f64 / RATE_HZ * TONE_HZ * TAU).sin() * AMPLITUDE * level
}

/// What arrives at the listening telephone, a sample each, and when the first of them was sent.
#[derive(Default)]
struct Listener {
    now_us: u64,
    first_us: Option<u64>,
    heard: Vec<i16>,
}

impl Sink for Listener {
    fn packet(&mut self, leg: LegKey, packet: &[u8]) -> bool {
        if leg == LISTENER_LEG {
            self.first_us.get_or_insert(self.now_us);
            self.heard.extend(packet[HEADER_BYTES..].iter().map(|byte| Codec::Pcmu.decode(*byte)));
        }
        true
    }
    fn event(&mut self, _: MixEvent) {}
    fn retire(&mut self, _: Retired) {}
}

/// Delays in ms at each silence, and the largest error of predicting the tone between them.
struct Verdict {
    delays_ms: Vec<f64>,
    worst_error: f64,
}

fn listen(way: Way, drift_ppm: f64, seconds: usize) -> Verdict {
    let mut listener = Listener::default();
    let mut engine = engine(&mut listener);
    if way == Way::Down {
        engine.handle_command(room_voice(RoomCodec::Pcmu), &mut listener);
    } else {
        engine.handle_command(Command::SetPresent { caller: SPEAKER, present: true }, &mut listener);
    }
    let mut packet = 0;
    for tick in 0..seconds as u64 * 1000 / TICK_MS + 100 {
        // Away from the packets' time at first, which then wanders all over the ticks.
        let now_us = 1_007_000 + tick * TICK_MS * 1000;
        loop {
            let arrival_us = (BEGIN_US + packet as f64 * PACKET_US * (1.0 + drift_ppm / 1e6)) as u64;
            if arrival_us > now_us {
                break;
            }
            send(&mut engine, &mut listener, way, packet, arrival_us);
            packet += 1;
        }
        listener.now_us = now_us;
        engine.tick(Instant::from_us(now_us), 0, &mut listener);
    }
    judge(&listener, drift_ppm)
}

fn send(engine: &mut Engine, listener: &mut Listener, way: Way, packet: usize, arrival_us: u64) {
    let first = packet * PACKET_SAMPLES;
    let header =
        RtpHeader { marker: false, payload_type: 0, sequence_number: packet as u16, timestamp: first as u32, ssrc: 7 };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend((first..first + PACKET_SAMPLES).map(|n| Codec::Pcmu.encode(tone(n) as i16)));
    let now = Instant::from_us(0) + Duration::from_micros(arrival_us);
    if way == Way::Down {
        engine.handle_stream_packet(now, STREAM, &bytes);
    } else {
        engine.handle_telephone_packet(now, SPEAKER, &bytes, listener);
    }
}

fn judge(listener: &Listener, drift_ppm: f64) -> Verdict {
    let heard = &listener.heard;
    let first_us = listener.first_us.expect("the telephone hears something") as f64;
    let is_loud = |n: usize| heard[n].unsigned_abs() > 400;
    let turn = 2.0 * (TONE_HZ / RATE_HZ * TAU).cos();
    let mut verdict = Verdict { delays_ms: Vec::new(), worst_error: 0.0 };
    let mut last_loud = 0;
    let mut steady_from = usize::MAX;
    for n in 2..heard.len() {
        if !is_loud(n) {
            continue;
        }
        if n - last_loud > SILENCE_SAMPLES / 2 {
            steady_from = n + AROUND_SAMPLES;
            let silence = (n as f64 / RATE_HZ / (1.0 + drift_ppm / 1e6) / 10.0).round() as usize;
            // The first samples heard are no end of a silence.
            if last_loud > 0 && silence > 0 {
                let said_s = (silence * SILENCE_EVERY_SAMPLES - SILENCE_SAMPLES) as f64 / RATE_HZ;
                let said_us = BEGIN_US + said_s * 1e6 * (1.0 + drift_ppm / 1e6);
                let heard_us = first_us + last_loud as f64 / RATE_HZ * 1e6;
                verdict.delays_ms.push((heard_us - said_us) / 1000.0);
            }
        }
        last_loud = n;
        let is_steady = n > steady_from && n + AROUND_SAMPLES < heard.len() && is_loud_within(heard, n);
        if is_steady {
            let error = f64::from(heard[n]) - turn * f64::from(heard[n - 1]) + f64::from(heard[n - 2]);
            verdict.worst_error = verdict.worst_error.max(error.abs());
        }
    }
    verdict
}

/// Whether the tone goes on behind this place.
fn is_loud_within(heard: &[i16], n: usize) -> bool {
    heard[n + AROUND_SAMPLES - 40..n + AROUND_SAMPLES].iter().any(|sample| sample.unsigned_abs() > 400)
}

#[test]
fn over_an_hour_a_drifting_clock_changes_no_delay_and_makes_no_click() {
    thread::scope(|scope| {
        for way in [Way::Down, Way::Local] {
            for drift_ppm in [-200.0, 200.0] {
                scope.spawn(move || {
                    let clean = listen(way, 0.0, 30);
                    let hour = listen(way, drift_ppm, 3600);
                    let delays_ms = &hour.delays_ms;
                    let (least, most) =
                        delays_ms.iter().fold((f64::MAX, f64::MIN), |(least, most), &ms| (least.min(ms), most.max(ms)));
                    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
                    let (begin, end) = (mean(&delays_ms[..60]), mean(&delays_ms[delays_ms.len() - 60..]));
                    println!(
                        "{} {drift_ppm} ppm: delay {least:.1} to {most:.1} ms, in the first ten minutes {begin:.1}, in the \
                         last {end:.1}; error of prediction {:.0}, without drift {:.0}",
                        way.name(),
                        hour.worst_error,
                        clean.worst_error
                    );
                    assert!(delays_ms.len() >= 358, "{}", delays_ms.len());
                    assert!(most - least <= 28.0 && most <= 45.0, "{least} {most}");
                    assert!((begin - end).abs() < 5.0, "{begin} {end}");
                    // That is µ-law's own error; a jump by a tenth of the tone's amplitude would be as much again.
                    assert!(hour.worst_error < 2.0 * clean.worst_error, "{} {}", hour.worst_error, clean.worst_error);
                });
            }
        }
    });
}
