//! Session timers (RFC 4028): a call whose telephone has vanished ends, and one that is alive lasts for days.
//!
//! Owns: what is agreed on in an INVITE, UPDATE or their answers, when a refresh is due, and when the session has
//! lapsed. Does not own the refreshing request (`call::refresh`).
//!
//! We want [`INTERVAL_S`] of every call, also of telephones that know nothing of timers: then we refresh ourselves, and
//! any answer that does not deny the dialog is a sign of life. Nothing else would tell us: a caller who vanishes while
//! on hold sends no media that could stop.

use std::time::Duration;

use super::reply::Refusal;
use crate::time::{Deadline, Instant};
use crate::wire::sip::{Headers, Refresher, Request, Response, SessionExpires};

/// The interval that we ask for, and the longest that we agree to: RFC 4028 §4 recommends it. A caller who vanished
/// stays in the room for at most this long, and a refresh every quarter of an hour costs nobody anything.
pub(crate) const INTERVAL_S: u32 = 1800;
/// The least interval (RFC 4028 §5): whoever wants less is told so by a 422.
pub(crate) const MIN_INTERVAL_S: u32 = 90;
/// The extension's name in Supported and Require.
pub(crate) const TIMER: &str = "timer";
/// RFC 4028 §10: BYE comes this long before the session expires, or a third of a short interval.
const LAPSE_BEFORE_S: u32 = 32;

/// What a request asks for and its 2xx grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The session's lifetime without a refresh.
    interval_s: u32,
    /// By the roles of this very transaction.
    refresher: Refresher,
}

impl Terms {
    /// What the answering side makes of a request (RFC 4028 §9).
    ///
    /// # Errors
    /// 422 if the interval is too small; only for a peer that knows timers, since no other understands why.
    pub(crate) fn of_request(headers: &Headers) -> Result<Self, Refusal> {
        let is_supported = headers.knows(TIMER);
        let wanted = headers.session_expires();
        if is_supported && wanted.is_some_and(|wanted| wanted.seconds < MIN_INTERVAL_S) {
            return Err(Refusal::new(422).with("Min-SE", MIN_INTERVAL_S));
        }
        let least_s = headers.seconds("Min-SE").unwrap_or(0).max(MIN_INTERVAL_S);
        let interval_s = wanted.map_or(INTERVAL_S, |wanted| wanted.seconds.min(INTERVAL_S)).max(least_s);
        let refresher = match wanted {
            // Table 2 of RFC 4028: without support there is nobody else.
            Some(_) if !is_supported => Refresher::Uas,
            // The caller's way to us is open, ours to it may pass a NAT or a proxy that challenges.
            Some(wanted) => wanted.refresher.unwrap_or(Refresher::Uac),
            // Whoever alone wants a timer does its work: telephones that can refresh but did not ask may forget to.
            None => Refresher::Uas,
        };
        Ok(Self { interval_s, refresher })
    }

    /// Adds the headers that grant this.
    pub(crate) fn grant(self, response: &mut Response) {
        response.headers.push("Session-Expires", self.header().to_string());
        if self.refresher == Refresher::Uac {
            response.headers.push("Require", TIMER);
        }
    }

    /// Adds the headers that ask for `interval_s`. In a refresh we stay the refresher (RFC 4028 §7.4); a first INVITE
    /// leaves the choice to the answer.
    pub(crate) fn ask(interval_s: u32, is_refresh: bool, request: &mut Request) {
        let refresher = is_refresh.then_some(Refresher::Uac);
        let header = SessionExpires { seconds: interval_s, refresher };
        request.headers.push("Session-Expires", header.to_string());
        request.headers.push("Min-SE", MIN_INTERVAL_S.to_string());
    }

    /// What the 2xx to a request of ours granted, which had asked for `interval_s` (RFC 4028 §7.2): where it says
    /// nothing, we refresh.
    pub(crate) fn of_response(headers: &Headers, interval_s: u32) -> Self {
        let granted = headers.session_expires();
        Self {
            interval_s: granted.map_or(interval_s, |granted| granted.seconds).max(MIN_INTERVAL_S),
            refresher: granted.and_then(|granted| granted.refresher).unwrap_or(Refresher::Uac),
        }
    }

    const fn header(self) -> SessionExpires {
        SessionExpires { seconds: self.interval_s, refresher: Some(self.refresher) }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// It is time for us to refresh.
    Refresh,
    /// Nobody refreshed: BYE.
    Lapsed,
}

/// The timer of one call.
#[derive(Debug, Default)]
pub(crate) enum SessionTimer {
    /// Before the first 2xx.
    #[default]
    Off,
    /// We refresh.
    Refreshing {
        interval_s: u32,
        /// `None` while our request is under way.
        refresh: Option<Instant>,
        lapse: Instant,
    },
    /// The peer refreshes.
    Watching { lapse: Instant },
}

impl SessionTimer {
    /// A 2xx with these terms has just passed. `is_server` says that it was ours.
    pub(crate) fn start(&mut self, now: Instant, terms: Terms, is_server: bool) {
        let Terms { interval_s, refresher } = terms;
        let lapse = now + seconds(interval_s - LAPSE_BEFORE_S.min(interval_s / 3));
        *self = if (refresher == Refresher::Uas) == is_server {
            Self::Refreshing { interval_s, refresh: Some(now + seconds(interval_s / 2)), lapse }
        } else {
            Self::Watching { lapse }
        };
    }

    /// The interval that our refresh asks for.
    pub(crate) const fn interval_s(&self) -> u32 {
        match self {
            Self::Refreshing { interval_s, .. } => *interval_s,
            Self::Off | Self::Watching { .. } => INTERVAL_S,
        }
    }

    /// The peer's 422 to our refresh.
    pub(crate) fn raise(&mut self, least_s: u32) {
        if let Self::Refreshing { interval_s, .. } = self {
            *interval_s = (*interval_s).max(least_s);
        }
    }

    /// The next refresh comes at `at`, or, while one is under way, not before its end.
    pub(crate) fn refresh_at(&mut self, at: Option<Instant>) {
        if let Self::Refreshing { refresh, .. } = self {
            *refresh = at;
        }
    }

    /// What is due.
    pub(crate) fn due(&self, now: Instant) -> Due {
        match self {
            Self::Refreshing { lapse, .. } | Self::Watching { lapse } if now >= *lapse => Due::Lapsed,
            Self::Refreshing { refresh: Some(refresh), .. } if now >= *refresh => Due::Refresh,
            Self::Off | Self::Refreshing { .. } | Self::Watching { .. } => Due::Nothing,
        }
    }

    /// The next deadline.
    pub(crate) fn next_timeout(&self) -> Option<Deadline> {
        match self {
            Self::Off => None,
            Self::Refreshing { refresh: Some(refresh), lapse, .. } if refresh < lapse => {
                Some(Deadline::new(*refresh, "session refresh"))
            }
            Self::Refreshing { lapse, .. } | Self::Watching { lapse } => {
                Some(Deadline::new(*lapse, "the session lapses"))
            }
        }
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in lines {
            headers.push(name, *value);
        }
        headers
    }

    #[test]
    fn the_table_of_rfc_4028_says_who_refreshes() {
        for (supported, wanted, refresher) in [
            ("", "", Refresher::Uas),
            ("", "1800", Refresher::Uas),
            ("timer", "", Refresher::Uas),
            ("timer", "1800", Refresher::Uac),
            ("timer", "1800;refresher=uac", Refresher::Uac),
            ("timer", "1800;refresher=uas", Refresher::Uas),
        ] {
            let mut request = headers(&[("Supported", supported)]);
            if !wanted.is_empty() {
                request.push("Session-Expires", wanted);
            }
            assert_eq!(Terms::of_request(&request), Ok(Terms { interval_s: 1800, refresher }), "{supported} {wanted}");
        }
    }

    #[test]
    fn intervals_are_kept_between_the_least_and_ours() {
        let interval = |lines: &[(&str, &str)]| Terms::of_request(&headers(lines)).map(|terms| terms.interval_s);
        assert_eq!(interval(&[("k", "timer"), ("x", "600")]), Ok(600));
        assert_eq!(interval(&[("k", "timer"), ("x", "86400")]), Ok(1800));
        assert_eq!(interval(&[("k", "timer"), ("x", "86400"), ("Min-SE", "3600")]), Ok(3600));
        assert_eq!(interval(&[("k", "timer"), ("x", "60")]), Err(Refusal::new(422).with("Min-SE", 90)));
        // A proxy has put it in; the caller would not understand a 422.
        assert_eq!(interval(&[("x", "60")]), Ok(90));
    }

    #[test]
    fn a_refresher_refreshes_at_half_time_and_gives_up_before_the_end() {
        let mut timer = SessionTimer::default();
        let at = |s: u64| Instant::from_us(s * 1_000_000);
        timer.start(at(0), Terms { interval_s: 1800, refresher: Refresher::Uas }, true);
        assert_eq!((timer.due(at(899)), timer.due(at(900))), (Due::Nothing, Due::Refresh));
        timer.refresh_at(None);
        assert_eq!((timer.due(at(1767)), timer.due(at(1768))), (Due::Nothing, Due::Lapsed));
        timer.start(at(0), Terms { interval_s: 90, refresher: Refresher::Uac }, true);
        assert_eq!((timer.due(at(59)), timer.due(at(60))), (Due::Nothing, Due::Lapsed));
    }
}
