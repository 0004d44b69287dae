//! Between signalling and the mix threads: commands, what comes back, events, counters.

use super::{
    Bursts, Caller, CallerKey, KeyPress, LegKey, Line, Room, RoomCodec, RoomKey, Stream, StreamKey, Telephone,
    TelephoneCodec, Up,
};

/// What a [`Caller`] is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerSetup {
    /// Its name.
    pub key: CallerKey,
    /// Its sockets in the net thread.
    pub leg: LegKey,
    /// Codec and direction from SDP.
    pub telephone: Telephone,
    /// Our source towards the telephone; random.
    pub ssrc: u32,
    /// First sequence number towards the telephone; random (RFC 3550 §5.1).
    pub first_sequence: u16,
    /// First timestamp towards the telephone; random.
    pub first_timestamp: u32,
    /// Bring its speech to the usual level if it is quiet or very loud.
    pub agc: bool,
}

/// What an [`Up`] is built from: a caller's stream to Galene, as its answer settled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpSetup {
    /// Its socket in the net thread.
    pub leg: LegKey,
    /// What the caller's telephone speaks: speech comes at the rate of that.
    pub telephone: TelephoneCodec,
    /// Which of the offered codecs the answer chose.
    pub codec: RoomCodec,
    /// Its number.
    pub payload_type: u8,
    /// The source that the offer's `a=ssrc` names.
    pub ssrc: u32,
    /// Random.
    pub first_sequence: u16,
    /// Random.
    pub first_timestamp: u32,
}

/// What a [`Stream`] is built from: a room voice, as our answer settled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSetup {
    /// Its name.
    pub key: StreamKey,
    /// The payload types that may be speech, and what they mean.
    pub codecs: Vec<(u8, RoomCodec)>,
    /// Never skip a packet whose voice flag is clear: the stream is labelled `screenshare` or `video`, hence likely music.
    pub always_decode: bool,
}

/// What signalling asks of the mix thread that owns a room. Unknown keys are counted, and what was handed over comes back.
#[derive(Debug)]
pub enum Command {
    /// A new, empty room.
    OpenRoom(Box<Room>),
    /// The room and everything in it come back.
    CloseRoom(RoomKey),
    /// A telephone joins: it hears the room from [`Command::StartTelephone`] on.
    AddCaller {
        /// Where.
        room: RoomKey,
        /// With all its codecs, built by signalling.
        caller: Box<Caller>,
    },
    /// A telephone leaves.
    RemoveCaller(CallerKey),
    /// A room voice arrives.
    AddStream {
        /// Where.
        room: RoomKey,
        /// With decoder and jitter buffer, built by signalling.
        stream: Box<Stream>,
    },
    /// A room voice leaves.
    RemoveStream(StreamKey),
    /// A re-INVITE changed codec, packet time or direction.
    SetTelephone {
        /// Whose.
        caller: CallerKey,
        /// From the next packet on.
        telephone: Telephone,
        /// What the new codec needs, unless it shares that with the former one; the former line comes back.
        line: Option<Box<Line>>,
    },
    /// The 200 was sent: continuous RTP from now on, silence included.
    StartTelephone(CallerKey),
    /// The up stream is connected: from now on something goes out every 20 ms, silence if the telephone sends none.
    /// `None` ends it. A former one comes back; if it was the same stream, the new one goes on where it ended.
    SetUp {
        /// Whose.
        caller: CallerKey,
        /// Encoder and RTP numbers.
        up: Option<Box<Up>>,
    },
    /// What Galene's receiver reports say of the up stream; in-band FEC follows, since on a clean path it only costs.
    SetUpLoss {
        /// Whose.
        caller: CallerKey,
        /// Packets lost of a hundred.
        percent: u8,
    },
    /// What the telephone's receiver reports say of what it is sent; in-band FEC follows where the codec has it.
    SetDownLoss {
        /// Whose.
        caller: CallerKey,
        /// Packets lost of a hundred.
        percent: u8,
    },
    /// Is the caller in the local mix, that is, does Galene carry its stream?
    SetPresent {
        /// Who.
        caller: CallerKey,
        /// False from the start.
        present: bool,
    },
    /// The room is not there for the caller while its membership is restored: it hears a sign of that and nothing else.
    SetWaiting {
        /// Who.
        caller: CallerKey,
        /// False from the start.
        waiting: bool,
    },
    /// Muted: silence goes up, and the caller is out of the local mix.
    SetMuted {
        /// Who.
        caller: CallerKey,
        /// False from the start.
        muted: bool,
    },
}

/// An object that signalling built, on its way back to be freed there.
#[derive(Debug)]
pub enum Retired {
    /// A room, empty.
    Room(Box<Room>),
    /// A telephone.
    Caller(Box<Caller>),
    /// A room voice.
    Stream(Box<Stream>),
    /// An up stream's encoder.
    Up(Box<Up>),
    /// What a telephone's former codec needed.
    Line(Box<Line>),
}

/// What a mix thread tells signalling.
#[derive(Clone, Debug, PartialEq)]
pub enum MixEvent {
    /// The caller began or ceased to speak (voice activity with a hangover of 400 ms), or has spoken for another second.
    Talking {
        /// Who.
        caller: CallerKey,
        /// Speaks now?
        talking: bool,
        /// How loudly, as the telephone sent it: the mean of the frames with voice since the last of these events.
        level_dbfs: i8,
        /// What is added to that at present.
        gain_db: i8,
    },
    /// The caller pressed a key.
    Key {
        /// Who.
        caller: CallerKey,
        /// Which.
        press: KeyPress,
    },
    /// A room is closed; everything that was in it is free.
    RoomClosed(RoomKey),
    /// A caller is removed.
    CallerRemoved {
        /// Who.
        caller: CallerKey,
        /// What happened to its packets.
        stats: CallerStats,
    },
    /// A room voice is removed.
    StreamRemoved {
        /// Which.
        stream: StreamKey,
        /// What happened to its packets.
        stats: StreamStats,
    },
    /// A command could not be carried out: the table was full or the key unknown. What it carried is freed.
    Refused(&'static str),
}

/// Counters of one telephone in the mix, since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerStats {
    /// Packets decoded.
    pub received: u32,
    /// Packets of another payload type than the negotiated one.
    pub other_payload_type: u32,
    /// Packets that came too late: their place had been given up.
    pub late: u32,
    /// Packets that came twice, or malformed.
    pub discarded: u32,
    /// Frames made up for packets that never came.
    pub concealed: u32,
    /// Packets sent to the room.
    pub sent_up: u32,
    /// Of these, the ones that carried made silence.
    pub silence_up: u32,
    /// Packets sent to the telephone.
    pub sent_down: u32,
    /// Packets that found the ring to the net thread full.
    pub ring_full: u32,
    /// The delay that its neighbours' jitter buffer aims at now.
    pub target_ms: u32,
    /// Sound left out to bring that delay down.
    pub shortened_ms: u32,
    /// Sound played twice to bring it up.
    pub lengthened_ms: u32,
}

/// Counters of one room voice, since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Packets put into the jitter buffer.
    pub received: u32,
    /// Packets of another payload type, malformed, late or double.
    pub discarded: u32,
    /// Frames decoded.
    pub decoded: u32,
    /// Frames not decoded since they hold no voice.
    pub skipped: u32,
    /// Frames recovered from in-band FEC.
    pub recovered: u32,
    /// Frames made up.
    pub concealed: u32,
    /// The delay that the jitter buffer aims at now.
    pub target_ms: u32,
    /// Sound left out to bring the delay down.
    pub shortened_ms: u32,
    /// Sound played twice to bring the delay up.
    pub lengthened_ms: u32,
}

/// How a telephone's voice comes to the mix, since its present source began (RFC 3611 §4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The source.
    pub ssrc: u32,
    /// Its codec, hence what takes a lost packet's place.
    pub codec: TelephoneCodec,
    /// Packets that were there in their turn, and those that were not.
    pub bursts: Bursts,
    /// Of the latter, the ones that came when it was too late.
    pub late: u32,
    /// How long one packet is.
    pub packet_us: u32,
    /// How long a packet is that we send.
    pub sent_packet_ms: u8,
    /// How loud its talk is, against 0 dBm0; `None` if it has hardly spoken.
    pub talk_dbm0: Option<i8>,
    /// How loud its pauses are, likewise.
    pub noise_dbm0: Option<i8>,
    /// The delay that its neighbours' jitter buffer aims at now.
    pub target_ms: u16,
    /// The most that this buffer ever holds.
    pub capacity_ms: u16,
}
