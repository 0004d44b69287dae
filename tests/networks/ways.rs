//! The ways between the gateway and Galene: found how soon, kept through silence, found again after a break and after a
//! change of address.

use std::fmt::Write as _;
use std::time::Duration;

use crate::call::{Call, SERVER, Servers, Situation, Way};
use crate::loss::Weather;
use crate::nat::{
    ADDRESS_RESTRICTED, Behaviour, FULL_CONE, HAIRPINNING, MAPS_BY_ADDRESS, PORT_RESTRICTED, SYMMETRIC, SYMMETRIC_OPEN,
    Udp,
};

/// Between any two, one way.
const DELAY_MS: u32 = 20;
/// Longer than the gateway looks for a way, and than Galene waits for one that is lost.
const PATIENCE: Duration = Duration::from_secs(90);
/// Nobody speaks, and six times over a NAT would have forgotten.
const SILENCE: Duration = Duration::from_secs(180);
/// Longer than a pair is silent without being in doubt.
const BREAK: Duration = Duration::from_secs(12);
/// ICE's and DTLS's own round trips, six of them.
const ROUND_TRIPS_MS: u128 = 6 * 2 * DELAY_MS as u128;
/// After a move or a break: a silence of 10 s, a restart, and two tries of Galene's.
const HEALED_WITHIN_MS: u128 = 14_000;

const NO_UDP: &str = "no UDP";
const GATEWAYS: [Option<Behaviour>; 11] = [
    None,
    Some(FULL_CONE),
    Some(HAIRPINNING),
    Some(ADDRESS_RESTRICTED),
    Some(PORT_RESTRICTED),
    Some(PORT_RESTRICTED.keeping_ports("port restricted, keeps")),
    Some(MAPS_BY_ADDRESS),
    Some(SYMMETRIC),
    Some(SYMMETRIC_OPEN),
    Some(SYMMETRIC.with_udp("UDP to the server alone", Udp::To(SERVER))),
    Some(SYMMETRIC.with_udp(NO_UDP, Udp::Blocked)),
];

const GALENES: [(Option<Behaviour>, &[Servers]); 4] = [
    (None, &[Servers::None, Servers::Stun, Servers::Turn, Servers::TurnByTcp]),
    (Some(FULL_CONE), &[Servers::Turn]),
    (Some(PORT_RESTRICTED), &[Servers::None, Servers::Stun, Servers::Turn]),
    (Some(SYMMETRIC), &[Servers::Turn]),
];

pub(crate) fn table() -> String {
    let mut table = format!(
        "Ways to Galene, {DELAY_MS} ms between any two: by which candidate of the gateway's, and ms until both hear each other\n\
         after the offer; after {} s of silence; after {} s without any network; after a new address of the gateway's router\n\
         (* by another offer). Up the gateway offers, down Galene does.\n\n\
         {:23} {:15} {:8} {:>10} {:>7} {:>6} {:>6} {:>10} {:>7} {:>6} {:>6}\n",
        SILENCE.as_secs(),
        BREAK.as_secs(),
        "gateway behind",
        "Galene behind",
        "servers",
        "up",
        "silence",
        "break",
        "moved",
        "down",
        "silence",
        "break",
        "moved"
    );
    for (galene, all_servers) in GALENES {
        for &servers in all_servers {
            for gateway in GATEWAYS {
                let (name, galenes) = (gateway.map_or("-", |nat| nat.name), galene.map_or("-", |nat| nat.name));
                let up = Row::of(gateway, galene, servers, Way::Up, false);
                let down = Row::of(gateway, galene, servers, Way::Down, up.needs_servers);
                let line = format!("{name:23} {galenes:15} {:8} {} {}", servers.name(), up.text(), down.text());
                up.assert_good(&line, must_connect(gateway, galene, servers), Way::Up);
                down.assert_good(&line, must_connect(gateway, galene, servers), Way::Down);
                writeln!(table, "{line}").unwrap();
            }
        }
    }
    table
}

/// Whether ICE has to find a way: one end is open and the other may send to it, or a relay can be reached, or both have a
/// mapping for everybody and a server to learn it from.
fn must_connect(gateway: Option<Behaviour>, galene: Option<Behaviour>, servers: Servers) -> bool {
    let Some(gateway) = gateway else { return true };
    match (gateway.udp, servers) {
        (Udp::Blocked, servers) => servers == Servers::TurnByTcp,
        (Udp::To(_), servers) => matches!(servers, Servers::Turn | Servers::TurnByTcp),
        (Udp::Free, Servers::Turn | Servers::TurnByTcp) => true,
        (Udp::Free, Servers::None) => galene.is_none(),
        (Udp::Free, Servers::Stun) => galene.is_none() || !gateway.is_symmetric(),
    }
}

impl Servers {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Stun => "STUN",
            Self::Turn => "TURN",
            Self::TurnByTcp => "TURN/TCP",
        }
    }
}

/// After how many ms both hear each other, and whether it took another offer.
#[derive(Clone, Copy)]
struct Heard {
    ms: Option<u128>,
    by_offer: bool,
}

impl Heard {
    fn text(self) -> String {
        let mark = if self.by_offer { "*" } else { "" };
        self.ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms}{mark}"))
    }
}

struct Row {
    by: &'static str,
    connected: Heard,
    silence: Option<Heard>,
    cut: Option<Heard>,
    moved: Option<Heard>,
    needs_servers: bool,
}

impl Row {
    fn of(
        gateway: Option<Behaviour>,
        galene: Option<Behaviour>,
        servers: Servers,
        way: Way,
        needs_servers: bool,
    ) -> Self {
        let weather = Weather { delay_ms: DELAY_MS, ..Weather::default() };
        let mut call = Call::new(Situation { gateway, galene, servers, way, needs_servers, weather, seed: 1 });
        let connected = call.heard();
        let by = call.pair().unwrap_or("");
        let mut row = Self { by, connected, silence: None, cut: None, moved: None, needs_servers };
        if connected.ms.is_none() {
            return row;
        }
        row.needs_servers |= call.gateway.peer.asks_servers();
        call.be_silent(SILENCE);
        row.silence = Some(call.heard());
        call.be_cut(BREAK);
        row.cut = Some(call.heard());
        // Until what the break has begun is over.
        call.be_silent(SILENCE);
        if gateway.is_some() {
            call.renumber();
            row.moved = Some(call.heard());
        }
        row
    }

    fn text(&self) -> String {
        let show = |heard: Option<Heard>| heard.map_or_else(|| "-".to_owned(), Heard::text);
        let connected = format!("{} {}", self.by, self.connected.text());
        format!("{connected:>10} {:>7} {:>6} {:>6}", show(self.silence), show(self.cut), show(self.moved))
    }

    /// What holds whatever the table is.
    fn assert_good(&self, line: &str, must_connect: bool, way: Way) {
        assert_eq!(self.connected.ms.is_some(), must_connect, "{line}");
        let Some(connected_ms) = self.connected.ms else { return };
        let least_ms = match (way, self.by) {
            (Way::Down, "host") => 250,
            (Way::Down, "srflx") => 700,
            (Way::Down, "prflx") => 1200,
            (Way::Down, _) => 2300,
            // We control, and nominate what answers first.
            (Way::Up, _) => 700,
        };
        assert!(connected_ms <= least_ms + ROUND_TRIPS_MS, "{line}");
        assert!(self.silence.is_some_and(|heard| heard.ms <= Some(100) && heard.ms.is_some()), "{line}");
        for heard in [self.cut, self.moved].into_iter().flatten() {
            assert!(heard.ms.is_some_and(|ms| ms <= HEALED_WITHIN_MS), "{line}");
        }
    }
}

impl Call {
    fn heard(&mut self) -> Heard {
        self.restarts = 0;
        let ms = self.both_hear(PATIENCE).map(|after| after.as_millis());
        Heard { ms, by_offer: ms.is_some() && self.restarts > 0 }
    }
}
