//! Two peer connections against each other, through good and bad networks.

mod rtc_link;

use std::time::Duration;

use galene_sip::rtc::peer::{Event, Failure};
use rtc_link::{CLEAR, Link, Weather, address, peer};

fn link(weather: Weather, seed: u64) -> Link {
    Link::new([peer(0, seed, false), peer(1, seed, false)], weather, seed)
}

#[test]
fn measure() {
    for loss_percent in [10,20,30] {
        for lite in [false, true] {
        let weather = Weather { loss_percent, delay_ms: 10, jitter_ms: 30 };
        let mut times: Vec<Option<Duration>> = (0..1000).map(|seed| {
            let mut link = Link::new([peer(0, seed, lite), peer(1, seed, false)], weather, seed);
            link.negotiate();
            let t = link.connect();
            if t.is_none() { println!("seed {seed}: {:?}", link.events); }
            t
        }).collect();
        times.sort();
        let failed = times.iter().filter(|t| t.is_none()).count();
        println!("{loss_percent}% lite {lite}: failed {failed}, median {:?} p90 {:?} max {:?}", times[500], times[900], times[999]);
        }
    }
}
