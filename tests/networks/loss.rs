//! What a path does to datagrams: delay, jitter and hence reordering, independent loss, and loss in bursts.

use galene_sip::random::Random;
use galene_sip::time::Instant;

/// How datagrams are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loss {
    #[default]
    None,
    /// Each for itself.
    Independent { percent: u32 },
    /// Gilbert's and Elliott's two states: the good one loses nothing, the bad one `bad_percent`. A step is 20 ms, a packet of
    /// speech, so that what is sent seldom meets the same weather as speech does. Chances are of 10 000.
    GilbertElliott { p: u32, r: u32, bad_percent: u32 },
}

const STEP_US: u64 = 20_000;
/// After so many steps the state is as good as drawn anew for all chances that are used here, the rarest of which is 1 %.
const MAX_STEPS: u64 = 1000;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) loss: Loss,
    /// One way.
    pub(crate) delay_ms: u32,
    /// Each datagram takes anything up to this longer, whatever becomes of the order.
    pub(crate) jitter_ms: u32,
}

/// One direction of one path.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    is_bad: bool,
    step: u64,
}

impl Channel {
    /// Whether a datagram that is sent now is lost.
    pub(crate) fn loses(&mut self, now: Instant, loss: Loss, random: &mut Random) -> bool {
        match loss {
            Loss::None => false,
            Loss::Independent { percent } => random.below(100) < percent,
            Loss::GilbertElliott { p, r, bad_percent } => {
                let step = now.as_us() / STEP_US;
                for _ in 0..step.saturating_sub(self.step).min(MAX_STEPS) {
                    let changes = random.below(10_000) < if self.is_bad { r } else { p };
                    self.is_bad ^= changes;
                }
                self.step = step;
                self.is_bad && random.below(100) < bad_percent
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_as_long_and_as_frequent_as_the_chances_say() {
        let loss = Loss::GilbertElliott { p: 250, r: 2500, bad_percent: 80 };
        let (mut channel, mut random) = (Channel::default(), Random::for_test(1));
        let (mut lost, mut bad, mut bursts) = (0, 0, 0);
        for step in 0..100_000 {
            let was_bad = channel.is_bad;
            lost += u32::from(channel.loses(Instant::from_us(step * STEP_US), loss, &mut random));
            bad += u32::from(channel.is_bad);
            bursts += u32::from(channel.is_bad && !was_bad);
        }
        // p / (p + r) of the time, 1 / r steps at a stretch.
        assert!((8500..9700).contains(&bad) && (37..43).contains(&(bad * 10 / bursts)), "{bad} {bursts}");
        assert!((78..82).contains(&(lost * 100 / bad)), "{lost} of {bad}");
    }
}
