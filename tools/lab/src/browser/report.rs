//! What the page tells the laboratory, and what follows from it: sounds, counts, rates.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// The name under which the page reports its own microphone.
pub(super) const MICROPHONE: &str = "";

/// One message of the page.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum PageReport {
    /// It is in the room.
    Joined,
    /// The microphone is open.
    Microphone {
        /// Whether the browser cancels echoes, suppresses noise or controls the gain.
        processed: bool,
    },
    /// A peer connection has another state.
    Connection {
        /// Whose stream it carries, [`MICROPHONE`] for the page's own.
        source: String,
        /// In WebRTC's words.
        state: String,
    },
    /// A block of sound.
    Sound {
        /// Who is heard.
        source: String,
        /// The number of its first sample, by the browser's audio clock.
        frame: u64,
        /// 16-bit samples, little endian, in base64.
        samples: String,
    },
    /// What the browser has counted so far.
    Counts(Counts),
    /// Something went wrong.
    Failed {
        /// In words.
        why: String,
    },
}

/// The browser's counters, by `getStats`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Counts {
    /// When, by the page's clock.
    pub(super) at_ms: f64,
    /// The microphone's, once it is published.
    pub(super) sent: Option<Sent>,
    /// Each stream's that is received.
    pub(super) heard: Vec<Received>,
}

/// What was sent, headers not counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Sent {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// What was received and played.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Received {
    /// Whose stream it is.
    pub(super) source: String,
    pub(super) packets: u64,
    /// Samples that were played.
    #[serde(default)]
    pub(super) samples: u64,
    /// How many of them were made up.
    #[serde(default)]
    pub(super) concealed: u64,
    /// How many of those were made up as silence.
    #[serde(default)]
    pub(super) silent_concealed: u64,
}

impl PageReport {
    /// A message as it came.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("the page says what is not understood: {error}"))
    }
}

/// The samples of a block of sound; nothing if it is no base64.
pub(super) fn samples(encoded: &str) -> Vec<i16> {
    let bytes = BASE64_STANDARD.decode(encoded).unwrap_or_default();
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// How much was sent in a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) packets_a_second: f64,
    pub(super) kbit_a_second: f64,
}

/// The mean rate from the first of these counts to the last; `None` where that is no time.
pub(super) fn sent_rate(counts: &[Counts]) -> Option<Rate> {
    let sent = |counts: &Counts| counts.sent.map(|sent| (counts.at_ms, sent));
    let (begin_ms, begin) = counts.iter().find_map(sent)?;
    let (end_ms, end) = counts.iter().rev().find_map(sent)?;
    let seconds = (end_ms - begin_ms) / 1000.0;
    (seconds > 0.0).then(|| Rate {
        packets_a_second: end.packets.saturating_sub(begin.packets) as f64 / seconds,
        kbit_a_second: end.bytes.saturating_sub(begin.bytes) as f64 * 8.0 / 1000.0 / seconds,
    })
}

/// The share of made-up samples of one source from the first of these counts to the last, those made up as silence apart, in
/// percent; `None` where nothing was played.
pub(super) fn concealed_percent(counts: &[Counts], source: &str) -> Option<f64> {
    let of = |counts: &Counts| counts.heard.iter().find(|heard| heard.source == source).cloned();
    let begin = counts.iter().find_map(of)?;
    let end = counts.iter().rev().find_map(of)?;
    let played = end.samples.saturating_sub(begin.samples);
    let made_up = |heard: &Received| heard.concealed.saturating_sub(heard.silent_concealed);
    let concealed = made_up(&end).saturating_sub(made_up(&begin));
    (played > 0).then(|| concealed as f64 * 100.0 / played as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(at_ms: f64, packets: u64, bytes: u64, heard: Received) -> Counts {
        Counts { at_ms, sent: Some(Sent { packets, bytes }), heard: vec![heard] }
    }

    fn heard(samples: u64, concealed: u64, silent_concealed: u64) -> Received {
        Received { source: "Ada".to_owned(), packets: 0, samples, concealed, silent_concealed }
    }

    #[test]
    fn what_the_page_says_is_understood() {
        let said = r#"{"kind":"sound","source":"Ada","frame":4800,"samples":"AQD+/w=="}"#;
        let Ok(PageReport::Sound { source, frame, samples: encoded }) = PageReport::parse(said) else {
            panic!("{said}");
        };
        assert_eq!((source.as_str(), frame, samples(&encoded)), ("Ada", 4800, vec![1, -2]));
        assert_eq!(PageReport::parse(r#"{"kind":"joined"}"#), Ok(PageReport::Joined));
        let processed = PageReport::parse(r#"{"kind":"microphone","processed":false}"#);
        assert_eq!(processed, Ok(PageReport::Microphone { processed: false }));
        // Before the first packet the browser leaves the counters of samples out.
        let said = r#"{"kind":"counts","at_ms":1.5,"sent":null,"heard":[{"source":"Ada","packets":0}]}"#;
        let counted = Counts { at_ms: 1.5, sent: None, heard: vec![heard(0, 0, 0)] };
        assert_eq!(PageReport::parse(said), Ok(PageReport::Counts(counted)));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert!(PageReport::parse("{}").is_err() && PageReport::parse(r#"{"kind":"novel"}"#).is_err());
        assert_eq!(samples("no base64!"), Vec::<i16>::new());
    }

    #[test]
    fn rates_are_of_the_time_between_the_counts() {
        let counts = [counts(1000.0, 10, 1000, heard(0, 0, 0)), counts(3000.0, 110, 9000, heard(48_000, 960, 480))];
        assert_eq!(sent_rate(&counts), Some(Rate { packets_a_second: 50.0, kbit_a_second: 32.0 }));
        assert_eq!(sent_rate(&counts[..1]), None);
        assert_eq!(concealed_percent(&counts, "Ada"), Some(1.0));
        assert_eq!(concealed_percent(&counts, "Bob"), None);
        assert_eq!(concealed_percent(&counts[..1], "Ada"), None);
    }
}
