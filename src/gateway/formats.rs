//! The formats that a telephone can be spoken with in: their names in SDP, and which one is taken.
//!
//! RFC 3264 §6.1: an answer follows the order of the offer. `-sip-codecs` sets another order, and leaves out what it does not
//! name. Sources of the formats: RFC 3551 §4.5 (G.711; G.722, whose clock is written 8000 though it carries 16 kHz),
//! RFC 7587 §7 (Opus).

use crate::config::SipCodec;
use crate::media::control::{Telephone, TelephoneCodec};
use crate::wire::sdp::{AudioDescription, Codec};

/// The payload types of our own offers: the static ones, and what everybody takes for Opus.
const OPUS_PAYLOAD_TYPE: u8 = 111;

/// The payload type under which we offer telephone events; 101 is what everybody uses.
const EVENT_PAYLOAD_TYPE: u8 = 101;

/// What we tell of ourselves (RFC 7587 §6.1): one voice, sent in wideband; losses are repaired from copies. No packet of
/// 60 ms at this rate is longer than what waits in `media::reorder`.
const OPUS_PARAMETERS: &str =
    "minptime=10;maxaveragebitrate=96000;stereo=0;sprop-stereo=0;sprop-maxcapturerate=16000;useinbandfec=1;usedtx=0";

/// What is spoken, the preferred one first.
#[derive(Clone, Debug)]
pub(super) struct Formats {
    order: Vec<TelephoneCodec>,
    /// The order is the operator's wish, so it beats the telephone's.
    is_wish: bool,
}

impl Formats {
    /// Those of `-sip-codecs`, if it was given.
    pub(super) fn new(wish: Option<&[SipCodec]>) -> Self {
        let order = wish.unwrap_or(&SipCodec::ALL).iter().map(|codec| telephone_codec(*codec)).collect();
        Self { order, is_wish: wish.is_some() }
    }

    /// The one that is taken of what the telephone speaks.
    pub(super) fn choose(&self, audio: &AudioDescription) -> Option<Telephone> {
        let known = || {
            let spoken = audio.codecs.iter().filter_map(|offered| Some((read(offered)?, offered.payload_type)));
            spoken.filter(|(codec, _)| self.order.contains(codec))
        };
        let (codec, payload_type) = if self.is_wish {
            self.order.iter().find_map(|wanted| known().find(|(codec, _)| codec == wanted))?
        } else {
            known().next()?
        };
        Some(Telephone::new(codec, payload_type))
    }

    /// The formats of our answer.
    pub(super) fn answer(&self, telephone: &Telephone, audio: &AudioDescription) -> Vec<Codec> {
        let mut formats = vec![write(telephone.codec, telephone.send_payload_type)];
        formats.extend(audio.codecs.iter().find(|codec| is_event(codec)).map(|codec| events(codec.payload_type)));
        formats
    }

    /// The formats of our offer.
    pub(super) fn offer(&self) -> Vec<Codec> {
        let payload_type = |codec| match codec {
            TelephoneCodec::Pcmu => 0,
            TelephoneCodec::Pcma => 8,
            TelephoneCodec::G722 => 9,
            TelephoneCodec::Opus => OPUS_PAYLOAD_TYPE,
        };
        let mut formats: Vec<_> = self.order.iter().map(|codec| write(*codec, payload_type(*codec))).collect();
        formats.push(events(EVENT_PAYLOAD_TYPE));
        formats
    }
}

const fn telephone_codec(codec: SipCodec) -> TelephoneCodec {
    match codec {
        SipCodec::Opus => TelephoneCodec::Opus,
        SipCodec::G722 => TelephoneCodec::G722,
        SipCodec::Pcmu => TelephoneCodec::Pcmu,
        SipCodec::Pcma => TelephoneCodec::Pcma,
    }
}

/// Opus has always two channels in SDP (RFC 7587 §7), whatever it carries.
const fn name(codec: TelephoneCodec) -> (&'static str, u8) {
    match codec {
        TelephoneCodec::Pcmu => ("PCMU", 1),
        TelephoneCodec::Pcma => ("PCMA", 1),
        TelephoneCodec::G722 => ("G722", 1),
        TelephoneCodec::Opus => ("opus", 2),
    }
}

fn read(offered: &Codec) -> Option<TelephoneCodec> {
    let all = [TelephoneCodec::Opus, TelephoneCodec::G722, TelephoneCodec::Pcmu, TelephoneCodec::Pcma];
    all.into_iter().find(|codec| {
        let (encoding, channels) = name(*codec);
        offered.is(encoding, codec.clock_rate_hz()) && offered.channels == channels
    })
}

fn write(codec: TelephoneCodec, payload_type: u8) -> Codec {
    let (encoding, channels) = name(codec);
    let written = Codec { channels, ..Codec::new(payload_type, encoding, codec.clock_rate_hz()) };
    match codec {
        TelephoneCodec::Opus => written.with_fmtp(OPUS_PARAMETERS),
        TelephoneCodec::Pcmu | TelephoneCodec::Pcma | TelephoneCodec::G722 => written,
    }
}

fn is_event(codec: &Codec) -> bool {
    codec.is_telephone_event() && codec.clock_rate_hz == 8000
}

/// The sixteen keys (RFC 4733 §3.2).
fn events(payload_type: u8) -> Codec {
    Codec::new(payload_type, "telephone-event", 8000).with_fmtp("0-15")
}
