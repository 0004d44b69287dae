//! The networks people have, in virtual time: what becomes of a call there.

mod call;
mod galene;
mod gateway;
mod loss;
mod nat;
mod network;
mod turn_server;

use std::time::Duration;

use call::{Call, Servers, Situation, Way};
use loss::Weather;

#[test]
fn thin() {
    for way in [Way::Up, Way::Down] {
        for gateway in [None, Some(nat::FULL_CONE), Some(nat::PORT_RESTRICTED), Some(nat::SYMMETRIC)] {
            for servers in [Servers::None, Servers::Stun, Servers::Turn, Servers::TurnByTcp] {
                let weather = Weather { delay_ms: 20, ..Weather::default() };
                let mut call =
                    Call::new(Situation { gateway, galene: None, servers, way, needs_servers: false, weather, seed: 1 });
                let took = call.both_hear(Duration::from_secs(60));
                let by = call.pair();
                call.be_silent(Duration::from_secs(180));
                let silent = call.both_hear(Duration::from_secs(60));
                call.renumber();
                let back = call.both_hear(Duration::from_secs(90));
                println!("{way:?} {:?} {servers:?}: {took:?} by {by:?}, silence {silent:?}, back {back:?} by {:?} restarts {} {:?}", gateway.map(|b| b.name), call.pair(), call.restarts, call.gateway.failure);
            }
        }
    }
}
