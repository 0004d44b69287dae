//! A room whose telephones speak any codec, all in one process and in virtual time.

use std::sync::Arc;
use std::time::Duration;

use galene_sip::media::control::*;
use galene_sip::media::engine::{Engine, Sink};
use galene_sip::media::g711::Law;
use galene_sip::media::{g722, opus};
use galene_sip::time::Instant;
use galene_sip::wire::rtp::{RtpHeader, RtpPacket};
use lab::member::{HeardPacket, Recording};

pub(crate) const ROOM: RoomKey = RoomKey(1);
pub(crate) const WIDE_RATE_HZ: u32 = 16_000;
/// The payload type of every telephone's codec.
pub(crate) const SPEECH: u8 = 96;
pub(crate) const EVENTS: u8 = 101;
/// The first tick.
const BEGIN_US: u64 = 1_000_000;

/// All that left the engine.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) now: Instant,
    pub(crate) packets: Vec<(Instant, LegKey, RtpHeader, Vec<u8>)>,
    pub(crate) keys: Vec<(CallerKey, KeyPress)>,
    pub(crate) heard: Vec<(LegKey, Heard)>,
    pub(crate) lines: usize,
}

impl Sink for Outbox {
    fn packet(&mut self, leg: LegKey, packet: &[u8]) -> bool {
        let RtpPacket { header, payload } = RtpPacket::parse(packet).expect("the engine sends RTP");
        self.packets.push((self.now, leg, header, payload.to_vec()));
        true
    }

    fn heard(&mut self, leg: LegKey, heard: &Heard) {
        self.heard.push((leg, *heard));
    }

    fn event(&mut self, event: MixEvent) {
        if let MixEvent::Key { caller, press } = event {
            self.keys.push((caller, press));
        }
    }

    fn retire(&mut self, retired: Retired) {
        self.lines += usize::from(matches!(retired, Retired::Line(_)));
    }
}

/// A telephone, from its own side.
pub(crate) struct Phone {
    pub(crate) key: CallerKey,
    codec: PhoneCodec,
    clock_rate_hz: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
}

enum PhoneCodec {
    G711(Law),
    G722(Box<g722::Encoder>),
    Opus(opus::Encoder),
}

impl Phone {
    pub(crate) fn rate_hz(&self) -> u32 {
        if matches!(self.codec, PhoneCodec::G711(_)) { 8000 } else { WIDE_RATE_HZ }
    }

    /// The next packet of these samples.
    pub(crate) fn packet(&mut self, pcm: &[i16]) -> Vec<u8> {
        let mut payload = [0; 1275];
        let len = match &mut self.codec {
            PhoneCodec::G711(law) => law.encode(pcm, &mut payload),
            PhoneCodec::G722(encoder) => encoder.encode(pcm, &mut payload),
            PhoneCodec::Opus(encoder) => encoder.encode(pcm, &mut payload).expect("frames of Opus"),
        };
        let packet = self.packet_of(SPEECH, &payload[..len]);
        self.timestamp += (pcm.len() as u64 * u64::from(self.clock_rate_hz) / u64::from(self.rate_hz())) as u32;
        packet
    }

    /// The next packet with something else in it.
    pub(crate) fn packet_of(&mut self, payload_type: u8, payload: &[u8]) -> Vec<u8> {
        let (sequence_number, timestamp) = (self.sequence, self.timestamp);
        let header = RtpHeader { marker: false, payload_type, sequence_number, timestamp, ssrc: self.key.0 };
        self.sequence = self.sequence.wrapping_add(1);
        [&header.to_bytes()[..], payload].concat()
    }
}

/// The room.
pub(crate) struct World {
    engine: Engine,
    pub(crate) outbox: Outbox,
    ticks: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self { engine: Engine::new(), outbox: Outbox::default(), ticks: 0 };
        world.outbox.now = Instant::from_us(BEGIN_US);
        world.command(Command::OpenRoom(Box::new(Room::new(ROOM))));
        world
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.engine.handle_command(command, &mut self.outbox);
    }

    /// A telephone that is answered and on the air.
    pub(crate) fn add(&mut self, number: u32, telephone: Telephone) -> Phone {
        let key = CallerKey(number);
        let setup = CallerSetup {
            key,
            leg: down_leg(number),
            telephone,
            ssrc: number,
            first_sequence: 65_000,
            first_timestamp: u32::MAX - 100,
            agc: true,
        };
        let caller = Box::new(Caller::new(&setup).expect("libopus has memory"));
        self.command(Command::AddCaller { room: ROOM, caller });
        self.command(Command::StartTelephone(key));
        self.set_up(number, telephone.codec, RoomCodec::Opus);
        self.command(Command::SetPresent { caller: key, present: true });
        Self::phone(number, telephone.codec)
    }

    /// The telephone's own side of a codec.
    pub(crate) fn phone(number: u32, codec: TelephoneCodec) -> Phone {
        let coder = match codec {
            TelephoneCodec::Pcmu => PhoneCodec::G711(Law::Mu),
            TelephoneCodec::Pcma => PhoneCodec::G711(Law::A),
            TelephoneCodec::G722 => PhoneCodec::G722(Box::default()),
            TelephoneCodec::Opus => {
                let mut encoder = opus::Encoder::new(WIDE_RATE_HZ, 9, 40_000).expect("libopus has memory");
                encoder.set_fec(true, 10).expect("libopus has FEC");
                PhoneCodec::Opus(encoder)
            }
        };
        Phone {
            key: CallerKey(number),
            codec: coder,
            clock_rate_hz: codec.clock_rate_hz(),
            sequence: 0xfff0,
            timestamp: 5000,
        }
    }

    pub(crate) fn set_up(&mut self, number: u32, telephone: TelephoneCodec, codec: RoomCodec) {
        let setup = UpSetup {
            leg: up_leg(number),
            telephone,
            codec,
            payload_type: 111,
            ssrc: number,
            first_sequence: 65_530,
            first_timestamp: u32::MAX - 5000,
        };
        let up = Some(Box::new(Up::new(&setup).expect("libopus has memory")));
        self.command(Command::SetUp { caller: CallerKey(number), up });
    }

    pub(crate) fn add_voice(&mut self) {
        let setup = StreamSetup { key: StreamKey(1), codecs: vec![(111, RoomCodec::Opus)], always_decode: false };
        let stream = Box::new(Stream::new(setup).expect("libopus has memory"));
        self.command(Command::AddStream { room: ROOM, stream });
    }

    pub(crate) fn hear(&mut self, phone: &Phone, packet: &[u8]) {
        self.engine.handle_telephone_packet(self.outbox.now, phone.key, packet, &mut self.outbox);
    }

    pub(crate) fn hear_voice(&mut self, sequence_number: u16, payload: &[u8]) {
        let timestamp = u32::from(sequence_number) * 960;
        let header = RtpHeader { marker: false, payload_type: 111, sequence_number, timestamp, ssrc: 99 };
        let packet = [&header.to_bytes()[..], payload].concat();
        self.engine.handle_stream_packet(self.outbox.now, StreamKey(1), &packet);
    }

    /// 20 ms pass.
    pub(crate) fn tick(&mut self) {
        self.ticks += 1;
        self.outbox.now = Instant::from_us(BEGIN_US) + Duration::from_millis(20) * self.ticks as u32;
        self.engine.handle_timeout(self.outbox.now, &mut self.outbox);
        self.engine.tick(self.outbox.now, 0, &mut self.outbox);
    }

    /// 20 ms in which a telephone says this.
    pub(crate) fn turn(&mut self, phone: &mut Phone, pcm: &[i16]) {
        let packet = phone.packet(pcm);
        self.hear(phone, &packet);
        self.tick();
    }

    fn sent(&self, leg: LegKey) -> impl Iterator<Item = &(Instant, LegKey, RtpHeader, Vec<u8>)> {
        self.outbox.packets.iter().filter(move |packet| packet.1 == leg)
    }

    /// What went up.
    pub(crate) fn up(&self, number: u32) -> Vec<(RtpHeader, &[u8])> {
        self.sent(up_leg(number)).map(|packet| (packet.2, packet.3.as_slice())).collect()
    }

    /// What went down.
    pub(crate) fn payloads_down(&self, number: u32) -> Vec<&[u8]> {
        self.sent(down_leg(number)).map(|packet| packet.3.as_slice()).collect()
    }

    /// What a browser in the room hears of a telephone.
    pub(crate) fn heard_above(&self, number: u32) -> Vec<i16> {
        let packet = |(at, _, header, payload): &(Instant, LegKey, RtpHeader, Vec<u8>)| HeardPacket {
            at_us: at.as_us(),
            payload_type: header.payload_type,
            sequence: header.sequence_number,
            timestamp: header.timestamp,
            marker: header.marker,
            payload: Arc::from(payload.as_slice()),
        };
        let packets = self.sent(up_leg(number)).map(packet).collect();
        Recording { packets, ..Recording::default() }.sound(BEGIN_US).resampled(WIDE_RATE_HZ).samples
    }

    /// What a telephone hears, at 16 kHz or at G.711's 8.
    pub(crate) fn heard_by(&self, number: u32, codec: TelephoneCodec) -> Vec<i16> {
        let payloads = self.sent(down_leg(number)).map(|packet| packet.3.as_slice());
        let (mut decoder, mut opus) = (g722::Decoder::new(), opus::Decoder::new(WIDE_RATE_HZ).expect("memory"));
        let decode = |payload: &[u8]| {
            let mut pcm = [0; 1920];
            let samples = match codec {
                TelephoneCodec::Pcmu => Law::Mu.decode(payload, &mut pcm),
                TelephoneCodec::Pcma => Law::A.decode(payload, &mut pcm),
                TelephoneCodec::G722 => decoder.decode(payload, &mut pcm),
                TelephoneCodec::Opus => opus.decode(Some(payload), false, &mut pcm).expect("a packet of Opus"),
            };
            pcm[..samples].to_vec()
        };
        payloads.flat_map(decode).collect()
    }

    /// The headers of what a telephone was sent.
    pub(crate) fn down(&self, number: u32) -> Vec<(RtpHeader, usize)> {
        self.sent(down_leg(number)).map(|packet| (packet.2, packet.3.len())).collect()
    }
}

pub(crate) fn down_leg(number: u32) -> LegKey {
    LegKey(1000 + number)
}

pub(crate) fn up_leg(number: u32) -> LegKey {
    LegKey(2000 + number)
}

/// A whistle of one pitch.
pub(crate) fn whistle(hz: f32, rate_hz: u32, first: usize, samples: usize) -> Vec<i16> {
    let sample = |n: usize| ((n as f32 / rate_hz as f32 * hz * std::f32::consts::TAU).sin() * 6000.0) as i16;
    (first..first + samples).map(sample).collect()
}

/// How loud one pitch is within `pcm`: 1 is as loud as it was whistled.
pub(crate) fn loudness(pcm: &[i16], hz: f32, rate_hz: u32) -> f32 {
    let (mut cosine, mut sine) = (0.0, 0.0);
    for (n, &sample) in pcm.iter().enumerate() {
        let phase = n as f32 / rate_hz as f32 * hz * std::f32::consts::TAU;
        cosine += f32::from(sample) * phase.cos();
        sine += f32::from(sample) * phase.sin();
    }
    cosine.hypot(sine) * 2.0 / pcm.len().max(1) as f32 / 6000.0
}
