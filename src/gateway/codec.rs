//! The codecs of a peer connection's description in the mix thread's words.

use crate::media::control::RoomCodec;
use crate::rtc::description::{Codec, Negotiated};

const fn room_codec(codec: Codec) -> RoomCodec {
    match codec {
        Codec::Opus => RoomCodec::Opus,
        Codec::G722 => RoomCodec::G722,
        Codec::Pcmu => RoomCodec::Pcmu,
        Codec::Pcma => RoomCodec::Pcma,
    }
}

/// Every payload type of a room voice that may be speech.
pub(super) fn of_offer(negotiated: &Negotiated) -> Vec<(u8, RoomCodec)> {
    negotiated.codecs.iter().map(|(payload_type, codec)| (*payload_type, room_codec(*codec))).collect()
}

/// What our up stream is sent in: the answer's first.
pub(super) fn of_answer(negotiated: &Negotiated) -> Option<(u8, RoomCodec)> {
    of_offer(negotiated).first().copied()
}
