//! What is handed over: SIP messages against a kept SIP crate, and packets from thread to thread against the standard
//! library's channel.

mod common;

use std::hint::black_box;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use common::nanoseconds;
use criterion::{Criterion, Throughput};
use ezk_sip_types::header::typed::{CSeq, CallID, Contact, FromTo, Via};
use ezk_sip_types::msg::{Line, MessageLine, PullParser};
use ezk_sip_types::{Headers, Name};
use galene_sip::media::control::MAX_PACKET_BYTES;
use galene_sip::wire::sip::Message;
use ringbuf::HeapRb;
use ringbuf::traits::{Consumer, Producer, Split};

/// As a PBX sends it.
const INVITE: &str = "INVITE sip:room@192.0.2.10:5062 SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bKPjf2c59d74-8cf6-4f9b-a1d2-1b9c1c0a4b11\r\n\
Max-Forwards: 70\r\n\
From: \"Ada Lovelace\" <sip:1001@192.0.2.1>;tag=1f2e3d4c-5b6a\r\n\
To: <sip:room@192.0.2.10>\r\n\
Contact: <sip:asterisk@192.0.2.1:5060>\r\n\
Call-ID: 7f0c2a54-3c0b-4a7e-9d0f-0e6c4a0b3f42\r\n\
CSeq: 4711 INVITE\r\n\
Allow: OPTIONS, REGISTER, SUBSCRIBE, NOTIFY, PUBLISH, INVITE, ACK, BYE, CANCEL, UPDATE, PRACK, MESSAGE, REFER\r\n\
Supported: 100rel, timer, replaces, norefersub, histinfo\r\n\
Session-Expires: 1800\r\n\
Min-SE: 90\r\n\
User-Agent: Asterisk PBX 22.1.0\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 0\r\n\r\n";

/// A G.711 packet in the slot of a ring.
type Slot = [u8; MAX_PACKET_BYTES];
const RING_SLOTS: usize = 512;

/// The message and the headers by which its transaction and dialog are found.
fn own(datagram: &[u8]) -> bool {
    let Ok(Message::Request(request)) = Message::parse(datagram) else { return false };
    let headers = &request.headers;
    let via = black_box(headers.via()).is_ok();
    let ends = black_box(headers.from()).is_ok() && black_box(headers.to()).is_ok();
    let call = black_box(headers.call_id()).is_ok() && black_box(headers.cseq()).is_ok();
    let contact = black_box(headers.contacts()).is_ok();
    via && ends && call && contact
}

fn rival(datagram: &Bytes) -> bool {
    let mut lines = PullParser::new(datagram, 0).map_while(|line| std::str::from_utf8(line.ok()?).ok());
    let first = lines.next().and_then(|line| line.parse::<MessageLine>().ok());
    let mut headers = Headers::new();
    for text in lines {
        let Ok((_, line)) = Line::parse(datagram, text) else { return false };
        headers.insert(line.name, line.value);
    }
    let via = black_box(headers.get_named::<Via>()).is_ok();
    let end = |name| black_box(headers.get::<FromTo>(name)).is_ok();
    let call = black_box(headers.get_named::<CallID>()).is_ok() && black_box(headers.get_named::<CSeq>()).is_ok();
    let contact = black_box(headers.get_named::<Contact>()).is_ok();
    first.is_some() && via && end(Name::FROM) && end(Name::TO) && call && contact
}

/// A tick's packets of fifty telephones, pushed and taken out again, a packet.
fn ring_ns() -> f64 {
    const PACKETS: usize = 50;
    let (mut producer, mut consumer) = HeapRb::<Slot>::new(RING_SLOTS).split();
    let slot = [7; MAX_PACKET_BYTES];
    let tick = nanoseconds(|| {
        for _ in 0..PACKETS {
            let _ = black_box(producer.try_push(black_box(slot)));
        }
        for _ in 0..PACKETS {
            black_box(consumer.first());
            consumer.skip(1);
        }
    });
    tick / PACKETS as f64
}

fn channel_ns() -> f64 {
    const PACKETS: usize = 50;
    let (sender, receiver) = sync_channel::<Slot>(RING_SLOTS);
    let slot = [7; MAX_PACKET_BYTES];
    let tick = nanoseconds(|| {
        for _ in 0..PACKETS {
            let _ = black_box(sender.try_send(black_box(slot)));
        }
        for _ in 0..PACKETS {
            black_box(&receiver.try_recv());
        }
    });
    tick / PACKETS as f64
}

fn print_ratios() {
    let datagram = Bytes::from_static(INVITE.as_bytes());
    assert!(own(&datagram) && rival(&datagram), "both understand the message");
    let (own, rival) = (nanoseconds(|| own(black_box(&datagram))), nanoseconds(|| rival(black_box(&datagram))));
    println!("an INVITE of {} bytes, with its Via, From, To, Call-ID, CSeq and Contact:", datagram.len());
    println!("  {own:.0} ns, ezk-sip-types {rival:.0} ns: ratio {:.2} x", own / rival);
    let (ring, channel) = (ring_ns(), channel_ns());
    println!("a packet handed over in a slot of {MAX_PACKET_BYTES} bytes, there and out again:");
    println!("  ring {ring:.0} ns, std::sync::mpsc {channel:.0} ns: ratio {:.2} x", ring / channel);
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    let datagram = Bytes::from_static(INVITE.as_bytes());
    group.throughput(Throughput::Bytes(datagram.len() as u64));
    group.bench_function("SIP INVITE", |bencher| bencher.iter(|| own(black_box(&datagram))));
    group.finish();
}

fn main() {
    common::run(print_ratios, bench);
}
