//! The formats that a telephone can be spoken with in: their names in SDP, and which one is taken.
//!
//! RFC 3264 §6.1: an answer follows the order of the offer. `-sip-codecs` sets another order, and leaves out what it does not
//! name. Sources of the formats: RFC 3551 §4.5 (G.711; G.722, whose clock is written 8000 though it carries 16 kHz),
//! RFC 7587 §7 (Opus).

use crate::config::SipCodec;
use crate::media::control::{COMFORT_NOISE, EventFormat, OpusWishes, Telephone, TelephoneCodec};
use crate::wire::sdp::{AudioDescription, Codec};

/// The payload types of our own offers: the static ones, and what everybody takes for Opus.
const OPUS_PAYLOAD_TYPE: u8 = 111;

/// The payload type under which we offer telephone events; 101 is what everybody uses.
const EVENT_PAYLOAD_TYPE: u8 = 101;
const EVENT_CLOCK_HZ: u32 = 8000;

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
            let spoken = audio.codecs.iter().filter_map(|offered| Some((read(offered)?, offered)));
            spoken.filter(|(codec, _)| self.order.contains(codec))
        };
        let (codec, offered) = if self.is_wish {
            self.order.iter().find_map(|wanted| known().find(|(codec, _)| codec == wanted))?
        } else {
            known().next()?
        };
        let events = events_beside(codec, audio)
            .map(|events| EventFormat { payload_type: events.payload_type, clock_rate_hz: events.clock_rate_hz });
        let comfort_noise_payload_type = comfort_noise(audio).map_or(COMFORT_NOISE, |codec| codec.payload_type);
        let telephone = Telephone::new(codec, offered.payload_type);
        Some(Telephone { opus: wishes(offered), events, comfort_noise_payload_type, ..telephone })
    }

    /// The formats of our answer.
    pub(super) fn answer(&self, telephone: &Telephone, audio: &AudioDescription) -> Vec<Codec> {
        let mut formats = vec![write(telephone.codec, telephone.send_payload_type)];
        formats
            .extend(events_beside(telephone.codec, audio).map(|codec| events(codec.payload_type, codec.clock_rate_hz)));
        // Its clock is 8 kHz, so it goes with all but Opus (RFC 3389 §4).
        formats.extend(comfort_noise(audio).filter(|_| telephone.codec != TelephoneCodec::Opus).cloned());
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
        // Comfort noise is taken, but not asked for: telephones that pause sound worse.
        formats.push(events(EVENT_PAYLOAD_TYPE, EVENT_CLOCK_HZ));
        formats
    }
}

/// What is not said or makes no sense is as if there were nothing.
fn wishes(offered: &Codec) -> OpusWishes {
    let is_set = |name| offered.parameter(name) == Some("1");
    let bitrate_bps = offered.parameter("maxaveragebitrate").and_then(|text| text.parse().ok());
    OpusWishes {
        // RFC 7587 §6.1: 6 to 510 kbit/s.
        max_bitrate_bps: bitrate_bps.map_or(OpusWishes::NONE.max_bitrate_bps, |bps: u32| bps.clamp(6_000, 510_000)),
        constant_rate: is_set("cbr"),
        fec: is_set("useinbandfec"),
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

/// The events on the codec's own clock (RFC 4733 §2.1), else those of 8 kHz, which many telephones send with Opus too.
fn events_beside(codec: TelephoneCodec, audio: &AudioDescription) -> Option<&Codec> {
    let of_clock = |clock_rate_hz| {
        let is_wanted = move |offered: &&Codec| offered.is_telephone_event() && offered.clock_rate_hz == clock_rate_hz;
        audio.codecs.iter().find(is_wanted)
    };
    of_clock(codec.clock_rate_hz()).or_else(|| of_clock(EVENT_CLOCK_HZ))
}

fn comfort_noise(audio: &AudioDescription) -> Option<&Codec> {
    audio.codecs.iter().find(|offered| offered.is_comfort_noise() && offered.clock_rate_hz == 8000)
}

/// The sixteen keys (RFC 4733 §3.2).
fn events(payload_type: u8, clock_rate_hz: u32) -> Codec {
    Codec::new(payload_type, "telephone-event", clock_rate_hz).with_fmtp("0-15")
}
