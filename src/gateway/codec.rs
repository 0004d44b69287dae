//! The codecs of a peer connection's description in the mix thread's words.

use crate::media::control::RoomCodec;
use crate::rtc::description::{Codec, Negotiated, PayloadType};

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
    negotiated.payload_types.iter().map(|PayloadType { number, codec }| (*number, room_codec(*codec))).collect()
}

/// What our up stream is sent in.
pub(super) fn of_answer(negotiated: &Negotiated) -> (u8, RoomCodec) {
    let PayloadType { number, codec } = negotiated.preferred();
    (number, room_codec(codec))
}
