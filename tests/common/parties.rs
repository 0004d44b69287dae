//! Callers and room voices as signalling builds them, for what runs the engine without threads.

use galene_sip::media::control::*;

pub(crate) use telephone::telephone;

#[path = "telephone.rs"]
mod telephone;

/// What hands a caller to a room, with everything on: it hears, it is heard, its voice goes up.
pub(crate) fn caller(room: RoomKey, number: u32, telephone: Telephone, up_codec: RoomCodec) -> [Command; 4] {
    let (key, leg) = (CallerKey(number), LegKey(number));
    let setup = CallerSetup { key, leg, telephone, ssrc: number, first_sequence: 0, first_timestamp: 0, agc: true };
    let up = up(number, telephone.codec, up_codec);
    [
        Command::AddCaller { room, caller: Box::new(Caller::new(&setup).expect("libopus has memory")) },
        Command::StartTelephone(key),
        Command::SetUp { caller: key, up: Some(Box::new(up)) },
        Command::SetPresent { caller: key, present: true },
    ]
}

/// The stream that a telephone's speech goes up by.
pub(crate) fn up(number: u32, telephone: TelephoneCodec, codec: RoomCodec) -> Up {
    let leg = LegKey(number);
    let setup =
        UpSetup { leg, telephone, codec, payload_type: 111, ssrc: number, first_sequence: 0, first_timestamp: 0 };
    Up::new(&setup).expect("libopus has memory")
}

/// What hands a room voice of Opus to a room.
pub(crate) fn voice(room: RoomKey, number: u32) -> Command {
    let setup = StreamSetup { key: StreamKey(number), codecs: vec![(111, RoomCodec::Opus)], always_decode: false };
    Command::AddStream { room, stream: Box::new(Stream::new(setup).expect("libopus has memory")) }
}
