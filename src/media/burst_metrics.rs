//! How a voice's missing packets lie: alone in the gaps, or in bursts (RFC 3611 §4.7.2, appendix A.2).
//!
//! Owns: the sums over bursts and gaps since the start. Does not own: which packets are missing (`reorder`); whether they
//! were lost or came too late is all the same to a listener.
//!
//! A burst begins and ends with a missing packet, has at least two of them, and nowhere [`GAP_MINIMUM`] packets in a row that
//! are there. All else is gap. A.2 counts transitions of a chain and estimates at the end; here the same packets are summed as
//! they come, which gives the same and is exact also at the start, and at any moment: what is before the first packet and
//! behind the last one counts as there (§4.7.2).

/// So many packets in a row that are there end a burst: the value that the RFC recommends.
pub(super) const GAP_MINIMUM: u8 = 16;

/// Packets of the bursts, or of the gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Periods {
    /// How many bursts, or gaps.
    pub count: u32,
    /// Packets in them.
    pub packets: u32,
    /// Of these, the missing ones.
    pub missing: u32,
}

impl Periods {
    /// The missing ones in 1/256 of all; 255 if all are missing, 0 if there is none.
    pub fn density(&self) -> u8 {
        let density = u64::from(self.missing) * 256 / u64::from(self.packets.max(1));
        density.min(255) as u8
    }

    /// How long one is on average, in packets, rounded; 0 if there is none.
    pub const fn mean_packets(&self) -> u32 {
        match self.count {
            0 => 0,
            count => (self.packets + count / 2) / count,
        }
    }
}

/// What is missing since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bursts {
    /// The bursts.
    pub bursts: Periods,
    /// What lies between them.
    pub gaps: Periods,
    /// Stretches of missing packets that are neighbours.
    pub holes: u32,
}

impl Bursts {
    /// Packets that there should have been.
    pub const fn expected(&self) -> u32 {
        self.bursts.packets.saturating_add(self.gaps.packets)
    }

    /// Of these, the missing ones.
    pub const fn missing(&self) -> u32 {
        self.bursts.missing.saturating_add(self.gaps.missing)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct BurstMetrics {
    /// Bursts and gaps that are over.
    sums: Bursts,
    /// Gap packets since the last burst that is over.
    gap_packets: u32,
    gap_missing: u32,
    /// From a missing packet to the last one that is missing: a burst, once a second one is.
    cluster: Option<Cluster>,
    /// Packets since then that are there.
    there: u32,
}

#[derive(Clone, Copy, Debug)]
struct Cluster {
    packets: u32,
    missing: u32,
}

impl BurstMetrics {
    /// The next packet is there.
    pub(super) const fn on_there(&mut self) {
        self.there += 1;
    }

    /// So many neighbours are missing next.
    pub(super) fn on_missing(&mut self, packets: u32) {
        if packets == 0 {
            return;
        }
        self.sums.holes += u32::from(self.there > 0 || self.cluster.is_none());
        match &mut self.cluster {
            Some(cluster) if self.there < u32::from(GAP_MINIMUM) => {
                cluster.packets += self.there + packets;
                cluster.missing += packets;
            }
            Some(_) | None => {
                self.close_cluster();
                self.gap_packets += self.there;
                self.cluster = Some(Cluster { packets, missing: packets });
            }
        }
        self.there = 0;
    }

    /// The sums, as if nothing more were missing.
    pub(super) fn read(&self) -> Bursts {
        let mut ended = self.clone();
        ended.close_cluster();
        ended.gap_packets += ended.there;
        ended.close_gap();
        ended.sums
    }

    /// The cluster is followed by enough packets that are there.
    fn close_cluster(&mut self) {
        match self.cluster.take() {
            None => {}
            Some(Cluster { missing: 1, .. }) => {
                self.gap_packets += 1;
                self.gap_missing += 1;
            }
            Some(Cluster { packets, missing }) => {
                self.close_gap();
                let bursts = &mut self.sums.bursts;
                bursts.count += 1;
                bursts.packets += packets;
                bursts.missing += missing;
            }
        }
    }

    fn close_gap(&mut self) {
        if self.gap_packets > 0 {
            let gaps = &mut self.sums.gaps;
            gaps.count += 1;
            gaps.packets += std::mem::take(&mut self.gap_packets);
            gaps.missing += std::mem::take(&mut self.gap_missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `.` for twenty packets that are there, a digit for as many, `x` for one that is missing.
    fn read(packets: &str) -> Bursts {
        let mut metrics = BurstMetrics::default();
        let there = |metrics: &mut BurstMetrics, count| (0..count).for_each(|_| metrics.on_there());
        for letter in packets.chars() {
            match letter {
                '.' => there(&mut metrics, 20),
                'x' => metrics.on_missing(1),
                'X' => metrics.on_missing(2),
                digit => there(&mut metrics, digit.to_digit(16).unwrap()),
            }
        }
        metrics.read()
    }

    const fn periods(count: u32, packets: u32, missing: u32) -> Periods {
        Periods { count, packets, missing }
    }

    #[test]
    fn without_loss_all_is_one_gap_and_before_the_first_packet_there_is_none() {
        assert_eq!(read(""), Bursts::default());
        assert_eq!(read(".."), Bursts { gaps: periods(1, 40, 0), ..Bursts::default() });
    }

    #[test]
    fn what_is_lost_alone_is_in_the_gap() {
        let expected = Bursts { gaps: periods(1, 62, 2), holes: 2, ..Bursts::default() };
        assert_eq!(read(".x.x."), expected);
        // 2 × 256 / 62.
        assert_eq!((expected.gaps.density(), expected.gaps.mean_packets()), (8, 62));
    }

    #[test]
    fn two_losses_with_fewer_than_sixteen_between_them_are_a_burst() {
        let burst = read(".xfx.");
        assert_eq!((burst.bursts, burst.gaps, burst.holes), (periods(1, 17, 2), periods(2, 40, 0), 2));
        assert_eq!((burst.bursts.density(), burst.bursts.mean_packets(), burst.gaps.mean_packets()), (30, 17, 20));
        let alone = read(".xf1x.");
        assert_eq!((alone.bursts, alone.gaps), (periods(0, 0, 0), periods(1, 58, 2)));
        assert_eq!((read(".xx.").bursts, read(".xx.").holes), (periods(1, 2, 2), 1));
        assert_eq!((read(".X.").bursts, read(".X.").holes), (periods(1, 2, 2), 1));
    }

    #[test]
    fn a_call_may_begin_and_end_within_a_burst() {
        let found = read("xx.x3x");
        assert_eq!((found.bursts, found.gaps), (periods(2, 7, 4), periods(1, 20, 0)));
        assert_eq!(read("x").gaps, periods(1, 1, 1), "assumed to be followed by packets that are there");
        assert_eq!((found.expected(), found.missing()), (27, 4));
    }

    #[test]
    fn reading_changes_nothing() {
        let mut metrics = BurstMetrics::default();
        metrics.on_missing(1);
        metrics.read();
        metrics.on_there();
        metrics.on_missing(1);
        assert_eq!(metrics.read().bursts, periods(1, 3, 2));
    }

    /// Appendix A.2's chain, with the session's start taken for a loss that stood alone, and flushed by another such.
    #[derive(Default)]
    struct Chain {
        c11: u32,
        c13: u32,
        c14: u32,
        c22: u32,
        c23: u32,
        c33: u32,
        lost: u32,
        there: u32,
    }

    impl Chain {
        fn of(packets: &[bool]) -> Self {
            let mut chain = Self { lost: 1, there: 16, ..Self::default() };
            let flush = [vec![true; 16], vec![false]].concat();
            for &is_there in packets.iter().chain(&flush) {
                if is_there {
                    chain.there += 1;
                } else {
                    chain.on_missing();
                }
            }
            chain
        }

        fn on_missing(&mut self) {
            if self.there >= 16 {
                if self.lost == 1 {
                    self.c14 += 1;
                } else {
                    self.c13 += 1;
                }
                self.lost = 1;
                self.c11 += self.there;
            } else {
                self.lost += 1;
                if self.there == 0 {
                    self.c33 += 1;
                } else {
                    self.c23 += 1;
                    self.c22 += self.there - 1;
                }
            }
            self.there = 0;
        }
    }

    proptest! {
        #[test]
        fn the_sums_are_those_of_the_rfcs_chain(
            runs in proptest::collection::vec((0_usize..40, 1_usize..4), 0..60),
            tail in 0_usize..40,
        ) {
            let mut packets = Vec::new();
            for (there, missing) in runs {
                packets.extend(vec![true; there]);
                packets.extend(vec![false; missing]);
            }
            packets.extend(vec![true; tail]);
            let mut metrics = BurstMetrics::default();
            for &is_there in &packets {
                if is_there { metrics.on_there() } else { metrics.on_missing(1) }
            }
            let (found, chain) = (metrics.read(), Chain::of(&packets));
            let burst_missing = chain.c13 + chain.c23 + chain.c33;
            prop_assert_eq!(found.bursts, periods(chain.c13, burst_missing + chain.c22 + chain.c23, burst_missing));
            // Less the sixteen before, the sixteen behind, and the loss at the start.
            let (gap_there, gap_missing) = (chain.c11 - 32, chain.c14 - 1);
            prop_assert_eq!((found.gaps.packets, found.gaps.missing), (gap_there + gap_missing, gap_missing));
            prop_assert_eq!(found.expected() as usize, packets.len());
        }
    }
}
