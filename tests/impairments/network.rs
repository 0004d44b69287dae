//! What lies between a sender and the gateway, and how the sender behaves.

use galene_sip::random::Random;
use galene_sip::wire::rtp::RtpHeader;

/// When the first packet is sent.
pub(crate) const BEGIN_MS: u64 = 1000;

/// What a network does to packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Network {
    pub(crate) loss_percent: u32,
    /// How many packets are lost at one stretch, in the mean; 0 and 1: each for itself.
    pub(crate) burst_packets: u32,
    /// Of a hundred packets within a stretch, so many get through all the same.
    pub(crate) spared_percent: u32,
    /// Each packet is delayed by anything up to this, whatever becomes of the order.
    pub(crate) jitter_ms: u32,
    pub(crate) oddity: Oddity,
    pub(crate) seed: u64,
}

/// What else may happen to a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Oddity {
    #[default]
    None,
    /// One packet in ten arrives behind its successor.
    Reordered,
    /// Every packet arrives twice, the second time 15 ms later.
    Doubled,
    /// Every two seconds the sequence numbers leap.
    SequenceJumps,
    /// Every two seconds the timestamps leap.
    TimestampJumps,
    /// Every two seconds another source with other numbers goes on.
    SourceChanges,
    /// Packets of so many milliseconds.
    PacketsOf(u64),
    /// Nothing is sent while nobody speaks (DTX, silence suppression).
    Pauses,
    /// The jitter ends with what is sent after so many milliseconds.
    CalmAfter(u64),
}

/// A packet that arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) at_ms: u64,
    /// Which piece of the speech it carries.
    pub(crate) piece: usize,
    /// All but the payload type.
    pub(crate) header: RtpHeader,
}

impl Network {
    /// How long a packet is.
    pub(crate) fn packet_ms(self) -> u64 {
        if let Oddity::PacketsOf(ms) = self.oddity { ms } else { 20 }
    }

    /// What arrives of pieces of speech, for each of which it is known whether anybody speaks.
    pub(crate) fn carry(self, speaks: &[bool], ticks_a_ms: u32) -> Vec<Delivery> {
        let mut random = Random::for_test(self.seed);
        let mut deliveries = Vec::new();
        let (mut is_losing, mut sequence) = (false, 65_500u16);
        let leap_every = (2000 / self.packet_ms()) as usize;
        for piece in 0..speaks.len() {
            // Drawn in any case, so that a higher loss loses the same packets and more.
            let (fate, mut delay_ms) = (random.below(10_000), u64::from(random.below(self.jitter_ms + 1)));
            is_losing = fate < self.chance(is_losing);
            let is_spared = self.spared_percent > 0 && random.below(100) < self.spared_percent;
            let leaps = (piece / leap_every) as u32;
            let (mut number, mut leap_ticks, mut source) = (sequence, 0, 7);
            match self.oddity {
                Oddity::SequenceJumps => number = number.wrapping_add((leaps as u16).wrapping_mul(5000)),
                Oddity::TimestampJumps => leap_ticks = leaps.wrapping_mul(1_000_000_007),
                Oddity::SourceChanges => {
                    source = 7 + leaps;
                    number = number.wrapping_add((leaps as u16).wrapping_mul(40_009));
                    leap_ticks = leaps.wrapping_mul(3_000_000_019);
                }
                // The first silent packet still says that a pause begins.
                Oddity::Pauses if !speaks[piece] && (piece == 0 || !speaks[piece - 1]) => continue,
                Oddity::CalmAfter(ms) if piece as u64 * 20 >= ms => delay_ms = 0,
                Oddity::CalmAfter(_)
                | Oddity::None
                | Oddity::Reordered
                | Oddity::Doubled
                | Oddity::PacketsOf(_)
                | Oddity::Pauses => {}
            }
            sequence = sequence.wrapping_add(1);
            let sent_ms = piece as u64 * self.packet_ms();
            // A packet leaves once its last sample is spoken.
            let at_ms = BEGIN_MS + sent_ms + self.packet_ms() - 20.min(self.packet_ms()) + delay_ms;
            let timestamp = (sent_ms as u32).wrapping_mul(ticks_a_ms).wrapping_add(leap_ticks);
            let header =
                RtpHeader { marker: piece == 0, payload_type: 0, sequence_number: number, timestamp, ssrc: source };
            if is_losing && !is_spared {
                continue;
            }
            let overtaken_ms = if self.oddity == Oddity::Reordered && piece % 10 == 9 { 25 } else { 0 };
            deliveries.push(Delivery { at_ms: at_ms + overtaken_ms, piece, header });
            if self.oddity == Oddity::Doubled {
                deliveries.push(Delivery { at_ms: at_ms + 15, piece, header });
            }
        }
        deliveries.sort_by_key(|delivery| delivery.at_ms);
        deliveries
    }

    /// The chance, of 10 000, that the next packet is within a stretch of loss (Gilbert's model, and Elliott's where some are
    /// spared).
    fn chance(self, is_losing: bool) -> u32 {
        let burst = self.burst_packets.max(1);
        let bad_percent = self.loss_percent * 100 / (100 - self.spared_percent);
        match (burst, is_losing) {
            (1, _) => bad_percent * 100,
            (_, true) => 10_000 - 10_000 / burst,
            (_, false) => 10_000 * bad_percent / (100 - bad_percent) / burst,
        }
    }
}
