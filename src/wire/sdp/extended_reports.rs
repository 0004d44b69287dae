//! Which extended reports a side of a session would get (RFC 3611 §5.1): `a=rtcp-xr:`.
//!
//! Understood are the two that this program sends: VoIP metrics, and the answer to one who only receives and would know the
//! round trip. The others (run lengths, summaries) are left out of an answer, which refuses them.

use std::fmt;

use sdp_types::{Media, Session};

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedReportRequest {
    /// `voip-metrics`: the writer would get VoIP metrics (a unilateral parameter, §5.2).
    pub voip_metrics: bool,
    /// `rcvr-rtt`: both sides take part in measuring the round trip of receivers (a collaborative one).
    pub receiver_round_trip: Option<RoundTripAnswers>,
}

/// Who answers reference times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundTripAnswers {
    /// Everyone.
    All,
    /// Only who sends sound.
    Sender,
}

impl ExtendedReportRequest {
    /// The attribute of the media line, which counts even if it names nothing; else that of the session.
    pub(super) fn read(session: &Session, media: &Media) -> Self {
        let of_media = media.get_first_attribute_value("rtcp-xr");
        let value = of_media.or_else(|| session.get_first_attribute_value("rtcp-xr"));
        value.flatten().map_or_else(Self::default, Self::parse)
    }

    fn parse(value: &str) -> Self {
        let mut request = Self::default();
        for format in value.split_ascii_whitespace() {
            // Behind a colon stands how long a block may be: ours have one answer each.
            let (name, parameter) = format.split_once('=').unwrap_or((format, ""));
            if name.eq_ignore_ascii_case("voip-metrics") {
                request.voip_metrics = true;
            } else if name.eq_ignore_ascii_case("rcvr-rtt") {
                request.receiver_round_trip = match parameter.split(':').next() {
                    Some(mode) if mode.eq_ignore_ascii_case("all") => Some(RoundTripAnswers::All),
                    Some(mode) if mode.eq_ignore_ascii_case("sender") => Some(RoundTripAnswers::Sender),
                    Some(_) | None => None,
                };
            }
        }
        request
    }

    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for ExtendedReportRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let round_trip = self.receiver_round_trip.map(|answers| match answers {
            RoundTripAnswers::All => "rcvr-rtt=all",
            RoundTripAnswers::Sender => "rcvr-rtt=sender",
        });
        let metrics = self.voip_metrics.then_some("voip-metrics");
        let (first, second) = (round_trip.or(metrics).unwrap_or_default(), metrics.filter(|_| round_trip.is_some()));
        f.write_str(first)?;
        second.map_or(Ok(()), |second| write!(f, " {second}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_send_is_understood_whatever_else_is_asked_for() {
        let read = |text| ExtendedReportRequest::parse(text);
        for (text, metrics, round_trip, written) in [
            ("voip-metrics", true, None, "voip-metrics"),
            (
                "rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics",
                true,
                Some(RoundTripAnswers::All),
                "rcvr-rtt=all voip-metrics",
            ),
            ("pkt-loss-rle=100 RCVR-RTT=Sender", false, Some(RoundTripAnswers::Sender), "rcvr-rtt=sender"),
            ("rcvr-rtt=nobody rcvr-rtt x=voip-metrics", false, None, ""),
            ("", false, None, ""),
        ] {
            let request = read(text);
            assert_eq!((request.voip_metrics, request.receiver_round_trip), (metrics, round_trip), "{text}");
            assert_eq!(request.to_string(), written);
            assert_eq!((request.is_empty(), read(written)), (written.is_empty(), request));
        }
    }
}
