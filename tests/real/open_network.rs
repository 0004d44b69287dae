//! A room on the open network with a member who speaks and listens, for gateways and telephones that stand behind routers.

use std::time::{Duration, Instant};

use lab::member::{Crowd, MemberConfig, MemberEventKind, Speech};
use lab::network::{Host, Network, SERVER};
use lab::opus;
use lab::pcm::Pcm;
use lab::room::{GroupConfig, RoomConfig};
use lab::telephone::{RATE_HZ, Report, Telephone};
use serde_json::Value;

use super::{AUDIBLE_DBFS, GROUP, Judge, PATIENCE};

/// How often the member tells whom it hears.
const LEVELS_EVERY: Duration = Duration::from_millis(200);

/// The member speaks at −20 dBFS. The sign by which the gateway tells a caller to wait makes a second one of −32, with no sample
/// above 2067.
const ROOM_DBFS: f64 = -27.0;
const ROOM_SAMPLE: u16 = 3000;

/// The room and its member.
pub(crate) struct OpenNetwork {
    pub(crate) network: Network,
    pub(crate) url: String,
    member: Crowd,
    _room: Judge,
}

impl OpenNetwork {
    /// The room names these ICE servers.
    pub(crate) fn new(network: Network, ice_servers: Value) -> Self {
        let config = RoomConfig {
            listen: (SERVER, 0).into(),
            media_address: SERVER.into(),
            ice_servers,
            ..RoomConfig::new(vec![GroupConfig::open(GROUP)])
        };
        let room = network.inside(Host::Server, || Judge::start(config));
        let url = room.group_url(GROUP);
        let member = network.inside(Host::Server, || {
            let speech = Some(Speech::looped(Pcm::warble(opus::RATE_HZ, 5.0)));
            let config = MemberConfig {
                insecure: true,
                speech,
                levels_every: Some(LEVELS_EVERY),
                ..MemberConfig::new(&url, "Member")
            };
            Crowd::one(config).unwrap()
        });
        Self { network, url, member, _room: room }
    }

    /// Waits until the member hears this caller, from now on: how long that took.
    pub(crate) fn room_hears(&mut self, name: &str) -> Option<Duration> {
        let now = Instant::now();
        self.member.events.forget();
        let is_heard = |kind: &MemberEventKind| matches!(kind, MemberEventKind::Level { username, dbfs, .. } if username == name && *dbfs > AUDIBLE_DBFS);
        self.member.events.wait_for(PATIENCE, |event| is_heard(&event.kind)).map(|_| now.elapsed())
    }

    /// How long after `since` the telephone heard the room.
    pub(crate) fn heard_after(report: &Report, since: Instant) -> Duration {
        let heard = report.recording.render(since);
        let onset = heard.iter().position(|sample| sample.unsigned_abs() > ROOM_SAMPLE).expect("it was heard");
        Duration::from_secs_f64(onset as f64 / f64::from(RATE_HZ))
    }
}

/// A telephone that speaks all the time.
pub(crate) fn speak(telephone: &Telephone) {
    telephone.speak(Pcm::warble(RATE_HZ, 5.0).samples.into(), true);
}

/// Waits until the room is heard, from now on.
pub(crate) fn hears_the_room(telephone: &Telephone) -> Result<(), String> {
    while telephone.next_event(Duration::ZERO).is_some() {}
    telephone.wait_heard(PATIENCE, ROOM_DBFS).map(drop)
}
