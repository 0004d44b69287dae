//! The networks people have, in virtual time: what becomes of a call there.
//!
//! NATs of each kind (RFC 4787), STUN and TURN, a Galene whose ICE does what pion's does, telephones and their providers, a
//! registrar; loss, bursts, delay and reordering by seeds; and the product's own machines. Each table is a snapshot, the same
//! everywhere to the byte, so that a change of behaviour shows as a diff: `GALENE_SIP_BLESS=1 cargo test --test networks`
//! writes them anew. What must hold whatever they say is asserted beside. `GALENE_SIP_LONG=1` tries ten times the seeds.

mod call;
mod galene;
mod gateway;
mod loss;
mod nat;
mod network;
mod registrar;
mod telephone;
mod turn_server;
mod ways;
mod weather;

use std::path::Path;

/// The table is as it was when somebody last looked at it.
fn assert_snapshot(name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/networks").join(name);
    if std::env::var_os("GALENE_SIP_BLESS").is_some() {
        std::fs::write(&path, table).expect("the snapshot can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines = table.lines().zip(expected.lines());
    let differing = lines.find(|(line, expected)| line != expected);
    assert!(table == expected, "{name} differs, at first in {differing:#?}; it is now:\n{table}");
}

#[test]
fn a_way_to_galene_is_found_and_kept_behind_every_nat() {
    assert_snapshot("ways.txt", &ways::table());
}

#[test]
fn a_telephone_is_heard_behind_every_nat_and_strangers_never() {
    assert_snapshot("telephones.txt", &telephone::table());
}

#[test]
fn calls_come_in_through_every_nat_that_lives_as_long_as_the_keep_alive() {
    assert_snapshot("registrar.txt", &registrar::table());
}

#[test]
fn bad_weather_delays_a_connection_and_no_more() {
    let table = weather::table(weather::SEEDS);
    assert_snapshot("weather.txt", &table);
    if std::env::var_os("GALENE_SIP_LONG").is_some() {
        println!("{}", weather::table(10 * weather::SEEDS));
    }
}
