//! One line for each call that is over: what became of its packets, and what it is likely to have sounded like.
//!
//! Owns: the calls that have ended and whose counters are still to come, from the net thread and from the mix; the words.
//! Does not own: counting (`media`), the estimate's formulas (`media::emodel`).

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::media::control::{CallerKey, CallerStats, LegKey, LegStats, TelephoneCodec, VoicePath};
use crate::time::Instant;
use crate::wire::rtcp::VoipMetrics;

/// How long counters are waited for; both threads answer within a tick or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls that wait at once: all there can be, when everybody is sent away. The oldest gives way.
const MAX_ENDINGS: usize = crate::config::MAX_CALLS;

/// What delays the telephone's speech beside the network: the packet's own length, and the room's and its far end's buffers.
const UP_DELAY: Duration = Duration::from_millis(20 + 40);

/// The same for what the telephone hears; its own buffer is taken to hold one packet more than its jitter needs.
const DOWN_DELAY: Duration = Duration::from_millis(20 + 20);

/// What is known of a call at its end.
#[derive(Debug)]
pub(super) struct Ending {
    /// For the log.
    pub(super) title: String,
    pub(super) leg: LegKey,
    pub(super) caller: CallerKey,
    /// The last one.
    pub(super) codec: TelephoneCodec,
    /// From the answer on.
    pub(super) duration: Duration,
}

#[derive(Debug)]
struct Waiting {
    ending: Ending,
    until: Instant,
    in_net: Option<LegStats>,
    in_mix: Option<CallerStats>,
}

/// The calls that wait for their counters.
#[derive(Debug, Default)]
pub(super) struct Endings(VecDeque<Waiting>);

impl Endings {
    /// A call that had been answered is over.
    pub(super) fn begin(&mut self, now: Instant, ending: Ending) {
        self.0.retain(|waiting| now < waiting.until);
        if self.0.len() >= MAX_ENDINGS {
            self.0.pop_front();
        }
        self.0.push_back(Waiting { ending, until: now + PATIENCE, in_net: None, in_mix: None });
    }

    /// The net thread's counters have come; the line if it is complete.
    pub(super) fn on_removed(&mut self, leg: LegKey, stats: LegStats) -> Option<String> {
        let at = self.0.iter().position(|waiting| waiting.ending.leg == leg)?;
        self.0[at].in_net = Some(stats);
        self.finish(at)
    }

    /// The mix's counters have come; the line if it is complete.
    pub(super) fn on_caller_removed(&mut self, caller: CallerKey, stats: CallerStats) -> Option<String> {
        let at = self.0.iter().position(|waiting| waiting.ending.caller == caller)?;
        self.0[at].in_mix = Some(stats);
        self.finish(at)
    }

    fn finish(&mut self, at: usize) -> Option<String> {
        let (in_net, in_mix) = self.0.get(at).and_then(|waiting| waiting.in_net.zip(waiting.in_mix))?;
        let ending = self.0.remove(at)?.ending;
        Some(Summary { ending: &ending, in_net, in_mix }.to_string())
    }
}

/// The line.
struct Summary<'a> {
    ending: &'a Ending,
    in_net: LegStats,
    in_mix: CallerStats,
}

impl Summary<'_> {
    fn one_way(&self) -> Duration {
        self.in_net.round_trip.unwrap_or_default() / 2
    }

    /// What the room heard of the telephone.
    fn up(&self) -> VoicePath {
        // A double makes up for a lost one in the net's count, so it is added here.
        let missing = self.in_net.lost + self.in_mix.late + self.in_mix.discarded;
        let loss_percent = percent(missing, self.in_net.received + self.in_net.lost);
        // Each hole is concealed in one go.
        let in_a_row = f64::from(missing) / f64::from(self.in_mix.concealed.max(1));
        VoicePath {
            delay: self.one_way() + UP_DELAY,
            loss_percent,
            burst_ratio: in_a_row * (1.0 - loss_percent / 100.0),
        }
    }

    /// What the telephone heard of the room, if it says anything of that.
    fn down(&self) -> Option<VoicePath> {
        let report = self.in_net.reported?;
        Some(VoicePath {
            delay: self.one_way() + DOWN_DELAY + report.jitter * 2,
            loss_percent: percent(report.lost, self.in_net.sent),
            burst_ratio: 1.0,
        })
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ending, in_net, in_mix } = self;
        let expected = in_net.received + in_net.lost;
        write!(f, "{}: {} for {} s; ", ending.title, name(ending.codec), ending.duration.as_secs())?;
        write!(f, "from the telephone {} packets, ", in_net.received)?;
        write!(f, "{:.1} % lost, {:.1} % late, ", percent(in_net.lost, expected), percent(in_mix.late, expected))?;
        write!(f, "{:.1} % concealed, ", percent(in_mix.concealed, in_mix.received + in_mix.concealed))?;
        write!(f, "jitter {:.1} ms, buffer {} ms", milliseconds(in_net.jitter), in_mix.target_ms)?;
        if in_net.received > 0 {
            write!(f, ", MOS about {:.1}", self.up().mos())?;
        }
        write!(f, "; to the telephone {} packets, ", in_net.sent)?;
        match (self.down(), in_net.reported) {
            (Some(down), Some(report)) => write!(
                f,
                "by its reports {:.1} % lost, jitter {:.1} ms, MOS about {:.1}",
                down.loss_percent,
                milliseconds(report.jitter),
                down.mos()
            )?,
            (Some(_), None) | (None, _) => write!(f, "of which it reports nothing")?,
        }
        if let Some(said) = in_net.heard_there {
            write!(f, "{}", Said(said))?;
        }
        match in_net.round_trip {
            Some(round_trip) => write!(f, "; round trip {:.0} ms", milliseconds(round_trip)),
            None => write!(f, "; round trip unknown"),
        }
    }
}

/// What the telephone itself says of what it heard (RFC 3611 §4.7).
struct Said(VoipMetrics);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_256 = |rate: u8| 100.0 * f64::from(rate) / 256.0;
        let Self(said) = self;
        write!(f, ", it heard {:.1} % lost, {:.1} % late", of_256(said.loss_rate), of_256(said.discard_rate))?;
        // Beyond these there are no scores (RFC 3611 §4.7.5).
        match said.listening_mos_x10 {
            score @ 10..=50 => write!(f, ", MOS {:.1}", f64::from(score) / 10.0),
            _ => Ok(()),
        }
    }
}

const fn name(codec: TelephoneCodec) -> &'static str {
    match codec {
        TelephoneCodec::Pcmu => "PCMU",
        TelephoneCodec::Pcma => "PCMA",
        TelephoneCodec::G722 => "G.722",
        TelephoneCodec::Opus => "Opus",
    }
}

fn percent(part: u32, whole: u32) -> f64 {
    100.0 * f64::from(part) / f64::from(whole.max(1))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::control::PeerReport;

    fn ending(number: u32) -> Ending {
        Ending {
            title: format!("call {number} (Ada)"),
            leg: LegKey(number),
            caller: CallerKey(100 + number),
            codec: TelephoneCodec::Pcma,
            duration: Duration::from_millis(20_400),
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_us(seconds * 1_000_000)
    }

    #[test]
    fn the_line_comes_when_both_threads_have_told_in_whichever_order() {
        let mut endings = Endings::default();
        endings.begin(at(1), ending(1));
        endings.begin(at(1), ending(2));
        let in_net = LegStats {
            received: 970,
            sent: 1000,
            lost: 30,
            jitter: Duration::from_micros(2100),
            reported: Some(PeerReport { lost: 10, jitter: Duration::from_millis(1) }),
            heard_there: Some(VoipMetrics {
                loss_rate: 4,
                discard_rate: 2,
                listening_mos_x10: 42,
                ..VoipMetrics::UNKNOWN
            }),
            round_trip: Some(Duration::from_millis(60)),
            ..LegStats::default()
        };
        let in_mix = CallerStats { received: 960, late: 10, concealed: 40, target_ms: 20, ..CallerStats::default() };
        assert_eq!(endings.on_removed(LegKey(7), in_net), None, "the leg of a peer connection");
        assert_eq!(endings.on_removed(LegKey(1), in_net), None);
        let expected = "call 1 (Ada): PCMA for 20 s; from the telephone 970 packets, 3.0 % lost, 1.0 % late, \
            4.0 % concealed, jitter 2.1 ms, buffer 20 ms, MOS about 4.0; to the telephone 1000 packets, by its reports \
            1.0 % lost, jitter 1.0 ms, MOS about 4.3, it heard 1.6 % lost, 0.8 % late, MOS 4.2; round trip 60 ms";
        assert_eq!(endings.on_caller_removed(CallerKey(101), in_mix).as_deref(), Some(expected));
        assert_eq!(endings.on_caller_removed(CallerKey(101), in_mix), None);
        assert_eq!(endings.on_caller_removed(CallerKey(102), CallerStats::default()), None);
        let silent = endings.on_removed(LegKey(2), LegStats::default()).unwrap();
        assert!(silent.ends_with("to the telephone 0 packets, of which it reports nothing; round trip unknown"));
        assert!(!silent.contains("MOS") && endings.0.is_empty(), "{silent}");
    }

    #[test]
    fn a_telephone_that_knows_no_score_is_not_given_one() {
        let said = |listening_mos_x10| Said(VoipMetrics { listening_mos_x10, ..VoipMetrics::UNKNOWN }).to_string();
        assert_eq!(said(10), ", it heard 0.0 % lost, 0.0 % late, MOS 1.0");
        assert_eq!([said(127), said(9), said(51)], [", it heard 0.0 % lost, 0.0 % late"; 3]);
    }

    #[test]
    fn calls_of_which_nothing_is_told_are_forgotten() {
        let mut endings = Endings::default();
        (0..200).for_each(|number| endings.begin(at(1), ending(number)));
        assert_eq!(endings.0.len(), MAX_ENDINGS);
        endings.begin(at(6), ending(200));
        assert_eq!(endings.0.len(), 1);
    }
}
