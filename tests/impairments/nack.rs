//! Loss on the way from Galene, and a Galene that answers requests for lost packets.

use std::collections::BTreeSet;

use galene_sip::media::control::{Command, RoomCodec, Stream, StreamSetup};
use galene_sip::media::nack::{NackStats, Requester, WINDOW_PACKETS};
use galene_sip::random::Random;
use galene_sip::wire::rtp::RtpHeader;
use lab::opus::{Encoder, EncoderConfig};

use crate::network::BEGIN_MS;
use crate::path::{Ear, Heard, LOOK_PHASE_MS, OPUS, ROOM, STREAM, TICK_MS, TICK_PHASE_MS, at, engine};

/// A way down whose packets are lost, answers to requests like any other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lossy {
    pub(crate) loss_percent: u32,
    /// From the gateway to Galene and back; `None`: nothing is asked for.
    pub(crate) round_trip_ms: Option<u64>,
    pub(crate) seed: u64,
}

impl Lossy {
    /// From a member who sends no FEC, as long as nobody reports a loss on its own way up, to a telephone.
    pub(crate) fn carry(self, said_48k: &[i16]) -> (Heard, NackStats) {
        let config = EncoderConfig { fec: false, loss_percent: 0, ..EncoderConfig::default() };
        let mut encoder = Encoder::new(config).expect("libopus has memory");
        let packets: Vec<Vec<u8>> = said_48k.chunks_exact(960).map(|frame| encoder.encode(frame)).collect();
        let mut ear = Ear::default();
        let mut engine = engine(&mut ear);
        let setup = StreamSetup { key: STREAM, codecs: vec![(OPUS, RoomCodec::Opus)], always_decode: false };
        let stream = Stream::new(setup).expect("libopus has memory");
        engine.handle_command(Command::AddStream { room: ROOM, stream: Box::new(stream) }, &mut ear);

        let mut random = Random::for_test(self.seed);
        let mut is_lost = || random.below(100) < self.loss_percent;
        // What waits in the socket: when the kernel had it, and which packet.
        let mut flying: BTreeSet<(u64, usize)> = (0..packets.len())
            .filter(|_| !is_lost())
            .map(|piece| (BEGIN_MS + piece as u64 * PACKET_MS, piece))
            .collect();
        let mut requester = Requester::new();
        for now_ms in 0..BEGIN_MS + packets.len() as u64 * PACKET_MS + 2000 {
            if now_ms % TICK_MS == LOOK_PHASE_MS {
                let later = flying.split_off(&(now_ms, 0));
                for (arrival_ms, piece) in std::mem::replace(&mut flying, later) {
                    let header = header(piece);
                    requester.on_received(at(arrival_ms), &header);
                    engine.handle_stream_packet(
                        at(arrival_ms),
                        STREAM,
                        &[&header.to_bytes()[..], &packets[piece]].concat(),
                    );
                }
                if let Some(round_trip_ms) = self.round_trip_ms {
                    let mut requests = [0; WINDOW_PACKETS as usize];
                    let count = requester.poll(at(now_ms), &mut requests);
                    let pieces = requests[..count].iter().map(|number| piece(*number, now_ms));
                    flying.extend(pieces.filter(|_| !is_lost()).map(|piece| (now_ms + round_trip_ms, piece)));
                }
            }
            if now_ms % TICK_MS == TICK_PHASE_MS {
                ear.now_us = at(now_ms).as_us();
                engine.tick(at(now_ms), 0, &mut ear);
            }
        }
        engine.handle_command(Command::CloseRoom(ROOM), &mut ear);
        let concealed_percent = f64::from(ear.concealed) * 100.0 / packets.len() as f64;
        (Heard { samples: ear.heard_by_telephone(), concealed_percent }, requester.stats())
    }
}

const PACKET_MS: u64 = 20;
const FIRST_NUMBER: u16 = 65_500;

fn header(piece: usize) -> RtpHeader {
    RtpHeader {
        marker: piece == 0,
        payload_type: OPUS,
        sequence_number: FIRST_NUMBER.wrapping_add(piece as u16),
        timestamp: (piece as u32).wrapping_mul(960),
        ssrc: 7,
    }
}

/// The latest packet of that number that was sent by now.
fn piece(number: u16, now_ms: u64) -> usize {
    let sent = ((now_ms - BEGIN_MS) / PACKET_MS) as usize;
    sent - usize::from((FIRST_NUMBER.wrapping_add(sent as u16)).wrapping_sub(number))
}
