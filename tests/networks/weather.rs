//! How long a connection takes in bad weather: ICE, DTLS and the first packet each way.

use std::fmt::Write as _;
use std::time::Duration;

use crate::call::{Call, SERVER, Servers, Situation, Way};
use crate::loss::{Loss, Weather};
use crate::nat::{Behaviour, PORT_RESTRICTED, SYMMETRIC, Udp};

/// What continuous integration has time for; the table is of these.
pub(crate) const SEEDS: u64 = 30;
const PATIENCE: Duration = Duration::from_secs(60);

const fn gilbert_elliott(p: u32, r: u32, bad_percent: u32) -> Loss {
    Loss::GilbertElliott { p, r, bad_percent }
}

const WEATHERS: [(&str, Weather); 8] = [
    ("clear", Weather { loss: Loss::None, delay_ms: 20, jitter_ms: 0 }),
    ("far", Weather { loss: Loss::None, delay_ms: 150, jitter_ms: 0 }),
    ("reorders", Weather { loss: Loss::None, delay_ms: 20, jitter_ms: 60 }),
    ("loses 5 %", Weather { loss: Loss::Independent { percent: 5 }, delay_ms: 20, jitter_ms: 10 }),
    ("loses 10 %", Weather { loss: Loss::Independent { percent: 10 }, delay_ms: 20, jitter_ms: 10 }),
    ("loses 20 %", Weather { loss: Loss::Independent { percent: 20 }, delay_ms: 20, jitter_ms: 10 }),
    // Wireless: 9 % of the time bad, for 80 ms, and 80 % lost then.
    ("bursts", Weather { loss: gilbert_elliott(250, 2500, 80), delay_ms: 20, jitter_ms: 10 }),
    // At the edge of its reach: a third of the time bad, for 0.4 s, all lost then.
    ("long bursts", Weather { loss: gilbert_elliott(250, 500, 100), delay_ms: 20, jitter_ms: 10 }),
];

const NETWORKS: [(Option<Behaviour>, Servers); 3] = [
    (None, Servers::None),
    (Some(PORT_RESTRICTED), Servers::Stun),
    (Some(SYMMETRIC.with_udp("UDP to the server alone", Udp::To(SERVER))), Servers::Turn),
];

pub(crate) fn table(seeds: u64) -> String {
    let mut table = format!(
        "Bad weather, {seeds} seeds each: ms from the offer until both hear each other, median and worst, and how many never do\n\
         within {} s.\n\n{:24} {:8} {:12} {:>6} {:>6} {:>5} {:>6} {:>6} {:>5}\n",
        PATIENCE.as_secs(),
        "gateway behind",
        "servers",
        "weather",
        "up",
        "worst",
        "never",
        "down",
        "worst",
        "never"
    );
    for (gateway, servers) in NETWORKS {
        for (name, weather) in WEATHERS {
            let cells = [Way::Up, Way::Down].map(|way| cell(gateway, servers, way, weather, seeds));
            let gateway = gateway.map_or("-", |nat| nat.name);
            writeln!(table, "{gateway:24} {:8} {name:12} {} {}", servers.name(), cells[0], cells[1]).unwrap();
        }
    }
    table
}

fn cell(gateway: Option<Behaviour>, servers: Servers, way: Way, weather: Weather, seeds: u64) -> String {
    let times = (1..=seeds).map(|seed| {
        let needs_servers = way == Way::Down && servers != Servers::None;
        let situation = Situation { gateway, galene: None, servers, way, needs_servers, weather, seed };
        Call::new(situation).both_hear(PATIENCE).map(|took| took.as_millis())
    });
    let all: Vec<Option<u128>> = times.collect();
    let mut found: Vec<u128> = all.iter().copied().flatten().collect();
    found.sort_unstable();
    let never = all.len() - found.len();
    // Where nothing but the weather is in the way it only delays, but for one in fifty whose DTLS gives up after 30 s.
    assert!(servers == Servers::Turn || never * 50 <= all.len(), "{gateway:?} {weather:?} {all:?}");
    let show = |index: usize| found.get(index).map_or_else(|| "-".to_owned(), u128::to_string);
    format!("{:>6} {:>6} {never:>5}", show(found.len() / 2), show(found.len().saturating_sub(1)))
}
