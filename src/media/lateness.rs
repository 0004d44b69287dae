//! How late packets come, relative to the fastest of late: what a target delay rests on.
//!
//! Owns: the fastest transit of the last seconds, a forgetting histogram of lateness above it. Does not own: what is done
//! about it (`jitter` for room voices, `local_queue` for telephones).

use crate::time::Instant;

/// The histogram's resolution.
const BIN_US: u64 = 5_000;
/// Its last bin takes all that is later than 250 ms.
const BINS: usize = 51;
/// A second of 20 ms packets.
const KNOWN_PACKETS: u32 = 50;
/// Each packet weighs 1/80 at first, and half as much after 55 further ones. Jitter of which nearly every packet was late
/// is forgotten, down to the 2 % that the target allows, after 300 packets of 20 ms: 6 s.
const WEIGHT_OF_ONE_IN: u32 = 80;
/// What shares are multiplied by when a packet is counted has as many bits; with those of [`ONE`] they fit a word.
const FACTOR_BITS: u32 = 12;
const ONE: u32 = 1 << 19;
/// The fastest transit is that of the last 5 to 10 s: a route that got longer is believed after that, and a clock that
/// drifts by 100 ppm moves it by 1 ms at most.
const EPOCH_US: u64 = 5_000_000;
/// A transit that changes by more at one stroke is no jitter: the sender's clock was set.
const CLOCK_JUMP_US: i64 = 2_000_000;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Lateness {
    clock_rate_hz: u32,
    /// RTP timestamps unwrapped: the last one seen.
    unwrapped: Option<(u32, i64)>,
    fastest_us: i64,
    fastest_of_epoch_us: i64,
    epoch_began: Instant,
    /// Shares of [`ONE`].
    bins: [u32; BINS],
    packets: u32,
}

impl Lateness {
    pub(super) const fn new(clock_rate_hz: u32) -> Self {
        Self {
            clock_rate_hz,
            unwrapped: None,
            fastest_us: i64::MAX,
            fastest_of_epoch_us: i64::MAX,
            epoch_began: Instant::ZERO,
            bins: [0; BINS],
            packets: 0,
        }
    }

    /// Takes a packet's arrival into account. Returns its timestamp in microseconds on a line that does not wrap, and
    /// whether that has anything to do with those before it: if not, the measurement has begun anew.
    pub(super) fn observe(&mut self, arrival: Instant, timestamp: u32) -> (i64, bool) {
        let media_us = self.media_us(timestamp);
        let transit_us = arrival.as_us().cast_signed() - media_us;
        let continues = self.packets == 0 || (transit_us - self.fastest_us).abs() < CLOCK_JUMP_US;
        if !continues {
            *self = Self { unwrapped: self.unwrapped, ..Self::new(self.clock_rate_hz) };
        }
        if self.packets == 0 {
            (self.epoch_began, self.fastest_us, self.fastest_of_epoch_us) = (arrival, transit_us, transit_us);
        } else if arrival.as_us() >= self.epoch_began.as_us() + EPOCH_US {
            self.fastest_us = self.fastest_of_epoch_us.min(transit_us);
            (self.epoch_began, self.fastest_of_epoch_us) = (arrival, transit_us);
        } else {
            self.fastest_us = self.fastest_us.min(transit_us);
            self.fastest_of_epoch_us = self.fastest_of_epoch_us.min(transit_us);
        }
        let lateness_us = (transit_us - self.fastest_us).max(0).cast_unsigned();
        self.count((lateness_us / BIN_US) as usize);
        (media_us, continues)
    }

    /// Whether enough was seen to believe in a small target.
    pub(super) const fn is_known(&self) -> bool {
        self.packets >= KNOWN_PACKETS
    }

    /// The lateness that all but `percent_later` percent of the packets do not exceed, rounded up.
    pub(super) fn quantile_us(&self, percent_later: u32) -> u64 {
        let later_allowed = ONE / 100 * percent_later;
        let mut later = 0;
        for (bin, share) in self.bins.iter().enumerate().rev() {
            later += share;
            if later > later_allowed {
                return (bin as u64 + 1) * BIN_US;
            }
        }
        BIN_US
    }

    /// The same line for a timestamp that is near the last one observed.
    pub(super) fn place_us(&self, timestamp: u32) -> i64 {
        let Some((last, unwrapped)) = self.unwrapped else { return 0 };
        let place = unwrapped + i64::from(timestamp.wrapping_sub(last).cast_signed());
        place.wrapping_mul(1_000_000) / i64::from(self.clock_rate_hz)
    }

    /// How far behind the fastest possible play-out a packet is that plays `now`.
    pub(super) const fn delay_us(&self, now: Instant, media_us: i64) -> i64 {
        if self.packets == 0 { 0 } else { now.as_us().cast_signed() - media_us - self.fastest_us }
    }

    fn count(&mut self, bin: usize) {
        self.packets = (self.packets + 1).min(KNOWN_PACKETS.max(WEIGHT_OF_ONE_IN));
        // The first packets weigh more, so that the shares always add up to (almost) ONE.
        let weight = (1 << FACTOR_BITS) / WEIGHT_OF_ONE_IN.min(self.packets + 1);
        let keep = (1 << FACTOR_BITS) - weight;
        for share in &mut self.bins {
            *share = (*share * keep) >> FACTOR_BITS;
        }
        self.bins[bin.min(BINS - 1)] += (ONE >> FACTOR_BITS) * weight;
    }

    /// The timestamp in microseconds on a line that does not wrap.
    fn media_us(&mut self, timestamp: u32) -> i64 {
        let unwrapped = match self.unwrapped {
            Some((last, unwrapped)) => unwrapped + i64::from(timestamp.wrapping_sub(last).cast_signed()),
            None => i64::from(timestamp),
        };
        self.unwrapped = Some((timestamp, unwrapped));
        // 64 bits hold this for 2⁴³ ticks: six years at 48 kHz, were every timestamp to jump half-way round.
        unwrapped.wrapping_mul(1_000_000) / i64::from(self.clock_rate_hz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lateness: &mut Lateness, packets: u64, late_us: impl Fn(u64) -> u64) {
        for packet in 0..packets {
            let arrival = Instant::from_us(packet * 20_000 + late_us(packet));
            assert!(lateness.observe(arrival, (packet as u32).wrapping_mul(960)).1);
        }
    }

    #[test]
    fn a_clean_network_has_the_smallest_quantile() {
        let mut lateness = Lateness::new(48_000);
        assert_eq!(lateness.quantile_us(2), 5_000);
        run(&mut lateness, 1000, |packet| packet % 3 * 1000);
        assert_eq!(lateness.quantile_us(2), 5_000);
        assert_eq!(lateness.delay_us(Instant::from_us(1000 * 20_000 + 7), 1000 * 20_000), 7);
    }

    #[test]
    fn the_quantile_covers_all_but_the_given_share() {
        let mut lateness = Lateness::new(48_000);
        run(&mut lateness, 2000, |packet| if packet % 10 == 0 { 62_000 } else { 1000 });
        assert_eq!(lateness.quantile_us(2), 65_000);
        assert_eq!(lateness.quantile_us(20), 5_000);
    }

    #[test]
    fn bad_times_are_forgotten() {
        let mut lateness = Lateness::new(48_000);
        run(&mut lateness, 1500, |packet| if packet < 500 { packet % 4 * 40_000 } else { 0 });
        assert_eq!(lateness.quantile_us(2), 5_000);
    }

    #[test]
    fn a_longer_route_becomes_the_new_normal_and_a_set_clock_starts_anew() {
        let mut lateness = Lateness::new(48_000);
        run(&mut lateness, 2000, |packet| if packet < 500 { 0 } else { 50_000 });
        assert_eq!(lateness.quantile_us(2), 5_000);
        let (media_us, continues) = lateness.observe(Instant::from_us(2000 * 20_000), 5);
        assert!(!continues);
        assert_eq!(lateness.delay_us(Instant::from_us(2000 * 20_000 + 9), media_us), 9);
    }
}
