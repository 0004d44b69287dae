//! Formats of an audio line: payload types, `rtpmap`, `fmtp` (RFC 8866 §6.6, §6.15, RFC 3551 §6).

use std::fmt;

use sdp_types::Media;

use super::MAX_FORMATS;

/// One format of an audio line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// 0 to 127, in the numbering of whoever wrote the description.
    pub payload_type: u8,
    /// `PCMU`, `opus` … as written; compared without regard to case.
    pub encoding: String,
    /// The clock of its RTP timestamps, which for G.722 is not its sampling rate.
    pub clock_rate_hz: u32,
    /// 1 unless said otherwise.
    pub channels: u8,
    /// The parameters as written.
    pub fmtp: Option<String>,
}

impl Codec {
    /// A format of one channel without parameters.
    pub fn new(payload_type: u8, encoding: &str, clock_rate_hz: u32) -> Self {
        Self { payload_type, encoding: encoding.to_owned(), clock_rate_hz, channels: 1, fmtp: None }
    }

    /// The same format with parameters.
    #[must_use]
    pub fn with_fmtp(mut self, fmtp: &str) -> Self {
        self.fmtp = Some(fmtp.to_owned());
        self
    }

    /// Whether it is the format of this name and clock.
    pub fn is(&self, encoding: &str, clock_rate_hz: u32) -> bool {
        self.encoding.eq_ignore_ascii_case(encoding) && self.clock_rate_hz == clock_rate_hz
    }

    /// Whether it carries key presses (RFC 4733).
    pub fn is_telephone_event(&self) -> bool {
        self.encoding.eq_ignore_ascii_case("telephone-event")
    }

    /// Whether it carries comfort noise (RFC 3389).
    pub fn is_comfort_noise(&self) -> bool {
        self.encoding.eq_ignore_ascii_case("CN")
    }

    /// The value of one `name=value` of its parameters.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.as_deref()?.split(';').find_map(|part| {
            let (key, value) = part.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The formats of a media line in the order of preference. Payload types that neither `rtpmap` nor RFC 3551
    /// explains are left out, and so are repeated ones.
    pub(super) fn read_all(media: &Media) -> Vec<Self> {
        let mut codecs: Vec<Self> = Vec::new();
        for format in media.fmt.split_ascii_whitespace().take(MAX_FORMATS) {
            let Some(payload_type) = parse_payload_type(format) else { continue };
            if codecs.iter().any(|codec| codec.payload_type == payload_type) {
                continue;
            }
            let mapped = values_for(media, "rtpmap", payload_type).find_map(|map| Self::from_rtpmap(payload_type, map));
            let Some(mut codec) = mapped.or_else(|| Self::of_static_type(payload_type)) else { continue };
            codec.fmtp = values_for(media, "fmtp", payload_type).next().map(str::to_owned);
            codecs.push(codec);
        }
        codecs
    }

    /// `opus/48000/2`.
    fn from_rtpmap(payload_type: u8, map: &str) -> Option<Self> {
        let mut parts = map.split('/');
        let (encoding, clock) = (parts.next()?.trim(), parts.next()?.trim());
        let channels = parts.next().map_or(Some(1), |text| text.trim().parse().ok())?;
        let clock_rate_hz = clock.parse().ok().filter(|&clock| clock > 0)?;
        (!encoding.is_empty() && channels > 0).then(|| Self {
            payload_type,
            encoding: encoding.to_owned(),
            clock_rate_hz,
            channels,
            fmtp: None,
        })
    }

    /// The audio formats of RFC 3551 table 4.
    fn of_static_type(payload_type: u8) -> Option<Self> {
        let (encoding, clock_rate_hz, channels) = match payload_type {
            0 => ("PCMU", 8_000, 1),
            3 => ("GSM", 8_000, 1),
            4 => ("G723", 8_000, 1),
            5 => ("DVI4", 8_000, 1),
            6 => ("DVI4", 16_000, 1),
            7 => ("LPC", 8_000, 1),
            8 => ("PCMA", 8_000, 1),
            9 => ("G722", 8_000, 1),
            10 => ("L16", 44_100, 2),
            11 => ("L16", 44_100, 1),
            12 => ("QCELP", 8_000, 1),
            13 => ("CN", 8_000, 1),
            14 => ("MPA", 90_000, 1),
            15 => ("G728", 8_000, 1),
            16 => ("DVI4", 11_025, 1),
            17 => ("DVI4", 22_050, 1),
            18 => ("G729", 8_000, 1),
            _ => return None,
        };
        Some(Self { channels, ..Self::new(payload_type, encoding, clock_rate_hz) })
    }
}

impl fmt::Display for Codec {
    /// As in `a=rtpmap:`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.payload_type, self.encoding, self.clock_rate_hz)?;
        if self.channels > 1 { write!(f, "/{}", self.channels) } else { Ok(()) }
    }
}

fn parse_payload_type(text: &str) -> Option<u8> {
    text.parse().ok().filter(|&payload_type| payload_type < 128)
}

/// What follows the payload type in attributes such as `a=fmtp:101 0-16`.
fn values_for<'a>(media: &'a Media, name: &'a str, payload_type: u8) -> impl Iterator<Item = &'a str> {
    media.get_attribute_values(name).flatten().filter_map(move |value| {
        let (number, rest) = value.trim_start().split_once([' ', '\t'])?;
        (parse_payload_type(number)? == payload_type).then(|| rest.trim())
    })
}
