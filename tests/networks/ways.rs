//! The ways between the gateway and Galene: found how soon, kept through silence, found again after a change of address.

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

pub(crate) const GATEWAYS: [Option<Behaviour>; 11] = [
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
    Some(SYMMETRIC.with_udp("no UDP", Udp::Blocked)),
];

const GALENES: [(Option<Behaviour>, &[Servers]); 4] = [
    (None, &[Servers::None, Servers::Stun, Servers::Turn, Servers::TurnByTcp]),
    (Some(FULL_CONE), &[Servers::None, Servers::Turn]),
    (Some(PORT_RESTRICTED), &[Servers::None, Servers::Stun, Servers::Turn]),
    (Some(SYMMETRIC), &[Servers::Turn]),
];

pub(crate) fn table() -> String {
    let mut table = format!(
        "Ways to Galene, {DELAY_MS} ms between any two: by which candidate of the gateway's, and ms until both hear each other\n\
         after the offer; after {} s of silence; after a new address of the gateway's router (* by another offer).\n\n\
         {:22} {:15} {:8} {:>11} {:>7} {:>7} {:>11} {:>7} {:>7}\n",
        SILENCE.as_secs(),
        "gateway behind",
        "Galene behind",
        "servers",
        "up",
        "silence",
        "moved",
        "down",
        "silence",
        "moved"
    );
    for (galene, all_servers) in GALENES {
        for &servers in all_servers {
            for gateway in GATEWAYS {
                let (name, galenes) = (gateway.map_or("-", |nat| nat.name), galene.map_or("-", |nat| nat.name));
                let up = Row::of(gateway, galene, servers, Way::Up, false);
                let down = Row::of(gateway, galene, servers, Way::Down, up.needs_servers);
                let (up, down) = (up.text, down.text);
                writeln!(table, "{name:22} {galenes:15} {:8} {up} {down}", servers.name()).unwrap();
            }
        }
    }
    table
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

struct Row {
    text: String,
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
        let Some(connected) = call.both_hear(PATIENCE) else {
            return Self { text: format!("{:>11} {:>7} {:>7}", "never", "-", "-"), needs_servers };
        };
        let by = call.pair().unwrap_or("?");
        let connected = format!("{by} {}{}", connected.as_millis(), if call.restarts > 0 { "*" } else { "" });
        let needs_servers = needs_servers || call.gateway.peer.asks_servers();
        call.be_silent(SILENCE);
        call.restarts = 0;
        let silence = call.heard_again();
        let moved = match gateway {
            None => "-".to_owned(),
            Some(_) => {
                call.renumber();
                call.heard_again()
            }
        };
        Self { text: format!("{connected:>11} {silence:>7} {moved:>7}"), needs_servers }
    }
}

impl Call {
    fn heard_again(&mut self) -> String {
        let heard = self.both_hear(PATIENCE).map(|after| after.as_millis().to_string());
        let mark = if self.restarts > 0 { "*" } else { "" };
        heard.map_or_else(|| "never".to_owned(), |after| format!("{after}{mark}"))
    }
}
